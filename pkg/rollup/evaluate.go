// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"errors"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// ErrInexact says that buckets do not have the answer though their resolution may have it: samples of two rows of one series that lie between each other, a
// quantile without sketches, histograms whose layout changed, sums that overflowed. The samples themselves have to answer.
var ErrInexact = errors.New("the rollup does not have this answer: samples have to")

// Question is a function, and when it is asked.
type Question struct {
	Function Function
	// Parameter is the quantile of Quantile.
	Parameter float64
	// Start and End are ms since 1970, both inclusive; Step zero: at Start alone.
	Start, End, Step int64
	// Offset is ms, taken from each time. Width is the range before it, or the lookback of Instant and Timestamp.
	Offset, Width int64
	// Resolution is that of the buckets, ms.
	Resolution int64
}

// Steps is how often the question is asked.
func (q *Question) Steps() int {
	if q.Step <= 0 || q.End < q.Start {
		return 1
	}
	return int((q.End-q.Start)/q.Step) + 1
}

// Exact reports whether the question may be answered, and how exactly.
func (q *Question) Exact() (ok bool, bound float64, reason string) {
	const ms = time.Millisecond
	return Exact(q.Function, time.Duration(q.Width)*ms, time.Duration(q.Step)*ms, time.Duration(q.Offset)*ms, time.UnixMilli(q.Start), time.Duration(q.Resolution)*ms)
}

// Note is a set of things that Prometheus would warn of, or tell.
type Note uint8

// The notes.
const (
	NoteMixed       Note = 1 << iota // a range has floats and histograms, and no answer
	NoteMixedLayout                  // a range has exponential and custom buckets, and no answer
	NoteNotCounter                   // a rate or increase of gauge histograms
	NoteNotGauge                     // a delta of counter histograms
	NoteIgnored                      // histograms beside floats were ignored
	NoteReconciled                   // custom buckets had different bounds
	NoteQuantile                     // the quantile is not between 0 and 1
)

// Answer has one entry for each time of a question. Absent values have the bits of a stale marker, and no histogram.
type Answer struct {
	Floats     []float64
	Histograms []*histogram.FloatHistogram // nil: there are none at all
	Notes      Note
}

// Present reports whether there is a value at a step.
func (a *Answer) Present(i int) bool {
	return !value.IsStaleNaN(a.Floats[i]) || a.Histograms != nil && a.Histograms[i] != nil
}

func (a *Answer) reset(steps int) {
	a.Floats, a.Histograms, a.Notes = a.Floats[:0], nil, 0
	for range steps {
		a.Floats = append(a.Floats, math.Float64frombits(value.StaleNaN))
	}
}

func (a *Answer) histogram(i int, h *histogram.FloatHistogram) {
	if a.Histograms == nil {
		a.Histograms = make([]*histogram.FloatHistogram, len(a.Floats))
	}
	a.Histograms[i] = h
}
