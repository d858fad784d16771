// SPDX-License-Identifier: AGPL-3.0-only

package vector

import (
	"errors"
	"math"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/kahansum"
)

// ErrUnsure says that the engine has to evaluate the expression: a sum overflowed, of which the average may be finite all the same.
var ErrUnsure = errors.New("the engine has to evaluate this")

// Groups add up values of series into their groups. They are for one goroutine; those of several are merged.
type Groups struct {
	aggregation *Aggregation
	steps       int
	ids         map[string]int32
	key         []byte
	labels      []labels.Labels // of each group
	// Of group g and step i at g*steps+i: how many values there were, their sum, least or most, and what the sum is to be corrected by.
	counts []int32
	values []float64
	errors []float64
}

// NewGroups returns empty groups.
func NewGroups(a *Aggregation, steps int) *Groups {
	return &Groups{aggregation: a, steps: steps, ids: map[string]int32{}}
}

// Bytes is about how much memory a group takes.
func (g *Groups) Bytes() int {
	bytes := 4
	if g.hasValues() {
		bytes += 8
	}
	if g.sums() {
		bytes += 8
	}
	return bytes*g.steps + 256
}

// Len is the number of groups.
func (g *Groups) Len() int { return len(g.labels) }

func (g *Groups) sums() bool {
	return g.aggregation.Operation == OfSum || g.aggregation.Operation == OfAverage
}

func (g *Groups) hasValues() bool {
	return g.aggregation.Operation != OfCount && g.aggregation.Operation != OfGroup
}

// Varies reports whether the series of a histogram or summary may be in different groups: by their names, or by the label that tells them apart.
func (a *Aggregation) Varies(label string) bool {
	if a.Without {
		return !slices.Contains(a.Labels, label)
	}
	return slices.Contains(a.Labels, label) || slices.Contains(a.Labels, model.MetricNameLabel)
}

// Of returns the number of the group of a series.
func (g *Groups) Of(l labels.Labels) int32 {
	if g.aggregation.Without {
		g.key = l.BytesWithoutLabels(g.key, g.aggregation.Labels...)
	} else {
		g.key = l.BytesWithLabels(g.key, g.aggregation.Labels...)
	}
	if id, ok := g.ids[string(g.key)]; ok {
		return id
	}
	return g.add(string(g.key), g.labelsOf(l))
}

func (g *Groups) labelsOf(l labels.Labels) labels.Labels {
	b := labels.NewBuilder(l)
	if g.aggregation.Without {
		return b.Del(g.aggregation.Labels...).Labels()
	}
	return b.Keep(g.aggregation.Labels...).Labels()
}

func (g *Groups) add(key string, l labels.Labels) int32 {
	id := int32(len(g.labels))
	g.ids[key] = id
	g.labels = append(g.labels, l)
	g.counts = append(g.counts, make([]int32, g.steps)...)
	if g.hasValues() {
		g.values = append(g.values, make([]float64, g.steps)...)
	}
	if g.sums() {
		g.errors = append(g.errors, make([]float64, g.steps)...)
	}
	return id
}

// Add adds values of a series, one for each of some steps. Stale markers are none.
func (g *Groups) Add(id int32, steps []int32, values []float64) {
	from, to := int(id)*g.steps, (int(id)+1)*g.steps
	counts := g.counts[from:to]
	switch g.aggregation.Operation {
	case OfSum, OfAverage:
		addSums(steps, values, counts, g.values[from:to], g.errors[from:to])
	case OfMin:
		addExtremes(steps, values, counts, g.values[from:to], func(v, m float64) bool { return m > v })
	case OfMax:
		addExtremes(steps, values, counts, g.values[from:to], func(v, m float64) bool { return m < v })
	default:
		for i, step := range steps {
			if !Stale(values[i]) {
				counts[step]++
			}
		}
	}
}

func addSums(steps []int32, values []float64, counts []int32, sums, errors []float64) {
	for i, step := range steps {
		v := values[i]
		if v != v && Stale(v) {
			continue
		}
		counts[step]++
		// kahansum.Inc, written out since it is not inlined. What is not finite is its own.
		s := sums[step]
		t := s + v
		if math.Abs(t) > math.MaxFloat64 || t != t {
			sums[step], errors[step] = kahansum.Inc(v, s, errors[step])
			continue
		}
		if math.Abs(s) >= math.Abs(v) {
			errors[step] += (s - t) + v
		} else {
			errors[step] += (v - t) + s
		}
		sums[step] = t
	}
}

func addExtremes(steps []int32, values []float64, counts []int32, extremes []float64, better func(v, m float64) bool) {
	for i, step := range steps {
		v := values[i]
		if Stale(v) {
			continue
		}
		if m := extremes[step]; counts[step] == 0 || better(v, m) || m != m {
			extremes[step] = v
		}
		counts[step]++
	}
}

// Merge adds the groups of another, of the same question.
func (g *Groups) Merge(o *Groups) {
	for key, from := range o.ids {
		to, ok := g.ids[key]
		if !ok {
			to = g.add(key, o.labels[from])
		}
		for step := range g.steps {
			g.mergeStep(int(to)*g.steps+step, o, int(from)*g.steps+step)
		}
	}
}

func (g *Groups) mergeStep(to int, o *Groups, from int) {
	if o.counts[from] == 0 {
		return
	}
	none := g.counts[to] == 0
	g.counts[to] += o.counts[from]
	switch g.aggregation.Operation {
	case OfSum, OfAverage:
		g.values[to], g.errors[to] = kahansum.Inc(o.values[from], g.values[to], g.errors[to])
		if !math.IsInf(g.values[to], 0) {
			g.errors[to] += o.errors[from]
		}
	case OfMin, OfMax:
		v, m := o.values[from], g.values[to]
		if none || m != m || g.aggregation.Operation == OfMin && m > v || g.aggregation.Operation == OfMax && m < v {
			g.values[to] = v
		}
	}
}

// Each calls a function with each group that has values: the steps that have some, and these. It must keep neither.
func (g *Groups) Each(each func(l labels.Labels, steps []int32, values []float64) error) error {
	var steps []int32
	var values []float64
	for id, l := range g.labels {
		steps, values = steps[:0], values[:0]
		for step := range g.steps {
			at := id*g.steps + step
			if g.counts[at] == 0 {
				continue
			}
			v, err := g.value(at)
			if err != nil {
				return err
			}
			steps, values = append(steps, int32(step)), append(values, v)
		}
		if len(steps) == 0 {
			continue
		}
		if err := each(l, steps, values); err != nil {
			return err
		}
	}
	return nil
}

func (g *Groups) value(at int) (float64, error) {
	switch g.aggregation.Operation {
	case OfSum:
		return g.values[at] + g.errors[at], nil
	case OfAverage:
		if math.IsInf(g.values[at], 0) {
			return 0, ErrUnsure
		}
		n := float64(g.counts[at])
		return g.values[at]/n + g.errors[at]/n, nil
	case OfCount:
		return float64(g.counts[at]), nil
	case OfGroup:
		return 1, nil
	}
	return g.values[at], nil
}
