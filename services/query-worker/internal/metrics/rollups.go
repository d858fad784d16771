// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// asked is an expression that rollups may answer: a function of one range, or a selector, and perhaps an aggregation of that.
type asked struct {
	aggregate *parser.AggregateExpr // nil: none
	matchers  []*labels.Matcher
	question  rollup.Question
	at        posrange.PositionRange
}

// askedOf takes an expression apart.
func askedOf(q *Vector) (*asked, error) {
	a := &asked{question: rollup.Question{Start: q.Start, End: q.End, Step: q.Step, Resolution: q.Resolution}}
	expr := bare(q.Expr)
	if e, ok := expr.(*parser.AggregateExpr); ok {
		a.aggregate, expr = e, bare(e.Expr)
	}
	selector, width, err := a.call(expr, q)
	if err != nil {
		return nil, err
	}
	if selector.Timestamp != nil || selector.StartOrEnd != 0 || selector.OriginalOffsetExpr != nil || selector.Anchored || selector.Smoothed {
		return nil, fault.New(fault.Unsupported, "%s cannot be answered from rollups", q.Expr)
	}
	a.matchers, a.question.Offset, a.question.Width = selector.LabelMatchers, selector.OriginalOffset.Milliseconds(), width.Milliseconds()
	if ok, _, reason := a.question.Exact(); !ok {
		return nil, fault.New(fault.Unsupported, "%s", reason)
	}
	return a, nil
}

func bare(expr parser.Expr) parser.Expr {
	for {
		switch n := expr.(type) {
		case *parser.ParenExpr:
			expr = n.Expr
		case *parser.StepInvariantExpr:
			expr = n.Expr
		default:
			return expr
		}
	}
}

// call reads function and parameter, and returns the selector and how far it reaches.
func (a *asked) call(expr parser.Expr, q *Vector) (*parser.VectorSelector, time.Duration, error) {
	lookback := time.Duration(q.Lookback) * time.Millisecond
	switch n := expr.(type) {
	case *parser.VectorSelector:
		a.at = n.PositionRange()
		return n, lookback, nil
	case *parser.Call:
		a.question.Function = rollup.Function(n.Func.Name)
		for _, arg := range n.Args {
			switch arg := bare(arg).(type) {
			case *parser.NumberLiteral:
				a.question.Parameter = arg.Val
			case *parser.VectorSelector:
				a.at = arg.PositionRange()
				return arg, lookback, nil
			case *parser.MatrixSelector:
				a.at = arg.PositionRange()
				return arg.VectorSelector.(*parser.VectorSelector), arg.Range, nil
			}
		}
	}
	return nil, 0, fault.New(fault.Unsupported, "%s cannot be answered from rollups", q.Expr)
}

// rollups evaluates an expression over rollups.
func (s *Scan) rollups(ctx context.Context, q *Vector) ([]prom.Series, annotations.Annotations, error) {
	a, err := askedOf(q)
	if err != nil {
		return nil, nil, err
	}
	for i := range s.segments {
		if have := s.segments[i].Resolution.Milliseconds(); have != q.Resolution {
			return nil, nil, fault.New(fault.Invalid, "segment %s has a resolution of %d ms: want %d", s.segments[i].File.Key, have, q.Resolution)
		}
	}
	start := q.Start - a.question.Offset - a.question.Width + 1
	f, err := s.find(ctx, [][]*labels.Matcher{a.matchers}, start, q.End-a.question.Offset, q.Shard)
	if err != nil {
		return nil, nil, err
	}
	r := &rolled{scan: s, found: f, asked: a, order: byWindow(f.catalogues)}
	if err := r.evaluate(ctx); err != nil {
		return nil, nil, err
	}
	if a.aggregate == nil {
		return r.series, r.remarks, nil
	}
	return s.aggregate(ctx, r, q)
}

