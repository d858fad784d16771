// SPDX-License-Identifier: AGPL-3.0-only

package workertest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
)

// MetricSegment is what a segment of metrics holds.
type MetricSegment struct {
	Resolution time.Duration
	Shard      lake.Shard
	Window     lake.Window
	Series     []prom.Series
}

// PutMetrics stores series as a segment and returns its entry for an index.
func (s *Store) PutMetrics(organization lake.Organization, id lake.SegmentID, m MetricSegment) lake.Segment {
	segment := s.PutMetricsAt(fmt.Sprintf("db/%s/metrics/2026-01-01/lease/%06d.parquet", organization, id), organization, m)
	segment.ID = id
	return segment
}

// PutMetricsAt stores series as a segment with that key.
func (s *Store) PutMetricsAt(key string, organization lake.Organization, m MetricSegment) lake.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.metrics == nil {
		s.metrics = map[string]MetricSegment{}
	}
	s.metrics[key] = m
	segment := lake.Segment{
		Organization: organization, Signal: lake.SignalMetrics, Bucket: "lake", Key: key, Window: m.Window, Resolution: m.Resolution, Shard: m.Shard,
	}
	first, last := int64(1)<<62, int64(0)
	for i := range m.Series {
		one := &m.Series[i]
		segment.Rows += int64(one.Len())
		for _, times := range [][]int64{one.Times, one.HistogramTimes} {
			if len(times) > 0 {
				first, last = min(first, times[0]), max(last, times[len(times)-1])
			}
		}
	}
	if ms := m.Resolution.Milliseconds(); ms > 0 {
		first, last = (first+ms-1)/ms*ms, (last+ms-1)/ms*ms // ends of buckets
	}
	segment.Bytes, segment.SidecarBytes = 100*segment.Rows, 10*segment.Rows
	segment.FirstTime, segment.LastTime = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
	return segment
}

// metricSource are the series of some segments, sorted.
type metricSource struct {
	segments []MetricSegment
	series   []prom.Series
	read     *int64
}

func (s *Store) metricSource(organization string, segments []*workerv1.Segment) (metricSource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := metricSource{read: new(int64)}
	var key strings.Builder
	for _, segment := range segments {
		held, ok := s.metrics[segment.GetKey()]
		switch {
		case !ok:
			return out, fault.New(fault.MissingSegment, "segment %s is not in the store", segment.GetKey())
		case !strings.HasPrefix(segment.GetKey(), "db/"+organization+"/"):
			return out, fault.New(fault.Denied, "segment %s belongs to another organization", segment.GetKey())
		case held.Resolution != segment.GetResolution().AsDuration() || held.Shard.Index != segment.GetShard().GetIndex():
			return out, fault.New(fault.Internal, "segment %s is said to be another", segment.GetKey())
		}
		out.segments = append(out.segments, held)
		key.WriteString(segment.GetKey() + " ")
	}
	if s.joined == nil {
		s.joined = map[string][]prom.Series{}
	}
	if s.joined[key.String()] == nil {
		s.joined[key.String()] = joined(out.segments)
	}
	out.series = s.joined[key.String()]
	return out, nil
}

// joined are the series of segments, each with all of its samples, and histograms with the hints that they have among all of them.
func joined(segments []MetricSegment) []prom.Series {
	all := []prom.Series{}
	for _, segment := range segments {
		all = append(all, segment.Series...)
	}
	all = prom.Sorted(all)
	for i := range all {
		prom.Hints(&all[i])
	}
	return all
}

// Select implements prom.Source.
func (s metricSource) Select(_ context.Context, asked prom.Selection) ([]prom.Series, error) {
	var out []prom.Series
	for i := range s.series {
		one := s.series[i]
		if !asked.Shard.Holds(labels.StableHash(one.Labels)) || !matchAll(asked.Matchers, one.Labels) {
			continue
		}
		one.Trim(asked.Start, asked.End)
		if one.Len() > 0 {
			atomic.AddInt64(s.read, int64(one.Len()))
			out = append(out, one)
		}
	}
	return out, nil
}

