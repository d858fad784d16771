// SPDX-License-Identifier: AGPL-3.0-only

package sample

import (
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// metricWriter writes one object, and beside it the samples that it amounts to. The labels are spelled out here: what makes them of OTLP when they are
// ingested is what tests are to judge.
type metricWriter struct {
	*Metrics
	order     []*metricPod
	resources map[*metricPod]*metricspb.ResourceMetrics
	metrics   map[*metricPod]map[*metricKind]*metricspb.Metric
	spans     map[*metricPod][2]time.Time // of points, first and last
	points    int
}

func newMetricWriter(m *Metrics) *metricWriter {
	return &metricWriter{
		Metrics: m, resources: map[*metricPod]*metricspb.ResourceMetrics{}, metrics: map[*metricPod]map[*metricKind]*metricspb.Metric{},
		spans: map[*metricPod][2]time.Time{},
	}
}

func (w *metricWriter) data() *metricspb.MetricsData {
	out := &metricspb.MetricsData{}
	for _, p := range w.order {
		out.ResourceMetrics = append(out.ResourceMetrics, w.resources[p])
	}
	return out
}

// write writes the points of a pod at a step.
func (w *metricWriter) write(p *metricPod, step time.Time) {
	at := step.Add(p.offset)
	if p.ended || !at.Before(p.silentFrom) && at.Before(p.silentTo) {
		return
	}
	stale := !p.end.IsZero() && !step.Before(p.end)
	p.ended = stale
	if _, ok := w.resources[p]; !ok {
		w.resources[p] = &metricspb.ResourceMetrics{
			Resource:     &resourcepb.Resource{Attributes: p.metricAttributes()},
			ScopeMetrics: []*metricspb.ScopeMetrics{{Scope: &commonpb.InstrumentationScope{Name: "shop/" + p.service.name, Version: "1.4.2"}}},
		}
		w.metrics[p] = map[*metricKind]*metricspb.Metric{}
		w.order = append(w.order, p)
		w.spans[p] = [2]time.Time{at, at}
	}
	w.spans[p] = [2]time.Time{w.spans[p][0], at}
	for _, t := range p.tracks {
		w.point(p, t, at, stale)
		w.points++
	}
}

func (p *metricPod) metricAttributes() []*commonpb.KeyValue {
	attributes := append(p.attributes(), text("host.arch", "arm64"))
	if p.instance != "" {
		attributes = append(attributes, text("service.instance.id", p.instance))
	}
	return attributes
}

// labels are those that all series of a pod have.
func (p *metricPod) labels() map[string]string {
	l := map[string]string{
		"service_name": p.service.name, "service_namespace": "shop", "service_version": "1.4.2", "deployment_environment": "demo",
		"k8s_namespace_name": p.service.namespace, "k8s_pod_name": p.name, "k8s_node_name": p.node, "k8s_cluster_name": "demo",
		"job": "shop/" + p.service.name, "otel_scope_name": "shop/" + p.service.name, "otel_scope_version": "1.4.2",
	}
	if p.instance != "" {
		l["instance"] = p.instance
	}
	return l
}

// targets adds what is made of the resources themselves: target_info at the first point, the last, and not too far apart between them.
func (w *metricWriter) targets() {
	for _, p := range w.order {
		l := map[string]string{
			"__name__": "target_info", "service_version": "1.4.2", "deployment_environment": "demo", "k8s_namespace_name": p.service.namespace,
			"k8s_pod_name": p.name, "k8s_node_name": p.node, "k8s_cluster_name": "demo", "host_arch": "arm64", "job": "shop/" + p.service.name,
		}
		if p.instance != "" {
			l["instance"] = p.instance
		}
		s := w.at(labels.FromMap(l), false)
		first, last := w.spans[p][0], w.spans[p][1]
		for at := first; at.Before(last); at = at.Add(150 * time.Second) {
			w.keep(s, Sample{Time: at.UnixMilli(), Value: 1})
			w.points++
		}
		w.keep(s, Sample{Time: last.UnixMilli(), Value: 1})
		w.points++
	}
}

// keep notes a sample for those who ask for Series.
func (w *metricWriter) keep(s *Series, one Sample) {
	if !w.options.Endless {
		s.Samples = append(s.Samples, one)
	}
}

// measured is a point under way.
type measured struct {
	w      *metricWriter
	p      *metricPod
	t      *track
	metric *metricspb.Metric
	at     time.Time
	start  time.Time // zero: none
	stale  bool
	delta  bool
}

func (w *metricWriter) point(p *metricPod, t *track, at time.Time, stale bool) {
	m := &measured{w: w, p: p, t: t, metric: w.metricOf(p, t.metric), at: at, stale: stale}
	switch t.metric.instrument {
	case instrumentGauge:
		m.number()
	case instrumentCounter, instrumentUpDown:
		m.start = p.started
		m.number()
	case instrumentDelta, instrumentDeltaHistogram:
		m.start, m.delta, t.asked = t.asked, true, at
		if t.metric.instrument == instrumentDelta {
			m.number()
		} else {
			m.histogram()
			t.count, t.sum = 0, 0
			clear(t.buckets)
		}
	case instrumentHistogram:
		m.start = p.started
		m.histogram()
	case instrumentExponential:
		m.start = p.started
		m.exponential()
	case instrumentSummary:
		m.start = p.started
		m.summary()
	}
}

// metricOf is the pod's metric in this object.
func (w *metricWriter) metricOf(p *metricPod, k *metricKind) *metricspb.Metric {
	for known, m := range w.metrics[p] {
		if known.otlp == k.otlp {
			return m
		}
	}
	m := &metricspb.Metric{Name: k.otlp, Unit: k.unit, Description: k.about}
	cumulative, delta := metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	switch k.instrument {
	case instrumentGauge:
		m.Data = &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{}}
	case instrumentCounter:
		m.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: cumulative, IsMonotonic: true}}
	case instrumentUpDown:
		m.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: cumulative}}
	case instrumentDelta:
		m.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: delta, IsMonotonic: true}}
	case instrumentHistogram:
		m.Data = &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{AggregationTemporality: cumulative}}
	case instrumentDeltaHistogram:
		m.Data = &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{AggregationTemporality: delta}}
	case instrumentExponential:
		m.Data = &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{AggregationTemporality: cumulative}}
	case instrumentSummary:
		m.Data = &metricspb.Metric_Summary{Summary: &metricspb.Summary{}}
	}
	w.metrics[p][k] = m
	scope := w.resources[p].ScopeMetrics[0]
	scope.Metrics = append(scope.Metrics, m)
	return m
}

