// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/binary"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/plain"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// parquetFile writes a Parquet file column by column. Each column of a row group is one page (and one for its dictionary), so values go
// from the gathered slices straight into compressed pages.
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
	scratch  []byte
	protocol thrift.CompactProtocol
}

// column is one column of the schema.
type column struct {
	name     string
	physical format.Type
	length   int32 // of a fixed-length byte array
	text     bool  // UTF-8
	optional bool
}

const parquetMagic = "PAR1"

func newParquetFile(w io.Writer, z *zstd.Encoder, schema []column) (*parquetFile, error) {
	f := &parquetFile{w: w, z: z, schema: schema}
	return f, f.write([]byte(parquetMagic))
}

func (f *parquetFile) write(b []byte) error {
	n, err := f.w.Write(b)
	f.offset += int64(n)
	return err
}

// chunk is one column of one row group, about to be written.
type chunk struct {
	rows int
	// present says for each row whether it has a value; nil: all have.
	present []uint8
	values  int
	// dictionary, if there is one, in PLAIN encoding; page then holds the indexes.
	dictionary       []byte
	dictionaryValues int
	page             []byte // encoded values
	encoding         format.Encoding
	min, max         []byte // PLAIN; nil: not known
}

// add writes the next column of the current row group.
func (f *parquetFile) add(c *chunk) error {
	col := &f.schema[len(f.chunks)]
	meta := format.ColumnMetaData{
		Type:         col.physical,
		Encoding:     thrift.Slice[format.Encoding]{c.encoding},
		PathInSchema: thrift.Slice[string]{col.name},
		Codec:        format.Zstd,
		NumValues:    int64(c.rows),
		Statistics:   format.Statistics{NullCount: int64(c.rows - c.values), MinValue: c.min, MaxValue: c.max},
	}
	start := f.offset
	if c.dictionary != nil {
		meta.DictionaryPageOffset = start
		meta.Encoding = append(meta.Encoding, format.Plain)
		err := f.addPage(&meta, c.dictionary, format.PageHeader{
			Type: format.DictionaryPage,
			DictionaryPageHeader: thrift.New(format.DictionaryPageHeader{
				NumValues: int32(c.dictionaryValues), Encoding: format.Plain,
			}),
		})
		if err != nil {
			return err
		}
	}
	data := c.page
	if col.optional {
		meta.Encoding = append(meta.Encoding, format.RLE)
		var err error
		if data, err = f.withLevels(c); err != nil {
			return err
		}
	}
	meta.DataPageOffset = f.offset
	err := f.addPage(&meta, data, format.PageHeader{
		Type: format.DataPage,
		DataPageHeader: thrift.New(format.DataPageHeader{
			NumValues: int32(c.rows), Encoding: c.encoding,
			DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE,
		}),
	})
	if err != nil {
		return err
	}
	meta.TotalCompressedSize = f.offset - start
	f.chunks = append(f.chunks, format.ColumnChunk{FileOffset: start, MetaData: meta})
	return nil
}

// withLevels puts the definition levels before the values.
func (f *parquetFile) withLevels(c *chunk) ([]byte, error) {
	var err error
	if c.present == nil {
		f.scratch = appendRun(f.scratch[:0], c.rows)
	} else if f.scratch, err = (&rle.Encoding{BitWidth: 1}).EncodeLevels(f.scratch, c.present); err != nil {
		return nil, err
	}
	f.page = binary.LittleEndian.AppendUint32(f.page[:0], uint32(len(f.scratch)))
	f.page = append(f.page, f.scratch...)
	f.page = append(f.page, c.page...)
	return f.page, nil
}

// appendRun appends n levels of 1, as one run.
func appendRun(dst []byte, n int) []byte {
	return append(binary.AppendUvarint(dst, uint64(n)<<1), 1)
}