// metricAnswer evaluates a fragment.
func (w *Worker) metricAnswer(ctx context.Context, req *workerv1.ScanRequest) ([]*workerv1.ScanResponse, error) {
	source, err := w.Store.metricSource(req.GetOrganization(), req.GetSegments())
	if err != nil {
		return nil, err
	}
	var bytes int64
	for _, segment := range req.GetSegments() {
		bytes += segment.GetBytes()
	}
	if most := req.GetMaxBytes(); most > 0 && bytes > most {
		return nil, fault.New(fault.Exhausted, "the scan would read more than %d bytes", most)
	}
	last := &workerv1.ScanResponse{Statistics: &workerv1.ScanStatistics{}}
	var batches [][]byte
	emit := func(batch arrow.RecordBatch) error {
		batches = append(batches, encode(batch))
		return nil
	}
	switch fragment := req.GetFragment().(type) {
	case *workerv1.ScanRequest_MetricVector:
		err = w.metricVector(ctx, fragment.MetricVector, source, emit, last)
	case *workerv1.ScanRequest_MetricSamples:
		err = metricSamples(ctx, fragment.MetricSamples, source, emit)
	case *workerv1.ScanRequest_MetricCatalogue:
		err = metricCatalogue(fragment.MetricCatalogue, source, emit)
	case *workerv1.ScanRequest_MetricExemplars:
		err = metricExemplars(fragment.MetricExemplars, source, emit)
	default:
		err = fault.New(fault.Unsupported, "%T", fragment)
	}
	if err != nil {
		return nil, err
	}
	var out []*workerv1.ScanResponse
	for _, batch := range batches {
		out = append(out, &workerv1.ScanResponse{Arrow: batch})
	}
	n := int64(len(req.GetSegments()))
	s := last.GetStatistics()
	s.Segments, s.SegmentsRead, s.SamplesRead, s.ObjectRequests, s.BytesRead = n, n, *source.read, 2*n, bytes
	return append(out, last), nil
}

func (w *Worker) metricVector(
	ctx context.Context, f *workerv1.MetricVector, source metricSource, emit func(arrow.RecordBatch) error, last *workerv1.ScanResponse,
) error {
	expr, err := prom.Parse(f.GetExpression())
	if err != nil {
		return err
	}
	for _, segment := range source.segments {
		if segment.Resolution.Milliseconds() != f.GetResolutionMs() {
			return fault.New(fault.Internal, "a segment of resolution %s is asked at %d ms", segment.Resolution, f.GetResolutionMs())
		}
	}
	if f.GetResolutionMs() > 0 && w.Inexact {
		return fault.New(fault.Unsupported, "the rollup does not have this answer")
	}
	got, err := w.engine().Evaluate(ctx, source, prom.Request{
		Expr: expr, Start: time.UnixMilli(f.GetStartMs()), End: time.UnixMilli(f.GetEndMs()), Step: time.Duration(f.GetStepMs()) * time.Millisecond,
		Lookback: time.Duration(f.GetLookbackMs()) * time.Millisecond, MaxSamples: int(f.GetMaxSamples()),
		Shard: lake.Shard{Index: f.GetShard().GetIndex(), Count: f.GetShard().GetCount()},
	})
	if err != nil {
		return err
	}
	for _, a := range prom.Annotations(got.Annotations) {
		last.Annotations = append(last.Annotations, &workerv1.Annotation{Info: a.Info, Text: a.Text, Start: int32(a.Start), End: int32(a.End)})
	}
	return prom.EncodeSeries(SeriesOf(got.Value), emit)
}

func (w *Worker) engine() *prom.Engine {
	w.once.Do(func() { w.prometheus = prom.New(w.Engine) })
	return w.prometheus
}

// SeriesOf returns a matrix or vector as series.
func SeriesOf(v any) []prom.Series {
	matrix, ok := v.(prom.Matrix)
	if vector, isVector := v.(prom.Vector); isVector {
		ok = true
		for _, s := range vector {
			line := prom.Line{Metric: s.Metric}
			if s.H == nil {
				line.Floats = []prom.FPoint{{T: s.T, F: s.F}}
			} else {
				line.Histograms = []prom.HPoint{{T: s.T, H: s.H}}
			}
			matrix = append(matrix, line)
		}
	}
	if !ok {
		panic(fmt.Sprintf("a worker evaluated to %T", v))
	}
	var out []prom.Series
	for i := range matrix {
		out = append(out, prom.SeriesOf(&matrix[i]))
	}
	return prom.Sorted(out)
}

