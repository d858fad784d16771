// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"math"
	"math/bits"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/histogram"
)

// scramble is the finalizer of MurmurHash3 (Appleby): a bijection in which every bit of x changes half of the bits.
func scramble(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// mix takes one more word into a hash: for any h a bijection of v.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// hashNumber begins the hash of a point. Time and value go two ways that meet in the end, for speed.
func hashNumber(identity uint64, at Stamp, value uint64) uint64 {
	a := mix(identity, uint64(at.Time)^bits.RotateLeft64(uint64(at.Start)*0xff51afd7ed558ccd, 31))
	b := mix(value, uint64(at.Source)*0xc4ceb9fe1a85ec53)
	return a + bits.RotateLeft64(b, 17)
}

// hashHistogram takes a histogram into a hash: all that is stored of it. Of the hint only whether it is a gauge.
func hashHistogram(h uint64, f *histogram.FloatHistogram) uint64 {
	gauge := uint64(0)
	if f.CounterResetHint == histogram.GaugeType {
		gauge = 1
	}
	h = mix(h, gauge<<32|uint64(uint32(f.Schema)))
	for _, v := range [...]float64{f.ZeroThreshold, f.ZeroCount, f.Count, f.Sum} {
		h = mix(h, math.Float64bits(v))
	}
	h = hashFloats(hashFloats(hashFloats(h, f.CustomValues), f.PositiveBuckets), f.NegativeBuckets)
	return hashSpans(hashSpans(h, f.PositiveSpans), f.NegativeSpans)
}

func hashFloats(h uint64, values []float64) uint64 {
	h = mix(h, uint64(len(values)))
	for _, v := range values {
		h = mix(h, math.Float64bits(v))
	}
	return h
}

func hashSpans(h uint64, spans []histogram.Span) uint64 {
	h = mix(h, uint64(len(spans)))
	for _, s := range spans {
		h = mix(h, uint64(uint32(s.Offset))<<32|uint64(s.Length))
	}
	return h
}

// RowHash returns what point i of the series with this Identity adds to Written.RowHash. Starts and Sources are needed, if there are any.
func (p *Points) RowHash(identity uint64, kind Kind, i int) uint64 {
	at := p.stamp(i)
	switch kind {
	case KindClassic:
		h := mix(hashNumber(identity, at, math.Float64bits(p.Values[i])), p.Counts[i])
		for _, bucket := range p.Buckets {
			h = mix(h, bucket[i])
		}
		return scramble(h)
	case KindSummary:
		h := mix(hashNumber(identity, at, math.Float64bits(p.Values[i])), p.Counts[i])
		for _, quantile := range p.Quantiles {
			h = mix(h, math.Float64bits(quantile[i]))
		}
		return scramble(h)
	case KindHistogram:
		return scramble(hashHistogram(hashNumber(identity, at, 0), p.Histograms[i]))
	}
	return scramble(hashNumber(identity, at, math.Float64bits(p.Values[i])))
}

func (p *Points) stamp(i int) Stamp {
	at := Stamp{Time: p.Times[i]}
	if len(p.Starts) > 0 {
		at.Start = p.Starts[i]
	}
	if len(p.Sources) > 0 {
		at.Source = p.Sources[i]
	}
	return at
}

// RowHash returns what bucket i of the series with this Identity adds to Written.RowHash.
func (r *Rollup) RowHash(identity uint64, i int) uint64 {
	h := identity
	for _, v := range [...]int64{r.Ends[i], r.Counts[i], r.FirstTimes[i], r.LastTimes[i], r.StaleTimes[i]} {
		h = mix(h, uint64(v))
	}
	for k := range r.Tracks {
		t := &r.Tracks[k]
		for _, v := range [...]float64{t.First[i], t.Last[i], t.Increase[i], t.Sum[i], t.Min[i], t.Max[i]} {
			h = mix(h, math.Float64bits(v))
		}
	}
	for _, column := range [...][]*histogram.FloatHistogram{r.First, r.Last, r.Increase, r.Sum} {
		if i < len(column) && column[i] != nil {
			h = hashHistogram(h, column[i])
		}
		h = mix(h, 1)
	}
	if i < len(r.Sketches) {
		h = mix(h, xxhash.Sum64(r.Sketches[i]))
	}
	return scramble(h)
}
