// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"github.com/apache/arrow-go/v18/arrow"
)

// SeriesSchema returns the Arrow schema of series: a row has some or all samples of one. Rows of one series stand together, and their samples rise.
//
//   - labels: name -> value, by name.
//   - delta: whether samples are what was added since the one before.
//   - first, step: ms since 1970, and ms: times of the float samples where these are apart by one step; then times is null.
//   - times: ms since 1970.
//   - values: the float samples, by their bits.
//   - starts: ms since 1970 since when each was counted up, 0: not known; null: of none.
//   - histogram_times, histogram_starts: as times and starts.
//   - histograms: native histograms. hint is the reset hint as Prometheus numbers it.
func SeriesSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "labels", Type: pairs()},
		{Name: "delta", Type: arrow.FixedWidthTypes.Boolean},
		{Name: "first", Type: arrow.PrimitiveTypes.Int64},
		{Name: "step", Type: arrow.PrimitiveTypes.Int64},
		{Name: "times", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true},
		{Name: "values", Type: arrow.ListOf(arrow.PrimitiveTypes.Float64)},
		{Name: "starts", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true},
		{Name: "histogram_times", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true},
		{Name: "histogram_starts", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true},
		{Name: "histograms", Type: arrow.ListOf(histogramType()), Nullable: true},
	}, nil)
}

func pairs() *arrow.MapType { return arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String) }

func histogramType() *arrow.StructType {
	spans := arrow.ListOf(arrow.StructOf(
		arrow.Field{Name: "offset", Type: arrow.PrimitiveTypes.Int32},
		arrow.Field{Name: "length", Type: arrow.PrimitiveTypes.Uint32},
	))
	floats := arrow.ListOf(arrow.PrimitiveTypes.Float64)
	return arrow.StructOf(
		arrow.Field{Name: "hint", Type: arrow.PrimitiveTypes.Uint8},
		arrow.Field{Name: "schema", Type: arrow.PrimitiveTypes.Int32},
		arrow.Field{Name: "zero_threshold", Type: arrow.PrimitiveTypes.Float64},
		arrow.Field{Name: "zero_count", Type: arrow.PrimitiveTypes.Float64},
		arrow.Field{Name: "count", Type: arrow.PrimitiveTypes.Float64},
		arrow.Field{Name: "sum", Type: arrow.PrimitiveTypes.Float64},
		arrow.Field{Name: "positive_spans", Type: spans},
		arrow.Field{Name: "positive_buckets", Type: floats},
		arrow.Field{Name: "negative_spans", Type: spans},
		arrow.Field{Name: "negative_buckets", Type: floats},
		arrow.Field{Name: "custom_bounds", Type: floats},
	)
}

// CatalogueSchema returns the Arrow schema of distinct label sets, sorted: labels, samples and bytes in the segments asked for, first and last sample in ms since 1970.
// Figures are those of whole segments; bytes of a histogram are shared out evenly among its series.
func CatalogueSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "labels", Type: pairs()},
		{Name: "samples", Type: arrow.PrimitiveTypes.Int64},
		{Name: "bytes", Type: arrow.PrimitiveTypes.Int64},
		{Name: "first", Type: arrow.PrimitiveTypes.Int64},
		{Name: "last", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
}

// MetricsSchema returns the Arrow schema of metric names, sorted: name, type as Prometheus names it, unit, help, series, samples and bytes in the segments asked for.
// Series of a name are distinct.
func MetricsSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "type", Type: arrow.BinaryTypes.String},
		{Name: "unit", Type: arrow.BinaryTypes.String},
		{Name: "help", Type: arrow.BinaryTypes.String},
		{Name: "series", Type: arrow.PrimitiveTypes.Int64},
		{Name: "samples", Type: arrow.PrimitiveTypes.Int64},
		{Name: "bytes", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
}

// ExemplarsSchema returns the Arrow schema of exemplars: one row each, those of a series together, by time: the series' labels, the exemplar's own, its value,
// ms since 1970.
func ExemplarsSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "series", Type: pairs()},
		{Name: "labels", Type: pairs()},
		{Name: "value", Type: arrow.PrimitiveTypes.Float64},
		{Name: "time", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
}
