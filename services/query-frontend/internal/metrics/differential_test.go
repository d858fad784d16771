// SPDX-License-Identifier: AGPL-3.0-only

package metrics_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

var (
	start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	end   = start.Add(3 * time.Hour)
)

// seed returns METRICTEST_SEED, or one that is the same each time.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(cmp.Or(os.Getenv("METRICTEST_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lab is a lake of metrics in memory with some workers.
type lab struct {
	store   *workertest.Store
	workers []*workertest.Worker
	fan     *fan.Fan
	samples []lake.Segment
}

// newLab stores series: the newest hour in whole segments of arbitrary parts of the samples, older ones in shards, as after compaction.
func newLab(series []prom.Series, seed uint64, workers int, engine prom.Options) *lab {
	l := &lab{store: workertest.NewStore()}
	random := rand.New(rand.NewPCG(seed, 3))
	first, last := lake.WindowOf(start, time.Hour), lake.WindowOf(end.Add(-time.Millisecond), time.Hour)
	for w := first; !w.Start.After(last.Start); w = lake.WindowOf(w.End(), time.Hour) {
		parts, shardOf := 4, lake.Shard{Count: 4}
		if w == last {
			parts, shardOf = 5, lake.Shard{}
		}
		for i, part := range parted(random, series, w, parts, !shardOf.Whole()) {
			m := workertest.MetricSegment{Window: w, Series: part, Shard: shardOf}
			if !shardOf.Whole() {
				m.Shard.Index = uint32(i)
			}
			if len(part) > 0 {
				l.samples = append(l.samples, l.store.PutMetrics("acme", lake.SegmentID(len(l.samples)+1), m))
			}
		}
	}
	var all []fan.Worker
	for i := range workers {
		w := &workertest.Worker{Store: l.store, Engine: engine}
		l.workers = append(l.workers, w)
		all = append(all, fan.Worker{Name: fmt.Sprintf("worker-%d", i), Client: w})
	}
	l.fan = fan.New(func() []fan.Worker { return all }, fan.Options{})
	return l
}

// parted parts the samples of a window by shard, or at random.
func parted(random *rand.Rand, series []prom.Series, w lake.Window, n int, sharded bool) [][]prom.Series {
	out := make([][]prom.Series, n)
	from, to := w.Start.UnixMilli(), w.End().UnixMilli()-1
	for _, one := range series {
		if sharded {
			one.Trim(from, to)
			if one.Len() > 0 {
				i := labels.StableHash(one.Labels) & uint64(n-1)
				out[i] = append(out[i], one)
			}
			continue
		}
		cut := from + random.Int64N(to-from)
		for _, part := range [][2]int64{{from, cut}, {cut + 1, to}} {
			half := one
			half.Trim(part[0], part[1])
			if half.Len() > 0 {
				i := random.IntN(n)
				out[i] = append(out[i], half)
			}
		}
	}
	return out
}

func (l *lab) session(limits metrics.Limits, engine prom.Options) *metrics.Session {
	return &metrics.Session{
		Organization: "acme", Fan: l.fan, Tally: fan.NewTally(0), Engine: prom.New(engine), Limits: limits, Lookback: promplan.DefaultLookback,
		Samples: metrics.Level{Segments: l.samples},
	}
}

func ask(ctx context.Context, s *metrics.Session, q metrictest.Query, o promplan.Options) (metrics.Result, error) {
	o.Start, o.End, o.Step = q.Start, q.End, q.Step
	planned, err := promplan.Parse(q.Text, o)
	if err != nil {
		return metrics.Result{}, err
	}
	return s.Evaluate(ctx, metrics.Request{Query: planned, Request: prom.Request{Start: q.Start, End: q.End, Step: q.Step}})
}

// reference evaluates by Prometheus' engine over Prometheus' own storage.
type reference struct {
	engine  *promql.Engine
	storage storage.Queryable
}

func newReference(t *testing.T, series []prom.Series, delayed bool) *reference {
	t.Helper()
	db := teststorage.New(t)
	type sample struct {
		at     int64
		series int
		index  int
		hist   bool
	}
	var all []sample
	for i := range series {
		for j, at := range series[i].Times {
			all = append(all, sample{at, i, j, false})
		}
		for j, at := range series[i].HistogramTimes {
			all = append(all, sample{at, i, j, true})
		}
	}
	slices.SortStableFunc(all, func(a, b sample) int { return cmp.Compare(a.at, b.at) })
	appender := db.Appender(t.Context())
	for i, one := range all {
		s := &series[one.series]
		var err error
		if one.hist {
			_, err = appender.AppendHistogram(0, s.Labels, one.at, nil, s.Histograms[one.index])
		} else {
			_, err = appender.Append(0, s.Labels, one.at, s.Values[one.index])
		}
		if err == nil && (i%5000 == 4999 || i == len(all)-1) {
			if err = appender.Commit(); err == nil {
				appender = db.Appender(t.Context())
			}
		}
		if err != nil {
			t.Fatalf("%s at %d: %v", s.Labels, one.at, err)
		}
	}
	return &reference{storage: db, engine: promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, EnableDelayedNameRemoval: delayed, Parser: prom.Parser(),
	})}
}

