// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/chaos"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	nouns "github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestTwoWorkersOnOneLapsedLease has a worker hang with a lease in its hands until another one has taken over, and wake up then.
func TestTwoWorkersOnOneLapsedLease(t *testing.T) {
	t.Parallel()
	n := newLane(t)
	for _, point := range []string{"ingestor.bucket.put", "compactor.bucket.put"} {
		if happened, _ := n.story(order{Point: point, Kind: chaos.Hang, Nth: 1}); !happened {
			t.Errorf("nobody hung at %s", point)
		}
	}
	n.close()
}

// TestClocksAnHourApart has the workers' clocks an hour behind the database's, and an hour ahead.
func TestClocksAnHourApart(t *testing.T) {
	t.Parallel()
	for name, shift := range map[string]string{"behind": "1 hour", "ahead": "-1 hour"} {
		t.Run("workers are "+name, func(t *testing.T) {
			t.Parallel()
			n := newLaneOn(t, lakeOptions{database: shiftedDatabase(t, shift)})
			if now, err := n.index.Now(t.Context()); err != nil || time.Since(now).Abs() < 50*time.Minute {
				t.Fatalf("the database says it is %s, %v", now, err)
			}
			if happened, _ := n.story(order{Point: "ingestor.bucket.put", Kind: chaos.Crash, Nth: 1}); !happened {
				t.Error("nobody died")
			}
			n.close()
		})
	}
}

