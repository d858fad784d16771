// SPDX-License-Identifier: AGPL-3.0-only

package matrix

import (
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/kahansum"
)

// Aggregates reports whether Aggregate has an aggregation.
func Aggregates(op parser.ItemType) bool {
	switch op {
	case parser.SUM, parser.COUNT, parser.MIN, parser.MAX, parser.AVG, parser.GROUP:
		return true
	}
	return false
}

// group is a group of an aggregation.
type group struct {
	labels labels.Labels
	values []float64 // absent: no series yet
	more   []float64 // compensations of sums
	counts []float64
}

// Aggregate aggregates a vector.
func Aggregate(expr *parser.AggregateExpr, v Vector, steps int) (Vector, error) {
	if !Aggregates(expr.Op) {
		return nil, ErrUnsure
	}
	a := &aggregation{op: expr.Op, without: expr.Without, grouping: slices.Clone(expr.Grouping), steps: steps, known: map[uint64]int{}, builder: labels.NewBuilder(labels.EmptyLabels())}
	slices.Sort(a.grouping)
	if err := v.Each(a.add); err != nil {
		return nil, err
	}
	return a.end()
}

type aggregation struct {
	op       parser.ItemType
	without  bool
	grouping []string
	steps    int
	known    map[uint64]int
	groups   []group
	builder  *labels.Builder
	buffer   []byte
}

// of returns the group of a series.
func (a *aggregation) of(l labels.Labels) *group {
	var key uint64
	switch {
	case a.without:
		key, a.buffer = l.HashWithoutLabels(a.buffer, a.grouping...)
	case len(a.grouping) > 0:
		key, a.buffer = l.HashForLabels(a.buffer, a.grouping...)
	}
	at, ok := a.known[key]
	if !ok {
		at = len(a.groups)
		a.known[key], a.groups = at, append(a.groups, a.begin(l))
	}
	return &a.groups[at]
}

func (a *aggregation) begin(l labels.Labels) group {
	a.builder.Reset(l)
	switch {
	case a.without:
		a.builder.Del(a.grouping...)
		a.builder.Del(model.MetricNameLabel)
	case len(a.grouping) > 0:
		a.builder.Keep(a.grouping...)
	default:
		a.builder.Reset(labels.EmptyLabels())
	}
	g := group{labels: a.builder.Labels(), values: make([]float64, a.steps)}
	for i := range g.values {
		g.values[i] = Absent()
	}
	if a.op == parser.SUM || a.op == parser.AVG {
		g.more = make([]float64, a.steps)
	}
	if a.op == parser.AVG {
		g.counts = make([]float64, a.steps)
	}
	return g
}

func (a *aggregation) add(s Series) error {
	g := a.of(s.Labels)
	switch a.op {
	case parser.SUM, parser.AVG:
		g.sum(s)
	case parser.COUNT:
		g.each(s, func(held, _ float64) float64 { return held + 1 }, 1)
	case parser.GROUP:
		g.each(s, func(float64, float64) float64 { return 1 }, 1)
	case parser.MIN:
		g.best(s, func(v, held float64) bool { return v < held })
	case parser.MAX:
		g.best(s, func(v, held float64) bool { return v > held })
	}
	return nil
}

func (g *group) sum(s Series) {
	for i, v := range s.Values {
		switch {
		case IsAbsent(v):
			continue
		case IsAbsent(g.values[i]):
			g.values[i] = v
		default:
			g.values[i], g.more[i] = kahansum.Inc(v, g.values[i], g.more[i])
		}
		if g.counts != nil {
			g.counts[i]++
		}
	}
}

// each sets the value of steps that have one to first, or to what f makes of it.
func (g *group) each(s Series, f func(held, v float64) float64, first float64) {
	for i, v := range s.Values {
		switch {
		case IsAbsent(v):
		case IsAbsent(g.values[i]):
			g.values[i] = first
		default:
			g.values[i] = f(g.values[i], v)
		}
	}
}

func (g *group) best(s Series, better func(v, held float64) bool) {
	for i, v := range s.Values {
		if !IsAbsent(v) && (IsAbsent(g.values[i]) || better(v, g.values[i]) || math.IsNaN(g.values[i])) {
			g.values[i] = v
		}
	}
}

// end finishes the groups. What a mean cannot hold as a sum is the engine's.
func (a *aggregation) end() (Vector, error) {
	var out List
	for i := range a.groups {
		g := &a.groups[i]
		present, full := false, true
		for j, v := range g.values {
			if IsAbsent(v) {
				full = false
				continue
			}
			present = true
			if g.more != nil && !math.IsInf(v, 0) {
				v += g.more[j]
			}
			if g.counts != nil {
				if math.IsInf(v, 0) || math.IsNaN(v) {
					return nil, ErrUnsure
				}
				v /= g.counts[j]
			}
			g.values[j] = v
		}
		if present {
			out = append(out, Series{Labels: g.labels, Values: g.values, Full: full})
		}
	}
	return out, nil
}
