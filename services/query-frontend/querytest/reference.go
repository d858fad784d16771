// SPDX-License-Identifier: AGPL-3.0-only

package querytest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/user"
	"github.com/grafana/loki/v3/pkg/iter"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	lokilog "github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Memory is Loki's storage interface over rows in memory. It neither drops nor doubles equal rows.
type Memory []Row

var _ logql.Querier = Memory(nil)

// Evaluate answers a query by Loki's engine.
func (m Memory) Evaluate(ctx context.Context, q Query) (parser.Value, error) {
	params, err := logql.NewLiteralParams(q.Text, q.Start, q.End, q.Step, q.Interval, q.Direction, uint32(q.Limit), nil, nil)
	if err != nil {
		return nil, err
	}
	engine := logql.NewEngine(logql.EngineOpts{}, m, logql.NoLimits, log.NewNopLogger())
	result, err := engine.Query(params).Exec(user.InjectOrgID(ctx, "test"))
	return result.Data, err
}

// SelectLogs answers a log query.
func (m Memory) SelectLogs(_ context.Context, p logql.SelectLogParams) (iter.EntryIterator, error) {
	expr, err := p.LogSelector()
	if err != nil {
		return nil, err
	}
	lines, err := m.Lines(expr, p.Start.UnixNano(), p.End.UnixNano(), p.Direction)
	return &lineIterator{lines: lines}, err
}

// Line is a line as a pipeline left it.
type Line struct {
	Time   int64
	Line   string
	Labels lokilog.LabelsResult
	Stream uint64 // hash of the stream's labels
}

// Lines returns the lines of [start, end) that a selector lets through, in order.
func (m Memory) Lines(expr syntax.LogSelectorExpr, start, end int64, direction logproto.Direction) ([]Line, error) {
	pipeline, err := expr.Pipeline()
	if err != nil {
		return nil, err
	}
	var lines []Line
	for _, row := range m {
		at := row.Time.UnixNano()
		stream := labels.FromMap(row.Labels)
		if at < start || at >= end || !matches(expr.Matchers(), stream) {
			continue
		}
		text, result, ok := pipeline.ForStream(stream).ProcessString(at, row.Line, labels.FromMap(row.Metadata))
		if ok {
			lines = append(lines, Line{Time: at, Line: strings.Clone(text), Labels: result, Stream: labels.StableHash(stream)})
		}
	}
	sort.SliceStable(lines, func(i, j int) bool {
		if direction == logproto.FORWARD {
			return lines[i].Time < lines[j].Time
		}
		return lines[i].Time > lines[j].Time
	})
	return lines, nil
}

func matches(matchers []*labels.Matcher, stream labels.Labels) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(stream.Get(m.Name)) })
}

// SelectSamples answers the samples of a metric query.
func (m Memory) SelectSamples(_ context.Context, p logql.SelectSampleParams) (iter.SampleIterator, error) {
	expr, err := p.Expr()
	if err != nil {
		return nil, err
	}
	selector, err := expr.Selector()
	if err != nil {
		return nil, err
	}
	extractors, err := expr.Extractors()
	if err != nil {
		return nil, err
	}
	found := &sampleIterator{}
	for _, row := range m {
		stream := labels.FromMap(row.Labels)
		if row.Time.Before(p.Start) || !row.Time.Before(p.End) || !matches(selector.Matchers(), stream) {
			continue
		}
		for _, extractor := range extractors {
			samples, _ := extractor.ForStream(stream).ProcessString(row.Time.UnixNano(), row.Line, labels.FromMap(row.Metadata))
			for _, s := range samples {
				found.samples = append(found.samples, sample{row.Time.UnixNano(), s.Value, s.Labels.String(), s.Labels.Hash()})
			}
		}
	}
	sort.SliceStable(found.samples, func(i, j int) bool { return found.samples[i].time < found.samples[j].time })
	return found, nil
}

type lineIterator struct {
	lines []Line
	at    int
}

// Next moves on.
func (i *lineIterator) Next() bool { i.at++; return i.at <= len(i.lines) }

