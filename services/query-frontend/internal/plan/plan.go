// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
)

// Kind is what a query asks for.
type Kind uint8

// The kinds of query.
const (
	KindLogs     Kind = iota // log lines
	KindSamples              // samples made from log rows
	KindConstant             // samples made from nothing, as vector(1)+vector(1)
)

// Merge says how the values of one series and step over two parts of the rows become the value over both.
type Merge uint8

// The ways of merging. MergeNone is a leaf's that cannot be merged: its rows have to meet.
const (
	MergeNone Merge = iota
	MergeSum
	MergeMin
	MergeMax
)

// String names the way of merging.
func (m Merge) String() string {
	switch m {
	case MergeSum:
		return "sum"
	case MergeMin:
		return "min"
	case MergeMax:
		return "max"
	}
	return "rows"
}

// Of merges two values, as Loki's own aggregations treat them: a NaN gives way to any number under min and max.
func (m Merge) Of(a, b float64) float64 {
	switch {
	case m == MergeSum:
		return a + b
	case math.IsNaN(a), m == MergeMin && b < a, m == MergeMax && b > a:
		return b
	}
	return a
}

// Leaf is a part of a metric query that reads log rows.
type Leaf struct {
	// Expr is the part as it was written; its value is what the leaf has to deliver.
	Expr syntax.SampleExpr
	// Push is the expression that workers evaluate over their segments.
	Push string
	// Merge merges their answers. MergeNone: only a worker that sees all the leaf's rows may evaluate Push.
	Merge Merge
	// Divisor divides merged values: the seconds of a rate. Zero: nothing is divided.
	Divisor float64
	// Rows selects a superset of the leaf's rows, unchanged by any stage of its pipeline: for when the rows have to meet here.
	Rows string
	// Selector is the leaf's log selector with its pipeline.
	Selector syntax.LogSelectorExpr
	// Range and Offset are those of its range.
	Range, Offset time.Duration
}

// Span returns the times [from, to) of the rows that the leaf needs for evaluations between start and end. A range is open on
// the left and closed on the right, hence the nanosecond.
func (l *Leaf) Span(start, end time.Time) (from, to time.Time) {
	return start.Add(-l.Range - l.Offset), end.Add(-l.Offset + time.Nanosecond)
}

// Query is a parsed query.
type Query struct {
	Text string
	Kind Kind
	// Expr is the query as Loki's engine evaluates it: every leaf is a logql.DownstreamSampleExpr.
	Expr syntax.Expr
	// Logs is the selector of a log query.
	Logs   syntax.LogSelectorExpr
	Leaves []*Leaf
	byExpr map[syntax.SampleExpr]*Leaf
}

// Leaf returns the leaf whose expression stands inside a logql.DownstreamSampleExpr of q.Expr.
func (q *Query) Leaf(expr syntax.Expr) (*Leaf, bool) {
	sample, ok := expr.(syntax.SampleExpr)
	if !ok {
		return nil, false
	}
	leaf, ok := q.byExpr[sample]
	return leaf, ok
}

// Span returns the times [from, to) of all rows that q needs for a range from start to end.
func (q *Query) Span(start, end time.Time) (from, to time.Time) {
	if q.Kind == KindLogs {
		return start, end
	}
	for i, leaf := range q.Leaves {
		f, t := leaf.Span(start, end)
		if i == 0 || f.Before(from) {
			from = f
		}
		if i == 0 || t.After(to) {
			to = t
		}
	}
	return from, to
}

// Parse parses and plans a query. Its errors are Loki's parse errors.
func Parse(text string) (*Query, error) {
	expr, err := syntax.ParseExpr(text)
	if err != nil {
		return nil, err
	}
	q := &Query{Text: text, byExpr: map[syntax.SampleExpr]*Leaf{}}
	switch e := expr.(type) {
	case syntax.VariantsExpr:
		return nil, logqlmodel.ErrVariantsDisabled
	case syntax.SampleExpr:
		return q, q.planSamples(e)
	case syntax.LogSelectorExpr:
		q.Kind, q.Expr, q.Logs = KindLogs, e, e
		return q, nil
	}
	return nil, fmt.Errorf("%w: unexpected expression %T", errors.ErrUnsupported, expr)
}

func (q *Query) planSamples(expr syntax.SampleExpr) error {
	mapped, err := q.mark(expr)
	if err != nil {
		return err
	}
	q.Expr, q.Kind = mapped, KindSamples
	if len(q.Leaves) == 0 {
		q.Kind = KindConstant
	}
	return nil
}

