// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"encoding/binary"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

const parquetMagic = "PAR1"

// parquetFile writes a Parquet file column by column. Each column of a row group is one page, and one for its dictionary.
type parquetFile struct {
	w        io.Writer
	z        *zstd.Encoder
	offset   int64
	schema   []column
	groups   []format.RowGroup
	chunks   []format.ColumnChunk // of the current row group
	rows     int64
	page     []byte
	packed   []byte
	levels   []byte
	written  map[string]int64 // bytes by name of column
	protocol thrift.CompactProtocol
}

// nesting is how many values a row has of a column.
type nesting uint8

const (
	required  nesting = iota
	optional          // one or none
	listed            // the elements of a list
	mapKeys           // the keys of a map
	mapValues         // the values of the map whose keys are the column before
)

// column is one leaf of the schema.
type column struct {
	name     string // of the field at the top
	physical format.Type
	text     bool // UTF-8
	unsigned bool
	nesting  nesting
	// plain: pages are not compressed, since their values are dense already, and are read one by one.
	plain bool
}

// path is where a leaf is in the schema.
func (c *column) path() []string {
	switch c.nesting {
	case listed:
		return []string{c.name, "list", "element"}
	case mapKeys:
		return []string{c.name, "key_value", "key"}
	case mapValues:
		return []string{c.name, "key_value", "value"}
	}
	return []string{c.name}
}

// pages are the values of one column of a row group.
type pages struct {
	entries int // values, NULLs, and empty lists
	nulls   int
	// repeated says of each entry of a list or map whether it continues the row before it; defined, whether there is a value: nil where all are.
	repeated, defined []uint8
	dictionary        []byte // PLAIN; nil: none
	dictionaryValues  int
	encoding          format.Encoding
	values            []byte
	min, max          []byte // PLAIN; nil: not known
}

// place is where the bytes of pages stand in the file, behind headers and levels.
type place struct {
	dictionary, dictionarySize int64
	values, valuesSize         int64
}

func newParquetFile(w io.Writer, z *zstd.Encoder, schema []column) (*parquetFile, error) {
	f := &parquetFile{w: w, z: z, schema: schema, written: map[string]int64{}}
	return f, f.write([]byte(parquetMagic))
}

func (f *parquetFile) write(b []byte) error {
	n, err := f.w.Write(b)
	f.offset += int64(n)
	return err
}

// add writes the next column of the current row group.
func (f *parquetFile) add(p *pages) (at place, err error) {
	col := &f.schema[len(f.chunks)]
	meta := format.ColumnMetaData{
		Type:         col.physical,
		Encoding:     thrift.Slice[format.Encoding]{p.encoding, format.RLE},
		PathInSchema: col.path(),
		Codec:        format.Zstd,
		NumValues:    int64(p.entries),
		Statistics:   format.Statistics{NullCount: int64(p.nulls), MinValue: p.min, MaxValue: p.max},
	}
	if col.plain {
		meta.Codec = format.Uncompressed
	}
	start := f.offset
	if p.dictionary != nil {
		meta.DictionaryPageOffset = start
		meta.Encoding = append(meta.Encoding, format.Plain)
		at.dictionary, err = f.addPage(&meta, p.dictionary, format.PageHeader{
			Type: format.DictionaryPage,
			DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{
				NumValues: int32(p.dictionaryValues), Encoding: format.Plain,
			}),
		})
		if err != nil {
			return place{}, err
		}
		at.dictionarySize = int64(len(p.dictionary))
	}
	data, err := f.withLevels(col, p)
	if err != nil {
		return place{}, err
	}
	meta.DataPageOffset = f.offset
	at.values, err = f.addPage(&meta, data, format.PageHeader{
		Type: format.DataPage,
		DataPageHeader: thrift.New(format.DataPageHeader{
			NumValues: int32(p.entries), Encoding: p.encoding,
			DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE,
		}),
	})
	at.values += int64(len(data) - len(p.values))
	at.valuesSize = int64(len(p.values))
	meta.TotalCompressedSize = f.offset - start
	f.written[col.name] += meta.TotalCompressedSize
	f.chunks = append(f.chunks, format.ColumnChunk{FileOffset: start, MetaData: meta})
	return at, err
}

// withLevels puts the levels before the values.
func (f *parquetFile) withLevels(col *column, p *pages) ([]byte, error) {
	if col.nesting == required {
		return p.values, nil
	}
	f.page = f.page[:0]
	if col.nesting != optional {
		if err := f.appendLevels(p.repeated, p.entries); err != nil {
			return nil, err
		}
	}
	if err := f.appendLevels(p.defined, p.entries); err != nil {
		return nil, err
	}
	f.page = append(f.page, p.values...)
	return f.page, nil
}

// appendLevels appends levels of 0 and 1; nil: all of them 1.
func (f *parquetFile) appendLevels(levels []uint8, n int) (err error) {
	if levels == nil {
		f.levels = append(binary.AppendUvarint(f.levels[:0], uint64(n)<<1), 1)
	} else if f.levels, err = (&rle.Encoding{BitWidth: 1}).EncodeLevels(f.levels, levels); err != nil {
		return err
	}
	f.page = binary.LittleEndian.AppendUint32(f.page, uint32(len(f.levels)))
	f.page = append(f.page, f.levels...)
	return nil
}

