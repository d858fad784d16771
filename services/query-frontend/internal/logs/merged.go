// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// steps are the evaluation times of a query, as Loki's engine labels them: in milliseconds, rounded down.
type steps struct {
	instant    bool
	start, end time.Time
	step       time.Duration
}

func newSteps(p logql.Params) steps {
	return steps{instant: logql.GetRangeType(p) == logql.InstantType, start: p.Start(), end: p.End(), step: p.Step()}
}

// has reports whether ms is one of the times.
func (s steps) has(ms int64) bool {
	if s.instant || s.step <= 0 {
		return ms == s.start.UnixMilli()
	}
	first := (ms*int64(time.Millisecond) - s.start.UnixNano()) / int64(s.step)
	for k := max(0, first-1); k <= first+1; k++ {
		at := s.start.Add(time.Duration(k) * s.step)
		if !at.After(s.end) && at.UnixMilli() == ms {
			return true
		}
	}
	return false
}

// sampleDecoder collects the samples of one attempt.
type sampleDecoder struct {
	most    int
	series  map[string]int
	names   []string
	samples []seriesSample
}

type seriesSample struct {
	series int
	time   int64 // ms
	value  float64
}

func newSampleDecoder(most int) *sampleDecoder {
	return &sampleDecoder{most: most, series: map[string]int{}}
}

// Add takes in a batch of columns.LogSamplesSchema.
func (d *sampleDecoder) Add(batch arrow.RecordBatch) error {
	column := func(name string) arrow.Array {
		if at := batch.Schema().FieldIndices(name); len(at) == 1 {
			return batch.Column(at[0])
		}
		return nil
	}
	text, err := textOf("labels", column("labels"))
	if err != nil {
		return fmt.Errorf("log samples: %w", err)
	}
	times, ok := column("time").(*array.Int64)
	if !ok {
		return fmt.Errorf("log samples: %w", badColumn("time"))
	}
	values, ok := column("value").(*array.Float64)
	if !ok {
		return fmt.Errorf("log samples: %w", badColumn("value"))
	}
	for i := range int(batch.NumRows()) {
		d.samples = append(d.samples, seriesSample{series: d.intern(text.Value(i)), time: times.Value(i), value: values.Value(i)})
	}
	if len(d.samples) > d.most {
		return fault.New(fault.Exhausted, "a worker's answer has more than %d samples; aggregate by fewer labels or narrow the time range", d.most)
	}
	return nil
}

func (d *sampleDecoder) intern(text string) int {
	if at, ok := d.series[text]; ok {
		return at
	}
	text = strings.Clone(text)
	d.series[text] = len(d.names)
	d.names = append(d.names, text)
	return len(d.names) - 1
}

// mergedSeries merges the samples of many answers by (labels, time).
type mergedSeries struct {
	leaf   *plan.Leaf
	steps  steps
	most   int
	held   int
	series map[string][]promql.FPoint // by labels as a worker wrote them
}

func newMergedSeries(leaf *plan.Leaf, s steps, most int) *mergedSeries {
	return &mergedSeries{leaf: leaf, steps: s, most: most, series: map[string][]promql.FPoint{}}
}

// add takes in an answer; false: there is no room for it.
func (m *mergedSeries) add(d *sampleDecoder) bool {
	m.held += len(d.samples)
	if m.held > m.most {
		return false
	}
	bySeries := make([][]promql.FPoint, len(d.names))
	for _, s := range d.samples {
		bySeries[s.series] = append(bySeries[s.series], promql.FPoint{T: s.time, F: s.value})
	}
	for at, points := range bySeries {
		m.series[d.names[at]] = append(m.series[d.names[at]], points...)
	}
	return true
}

// value returns the merged vector or matrix.
func (m *mergedSeries) value() (parser.Value, error) {
	matrix, err := m.matrix()
	if err != nil || !m.steps.instant {
		return matrix, err
	}
	vector := make(promql.Vector, 0, len(matrix))
	for _, series := range matrix {
		for _, p := range series.Floats {
			vector = append(vector, promql.Sample{Metric: series.Metric, T: p.T, F: p.F})
		}
	}
	return vector, nil
}

