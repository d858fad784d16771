// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// Request is what is asked.
type Request struct {
	Query *promplan.Query
	prom.Request
}

// Evaluate answers a query.
func (s *Session) Evaluate(ctx context.Context, r Request) (Result, error) {
	result, err := s.evaluate(ctx, r)
	if err != nil {
		return Result{}, s.endOf(ctx, err)
	}
	if n := seriesIn(result.Value); s.Limits.Series > 0 && n > s.Limits.Series {
		return Result{}, fault.New(fault.Exhausted, "the query returns %d series, and at most %d may be (limit max_query_series); aggregate, or narrow the selector", n, s.Limits.Series)
	}
	result.Annotations.Merge(s.annotated)
	prom.Annotate(&result.Annotations, s.remarks, 0)
	result.Counts = s.counted
	result.Resolution, result.Bound = s.resolution, s.bound
	return result, nil
}

func seriesIn(v parser.Value) int {
	switch data := v.(type) {
	case prom.Matrix:
		return len(data)
	case prom.Vector:
		return len(data)
	}
	return 0
}

func (s *Session) evaluate(ctx context.Context, r Request) (Result, error) {
	if leaf, ok := r.Query.Root(); ok {
		series, err := s.leaf(ctx, leaf)
		if err != nil {
			return Result{}, s.failed(err)
		}
		return Result{Value: valueOf(leaf.Times, leaf.Constant, series, r.Step == 0)}, nil
	}
	if join, ok := r.Query.RootJoin(); ok {
		series, err := s.join(ctx, r.Query, join)
		if err != nil {
			return Result{}, s.failed(err)
		}
		return Result{Value: valueOf(join.Times, false, series, r.Step == 0)}, nil
	}
	r.Expr, r.MaxSamples, r.Lookback = r.Query.Expr, s.samples(), s.Lookback
	got, err := s.Engine.Evaluate(ctx, source{s, r.Query}, r.Request)
	if err != nil {
		return Result{}, err
	}
	if got.Statistics != nil && got.Statistics.Samples != nil {
		s.counted.Peak = max(s.counted.Peak, int64(got.Statistics.Samples.PeakSamples))
	}
	return Result{Value: got.Value, Annotations: got.Annotations}, nil
}

// valueOf is the answer of a query that is one leaf, or join. Of a constant one each series has its first value at all times.
func valueOf(times promplan.Grid, constant bool, series []prom.Series, instant bool) parser.Value {
	matrix := make(prom.Matrix, 0, len(series))
	for i := range series {
		matrix = append(matrix, lineOf(times, constant, &series[i]))
	}
	if !instant {
		return matrix
	}
	vector := make(prom.Vector, 0, len(matrix))
	for _, line := range matrix {
		for _, p := range line.Floats {
			vector = append(vector, prom.Sample{Metric: line.Metric, T: p.T, F: p.F})
		}
		for _, p := range line.Histograms {
			vector = append(vector, prom.Sample{Metric: line.Metric, T: p.T, H: p.H})
		}
	}
	return vector
}

// lineOf is a series at its times.
func lineOf(times promplan.Grid, constant bool, s *prom.Series) prom.Line {
	line := prom.Line{Metric: s.Labels}
	if constant {
		for i := range times.Len() {
			t := times.At(i)
			if len(s.Values) > 0 {
				line.Floats = append(line.Floats, prom.FPoint{T: t, F: s.Values[0]})
			} else if len(s.Histograms) > 0 {
				line.Histograms = append(line.Histograms, prom.HPoint{T: t, H: s.Histograms[0]})
			}
		}
		return line
	}
	if len(s.Times) > 0 {
		line.Floats = make([]prom.FPoint, len(s.Times))
		for i, t := range s.Times {
			line.Floats[i] = prom.FPoint{T: t, F: s.Values[i]}
		}
	}
	for i, t := range s.HistogramTimes {
		line.Histograms = append(line.Histograms, prom.HPoint{T: t, H: s.Histograms[i]})
	}
	return line
}

// source is what the engine reads: leaves, and samples.
type source struct {
	session *Session
	query   *promplan.Query
}

