// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Vector holds the values of one column of one row group. Read fills it anew and reuses its memory: strings that it gave are then something else. It is
// for one goroutine.
type Vector struct {
	rows int
	// at is for each row the place of its value, -1 where it has none; nil: the row's own number.
	at       []int32
	places   []int32 // what at is made in
	numbers  []int64
	narrow   []int32
	isText   bool
	offsets  []int32 // of texts in data, and where the last one ends
	data     []byte
	levels   []byte
	indexes  []int32
	packed   []byte
	page     []byte
	head     []byte
	z        *zstd.Decoder
	protocol thrift.CompactProtocol
}

// NewVector returns an empty one.
func NewVector() (*Vector, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage))
	if err != nil {
		return nil, err
	}
	return &Vector{z: z}, nil
}

// maxPage is the most bytes of one page: a row group has 2 MiB of text, but a single line may be longer.
const maxPage = 1 << 30

// IsNull reports whether a row has no value.
func (v *Vector) IsNull(row int) bool { return v.at != nil && v.at[row] < 0 }

// Number is a row's integer, the bits of its double, or 0 or 1 for its truth value; 0 if it has none.
func (v *Vector) Number(row int) int64 {
	if v.at == nil {
		return v.numbers[row]
	}
	if i := v.at[row]; i >= 0 {
		return v.numbers[i]
	}
	return 0
}

// Text is a row's text or bytes, until the next Read; empty if it has none.
func (v *Vector) Text(row int) string {
	if v.at != nil {
		if row = int(v.at[row]); row < 0 {
			return ""
		}
	}
	return textOf(v.data[v.offsets[row]:v.offsets[row+1]])
}

// textOf is b as a text, for as long as b does not change.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Containing appends the rows whose text contains a needle, which is not empty, in ascending order.
func (v *Vector) Containing(needle string, rows []int32) []int32 {
	values := v.valuesContaining(needle)
	if v.at == nil {
		return append(rows, values...)
	}
	found := make([]bool, max(0, len(v.offsets)-1))
	for _, i := range values {
		found[i] = true
	}
	for row, i := range v.at {
		if i >= 0 && found[i] {
			rows = append(rows, int32(row))
		}
	}
	return rows
}

// valuesContaining searches all values at once: what it finds across the border of two is none.
func (v *Vector) valuesContaining(needle string) []int32 {
	text := unsafe.String(unsafe.SliceData(v.data), len(v.data))
	var found []int32
	value := 0
	for from := 0; ; {
		i := strings.Index(text[from:], needle)
		if i < 0 {
			return found
		}
		i += from
		value += sort.Search(len(v.offsets)-1-value, func(n int) bool { return int(v.offsets[value+n+1]) > i })
		if i+len(needle) > int(v.offsets[value+1]) {
			from = i + 1
			continue
		}
		found = append(found, int32(value))
		from = int(v.offsets[value+1])
	}
}

// Read reads a column of a row group. That a column is not there is not an error: no row then has a value.
func (v *Vector) Read(r io.ReaderAt, c *Chunks, group int, column string) error {
	v.rows, v.at, v.isText = c.Rows(group), nil, false
	v.numbers, v.offsets, v.data, v.indexes = v.numbers[:0], append(v.offsets[:0], 0), v.data[:0], v.indexes[:0]
	i, ok := c.columns[column]
	if !ok {
		v.levels = append(v.levels[:0], make([]byte, v.rows)...)
		v.number(nil)
		return nil
	}
	if err := v.readSafely(r, c.shapes[i], c.places[group*len(c.shapes)+i]); err != nil {
		return fmt.Errorf("read column %s of segment: %w", column, err)
	}
	return nil
}

// readSafely makes an error of the panics that damaged pages cause in parquet-go's decoders.
func (v *Vector) readSafely(r io.ReaderAt, s shape, p place) (err error) {
	defer damagedPanic(&err)
	return v.read(r, s, p)
}

func damagedPanic(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errDamaged, p)
	}
}

