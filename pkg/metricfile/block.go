// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"slices"

	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

// maxBlockRows bounds the rows of one metric name whose catalogue entries are encoded together.
const maxBlockRows = 256

// block is what the catalogue has of neighbouring rows of one metric name, by column. An element is a row's.
type block struct {
	hash, flags, bounds, family []int64
	rows, counted, exemplars    []int64
	first, span                 []int64
	refs                        [maxShared][]int64 // places in dictionaries
	sizes                       [maxOwn][]int64    // bytes of own columns; 0: none
	shapes                      []int64            // which label names
	values                      []int64            // of labels, those of one row together
	valuesAt                    []uint32           // where a row's begin
	// offsets are where a row's value of an own column begins, from the block's first. Only blocks that were read have them.
	offsets [maxOwn][]int64
	memory  []int64
}

const (
	flagKind  = 0x03
	flagDelta = 0x04
	flagNoSum = 0x08
	flagMask  = flagKind | flagDelta | flagNoSum
)

func (s *Series) flags() int64 {
	f := int64(s.Kind)
	if s.Delta {
		f |= flagDelta
	}
	if s.NoSum {
		f |= flagNoSum
	}
	return f
}

func (b *block) len() int { return len(b.hash) }

// columns are the columns that are vectors of one integer a row, in their order in the file.
func (b *block) columns(l *layout) []*[]int64 {
	all := []*[]int64{&b.hash, &b.flags, &b.bounds, &b.family, &b.rows, &b.counted, &b.exemplars, &b.first, &b.span}
	for i := range l.shared {
		all = append(all, &b.refs[i])
	}
	for i := range l.own {
		all = append(all, &b.sizes[i])
	}
	return append(all, &b.shapes)
}

func (b *block) reset(l *layout) {
	for _, c := range b.columns(l) {
		*c = (*c)[:0]
	}
	b.values, b.valuesAt = b.values[:0], b.valuesAt[:0]
}

// append encodes the block.
func (b *block) append(dst []byte, e *chunk.Encoder, l *layout, shapes [][]uint32) []byte {
	for _, c := range b.columns(l) {
		dst = e.Ints(dst, *c)
	}
	var vector []int64
	for _, g := range b.groups() {
		for k := range shapes[g.shape] {
			vector = vector[:0]
			for _, row := range g.rows {
				vector = append(vector, b.values[int(b.valuesAt[row])+k])
			}
			dst = e.Ints(dst, vector)
		}
	}
	return dst
}

// shapeGroup are the rows of a block that have one shape.
type shapeGroup struct {
	shape int64
	rows  []int
}

// groups returns the shapes of a block in the order of their first rows.
func (b *block) groups() []shapeGroup {
	var groups []shapeGroup
	at := 0
	for row, shape := range b.shapes {
		if at >= len(groups) || groups[at].shape != shape {
			at = slices.IndexFunc(groups, func(g shapeGroup) bool { return g.shape == shape })
		}
		if at < 0 {
			at = len(groups)
			groups = append(groups, shapeGroup{shape: shape, rows: make([]int, 0, len(b.shapes)-row)})
		}
		groups[at].rows = append(groups[at].rows, row)
	}
	return groups
}

// take returns an empty slice of the block's memory that has room for n numbers.
func (b *block) take(n int) []int64 {
	at := len(b.memory)
	b.memory = b.memory[:at+n]
	return b.memory[at : at : at+n]
}

// decode is the inverse of append, and knows offsets. The block's memory is used again.
func (b *block) decode(encoded []byte, rows int, l *layout, shapes [][]uint32) (err error) {
	columns := b.columns(l)
	b.memory = slices.Grow(b.memory[:0], rows*(len(columns)+len(l.own)+1))
	for _, c := range columns {
		if *c, encoded, err = chunk.Ints(b.take(rows), encoded, rows); err != nil {
			return errDamaged
		}
	}
	values := 0
	b.valuesAt = b.valuesAt[:0]
	for _, shape := range b.shapes {
		if shape < 0 || shape >= int64(len(shapes)) {
			return errDamaged
		}
		b.valuesAt = append(b.valuesAt, uint32(values))
		values += len(shapes[shape])
	}
	if values > maxBlockValues {
		return errDamaged
	}
	b.values = grow(b.values, values)
	vector := b.take(rows)
	for _, g := range b.groups() {
		for k := range shapes[g.shape] {
			if vector, encoded, err = chunk.Ints(vector[:0], encoded, len(g.rows)); err != nil {
				return errDamaged
			}
			for i, v := range vector {
				b.values[int(b.valuesAt[g.rows[i]])+k] = v
			}
		}
	}
	if len(encoded) != 0 {
		return errDamaged
	}
	return b.addOffsets(l)
}

// maxBlockValues bounds the label values of a block that is read.
const maxBlockValues = 1 << 24

// addOffsets sums up sizes. Each value has its length before it in the Parquet file.
func (b *block) addOffsets(l *layout) error {
	for c := range l.own {
		offset := int64(0)
		b.offsets[c] = b.take(len(b.sizes[c]))
		for _, size := range b.sizes[c] {
			if size < 0 || size > maxBlob {
				return errDamaged
			}
			b.offsets[c] = append(b.offsets[c], offset)
			if size > 0 {
				offset += lengthBytes + size
			}
		}
	}
	return nil
}

const (
	// maxBlob bounds one row's bytes of one column.
	maxBlob = 1 << 30
	// lengthBytes stand before each value in a page.
	lengthBytes = 4
)

// ownBytes is how much of a page the block takes.
func (b *block) ownBytes(column int) int64 {
	total := int64(0)
	for _, size := range b.sizes[column] {
		if size > 0 {
			total += lengthBytes + size
		}
	}
	return total
}

func (b *block) labels(row int) []int64 {
	end := len(b.values)
	if row+1 < len(b.valuesAt) {
		end = int(b.valuesAt[row+1])
	}
	return b.values[b.valuesAt[row]:end]
}

// grow is slices.Grow to a length.
func grow[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }
