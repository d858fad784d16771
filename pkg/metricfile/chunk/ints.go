// SPDX-License-Identifier: AGPL-3.0-only

package chunk

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

var errDamaged = errors.New("damaged vector")

// A vector of integers begins with its form. Then come, as far as the form says so: the divisor, the first value, the usual difference, blocks.
const (
	orderMask  = 0x03 // 0: differences from the first value, 1: from the one before, 2: differences of those
	hasDivisor = 0x04
	hasUsual   = 0x08 // what is taken off all differences; of order 2 the first of them
	hasBlocks  = 0x10 // else nothing is left of the differences
	formMask   = orderMask | hasDivisor | hasUsual | hasBlocks
)

// Encoder encodes vectors. It keeps memory from one to the next; its zero value is ready. It is not safe for concurrent use.
type Encoder struct {
	steps  []int64 // differences from the first value, divided
	ints   []int64 // what floats become
	places []int64 // of exceptions
	odd    []int64 // bits of exceptions
}

// Ints appends a vector of integers.
func (e *Encoder) Ints(dst []byte, values []int64) []byte {
	if len(values) == 0 {
		return dst
	}
	divisor := e.divide(values)
	if divisor == 0 { // all values are the same
		return binary.AppendVarint(append(dst, 0), values[0])
	}
	order, usual, size := e.choose()
	form := byte(order)
	if divisor > 1 {
		form |= hasDivisor
	}
	if usual != 0 {
		form |= hasUsual
	}
	if size > 0 {
		form |= hasBlocks
	}
	dst = append(dst, form)
	if divisor > 1 {
		dst = binary.AppendUvarint(dst, divisor)
	}
	dst = binary.AppendVarint(dst, values[0])
	if usual != 0 {
		dst = binary.AppendVarint(dst, usual)
	}
	if size == 0 {
		return dst
	}
	return e.appendBlocks(slices.Grow(dst, size), order, usual)
}