// rolled is an evaluation over rollups on its way.
type rolled struct {
	scan  *Scan
	found *found
	asked *asked
	order []int // of segments, by their windows

	mu      sync.Mutex
	series  []prom.Series
	remarks annotations.Annotations
}

// byWindow is the order of segments by the starts of their windows.
func byWindow(catalogues []*metricfile.Catalogue) []int {
	var order []int
	for i, c := range catalogues {
		if c != nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return catalogues[a].Window.Start.Compare(catalogues[b].Window.Start) })
	return order
}

// evaluate answers the question for each series.
func (r *rolled) evaluate(ctx context.Context) error {
	units := unitsOf(r.found.rows)
	blocks := slices.Collect(slices.Chunk(units, rowsAtOnce))
	err := r.scan.share(ctx, len(blocks), 1, func() (func(int) error, func() error) {
		e := &roller{of: r, collector: r.scan.collector(r.found, 0)}
		return func(i int) error { return e.block(ctx, blocks[i]) }, e.done
	})
	if err != nil {
		return err
	}
	slices.SortFunc(r.series, func(a, b prom.Series) int { return labels.Compare(a.Labels, b.Labels) })
	for i := 1; i < len(r.series); i++ {
		if labels.Equal(r.series[i].Labels, r.series[i-1].Labels) {
			return fault.New(fault.Invalid, "vector cannot contain metrics with the same labelset")
		}
	}
	return nil
}

// unitsOf puts rows of the same labels together: their points may belong to the same Prometheus series.
func unitsOf(rows []*row) [][]*row {
	var units [][]*row
	for i, r := range rows {
		if i > 0 && labels.Equal(r.series.Labels, rows[i-1].series.Labels) {
			units[len(units)-1] = append(units[len(units)-1], r)
			continue
		}
		units = append(units, []*row{r})
	}
	return units
}

// roller is what one goroutine needs.
type roller struct {
	of        *rolled
	collector *collector
	rollup    metricfile.Rollup
	answer    rollup.Answer
	series    []prom.Series
	remarks   annotations.Annotations
	lanes     []*rollup.Lane  // of all rows of a block, track by track; their memory is used again
	places    [][]bucketPlace // by segment
	buckets   int64           // that were read
}

// bucketPlace is where buckets of a row are.
type bucketPlace struct {
	row  *row
	part *part
	lane int // the first of the row's
	want metricfile.RollupColumns
}

// lanesOf are the lanes of one Prometheus series.
type lanesOf struct {
	labels labels.Labels
	lanes  []*rollup.Lane
	delta  bool // all of them
}

// block answers for neighbouring series. Their buckets are read segment by segment, since they lie together there.
func (e *roller) block(ctx context.Context, units [][]*row) error {
	lanes, err := e.plan(units)
	if err != nil {
		return err
	}
	for _, segment := range e.of.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range e.places[segment] {
			if err := e.read(&e.places[segment][i]); err != nil {
				return err
			}
		}
	}
	e.of.scan.Statistics.Rows.Add(e.buckets)
	e.buckets = 0
	if err := e.count(lanes); err != nil {
		return err
	}
	from := 0
	for _, rows := range units {
		if from, err = e.unit(rows, from); err != nil {
			return err
		}
	}
	return nil
}

// plan makes empty lanes for the chosen series of rows, says how many, and lists where their buckets are.
func (e *roller) plan(units [][]*row) (lanes int, err error) {
	if e.places == nil {
		e.places = make([][]bucketPlace, len(e.of.scan.segments))
	}
	for i := range e.places {
		e.places[i] = e.places[i][:0]
	}
	for _, rows := range units {
		for _, r := range rows {
			want := columnsOf(e.of.asked.question.Function, r.series)
			for i := range r.parts {
				p := &r.parts[i]
				if len(p.hidden) > 0 || len(e.of.scan.segments[p.segment].Masked) > 0 {
					return 0, fmt.Errorf("%w: points of %s were deleted or masked", rollup.ErrInexact, r.name)
				}
				e.places[p.segment] = append(e.places[p.segment], bucketPlace{r, p, lanes, want})
			}
			for range r.tracks {
				e.lane(lanes, r.series)
				lanes++
			}
		}
	}
	return lanes, nil
}

