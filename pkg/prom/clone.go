// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
)

// Clone copies an expression deeply: evaluation writes into the one that it is given. Positions stay.
func Clone(expr parser.Expr) parser.Expr {
	switch n := expr.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		c := *n
		c.Expr, c.Param, c.Grouping = Clone(n.Expr), Clone(n.Param), slices.Clone(n.Grouping)
		return &c
	case *parser.BinaryExpr:
		c := *n
		c.LHS, c.RHS, c.VectorMatching = Clone(n.LHS), Clone(n.RHS), cloneMatching(n.VectorMatching)
		return &c
	case *parser.Call:
		c := *n
		c.Args = make(parser.Expressions, len(n.Args))
		for i, arg := range n.Args {
			c.Args[i] = Clone(arg)
		}
		return &c
	case *parser.DurationExpr:
		return cloneDuration(n)
	case *parser.MatrixSelector:
		c := *n
		c.VectorSelector, c.RangeExpr = Clone(n.VectorSelector), cloneDuration(n.RangeExpr)
		return &c
	case *parser.NumberLiteral:
		c := *n
		return &c
	case *parser.ParenExpr:
		c := *n
		c.Expr = Clone(n.Expr)
		return &c
	case *parser.StepInvariantExpr:
		return &parser.StepInvariantExpr{Expr: Clone(n.Expr)}
	case *parser.StringLiteral:
		c := *n
		return &c
	case *parser.SubqueryExpr:
		c := *n
		c.Expr, c.RangeExpr, c.OriginalOffsetExpr, c.StepExpr = Clone(n.Expr), cloneDuration(n.RangeExpr), cloneDuration(n.OriginalOffsetExpr), cloneDuration(n.StepExpr)
		c.Timestamp = clonePointer(n.Timestamp)
		return &c
	case *parser.UnaryExpr:
		c := *n
		c.Expr = Clone(n.Expr)
		return &c
	case *parser.VectorSelector:
		c := *n
		c.LabelMatchers, c.OriginalOffsetExpr, c.Timestamp = slices.Clone(n.LabelMatchers), cloneDuration(n.OriginalOffsetExpr), clonePointer(n.Timestamp)
		c.Series, c.UnexpandedSeriesSet = nil, nil
		return &c
	}
	panic(fmt.Sprintf("an expression of a kind that is not known: %T", expr))
}

// cloneDuration keeps nil a nil pointer.
func cloneDuration(d *parser.DurationExpr) *parser.DurationExpr {
	if d == nil {
		return nil
	}
	c := *d
	c.LHS, c.RHS = Clone(d.LHS), Clone(d.RHS)
	return &c
}

func cloneMatching(m *parser.VectorMatching) *parser.VectorMatching {
	if m == nil {
		return nil
	}
	c := *m
	c.MatchingLabels, c.Include = slices.Clone(m.MatchingLabels), slices.Clone(m.Include)
	return &c
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
