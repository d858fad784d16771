// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"math"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// total is what was added up of one series in one bucket.
type total struct {
	rows  int64 // zero: there was nothing
	value float64
}

// totals are the totals of all series of a windowed expression. They are for one goroutine.
type totals struct {
	grid   *grid
	window *plan.Windowed
	memory *allowance
	most   int // series
	byText map[string]*totalSeries
	names  map[uint64]*totalName
}

type totalSeries struct {
	labels labels.Labels
	text   string
	dense  []total
	few    map[int64]total
}

// totalName is a name that an extractor has for a series: a label without a value is none, but is in the name.
type totalName struct {
	text string
	of   *totalSeries
	next *totalName // another one of the same hash
}

// denseBuckets is the size of a grid up to which series have an array, and above it a map; the first fewSeries have one of up to sixteen times the size.
const (
	denseBuckets = 1024
	fewSeries    = 64
)

func newTotals(g *grid, w *plan.Windowed, m *allowance, most int) *totals {
	return &totals{grid: g, window: w, memory: m, most: most, byText: map[string]*totalSeries{}, names: map[uint64]*totalName{}}
}

// series returns the series of labels that an extractor has made.
func (t *totals) series(l log.LabelsResult) (*totalSeries, error) {
	text := l.String()
	for n := t.names[l.Hash()]; n != nil; n = n.next {
		if n.text == text {
			return n.of, nil
		}
	}
	found := l.Labels()
	if t.window.Summed {
		found = found.WithoutEmpty()
	}
	s, err := t.named(found.String(), found)
	t.names[l.Hash()] = &totalName{text: text, of: s, next: t.names[l.Hash()]}
	return s, err
}

func (t *totals) named(text string, l labels.Labels) (*totalSeries, error) {
	if s := t.byText[text]; s != nil {
		return s, nil
	}
	s := &totalSeries{labels: l, text: text}
	t.byText[text] = s
	if t.most > 0 && len(t.byText) > t.most {
		return nil, fault.New(fault.Exhausted, "maximum of series (%d) reached for a single query", t.most)
	}
	buckets, size := t.grid.buckets(), len(text)*3+300
	if buckets <= denseBuckets || buckets <= 16*denseBuckets && len(t.byText) <= fewSeries {
		s.dense = make([]total, buckets)
		size += int(buckets) * 16
	} else {
		s.few = map[int64]total{}
	}
	return s, t.memory.take(size)
}

// put combines a total into a bucket of a series.
func (t *totals) put(s *totalSeries, bucket int64, v total) error {
	if s.dense != nil {
		s.dense[bucket] = t.combined(s.dense[bucket], v)
		return nil
	}
	old, there := s.few[bucket]
	s.few[bucket] = t.combined(old, v)
	if there {
		return nil
	}
	return t.memory.take(48)
}

func (t *totals) combined(a, b total) total {
	switch {
	case a.rows == 0:
		return b
	case b.rows == 0:
		return a
	}
	c := total{rows: a.rows + b.rows, value: a.value + b.value}
	switch t.window.Combine {
	case plan.Min:
		c.value = lesser(a.value, b.value)
	case plan.Max:
		c.value = -lesser(-a.value, -b.value)
	}
	return c
}

// lesser is the smaller one, or the one that is a number, as Loki's engine has it.
func lesser(a, b float64) float64 {
	if b < a || math.IsNaN(a) {
		return b
	}
	return a
}

// merge adds what another goroutine has found.
func (t *totals) merge(others *totals) error {
	if len(t.byText) == 0 {
		t.byText = others.byText
		return nil
	}
	for text, s := range others.byText {
		into, err := t.named(text, s.labels)
		if err != nil {
			return err
		}
		if err := s.each(func(bucket int64, v total) error { return t.put(into, bucket, v) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *totalSeries) each(f func(bucket int64, v total) error) error {
	for bucket, v := range s.dense {
		if v.rows > 0 {
			if err := f(int64(bucket), v); err != nil {
				return err
			}
		}
	}
	for bucket, v := range s.few {
		if err := f(bucket, v); err != nil {
			return err
		}
	}
	return nil
}

// point is a value of a series at a step.
type point struct {
	milliseconds int64
	value        float64
}

// series is a series of an answer.
type series struct {
	text   string
	points []point
}

// answer makes series of windows out of the totals. A series with an error in it is the query's error, as it is Loki's.
func (t *totals) answer(seconds float64) ([]series, error) {
	all := make([]series, 0, len(t.byText))
	for _, s := range t.byText {
		points := t.windows(s, seconds)
		if len(points) == 0 {
			continue
		}
		if s.labels.Has(logqlmodel.ErrorLabel) && s.labels.Get(logqlmodel.PreserveErrorLabel) != "true" {
			return nil, fault.Wrap(fault.Invalid, logqlmodel.NewPipelineErr(s.labels))
		}
		all = append(all, series{text: s.text, points: points})
	}
	return all, nil
}

func (t *totals) windows(s *totalSeries, seconds float64) []point {
	var points []point
	sum := t.sliding(s)
	for step := range t.grid.steps {
		window := sum(step)
		if window.rows == 0 {
			continue
		}
		if seconds > 0 {
			window.value /= seconds
		}
		points = append(points, point{t.grid.milliseconds(step), window.value})
	}
	return points
}

// sliding returns a function that combines the buckets of each window, asked for step by step. Counts are whole numbers, of which what leaves
// the window can be taken away again; other values are combined anew.
func (t *totals) sliding(s *totalSeries) func(step int64) total {
	if t.window.Values || t.grid.span <= t.grid.stride {
		return func(step int64) total { return t.over(s, step*t.grid.stride, step*t.grid.stride+t.grid.span) }
	}
	var window total
	var begin, end int64
	return func(step int64) total {
		for first := step * t.grid.stride; begin < first; begin++ {
			old := s.at(begin)
			window.rows, window.value = window.rows-old.rows, window.value-old.value
		}
		for last := step*t.grid.stride + t.grid.span; end < last; end++ {
			window = t.combined(window, s.at(end))
		}
		return window
	}
}

// over combines the buckets from begin to before end.
func (t *totals) over(s *totalSeries, begin, end int64) total {
	var window total
	for b := begin; b < end; b++ {
		window = t.combined(window, s.at(b))
	}
	return window
}

func (s *totalSeries) at(bucket int64) total {
	if s.dense != nil {
		return s.dense[bucket]
	}
	return s.few[bucket]
}
