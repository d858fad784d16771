// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// DecodeSeries adds the series of a batch to others. Rows that continue the last series are added to it. Nothing of the batch is kept.
func DecodeSeries(to []Series, batch arrow.RecordBatch) ([]Series, error) {
	if err := ofSchema(batch, SeriesSchema()); err != nil {
		return nil, err
	}
	d := decoderOf(batch)
	for i := range int(batch.NumRows()) {
		l, delta := d.labels.at(i), d.delta.Value(i)
		last := len(to) - 1
		if last < 0 || to[last].Delta != delta || !labels.Equal(to[last].Labels, l) {
			to = append(to, Series{Labels: l, Delta: delta})
			last++
		}
		d.row(i, &to[last])
	}
	return to, nil
}

func ofSchema(batch arrow.RecordBatch, want *arrow.Schema) error {
	if !batch.Schema().Equal(want) {
		return fault.New(fault.Internal, "a batch of schema %s: want %s", batch.Schema(), want)
	}
	return nil
}

type decoder struct {
	labels          pairReader
	delta           *array.Boolean
	first, step     *array.Int64
	times, starts   intLists
	values          floatLists
	histogramTimes  intLists
	histogramStarts intLists
	histograms      histogramReader
}

func decoderOf(batch arrow.RecordBatch) *decoder {
	c := batch.Column
	return &decoder{
		labels:          pairsIn(c(0)),
		delta:           c(1).(*array.Boolean),
		first:           c(2).(*array.Int64),
		step:            c(3).(*array.Int64),
		times:           intsIn(c(4)),
		values:          floatsIn(c(5)),
		starts:          intsIn(c(6)),
		histogramTimes:  intsIn(c(7)),
		histogramStarts: intsIn(c(8)),
		histograms:      histogramsIn(c(9)),
	}
}

func (d *decoder) row(i int, s *Series) {
	values, before := d.values.at(i), len(s.Values)
	s.Values = append(s.Values, values...)
	if d.times.list.IsNull(i) {
		first, step := d.first.Value(i), d.step.Value(i)
		for n := range len(values) {
			s.Times = append(s.Times, first+int64(n)*step)
		}
	} else {
		s.Times = append(s.Times, d.times.at(i)...)
	}
	s.Starts = appendStarts(s.Starts, before, d.starts.at(i), len(values))
	before = len(s.HistogramTimes)
	times := d.histogramTimes.at(i)
	s.HistogramTimes = append(s.HistogramTimes, times...)
	s.HistogramStarts = appendStarts(s.HistogramStarts, before, d.histogramStarts.at(i), len(times))
	s.Histograms = d.histograms.appendTo(s.Histograms, i)
}

// appendStarts adds starts of n samples to those of the samples before; a row may have none.
func appendStarts(to []int64, before int, starts []int64, n int) []int64 {
	if to == nil && starts == nil || n == 0 {
		return to
	}
	if to == nil {
		to = make([]int64, before, before+n)
	}
	if starts == nil {
		return append(to, make([]int64, n)...)
	}
	return append(to, starts...)
}

type intLists struct {
	list   *array.List
	values []int64
}

func intsIn(c arrow.Array) intLists {
	list := c.(*array.List)
	return intLists{list, list.ListValues().(*array.Int64).Int64Values()}
}

func (l *intLists) at(i int) []int64 {
	if l.list.IsNull(i) {
		return nil
	}
	from, end := l.list.ValueOffsets(i)
	return l.values[from:end]
}

type floatLists struct {
	list   *array.List
	values []float64
}

func floatsIn(c arrow.Array) floatLists {
	list := c.(*array.List)
	return floatLists{list, list.ListValues().(*array.Float64).Float64Values()}
}

func (l *floatLists) at(i int) []float64 {
	from, end := l.list.ValueOffsets(i)
	return l.values[from:end]
}

// copy is a list that outlives its batch; nil for an empty one.
func (l *floatLists) copy(i int) []float64 {
	return append([]float64(nil), l.at(i)...)
}

type pairReader struct {
	pairs         *array.Map
	names, values *array.String
	builder       labels.ScratchBuilder
}

func pairsIn(c arrow.Array) pairReader {
	m := c.(*array.Map)
	return pairReader{m, m.Keys().(*array.String), m.Items().(*array.String), labels.NewScratchBuilder(16)}
}

func (r *pairReader) at(i int) labels.Labels {
	r.builder.Reset()
	from, end := r.pairs.ValueOffsets(i)
	for n := int(from); n < int(end); n++ {
		r.builder.Add(r.names.Value(n), r.values.Value(n))
	}
	return r.builder.Labels()
}

type histogramReader struct {
	list                                 *array.List
	hint                                 *array.Uint8
	schema                               *array.Int32
	zeroThreshold, zeroCount, count, sum *array.Float64
	positiveSpans, negativeSpans         spanReader
	positiveBuckets, negativeBuckets     floatLists
	customBounds                         floatLists
}

type spanReader struct {
	list   *array.List
	offset *array.Int32
	length *array.Uint32
}

func histogramsIn(c arrow.Array) histogramReader {
	list := c.(*array.List)
	row := list.ListValues().(*array.Struct)
	float := func(i int) *array.Float64 { return row.Field(i).(*array.Float64) }
	return histogramReader{
		list:          list,
		hint:          row.Field(0).(*array.Uint8),
		schema:        row.Field(1).(*array.Int32),
		zeroThreshold: float(2), zeroCount: float(3), count: float(4), sum: float(5),
		positiveSpans:   spansIn(row.Field(6)),
		positiveBuckets: floatsIn(row.Field(7)),
		negativeSpans:   spansIn(row.Field(8)),
		negativeBuckets: floatsIn(row.Field(9)),
		customBounds:    floatsIn(row.Field(10)),
	}
}

func spansIn(c arrow.Array) spanReader {
	list := c.(*array.List)
	row := list.ListValues().(*array.Struct)
	return spanReader{list, row.Field(0).(*array.Int32), row.Field(1).(*array.Uint32)}
}

func (r *histogramReader) appendTo(to []*histogram.FloatHistogram, i int) []*histogram.FloatHistogram {
	if r.list.IsNull(i) {
		return to
	}
	from, end := r.list.ValueOffsets(i)
	for n := int(from); n < int(end); n++ {
		to = append(to, r.at(n))
	}
	return to
}

func (r *histogramReader) at(n int) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{
		CounterResetHint: histogram.CounterResetHint(r.hint.Value(n)),
		Schema:           r.schema.Value(n),
		ZeroThreshold:    r.zeroThreshold.Value(n),
		ZeroCount:        r.zeroCount.Value(n),
		Count:            r.count.Value(n),
		Sum:              r.sum.Value(n),
		PositiveSpans:    r.positiveSpans.at(n),
		PositiveBuckets:  r.positiveBuckets.copy(n),
		NegativeSpans:    r.negativeSpans.at(n),
		NegativeBuckets:  r.negativeBuckets.copy(n),
		CustomValues:     r.customBounds.copy(n),
	}
}

func (r *spanReader) at(n int) []histogram.Span {
	var spans []histogram.Span
	from, end := r.list.ValueOffsets(n)
	for i := int(from); i < int(end); i++ {
		spans = append(spans, histogram.Span{Offset: r.offset.Value(i), Length: r.length.Value(i)})
	}
	return spans
}