func (m *mergedSeries) matrix() (promql.Matrix, error) {
	canonical := make(map[string]int, len(m.series))
	matrix := make(promql.Matrix, 0, len(m.series))
	for text, points := range m.series {
		metric, key, err := canonicalLabels(text)
		if err != nil {
			return nil, err
		}
		at, ok := canonical[key]
		if !ok {
			at = len(matrix)
			canonical[key] = at
			matrix = append(matrix, promql.Series{Metric: metric})
		}
		matrix[at].Floats = append(matrix[at].Floats, points...)
	}
	out := make(promql.Matrix, 0, len(matrix))
	for _, series := range matrix {
		layers, err := m.mergePoints(series.Floats)
		if err != nil {
			return nil, err
		}
		for _, points := range layers {
			out = append(out, promql.Series{Metric: series.Metric, Floats: points})
		}
	}
	sort.Sort(out)
	return out, nil
}

// mergePoints merges points of equal time, and divides a rate by its seconds. Where nothing merges, points of equal time are
// different series that Loki writes alike, such as {a=""} and {}; each comes back in a layer of its own.
func (m *mergedSeries) mergePoints(points []promql.FPoint) ([][]promql.FPoint, error) {
	if len(points) > 1 {
		slices.SortStableFunc(points, func(a, b promql.FPoint) int { return cmp.Compare(a.T, b.T) })
	}
	var layers [][]promql.FPoint
	at := 0
	for i, p := range points {
		if !m.steps.has(p.T) {
			return nil, fault.New(fault.Internal, "a worker answered a sample at %d ms, which is no step of the query", p.T)
		}
		switch same := i > 0 && points[i-1].T == p.T; {
		case same && m.leaf.Merge != plan.MergeNone:
			last := &layers[0][len(layers[0])-1]
			last.F = m.leaf.Merge.Of(last.F, p.F)
			continue
		case same:
			at++
		default:
			at = 0
		}
		if at == len(layers) {
			layers = append(layers, nil)
		}
		layers[at] = append(layers[at], p)
	}
	m.divide(layers)
	return layers, nil
}

func (m *mergedSeries) divide(layers [][]promql.FPoint) {
	if m.leaf.Divisor == 0 {
		return
	}
	for _, points := range layers {
		for i := range points {
			points[i].F /= m.leaf.Divisor
		}
	}
}

// parseLabels parses labels in Prometheus' text form as Loki's engine does. It keeps empty ones: a parser that finds nothing
// makes such a label, and it tells series apart.
func parseLabels(text string) (labels.Labels, error) {
	if text == "" || text == "{}" {
		return labels.EmptyLabels(), nil
	}
	if plain, ok := plainLabels(text); ok {
		return plain, nil
	}
	parsed, err := parser.NewParser(parser.Options{}).ParseMetric(text)
	if err != nil {
		return labels.EmptyLabels(), fault.Wrap(fault.Internal, fmt.Errorf("labels %s of a worker's answer: %w", text, err))
	}
	return parsed, nil
}

// canonicalLabels parses labels and returns the text that Prometheus has for them.
func canonicalLabels(text string) (labels.Labels, string, error) {
	if plain, ok := plainLabels(text); ok {
		return plain, text, nil
	}
	parsed, err := parseLabels(text)
	return parsed, parsed.String(), err
}

// plainLabels reads labels with names of letters, digits and underscores, sorted and without escapes in their values, which nearly all are. False for
// others.
func plainLabels(text string) (labels.Labels, bool) {
	rest, ok := strings.CutPrefix(text, "{")
	builder := labels.NewScratchBuilder(4)
	last := ""
	for ok {
		var name, value string
		name, rest, ok = strings.Cut(rest, `="`)
		if !ok || name <= last || !plainName(name) || name == model.MetricNameLabel {
			return labels.EmptyLabels(), false
		}
		last = name
		value, rest, ok = strings.Cut(rest, `"`)
		if !ok || strings.IndexByte(value, '\\') >= 0 {
			return labels.EmptyLabels(), false
		}
		builder.Add(name, value)
		if rest == "}" {
			return builder.Labels(), true
		}
		rest, ok = strings.CutPrefix(rest, ", ")
	}
	return labels.EmptyLabels(), false
}

func plainName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'; !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
