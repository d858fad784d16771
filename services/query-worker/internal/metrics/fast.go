// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/vector"
)

// fast evaluates a plan over columns of rows. vector.ErrUnsure: the engine has to.
func (s *Scan) fast(ctx context.Context, plan *vector.Plan, q *Vector) ([]prom.Series, annotations.Annotations, error) {
	question := plan.Question
	question.Stop = func() bool { return ctx.Err() != nil }
	f, err := s.find(ctx, [][]*labels.Matcher{plan.Matchers}, question.First(), question.Last(), q.Shard)
	if err != nil {
		return nil, nil, err
	}
	names, err := survey(f, &question)
	if err != nil {
		return nil, nil, err
	}
	e := &evaluation{scan: s, found: f, plan: plan, question: &question, labelSets: names > 1 && !question.Function.KeepsName()}
	if plan.Aggregation != nil {
		e.total = vector.NewGroups(plan.Aggregation, question.Steps)
	}
	if err := s.share(ctx, len(f.rows), rowsAtOnce, e.begin); err != nil {
		return nil, nil, err
	}
	if err := e.distinct(); err != nil {
		return nil, nil, err
	}
	series, err := e.series()
	return series, e.remarks(), err
}

// survey looks at what was found, and says how many metric names that is. It is unsure of native histograms, of rows that stand for the same series, and where some rows are
// deltas and others are not but it matters. Where all are, the question becomes that of deltas.
func survey(f *found, q *vector.Question) (names int, err error) {
	deltas, by := 0, map[string]origin{}
	for i, r := range f.rows {
		if r.series.Kind == metricfile.KindHistogram || i > 0 && labels.Equal(r.series.Labels, f.rows[i-1].series.Labels) {
			return 0, vector.ErrUnsure
		}
		if r.series.Delta {
			deltas++
		}
		if !distinctNames(r, by) {
			return 0, vector.ErrUnsure
		}
	}
	of, known := q.Function.OfDeltas()
	switch {
	case deltas == 0 || of == q.Function:
	case deltas < len(f.rows) || !known:
		return 0, vector.ErrUnsure
	default:
		q.Function = of
	}
	return len(by), nil
}

// origin is what rows have a metric name.
type origin struct {
	name string
	kind metricfile.Kind
}

// distinctNames notes the names of a row's series. False: they are also those of rows of another kind or name.
func distinctNames(r *row, by map[string]origin) bool {
	of := origin{r.name, r.series.Kind}
	note := func(name string) bool {
		known, ok := by[name]
		by[name] = of
		return !ok || known == of
	}
	before := "-" // no suffix
	for _, track := range r.tracks {
		suffix := suffixOf(r.series, track)
		if suffix != before && !note(r.name+suffix) {
			return false
		}
		before = suffix
	}
	return true
}

// suffixOf is what the name of one Prometheus series of a row ends with.
func suffixOf(s *metricfile.Series, track int) string {
	parts := len(s.Bounds)
	switch s.Kind {
	case metricfile.KindClassic:
		if parts++; track < parts {
			return metricfile.BucketSuffix
		}
	case metricfile.KindSummary:
		if track < parts {
			return ""
		}
	default:
		return ""
	}
	if track == parts && !s.NoSum {
		return metricfile.SumSuffix
	}
	return metricfile.CountSuffix
}

// evaluation is a plan on its way.
type evaluation struct {
	scan     *Scan
	found    *found
	plan     *vector.Plan
	question *vector.Question
	// labelSets says that series of several names lose them, and may then be alike.
	labelSets bool

	mu      sync.Mutex
	total   *vector.Groups
	lines   []prom.Series // where nothing is aggregated
	hashes  []uint64      // of label sets without names, where they matter
	noticed map[string]bool
}

// worker is what one goroutine needs for its rows.
type worker struct {
	of        *evaluation
	collector *collector
	windows   vector.Windows
	fresh     vector.Windows // of a row that has stale markers
	groups    *vector.Groups
	lines     []prom.Series
	hashes    []uint64
	noticed   map[string]bool
	resets    []int32
	values    []float64
	buffer    []byte
	times     []int64
	queryable int64
	held      int
}

func (e *evaluation) begin() (func(int) error, func() error) {
	w := &worker{of: e, collector: e.scan.collector(e.found, 0), noticed: map[string]bool{}}
	if e.plan.Aggregation != nil {
		w.groups = vector.NewGroups(e.plan.Aggregation, e.question.Steps)
	}
	return func(i int) error { return w.row(e.found.rows[i]) }, w.done
}

