// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// ErrInexact says that buckets do not have the answer though their resolution may have it: samples of two rows of one series that lie between each other, a
// quantile without sketches, histograms whose layout changed, sums that overflowed. The samples themselves have to answer.
var ErrInexact = fault.New(fault.Unsupported, "the rollup does not have this answer: samples have to")

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

// Evaluate answers a question over the lanes of one Prometheus series, which were made for its function. It refuses (fault.Unsupported) what Exact does not
// allow, and returns ErrInexact where the buckets do not have the answer.
func Evaluate(q *Question, lanes []*Lane, a *Answer) error {
	if ok, _, reason := q.Exact(); !ok {
		return fault.New(fault.Unsupported, "%s", reason)
	}
	for _, l := range lanes {
		if l.function != q.Function {
			return fault.New(fault.Internal, "a lane for %q is asked for %q", l.function, q.Function)
		}
	}
	a.reset(q.Steps())
	e := evaluation{q: q, a: a}
	switch q.Function {
	case Instant, Timestamp:
		e.instant(lanes)
		return nil
	case Rate, Increase:
		return e.rates(lanes)
	}
	return e.ranges(lanes)
}

// evaluation is one question over the lanes of one series.
type evaluation struct {
	q        *Question
	a        *Answer
	sketcher sketcher
}

// span is which buckets of a lane lie in the range before a step.
type span struct {
	*Lane
	from, to int
}

// spanned is a lane before the first step.
func (e *evaluation) spanned(l *Lane) span {
	if l == nil {
		return span{Lane: &Lane{}}
	}
	end := e.q.Start - e.q.Offset
	start := l.seek(end - e.q.Width)
	return span{l, start, start}
}

// advance goes on to the range before a time, and reports whether samples are in it.
func (s *span) advance(end, width int64) bool {
	s.from, s.to = s.behind(s.from, end-width), s.behind(max(s.to, s.from), end)
	for s.from < s.to && s.counts[s.from] == 0 {
		s.from++
	}
	return s.from < s.to
}

// count is the number of samples.
func (s *span) count() int64 {
	n := int64(0)
	for _, c := range s.counts[s.from:s.to] {
		n += c
	}
	return n
}

// final is the last bucket with samples.
func (s *span) final() int {
	last := s.to - 1
	for s.counts[last] == 0 {
		last--
	}
	return last
}

// each calls a function with the end of the range of each step.
func (e *evaluation) each(do func(i int, end int64) error) error {
	for i := range e.a.Floats {
		if err := do(i, e.q.Start+int64(i)*e.q.Step-e.q.Offset); err != nil {
			return err
		}
	}
	return nil
}

// instant answers Instant and Timestamp: the last sample of all lanes, stale markers included.
func (e *evaluation) instant(lanes []*Lane) {
	places := make([]int, len(lanes))
	for i := range e.a.Floats {
		end := e.q.Start + int64(i)*e.q.Step - e.q.Offset
		latest, lane, stale := int64(math.MinInt64), -1, false
		for n, l := range lanes {
			if places[n] == 0 {
				places[n] = l.seek(end)
			}
			places[n] = l.behind(places[n], end)
			at, marked, there := l.latest(places[n] - 1)
			if there && (at > latest || at == latest && l.native) {
				latest, lane, stale = at, n, marked
			}
		}
		if lane < 0 || stale || latest <= end-e.q.Width {
			continue
		}
		e.found(i, lanes[lane], places[lane]-1, latest)
	}
}

// latest is when the last sample or stale marker of a bucket was.
func (l *Lane) latest(i int) (ms int64, stale, there bool) {
	switch {
	case i < 0:
		return 0, false, false
	case l.counts[i] == 0 || l.staleTimes[i] > l.lastTimes[i] && l.staleTimes[i] != 0:
		return l.staleTimes[i], true, true
	}
	return l.lastTimes[i], false, true
}

// found answers a step by the last sample of a bucket.
func (e *evaluation) found(i int, l *Lane, bucket int, ms int64) {
	switch {
	case e.q.Function == Timestamp:
		e.a.Floats[i] = float64(ms) / 1000
	case l.native:
		e.a.histogram(i, l.lastOf[bucket].Copy())
	default:
		e.a.Floats[i] = l.last[bucket]
	}
}

// split parts lanes by what their samples are.
func split(lanes []*Lane, native bool, keep func(*Lane) bool) (*Lane, error) {
	var of []*Lane
	for _, l := range lanes {
		if l.native == native && keep(l) {
			of = append(of, l)
		}
	}
	return joined(of)
}

// ranges answers functions to which deltas are samples like others.
func (e *evaluation) ranges(lanes []*Lane) error {
	all := func(*Lane) bool { return true }
	floats, err := split(lanes, false, all)
	if err != nil {
		return err
	}
	natives, err := split(lanes, true, all)
	if err != nil {
		return err
	}
	f, h := e.spanned(floats), e.spanned(natives)
	return e.each(func(i int, end int64) error {
		withFloats, withNatives := f.advance(end, e.q.Width), h.advance(end, e.q.Width)
		switch {
		case !withFloats && !withNatives:
			return nil
		case withFloats && withNatives:
			return e.both(i, end, &f, &h)
		case withFloats:
			return e.overFloats(i, end, &f)
		}
		return e.overNatives(i, end, &h)
	})
}

