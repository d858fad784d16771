// SPDX-License-Identifier: AGPL-3.0-only

package metrictest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// Tolerance is how far apart equal values may be, relative to the larger one.
const Tolerance = 1e-9

// Diff says what is different in two answers; empty: nothing. The order of series does not count.
func Diff(want, got parser.Value) string {
	if want.Type() != got.Type() {
		return fmt.Sprintf("a %s, want a %s", got.Type(), want.Type())
	}
	switch w := want.(type) {
	case prom.Scalar:
		if g := got.(prom.Scalar); w.T != g.T || !near(w.V, g.V) {
			return fmt.Sprintf("%v, want %v", g, w)
		}
		return ""
	case prom.String:
		if g := got.(prom.String); w != g {
			return fmt.Sprintf("%v, want %v", g, w)
		}
		return ""
	}
	return diffLines(linesOf(want), linesOf(got))
}

// Size is how many samples there are.
func Size(v parser.Value) int {
	n := 0
	for _, line := range linesOf(v) {
		n += len(line.Floats) + len(line.Histograms)
	}
	return n
}

func linesOf(v parser.Value) []prom.Line {
	var lines []prom.Line
	switch data := v.(type) {
	case prom.Matrix:
		lines = slices.Clone(data)
	case prom.Vector:
		for _, s := range data {
			line := prom.Line{Metric: s.Metric}
			if s.H == nil {
				line.Floats = []prom.FPoint{{T: s.T, F: s.F}}
			} else {
				line.Histograms = []prom.HPoint{{T: s.T, H: s.H}}
			}
			lines = append(lines, line)
		}
	}
	slices.SortFunc(lines, func(a, b prom.Line) int { return labels.Compare(a.Metric, b.Metric) })
	return lines
}

func diffLines(want, got []prom.Line) string {
	var out strings.Builder
	for len(want) > 0 || len(got) > 0 {
		var order int
		switch {
		case len(want) == 0:
			order = 1
		case len(got) == 0:
			order = -1
		default:
			order = labels.Compare(want[0].Metric, got[0].Metric)
		}
		switch {
		case order < 0:
			fmt.Fprintf(&out, "-%s\n", want[0])
			want = want[1:]
		case order > 0:
			fmt.Fprintf(&out, "+%s\n", got[0])
			got = got[1:]
		default:
			diffLine(&out, want[0], got[0])
			want, got = want[1:], got[1:]
		}
	}
	return out.String()
}

func diffLine(out *strings.Builder, want, got prom.Line) {
	floats := slices.EqualFunc(want.Floats, got.Floats, func(a, b prom.FPoint) bool { return a.T == b.T && near(a.F, b.F) })
	histograms := slices.EqualFunc(want.Histograms, got.Histograms, func(a, b prom.HPoint) bool { return a.T == b.T && nearHistogram(a.H, b.H) })
	if floats && histograms {
		return
	}
	if len(want.Floats) == len(got.Floats) && len(want.Histograms) == len(got.Histograms) {
		for i, p := range want.Floats {
			if g := got.Floats[i]; p.T != g.T || !near(p.F, g.F) {
				fmt.Fprintf(out, "%s: %v at %d, want %v at %d\n", want.Metric, g.F, g.T, p.F, p.T)
			}
		}
		for i, p := range want.Histograms {
			if g := got.Histograms[i]; p.T != g.T || !nearHistogram(p.H, g.H) {
				fmt.Fprintf(out, "%s: %v at %d, want %v at %d\n", want.Metric, g.H, g.T, p.H, p.T)
			}
		}
		return
	}
	fmt.Fprintf(out, "-%s\n+%s\n", want, got)
}

func near(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return math.IsNaN(a) && math.IsNaN(b)
	case a == b:
		return true
	}
	return math.Abs(a-b) <= Tolerance*max(math.Abs(a), math.Abs(b))
}

func nearHistogram(a, b *histogram.FloatHistogram) bool {
	a, b = a.Copy().Compact(0), b.Copy().Compact(0)
	floats := func(x, y []float64) bool { return slices.EqualFunc(x, y, near) }
	return a.Schema == b.Schema && near(a.ZeroThreshold, b.ZeroThreshold) && near(a.ZeroCount, b.ZeroCount) && near(a.Count, b.Count) && near(a.Sum, b.Sum) &&
		slices.Equal(a.PositiveSpans, b.PositiveSpans) && slices.Equal(a.NegativeSpans, b.NegativeSpans) &&
		floats(a.PositiveBuckets, b.PositiveBuckets) && floats(a.NegativeBuckets, b.NegativeBuckets) && floats(a.CustomValues, b.CustomValues)
}
