// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Line is one log line as the pipeline left it.
type Line struct {
	Time       int64  // ns since 1970
	Labels     string // all labels of the line: of its stream, its metadata and those parsed
	StreamHash uint64 // of the stream's labels before the pipeline
	Line       string
	Metadata   []logproto.LabelAdapter
	Parsed     []logproto.LabelAdapter
}

// Entry returns the line as Loki's engine has it.
func (l *Line) Entry() logproto.Entry {
	return logproto.Entry{
		Timestamp:          time.Unix(0, l.Time).UTC(),
		Line:               l.Line,
		StructuredMetadata: l.Metadata,
		Parsed:             l.Parsed,
	}
}

// lineColumns are the columns of one batch of columns.LogLinesSchema.
type lineColumns struct {
	time             *array.Int64
	labels           textColumn
	hash             *array.Uint64
	line             textColumn
	metadata, parsed pairsColumn
}

func lineColumnsOf(batch arrow.RecordBatch) (lineColumns, error) {
	var (
		c   lineColumns
		ok  bool
		err error
	)
	get := func(name string) arrow.Array {
		indices := batch.Schema().FieldIndices(name)
		if len(indices) != 1 {
			err = badColumn(name)
			return nil
		}
		return batch.Column(indices[0])
	}
	times, labels, hash, line := get("time"), get("labels"), get("stream_hash"), get("line")
	metadata, parsed := get("metadata"), get("parsed")
	if err != nil {
		return c, err
	}
	if c.time, ok = times.(*array.Int64); !ok {
		return c, badColumn("time")
	}
	if c.hash, ok = hash.(*array.Uint64); !ok {
		return c, badColumn("stream_hash")
	}
	if c.labels, err = textOf("labels", labels); err != nil {
		return c, err
	}
	if c.line, err = textOf("line", line); err != nil {
		return c, err
	}
	if c.metadata, err = pairsOf("metadata", metadata); err != nil {
		return c, err
	}
	c.parsed, err = pairsOf("parsed", parsed)
	return c, err
}

func badColumn(name string) error {
	return fault.New(fault.Internal, "a worker's answer has no usable column %q", name)
}

// textColumn reads a column of strings, dictionary-encoded or not.
type textColumn interface{ Value(i int) string }

// dictionaryText reads dictionary-encoded strings.
type dictionaryText struct {
	indices *array.Dictionary
	values  *array.String
}

// Value returns the string of row i.
func (d dictionaryText) Value(i int) string { return d.values.Value(d.indices.GetValueIndex(i)) }

func textOf(name string, column arrow.Array) (textColumn, error) {
	switch c := column.(type) {
	case *array.String:
		return c, nil
	case *array.Dictionary:
		if values, ok := c.Dictionary().(*array.String); ok {
			return dictionaryText{indices: c, values: values}, nil
		}
	}
	return nil, badColumn(name)
}

// pairsColumn reads a column of name-value maps.
type pairsColumn struct {
	rows         *array.Map
	names, texts textColumn
}

func pairsOf(name string, column arrow.Array) (pairsColumn, error) {
	rows, ok := column.(*array.Map)
	if !ok {
		return pairsColumn{}, badColumn(name)
	}
	names, err := textOf(name, rows.Keys())
	if err != nil {
		return pairsColumn{}, err
	}
	texts, err := textOf(name, rows.Items())
	return pairsColumn{rows: rows, names: names, texts: texts}, err
}

// each calls visit with the pairs of row i.
func (p pairsColumn) each(i int, visit func(name, value string)) {
	if p.rows.IsNull(i) {
		return
	}
	from, to := p.rows.ValueOffsets(i)
	for at := int(from); at < int(to); at++ {
		visit(p.names.Value(at), p.texts.Value(at))
	}
}

func (p pairsColumn) adapters(i int) []logproto.LabelAdapter {
	var out []logproto.LabelAdapter
	p.each(i, func(name, value string) {
		out = append(out, logproto.LabelAdapter{Name: strings.Clone(name), Value: strings.Clone(value)})
	})
	slices.SortFunc(out, func(a, b logproto.LabelAdapter) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// lineDecoder collects the lines of one attempt. What it keeps does not hold on to the batch.
type lineDecoder struct {
	lines  []Line
	labels map[string]string // interned
}

func newLineDecoder() *lineDecoder { return &lineDecoder{labels: map[string]string{}} }

// Add takes in a batch.
func (d *lineDecoder) Add(batch arrow.RecordBatch) error {
	columns, err := lineColumnsOf(batch)
	if err != nil {
		return fmt.Errorf("log lines: %w", err)
	}
	for i := range int(batch.NumRows()) {
		d.lines = append(d.lines, Line{
			Time:       columns.time.Value(i),
			Labels:     d.intern(columns.labels.Value(i)),
			StreamHash: columns.hash.Value(i),
			Line:       strings.Clone(columns.line.Value(i)),
			Metadata:   columns.metadata.adapters(i),
			Parsed:     columns.parsed.adapters(i),
		})
	}
	return nil
}

func (d *lineDecoder) intern(text string) string {
	if kept, ok := d.labels[text]; ok {
		return kept
	}
	kept := strings.Clone(text)
	d.labels[kept] = kept
	return kept
}

// StreamLabels returns the labels of the line's stream: all its labels without its metadata and parsed ones.
func (l *Line) StreamLabels() labels.Labels {
	all, err := parseLabels(l.Labels)
	if err != nil {
		return labels.EmptyLabels()
	}
	builder := labels.NewBuilder(all)
	for _, pair := range l.Metadata {
		builder.Del(pair.Name)
	}
	for _, pair := range l.Parsed {
		builder.Del(pair.Name)
	}
	return builder.Labels()
}