// both answers a step whose range has floats and native histograms.
func (e *evaluation) both(i int, end int64, f, h *span) error {
	a, first, last := e.a, f.firstTimes[f.from], f.lastTimes[f.final()]
	switch e.q.Function {
	case Delta, Sum, Average:
		a.Notes |= NoteMixed
		return nil
	case Min, Max, Quantile:
		a.Notes |= NoteIgnored
		return e.overFloats(i, end, f)
	case Count:
		a.Floats[i] = float64(f.count() + h.count())
		return nil
	case First, FirstTime:
		if first < h.firstTimes[h.from] {
			return e.overFloats(i, end, f)
		}
	case Last, LastTime:
		if h.lastTimes[h.final()] < last {
			return e.overFloats(i, end, f)
		}
	}
	return e.overNatives(i, end, h)
}

// overFloats answers a step from floats, of which there are some.
func (e *evaluation) overFloats(i int, end int64, s *span) (err error) {
	out := &e.a.Floats[i]
	switch e.q.Function {
	case Delta:
		if v, ok, err := s.rate(e.q, end); ok || err != nil {
			*out = v
			return err
		}
	case Count:
		*out = float64(s.count())
	case Present:
		*out = 1
	case Sum:
		sum, compensation := s.summed()
		*out = compensated(sum, compensation)
	case Average:
		*out, err = s.average()
	case Min:
		*out = s.least()
	case Max:
		*out = s.most()
	case First:
		*out = s.first[s.from]
	case Last:
		*out = s.last[s.final()]
	case FirstTime:
		*out = float64(s.firstTimes[s.from]) / 1000
	case LastTime:
		*out = float64(s.lastTimes[s.final()]) / 1000
	case Quantile:
		*out, err = e.quantile(s)
	}
	return err
}

// overNatives answers a step from native histograms, of which there are some.
func (e *evaluation) overNatives(i int, end int64, s *span) (err error) {
	switch e.q.Function {
	case Delta:
		h, err := e.nativeRate(s, end)
		if h != nil {
			e.a.histogram(i, h)
		}
		return err
	case Count:
		e.a.Floats[i] = float64(s.count())
	case Present:
		e.a.Floats[i] = 1
	case Sum, Average:
		if h := e.nativeSum(s); h != nil {
			e.a.histogram(i, h)
		}
	case First:
		e.a.histogram(i, s.firstOf[s.from].Copy())
	case Last:
		e.a.histogram(i, s.lastOf[s.final()].Copy())
	case FirstTime:
		e.a.Floats[i] = float64(s.firstTimes[s.from]) / 1000
	case LastTime:
		e.a.Floats[i] = float64(s.lastTimes[s.final()]) / 1000
	}
	return nil
}

// rates answers Rate and Increase: those of counters, and the sums of deltas, added up where there are both.
func (e *evaluation) rates(lanes []*Lane) error {
	var s [4]span
	for n := range s {
		delta, native := n&1 != 0, n&2 != 0
		lane, err := split(lanes, native, func(l *Lane) bool { return l.delta == delta })
		if err != nil {
			return err
		}
		s[n] = e.spanned(lane)
	}
	return e.each(func(i int, end int64) error {
		var with [4]bool
		for n := range s {
			with[n] = s[n].advance(end, e.q.Width)
		}
		counter, err := e.counted(with[0], with[2], &s[0], &s[2], end)
		if err != nil {
			return err
		}
		e.a.put(i, plus(counter, e.deltas(with[1], with[3], &s[1], &s[3])))
		return nil
	})
}

// sample is a float or a histogram, or nothing.
type sample struct {
	float  float64
	native *histogram.FloatHistogram
	there  bool
}

func (a *Answer) put(i int, s sample) {
	switch {
	case s.native != nil:
		a.histogram(i, s.native)
	case s.there:
		a.Floats[i] = s.float
	}
}

// plus is (a + b) or a or b.
func plus(a, b sample) sample {
	switch {
	case !b.there:
		return a
	case !a.there:
		return b
	case a.native == nil && b.native == nil:
		return sample{float: a.float + b.float, there: true}
	case a.native != nil && b.native != nil:
		if sum := added(a.native, b.native); sum != nil {
			return sample{native: sum, there: true}
		}
	}
	return a
}

// counted is the rate or increase of counters.
func (e *evaluation) counted(floats, natives bool, f, h *span, end int64) (sample, error) {
	switch {
	case floats && natives:
		e.a.Notes |= NoteMixed
	case floats:
		v, ok, err := f.rate(e.q, end)
		return sample{float: v, there: ok}, err
	case natives:
		v, err := e.nativeRate(h, end)
		return sample{native: v, there: v != nil}, err
	}
	return sample{}, nil
}

// deltas is the sum of deltas, by second for a rate.
func (e *evaluation) deltas(floats, natives bool, f, h *span) sample {
	per := 1.0
	if e.q.Function == Rate {
		per = float64(e.q.Width) / 1000
	}
	switch {
	case floats && natives:
		e.a.Notes |= NoteMixed
	case floats:
		sum, compensation := f.summed()
		return sample{float: compensated(sum, compensation) / per, there: true}
	case natives:
		if sum := e.nativeSum(h); sum != nil {
			return sample{native: sum.Div(per), there: true}
		}
	}
	return sample{}
}

func inexact(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInexact, fmt.Sprintf(format, args...))
}
