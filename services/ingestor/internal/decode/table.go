// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Table says how the rows of a table are points of metrics. Columns are named as the content names them. Names of metrics and labels are translated as
// OTLP's are.
type Table struct {
	// Time is the column of the time. TimeUnit is what its numbers count: s, ms, us or ns; empty: it is seen from their size.
	Time, TimeUnit string
	// Name and Value are the columns of a metric's name and its value. Without Name each of Values is a metric of its column's name.
	Name, Value string
	Values      []string
	// Labels are the columns that are labels; nil: all others. Static labels are added to each.
	Labels []string
	Static map[string]string
	// Prefix is put before each metric's name.
	Prefix string
	// Type is gauge, counter or unknown.
	Type string
}

// knownTable is the mapping of a table whose columns are called as everybody calls them; nil: they are not.
func knownTable(header []string) *Table {
	t := Table{Type: "unknown"}
	for _, known := range []struct {
		into  *string
		names []string
	}{
		{&t.Name, []string{"__name__", "metric", "metric_name", "name"}},
		{&t.Value, []string{"value"}},
		{&t.Time, []string{"timestamp", "time", "ts"}},
	} {
		for _, name := range known.names {
			if *known.into == "" && slices.Contains(header, name) {
				*known.into = name
			}
		}
		if *known.into == "" {
			return nil
		}
	}
	return &t
}

// cell is one value of a row.
type cell struct {
	kind   cellKind
	text   string // valid until the next row
	number float64
	ns     int64
}

type cellKind uint8

const (
	cellNone cellKind = iota
	cellText
	cellNumber
	cellTime
)

// tableRows gives the rows of a table as points.
type tableRows struct {
	to    MetricSink
	table *Table
	// header names the columns; the rest are their places.
	header     []string
	time, name int
	values     []int
	labels     []int
	static     []columns.Attribute
	metric     Metric
	point      Point
}

// newTableRows begins a table. A column that the mapping names and the table has not is an error, since no row could be read.
func newTableRows(to MetricSink, table *Table, header []string) (*tableRows, error) {
	t := &tableRows{to: to, table: table, header: header, name: -1}
	place := func(column string) (int, error) {
		if i := slices.Index(header, column); i >= 0 {
			return i, nil
		}
		return 0, fault.New(fault.Invalid, "the table has no column %q", column)
	}
	var err error
	if t.time, err = place(table.Time); err != nil {
		return nil, err
	}
	used := []int{t.time}
	valued := table.Values
	if table.Name != "" {
		if t.name, err = place(table.Name); err != nil {
			return nil, err
		}
		used, valued = append(used, t.name), []string{table.Value}
	}
	for _, column := range valued {
		i, err := place(column)
		if err != nil {
			return nil, err
		}
		used, t.values = append(used, i), append(t.values, i)
	}
	for i, column := range header {
		if column != "" && (table.Labels == nil && !slices.Contains(used, i) || slices.Contains(table.Labels, column)) {
			t.labels = append(t.labels, i)
		}
	}
	for name, value := range table.Static {
		t.static = append(t.static, columns.Attribute{Name: name, Value: columns.Value{Str: value}})
	}
	slices.SortFunc(t.static, func(a, b columns.Attribute) int { return strings.Compare(a.Name, b.Name) })
	to.Origin(&columns.Origin{})
	return t, nil
}