// shiftedDatabase makes an empty database whose clock is another one than the machine's.
func shiftedDatabase(t *testing.T, shift string) string {
	t.Helper()
	u, err := url.Parse(indextest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	admin := *u
	admin.Path = "/postgres"
	name := "shifted_" + strings.ToLower(rand.Text())
	executeOn(t, admin.String(), "CREATE DATABASE "+name)
	t.Cleanup(func() { executeOn(t, admin.String(), "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	statements := []string{"CREATE SCHEMA shifted"}
	for _, clock := range []string{"clock_timestamp", "statement_timestamp", "transaction_timestamp", "now"} {
		statements = append(statements, fmt.Sprintf(
			"CREATE FUNCTION shifted.%s() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.%s() + interval '%s' $$", clock, clock, shift))
	}
	statements = append(statements, "ALTER DATABASE "+name+" SET search_path = shifted, public, pg_catalog")
	executeOn(t, u.String(), statements...)
	return u.String()
}

func executeOn(t *testing.T, database string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// TestPostgresRestarts stops the database in the middle of everything, twice.
func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	options := postgres.Options{Dir: filepath.Join(os.TempDir(), "lakerunner-restarts-"+strings.ToLower(rand.Text())), NoSync: true}
	server, err := postgres.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Stop(context.Background())
		_ = os.RemoveAll(options.Dir)
	})
	if err := server.CreateDatabase(t.Context(), "restarts"); err != nil {
		t.Fatal(err)
	}
	database := server.URL("restarts")
	options.Port = portOf(t, database)
	n := newLaneOn(t, lakeOptions{database: database})
	restarted := make(chan error, 1)
	go func() {
		for range 2 {
			<-time.After(1500 * time.Millisecond)
			err := server.Stop(context.Background())
			if err == nil {
				server, err = postgres.Start(context.Background(), options)
			}
			if err != nil {
				restarted <- err
				return
			}
		}
		restarted <- nil
	}()
	n.story(order{})
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	n.close()
	n.now.stop()
}

func portOf(t *testing.T, database string) int {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestABucketInTrouble has the bucket throttle, fail, and break off in the middle of an answer, every few requests.
func TestABucketInTrouble(t *testing.T) {
	t.Parallel()
	trouble := &moodyBucket{}
	front := httptest.NewServer(trouble)
	t.Cleanup(front.Close)
	n := newLaneOn(t, lakeOptions{endpoint: front.URL})
	target, err := url.Parse(n.lake.bucket.Location.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	trouble.proxy.Store(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	n.story(order{})
	n.story(order{})
	n.close()
	if trouble.troubles.Load() < 20 {
		t.Errorf("only %d of %d requests had trouble", trouble.troubles.Load(), trouble.requests.Load())
	}
}

// moodyBucket stands before an S3 server.
type moodyBucket struct {
	proxy              atomic.Pointer[httputil.ReverseProxy]
	requests, troubles atomic.Int64
}

func (m *moodyBucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := m.requests.Add(1)
	if n%4 != 0 {
		m.proxy.Load().ServeHTTP(w, r)
		return
	}
	m.troubles.Add(1)
	switch {
	case n%12 == 0 && r.Method == http.MethodGet:
		m.breakOff(w, r)
	case n%8 == 0:
		refuse(w, "SlowDown", "Please reduce your request rate.")
	default:
		refuse(w, "ServiceUnavailable", "Service is unable to handle request.")
	}
}

func refuse(w http.ResponseWriter, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

// breakOff promises the whole answer and gives half of it.
func (m *moodyBucket) breakOff(w http.ResponseWriter, r *http.Request) {
	recorded := httptest.NewRecorder()
	m.proxy.Load().ServeHTTP(recorded, r)
	for name, values := range recorded.Header() {
		w.Header()[name] = values
	}
	body := recorded.Body.Bytes()
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(recorded.Code)
	_, _ = io.Copy(w, bytes.NewReader(body[:len(body)/2]))
	panic(http.ErrAbortHandler)
}

// TestAFullDisk has no file of the ingestor and the compactor grow beyond a few bytes, until somebody makes room.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	n := newLane(t)
	n.now = n.lake.startChanger(t, order{FileLimit: 512})
	n.runs++
	s := n.write()
	s.fresh.widen(s.plain, whole)
	s.put(order{}, s.plain)
	n.until(order{}, "the disk is full", func() error {
		if !strings.Contains(n.now.said(), "file too large") {
			return fmt.Errorf("nobody says so")
		}
		return nil
	})
	receipts := s.surely(order{})
	if len(receipts) != 1 || receipts[0].State != nouns.ReceiptPending {
		t.Errorf("with a full disk the receipts are %+v, want one that is pending", receipts)
	}
	n.now.give(t, order{})
	s.settled(order{}, 1)
	s.fresh.narrow(s.plain, whole)
	n.until(order{}, "ask", func() error {
		_, err := s.fresh.ask(t.Context(), n.lake)
		return err
	})
	n.plots = append(n.plots, s.fresh)
	n.close()
}

// TestAnObjectThatKillsItsReader puts one among five hundred good ones: those are ingested, and it is buried.
func TestAnObjectThatKillsItsReader(t *testing.T) {
	t.Parallel()
	n := newLane(t)
	n.now = n.lake.startChanger(t, order{})
	const good = 500
	end := n.base
	objects := makeSample(t, sample.Options{Seed: 77, Collector: "many", End: end, Length: 30 * time.Minute, Lines: 2 * good, Objects: good})
	notices := &notifierv1.NotifyObjectsRequest{}
	add := func(key string, body []byte) {
		tag := n.lake.put(key, body)
		notices.Objects = append(notices.Objects, &lakev1.Object{Bucket: n.lake.bucket.Name(), Key: key, Tag: tag, Size: int64(len(body))})
	}
	for i, o := range objects {
		if i == good/2 {
			add("otel-raw/default/many/"+poison+".binpb.gz", o.Body)
		}
		add(o.Key, o.Body)
	}
	deadly := order{Kind: chaos.Crash, Point: "the poisoned object"}
	n.call(deadly, "notify", func(ctx context.Context, c *changer) error {
		_, err := c.notifier.NotifyObjects(withKey(ctx, n.lake.keys["default"]), notices)
		return err
	})
	var states map[nouns.ReceiptState]int
	n.until(deadly, "the good are ingested, the bad is buried", func() error {
		receipts, _, err := n.index.Receipts(t.Context(), index.ReceiptQuery{Organization: "default", KeyPrefix: "otel-raw/default/many/", PageSize: 1000})
		states = map[nouns.ReceiptState]int{}
		for _, r := range receipts {
			states[r.State]++
			if strings.Contains(r.Object.Key, poison) && r.State == nouns.ReceiptDone {
				t.Fatal("the poisoned object was ingested")
			}
		}
		if err == nil && (states[nouns.ReceiptDone] != good || states[nouns.ReceiptFailed] != 1) {
			err = fmt.Errorf("receipts by state: %v", states)
		}
		return err
	})
	if got, want := hashOf(n.lake.lines("default", everything, end.Add(-time.Hour), end)), hashOfSample(objects...); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
