// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// marker is the label of the one matcher that selectors of rewritten calls have: its value is the number of a set of series. It is no UTF-8, so that no
// selector of a user can have it.
const marker = "\xff__delta__"

// rewrites are the functions that treat deltas in a way of their own.
func rewrites(function string) bool {
	return function == "rate" || function == "increase" || function == "irate"
}

// rewrite replaces the calls that found deltas.
func (s *store) rewrite(expr parser.Expr, uses []use) parser.Expr {
	bySelector := map[*parser.VectorSelector]*fetch{}
	for _, u := range uses {
		if u.matrix != nil && rewrites(u.function) && slices.ContainsFunc(u.fetch.series, func(s Series) bool { return s.Delta }) {
			bySelector[u.selector] = u.fetch
		}
	}
	return mapCalls(expr, func(call *parser.Call) parser.Expr {
		if !rewrites(call.Func.Name) {
			return call
		}
		matrix, ok := call.Args[0].(*parser.MatrixSelector)
		if !ok {
			return call
		}
		if asked := bySelector[matrix.VectorSelector.(*parser.VectorSelector)]; asked != nil {
			return s.parts(call, matrix, asked.series)
		}
		return call
	})
}

// mapCalls replaces calls in place, those inside first.
func mapCalls(expr parser.Expr, replace func(*parser.Call) parser.Expr) parser.Expr {
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		n.Expr = mapCalls(n.Expr, replace)
		if n.Param != nil {
			n.Param = mapCalls(n.Param, replace)
		}
	case *parser.BinaryExpr:
		n.LHS, n.RHS = mapCalls(n.LHS, replace), mapCalls(n.RHS, replace)
	case *parser.Call:
		for i := range n.Args {
			n.Args[i] = mapCalls(n.Args[i], replace)
		}
		return replace(n)
	case *parser.ParenExpr:
		n.Expr = mapCalls(n.Expr, replace)
	case *parser.StepInvariantExpr:
		n.Expr = mapCalls(n.Expr, replace)
	case *parser.SubqueryExpr:
		n.Expr = mapCalls(n.Expr, replace)
	case *parser.UnaryExpr:
		n.Expr = mapCalls(n.Expr, replace)
	}
	return expr
}

// parts is (C + D) or C or D of a call over series of both kinds, and D where all are deltas.
func (s *store) parts(call *parser.Call, matrix *parser.MatrixSelector, series []Series) parser.Expr {
	var cumulative, deltas []Series
	for _, one := range series {
		if one.Delta {
			deltas = append(deltas, one)
		} else {
			cumulative = append(cumulative, one)
		}
	}
	d := s.deltaPart(call, matrix, deltas)
	if len(cumulative) == 0 {
		return d
	}
	c := func() parser.Expr {
		counted := *call
		counted.Args = parser.Expressions{s.over(matrix, true, cumulative)}
		return &counted
	}
	both := operation(parser.ADD, c(), Clone(d), parser.CardOneToOne)
	return &parser.ParenExpr{Expr: operation(parser.LOR, operation(parser.LOR, both, c(), parser.CardManyToMany), d, parser.CardManyToMany), PosRange: call.PosRange}
}

// deltaPart is the value of a call over deltas.
func (s *store) deltaPart(call *parser.Call, matrix *parser.MatrixSelector, deltas []Series) parser.Expr {
	at := call.PosRange
	switch call.Func.Name {
	case "irate":
		return s.lastRate(matrix, deltas, at)
	case "rate":
		return operation(parser.DIV, callOver("sum_over_time", s.over(matrix, false, deltas), at), number(matrix.Range.Seconds(), at), noMatching)
	}
	return callOver("sum_over_time", s.over(matrix, false, deltas), at)
}

// lastRate is the last sample of each window by the time that it covers. Where a sample's start is not known, there must be another before it in the window.
func (s *store) lastRate(matrix *parser.MatrixSelector, deltas []Series, at posrange.PositionRange) parser.Expr {
	rates, started, all := ratesOf(deltas)
	last := callOver("last_over_time", s.over(matrix, false, rates), at)
	if all {
		return operation(parser.MUL, last, number(1, at), noMatching) // loses the name
	}
	known := operation(parser.EQLC, callOver("last_over_time", s.over(matrix, false, started), at), number(1, at), noMatching)
	two := operation(parser.GTE, callOver("count_over_time", s.over(matrix, false, rates), at), number(2, at), noMatching)
	either := operation(parser.LOR, known, two, parser.CardManyToMany)
	return operation(parser.MUL, operation(parser.LAND, last, either, parser.CardManyToMany), number(1, at), noMatching)
}

