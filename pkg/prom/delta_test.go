// SPDX-License-Identifier: AGPL-3.0-only

package prom_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
)

// deltas is a delta series with a sample each minute from the first on, each of which began with the one before.
func deltas(name string, values ...float64) prom.Series {
	s := prom.Series{Labels: labels.FromStrings("__name__", name, "job", "a"), Delta: true}
	for i, v := range values {
		s.Times, s.Starts, s.Values = append(s.Times, minutes(i+1)), append(s.Starts, minutes(i)), append(s.Values, v)
	}
	return s
}

func minutes(n int) int64 { return int64(n) * 60_000 }

func evaluate(t *testing.T, m *promtest.Memory, query string, at int64) prom.Result {
	t.Helper()
	expr, err := prom.Parse(query)
	if err != nil {
		t.Fatal(err)
	}
	text := expr.String()
	r, err := prom.New(prom.Options{}).Evaluate(t.Context(), m, prom.Request{Expr: expr, End: time.UnixMilli(at)})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if expr.String() != text {
		t.Fatalf("%s became %s", text, expr)
	}
	return r
}

// shown is an instant vector as text, one sample a line.
func shown(t *testing.T, r prom.Result) string {
	t.Helper()
	vector, ok := r.Value.(prom.Vector)
	if !ok {
		t.Fatalf("a %T", r.Value)
	}
	var lines []string
	for _, s := range vector {
		v := fmt.Sprint(s.F)
		if s.H != nil {
			v = s.H.String()
		}
		lines = append(lines, s.Metric.String()+" "+v)
	}
	return strings.Join(lines, "\n")
}

func TestDeltasAreTheWindowsOwnSums(t *testing.T) {
	t.Parallel()
	m := &promtest.Memory{}
	m.Add(deltas("requests_total", 1, 2, 4, 8, 16, 32))
	for _, c := range []struct {
		query, want string
		at          int64
	}{
		{"increase(requests_total[3m])", `{job="a"} 28`, minutes(5)},
		{"increase(requests_total[3m])", `{job="a"} 28`, minutes(5) + 30_000}, // nothing is extrapolated
		{"increase(requests_total[3m])", `{job="a"} 28`, minutes(6) - 1},
		{"increase(requests_total[1m])", `{job="a"} 4`, minutes(3)}, // one sample does
		{"rate(requests_total[2m])", `{job="a"} 0.2`, minutes(5)},
		{"rate(requests_total[4m] offset 1m)", `{job="a"} 0.125`, minutes(6)},
		{"irate(requests_total[5m])", `{job="a"} 0.5333333333333333`, minutes(6)},
		{"irate(requests_total[1m])", `{job="a"} 0.5333333333333333`, minutes(6)},
		{"sum(increase(requests_total[10m]))", `{} 63`, minutes(6)},
		{"increase(requests_total[3m] @ 300)", `{job="a"} 28`, minutes(60)},
		{"max_over_time(increase(requests_total[2m])[4m:1m])", `{job="a"} 48`, minutes(6)},
		{"sum_over_time(requests_total[3m])", `{job="a"} 28`, minutes(5)},         // others see them as they are
		{"requests_total", `{__name__="requests_total", job="a"} 16`, minutes(5)}, // so do selectors
		{"resets(requests_total[10m])", `{job="a"} 0`, minutes(6)},
		{"increase(requests_total[3m] anchored)", `{job="a"} 28`, minutes(5)}, // a sum has no ends to meet
		{"increase(requests_total[3m]) / 0 > 0", `{job="a"} +Inf`, minutes(5)},
		{"increase(nothing_total[3m])", ``, minutes(5)},
		{`increase({__name__=~".*_total"}[3m])`, `{job="a"} 28`, minutes(5)},
		{"-rate(requests_total[4m]) * 2", `{job="a"} -0.25`, minutes(5)},
	} {
		if got := shown(t, evaluate(t, m, c.query, c.at)); got != c.want {
			t.Errorf("%s at %d: got %q, want %q", c.query, c.at, got, c.want)
		}
	}
}

