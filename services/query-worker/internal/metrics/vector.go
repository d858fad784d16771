// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/vector"
)

// Vector evaluates an expression, and gives its series as record batches of prom.SeriesSchema, sorted by labels, with a sample at each step that has a value.
func (s *Scan) Vector(ctx context.Context, q Vector, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
	series, remarks, err := s.evaluate(ctx, &q)
	if err != nil {
		return nil, err
	}
	return prom.Annotations(remarks), prom.EncodeSeries(series, emit)
}

// evaluate decides how.
func (s *Scan) evaluate(ctx context.Context, q *Vector) ([]prom.Series, annotations.Annotations, error) {
	s.limitSamples(q.MaxSamples)
	if q.Step == 0 {
		q.Start = q.End
	}
	if q.Resolution > 0 {
		return s.rollups(ctx, q)
	}
	if plan, ok := q.plan(); ok {
		series, remarks, err := s.fast(ctx, plan, q)
		if !errors.Is(err, vector.ErrUnsure) {
			return series, remarks, err
		}
		s.forget()
	}
	return s.slow(ctx, q)
}

// forget takes back what was counted of an evaluation that is begun again.
func (s *Scan) forget() {
	s.series.Store(0)
	s.memory.held.Store(0)
	s.Statistics.Samples.Store(0)
}

// plan is how the expression can be evaluated without the engine; false: not at all.
func (q *Vector) plan() (*vector.Plan, bool) {
	if q.Start > q.End || q.Step < 0 {
		return nil, false
	}
	grid := vector.Grid{Start: q.Start, Step: max(1, q.Step), Steps: 1}
	if q.Step > 0 {
		grid.Steps = int((q.End-q.Start)/q.Step) + 1
	}
	p, ok := vector.PlanOf(q.Expr, grid, time.Duration(q.Lookback)*time.Millisecond)
	if ok && q.StartTimestamps && (p.Question.Function.NeedsResets() || p.Question.Function == vector.Irate || p.Question.Function == vector.Resets) {
		return nil, false
	}
	return p, ok
}

// slow has Prometheus' engine evaluate.
func (s *Scan) slow(ctx context.Context, q *Vector) ([]prom.Series, annotations.Annotations, error) {
	engine := s.scanner.engine
	if s.starts = q.StartTimestamps; s.starts {
		engine = s.scanner.started
	}
	most := s.maxSamples
	s.maxSamples = 0 // the engine's limit is of what it holds at once; memory limits what is read
	r, err := engine.Evaluate(ctx, s.source(), prom.Request{
		Expr: q.Expr, Start: time.UnixMilli(q.Start), End: time.UnixMilli(q.End), Step: time.Duration(q.Step) * time.Millisecond,
		Lookback: time.Duration(q.Lookback) * time.Millisecond, MaxSamples: int(most), Shard: q.Shard,
	})
	if r.Statistics != nil && r.Statistics.Samples != nil {
		s.Statistics.Queryable.Add(r.Statistics.Samples.TotalSamples)
		s.Statistics.Peak.Store(max(s.Statistics.Peak.Load(), int64(r.Statistics.Samples.PeakSamples)))
	}
	if err != nil {
		return nil, nil, err
	}
	series, err := seriesOf(r)
	return series, r.Annotations, err
}

// seriesOf makes series of a value.
func seriesOf(r prom.Result) ([]prom.Series, error) {
	switch v := r.Value.(type) {
	case prom.Matrix:
		series := make([]prom.Series, len(v))
		for i := range v {
			series[i] = prom.SeriesOf(&v[i])
		}
		return series, nil
	case prom.Vector:
		series := make([]prom.Series, 0, len(v))
		for _, sample := range v {
			one := prom.Series{Labels: sample.Metric}
			if sample.H != nil {
				one.HistogramTimes, one.Histograms = append(one.HistogramTimes, sample.T), append(one.Histograms, sample.H)
			} else {
				one.Times, one.Values = append(one.Times, sample.T), append(one.Values, sample.F)
			}
			series = append(series, one)
		}
		return prom.Sorted(series), nil
	case prom.Scalar:
		return []prom.Series{{Times: []int64{v.T}, Values: []float64{v.V}}}, nil
	}
	return nil, fault.New(fault.Invalid, "an expression of type %s has no series", r.Value.Type())
}
