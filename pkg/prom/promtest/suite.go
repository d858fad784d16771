// SPDX-License-Identifier: AGPL-3.0-only

// Package promtest holds other implementations to Prometheus: it runs Prometheus' own suite over any place that samples can be loaded into and queries asked of,
// and has a source in memory to compare with.
package promtest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// Evaluations is how many expressions the suite evaluates: one that is not run is a failure.
const Evaluations = 2243

// Query is a question of the suite.
type Query struct {
	Text       string
	Start, End time.Time
	// Step is zero for an instant query, at End.
	Step time.Duration
}

// Lake is where the suite's samples go and its questions are asked. It begins empty.
type Lake interface {
	// Load adds samples. What was loaded before stays. Times rise within a call, but not from one to the next.
	Load(series []prom.Series) error
	Query(ctx context.Context, q Query) (prom.Result, error)
	Close() error
}

// EngineOptions are the options that the suite expects of an engine.
func EngineOptions() prom.Options {
	return prom.Options{MaxSamples: promqltest.DefaultMaxSamplesPerQuery, DelayedNameRemoval: true, StartTimestamps: true}
}

// Over is a Lake of a source and an engine.
type Over struct {
	prom.Source
	Engine *prom.Engine
	// Add loads.
	Add func([]prom.Series) error
}

// Load implements Lake.
func (o *Over) Load(series []prom.Series) error { return o.Add(series) }

// Query implements Lake.
func (o *Over) Query(ctx context.Context, q Query) (prom.Result, error) {
	expr, err := prom.Parse(q.Text)
	if err != nil {
		return prom.Result{}, err
	}
	return o.Engine.Evaluate(ctx, o.Source, prom.Request{Expr: expr, Start: q.Start, End: q.End, Step: q.Step})
}

// Close implements Lake.
func (o *Over) Close() error { return nil }

// Suite runs Prometheus' suite, all of it, and says how much that was.
func Suite(t *testing.T, open func(testing.TB) Lake) {
	t.Helper()
	expressions, err := promqltest.GetBuiltInExprs()
	if err != nil {
		t.Fatal(err)
	}
	if len(expressions) != Evaluations {
		t.Fatalf("the suite has %d evaluations, want %d", len(expressions), Evaluations)
	}
	var asked atomic.Int64
	promqltest.RunBuiltinTestsWithStorage(t, engine{}, func(tb testing.TB) storage.Storage {
		return &loaded{lake: open(tb), asked: &asked}
	})
	if !t.Failed() {
		t.Logf("Prometheus' suite: %d evaluations ran in %d queries, all passed, none was skipped", len(expressions), asked.Load())
	}
}

// loaded is a Lake as the suite's storage. What the suite does not call panics.
type loaded struct {
	storage.Storage
	lake  Lake
	asked *atomic.Int64
}

// AppenderV2 implements storage.Storage.
func (l *loaded) AppenderV2(context.Context) storage.AppenderV2 {
	return &appender{to: l, series: map[string]*prom.Series{}}
}

// Close implements storage.Storage.
func (l *loaded) Close() error { return l.lake.Close() }

// appender implements storage.AppenderV2.
type appender struct {
	to     *loaded
	series map[string]*prom.Series
	order  []*prom.Series
}

// Append implements storage.AppenderV2.
func (a *appender) Append(
	_ storage.SeriesRef, l labels.Labels, start, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AppendV2Options,
) (storage.SeriesRef, error) {
	key := string(l.Bytes(nil))
	s := a.series[key]
	if s == nil {
		s = &prom.Series{Labels: l.Copy()}
		a.series[key] = s
		a.order = append(a.order, s)
	}
	if h != nil {
		fh = h.ToFloat(nil)
	}
	if fh != nil {
		s.HistogramTimes, s.Histograms, s.HistogramStarts = append(s.HistogramTimes, t), append(s.Histograms, fh.Copy()), append(s.HistogramStarts, start)
		return 0, nil
	}
	s.Times, s.Values, s.Starts = append(s.Times, t), append(s.Values, v), append(s.Starts, start)
	return 0, nil
}

// Commit implements storage.AppenderV2.
func (a *appender) Commit() error {
	series := make([]prom.Series, len(a.order))
	for i, s := range a.order {
		series[i] = *s
	}
	return a.to.lake.Load(series)
}

// Rollback implements storage.AppenderV2.
func (a *appender) Rollback() error { return nil }

// engine is a promql.QueryEngine that asks a Lake.
type engine struct{}

// NewInstantQuery implements promql.QueryEngine.
func (engine) NewInstantQuery(_ context.Context, q storage.Queryable, _ promql.QueryOpts, text string, at time.Time) (promql.Query, error) {
	return newQuery(q, Query{Text: text, Start: at, End: at})
}

// NewRangeQuery implements promql.QueryEngine.
func (engine) NewRangeQuery(_ context.Context, q storage.Queryable, _ promql.QueryOpts, text string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return newQuery(q, Query{Text: text, Start: start, End: end, Step: step})
}

func newQuery(q storage.Queryable, asked Query) (promql.Query, error) {
	to, ok := q.(*loaded)
	if !ok {
		return nil, errors.New("not the suite's storage")
	}
	to.asked.Add(1)
	return &query{of: to.lake, asked: asked}, nil
}

// query implements promql.Query.
type query struct {
	of    Lake
	asked Query
}

// Exec implements promql.Query.
func (q *query) Exec(ctx context.Context) *promql.Result {
	r, err := q.of.Query(ctx, q.asked)
	return &promql.Result{Value: r.Value, Warnings: r.Annotations, Err: err}
}

// Close implements promql.Query.
func (q *query) Close() {}

// Statement implements promql.Query.
func (q *query) Statement() parser.Statement { return nil }

// Stats implements promql.Query.
func (q *query) Stats() *stats.Statistics { return nil }

// Cancel implements promql.Query.
func (q *query) Cancel() {}

// String implements promql.Query.
func (q *query) String() string { return q.asked.Text }
