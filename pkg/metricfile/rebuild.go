// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// RebuildCatalogue makes the catalogue of a segment, and its sidecar, from the Parquet file alone.
func RebuildCatalogue(ctx context.Context, file io.ReaderAt, size int64) (c *Catalogue, sidecar []byte, err error) {
	defer damagedPanic(&err) // of parquet-go
	r, err := openFooter(file, size)
	if err != nil {
		return nil, nil, err
	}
	defer r.z.Close()
	builder := newCatalogueBuilder(r.layout)
	var last string
	for g := range r.groups {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if err := r.readGroup(&r.groups[g]); err != nil {
			return nil, nil, err
		}
		for row := range r.rows {
			if err := r.addRow(builder, row, &last); err != nil {
				return nil, nil, err
			}
		}
		builder.endBlock()
		builder.groups = append(builder.groups, r.places)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(compression(r.totals.Level)), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, nil, err
	}
	defer z.Close()
	sidecar = builder.marshal(z, &r.totals)
	c, err = ReadCatalogue(sidecar)
	return c, sidecar, err
}

func damagedPanic(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errDamaged, p)
	}
}

// footerReader reads a segment's Parquet file by its footer.
type footerReader struct {
	file     io.ReaderAt
	size     int64
	z        *zstd.Decoder
	protocol thrift.CompactProtocol
	layout   *layout
	schema   []column
	totals   totals
	groups   []format.RowGroup

	rows   int // of the current row group
	leaves []leaf
	places groupPlaces
	labels labels.ScratchBuilder
	next   [fixedColumns]int // entries of nested columns that rows before have had
}

// leaf is one column of a row group.
type leaf struct {
	repeated, defined []uint8
	dictionary        [][]byte
	indexes           []int32
	values            []byte // PLAIN
	place             place
	sizes             []int // of own columns, by row
}

func openFooter(file io.ReaderAt, size int64) (*footerReader, error) {
	footer, err := readFooter(file, size)
	if err != nil {
		return nil, fmt.Errorf("read footer of metric segment: %w", err)
	}
	at := slices.IndexFunc(footer.KeyValueMetadata, func(kv format.KeyValue) bool { return kv.Key == metadataSegment })
	if at < 0 {
		return nil, fmt.Errorf("a Parquet file, but not a metric segment: no %s in its footer: %w", metadataSegment, errDamaged)
	}
	t, err := unmarshalTotals([]byte(footer.KeyValueMetadata[at].Value))
	if err != nil {
		return nil, err
	}
	r := &footerReader{file: file, size: size, totals: t, layout: layoutOf(&t.Meta), groups: footer.RowGroups, labels: labels.NewScratchBuilder(16)}
	r.schema = r.layout.schema()
	r.z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlob))
	return r, err
}

func readFooter(file io.ReaderAt, size int64) (*format.FileMetaData, error) {
	const tail = 4 + len(parquetMagic)
	var end [tail]byte
	if size < int64(tail) {
		return nil, errDamaged
	}
	if _, err := file.ReadAt(end[:], size-int64(tail)); err != nil && err != io.EOF {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(end[:]))
	if string(end[4:]) != parquetMagic || n > size-int64(tail) {
		return nil, errDamaged
	}
	b := make([]byte, n)
	if _, err := file.ReadAt(b, size-int64(tail)-n); err != nil && err != io.EOF {
		return nil, err
	}
	footer := &format.FileMetaData{}
	if err := thrift.Unmarshal(new(thrift.CompactProtocol), b, footer); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return footer, nil
}

func (r *footerReader) readGroup(g *format.RowGroup) error {
	if len(g.Columns) != len(r.schema) || g.NumRows <= 0 || g.NumRows > maxVector {
		return errDamaged
	}
	r.rows, r.leaves, r.next, r.places = int(g.NumRows), make([]leaf, len(r.schema)), [fixedColumns]int{}, groupPlaces{}
	for i := range r.schema {
		if err := r.readLeaf(i, &g.Columns[i].MetaData); err != nil {
			return fmt.Errorf("read column %s of metric segment: %w", r.schema[i].name, err)
		}
	}
	for i := range r.layout.shared {
		l := &r.leaves[fixedColumns+i]
		r.places.shared[i] = sharedPlace{offset: l.place.dictionary, size: l.place.dictionarySize, count: int64(len(l.dictionary))}
	}
	for i := range r.layout.own {
		l := &r.leaves[fixedColumns+len(r.layout.shared)+i]
		r.places.own[i] = ownPlace{offset: l.place.values, size: l.place.valuesSize}
		if err := l.measure(r.rows); err != nil {
			return err
		}
	}
	return nil
}