// addPage writes a page and returns where it stands behind its header.
func (f *parquetFile) addPage(meta *format.ColumnMetaData, data []byte, header format.PageHeader) (at int64, err error) {
	header.UncompressedPageSize = int32(len(data))
	stored := data
	if meta.Codec != format.Uncompressed {
		f.packed = f.z.EncodeAll(data, f.packed[:0])
		stored = f.packed
	}
	header.CompressedPageSize = int32(len(stored))
	head, err := thrift.Marshal(&f.protocol, &header)
	if err != nil {
		return 0, err
	}
	meta.TotalUncompressedSize += int64(len(head) + len(data))
	if err := f.write(head); err != nil {
		return 0, err
	}
	at = f.offset
	return at, f.write(stored)
}

// endRowGroup closes a row group whose columns were all added.
func (f *parquetFile) endRowGroup(rows int) {
	group := format.RowGroup{Columns: f.chunks, NumRows: int64(rows), Ordinal: int16(min(len(f.groups), 1<<15-1))}
	for i := range f.chunks {
		group.TotalByteSize += f.chunks[i].MetaData.TotalUncompressedSize
		group.TotalCompressedSize += f.chunks[i].MetaData.TotalCompressedSize
	}
	group.FileOffset = f.chunks[0].FileOffset
	f.groups = append(f.groups, group)
	f.rows += int64(rows)
	f.chunks = make([]format.ColumnChunk, 0, len(f.schema))
}

// close writes the footer.
func (f *parquetFile) close(metadata []format.KeyValue) error {
	footer := format.FileMetaData{
		Version:          2,
		Schema:           f.schemaElements(),
		NumRows:          f.rows,
		RowGroups:        f.groups,
		KeyValueMetadata: metadata,
		CreatedBy:        "lakerunner",
		ColumnOrders:     make(thrift.Slice[format.ColumnOrder], len(f.schema)),
	}
	for i := range footer.ColumnOrders {
		footer.ColumnOrders[i].Value = &format.TypeDefinedOrder{}
	}
	b, err := thrift.Marshal(&f.protocol, &footer)
	if err != nil {
		return err
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(b)))
	return f.write(append(b, parquetMagic...))
}

func (f *parquetFile) schemaElements() []format.SchemaElement {
	elements := make([]format.SchemaElement, 1, 3*len(f.schema))
	fields := int32(0)
	for i := range f.schema {
		c := &f.schema[i]
		if c.nesting != mapValues {
			fields++
		}
		elements = append(elements, groupElements(c)...)
		elements = append(elements, leafElement(c))
	}
	elements[0] = format.SchemaElement{Name: "series", NumChildren: thrift.New(fields)}
	return elements
}

// groupElements are the two groups around the elements of a list or map.
func groupElements(c *column) []format.SchemaElement {
	group := func(name string, repetition format.FieldRepetitionType, children int32) format.SchemaElement {
		return format.SchemaElement{Name: name, RepetitionType: thrift.New(repetition), NumChildren: thrift.New(children)}
	}
	switch c.nesting {
	case listed:
		outer := group(c.name, format.Required, 1)
		outer.ConvertedType, outer.LogicalType = thrift.New(deprecated.List), format.LogicalType{Value: &format.ListType{}}
		return []format.SchemaElement{outer, group("list", format.Repeated, 1)}
	case mapKeys:
		outer := group(c.name, format.Required, 1)
		outer.ConvertedType, outer.LogicalType = thrift.New(deprecated.Map), format.LogicalType{Value: &format.MapType{}}
		return []format.SchemaElement{outer, group("key_value", format.Repeated, 2)}
	}
	return nil
}

func leafElement(c *column) format.SchemaElement {
	path := c.path()
	e := format.SchemaElement{Name: path[len(path)-1], Type: thrift.New(c.physical), RepetitionType: thrift.New(format.Required)}
	if c.nesting == optional {
		e.RepetitionType = thrift.New(format.Optional)
	}
	if c.text {
		e.ConvertedType, e.LogicalType = thrift.New(deprecated.UTF8), format.LogicalType{Value: &format.StringType{}}
	}
	if c.unsigned {
		e.ConvertedType, e.LogicalType = thrift.New(deprecated.Uint64), format.LogicalType{Value: &format.IntType{BitWidth: 64}}
	}
	return e
}

// appendIndexes appends the data page of a column with a dictionary of so many values. The width is never 0, which readers differ about.
func appendIndexes(dst, scratch []byte, indexes []int32, distinct int) (page, kept []byte, err error) {
	width := max(1, bits.Len(uint(max(distinct, 1)-1)))
	scratch, err = (&rle.Encoding{BitWidth: width}).EncodeInt32(scratch, indexes)
	return append(append(dst, byte(width)), scratch...), scratch, err
}

func appendText(dst []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, uint32(len(s))), s...)
}
