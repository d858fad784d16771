// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"slices"

	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

// maxBlockRows bounds the rows of one metric name whose catalogue entries are encoded together.
const maxBlockRows = 1024

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
	offsets                     [maxOwn][]int64    // of own columns, from the block's first; only where it was read
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
	b.eachShape(func(shape int64, rows []int) {
		for k := range shapes[shape] {
			vector = vector[:0]
			for _, row := range rows {
				vector = append(vector, b.values[int(b.valuesAt[row])+k])
			}
			dst = e.Ints(dst, vector)
		}
	})
	return dst
}

// eachShape calls f with each shape, in the order of their first rows, and its rows.
func (b *block) eachShape(f func(shape int64, rows []int)) {
	type group struct {
		shape int64
		rows  []int
	}
	var groups []group
	for row, shape := range b.shapes {
		at := slices.IndexFunc(groups, func(g group) bool { return g.shape == shape })
		if at < 0 {
			at = len(groups)
			groups = append(groups, group{shape: shape, rows: make([]int, 0, len(b.shapes)-row)})
		}
		groups[at].rows = append(groups[at].rows, row)
	}
	for _, g := range groups {
		f(g.shape, g.rows)
	}
}

// decodeBlock is the inverse of append, and knows offsets.
func decodeBlock(b []byte, rows int, l *layout, shapes [][]uint32) (*block, error) {
	d := &block{}
	var err error
	for _, c := range d.columns(l) {
		if *c, b, err = chunk.Ints(nil, b, rows); err != nil {
			return nil, errDamaged
		}
	}
	values := 0
	for _, shape := range d.shapes {
		if shape < 0 || shape >= int64(len(shapes)) {
			return nil, errDamaged
		}
		d.valuesAt = append(d.valuesAt, uint32(values))
		values += len(shapes[shape])
	}
	if values > maxBlockValues {
		return nil, errDamaged
	}
	d.values = make([]int64, values)
	var vector []int64
	d.eachShape(func(shape int64, rows []int) {
		for k := range shapes[shape] {
			if err != nil {
				return
			}
			vector, b, err = chunk.Ints(vector[:0], b, len(rows))
			for i, v := range vector {
				d.values[int(d.valuesAt[rows[i]])+k] = v
			}
		}
	})
	if err != nil || len(b) != 0 {
		return nil, errDamaged
	}
	return d, d.addOffsets(l)
}

// maxBlockValues bounds the label values of a block that is read.
const maxBlockValues = 1 << 24

// addOffsets sums up sizes. Each value has its length before it in the Parquet file.
func (b *block) addOffsets(l *layout) error {
	for c := range l.own {
		offset := int64(0)
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
