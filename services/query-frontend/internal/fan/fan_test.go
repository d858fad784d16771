// SPDX-License-Identifier: AGPL-3.0-only

package fan_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

const (
	rowCount     = 900
	segmentCount = 30
)

type lab struct {
	store    *workertest.Store
	segments []lake.Segment
	workers  []*workertest.Worker
}

func setup(t *testing.T, workers int) *lab {
	t.Helper()
	start := time.Unix(1_760_000_000, 0)
	l := &lab{store: workertest.NewStore()}
	for i, part := range querytest.Partition(1, querytest.Rows(1, rowCount, start, time.Hour), segmentCount) {
		l.segments = append(l.segments, l.store.Put("acme", lake.SegmentID(i+1), part))
	}
	for range workers {
		l.workers = append(l.workers, &workertest.Worker{Store: l.store})
	}
	return l
}

func (l *lab) fan(o fan.Options) *fan.Fan {
	o.BatchSegments = 2
	o.RetryDelay = time.Millisecond
	workers := make([]fan.Worker, len(l.workers))
	for i, w := range l.workers {
		workers[i] = fan.Worker{Name: fmt.Sprintf("worker-%d", i), Client: w}
	}
	return fan.New(func() []fan.Worker { return workers }, o)
}

// counter counts rows.
type counter struct{ rows int }

func (c *counter) Add(batch arrow.RecordBatch) error {
	c.rows += int(batch.NumRows())
	return nil
}

// count asks for all lines and returns how many came.
func (l *lab) count(ctx context.Context, f *fan.Fan, tally *fan.Tally, whole bool) (int, error) {
	rows := 0
	err := f.Run(ctx, fan.Scan{
		Organization: "acme",
		Segments:     l.segments,
		Fragment: func(req *workerv1.ScanRequest) {
			req.Fragment = &workerv1.ScanRequest_LogLines{LogLines: &workerv1.LogLines{
				Selector: `{service_name=~".+"}`, Start: timestamppb.New(time.Unix(0, 0)), End: timestamppb.New(time.Unix(1<<33, 0)),
			}}
		},
		NewDecoder: func([]lake.Segment) fan.Decoder { return &counter{} },
		Done: func(d fan.Decoder) error {
			rows += d.(*counter).rows
			return nil
		},
		Tally: tally,
		Whole: whole,
	})
	return rows, err
}

func TestEachSegmentIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	l := setup(t, 3)
	tally := fan.NewTally(0)
	got, err := l.count(t.Context(), l.fan(fan.Options{}), tally, false)
	if err != nil || got != rowCount {
		t.Fatalf("%d rows, %v; want %d", got, err, rowCount)
	}
	if s := tally.Statistics(); s.Segments != int64(len(l.segments)) || s.Retries != 0 {
		t.Errorf("statistics %+v", s)
	}
	for i, w := range l.workers {
		if len(w.Scans()) == 0 {
			t.Errorf("worker %d had nothing to do", i)
		}
	}
}

func TestWholeAsksOneWorkerOnce(t *testing.T) {
	t.Parallel()
	l := setup(t, 3)
	got, err := l.count(t.Context(), l.fan(fan.Options{}), fan.NewTally(0), true)
	if err != nil || got != rowCount {
		t.Fatalf("%d rows, %v; want %d", got, err, rowCount)
	}
	scans := 0
	for _, w := range l.workers {
		scans += len(w.Scans())
	}
	if scans != 1 {
		t.Errorf("%d scans", scans)
	}
}