func matchersOf(selector *workerv1.Selector) ([]*labels.Matcher, error) {
	kinds := map[workerv1.MatchType]labels.MatchType{
		workerv1.MatchType_MATCH_TYPE_EQUAL: labels.MatchEqual, workerv1.MatchType_MATCH_TYPE_NOT_EQUAL: labels.MatchNotEqual,
		workerv1.MatchType_MATCH_TYPE_REGEXP: labels.MatchRegexp, workerv1.MatchType_MATCH_TYPE_NOT_REGEXP: labels.MatchNotRegexp,
	}
	var out []*labels.Matcher
	for _, m := range selector.GetMatchers() {
		matcher, err := labels.NewMatcher(kinds[m.GetType()], m.GetName(), m.GetValue())
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		out = append(out, matcher)
	}
	return out, nil
}

func metricSamples(ctx context.Context, f *workerv1.MetricSamples, source metricSource, emit func(arrow.RecordBatch) error) error {
	matchers, err := matchersOf(f.GetSelector())
	if err != nil {
		return err
	}
	series, err := source.Select(ctx, prom.Selection{
		Matchers: matchers, Start: f.GetStartMs(), End: f.GetEndMs(), Shard: lake.Shard{Index: f.GetShard().GetIndex(), Count: f.GetShard().GetCount()},
	})
	if err != nil {
		return err
	}
	return prom.EncodeSeries(series, emit)
}

// chosen are the series that any selector chooses, with their samples of a range.
func (s metricSource) chosen(selectors []*workerv1.Selector, start, end int64) ([]prom.Series, error) {
	var out []prom.Series
	for i := range s.series {
		one := s.series[i]
		chosen := len(selectors) == 0
		for _, selector := range selectors {
			matchers, err := matchersOf(selector)
			if err != nil {
				return nil, err
			}
			chosen = chosen || matchAll(matchers, one.Labels)
		}
		if one.Trim(start, end); chosen && one.Len() > 0 {
			out = append(out, one)
		}
	}
	return out, nil
}

func metricCatalogue(f *workerv1.MetricCatalogue, source metricSource, emit func(arrow.RecordBatch) error) error {
	series, err := source.chosen(f.GetSelectors(), f.GetStartMs(), f.GetEndMs())
	if err != nil {
		return err
	}
	var entries []prom.Entry
	var metrics []prom.Metric
	for i := range series {
		n := int64(series[i].Len())
		entries = append(entries, prom.Entry{Labels: series[i].Labels, Samples: n, Bytes: 10 * n})
		name := series[i].Labels.Get(model.MetricNameLabel)
		if last := len(metrics) - 1; last < 0 || metrics[last].Name != name {
			metrics = append(metrics, prom.Metric{Name: name, Type: "gauge", Help: "Help of " + name})
		}
		m := &metrics[len(metrics)-1]
		m.Series, m.Samples, m.Bytes = m.Series+1, m.Samples+n, m.Bytes+10*n
	}
	if f.GetKind() == workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_METRICS {
		return prom.EncodeMetrics(metrics, emit)
	}
	return prom.EncodeEntries(entries, emit)
}

// metricExemplars makes an exemplar of the last sample of each series.
func metricExemplars(f *workerv1.MetricExemplars, source metricSource, emit func(arrow.RecordBatch) error) error {
	series, err := source.chosen(f.GetSelectors(), f.GetStartMs(), f.GetEndMs())
	if err != nil {
		return err
	}
	var out []prom.Exemplar
	for _, s := range series {
		if n := len(s.Times) - 1; n >= 0 {
			out = append(out, prom.Exemplar{Series: s.Labels, Labels: labels.FromStrings("trace_id", "1"), Value: s.Values[n], Time: s.Times[n]})
		}
	}
	return prom.EncodeExemplars(out, emit)
}

// Canned is the answer of a worker that has evaluated to series.
func Canned(series []prom.Series) []*workerv1.ScanResponse {
	var out []*workerv1.ScanResponse
	_ = prom.EncodeSeries(series, func(batch arrow.RecordBatch) error { // cannot fail
		out = append(out, &workerv1.ScanResponse{Arrow: encode(batch)})
		return nil
	})
	return append(out, &workerv1.ScanResponse{Statistics: &workerv1.ScanStatistics{Segments: 1}})
}

// Answering is a worker that answers what a function says.
type Answering func(*workerv1.ScanRequest) []*workerv1.ScanResponse

// Scan implements the client of a worker.
func (a Answering) Scan(ctx context.Context, req *workerv1.ScanRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[workerv1.ScanResponse], error) {
	return &stream{ctx: ctx, left: -1, answer: func() ([]*workerv1.ScanResponse, error) { return a(req), nil }}, nil
}
