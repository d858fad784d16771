// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

const hourMS = int64(time.Hour / time.Millisecond)

func hourOf(ms int64) int64 {
	if ms < 0 {
		return -((-ms + hourMS - 1) / hourMS)
	}
	return ms / hourMS
}

// hours is a set of hours of a span.
type hours struct {
	first int64
	set   []bool
}

func newHours(span promplan.Span) hours {
	first := hourOf(span.Start)
	return hours{first: first, set: make([]bool, hourOf(span.End)-first+1)}
}

// add adds the hours from one to another, both included, as far as they are in the span.
func (h *hours) add(from, to int64) {
	for i := max(from, h.first); i <= to && i-h.first < int64(len(h.set)); i++ {
		h.set[i-h.first] = true
	}
}

func (h *hours) window(w lake.Window) {
	if w.Length > 0 {
		h.add(hourOf(w.Start.UnixMilli()), hourOf(w.End().UnixMilli()-1))
	}
}

// counted tells of any stretch of hours how many of them are in a set.
type counted struct {
	first int64
	sums  []int32
}

func (h *hours) count() counted {
	c := counted{first: h.first, sums: make([]int32, len(h.set)+1)}
	for i, in := range h.set {
		c.sums[i+1] = c.sums[i]
		if in {
			c.sums[i+1]++
		}
	}
	return c
}

// meets reports whether one of the hours of a span is in the set.
func (c *counted) meets(s promplan.Span) bool {
	from, to := max(0, hourOf(s.Start)-c.first), min(int64(len(c.sums)-1), hourOf(s.End)-c.first+1)
	return from < to && c.sums[to] > c.sums[from]
}

// choice is a part of a leaf's times and what answers it.
type choice struct {
	grid  promplan.Grid
	level *Level
	bound float64
}

// coverage says of one leaf which level answers which of its times.
type coverage struct {
	levels []candidate
	gone   counted // hours of which rollups are kept and samples are not
}

type candidate struct {
	level   *Level
	bound   float64
	lacking counted // hours that have data but not at this level
}

// held are which hours of a span what is kept of.
type held struct {
	data   hours   // samples or rollups
	levels []hours // rollups, by level
	gone   counted // rollups, and not samples any more
}

func (s *Session) held(span promplan.Span) held {
	h := held{data: newHours(span), levels: make([]hours, len(s.Rollups))}
	samples, gone := newHours(span), newHours(span)
	for i := range s.Samples.Segments {
		segment := &s.Samples.Segments[i]
		from, to := hourOf(segment.FirstTime.UnixMilli()), hourOf(segment.LastTime.UnixMilli())
		samples.add(from, to)
		h.data.add(from, to)
	}
	for i := range s.Rollups {
		h.levels[i] = newHours(span)
		for j := range s.Rollups[i].Segments {
			segment := &s.Rollups[i].Segments[j]
			h.levels[i].window(segment.Window)
			// The first bucket ends up to a resolution behind its first sample, which is one of the window.
			first := max(segment.FirstTime.Add(-s.Rollups[i].Resolution).UnixMilli()+1, segment.Window.Start.UnixMilli())
			from, to := hourOf(first), hourOf(segment.LastTime.UnixMilli())
			h.data.add(from, to)
			if !s.Gone.IsZero() {
				gone.add(from, min(to, hourOf(s.Gone.UnixMilli())-1))
			}
		}
	}
	for i, has := range samples.set {
		gone.set[i] = gone.set[i] && !has
	}
	h.gone = gone.count()
	return h
}