func (f *parquetFile) addPage(meta *format.ColumnMetaData, data []byte, header format.PageHeader) error {
	f.packed = f.z.EncodeAll(data, f.packed[:0])
	header.UncompressedPageSize = int32(len(data))
	header.CompressedPageSize = int32(len(f.packed))
	head, err := thrift.Marshal(&f.protocol, &header)
	if err != nil {
		return err
	}
	meta.TotalUncompressedSize += int64(len(head) + len(data))
	if err := f.write(head); err != nil {
		return err
	}
	return f.write(f.packed)
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
	elements := []format.SchemaElement{{Name: "log", NumChildren: thrift.New(int32(len(f.schema)))}}
	for i := range f.schema {
		c := &f.schema[i]
		element := format.SchemaElement{Name: c.name, Type: thrift.New(c.physical), RepetitionType: thrift.New(format.Required)}
		if c.optional {
			element.RepetitionType = thrift.New(format.Optional)
		}
		if c.length > 0 {
			element.TypeLength = thrift.New(c.length)
		}
		if c.text {
			element.ConvertedType = thrift.New(deprecated.UTF8)
			element.LogicalType = format.LogicalType{Value: &format.StringType{}}
		}
		elements = append(elements, element)
	}
	return elements
}

// maxDictionary is the most distinct numbers that a column chunk's dictionary is made for.
const maxDictionary = 2048

// numbers encodes columns of numbers, and keeps its buffers from one to the next.
type numbers struct {
	slots   [4 * maxDictionary]int32 // 1 + index into distinct; open addressing
	used    []int32                  // occupied slots
	values  []int64
	indexes []int32
	narrow  []int32
	page    []byte
	packed  []byte
	head    []byte
}

// encode makes a chunk of numbers: a dictionary if they are few and repeat, else deltas. wide: INT64, else INT32.
func (n *numbers) encode(c *chunk, values []int64, wide bool) error {
	c.values = len(values)
	low, high := bounds(values)
	if len(values) > 0 {
		c.min, c.max = n.plain(nil, []int64{low}, wide), n.plain(nil, []int64{high}, wide)
	}
	if len(values) > 0 && n.index(values) {
		return n.encodeDictionary(c, wide)
	}
	return n.encodeDelta(c, values, wide)
}

// encodeDoubles makes a chunk of doubles, given by their bits. Their order is not that of the bits, so there are no statistics.
func (n *numbers) encodeDoubles(c *chunk, values []int64) error {
	c.values = len(values)
	if len(values) > 0 && n.index(values) {
		return n.encodeDictionary(c, true)
	}
	n.page = n.plain(n.page[:0], values, true)
	c.encoding, c.page = format.Plain, n.page
	return nil
}

func (n *numbers) encodeDictionary(c *chunk, wide bool) error {
	n.head = n.plain(n.head[:0], n.values, wide)
	c.dictionary, c.dictionaryValues = n.head, len(n.values)
	return n.encodeIndexes(c)
}

// encodeIndexes makes the data page of a dictionary with len(n.values) values. The width is never 0, which readers differ about.
func (n *numbers) encodeIndexes(c *chunk) (err error) {
	width := max(1, bits.Len(uint(len(n.values)-1)))
	n.packed, err = (&rle.Encoding{BitWidth: width}).EncodeInt32(n.packed, n.indexes)
	n.page = append(append(n.page[:0], byte(width)), n.packed...)
	c.encoding, c.page = format.RLEDictionary, n.page
	return err
}

func (n *numbers) encodeDelta(c *chunk, values []int64, wide bool) (err error) {
	c.encoding = format.DeltaBinaryPacked
	if wide {
		n.page, err = new(delta.BinaryPackedEncoding).EncodeInt64(n.page, values)
	} else {
		n.narrow = n.narrow[:0]
		for _, v := range values {
			n.narrow = append(n.narrow, int32(v))
		}
		n.page, err = new(delta.BinaryPackedEncoding).EncodeInt32(n.page, n.narrow)
	}
	c.page = n.page
	return err
}

// index numbers the distinct values, and reports false when they are too many for a dictionary.
func (n *numbers) index(values []int64) bool {
	for _, slot := range n.used {
		n.slots[slot] = 0
	}
	n.used, n.values, n.indexes = n.used[:0], n.values[:0], n.indexes[:0]
	limit := min(maxDictionary, len(values)/2+1)
	for i, v := range values {
		if i > 0 && v == values[i-1] {
			n.indexes = append(n.indexes, n.indexes[i-1])
			continue
		}
		slot := n.find(v)
		if n.slots[slot] == 0 {
			if len(n.values) == limit {
				return false
			}
			n.values = append(n.values, v)
			n.slots[slot] = int32(len(n.values))
			n.used = append(n.used, int32(slot))
		}
		n.indexes = append(n.indexes, n.slots[slot]-1)
	}
	return true
}

