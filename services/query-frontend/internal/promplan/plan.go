// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// DefaultLookback is how far an instant selector looks back, where nobody says otherwise.
const DefaultLookback = 5 * time.Minute

// mark is the name of the matcher by which a selector stands for a leaf. It is no UTF-8, so that no query can have it.
const mark = "\xff__leaf__"

// Options say when a query is evaluated and how it is to be cut.
type Options struct {
	Start, End time.Time
	Step       time.Duration // zero: an instant query at End
	Lookback   time.Duration // zero: DefaultLookback
	// Simple cuts leaves that rollups can answer: a selector or a function of its range, and an aggregation of that.
	Simple bool
	// DelayedNames says that names of metrics are dropped at the end of the evaluation, so that what is above a leaf may see them.
	DelayedNames bool
	// StartTimestamps says that rates take counter resets from start times, which rollups do not have.
	StartTimestamps bool
}

// Merge says how the values of one series and time over two shards become the value over both.
type Merge uint8

// The ways of merging. MergeNone: shards have different series.
const (
	MergeNone Merge = iota
	MergeSum
	MergeMin
	MergeMax
	MergeAverage // of a sum and a count, which are asked for both
	MergeBest    // as MergeNone: the first few of each shard, of which the engine chooses again
)

// String names the way of merging.
func (m Merge) String() string {
	return [...]string{"series", "sum", "min", "max", "average", "best"}[m]
}

// Leaf is a part of a query that workers evaluate.
type Leaf struct {
	// Expr is what the leaf is worth.
	Expr parser.Expr
	// Whole is its text, for one worker that sees all series.
	Whole string
	// Placed says that Whole stands where it does in the query.
	Placed bool
	// Parts are the texts that are asked of every shard: one, or for MergeAverage the sum and the count.
	Parts []string
	Merge Merge
	// Sole says that values over shards must not be merged: series of several metrics may become the same.
	Sole bool
	// Times are when its value is wanted, and Asked when workers evaluate it: at one time if Constant, since the value is the same at all.
	Times, Asked Grid
	Constant     bool
	// Span is which samples it needs for that.
	Span     Span
	Selector *parser.VectorSelector
	// Shape is what rollups are asked; nil: they cannot answer.
	Shape    *Shape
	asked    parser.Expr // what Whole is the text of
	lookback int64
}

// SpanOf returns which samples the leaf needs for a part of the times at which it is asked.
func (l *Leaf) SpanOf(g Grid) Span { return spanOf(l.asked, g, l.lookback) }

// Remarked returns where in the query a remark is that a worker has made on a text, Whole or one of Parts.
func (l *Leaf) Remarked(text string, start, end int) (int, int) {
	if l.Placed && text == l.Whole {
		return start, end
	}
	at := l.Expr.PositionRange()
	if parsed, err := prom.Parse(text); err == nil {
		if found, ok := placeIn(l.Expr, parsed, posrange.PositionRange{Start: posrange.Pos(start), End: posrange.Pos(end)}); ok {
			at = found
		}
	}
	return int(at.Start), int(at.End)
}

// placeIn returns where in the query that part of expr is which, in another writing of it, is at a place.
func placeIn(expr, written parser.Node, at posrange.PositionRange) (posrange.PositionRange, bool) {
	if written.PositionRange() == at {
		return expr.PositionRange(), true
	}
	parts, others := parser.Children(expr), parser.Children(written)
	if len(parts) != len(others) {
		return posrange.PositionRange{}, false
	}
	for i := range parts {
		if found, ok := placeIn(parts[i], others[i], at); ok {
			return found, true
		}
	}
	return posrange.PositionRange{}, false
}

// Shape is a leaf without its aggregation: an instant selector, or a function of one range.
type Shape struct {
	Function rollup.Function
	// Window is the length of the range; of an instant selector, the lookback.
	Window time.Duration
	Offset time.Duration
	// Extended says that the ends of the range are met by samples outside of it.
	Extended bool
}

// Query is a planned query.
type Query struct {
	Text string
	// Parsed is the query as it was asked.
	Parsed parser.Expr
	// Expr is what the engine of the frontend evaluates.
	Expr parser.Expr
	// Times are the query's.
	Times  Grid
	Leaves []*Leaf
	Joins  []*Join
	// Samples are the selectors in no leaf, whose samples are read.
	Samples []*parser.VectorSelector
	// Span is which samples are needed at all; empty: none, as of 1+1.
	Span Span
}

