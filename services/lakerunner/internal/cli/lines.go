// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// linePrinter writes log lines as they come.
type linePrinter struct {
	out       io.Writer
	format    string // table, json or raw
	allLabels bool
	zone      *time.Location
}

// jsonLine is one log line as a JSON document.
type jsonLine struct {
	Time     string            `json:"time"`
	Line     string            `json:"line"`
	Labels   map[string]string `json:"labels,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Parsed   map[string]string `json:"parsed,omitempty"`
}

func (p *linePrinter) print(lines []*queryv1.LogLine) error {
	var b bytes.Buffer
	for _, l := range lines {
		switch p.format {
		case "json":
			writeJSON(&b, jsonLine{formatNanos(l.GetTime().AsTime()), l.GetLine(), l.GetLabels(), l.GetMetadata(), l.GetParsed()})
		case "raw":
			b.WriteString(l.GetLine())
			b.WriteByte('\n')
		default:
			p.row(&b, l)
		}
	}
	if _, err := p.out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// row writes time, level, service and line in columns. Widths are fixed, because lines are shown before the last one is known.
func (p *linePrinter) row(b *bytes.Buffer, l *queryv1.LogLine) {
	at := l.GetTime().AsTime().In(p.zone).Format("2006-01-02 15:04:05.000")
	level := firstOf(levelOfLine(l), "-")
	service := firstOf(l.GetLabels()["service_name"], "-")
	fmt.Fprintf(b, "%s  %-5s  %-15s  ", at, level, service)
	if p.allLabels {
		b.WriteString(formatLabels(allLabels(l)))
		b.WriteString("  ")
	}
	b.WriteString(strings.ReplaceAll(strings.TrimRight(l.GetLine(), "\n"), "\n", "\n    "))
	b.WriteByte('\n')
}

// levelOfLine is the line's level; empty where ingest found none.
func levelOfLine(l *queryv1.LogLine) string {
	if level := l.GetMetadata()["detected_level"]; level != "" && level != "unknown" {
		return level
	}
	return firstOf(l.GetParsed()["level"], l.GetLabels()["level"])
}

func allLabels(l *queryv1.LogLine) map[string]string {
	all := maps.Clone(l.GetLabels())
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, l.GetMetadata())
	maps.Copy(all, l.GetParsed())
	return all
}

// seriesPrinter writes the answer of a metric query.
type seriesPrinter struct {
	out    io.Writer
	format string // table, json or raw
	zone   *time.Location
	promQL bool // labels are written as PromQL has them
}

// jsonSeries is one series as a JSON document; values are text, as NaN and infinities have no JSON number.
type jsonSeries struct {
	Labels     map[string]string `json:"labels"`
	Samples    [][2]string       `json:"samples"`
	Histograms []jsonHistogram   `json:"histograms,omitempty"`
}

// jsonHistogram is a native histogram at a time.
type jsonHistogram struct {
	Time      string          `json:"time"`
	Histogram json.RawMessage `json:"histogram"`
}

func (p *seriesPrinter) print(series []*queryv1.Series) error {
	var b bytes.Buffer
	switch p.format {
	case "json":
		for _, s := range series {
			writeJSON(&b, documentOf(s))
		}
	case "raw":
		p.raw(&b, series)
	default:
		p.table(&b, series)
	}
	if _, err := p.out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func documentOf(s *queryv1.Series) jsonSeries {
	d := jsonSeries{Labels: s.GetLabels(), Samples: make([][2]string, 0, len(s.GetSamples()))}
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	for _, sample := range s.GetSamples() {
		at := formatNanos(sample.GetTime().AsTime())
		if h := sample.GetHistogram(); h != nil {
			d.Histograms = append(d.Histograms, jsonHistogram{at, histogramDocument(h)})
			continue
		}
		d.Samples = append(d.Samples, [2]string{at, formatValue(sample.GetValue())})
	}
	return d
}

func histogramDocument(h *queryv1.Histogram) json.RawMessage {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(h)
	if err != nil {
		panic(err) // numbers always have a JSON form
	}
	return json.RawMessage(compactJSON(b))
}

// formatSample writes a value; of a histogram what it comes to.
func formatSample(s *queryv1.Sample) string {
	if h := s.GetHistogram(); h != nil {
		return fmt.Sprintf("count %s, sum %s", formatValue(h.GetCount()), formatValue(h.GetSum()))
	}
	return formatValue(s.GetValue())
}

func (p *seriesPrinter) labels(s *queryv1.Series) string {
	if p.promQL {
		return formatMetric(s.GetLabels())
	}
	return formatLabels(s.GetLabels())
}

func (p *seriesPrinter) raw(b *bytes.Buffer, series []*queryv1.Series) {
	for _, s := range series {
		for _, sample := range s.GetSamples() {
			fmt.Fprintf(b, "%s\t%s\t%s\n", formatNanos(sample.GetTime().AsTime()), formatSample(sample), p.labels(s))
		}
	}
}

func (p *seriesPrinter) table(b *bytes.Buffer, series []*queryv1.Series) {
	t := newTable("TIME", "VALUE", "SERIES")
	for _, s := range series {
		for _, sample := range s.GetSamples() {
			t.add(sample.GetTime().AsTime().In(p.zone).Format("2006-01-02 15:04:05"), formatSample(sample), p.labels(s))
		}
	}
	t.write(b)
}

// formatLabels writes labels as LogQL has them, sorted by name.
func formatLabels(labels map[string]string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, name := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(strconv.Quote(labels[name]))
	}
	b.WriteByte('}')
	return b.String()
}

func formatValue(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func formatNanos(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// writeJSON writes one document and a line break, without escaping <, > and & as HTML.
func writeJSON(b *bytes.Buffer, v any) {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // strings and maps of strings always have a JSON form
	}
}
