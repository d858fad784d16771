// SPDX-License-Identifier: AGPL-3.0-only

package stage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/stage"
)

// script is the index's side of the loop: it hands out leases one by one, and answers as it is told to.
type script struct {
	mu      sync.Mutex
	leases  []*lake.Lease
	events  []string
	claim   func() error // asked before a lease is handed out
	renew   func() error
	commit  func() error
	changed chan struct{} // closed and made anew at each event
}

func newScript(leases ...*lake.Lease) *script {
	return &script{leases: leases, changed: make(chan struct{})}
}

func lease(id string) *lake.Lease {
	return &lake.Lease{
		ID: lake.LeaseID(id), Kind: lake.TaskIngest, Organization: "acme", Duration: time.Minute,
		Tasks: []lake.Task{{ID: 1, Bytes: 100}, {ID: 2, Bytes: 50}},
	}
}

func (s *script) note(event string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, event)
	close(s.changed)
	s.changed = make(chan struct{})
}

func ask(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

func (s *script) Claim(context.Context, index.Batch) (*lake.Lease, error) {
	if err := ask(s.claim); err != nil {
		s.note("claim failed")
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.leases) == 0 {
		return nil, nil
	}
	next := s.leases[0]
	s.leases = s.leases[1:]
	return next, nil
}

func (s *script) Renew(_ context.Context, id lake.LeaseID) error {
	s.note("renew " + string(id))
	return ask(s.renew)
}

func (s *script) Commit(_ context.Context, l *lake.Lease, _ lake.Edit) error {
	s.note("commit " + string(l.ID))
	return ask(s.commit)
}

func (s *script) Release(_ context.Context, l *lake.Lease, cause error) error {
	first, _, _ := strings.Cut(cause.Error(), "\n")
	s.note(fmt.Sprintf("release %s: %s (%s)", l.ID, first, fault.KindOf(cause)))
	return nil
}

func (s *script) Wait(ctx context.Context, _ lake.TaskKind) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * time.Second):
		return nil
	}
}