func TestIrateOfDeltas(t *testing.T) {
	t.Parallel()
	stale := math.Float64frombits(value.StaleNaN)
	for name, c := range map[string]struct {
		series prom.Series
		query  string
		want   string
	}{
		"is by the start of the last sample where that is known, not by the sample before a gap": {
			prom.Series{Times: []int64{minutes(1), minutes(9)}, Values: []float64{1, 30}, Starts: []int64{0, minutes(8)}}, "irate(x[10m])", `{job="a"} 0.5`,
		},
		"is by the sample before where a start is not known": {
			prom.Series{Times: []int64{minutes(1), minutes(9)}, Values: []float64{1, 48}}, "irate(x[10m])", `{job="a"} 0.1`,
		},
		"needs that sample in its window": {
			prom.Series{Times: []int64{minutes(1), minutes(9)}, Values: []float64{1, 48}}, "irate(x[5m])", ``,
		},
		"does not take a stale marker for a sample": {
			prom.Series{Times: []int64{minutes(1), minutes(8), minutes(9)}, Values: []float64{1, 48, stale}}, "irate(x[10m])", `{job="a"} 0.11428571428571428`,
		},
		"does not believe a start behind its sample": {
			prom.Series{Times: []int64{minutes(1), minutes(9)}, Values: []float64{1, 48}, Starts: []int64{0, minutes(10)}}, "irate(x[10m])", `{job="a"} 0.1`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &promtest.Memory{}
			c.series.Labels, c.series.Delta = labels.FromStrings("__name__", "x", "job", "a"), true
			m.Add(c.series)
			if got := shown(t, evaluate(t, m, c.query, minutes(10))); got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSeriesThatChangesTemporality(t *testing.T) {
	t.Parallel()
	m := &promtest.Memory{}
	both := labels.FromStrings("__name__", "x_total", "job", "both")
	m.Add(
		prom.Series{Labels: both, Times: []int64{minutes(1), minutes(2), minutes(3)}, Values: []float64{10, 16, 22}},
		prom.Series{Labels: both, Delta: true, Times: []int64{minutes(4), minutes(5)}, Values: []float64{6, 6}, Starts: []int64{minutes(3), minutes(4)}},
		prom.Series{Labels: labels.FromStrings("__name__", "x_total", "job", "cumulative"), Times: []int64{minutes(4), minutes(5)}, Values: []float64{10, 16}},
		prom.Series{Labels: labels.FromStrings("__name__", "x_total", "job", "delta"), Delta: true, Times: []int64{minutes(4), minutes(5)}, Values: []float64{1, 2}},
	)
	for _, c := range []struct{ query, want string }{
		// 12 between its cumulative samples, as Prometheus extrapolates them (a minute to the start, half of one to the end), and 12 of deltas.
		{"increase(x_total[5m])", "{job=\"both\"} 33\n{job=\"cumulative\"} 9\n{job=\"delta\"} 3"},
		{"rate(x_total[5m])", "{job=\"both\"} 0.11000000000000001\n{job=\"cumulative\"} 0.03\n{job=\"delta\"} 0.01"},
		{"sum(increase(x_total[5m]))", "{} 45"},
		{"count_over_time(x_total[5m])", "{job=\"both\"} 5\n{job=\"cumulative\"} 2\n{job=\"delta\"} 2"},
		{"x_total{job=\"both\"}", "{__name__=\"x_total\", job=\"both\"} 6"},
	} {
		got := strings.Split(shown(t, evaluate(t, m, c.query, minutes(5))), "\n")
		want := strings.Split(c.want, "\n")
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", c.query, diff)
		}
	}
}

func TestDeltaHistograms(t *testing.T) {
	t.Parallel()
	h := func(count float64) *histogram.FloatHistogram {
		return &histogram.FloatHistogram{
			CounterResetHint: histogram.GaugeType, Count: count, Sum: 2 * count, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{count},
		}
	}
	m := &promtest.Memory{}
	m.Add(prom.Series{
		Labels: labels.FromStrings("__name__", "h", "job", "a"), Delta: true,
		HistogramTimes: []int64{minutes(1), minutes(2), minutes(3)}, Histograms: []*histogram.FloatHistogram{h(60), h(120), h(30)},
		HistogramStarts: []int64{0, minutes(1), minutes(2)},
	})
	for _, c := range []struct{ query, want string }{
		{"increase(h[2m])", `{job="a"} {count:150, sum:300, (0.5,1]:150}`},
		{"rate(h[2m]) * 2", `{job="a"} {count:2.5, sum:5, (0.5,1]:2.5}`},
		{"irate(h[3m])", `{job="a"} {count:0.5, sum:1, (0.5,1]:0.5}`},
		{"histogram_count(increase(h[2m]))", `{job="a"} 150`},
		{"histogram_quantile(0.5, rate(h[2m]))", `{job="a"} 0.7071067811865475`},
		{"h", `{__name__="h", job="a"} {count:30, sum:60, (0.5,1]:30}`},
	} {
		r := evaluate(t, m, c.query, minutes(3))
		if got := shown(t, r); got != c.want {
			t.Errorf("%s: got %q, want %q", c.query, got, c.want)
		}
		if len(r.Annotations) > 0 {
			t.Errorf("%s: %v", c.query, r.Annotations)
		}
	}
}

func TestEachSelectorIsAskedOnceAndWithinItsReach(t *testing.T) {
	t.Parallel()
	m := &promtest.Memory{}
	m.Add(deltas("x_total", 1, 2, 3), deltas("y", 1, 2, 3))
	evaluate(t, m, `sum(rate(x_total[5m])) / sum(rate(x_total[5m])) + sum(x_total offset 1h) + max_over_time(rate(y[5m])[10m:1m]) + y @ 60`, minutes(120))
	got := map[string]int{}
	for _, s := range m.Selected() {
		got[fmt.Sprint(s.Matchers[0].Value, " ", s.Start, " ", s.End)]++
	}
	want := map[string]int{
		fmt.Sprint("x_total ", minutes(115)+1, " ", minutes(120)): 1,
		fmt.Sprint("x_total ", minutes(55)+1, " ", minutes(60)):   1,
		fmt.Sprint("y ", minutes(105)+1, " ", minutes(120)):       1,
		fmt.Sprint("y ", minutes(-4)+1, " ", minutes(1)):          1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestNobodyCanAskForTheMark(t *testing.T) {
	t.Parallel()
	if _, err := prom.Parse("{\"\xff__delta__\"=\"0\"}"); err == nil {
		t.Fatal("a selector with the mark")
	}
	m := &promtest.Memory{}
	m.Add(deltas("x_total", 1, 2, 3))
	for _, query := range []string{`rate(x_total[5m])`, `{__delta__="0"}`} {
		if got := shown(t, evaluate(t, m, query, minutes(3))); strings.Contains(got, "delta") {
			t.Errorf("%s: %s", query, got)
		}
	}
}