func (v *Vector) read(r io.ReaderAt, s shape, p place) error {
	begin := p.data
	if p.dictionary > 0 {
		begin = p.dictionary
	}
	v.packed = sized(v.packed, int(p.end-begin))
	if _, err := r.ReadAt(v.packed, begin); err != nil {
		return err
	}
	if p.dictionary > 0 {
		header, err := v.unpack(&v.head, v.packed[:p.data-begin])
		if err != nil {
			return err
		}
		if !header.DictionaryPageHeader.Valid {
			return errDamaged
		}
		if err := v.plain(s, v.head, int(header.DictionaryPageHeader.V.NumValues)); err != nil {
			return err
		}
	}
	header, err := v.unpack(&v.page, v.packed[p.data-begin:])
	if err != nil {
		return err
	}
	if !header.DataPageHeader.Valid || int(header.DataPageHeader.V.NumValues) != v.rows {
		return errDamaged
	}
	values, n, err := v.present(s, v.page)
	if err != nil {
		return err
	}
	if err := v.decode(s, header.DataPageHeader.V.Encoding, values, n); err != nil {
		return err
	}
	return v.check(s)
}

// unpack reads a page: its header and, into a buffer, its content.
func (v *Vector) unpack(into *[]byte, b []byte) (*format.PageHeader, error) {
	header := &format.PageHeader{}
	if err := thrift.NewDecoder(v.protocol.NewReaderFromBytes(b)).Decode(header); err != nil {
		return nil, err
	}
	packed, size := int(header.CompressedPageSize), int(header.UncompressedPageSize)
	if packed < 0 || packed > len(b) || size < 0 || size > maxPage {
		return nil, errDamaged
	}
	// The values are read with some bytes to spare behind them.
	*into = sized(*into, size+pagePadding)
	page, err := v.z.DecodeAll(b[len(b)-packed:], (*into)[:0])
	if err != nil || len(page) != size {
		return nil, errDamaged
	}
	*into = page
	return header, nil
}

const pagePadding = 64

// present reads which rows have a value, and returns what follows and how many there are.
func (v *Vector) present(s shape, page []byte) ([]byte, int, error) {
	if !s.optional {
		return page, v.rows, nil
	}
	if len(page) < 4 {
		return nil, 0, errDamaged
	}
	n := binary.LittleEndian.Uint32(page)
	if uint64(n) > uint64(len(page)-4) {
		return nil, 0, errDamaged
	}
	var err error
	if v.levels, err = (&rle.Encoding{BitWidth: 1}).DecodeLevels(v.levels, page[4:][:n]); err != nil || len(v.levels) < v.rows {
		return nil, 0, errDamaged
	}
	v.levels = v.levels[:v.rows]
	values := 0
	for _, level := range v.levels {
		values += int(level)
	}
	return page[4+n:], values, nil
}

func (v *Vector) decode(s shape, encoding format.Encoding, b []byte, n int) (err error) {
	indexed := encoding == format.RLEDictionary
	switch {
	case n == 0:
	case indexed:
		if len(b) == 0 || b[0] == 0 || b[0] > 31 {
			return errDamaged
		}
		if v.indexes, err = (&rle.Encoding{BitWidth: int(b[0])}).DecodeInt32(v.indexes, b[1:]); err != nil || len(v.indexes) < n {
			return errDamaged
		}
		v.indexes = v.indexes[:n]
	case encoding == format.Plain:
		err = v.plain(s, b, n)
	case encoding == format.DeltaBinaryPacked:
		err = v.deltas(s, b, n)
	case encoding == format.DeltaLengthByteArray:
		err = v.lengths(b, n)
	default:
		err = errDamaged
	}
	if err != nil {
		return err
	}
	if s.optional && n < v.rows || indexed {
		if !s.optional || n == v.rows {
			v.levels = nil
		}
		v.number(v.indexes)
	}
	return nil
}

