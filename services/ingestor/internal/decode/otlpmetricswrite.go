// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"encoding/hex"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// AppendOTLPPoint appends a point as an OTLP JSON document of its own, with a "reason" beside the resource, which readers of OTLP pass over. Load must
// have been called. What it writes of OTLP's metrics OTLPJSON reads back as the same point. Samples of Prometheus' come back as gauges, exponential
// histograms or histograms of the same labels; what OTLP has no place for in them, as fractions of counts, is lost.
func AppendOTLPPoint(b []byte, reason string, o *columns.Origin, m *Metric, p *Point) []byte {
	b = append(b, `{"reason":`...)
	b = appendQuoted(b, reason)
	b = append(b, `,"resourceMetrics":[{"resource":{"attributes":`...)
	b = appendOTLPAttributes(b, o.Resource)
	b = append(b, `},"scopeMetrics":[{"scope":{"name":`...)
	b = appendQuoted(b, o.ScopeName)
	b = append(b, `,"version":`...)
	b = appendQuoted(b, o.ScopeVersion)
	b = append(b, `,"attributes":`...)
	b = appendOTLPAttributes(b, o.Scope)
	b = append(b, `},"metrics":[`...)
	b = appendOTLPMetric(b, m, p)
	b = append(b, `],"schemaUrl":`...)
	b = appendQuoted(b, o.ScopeSchemaURL)
	b = append(b, `}],"schemaUrl":`...)
	b = appendQuoted(b, o.ResourceSchemaURL)
	return append(b, `}]}`...)
}

func appendOTLPMetric(b []byte, m *Metric, p *Point) []byte {
	metric, point := *m, *p
	if m.Kind == MetricSeries {
		metric, point = seriesAsOTLP(p)
	}
	b = append(b, `{"name":`...)
	b = appendQuoted(b, metric.Name)
	b = append(b, `,"description":`...)
	b = appendQuoted(b, metric.Description)
	b = append(b, `,"unit":`...)
	b = appendQuoted(b, metric.Unit)
	b = append(b, `,"`...)
	b = append(b, dataKey(metric.Kind)...)
	b = append(b, `":{"dataPoints":[`...)
	b = appendOTLPPoint(b, metric.Kind, &point)
	b = append(b, ']')
	if metric.Temporality != TemporalityNone {
		b = append(b, `,"aggregationTemporality":`...)
		b = strconv.AppendUint(b, uint64(metric.Temporality), 10)
	}
	if metric.Monotonic {
		b = append(b, `,"isMonotonic":true`...)
	}
	return append(b, `}}`...)
}

func dataKey(kind MetricKind) string {
	switch kind {
	case MetricSum:
		return "sum"
	case MetricHistogram:
		return "histogram"
	case MetricExponential:
		return "exponentialHistogram"
	case MetricSummary:
		return "summary"
	}
	return "gauge"
}

// seriesAsOTLP is a sample of Prometheus' as OTLP says it.
func seriesAsOTLP(p *Point) (Metric, Point) {
	m, point := Metric{Kind: MetricGauge}, *p
	point.Attributes = nil
	for _, a := range p.Attributes {
		if a.Name == "__name__" {
			m.Name = a.Value.Text()
			continue
		}
		point.Attributes = append(point.Attributes, a)
	}
	h := p.Native
	if h == nil {
		return m, point
	}
	m.Temporality = TemporalityCumulative
	point.Count, point.Sum, point.HasSum = uint64(h.Count), h.Sum, true
	if h.UsesCustomBuckets() {
		m.Kind, point.Bounds, point.Counts = MetricHistogram, h.CustomValues, make([]uint64, len(h.CustomValues)+1)
		for it := h.PositiveBucketIterator(); it.Next(); {
			if bucket := it.At(); int(bucket.Index) < len(point.Counts) && bucket.Index >= 0 {
				point.Counts[bucket.Index] = uint64(bucket.Count)
			}
		}
		return m, point
	}
	m.Kind = MetricExponential
	point.Exponential = Exponential{
		Scale: h.Schema, ZeroCount: uint64(h.ZeroCount), ZeroThreshold: h.ZeroThreshold,
		Positive: dense(h.PositiveSpans, h.PositiveBuckets), Negative: dense(h.NegativeSpans, h.NegativeBuckets),
	}
	return m, point
}

