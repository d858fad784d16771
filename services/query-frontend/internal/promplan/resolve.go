// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// DefaultSubqueryStep is the step of a subquery that names none: Prometheus' default evaluation interval.
const DefaultSubqueryStep = time.Minute

// resolver writes into an expression what the query's own range and step make of it, as Prometheus' engine does before it evaluates.
type resolver struct {
	start, end time.Time
	step       time.Duration // zero: an instant query
	err        error
}

// expr resolves expressions in place, and returns the one to stand in place of e.
func (r *resolver) expr(e parser.Expr) parser.Expr {
	switch n := e.(type) {
	case *parser.AggregateExpr:
		n.Expr = r.expr(n.Expr)
		if n.Param != nil {
			n.Param = r.expr(n.Param)
		}
	case *parser.BinaryExpr:
		n.LHS, n.RHS = r.expr(n.LHS), r.expr(n.RHS)
	case *parser.Call:
		if value, ok := r.context(n.Func.Name); ok {
			return &parser.NumberLiteral{Val: value, PosRange: n.PosRange}
		}
		for i := range n.Args {
			n.Args[i] = r.expr(n.Args[i])
		}
	case *parser.MatrixSelector:
		n.Range, n.RangeExpr = r.length(n.Range, n.RangeExpr, false), nil
		r.expr(n.VectorSelector)
	case *parser.ParenExpr:
		n.Expr = r.expr(n.Expr)
	case *parser.SubqueryExpr:
		r.subquery(n)
	case *parser.UnaryExpr:
		n.Expr = r.expr(n.Expr)
	case *parser.VectorSelector:
		n.OriginalOffset, n.OriginalOffsetExpr = r.length(n.OriginalOffset, n.OriginalOffsetExpr, true), nil
		n.Timestamp, n.StartOrEnd = r.at(n.Timestamp, n.StartOrEnd), 0
	}
	return e
}

func (r *resolver) subquery(n *parser.SubqueryExpr) {
	n.OriginalOffset, n.OriginalOffsetExpr = r.length(n.OriginalOffset, n.OriginalOffsetExpr, true), nil
	n.Step, n.StepExpr = r.length(n.Step, n.StepExpr, false), nil
	n.Range, n.RangeExpr = r.length(n.Range, n.RangeExpr, false), nil
	n.Timestamp, n.StartOrEnd = r.at(n.Timestamp, n.StartOrEnd), 0
	if n.Step == 0 {
		n.Step = DefaultSubqueryStep
	}
	n.Expr = r.expr(n.Expr)
}

// context is the value of a function of the query itself.
func (r *resolver) context(function string) (float64, bool) {
	switch function {
	case "start":
		return float64(r.start.UnixMilli()) / 1000, true
	case "end":
		return float64(r.end.UnixMilli()) / 1000, true
	case "range":
		return r.end.Sub(r.start).Seconds(), true
	case "step":
		if r.start.Equal(r.end) {
			return 0, true
		}
		return r.step.Seconds(), true
	}
	return 0, false
}

func (r *resolver) at(fixed *int64, end parser.ItemType) *int64 {
	var ms int64
	switch end {
	case parser.START:
		ms = r.start.UnixMilli()
	case parser.END:
		ms = r.end.UnixMilli()
	default:
		return fixed
	}
	return &ms
}

// length is a duration, or what an expression of durations comes to.
func (r *resolver) length(fixed time.Duration, expr *parser.DurationExpr, negative bool) time.Duration {
	if expr == nil || r.err != nil {
		return fixed
	}
	seconds := r.seconds(expr)
	at := expr.PositionRange()
	switch {
	case r.err != nil:
	case math.IsNaN(seconds) || math.IsInf(seconds, 0):
		r.fail("%d:%d: duration is NaN or infinite", at.Start, at.End)
	case seconds <= 0 && !negative:
		r.fail("%d:%d: duration must be greater than 0", at.Start, at.End)
	case seconds > 1<<63/1e9 || seconds < -(1<<63)/1e9:
		r.fail("%d:%d: duration is out of range", at.Start, at.End)
	}
	if r.err != nil {
		return time.Second
	}
	return time.Duration(seconds*1000) * time.Millisecond
}

func (r *resolver) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fault.New(fault.Invalid, format, args...)
	}
}

func (r *resolver) seconds(expr parser.Expr) float64 {
	switch n := expr.(type) {
	case *parser.NumberLiteral:
		return n.Val
	case *parser.DurationExpr:
		switch n.Op {
		case parser.STEP:
			return r.step.Seconds()
		case parser.RANGE:
			return r.end.Sub(r.start).Seconds()
		}
		var left, right float64
		if n.LHS != nil {
			left = r.seconds(n.LHS)
		}
		if n.RHS != nil {
			right = r.seconds(n.RHS)
		}
		return r.operation(n, left, right)
	}
	r.fail("unexpected duration expression type %T", expr)
	return 0
}

// operation is one of two durations. What stands left of a sign is zero.
func (r *resolver) operation(n *parser.DurationExpr, left, right float64) float64 {
	at := n.PositionRange()
	switch n.Op {
	case parser.MIN_OF:
		return math.Min(left, right)
	case parser.MAX_OF:
		return math.Max(left, right)
	case parser.ADD:
		return left + right
	case parser.SUB:
		return left - right
	case parser.MUL:
		return left * right
	case parser.POW:
		return math.Pow(left, right)
	case parser.DIV:
		if right == 0 {
			r.fail("%d:%d: division by zero", at.Start, at.End)
		}
		return left / right
	case parser.MOD:
		if right == 0 {
			r.fail("%d:%d: modulo by zero", at.Start, at.End)
		}
		return math.Mod(left, right)
	}
	r.fail("%s", fmt.Sprintf("unexpected duration expression operator %q", n.Op))
	return 0
}
