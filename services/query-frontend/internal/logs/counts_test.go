// SPDX-License-Identifier: AGPL-3.0-only

package logs_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// midnight is when a day begins whose lines have rollups.
var midnight = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

// counted is a lake whose lines are counted by rollups.
type counted struct {
	rows     []querytest.Row
	store    *workertest.Store
	worker   *workertest.Worker
	segments []lake.Segment
	levels   []metrics.Level
}

// newCounted makes lines of twelve hours. Some of them lie on the end of a bucket, or a nanosecond behind it; one hour has none. Of hours [0, 8) there are rollups
// to an hour, of [0, 10) to a minute, except those that are named.
func newCounted(uncovered ...int) *counted {
	c := &counted{store: workertest.NewStore()}
	c.worker = &workertest.Worker{Store: c.store}
	r := rand.New(rand.NewPCG(7, 1))
	for at := midnight; at.Before(midnight.Add(12 * time.Hour)); at = at.Add(20 * time.Second) {
		if at.Sub(midnight)/time.Hour == 5 {
			continue
		}
		row := querytest.Row{
			Time: at.Add([]time.Duration{0, 1, 300 * time.Microsecond, 7 * time.Second}[r.IntN(4)]), Line: strings.Repeat("ö", r.IntN(20)),
			Labels: map[string]string{"service_name": fmt.Sprint("s", r.IntN(3)), "pod": fmt.Sprint(r.IntN(2))}, Metadata: map[string]string{},
		}
		if level := r.IntN(3); level > 0 {
			row.Metadata["detected_level"] = []string{"", "info", "error"}[level]
		}
		c.rows = append(c.rows, row)
	}
	for hour := range 12 {
		if rows := c.of(hour); len(rows) > 0 {
			c.segments = append(c.segments, c.store.Put("acme", lake.SegmentID(hour+1), rows))
		}
	}
	c.levels = []metrics.Level{c.level(time.Hour, 8, uncovered), c.level(time.Minute, 10, uncovered)}
	return c
}

func (c *counted) of(hour int) []querytest.Row {
	return slices.DeleteFunc(slices.Clone(c.rows), func(r querytest.Row) bool { return int(r.Time.Sub(midnight)/time.Hour) != hour })
}

// level is what a lookup answers: rollups that are current, and the other hours that have rows.
func (c *counted) level(resolution time.Duration, to int, uncovered []int) metrics.Level {
	level := metrics.Level{Resolution: resolution}
	for hour := range 12 {
		w := lake.WindowOf(midnight.Add(time.Duration(hour)*time.Hour), time.Hour)
		rows := c.of(hour)
		switch {
		case len(rows) == 0:
		case hour >= to || slices.Contains(uncovered, hour):
			level.Uncovered = append(level.Uncovered, w)
		default:
			key := fmt.Sprintf("db/acme/rollups/%s/%d", resolution, hour)
			level.Segments = append(level.Segments, c.store.PutMetricsAt(key, "acme", workertest.MetricSegment{Resolution: resolution, Window: w, Series: linesOf(rows)}))
		}
	}
	return level
}

// linesOf are lines as the series that rollups count them by.
func linesOf(rows []querytest.Row) []prom.Series {
	byLabels := map[string]*prom.Series{}
	for i, r := range rows {
		l := rollup.Lines(r.Labels["service_name"], r.Metadata["detected_level"], rollup.Fingerprint(int64(i%5))).Labels
		one := byLabels[l.String()]
		if one == nil {
			one = &prom.Series{Labels: l, Delta: true}
			byLabels[l.String()] = one
		}
		one.Times = append(one.Times, r.Time.Add(time.Millisecond-1).UnixMilli())
		one.Values = append(one.Values, float64(len(r.Line)))
	}
	var out []prom.Series
	for _, one := range byLabels {
		out = append(out, *one)
	}
	return prom.Sorted(out)
}

func (c *counted) session(rollups bool) *logs.Session {
	s := session([]fan.Worker{{Name: "a", Client: c.worker}}, c.segments, logs.Limits{})
	if rollups {
		s.Counts = &metrics.Session{
			Organization: "acme", Fan: s.Fan, Tally: s.Tally, Engine: prom.New(prom.Options{}), Samples: metrics.Level{Segments: c.segments}, Rollups: c.levels,
		}
	}
	return s
}

// asked are the resolutions that were asked, and the hours of rows.
func (c *counted) asked() (resolutions []time.Duration, hours []int) {
	for _, req := range c.worker.Scans() {
		if v := req.GetMetricVector(); v != nil {
			resolutions = append(resolutions, time.Duration(v.GetResolutionMs())*time.Millisecond)
			continue
		}
		for _, s := range req.GetSegments() {
			hours = append(hours, int(s.GetFirstTime().AsTime().Sub(midnight)/time.Hour))
		}
	}
	slices.Sort(resolutions)
	slices.Sort(hours)
	return slices.Compact(resolutions), slices.Compact(hours)
}

