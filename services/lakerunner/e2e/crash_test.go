// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index"
	nouns "github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// crashLease is how long a dead ingestor's work waits for the next one in these tests.
const crashLease = 2 * time.Second

// runIngest is the main function of an ingestor that reports the checkpoints it passes, and dies at one.
func runIngest() error {
	return childStack(context.Background(), stack.Roles{Ingestor: true}, func(options *stack.Options, o childOptions) {
		passed := map[string]int{}
		options.Tune = func(s *stack.ServiceSettings) { s.Ingestor.Lease = crashLease }
		options.Checkpoint = checkpoint(func(name string) {
			passed[name]++
			fmt.Println("checkpoint", name)
			if name == o.KillAt && passed[name] == o.KillNth {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // the signal is on its way
			}
		})
	})
}

// checkpoint lets one goroutine at a time pass.
func checkpoint(pass func(string)) func(string) {
	turn := make(chan struct{}, 1)
	return func(name string) {
		turn <- struct{}{}
		pass(name)
		<-turn
	}
}

// TestCrash kills the ingestor between any two steps of ingest, starts another one, and finds every row once.
//
// A sample of the matrix runs always; LAKERUNNER_TORTURE=1 runs every checkpoint with ten seeds.
func TestCrash(t *testing.T) {
	t.Parallel()
	c := &crashes{lake: newLake(t, lakeOptions{roles: stack.Roles{Notifier: true, Frontend: true, Worker: true}})}
	c.open(t)
	points := c.discover(t)
	seeds, every := 1, max(1, len(points)/4)
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		seeds, every = 10, 1
	}
	for i, point := range points {
		if i%every != 0 && point != points[len(points)-1] {
			continue
		}
		for seed := range seeds {
			t.Run(fmt.Sprintf("killed at %s, seed %d", point, seed), func(t *testing.T) { c.run(t, point, seed) })
		}
	}
}

// crashes is the matrix's lake. Each run has a stretch of event time of its own.
type crashes struct {
	lake  *lake
	index *index.Index // there is no ingestor that could be asked for receipts
	base  time.Time    // the runs go back in time from here
	runs  int
}

func (c *crashes) open(t *testing.T) {
	t.Helper()
	opened, err := index.Open(t.Context(), index.Config{URL: c.lake.database, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	c.index, c.base = opened, lately()
	t.Cleanup(opened.Close)
}

// receipts are those of the run at hand.
func (c *crashes) receipts() ([]nouns.Receipt, error) {
	receipts, _, err := c.index.Receipts(c.lake.t.Context(), index.ReceiptQuery{Organization: "default", KeyPrefix: c.prefix(), PageSize: 1000})
	return receipts, err
}

// discover runs one ingest unharmed and notes the checkpoints in the order of passage.
func (c *crashes) discover(t *testing.T) []string {
	t.Helper()
	objects, start, end := c.put(t, 1000)
	ingestor := c.lake.startChild(roleIngest, childOptions{})
	c.verify(t, objects, start, end)
	ingestor.stop()
	var points []string
	for line := range ingestor.lines {
		if name, ok := strings.CutPrefix(line, "checkpoint "); ok && !slices.Contains(points, name) {
			points = append(points, name)
		}
	}
	if len(points) < 3 {
		t.Fatalf("the ingestor passed only the checkpoints %q: %s", points, ingestor.said())
	}
	return points
}

// run kills an ingestor at a checkpoint and lets another one finish.
func (c *crashes) run(t *testing.T, point string, seed int) {
	t.Helper()
	objects, start, end := c.put(t, uint64(seed))
	doomed := c.lake.startChild(roleIngest, childOptions{KillAt: point, KillNth: 1 + seed%2})
	go func() {
		for range doomed.lines { // it must not wait for a reader
		}
	}()
	c.awaitDeath(t, doomed, objects)
	next := c.lake.startChild(roleIngest, childOptions{})
	c.verify(t, objects, start, end)
	next.stop()
}

// awaitDeath waits until the ingestor died, or has done everything without passing its point so often.
func (c *crashes) awaitDeath(t *testing.T, doomed *child, objects []sample.Object) {
	t.Helper()
	eventually(t, func() error {
		select {
		case <-doomed.exited:
			if !doomed.killed() {
				return fmt.Errorf("the ingestor ended by itself: %s", doomed.said())
			}
			return nil
		default:
		}
		pending, err := c.pending(objects)
		if err != nil {
			return err
		}
		if pending == 0 {
			doomed.kill()
			return nil
		}
		return fmt.Errorf("the ingestor lives, %d objects are pending", pending)
	})
}

// put makes the next run's objects.
func (c *crashes) put(t *testing.T, seed uint64) (objects []sample.Object, start, end time.Time) {
	t.Helper()
	c.runs++
	end = c.base.Add(-time.Duration(2*c.runs) * time.Hour)
	objects = makeSample(t, sample.Options{
		Seed: 100*uint64(c.runs) + seed, Collector: fmt.Sprintf("run%d", c.runs), End: end, Length: 90 * time.Minute, Lines: 600, Objects: 3,
	})
	for _, o := range objects {
		c.lake.put(o.Key, o.Body)
	}
	c.awaitKnown(t, objects)
	return objects, end.Add(-90 * time.Minute), end
}

func (c *crashes) prefix() string { return fmt.Sprintf("otel-raw/default/run%d/", c.runs) }

// awaitKnown waits for the receipts, so that the ingestor finds all objects at once.
func (c *crashes) awaitKnown(t *testing.T, objects []sample.Object) {
	t.Helper()
	eventually(t, func() error {
		receipts, err := c.receipts()
		if err == nil && len(receipts) != len(objects) {
			err = fmt.Errorf("%d receipts, want %d", len(receipts), len(objects))
		}
		return err
	})
}

// pending counts the objects that are not done.
func (c *crashes) pending(objects []sample.Object) (int, error) {
	pending := len(objects)
	receipts, err := c.receipts()
	for _, r := range receipts {
		if r.State == nouns.ReceiptDone {
			pending--
		}
	}
	return pending, err
}

// verify waits until everything is ingested, and finds each row once.
func (c *crashes) verify(t *testing.T, objects []sample.Object, start, end time.Time) {
	t.Helper()
	eventually(t, func() error {
		pending, err := c.pending(objects)
		if err == nil && pending > 0 {
			err = fmt.Errorf("%d objects are pending", pending)
		}
		return err
	})
	receipts, err := c.receipts()
	if err != nil {
		t.Fatal(err)
	}
	var out int64
	for _, r := range receipts {
		out += r.RowsOut
	}
	want := hashOfSample(objects...)
	if len(receipts) != len(objects) || out != int64(want.rows) {
		t.Errorf("%d receipts account for %d rows, want %d for %d", len(receipts), out, len(objects), want.rows)
	}
	if got := hashOf(c.lake.lines("default", everything, start, end)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := c.lake.count("default", "sum(count_over_time("+everything+"[2h]))", end); got != int64(want.rows) {
		t.Errorf("counted %d, want %d", got, want.rows)
	}
}
