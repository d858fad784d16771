// SPDX-License-Identifier: AGPL-3.0-only

package columns

import "github.com/apache/arrow-go/v18/arrow"

// LogLinesSchema returns the Arrow schema of a worker's answer to LogLines: one row a line, in the order asked for.
//
//   - time: event time, ns since 1970.
//   - labels: the stream's labels after the pipeline, in Prometheus' text form {a="b"}.
//   - stream_hash: hash of the stream's labels before the pipeline.
//   - line: the line after the pipeline.
//   - metadata, parsed: structured metadata, and labels made by the pipeline, as name -> value.
func LogLinesSchema() *arrow.Schema {
	dictionary := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint32, ValueType: arrow.BinaryTypes.String}
	pairs := arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)
	return arrow.NewSchema([]arrow.Field{
		{Name: "time", Type: arrow.PrimitiveTypes.Int64},
		{Name: "labels", Type: dictionary},
		{Name: "stream_hash", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "line", Type: arrow.BinaryTypes.String},
		{Name: "metadata", Type: pairs},
		{Name: "parsed", Type: pairs},
	}, nil)
}

// LogSamplesSchema returns the Arrow schema of a worker's answer to LogSamples: one row a series and step that has a value.
//
//   - labels: the series' labels in Prometheus' text form.
//   - time: evaluation time, ms since 1970.
//   - value: the value over the rows of the asked segments.
func LogSamplesSchema() *arrow.Schema {
	dictionary := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Uint32, ValueType: arrow.BinaryTypes.String}
	return arrow.NewSchema([]arrow.Field{
		{Name: "labels", Type: dictionary},
		{Name: "time", Type: arrow.PrimitiveTypes.Int64},
		{Name: "value", Type: arrow.PrimitiveTypes.Float64},
	}, nil)
}

// LogStreamsSchema returns the Arrow schema of catalogue streams: labels as text, rows and body bytes in the asked range
// (whole-segment figures where a segment is not cut by it), first and last time in ns.
func LogStreamsSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "labels", Type: arrow.BinaryTypes.String},
		{Name: "rows", Type: arrow.PrimitiveTypes.Int64},
		{Name: "bytes", Type: arrow.PrimitiveTypes.Int64},
		{Name: "first_time", Type: arrow.PrimitiveTypes.Int64},
		{Name: "last_time", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
}

// LogFieldsSchema returns the Arrow schema of catalogue fields: LogQL name, type ("string", "int", "float", "boolean", ...), rows, and an
// estimate of distinct values.
func LogFieldsSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "name", Type: arrow.BinaryTypes.String},
		{Name: "type", Type: arrow.BinaryTypes.String},
		{Name: "rows", Type: arrow.PrimitiveTypes.Int64},
		{Name: "cardinality", Type: arrow.PrimitiveTypes.Int64},
	}, nil)
}