// LeafOf returns the leaf that a selector of Expr stands for, by its matchers.
func (q *Query) LeafOf(matchers []*labels.Matcher) (*Leaf, bool) {
	for _, m := range matchers {
		if m.Name != mark {
			continue
		}
		if number, err := strconv.Atoi(m.Value); err == nil && number < len(q.Leaves) {
			return q.Leaves[number], true
		}
	}
	return nil, false
}

// Root returns the leaf that is all of the query, if there is one.
func (q *Query) Root() (*Leaf, bool) {
	if selector, ok := unwrap(q.Expr).(*parser.VectorSelector); ok {
		return q.LeafOf(selector.LabelMatchers)
	}
	return nil, false
}

// Parse parses and plans a query. Its errors are Prometheus'.
func Parse(text string, o Options) (*Query, error) {
	parsed, err := prom.Parse(text)
	if err != nil {
		return nil, err
	}
	return Plan(text, parsed, o)
}

// Plan plans a query that was parsed of text. It does not change parsed.
func Plan(text string, parsed parser.Expr, o Options) (*Query, error) {
	if o.Step > 0 {
		if err := prom.Ranged(parsed); err != nil {
			return nil, err
		}
	} else {
		o.Start = o.End
	}
	o.Lookback = cmp.Or(o.Lookback, DefaultLookback)
	r := resolver{start: o.Start, end: o.End, step: o.Step}
	expr := r.expr(prom.Clone(parsed))
	if r.err != nil {
		return nil, r.err
	}
	times := Grid{Start: o.Start.UnixMilli(), End: o.End.UnixMilli(), Step: o.Step.Milliseconds()}
	p := &planner{
		options: o, lookback: o.Lookback.Milliseconds(), known: map[string]int{},
		query: &Query{Text: text, Parsed: parsed, Times: times, Span: spanOf(expr, times, o.Lookback.Milliseconds())},
	}
	if p.query.Expr = expr; nested(expr) {
		p.everySample(expr)
	} else {
		p.query.Expr = p.rewrite(expr, times, true)
	}
	if !o.DelayedNames {
		p.query.Expr = p.join(p.query.Expr, times)
	}
	return p.query, nil
}

// nested reports a fixed time inside of a subquery with a fixed time inside of another subquery: what Prometheus' engine makes of the first depends on where the
// subqueries begin.
func nested(expr parser.Expr) bool {
	found := false
	parser.Inspect(expr, func(node parser.Node, path []parser.Node) error {
		if !isFixed(node) {
			return nil
		}
		around, fixed := 0, false
		for _, above := range path {
			if _, ok := above.(*parser.SubqueryExpr); ok {
				fixed = fixed || around > 0 && isFixed(above)
				around++
			}
		}
		found = found || fixed
		return nil
	})
	return found
}

// isFixed reports a selector or subquery with @.
func isFixed(node parser.Node) bool {
	switch n := node.(type) {
	case *parser.VectorSelector:
		return n.Timestamp != nil
	case *parser.SubqueryExpr:
		return n.Timestamp != nil
	}
	return false
}

// planner cuts leaves out of one query.
type planner struct {
	options  Options
	lookback int64
	query    *Query
	known    map[string]int // leaves by text and times
}

// rewrite puts selectors in place of leaves. Root says that the value of expr is the answer.
func (p *planner) rewrite(expr parser.Expr, g Grid, root bool) parser.Expr {
	if replaced, ok := p.leaf(expr, g, root); ok {
		return replaced
	}
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		n.Expr = p.rewrite(n.Expr, g, false)
		if n.Param != nil {
			n.Param = p.rewrite(n.Param, g, false)
		}
	case *parser.BinaryExpr:
		n.LHS, n.RHS = p.rewrite(n.LHS, g, false), p.rewrite(n.RHS, g, false)
	case *parser.Call:
		return p.rewriteCall(n, g)
	case *parser.MatrixSelector:
		p.samples(n.VectorSelector.(*parser.VectorSelector))
	case *parser.ParenExpr:
		n.Expr = p.rewrite(n.Expr, g, root)
	case *parser.SubqueryExpr:
		n.Expr = p.rewrite(n.Expr, g.inside(n), false)
	case *parser.UnaryExpr:
		n.Expr = p.rewrite(n.Expr, g, false)
	case *parser.VectorSelector:
		p.samples(n)
	}
	return expr
}

func (p *planner) samples(selector *parser.VectorSelector) {
	p.query.Samples = append(p.query.Samples, selector)
}