func (s *script) wantEvents(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if diff := cmp.Diff(want, s.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

var options = stage.Options{Batch: index.Batch{Kind: lake.TaskIngest, Duration: time.Minute}}

// run runs the loop for a while of the bubble's time.
func run(t *testing.T, s *script, o stage.Options, d time.Duration, work stage.Work) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := stage.Run(ctx, s, o, work); err != nil {
		t.Error(err)
	}
}

func nothing(context.Context, *lake.Lease) (lake.Edit, error) { return lake.Edit{}, nil }

// takes works for a while, unless its context ends.
func takes(d time.Duration) stage.Work {
	return func(ctx context.Context, _ *lake.Lease) (lake.Edit, error) {
		select {
		case <-ctx.Done():
			return lake.Edit{}, fmt.Errorf("cut off: %w", context.Cause(ctx))
		case <-time.After(d):
			return lake.Edit{}, nil
		}
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	bubble := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, f)
		})
	}

	bubble("claims, works and commits, one after the other", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		run(t, s, options, time.Minute, nothing)
		s.wantEvents(t, "commit a", "commit b")
	})

	bubble("renews while it works", func(t *testing.T) {
		s := newScript(lease("a"))
		run(t, s, options, 10*time.Minute, takes(70*time.Second))
		s.wantEvents(t, "renew a", "renew a", "renew a", "commit a")
	})

	bubble("cancels the work when the lease is lost, and commits nothing", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		s.renew = func() error { return fault.New(fault.Conflict, "it is another's") }
		var ended time.Duration
		run(t, s, options, time.Hour, func(ctx context.Context, l *lake.Lease) (lake.Edit, error) {
			if l.ID == "b" {
				return lake.Edit{}, nil
			}
			began := time.Now()
			<-ctx.Done()
			ended = time.Since(began)
			return lake.Edit{}, nil // it finished all the same
		})
		s.wantEvents(t, "renew a", "commit b")
		if ended != 20*time.Second {
			t.Errorf("the work ended after %s, want 20s", ended)
		}
	})

	bubble("holds on to a lease while the database is away, but not longer than it lives", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		away := 0
		s.renew = func() error {
			if away++; away == 2 {
				return nil
			}
			return fault.New(fault.Unavailable, "away")
		}
		run(t, s, options, 10*time.Minute, takes(50*time.Second))
		s.wantEvents(t, "renew a", "renew a", "commit a", "renew b", "renew b", "commit b")

		s = newScript(lease("c"))
		s.renew = func() error { return fault.New(fault.Unavailable, "away") }
		run(t, s, options, 10*time.Minute, takes(time.Hour))
		s.wantEvents(t, "renew c", "renew c", "renew c")
	})

	bubble("releases with the cause of an error, and goes on", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		run(t, s, options, time.Minute, func(_ context.Context, l *lake.Lease) (lake.Edit, error) {
			if l.ID == "a" {
				return lake.Edit{}, fault.New(fault.Exhausted, "too large")
			}
			return lake.Edit{}, nil
		})
		s.wantEvents(t, "release a: too large (exhausted)", "commit b")
	})

	bubble("makes a panic the cause of a release", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		run(t, s, options, time.Minute, func(_ context.Context, l *lake.Lease) (lake.Edit, error) {
			if l.ID == "a" {
				panic("boom")
			}
			return lake.Edit{}, nil
		})
		s.wantEvents(t, "release a: panic: boom (internal)", "commit b")
	})

	bubble("asks again for a commit whose answer was lost", func(t *testing.T) {
		s := newScript(lease("a"))
		asked := 0
		s.commit = func() error {
			if asked++; asked < 3 {
				return fault.New(fault.Unavailable, "gone")
			}
			return nil
		}
		run(t, s, options, time.Minute, nothing)
		s.wantEvents(t, "commit a", "commit a", "commit a")
	})

	bubble("releases after a conflict", func(t *testing.T) {
		s := newScript(lease("a"))
		s.commit = func() error { return fault.New(fault.Conflict, "a segment is gone") }
		run(t, s, options, time.Minute, nothing)
		s.wantEvents(t, "commit a", "release a: a segment is gone (conflict)")
	})

	bubble("backs off while claims fail", func(t *testing.T) {
		s := newScript()
		failures := 0
		s.claim = func() error {
			failures++
			return fault.New(fault.Unavailable, "away")
		}
		run(t, s, options, 10*time.Minute, nothing)
		if failures < 50 || failures > 120 {
			t.Errorf("%d claims in ten minutes without a database", failures)
		}
		failures = 0
		o := options
		o.Workers = 50
		run(t, s, o, 10*time.Minute, nothing)
		if failures > 120 {
			t.Errorf("%d claims of fifty workers, want no more than of one", failures)
		}
	})

	bubble("lets work under way finish when it is told to stop", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		o := options
		o.Workers = 2
		began := time.Now()
		run(t, s, o, 5*time.Second, takes(15*time.Second))
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("it took %s, want 15s", took)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.events) != 2 {
			t.Errorf("events %v, want two commits", s.events)
		}
	})

	bubble("releases what does not finish in time, as nobody's fault", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"))
		o := options
		o.Drain = 10 * time.Second
		run(t, s, o, 5*time.Second, takes(time.Hour))
		s.wantEvents(t, "release a: shut down before it was done: cut off: context canceled (canceled)")
	})

	bubble("gives back at once what was claimed while it was told to stop", func(t *testing.T) {
		s := newScript(lease("a"))
		ctx, cancel := context.WithCancel(t.Context())
		s.claim = func() error { cancel(); return nil }
		if err := stage.Run(ctx, s, options, nothing); err != nil {
			t.Error(err)
		}
		s.wantEvents(t, "release a: context canceled (canceled)")
	})

	bubble("works on as many leases at once as it has workers", func(t *testing.T) {
		s := newScript(lease("a"), lease("b"), lease("c"), lease("d"))
		o := options
		o.Workers = 4
		began := time.Now()
		var mu sync.Mutex
		var last time.Duration
		run(t, s, o, time.Minute, func(ctx context.Context, l *lake.Lease) (lake.Edit, error) {
			edit, err := takes(10*time.Second)(ctx, l)
			mu.Lock()
			defer mu.Unlock()
			last = time.Since(began)
			return edit, err
		})
		if last != 10*time.Second {
			t.Errorf("four leases took %s, want 10s", last)
		}
	})

	bubble("wants a kind of task", func(t *testing.T) {
		err := stage.Run(t.Context(), newScript(), stage.Options{}, nothing)
		if !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOne(t *testing.T) {
	t.Parallel()

	t.Run("does one lease and answers with its error", func(t *testing.T) {
		t.Parallel()
		s := newScript(lease("a"), lease("b"))
		for _, want := range []error{nil, fault.Exhausted} {
			did, err := stage.One(t.Context(), s, options, func(context.Context, *lake.Lease) (lake.Edit, error) { return lake.Edit{}, want })
			if !did || !errors.Is(err, want) {
				t.Errorf("got %t, %v, want %v", did, err, want)
			}
		}
		s.wantEvents(t, "commit a", "release b: exhausted (internal)")
	})

	t.Run("does not wait", func(t *testing.T) {
		t.Parallel()
		if did, err := stage.One(t.Context(), newScript(), options, nothing); did || err != nil {
			t.Errorf("got %t, %v", did, err)
		}
	})
}

func TestLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := options
	o.Log = slog.New(slog.NewJSONHandler(&out, nil))
	_, err := stage.One(t.Context(), newScript(lease("a")), o, func(context.Context, *lake.Lease) (lake.Edit, error) {
		return lake.Edit{
			Add:      []lake.Segment{{Rows: 7}, {Rows: 5}},
			Outcomes: []lake.Outcome{{State: lake.ReceiptDone, RowsIn: 15, RowsOut: 12}, {State: lake.ReceiptFailed}},
			Retry:    []lake.Retry{{}},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("want one line: %v: %s", err, out.String())
	}
	delete(got, "time")
	delete(got, "took")
	want := map[string]any{
		"level": "INFO", "msg": "lease committed", "kind": "ingest", "organization": "acme", "lease": "a", "tasks": 2.0, "bytes": 150.0,
		"waited": 0.0, "added": 2.0, "removed": 0.0, "rows": 12.0, "rejected": 3.0, "done": 1.0, "skipped": 0.0, "failed": 1.0, "retried": 1.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
