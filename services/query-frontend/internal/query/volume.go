// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/util"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
)

// VolumeRequest asks for the bytes of log lines by series or by label.
type VolumeRequest struct {
	Selector     string
	Start, End   time.Time
	Step         time.Duration // zero: one value for the range
	Limit        int
	TargetLabels []string
	ByLabel      bool // name the labels that the bytes have; else the series that the target labels make
}

// Volume answers a vector, or with a step a matrix, of bytes, the largest first.
func (f *Frontend) Volume(ctx context.Context, req VolumeRequest) (Answer, error) {
	shape, err := shapeOf(req)
	if err != nil {
		return Answer{}, err
	}
	streams, err := f.Streams(ctx, []string{shape.selector}, req.Start, req.End)
	if err != nil {
		return Answer{}, err
	}
	if req.Step <= 0 {
		return Answer{Data: shape.vector(streams, req), Statistics: streams.Statistics}, nil
	}
	return f.volumeRange(ctx, req, shape, streams)
}

// volumeShape says how streams become series of a volume.
type volumeShape struct {
	selector string
	names    map[string]struct{} // labels that are kept
	all      bool                // all are
	byLabel  bool
}

func shapeOf(req VolumeRequest) (volumeShape, error) {
	var matchers []*labels.Matcher
	if text := strings.ReplaceAll(req.Selector, " ", ""); text != "" && text != "{}" {
		parsed, err := syntax.ParseMatchers(req.Selector, true)
		if err != nil {
			return volumeShape{}, logs.Classify(err)
		}
		matchers = parsed
	}
	names, matchers, all := util.PrepareLabelsAndMatchers(req.TargetLabels, matchers)
	shape := volumeShape{names: names, all: all || len(names) == 0, byLabel: req.ByLabel}
	if req.ByLabel && len(req.TargetLabels) == 0 {
		shape.all = true
	}
	if len(matchers) > 0 {
		shape.selector = (&syntax.MatchersExpr{Mts: matchers}).String()
	}
	return shape, nil
}

// series returns what the bytes of a label set count for.
func (s *volumeShape) series(set labels.Labels) []labels.Labels {
	kept := labels.NewScratchBuilder(set.Len())
	var single []labels.Labels
	set.Range(func(l labels.Label) {
		if _, ok := s.names[l.Name]; !ok && !s.all {
			return
		}
		kept.Add(l.Name, l.Value)
		single = append(single, labels.FromStrings(l.Name, ""))
	})
	if s.byLabel {
		return single
	}
	return []labels.Labels{kept.Labels()}
}

func (s *volumeShape) vector(streams Streams, req VolumeRequest) promql.Vector {
	volumes := map[string]*promql.Sample{}
	for _, stream := range streams.All {
		for _, metric := range s.series(stream.Labels) {
			sample, ok := volumes[metric.String()]
			if !ok {
				sample = &promql.Sample{Metric: metric, T: req.End.UnixMilli()}
				volumes[metric.String()] = sample
			}
			sample.F += float64(stream.Bytes)
		}
	}
	vector := make(promql.Vector, 0, len(volumes))
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		vector = append(vector, *volumes[name])
	}
	slices.SortStableFunc(vector, func(a, b promql.Sample) int { return cmp.Compare(b.F, a.F) })
	return vector[:min(len(vector), req.Limit)]
}

// volumeRange answers the bytes of each step, whose bounds are multiples of the step; the first and the last are whole steps too.
func (f *Frontend) volumeRange(ctx context.Context, req VolumeRequest, shape volumeShape, streams Streams) (Answer, error) {
	if len(streams.All) == 0 {
		return Answer{Data: promql.Matrix{}, Statistics: streams.Statistics}, nil
	}
	selector := shape.selector
	if selector == "" {
		var ok bool
		if selector, ok = streams.selector(); !ok {
			return Answer{}, fault.New(fault.Invalid, "the streams have no label in common: name a stream selector")
		}
	}
	if req.Step < time.Millisecond {
		return Answer{}, fault.New(fault.Invalid, "step must be at least one millisecond")
	}
	kept := slices.DeleteFunc(streams.Names(), func(name string) bool {
		_, ok := shape.names[name]
		return !ok && !shape.all
	})
	answer, err := f.Evaluate(ctx, Request{
		Query: fmt.Sprintf("sum by (%s) (bytes_over_time(%s[%dms]))", strings.Join(kept, ","), selector, req.Step.Milliseconds()),
		Start: req.Start.Truncate(req.Step).Add(req.Step),
		End:   req.End.Add(req.Step - 1).Truncate(req.Step),
		Step:  req.Step,
	})
	if err != nil {
		return Answer{}, err
	}
	matrix, _ := answer.Data.(promql.Matrix)
	answer.Data = shape.matrix(matrix, req.Limit)
	return answer, nil
}

func (s *volumeShape) matrix(found promql.Matrix, limit int) promql.Matrix {
	type total struct {
		metric labels.Labels
		points map[int64]float64
		sum    float64
	}
	totals := map[string]*total{}
	for _, series := range found {
		for _, metric := range s.series(series.Metric) {
			t, ok := totals[metric.String()]
			if !ok {
				t = &total{metric: metric, points: map[int64]float64{}}
				totals[metric.String()] = t
			}
			for _, p := range series.Floats {
				t.points[p.T] += p.F
				t.sum += p.F
			}
		}
	}
	names := slices.Sorted(maps.Keys(totals))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(totals[b].sum, totals[a].sum) })
	var matrix promql.Matrix
	for _, name := range names[:min(len(names), limit)] {
		t := totals[name]
		series := promql.Series{Metric: t.metric}
		for _, at := range slices.Sorted(maps.Keys(t.points)) {
			series.Floats = append(series.Floats, promql.FPoint{T: at, F: t.points[at]})
		}
		matrix = append(matrix, series)
	}
	return matrix
}
