// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Select returns the ordinals, rising, of rows of the shard that stand for at least one Prometheus series that all matchers match: x_bucket, x_sum,
// x_count and matchers of le and quantile choose rows of classic histograms and summaries x. SelectTracks then tells which of its series.
func (c *Catalogue) Select(matchers []*labels.Matcher, shard lake.Shard) []int {
	var ordinals []int
	s := newSelector(c, matchers)
	if s.never() {
		return nil
	}
	for number := range c.blocks {
		e := &c.blocks[number]
		if !s.mayBe(e.name) {
			continue
		}
		b := c.block(number)
		for row := range b.hash {
			if shard.Holds(uint64(b.hash[row])) && s.holds(e.name, b, row) {
				ordinals = append(ordinals, e.first+row)
			}
		}
	}
	return ordinals
}

// selector evaluates matchers, once for each distinct value of a label.
type selector struct {
	catalogue *Catalogue
	names     []*labels.Matcher
	le        []*labels.Matcher
	quantile  []*labels.Matcher
	others    []labelMatcher
	tracks    []trackNames // by metric name
	bounds    map[boundsKey]bool
}

// trackNames says which names of Prometheus series that could stem from a metric name match.
type trackNames struct{ known, plain, bucket, sum, count bool }

type boundsKey struct {
	bounds int64
	kind   Kind
}

// labelMatcher is a matcher with its answer for each value of its label.
type labelMatcher struct {
	*labels.Matcher
	absent  bool // answer for rows that have not the label
	values  *table
	answers []uint8
	places  []int // of shapes: where the label is among theirs; -1: nowhere
}

const (
	answerUnknown = iota
	answerNo
	answerYes
)

func newSelector(c *Catalogue, matchers []*labels.Matcher) *selector {
	s := &selector{catalogue: c, tracks: make([]trackNames, c.names.len()), bounds: map[boundsKey]bool{}}
	for _, m := range matchers {
		switch m.Name {
		case model.MetricNameLabel:
			s.names = append(s.names, m)
			continue
		case BucketLabel:
			s.le = append(s.le, m)
		case QuantileLabel:
			s.quantile = append(s.quantile, m)
		}
		s.others = append(s.others, c.labelMatcher(m))
	}
	return s
}

func (c *Catalogue) labelMatcher(m *labels.Matcher) labelMatcher {
	l := labelMatcher{Matcher: m, absent: m.Matches("")}
	number := slices.IndexFunc(c.labels, func(l labelTable) bool { return l.name == m.Name })
	if number < 0 {
		return l
	}
	l.values = &c.labels[number].values
	l.answers = make([]uint8, l.values.len())
	l.places = make([]int, len(c.shapes))
	for i, shape := range c.shapes {
		l.places[i] = slices.Index(shape, uint32(number))
	}
	return l
}

// never reports whether a label that rows must have has no value that matches: then no row has to be looked at.
func (s *selector) never() bool {
	for i := range s.others {
		m := &s.others[i]
		if m.absent || m.Name == BucketLabel || m.Name == QuantileLabel { // which tracks have, too
			continue
		}
		found := false
		for v := 0; m.values != nil && v < m.values.len() && !found; v++ {
			found = m.answer(v)
		}
		if !found {
			return true
		}
	}
	return false
}

func matchAll(matchers []*labels.Matcher, value string) bool {
	for _, m := range matchers {
		if !m.Matches(value) {
			return false
		}
	}
	return true
}

func (s *selector) namesOf(name uint32) trackNames {
	t := &s.tracks[name]
	if !t.known {
		n := s.catalogue.names.at(int(name))
		*t = trackNames{
			known: true, plain: matchAll(s.names, n), bucket: matchAll(s.names, n+BucketSuffix), sum: matchAll(s.names, n+SumSuffix), count: matchAll(s.names, n+CountSuffix),
		}
	}
	return *t
}

// mayBe reports whether any row of the name could be chosen.
func (s *selector) mayBe(name uint32) bool {
	t := s.namesOf(name)
	return t.plain || t.bucket || t.sum || t.count
}

// holds reports whether the row stands for a series that is asked for.
func (s *selector) holds(name uint32, b *block, row int) bool {
	t := s.namesOf(name)
	kind := Kind(b.flags[row] & flagKind)
	if kind != KindClassic && kind != KindSummary {
		return t.plain && s.labels(b, row, "")
	}
	apart := BucketLabel
	parts := t.bucket
	matchers := s.le
	if kind == KindSummary {
		apart, parts, matchers = QuantileLabel, t.plain, s.quantile
	}
	totals := t.count || t.sum && b.flags[row]&flagNoSum == 0
	if !parts && !totals || !s.labels(b, row, apart) {
		return false
	}
	return totals && matchAll(matchers, "") || parts && s.anyBound(kind, b.bounds[row], matchers)
}

// anyBound reports whether a bucket or quantile of a row has a label that matches.
func (s *selector) anyBound(kind Kind, bounds int64, matchers []*labels.Matcher) bool {
	if len(matchers) == 0 {
		return kind == KindClassic || len(s.catalogue.bounds[bounds]) > 0
	}
	key := boundsKey{bounds: bounds, kind: kind}
	answer, ok := s.bounds[key]
	if !ok {
		answer = kind == KindClassic && matchAll(matchers, "+Inf")
		for _, bound := range s.catalogue.bounds[bounds] {
			answer = answer || matchAll(matchers, FormatBound(bound))
		}
		s.bounds[key] = answer
	}
	return answer
}

// labels reports whether the labels of a row match, but for the one that its tracks are told apart by.
func (s *selector) labels(b *block, row int, apart string) bool {
	for i := range s.others {
		if m := &s.others[i]; m.Name != apart && !m.holds(b, row) {
			return false
		}
	}
	return true
}

func (m *labelMatcher) holds(b *block, row int) bool {
	if m.values == nil {
		return m.absent
	}
	place := m.places[b.shapes[row]]
	if place < 0 {
		return m.absent
	}
	return m.answer(int(b.values[int(b.valuesAt[row])+place]))
}

// answer is whether a value of the label matches.
func (m *labelMatcher) answer(v int) bool {
	if m.answers[v] == answerUnknown {
		m.answers[v] = answerNo
		if m.Matches(m.values.at(v)) {
			m.answers[v] = answerYes
		}
	}
	return m.answers[v] == answerYes
}

// SelectTracks appends to dst the tracks of a series whose labels all matchers match.
func SelectTracks(s *Series, matchers []*labels.Matcher, dst []int) []int {
	for track, ls := range s.Tracks() {
		matches := true
		for _, m := range matchers {
			matches = matches && m.Matches(ls.Get(m.Name))
		}
		if matches {
			dst = append(dst, track)
		}
	}
	return dst
}
