// SPDX-License-Identifier: AGPL-3.0-only

package rollup_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

const hour = time.Hour

// origin is where the windows of a test begin: a full day, since tiers of a day have to.
func origin() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }

func stale() float64 { return math.Float64frombits(value.StaleNaN) }

// row is a series and its points, over some hours.
type row struct {
	name   string
	series *metricfile.Series
	points metricfile.Points
}

// times are irregular: about every interval, with gaps, and now and then exactly on the ends of buckets.
func times(r *rand.Rand, interval time.Duration, hours int) []int64 {
	var out []int64
	at, end := origin(), origin().Add(time.Duration(hours)*hour)
	for at.Before(end) {
		out = append(out, at.UnixNano())
		switch r.IntN(12) {
		case 0:
			at = at.Truncate(10 * time.Second).Add(10 * time.Second)
		case 1:
			at = at.Add(time.Duration(r.IntN(900)) * time.Second).Truncate(time.Minute)
		default:
			at = at.Add(interval + time.Duration(r.Int64N(int64(interval/2))))
		}
		if last := time.Unix(0, out[len(out)-1]); at.Sub(last) < time.Millisecond {
			at = last.Add(time.Millisecond)
		}
	}
	return out
}

func named(name string) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, name, "job", "test")
}

func floats(r *rand.Rand, name string, next func(before float64) float64) row {
	w := row{name: name, series: &metricfile.Series{Labels: named(name)}}
	w.points.Times = times(r, 13*time.Second, 7)
	v := 0.0
	for range w.points.Times {
		if r.IntN(25) == 0 {
			w.points.Values = append(w.points.Values, stale())
			continue
		}
		v = next(v)
		w.points.Values = append(w.points.Values, v)
	}
	return w
}

func classic(r *rand.Rand) row {
	w := row{name: "classic", series: &metricfile.Series{Labels: named("classic"), Kind: metricfile.KindClassic, Bounds: []float64{1, 5}}}
	w.points.Times = times(r, 17*time.Second, 7)
	w.points.Buckets = make([][]uint64, 3)
	var counts [3]uint64
	sum := 0.0
	for range w.points.Times {
		if r.IntN(40) == 0 {
			counts, sum = [3]uint64{}, 0
		}
		total := uint64(0)
		for b := range counts {
			counts[b] += r.Uint64N(5)
			total += counts[b]
			w.points.Buckets[b] = append(w.points.Buckets[b], counts[b])
		}
		sum += r.Float64()
		w.points.Counts = append(w.points.Counts, total)
		if r.IntN(25) == 0 {
			w.points.Values = append(w.points.Values, stale())
		} else {
			w.points.Values = append(w.points.Values, sum)
		}
	}
	return w
}

// native histograms lose resolution now and then, and gain it by resets.
func native(r *rand.Rand, name string, delta bool) row {
	w := row{name: name, series: &metricfile.Series{Labels: named(name), Kind: metricfile.KindHistogram, Delta: delta}}
	w.points.Times = times(r, 19*time.Second, 7)
	schema, buckets := int32(3), make([]float64, 4)
	for range w.points.Times {
		if r.IntN(40) == 0 || delta {
			schema, buckets = int32(r.IntN(4)), make([]float64, 4)
		} else if schema > 0 && r.IntN(40) == 0 {
			schema, buckets = schema-1, []float64{buckets[0] + buckets[1], buckets[2] + buckets[3], 0, 0}
		}
		for b := range buckets {
			buckets[b] += float64(r.IntN(4))
		}
		h := &histogram.FloatHistogram{
			Schema: schema, ZeroThreshold: 0.001, ZeroCount: 2, Sum: 2 * (buckets[0] + buckets[1] + buckets[2] + buckets[3]),
			PositiveSpans: []histogram.Span{{Offset: 1, Length: 4}}, PositiveBuckets: slices.Clone(buckets),
		}
		h.Count = h.ZeroCount + buckets[0] + buckets[1] + buckets[2] + buckets[3]
		if r.IntN(25) == 0 {
			h = &histogram.FloatHistogram{Sum: stale()}
		} else if delta {
			h.CounterResetHint = histogram.GaugeType
		}
		w.points.Histograms = append(w.points.Histograms, h)
	}
	return w
}