func TestDeadWorkersSegmentsAreAskedElsewhere(t *testing.T) {
	t.Parallel()

	t.Run("when it refuses", func(t *testing.T) {
		t.Parallel()
		l := setup(t, 3)
		l.workers[1].Before = func(context.Context, *workerv1.ScanRequest) error { return fault.New(fault.Unavailable, "dead") }
		tally := fan.NewTally(0)
		got, err := l.count(t.Context(), l.fan(fan.Options{}), tally, false)
		if err != nil || got != rowCount {
			t.Fatalf("%d rows, %v; want %d", got, err, rowCount)
		}
		if tally.Statistics().Retries == 0 {
			t.Error("no retry was counted")
		}
	})

	t.Run("when it dies after some of its answer", func(t *testing.T) {
		t.Parallel()
		l := setup(t, 3)
		l.workers[1].Break = func(*workerv1.ScanRequest) int { return 1 }
		got, err := l.count(t.Context(), l.fan(fan.Options{}), fan.NewTally(0), false)
		if err != nil || got != rowCount {
			t.Fatalf("%d rows, %v; want %d: half an answer must not count", got, err, rowCount)
		}
	})

	t.Run("and when all are away for a moment", func(t *testing.T) {
		t.Parallel()
		l := setup(t, 1)
		var asked atomic.Int32
		l.workers[0].Before = func(context.Context, *workerv1.ScanRequest) error {
			if asked.Add(1) <= 2 {
				return fault.New(fault.Unavailable, "restarting")
			}
			return nil
		}
		got, err := l.count(t.Context(), l.fan(fan.Options{}), fan.NewTally(0), false)
		if err != nil || got != rowCount {
			t.Fatalf("%d rows, %v; want %d", got, err, rowCount)
		}
	})

	t.Run("until there are none left", func(t *testing.T) {
		t.Parallel()
		l := setup(t, 2)
		for _, w := range l.workers {
			w.Before = func(context.Context, *workerv1.ScanRequest) error { return fault.New(fault.Unavailable, "dead") }
		}
		if _, err := l.count(t.Context(), l.fan(fan.Options{}), fan.NewTally(0), false); !errors.Is(err, fault.Unavailable) {
			t.Errorf("error %v", err)
		}
	})

	t.Run("or there were none at all", func(t *testing.T) {
		t.Parallel()
		l := setup(t, 0)
		if _, err := l.count(t.Context(), l.fan(fan.Options{}), fan.NewTally(0), false); !errors.Is(err, fault.Unavailable) {
			t.Errorf("error %v", err)
		}
	})
}

func TestSlowScanIsHedged(t *testing.T) {
	t.Parallel()
	l := setup(t, 2)
	cancelled := make(chan struct{})
	var once sync.Once
	l.workers[0].Before = func(ctx context.Context, _ *workerv1.ScanRequest) error {
		<-ctx.Done()
		once.Do(func() { close(cancelled) })
		return ctx.Err()
	}
	tally := fan.NewTally(0)
	got, err := l.count(t.Context(), l.fan(fan.Options{HedgeAfter: 5 * time.Millisecond}), tally, false)
	if err != nil || got != rowCount {
		t.Fatalf("%d rows, %v; want %d", got, err, rowCount)
	}
	<-cancelled // the slow one was told to stop
	if tally.Statistics().Hedges == 0 {
		t.Error("no hedge was counted")
	}
}

func TestErrorsThatWouldBeTheSameElsewhereAreNotRetried(t *testing.T) {
	t.Parallel()
	for _, kind := range []fault.Kind{fault.MissingSegment, fault.Invalid, fault.Denied, fault.Exhausted, fault.Internal} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			l := setup(t, 2)
			for _, w := range l.workers {
				w.Before = func(context.Context, *workerv1.ScanRequest) error { return fault.New(kind, "so it is") }
			}
			tally := fan.NewTally(0)
			_, err := l.count(t.Context(), l.fan(fan.Options{}), tally, false)
			if fault.KindOf(err) != kind {
				t.Errorf("error %v of kind %s, want %s", err, fault.KindOf(err), kind)
			}
			if tally.Statistics().Retries != 0 {
				t.Error("it was retried")
			}
		})
	}
}

func TestMissingSegmentIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	l := setup(t, 2)
	l.store.Remove(l.segments[7].Key)
	_, err := l.count(t.Context(), l.fan(fan.Options{}), fan.NewTally(0), false)
	if !errors.Is(err, fault.MissingSegment) {
		t.Errorf("error %v", err)
	}
}

