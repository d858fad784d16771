// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"encoding/binary"
	"errors"

	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

var errDamaged = errors.New("damaged segment")

// encoder appends varints, strings with their length before them, and vectors with their number before them.
type encoder struct {
	b       []byte
	vectors chunk.Encoder
}

func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)   { e.b = binary.AppendVarint(e.b, v) }

func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) ints(values []int64) {
	e.uint(uint64(len(values)))
	e.b = e.vectors.Ints(e.b, values)
}

func (e *encoder) floats(values []float64) {
	e.uint(uint64(len(values)))
	e.b = e.vectors.Floats(e.b, values)
}

// table writes strings: their lengths, then all of their bytes.
func (e *encoder) table(values []string) {
	lengths := make([]int64, len(values))
	for i, v := range values {
		lengths[i] = int64(len(v))
	}
	e.ints(lengths)
	for _, v := range values {
		e.b = append(e.b, v...)
	}
}

// decoder reads what encoder wrote. After an error it reads zeros.
type decoder struct {
	b       []byte
	err     error
	numbers int // floats so far
}

func (d *decoder) fail() {
	d.b = nil
	if d.err == nil {
		d.err = errDamaged
	}
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes(int(min(d.uint(), maxBlob)))) }

// maxVector bounds vectors whose bytes do not tell how long they are.
const maxVector = 1 << 24

// ints reads at most so many integers.
func (d *decoder) ints(limit int) []int64 {
	n := d.below(limit + 1)
	if d.err != nil {
		return nil
	}
	values, rest, err := chunk.Ints(nil, d.b, int(n))
	if err != nil {
		d.fail()
		return nil
	}
	d.b = rest
	return values
}

// maxFloats bounds floats that have their number before them: bounds.
const maxFloats = 1 << 16

func (d *decoder) floats() []float64 {
	n := d.below(maxFloats + 1)
	if d.err != nil {
		return nil
	}
	values, rest, err := chunk.Floats(nil, d.b, int(n))
	if err != nil {
		d.fail()
		return nil
	}
	d.b = rest
	if d.numbers += len(values); d.numbers > maxVector {
		d.fail()
	}
	return values
}

// table is many strings in one.
type table struct {
	text string
	ends []uint32
}

func (d *decoder) table() table {
	var t table
	end := int64(0)
	for _, n := range d.ints(len(d.b)) { // one of them at most is empty
		if n < 0 || end+n > int64(len(d.b)) || end+n > 1<<32-1 {
			d.fail()
			return table{}
		}
		end += n
		t.ends = append(t.ends, uint32(end))
	}
	t.text = string(d.bytes(int(end)))
	return t
}

func (t *table) len() int { return len(t.ends) }

func (t *table) at(i int) string {
	start := uint32(0)
	if i > 0 {
		start = t.ends[i-1]
	}
	return t.text[start:t.ends[i]]
}