func rows() []row {
	r := rand.New(rand.NewPCG(3, 14))
	deltas := floats(r, "deltas", func(float64) float64 { return float64(r.IntN(9)) / 8 })
	deltas.series.Delta = true
	return []row{
		floats(r, "counter", func(before float64) float64 {
			if r.IntN(30) == 0 {
				return float64(r.IntN(3))
			}
			return before + r.Float64()*7
		}),
		floats(r, "gauge", func(before float64) float64 {
			switch r.IntN(60) {
			case 0:
				return math.NaN()
			case 1:
				return math.Inf(1)
			}
			return r.NormFloat64() * 100
		}),
		floats(r, "plain", func(float64) float64 { return r.NormFloat64() * 100 }),
		deltas, classic(r), native(r, "native", false), native(r, "nativedeltas", true),
	}
}

// window are the points of a row in [from, to).
func (w *row) window(from, to time.Time) *metricfile.Points {
	a, _ := slices.BinarySearch(w.points.Times, from.UnixNano())
	b, _ := slices.BinarySearch(w.points.Times, to.UnixNano())
	p := &metricfile.Points{Times: w.points.Times[a:b]}
	if w.points.Values != nil {
		p.Values = w.points.Values[a:b]
	}
	if w.points.Counts != nil {
		p.Counts = w.points.Counts[a:b]
	}
	for _, bucket := range w.points.Buckets {
		p.Buckets = append(p.Buckets, bucket[a:b])
	}
	if w.points.Histograms != nil {
		p.Histograms = w.points.Histograms[a:b]
	}
	return p
}

