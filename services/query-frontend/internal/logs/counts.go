// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"time"

	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// maxBuckets is how many buckets the ranges of a leaf may be made of. Of more than that, steps are many times shorter than ranges, and rows are asked.
const maxBuckets = 50_000

// counting answers a leaf by adding up buckets: those that rollups have from these, the others from rows. Counts and bytes are whole numbers, so that it does not
// matter in which order, and by what, they are added up.
type counting struct {
	session *Session
	leaf    *plan.Leaf
	counts  plan.Counts
	params  logql.Params
	bucket  time.Duration
	times   promplan.Grid // ends of buckets
	held    int
	totals  map[string]*total
}

// total are the values of a series.
type total struct {
	labels labels.Labels
	points []promql.FPoint // by end of bucket
}

// Bucket is the coarsest of some resolutions, coarsest first, of whose buckets a leaf's ranges are made. Zero: none.
func Bucket(counts plan.Counts, leaf *plan.Leaf, start, end time.Time, step time.Duration, resolutions []time.Duration) time.Duration {
	for _, r := range resolutions {
		if counts.Fits(start, step, r) && (end.Sub(start)+leaf.Range)/r <= maxBuckets {
			return r
		}
	}
	return 0
}

// countsOf prepares to answer a leaf from rollups; false: they are none, or do not have it.
func (s *Session) countsOf(leaf *plan.Leaf, p logql.Params) (*counting, bool) {
	if s.Counts == nil {
		return nil, false
	}
	counts, ok := leaf.Counts()
	if !ok {
		return nil, false
	}
	var resolutions []time.Duration
	for i := range s.Counts.Rollups {
		resolutions = append(resolutions, s.Counts.Rollups[i].Resolution)
	}
	bucket := Bucket(counts, leaf, p.Start(), p.End(), stepOf(p), resolutions)
	if bucket == 0 {
		return nil, false
	}
	last := p.End()
	if step := stepOf(p); step > 0 {
		last = p.Start().Add(p.End().Sub(p.Start()) / step * step)
	}
	return &counting{
		session: s, leaf: leaf, counts: counts, params: p, bucket: bucket, totals: map[string]*total{},
		times: promplan.Grid{
			Start: p.Start().Add(bucket - leaf.Range - leaf.Offset).UnixMilli(), End: last.Add(-leaf.Offset).UnixMilli(), Step: bucket.Milliseconds(),
		},
	}, true
}

func (c *counting) evaluate(ctx context.Context) (logqlmodel.Result, error) {
	rest, err := c.rolled(ctx)
	if err != nil {
		return logqlmodel.Result{}, err
	}
	for _, times := range rest {
		if err := c.rows(ctx, times); err != nil {
			return logqlmodel.Result{}, err
		}
	}
	return logqlmodel.Result{Data: c.value()}, nil
}

// rolled takes in what rollups have, and returns the ends of the other buckets.
func (c *counting) rolled(ctx context.Context) (rest []promplan.Grid, err error) {
	query, err := promplan.Parse(c.counts.Series(c.bucket), promplan.Options{
		Start: time.UnixMilli(c.times.Start), End: time.UnixMilli(c.times.End), Step: c.bucket, Simple: true,
	})
	if err != nil {
		return nil, err
	}
	leaf, ok := query.Root()
	if !ok {
		return nil, fault.New(fault.Internal, "%s is planned as more than one part", query.Text)
	}
	series, rest, err := c.session.Counts.Rolled(ctx, leaf)
	if err != nil {
		return nil, err
	}
	for _, one := range series {
		t := c.total(one.Labels)
		for i, at := range one.Times {
			t.points = append(t.points, promql.FPoint{T: at, F: one.Values[i]})
		}
		if err := c.hold(len(one.Times)); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// rows takes in buckets that rollups do not have.
func (c *counting) rows(ctx context.Context, times promplan.Grid) error {
	leaf, err := c.counts.Rows(c.bucket)
	if err != nil {
		return err
	}
	p := bucketParams{Params: c.params, start: time.UnixMilli(times.Start), end: time.UnixMilli(times.Last()), step: c.bucket}
	result, err := c.session.pushed(ctx, leaf, c.session.within(leaf.Span(p.start, p.end)), p, false)
	if err != nil {
		return err
	}
	matrix, ok := result.Data.(promql.Matrix)
	if !ok {
		return fault.New(fault.Internal, "buckets were answered as %T", result.Data)
	}
	for _, series := range matrix {
		t := c.total(series.Metric)
		t.points = append(t.points, series.Floats...)
		if err := c.hold(len(series.Floats)); err != nil {
			return err
		}
	}
	return nil
}

func (c *counting) total(of labels.Labels) *total {
	key := of.String()
	if c.totals[key] == nil {
		c.totals[key] = &total{labels: of}
	}
	return c.totals[key]
}

func (c *counting) hold(points int) error {
	if c.held += points; c.held > c.session.points() {
		return c.session.errPoints()
	}
	return nil
}

// value adds buckets up to the ranges of steps.
func (c *counting) value() parser.Value {
	at := newSteps(c.params)
	matrix := make(promql.Matrix, 0, len(c.totals))
	for _, t := range c.totals {
		slices.SortFunc(t.points, func(a, b promql.FPoint) int { return cmp.Compare(a.T, b.T) })
		if floats := c.sums(t.points, at); len(floats) > 0 {
			matrix = append(matrix, promql.Series{Metric: t.labels, Floats: floats})
		}
	}
	sort.Sort(matrix)
	if !at.instant {
		return matrix
	}
	vector := make(promql.Vector, 0, len(matrix))
	for _, series := range matrix {
		vector = append(vector, promql.Sample{Metric: series.Metric, T: series.Floats[0].T, F: series.Floats[0].F})
	}
	return vector
}

// sums moves a range over buckets. What goes in comes out again exactly: sums are below 2^53.
func (c *counting) sums(points []promql.FPoint, at steps) []promql.FPoint {
	var out []promql.FPoint
	from, to, sum := 0, 0, 0.0
	for t := at.start; !t.After(at.end); t = t.Add(at.step) {
		end := t.Add(-c.leaf.Offset).UnixMilli()
		for ; to < len(points) && points[to].T <= end; to++ {
			sum += points[to].F
		}
		for ; from < to && points[from].T <= end-c.leaf.Range.Milliseconds(); from++ {
			sum -= points[from].F
		}
		if from < to {
			out = append(out, promql.FPoint{T: t.UnixMilli(), F: c.divided(sum)})
		}
		if at.instant || at.step <= 0 {
			break
		}
	}
	return out
}

func (c *counting) divided(sum float64) float64 {
	if c.leaf.Divisor == 0 {
		return sum
	}
	return sum / c.leaf.Divisor
}

// bucketParams are those of a leaf of buckets.
type bucketParams struct {
	logql.Params
	start, end time.Time
	step       time.Duration
}

// Start returns the end of the first bucket.
func (p bucketParams) Start() time.Time { return p.start }

// End returns the end of the last bucket.
func (p bucketParams) End() time.Time { return p.end }

// Step returns the width of a bucket.
func (p bucketParams) Step() time.Duration { return p.step }
