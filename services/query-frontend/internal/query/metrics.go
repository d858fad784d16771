// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// MetricRequest is a PromQL query.
type MetricRequest struct {
	Query string
	// Start and End are the first and the last evaluation time. Equal, with a step of zero: an instant query.
	Start, End time.Time
	Step       time.Duration
	// Lookback is how far an instant selector looks back. Zero: five minutes.
	Lookback time.Duration
	// Timeout bounds the query beside the organization's limit. Zero: by that alone.
	Timeout time.Duration
	// Limit is the most series answered; the rest is cut, with a warning. Zero: all.
	Limit int
}

// MetricAnswer is the answer to one.
type MetricAnswer struct {
	// Value is a promql.Matrix, promql.Vector, promql.Scalar or promql.String, as Prometheus answers.
	Value parser.Value
	// Warnings and Infos are the engine's and ours, sorted, each once.
	Warnings, Infos []string
	Statistics      Statistics
	// Samples is what Prometheus counts in its statistics.
	Samples SampleStatistics
	// Resolution is the coarsest one that a part of the answer was made of. Zero: samples as they were received.
	Resolution time.Duration
	// Bound is the largest relative error that comes of sketches. Zero: there is none.
	Bound float64
}

// SampleStatistics counts samples as Prometheus does.
type SampleStatistics struct {
	Read  int64 // of the series that were selected
	Total int64 // looked at, over all steps
	Peak  int64 // most that were held at a time in one place
}

// MetricSeries is a series that a catalogue names.
type MetricSeries struct {
	Labels labels.Labels
	// Samples, and Bytes of them at rest, in the segments of the range. Of a classic histogram each track has its share.
	Samples, Bytes int64
	// First and Last are Unix milliseconds of the first and last sample.
	First, Last int64
}

// MetricCatalogue are series of a range.
type MetricCatalogue struct {
	Series     []MetricSeries // ordered by labels
	Warnings   []string       // such as that a limit cut them
	Statistics Statistics
}

// Names are label names or values.
type Names struct {
	All        []string // sorted
	Warnings   []string
	Statistics Statistics
}

// Metric is a metric name and what is known of it.
type Metric struct {
	Name                   string
	Type, Unit, Help       string // as the latest segment has them
	Series, Samples, Bytes int64
}

// Metrics are the metrics of a range.
type Metrics struct {
	All        []Metric // ordered by name
	Statistics Statistics
}

// CardinalityRequest asks what makes series.
type CardinalityRequest struct {
	Matchers   [][]*labels.Matcher // none: all series
	Start, End time.Time
	// Limit is the most entries of each list, the largest. Zero: 20.
	Limit int
}

// Cardinality says how many series there are and what makes them. The period before is that of the same length that ends at the start.
type Cardinality struct {
	Series, New, Vanished int64 // in the range; those of them that the period before lacks; those of the period before that it lacks
	Samples, Bytes        int64
	Metrics               []MetricCardinality // by falling number of series
	Labels                []LabelCardinality  // by falling number of series
	Statistics            Statistics
}

// MetricCardinality is that of a metric name.
type MetricCardinality struct {
	Metric
	New, Vanished int64
}

// LabelCardinality is that of a label name.
type LabelCardinality struct {
	Name           string
	Series, Values int64 // series that have the label, and its distinct values
	// Top are its most frequent values, by falling number of series.
	Top []ValueCardinality
}

// ValueCardinality is that of a label's value.
type ValueCardinality struct {
	Value  string
	Series int64
}

// SeriesExemplars are the exemplars of one series.
type SeriesExemplars struct {
	Labels    labels.Labels
	Exemplars []Exemplar // in the order of their times
}

// Exemplar is one.
type Exemplar struct {
	Labels labels.Labels
	Value  float64
	Time   int64 // Unix milliseconds
}

// Exemplars are those of a query's selectors.
type Exemplars struct {
	Series     []SeriesExemplars // ordered by labels
	Statistics Statistics
}

// SamplesRequest asks for samples as they were received.
type SamplesRequest struct {
	Matchers   []*labels.Matcher
	Start, End int64 // Unix milliseconds, inclusive
}

// RawSeries are the samples of one series.
type RawSeries struct {
	Labels         labels.Labels
	Times          []int64 // Unix milliseconds, rising
	Values         []float64
	HistogramTimes []int64
	Histograms     []*histogram.FloatHistogram
}