func (m *measured) flags() uint32 {
	if m.stale {
		return uint32(metricspb.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)
	}
	return 0
}

func (m *measured) times() (start, at uint64) {
	if !m.start.IsZero() {
		start = uint64(m.start.UnixNano())
	}
	return start, uint64(m.at.UnixNano())
}

// sample notes a sample of a series: the metric's name with a suffix, and one label more.
func (m *measured) sample(suffix, label, text string, v float64, h *histogram.FloatHistogram) *Series {
	s := m.series(seriesOf{suffix, label, text})
	one := Sample{Time: m.at.UnixMilli(), Value: v, Histogram: h}
	if m.stale {
		one.Value = math.Float64frombits(value.StaleNaN)
		if h != nil {
			one.Histogram = &histogram.FloatHistogram{Sum: one.Value}
		}
	}
	if !m.start.IsZero() {
		one.Start = m.start.UnixMilli()
	}
	m.w.keep(s, one)
	return s
}

// series is that of the track with a suffix and a label.
func (m *measured) series(of seriesOf) *Series {
	if known, ok := m.t.series[of]; ok {
		return known
	}
	l := m.p.labels()
	l["__name__"] = m.t.metric.prometheus + of.suffix
	for _, a := range m.t.attributes {
		if l[a.label] = a.text; a.isNumber {
			l[a.label] = strconv.FormatInt(a.number, 10)
		}
	}
	if of.label != "" {
		l[of.label] = of.text
	}
	s := m.w.at(labels.FromMap(l), m.delta)
	m.t.series[of] = s
	return s
}

func (m *measured) number() {
	start, at := m.times()
	p := &metricspb.NumberDataPoint{StartTimeUnixNano: start, TimeUnixNano: at, Attributes: m.t.otlp, Flags: m.flags()}
	if v := m.t.value; v == math.Trunc(v) {
		p.Value = &metricspb.NumberDataPoint_AsInt{AsInt: int64(v)}
	} else {
		p.Value = &metricspb.NumberDataPoint_AsDouble{AsDouble: v}
	}
	if g := m.metric.GetGauge(); g != nil {
		g.DataPoints = append(g.DataPoints, p)
	} else {
		m.metric.GetSum().DataPoints = append(m.metric.GetSum().DataPoints, p)
	}
	m.sample("", "", "", m.t.value, nil)
}

