// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Parser returns Prometheus' parser with everything switched on that it has behind flags.
func Parser() parser.Parser {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions:  true,
		ExperimentalDurationExpr:     true,
		EnableExtendedRangeSelectors: true,
		EnableBinopFillModifiers:     true,
	})
}

// Parse parses an expression. The error is fault.Invalid and has Prometheus' words, with the place.
func Parse(query string) (parser.Expr, error) {
	expr, err := Parser().ParseExpr(query)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return expr, nil
}

// ParseSelector parses a series selector, as match[] has them.
func ParseSelector(text string) ([]*labels.Matcher, error) {
	matchers, err := Parser().ParseMetricSelector(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return matchers, nil
}

// Ranged says why an expression cannot be evaluated over a range, if it cannot: its value must be a scalar or an instant vector.
func Ranged(expr parser.Expr) error {
	if t := expr.Type(); t != parser.ValueTypeVector && t != parser.ValueTypeScalar {
		return fault.New(fault.Invalid, "invalid expression type %q for range query, must be Scalar or instant Vector", parser.DocumentedType(t))
	}
	return nil
}

// TakesRange reports whether a function may have the range that it is called with: few may have an anchored or smoothed one.
func TakesRange(call *parser.Call) bool {
	for _, arg := range call.Args {
		for inner, ok := arg.(*parser.ParenExpr); ok; inner, ok = arg.(*parser.ParenExpr) {
			arg = inner.Expr
		}
		ranged, ok := arg.(*parser.MatrixSelector)
		if !ok {
			continue
		}
		selector := ranged.VectorSelector.(*parser.VectorSelector)
		_, mayAnchor := promql.AnchoredSafeFunctions[call.Func.Name]
		_, maySmooth := promql.SmoothedSafeFunctions[call.Func.Name]
		if selector.Anchored && !mayAnchor || selector.Smoothed && !maySmooth {
			return false
		}
	}
	return true
}
