// SPDX-License-Identifier: AGPL-3.0-only

package metricmapping

import (
	"encoding/hex"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// Append adds a point of a series to the store. Series must have returned it for this very point.
func (m *Mapper) Append(s *Series, p *decode.Point, source lake.ReceiptID) {
	at := metricfile.Stamp{Time: p.Time, Start: p.Start, Source: source}
	switch s.file.Kind {
	case metricfile.KindClassic:
		s.row = m.store.Classic(s.id, at, p.Count, staleOr(p, p.Sum), p.Counts)
	case metricfile.KindSummary:
		s.row = m.store.Summary(s.id, at, p.Count, staleOr(p, p.Sum), p.Quantiles)
	case metricfile.KindHistogram:
		s.row = m.store.Histogram(s.id, at, m.native(s, p))
	default:
		s.row = m.store.Float(s.id, at, staleOr(p, p.Value))
	}
	s.rowOf = m.generation
	for i := range p.Exemplars {
		m.exemplar(s, p, &p.Exemplars[i])
	}
}

// Exemplars adds the exemplars of a point that has no value itself to the latest point of its series; where there is none, they are Orphans.
func (m *Mapper) Exemplars(s *Series, p *decode.Point) {
	if s.rowOf != m.generation {
		m.Orphans += int64(len(p.Exemplars))
		return
	}
	for i := range p.Exemplars {
		m.exemplar(s, p, &p.Exemplars[i])
	}
}

// AppendTarget adds a point of target_info.
func (m *Mapper) AppendTarget(s *Series, ns int64, source lake.ReceiptID) {
	m.store.Float(s.id, metricfile.Stamp{Time: ns, Source: source}, 1)
}

func staleOr(p *decode.Point, v float64) float64 {
	if p.Stale {
		return math.Float64frombits(value.StaleNaN)
	}
	return v
}

// maxExemplarRunes is how long all names and values of an exemplar may be; those of longer ones are left out but for the ids.
const maxExemplarRunes = 128

func (m *Mapper) exemplar(s *Series, p *decode.Point, e *decode.Exemplar) {
	stored := metricfile.Exemplar{Value: e.Value, Time: e.Time, Track: trackOf(&s.file, e.Value)}
	if stored.Time == 0 {
		stored.Time = p.Time
	}
	m.builder.Reset()
	runes := 0
	add := func(name, value string) {
		runes += utf8.RuneCountInString(name) + utf8.RuneCountInString(value)
		m.builder.Add(name, value)
	}
	if e.TraceID != [16]byte{} {
		add("trace_id", hex.EncodeToString(e.TraceID[:]))
	}
	if e.SpanID != [8]byte{} {
		add("span_id", hex.EncodeToString(e.SpanID[:]))
	}
	if runes+attributeRunes(e.Attributes) <= maxExemplarRunes {
		for i := range e.Attributes {
			if name := m.repair(e.Attributes[i].Name); name != "" && !named(e.Attributes[:i], name) {
				m.builder.Add(name, m.repair(e.Attributes[i].Value.Text()))
			}
		}
	}
	m.builder.Sort()
	stored.Labels = m.builder.Labels()
	m.store.Exemplar(s.row, stored)
}

func attributeRunes(attributes []columns.Attribute) int {
	runes := 0
	for i := range attributes {
		runes += utf8.RuneCountInString(attributes[i].Name) + utf8.RuneCountInString(attributes[i].Value.Text())
	}
	return runes
}

func named(attributes []columns.Attribute, name string) bool {
	return slices.ContainsFunc(attributes, func(a columns.Attribute) bool { return a.Name == name })
}

// trackOf is the series of a row that a measurement belongs to: of a classic histogram its bucket.
func trackOf(s *metricfile.Series, measured float64) int {
	if s.Kind != metricfile.KindClassic {
		return 0
	}
	for i, bound := range s.Bounds {
		if measured <= bound {
			return i
		}
	}
	return len(s.Bounds)
}

// checked gives the reason why a point cannot be a sample, whatever its series.
func checked(kind decode.MetricKind, p *decode.Point) string {
	switch kind {
	case decode.MetricExponential:
		e := &p.Exponential
		if e.Scale < histogram.ExponentialSchemaMin || !fits(&e.Positive) || !fits(&e.Negative) || !p.Stale && !addsUp(p) {
			return ReasonHistogram
		}
	case decode.MetricSeries:
		if p.Native != nil && !value.IsStaleNaN(p.Native.Sum) && p.Native.Validate() != nil {
			return ReasonHistogram
		}
	}
	return ""
}

// fits reports whether the indexes of buckets can be those of a native histogram.
func fits(b *decode.Buckets) bool {
	return int64(b.Offset)+int64(len(b.Counts)) < math.MaxInt32
}

// addsUp reports whether the buckets of an exponential histogram count as many as it says that there are. Measurements that are no numbers are in none
// of them, and make the sum no number.
func addsUp(p *decode.Point) bool {
	e := &p.Exponential
	left := p.Count
	for _, counts := range [...][]uint64{{e.ZeroCount}, e.Positive.Counts, e.Negative.Counts} {
		for _, n := range counts {
			if n > left {
				return false
			}
			left -= n
		}
	}
	return left == 0 || math.IsNaN(p.Sum)
}

// native is a point of a series of native histograms.
func (m *Mapper) native(s *Series, p *decode.Point) *histogram.FloatHistogram {
	if s.metric.kind == decode.MetricSeries {
		if value.IsStaleNaN(p.Native.Sum) {
			return staleHistogram() // what else it says was not checked
		}
		return p.Native
	}
	h := exponential(p)
	if s.file.Delta {
		h.CounterResetHint = histogram.GaugeType // nothing is a reset in it
	}
	return h
}

func staleHistogram() *histogram.FloatHistogram {
	return &histogram.FloatHistogram{Sum: math.Float64frombits(value.StaleNaN)}
}

// defaultZeroThreshold is the width of the zero bucket where the producer does not say it.
const defaultZeroThreshold = 1e-128

// exponential makes a native histogram of an exponential one. Its schema is the scale, made coarser where it is finer than native histograms know:
// 2^n buckets become one. A bucket of index i of OTLP's has lower bound base^i, and one of Prometheus' upper bound base^i, so indexes grow by one.
func exponential(p *decode.Point) *histogram.FloatHistogram {
	if p.Stale {
		return staleHistogram()
	}
	e := &p.Exponential
	schema := min(e.Scale, histogram.ExponentialSchemaMax)
	h := &histogram.FloatHistogram{
		Schema: schema, ZeroThreshold: defaultZeroThreshold, ZeroCount: float64(e.ZeroCount), Count: float64(p.Count), Sum: p.Sum,
	}
	if e.ZeroThreshold > 0 {
		h.ZeroThreshold = e.ZeroThreshold
	}
	h.PositiveSpans, h.PositiveBuckets = sparse(&e.Positive, e.Scale-schema)
	h.NegativeSpans, h.NegativeBuckets = sparse(&e.Negative, e.Scale-schema)
	return h
}

// maxGap is the most empty buckets that are written rather than passed over.
const maxGap = 2

// sparse writes the buckets that count something as spans, 2^coarser of them as one.
func sparse(b *decode.Buckets, coarser int32) (spans []histogram.Span, counts []float64) {
	var next int32 // index after the last bucket written
	for i := 0; i < len(b.Counts); {
		index := (b.Offset+int32(i))>>min(coarser, 31) + 1
		count := 0.0
		for ; i < len(b.Counts) && (b.Offset+int32(i))>>min(coarser, 31)+1 == index; i++ {
			count += float64(b.Counts[i])
		}
		if count == 0 {
			continue
		}
		gap := index - next
		if len(spans) == 0 || gap > maxGap {
			spans = append(spans, histogram.Span{Offset: gap})
			gap = 0
		}
		span := &spans[len(spans)-1]
		for range gap {
			counts = append(counts, 0)
		}
		counts = append(counts, count)
		span.Length += uint32(gap) + 1
		next = index + 1
	}
	return spans, counts
}
