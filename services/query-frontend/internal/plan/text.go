// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
)

// exactText prints an expression so that it parses back to the same one.
func exactText(expr syntax.SampleExpr) (string, error) {
	clone, err := syntax.Clone(expr)
	if err != nil {
		return "", err
	}
	clone.Walk(func(e syntax.Expr) bool {
		switch node := e.(type) {
		case *syntax.LogRangeExpr:
			if node.Unwrap != nil {
				for i, f := range node.Unwrap.PostFilters {
					node.Unwrap.PostFilters[i] = exactFilter(f)
				}
			}
		case *syntax.LabelFilterExpr:
			node.LabelFilterer = exactFilter(node.LabelFilterer)
		}
		return true
	})
	return clone.String(), nil
}

// exactFilter replaces filters whose text is rounded by ones whose text is exact.
func exactFilter(f log.LabelFilterer) log.LabelFilterer {
	switch filter := f.(type) {
	case *log.BinaryLabelFilter:
		return &log.BinaryLabelFilter{Left: exactFilter(filter.Left), Right: exactFilter(filter.Right), And: filter.And}
	case *log.BytesLabelFilter:
		return exactBytes{filter}
	}
	return f
}

// exactBytes prints a comparison of bytes exactly, where Loki rounds it to three digits.
type exactBytes struct{ *log.BytesLabelFilter }

// String returns the comparison in LogQL.
func (f exactBytes) String() string { return fmt.Sprintf("%s%s%dB", f.Name, f.Type, f.Value) }

// sameRange reports whether text parses back to l's range and offset: Loki prints ranges in milliseconds. Whole ones need no second
// look, and parsing is dear.
func sameRange(text string, l *Leaf) bool {
	if l.Range%time.Millisecond == 0 && l.Offset == 0 {
		return true
	}
	expr, err := syntax.ParseSampleExpr(text)
	if err != nil {
		return false
	}
	if outer, ok := expr.(*syntax.VectorAggregationExpr); ok {
		expr = outer.Left
	}
	inner, ok := expr.(*syntax.RangeAggregationExpr)
	return ok && inner.Left.Interval == l.Range && inner.Left.Offset == l.Offset
}

// rowsSelector keeps a selector's matchers and those of its first stages that only drop rows and do not look at what a parser made.
func rowsSelector(selector syntax.LogSelectorExpr) string {
	text := (&syntax.MatchersExpr{Mts: selector.Matchers()}).String()
	pipeline, ok := selector.(*syntax.PipelineExpr)
	if !ok {
		return text
	}
	var kept strings.Builder
	kept.WriteString(text)
	for _, stage := range pipeline.MultiStages {
		if !onlyDrops(stage) {
			break
		}
		kept.WriteString(" " + stage.String())
	}
	if _, err := syntax.ParseLogSelector(kept.String(), true); err != nil {
		return text
	}
	return kept.String()
}

// onlyDrops reports whether a stage leaves the rows that it lets through as they are. Comparisons of numbers do not: they may add __error__.
func onlyDrops(stage syntax.StageExpr) bool {
	switch s := stage.(type) {
	case *syntax.LineFilterExpr:
		return true
	case *syntax.LabelFilterExpr:
		return comparesText(s.LabelFilterer)
	}
	return false
}

func comparesText(f log.LabelFilterer) bool {
	switch filter := f.(type) {
	case *log.StringLabelFilter, *log.LineFilterLabelFilter:
		return true
	case *log.BinaryLabelFilter:
		return comparesText(filter.Left) && comparesText(filter.Right)
	}
	return false
}