func (p *planner) rewriteCall(call *parser.Call, g Grid) parser.Expr {
	switch call.Func.Name {
	case "info":
		p.everySample(call.Args[0])
		return call
	case "timestamp", "start_timestamp":
		// The engine looks at the samples of a selector itself.
		if _, plain := unwrapFirst(call).(*parser.VectorSelector); plain {
			p.everySample(call.Args[0])
			return call
		}
	case "histogram_count", "histogram_sum", "histogram_avg":
		// Beneath these the engine finds out counter resets from sample to sample, and remarks on those that do not go together.
		if hasResets(call.Args[0]) {
			p.everySample(call.Args[0])
			return call
		}
	case "absent", "absent_over_time":
		if replaced, ok := p.absent(call, g); ok {
			return replaced
		}
	}
	for i := range call.Args {
		call.Args[i] = p.rewrite(call.Args[i], g, false)
	}
	if _, plain := unwrapFirst(call).(*parser.VectorSelector); plain && call.Func.Name == "start_timestamp" {
		call.Args[0] = &parser.UnaryExpr{Op: parser.ADD, Expr: call.Args[0]} // of no selector there is nothing to tell
	}
	return call
}

// everySample leaves all selectors of an expression as they are.
func (p *planner) everySample(expr parser.Expr) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			p.samples(selector)
		}
		return nil
	})
}

// absent makes a leaf of whether there is anything. The labels of its answer are those that the selector, if it is one, asks for.
func (p *planner) absent(call *parser.Call, g Grid) (parser.Expr, bool) {
	arg := unwrap(call.Args[0])
	inner := arg
	var selector *parser.VectorSelector
	switch n := arg.(type) {
	case *parser.VectorSelector:
		selector = n
	case *parser.MatrixSelector:
		selector = n.VectorSelector.(*parser.VectorSelector)
		inner = callOf("last_over_time", n) // which keeps names, so that series of several metrics stay different
	default:
		return nil, false
	}
	replaced, ok := p.leaf(&parser.AggregateExpr{Op: parser.GROUP, Expr: inner, PosRange: arg.PositionRange()}, g, false)
	if !ok {
		replaced, ok = p.leaf(arg, g, false)
	}
	if !ok {
		return nil, false
	}
	marked := replaced.(*parser.VectorSelector)
	marked.LabelMatchers = append(append([]*labels.Matcher(nil), selector.LabelMatchers...), marked.LabelMatchers...)
	return &parser.Call{Func: parser.Functions["absent"], Args: parser.Expressions{marked}, PosRange: call.PosRange}, true
}

func callOf(function string, arg parser.Expr) *parser.Call {
	return &parser.Call{Func: parser.Functions[function], Args: parser.Expressions{arg}, PosRange: arg.PositionRange()}
}

// leaf makes a leaf of expr, if it can be one.
func (p *planner) leaf(expr parser.Expr, g Grid, root bool) (parser.Expr, bool) {
	aggregate, ok := expr.(*parser.AggregateExpr)
	if !ok {
		if _, paren := expr.(*parser.ParenExpr); paren {
			return nil, false
		}
		return p.seriesLeaf(expr, g, root)
	}
	merge, ok := mergeOf(aggregate)
	if !ok {
		return nil, false
	}
	selector := p.perSeries(aggregate.Expr)
	if selector == nil || !p.mayAggregate(aggregate, selector) {
		return nil, false
	}
	marked, ok := p.add(expr, aggregate.Expr, selector, merge, g)
	if !ok || merge != MergeBest {
		return marked, ok
	}
	chosen := *aggregate
	chosen.Expr = marked
	return &chosen, true
}

func (p *planner) seriesLeaf(expr parser.Expr, g Grid, root bool) (parser.Expr, bool) {
	if expr.Type() != parser.ValueTypeVector {
		return nil, false
	}
	selector := p.perSeries(expr)
	if selector == nil {
		return nil, false
	}
	if _, plain := expr.(*parser.VectorSelector); p.options.DelayedNames && !plain && (!root || !oneName(selector)) {
		return nil, false
	}
	return p.add(expr, expr, selector, MergeNone, g)
}

// mayAggregate reports whether an aggregation sees the same labels in a worker as it would above a leaf.
func (p *planner) mayAggregate(n *parser.AggregateExpr, selector *parser.VectorSelector) bool {
	if !p.options.DelayedNames {
		return true
	}
	if n.Op == parser.TOPK || n.Op == parser.BOTTOMK || n.Op == parser.LIMITK {
		return keepsNames(n.Expr)
	}
	for _, name := range n.Grouping {
		if name == model.MetricNameLabel {
			return false
		}
	}
	return oneName(selector)
}

