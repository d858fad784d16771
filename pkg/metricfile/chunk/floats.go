// SPDX-License-Identifier: AGPL-3.0-only

package chunk

import (
	"encoding/binary"
	"math"
	"slices"
)

// A vector of floats begins with its form: the power of ten that makes integers of the values (0: they are), or that it has their bits; and whether there
// are exceptions: their number, a vector of their places, one of their bits. Then comes the vector of integers, exceptions having whatever suits.
const (
	exponentMask  = 0x1f
	formBits      = 0x1f
	hasExceptions = 0x20
	floatMask     = exponentMask | hasExceptions
)

// maxExponent is the largest power of ten that is tried.
const maxExponent = 15

// tens are exact: 10^22 would be the last that a float64 holds.
var tens = [maxExponent + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// doubtful is the exponent from which on the bits may well be smaller.
const doubtful = 7

// Floats appends a vector of floats.
func (e *Encoder) Floats(dst []byte, values []float64) []byte {
	if len(values) == 0 {
		return dst
	}
	if constant(values) {
		return e.constant(dst, values[0])
	}
	exponent, decimal := e.decimals(values)
	if !decimal {
		return e.bits(dst, values)
	}
	at := len(dst)
	dst = e.finish(dst, byte(exponent))
	if exponent < doubtful && len(e.places) < len(values)/8 {
		return dst
	}
	size := len(dst) - at
	dst = e.bits(dst, values)
	if bitsSize := len(dst) - at - size; bitsSize < size {
		return append(dst[:at], dst[at+size:]...)
	}
	return dst[:at+size]
}

func constant(values []float64) bool {
	first := math.Float64bits(values[0])
	for _, v := range values {
		if math.Float64bits(v) != first {
			return false
		}
	}
	return true
}

// constant appends a vector of one value.
func (e *Encoder) constant(dst []byte, v float64) []byte {
	form, n := byte(formBits), int64(math.Float64bits(v))
	if integer, exact := scaled(v, 0); exact {
		form, n = 0, integer
	}
	return binary.AppendVarint(append(dst, form, 0), n)
}

// decimals sets ints to values times ten to a power, and places to the exceptions; false: too many would be exceptions.
func (e *Encoder) decimals(values []float64) (exponent int, ok bool) {
	if exponent, ok = e.sampleExponent(values); !ok {
		return 0, false
	}
	for again := true; again; {
		again = false
		e.begin(len(values))
		for i, v := range values {
			n, exact := scaled(v, exponent)
			if exact {
				e.ints[i] = n
				continue
			}
			if higher, finite := exponentOf(v); finite && higher > exponent {
				exponent, again = higher, true
				break
			}
			if e.except(i, v); len(e.places) > len(values)/2 {
				return 0, false
			}
		}
	}
	return exponent, true
}

// sampleExponent looks at a few values, so that those that are no decimals are known soon.
func (e *Encoder) sampleExponent(values []float64) (exponent int, ok bool) {
	const samples = 4
	misses := 0
	for i := range samples {
		v := values[i*(len(values)-1)/(samples-1)]
		if odd(v) {
			continue
		}
		higher, finite := exponentOf(v)
		if !finite {
			misses++
		}
		exponent = max(exponent, higher)
	}
	return exponent, misses < 2
}

// odd values have no place among numbers.
func odd(v float64) bool {
	return math.IsNaN(v) || math.IsInf(v, 0)
}

// scaled returns v times ten to a power, if that gives v back bit by bit.
func scaled(v float64, exponent int) (n int64, exact bool) {
	if exponent == 0 {
		n = int64(v)
		return n, float64(n) == v && (n != 0 || !math.Signbit(v)) && n != math.MaxInt64
	}
	power := tens[exponent]
	x := math.RoundToEven(v * power)
	if !(math.Abs(x) < 1<<53) {
		return 0, false
	}
	n = int64(x)
	return n, float64(n)/power == v && (n != 0 || !math.Signbit(v))
}

// exponentOf returns the least power of ten that makes an integer of v.
func exponentOf(v float64) (exponent int, ok bool) {
	if odd(v) {
		return 0, false
	}
	for exponent <= maxExponent {
		if _, exact := scaled(v, exponent); exact {
			return exponent, true
		}
		exponent++
	}
	return 0, false
}

func (e *Encoder) begin(n int) {
	e.ints = slices.Grow(e.ints[:0], n)[:n]
	e.places, e.odd = e.places[:0], e.odd[:0]
}

// except takes a value out of the vector: the one before stands in its place, or, once finish knows it, the first other.
func (e *Encoder) except(i int, v float64) {
	e.places = append(e.places, int64(i))
	e.odd = append(e.odd, int64(math.Float64bits(v)))
	if i > 0 {
		e.ints[i] = e.ints[i-1]
	}
}

// bits appends the form that has the bits of values.
func (e *Encoder) bits(dst []byte, values []float64) []byte {
	e.begin(len(values))
	for i, v := range values {
		e.ints[i] = int64(math.Float64bits(v))
	}
	for i, v := range values {
		if odd(v) {
			e.except(i, v)
		}
	}
	if len(e.places) <= len(values)/2 {
		return e.finish(dst, formBits)
	}
	e.begin(len(values))
	for i, v := range values {
		e.ints[i] = int64(math.Float64bits(v))
	}
	return e.finish(dst, formBits)
}

// finish appends ints and exceptions.
func (e *Encoder) finish(dst []byte, form byte) []byte {
	if len(e.places) == 0 {
		return e.Ints(append(dst, form), e.ints)
	}
	e.leadIn()
	dst = append(dst, form|hasExceptions)
	dst = binary.AppendUvarint(dst, uint64(len(e.places)))
	dst = e.Ints(dst, e.places)
	dst = e.Ints(dst, e.odd)
	return e.Ints(dst, e.ints)
}

// leadIn gives exceptions at the beginning the value of the first that is none.
func (e *Encoder) leadIn() {
	lead := 0
	for lead < len(e.places) && e.places[lead] == int64(lead) {
		lead++
	}
	if lead < len(e.ints) {
		for i := range lead {
			e.ints[i] = e.ints[lead]
		}
	}
}

// Floats decodes n floats, appends them to dst, and returns the bytes after them. As with Ints, n is to be checked by who asks.
func Floats(dst []float64, b []byte, n int) (values []float64, rest []byte, err error) {
	if n == 0 {
		return dst, b, nil
	}
	if len(b) == 0 || b[0]&^floatMask != 0 {
		return dst, nil, errDamaged
	}
	form := b[0]
	exponent := int(form & exponentMask)
	if exponent > maxExponent && exponent != formBits {
		return dst, nil, errDamaged
	}
	b = b[1:]
	var x exceptions
	if form&hasExceptions != 0 {
		if x, b, err = openExceptions(b, n); err != nil {
			return dst, nil, err
		}
	}
	r, b, err := openInts(b, n)
	if err != nil {
		return dst, nil, err
	}
	at := len(dst)
	values = slices.Grow(dst, n)[:at+n]
	if b, err = r.floats(values[at:], b, exponent); err != nil {
		return dst, nil, err
	}
	if err = x.restore(values[at:]); err != nil {
		return dst, nil, err
	}
	return values, b, nil
}

// floats decodes the integers and makes floats of them.
func (r *intReader) floats(out []float64, b []byte, exponent int) (rest []byte, err error) {
	var ints [blockLen]int64
	if !r.packed && r.usual == 0 {
		ints[0] = r.first
		convert(out[:1], ints[:1], exponent)
		for i := range out {
			out[i] = out[0]
		}
		return b, nil
	}
	for len(out) > 0 {
		k := r.ahead(len(out))
		if b, err = r.next(ints[:k], b); err != nil {
			return nil, err
		}
		convert(out[:k], ints[:k], exponent)
		out = out[k:]
	}
	return b, nil
}

// convert makes floats of integers.
func convert(out []float64, ints []int64, exponent int) {
	out = out[:len(ints)]
	switch exponent {
	case formBits:
		for i, v := range ints {
			out[i] = math.Float64frombits(uint64(v))
		}
	case 0:
		for i, v := range ints {
			out[i] = float64(v)
		}
	default:
		power := tens[exponent]
		for i, v := range ints {
			out[i] = float64(v) / power
		}
	}
}

// exceptions are the values of a vector that stand apart.
type exceptions struct {
	places, bits []byte
	count        int
}

func openExceptions(b []byte, n int) (x exceptions, rest []byte, err error) {
	count, k := binary.Uvarint(b)
	if k <= 0 || count > uint64(n) {
		return x, nil, errDamaged
	}
	x.count = int(count)
	x.places = b[k:]
	if x.bits, err = SkipInts(x.places, x.count); err != nil {
		return x, nil, err
	}
	rest, err = SkipInts(x.bits, x.count)
	return x, rest, err
}

// restore puts them where they belong.
func (x *exceptions) restore(values []float64) error {
	if x.count == 0 {
		return nil
	}
	places, _, err := Ints(nil, x.places, x.count)
	if err != nil {
		return err
	}
	odd, _, err := Ints(nil, x.bits, x.count)
	if err != nil {
		return err
	}
	for i, place := range places {
		if place < 0 || place >= int64(len(values)) {
			return errDamaged
		}
		values[place] = math.Float64frombits(uint64(odd[i]))
	}
	return nil
}

// SkipFloats returns the bytes after a vector of n floats.
func SkipFloats(b []byte, n int) (rest []byte, err error) {
	if n == 0 {
		return b, nil
	}
	if len(b) == 0 || b[0]&^floatMask != 0 {
		return nil, errDamaged
	}
	form, b := b[0], b[1:]
	if form&hasExceptions != 0 {
		if _, b, err = openExceptions(b, n); err != nil {
			return nil, err
		}
	}
	return SkipInts(b, n)
}