func TestScansCarryTheDeletesThatMayMaskTheirSegments(t *testing.T) {
	t.Parallel()
	l := setup(t, 1)
	first := l.segments[0].FirstTime
	for i := range l.segments {
		l.segments[i].AppliedDelete = 2
	}
	l.segments[1].Identified, l.segments[1].Lease, l.segments[1].Level = true, "lease", 1
	everything := func(id lake.DeleteID) lake.Delete {
		return lake.Delete{ID: id, Signal: lake.SignalLogs, Selector: `{a="b"}`, Start: first.Add(-time.Hour), End: first.Add(24 * time.Hour)}
	}
	past, spans := everything(4), everything(5)
	past.End = first.Add(-30 * time.Minute)
	spans.Signal = lake.SignalSpans
	err := l.fan(fan.Options{}).Run(t.Context(), fan.Scan{
		Organization: "acme", Segments: l.segments[:2], Deletes: []lake.Delete{everything(2), everything(3), past, spans},
		Fragment: func(req *workerv1.ScanRequest) {
			req.Fragment = &workerv1.ScanRequest_LogCatalogue{LogCatalogue: &workerv1.LogCatalogue{Start: timestamppb.New(first), End: timestamppb.New(first)}}
		},
		NewDecoder: func([]lake.Segment) fan.Decoder { return &counter{} },
		Done:       func(fan.Decoder) error { return nil },
		Tally:      fan.NewTally(0),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range l.workers[0].Scans() {
		if d := req.GetDeletes(); len(d) != 1 || d[0].GetDeleteId() != 3 || d[0].GetSelector() != `{a="b"}` {
			t.Errorf("deletes %v", d)
		}
		for _, s := range req.GetSegments() {
			if s.GetAppliedDelete() != 2 || s.GetIdentified() != (s.GetSegmentId() == "2") || s.GetIdentified() && s.GetLease() != "lease" {
				t.Errorf("segment %v", s)
			}
		}
	}
}

func TestCancellationReachesEveryScan(t *testing.T) {
	t.Parallel()
	l := setup(t, 3)
	var begun, ended atomic.Int32
	for _, w := range l.workers {
		w.Before = func(ctx context.Context, _ *workerv1.ScanRequest) error {
			begun.Add(1)
			<-ctx.Done()
			ended.Add(1)
			return ctx.Err()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := l.count(ctx, l.fan(fan.Options{HedgeAfter: -1}), fan.NewTally(0), false)
		result <- err
	}()
	if !workertest.Until(func() bool { return begun.Load() >= 3 }) {
		t.Fatal("no scan began")
	}
	cancel()
	if err := <-result; !errors.Is(err, fault.Canceled) {
		t.Errorf("error %v", err)
	}
	if !workertest.Until(func() bool { return ended.Load() == begun.Load() }) {
		t.Errorf("%d of %d scans ended", ended.Load(), begun.Load())
	}
}

func TestDeadlineIsATimeout(t *testing.T) {
	t.Parallel()
	l := setup(t, 1)
	l.workers[0].Before = func(ctx context.Context, _ *workerv1.ScanRequest) error {
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.count(ctx, l.fan(fan.Options{}), fan.NewTally(0), false); !errors.Is(err, fault.Timeout) {
		t.Errorf("error %v", err)
	}
}

func TestBudgetEndsAQuery(t *testing.T) {
	t.Parallel()
	l := setup(t, 2)
	tally := fan.NewTally(10_000)
	_, err := l.count(t.Context(), l.fan(fan.Options{Concurrency: 1}), tally, false)
	if !errors.Is(err, fault.Exhausted) || !tally.Spent() {
		t.Errorf("error %v, spent %t", err, tally.Spent())
	}
}

func TestWorkerThatCannotKeepToTheBudgetEndsIt(t *testing.T) {
	t.Parallel()
	l := setup(t, 1)
	l.workers[0].Before = func(_ context.Context, req *workerv1.ScanRequest) error {
		return fault.New(fault.Exhausted, "query would read more than %d bytes from the object store", req.GetMaxBytes())
	}
	tally := fan.NewTally(100)
	_, err := l.count(t.Context(), l.fan(fan.Options{}), tally, false)
	if !errors.Is(err, fault.Exhausted) || !tally.Spent() {
		t.Errorf("error %v, spent %t", err, tally.Spent())
	}
}