func (n *numbers) find(v int64) int {
	hi, lo := bits.Mul64(uint64(v)^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	slot := int(hi^lo) & (len(n.slots) - 1)
	for n.slots[slot] != 0 && n.values[n.slots[slot]-1] != v {
		slot = (slot + 1) & (len(n.slots) - 1)
	}
	return slot
}

func (n *numbers) plain(dst []byte, values []int64, wide bool) []byte {
	for _, v := range values {
		if wide {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(v))
		} else {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
		}
	}
	return dst
}

func bounds(values []int64) (low, high int64) {
	if len(values) == 0 {
		return 0, 0
	}
	low, high = values[0], values[0]
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	return low, high
}

// maxStatistic is the longest string that is worth a place in a row group's statistics.
const maxStatistic = 64

// texts encodes columns of strings, and keeps its buffers from one to the next.
type texts struct {
	numbers numbers
	seen    map[string]int64
	ids     []int64
	lengths []int32
	head    []byte
	page    []byte
}

// encode makes a chunk of strings: a dictionary if few of them are distinct, else lengths and bytes.
func (s *texts) encode(c *chunk, values []string) error {
	if s.fewDistinct(values) {
		return s.encodeNumbered(c, s.ids, func(id int64) string { return values[id] })
	}
	return s.encodeDeltaLength(c, values)
}

// fewDistinct numbers equal strings by the first row that has them, and gives up once they prove too many.
func (s *texts) fewDistinct(values []string) bool {
	clear(s.seen)
	s.ids = s.ids[:0]
	for i, v := range values {
		if i > 0 && v == values[i-1] {
			s.ids = append(s.ids, s.ids[i-1])
			continue
		}
		id, ok := s.seen[v]
		if !ok {
			if len(s.seen) > 32+i/8 || len(s.seen) == maxDictionary {
				return false
			}
			id = int64(i)
			s.seen[v] = id
		}
		s.ids = append(s.ids, id)
	}
	return len(values) > 0
}

// encodeNumbered makes a chunk of strings that have numbers already. It falls back to lengths and bytes when they are many.
func (s *texts) encodeNumbered(c *chunk, ids []int64, value func(int64) string) error {
	if len(ids) == 0 || !s.numbers.index(ids) {
		values := make([]string, len(ids))
		for i, id := range ids {
			values[i] = value(id)
		}
		return s.encodeDeltaLength(c, values)
	}
	c.values = len(ids)
	s.head = s.head[:0]
	low, high := value(s.numbers.values[0]), ""
	for _, id := range s.numbers.values {
		v := value(id)
		s.head = append(binary.LittleEndian.AppendUint32(s.head, uint32(len(v))), v...)
		low, high = min(low, v), max(high, v)
	}
	c.dictionary, c.dictionaryValues = s.head, len(s.numbers.values)
	if len(low) <= maxStatistic && len(high) <= maxStatistic {
		c.min, c.max = []byte(low), []byte(high)
	}
	return s.numbers.encodeIndexes(c)
}

func (s *texts) encodeDeltaLength(c *chunk, values []string) (err error) {
	c.values = len(values)
	c.encoding = format.DeltaLengthByteArray
	s.lengths = s.lengths[:0]
	for _, v := range values {
		s.lengths = append(s.lengths, int32(len(v)))
	}
	if s.page, err = new(delta.BinaryPackedEncoding).EncodeInt32(s.page, s.lengths); err != nil {
		return err
	}
	for _, v := range values {
		s.page = append(s.page, v...)
	}
	c.page = s.page
	return nil
}

// booleans encodes values of 0 and 1.
func booleans(c *chunk, values []int64) (err error) {
	packed := make([]byte, (len(values)+7)/8)
	for i, v := range values {
		packed[i/8] |= byte(v&1) << (i % 8)
	}
	c.values = len(values)
	c.encoding = format.Plain
	c.page, err = new(plain.Encoding).EncodeBoolean(nil, packed)
	return err
}