// columnsOf are the columns that a function looks at. Of native histograms all are read.
func columnsOf(f rollup.Function, s *metricfile.Series) metricfile.RollupColumns {
	if s.Kind == metricfile.KindHistogram {
		return metricfile.WantWholeRollup
	}
	switch f {
	case rollup.Count, rollup.Present, rollup.Timestamp, rollup.FirstTime, rollup.LastTime:
		return 0
	case rollup.Instant, rollup.Last:
		return metricfile.WantLast
	case rollup.First:
		return metricfile.WantFirst
	case rollup.Delta:
		return metricfile.WantFirst | metricfile.WantLast
	case rollup.Rate, rollup.Increase:
		if s.Delta {
			return metricfile.WantSum
		}
		return metricfile.WantFirst | metricfile.WantLast | metricfile.WantIncrease
	case rollup.Sum:
		return metricfile.WantSum
	case rollup.Average:
		return metricfile.WantSum | metricfile.WantMin | metricfile.WantMax
	case rollup.Min:
		return metricfile.WantMin
	case rollup.Max:
		return metricfile.WantMax
	}
	return metricfile.WantWholeRollup
}

// lane empties a lane, or makes one.
func (e *roller) lane(i int, s *metricfile.Series) {
	if i == len(e.lanes) {
		e.lanes = append(e.lanes, rollup.NewLane(e.of.asked.question.Function, s))
		return
	}
	e.lanes[i].Reset(e.of.asked.question.Function, s)
}

// read adds buckets to the lanes of a row.
func (e *roller) read(p *bucketPlace) error {
	reader, err := e.collector.reader(p.part.segment)
	if err != nil {
		return err
	}
	if err := reader.RollupOnly(p.part.ordinal, p.want, &e.rollup); err != nil {
		return fmt.Errorf("read segment %s: %w", e.of.scan.segments[p.part.segment].File.Key, err)
	}
	e.buckets += int64(e.rollup.Len())
	for n, track := range p.row.tracks {
		if err := e.lanes[p.lane+n].Append(&e.rollup, track); err != nil {
			return err
		}
	}
	return nil
}

// count counts buckets as samples.
func (e *roller) count(lanes int) error {
	buckets := int64(0)
	for _, l := range e.lanes[:lanes] {
		buckets += int64(l.Len())
	}
	return e.of.scan.countSamples(buckets)
}

// unit answers for the series of rows of the same labels, whose lanes begin at a place, and returns where those of the next do.
func (e *roller) unit(rows []*row, from int) (int, error) {
	var all []*lanesOf
	byLabels := map[string]*lanesOf{}
	for _, r := range rows {
		names := r.series.Tracks()
		for _, track := range r.tracks {
			key := string(names[track].Bytes(nil))
			one := byLabels[key]
			if one == nil {
				one = &lanesOf{labels: names[track], delta: true}
				byLabels[key] = one
				all = append(all, one)
			}
			one.lanes, one.delta = append(one.lanes, e.lanes[from]), one.delta && r.series.Delta
			from++
		}
	}
	for _, one := range all {
		if err := e.one(one); err != nil {
			return from, err
		}
	}
	return from, nil
}

