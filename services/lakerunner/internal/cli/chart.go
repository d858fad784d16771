// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/guptarohit/asciigraph"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

const (
	chartHeight = 12
	// chartSeries is how many series a chart has at most: more cannot be told from one another.
	chartSeries = 8
	// narrowest is the least width of what is drawn beside the axis.
	narrowest = 20
	// axisWidth is about what the axis and its numbers take, and the last time below by which it goes beyond the last column.
	axisWidth = 15
)

// chart draws series over a range of time.
type chart struct {
	start, end time.Time
	step       time.Duration
	width      int // of all of it, in columns
	colors     bool
	zone       *time.Location
}

// drawn is a series as it is drawn.
type drawn struct {
	labels      map[string]string
	name        string
	columns     []float64 // a value a column; NaN: none
	least, most float64
	last        float64
}

// draw draws the series that reach highest; left is how many are not drawn. With nothing to draw it returns no text.
func (c *chart) draw(series []*queryv1.Series) (text string, left int) {
	var all []drawn
	for _, s := range series {
		if d := c.prepare(s); !math.IsNaN(d.most) {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return "", 0
	}
	slices.SortStableFunc(all, func(a, b drawn) int { return cmp.Compare(b.most, a.most) })
	if left = len(all) - chartSeries; left > 0 {
		all = all[:chartSeries]
	}
	var b bytes.Buffer
	b.WriteString(c.plot(all))
	b.WriteString("\n\n")
	c.legend(&b, all)
	return b.String(), max(left, 0)
}

// prepare puts the samples of a series into columns. Between two samples a step apart it goes straight; a gap stays one.
func (c *chart) prepare(s *queryv1.Series) drawn {
	d := drawn{
		labels: s.GetLabels(), name: formatMetric(s.GetLabels()), columns: make([]float64, c.columns()),
		least: math.NaN(), most: math.NaN(), last: math.NaN(),
	}
	var times []int64
	var values []float64
	for _, sample := range s.GetSamples() {
		v := sample.GetValue()
		if sample.GetHistogram() != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		times, values = append(times, sample.GetTime().AsTime().UnixNano()), append(values, v)
	}
	if n := len(values); n > 0 {
		d.least, d.most, d.last = slices.Min(values), slices.Max(values), values[n-1]
	}
	from, to := c.start.UnixNano(), c.end.UnixNano()
	for i := range d.columns {
		at := from
		if len(d.columns) > 1 {
			at = from + int64(float64(to-from)*float64(i)/float64(len(d.columns)-1))
		}
		d.columns[i] = c.valueAt(times, values, at)
	}
	return d
}

// valueAt is the value at a time.
func (c *chart) valueAt(times []int64, values []float64, at int64) float64 {
	next, exact := slices.BinarySearch(times, at)
	if exact {
		return values[next]
	}
	apart := int64(c.step) * 3 / 2
	before, after := next-1, next
	switch {
	case before >= 0 && after < len(times) && times[after]-times[before] <= apart:
		part := float64(at-times[before]) / float64(times[after]-times[before])
		return values[before] + part*(values[after]-values[before])
	case before >= 0 && at-times[before] <= int64(c.step)/2:
		return values[before]
	case after < len(times) && times[after]-at <= int64(c.step)/2:
		return values[after]
	}
	return math.NaN()
}

// columns is how many values are drawn beside one another.
func (c *chart) columns() int { return max(c.width-axisWidth, narrowest) }

// plot draws lines and axes. What is given to the plotter lies between 0 and 1: it counts in integers.
func (c *chart) plot(all []drawn) string {
	least, most := math.Inf(1), math.Inf(-1)
	for _, d := range all {
		least, most = math.Min(least, d.least), math.Max(most, d.most)
	}
	span := most/2 - least/2
	data := make([][]float64, len(all))
	for i, d := range all {
		data[i] = make([]float64, len(d.columns))
		for j, v := range d.columns {
			if data[i][j] = v; !math.IsNaN(v) {
				data[i][j] = 0
				if span > 0 {
					data[i][j] = (v/2 - least/2) / span
				}
			}
		}
	}
	options := []asciigraph.Option{
		asciigraph.Height(chartHeight),
		asciigraph.Offset(2),
		asciigraph.YAxisValueFormatter(func(part float64) string { return fmt.Sprintf("%8s", formatShort(2*(least/2+part*span))) }),
		asciigraph.XAxisRange(float64(c.start.UnixMilli()), float64(c.end.UnixMilli())),
		asciigraph.XAxisTickCount(max(2, min(7, c.columns()/14+1))),
		asciigraph.XAxisValueFormatter(c.formatTick),
	}
	if c.colors {
		options = append(options, asciigraph.SeriesColors(chartColors()...))
	} else if len(all) > 1 {
		options = append(options, asciigraph.SeriesChars(chartMarks()...))
	}
	return asciigraph.PlotMany(data, options...)
}

func chartColors() []asciigraph.AnsiColor {
	return []asciigraph.AnsiColor{
		asciigraph.Green, asciigraph.Gold, asciigraph.DodgerBlue, asciigraph.Red, asciigraph.Cyan, asciigraph.Magenta, asciigraph.Orange, asciigraph.White,
	}
}

// marks are what lines are drawn with where there are no colors.
const marks = "─*+ox#%@"

func chartMarks() []asciigraph.CharSet {
	sets := []asciigraph.CharSet{asciigraph.DefaultCharSet}
	for _, mark := range []rune(marks)[1:] {
		sets = append(sets, asciigraph.CreateCharSet(string(mark)))
	}
	return sets
}

// legend names the series and says what they come to.
func (c *chart) legend(b *bytes.Buffer, all []drawn) {
	figures := make([]string, len(all))
	widest := 0
	for i, d := range all {
		figures[i] = fmt.Sprintf("min %s  max %s  last %s", formatShort(d.least), formatShort(d.most), formatShort(d.last))
		widest = max(widest, len(figures[i]))
	}
	room := max(c.width-widest-6, narrowest)
	if widestName(all) > room {
		shorten(all)
	}
	room = min(widestName(all), room)
	for i, d := range all {
		mark := string([]rune(marks)[i])
		if c.colors {
			mark = chartColors()[i].String() + "■" + asciigraph.Default.String()
		}
		fmt.Fprintf(b, "  %s %s  %s\n", mark, padded(d.name, room), figures[i])
	}
}

func widestName(all []drawn) (widest int) {
	for _, d := range all {
		widest = max(widest, len([]rune(d.name)))
	}
	return widest
}

// shorten leaves out of the names of several series what does not tell them apart. Labels that all have come first, then those of many values.
func shorten(all []drawn) {
	var chosen []string
	apart := 1
	for _, name := range telling(all) {
		if more := distinct(all, append(chosen, name)); more > apart {
			chosen, apart = append(chosen, name), more
		}
	}
	for i := range all {
		if len(chosen) > 0 {
			all[i].name = formatMetric(only(all[i].labels, chosen))
		}
	}
}

// telling are the names of labels, those first that tell series apart best.
func telling(all []drawn) []string {
	have := map[string]int{}
	for _, d := range all {
		for name := range d.labels {
			have[name]++
		}
	}
	return slices.SortedFunc(maps.Keys(have), func(a, b string) int {
		return cmp.Or(cmp.Compare(have[b], have[a]), cmp.Compare(distinct(all, []string{b}), distinct(all, []string{a})), cmp.Compare(a, b))
	})
}

// distinct is how many series these labels tell apart.
func distinct(all []drawn, names []string) int {
	sets := map[string]bool{}
	for _, d := range all {
		sets[formatLabels(only(d.labels, names))] = true
	}
	return len(sets)
}

// only are the labels of these names.
func only(labels map[string]string, names []string) map[string]string {
	chosen := map[string]string{}
	for _, name := range names {
		if value, has := labels[name]; has {
			chosen[name] = value
		}
	}
	return chosen
}

// padded cuts or fills a text to a width.
func padded(text string, width int) string {
	runes := []rune(text)
	if len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text + strings.Repeat(" ", width-len(runes))
}

func (c *chart) formatTick(ms float64) string {
	at := time.UnixMilli(int64(ms)).In(c.zone)
	switch span := c.end.Sub(c.start); {
	case span > 48*time.Hour:
		return at.Format("01-02 15h")
	case span < 5*time.Minute:
		return at.Format("15:04:05")
	}
	return at.Format("15:04")
}

// formatShort writes a number with four digits at most, and k, M, G or T.
func formatShort(v float64) string {
	size := math.Abs(v)
	if size >= 1e15 || size != 0 && size < 1e-3 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	unit := ""
	for _, next := range []string{"k", "M", "G", "T"} {
		if size < 1000 {
			break
		}
		v, size, unit = v/1000, size/1000, next
	}
	decimals := 3 - len(strconv.Itoa(int(size)))
	if size < 1 {
		decimals = 3
	}
	text := strconv.FormatFloat(v, 'f', max(decimals, 0), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + unit
}

// formatMetric writes labels as PromQL has them, the metric's name before the braces.
func formatMetric(labels map[string]string) string {
	name, named := labels["__name__"]
	if !named || !plainName(name) {
		return formatLabels(labels)
	}
	rest := maps.Clone(labels)
	delete(rest, "__name__")
	if len(rest) == 0 {
		return name
	}
	return name + formatLabels(rest)
}

// plainName reports whether a metric's name needs no quotes.
func plainName(name string) bool {
	for i, r := range name {
		if r != '_' && r != ':' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// stepFor is a step that gives a chart about a value a column, of a length that people use.
func stepFor(length time.Duration, columns int) time.Duration {
	least := length / time.Duration(max(columns, 1))
	for _, step := range []time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 15 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	} {
		if step >= least {
			return step
		}
	}
	const day = 24 * time.Hour
	return (least + day - 1) / day * day
}
