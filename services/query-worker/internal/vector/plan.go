// SPDX-License-Identifier: AGPL-3.0-only

package vector

import (
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// Plan is an expression of a shape that this package evaluates.
type Plan struct {
	Matchers []*labels.Matcher
	Question Question
	// Aggregation is nil where each series is an answer.
	Aggregation *Aggregation
	// At is where the selector stands, with its range: what is remarked is about it.
	At posrange.PositionRange
}

// Operation is an aggregation operator, by its name in PromQL.
type Operation string

// The operations.
const (
	OfSum     Operation = "sum"
	OfAverage Operation = "avg"
	OfMin     Operation = "min"
	OfMax     Operation = "max"
	OfCount   Operation = "count"
	OfGroup   Operation = "group"
)

// Aggregation is how series are put together.
type Aggregation struct {
	Operation Operation
	Without   bool
	Labels    []string // sorted, distinct; __name__ among them where they are those to leave out
}

// PlanOf returns the plan of an expression; false: it is of another shape.
func PlanOf(expr parser.Expr, grid Grid, lookback time.Duration) (*Plan, bool) {
	expr = unwrapped(expr)
	p := &Plan{Question: Question{Grid: grid}}
	if e, ok := expr.(*parser.AggregateExpr); ok {
		a, ok := aggregationOf(e)
		if !ok {
			return nil, false
		}
		p.Aggregation, expr = a, unwrapped(e.Expr)
	}
	switch e := expr.(type) {
	case *parser.VectorSelector:
		p.Question.Width, p.At = lookback.Milliseconds(), e.PositionRange()
		return p, p.selects(e)
	case *parser.Call:
		ok := p.calls(e)
		p.forgetName()
		return p, ok
	}
	return nil, false
}

// forgetName groups by no name where the function takes it away.
func (p *Plan) forgetName() {
	if a := p.Aggregation; a != nil && !a.Without && !p.Question.Function.KeepsName() {
		a.Labels = slices.DeleteFunc(a.Labels, func(name string) bool { return name == model.MetricNameLabel })
	}
}

func unwrapped(expr parser.Expr) parser.Expr {
	for {
		paren, ok := expr.(*parser.ParenExpr)
		if !ok {
			return expr
		}
		expr = paren.Expr
	}
}

func aggregationOf(e *parser.AggregateExpr) (*Aggregation, bool) {
	switch op := Operation(e.Op.String()); op {
	case OfSum, OfAverage, OfMin, OfMax, OfCount, OfGroup:
		names := slices.Clone(e.Grouping)
		if e.Without {
			names = append(names, model.MetricNameLabel)
		}
		slices.Sort(names)
		return &Aggregation{Operation: op, Without: e.Without, Labels: slices.Compact(names)}, e.Param == nil
	}
	return nil, false
}

func (p *Plan) calls(e *parser.Call) bool {
	if !known(e.Func.Name) || len(e.Args) != 1 {
		return false
	}
	matrix, ok := unwrapped(e.Args[0]).(*parser.MatrixSelector)
	if !ok || matrix.RangeExpr != nil {
		return false
	}
	p.Question.Function, p.Question.Width, p.At = Function(e.Func.Name), matrix.Range.Milliseconds(), matrix.PositionRange()
	return p.Question.Width > 0 && p.selects(matrix.VectorSelector.(*parser.VectorSelector))
}

// selects takes over a selector. Those with @, or with other ends than Prometheus has had for long, are the engine's.
func (p *Plan) selects(e *parser.VectorSelector) bool {
	p.Matchers, p.Question.Offset = e.LabelMatchers, e.OriginalOffset.Milliseconds()
	return e.Timestamp == nil && e.StartOrEnd == 0 && e.OriginalOffsetExpr == nil && !e.Anchored && !e.Smoothed
}