// number fills at: with the indexes, or the values' own numbers if there are none, for rows that have a value.
func (v *Vector) number(indexes []int32) {
	if v.levels == nil {
		v.at = indexes
		return
	}
	v.places = slices.Grow(v.places[:0], v.rows)[:v.rows]
	v.at = v.places
	next := int32(0)
	for row, level := range v.levels {
		switch {
		case level == 0:
			v.at[row] = -1
			continue
		case len(indexes) > 0:
			v.at[row] = indexes[next]
		default:
			v.at[row] = next
		}
		next++
	}
}

// check makes sure that no row's value is out of place.
func (v *Vector) check(s shape) error {
	count := len(v.numbers)
	if v.isText = s.physical == format.ByteArray || s.physical == format.FixedLenByteArray; v.isText {
		count = len(v.offsets) - 1
	}
	if v.at == nil && count < v.rows {
		return errDamaged
	}
	for _, i := range v.at {
		if int(i) >= count || i < -1 {
			return errDamaged
		}
	}
	return nil
}

func (v *Vector) plain(s shape, b []byte, n int) error {
	switch s.physical {
	case format.Int32, format.Int64, format.Double:
		size := 8
		if s.physical == format.Int32 {
			size = 4
		}
		if n < 0 || len(b) < n*size {
			return errDamaged
		}
		for i := range n {
			v.numbers = append(v.numbers, plainInteger(b[i*size:][:size]))
		}
	case format.Boolean:
		if n < 0 || len(b)*8 < n {
			return errDamaged
		}
		for i := range n {
			v.numbers = append(v.numbers, int64(b[i/8]>>(i%8)&1))
		}
	case format.FixedLenByteArray:
		if s.length <= 0 || n < 0 || len(b) < n*int(s.length) {
			return errDamaged
		}
		v.data = b
		for i := range n {
			v.offsets = append(v.offsets, int32(i+1)*s.length)
		}
	case format.ByteArray:
		return v.plainTexts(b, n)
	default:
		return errDamaged
	}
	return nil
}

// plainInteger reads 4 or 8 bytes.
func plainInteger(b []byte) int64 {
	if len(b) == 4 {
		return int64(int32(binary.LittleEndian.Uint32(b)))
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// plainTexts takes the lengths out from between the texts.
func (v *Vector) plainTexts(b []byte, n int) error {
	v.data = b[:0]
	for range n {
		if len(b) < 4 {
			return errDamaged
		}
		size := binary.LittleEndian.Uint32(b)
		if uint64(size) > uint64(len(b)-4) {
			return errDamaged
		}
		v.data = append(v.data, b[4:][:size]...)
		v.offsets = append(v.offsets, int32(len(v.data)))
		b = b[4+size:]
	}
	return nil
}

func (v *Vector) deltas(s shape, b []byte, n int) (err error) {
	if s.physical == format.Int64 {
		v.numbers, err = new(delta.BinaryPackedEncoding).DecodeInt64(v.numbers, b)
		if err == nil && len(v.numbers) != n {
			return errDamaged
		}
		return err
	}
	v.narrow, err = new(delta.BinaryPackedEncoding).DecodeInt32(v.narrow, b)
	if err != nil || len(v.narrow) != n {
		return errDamaged
	}
	for _, i := range v.narrow {
		v.numbers = append(v.numbers, int64(i))
	}
	return nil
}

// lengths reads texts whose lengths stand before all of them.
func (v *Vector) lengths(b []byte, n int) (err error) {
	v.narrow, err = new(delta.BinaryPackedEncoding).DecodeInt32(v.narrow, b)
	if err != nil || len(v.narrow) != n {
		return errDamaged
	}
	total := 0
	for _, length := range v.narrow {
		if total += int(length); length < 0 || total > len(b) {
			return errDamaged
		}
		v.offsets = append(v.offsets, int32(total))
	}
	v.data = b[len(b)-total:]
	return nil
}

func sized(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n, n+n/4)
	}
	return b[:n]
}
