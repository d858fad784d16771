// SPDX-License-Identifier: AGPL-3.0-only

package rollup_test

import (
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// counter is a series of a point every fifteen seconds.
func counter(hours int) (*metricfile.Series, *metricfile.Points) {
	var p metricfile.Points
	for i := range hours * 240 {
		p.Times, p.Values = append(p.Times, origin().Add(time.Duration(i)*15*time.Second).UnixNano()), append(p.Values, float64(i%5000))
	}
	return &metricfile.Series{Labels: named("counter")}, &p
}

// BenchmarkAggregate makes the minutes of an hour of one series.
func BenchmarkAggregate(b *testing.B) {
	s, p := counter(1)
	var a rollup.Aggregator
	for b.Loop() {
		if _, err := a.Aggregate(s, p, rollup.Options{Resolution: time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*p.Len())/b.Elapsed().Seconds(), "points/s")
}

// BenchmarkMerge makes the hours of a day's minutes of one series.
func BenchmarkMerge(b *testing.B) {
	s, p := counter(24)
	var a rollup.Aggregator
	minutes, err := a.Aggregate(s, p, rollup.Options{Resolution: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	var m rollup.Merger
	for b.Loop() {
		m.Begin(s, time.Hour)
		if err := m.Add(minutes); err != nil {
			b.Fatal(err)
		}
		m.Rollup()
	}
	b.ReportMetric(float64(b.N*minutes.Len())/b.Elapsed().Seconds(), "buckets/s")
}

// BenchmarkYear asks for the daily rates of a year of one series, from its hours.
func BenchmarkYear(b *testing.B) {
	s, p := counter(24 * 365)
	var a rollup.Aggregator
	hours, err := a.Aggregate(s, p, rollup.Options{Resolution: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	day := (24 * time.Hour).Milliseconds()
	q := rollup.Question{
		Function: rollup.Rate, Start: origin().UnixMilli() + day, End: origin().UnixMilli() + 365*day, Step: day, Width: day, Resolution: time.Hour.Milliseconds(),
	}
	var answer rollup.Answer
	lane := rollup.NewLane(q.Function, s)
	for b.Loop() {
		lane.Reset(q.Function, s)
		if err := lane.Append(hours, 0); err != nil {
			b.Fatal(err)
		}
		if err := rollup.Evaluate(&q, []*rollup.Lane{lane}, &answer); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*hours.Len())/b.Elapsed().Seconds(), "buckets/s")
}
