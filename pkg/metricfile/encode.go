// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import "math"

// What the own columns of a row hold.

// counts appends the counts of classic histograms and summaries.
func (e *encoder) counts(counts []uint64, scratch []int64) []int64 {
	scratch = grow(scratch, len(counts))
	for i, n := range counts {
		scratch[i] = int64(n)
	}
	e.b = e.vectors.Ints(e.b, scratch)
	return scratch
}

// bucketCounts appends the buckets of classic histograms, a vector each. Where they add up to the counts, as they should, the longest vector is left out, as it
// follows from counts and the others: 1 + its number stands before, or 0.
func (e *encoder) bucketCounts(p *Points, scratch []int64) []int64 {
	if !addUp(p) {
		e.uint(0)
		for _, bucket := range p.Buckets {
			scratch = e.counts(bucket, scratch)
		}
		return scratch
	}
	head := len(e.b)
	longest, from, to := 0, head, head
	for i, bucket := range p.Buckets {
		at := len(e.b)
		scratch = e.counts(bucket, scratch)
		if len(e.b)-at > to-from {
			longest, from, to = i, at, len(e.b)
		}
	}
	e.b = append(e.b[:from], e.b[to:]...)
	return e.insertUint(head, uint64(longest)+1, scratch)
}

// insertUint puts a number below 128, or a longer one, before what was appended since.
func (e *encoder) insertUint(at int, v uint64, scratch []int64) []int64 {
	end := len(e.b)
	e.uint(v)
	n := len(e.b) - end
	var number [10]byte
	copy(number[:], e.b[end:])
	copy(e.b[at+n:], e.b[at:end])
	copy(e.b[at:], number[:n])
	return scratch
}

func addUp(p *Points) bool {
	if len(p.Buckets) == 0 {
		return false
	}
	for i, n := range p.Counts {
		for _, bucket := range p.Buckets {
			n -= bucket[i]
		}
		if n != 0 {
			return false
		}
	}
	return true
}

// Values of rollups that mostly follow from others are stored as the difference of bits.
const (
	formValues = iota // a vector of floats
	formFirst         // a vector of integers: bits, exclusive or those of the first value
	formLast          // the same with the last value
	formRise          // the same with last minus first
)

// derived appends values that are often others that the reader will have already.
func (e *encoder) derived(values []float64, t *Track, scratch []int64) []int64 {
	best, most := formValues, len(values)/2
	for form := formFirst; form <= formRise; form++ {
		same := 0
		for i, v := range values {
			if math.Float64bits(v) == math.Float64bits(t.guess(form, i)) {
				same++
			}
		}
		if same > most {
			best, most = form, same
		}
	}
	e.uint(uint64(best))
	if best == formValues {
		e.b = e.vectors.Floats(e.b, values)
		return scratch
	}
	scratch = grow(scratch, len(values))
	for i, v := range values {
		scratch[i] = int64(math.Float64bits(v) ^ math.Float64bits(t.guess(best, i)))
	}
	e.b = e.vectors.Ints(e.b, scratch)
	return scratch
}

func (t *Track) guess(form, i int) float64 {
	switch form {
	case formFirst:
		return t.First[i]
	case formLast:
		return t.Last[i]
	}
	return t.Last[i] - t.First[i]
}

// derived is the inverse of encoder.derived.
func (d *decoder) derived(dst []float64, t *Track, n int, scratch *[]int64) []float64 {
	form := d.uint()
	if form == formValues {
		return d.floatVector(dst, n)
	}
	if form > formRise || len(t.First) < n || len(t.Last) < n {
		d.fail()
		return dst[:0]
	}
	dst = dst[:0]
	*scratch = d.vector(*scratch, n)
	for i, bits := range *scratch {
		dst = append(dst, math.Float64frombits(uint64(bits)^math.Float64bits(t.guess(int(form), i))))
	}
	return dst
}

// sketches appends byte strings, of each its length and itself.
func (e *encoder) sketches(all [][]byte) {
	lengths := make([]int64, len(all))
	for i, b := range all {
		lengths[i] = int64(len(b))
	}
	e.b = e.vectors.Ints(e.b, lengths)
	for _, b := range all {
		e.b = append(e.b, b...)
	}
}

func (d *decoder) sketches(dst [][]byte, n int) [][]byte {
	dst = dst[:0]
	for _, length := range d.vector(nil, n) {
		if length < 0 || length > maxBlob {
			d.fail()
		}
		dst = append(dst, append([]byte(nil), d.bytes(int(length))...))
	}
	return dst
}

// counts reads n counts.
func (d *decoder) counts(dst *[]uint64, scratch []int64, n int) []int64 {
	scratch = d.vector(scratch, n)
	*dst = grow(*dst, len(scratch))
	for i, v := range scratch {
		(*dst)[i] = uint64(v)
	}
	return scratch
}

// bucketCounts is the inverse of encoder.bucketCounts.
func (d *decoder) bucketCounts(p *Points, scratch []int64, n int) []int64 {
	missing := int(d.below(len(p.Buckets)+1)) - 1
	for i := range p.Buckets {
		if i != missing {
			scratch = d.counts(&p.Buckets[i], scratch, n)
		}
	}
	if missing < 0 || d.err != nil {
		return scratch
	}
	rest := p.Buckets[missing]
	copy(rest, p.Counts)
	for i, bucket := range p.Buckets {
		if i == missing {
			continue
		}
		for k, v := range bucket {
			rest[k] -= v
		}
	}
	return scratch
}