func (r *footerReader) readLeaf(i int, m *format.ColumnMetaData) (err error) {
	col, l := &r.schema[i], &r.leaves[i]
	start := m.DataPageOffset
	if m.DictionaryPageOffset > 0 {
		start = m.DictionaryPageOffset
	}
	if !within(start, m.TotalCompressedSize, r.size) || m.DataPageOffset < start || m.DataPageOffset > start+m.TotalCompressedSize {
		return errDamaged
	}
	b := make([]byte, m.TotalCompressedSize)
	if _, err := r.file.ReadAt(b, start); err != nil && err != io.EOF {
		return err
	}
	if m.DictionaryPageOffset > 0 {
		page, at, header, err := r.page(b[:m.DataPageOffset-start], m.Codec)
		if err != nil || !header.DictionaryPageHeader.Valid {
			return errDamaged
		}
		l.place.dictionary, l.place.dictionarySize = start+at, int64(len(page))
		if l.dictionary, err = texts(page); err != nil {
			return err
		}
	}
	page, at, header, err := r.page(b[m.DataPageOffset-start:], m.Codec)
	if err != nil || !header.DataPageHeader.Valid {
		return errDamaged
	}
	entries := int(header.DataPageHeader.V.NumValues)
	if entries < 0 || entries > maxVector {
		return errDamaged
	}
	values := page
	if col.nesting != required && col.nesting != optional {
		if l.repeated, values, err = levels(values, entries); err != nil {
			return err
		}
	} else if entries != r.rows {
		return errDamaged
	}
	if col.nesting != required {
		if l.defined, values, err = levels(values, entries); err != nil {
			return err
		}
	}
	l.values = values
	l.place.values, l.place.valuesSize = m.DataPageOffset+at+int64(len(page)-len(values)), int64(len(values))
	if header.DataPageHeader.V.Encoding == format.RLEDictionary {
		return l.index(entries)
	}
	return l.checkWidth(col, entries)
}

// page reads a page, and where in b it begins.
func (r *footerReader) page(b []byte, codec format.CompressionCodec) (page []byte, at int64, header *format.PageHeader, err error) {
	header = &format.PageHeader{}
	if err := thrift.NewDecoder(r.protocol.NewReaderFromBytes(b)).Decode(header); err != nil {
		return nil, 0, nil, err
	}
	packed, size := int(header.CompressedPageSize), int(header.UncompressedPageSize)
	if packed < 0 || packed > len(b) || size < 0 {
		return nil, 0, nil, errDamaged
	}
	at = int64(len(b) - packed)
	page = b[at:]
	if codec == format.Zstd {
		page, err = r.z.DecodeAll(page, nil)
	}
	if err != nil || len(page) != size {
		return nil, 0, nil, errDamaged
	}
	return page, at, header, nil
}

func levels(b []byte, n int) (decoded []uint8, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, errDamaged
	}
	size := binary.LittleEndian.Uint32(b)
	if uint64(size) > uint64(len(b)-4) {
		return nil, nil, errDamaged
	}
	values, err := hybrid(b[4:][:size], 1, n)
	decoded = make([]uint8, len(values))
	for i, v := range values {
		decoded[i] = uint8(v)
	}
	return decoded, b[4+size:], err
}

// hybrid decodes n numbers of Parquet's mixture of runs and packed bits, and no more than that, whatever the runs say.
func hybrid(b []byte, width, n int) ([]int32, error) {
	size := (width + 7) / 8
	var values []int32
	for len(values) < n {
		head, k := binary.Uvarint(b)
		if k <= 0 || head>>1 == 0 {
			return nil, errDamaged
		}
		b = b[k:]
		if head&1 == 0 {
			if len(b) < size {
				return nil, errDamaged
			}
			v := int32(0)
			for i := range size {
				v |= int32(b[i]) << (8 * i)
			}
			values = append(values, slices.Repeat([]int32{v}, int(min(head>>1, uint64(n-len(values)))))...)
			b = b[size:]
			continue
		}
		if head>>1 > uint64(len(b)) || len(b) < int(head>>1)*width {
			return nil, errDamaged
		}
		for i := range min(8*int(head>>1), n-len(values)) {
			v := int32(0)
			for bit := i * width; bit < (i+1)*width; bit++ {
				v |= int32(b[bit/8]>>(bit%8)&1) << (bit - i*width)
			}
			values = append(values, v)
		}
		b = b[int(head>>1)*width:]
	}
	return values, nil
}

// texts splits a PLAIN page of byte arrays.
func texts(b []byte) (all [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < lengthBytes {
			return nil, errDamaged
		}
		n := binary.LittleEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-lengthBytes) {
			return nil, errDamaged
		}
		all = append(all, b[lengthBytes:][:n])
		b = b[lengthBytes+n:]
	}
	return all, nil
}

// index decodes the places in the dictionary of values that there are.
func (l *leaf) index(entries int) (err error) {
	n := entries
	if l.defined != nil {
		n = 0
		for _, d := range l.defined {
			n += int(d)
		}
	}
	if n == 0 {
		return nil
	}
	b := l.values
	if len(b) == 0 || b[0] == 0 || b[0] > 31 {
		return errDamaged
	}
	if l.indexes, err = hybrid(b[1:], int(b[0]), n); err != nil {
		return err
	}
	for _, i := range l.indexes {
		if i < 0 || int(i) >= len(l.dictionary) {
			return errDamaged
		}
	}
	return nil
}