// mark rewrites an expression with its leaves marked.
func (q *Query) mark(expr syntax.SampleExpr) (syntax.SampleExpr, error) {
	switch e := expr.(type) {
	case *syntax.LiteralExpr, *syntax.VectorExpr:
		return expr, nil
	case *syntax.RangeAggregationExpr:
		return q.leaf(e, e)
	case *syntax.VectorAggregationExpr:
		return q.markAggregation(e)
	case *syntax.LabelReplaceExpr:
		left, err := q.mark(e.Left)
		if err != nil {
			return nil, err
		}
		replaced := *e
		replaced.Left = left
		return &replaced, nil
	case *syntax.BinOpExpr:
		return q.markBinary(e)
	}
	return nil, fmt.Errorf("%w: unexpected expression %T", errors.ErrUnsupported, expr)
}

func (q *Query) markAggregation(e *syntax.VectorAggregationExpr) (syntax.SampleExpr, error) {
	aggregated := *e
	if e.Operation == syntax.OpTypeApproxTopK {
		aggregated.Operation = syntax.OpTypeTopK
	}
	inner, isRange := e.Left.(*syntax.RangeAggregationExpr)
	if isRange && mergesUnder(e.Operation, inner) {
		merged, err := q.leaf(e, inner)
		if err != nil {
			return nil, err
		}
		return merged, nil
	}
	left, err := q.mark(e.Left)
	if err != nil {
		return nil, err
	}
	aggregated.Left = left
	return &aggregated, nil
}

func (q *Query) markBinary(e *syntax.BinOpExpr) (syntax.SampleExpr, error) {
	left, err := q.mark(e.SampleExpr)
	if err != nil {
		return nil, err
	}
	right, err := q.mark(e.RHS)
	if err != nil {
		return nil, err
	}
	joined := *e
	joined.SampleExpr, joined.RHS = left, right
	return &joined, nil
}

// leaf registers expr, which is inner or an aggregation over it, as a leaf.
func (q *Query) leaf(expr syntax.SampleExpr, inner *syntax.RangeAggregationExpr) (syntax.SampleExpr, error) {
	selector, err := inner.Selector()
	if err != nil {
		return nil, err
	}
	leaf := &Leaf{
		Expr:     expr,
		Rows:     rowsSelector(selector),
		Selector: selector,
		Range:    inner.Left.Interval,
		Offset:   inner.Left.Offset,
	}
	if err := leaf.push(inner); err != nil {
		return nil, err
	}
	q.Leaves = append(q.Leaves, leaf)
	q.byExpr[expr] = leaf
	return logql.DownstreamSampleExpr{SampleExpr: expr}, nil
}

// push fills in what workers are asked.
func (l *Leaf) push(inner *syntax.RangeAggregationExpr) error {
	sent := *inner
	sent.Operation, l.Divisor = undivided(inner)
	l.Merge = mergeOf(sent.Operation)
	var expr syntax.SampleExpr = &sent
	if outer, ok := l.Expr.(*syntax.VectorAggregationExpr); ok {
		wrapped := *outer
		wrapped.Left = &sent
		expr = &wrapped
	}
	text, err := exactText(expr)
	if err != nil {
		return err
	}
	l.Push = text
	if !sameRange(text, l) {
		l.Push, l.Merge, l.Divisor = "", MergeNone, 0
	}
	return nil
}

// mergesUnder reports whether a vector aggregation over a range aggregation merges over any partition of rows, and not only
// the range aggregation does.
func mergesUnder(vector string, inner *syntax.RangeAggregationExpr) bool {
	operation, _ := undivided(inner)
	switch mergeOf(operation) {
	case MergeSum:
		return vector == syntax.OpTypeSum
	case MergeMin:
		return vector == syntax.OpTypeMin
	case MergeMax:
		return vector == syntax.OpTypeMax
	}
	return false
}

func mergeOf(operation string) Merge {
	switch operation {
	case syntax.OpRangeTypeCount, syntax.OpRangeTypeBytes, syntax.OpRangeTypeSum:
		return MergeSum
	case syntax.OpRangeTypeMin:
		return MergeMin
	case syntax.OpRangeTypeMax:
		return MergeMax
	}
	return MergeNone
}

// undivided splits a rate into what it counts and the seconds it is divided by.
func undivided(e *syntax.RangeAggregationExpr) (operation string, seconds float64) {
	switch e.Operation {
	case syntax.OpRangeTypeRate:
		if e.Left.Unwrap != nil {
			return syntax.OpRangeTypeSum, e.Left.Interval.Seconds()
		}
		return syntax.OpRangeTypeCount, e.Left.Interval.Seconds()
	case syntax.OpRangeTypeBytesRate:
		return syntax.OpRangeTypeBytes, e.Left.Interval.Seconds()
	}
	return e.Operation, 0
}