func (r *reference) evaluate(ctx context.Context, q metrictest.Query) (parser.Value, error) {
	var query promql.Query
	var err error
	if q.Step == 0 {
		query, err = r.engine.NewInstantQuery(ctx, r.storage, nil, q.Text, q.End)
	} else {
		query, err = r.engine.NewRangeQuery(ctx, r.storage, nil, q.Text, q.Start, q.End, q.Step)
	}
	if err != nil {
		return nil, err
	}
	result := query.Exec(ctx)
	return result.Value, result.Err
}

func queries() int {
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		return 5000
	}
	return 300
}

// TestEveryQueryIsAnsweredAsPrometheusWouldOverTheSameSamples holds shards, slices and fallbacks to Prometheus' engine over its own storage.
func TestEveryQueryIsAnsweredAsPrometheusWouldOverTheSameSamples(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	t.Logf("METRICTEST_SEED=%d", seed)
	series := metrictest.Series(seed, start, end, false)
	lab := newLab(series, seed, 3, prom.Options{})
	compare(t, lab, newReference(t, series, false).evaluate, metrictest.Queries(seed, queries(), start, end, false), prom.Options{})
}

// TestDelayedNamesAreAnsweredAsPrometheusWould is the same with names dropped at the end.
func TestDelayedNamesAreAnsweredAsPrometheusWould(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	series := metrictest.Series(seed, start, end, false)
	options := prom.Options{DelayedNameRemoval: true}
	lab := newLab(series, seed, 3, options)
	compare(t, lab, newReference(t, series, true).evaluate, metrictest.Queries(seed+1, queries()/3, start, end, false), options)
}

// TestDeltasAreAnsweredAsOverOneSource holds sharded answers over delta sources to those of one engine that sees everything.
func TestDeltasAreAnsweredAsOverOneSource(t *testing.T) {
	t.Parallel()
	seed := seed(t)
	series := metrictest.Series(seed, start, end, true)
	memory := &promtest.Memory{}
	memory.Add(series...)
	engine := prom.New(prom.Options{})
	want := func(ctx context.Context, q metrictest.Query) (parser.Value, error) {
		expr, err := prom.Parse(q.Text)
		if err != nil {
			return nil, err
		}
		result, err := engine.Evaluate(ctx, memory, prom.Request{Expr: expr, Start: q.Start, End: q.End, Step: q.Step})
		return result.Value, err
	}
	compare(t, newLab(series, seed, 3, prom.Options{}), want, metrictest.Queries(seed+2, queries()/3, start, end, true), prom.Options{})
}

func compare(
	t *testing.T, l *lab, want func(context.Context, metrictest.Query) (parser.Value, error), all []metrictest.Query, engine prom.Options,
) {
	t.Helper()
	answered, failed := 0, 0
	for i, q := range all {
		expected, wantErr := want(t.Context(), q)
		if wantErr != nil {
			failed++
		} else if metrictest.Size(expected) > 0 {
			answered++
		}
		// Three workers make four shards; a part of few rows makes slices.
		limits := metrics.Limits{Shards: 3, PartRows: []int64{0, 500}[i%2]}
		got, err := ask(t.Context(), l.session(limits, engine), q, promplan.Options{DelayedNames: engine.DelayedNameRemoval})
		if (wantErr == nil) != (err == nil) {
			t.Errorf("%d: %s\nerror %v, want %v", i, q, err, wantErr)
			continue
		}
		if err != nil {
			if errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			continue
		}
		if diff := metrictest.Diff(expected, got.Value); diff != "" {
			t.Errorf("%d: %s\n%.3000s", i, q, diff)
		}
	}
	t.Logf("%d queries, %d with samples in their answer, %d with an error", len(all), answered, failed)
	if answered < len(all)/2 {
		t.Errorf("only %d of %d queries have an answer: the generator makes too many that say nothing", answered, len(all))
	}
}