// row gives the points of a row; raw is what is kept of it where it has none: nil, its values.
func (t *tableRows) row(cells []cell, raw []byte) error {
	at, ok := t.timeOf(cells)
	if !ok {
		return t.reject(cells, raw)
	}
	if t.name >= 0 {
		value, ok := t.numberOf(cells, t.values[0])
		name := t.textOf(cells, t.name)
		if !ok || name == "" {
			return t.reject(cells, raw)
		}
		return t.give(name, at, value, cells)
	}
	for _, i := range t.values {
		if i >= len(cells) || cells[i].kind == cellNone {
			continue // no value is no point
		}
		value, ok := t.numberOf(cells, i)
		var err error
		if ok {
			err = t.give(t.header[i], at, value, cells)
		} else {
			err = t.reject(cells, raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tableRows) reject(cells []cell, raw []byte) error {
	if raw == nil {
		for i := range cells {
			raw = append(append(append(raw, t.header[i]...), '='), t.textOf(cells, i)...)
			raw = append(raw, ' ')
		}
	}
	return t.to.Reject(ReasonMalformed, raw[:min(len(raw), maxRejected)])
}

func (t *tableRows) give(name string, at int64, value float64, cells []cell) error {
	if t.metric.Kind == MetricNone || len(t.metric.Name) != len(t.table.Prefix)+len(name) || t.metric.Name[len(t.table.Prefix):] != name {
		t.announce(t.table.Prefix + name)
	}
	p := &t.point
	p.reset()
	p.Time, p.Value = at, value
	for _, i := range t.labels {
		if text := t.textOf(cells, i); text != "" {
			p.Attributes = append(p.Attributes, columns.Attribute{Name: t.header[i], Value: columns.Value{Str: text}})
		}
	}
	p.Attributes = append(p.Attributes, t.static...)
	return t.to.Point(p)
}

func (t *tableRows) announce(name string) {
	t.metric = Metric{Name: name, Kind: MetricGauge, Type: model.MetricTypeUnknown}
	switch t.table.Type {
	case "counter":
		t.metric.Kind, t.metric.Monotonic, t.metric.Temporality, t.metric.Type = MetricSum, true, TemporalityCumulative, ""
	case "gauge":
		t.metric.Type = ""
	}
	t.to.Metric(&t.metric)
}

func (t *tableRows) textOf(cells []cell, i int) string {
	if i >= len(cells) {
		return ""
	}
	switch c := &cells[i]; c.kind {
	case cellText:
		return c.text
	case cellNumber:
		return strconv.FormatFloat(c.number, 'g', -1, 64)
	case cellTime:
		return strconv.FormatInt(c.ns, 10)
	}
	return ""
}

func (t *tableRows) numberOf(cells []cell, i int) (float64, bool) {
	if i >= len(cells) {
		return 0, false
	}
	switch c := &cells[i]; c.kind {
	case cellText:
		return parseValue(c.text)
	case cellNumber:
		return c.number, true
	}
	return 0, false
}

func (t *tableRows) timeOf(cells []cell) (int64, bool) {
	if t.time >= len(cells) {
		return 0, false
	}
	c := &cells[t.time]
	switch c.kind {
	case cellTime:
		return c.ns, true
	case cellNumber:
		return timeNumber(c.number, t.table.TimeUnit)
	case cellText:
		if t.table.TimeUnit == "" {
			return parseTime(c.text)
		}
		whole, fraction, _ := strings.Cut(c.text, ".")
		if n, err := strconv.ParseInt(whole, 10, 64); err == nil && digits(fraction) && (n >= 0 || fraction == "") {
			ns, ok := timeInteger(n, t.table.TimeUnit)
			return ns + fractionOf(fraction, unitOf(t.table.TimeUnit)), ok
		}
		if f, ok := parseValue(c.text); ok {
			return timeNumber(f, t.table.TimeUnit)
		}
		return parseTime(c.text)
	}
	return 0, false
}

func unitOf(unit string) int64 {
	switch unit {
	case "s":
		return 1e9
	case "ms":
		return 1e6
	case "us":
		return 1e3
	}
	return 1
}

// timeInteger is a number of units since 1970 in ns.
func timeInteger(n int64, unit string) (int64, bool) {
	scale := unitOf(unit)
	if n > math.MaxInt64/scale || n < math.MinInt64/scale {
		return 0, false
	}
	return n * scale, true
}

// timeNumber is a number of units since 1970 in ns; without a unit that is seen from its size.
func timeNumber(f float64, unit string) (int64, bool) {
	if unit == "" {
		return parseEpoch(strconv.FormatFloat(f, 'f', -1, 64))
	}
	ns := f * float64(unitOf(unit))
	if !(math.Abs(ns) < math.MaxInt64) {
		return 0, false
	}
	return int64(ns), true
}
