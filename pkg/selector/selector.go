// SPDX-License-Identifier: AGPL-3.0-only

// Package selector decides which log rows a LogQL log selector lets through: for deletes of data, and for retention by label.
//
// It is Loki's own parser and pipeline over what LogQL sees of a row: stream labels, the body as the line, and the structured metadata of
// columns.Metadata. So a row is chosen here exactly when a query with the same selector would return it. A row that a stage fails on
// is returned by a query with __error__ set, and so it is chosen here too.
package selector

import (
	"fmt"
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

// Parse parses a log selector, with or without a pipeline. What is none is fault.Invalid, with the place.
func Parse(text string) (*Selector, error) {
	expr, err := parse(text)
	if err != nil {
		return nil, err
	}
	if _, err := expr.Pipeline(); err != nil {
		return nil, invalid(text, err)
	}
	return &Selector{text: text, matchers: expr.Matchers(), simple: simple(expr)}, nil
}

func parse(text string) (syntax.LogSelectorExpr, error) {
	expr, err := syntax.ParseLogSelector(text, true)
	if err != nil {
		return nil, invalid(text, err)
	}
	return expr, nil
}

func invalid(text string, err error) error {
	return fault.Wrap(fault.Invalid, fmt.Errorf("selector %q: %w", text, err))
}

func simple(expr syntax.LogSelectorExpr) bool {
	_, matchersOnly := expr.(*syntax.MatchersExpr)
	return matchersOnly
}

// String is the text that was parsed.
func (s *Selector) String() string { return s.text }

// Simple reports whether there is no pipeline: Stream then decides alone.
func (s *Selector) Simple() bool { return s.simple }

// Stream reports whether rows of a stream can be chosen at all.
func (s *Selector) Stream(stream []columns.Label) bool {
	return s.matches(labelsOf(stream))
}

func (s *Selector) matches(stream labels.Labels) bool {
	for _, m := range s.matchers {
		if !m.Matches(stream.Get(m.Name)) {
			return false
		}
	}
	return true
}

// NewMatcher returns what decides on rows. It keeps state for speed, so it is for one goroutine.
func (s *Selector) NewMatcher() *Matcher {
	expr, err := parse(s.text)
	if err != nil {
		panic(err) // it was parsed before
	}
	pipeline, err := expr.Pipeline()
	if err != nil {
		panic(err)
	}
	return &Matcher{selector: s, pipeline: pipeline}
}

// Matcher decides on rows. Rows of one stream and origin that come one after the other are cheapest.
type Matcher struct {
	selector *Selector
	pipeline log.Pipeline

	// Of the last row: its stream, whether that can be chosen at all, and its origin.
	stream   []columns.Label
	chosen   bool
	rows     log.StreamPipeline
	origin   columns.Origin
	metadata *columns.Metadata

	pairs   []columns.Label
	builder labels.ScratchBuilder
}

// Row reports whether a row is chosen.
func (m *Matcher) Row(stream []columns.Label, origin columns.Origin, r *columns.LogRow) bool {
	newStream := m.rows == nil || !slices.Equal(stream, m.stream)
	if newStream {
		m.setStream(stream)
	}
	if !m.chosen || m.selector.simple {
		return m.chosen
	}
	if newStream || m.metadata == nil || !sameOrigin(origin, m.origin) {
		m.origin, m.metadata = origin, columns.NewMetadata(origin, stream)
	}
	m.pairs = m.metadata.Append(m.pairs[:0], r)
	m.builder.Reset()
	for _, p := range m.pairs {
		m.builder.Add(p.Name, p.Value)
	}
	m.builder.Sort()
	_, _, ok := m.rows.ProcessString(r.Time, r.Body, m.builder.Labels())
	return ok
}

func (m *Matcher) setStream(stream []columns.Label) {
	all := labelsOf(stream)
	m.stream = slices.Clone(stream)
	m.chosen = m.selector.matches(all)
	m.rows = m.pipeline.ForStream(all)
	m.metadata = nil
}

func sameOrigin(a, b columns.Origin) bool {
	return a.ScopeName == b.ScopeName && a.ScopeVersion == b.ScopeVersion && slices.Equal(a.Resource, b.Resource) && slices.Equal(a.Scope, b.Scope)
}

func labelsOf(stream []columns.Label) labels.Labels {
	b := labels.NewScratchBuilder(len(stream))
	for _, l := range stream {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	return b.Labels()
}
