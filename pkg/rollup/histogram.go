// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// histograms is what the native histograms of one bucket came to.
type histograms struct {
	first, last *histogram.FloatHistogram
	// increase is nil where there was no reset: it is last less first then.
	increase *histogram.FloatHistogram
	// sum is nil where they cannot be added up: some have exponential buckets, some custom ones.
	sum *histogram.FloatHistogram
}

func appendHistograms(r *metricfile.Rollup, h histograms) {
	r.First, r.Last = append(r.First, h.first), append(r.Last, h.last)
	r.Increase, r.Sum = append(r.Increase, h.increase), append(r.Sum, h.sum)
}

// summarizeHistograms copies what it keeps.
func summarizeHistograms(list []*histogram.FloatHistogram, delta bool) histograms {
	if len(list) == 0 {
		return histograms{}
	}
	h := histograms{first: plain(list[0]), last: plain(list[len(list)-1]), sum: sumOf(list)}
	if !delta && h.sum != nil {
		h.increase = increaseWithResets(list)
	}
	return h
}

// plain copies a histogram without what it says of the one before it, which may not be the one before it here.
func plain(h *histogram.FloatHistogram) *histogram.FloatHistogram {
	c := h.Copy()
	if c.CounterResetHint != histogram.GaugeType {
		c.CounterResetHint = histogram.UnknownCounterReset
	}
	return c
}

// sumOf adds up as sum_over_time does.
func sumOf(list []*histogram.FloatHistogram) *histogram.FloatHistogram {
	sum := plain(list[0])
	var compensation *histogram.FloatHistogram
	for _, h := range list[1:] {
		var err error
		if compensation, _, _, err = sum.KahanAdd(h, compensation); err != nil {
			return nil
		}
	}
	if compensation == nil {
		return sum
	}
	sum, _, _, err := sum.Add(compensation)
	if err != nil {
		return nil
	}
	return plain(sum)
}

// increaseWithResets is last less first, and what was there before each reset; nil without one.
func increaseWithResets(list []*histogram.FloatHistogram) *histogram.FloatHistogram {
	var resets *histogram.FloatHistogram
	for i, h := range list[1:] {
		if isReset(list[i], h) {
			resets = added(resets, list[i])
		}
	}
	if resets == nil {
		return nil
	}
	return added(difference(list[0], list[len(list)-1]), resets)
}

// isReset finds out, whatever hints say: they may be of another neighbour.
func isReset(before, h *histogram.FloatHistogram) bool {
	if h.CounterResetHint != histogram.UnknownCounterReset && h.CounterResetHint != histogram.GaugeType {
		c := *h
		c.CounterResetHint = histogram.UnknownCounterReset
		h = &c
	}
	return h.DetectReset(before)
}

// added adds to a, which may be nil and is changed; nil: they cannot be added.
func added(a, b *histogram.FloatHistogram) *histogram.FloatHistogram {
	if a == nil {
		return plain(b)
	}
	sum, _, _, err := a.Add(b)
	if err != nil {
		return nil
	}
	return sum
}

// difference is b less a; nil: they cannot be subtracted. Neither is changed.
func difference(a, b *histogram.FloatHistogram) *histogram.FloatHistogram {
	d := plain(b)
	if a.Schema < d.Schema && !a.UsesCustomBuckets() && !d.UsesCustomBuckets() {
		d = d.CopyToSchema(a.Schema)
	}
	d, _, _, err := d.Sub(a)
	if err != nil {
		return nil
	}
	return d
}

// alike reports whether histograms of one kind of buckets have the same zero bucket and custom bounds, so that adding them changes neither.
func alike(a, b *histogram.FloatHistogram) bool {
	return a.ZeroThreshold == b.ZeroThreshold && slices.Equal(a.CustomValues, b.CustomValues)
}
