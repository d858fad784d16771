// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"errors"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// ReadCatalogue reads what a segment holds from its Parquet file.
func ReadCatalogue(r io.ReaderAt, size int64) (*Catalogue, error) {
	file, err := openParquet(r, size)
	if err != nil {
		return nil, err
	}
	return catalogueOf(file, r, size)
}

func openParquet(r io.ReaderAt, size int64) (*parquet.File, error) {
	file, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("read footer of segment: %w", err)
	}
	return file, nil
}

func catalogueOf(file *parquet.File, r io.ReaderAt, size int64) (*Catalogue, error) {
	place, ok := file.Lookup(metadataCatalogue)
	if !ok {
		return nil, fmt.Errorf("a Parquet file, but not a segment: no %s in its footer", metadataCatalogue)
	}
	var offset, length int64
	if _, err := fmt.Sscan(place, &offset, &length); err != nil || offset < 0 || length < 0 || offset > size-length {
		return nil, errDamaged
	}
	compressed := make([]byte, length)
	if _, err := r.ReadAt(compressed, offset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read catalogue of segment: %w", err)
	}
	return unmarshalCatalogue(compressed)
}

// LogReader reads the rows of a segment, a row group at a time.
type LogReader struct {
	file      *parquet.File
	catalogue *Catalogue
	group     int
	values    []parquet.Value
}

// OpenLogs begins to read a segment's Parquet file.
func OpenLogs(r io.ReaderAt, size int64) (*LogReader, error) {
	file, err := openParquet(r, size)
	if err != nil {
		return nil, err
	}
	catalogue, err := catalogueOf(file, r, size)
	if err != nil {
		return nil, err
	}
	return &LogReader{file: file, catalogue: catalogue}, nil
}

// Catalogue returns what the segment holds.
func (r *LogReader) Catalogue() *Catalogue { return r.catalogue }

// Next appends the next row group's rows to l, in their order, and returns io.EOF after the last. A row's attributes come sorted by
// name and kind.
func (r *LogReader) Next(l *columns.Logs) error {
	groups := r.file.RowGroups()
	if r.group == len(groups) {
		return io.EOF
	}
	group := groups[r.group]
	r.group++
	rows := make([]columns.LogRow, group.NumRows())
	for c, chunk := range group.ColumnChunks() {
		name := r.file.Schema().Fields()[c].Name()
		set, err := r.setter(l, name)
		if err != nil {
			return err
		}
		if err := r.readChunk(chunk, len(rows), func(i int, v parquet.Value) error { return set(&rows[i], v) }); err != nil {
			return fmt.Errorf("read column %s of segment: %w", name, err)
		}
	}
	for i := range rows {
		sortAttributes(rows[i].Attributes)
		l.Append(&rows[i])
	}
	return nil
}

// readChunk calls set with each value that is not null.
func (r *LogReader) readChunk(chunk parquet.ColumnChunk, rows int, set func(int, parquet.Value) error) error {
	pages := chunk.Pages()
	defer pages.Close()
	row := 0
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) && row == rows {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%d values, want %d", row, rows)
		}
		if err != nil {
			return err
		}
		n, err := r.readPage(page, row, rows, set)
		parquet.Release(page)
		if err != nil {
			return err
		}
		row += n
	}
}

func (r *LogReader) readPage(page parquet.Page, row, rows int, set func(int, parquet.Value) error) (int, error) {
	if r.values == nil {
		r.values = make([]parquet.Value, 1024)
	}
	reader := page.Values()
	read := 0
	for {
		n, err := reader.ReadValues(r.values)
		for _, v := range r.values[:n] {
			if row+read == rows {
				return read, fmt.Errorf("more than %d values", rows)
			}
			if !v.IsNull() {
				if err := set(row+read, v); err != nil {
					return read, err
				}
			}
			read++
		}
		if errors.Is(err, io.EOF) {
			return read, nil
		}
		if err != nil {
			return read, err
		}
	}
}

