// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/matrix"
)

// joinMark is the name of the matcher by which a selector stands for a join.
const joinMark = "\xff__join__"

// Join is a part of a query above leaves that is evaluated over whole series, and not step by step: operations of two vectors, with what stands above them.
type Join struct {
	// Expr has selectors in place of leaves.
	Expr  parser.Expr
	Times Grid
}

// JoinOf returns the join that a selector of Expr stands for, by its matchers.
func (q *Query) JoinOf(matchers []*labels.Matcher) (*Join, bool) {
	for _, m := range matchers {
		if m.Name != joinMark {
			continue
		}
		if number, err := strconv.Atoi(m.Value); err == nil && number < len(q.Joins) {
			return q.Joins[number], true
		}
	}
	return nil, false
}

// RootJoin returns the join that is all of the query, if there is one.
func (q *Query) RootJoin() (*Join, bool) {
	if selector, ok := unwrap(q.Expr).(*parser.VectorSelector); ok {
		return q.JoinOf(selector.LabelMatchers)
	}
	return nil, false
}

// join puts selectors in place of the largest parts that are joins.
func (p *planner) join(expr parser.Expr, g Grid) parser.Expr {
	if joins, ok := p.joinable(expr); ok && joins {
		matcher := labels.MustNewMatcher(labels.MatchRegexp, joinMark, strconv.Itoa(len(p.query.Joins)))
		p.query.Joins = append(p.query.Joins, &Join{Expr: expr, Times: g})
		return &parser.VectorSelector{LabelMatchers: []*labels.Matcher{matcher}, PosRange: expr.PositionRange()}
	}
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		n.Expr = p.join(n.Expr, g)
		if n.Param != nil {
			n.Param = p.join(n.Param, g)
		}
	case *parser.BinaryExpr:
		n.LHS, n.RHS = p.join(n.LHS, g), p.join(n.RHS, g)
	case *parser.Call:
		if n.Func.Name == "info" {
			return n
		}
		for i := range n.Args {
			n.Args[i] = p.join(n.Args[i], g)
		}
	case *parser.ParenExpr:
		n.Expr = p.join(n.Expr, g)
	case *parser.SubqueryExpr:
		n.Expr = p.join(n.Expr, g.inside(n))
	case *parser.UnaryExpr:
		n.Expr = p.join(n.Expr, g)
	}
	return expr
}

// joinable reports whether an expression can be evaluated over whole series, and whether two vectors meet in it.
func (p *planner) joinable(expr parser.Expr) (joins, ok bool) {
	switch n := expr.(type) {
	case *parser.VectorSelector:
		_, ok := p.query.LeafOf(n.LabelMatchers)
		return false, ok
	case *parser.ParenExpr:
		return p.joinable(n.Expr)
	case *parser.UnaryExpr:
		return p.joinable(n.Expr)
	case *parser.AggregateExpr:
		if !matrix.Aggregates(n.Op) {
			return false, false
		}
		return p.joinable(n.Expr)
	case *parser.BinaryExpr:
		return p.joinableBinary(n)
	}
	return false, false
}

func (p *planner) joinableBinary(n *parser.BinaryExpr) (joins, ok bool) {
	if !matrix.Supports(n.Op) {
		return false, false
	}
	if _, number := Number(n.RHS); number {
		return p.joinable(n.LHS)
	}
	if _, number := Number(n.LHS); number {
		return p.joinable(n.RHS)
	}
	m := n.VectorMatching
	if m == nil || m.FillValues.LHS != nil || m.FillValues.RHS != nil {
		return false, false
	}
	_, left := p.joinable(n.LHS)
	_, right := p.joinable(n.RHS)
	return true, left && right
}

// Number returns the value of an expression that is a number.
func Number(expr parser.Expr) (float64, bool) {
	switch n := expr.(type) {
	case *parser.NumberLiteral:
		return n.Val, true
	case *parser.ParenExpr:
		return Number(n.Expr)
	case *parser.UnaryExpr:
		v, ok := Number(n.Expr)
		if n.Op == parser.SUB {
			v = -v
		}
		return v, ok
	}
	return 0, false
}
