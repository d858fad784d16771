// SPDX-License-Identifier: AGPL-3.0-only

// Package selector decides which log rows a LogQL log selector lets through, and which rows of metric segments a Prometheus series selector chooses:
// those that a delete of data reaches, or that a retention policy is about. Parsers and pipeline are Loki's and Prometheus', so that a selector
// reaches exactly the rows which the same text finds as a query.
//
// Invariants:
//
//   - What a Matcher says of a row depends on the row's labels, origin and fields alone, not on the rows before it.
//   - Row implies Stream: a stream that the matchers refuse has no row that is let through.
//   - Nothing that a Matcher is given is kept after the call returns.
//   - A SeriesSelector chooses the rows that stand for a series which the selector finds, and these whole.
//
// It does not know segments; what it is asked about one row it answers.
package selector

import (
	"slices"

	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Selector is a parsed log selector. It is safe for concurrent use.
type Selector struct {
	text     string
	matchers []*labels.Matcher
	simple   bool
}

// Parse parses a log selector: stream matchers, of which one must not match the empty value, and perhaps a pipeline. The error is fault.Invalid
// and names the place.
func Parse(text string) (*Selector, error) {
	expr, err := syntax.ParseLogSelector(text, true)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if _, err := expr.Pipeline(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	_, simple := expr.(*syntax.MatchersExpr)
	return &Selector{text: text, matchers: expr.Matchers(), simple: simple}, nil
}

// String returns the text that was parsed.
func (s *Selector) String() string { return s.text }

// Simple reports whether there is no pipeline, so that Stream decides.
func (s *Selector) Simple() bool { return s.simple }

// Decides reports whether these labels of a stream are all that the selector looks at.
func (s *Selector) Decides(names ...string) bool {
	return s.simple && !slices.ContainsFunc(s.matchers, func(m *labels.Matcher) bool { return !slices.Contains(names, m.Name) })
}

// Stream reports whether the stream matchers accept a stream's labels. A label that is not there is empty.
func (s *Selector) Stream(stream []columns.Label) bool {
	for _, m := range s.matchers {
		if !m.Matches(valueOf(stream, m.Name)) {
			return false
		}
	}
	return true
}

func valueOf(stream []columns.Label, name string) string {
	for i := range stream {
		if stream[i].Name == name {
			return stream[i].Value
		}
	}
	return ""
}

// NewMatcher returns what decides on rows.
func (s *Selector) NewMatcher() *Matcher {
	m := &Matcher{selector: s, builder: labels.NewScratchBuilder(16)}
	m.forget()
	if s.simple {
		return m
	}
	// Making a pipeline changes the expression, so each has its own. Both steps succeeded when the selector was parsed.
	expr, err := syntax.ParseLogSelector(s.text, true)
	if err != nil {
		panic("a selector that was parsed cannot be parsed again: " + err.Error())
	}
	m.pipeline, err = expr.Pipeline()
	if err != nil {
		panic("a pipeline that was made cannot be made again: " + err.Error())
	}
	return m
}

// Matcher decides on rows. It is not safe for concurrent use.
type Matcher struct {
	selector *Selector
	pipeline log.Pipeline
	// streams and sources are what was made for streams, and for pairs of stream and origin.
	streams map[string]*stream
	sources map[string]*columns.Metadata
	key     []byte
	scratch []columns.Label
	builder labels.ScratchBuilder
}

// stream is what a Matcher knows of one.
type stream struct {
	accepted bool
	pipeline log.StreamPipeline
}

// maxRemembered bounds what a Matcher remembers: streams without end must not become memory without end.
const maxRemembered = 4096

func (m *Matcher) forget() {
	m.streams, m.sources = map[string]*stream{}, map[string]*columns.Metadata{}
}

// Row reports whether the selector lets a row through.
func (m *Matcher) Row(stream []columns.Label, o columns.Origin, r *columns.LogRow) bool {
	m.key = appendLabels(m.key[:0], stream)
	known := m.stream(stream)
	if !known.accepted || m.selector.simple {
		return known.accepted
	}
	m.scratch = m.metadata(stream, o).Append(m.scratch[:0], r)
	m.builder.Reset()
	for _, l := range m.scratch {
		m.builder.Add(l.Name, l.Value)
	}
	m.builder.Sort()
	_, _, through := known.pipeline.ProcessString(r.Time, r.Body, m.builder.Labels())
	return through
}

// stream finds what is known of the stream whose key is m.key.
func (m *Matcher) stream(given []columns.Label) *stream {
	if known, ok := m.streams[string(m.key)]; ok {
		return known
	}
	if len(m.streams) >= maxRemembered {
		m.forget()
	}
	made := &stream{accepted: m.selector.Stream(given)}
	if made.accepted && m.pipeline != nil {
		m.builder.Reset()
		for _, l := range cloneLabels(given) {
			m.builder.Add(l.Name, l.Value)
		}
		m.builder.Sort()
		made.pipeline = m.pipeline.ForStream(m.builder.Labels())
	}
	m.streams[string(m.key)] = made
	return made
}

// metadata finds what makes the structured metadata of rows of an origin and the stream whose key is m.key.
func (m *Matcher) metadata(given []columns.Label, o columns.Origin) *columns.Metadata {
	m.key = appendOrigin(m.key, &o)
	if known, ok := m.sources[string(m.key)]; ok {
		return known
	}
	if len(m.sources) >= maxRemembered {
		m.sources = map[string]*columns.Metadata{}
	}
	made := columns.NewMetadata(cloneOrigin(&o), cloneLabels(given))
	m.sources[string(m.key)] = made
	return made
}
