// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lakerunner/lakerunner/pkg/chaos"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// roleLake is a process of everything that changes the lake: notifier, ingestor, compactor, rollup, janitor.
const roleLake = "lake"

const (
	// shortLease is how long a dead process's work waits for the next one, and hang for how long a hanging process does nothing.
	shortLease = 2 * time.Second
	hang       = 3 * time.Second
	// passages is how many passages of one point a child tells of.
	passages = 20
)

// order is a fault that a child is to run into. The zero order is none.
type order struct {
	Point string
	Kind  chaos.Kind
	Nth   int
	// Trace has the child tell of the points that it passes.
	Trace bool
	// FileLimit is how many bytes each file of the child may have, as if the disk were full then. Zero: any.
	FileLimit uint64
}

func (o order) String() string { return fmt.Sprintf("%s at %s, passage %d", o.Kind, o.Point, o.Nth) }

// runLake is the main function of a process that takes orders of faults on its standard input.
func runLake() error {
	faults := &chaos.Switch{}
	roles := stack.Roles{Notifier: true, Ingestor: true, Compactor: true, Rollup: true, Janitor: true}
	return childStack(context.Background(), roles, func(options *stack.Options, o childOptions) {
		faults.Set(injectorOf(o.Fault))
		limitFiles(o.Fault.FileLimit)
		go func() {
			for orders := json.NewDecoder(os.Stdin); ; {
				var next order
				if orders.Decode(&next) != nil {
					return
				}
				faults.Set(injectorOf(next))
				limitFiles(next.FileLimit)
				fmt.Println("armed")
			}
		}()
		options.Faults, options.Tune = poisoned{faults}, hurry
	})
}

// limitFiles has writes beyond a size fail.
func limitFiles(size uint64) {
	limit := syscall.Rlimit{Cur: size, Max: math.MaxUint64}
	if size == 0 {
		limit.Cur = limit.Max
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Fprintln(os.Stderr, "limit files:", err)
	}
}

// poison is in the keys of objects that kill the process that reads them.
const poison = "poison"

// poisoned has the process end by SIGKILL when it reads a poisoned object.
type poisoned struct{ chaos.Injector }

func (p poisoned) Before(ctx context.Context, point string) error {
	if point == "ingestor.bucket.get" && strings.Contains(chaos.Key(ctx), poison) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
	return p.Injector.Before(ctx, point)
}

func injectorOf(o order) *chaos.One {
	one := &chaos.One{
		Point: o.Point, Kind: o.Kind, Nth: o.Nth, HangFor: hang,
		Struck: func() { fmt.Println("struck") },
	}
	if o.Trace {
		one.Passed = tracer()
	}
	return one
}

// tracer tells of the first passages of each point.
func tracer() func(string) {
	var mu sync.Mutex
	passed := map[string]int{}
	return func(point string) {
		mu.Lock()
		defer mu.Unlock()
		if passed[point]++; passed[point] <= passages {
			fmt.Println("passed", point)
		}
	}
}

// hurry has everything done at once that would be done within hours.
func hurry(s *stack.ServiceSettings) {
	s.Ingestor.Lease, s.Compactor.Lease, s.Rollup.Lease, s.Janitor.Lease = shortLease, shortLease, shortLease, shortLease
	s.Ingestor.Drain, s.Compactor.Drain, s.Rollup.Drain, s.Janitor.Drain = time.Second, time.Second, time.Second, time.Second
	s.Ingestor.MaxAttempts, s.Compactor.MaxAttempts, s.Rollup.MaxAttempts = 20, 20, 20
	s.Rollup.Settle, s.Rollup.ScanInterval = 500*time.Millisecond, 500*time.Millisecond
	c := &s.Compactor
	c.FreshSegments, c.FreshWait, c.Settle, c.ScanInterval = 2, 500*time.Millisecond, time.Second, 500*time.Millisecond
	j := &s.Janitor
	j.Grace, j.Settle, j.Snapshot = time.Second, time.Second, 20*time.Second
	j.Retention, j.Sweep, j.Reconcile, j.Inspect = time.Second, time.Second, 2*time.Second, 2*time.Second
	j.Raw, j.Upkeep, j.Erase, j.Ship = time.Second, 5*time.Second, 500*time.Millisecond, 500*time.Millisecond
}

// changer is a child in the role of a lake, and the ways to talk to it.
type changer struct {
	*child
	notifier  notifierv1.NotifierServiceClient
	ingestor  ingestorv1.IngestorServiceClient
	janitor   janitorv1.JanitorServiceClient
	compactor compactorv1.CompactorServiceClient
	armed     chan struct{}
	// mortal says that one of its orders was to crash: that may happen as late as the next order is on its way.
	mortal bool

	mu     sync.Mutex
	struck bool // the fault of the last order has happened
	passed map[string]int
}

// startChanger starts a child and connects to it.
func (l *lake) startChanger(t testing.TB, o order) *changer {
	t.Helper()
	c := &changer{child: l.startChild(roleLake, childOptions{Fault: o}), armed: make(chan struct{}, 1), passed: map[string]int{}, mortal: o.Kind == chaos.Crash}
	address := make(chan string, 1)
	go c.listen(address)
	select {
	case a := <-address:
		c.connect(t, a)
	case <-c.exited:
		if o.Kind != chaos.Crash {
			t.Fatalf("the child ended before it was ready: %s", c.said())
		}
	case <-time.After(patience):
		t.Fatalf("the child does not get ready: %s", c.said())
	}
	return c
}

func (c *changer) connect(t testing.TB, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c.notifier, c.ingestor = notifierv1.NewNotifierServiceClient(conn), ingestorv1.NewIngestorServiceClient(conn)
	c.janitor, c.compactor = janitorv1.NewJanitorServiceClient(conn), compactorv1.NewCompactorServiceClient(conn)
}

// listen hears what the child says.
func (c *changer) listen(address chan<- string) {
	for line := range c.lines {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "ready":
			address <- rest
		case "armed":
			c.armed <- struct{}{}
		case "struck":
			c.mu.Lock()
			c.struck = true
			c.mu.Unlock()
		case "passed":
			c.mu.Lock()
			c.passed[rest]++
			c.mu.Unlock()
		}
	}
}

// give has the child run into a fault from now on.
func (c *changer) give(t testing.TB, o order) {
	t.Helper()
	c.mu.Lock()
	c.struck = false
	c.mu.Unlock()
	c.mortal = c.mortal || o.Kind == chaos.Crash
	line, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.stdin, string(line)+"\n"); err != nil {
		t.Fatalf("the child does not take orders: %v: %s", err, c.said())
	}
	select {
	case <-c.armed:
	case <-c.exited:
	case <-time.After(patience):
		t.Fatalf("the child does not hear: %s", c.said())
	}
}

// points are the points that it told of, with the number of passages.
func (c *changer) points() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.passed)
}

// hit reports whether the fault has happened.
func (c *changer) hit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.struck
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