// checkWidth makes sure that numbers are as many as they should.
func (l *leaf) checkWidth(col *column, entries int) error {
	bits := 0
	switch col.physical {
	case format.Int64:
		bits = 64
	case format.Int32:
		bits = 32
	case format.Boolean:
		bits = 1
	}
	if len(l.values)*8 < bits*entries {
		return errDamaged
	}
	return nil
}

// measure finds the sizes of an own column's values.
func (l *leaf) measure(rows int) error {
	values, err := texts(l.values)
	if err != nil {
		return err
	}
	l.sizes = make([]int, rows)
	for row, d := range l.defined {
		if d == 0 {
			continue
		}
		if len(values) == 0 || len(values[0]) == 0 {
			return errDamaged
		}
		l.sizes[row], values = len(values[0]), values[1:]
	}
	if len(values) > 0 {
		return errDamaged
	}
	return nil
}

// addRow adds a row of the current row group to a catalogue.
func (r *footerReader) addRow(c *catalogueBuilder, row int, last *string) error {
	s, err := r.series(row)
	if err != nil {
		return err
	}
	name := s.Name()
	if len(c.names) == 0 || *last != name {
		c.endBlock()
		c.names = append(c.names, name)
		*last = name
	} else if c.current.len() == maxBlockRows {
		c.endBlock()
	}
	e := rowEntry{
		hash: r.wide(columnHash, row), rows: int64(r.narrow(columnRows, row)), exemplars: int64(r.narrow(columnExemplarCount, row)),
		first: int64(r.wide(columnFirst, row)), last: int64(r.wide(columnLast, row)),
	}
	if tracks := int64(s.NumTracks()); tracks > 0 {
		e.counted = int64(r.wide(columnSamples, row)) / tracks
	}
	for i := range r.layout.shared {
		e.refs[i] = r.leaves[fixedColumns+i].indexes[row]
	}
	for i := range r.layout.own {
		e.sizes[i] = r.leaves[fixedColumns+len(r.layout.shared)+i].sizes[row]
	}
	parts, err := c.parts(s.Labels)
	if err != nil {
		return err
	}
	return c.add(s, parts, &e)
}

func (r *footerReader) text(column, row int) string {
	l := &r.leaves[column]
	return string(l.dictionary[l.indexes[row]])
}

func (r *footerReader) wide(column, row int) uint64 {
	return binary.LittleEndian.Uint64(r.leaves[column].values[8*row:])
}

func (r *footerReader) narrow(column, row int) uint32 {
	return binary.LittleEndian.Uint32(r.leaves[column].values[4*row:])
}

func (r *footerReader) bit(column, row int) bool {
	return r.leaves[column].values[row/8]>>(row%8)&1 != 0
}

// series reads the series of the next row: nested columns are read in the order of rows.
func (r *footerReader) series(row int) (*Series, error) {
	s := &Series{
		Delta: r.bit(columnDelta, row), NoSum: r.bit(columnNoSum, row),
		Family: Family{Type: model.MetricType(r.text(columnType, row)), Unit: r.text(columnUnit, row), Help: r.text(columnHelp, row)},
	}
	switch r.text(columnKind, row) {
	case KindFloat.String():
		s.Kind = KindFloat
	case KindClassic.String():
		s.Kind = KindClassic
	case KindSummary.String():
		s.Kind = KindSummary
	case KindHistogram.String():
		s.Kind = KindHistogram
	default:
		return nil, errDamaged
	}
	r.labels.Reset()
	r.labels.Add(model.MetricNameLabel, r.text(columnName, row))
	err := r.each(columnLabelNames, func(at int) {
		names, values := &r.leaves[columnLabelNames], &r.leaves[columnLabelValues]
		r.labels.Add(string(names.dictionary[names.indexes[at]]), string(values.dictionary[values.indexes[at]]))
	})
	if err != nil {
		return nil, err
	}
	r.labels.Sort()
	s.Labels = r.labels.Labels()
	err = r.each(columnBounds, func(at int) {
		s.Bounds = append(s.Bounds, math.Float64frombits(r.wide(columnBounds, at)))
	})
	return s, err
}

// each calls f with the places of the next row's elements of a nested column.
func (r *footerReader) each(column int, f func(at int)) error {
	l := &r.leaves[column]
	entry, value := &r.next[column], &r.next[column+1] // a list's second number is of a column that is not nested
	for first := true; *entry < len(l.defined) && (first || l.repeated[*entry] != 0); first = false {
		if first && l.repeated[*entry] != 0 {
			return errDamaged
		}
		if l.defined[*entry] != 0 {
			f(*value)
			*value++
		}
		*entry++
	}
	return nil
}