// hourly makes a tier of the points, hour by hour.
func (w *row) hourly(t *testing.T, resolution time.Duration) []*metricfile.Rollup {
	t.Helper()
	var out []*metricfile.Rollup
	for h := range 7 {
		var a rollup.Aggregator
		from := origin().Add(time.Duration(h) * hour)
		r, err := a.Aggregate(w.series, w.window(from, from.Add(hour)), rollup.Options{Resolution: resolution, Sketches: true})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func merged(t *testing.T, w *row, resolution time.Duration, parts ...*metricfile.Rollup) *metricfile.Rollup {
	t.Helper()
	var m rollup.Merger
	m.Begin(w.series, resolution)
	for _, p := range parts {
		if err := m.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return m.Rollup()
}

func tiers() []time.Duration {
	return []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 20 * time.Minute, hour}
}

// source is the points of a row as the engine reads them.
type source []prom.Series

func (s source) Select(_ context.Context, selection prom.Selection) ([]prom.Series, error) {
	var out []prom.Series
	for _, one := range s {
		if !slices.ContainsFunc(selection.Matchers, func(m *labels.Matcher) bool { return !m.Matches(one.Labels.Get(m.Name)) }) {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b prom.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return out, nil
}

// raw is one track of a row.
func (w *row) raw(track int) prom.Series {
	s := prom.Series{Labels: w.series.Tracks()[track], Delta: w.series.Delta}
	var ms []int64
	for _, ns := range w.points.Times {
		ms = append(ms, rollup.Milliseconds(ns))
	}
	if w.series.Kind == metricfile.KindHistogram {
		s.HistogramTimes, s.Histograms = ms, w.points.Histograms
		return s
	}
	s.Times, s.Values = ms, w.points.Track(w.series, track, nil)
	return s
}

type asked struct {
	function rollup.Function
	text     string // with %s for the selector
	width    time.Duration
}

func asks(resolution time.Duration) []asked {
	var out []asked
	for _, f := range []rollup.Function{
		rollup.Rate, rollup.Increase, rollup.Delta, rollup.Count, rollup.Sum, rollup.Average, rollup.Min, rollup.Max, rollup.First, rollup.Last,
		rollup.Present, rollup.FirstTime, rollup.LastTime,
	} {
		for _, width := range []time.Duration{resolution, 3 * resolution, 12 * resolution} {
			out = append(out, asked{f, fmt.Sprintf("%s(%%s[%dms])", f, width.Milliseconds()), width})
		}
	}
	for _, q := range []string{"0", "0.3", "0.5", "0.99", "1", "-1", "2", "NaN"} {
		out = append(out, asked{rollup.Quantile, fmt.Sprintf("quantile_over_time(%s, %%s[%dms])", q, 2*resolution.Milliseconds()), 2 * resolution})
	}
	return append(out, asked{rollup.Instant, "%s", 0}, asked{rollup.Timestamp, "timestamp(%s)", 0})
}

// TestI5WhatExactAllowsIsTheEnginesAnswer asks every function of every tier, and the engine over the points.
func TestI5WhatExactAllowsIsTheEnginesAnswer(t *testing.T) {
	t.Parallel()
	compared, unknown := map[rollup.Function]int{}, map[rollup.Function]int{}
	for _, w := range rows() {
		fine := w.hourly(t, 10*time.Second)
		for _, resolution := range tiers() {
			tier := []*metricfile.Rollup{merged(t, &w, resolution, fine...)}
			if resolution < 5*time.Minute {
				tier = w.hourly(t, resolution)
			}
			for track := range w.series.Tracks() {
				for _, ask := range asks(resolution) {
					c := comparison{row: &w, track: track, tier: tier, resolution: resolution, asked: ask}
					same, inexact := c.run(t)
					compared[ask.function] += same
					unknown[ask.function] += inexact
				}
			}
		}
	}
	for _, f := range slices.Sorted(maps.Keys(compared)) {
		t.Logf("%-20s %7d values compared, %d questions that only points can answer", f, compared[f], unknown[f])
		if compared[f] < 1000 {
			t.Errorf("%q: only %d values", f, compared[f])
		}
	}
}

type comparison struct {
	*row
	track      int
	tier       []*metricfile.Rollup
	resolution time.Duration
	asked      asked
}

func (c *comparison) question() rollup.Question {
	const lookback = 7 * time.Minute
	step := max(c.resolution, 4*time.Minute/c.resolution*c.resolution)
	q := rollup.Question{
		Function: c.asked.function, Resolution: c.resolution.Milliseconds(), Step: step.Milliseconds(), Width: c.asked.width.Milliseconds(),
		Start: origin().Add(-2 * hour).UnixMilli(), End: origin().Add(9 * hour).UnixMilli(), Offset: 2 * c.resolution.Milliseconds(),
	}
	if q.Width == 0 {
		q.Width = lookback.Milliseconds()
	}
	if c.asked.function == rollup.Quantile {
		text, _, _ := strings.Cut(strings.TrimPrefix(c.asked.text, "quantile_over_time("), ",")
		if _, err := fmt.Sscan(text, &q.Parameter); err != nil {
			panic(err)
		}
	}
	return q
}

// run compares all steps and returns how many of them had a value.
func (c *comparison) run(t *testing.T) (values, inexact int) {
	t.Helper()
	q := c.question()
	if ok, _, reason := q.Exact(); !ok {
		t.Fatalf("%s at %s is refused: %s", c.asked.text, c.resolution, reason)
	}
	lane := rollup.NewLane(q.Function, c.series)
	for _, r := range c.tier {
		if err := lane.Append(r, c.track); err != nil {
			t.Fatal(err)
		}
	}
	var a rollup.Answer
	if err := rollup.Evaluate(&q, []*rollup.Lane{lane}, &a); err != nil {
		if !errors.Is(err, rollup.ErrInexact) {
			t.Fatal(err)
		}
		return 0, 1
	}
	return c.against(t, &q, &a), 0
}

// against compares an answer with the engine's.
func (c *comparison) against(t *testing.T, q *rollup.Question, a *rollup.Answer) (values int) {
	t.Helper()
	series := c.raw(c.track)
	selector := fmt.Sprintf("{__name__=%q,job=\"test\"}", series.Labels.Get(model.MetricNameLabel))
	where := c.asked.text + fmt.Sprintf(" of %s at %s", selector, c.resolution)
	text := strings.ReplaceAll(strings.TrimSuffix(fmt.Sprintf(c.asked.text, selector+"\x00"), "\x00"), "\x00", "")
	text = withOffset(text, q.Offset)
	expr, err := prom.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	result, err := prom.New(prom.Options{}).Evaluate(t.Context(), source{series}, prom.Request{
		Expr: expr, Start: time.UnixMilli(q.Start), End: time.UnixMilli(q.End), Step: time.Duration(q.Step) * time.Millisecond, Lookback: 7 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	floats, histograms := map[int64]float64{}, map[int64]*histogram.FloatHistogram{}
	for _, line := range result.Value.(prom.Matrix) {
		for _, p := range line.Floats {
			floats[p.T] = p.F
		}
		for _, p := range line.Histograms {
			histograms[p.T] = p.H
		}
	}
	for i := range a.Floats {
		at := q.Start + int64(i)*q.Step
		want, isFloat := floats[at]
		native, isNative := histograms[at]
		switch {
		case isFloat != !value.IsStaleNaN(a.Floats[i]), isNative != (a.Histograms != nil && a.Histograms[i] != nil):
			t.Fatalf("%s, %s: want float %t, histogram %t, got %v", where, time.UnixMilli(at).UTC(), isFloat, isNative, a.Floats[i])
		case isFloat && !c.close(q, at, want, a.Floats[i]):
			t.Fatalf("%s, %s: want %v, got %v", where, time.UnixMilli(at).UTC(), want, a.Floats[i])
		case isNative && !closeHistograms(native, a.Histograms[i]):
			t.Fatalf("%s, %s: want %s, got %s", where, time.UnixMilli(at).UTC(), native, a.Histograms[i])
		}
		if isFloat || isNative {
			values++
		}
	}
	return values
}

func withOffset(text string, offset int64) string {
	before, after, ranged := strings.Cut(text, "]")
	if !ranged {
		before, after, _ = strings.Cut(text, "}")
		return before + fmt.Sprintf("} offset %dms", offset) + after
	}
	return before + fmt.Sprintf("] offset %dms", offset) + after
}

// close holds a value to the bound that Exact states, at 1e-9 where that is of sums.
func (c *comparison) close(q *rollup.Question, at int64, want, got float64) bool {
	_, bound, _ := q.Exact()
	switch {
	case math.IsNaN(want) || math.IsInf(want, 0) || bound == 0:
		return want == got || math.IsNaN(want) && math.IsNaN(got)
	case bound == rollup.SketchBound:
		return math.Abs(want-got) <= 1.0001*bound*c.neighbours(q, at)
	}
	return math.Abs(want-got) <= 1e-9*max(math.Abs(want), 1e-3)
}

// neighbours is the larger magnitude of the two samples between which a quantile lies.
func (c *comparison) neighbours(q *rollup.Question, at int64) float64 {
	var in []float64
	s := c.raw(c.track)
	for i, ms := range s.Times {
		if ms > at-q.Offset-q.Width && ms <= at-q.Offset && !value.IsStaleNaN(s.Values[i]) {
			in = append(in, s.Values[i])
		}
	}
	slices.Sort(in)
	rank := q.Parameter * float64(len(in)-1)
	return max(math.Abs(in[int(rank)]), math.Abs(in[min(int(rank)+1, len(in)-1)]))
}

func closeHistograms(want, got *histogram.FloatHistogram) bool {
	strip := func(h *histogram.FloatHistogram) *histogram.FloatHistogram {
		c := h.Copy().Compact(0)
		c.CounterResetHint = 0
		return c
	}
	return cmp.Equal(strip(want), strip(got), cmpopts.EquateApprox(1e-9, 1e-9), cmpopts.EquateEmpty())
}

// TestI6WhatExactDoesNotAllowIsRefused goes through all of PromQL's functions, and through steps and ranges beside the ends of buckets.
func TestI6WhatExactDoesNotAllowIsRefused(t *testing.T) {
	t.Parallel()
	allowed := []string{
		"avg_over_time", "count_over_time", "delta", "first_over_time", "increase", "last_over_time", "max_over_time", "min_over_time", "present_over_time",
		"quantile_over_time", "rate", "sum_over_time", "timestamp", "ts_of_first_over_time", "ts_of_last_over_time",
	}
	var got []string
	for _, name := range slices.Sorted(maps.Keys(parser.Functions)) {
		if ok, _, reason := rollup.Exact(rollup.Function(name), hour, time.Minute, 0, origin(), time.Minute); ok {
			got = append(got, name)
		} else if reason == "" {
			t.Errorf("%s is refused without a reason", name)
		}
	}
	if diff := cmp.Diff(allowed, got); diff != "" {
		t.Error(diff)
	}
	series := &metricfile.Series{Labels: named("x")}
	minute := time.Minute.Milliseconds()
	good := rollup.Question{Function: rollup.Rate, Start: origin().UnixMilli(), End: origin().UnixMilli() + 10*minute, Step: minute, Width: 5 * minute, Resolution: minute}
	for name, change := range map[string]func(q *rollup.Question){
		"a function that is not in the table": func(q *rollup.Question) { q.Function = "irate" },
		"a range of parts of buckets":         func(q *rollup.Question) { q.Width += 1000 },
		"no range":                            func(q *rollup.Question) { q.Width = 0 },
		"steps shorter than buckets":          func(q *rollup.Question) { q.Step = 30_000 },
		"a start between ends":                func(q *rollup.Question) { q.Start++ },
		"an offset of parts of buckets":       func(q *rollup.Question) { q.Offset = 1 },
		"no resolution":                       func(q *rollup.Question) { q.Resolution = 0 },
	} {
		q := good
		change(&q)
		var a rollup.Answer
		if err := rollup.Evaluate(&q, []*rollup.Lane{rollup.NewLane(q.Function, series)}, &a); !errors.Is(err, fault.Unsupported) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	moved := good
	moved.Start, moved.Offset = good.Start+1500, 1500
	var a rollup.Answer
	if err := rollup.Evaluate(&moved, []*rollup.Lane{rollup.NewLane(moved.Function, series)}, &a); err != nil {
		t.Errorf("an offset that brings steps back to the ends of buckets: %v", err)
	}
}

// TestI2CountsAreConserved counts at every tier.
func TestI2CountsAreConserved(t *testing.T) {
	t.Parallel()
	for _, w := range rows() {
		want := int64(0)
		for i := range w.points.Times {
			if !w.points.Stale(i) {
				want++
			}
		}
		for _, resolution := range tiers() {
			got := int64(0)
			for _, r := range w.hourly(t, resolution) {
				for _, n := range r.Counts {
					got += n
				}
			}
			if got != want {
				t.Errorf("%s at %s: %d of %d points", w.name, resolution, got, want)
			}
		}
	}
}

// near compares rollups: exactly, but for what is added up.
func near() cmp.Options {
	exact := cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })
	summed := cmp.Comparer(func(a, b float64) bool {
		return a == b || math.IsNaN(a) || math.IsNaN(b) || math.Abs(a-b) <= 1e-10*max(math.Abs(a), math.Abs(b), 1)
	})
	added := func(p cmp.Path) bool {
		return slices.ContainsFunc(p, func(s cmp.PathStep) bool {
			f, ok := s.(cmp.StructField)
			return ok && (f.Name() == "Sum" || f.Name() == "Increase")
		})
	}
	return cmp.Options{
		cmp.FilterPath(added, summed), cmp.FilterPath(func(p cmp.Path) bool { return !added(p) }, exact), cmpopts.EquateEmpty(),
		cmp.Transformer("compact", func(h *histogram.FloatHistogram) *histogram.FloatHistogram { return h }),
	}
}

// TestI3ATierOfAFinerOneIsThatOfThePoints makes each tier from the points, and from each finer one.
func TestI3ATierOfAFinerOneIsThatOfThePoints(t *testing.T) {
	t.Parallel()
	for _, w := range rows() {
		for i, finer := range tiers() {
			for _, resolution := range tiers()[i+1:] {
				want := w.hourly(t, resolution)
				for h, fine := range w.hourly(t, finer) {
					if diff := cmp.Diff(flat(want[h]), flat(merged(t, &w, resolution, fine)), near()); diff != "" {
						t.Fatalf("%s at %s from %s, hour %d: %s", w.name, resolution, finer, h, diff)
					}
				}
			}
		}
	}
}

// flat is a rollup with its histograms without the layout of spans, which says nothing.
func flat(r *metricfile.Rollup) *metricfile.Rollup {
	c := *r
	for _, column := range []*[]*histogram.FloatHistogram{&c.First, &c.Last, &c.Increase, &c.Sum} {
		*column = slices.Clone(*column)
		for i, h := range *column {
			if h != nil {
				(*column)[i] = h.Copy().Compact(0)
			}
		}
	}
	return &c
}

// TestI4MergingIsAssociative merges windows in different groupings.
func TestI4MergingIsAssociative(t *testing.T) {
	t.Parallel()
	for _, w := range rows() {
		hours := w.hourly(t, time.Minute)
		want := merged(t, &w, hour, hours...)
		left := merged(t, &w, hour, merged(t, &w, time.Minute, hours[:4]...), merged(t, &w, 20*time.Minute, hours[4:]...))
		right := merged(t, &w, hour, merged(t, &w, 5*time.Minute, hours[:1]...), merged(t, &w, time.Minute, hours[1:]...))
		for name, got := range map[string]*metricfile.Rollup{"left": left, "right": right} {
			if diff := cmp.Diff(flat(want), flat(got), near()); diff != "" {
				t.Errorf("%s, %s: %s", w.name, name, diff)
			}
		}
	}
}
