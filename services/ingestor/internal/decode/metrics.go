// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"math"
	"sort"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// Reasons that decoders give for rejected points of metrics, beside those of rows.
const (
	ReasonTooManyBuckets = "too_many_buckets"
)

// MaxBuckets is the most buckets or quantiles that one point may have.
const MaxBuckets = 10_000

// MetricSink takes what a decoder finds in content of metrics.
type MetricSink interface {
	// Origin announces the resource and scope of the metrics that follow; of formats that have none, an empty one. The sink copies what it
	// keeps.
	Origin(o *columns.Origin)
	// Metric announces the metric of the points that follow, until the next origin or metric. The sink copies what it keeps.
	Metric(m *Metric)
	// Family tells what is known of a metric of Prometheus' by the name of its family, before its points. The sink copies what it keeps.
	Family(name string, f Family)
	// Point takes one point. What it refers to lives until Point returns; its strings may be invalid UTF-8. An error ends the decoding and
	// comes out of it as it is.
	Point(p *Point) error
	// Reject counts a point that cannot be decoded; raw is the beginning of it. An error ends the decoding.
	Reject(reason string, raw []byte) error
}

// MetricKind is what the points of a metric are.
type MetricKind uint8

// The kinds of metrics. All but MetricSeries are OTLP's, with names and attributes that are still to be translated.
const (
	MetricNone        MetricKind = iota
	MetricGauge                  // Value
	MetricSum                    // Value
	MetricHistogram              // Bounds, Counts, Count, Sum
	MetricExponential            // Exponential, Count, Sum
	MetricSummary                // Bounds are quantiles, Quantiles their values; Count, Sum
	// MetricSeries are samples of Prometheus' series: Value or Native. The points' attributes are the labels as they are, __name__ among them.
	MetricSeries
)

// Temporality is what the points of a sum or histogram count from.
type Temporality uint8

// The temporalities, numbered as OTLP numbers them.
const (
	TemporalityNone Temporality = iota
	TemporalityDelta
	TemporalityCumulative
)

// Metric describes the points that follow it.
type Metric struct {
	Name, Unit, Description string
	Kind                    MetricKind
	Temporality             Temporality // of sums and histograms
	Monotonic               bool        // of sums
	// Type is what Prometheus calls the metric, where that does not follow from the kind and Family does not know it better.
	Type model.MetricType
}

// Family is what Prometheus knows of a metric beside its samples.
type Family struct {
	Type       model.MetricType
	Unit, Help string
}

// Point is one point of a metric. A decoder reuses one: what it refers to need only live until Point returns.
type Point struct {
	Time  int64 // ns since 1970
	Start int64 // ns since 1970; 0: not known
	// Stale says that there is no value from here on: OTLP's "no recorded value".
	Stale bool
	Value float64 // of gauges, sums and series
	// Sum and Count are of histograms and summaries. A histogram without a sum has HasSum false.
	Sum    float64
	HasSum bool
	Count  uint64
	// Bounds are upper bounds without the infinite one, or quantiles; rising, each once.
	Bounds []float64
	// Counts are those between the bounds, one more than there are bounds.
	Counts      []uint64
	Quantiles   []float64
	Exponential Exponential
	// Native is the sink's to keep.
	Native    *histogram.FloatHistogram
	Exemplars []Exemplar

	// Bare says that there is no value, but exemplars of the series.
	Bare bool

	// Key are bytes that are equal for equal attributes and bounds of points of one metric within one content, and differ for different ones;
	// nil: the attributes must be compared themselves.
	Key []byte
	// Attributes are valid once Load was called.
	Attributes []columns.Attribute
	lazy       attributeLoader
}

// attributeLoader reads the attributes of a point when they are asked for: of most points the series is known by its Key.
type attributeLoader interface{ loadAttributes(p *Point) error }

// Load makes the point's attributes valid.
func (p *Point) Load() error {
	if p.lazy == nil {
		return nil
	}
	lazy := p.lazy
	p.lazy = nil
	return lazy.loadAttributes(p)
}

// reset makes the point an empty one, with the memory that it has.
func (p *Point) reset() {
	*p = Point{
		Bounds: p.Bounds[:0], Counts: p.Counts[:0], Quantiles: p.Quantiles[:0], Exemplars: p.Exemplars[:0], Attributes: p.Attributes[:0],
		Exponential: Exponential{
			Positive: Buckets{Counts: p.Exponential.Positive.Counts[:0]}, Negative: Buckets{Counts: p.Exponential.Negative.Counts[:0]},
		},
	}
}

// Exponential is the part of an exponential histogram's point that others have not.
type Exponential struct {
	Scale              int32
	ZeroCount          uint64
	ZeroThreshold      float64
	Positive, Negative Buckets
}

// Buckets are the counts of exponential buckets from Offset on.
type Buckets struct {
	Offset int32
	Counts []uint64
}

// Exemplar is one measurement that a point stands for.
type Exemplar struct {
	Time       int64 // ns since 1970; 0: not known
	Value      float64
	TraceID    [16]byte
	SpanID     [8]byte
	Attributes []columns.Attribute
}

// tidyHistogram makes the bounds and counts of a histogram's point what Point says of them; false if they cannot be. Producers leave out
// buckets altogether, write the infinite bound as well, or leave its count out.
func (p *Point) tidyHistogram() bool {
	if len(p.Counts) == 0 {
		p.Bounds = p.Bounds[:0]
		p.Counts = append(p.Counts, p.Count)
		return true
	}
	if n := len(p.Bounds); n > 0 && p.Bounds[n-1] > maxFloat && len(p.Counts) >= n {
		p.Bounds = p.Bounds[:n-1]
		if len(p.Counts) > n {
			p.Counts[n-1] += p.Counts[n]
		}
		p.Counts = p.Counts[:n]
	}
	if len(p.Counts) == len(p.Bounds) {
		p.Counts = append(p.Counts, p.Count-min(p.Count, total(p.Counts)))
	}
	return len(p.Counts) == len(p.Bounds)+1 && rising(p.Bounds)
}

func total(counts []uint64) uint64 {
	var sum uint64
	for _, n := range counts {
		sum += n
	}
	return sum
}

// rising reports whether numbers are finite and each is larger than the one before.
func rising(numbers []float64) bool {
	for i, f := range numbers {
		if !(f >= -maxFloat && f <= maxFloat) || i > 0 && !(f > numbers[i-1]) {
			return false
		}
	}
	return true
}

const maxFloat = math.MaxFloat64

// tidySummary sorts the quantiles of a summary's point and keeps the first of equal ones; false if they cannot be.
func (p *Point) tidySummary() bool {
	if rising(p.Bounds) {
		return true
	}
	sort.Stable((*byQuantile)(p))
	n := 0
	for i := range p.Bounds {
		if n == 0 || p.Bounds[i] != p.Bounds[n-1] {
			p.Bounds[n], p.Quantiles[n] = p.Bounds[i], p.Quantiles[i]
			n++
		}
	}
	p.Bounds, p.Quantiles = p.Bounds[:n], p.Quantiles[:n]
	return rising(p.Bounds)
}

// byQuantile sorts the quantiles of a point.
type byQuantile Point

func (p *byQuantile) Len() int           { return len(p.Bounds) }
func (p *byQuantile) Less(i, j int) bool { return p.Bounds[i] < p.Bounds[j] }
func (p *byQuantile) Swap(i, j int) {
	p.Bounds[i], p.Bounds[j] = p.Bounds[j], p.Bounds[i]
	p.Quantiles[i], p.Quantiles[j] = p.Quantiles[j], p.Quantiles[i]
}
