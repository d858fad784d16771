// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// batchBytes is about how large a record batch becomes.
const batchBytes = 1 << 20

// EncodeSeries gives series as record batches of SeriesSchema, each of about a megabyte. A long series takes several rows. The function must not keep a batch.
func EncodeSeries(series []Series, emit func(arrow.RecordBatch) error) error {
	e := NewEncoder(emit)
	defer e.Release()
	for i := range series {
		if err := e.Add(&series[i]); err != nil {
			return err
		}
	}
	return e.Flush()
}

// Encoder makes record batches of series that come one by one. It is for one goroutine.
type Encoder struct {
	emit            func(arrow.RecordBatch) error
	batch           *array.RecordBuilder
	bytes           int
	labels          pairBuilder
	delta           *array.BooleanBuilder
	first, step     *array.Int64Builder
	times, starts   listBuilder[*array.Int64Builder]
	values          listBuilder[*array.Float64Builder]
	histogramTimes  listBuilder[*array.Int64Builder]
	histogramStarts listBuilder[*array.Int64Builder]
	histograms      histogramBuilder
}

// NewEncoder returns an encoder that gives its batches to a function, which must not keep them.
func NewEncoder(emit func(arrow.RecordBatch) error) *Encoder {
	b := array.NewRecordBuilder(memory.DefaultAllocator, SeriesSchema())
	return &Encoder{
		emit:            emit,
		batch:           b,
		labels:          pairsOf(b.Field(0)),
		delta:           b.Field(1).(*array.BooleanBuilder),
		first:           b.Field(2).(*array.Int64Builder),
		step:            b.Field(3).(*array.Int64Builder),
		times:           listOf[*array.Int64Builder](b.Field(4)),
		values:          listOf[*array.Float64Builder](b.Field(5)),
		starts:          listOf[*array.Int64Builder](b.Field(6)),
		histogramTimes:  listOf[*array.Int64Builder](b.Field(7)),
		histogramStarts: listOf[*array.Int64Builder](b.Field(8)),
		histograms:      histogramsOf(b.Field(9)),
	}
}

// Release frees what the encoder holds.
func (e *Encoder) Release() { e.batch.Release() }

// Flush gives what is left.
func (e *Encoder) Flush() error {
	if e.bytes == 0 {
		return nil
	}
	e.bytes = 0
	batch := e.batch.NewRecordBatch()
	defer batch.Release()
	return e.emit(batch)
}

// rowSamples is the most samples of a row.
const rowSamples = batchBytes / 16

// Add adds a series.
func (e *Encoder) Add(s *Series) error {
	float, hist := 0, 0
	for {
		nextFloat := min(float+rowSamples, len(s.Times))
		nextHist := hist
		for bytes := 0; nextHist < len(s.Histograms) && bytes < batchBytes; nextHist++ {
			bytes += histogramBytes(s.Histograms[nextHist])
		}
		if err := e.row(s, float, nextFloat, hist, nextHist); err != nil {
			return err
		}
		if float, hist = nextFloat, nextHist; float == len(s.Times) && hist == len(s.Histograms) {
			return nil
		}
	}
}

func (e *Encoder) row(s *Series, float, floatEnd, hist, histEnd int) error {
	e.bytes += e.labels.add(s.Labels) + 64
	e.delta.Append(s.Delta)
	times := s.Times[float:floatEnd]
	e.addTimes(times)
	e.values.list.Append(true)
	e.values.of.AppendValues(s.Values[float:floatEnd], nil)
	e.bytes += 8 * len(times)
	e.bytes += addInts(&e.starts, s.Starts, float, floatEnd)
	e.bytes += addInts(&e.histogramTimes, s.HistogramTimes, hist, histEnd)
	e.bytes += addInts(&e.histogramStarts, s.HistogramStarts, hist, histEnd)
	e.histograms.list.Append(true)
	for _, h := range s.Histograms[hist:histEnd] {
		e.histograms.add(h)
		e.bytes += histogramBytes(h)
	}
	if e.bytes < batchBytes {
		return nil
	}
	return e.Flush()
}

func (e *Encoder) addTimes(times []int64) {
	first, step, even := evenly(times)
	e.first.Append(first)
	e.step.Append(step)
	if even {
		e.times.list.AppendNull()
		return
	}
	e.times.list.Append(true)
	e.times.of.AppendValues(times, nil)
	e.bytes += 8 * len(times)
}

// evenly reports whether times are apart by one step.
func evenly(times []int64) (first, step int64, even bool) {
	if len(times) == 0 {
		return 0, 0, true
	}
	if first = times[0]; len(times) > 1 {
		step = times[1] - first
	}
	for i, t := range times {
		if t != first+int64(i)*step {
			return 0, 0, false
		}
	}
	return first, step, true
}

