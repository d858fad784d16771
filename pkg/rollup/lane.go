// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// Lane is the buckets of one Prometheus series of one row, by time, and of them what a function needs. A Prometheus series may have several lanes: one for
// each row that stands for it (of another kind, temporality or layout).
type Lane struct {
	function Function
	need     need
	delta    bool
	native   bool

	ends, counts                      []int64
	firstTimes, lastTimes, staleTimes []int64

	first, last, increase, sum, min, max []float64
	sketches                             [][]byte

	firstOf, lastOf, increaseOf, sumOf []*histogram.FloatHistogram
}

// NewLane returns a lane for a function, of a row of a series.
func NewLane(f Function, s *metricfile.Series) *Lane {
	l := &Lane{}
	l.Reset(f, s)
	return l
}

// Reset empties the lane for another function and row, and keeps its memory.
func (l *Lane) Reset(f Function, s *metricfile.Series) {
	row, _ := table(f)
	l.reset(f, row.need, s.Delta, s.Kind == metricfile.KindHistogram)
}

func (l *Lane) reset(f Function, n need, delta, native bool) {
	l.function, l.need, l.delta, l.native = f, n|needFirstTimes|needLastTimes, delta, native
	l.ends, l.counts = l.ends[:0], l.counts[:0]
	l.firstTimes, l.lastTimes, l.staleTimes = l.firstTimes[:0], l.lastTimes[:0], l.staleTimes[:0]
	l.first, l.last, l.increase, l.sum, l.min, l.max = l.first[:0], l.last[:0], l.increase[:0], l.sum[:0], l.min[:0], l.max[:0]
	l.sketches = l.sketches[:0]
	l.firstOf, l.lastOf, l.increaseOf, l.sumOf = l.firstOf[:0], l.lastOf[:0], l.increaseOf[:0], l.sumOf[:0]
}

// Len returns the number of buckets.
func (l *Lane) Len() int { return len(l.ends) }

// Append adds the buckets of a track of the row in a later window. Nothing of r is kept.
func (l *Lane) Append(r *metricfile.Rollup, track int) error {
	if r.Len() == 0 {
		return nil
	}
	if n := len(l.ends); n > 0 && l.ends[n-1] > r.Ends[0] {
		return fault.New(fault.Internal, "buckets from %d ms on come after one of %d ms", r.Ends[0], l.ends[n-1])
	}
	if !l.native && track >= len(r.Tracks) || l.native && len(r.First) < r.Len() {
		return fault.New(fault.Internal, "track %d of a rollup of %d", track, len(r.Tracks))
	}
	l.ends, l.counts = append(l.ends, r.Ends...), append(l.counts, r.Counts...)
	l.firstTimes, l.lastTimes = append(l.firstTimes, r.FirstTimes...), append(l.lastTimes, r.LastTimes...)
	if l.need&needStaleTimes != 0 {
		l.staleTimes = append(l.staleTimes, r.StaleTimes...)
	}
	if l.native {
		l.appendHistograms(r)
		return nil
	}
	l.appendTrack(&r.Tracks[track])
	if l.need&needSketches != 0 {
		for i := range r.Ends {
			l.sketches = append(l.sketches, slices.Clone(sketchAt(r, i)))
		}
	}
	return nil
}

func (l *Lane) appendTrack(t *metricfile.Track) {
	if l.need&needFirst != 0 {
		l.first = append(l.first, t.First...)
	}
	if l.need&needLast != 0 {
		l.last = append(l.last, t.Last...)
	}
	if l.need&needIncrease != 0 {
		l.increase = append(l.increase, t.Increase...)
	}
	if l.need&needSum != 0 {
		l.sum = append(l.sum, t.Sum...)
	}
	if l.need&needMin != 0 {
		l.min = append(l.min, t.Min...)
	}
	if l.need&needMax != 0 {
		l.max = append(l.max, t.Max...)
	}
}

func (l *Lane) appendHistograms(r *metricfile.Rollup) {
	for i := range r.Ends {
		if l.need&needFirst != 0 {
			l.firstOf = append(l.firstOf, copyOf(r.First, i))
		}
		if l.need&needLast != 0 {
			l.lastOf = append(l.lastOf, copyOf(r.Last, i))
		}
		if l.need&needIncrease != 0 {
			l.increaseOf = append(l.increaseOf, copyOf(r.Increase, i))
		}
		if l.need&needSum != 0 {
			l.sumOf = append(l.sumOf, copyOf(r.Sum, i))
		}
	}
}

// behind is the first bucket, from one on, that ends behind a time.
func (l *Lane) behind(from int, ms int64) int {
	for from < len(l.ends) && l.ends[from] <= ms {
		from++
	}
	return from
}

// seek is behind, for a place that is far away.
func (l *Lane) seek(ms int64) int {
	i, _ := slices.BinarySearch(l.ends, ms+1)
	return i
}

// joined makes one lane of several by the order of their samples, which must not lie between each other.
func joined(lanes []*Lane) (*Lane, error) {
	switch len(lanes) {
	case 0:
		return nil, nil
	case 1:
		return lanes[0], nil
	}
	type place struct {
		lane *Lane
		i    int
	}
	var places []place
	for _, l := range lanes {
		for i := range l.ends {
			if l.counts[i] > 0 {
				places = append(places, place{l, i})
			}
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.lane.firstTimes[a.i], b.lane.firstTimes[b.i]) })
	out := &Lane{}
	out.reset(lanes[0].function, lanes[0].need, lanes[0].delta, lanes[0].native)
	for n, p := range places {
		if n > 0 && places[n-1].lane.lastTimes[places[n-1].i] >= p.lane.firstTimes[p.i] {
			return nil, fmt.Errorf("%w: its rows have samples between each other's", ErrInexact)
		}
		out.take(p.lane, p.i)
	}
	return out, nil
}

// take adds one bucket of another lane of the same function.
func (l *Lane) take(from *Lane, i int) {
	l.ends, l.counts = append(l.ends, from.ends[i]), append(l.counts, from.counts[i])
	l.firstTimes, l.lastTimes = append(l.firstTimes, from.firstTimes[i]), append(l.lastTimes, from.lastTimes[i])
	l.first, l.last, l.increase = takeAt(l.first, from.first, i), takeAt(l.last, from.last, i), takeAt(l.increase, from.increase, i)
	l.sum, l.min, l.max = takeAt(l.sum, from.sum, i), takeAt(l.min, from.min, i), takeAt(l.max, from.max, i)
	l.sketches = takeAt(l.sketches, from.sketches, i)
	l.firstOf, l.lastOf = takeAt(l.firstOf, from.firstOf, i), takeAt(l.lastOf, from.lastOf, i)
	l.increaseOf, l.sumOf = takeAt(l.increaseOf, from.increaseOf, i), takeAt(l.sumOf, from.sumOf, i)
}

// takeAt appends one value of a column, if it is there.
func takeAt[T any](to, from []T, i int) []T {
	if i >= len(from) {
		return to
	}
	return append(to, from[i])
}
