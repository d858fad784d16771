// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// ofSamples reports whether a function of an instant vector treats each sample by itself, and answers each under its own labels.
func ofSamples(function string) bool {
	switch function {
	case "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "clamp", "clamp_max", "clamp_min", "cos", "cosh",
		"day_of_month", "day_of_week", "day_of_year", "days_in_month", "deg", "exp", "floor",
		"histogram_avg", "histogram_count", "histogram_stddev", "histogram_stdvar", "histogram_sum",
		"hour", "ln", "log10", "log2", "minute", "month", "rad", "round", "sgn", "sin", "sinh", "sqrt", "start_timestamp", "tan", "tanh", "timestamp", "year":
		return true
	}
	return false
}

// ofRanges reports whether a function of a range treats each series by itself.
func ofRanges(call *parser.Call) bool {
	if call.Func.Name == "absent_over_time" || call.Func.ReturnType != parser.ValueTypeVector {
		return false
	}
	for _, arg := range call.Args {
		if arg.Type() == parser.ValueTypeMatrix {
			return true
		}
	}
	return false
}

// perSeries returns the one selector of an expression whose value for each series depends on that series alone; nil: it is not such an expression.
func (p *planner) perSeries(expr parser.Expr) *parser.VectorSelector {
	switch n := expr.(type) {
	case *parser.VectorSelector:
		return n
	case *parser.ParenExpr:
		return p.perSeries(n.Expr)
	case *parser.Call:
		return p.perSeriesCall(n)
	case *parser.UnaryExpr:
		if !p.options.Simple && n.Type() == parser.ValueTypeVector {
			return p.perSeries(n.Expr)
		}
	case *parser.BinaryExpr:
		if p.options.Simple {
			return nil
		}
		if isConstant(n.RHS) && n.LHS.Type() == parser.ValueTypeVector {
			return p.perSeries(n.LHS)
		}
		if isConstant(n.LHS) && n.RHS.Type() == parser.ValueTypeVector {
			return p.perSeries(n.RHS)
		}
	}
	return nil
}

func (p *planner) perSeriesCall(call *parser.Call) *parser.VectorSelector {
	if !prom.TakesRange(call) {
		return nil // the engine says so, whether there are series or not
	}
	simple := ofRanges(call) || call.Func.Name == "timestamp"
	if !simple && (p.options.Simple || !ofSamples(call.Func.Name)) {
		return nil
	}
	var selector *parser.VectorSelector
	for _, arg := range call.Args {
		switch arg.Type() {
		case parser.ValueTypeScalar:
			if !isConstant(arg) {
				return nil
			}
		case parser.ValueTypeVector, parser.ValueTypeMatrix:
			if selector = p.seriesOf(arg); selector == nil {
				return nil
			}
		default:
			return nil
		}
	}
	return selector
}

// seriesOf returns the selector of a vector or range.
func (p *planner) seriesOf(arg parser.Expr) *parser.VectorSelector {
	switch n := unwrap(arg).(type) {
	case *parser.MatrixSelector:
		return n.VectorSelector.(*parser.VectorSelector)
	case *parser.SubqueryExpr:
		if p.options.Simple {
			return nil
		}
		return p.perSeries(n.Expr)
	default:
		return p.perSeries(n)
	}
}

// isConstant reports whether a scalar is made of nothing but numbers and the time.
func isConstant(expr parser.Expr) bool {
	switch n := expr.(type) {
	case *parser.NumberLiteral:
		return true
	case *parser.ParenExpr:
		return isConstant(n.Expr)
	case *parser.UnaryExpr:
		return isConstant(n.Expr)
	case *parser.BinaryExpr:
		return isConstant(n.LHS) && isConstant(n.RHS)
	case *parser.Call:
		if n.Func.ReturnType != parser.ValueTypeScalar || n.Func.Name == "scalar" {
			return false
		}
		for _, arg := range n.Args {
			if !isConstant(arg) {
				return false
			}
		}
		return true
	}
	return false
}

// isInvariant reports whether a leaf's value is the same at all times.
func isInvariant(expr parser.Expr) bool {
	switch n := expr.(type) {
	case *parser.VectorSelector:
		return n.Timestamp != nil
	case *parser.MatrixSelector:
		return isInvariant(n.VectorSelector)
	case *parser.SubqueryExpr:
		return n.Timestamp != nil
	case *parser.NumberLiteral, *parser.StringLiteral:
		return true
	case *parser.Call:
		if _, plain := unwrapFirst(n).(*parser.VectorSelector); dependsOnTime(n.Func.Name) && (n.Func.Name != "timestamp" || !plain) {
			return false
		}
	}
	for child := range parser.ChildrenIter(expr) {
		if e, ok := child.(parser.Expr); ok && !isInvariant(e) {
			return false
		}
	}
	return true
}

// dependsOnTime reports whether a function looks at the time of evaluation, or may.
func dependsOnTime(function string) bool {
	switch function {
	case "day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "predict_linear", "start_timestamp", "time", "timestamp", "year":
		return true
	}
	return false
}

// keepsNames reports whether series keep their names all the way up.
func keepsNames(expr parser.Expr) bool {
	switch n := expr.(type) {
	case *parser.VectorSelector, *parser.MatrixSelector:
		return true
	case *parser.ParenExpr:
		return keepsNames(n.Expr)
	case *parser.SubqueryExpr:
		return keepsNames(n.Expr)
	case *parser.BinaryExpr:
		return n.Op.IsComparisonOperator() && !n.ReturnBool && (isConstant(n.LHS) || keepsNames(n.LHS)) && (isConstant(n.RHS) || keepsNames(n.RHS))
	case *parser.Call:
		if n.Func.Name != "last_over_time" && n.Func.Name != "first_over_time" {
			return false
		}
		return keepsNames(n.Args[0])
	}
	return false
}

// oneName reports whether all series of a selector have one name, so that they stay different without it.
func oneName(selector *parser.VectorSelector) bool {
	for _, m := range selector.LabelMatchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			return true
		}
	}
	return false
}

func unwrapFirst(call *parser.Call) parser.Expr {
	if len(call.Args) == 0 {
		return nil
	}
	return unwrap(call.Args[0])
}

func unwrap(expr parser.Expr) parser.Expr {
	for {
		paren, ok := expr.(*parser.ParenExpr)
		if !ok {
			return expr
		}
		expr = paren.Expr
	}
}

// hasResets reports whether histograms that an expression is made of are as they were received: those of rates and differences have no counter resets.
func hasResets(expr parser.Expr) bool {
	found := false
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		if _, ok := node.(*parser.VectorSelector); ok {
			found = found || !slices.ContainsFunc(path, isDifference)
		}
		return nil
	})
	return found
}

func isDifference(node parser.Node) bool {
	call, ok := node.(*parser.Call)
	return ok && slices.Contains([]string{"rate", "increase", "delta", "irate", "idelta"}, call.Func.Name)
}