// addInts adds part of a list that may be missing.
func addInts(to *listBuilder[*array.Int64Builder], values []int64, from, end int) int {
	if values == nil || from == end {
		to.list.AppendNull()
		return 0
	}
	to.list.Append(true)
	to.of.AppendValues(values[from:end], nil)
	return 8 * (end - from)
}

type listBuilder[B array.Builder] struct {
	list *array.ListBuilder
	of   B
}

func listOf[B array.Builder](b array.Builder) listBuilder[B] {
	list := b.(*array.ListBuilder)
	return listBuilder[B]{list, list.ValueBuilder().(B)}
}

type pairBuilder struct {
	pairs         *array.MapBuilder
	names, values *array.StringBuilder
}

func pairsOf(b array.Builder) pairBuilder {
	m := b.(*array.MapBuilder)
	return pairBuilder{m, m.KeyBuilder().(*array.StringBuilder), m.ItemBuilder().(*array.StringBuilder)}
}

// add adds labels, and returns about how many bytes they take.
func (b *pairBuilder) add(l labels.Labels) int {
	b.pairs.Append(true)
	bytes := 0
	l.Range(func(one labels.Label) {
		b.names.Append(one.Name)
		b.values.Append(one.Value)
		bytes += len(one.Name) + len(one.Value) + 8
	})
	return bytes
}

type histogramBuilder struct {
	list                                           *array.ListBuilder
	row                                            *array.StructBuilder
	hint                                           *array.Uint8Builder
	schema                                         *array.Int32Builder
	zeroThreshold, zeroCount, count, sum           *array.Float64Builder
	positiveSpans, negativeSpans                   spanBuilder
	positiveBuckets, negativeBuckets, customBounds listBuilder[*array.Float64Builder]
}

type spanBuilder struct {
	list   *array.ListBuilder
	row    *array.StructBuilder
	offset *array.Int32Builder
	length *array.Uint32Builder
}

func histogramsOf(b array.Builder) histogramBuilder {
	list := b.(*array.ListBuilder)
	row := list.ValueBuilder().(*array.StructBuilder)
	float := func(i int) *array.Float64Builder { return row.FieldBuilder(i).(*array.Float64Builder) }
	return histogramBuilder{
		list: list, row: row,
		hint:          row.FieldBuilder(0).(*array.Uint8Builder),
		schema:        row.FieldBuilder(1).(*array.Int32Builder),
		zeroThreshold: float(2), zeroCount: float(3), count: float(4), sum: float(5),
		positiveSpans:   spansOf(row.FieldBuilder(6)),
		positiveBuckets: listOf[*array.Float64Builder](row.FieldBuilder(7)),
		negativeSpans:   spansOf(row.FieldBuilder(8)),
		negativeBuckets: listOf[*array.Float64Builder](row.FieldBuilder(9)),
		customBounds:    listOf[*array.Float64Builder](row.FieldBuilder(10)),
	}
}

func spansOf(b array.Builder) spanBuilder {
	list := b.(*array.ListBuilder)
	row := list.ValueBuilder().(*array.StructBuilder)
	return spanBuilder{list, row, row.FieldBuilder(0).(*array.Int32Builder), row.FieldBuilder(1).(*array.Uint32Builder)}
}

func (b *histogramBuilder) add(h *histogram.FloatHistogram) {
	b.row.Append(true)
	b.hint.Append(uint8(h.CounterResetHint))
	b.schema.Append(h.Schema)
	b.zeroThreshold.Append(h.ZeroThreshold)
	b.zeroCount.Append(h.ZeroCount)
	b.count.Append(h.Count)
	b.sum.Append(h.Sum)
	b.positiveSpans.add(h.PositiveSpans)
	addFloats(&b.positiveBuckets, h.PositiveBuckets)
	b.negativeSpans.add(h.NegativeSpans)
	addFloats(&b.negativeBuckets, h.NegativeBuckets)
	addFloats(&b.customBounds, h.CustomValues)
}

func addFloats(to *listBuilder[*array.Float64Builder], values []float64) {
	to.list.Append(true)
	to.of.AppendValues(values, nil)
}

func (b *spanBuilder) add(spans []histogram.Span) {
	b.list.Append(true)
	for _, s := range spans {
		b.row.Append(true)
		b.offset.Append(s.Offset)
		b.length.Append(s.Length)
	}
}

// histogramBytes is about how many bytes a histogram takes.
func histogramBytes(h *histogram.FloatHistogram) int {
	return 64 + 8*(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.PositiveSpans)+len(h.NegativeSpans)+len(h.CustomValues))
}
