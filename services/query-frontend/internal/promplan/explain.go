// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// String describes the plan as indented text: what the frontend evaluates, and what workers are asked.
func (q *Query) String() string {
	var out strings.Builder
	q.describe(&out, q.Expr, "")
	return out.String()
}

func (q *Query) describe(out *strings.Builder, expr parser.Expr, indent string) {
	if selector, ok := expr.(*parser.VectorSelector); ok {
		if leaf, ok := q.LeafOf(selector.LabelMatchers); ok {
			q.describeLeaf(out, leaf, indent)
			return
		}
		if join, ok := q.JoinOf(selector.LabelMatchers); ok {
			fmt.Fprintf(out, "%sseries by series:\n", indent)
			q.describe(out, join.Expr, indent+"  ")
			return
		}
		fmt.Fprintf(out, "%ssamples of %s\n", indent, selector)
		return
	}
	if _, ok := expr.(*parser.ParenExpr); ok {
		q.describe(out, unwrap(expr), indent)
		return
	}
	fmt.Fprintf(out, "%s%s\n", indent, nodeName(expr))
	for child := range parser.ChildrenIter(expr) {
		if e, ok := child.(parser.Expr); ok {
			q.describe(out, e, indent+"  ")
		}
	}
}

func nodeName(expr parser.Expr) string {
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		return strings.TrimSpace(n.ShortString())
	case *parser.BinaryExpr:
		return n.ShortString()
	case *parser.Call:
		return n.Func.Name
	case *parser.MatrixSelector:
		return n.ShortString()
	case *parser.SubqueryExpr:
		return n.ShortString()
	case *parser.UnaryExpr:
		return n.Op.String()
	}
	return expr.String()
}

func (q *Query) describeLeaf(out *strings.Builder, l *Leaf, indent string) {
	fmt.Fprintf(out, "%spushed, %s", indent, l.Merge.describe(l.Sole))
	if times := l.Asked; times != q.Times {
		fmt.Fprintf(out, ", %d times", times.Len())
		if times.Len() > 1 {
			fmt.Fprintf(out, " every %s", time.Duration(times.Step)*time.Millisecond)
		}
		fmt.Fprintf(out, " from %s", relative(times.Start-q.Times.Start))
	}
	fmt.Fprintf(out, ", samples from %s to %s\n", relative(l.Span.Start-1-q.Times.Start), relative(l.Span.End-q.Times.Last()))
	if l.Sole || len(l.Parts) == 0 {
		fmt.Fprintf(out, "%s  one worker: %s\n", indent, strings.TrimSpace(l.Whole))
		return
	}
	for _, part := range l.Parts {
		fmt.Fprintf(out, "%s  workers: %s\n", indent, strings.TrimSpace(part))
	}
}

func (m Merge) describe(sole bool) string {
	switch {
	case sole:
		return "not merged"
	case m == MergeNone, m == MergeBest:
		return "series joined"
	}
	return "merged by " + m.String()
}

func relative(ms int64) string {
	return fmt.Sprintf("%+ds", ms/1000)
}
