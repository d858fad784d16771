// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"slices"
	"strings"

	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Selection is what a log selector asks of the rows of a segment.
type Selection struct {
	Matchers []*labels.Matcher
	Lines    Lines
	// Labels are conditions that all hold for every row that the pipeline lets through.
	Labels []Condition
	// Rest are the stages without the line filters that Lines stands for.
	Rest syntax.MultiStageExpr
}

// Matches reports whether a stream is asked for.
func (s *Selection) Matches(stream labels.Labels) bool {
	for _, m := range s.Matchers {
		if !m.Matches(stream.Get(m.Name)) {
			return false
		}
	}
	return true
}

// Decided reports whether the line filters are all that the pipeline filters by, and exact.
func (s *Selection) Decided() bool {
	for _, stage := range s.Rest {
		switch stage.(type) {
		case *syntax.LabelFilterExpr, *syntax.LineFilterExpr:
			return false
		}
	}
	return s.Lines.Exact
}

// Select plans a log selector with its pipeline.
func Select(expr syntax.LogSelectorExpr) Selection {
	s := Selection{Matchers: expr.Matchers(), Lines: Lines{Exact: true}}
	if pipeline, ok := expr.(*syntax.PipelineExpr); ok {
		s.Lines, s.Rest = linesOf(pipeline.MultiStages)
		s.Labels = labelsOf(pipeline.MultiStages)
	}
	return s
}

// ParseSelector parses a log selector with its pipeline.
func ParseSelector(text string) (syntax.LogSelectorExpr, error) {
	expr, err := syntax.ParseLogSelector(text, true)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return expr, nil
}