// over is a range of series that are there already. Deltas have no samples between samples: how the window's ends are met does not matter to them.
func (s *store) over(matrix *parser.MatrixSelector, ends bool, series []Series) parser.Expr {
	ranged := Clone(matrix).(*parser.MatrixSelector)
	selector := ranged.VectorSelector.(*parser.VectorSelector)
	if !ends {
		selector.Anchored, selector.Smoothed = false, false
	}
	selector.LabelMatchers = []*labels.Matcher{s.mark(series)}
	return ranged
}

// mark keeps series, and returns the matcher that finds them.
func (s *store) mark(series []Series) *labels.Matcher {
	s.marked = append(s.marked, merged(series))
	return labels.MustNewMatcher(labels.MatchEqual, marker, strconv.Itoa(len(s.marked)-1))
}

// markedSet finds what mark has kept.
func (s *store) markedSet(matchers []*labels.Matcher) (storage.SeriesSet, bool) {
	if len(matchers) != 1 || matchers[0].Name != marker {
		return nil, false
	}
	number, err := strconv.Atoi(matchers[0].Value)
	if err != nil || number >= len(s.marked) {
		return nil, false
	}
	return setOf(s.marked[number]), true
}

const noMatching = parser.VectorMatchCardinality(-1)

func operation(op parser.ItemType, left, right parser.Expr, card parser.VectorMatchCardinality) parser.Expr {
	made := &parser.BinaryExpr{Op: op, LHS: left, RHS: right}
	if card != noMatching {
		made.VectorMatching = &parser.VectorMatching{Card: card}
	}
	return made
}

func callOver(function string, arg parser.Expr, at posrange.PositionRange) parser.Expr {
	return &parser.Call{Func: parser.Functions[function], Args: parser.Expressions{arg}, PosRange: at}
}

func number(v float64, at posrange.PositionRange) parser.Expr {
	return &parser.NumberLiteral{Val: v, PosRange: at}
}

// ratesOf divides each delta by the seconds that it covers. Started has a one where that is known of the sample alone, and a zero where not; all is whether it
// is of all.
func ratesOf(deltas []Series) (rates, started []Series, all bool) {
	all = true
	for i := range deltas {
		r, one := rateOf(&deltas[i])
		rates, started = append(rates, r), append(started, one)
		all = all && !slices.Contains(one.Values, 0)
	}
	return rates, started, all
}

func rateOf(s *Series) (rate, started Series) {
	rate = Series{
		Labels: s.Labels, Times: s.Times, Values: slices.Clone(s.Values), HistogramTimes: s.HistogramTimes, Histograms: slices.Clone(s.Histograms),
	}
	started = Series{Labels: s.Labels}
	before := int64(math.MinInt64)
	it := iterator{view: &view{Series: *s}, float: -1, histogram: -1}
	for it.Next() != chunkenc.ValNone {
		t, known := it.AtT(), math.Float64frombits(value.StaleNaN)
		if !it.stale() {
			since := before
			if known = 0; it.AtST() != 0 && it.AtST() < t {
				since, known = it.AtST(), 1
			}
			seconds := math.NaN() // of a sample of which nothing is known: no window that ends with it has two
			if since != math.MinInt64 {
				seconds = float64(t-since) / 1000
			}
			rate.divide(&it, seconds)
			before = t
		}
		started.Times, started.Values = append(started.Times, t), append(started.Values, known)
	}
	return rate, started
}

// divide divides the sample at which an iterator over the same times stands.
func (s *Series) divide(it *iterator, by float64) {
	if it.kind == chunkenc.ValFloat {
		s.Values[it.float] /= by
		return
	}
	s.Histograms[it.histogram] = s.Histograms[it.histogram].Copy().Div(by)
}

// stale reports whether the current sample is a stale marker.
func (it *iterator) stale() bool {
	if it.kind == chunkenc.ValFloat {
		return value.IsStaleNaN(it.view.Values[it.float])
	}
	return value.IsStaleNaN(it.view.Histograms[it.histogram].Sum)
}
