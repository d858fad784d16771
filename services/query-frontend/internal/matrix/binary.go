// SPDX-License-Identifier: AGPL-3.0-only

package matrix

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
)

// binary is an operation of two vectors.
type binary struct {
	expr  *parser.BinaryExpr
	steps int
	many  List // left, but for group_right
	one   List
	pairs []pair
}

// pair is a series of the many side and what matches it on the other.
type pair struct {
	labels    labels.Labels
	many, one int
}

// Binary matches two vectors. Fill modifiers and set operators are the engine's.
func Binary(expr *parser.BinaryExpr, left, right Vector, steps int) (Vector, error) {
	m := expr.VectorMatching
	if !Supports(expr.Op) || m == nil || m.Card == parser.CardManyToMany || m.FillValues.LHS != nil || m.FillValues.RHS != nil {
		return nil, ErrUnsure
	}
	many, err := Collect(left)
	if err != nil {
		return nil, err
	}
	one, err := Collect(right)
	if err != nil {
		return nil, err
	}
	if m.Card == parser.CardOneToMany {
		many, one = one, many
	}
	b := &binary{expr: expr, steps: steps, many: many, one: one}
	return b, b.match()
}

// match finds the pairs. Where several series of a side that must be unique match alike, they must not be there at the same step.
func (b *binary) match() error {
	m := b.expr.VectorMatching
	sides := map[string][]int{}
	signature := signatures(m)
	for i := range b.one {
		key := signature(b.one[i].Labels)
		sides[string(key)] = append(sides[string(key)], i)
	}
	for _, same := range sides {
		if err := disjoint(b.one, same); err != nil {
			return err
		}
	}
	seen := map[string][]int{}
	for i := range b.many {
		key := signature(b.many[i].Labels)
		same, ok := sides[string(key)]
		if !ok {
			continue
		}
		if m.Card == parser.CardOneToOne {
			seen[string(key)] = append(seen[string(key)], i)
		}
		for _, j := range same {
			b.pairs = append(b.pairs, pair{many: i, one: j})
		}
	}
	for _, same := range seen {
		if err := disjoint(b.many, same); err != nil {
			return err
		}
	}
	return b.name()
}

// disjoint refuses series that are there at the same step.
func disjoint(all List, same []int) error {
	for n, i := range same {
		for _, j := range same[:n] {
			for step, v := range all[i].Values {
				if !IsAbsent(v) && !IsAbsent(all[j].Values[step]) {
					return ErrUnsure
				}
			}
		}
	}
	return nil
}

// name finds the labels of the pairs, all of which must be different.
func (b *binary) name() error {
	names := make([]labels.Labels, len(b.pairs))
	builder := labels.NewBuilder(labels.EmptyLabels())
	for i := range b.pairs {
		p := &b.pairs[i]
		p.labels = b.labelsOf(builder, b.many[p.many].Labels, b.one[p.one].Labels)
		names[i] = p.labels
	}
	return distinct(names)
}

func (b *binary) labelsOf(builder *labels.Builder, many, one labels.Labels) labels.Labels {
	m := b.expr.VectorMatching
	builder.Reset(many)
	if b.expr.ReturnBool || dropsName(b.expr.Op) {
		schema.Metadata{}.SetToLabels(builder)
	}
	if m.Card == parser.CardOneToOne {
		if m.On {
			builder.Keep(m.MatchingLabels...)
		} else {
			builder.Del(m.MatchingLabels...)
		}
	}
	for _, name := range m.Include {
		if v := one.Get(name); v != "" {
			builder.Set(name, v)
		} else {
			builder.Del(name)
		}
	}
	return builder.Labels()
}

// signatures returns what tells which series match. What it returns is good until the next call.
func signatures(m *parser.VectorMatching) func(labels.Labels) []byte {
	names := slices.Clone(m.MatchingLabels)
	buffer := make([]byte, 0, 1024)
	if m.On {
		slices.Sort(names)
		return func(l labels.Labels) []byte { return l.BytesWithLabels(buffer, names...) }
	}
	names = append(names, model.MetricNameLabel)
	slices.Sort(names)
	return func(l labels.Labels) []byte { return l.BytesWithoutLabels(buffer, names...) }
}

// Each implements Vector.
func (b *binary) Each(take func(Series) error) error {
	out := make([]float64, b.steps)
	for _, p := range b.pairs {
		left, right := &b.many[p.many], &b.one[p.one]
		if b.expr.VectorMatching.Card == parser.CardOneToMany {
			left, right = right, left
		}
		full := apply(b.expr.Op, b.expr.ReturnBool, out, left.Values, right.Values, left.Full && right.Full)
		if err := take(Series{Labels: p.labels, Values: out, Full: full}); err != nil {
			return err
		}
	}
	return nil
}

// scaled is an operation of a vector and a number.
type scaled struct {
	expr     *parser.BinaryExpr
	of       Vector
	number   []float64
	swapped  bool
	nameless bool
}

// Scalar is an operation of a vector and a number, which stands on the left if swapped.
func Scalar(expr *parser.BinaryExpr, v Vector, number float64, swapped bool, steps int) (Vector, error) {
	if !Supports(expr.Op) {
		return nil, ErrUnsure
	}
	s := &scaled{expr: expr, of: v, number: make([]float64, steps), swapped: swapped, nameless: dropsName(expr.Op) || expr.ReturnBool}
	for i := range s.number {
		s.number[i] = number
	}
	if !s.nameless {
		return s, nil
	}
	list, err := Collect(v)
	if err != nil {
		return nil, err
	}
	s.of = list
	return s, withoutNames(list)
}

// withoutNames takes names away, after which no two series may be the same.
func withoutNames(list List) error {
	names := make([]labels.Labels, len(list))
	for i := range list {
		list[i].Labels = nameless(list[i].Labels)
		names[i] = list[i].Labels
	}
	return distinct(names)
}

// Each implements Vector.
func (s *scaled) Each(take func(Series) error) error {
	out := make([]float64, len(s.number))
	return s.of.Each(func(one Series) error {
		left, right := one.Values, s.number
		if s.swapped {
			left, right = right, left
		}
		one.Full = apply(s.expr.Op, s.expr.ReturnBool, out, left, right, one.Full)
		if s.swapped && s.expr.Op.IsComparisonOperator() && !s.expr.ReturnBool {
			// It is the vector's value that is kept.
			for i, v := range out {
				if !IsAbsent(v) {
					out[i] = one.Values[i]
				}
			}
		}
		one.Values = out
		return take(one)
	})
}

// Negate is a vector with its sign turned.
func Negate(v Vector) (Vector, error) {
	list, err := Collect(v)
	if err != nil {
		return nil, err
	}
	out := make(List, len(list))
	for i, one := range list {
		out[i] = Series{Labels: one.Labels, Full: one.Full, Values: make([]float64, len(one.Values))}
		for j, x := range one.Values {
			if out[i].Values[j] = x; !IsAbsent(x) {
				out[i].Values[j] = -x
			}
		}
	}
	return out, withoutNames(out)
}
