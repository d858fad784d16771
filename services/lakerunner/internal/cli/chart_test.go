// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// plotted is a series with a sample a minute from noon on; where there is NaN in values it has none.
func plotted(labels map[string]string, values ...float64) *queryv1.Series {
	s := &queryv1.Series{Labels: labels}
	for i, v := range values {
		if !math.IsNaN(v) {
			s.Samples = append(s.Samples, &queryv1.Sample{Time: timestamppb.New(noon().Add(time.Duration(i) * time.Minute)), Value: v})
		}
	}
	return s
}

func chartOf(width int, length time.Duration) *chart {
	return &chart{start: noon(), end: noon().Add(length), step: time.Minute, width: width, zone: time.UTC}
}

func TestChart(t *testing.T) {
	t.Parallel()
	var up, down, gap []float64
	for i := range 31 {
		up, down = append(up, float64(i)*100), append(down, 2500-float64(i)*80)
		gap = append(gap, 700)
		if i > 10 && i < 20 {
			gap[i] = math.NaN()
		}
	}
	two := []*queryv1.Series{plotted(map[string]string{"pod": "a"}, up...), plotted(map[string]string{"__name__": "x", "pod": "b"}, down...)}

	for name, c := range map[string]struct {
		width  int
		colors bool
		series []*queryv1.Series
	}{
		"chart.80.txt":     {80, false, two},
		"chart.120.txt":    {120, false, two},
		"chart.colors.txt": {60, true, two},
		"chart.gap.txt":    {60, false, []*queryv1.Series{plotted(nil, up...), plotted(map[string]string{"with": "a gap"}, gap...)}},
		"chart.flat.txt":   {60, false, []*queryv1.Series{plotted(nil, 3, 3, 3)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drawing := chartOf(c.width, 30*time.Minute)
			drawing.colors = c.colors
			text, left := drawing.draw(c.series)
			if left != 0 {
				t.Errorf("%d series are left out", left)
			}
			golden(t, name, []byte(text))
			for line := range strings.Lines(text) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); !c.colors && n > c.width {
					t.Errorf("%d columns, more than %d: %s", n, c.width, line)
				}
			}
		})
	}
	t.Run("a week is no wider", func(t *testing.T) {
		t.Parallel()
		text, _ := chartOf(80, 7*24*time.Hour).draw(two)
		for line := range strings.Lines(text) {
			if len([]rune(line)) > 81 {
				t.Errorf("too wide: %s", line)
			}
		}
	})
	t.Run("those that reach highest are drawn", func(t *testing.T) {
		t.Parallel()
		var many []*queryv1.Series
		for i := range 11 {
			many = append(many, plotted(map[string]string{"n": fmt.Sprintf("%02d", i)}, float64(i), float64(i)))
		}
		text, left := chartOf(80, time.Minute).draw(many)
		if left != 3 || strings.Contains(text, `"02"`) || !strings.Contains(text, `"03"`) || !strings.Contains(text, `"10"`) {
			t.Errorf("%d are left out of\n%s", left, text)
		}
	})
	t.Run("nothing to draw is no text", func(t *testing.T) {
		t.Parallel()
		histogram := &queryv1.Series{Samples: []*queryv1.Sample{{Time: timestamppb.New(noon()), Histogram: &queryv1.Histogram{}}}}
		for _, series := range [][]*queryv1.Series{nil, {plotted(nil)}, {plotted(nil, math.Inf(1))}, {histogram}} {
			if text, left := chartOf(80, time.Minute).draw(series); text != "" || left != 0 {
				t.Errorf("%v: %d, %s", series, left, text)
			}
		}
	})
	t.Run("the largest numbers are drawn", func(t *testing.T) {
		t.Parallel()
		text, _ := chartOf(80, 2*time.Minute).draw([]*queryv1.Series{plotted(nil, -math.MaxFloat64, 0, math.MaxFloat64)})
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || !strings.Contains(text, "1.8e+308") {
			t.Errorf("%s", text)
		}
	})
}

