// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"github.com/prometheus/prometheus/model/histogram"
)

// nativeSum is the sum of the native histograms of a range, or their average; nil, with a note, where they cannot be added up.
func (e *evaluation) nativeSum(s *span) *histogram.FloatHistogram {
	var sum, compensation *histogram.FloatHistogram
	for i := s.from; i < s.to; i++ {
		switch {
		case s.counts[i] == 0:
			continue
		case s.sumOf[i] == nil:
			e.a.Notes |= NoteMixedLayout
			return nil
		case sum == nil:
			sum = s.sumOf[i].Copy()
			continue
		}
		c, _, reconciled, err := sum.KahanAdd(s.sumOf[i], compensation)
		if err != nil {
			e.a.Notes |= NoteMixedLayout
			return nil
		}
		if compensation = c; reconciled {
			e.a.Notes |= NoteReconciled
		}
	}
	n := float64(s.count())
	if e.q.Function == Average {
		sum.Div(n)
		if compensation != nil {
			compensation.Div(n)
		}
	}
	if compensation != nil {
		return added(sum, compensation)
	}
	return sum
}

// nativeRate is Prometheus' rate, increase or delta of native histograms; nil: there is none.
func (e *evaluation) nativeRate(s *span, end int64) (*histogram.FloatHistogram, error) {
	n, final := s.count(), s.final()
	if n < 2 {
		return nil, nil
	}
	first, last := s.firstOf[s.from], s.lastOf[final]
	r := nativeIncrease{span: s, final: final}
	var h *histogram.FloatHistogram
	var err error
	if e.q.Function == Delta {
		h = difference(first, last)
		if first.CounterResetHint != histogram.GaugeType || last.CounterResetHint != histogram.GaugeType {
			e.a.Notes |= NoteNotGauge
		}
	} else if h, err = r.increase(); err != nil {
		return nil, err
	}
	if e.a.Notes |= r.notes; h == nil {
		e.a.Notes |= NoteMixedLayout
		return nil, nil
	}
	h.CounterResetHint = histogram.GaugeType
	h.Compact(0)
	x := extrapolation{
		counter: e.q.Function != Delta, samples: n, firstTime: s.firstTimes[s.from], lastTime: s.lastTimes[final],
		start: end - e.q.Width, end: end, first: first.Count, increase: h.Count,
	}
	return h.Mul(x.factor(e.q)), nil
}

// nativeIncrease is the increase of native histograms over the buckets of a range.
type nativeIncrease struct {
	*span
	final int
	// dropped says that the first histogram is followed by a reset: what its layout was does not matter.
	dropped bool
	notes   Note
}

// increase is histogramRate of Prometheus' functions.go for counters; nil: exponential and custom buckets are mixed.
func (r *nativeIncrease) increase() (*histogram.FloatHistogram, error) {
	if err := r.drop(); err != nil {
		return nil, err
	}
	last := r.lastOf[r.final]
	schema, ok := r.schema(last)
	if !ok {
		return nil, nil
	}
	h := last.CopyToSchema(schema)
	if !r.dropped {
		if h = difference(r.firstOf[r.from], h); h == nil {
			return nil, nil
		}
	}
	return h, r.resets(h)
}

// drop finds out whether the first histogram is followed by a reset.
func (r *nativeIncrease) drop() error {
	i := r.from
	switch {
	case r.counts[i] == 1:
		next := i + 1
		for r.counts[next] == 0 {
			next++
		}
		r.dropped = isReset(r.firstOf[i], r.firstOf[next])
	case r.sumOf[i] == nil:
		return inexact("the layout of histograms changed")
	case r.increaseOf[i] != nil && (!alike(r.firstOf[i], r.sumOf[i]) || r.firstOf[i].Schema != r.lastOf[i].Schema || r.firstOf[i].Schema != r.sumOf[i].Schema):
		return inexact("the layout of histograms changed")
	}
	return nil
}

// schema is the least of all histograms that count; not ok: exponential and custom buckets are mixed.
func (r *nativeIncrease) schema(last *histogram.FloatHistogram) (schema int32, ok bool) {
	schema = last.Schema
	for i := r.from; i <= r.final; i++ {
		if r.counts[i] == 0 || r.dropped && i == r.from {
			continue
		}
		if r.sumOf[i] == nil || r.sumOf[i].UsesCustomBuckets() != last.UsesCustomBuckets() {
			return 0, false
		}
		if r.sumOf[i].CounterResetHint == histogram.GaugeType {
			r.notes |= NoteNotCounter
		}
		schema = min(schema, r.sumOf[i].Schema)
	}
	return schema, true
}

// resets adds what was there before each reset.
func (r *nativeIncrease) resets(h *histogram.FloatHistogram) error {
	var before *histogram.FloatHistogram
	for i := r.from; i <= r.final; i++ {
		if r.counts[i] == 0 {
			continue
		}
		if before != nil && isReset(before, r.firstOf[i]) {
			r.add(h, before)
		}
		before = r.lastOf[i]
		if r.dropped && i == r.from {
			before = nil
			continue
		}
		if r.increaseOf[i] == nil {
			continue
		}
		within, known := resetsWithin(histograms{r.firstOf[i], r.lastOf[i], r.increaseOf[i], r.sumOf[i]})
		if !known || !alike(r.firstOf[i], r.sumOf[i]) || !alike(r.lastOf[i], r.sumOf[i]) {
			return inexact("the layout of histograms changed")
		}
		r.add(h, within)
	}
	return nil
}

func (r *nativeIncrease) add(h, other *histogram.FloatHistogram) {
	if _, _, reconciled, err := h.Add(other); err == nil && reconciled {
		r.notes |= NoteReconciled
	}
}
