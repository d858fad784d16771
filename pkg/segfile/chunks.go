// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go/format"
)

// Chunks knows where each column of each row group stands in a segment's file, for reading some of them without DuckDB, whose statements cost more
// than the few pages that a pruned query needs. It is small, and immutable.
type Chunks struct {
	size    int64
	columns map[string]int
	shapes  []shape
	places  []place // of row group 0, then 1, ...
	rows    []int32
}

// shape is what all chunks of a column have in common.
type shape struct {
	physical format.Type
	length   int32
	optional bool
}

// place is where one chunk stands.
type place struct {
	dictionary int64 // 0: none
	data, end  int64
	unpacked   int64
	// low and high bound integers; low > high: not known.
	low, high int64
}

// ReadChunks reads a file's footer.
func ReadChunks(r io.ReaderAt, size int64) (*Chunks, error) {
	file, err := openParquet(r, size)
	if err != nil {
		return nil, err
	}
	return chunksOf(file.Metadata(), size)
}

func chunksOf(metadata *format.FileMetaData, size int64) (*Chunks, error) {
	c := &Chunks{size: size, columns: map[string]int{}}
	for i, element := range metadata.Schema[1:] {
		s := shape{optional: element.RepetitionType.Valid && element.RepetitionType.V == format.Optional}
		if element.Type.Valid {
			s.physical = element.Type.V
		}
		if element.TypeLength.Valid {
			s.length = element.TypeLength.V
		}
		c.columns[element.Name] = i
		c.shapes = append(c.shapes, s)
	}
	for _, group := range metadata.RowGroups {
		if len(group.Columns) != len(c.shapes) || group.NumRows > math.MaxInt32 {
			return nil, fmt.Errorf("a row group with %d columns and %d rows: %w", len(group.Columns), group.NumRows, errDamaged)
		}
		c.rows = append(c.rows, int32(group.NumRows))
		for i := range group.Columns {
			p, err := placeOf(&group.Columns[i].MetaData, size)
			if err != nil {
				return nil, err
			}
			c.places = append(c.places, p)
		}
	}
	return c, nil
}

func placeOf(m *format.ColumnMetaData, size int64) (place, error) {
	p := place{dictionary: m.DictionaryPageOffset, data: m.DataPageOffset, unpacked: m.TotalUncompressedSize, low: 1}
	begin := p.data
	if p.dictionary > 0 {
		begin = p.dictionary
	}
	p.end = begin + m.TotalCompressedSize
	if m.Codec != format.Zstd || begin <= 0 || p.data < begin || p.end <= p.data || p.end > size || p.end-begin > math.MaxInt32 {
		return place{}, fmt.Errorf("a column chunk that no segment has: %w", errDamaged)
	}
	low, high := m.Statistics.MinValue, m.Statistics.MaxValue
	if m.Type == format.Int32 && len(low) == 4 && len(high) == 4 {
		p.low, p.high = plainInteger(low), plainInteger(high)
	}
	return p, nil
}

// Groups is the number of row groups.
func (c *Chunks) Groups() int { return len(c.rows) }

// Rows is the number of rows of a row group.
func (c *Chunks) Rows(group int) int { return int(c.rows[group]) }

// Has reports whether there is a column of that name.
func (c *Chunks) Has(column string) bool { _, ok := c.columns[column]; return ok }

// Bounds are the least and the greatest value of a column of 32-bit integers in a row group, if they are known.
func (c *Chunks) Bounds(group int, column string) (low, high int64, ok bool) {
	i, there := c.columns[column]
	if !there {
		return 0, 0, false
	}
	p := c.places[group*len(c.shapes)+i]
	return p.low, p.high, p.low <= p.high
}
