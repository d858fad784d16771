// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// Counts is what rollups of logs are asked for a leaf: sums of the lines, or bytes, of buckets.
type Counts struct {
	leaf     *Leaf
	function string // of PromQL, over the series of lines
	by       []string
	matchers []*labels.Matcher
}

// countable are the labels that lines are counted by, and that rows have in LogQL.
func countable(name string) bool { return name == rollup.ServiceLabel || name == rollup.LevelLabel }

// Counts returns what rollups have to be asked for a leaf; false: they do not have its answer. They have sums of counts, bytes and their rates by service and level,
// of lines that are chosen by these alone. A log volume query of Grafana's drops errors, of which there are none without a parser.
func (l *Leaf) Counts() (Counts, bool) {
	outer, ok := l.Expr.(*syntax.VectorAggregationExpr)
	if !ok || l.Merge != MergeSum || outer.Operation != syntax.OpTypeSum {
		return Counts{}, false
	}
	inner, ok := outer.Left.(*syntax.RangeAggregationExpr)
	if !ok || inner.Left.Unwrap != nil {
		return Counts{}, false
	}
	c := Counts{leaf: l}
	if c.function, ok = counted(inner); !ok {
		return Counts{}, false
	}
	if g := outer.Grouping; g != nil {
		if g.Without || slices.ContainsFunc(g.Groups, func(name string) bool { return !countable(name) }) {
			return Counts{}, false
		}
		c.by = g.Groups
	}
	return c, c.choose(inner.Left.Left)
}

func counted(e *syntax.RangeAggregationExpr) (function string, ok bool) {
	switch operation, _ := undivided(e); operation {
	case syntax.OpRangeTypeCount:
		return string(rollup.Count), true
	case syntax.OpRangeTypeBytes:
		return string(rollup.Sum), true
	}
	return "", false
}

// choose takes in what chooses lines; false: something that rollups do not know.
func (c *Counts) choose(selector syntax.LogSelectorExpr) bool {
	if pipeline, ok := selector.(*syntax.PipelineExpr); ok {
		for _, stage := range pipeline.MultiStages {
			if !c.stage(stage) {
				return false
			}
		}
	}
	for _, m := range selector.Matchers() {
		if m.Name != rollup.ServiceLabel {
			return false
		}
		c.matchers = append(c.matchers, m)
	}
	return true
}

func (c *Counts) stage(stage syntax.StageExpr) bool {
	switch e := stage.(type) {
	case *syntax.DropLabelsExpr:
		_, dropped, _ := strings.Cut(e.String(), syntax.OpDrop)
		for name := range strings.SplitSeq(dropped, ",") {
			if !slices.Contains([]string{"__error__", "__error_details__"}, strings.TrimSpace(name)) {
				return false
			}
		}
		return true
	case *syntax.LabelFilterExpr:
		if m := matcherOf(e.LabelFilterer); m != nil && countable(m.Name) {
			c.matchers = append(c.matchers, m)
			return true
		}
	}
	return false
}

// matcherOf is what a filter of a label's text compares it with; nil: it is another filter.
func matcherOf(f log.LabelFilterer) *labels.Matcher {
	switch filter := f.(type) {
	case *log.StringLabelFilter:
		return filter.Matcher
	case *log.LineFilterLabelFilter:
		// Loki has simplified a regular expression; of alternatives that anything matches it forgets some.
		if !slices.ContainsFunc(strings.Split(filter.Value, "|"), notPlain) {
			return filter.Matcher
		}
	}
	return nil
}

func notPlain(alternative string) bool {
	return alternative == "" || strings.Trim(alternative, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != ""
}

// Levels reports whether the answer depends on the levels of lines.
func (c *Counts) Levels() bool {
	return slices.Contains(c.by, rollup.LevelLabel) || slices.ContainsFunc(c.matchers, func(m *labels.Matcher) bool { return m.Name == rollup.LevelLabel })
}

// Fits reports whether the ranges of all steps are made of whole buckets of a resolution.
func (c *Counts) Fits(start time.Time, step, resolution time.Duration) bool {
	l := c.leaf
	// Between ranges that do not meet there are buckets that nobody asks for.
	return l.Range%resolution == 0 && step%resolution == 0 && start.Add(-l.Offset).UnixNano()%int64(resolution) == 0 && l.Range >= step
}

// Series is the PromQL expression of one bucket.
func (c *Counts) Series(bucket time.Duration) string {
	matchers := make([]string, len(c.matchers))
	for i, m := range c.matchers {
		matchers[i] = m.String()
	}
	return fmt.Sprintf("sum by (%s) (%s(%s{%s}[%s]))", strings.Join(c.by, ", "), c.function, rollup.LinesName, strings.Join(matchers, ", "), model.Duration(bucket))
}

// Rows is the leaf of one bucket for what has no rollup: its values are added up by bucket, and not divided.
func (c *Counts) Rows(bucket time.Duration) (*Leaf, error) {
	expr, err := syntax.ParseSampleExpr(c.leaf.Push)
	if err != nil {
		return nil, err
	}
	expr.Walk(func(e syntax.Expr) bool {
		if r, ok := e.(*syntax.LogRangeExpr); ok {
			r.Interval, r.Offset = bucket, 0
		}
		return true
	})
	of := *c.leaf
	of.Range, of.Offset, of.Divisor = bucket, 0, 0
	of.Push, err = exactText(expr)
	return &of, err
}
