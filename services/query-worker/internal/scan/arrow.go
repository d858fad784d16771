// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// batchRows and batchBytes are what a record batch of an answer holds, about.
const (
	batchRows  = 16 << 10
	batchBytes = 1 << 20
)

func emitSeries(all []series, emit func(arrow.RecordBatch) error) error {
	b := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogSamplesSchema())
	defer b.Release()
	texts := b.Field(0).(*array.BinaryDictionaryBuilder)
	times := b.Field(1).(*array.Int64Builder)
	values := b.Field(2).(*array.Float64Builder)
	for _, s := range all {
		for _, p := range s.points {
			if err := texts.AppendString(s.text); err != nil {
				return err
			}
			times.Append(p.milliseconds)
			values.Append(p.value)
		}
		if times.Len() >= batchRows {
			if err := flush(b, emit); err != nil {
				return err
			}
		}
	}
	if times.Len() == 0 {
		return nil
	}
	return flush(b, emit)
}

// flush emits what a builder holds. Dictionaries begin anew with each batch, which stands for itself.
func flush(b *array.RecordBuilder, emit func(arrow.RecordBatch) error) error {
	batch := b.NewRecordBatch()
	defer batch.Release()
	for _, field := range b.Fields() {
		if d, ok := field.(array.DictionaryBuilder); ok {
			d.ResetFull()
		}
	}
	return emit(batch)
}

// lineWriter makes record batches of lines.
type lineWriter struct {
	emit             func(arrow.RecordBatch) error
	builder          *array.RecordBuilder
	times            *array.Int64Builder
	labels           *array.BinaryDictionaryBuilder
	hashes           *array.Uint64Builder
	lines            *array.StringBuilder
	metadata, parsed pairWriter
	bytes            int
}

type pairWriter struct {
	pairs         *array.MapBuilder
	names, values *array.StringBuilder
}

func newPairWriter(b array.Builder) pairWriter {
	pairs := b.(*array.MapBuilder)
	return pairWriter{pairs, pairs.KeyBuilder().(*array.StringBuilder), pairs.ItemBuilder().(*array.StringBuilder)}
}

func (w *pairWriter) add(pairs []columns.Label) {
	w.pairs.Append(true)
	for _, p := range pairs {
		w.names.Append(p.Name)
		w.values.Append(p.Value)
	}
}

func newLineWriter(emit func(arrow.RecordBatch) error) *lineWriter {
	b := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogLinesSchema())
	return &lineWriter{
		emit:     emit,
		builder:  b,
		times:    b.Field(0).(*array.Int64Builder),
		labels:   b.Field(1).(*array.BinaryDictionaryBuilder),
		hashes:   b.Field(2).(*array.Uint64Builder),
		lines:    b.Field(3).(*array.StringBuilder),
		metadata: newPairWriter(b.Field(4)),
		parsed:   newPairWriter(b.Field(5)),
	}
}

func (w *lineWriter) release() { w.builder.Release() }

func (w *lineWriter) add(l *line) error {
	w.times.Append(l.time)
	if err := w.labels.AppendString(l.labels); err != nil {
		return err
	}
	w.hashes.Append(l.hash)
	w.lines.Append(l.text)
	w.metadata.add(l.metadata)
	w.parsed.add(l.parsed)
	w.bytes += l.size()
	if w.bytes < batchBytes && w.times.Len() < batchRows {
		return nil
	}
	return w.flush()
}

// write adds lines, and emits all there are.
func (w *lineWriter) write(lines []*line) error {
	for _, l := range lines {
		if err := w.add(l); err != nil {
			return err
		}
	}
	return w.flush()
}

func (w *lineWriter) flush() error {
	if w.times.Len() == 0 {
		return nil
	}
	w.bytes = 0
	return flush(w.builder, w.emit)
}

func emitStreams(all []streamTotal, emit func(arrow.RecordBatch) error) error {
	if len(all) == 0 {
		return nil
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogStreamsSchema())
	defer b.Release()
	for _, s := range all {
		b.Field(0).(*array.StringBuilder).Append(s.text)
		for i, v := range []int64{s.rows, s.bytes, s.first, s.last} {
			b.Field(i + 1).(*array.Int64Builder).Append(v)
		}
	}
	return flush(b, emit)
}

func emitFields(all []fieldTotal, emit func(arrow.RecordBatch) error) error {
	if len(all) == 0 {
		return nil
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogFieldsSchema())
	defer b.Release()
	for _, f := range all {
		b.Field(0).(*array.StringBuilder).Append(f.name)
		b.Field(1).(*array.StringBuilder).Append(f.kind)
		b.Field(2).(*array.Int64Builder).Append(f.rows)
		b.Field(3).(*array.Int64Builder).Append(f.cardinality)
	}
	return flush(b, emit)
}