// check asks with rollups, and compares with Loki over all rows.
func (c *counted) check(t *testing.T, q querytest.Query) *logs.Session {
	t.Helper()
	want, err := querytest.Memory(c.rows).Evaluate(t.Context(), q)
	if err != nil || querytest.Size(want) == 0 {
		t.Fatalf("%s: %v, %d values", q, err, querytest.Size(want))
	}
	s := c.session(true)
	got, err := evaluate(t.Context(), s, q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	if diff := querytest.Diff(want, got); diff != "" {
		t.Errorf("%s\n(-want +got):\n%.4000s", q, diff)
	}
	return s
}

func ranged(text string, from, to, step time.Duration) querytest.Query {
	return querytest.Query{Text: text, Start: midnight.Add(from), End: midnight.Add(to), Step: step, Direction: logproto.BACKWARD}
}

func TestRollupsCountLinesAsTheRowsThemselves(t *testing.T) {
	t.Parallel()
	for _, uncovered := range [][]int{nil, {3}, {0, 7, 8}} {
		c := newCounted(uncovered...)
		for _, text := range []string{
			`sum by (service_name) (count_over_time({service_name=~".+"}[1h]))`,
			`sum by (detected_level) (count_over_time({service_name=~"s1|s2"} | drop __error__[1h]))`,
			`sum by (service_name, detected_level) (count_over_time({service_name=~".+"} | detected_level!="error" [2h]))`,
			`sum(count_over_time({service_name="s1"}[3h]))`,
			`sum(bytes_over_time({service_name="s0"} | detected_level="" [1h]))`,
			`sum by (detected_level) (bytes_over_time({service_name="s0"} | detected_level=~"info|warn" [1h]))`,
			`sum by (detected_level) (rate({service_name=~".+"}[1h] offset 1h))`,
			`topk(1, sum by (service_name) (bytes_rate({service_name=~".+"}[2h]))) / 3`,
			`sum by (service_name) (count_over_time({service_name=~".+"}[20m] offset 5m))`,
		} {
			for _, step := range []time.Duration{time.Hour, 10 * time.Minute} {
				if strings.Contains(text, "20m") && step > 20*time.Minute {
					step = 20 * time.Minute
				}
				c.check(t, ranged(text, time.Hour, 12*time.Hour, step))
			}
			c.check(t, ranged(text, 12*time.Hour, 12*time.Hour, 0))
		}
		if resolutions, _ := c.asked(); !slices.Equal(resolutions, []time.Duration{time.Minute, time.Hour}) {
			t.Errorf("asked rollups of %v", resolutions)
		}
	}
}

func TestOnlyHoursWithoutARollupAreCountedByTheirRows(t *testing.T) {
	t.Parallel()
	c := newCounted(3) // as a late object leaves it, or a delete
	s := c.check(t, ranged(`sum by (service_name) (count_over_time({service_name=~".+"}[12h]))`, 12*time.Hour, 12*time.Hour, 0))
	resolutions, hours := c.asked()
	if !slices.Contains(resolutions, time.Hour) {
		t.Errorf("asked rollups of %v", resolutions)
	}
	// A bucket that ends where an hour begins looks into that hour, too: so hours beside those without a rollup are read, or without rows.
	for _, hour := range hours {
		if hour < 2 || hour > 6 && hour < 9 {
			t.Errorf("rows of hour %d were read", hour)
		}
	}
	if !slices.Contains(hours, 3) || !slices.Contains(hours, 11) || s.Counts.Resolution() != time.Hour {
		t.Errorf("rows of hours %v were read, resolution %s", hours, s.Counts.Resolution())
	}
}

func TestWhatRollupsDoNotKnowIsCountedByRows(t *testing.T) {
	t.Parallel()
	c := newCounted()
	for _, q := range []querytest.Query{
		ranged(`sum by (level, detected_level) (count_over_time({service_name=~".+"}[1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum by (pod) (count_over_time({service_name=~".+"}[1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum without (pod) (count_over_time({service_name=~".+"}[1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum(count_over_time({service_name=~".+", pod="1"}[1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum(count_over_time({service_name=~".+"} |= "öö" [1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum(count_over_time({service_name=~".+"} | detected_level=~".*|info" [1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum(count_over_time({service_name=~".+"} | drop pod [1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`count_over_time({service_name=~".+"}[1h])`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`max by (service_name) (count_over_time({service_name=~".+"}[1h]))`, time.Hour, 12*time.Hour, time.Hour),
		ranged(`sum(count_over_time({service_name=~".+"}[90s]))`, time.Hour, 2*time.Hour, time.Minute),
		ranged(`sum(count_over_time({service_name=~".+"}[1h]))`, time.Hour+time.Second, 12*time.Hour, time.Hour),
		ranged(`sum(count_over_time({service_name=~".+"}[1h] offset 1s))`, time.Hour, 12*time.Hour, time.Hour),
	} {
		c.check(t, q)
		if resolutions, _ := c.asked(); len(resolutions) > 0 {
			t.Fatalf("%s was asked of rollups of %v", q, resolutions)
		}
	}
}
