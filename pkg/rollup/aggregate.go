// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// Options say what is made of points.
type Options struct {
	// Resolution is the width of buckets, whole milliseconds.
	Resolution time.Duration
	// Sketches makes sketches of the values of floats.
	Sketches bool
}

// Aggregator makes rollups of points. It is for one goroutine.
type Aggregator struct {
	out metricfile.Rollup
	// live are the points that are no stale markers, and from is where those of each bucket begin, and end with the last.
	live []int
	from []int
	// values are those of one track, of live points.
	values   []float64
	sketcher sketcher
}

// Aggregate makes the rollup of one row. Points are sorted by time, not more than one a millisecond. The rollup is good until the next call.
func (a *Aggregator) Aggregate(s *metricfile.Series, p *metricfile.Points, o Options) (*metricfile.Rollup, error) {
	width := o.Resolution.Milliseconds()
	if width <= 0 || o.Resolution%time.Millisecond != 0 {
		return nil, fault.New(fault.Invalid, "%s is no resolution of rollups", o.Resolution)
	}
	empty(&a.out)
	if err := a.buckets(p, width); err != nil {
		return nil, err
	}
	if s.Kind == metricfile.KindHistogram {
		a.histograms(s, p)
		return &a.out, nil
	}
	a.out.Tracks = tracks(a.out.Tracks, s.NumTracks())
	for i := range a.out.Tracks {
		a.track(s, p, i)
	}
	if o.Sketches && s.Kind == metricfile.KindFloat {
		a.sketches()
	}
	return &a.out, nil
}

// empty empties a rollup and keeps its memory.
func empty(r *metricfile.Rollup) {
	r.Ends, r.Counts = r.Ends[:0], r.Counts[:0]
	r.FirstTimes, r.LastTimes, r.StaleTimes = r.FirstTimes[:0], r.LastTimes[:0], r.StaleTimes[:0]
	r.Tracks = r.Tracks[:0]
	r.First, r.Last, r.Increase, r.Sum = r.First[:0], r.Last[:0], r.Increase[:0], r.Sum[:0]
	r.Sketches = r.Sketches[:0]
}

// tracks makes n empty tracks, of the memory of those before.
func tracks(of []metricfile.Track, n int) []metricfile.Track {
	of = of[:cap(of)]
	for len(of) < n {
		of = append(of, metricfile.Track{})
	}
	of = of[:n]
	for i := range of {
		t := &of[i]
		t.First, t.Last, t.Increase, t.Sum, t.Min, t.Max = t.First[:0], t.Last[:0], t.Increase[:0], t.Sum[:0], t.Min[:0], t.Max[:0]
	}
	return of
}

// Milliseconds are ns since 1970 as Prometheus has them.
func Milliseconds(ns int64) int64 {
	ms := ns / int64(time.Millisecond)
	if ns%int64(time.Millisecond) < 0 {
		ms--
	}
	return ms
}

// endOf is the end of the bucket that holds a time.
func endOf(ms, width int64) int64 {
	end := ms / width * width
	if end < ms {
		end += width
	}
	return end
}

// buckets finds the buckets, and which points are in them.
func (a *Aggregator) buckets(p *metricfile.Points, width int64) error {
	r := &a.out
	a.live, a.from = a.live[:0], a.from[:0]
	before := int64(math.MinInt64)
	for i, ns := range p.Times {
		ms := Milliseconds(ns)
		if ms <= before {
			return fault.New(fault.Internal, "points at %d and %d ms: want rising times", before, ms)
		}
		before = ms
		if end := endOf(ms, width); len(r.Ends) == 0 || r.Ends[len(r.Ends)-1] != end {
			r.Ends, r.Counts = append(r.Ends, end), append(r.Counts, 0)
			r.FirstTimes, r.LastTimes, r.StaleTimes = append(r.FirstTimes, 0), append(r.LastTimes, 0), append(r.StaleTimes, 0)
			a.from = append(a.from, len(a.live))
		}
		b := len(r.Ends) - 1
		if p.Stale(i) {
			r.StaleTimes[b] = ms
			continue
		}
		if r.Counts[b] == 0 {
			r.FirstTimes[b] = ms
		}
		r.Counts[b]++
		r.LastTimes[b] = ms
		a.live = append(a.live, i)
	}
	a.from = append(a.from, len(a.live))
	return nil
}

func (a *Aggregator) track(s *metricfile.Series, p *metricfile.Points, track int) {
	a.values = p.Track(s, track, a.values[:0])
	if len(a.live) < len(a.values) {
		for to, i := range a.live {
			a.values[to] = a.values[i]
		}
	}
	t := &a.out.Tracks[track]
	for b := range a.out.Ends {
		appendBucket(t, summarize(a.values[a.from[b]:a.from[b+1]], s.Delta))
	}
}

// bucket is what the values of one bucket came to.
type bucket struct{ first, last, increase, sum, min, max float64 }

// appendBucket appends a bucket to a track.
func appendBucket(t *metricfile.Track, b bucket) {
	t.First, t.Last, t.Increase = append(t.First, b.first), append(t.Last, b.last), append(t.Increase, b.increase)
	t.Sum, t.Min, t.Max = append(t.Sum, b.sum), append(t.Min, b.min), append(t.Max, b.max)
}

func summarize(values []float64, delta bool) bucket {
	if len(values) == 0 {
		return bucket{}
	}
	b := bucket{first: values[0], last: values[len(values)-1], min: values[0], max: values[0]}
	var compensation, resets float64
	for i, v := range values {
		b.sum, compensation = kahansum.Inc(v, b.sum, compensation)
		b.min, b.max = lesser(b.min, v), greater(b.max, v)
		if i > 0 && v < values[i-1] {
			resets += values[i-1]
		}
	}
	b.sum = compensated(b.sum, compensation)
	switch {
	case delta:
		b.increase = b.sum
	case len(values) > 1:
		b.increase = b.last - b.first + resets
	}
	return b
}

// compensated ends a Kahan sum as Prometheus does.
func compensated(sum, compensation float64) float64 {
	if math.IsInf(sum, 0) {
		return sum
	}
	return sum + compensation
}

// lesser and greater choose as min_over_time and max_over_time do: NaN is nothing, unless there is nothing else; of equal ones the first.
func lesser(a, b float64) float64 {
	if b < a || math.IsNaN(a) {
		return b
	}
	return a
}

func greater(a, b float64) float64 {
	if b > a || math.IsNaN(a) {
		return b
	}
	return a
}

func (a *Aggregator) sketches() {
	for b := range a.out.Ends {
		a.out.Sketches = append(a.out.Sketches, a.sketcher.of(a.values[a.from[b]:a.from[b+1]]))
	}
}

func (a *Aggregator) histograms(s *metricfile.Series, p *metricfile.Points) {
	r := &a.out
	var list []*histogram.FloatHistogram
	for b := range r.Ends {
		list = list[:0]
		for _, i := range a.live[a.from[b]:a.from[b+1]] {
			list = append(list, p.Histograms[i])
		}
		appendHistograms(r, summarizeHistograms(list, s.Delta))
	}
}
