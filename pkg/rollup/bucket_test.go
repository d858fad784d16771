// SPDX-License-Identifier: AGPL-3.0-only

package rollup_test

import (
	"errors"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// at are points at times after the origin, with rising values; stale ones where said.
func at(t *testing.T, resolution time.Duration, s *metricfile.Series, values map[time.Duration]float64) *metricfile.Rollup {
	t.Helper()
	var p metricfile.Points
	for _, after := range slices.Sorted(maps.Keys(values)) {
		p.Times, p.Values = append(p.Times, origin().Add(after).UnixNano()), append(p.Values, values[after])
	}
	var a rollup.Aggregator
	r, err := a.Aggregate(s, &p, rollup.Options{Resolution: resolution})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestI1BucketsAreOpenAtTheirStartAndClosedAtTheirEnd(t *testing.T) {
	t.Parallel()
	s := &metricfile.Series{Labels: named("x")}
	got := at(t, time.Minute, s, map[time.Duration]float64{
		0: 7, time.Millisecond: 1, 30 * time.Second: 5, time.Minute: 2, time.Minute + time.Millisecond: 3, 2 * time.Minute: stale(), 150 * time.Second: stale(),
	})
	ms := func(after time.Duration) int64 { return origin().Add(after).UnixMilli() }
	want := &metricfile.Rollup{
		Ends: []int64{ms(0), ms(time.Minute), ms(2 * time.Minute), ms(3 * time.Minute)}, Counts: []int64{1, 3, 1, 0},
		FirstTimes: []int64{ms(0), ms(time.Millisecond), ms(time.Minute + time.Millisecond), 0},
		LastTimes:  []int64{ms(0), ms(time.Minute), ms(time.Minute + time.Millisecond), 0},
		StaleTimes: []int64{0, 0, ms(2 * time.Minute), ms(150 * time.Second)},
		Tracks: []metricfile.Track{{
			First: []float64{7, 1, 3, 0}, Last: []float64{7, 2, 3, 0}, Increase: []float64{0, 6, 0, 0}, Sum: []float64{7, 8, 3, 0}, Min: []float64{7, 1, 3, 0}, Max: []float64{7, 5, 3, 0},
		}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	var a rollup.Aggregator
	for name, p := range map[string]*metricfile.Points{
		"two points of one millisecond": {Times: []int64{5, 9}, Values: []float64{1, 2}},
		"falling times":                 {Times: []int64{5e6, 4e6}, Values: []float64{1, 2}},
	} {
		if _, err := a.Aggregate(s, p, rollup.Options{Resolution: time.Minute}); err == nil {
			t.Errorf("%s: want it refused", name)
		}
	}
}

// ask asks a function over two minutes, at the end of the second.
func ask(t *testing.T, f rollup.Function, lanes ...*rollup.Lane) (float64, error) {
	t.Helper()
	q := rollup.Question{
		Function: f, Start: origin().Add(2 * time.Minute).UnixMilli(), Width: 2 * time.Minute.Milliseconds(), Resolution: time.Minute.Milliseconds(), Parameter: 0.5,
	}
	var a rollup.Answer
	if err := rollup.Evaluate(&q, lanes, &a); err != nil {
		return 0, err
	}
	return a.Floats[0], nil
}

func TestI7WhatBucketsDoNotHaveIsNotAnswered(t *testing.T) {
	t.Parallel()
	s := &metricfile.Series{Labels: named("x")}
	delta := &metricfile.Series{Labels: named("x"), Delta: true}
	lane := func(f rollup.Function, s *metricfile.Series, values map[time.Duration]float64) *rollup.Lane {
		l := rollup.NewLane(f, s)
		if err := l.Append(at(t, time.Minute, s, values), 0); err != nil {
			t.Fatal(err)
		}
		return l
	}
	early, late := map[time.Duration]float64{10 * time.Second: 1, 50 * time.Second: 4}, map[time.Duration]float64{55 * time.Second: 2, 110 * time.Second: 5}
	between := map[time.Duration]float64{30 * time.Second: 2, 110 * time.Second: 5}
	huge := map[time.Duration]float64{10 * time.Second: math.MaxFloat64, 50 * time.Second: math.MaxFloat64}
	for name, c := range map[string]struct {
		f     rollup.Function
		lanes func(f rollup.Function) []*rollup.Lane
		want  float64 // NaN: it is not answered
	}{
		"rows one after the other": {rollup.Sum, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, s, late), lane(f, s, early)} }, 12},
		"a reset between rows":     {rollup.Count, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, s, early), lane(f, s, late)} }, 4},
		"rows between each other":  {rollup.Increase, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, s, early), lane(f, s, between)} }, math.NaN()},
		"the latest of any row":    {rollup.Instant, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, s, between), lane(f, s, early)} }, 5},
		"deltas beside counters":   {rollup.Increase, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, delta, between)} }, 7},
		"no sketches":              {rollup.Quantile, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, s, early)} }, math.NaN()},
		"a sum that overflows":     {rollup.Average, func(f rollup.Function) []*rollup.Lane { return []*rollup.Lane{lane(f, s, huge)} }, math.NaN()},
		"an infinite counter": {rollup.Rate, func(f rollup.Function) []*rollup.Lane {
			return []*rollup.Lane{lane(f, s, map[time.Duration]float64{time.Second: 1, 2 * time.Second: math.Inf(1)})}
		}, math.NaN()},
	} {
		got, err := ask(t, c.f, c.lanes(c.f)...)
		if math.IsNaN(c.want) != errors.Is(err, rollup.ErrInexact) || err == nil && got != c.want {
			t.Errorf("%s: want %v, got %v, %v", name, c.want, got, err)
		}
	}
}

