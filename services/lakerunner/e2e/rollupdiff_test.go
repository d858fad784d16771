// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// What functions of ranges rollups answer, and what they cannot.
var (
	ofRollups = []string{
		"rate", "increase", "delta", "count_over_time", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "first_over_time", "last_over_time",
		"present_over_time", "ts_of_first_over_time", "ts_of_last_over_time",
	}
	ofSamples = []string{
		"irate", "idelta", "changes", "resets", "deriv", "stddev_over_time", "stdvar_over_time", "mad_over_time", "ts_of_max_over_time", "ts_of_min_over_time",
	}
)

// TestEveryTierAnswersAsSamplesDo asks every function of every tier, over aligned windows that it may answer, and of samples where it may not: both by HTTP,
// and held to Prometheus' engine over its own storage. Over windows that are not aligned no tier may answer.
func TestEveryTierAnswersAsSamplesDo(t *testing.T) {
	t.Parallel()
	tiers := []struct {
		resolution, length time.Duration
		hurry              int64 // how many times as often as usual series are scraped
	}{
		{10 * time.Second, 20 * time.Minute, 8}, {time.Minute, time.Hour, 1}, {5 * time.Minute, 2 * time.Hour, 1}, {20 * time.Minute, 4 * time.Hour, 1}, {time.Hour, 8 * time.Hour, 1},
	}
	var organizations []string
	for _, tier := range tiers {
		organizations = append(organizations, "tier-"+durationText(tier.resolution))
	}
	l := newLake(t, lakeOptions{
		organizations: organizations,
		settings:      "    rollups: [{resolution: 10s, after: 60d}, {resolution: 1m, after: 60d}, {resolution: 5m, after: 60d}, {resolution: 20m, after: 60d}, {resolution: 1h, after: 60d}]\n",
	})
	end := lately().Truncate(time.Hour)
	for i, tier := range tiers {
		organization := organizations[i]
		t.Run(organization, func(t *testing.T) {
			start := end.Add(-tier.length)
			series := hurried(metrictest.Series(uint64(i), start, start.Add(tier.length*time.Duration(tier.hurry)), false), start, tier.hurry)
			l.put(fmt.Sprintf("otel-raw/%s/prometheus/metrics_0", organization), remoteWrite(t, series))
			l.awaitDone(organization, "otel-raw/", 1)
			if counted := l.rollUp(t, organization, tier.resolution, start, end); counted == 0 {
				t.Fatal("nothing was rolled up")
			}
			d := tierQueries{resolution: tier.resolution, start: start, end: end}
			truth := prometheus(tsdb(t, series))
			d.hold(t, l, organization, truth, true)
			d.hold(t, l, organization, truth, false)
		})
	}
}

// hurried has only the series of two instances, with the time since start passing so many times as fast.
func hurried(series []prom.Series, start time.Time, times int64) (out []prom.Series) {
	from := start.UnixMilli()
	for _, s := range series {
		if s.Labels.Get("job") != "job-1" || s.Labels.Get("instance") > "host-1" {
			continue
		}
		for _, at := range [][]int64{s.Times, s.HistogramTimes} {
			for i := range at {
				at[i] = from + (at[i]-from)/times
			}
		}
		out = append(out, s)
	}
	return out
}

// tierQueries are those that a tier may answer, and those that it may not.
type tierQueries struct {
	resolution time.Duration
	start, end time.Time
}

func (d *tierQueries) hold(t *testing.T, l *lake, organization string, truth evaluator, may bool) {
	t.Helper()
	queries, want := d.mayNot(), ""
	if may {
		queries, want = d.may(), durationText(d.resolution)
	}
	answered := 0
	for _, q := range queries {
		value, err := truth(t.Context(), q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		path, params := form(q)
		got := l.promAPI(t, organization, path, params)
		if got.Status != "success" {
			t.Errorf("%s: %s", q, got.Error)
			continue
		}
		if resolution := got.header.Get("X-Lakerunner-Resolution"); resolution != want && !oftenInexact(q) {
			t.Errorf("%s: from resolution %q, want %q", q, resolution, want)
		}
		if text := diff(linesOf(t, value), decoded(t, got.Data)); text != "" {
			t.Errorf("%s\n%.2000s", q, text)
		}
		if metrictest.Size(value) > 0 {
			answered++
		}
	}
	t.Logf("%d queries, of which %d have an answer, from resolution %q", len(queries), answered, want)
	if answered < len(queries)/3 {
		t.Error("too few have an answer")
	}
}

// oftenInexact reports a query that buckets cannot answer where there are NaNs: a worker finds that out, and samples answer.
func oftenInexact(q metrictest.Query) bool {
	counter := strings.HasPrefix(q.Text, "rate(") || strings.HasPrefix(q.Text, "increase(")
	return counter && (strings.Contains(q.Text, "temperature") || strings.Contains(q.Text, "sparse"))
}

func durationText(d time.Duration) string { return model.Duration(d).String() }

func (d *tierQueries) metrics() []string {
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		return []string{"http_requests_total", "errors_total", "temperature", "weight", "up", "sparse", "latency_bucket", "latency_sum", "latency_count", "duration", "size_custom", "load_gauge", "changed"}
	}
	return []string{"http_requests_total", "temperature", "latency_bucket", "duration"}
}

// times are when a function with a window is asked, at steps of the resolution: once, and over all the time.
func (d *tierQueries) times(text string, window time.Duration) []metrictest.Query {
	last := d.end.Add(-d.resolution)
	return []metrictest.Query{
		{Text: text, Start: last, End: last},
		{Text: text, Start: d.start.Add(window), End: d.end, Step: d.resolution},
	}
}

func (d *tierQueries) may() (out []metrictest.Query) {
	for _, metric := range d.metrics() {
		for _, function := range ofRollups {
			for _, n := range []time.Duration{1, 2} {
				window := n * d.resolution
				out = append(out, d.times(fmt.Sprintf("%s(%s[%s])", function, metric, durationText(window)), window)...)
			}
		}
		out = append(out, d.times(metric, 0)...)
		out = append(out, d.times(fmt.Sprintf("sum by (instance) (%s)", metric), 0)...)
		out = append(out, d.times(fmt.Sprintf("timestamp(%s)", metric), 0)...)
		out = append(out, d.times(fmt.Sprintf("max by (job) (avg_over_time(%s[%s] offset %s))", metric, durationText(d.resolution), durationText(d.resolution)), 2*d.resolution)...)
	}
	return out
}

func (d *tierQueries) mayNot() (out []metrictest.Query) {
	for _, metric := range d.metrics() {
		window := 2 * d.resolution
		for _, function := range ofSamples {
			out = append(out, d.times(fmt.Sprintf("%s(%s[%s])", function, metric, durationText(window)), window)...)
		}
		odd := d.times(fmt.Sprintf("rate(%s[%s])", metric, durationText(window+time.Second)), 2*window)
		odd = append(odd, d.times(fmt.Sprintf("max_over_time(%s[%s] offset 1s)", metric, durationText(window)), 2*window)...)
		out = append(out, odd...)
	}
	return out
}