// Select implements prom.Source.
func (s source) Select(ctx context.Context, selection prom.Selection) ([]prom.Series, error) {
	if join, ok := s.query.JoinOf(selection.Matchers); ok {
		series, err := s.session.join(ctx, s.query, join)
		return synthetics(join.Times, false, series), s.session.failed(err)
	}
	if leaf, ok := s.query.LeafOf(selection.Matchers); ok {
		series, err := s.session.leaf(ctx, leaf)
		return synthetics(leaf.Times, leaf.Constant, series), s.session.failed(err)
	}
	series, err := s.session.Select(ctx, selection.Matchers, promplan.Span{Start: selection.Start, End: selection.End})
	return series, s.session.failed(err)
}

func synthetics(times promplan.Grid, constant bool, series []prom.Series) []prom.Series {
	out := make([]prom.Series, len(series))
	for i := range series {
		out[i] = synthetic(times, constant, &series[i])
	}
	return out
}

// synthetic is a series as the engine has to find it: with its value at each time that has one, and a stale marker at the first that has none, so that looking
// back finds nothing.
func synthetic(times promplan.Grid, constant bool, s *prom.Series) prom.Series {
	if !constant && len(s.Times) == times.Len() && len(s.Histograms) == 0 {
		return *s
	}
	line := lineOf(times, constant, s)
	out := prom.Series{Labels: s.Labels}
	f, h, present := 0, 0, false
	for i := range times.Len() {
		t := times.At(i)
		switch {
		case f < len(line.Floats) && line.Floats[f].T == t:
			out.Times, out.Values = append(out.Times, t), append(out.Values, line.Floats[f].F)
			f++
		case h < len(line.Histograms) && line.Histograms[h].T == t:
			appendHistogram(&out, times, t, line.Histograms[h].H)
			h++
		case present:
			out.Times, out.Values = append(out.Times, t), append(out.Values, math.Float64frombits(value.StaleNaN))
			present = false
			continue
		default:
			continue
		}
		present = true
	}
	return out
}

// appendHistogram keeps a reset hint that is not known as it is: the engine's storage would derive it from the histogram before, unless there is something between them.
// Nobody looks between two times.
func appendHistogram(to *prom.Series, times promplan.Grid, t int64, h *histogram.FloatHistogram) {
	if h.CounterResetHint == histogram.UnknownCounterReset && len(to.Histograms) > 0 && times.Step > 1 {
		to.Times, to.Values = append(to.Times, t-1), append(to.Values, math.Float64frombits(value.StaleNaN))
	}
	to.HistogramTimes, to.Histograms = append(to.HistogramTimes, t), append(to.Histograms, h)
}

// Read is Select for who has no engine.
func (s *Session) Read(ctx context.Context, matchers []*labels.Matcher, span promplan.Span) ([]prom.Series, error) {
	series, err := s.Select(ctx, matchers, span)
	return series, s.endOf(ctx, err)
}

// Select reads samples of series, sorted by labels.
func (s *Session) Select(ctx context.Context, matchers []*labels.Matcher, span promplan.Span) ([]prom.Series, error) {
	if err := s.kept(span); err != nil {
		return nil, err
	}
	segments := within(s.Samples.Segments, span)
	shards := s.shardsOver(segments)
	answers := make([]*seriesDecoder, shards)
	held := 0
	parts := make([]fan.Part, shards)
	for i := range parts {
		shard := lake.Shard{Index: uint32(i), Count: uint32(shards)}
		parts[i] = fan.Part{
			Key:      s.shardKey(shard),
			Segments: meeting(segments, shard),
			Fragment: func(req *workerv1.ScanRequest) {
				req.Fragment = &workerv1.ScanRequest_MetricSamples{MetricSamples: &workerv1.MetricSamples{
					Selector: selectorProto(matchers), StartMs: span.Start, EndMs: span.End, Shard: fan.ShardProto(shard), MaxSamples: int64(s.samples()),
					StartTimes: s.StartTimestamps,
				}}
			},
			NewDecoder: func() fan.Decoder { return s.decoder(nil) },
			Done: func(d fan.Decoder) error {
				answers[i] = d.(*seriesDecoder)
				if held += answers[i].held; held > s.samples() {
					return s.errSamples()
				}
				return nil
			},
		}
	}
	if err := s.run(ctx, parts); err != nil {
		return nil, err
	}
	var all []prom.Series
	for _, d := range answers {
		if d != nil {
			all = append(all, d.series...)
			s.ended(d.ending, nil)
		}
	}
	return prom.Sorted(all), nil
}
