// SPDX-License-Identifier: AGPL-3.0-only

package logs_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

var start = time.Unix(1_760_000_000, 123_456_789).UTC()

// seed returns QUERYTEST_SEED, or one that is the same each time.
func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("QUERYTEST_SEED")
	if text == "" {
		return 1
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lakeOf stores rows as segments that overlap in time.
func lakeOf(rows []querytest.Row, seed uint64) (*workertest.Store, []lake.Segment) {
	store := workertest.NewStore()
	var segments []lake.Segment
	quarter := len(rows)/4 + 1
	for from := 0; from < len(rows); from += quarter {
		for _, part := range querytest.Partition(seed+uint64(from), rows[from:min(len(rows), from+quarter)], 5) {
			segments = append(segments, store.Put("acme", lake.SegmentID(len(segments)+1), part))
		}
	}
	return store, segments
}

func workersOf(store *workertest.Store, n int) []fan.Worker {
	var workers []fan.Worker
	for i := range n {
		workers = append(workers, fan.Worker{Name: fmt.Sprintf("worker-%d", i), Client: &workertest.Worker{Store: store}})
	}
	return workers
}

func session(workers []fan.Worker, segments []lake.Segment, limits logs.Limits) *logs.Session {
	return &logs.Session{
		Organization: "acme",
		Fan:          fan.New(func() []fan.Worker { return workers }, fan.Options{SplitBytes: 1000, BatchSegments: 3}),
		Tally:        fan.NewTally(0),
		Segments:     segments,
		Limits:       limits,
	}
}

// TestEveryQueryIsAnsweredAsLokiWouldOverTheSameRows holds both ways of answering what does not merge, by one worker and by
// fetching the rows, to Loki's engine over all rows.
func TestEveryQueryIsAnsweredAsLokiWouldOverTheSameRows(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	t.Logf("QUERYTEST_SEED=%d", seed)
	queries := 250
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		queries = 5000
	}
	rows := querytest.Rows(seed, 800, start, time.Hour)
	store, segments := lakeOf(rows, seed)
	workers := workersOf(store, 3)
	answered := 0
	for i, q := range querytest.Queries(seed, queries, start, start.Add(time.Hour)) {
		want, wantErr := querytest.Memory(rows).Evaluate(t.Context(), q)
		if wantErr == nil && querytest.Size(want) > 0 {
			answered++
		}
		for name, limits := range map[string]logs.Limits{"one worker": {}, "rows": {SoleBytes: 1}} {
			t.Run(fmt.Sprintf("%d by %s", i, name), func(t *testing.T) {
				got, gotErr := evaluate(t.Context(), session(workers, segments, limits), q)
				if (wantErr == nil) != (gotErr == nil) {
					t.Fatalf("%s\nerror %v, want %v", q, gotErr, wantErr)
				}
				if wantErr != nil {
					return
				}
				if diff := querytest.Diff(want, got); diff != "" {
					t.Errorf("%s\n(-want +got):\n%.4000s", q, diff)
				}
			})
		}
	}
	if answered < queries*2/5 {
		t.Errorf("only %d of %d queries have an answer: the generator makes too many that say nothing", answered, queries)
	}
}

func evaluate(ctx context.Context, s *logs.Session, q querytest.Query) (parser.Value, error) {
	planned, err := plan.Parse(q.Text)
	if err != nil {
		return nil, err
	}
	result, err := s.Evaluate(ctx, logs.Request{
		Query: planned, Start: q.Start, End: q.End, Step: q.Step, Interval: q.Interval, Limit: q.Limit, Direction: q.Direction,
	})
	if err != nil {
		return nil, err
	}
	return result.Data, nil
}
