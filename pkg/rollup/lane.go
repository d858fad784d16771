// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"github.com/prometheus/prometheus/model/histogram"

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
	l.function, l.need, l.delta, l.native = f, row.need, s.Delta, s.Kind == metricfile.KindHistogram
	l.ends, l.counts = l.ends[:0], l.counts[:0]
	l.firstTimes, l.lastTimes, l.staleTimes = l.firstTimes[:0], l.lastTimes[:0], l.staleTimes[:0]
	l.first, l.last, l.increase, l.sum, l.min, l.max = l.first[:0], l.last[:0], l.increase[:0], l.sum[:0], l.min[:0], l.max[:0]
	l.sketches = l.sketches[:0]
	l.firstOf, l.lastOf, l.increaseOf, l.sumOf = l.firstOf[:0], l.lastOf[:0], l.increaseOf[:0], l.sumOf[:0]
}

// Append adds the buckets of a track of the row in a later window; nothing of r is kept.
func (l *Lane) Append(r *metricfile.Rollup, track int) error { return nil }

// Evaluate answers a question over the lanes of one Prometheus series. It refuses (fault.Unsupported) what Exact does not allow, and returns ErrInexact where
// the buckets do not have the answer.
func Evaluate(q *Question, lanes []*Lane, a *Answer) error { return ErrInexact }
