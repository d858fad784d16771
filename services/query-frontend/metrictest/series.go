// SPDX-License-Identifier: AGPL-3.0-only

// Package metrictest makes series and PromQL queries for tests that hold answers to those of Prometheus' engine, and compares them. Everything follows from a seed.
package metrictest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// maker makes series.
type maker struct {
	random     *rand.Rand
	start, end int64
	out        []prom.Series
}

// Series returns series with samples in [start, end), sorted by labels: counters with resets, gaps and stale markers, gauges with odd values, classic and native
// histograms, series that come and go or change their type; with deltas also delta sources, which Prometheus' own storage does not have.
func Series(seed uint64, start, end time.Time, deltas bool) []prom.Series {
	m := &maker{random: rand.New(rand.NewPCG(seed, 1)), start: start.UnixMilli(), end: end.UnixMilli()}
	for job := range 3 {
		for instance := range 4 {
			m.instance(fmt.Sprintf("job-%d", job), fmt.Sprintf("host-%d", instance))
		}
	}
	if deltas {
		m.deltas()
	}
	slices.SortFunc(m.out, func(a, b prom.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return m.out
}

func (m *maker) instance(job, instance string) {
	of := func(name string, more ...string) labels.Labels {
		return labels.FromStrings(append([]string{model.MetricNameLabel, name, "job", job, "instance", instance}, more...)...)
	}
	for _, code := range []string{"200", "404", "500"} {
		m.add(of("http_requests_total", "code", code), m.counter(m.times(15_000), 40))
	}
	m.add(of("errors_total"), m.counter(m.times(30_000), 3))
	m.add(of("temperature", "room", fmt.Sprint("r", m.random.IntN(3))), m.gauge(m.times(20_000), true))
	m.add(of("weight"), m.gauge(m.times(30_000), false))
	m.add(of("up"), m.flag(m.times(15_000)))
	m.versions(of)
	m.add(of("sparse"), m.gauge(m.times(420_000), true))
	m.classic(of)
	m.native(of)
}

// times are those of scrapes: about an interval apart, with gaps.
func (m *maker) times(interval int64) []int64 {
	var out []int64
	gap := m.random.IntN(3) == 0
	for t := m.start + m.random.Int64N(interval); t < m.end; t += interval {
		if gap && m.random.IntN(150) == 0 {
			t += m.random.Int64N(20 * 60_000)
		}
		if late := t + m.random.Int64N(50); late < m.end {
			out = append(out, late)
		}
	}
	return out
}

type floats struct {
	times  []int64
	values []float64
}

func (m *maker) add(l labels.Labels, f floats) {
	one := prom.Series{Labels: l}
	stale := m.random.IntN(2) == 0
	for i, t := range f.times {
		if stale && i > 0 && t-f.times[i-1] > 120_000 {
			one.Times, one.Values = append(one.Times, f.times[i-1]+20_000), append(one.Values, math.Float64frombits(value.StaleNaN))
		}
		one.Times, one.Values = append(one.Times, t), append(one.Values, f.values[i])
	}
	m.out = append(m.out, one)
}

func (m *maker) counter(times []int64, most int) floats {
	f := floats{times: times}
	total := float64(m.random.IntN(1000))
	for range times {
		if m.random.IntN(200) == 0 {
			total = 0
		}
		total += float64(m.random.IntN(most))
		f.values = append(f.values, total)
	}
	return f
}

// gauge walks at random; odd ones jump to NaN and infinity now and then.
func (m *maker) gauge(times []int64, odd bool) floats {
	f := floats{times: times}
	v := m.random.Float64() * 40
	for range times {
		v += m.random.NormFloat64()
		value := v
		switch n := m.random.IntN(400); {
		case n == 0 && odd:
			value = math.NaN()
		case n == 1 && odd:
			value = math.Inf(1)
		case n == 2:
			value = -v
		}
		f.values = append(f.values, value)
	}
	return f
}

func (m *maker) flag(times []int64) floats {
	f := floats{times: times}
	for range times {
		f.values = append(f.values, float64(min(1, m.random.IntN(20))))
	}
	return f
}

// versions are series that follow one another.
func (m *maker) versions(of func(string, ...string) labels.Labels) {
	times := m.times(60_000)
	cut := m.random.IntN(len(times))
	for i, part := range [][]int64{times[:cut], times[cut:]} {
		f := floats{times: part}
		for range part {
			f.values = append(f.values, 1)
		}
		m.add(of("build_info", "version", fmt.Sprintf("1.%d", i)), f)
	}
}

func (m *maker) classic(of func(string, ...string) labels.Labels) {
	times := m.times(30_000)
	bounds := []string{"0.1", "0.5", "1", "+Inf"}
	buckets := make([]floats, len(bounds))
	var counts [4]float64
	sum := floats{times: times}
	total := 0.0
	for range times {
		if m.random.IntN(150) == 0 {
			counts, total = [4]float64{}, 0
		}
		counts[m.random.IntN(4)] += float64(m.random.IntN(9))
		total += m.random.Float64() * 5
		cumulated := 0.0
		for i := range buckets {
			cumulated += counts[i]
			buckets[i].values = append(buckets[i].values, cumulated)
		}
		sum.values = append(sum.values, total)
	}
	for i, le := range bounds {
		buckets[i].times = times
		m.add(of("latency_bucket", "le", le), buckets[i])
	}
	m.add(of("latency_sum"), sum)
	m.add(of("latency_count"), floats{times: times, values: buckets[3].values})
}

func (m *maker) native(of func(string, ...string) labels.Labels) {
	m.out = append(m.out, m.histograms(of("duration"), 0, false), m.histograms(of("size_custom"), histogram.CustomBucketsSchema, false))
	if m.random.IntN(2) == 0 {
		m.out = append(m.out, m.histograms(of("load_gauge"), 1, true))
	}
	if m.random.IntN(4) == 0 {
		changed := m.histograms(of("changed"), 0, false)
		half := len(changed.HistogramTimes) / 2
		for i, t := range changed.HistogramTimes[:half] {
			changed.Times, changed.Values = append(changed.Times, t), append(changed.Values, float64(i))
		}
		changed.HistogramTimes, changed.Histograms = changed.HistogramTimes[half:], changed.Histograms[half:]
		m.out = append(m.out, changed)
	}
}

func (m *maker) histograms(l labels.Labels, schema int32, gauge bool) prom.Series {
	one := prom.Series{Labels: l}
	h := &histogram.FloatHistogram{}
	for i, t := range m.times(60_000) {
		if i == 0 || m.random.IntN(100) == 0 {
			h = emptyHistogram(schema, gauge)
		}
		h = h.Copy()
		for range 1 + m.random.IntN(5) {
			b := m.random.IntN(len(h.PositiveBuckets))
			h.PositiveBuckets[b]++
			h.Count++
			h.Sum += m.random.Float64() * float64(b+1)
		}
		one.HistogramTimes, one.Histograms = append(one.HistogramTimes, t), append(one.Histograms, h)
	}
	return one
}

func emptyHistogram(schema int32, gauge bool) *histogram.FloatHistogram {
	h := &histogram.FloatHistogram{Schema: schema, PositiveSpans: []histogram.Span{{Offset: 0, Length: 4}}, PositiveBuckets: make([]float64, 4)}
	if schema == histogram.CustomBucketsSchema {
		h.CustomValues = []float64{1, 2, 5}
	} else {
		h.ZeroThreshold, h.ZeroCount, h.Count = 0.001, 1, 1
	}
	if gauge {
		h.CounterResetHint = histogram.GaugeType
	}
	return h
}

// deltas are sources that say what happened since the sample before, with and without start times, and one that changes to that.
func (m *maker) deltas() {
	for instance := range 5 {
		l := labels.FromStrings(model.MetricNameLabel, "hits_total", "job", fmt.Sprintf("job-%d", instance%2), "instance", fmt.Sprintf("host-%d", instance))
		times := m.times(20_000)
		one := prom.Series{Labels: l, Delta: true}
		cumulative := prom.Series{Labels: l}
		total := 0.0
		for i, t := range times {
			v := float64(m.random.IntN(30))
			if instance == 0 && i < len(times)/2 {
				total += v
				cumulative.Times, cumulative.Values = append(cumulative.Times, t), append(cumulative.Values, total)
				continue
			}
			one.Times, one.Values = append(one.Times, t), append(one.Values, v)
			if instance%2 == 0 {
				one.Starts = append(one.Starts, t-20_000)
			}
		}
		if cumulative.Len() > 0 {
			m.out = append(m.out, cumulative)
		}
		m.out = append(m.out, one)
	}
}
