// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// text writes an expression so that it parses back to the same one: where it can, as it stands in the query and at the same place, so that what a worker
// says of a place is true of the query. Not ok: there is no such text.
func (p *planner) text(expr parser.Expr) (text string, isPlaced, ok bool) {
	exact, ok := exactText(expr)
	if !ok {
		return "", false, false
	}
	at := expr.PositionRange()
	if at.Start < 0 || int(at.End) > len(p.query.Text) || at.Start >= at.End {
		return exact, false, true
	}
	placed := blank(p.query.Text[:at.Start]) + p.query.Text[at.Start:at.End]
	if same, err := prom.Parse(placed); err == nil && plainText(same) == exact {
		return placed, true, true
	}
	return exact, false, true
}

// exactText prints an expression; false: what it prints is another one.
func exactText(expr parser.Expr) (string, bool) {
	text := plainText(expr)
	same, err := prom.Parse(text)
	return text, err == nil && plainText(same) == text
}

// plainText prints an expression with all digits of its numbers.
func plainText(expr parser.Expr) string {
	clone := prom.Clone(expr)
	parser.Inspect(clone, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.NumberLiteral:
			n.Duration = false
		case *parser.SubqueryExpr:
			if n.Step == 0 {
				n.Step = DefaultSubqueryStep
			}
		}
		return nil
	})
	return clone.String()
}

// blank is as long as s, with the same lines.
func blank(s string) string {
	out := []byte(s)
	for i, c := range out {
		if c != '\n' {
			out[i] = ' '
		}
	}
	return string(out)
}
