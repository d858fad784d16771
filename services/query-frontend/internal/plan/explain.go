// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"fmt"
	"strings"

	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
)

// String describes the plan as indented text: what the frontend evaluates, and what workers are asked for each leaf.
func (q *Query) String() string {
	var out strings.Builder
	if q.Kind == KindLogs {
		fmt.Fprintf(&out, "log lines, merged by time\n  workers: %s\n", q.Text)
		return out.String()
	}
	q.describe(&out, q.Expr, "")
	return out.String()
}

func (q *Query) describe(out *strings.Builder, expr syntax.Expr, indent string) {
	deeper := indent + "  "
	switch e := expr.(type) {
	case logql.DownstreamSampleExpr:
		if leaf, ok := q.Leaf(e.SampleExpr); ok {
			leaf.describe(out, indent)
		}
	case *syntax.VectorAggregationExpr:
		fmt.Fprintf(out, "%s%s\n", indent, aggregationName(e))
		q.describe(out, e.Left, deeper)
	case *syntax.LabelReplaceExpr:
		fmt.Fprintf(out, "%slabel_replace %s\n", indent, e.Dst)
		q.describe(out, e.Left, deeper)
	case *syntax.BinOpExpr:
		fmt.Fprintf(out, "%s%s\n", indent, e.Op)
		q.describe(out, e.SampleExpr, deeper)
		q.describe(out, e.RHS, deeper)
	default:
		fmt.Fprintf(out, "%s%s\n", indent, expr)
	}
}

func aggregationName(e *syntax.VectorAggregationExpr) string {
	name := e.Operation
	if e.Params != 0 {
		name = fmt.Sprintf("%s %d", name, e.Params)
	}
	if e.Grouping != nil && !e.Grouping.Noop() {
		name += " " + strings.TrimSpace(e.Grouping.String())
	}
	return name
}

func (l *Leaf) describe(out *strings.Builder, indent string) {
	from := fmt.Sprintf("[%s, %s]", -(l.Range + l.Offset), -l.Offset)
	if l.Merge == MergeNone {
		fmt.Fprintf(out, "%srows %s of %s\n", indent, from, l.Expr)
		fmt.Fprintf(out, "%s  workers: %s\n", indent, l.Rows)
		return
	}
	fmt.Fprintf(out, "%spushed %s, merged by %s", indent, from, l.Merge)
	if l.Divisor != 0 {
		fmt.Fprintf(out, ", divided by %v", l.Divisor)
	}
	fmt.Fprintf(out, "\n%s  workers: %s\n", indent, l.Push)
}
