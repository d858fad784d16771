// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/prometheus/prometheus/model/labels"
)

// Entry is a label set of a catalogue.
type Entry struct {
	Labels         labels.Labels
	Samples, Bytes int64
	First, Last    int64 // ms since 1970
}

// Metric is a metric name of a catalogue.
type Metric struct {
	Name, Type, Unit, Help string
	Series, Samples, Bytes int64
}

// Exemplar is an exemplar of a series.
type Exemplar struct {
	Series, Labels labels.Labels
	Value          float64
	Time           int64 // ms since 1970
}

// EncodeEntries gives entries as batches of CatalogueSchema. The function must not keep a batch.
func EncodeEntries(entries []Entry, emit func(arrow.RecordBatch) error) error {
	return inBatches(entries, CatalogueSchema(), emit, func(b *array.RecordBuilder) func(*Entry) int {
		l := pairsOf(b.Field(0))
		samples, bytes, first, last := intsOf(b, 1), intsOf(b, 2), intsOf(b, 3), intsOf(b, 4)
		return func(e *Entry) int {
			samples.Append(e.Samples)
			bytes.Append(e.Bytes)
			first.Append(e.First)
			last.Append(e.Last)
			return l.add(e.Labels) + 32
		}
	})
}

// DecodeEntries adds the entries of a batch to others.
func DecodeEntries(to []Entry, batch arrow.RecordBatch) ([]Entry, error) {
	if err := ofSchema(batch, CatalogueSchema()); err != nil {
		return nil, err
	}
	l := pairsIn(batch.Column(0))
	samples, bytes, first, last := intsAt(batch, 1), intsAt(batch, 2), intsAt(batch, 3), intsAt(batch, 4)
	for i := range int(batch.NumRows()) {
		to = append(to, Entry{l.at(i), samples[i], bytes[i], first[i], last[i]})
	}
	return to, nil
}

// EncodeMetrics gives metrics as batches of MetricsSchema. The function must not keep a batch.
func EncodeMetrics(metrics []Metric, emit func(arrow.RecordBatch) error) error {
	return inBatches(metrics, MetricsSchema(), emit, func(b *array.RecordBuilder) func(*Metric) int {
		text := func(i int) *array.StringBuilder { return b.Field(i).(*array.StringBuilder) }
		name, kind, unit, help := text(0), text(1), text(2), text(3)
		series, samples, bytes := intsOf(b, 4), intsOf(b, 5), intsOf(b, 6)
		return func(m *Metric) int {
			name.Append(m.Name)
			kind.Append(m.Type)
			unit.Append(m.Unit)
			help.Append(m.Help)
			series.Append(m.Series)
			samples.Append(m.Samples)
			bytes.Append(m.Bytes)
			return len(m.Name) + len(m.Type) + len(m.Unit) + len(m.Help) + 40
		}
	})
}

// DecodeMetrics adds the metrics of a batch to others.
func DecodeMetrics(to []Metric, batch arrow.RecordBatch) ([]Metric, error) {
	if err := ofSchema(batch, MetricsSchema()); err != nil {
		return nil, err
	}
	text := func(column, i int) string { return copied(batch.Column(column).(*array.String).Value(i)) }
	series, samples, bytes := intsAt(batch, 4), intsAt(batch, 5), intsAt(batch, 6)
	for i := range int(batch.NumRows()) {
		to = append(to, Metric{text(0, i), text(1, i), text(2, i), text(3, i), series[i], samples[i], bytes[i]})
	}
	return to, nil
}

// EncodeExemplars gives exemplars as batches of ExemplarsSchema. The function must not keep a batch.
func EncodeExemplars(exemplars []Exemplar, emit func(arrow.RecordBatch) error) error {
	return inBatches(exemplars, ExemplarsSchema(), emit, func(b *array.RecordBuilder) func(*Exemplar) int {
		series, own := pairsOf(b.Field(0)), pairsOf(b.Field(1))
		values, times := b.Field(2).(*array.Float64Builder), intsOf(b, 3)
		return func(e *Exemplar) int {
			values.Append(e.Value)
			times.Append(e.Time)
			return series.add(e.Series) + own.add(e.Labels) + 16
		}
	})
}

// DecodeExemplars adds the exemplars of a batch to others.
func DecodeExemplars(to []Exemplar, batch arrow.RecordBatch) ([]Exemplar, error) {
	if err := ofSchema(batch, ExemplarsSchema()); err != nil {
		return nil, err
	}
	series, own := pairsIn(batch.Column(0)), pairsIn(batch.Column(1))
	values, times := batch.Column(2).(*array.Float64).Float64Values(), intsAt(batch, 3)
	for i := range int(batch.NumRows()) {
		to = append(to, Exemplar{series.at(i), own.at(i), values[i], times[i]})
	}
	return to, nil
}

// inBatches makes batches of about a megabyte. The function that it is given returns one that adds a row and says about how many bytes it takes.
func inBatches[T any](rows []T, schema *arrow.Schema, emit func(arrow.RecordBatch) error, into func(*array.RecordBuilder) func(*T) int) error {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	add := into(b)
	for bytes, i := 0, 0; i < len(rows); i++ {
		bytes += add(&rows[i])
		if bytes < batchBytes && i < len(rows)-1 {
			continue
		}
		bytes = 0
		if err := give(b, emit); err != nil {
			return err
		}
	}
	return nil
}

func give(b *array.RecordBuilder, emit func(arrow.RecordBatch) error) error {
	batch := b.NewRecordBatch()
	defer batch.Release()
	return emit(batch)
}

func intsOf(b *array.RecordBuilder, i int) *array.Int64Builder {
	return b.Field(i).(*array.Int64Builder)
}

func intsAt(batch arrow.RecordBatch, i int) []int64 {
	return batch.Column(i).(*array.Int64).Int64Values()
}

// copied is a string that outlives its batch.
func copied(s string) string { return string(append([]byte(nil), s...)) }
