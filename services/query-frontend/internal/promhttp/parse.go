// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
)

func (a *API) formatQuery(r *http.Request) (answer, error) {
	expr, err := prom.Parse(r.FormValue("query"))
	if err != nil {
		return answer{}, invalid("query", err)
	}
	return answer{data: value(expr.Pretty(0))}, nil
}

func (a *API) parseQuery(r *http.Request) (answer, error) {
	expr, err := prom.Parse(r.FormValue("query"))
	if err != nil {
		return answer{}, invalid("query", err)
	}
	tree, err := nodeOf(expr)
	if err != nil {
		return answer{}, err
	}
	return answer{data: value(tree)}, nil
}

// node is an expression as clients draw it.
type node map[string]any

// drawing makes nodes, and remembers what it cannot draw.
type drawing struct{ err error }

// nodeOf returns the tree of an expression in the form of Prometheus' parse_query.
func nodeOf(expr parser.Expr) (any, error) {
	var d drawing
	tree := d.expr(expr)
	return tree, d.err
}

func (d *drawing) expr(expr parser.Expr) any {
	switch e := expr.(type) {
	case nil:
		return nil
	case *parser.AggregateExpr:
		return node{
			"type": "aggregation", "op": e.Op.String(), "expr": d.expr(e.Expr), "param": d.expr(e.Param), "grouping": list(e.Grouping), "without": e.Without,
		}
	case *parser.BinaryExpr:
		return node{
			"type": "binaryExpr", "op": e.Op.String(), "lhs": d.expr(e.LHS), "rhs": d.expr(e.RHS), "matching": matching(e.VectorMatching), "bool": e.ReturnBool,
		}
	case *parser.Call:
		return d.call(e)
	case *parser.MatrixSelector:
		return d.matrix(e)
	case *parser.VectorSelector:
		return d.selector(e)
	case *parser.SubqueryExpr:
		return d.subquery(e)
	case *parser.DurationExpr:
		return d.duration(e)
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(e.Val, 'f', -1, 64)}
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": e.Val}
	case *parser.ParenExpr:
		return node{"type": "parenExpr", "expr": d.expr(e.Expr)}
	case *parser.UnaryExpr:
		return node{"type": "unaryExpr", "op": e.Op.String(), "expr": d.expr(e.Expr)}
	case *parser.StepInvariantExpr:
		return d.expr(e.Expr)
	}
	d.err = fault.New(fault.Unsupported, "an expression of type %T cannot be drawn as a tree", expr)
	return nil
}

func (d *drawing) call(e *parser.Call) any {
	arguments := make([]any, len(e.Args))
	for i, argument := range e.Args {
		arguments[i] = d.expr(argument)
	}
	return node{
		"type": "call",
		"func": node{"name": e.Func.Name, "argTypes": e.Func.ArgTypes, "variadic": e.Func.Variadic, "returnType": e.Func.ReturnType},
		"args": arguments,
	}
}

func (d *drawing) selector(e *parser.VectorSelector) node {
	return node{
		"type": "vectorSelector", "name": e.Name, "offset": milliseconds(e.OriginalOffset), "offsetExpr": d.duration(e.OriginalOffsetExpr),
		"matchers": matchers(e.LabelMatchers), "timestamp": e.Timestamp, "startOrEnd": preprocessor(e.StartOrEnd), "anchored": e.Anchored, "smoothed": e.Smoothed,
	}
}

func (d *drawing) matrix(e *parser.MatrixSelector) any {
	selector, ok := e.VectorSelector.(*parser.VectorSelector)
	if !ok {
		d.err = fault.New(fault.Internal, "a range of %T", e.VectorSelector)
		return nil
	}
	n := d.selector(selector)
	n["type"], n["range"], n["rangeExpr"] = "matrixSelector", milliseconds(e.Range), d.duration(e.RangeExpr)
	return n
}

func (d *drawing) subquery(e *parser.SubqueryExpr) any {
	return node{
		"type": "subquery", "expr": d.expr(e.Expr), "range": milliseconds(e.Range), "rangeExpr": d.duration(e.RangeExpr),
		"offset": milliseconds(e.OriginalOffset), "offsetExpr": d.duration(e.OriginalOffsetExpr), "step": milliseconds(e.Step), "stepExpr": d.duration(e.StepExpr),
		"timestamp": e.Timestamp, "startOrEnd": preprocessor(e.StartOrEnd),
	}
}

// duration is that of an expression where a duration stands; nil where there is none.
func (d *drawing) duration(expr parser.Expr) any {
	switch e := expr.(type) {
	case *parser.DurationExpr:
		if e == nil {
			return nil
		}
		return node{"type": "durationExpr", "op": e.Op.String(), "lhs": d.duration(e.LHS), "rhs": d.duration(e.RHS), "wrapped": e.Wrapped}
	case *parser.NumberLiteral:
		if e == nil {
			return nil
		}
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(e.Val, 'f', -1, 64), "duration": e.Duration}
	}
	return d.expr(expr)
}

func matching(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return node{
		"card": m.Card.String(), "labels": list(m.MatchingLabels), "on": m.On, "include": list(m.Include),
		"fillValues": node{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS},
	}
}

func matchers(all []*labels.Matcher) []node {
	out := make([]node, len(all))
	for i, m := range all {
		out[i] = node{"name": m.Name, "value": m.Value, "type": m.Type.String()}
	}
	return out
}

// preprocessor is start or end, which @ may name.
func preprocessor(item parser.ItemType) any {
	if item == 0 {
		return nil
	}
	return fmt.Sprint(item)
}

func milliseconds(d time.Duration) int64 { return d.Milliseconds() }

func list(texts []string) []string {
	if texts == nil {
		return []string{}
	}
	return texts
}