// ParseSample parses a sample expression.
func ParseSample(text string) (syntax.SampleExpr, error) {
	expr, err := syntax.ParseSampleExpr(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return expr, nil
}

// Combine is how two values of one series and window become one.
type Combine uint8

// The ways.
const (
	Sum Combine = iota
	Min
	Max
)

// Windowed is a sample expression whose value over a window is combined from values over parts of it, in any order: a range
// aggregation that counts, adds up or takes an extreme, alone or under a sum that Loki itself lets the extractor do.
type Windowed struct {
	Range   *syntax.RangeAggregationExpr
	Combine Combine
	// Seconds divides the value; zero: it does not.
	Seconds float64
	// Bytes is whether bytes of lines are added up, and Values whether values out of labels are; else lines are counted.
	Bytes, Values bool
	// Grouping is what the extractor groups by, or nil.
	Grouping *syntax.Grouping
	// Summed is whether a sum stands over the range aggregation: its labels have no empty values, the others' may.
	Summed bool
}

// Window recognizes a Windowed. False for any other expression, which is Loki's engine to evaluate.
func Window(expr syntax.SampleExpr) (Windowed, bool) {
	switch e := expr.(type) {
	case *syntax.RangeAggregationExpr:
		return windowOf(e, e.Grouping)
	case *syntax.VectorAggregationExpr:
		aggregation, ok := e.Left.(*syntax.RangeAggregationExpr)
		if !ok || e.Operation != syntax.OpTypeSum || aggregation.Grouping != nil || e.Grouping == nil {
			return Windowed{}, false
		}
		w, ok := windowOf(aggregation, e.Grouping)
		w.Summed = true
		return w, ok && w.Combine == Sum
	}
	return Windowed{}, false
}

func windowOf(e *syntax.RangeAggregationExpr, grouping *syntax.Grouping) (Windowed, bool) {
	w := Windowed{Range: e, Grouping: grouping, Values: e.Left.Unwrap != nil}
	switch e.Operation {
	case syntax.OpRangeTypeCount:
		return w, !w.Values
	case syntax.OpRangeTypeRate:
		w.Seconds = e.Left.Interval.Seconds()
		return w, true
	case syntax.OpRangeTypeBytes:
		w.Bytes = true
		return w, !w.Values
	case syntax.OpRangeTypeBytesRate:
		w.Bytes, w.Seconds = true, e.Left.Interval.Seconds()
		return w, !w.Values
	case syntax.OpRangeTypeSum:
		return w, w.Values
	case syntax.OpRangeTypeMin:
		w.Combine = Min
		return w, w.Values
	case syntax.OpRangeTypeMax:
		w.Combine = Max
		return w, w.Values
	}
	return Windowed{}, false
}

// Names are the names of structured metadata that a metric query can see.
type Names struct {
	// All is whether any may matter.
	All bool
	// Errors is whether the query looks at __error__ itself, and may so keep lines with an error, which no grouping applies to.
	Errors bool
	names  []string
}

// Has reports whether a name matters.
func (n Names) Has(name string) bool { return n.All || slices.Contains(n.names, name) }

// List returns the names, unless all matter.
func (n Names) List() []string { return n.names }

// NamesOf says what structured metadata a range aggregation with the given grouping depends on.
func NamesOf(e *syntax.RangeAggregationExpr, grouping *syntax.Grouping) Names {
	n := Names{All: grouping == nil || grouping.Without}
	if grouping != nil {
		n.add(grouping.Groups...)
	}
	if u := e.Left.Unwrap; u != nil {
		n.add(u.Identifier)
		for _, f := range u.PostFilters {
			n.add(f.RequiredLabelNames()...)
		}
	}
	if pipeline, ok := e.Left.Left.(*syntax.PipelineExpr); ok {
		for _, stage := range pipeline.MultiStages {
			n.addStage(stage)
		}
	}
	for _, name := range []string{logqlmodel.ErrorLabel, logqlmodel.ErrorDetailsLabel, logqlmodel.PreserveErrorLabel} {
		n.Errors = n.Errors || slices.Contains(n.names, name)
	}
	n.All = n.All || n.Errors
	n.add(logqlmodel.ErrorLabel, logqlmodel.ErrorDetailsLabel, logqlmodel.PreserveErrorLabel)
	return n
}

func (n *Names) addStage(stage syntax.StageExpr) {
	switch s := stage.(type) {
	case *syntax.LineFilterExpr, *syntax.DecolorizeExpr, *syntax.LogfmtParserExpr, *syntax.LineParserExpr,
		*syntax.JSONExpressionParserExpr, *syntax.LogfmtExpressionParserExpr, *syntax.KeepLabelsExpr:
		// Parsers give a label another name if metadata has one of that name; add sees to it.
	case *syntax.LabelFilterExpr:
		n.add(s.RequiredLabelNames()...)
	case *syntax.DropLabelsExpr:
		if !dropsErrorsOnly(s) {
			n.add(s.Names()...)
		}
	default:
		// Templates can see everything.
		n.All = true
	}
}

func (n *Names) add(names ...string) {
	for _, name := range names {
		for {
			if !slices.Contains(n.names, name) {
				n.names = append(n.names, name)
			}
			shorter, found := strings.CutSuffix(name, extracted)
			if !found {
				break
			}
			name = shorter
		}
	}
}

// LineFree reports whether stages look at labels alone: then rows with equal labels fare equally.
func LineFree(stages syntax.MultiStageExpr) bool {
	for _, stage := range stages {
		switch stage.(type) {
		case *syntax.DropLabelsExpr, *syntax.KeepLabelsExpr, *syntax.LabelFilterExpr:
		default:
			return false
		}
	}
	return true
}

// WithoutLines returns a copy of a windowed expression's text with other stages in its pipeline.
func WithoutLines(expr syntax.SampleExpr, rest syntax.MultiStageExpr) (syntax.SampleExpr, error) {
	copied, err := syntax.Clone(expr)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	w, ok := Window(copied)
	if !ok {
		return nil, fault.New(fault.Internal, "%s is no windowed expression", expr)
	}
	selector := &syntax.MatchersExpr{Mts: w.Range.Left.Left.Matchers()}
	w.Range.Left.Left = selector
	if len(rest) > 0 {
		w.Range.Left.Left = &syntax.PipelineExpr{Left: selector, MultiStages: rest}
	}
	return copied, nil
}

// ParseStreams parses a stream selector without a pipeline.
func ParseStreams(text string) ([]*labels.Matcher, error) {
	matchers, err := syntax.ParseMatchers(text, false)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return matchers, nil
}