// At returns the entry.
func (i *lineIterator) At() logproto.Entry {
	line := i.lines[i.at-1]
	return logproto.Entry{
		Timestamp:          time.Unix(0, line.Time).UTC(),
		Line:               line.Line,
		StructuredMetadata: logproto.FromLabelsToLabelAdapters(line.Labels.StructuredMetadata()),
		Parsed:             logproto.FromLabelsToLabelAdapters(line.Labels.Parsed()),
	}
}

// Labels returns all labels of the entry.
func (i *lineIterator) Labels() string { return i.lines[i.at-1].Labels.String() }

// StreamHash returns the hash of the entry's stream.
func (i *lineIterator) StreamHash() uint64 { return i.lines[i.at-1].Stream }

// Err is nil.
func (i *lineIterator) Err() error { return nil }

// Close does nothing.
func (i *lineIterator) Close() error { return nil }

type sample struct {
	time   int64
	value  float64
	labels string
	hash   uint64
}

type sampleIterator struct {
	samples []sample
	at      int
}

// Next moves on.
func (i *sampleIterator) Next() bool { i.at++; return i.at <= len(i.samples) }

// At returns the sample.
func (i *sampleIterator) At() logproto.Sample {
	s := i.samples[i.at-1]
	return logproto.Sample{Timestamp: s.time, Value: s.value}
}

// Labels returns the sample's labels.
func (i *sampleIterator) Labels() string { return i.samples[i.at-1].labels }

// StreamHash returns the hash of the sample's labels.
func (i *sampleIterator) StreamHash() uint64 { return i.samples[i.at-1].hash }

// Err is nil.
func (i *sampleIterator) Err() error { return nil }

// Close does nothing.
func (i *sampleIterator) Close() error { return nil }

// Diff compares two answers and returns what differs; empty: they are equal. Numbers may differ in the tenth digit, because
// sums may be added in any order. Samples are compared as sets, since topk and sort leave equal values in any order.
func Diff(want, got parser.Value) string {
	wanted, found := numbered(describe(want)), numbered(describe(got))
	var out strings.Builder
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		switch value, ok := found[key]; {
		case !ok:
			fmt.Fprintf(&out, "- %s %v\n", key, wanted[key])
		case !near(wanted[key], value):
			fmt.Fprintf(&out, "- %s %v\n+ %s %v\n", key, wanted[key], key, value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		if _, ok := wanted[key]; !ok {
			fmt.Fprintf(&out, "+ %s %v\n", key, found[key])
		}
	}
	return out.String()
}

// Size returns how many samples or lines an answer has.
func Size(v parser.Value) int { return len(numbered(describe(v))) }

// numbered tells values of one key apart. Loki answers a series twice where labels differ only by an empty one that an
// aggregation dropped.
func numbered(described map[string][]float64) map[string]float64 {
	out := make(map[string]float64, len(described))
	for key, values := range described {
		slices.Sort(values)
		for i, value := range values {
			out[fmt.Sprintf("%s (%d)", key, i)] = value
		}
	}
	return out
}

// near compares with a tolerance. What cancels out leaves rounding errors of different kinds.
func near(a, b float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b))
}

// describe names each sample and line of an answer; a line's value is zero.
func describe(v parser.Value) map[string][]float64 {
	out := map[string][]float64{}
	add := func(value float64, format string, args ...any) {
		key := fmt.Sprintf(format, args...)
		out[key] = append(out[key], value)
	}
	switch value := v.(type) {
	case promql.Scalar:
		add(value.V, "scalar @%d", value.T)
	case promql.Vector:
		for _, s := range value {
			add(s.F, "%s @%d", s.Metric, s.T)
		}
	case promql.Matrix:
		for _, series := range value {
			for _, p := range series.Floats {
				add(p.F, "%s @%d", series.Metric, p.T)
			}
		}
	case logqlmodel.Streams:
		for _, stream := range value {
			for at, e := range stream.Entries {
				add(0, "%s #%d @%d %q meta %s parsed %s", stream.Labels, at, e.Timestamp.UnixNano(), e.Line,
					logproto.FromLabelAdaptersToLabels(e.StructuredMetadata), logproto.FromLabelAdaptersToLabels(e.Parsed))
			}
		}
	}
	return out
}