// row evaluates the chosen series of a row.
func (w *worker) row(r *row) error {
	w.collector.want = w.want(r)
	p, err := w.collector.collect(r)
	if err != nil || len(p.times) == 0 {
		return err
	}
	if err := w.of.scan.countSamples(int64(len(p.times)) * int64(len(r.tracks))); err != nil {
		return err
	}
	windows := w.find(p)
	if windows == nil || len(windows.Steps) == 0 {
		return nil
	}
	w.queryable += windows.Samples(w.of.question) * int64(len(r.tracks))
	if len(p.buckets) > 0 {
		p.cumulate()
	}
	names := &trackNames{row: r}
	for _, track := range r.tracks {
		values := w.evaluate(windows, p, r, track)
		if err := w.take(names, track, windows.Steps, values); err != nil {
			return err
		}
	}
	return nil
}

// want are the columns that are needed. Of what only times matter for, sums tell stale markers.
func (w *worker) want(r *row) metricfile.Columns {
	if w.of.question.Function.OfTimes() || w.of.counted() {
		if r.series.Kind == metricfile.KindFloat {
			return metricfile.WantValues
		}
		return metricfile.WantTotals
	}
	if needsParts(r) {
		return metricfile.WantValues
	}
	return metricfile.WantTotals
}

// counted reports whether values do not matter: only whether there are any.
func (e *evaluation) counted() bool {
	return e.question.Function == vector.Instant && e.plan.Aggregation != nil &&
		(e.plan.Aggregation.Operation == vector.OfCount || e.plan.Aggregation.Operation == vector.OfGroup)
}

// find finds the windows of a row. Stale markers are no samples of a range; the last sample of an instant may be one, and then there is none.
func (w *worker) find(p *points) *vector.Windows {
	q := w.of.question
	stale := slices.IndexFunc(p.values, value.IsStaleNaN) >= 0
	if stale && q.Function != vector.Instant {
		p.dropStale()
	}
	w.windows.Find(q, p.times)
	if !stale || q.Function != vector.Instant {
		return &w.windows
	}
	w.fresh.Without(&w.windows, func(last int) bool { return value.IsStaleNaN(p.values[last]) })
	return &w.fresh
}

func (w *worker) evaluate(windows *vector.Windows, p *points, r *row, track int) []float64 {
	q := w.of.question
	if q.Function.OfTimes() || w.of.counted() {
		w.values = vector.Evaluate[float64](timesOnly(q), windows, p.values, nil, w.values)
		return w.values
	}
	floats, numbers := p.column(r.series, track)
	w.resets = w.resets[:0]
	if numbers != nil {
		if q.Function.NeedsResets() {
			w.resets = vector.FindResets(numbers, w.resets)
		}
		w.values = vector.Evaluate(q, windows, numbers, w.resets, w.values)
		return w.values
	}
	if q.Function.NeedsResets() {
		w.resets = vector.FindResets(floats, w.resets)
	}
	w.values = vector.Evaluate(q, windows, floats, w.resets, w.values)
	return w.values
}

// timesOnly is a question that looks at no values, of one whose values do not matter.
func timesOnly(q *vector.Question) *vector.Question {
	if q.Function == vector.Instant {
		present := *q
		present.Function = vector.Present
		return &present
	}
	return q
}

// take adds the values of a series to its group, or makes a line of them.
func (w *worker) take(names *trackNames, track int, steps []int32, values []float64) error {
	e := w.of
	if e.question.Function.NeedsResets() {
		w.notice(names.name(track))
	}
	if e.labelSets {
		w.buffer = w.hash(names.labels(track))
	}
	if w.groups == nil {
		return w.line(names.labels(track), steps, values)
	}
	switch {
	case e.plan.Aggregation.Varies(names.own()):
		names.group = w.groups.Of(names.labels(track))
	case !names.grouped: // what tells the row's series apart does not matter
		names.group, names.grouped = w.groups.Of(names.row.series.Labels), true
	}
	w.groups.Add(names.group, steps, values)
	return w.hold()
}

// hold counts the memory of new groups.
func (w *worker) hold() error {
	if n := w.groups.Len(); n > w.held {
		more := n - w.held
		w.held = n
		return w.of.scan.memory.take(int64(more) * int64(w.groups.Bytes()))
	}
	return nil
}