// dense writes out the buckets of spans, as many as there may be.
func dense(spans []histogram.Span, counts []float64) Buckets {
	var b Buckets
	for i, span := range spans {
		if i == 0 {
			b.Offset = span.Offset - 1
		}
		for gap := int32(0); i > 0 && gap < span.Offset && len(b.Counts) < MaxBuckets; gap++ {
			b.Counts = append(b.Counts, 0)
		}
		for n := uint32(0); n < span.Length && len(counts) > 0 && len(b.Counts) < MaxBuckets; n++ {
			b.Counts, counts = append(b.Counts, uint64(counts[0])), counts[1:]
		}
	}
	return b
}

func appendOTLPPoint(b []byte, kind MetricKind, p *Point) []byte {
	b = append(b, '{')
	b = appendNumber(b, `"timeUnixNano":`, max(p.Time, 1))
	if p.Start != 0 {
		b = appendNumber(b, `"startTimeUnixNano":`, p.Start)
	}
	if p.Stale {
		b = append(b, `"flags":1,`...)
	}
	switch kind {
	case MetricGauge, MetricSum:
		b = appendJSONDouble(append(b, `"asDouble":`...), p.Value)
	default:
		b = appendTotals(b, p)
		switch kind {
		case MetricHistogram:
			b = appendCounts(append(b, `,"bucketCounts":`...), p.Counts)
			b = appendDoublesJSON(append(b, `,"explicitBounds":`...), p.Bounds)
		case MetricExponential:
			b = appendExponential(b, &p.Exponential)
		case MetricSummary:
			b = appendQuantiles(b, p)
		}
	}
	b = append(b, `,"attributes":`...)
	b = appendOTLPAttributes(b, p.Attributes)
	if len(p.Exemplars) > 0 {
		b = appendExemplars(b, p.Exemplars)
	}
	return append(b, '}')
}

func appendTotals(b []byte, p *Point) []byte {
	b = append(b, `"count":"`...)
	b = append(strconv.AppendUint(b, p.Count, 10), '"')
	if p.HasSum {
		b = appendJSONDouble(append(b, `,"sum":`...), p.Sum)
	}
	return b
}

func appendJSONDouble(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(columns.AppendDouble(append(b, '"'), f), '"')
	}
	return columns.AppendDouble(b, f)
}

func appendCounts(b []byte, counts []uint64) []byte {
	b = append(b, '[')
	for i, n := range counts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendUint(append(b, '"'), n, 10), '"')
	}
	return append(b, ']')
}

func appendDoublesJSON(b []byte, numbers []float64) []byte {
	b = append(b, '[')
	for i, f := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONDouble(b, f)
	}
	return append(b, ']')
}

func appendExponential(b []byte, e *Exponential) []byte {
	b = append(b, `,"scale":`...)
	b = strconv.AppendInt(b, int64(e.Scale), 10)
	b = append(b, `,"zeroCount":"`...)
	b = append(strconv.AppendUint(b, e.ZeroCount, 10), '"')
	b = appendJSONDouble(append(b, `,"zeroThreshold":`...), e.ZeroThreshold)
	b = appendBuckets(append(b, `,"positive":`...), &e.Positive)
	return appendBuckets(append(b, `,"negative":`...), &e.Negative)
}

func appendBuckets(b []byte, x *Buckets) []byte {
	b = append(b, `{"offset":`...)
	b = strconv.AppendInt(b, int64(x.Offset), 10)
	return append(appendCounts(append(b, `,"bucketCounts":`...), x.Counts), '}')
}

func appendQuantiles(b []byte, p *Point) []byte {
	b = append(b, `,"quantileValues":[`...)
	for i := range p.Bounds {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONDouble(append(b, `{"quantile":`...), p.Bounds[i])
		b = append(appendJSONDouble(append(b, `,"value":`...), p.Quantiles[i]), '}')
	}
	return append(b, ']')
}

func appendExemplars(b []byte, exemplars []Exemplar) []byte {
	b = append(b, `,"exemplars":[`...)
	for i := range exemplars {
		e := &exemplars[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if e.Time != 0 {
			b = appendNumber(b, `"timeUnixNano":`, e.Time)
		}
		if e.TraceID != [16]byte{} {
			b = append(hex.AppendEncode(append(b, `"traceId":"`...), e.TraceID[:]), `",`...)
		}
		if e.SpanID != [8]byte{} {
			b = append(hex.AppendEncode(append(b, `"spanId":"`...), e.SpanID[:]), `",`...)
		}
		b = appendJSONDouble(append(b, `"asDouble":`...), e.Value)
		b = append(b, `,"filteredAttributes":`...)
		b = append(appendOTLPAttributes(b, e.Attributes), '}')
	}
	return append(b, ']')
}