func (m *measured) histogram() {
	t := m.t
	start, at := m.times()
	p := &metricspb.HistogramDataPoint{
		StartTimeUnixNano: start, TimeUnixNano: at, Attributes: m.t.otlp, Flags: m.flags(), Count: t.count, Sum: &[]float64{t.sum}[0],
		BucketCounts: slices.Clone(t.buckets), ExplicitBounds: t.metric.bounds,
	}
	h := m.metric.GetHistogram()
	h.DataPoints = append(h.DataPoints, p)
	bound := len(t.metric.bounds)
	if e := t.exemplar; e != nil && !m.stale {
		p.Exemplars = []*metricspb.Exemplar{{TimeUnixNano: uint64(e.at.UnixNano()), Value: &metricspb.Exemplar_AsDouble{AsDouble: e.value}, TraceId: e.trace[:]}}
		bound, _ = slices.BinarySearch(t.metric.bounds, e.value)
	}
	cumulated := uint64(0)
	for i, b := range append(slices.Clone(t.metric.bounds), math.Inf(1)) {
		cumulated += t.buckets[i]
		s := m.sample("_bucket", "le", boundText(b), float64(cumulated), nil)
		if len(p.Exemplars) > 0 && i == bound && !m.w.options.Endless {
			e := t.exemplar
			s.Exemplars = append(s.Exemplars, Exemplar{Labels: labels.FromStrings("trace_id", hex.EncodeToString(e.trace[:])), Value: e.value, Time: e.at.UnixMilli()})
		}
	}
	t.exemplar = nil
	m.sample("_sum", "", "", t.sum, nil)
	m.sample("_count", "", "", float64(t.count), nil)
}

func boundText(b float64) string {
	if math.IsInf(b, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(b, 'f', -1, 64)
}

func (m *measured) exponential() {
	t := m.t
	start, at := m.times()
	p := &metricspb.ExponentialHistogramDataPoint{
		StartTimeUnixNano: start, TimeUnixNano: at, Attributes: m.t.otlp, Flags: m.flags(), Count: t.count, Sum: &[]float64{t.sum}[0], Scale: t.metric.scale,
		ZeroCount: t.zero, Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{},
	}
	e := m.metric.GetExponentialHistogram()
	e.DataPoints = append(e.DataPoints, p)
	indexes := make([]int32, 0, len(t.exponential))
	for i := range t.exponential {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	if len(indexes) > 0 {
		p.Positive.Offset = indexes[0]
		p.Positive.BucketCounts = make([]uint64, indexes[len(indexes)-1]-indexes[0]+1)
		for _, i := range indexes {
			p.Positive.BucketCounts[i-indexes[0]] = t.exponential[i]
		}
	}
	m.sample("", "", "", 0, t.native(indexes))
}

// native is the histogram as Prometheus has it: its schemas end at 8, and its indexes are those of upper bounds.
func (t *track) native(indexes []int32) *histogram.FloatHistogram {
	schema := min(t.metric.scale, 8)
	h := &histogram.FloatHistogram{Schema: schema, ZeroThreshold: 1e-128, ZeroCount: float64(t.zero), Count: float64(t.count), Sum: t.sum}
	next := int32(0)
	for _, i := range indexes {
		index := i>>(t.metric.scale-schema) + 1
		n := len(h.PositiveBuckets)
		switch {
		case n > 0 && index == next-1:
			h.PositiveBuckets[n-1] += float64(t.exponential[i])
			continue
		case n == 0 || index != next:
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: index - next})
		}
		h.PositiveSpans[len(h.PositiveSpans)-1].Length++
		h.PositiveBuckets = append(h.PositiveBuckets, float64(t.exponential[i]))
		next = index + 1
	}
	return h
}

func (m *measured) summary() {
	t := m.t
	start, at := m.times()
	p := &metricspb.SummaryDataPoint{StartTimeUnixNano: start, TimeUnixNano: at, Attributes: m.t.otlp, Flags: m.flags(), Count: t.count, Sum: t.sum}
	s := m.metric.GetSummary()
	s.DataPoints = append(s.DataPoints, p)
	for _, q := range t.metric.bounds {
		v := t.quantile(q)
		p.QuantileValues = append(p.QuantileValues, &metricspb.SummaryDataPoint_ValueAtQuantile{Quantile: q, Value: v})
		m.sample("", "quantile", boundText(q), v, nil)
	}
	m.sample("_sum", "", "", t.sum, nil)
	m.sample("_count", "", "", float64(t.count), nil)
}