// line keeps a series of the answer.
func (w *worker) line(l labels.Labels, steps []int32, values []float64) error {
	if !w.of.question.Function.KeepsName() {
		l = l.DropReserved(func(name string) bool { return name == model.MetricNameLabel })
	}
	one := prom.Series{Labels: l, Times: w.timesOf(steps), Values: slices.Clone(values)}
	w.lines = append(w.lines, one)
	return w.of.scan.memory.take(int64(8*len(values)) + int64(l.ByteSize()) + 192)
}

// timesOf are the times of steps. Those of all steps are shared.
func (w *worker) timesOf(steps []int32) []int64 {
	grid := &w.of.question.Grid
	if len(steps) == len(w.times) && len(steps) > 0 && w.times[0] == grid.At(int(steps[0])) && w.times[len(steps)-1] == grid.At(int(steps[len(steps)-1])) && len(steps) == grid.Steps {
		return w.times
	}
	times := make([]int64, len(steps))
	for i, step := range steps {
		times[i] = grid.At(int(step))
	}
	if len(steps) == grid.Steps {
		w.times = times
	}
	return times
}

// hash notes a label set without its name.
func (w *worker) hash(l labels.Labels) []byte {
	var hash uint64
	hash, w.buffer = l.HashWithoutLabels(w.buffer, model.MetricNameLabel)
	w.hashes = append(w.hashes, hash)
	return w.buffer
}

// notice notes a name of which Prometheus says that it is not a counter's.
func (w *worker) notice(name string) {
	if !isCounterName(name) {
		w.noticed[name] = true
	}
}

// isCounterName reports whether Prometheus takes a metric for a counter; of no name it says nothing.
func isCounterName(name string) bool {
	for _, suffix := range []string{"_total", metricfile.SumSuffix, metricfile.CountSuffix, metricfile.BucketSuffix} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return name == ""
}

// done hands over what a goroutine has.
func (w *worker) done() error {
	e := w.of
	e.scan.Statistics.Queryable.Add(w.queryable)
	e.mu.Lock()
	defer e.mu.Unlock()
	if w.groups != nil {
		e.total.Merge(w.groups)
	}
	e.lines, e.hashes = append(e.lines, w.lines...), append(e.hashes, w.hashes...)
	if e.noticed == nil {
		e.noticed = w.noticed
	}
	for name := range w.noticed {
		e.noticed[name] = true
	}
	return nil
}

// distinct is unsure where two series are alike without their names: the engine says so.
func (e *evaluation) distinct() error {
	slices.Sort(e.hashes)
	for i := 1; i < len(e.hashes); i++ {
		if e.hashes[i] == e.hashes[i-1] {
			return vector.ErrUnsure
		}
	}
	return nil
}

// series is the answer, sorted by labels.
func (e *evaluation) series() ([]prom.Series, error) {
	if e.total == nil {
		slices.SortFunc(e.lines, func(a, b prom.Series) int { return labels.Compare(a.Labels, b.Labels) })
		return e.lines, nil
	}
	var w worker
	w.of = e
	err := e.total.Each(func(l labels.Labels, steps []int32, values []float64) error {
		w.lines = append(w.lines, prom.Series{Labels: l, Times: w.timesOf(steps), Values: slices.Clone(values)})
		return nil
	})
	slices.SortFunc(w.lines, func(a, b prom.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return w.lines, err
}

// remarks are what the engine would say of the evaluation.
func (e *evaluation) remarks() annotations.Annotations {
	var all annotations.Annotations
	for name := range e.noticed {
		all.Add(annotations.NewPossibleNonCounterInfo(name, e.plan.At))
	}
	return all
}

// trackNames are the labels of a row's series, made when they are needed.
type trackNames struct {
	row     *row
	all     []labels.Labels
	group   int32
	grouped bool
}

func (n *trackNames) labels(track int) labels.Labels {
	if n.row.series.Kind == metricfile.KindFloat {
		return n.row.series.Labels
	}
	if n.all == nil {
		n.all = n.row.series.Tracks()
	}
	return n.all[track]
}

func (n *trackNames) name(track int) string { return n.row.name + suffixOf(n.row.series, track) }

// own is the label that tells the row's series apart, beside their names.
func (n *trackNames) own() string {
	if n.row.series.Kind == metricfile.KindSummary {
		return metricfile.QuantileLabel
	}
	return metricfile.BucketLabel
}
