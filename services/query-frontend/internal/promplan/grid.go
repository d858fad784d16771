// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// Grid are evaluation times in Unix milliseconds: Start, Start+Step, ... up to End.
type Grid struct{ Start, End, Step int64 } // a step of zero: Start alone

// Len returns how many times there are.
func (g Grid) Len() int {
	switch {
	case g.End < g.Start:
		return 0
	case g.Step <= 0:
		return 1
	}
	return int((g.End-g.Start)/g.Step) + 1
}

// At returns the time with a number.
func (g Grid) At(i int) int64 { return g.Start + int64(i)*g.Step }

// Last returns the last time; Start if there is none.
func (g Grid) Last() int64 { return g.At(max(0, g.Len()-1)) }

// Index returns the number of a time; false: it is none.
func (g Grid) Index(ms int64) (int, bool) {
	switch {
	case ms < g.Start || ms > g.End:
		return 0, false
	case ms == g.Start:
		return 0, true
	case g.Step <= 0 || (ms-g.Start)%g.Step != 0:
		return 0, false
	}
	return int((ms - g.Start) / g.Step), true
}

// Part returns the times with numbers from, up to and without to.
func (g Grid) Part(from, to int) Grid {
	return Grid{Start: g.At(from), End: g.At(to - 1), Step: g.Step}
}

// inside returns the times at which the expression of a subquery is evaluated, as Prometheus' engine computes them.
func (g Grid) inside(subquery *parser.SubqueryExpr) Grid {
	start, end := g.Start, g.Last()
	if subquery.Timestamp != nil {
		start, end = *subquery.Timestamp, *subquery.Timestamp
	}
	offset, interval := subquery.OriginalOffset.Milliseconds(), subquery.Step.Milliseconds()
	least := start - offset - subquery.Range.Milliseconds()
	first := interval * (least / interval)
	if first <= least {
		first += interval
	}
	return Grid{Start: first, End: end - offset, Step: interval}
}

// Span is a stretch of Unix milliseconds, both inclusive. One with End before Start is empty.
type Span struct{ Start, End int64 }

// Empty reports whether there is nothing in it.
func (s Span) Empty() bool { return s.End < s.Start }

// With returns the least span that has both.
func (s Span) With(o Span) Span {
	switch {
	case s.Empty():
		return o
	case o.Empty():
		return s
	}
	return Span{Start: min(s.Start, o.Start), End: max(s.End, o.End)}
}

// Times returns it as times from, inclusive, to, exclusive.
func (s Span) Times() (from, to time.Time) { return time.UnixMilli(s.Start), time.UnixMilli(s.End + 1) }

var nothing = Span{Start: 0, End: -1}

// spanOf returns which samples an expression needs that is evaluated at the times of a grid.
func spanOf(expr parser.Expr, g Grid, lookback int64) Span {
	if g.Len() == 0 {
		return nothing
	}
	switch n := expr.(type) {
	case *parser.VectorSelector:
		return selectorSpan(n, g, 0, lookback)
	case *parser.MatrixSelector:
		return selectorSpan(n.VectorSelector.(*parser.VectorSelector), g, n.Range.Milliseconds(), lookback)
	case *parser.SubqueryExpr:
		return spanOf(n.Expr, g.inside(n), lookback)
	case *parser.Call:
		if n.Func.Name == "info" {
			return infoSpan(n, g, lookback)
		}
	}
	span := nothing
	for child := range parser.ChildrenIter(expr) {
		if e, ok := child.(parser.Expr); ok {
			span = span.With(spanOf(e, g, lookback))
		}
	}
	return span
}

// selectorSpan is the engine's own reckoning: windows are open on the left.
func selectorSpan(s *parser.VectorSelector, g Grid, window, lookback int64) Span {
	start, end := g.Start, g.Last()
	if s.Timestamp != nil {
		start, end = *s.Timestamp, *s.Timestamp
	}
	if window == 0 || s.Anchored || s.Smoothed {
		window += lookback
	}
	if s.Smoothed {
		end += lookback
	}
	offset := s.OriginalOffset.Milliseconds()
	return Span{Start: start - window - offset + 1, End: end - offset}
}

// infoSpan adds what info reads of info metrics: at the times of evaluation, or at those of a selector of its first argument.
func infoSpan(call *parser.Call, g Grid, lookback int64) Span {
	span := spanOf(call.Args[0], g, lookback)
	span = span.With(Span{Start: g.Start - lookback + 1, End: g.Last()})
	return Span{Start: span.Start - lookback, End: span.End}
}