// mergeOf says how an aggregation merges; false: it does not.
func mergeOf(n *parser.AggregateExpr) (Merge, bool) {
	switch n.Op {
	case parser.SUM, parser.COUNT, parser.COUNT_VALUES:
		return MergeSum, true
	case parser.MIN:
		return MergeMin, true
	case parser.MAX, parser.GROUP:
		return MergeMax, true
	case parser.AVG:
		return MergeAverage, true
	case parser.TOPK, parser.BOTTOMK, parser.LIMITK:
		return MergeBest, isConstant(n.Param)
	}
	return MergeNone, false
}

// add registers a leaf, whose values are expr's, made of series, and returns the selector that stands for it.
func (p *planner) add(expr, series parser.Expr, selector *parser.VectorSelector, merge Merge, g Grid) (parser.Expr, bool) {
	leaf := &Leaf{
		Expr: expr, asked: expr, Merge: merge, Times: g, Asked: g, Constant: isInvariant(expr) && g.Len() > 0, Selector: selector, lookback: p.lookback,
		Sole: !oneName(selector) && !keepsNames(series), Shape: p.shapeOf(series),
	}
	if leaf.Constant {
		p.ask(leaf)
	}
	var ok bool
	if leaf.Whole, leaf.Placed, ok = p.text(leaf.asked); !ok {
		return nil, false
	}
	key := fmt.Sprint(g, leaf.Asked, leaf.asked)
	number, known := p.known[key]
	if !known {
		if leaf.Parts, ok = leaf.parts(); !ok {
			return nil, false
		}
		leaf.Span = leaf.SpanOf(leaf.Asked)
		number = len(p.query.Leaves)
		p.known[key], p.query.Leaves = number, append(p.query.Leaves, leaf)
	}
	// Not by equality: absent() would answer the label.
	matcher := labels.MustNewMatcher(labels.MatchRegexp, mark, strconv.Itoa(number))
	return &parser.VectorSelector{LabelMatchers: []*labels.Matcher{matcher}, PosRange: expr.PositionRange()}, true
}

// ask says when a constant leaf is evaluated. Where rollups may be asked it is at the time that its selector names, so that nothing else need know of that.
func (p *planner) ask(leaf *Leaf) {
	leaf.Asked = Grid{Start: leaf.Times.Start, End: leaf.Times.Start}
	if at := leaf.Selector.Timestamp; leaf.Shape != nil && at != nil {
		leaf.Asked = Grid{Start: *at, End: *at}
		leaf.asked = prom.Clone(leaf.Expr)
		parser.Inspect(leaf.asked, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok {
				selector.Timestamp = nil
			}
			return nil
		})
	}
}

// parts are what shards are asked.
func (l *Leaf) parts() ([]string, bool) {
	if l.Merge != MergeAverage {
		return []string{l.Whole}, true
	}
	parts := make([]string, 0, 2)
	for _, op := range []parser.ItemType{parser.SUM, parser.COUNT} {
		part := *l.asked.(*parser.AggregateExpr)
		part.Op = op
		text, ok := exactText(&part)
		if !ok {
			return nil, false
		}
		parts = append(parts, text)
	}
	return parts, true
}

func (p *planner) shapeOf(series parser.Expr) *Shape {
	switch n := unwrap(series).(type) {
	case *parser.VectorSelector:
		return p.shape(rollup.Instant, p.options.Lookback, n)
	case *parser.Call:
		function := rollup.Function(n.Func.Name)
		for _, arg := range n.Args {
			switch ranged := unwrap(arg).(type) {
			case *parser.MatrixSelector:
				return p.shape(function, ranged.Range, ranged.VectorSelector.(*parser.VectorSelector))
			case *parser.VectorSelector:
				// Prometheus forgets the offset there.
				if function == rollup.Timestamp && (ranged.Timestamp == nil || ranged.OriginalOffset == 0) {
					return p.shape(function, p.options.Lookback, ranged)
				}
			}
		}
	}
	return nil
}

func (p *planner) shape(function rollup.Function, window time.Duration, s *parser.VectorSelector) *Shape {
	resets := function == rollup.Rate || function == rollup.Increase
	return &Shape{Function: function, Window: window, Offset: s.OriginalOffset, Extended: s.Anchored || s.Smoothed || resets && p.options.StartTimestamps}
}
