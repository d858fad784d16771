// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"strings"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"
)

// extracted ends the name of a label that would otherwise hide one of the stream's.
const extracted = "_extracted"

// Extracted is the name under which LogQL shows metadata, or what a parser found, of a name that the stream has.
func Extracted(name string) string { return name + extracted }

// Condition is what label filters say of a row, as far as they can be decided before the pipeline runs. Exactly one of its fields is set.
type Condition struct {
	All  []Condition // all of them hold
	Any  []Condition // one of them holds
	Text *Text
}

// Text is a condition on the value of one label, which holds for no row without that label.
type Text struct {
	Name string
	// Accepts is the filter itself.
	Accepts func(value string) bool
	// Equal is the value, when it is that which is asked for; else empty.
	Equal string
	where func(operand string) test
}

// SQL is the condition on a column of text. False when it cannot be written.
func (t *Text) SQL(operand string) (string, bool) {
	found := t.where(operand)
	return found.sql, !found.is(unknown)
}

// labelsOf plans the label filters that stand before any stage that makes or changes labels.
func labelsOf(stages syntax.MultiStageExpr) []Condition {
	var all []Condition
	for _, stage := range stages {
		switch s := stage.(type) {
		case *syntax.LabelFilterExpr:
			if c, ok := conditionOf(s.LabelFilterer); ok {
				all = append(all, c)
			}
		case *syntax.LineFilterExpr, *syntax.LineFmtExpr, *syntax.DecolorizeExpr:
		default:
			if !dropsErrorsOnly(s) {
				return all
			}
		}
	}
	return all
}

func dropsErrorsOnly(stage syntax.StageExpr) bool {
	drop, ok := stage.(*syntax.DropLabelsExpr)
	if !ok {
		return false
	}
	for _, name := range drop.Names() {
		if name != logqlmodel.ErrorLabel && name != logqlmodel.ErrorDetailsLabel {
			return false
		}
	}
	return true
}

// conditionOf plans one filter; false when it says nothing that can be decided.
func conditionOf(filter log.LabelFilterer) (Condition, bool) {
	switch f := filter.(type) {
	case *log.BinaryLabelFilter:
		return binaryCondition(f)
	case *log.LineFilterLabelFilter:
		return textCondition(f.Matcher, func(v string) bool { return f.Filter.Filter([]byte(v)) })
	case *log.StringLabelFilter:
		return textCondition(f.Matcher, f.Matches)
	}
	return Condition{}, false
}

func binaryCondition(f *log.BinaryLabelFilter) (Condition, bool) {
	left, leftKnown := conditionOf(f.Left)
	right, rightKnown := conditionOf(f.Right)
	switch {
	case leftKnown && rightKnown && f.And:
		return Condition{All: []Condition{left, right}}, true
	case leftKnown && rightKnown:
		return Condition{Any: []Condition{left, right}}, true
	case f.And && leftKnown:
		return left, true
	case f.And && rightKnown:
		return right, true
	}
	return Condition{}, false
}

// textCondition plans a comparison of text. What holds for an empty value holds for rows without the label too, of which columns say nothing.
func textCondition(m *labels.Matcher, accepts func(string) bool) (Condition, bool) {
	if accepts("") || m.Name == logqlmodel.ErrorLabel || m.Name == logqlmodel.ErrorDetailsLabel || strings.HasSuffix(m.Name, extracted) {
		return Condition{}, false
	}
	text := &Text{Name: m.Name, Accepts: accepts}
	switch m.Type {
	case labels.MatchEqual:
		text.Equal = m.Value
		text.where = func(operand string) test { return equalTest(m.Value, operand) }
	case labels.MatchRegexp:
		text.where = func(operand string) test { return regexpTest(m.Value, operand, true) }
	default:
		text.where = func(string) test { return unknown }
	}
	return Condition{Text: text}, true
}
