// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

// Native histograms of a series are stored in pieces of neighbours, each with its number of histograms before it. A piece is vectors over time: counts, sums,
// zero counts, and one for each bucket that any of them has, with 0 where a histogram has not that bucket. Which buckets, in which spans, is said by the
// histogram's shape; most neighbours have the same. Where they do not, pieces are short, so that neither time nor memory grows with the square of their number.

// histogramShape is all of a histogram but its numbers.
type histogramShape struct {
	none, gauge        bool // no histogram; a gauge
	schema             int32
	zeroThreshold      float64
	custom             []float64
	positive, negative bucketShape
}

// bucketShape is where the buckets of one sign are.
type bucketShape struct {
	spans   []histogram.Span
	indexes []int32 // of each bucket
}

const (
	shapeNone  = 1
	shapeGauge = 2
)

const (
	// maxPieceShapes and maxPieceNumbers bound the shapes of a piece, and the buckets of those times its histograms; one histogram is always a piece.
	maxPieceShapes  = 64
	maxPieceNumbers = 1 << 22
	// maxBuckets bounds the buckets of all shapes of a piece.
	maxBuckets = 1 << 20
	// maxHistogramNumbers bounds the buckets of all histograms of a series.
	maxHistogramNumbers = 1 << 26
)

func shapeOfHistogram(h *histogram.FloatHistogram) histogramShape {
	if h == nil {
		return histogramShape{none: true}
	}
	return histogramShape{
		gauge: h.CounterResetHint == histogram.GaugeType, schema: h.Schema, zeroThreshold: h.ZeroThreshold, custom: h.CustomValues,
		positive: bucketShape{spans: h.PositiveSpans, indexes: indexesOf(h.PositiveSpans, len(h.PositiveBuckets))},
		negative: bucketShape{spans: h.NegativeSpans, indexes: indexesOf(h.NegativeSpans, len(h.NegativeBuckets))},
	}
}

// indexesOf returns the index of each of n buckets. Where spans are not as they should be, buckets are just counted.
func indexesOf(spans []histogram.Span, n int) []int32 {
	indexes := make([]int32, 0, n)
	next := int64(0)
	for i, s := range spans {
		next += int64(s.Offset)
		sound := (i == 0 || s.Offset >= 0) && int64(s.Length) <= int64(n-len(indexes)) && next >= math.MinInt32 && next+int64(s.Length) <= math.MaxInt32
		if !sound {
			return counted(n)
		}
		for range s.Length {
			indexes = append(indexes, int32(next))
			next++
		}
	}
	if len(indexes) != n {
		return counted(n)
	}
	return indexes
}

func counted(n int) []int32 {
	indexes := make([]int32, n)
	for i := range indexes {
		indexes[i] = int32(i)
	}
	return indexes
}

// fits reports whether h has this shape. It makes no garbage.
func (s *histogramShape) fits(h *histogram.FloatHistogram) bool {
	if h == nil || s.none {
		return s.none == (h == nil)
	}
	return s.gauge == (h.CounterResetHint == histogram.GaugeType) && s.schema == h.Schema &&
		math.Float64bits(s.zeroThreshold) == math.Float64bits(h.ZeroThreshold) && compareBounds(s.custom, h.CustomValues) == 0 &&
		slices.Equal(s.positive.spans, h.PositiveSpans) && len(s.positive.indexes) == len(h.PositiveBuckets) &&
		slices.Equal(s.negative.spans, h.NegativeSpans) && len(s.negative.indexes) == len(h.NegativeBuckets)
}