// divide sets steps and returns the greatest divisor of all of them; 0: they are zero. Differences are taken modulo 2^64, so none overflows.
func (e *Encoder) divide(values []int64) uint64 {
	e.steps = slices.Grow(e.steps[:0], len(values))[:len(values)]
	first, divisor := values[0], uint64(0)
	for i, v := range values {
		step := v - first
		e.steps[i] = step
		if divisor != 1 {
			divisor = greatestDivisor(divisor, magnitude(step))
		}
	}
	if divisor > 1 {
		for i, step := range e.steps {
			if step < 0 {
				e.steps[i] = -int64(magnitude(step) / divisor)
			} else {
				e.steps[i] = int64(uint64(step) / divisor)
			}
		}
	}
	return divisor
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// greatestDivisor returns the greatest common divisor; that of 0 and b is b.
func greatestDivisor(a, b uint64) uint64 {
	for a != 0 {
		a, b = b%a, a
	}
	return b
}

// choose returns the order and usual difference with the least bytes of blocks, and how many those are; 0: no blocks are needed.
func (e *Encoder) choose() (order int, usual int64, size int) {
	order, usual, size = 0, 0, e.blocksSize(0, 0, math.MaxInt)
	try := func(o int, u int64) {
		if n := e.blocksSize(o, u, size); n < size {
			order, usual, size = o, u, n
		}
	}
	try(1, 0)
	if len(e.steps) < 3 {
		return order, usual, size
	}
	level, slope := e.middles()
	if slope != 0 {
		try(1, slope)
	}
	if usually := e.usualSlope(); usually != slope {
		try(1, usually)
	}
	try(2, e.steps[1])
	if level != 0 {
		try(0, level)
	}
	return order, usual, size
}

// middles returns the middle of the range of differences from the first value, and of those between neighbours: no other makes the largest smaller.
func (e *Encoder) middles() (level, slope int64) {
	low, high := e.steps[1], e.steps[1]
	least, most := low, high
	last := low
	for _, s := range e.steps[2:] {
		low, high = min(low, s), max(high, s)
		least, most = min(least, s-last), max(most, s-last)
		last = s
	}
	return middle(low, high), middle(least, most)
}

// middle rounds up, as zigzag has one number more below zero than above.
func middle(low, high int64) int64 { return low + int64((uint64(high-low)+1)>>1) }

// usualSlope is about the median of the differences between neighbours, which does not mind a few that are far off.
func (e *Encoder) usualSlope() int64 {
	const samples = 15
	var some [samples]int64
	n := min(samples, len(e.steps)-1)
	for i := range n {
		at := 1 + i*(len(e.steps)-1)/n
		some[i] = e.steps[at] - e.steps[at-1]
	}
	slices.Sort(some[:n])
	return some[n/2]
}

// firstPacked is the place of the first value that blocks have, by order: those before it follow from the head.
func firstPacked(order int) int { return max(1, order) }

// left sets out to what is left of the differences from place at on.
func (e *Encoder) left(out []uint64, at, order int, usual int64) {
	steps := e.steps[at:][:len(out)]
	switch order {
	case 0:
		for i, s := range steps {
			out[i] = zigzag(s - usual)
		}
	case 1:
		last := e.steps[at-1]
		for i, s := range steps {
			out[i] = zigzag(s - last - usual)
			last = s
		}
	default:
		last, difference := e.steps[at-1], e.steps[at-1]-e.steps[at-2]
		for i, s := range steps {
			d := s - last
			out[i] = zigzag(d - difference)
			last, difference = s, d
		}
	}
}

// blocksSize gives up at a limit.
func (e *Encoder) blocksSize(order int, usual int64, limit int) int {
	var block [blockLen]uint64
	size, zero := 0, true
	for at := firstPacked(order); at < len(e.steps) && size < limit; at += blockLen {
		out := block[:min(blockLen, len(e.steps)-at)]
		e.left(out, at, order, usual)
		union, nonzero := uint64(0), 0
		for _, v := range out {
			union |= v
			nonzero += int((v | -v) >> 63)
		}
		n, _ := blockSize(len(out), nonzero, union)
		size += n
		zero = zero && union == 0
	}
	if zero {
		return 0
	}
	return size
}

func (e *Encoder) appendBlocks(dst []byte, order int, usual int64) []byte {
	var block [blockLen]uint64
	for at := firstPacked(order); at < len(e.steps); at += blockLen {
		out := block[:min(blockLen, len(e.steps)-at)]
		e.left(out, at, order, usual)
		dst = appendBlock(dst, out)
	}
	return dst
}

// Ints decodes n integers, appends them to dst, and returns the bytes after them. Vectors that follow a line have few bytes however long they are, so n is
// to be checked by who asks.
func Ints(dst []int64, b []byte, n int) (values []int64, rest []byte, err error) {
	r, b, err := openInts(b, n)
	if err != nil {
		return dst, nil, err
	}
	at := len(dst)
	values = slices.Grow(dst, n)[:at+n]
	for left := values[at:]; len(left) > 0; {
		k := r.ahead(len(left))
		if b, err = r.next(left[:k], b); err != nil {
			return dst, nil, err
		}
		left = left[k:]
	}
	return values, b, nil
}

// SkipInts returns the bytes after a vector of n integers.
func SkipInts(b []byte, n int) (rest []byte, err error) {
	r, b, err := openInts(b, n)
	if err != nil || !r.packed {
		return b, err
	}
	for left := n - r.lead; left > 0; left -= blockLen {
		if b, err = skipBlock(b, min(left, blockLen)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// intReader decodes a vector piece by piece.
type intReader struct {
	order   int
	packed  bool
	divisor int64
	first   int64
	usual   int64
	value   int64 // the last one; of order 0 what all differ from
	rise    int64 // usual difference; of order 2 the last
	lead    int   // values at the beginning that are in no block
	begun   bool
}

// openInts reads the head of a vector of n integers.
func openInts(b []byte, n int) (r intReader, rest []byte, err error) {
	if n == 0 {
		return r, b, nil
	}
	if n < 0 || len(b) == 0 || b[0]&^formMask != 0 || b[0]&orderMask == orderMask {
		return r, nil, errDamaged
	}
	form := b[0]
	b = b[1:]
	r.order, r.packed, r.divisor = int(form&orderMask), form&hasBlocks != 0, 1
	if form&hasDivisor != 0 {
		u, k := binary.Uvarint(b)
		if k <= 0 {
			return r, nil, errDamaged
		}
		r.divisor, b = int64(u), b[k:]
	}
	var k int
	if r.first, k = binary.Varint(b); k <= 0 {
		return r, nil, errDamaged
	}
	b = b[k:]
	if form&hasUsual != 0 {
		if r.usual, k = binary.Varint(b); k <= 0 {
			return r, nil, errDamaged
		}
		b = b[k:]
	}
	r.lead = min(n, firstPacked(r.order))
	if r.packed && len(b) < (n-r.lead+blockLen-1)/blockLen {
		return r, nil, errDamaged // each block has a byte at least
	}
	return r, b, nil
}

// ahead returns how many values to ask next for, when so many are left.
func (r *intReader) ahead(left int) int {
	if !r.begun {
		return r.lead
	}
	return min(left, blockLen)
}

// next decodes as many values as ahead told.
func (r *intReader) next(out []int64, b []byte) ([]byte, error) {
	if !r.begun {
		r.begin(out)
		return b, nil
	}
	if !r.packed {
		r.line(out)
		return b, nil
	}
	var memory [blockLen]uint64
	var spare lane
	dense, width, rest, err := openBlock(b, len(out), &memory, &spare)
	switch {
	case err != nil:
		return nil, err
	case dense == nil:
		r.add(out, memory[:len(out)])
	case r.order == 1:
		r.sum(out, dense, uint(width))
	case r.order == 2:
		r.sumTwice(out, dense, uint(width))
	default:
		r.level(out, dense, uint(width))
	}
	return rest, nil
}

func (r *intReader) begin(out []int64) {
	r.begun = true
	r.value, r.rise = r.first, r.divisor*r.usual
	out[0] = r.value
	if r.order == 2 && len(out) > 1 {
		r.value += r.rise
		out[1] = r.value
	}
	if r.order == 0 { // all follow from the first
		r.value += r.rise
	}
}

// line is next without blocks.
func (r *intReader) line(out []int64) {
	value, rise := r.value, r.rise
	if r.order == 0 {
		rise = 0
	}
	for i := range out {
		value += rise
		out[i] = value
	}
	r.value = value
}

// add decodes what is left of differences.
func (r *intReader) add(out []int64, left []uint64) {
	switch r.order {
	case 0:
		for i, u := range left {
			out[i] = r.value + r.divisor*unzigzag(u)
		}
	case 1:
		for i, u := range left {
			r.value += r.divisor*unzigzag(u) + r.rise
			out[i] = r.value
		}
	default:
		for i, u := range left {
			r.rise += r.divisor * unzigzag(u)
			r.value += r.rise
			out[i] = r.value
		}
	}
}

// level, sum and sumTwice are unpack and add in one.
func (r *intReader) level(out []int64, l *lane, width uint) {
	value, divisor := r.value, r.divisor
	mask, bit := uint64(1)<<width-1, uint(0)
	for i := range out {
		out[i] = value + divisor*unzigzag(l.load(bit)&mask)
		bit += width
	}
}

func (r *intReader) sum(out []int64, l *lane, width uint) {
	value, rise, divisor := r.value, r.rise, r.divisor
	mask, bit := uint64(1)<<width-1, uint(0)
	for i := range out {
		d := divisor*unzigzag(l.load(bit)&mask) + rise
		bit += width
		value += d
		out[i] = value
	}
	r.value = value
}

func (r *intReader) sumTwice(out []int64, l *lane, width uint) {
	value, rise, divisor := r.value, r.rise, r.divisor
	mask, bit := uint64(1)<<width-1, uint(0)
	for i := range out {
		rise += divisor * unzigzag(l.load(bit)&mask)
		bit += width
		value += rise
		out[i] = value
	}
	r.value, r.rise = value, rise
}
