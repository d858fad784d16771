// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// point is what a decoder said of a point, on its own.
type point struct {
	Resource, Scope []columns.Attribute
	Names           [4]string // as row has them
	Metric          decode.Metric
	Time, Start     int64
	Stale, Bare     bool
	Value, Sum      float64
	HasSum          bool
	Count           uint64
	Bounds          []float64
	Counts          []uint64
	Quantiles       []float64
	Exponential     decode.Exponential
	Native          *histogram.FloatHistogram
	Exemplars       []exemplar
	Attributes      []columns.Attribute
}

type exemplar struct {
	Time        int64
	Value       float64
	Trace, Span string
	Attributes  []columns.Attribute
}

// metricRecorder keeps what it is given.
type metricRecorder struct {
	t        testing.TB
	origin   point
	metric   decode.Metric
	points   []point
	families map[string]decode.Family
	rejects  []reject
	// keys are the attributes that each key of each metric stood for.
	keys map[string]string
}

func newMetricRecorder(t testing.TB) *metricRecorder {
	return &metricRecorder{t: t, families: map[string]decode.Family{}, keys: map[string]string{}}
}

func (s *metricRecorder) Origin(o *columns.Origin) {
	s.origin = point{
		Resource: clone(o.Resource), Scope: clone(o.Scope),
		Names: [4]string{strings.Clone(o.ScopeName), strings.Clone(o.ScopeVersion), strings.Clone(o.ResourceSchemaURL), strings.Clone(o.ScopeSchemaURL)},
	}
}

func (s *metricRecorder) Metric(m *decode.Metric) {
	s.metric = *m
	s.metric.Name, s.metric.Unit, s.metric.Description = strings.Clone(m.Name), strings.Clone(m.Unit), strings.Clone(m.Description)
	clear(s.keys)
}

func (s *metricRecorder) Family(name string, f decode.Family) {
	f.Unit, f.Help = strings.Clone(f.Unit), strings.Clone(f.Help)
	s.families[strings.Clone(name)] = f
}

func (s *metricRecorder) Point(p *decode.Point) error {
	if err := p.Load(); err != nil {
		return err
	}
	out := s.origin
	out.Metric = s.metric
	out.Time, out.Start, out.Stale, out.Bare, out.Value, out.Sum, out.HasSum, out.Count = p.Time, p.Start, p.Stale, p.Bare, p.Value, p.Sum, p.HasSum, p.Count
	out.Bounds, out.Counts, out.Quantiles = owned(p.Bounds), owned(p.Counts), owned(p.Quantiles)
	out.Exponential = p.Exponential
	out.Exponential.Positive.Counts, out.Exponential.Negative.Counts = owned(p.Exponential.Positive.Counts), owned(p.Exponential.Negative.Counts)
	out.Native, out.Attributes = p.Native, clone(p.Attributes)
	for i := range p.Exemplars {
		e := &p.Exemplars[i]
		one := exemplar{Time: e.Time, Value: e.Value, Attributes: clone(e.Attributes)}
		if e.TraceID != [16]byte{} {
			one.Trace = hex.EncodeToString(e.TraceID[:])
		}
		if e.SpanID != [8]byte{} {
			one.Span = hex.EncodeToString(e.SpanID[:])
		}
		out.Exemplars = append(out.Exemplars, one)
	}
	s.points = append(s.points, out)
	s.check(p)
	return nil
}

// check holds a point to what Point says of all.
func (s *metricRecorder) check(p *decode.Point) {
	if len(p.Bounds) > decode.MaxBuckets || len(p.Counts) > decode.MaxBuckets+1 || len(p.Exponential.Positive.Counts) > decode.MaxBuckets {
		s.t.Errorf("a point of %d bounds", len(p.Bounds))
	}
	if s.metric.Kind == decode.MetricHistogram && len(p.Counts) != len(p.Bounds)+1 || s.metric.Kind == decode.MetricSummary && len(p.Quantiles) != len(p.Bounds) {
		s.t.Errorf("%d bounds, %d counts, %d quantiles", len(p.Bounds), len(p.Counts), len(p.Quantiles))
	}
	if !slices.IsSorted(p.Bounds) {
		s.t.Errorf("bounds do not rise: %v", p.Bounds)
	}
	if p.Key == nil {
		return
	}
	var b strings.Builder
	for _, a := range p.Attributes {
		b.WriteString(a.Name + "\x00" + a.Value.Text() + "\x00")
	}
	for _, bound := range p.Bounds {
		b.WriteString(columnsDouble(bound) + "\x00")
	}
	if stood, ok := s.keys[string(p.Key)]; ok && stood != b.String() {
		s.t.Errorf("key %x stands for %q and for %q", p.Key, stood, b.String())
	}
	s.keys[string(p.Key)] = b.String()
}

func columnsDouble(f float64) string { return string(columns.AppendDouble(nil, f)) }

func (s *metricRecorder) Reject(reason string, raw []byte) error {
	s.rejects = append(s.rejects, reject{Reason: reason, Raw: string(raw)})
	return nil
}

func owned[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

// measured is all that came of a content of metrics.
type measured struct {
	decode.Result
	*metricRecorder
	Err error
}

func decodeMetrics(t testing.TB, content []byte, change ...func(*decode.Options)) measured {
	t.Helper()
	o := decode.Options{ObjectTime: objectTime(), MaxLineBytes: 64 << 10}
	for _, f := range change {
		f(&o)
	}
	s := newMetricRecorder(t)
	result, err := decode.Decode(bytes.NewReader(content), o, decode.Sinks{Metrics: s})
	return measured{Result: result, metricRecorder: s, Err: err}
}