// one answers for a Prometheus series.
func (e *roller) one(of *lanesOf) error {
	q := &e.of.asked.question
	if err := rollup.Evaluate(q, of.lanes, &e.answer); err != nil {
		return err
	}
	s := prom.Series{Labels: of.labels}
	if !keepsName(q.Function) {
		s.Labels = s.Labels.DropReserved(func(name string) bool { return name == model.MetricNameLabel })
	}
	for i := range e.answer.Floats {
		at := q.Start + int64(i)*q.Step
		switch {
		case !e.answer.Present(i):
		case e.answer.Histograms != nil && e.answer.Histograms[i] != nil:
			s.HistogramTimes, s.Histograms = append(s.HistogramTimes, at), append(s.Histograms, e.answer.Histograms[i])
		default:
			s.Times, s.Values = append(s.Times, at), append(s.Values, e.answer.Floats[i])
		}
	}
	e.remark(of, len(s.Times) > 0)
	if s.Len() == 0 {
		return nil
	}
	e.series = append(e.series, s)
	return e.of.scan.memory.take(sizeOf(e.series[len(e.series)-1:]))
}

func keepsName(f rollup.Function) bool {
	return f == rollup.Instant || f == rollup.Last || f == rollup.First
}

// remark says what Prometheus would of a series.
func (e *roller) remark(of *lanesOf, floats bool) {
	name, at, notes := of.labels.Get(model.MetricNameLabel), e.of.asked.at, e.answer.Notes
	for _, one := range []struct {
		note   rollup.Note
		remark func() error
	}{
		{rollup.NoteMixed, func() error { return annotations.NewMixedFloatsHistogramsWarning(name, at) }},
		{rollup.NoteMixedLayout, func() error { return annotations.NewMixedExponentialCustomHistogramsWarning(name, at) }},
		{rollup.NoteNotCounter, func() error { return annotations.NewNativeHistogramNotCounterWarning(name, at) }},
		{rollup.NoteNotGauge, func() error { return annotations.NewNativeHistogramNotGaugeWarning(name, at) }},
		{rollup.NoteIgnored, func() error { return annotations.NewHistogramIgnoredInMixedRangeInfo(name, at) }},
		{rollup.NoteReconciled, func() error {
			return annotations.NewMismatchedCustomBucketsHistogramsInfo(at, annotations.HistogramAgg)
		}},
		{rollup.NoteQuantile, func() error { return annotations.NewInvalidQuantileWarning(e.of.asked.question.Parameter, at) }},
	} {
		if notes&one.note != 0 {
			e.remarks.Add(one.remark())
		}
	}
	counter := e.of.asked.question.Function == rollup.Rate || e.of.asked.question.Function == rollup.Increase
	if counter && floats && !of.delta && !isCounterName(name) {
		e.remarks.Add(annotations.NewPossibleNonCounterInfo(name, at))
	}
}

// done hands over what a goroutine has.
func (e *roller) done() error {
	e.of.mu.Lock()
	defer e.of.mu.Unlock()
	e.of.series = append(e.of.series, e.series...)
	e.of.remarks.Merge(e.remarks)
	return nil
}

// aggregate has the engine aggregate answers: it sees them as samples at the steps, and nowhere else.
func (s *Scan) aggregate(ctx context.Context, r *rolled, q *Vector) ([]prom.Series, annotations.Annotations, error) {
	expr := prom.Clone(r.asked.aggregate).(*parser.AggregateExpr)
	number := labels.MustNewMatcher(labels.MatchEqual, "answers", strconv.Itoa(len(r.series)))
	expr.Expr = &parser.VectorSelector{LabelMatchers: []*labels.Matcher{number}, PosRange: r.asked.aggregate.Expr.PositionRange()}
	result, err := s.scanner.engine.Evaluate(ctx, answers(r.series), prom.Request{
		Expr: expr, Start: time.UnixMilli(q.Start), End: time.UnixMilli(q.End), Step: time.Duration(q.Step) * time.Millisecond,
		Lookback: time.Millisecond, MaxSamples: int(s.maxSamples),
	})
	if err != nil {
		return nil, nil, err
	}
	r.remarks.Merge(result.Annotations)
	series, err := seriesOf(result)
	return series, r.remarks, err
}

// answers are a source that has nothing else.
type answers []prom.Series

// Select implements prom.Source.
func (a answers) Select(context.Context, prom.Selection) ([]prom.Series, error) { return a, nil }