// cover finds out where which level is. Levels that cannot answer the leaf are left out; refused has why. Inexact are resolutions that have turned out not to have the answer.
func (s *Session) cover(leaf *promplan.Leaf, inexact map[time.Duration]bool) (c coverage, refused map[time.Duration]string) {
	span := promplan.Span{Start: leaf.Span.Start - hourMS, End: leaf.Span.End + hourMS}
	h := s.held(span)
	c.gone = h.gone
	refused = map[time.Duration]string{}
	for i := range s.Rollups {
		level := &s.Rollups[i]
		ok, bound, reason := leaf.Answers(level.Resolution)
		if inexact[level.Resolution] {
			ok, reason = false, "its buckets do not have this answer"
		}
		if !ok {
			refused[level.Resolution] = reason
			continue
		}
		lacking := newHours(span)
		for j := range lacking.set {
			lacking.set[j] = h.data.set[j] && !h.levels[i].set[j]
		}
		for _, w := range level.Uncovered {
			lacking.window(w)
		}
		c.levels = append(c.levels, candidate{level: level, bound: bound, lacking: lacking.count()})
	}
	return c, refused
}

// kept refuses to read samples that are not kept any more.
func (s *Session) kept(span promplan.Span) error {
	if len(s.Rollups) == 0 || s.Gone.IsZero() || span.Empty() {
		return nil
	}
	if h := s.held(span); h.gone.meets(span) {
		from, to := span.Times()
		return fault.New(fault.Exhausted, "the query needs samples of %s to %s, and samples are kept since %s only (retention of metrics of resolution 0); ask for a later time",
			stamp(from), stamp(to), stamp(s.Gone))
	}
	return nil
}

// choose parts the times of a leaf by what answers them: for each the coarsest level that has all of what it looks at.
func (s *Session) choose(leaf *promplan.Leaf, inexact map[time.Duration]bool) ([]choice, error) {
	if len(s.Rollups) == 0 {
		return []choice{{grid: leaf.Asked, level: &s.Samples}}, nil
	}
	c, refused := s.cover(leaf, inexact)
	var out []choice
	began := 0
	var last *candidate
	for i := range leaf.Asked.Len() {
		span := leaf.SpanOf(leaf.Asked.Part(i, i+1))
		chosen := c.best(span)
		if chosen == nil && c.gone.meets(span) {
			return nil, s.errGone(leaf, span, refused)
		}
		if i > 0 && chosen != last {
			out, began = append(out, s.choice(leaf, began, i, last)), i
		}
		last = chosen
	}
	if n := leaf.Asked.Len(); n > 0 {
		out = append(out, s.choice(leaf, began, n, last))
	}
	return out, nil
}

func (c *coverage) best(span promplan.Span) *candidate {
	for i := range c.levels {
		if !c.levels[i].lacking.meets(span) {
			return &c.levels[i]
		}
	}
	return nil
}

func (s *Session) choice(leaf *promplan.Leaf, from, to int, of *candidate) choice {
	if of == nil {
		return choice{grid: leaf.Asked.Part(from, to), level: &s.Samples}
	}
	return choice{grid: leaf.Asked.Part(from, to), level: of.level, bound: of.bound}
}

// UsesRollups reports whether a leaf has times that rollups answer.
func (s *Session) UsesRollups(leaf *promplan.Leaf) bool {
	choices, err := s.choose(leaf, nil)
	for _, c := range choices {
		if c.level.Resolution > 0 {
			return true
		}
	}
	return err != nil // which has to be told
}

// errGone says that samples are needed which are not kept any more, and why no rollup stands in for them.
func (s *Session) errGone(leaf *promplan.Leaf, span promplan.Span, refused map[time.Duration]string) error {
	var reasons []string
	for i := range s.Rollups {
		reason, ok := refused[s.Rollups[i].Resolution]
		if !ok {
			reason = "there is none for all of that time"
		}
		reasons = append(reasons, fmt.Sprintf("rollups of %s: %s", model.Duration(s.Rollups[i].Resolution), reason))
	}
	from, to := span.Times()
	return fault.New(fault.Exhausted,
		"%s needs samples of %s to %s, and samples are kept since %s only (retention of metrics of resolution 0). Rollups cannot answer instead: %s. "+
			"Ask for a later time, or with start, range and step that are multiples of a resolution", leaf.Expr, stamp(from), stamp(to), stamp(s.Gone), strings.Join(reasons, "; "))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
