// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Catalogue is what a segment holds, without its points. It is not changed once read, and safe for concurrent use.
type Catalogue struct {
	Meta
	FormatVersion int
	Rows          int64 // points, or buckets of a rollup
	Samples       int64
	Exemplars     int64
	First, Last   int64 // ns since 1970, both inclusive
	RowHash       uint64
}

// SeriesEntry is what the catalogue says of a row.
type SeriesEntry struct {
	Hash        uint64 // Series.Hash
	Kind        Kind
	Rows        int64 // points, or buckets of a rollup
	Samples     int64
	Exemplars   int64
	First, Last int64 // ns since 1970, both inclusive
	Bytes       int64 // of its blobs, before compression
}

// MetricFamily is one metric name with a family, and what its rows amount to.
type MetricFamily struct {
	Name string // base name of classic histograms and summaries
	Family
	Series  int64 // rows
	Rows    int64
	Samples int64
	Bytes   int64
}

// ReadCatalogue reads a sidecar.
func ReadCatalogue(sidecar []byte) (*Catalogue, error) {
	return nil, fault.New(fault.Unsupported, "metric segments cannot be read")
}

// Len returns the number of rows of the Parquet file: ordinals are below it.
func (c *Catalogue) Len() int { return 0 }

// Entry returns what is known of a row.
func (c *Catalogue) Entry(ordinal int) SeriesEntry { return SeriesEntry{} }

// Hash returns the Series.Hash of a row.
func (c *Catalogue) Hash(ordinal int) uint64 { return 0 }

// Series makes the series of a row.
func (c *Catalogue) Series(ordinal int) *Series { return nil }

// Value returns the value of a label of a row as it is stored; empty: it has not that label.
func (c *Catalogue) Value(ordinal int, label string) string { return "" }

// Names returns the names of rows, sorted.
func (c *Catalogue) Names() []string { return nil }

// Families returns metric names with what is said of them, sorted by name, then type, unit and help.
func (c *Catalogue) Families() []MetricFamily { return nil }

// LabelNames returns the names of labels of rows, sorted. Those of tracks (le, quantile) are not among them.
func (c *Catalogue) LabelNames() []string { return nil }

// LabelValues returns the distinct values of a label of rows, sorted.
func (c *Catalogue) LabelValues(name string) []string { return nil }

// Select returns the ordinals, rising, of rows of the shard that stand for at least one Prometheus series that all matchers match: x_bucket, x_sum,
// x_count and matchers of le and quantile choose rows of classic histograms and summaries x. SelectTracks then tells which of its series.
func (c *Catalogue) Select(matchers []*labels.Matcher, shard lake.Shard) []int { return nil }

// SelectTracks appends to dst the tracks of a series whose labels all matchers match.
func SelectTracks(s *Series, matchers []*labels.Matcher, dst []int) []int { return dst }
