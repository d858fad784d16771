// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"bytes"
	"context"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

const (
	samplesPerMessage = 16_384
	// histogramSamples is how many samples a histogram counts as in a message.
	histogramSamples = 16
)

// QueryMetrics evaluates a PromQL query and streams its answer.
func (s *Server) QueryMetrics(req *queryv1.QueryMetricsRequest, stream grpc.ServerStreamingServer[queryv1.QueryMetricsResponse]) error {
	asked, err := metricRequest(req)
	if err != nil {
		return err
	}
	answer, err := s.frontend.EvaluateMetrics(stream.Context(), asked)
	if err != nil {
		return err
	}
	out := &valueStream{send: stream.Send, kind: valueType(answer.Value)}
	if req.GetArrow() {
		err = out.arrow(answer.Value)
	} else {
		err = out.series(answer.Value)
	}
	if err != nil {
		return err
	}
	last := &queryv1.QueryMetricsResponse{
		Type: out.kind, Statistics: statisticsOf(answer.Statistics), Warnings: answer.Warnings, Infos: answer.Infos,
		ErrorBound: answer.Bound, SamplesQueryable: answer.Samples.Total, SamplesPeak: answer.Samples.Peak,
	}
	if text, ok := answer.Value.(prom.String); ok {
		last.Text = text.V
	}
	return stream.Send(last)
}

func metricRequest(req *queryv1.QueryMetricsRequest) (query.MetricRequest, error) {
	from, to, err := bounds(req.GetStart(), req.GetEnd(), queryRange)
	step := req.GetStep().AsDuration()
	if step == 0 {
		from = to
	}
	return query.MetricRequest{
		Query: req.GetQuery(), Start: from, End: to, Step: step, Lookback: req.GetLookback().AsDuration(), Timeout: req.GetTimeout().AsDuration(), Limit: int(req.GetLimit()),
	}, err
}

func valueType(v parser.Value) queryv1.ValueType {
	switch v.(type) {
	case prom.Matrix:
		return queryv1.ValueType_VALUE_TYPE_MATRIX
	case prom.Vector:
		return queryv1.ValueType_VALUE_TYPE_VECTOR
	case prom.Scalar:
		return queryv1.ValueType_VALUE_TYPE_SCALAR
	case prom.String:
		return queryv1.ValueType_VALUE_TYPE_STRING
	}
	return queryv1.ValueType_VALUE_TYPE_UNSPECIFIED
}

// lines are the series of a value, in its order.
func lines(v parser.Value) []prom.Line {
	switch data := v.(type) {
	case prom.Matrix:
		return data
	case prom.Scalar:
		return []prom.Line{{Floats: []prom.FPoint{{T: data.T, F: data.V}}}}
	case prom.Vector:
		out := make([]prom.Line, len(data))
		for i, s := range data {
			out[i].Metric = s.Metric
			if s.H == nil {
				out[i].Floats = []prom.FPoint{{T: s.T, F: s.F}}
			} else {
				out[i].Histograms = []prom.HPoint{{T: s.T, H: s.H}}
			}
		}
		return out
	}
	return nil
}

// valueStream sends a value in messages of fair size.
type valueStream struct {
	send    func(*queryv1.QueryMetricsResponse) error
	kind    queryv1.ValueType
	message *queryv1.QueryMetricsResponse
	held    int
}

func (v *valueStream) series(value parser.Value) error {
	for _, line := range lines(value) {
		if err := v.line(line); err != nil {
			return err
		}
	}
	return v.flush()
}

func (v *valueStream) line(line prom.Line) error {
	named := line.Metric.Map()
	one := v.begin(named)
	for len(line.Floats) > 0 || len(line.Histograms) > 0 {
		if v.held >= samplesPerMessage {
			if err := v.flush(); err != nil {
				return err
			}
			one = v.begin(named)
		}
		// Of a range of samples as they are, floats and histograms take turns.
		if len(line.Histograms) == 0 || len(line.Floats) > 0 && line.Floats[0].T < line.Histograms[0].T {
			one.Samples = append(one.Samples, sampleOf(line.Floats[0].T, line.Floats[0].F))
			line.Floats = line.Floats[1:]
			v.held++
			continue
		}
		p := line.Histograms[0]
		one.Samples = append(one.Samples, &queryv1.Sample{Time: timestamppb.New(time.UnixMilli(p.T)), Histogram: histogramOf(p.H)})
		line.Histograms = line.Histograms[1:]
		v.held += histogramSamples
	}
	return nil
}

