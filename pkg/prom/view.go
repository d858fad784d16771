// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// view is a series as the engine reads it: a storage.Series.
type view struct {
	Series
	hints []histogram.CounterResetHint // of the histograms
}

// merged makes of a source's series those that the engine reads: with hints, and with one series a label set.
func merged(series []Series) []view {
	views := make([]view, 0, len(series))
	for i := range series {
		if last := len(views) - 1; last >= 0 && labels.Equal(views[last].Labels(), series[i].Labels) {
			views[last] = viewOf(mergeTwo(&views[last].Series, &series[i]))
			continue
		}
		views = append(views, viewOf(series[i]))
	}
	return views
}

func viewOf(s Series) view { return view{s, hintsOf(&s)} }

// Labels implements storage.Series.
func (v *view) Labels() labels.Labels { return v.Series.Labels }

// Iterator implements storage.Series.
func (v *view) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	*it = iterator{view: v, float: -1, histogram: -1}
	return it
}

// mergeTwo merges the samples of two series by time. Of two samples of one time that of the first is kept.
func mergeTwo(a, b *Series) Series {
	out := Series{Labels: a.Labels}
	starts, histogramStarts := a.Starts != nil || b.Starts != nil, a.HistogramStarts != nil || b.HistogramStarts != nil
	mergeTimes(a.Times, b.Times, func(first bool, i int) {
		from := pick(first, a, b)
		out.Times, out.Values = append(out.Times, from.Times[i]), append(out.Values, from.Values[i])
		if starts {
			out.Starts = append(out.Starts, at(from.Starts, i))
		}
	})
	mergeTimes(a.HistogramTimes, b.HistogramTimes, func(first bool, i int) {
		from := pick(first, a, b)
		out.HistogramTimes, out.Histograms = append(out.HistogramTimes, from.HistogramTimes[i]), append(out.Histograms, from.Histograms[i])
		if histogramStarts {
			out.HistogramStarts = append(out.HistogramStarts, at(from.HistogramStarts, i))
		}
	})
	return out
}

// mergeTimes calls a function with each time of two rising lists, in order, and once for a time that both have.
func mergeTimes(a, b []int64, each func(first bool, i int)) {
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case j == len(b) || i < len(a) && a[i] < b[j]:
			each(true, i)
			i++
		case i == len(a) || b[j] < a[i]:
			each(false, j)
			j++
		default:
			each(true, i)
			i++
			j++
		}
	}
}

func pick(first bool, a, b *Series) *Series {
	if first {
		return a
	}
	return b
}

// at is a start; zero where none is known.
func at(starts []int64, i int) int64 {
	if starts == nil {
		return 0
	}
	return starts[i]
}

// iterator implements chunkenc.Iterator. Of a float and a histogram of one time the histogram is read.
type iterator struct {
	view             *view
	float, histogram int // the next float or histogram at or behind the current one; -1 before the first call of Next or Seek
	kind             chunkenc.ValueType
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	switch {
	case it.float < 0:
		it.float, it.histogram = 0, 0
	case it.kind == chunkenc.ValFloat:
		it.float++
	case it.kind == chunkenc.ValFloatHistogram:
		it.histogram++
	}
	return it.settle()
}

// settle decides which of the two is the current sample.
func (it *iterator) settle() chunkenc.ValueType {
	floats, histograms := it.view.Times, it.view.HistogramTimes
	switch {
	case it.histogram < len(histograms) && it.float < len(floats):
		if it.kind = chunkenc.ValFloat; histograms[it.histogram] <= floats[it.float] {
			it.kind = chunkenc.ValFloatHistogram
			if histograms[it.histogram] == floats[it.float] {
				it.float++
			}
		}
	case it.histogram < len(histograms):
		it.kind = chunkenc.ValFloatHistogram
	case it.float < len(floats):
		it.kind = chunkenc.ValFloat
	default:
		it.kind = chunkenc.ValNone
	}
	return it.kind
}

// Seek implements chunkenc.Iterator.
func (it *iterator) Seek(t int64) chunkenc.ValueType { //nolint:govet // not io.Seeker: chunkenc.Iterator wants it
	if it.float < 0 {
		it.float, it.histogram = 0, 0
		it.settle()
	}
	if it.kind == chunkenc.ValNone || it.AtT() >= t {
		return it.kind
	}
	it.float = forward(it.view.Times, it.float, t)
	it.histogram = forward(it.view.HistogramTimes, it.histogram, t)
	return it.settle()
}

// forward finds the first time at or after t from a place on. It is mostly near.
func forward(times []int64, from int, t int64) int {
	width := 1
	for from+width <= len(times) && times[from+width-1] < t {
		from += width
		width *= 2
	}
	end := min(from+width, len(times))
	return from + sort.Search(end-from, func(i int) bool { return times[from+i] >= t })
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (int64, float64) {
	return it.view.Times[it.float], it.view.Values[it.float]
}

// AtHistogram implements chunkenc.Iterator. It is not called: no sample is a ValHistogram.
func (it *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("histograms are floats")
}

// AtFloatHistogram implements chunkenc.Iterator.
func (it *iterator) AtFloatHistogram(into *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, from := it.view.HistogramTimes[it.histogram], it.view.Histograms[it.histogram]
	if value.IsStaleNaN(from.Sum) {
		return t, &histogram.FloatHistogram{Sum: from.Sum}
	}
	if into == nil {
		into = from.Copy()
	} else {
		from.CopyTo(into)
	}
	into.CounterResetHint = it.view.hints[it.histogram]
	return t, into
}

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() int64 {
	if it.kind == chunkenc.ValFloatHistogram {
		return it.view.HistogramTimes[it.histogram]
	}
	return it.view.Times[it.float]
}

// AtST implements chunkenc.Iterator.
func (it *iterator) AtST() int64 {
	if it.kind == chunkenc.ValFloatHistogram {
		return at(it.view.HistogramStarts, it.histogram)
	}
	return at(it.view.Starts, it.float)
}

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return nil }