// setter returns what puts a value of a column into a row. Streams and origins get their numbers in l.
func (r *LogReader) setter(l *columns.Logs, name string) (func(*columns.LogRow, parquet.Value) error, error) {
	plain := func(set func(*columns.LogRow, parquet.Value)) (func(*columns.LogRow, parquet.Value) error, error) {
		return func(row *columns.LogRow, v parquet.Value) error { set(row, v); return nil }, nil
	}
	switch name {
	case "row":
		return plain(func(*columns.LogRow, parquet.Value) {})
	case "time":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.Time = v.Int64() })
	case "time_source":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.TimeSource = columns.TimeSource(v.Int32()) })
	case "observed_delay": // after "time"
		return plain(func(row *columns.LogRow, v parquet.Value) { row.ObservedTime = row.Time + v.Int64() })
	case "stream":
		return r.streamSetter(l), nil
	case "origin":
		return r.originSetter(l), nil
	case "fingerprint":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.Fingerprint = lake.Fingerprint(v.Int64()) })
	case "severity_number":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.SeverityNumber = v.Int32() })
	case "severity_text":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.SeverityText = text(v) })
	case "detected_level":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.DetectedLevel = text(v) })
	case "trace_id":
		return plain(func(row *columns.LogRow, v parquet.Value) { copy(row.TraceID[:], v.ByteArray()) })
	case "span_id":
		return plain(func(row *columns.LogRow, v parquet.Value) { copy(row.SpanID[:], v.ByteArray()) })
	case "flags":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.Flags = uint32(v.Int32()) })
	case "body":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.Body = text(v) })
	case "body_kind":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.BodyKind = columns.ValueKind(v.Int32()) })
	case "event_name":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.EventName = text(v) })
	case "dropped_attributes":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.DroppedAttributes = uint32(v.Int32()) })
	case "source":
		return plain(func(row *columns.LogRow, v parquet.Value) { row.Source = lake.ReceiptID(v.Int64()) })
	case "attributes":
		return func(row *columns.LogRow, v parquet.Value) (err error) {
			row.Attributes, err = DecodeAttributes(row.Attributes, text(v))
			return err
		}, nil
	}
	return attributeSetter(name)
}

func text(v parquet.Value) string { return string(v.ByteArray()) }

func (r *LogReader) streamSetter(l *columns.Logs) func(*columns.LogRow, parquet.Value) error {
	ids := make([]columns.StreamID, len(r.catalogue.Streams))
	for i := range ids {
		ids[i] = l.Stream(r.catalogue.Streams[i].Labels)
	}
	return func(row *columns.LogRow, v parquet.Value) error {
		n := v.Int32()
		if n < 0 || int(n) >= len(ids) {
			return fmt.Errorf("stream %d of %d", n, len(ids))
		}
		row.Stream = ids[n]
		return nil
	}
}

func (r *LogReader) originSetter(l *columns.Logs) func(*columns.LogRow, parquet.Value) error {
	ids := make([]columns.OriginID, len(r.catalogue.Origins))
	for i := range ids {
		ids[i] = l.Origin(r.catalogue.Origins[i])
	}
	return func(row *columns.LogRow, v parquet.Value) error {
		n := v.Int32()
		if n < 0 || int(n) >= len(ids) {
			return fmt.Errorf("origin %d of %d", n, len(ids))
		}
		row.Origin = ids[n]
		return nil
	}
}

func attributeSetter(column string) (func(*columns.LogRow, parquet.Value) error, error) {
	name, kind, err := ParseColumnName(column)
	if err != nil {
		return nil, err
	}
	value := func(v parquet.Value) columns.Value { return columns.Value{Kind: kind, Str: text(v)} }
	switch kind {
	case columns.KindInt, columns.KindDouble:
		value = func(v parquet.Value) columns.Value { return columns.Value{Kind: kind, Num: v.Uint64()} }
	case columns.KindBool:
		value = func(v parquet.Value) columns.Value {
			if v.Boolean() {
				return columns.Value{Kind: kind, Num: 1}
			}
			return columns.Value{Kind: kind}
		}
	}
	return func(row *columns.LogRow, v parquet.Value) error {
		row.Attributes = append(row.Attributes, columns.Attribute{Name: name, Value: value(v)})
		return nil
	}, nil
}