// begin begins a series, or goes on with it, in the current message.
func (v *valueStream) begin(named map[string]string) *queryv1.Series {
	if v.message == nil {
		v.message = &queryv1.QueryMetricsResponse{Type: v.kind}
	}
	one := &queryv1.Series{Labels: named}
	v.message.Series = append(v.message.Series, one)
	v.held += 1 + len(named)
	return one
}

func (v *valueStream) flush() error {
	if v.message == nil {
		return nil
	}
	message := v.message
	v.message, v.held = nil, 0
	return v.send(message)
}

// arrow sends a value as an Arrow IPC stream.
func (v *valueStream) arrow(value parser.Value) error {
	var buffer bytes.Buffer
	out := ipc.NewWriter(&buffer, ipc.WithSchema(prom.SeriesSchema()))
	encoder := prom.NewEncoder(func(batch arrow.RecordBatch) error {
		if err := out.Write(batch); err != nil {
			return err
		}
		return v.bytes(&buffer)
	})
	defer encoder.Release()
	for _, line := range lines(value) {
		series := prom.SeriesOf(&line)
		if err := encoder.Add(&series); err != nil {
			return err
		}
	}
	if err := encoder.Flush(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	return v.bytes(&buffer)
}

// bytes sends what is in a buffer.
func (v *valueStream) bytes(buffer *bytes.Buffer) error {
	_, err := writerFunc(func(p []byte) error {
		return v.send(&queryv1.QueryMetricsResponse{Type: v.kind, Arrow: p})
	}).Write(buffer.Bytes())
	buffer.Reset()
	return err
}

func histogramOf(h *histogram.FloatHistogram) *queryv1.Histogram {
	return &queryv1.Histogram{
		ResetHint: uint32(h.CounterResetHint), Schema: h.Schema, ZeroThreshold: h.ZeroThreshold, ZeroCount: h.ZeroCount, Count: h.Count, Sum: h.Sum,
		PositiveSpans: spansOf(h.PositiveSpans), PositiveBuckets: h.PositiveBuckets,
		NegativeSpans: spansOf(h.NegativeSpans), NegativeBuckets: h.NegativeBuckets, CustomBounds: h.CustomValues,
	}
}

func spansOf(spans []histogram.Span) []*queryv1.HistogramSpan {
	out := make([]*queryv1.HistogramSpan, len(spans))
	for i, s := range spans {
		out[i] = &queryv1.HistogramSpan{Offset: s.Offset, Length: s.Length}
	}
	return out
}

// ranged is what all questions about series have.
type ranged interface {
	GetSelectors() []string
	GetStart() *timestamppb.Timestamp
	GetEnd() *timestamppb.Timestamp
}

func matchersOf(req ranged) (sets [][]*labels.Matcher, from, to time.Time, err error) {
	if from, to, err = bounds(req.GetStart(), req.GetEnd(), labelRange); err != nil {
		return nil, from, to, err
	}
	for _, selector := range req.GetSelectors() {
		set, err := prom.ParseSelector(selector)
		if err != nil {
			return nil, from, to, err
		}
		sets = append(sets, set)
	}
	return sets, from, to, nil
}

// ListMetrics lists names of metrics.
func (s *Server) ListMetrics(ctx context.Context, req *queryv1.ListMetricsRequest) (*queryv1.ListMetricsResponse, error) {
	sets, from, to, err := matchersOf(req)
	if err != nil {
		return nil, err
	}
	found, err := s.frontend.Metrics(ctx, sets, from, to)
	if err != nil {
		return nil, err
	}
	out := &queryv1.ListMetricsResponse{Statistics: statisticsOf(found.Statistics)}
	for i := range found.All {
		out.Metrics = append(out.Metrics, metricOf(&found.All[i]))
	}
	return out, nil
}

func metricOf(m *query.Metric) *queryv1.Metric {
	return &queryv1.Metric{Name: m.Name, Type: m.Type, Unit: m.Unit, Help: m.Help, Series: m.Series, Samples: m.Samples, Bytes: m.Bytes}
}

// ListMetricSeries lists series.
func (s *Server) ListMetricSeries(ctx context.Context, req *queryv1.ListMetricSeriesRequest) (*queryv1.ListMetricSeriesResponse, error) {
	sets, from, to, err := matchersOf(req)
	if err != nil {
		return nil, err
	}
	found, err := s.frontend.MetricSeries(ctx, sets, from, to, int(req.GetLimit()))
	if err != nil {
		return nil, err
	}
	out := &queryv1.ListMetricSeriesResponse{Warnings: found.Warnings, Statistics: statisticsOf(found.Statistics)}
	for i := range found.Series {
		out.Series = append(out.Series, &queryv1.LabelSet{Labels: found.Series[i].Labels.Map()})
	}
	return out, nil
}

// ListMetricLabels lists label names.
func (s *Server) ListMetricLabels(ctx context.Context, req *queryv1.ListMetricLabelsRequest) (*queryv1.ListMetricLabelsResponse, error) {
	sets, from, to, err := matchersOf(req)
	if err != nil {
		return nil, err
	}
	found, err := s.frontend.MetricLabels(ctx, sets, from, to, int(req.GetLimit()))
	if err != nil {
		return nil, err
	}
	return &queryv1.ListMetricLabelsResponse{Labels: found.All, Warnings: found.Warnings, Statistics: statisticsOf(found.Statistics)}, nil
}

// ListMetricLabelValues lists the values of a label.
func (s *Server) ListMetricLabelValues(ctx context.Context, req *queryv1.ListMetricLabelValuesRequest) (*queryv1.ListMetricLabelValuesResponse, error) {
	if req.GetLabel() == "" {
		return nil, fault.New(fault.Invalid, "label is empty")
	}
	sets, from, to, err := matchersOf(req)
	if err != nil {
		return nil, err
	}
	found, err := s.frontend.MetricLabelValues(ctx, req.GetLabel(), sets, from, to, int(req.GetLimit()))
	if err != nil {
		return nil, err
	}
	return &queryv1.ListMetricLabelValuesResponse{Values: found.All, Warnings: found.Warnings, Statistics: statisticsOf(found.Statistics)}, nil
}

// ListExemplars lists exemplars.
func (s *Server) ListExemplars(ctx context.Context, req *queryv1.ListExemplarsRequest) (*queryv1.ListExemplarsResponse, error) {
	from, to, err := bounds(req.GetStart(), req.GetEnd(), queryRange)
	if err != nil {
		return nil, err
	}
	found, err := s.frontend.Exemplars(ctx, req.GetQuery(), from, to)
	if err != nil {
		return nil, err
	}
	out := &queryv1.ListExemplarsResponse{Statistics: statisticsOf(found.Statistics)}
	for _, series := range found.Series {
		one := &queryv1.SeriesExemplars{Labels: series.Labels.Map()}
		for _, e := range series.Exemplars {
			one.Exemplars = append(one.Exemplars, &queryv1.Exemplar{Labels: e.Labels.Map(), Value: e.Value, Time: timestamppb.New(time.UnixMilli(e.Time))})
		}
		out.Series = append(out.Series, one)
	}
	return out, nil
}

// GetCardinality counts series.
func (s *Server) GetCardinality(ctx context.Context, req *queryv1.GetCardinalityRequest) (*queryv1.GetCardinalityResponse, error) {
	sets, from, to, err := matchersOf(req)
	if err != nil {
		return nil, err
	}
	found, err := s.frontend.Cardinality(ctx, query.CardinalityRequest{Matchers: sets, Start: from, End: to, Limit: int(req.GetLimit())})
	if err != nil {
		return nil, err
	}
	out := &queryv1.GetCardinalityResponse{
		Series: found.Series, NewSeries: found.New, VanishedSeries: found.Vanished, Samples: found.Samples, Bytes: found.Bytes,
		Statistics: statisticsOf(found.Statistics),
	}
	for i := range found.Metrics {
		m := &found.Metrics[i]
		out.Metrics = append(out.Metrics, &queryv1.MetricCardinality{Metric: metricOf(&m.Metric), NewSeries: m.New, VanishedSeries: m.Vanished})
	}
	for _, l := range found.Labels {
		one := &queryv1.LabelCardinality{Name: l.Name, Series: l.Series, Values: l.Values}
		for _, v := range l.Top {
			one.Top = append(one.Top, &queryv1.ValueCardinality{Value: v.Value, Series: v.Series})
		}
		out.Labels = append(out.Labels, one)
	}
	return out, nil
}

// explainMetrics plans and prices a PromQL query.
func (s *Server) explainMetrics(ctx context.Context, req *queryv1.ExplainRequest) (*queryv1.ExplainResponse, error) {
	asked, err := metricRequest(&queryv1.QueryMetricsRequest{Query: req.GetQuery(), Start: req.GetStart(), End: req.GetEnd(), Step: req.GetStep()})
	if err != nil {
		return nil, err
	}
	return explained(s.frontend.ExplainMetrics(ctx, asked))
}