func TestChartNames(t *testing.T) {
	t.Parallel()
	named := func(all ...map[string]string) []string {
		series := make([]drawn, len(all))
		for i, l := range all {
			series[i] = drawn{labels: l, name: formatMetric(l)}
		}
		shorten(series)
		var names []string
		for _, s := range series {
			names = append(names, s.name)
		}
		return names
	}
	a := map[string]string{"__name__": "x", "cluster": "c", "pod": "p1", "zone": "z1"}
	b := map[string]string{"__name__": "x", "cluster": "c", "pod": "p2", "zone": "z1"}
	c := map[string]string{"__name__": "x", "cluster": "c", "pod": "p2"}
	with := func(labels map[string]string, name, value string) map[string]string {
		more := maps.Clone(labels)
		more[name] = value
		return more
	}
	for name, test := range map[string]struct{ got, want []string }{
		"the label that differs":       {named(a, b), []string{`{pod="p1"}`, `{pod="p2"}`}},
		"two labels, one of them none": {named(a, b, c), []string{`{pod="p1", zone="z1"}`, `{pod="p2", zone="z1"}`, `{pod="p2"}`}},
		"a label that all have": {
			named(with(a, "i", "1"), with(b, "i", "2"), with(c, "pod", "p3")),
			[]string{`{pod="p1"}`, `{pod="p2"}`, `{pod="p3"}`},
		},
		"one has its whole name": {named(a), []string{`x{cluster="c", pod="p1", zone="z1"}`}},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestValueAt(t *testing.T) {
	t.Parallel()
	c := chartOf(80, time.Hour)
	second := int64(time.Second)
	times, values := []int64{0, 60 * second, 300 * second}, []float64{1, 3, 9}
	for at, want := range map[int64]float64{
		-31: math.NaN(), -30: 1, 0: 1, 15: 1.5, 30: 2, 60: 3, 90: 3, 91: math.NaN(), 269: math.NaN(), 270: 9, 300: 9, 330: 9, 331: math.NaN(),
	} {
		if got := c.valueAt(times, values, at*second); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("after %d s: got %v, want %v", at, got, want)
		}
	}
	if got := c.valueAt(nil, nil, 0); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v", got)
	}
}

func TestFormatShort(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]float64{
		"0": 0, "1": 1, "-1.5": -1.5, "0.25": 0.25, "0.001": 0.001, "1e-05": 1e-5, "12.3": 12.34, "123": 123.4, "1.23k": 1234, "-12.3k": -12340,
		"5M": 5e6, "1.5G": 1.5e9, "999T": 999e12, "1e+15": 1e15, "1.8e+308": math.MaxFloat64,
	} {
		if got := formatShort(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

func TestStepFor(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, c := range []struct {
		length  time.Duration
		columns int
		want    time.Duration
	}{
		{time.Second, 70, time.Second},
		{time.Minute, 60, time.Second},
		{time.Hour, 69, time.Minute},
		{time.Hour, 109, time.Minute},
		{6 * time.Hour, 69, 10 * time.Minute},
		{7 * day, 69, 3 * time.Hour},
		{365 * day, 69, 6 * day},
		{365 * day, 0, 365 * day},
	} {
		if got := stepFor(c.length, c.columns); got != c.want {
			t.Errorf("%s on %d columns: got %s, want %s", c.length, c.columns, got, c.want)
		}
	}
}

func TestFormatMetric(t *testing.T) {
	t.Parallel()
	for want, labels := range map[string]map[string]string{
		"{}":                       {},
		"up":                       {"__name__": "up"},
		`up{a="b"}`:                {"__name__": "up", "a": "b"},
		`{__name__="2x", a="b"}`:   {"__name__": "2x", "a": "b"},
		`{__name__="http.server"}`: {"__name__": "http.server"},
	} {
		if got := formatMetric(labels); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSeriesSelectors(t *testing.T) {
	t.Parallel()
	for match, want := range map[string]string{
		"up": "up", "http_*": `{__name__=~"http_.*"}`, "a.b*": `{__name__=~"a\\.b.*"}`,
		`{x=~"a.*"}`: `{x=~"a.*"}`,
	} {
		if got, err := seriesSelectors([]string{match}); err != nil || got[0] != want {
			t.Errorf("%s: got %v, %v, want %s", match, got, err, want)
		}
	}
	if _, err := seriesSelectors([]string{"sum(up)"}); !isUsage(err) {
		t.Errorf("got %v", err)
	}
}