// union returns all indexes that shapes have, rising, and for each shape where its buckets are among them.
func union(shapes []histogramShape, sign func(*histogramShape) *bucketShape) (all []int32, places [][]int32) {
	for i := range shapes {
		all = append(all, sign(&shapes[i]).indexes...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for i := range shapes {
		var at []int32
		for _, index := range sign(&shapes[i]).indexes {
			place, _ := slices.BinarySearch(all, index)
			at = append(at, int32(place))
		}
		places = append(places, at)
	}
	return all, places
}

func positive(s *histogramShape) *bucketShape { return &s.positive }
func negative(s *histogramShape) *bucketShape { return &s.negative }

// histograms appends histograms, nil ones among them.
func (e *encoder) histograms(all []*histogram.FloatHistogram) {
	for len(all) > 0 {
		shapes, of := histogramShapes(all)
		e.uint(uint64(len(of)))
		e.piece(all[:len(of)], shapes, of)
		all = all[len(of):]
	}
}

func (e *encoder) piece(all []*histogram.FloatHistogram, shapes []histogramShape, of []int64) {
	e.uint(uint64(len(shapes)))
	for i := range shapes {
		e.histogramShape(&shapes[i])
	}
	e.b = e.vectors.Ints(e.b, of)
	field := func(f func(*histogram.FloatHistogram) float64) {
		values := make([]float64, len(all))
		for i, h := range all {
			if h != nil {
				values[i] = f(h)
			}
		}
		e.b = e.vectors.Floats(e.b, values)
	}
	field(func(h *histogram.FloatHistogram) float64 { return h.Count })
	field(func(h *histogram.FloatHistogram) float64 { return h.Sum })
	field(func(h *histogram.FloatHistogram) float64 { return h.ZeroCount })
	e.buckets(all, shapes, of, positive, func(h *histogram.FloatHistogram) []float64 { return h.PositiveBuckets })
	e.buckets(all, shapes, of, negative, func(h *histogram.FloatHistogram) []float64 { return h.NegativeBuckets })
}

// histogramShapes returns the shapes of the first piece, and which one each histogram of it has.
func histogramShapes(all []*histogram.FloatHistogram) (shapes []histogramShape, of []int64) {
	at, buckets := 0, 0
	for i, h := range all {
		if at >= len(shapes) || !shapes[at].fits(h) {
			at = slices.IndexFunc(shapes, func(s histogramShape) bool { return s.fits(h) })
		}
		more := 0
		if at < 0 && h != nil {
			more = len(h.PositiveBuckets) + len(h.NegativeBuckets)
		}
		if i > 0 && (at < 0 && len(shapes) == maxPieceShapes || (buckets+more)*(i+1) > maxPieceNumbers) {
			return shapes, of
		}
		if at < 0 {
			at, buckets = len(shapes), buckets+more
			shapes = append(shapes, shapeOfHistogram(h))
		}
		of = append(of, int64(at))
	}
	return shapes, of
}

func (e *encoder) histogramShape(s *histogramShape) {
	switch {
	case s.none:
		e.uint(shapeNone)
		return
	case s.gauge:
		e.uint(shapeGauge)
	default:
		e.uint(0)
	}
	e.int(int64(s.schema))
	e.floats([]float64{s.zeroThreshold})
	e.floats(s.custom)
	for _, b := range []*bucketShape{&s.positive, &s.negative} {
		e.uint(uint64(len(b.spans)))
		for _, span := range b.spans {
			e.int(int64(span.Offset))
			e.uint(uint64(span.Length))
		}
		e.uint(uint64(len(b.indexes)))
	}
}

// buckets appends a vector for each bucket that any histogram has.
func (e *encoder) buckets(all []*histogram.FloatHistogram, shapes []histogramShape, of []int64, sign func(*histogramShape) *bucketShape,
	buckets func(*histogram.FloatHistogram) []float64,
) {
	indexes, places := union(shapes, sign)
	values := make([]float64, len(indexes)*len(all)) // of one bucket after the other
	for i, h := range all {
		if h == nil {
			continue
		}
		for k, v := range buckets(h) {
			values[int(places[of[i]][k])*len(all)+i] = v
		}
	}
	for i := range indexes {
		e.b = e.vectors.Floats(e.b, values[i*len(all):][:len(all)])
	}
}

// histograms reads n histograms into dst, whose memory is used again. Hints are GaugeType or unknown.
func (d *decoder) histograms(dst []*histogram.FloatHistogram, n int) []*histogram.FloatHistogram {
	dst = grow(dst, n)
	left := maxHistogramNumbers
	for done := 0; done < n; {
		size := d.uint()
		if d.err != nil || size == 0 || size > uint64(n-done) {
			d.fail()
			return dst[:0]
		}
		if left -= d.piece(dst[done:done+int(size)], left); d.err != nil {
			return dst[:0]
		}
		done += int(size)
	}
	return dst
}

// piece reads as many histograms as dst is long, which have at most so many numbers, and returns how many these are.
func (d *decoder) piece(dst []*histogram.FloatHistogram, most int) (numbers int) {
	shapes := d.histogramShapes()
	of := d.vector(nil, len(dst))
	for _, at := range of {
		if at < 0 || at >= int64(len(shapes)) {
			d.fail()
			break
		}
		numbers += len(shapes[at].positive.indexes) + len(shapes[at].negative.indexes)
	}
	if d.err != nil || numbers > most {
		d.fail()
		return 0
	}
	for i := range dst {
		dst[i] = shapes[of[i]].fill(dst[i])
	}
	var values []float64
	field := func(f func(h *histogram.FloatHistogram, v float64)) {
		values = d.floatVector(values[:0], len(dst))
		for i, v := range values {
			if dst[i] != nil {
				f(dst[i], v)
			}
		}
	}
	field(func(h *histogram.FloatHistogram, v float64) { h.Count = v })
	field(func(h *histogram.FloatHistogram, v float64) { h.Sum = v })
	field(func(h *histogram.FloatHistogram, v float64) { h.ZeroCount = v })
	d.buckets(dst, shapes, of, positive, func(h *histogram.FloatHistogram) []float64 { return h.PositiveBuckets })
	d.buckets(dst, shapes, of, negative, func(h *histogram.FloatHistogram) []float64 { return h.NegativeBuckets })
	return numbers
}

// fill makes h a histogram of the shape, without numbers.
func (s *histogramShape) fill(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	if s.none {
		return nil
	}
	if h == nil {
		h = &histogram.FloatHistogram{}
	}
	h.CounterResetHint = histogram.UnknownCounterReset
	if s.gauge {
		h.CounterResetHint = histogram.GaugeType
	}
	h.Schema, h.ZeroThreshold, h.CustomValues = s.schema, s.zeroThreshold, s.custom
	h.PositiveSpans = append(h.PositiveSpans[:0], s.positive.spans...)
	h.NegativeSpans = append(h.NegativeSpans[:0], s.negative.spans...)
	h.PositiveBuckets = grow(h.PositiveBuckets, len(s.positive.indexes))
	h.NegativeBuckets = grow(h.NegativeBuckets, len(s.negative.indexes))
	return h
}

func (d *decoder) histogramShapes() []histogramShape {
	var shapes []histogramShape
	buckets := 0
	for range d.uint() {
		s := d.histogramShape()
		buckets += len(s.positive.indexes) + len(s.negative.indexes)
		if buckets > maxBuckets {
			d.fail()
		}
		if d.err != nil {
			return nil
		}
		shapes = append(shapes, s)
	}
	return shapes
}

func (d *decoder) histogramShape() (s histogramShape) {
	switch d.uint() {
	case 0:
	case shapeGauge:
		s.gauge = true
	case shapeNone:
		s.none = true
		return s
	default:
		d.fail()
	}
	s.schema = int32(d.int())
	if threshold := d.floats(); len(threshold) == 1 {
		s.zeroThreshold = threshold[0]
	} else {
		d.fail()
	}
	s.custom = d.floats()
	for _, b := range []*bucketShape{&s.positive, &s.negative} {
		for range d.uint() {
			if d.err != nil {
				return s
			}
			b.spans = append(b.spans, histogram.Span{Offset: int32(d.int()), Length: uint32(d.uint())})
		}
		n := d.uint()
		if n > maxBuckets {
			d.fail()
			return s
		}
		b.indexes = indexesOf(b.spans, int(n))
	}
	return s
}

func (d *decoder) buckets(all []*histogram.FloatHistogram, shapes []histogramShape, of []int64, sign func(*histogramShape) *bucketShape,
	buckets func(*histogram.FloatHistogram) []float64,
) {
	indexes, places := union(shapes, sign)
	at := make([][]int32, len(shapes)) // of each index, where a shape has its bucket; -1: nowhere
	for s := range shapes {
		at[s] = slices.Repeat([]int32{-1}, len(indexes))
		for k, place := range places[s] {
			at[s][place] = int32(k)
		}
	}
	var values []float64
	for i := range indexes {
		values = d.floatVector(values[:0], len(all))
		if d.err != nil {
			return
		}
		for p, h := range all {
			if k := at[of[p]][i]; k >= 0 {
				buckets(h)[k] = values[p]
			}
		}
	}
}

// vector reads n integers whose number is known.
func (d *decoder) vector(dst []int64, n int) []int64 {
	if d.err != nil {
		return dst[:0]
	}
	values, rest, err := chunk.Ints(dst[:0], d.b, n)
	if err != nil {
		d.fail()
		return dst[:0]
	}
	d.b = rest
	return values
}

// floatVector reads n floats whose number is known.
func (d *decoder) floatVector(dst []float64, n int) []float64 {
	if d.err != nil {
		return dst[:0]
	}
	values, rest, err := chunk.Floats(dst[:0], d.b, n)
	if err != nil {
		d.fail()
		return dst[:0]
	}
	d.b = rest
	return values
}

// deriveHints says of each histogram of a counter whether it began anew. That of the first, and after a stale marker, is not known.
func deriveHints(all []*histogram.FloatHistogram) {
	for i := len(all) - 1; i > 0; i-- { // backwards, as DetectReset believes the hint of the one before
		h, before := all[i], all[i-1]
		if h.CounterResetHint == histogram.GaugeType || before.CounterResetHint == histogram.GaugeType || value.IsStaleNaN(h.Sum) || value.IsStaleNaN(before.Sum) {
			continue
		}
		if h.DetectReset(before) {
			h.CounterResetHint = histogram.CounterReset
		} else {
			h.CounterResetHint = histogram.NotCounterReset
		}
	}
}