func TestSeriesOfFloatsAndHistograms(t *testing.T) {
	t.Parallel()
	all := rows()
	plain, native := all[2], all[5]
	for _, f := range []rollup.Function{rollup.Rate, rollup.Sum, rollup.Count, rollup.Last, rollup.Max} {
		var lanes []*rollup.Lane
		for _, w := range []row{plain, native} {
			l := rollup.NewLane(f, w.series)
			if err := l.Append(merged(t, &w, time.Minute, w.hourly(t, time.Minute)...), 0); err != nil {
				t.Fatal(err)
			}
			lanes = append(lanes, l)
		}
		q := rollup.Question{Function: f, Start: origin().Add(time.Hour).UnixMilli(), Width: time.Hour.Milliseconds(), Resolution: time.Minute.Milliseconds()}
		var a rollup.Answer
		if err := rollup.Evaluate(&q, lanes, &a); err != nil {
			t.Fatal(err)
		}
		there := f != rollup.Rate && f != rollup.Sum
		note := map[rollup.Function]rollup.Note{rollup.Rate: rollup.NoteMixed, rollup.Sum: rollup.NoteMixed, rollup.Max: rollup.NoteIgnored}[f]
		if a.Present(0) != there || a.Notes != note {
			t.Errorf("%s: present %t, notes %b", f, a.Present(0), a.Notes)
		}
	}
}

func TestLinesAreADeltaSeries(t *testing.T) {
	t.Parallel()
	s := rollup.Lines("checkout", "error", rollup.Fingerprint(-2))
	want := labels.FromStrings(model.MetricNameLabel, rollup.LinesName, "service_name", "checkout", "detected_level", "error", "fingerprint", "fffffffffffffffe")
	if !labels.Equal(s.Labels, want) || !s.Delta || rollup.Lines("checkout", "", "").Labels.Len() != 2 {
		t.Errorf("got %s", s.Labels)
	}
	got, err := func() (float64, error) {
		l := rollup.NewLane(rollup.Count, s)
		err := l.Append(at(t, time.Minute, s, map[time.Duration]float64{time.Second: 100, 61 * time.Second: 50, 121 * time.Second: 1}), 0)
		if err != nil {
			return 0, err
		}
		return ask(t, rollup.Count, l)
	}()
	if got != 2 || err != nil || value.IsStaleNaN(got) {
		t.Errorf("got %v, %v", got, err)
	}
}
