// SPDX-License-Identifier: AGPL-3.0-only

package promtest

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// Memory is a prom.Source of samples in memory. Its zero value is empty.
type Memory struct {
	mu       sync.Mutex
	series   map[string]*samples // by labels and temporality
	selected []prom.Selection
}

type samples struct {
	labels labels.Labels
	delta  bool
	byTime map[int64]sample
}

type sample struct {
	start     int64
	value     float64
	histogram *histogram.FloatHistogram // nil: a float
}

// Add adds samples, in any order. Of two of one time the later one stays.
func (m *Memory) Add(series ...prom.Series) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range series {
		to, add := m.of(&series[i]), &series[i]
		for n, t := range add.Times {
			to.byTime[t] = sample{start: startAt(add.Starts, n), value: add.Values[n]}
		}
		for n, t := range add.HistogramTimes {
			to.byTime[t] = sample{start: startAt(add.HistogramStarts, n), histogram: add.Histograms[n]}
		}
	}
}

func (m *Memory) of(s *prom.Series) *samples {
	if m.series == nil {
		m.series = map[string]*samples{}
	}
	key := string(s.Labels.Bytes(nil))
	if s.Delta {
		key += "\xff"
	}
	if m.series[key] == nil {
		m.series[key] = &samples{labels: s.Labels, delta: s.Delta, byTime: map[int64]sample{}}
	}
	return m.series[key]
}

func startAt(starts []int64, i int) int64 {
	if starts == nil {
		return 0
	}
	return starts[i]
}

// Selected returns what was asked so far.
func (m *Memory) Selected() []prom.Selection {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.selected)
}

// Select implements prom.Source.
func (m *Memory) Select(_ context.Context, s prom.Selection) ([]prom.Series, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.selected = append(m.selected, s)
	var found []prom.Series
	for _, one := range m.series {
		if !s.Shard.Holds(labels.StableHash(one.labels)) || !matches(one.labels, s.Matchers) {
			continue
		}
		if series := one.between(s.Start, s.End); series.Len() > 0 {
			found = append(found, series)
		}
	}
	return prom.Sorted(found), nil
}

func matches(l labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(l.Get(m.Name)) })
}

// between is the series with samples of a range. Hints are those that all of them have.
func (s *samples) between(start, end int64) prom.Series {
	times := make([]int64, 0, len(s.byTime))
	for t := range s.byTime {
		times = append(times, t)
	}
	slices.Sort(times)
	out := prom.Series{Labels: s.labels, Delta: s.delta}
	for _, t := range times {
		one := s.byTime[t]
		if one.histogram == nil {
			out.Times, out.Values, out.Starts = append(out.Times, t), append(out.Values, one.value), append(out.Starts, one.start)
			continue
		}
		out.HistogramTimes, out.Histograms = append(out.HistogramTimes, t), append(out.Histograms, one.histogram)
		out.HistogramStarts = append(out.HistogramStarts, one.start)
	}
	prom.Hints(&out)
	out.Trim(start, end)
	return out
}
