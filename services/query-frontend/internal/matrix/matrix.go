// SPDX-License-Identifier: AGPL-3.0-only

package matrix

import (
	"errors"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
)

// ErrUnsure says that the engine has to evaluate it.
var ErrUnsure = errors.New("the engine has to evaluate this")

// Series is a series with a value at each step. Absent has the bits of a stale marker.
type Series struct {
	Labels labels.Labels
	Values []float64
	// Full says that no value is absent.
	Full bool
}

// Absent is the value of a step that has none.
func Absent() float64 { return math.Float64frombits(value.StaleNaN) }

// IsAbsent reports whether a step has no value.
func IsAbsent(v float64) bool { return math.Float64bits(v) == value.StaleNaN }

// Vector is one side of an operation. It gives its series one by one; values are good until the next one.
type Vector interface {
	// Each calls a function with each series, which have different labels.
	Each(func(Series) error) error
}

// List is a Vector of series that are there.
type List []Series

// Each implements Vector.
func (l List) Each(take func(Series) error) error {
	for _, s := range l {
		if err := take(s); err != nil {
			return err
		}
	}
	return nil
}

// Collect returns all series of a vector, which may be kept.
func Collect(v Vector) (List, error) {
	if list, ok := v.(List); ok {
		return list, nil
	}
	var out List
	err := v.Each(func(s Series) error {
		s.Values = slices.Clone(s.Values)
		out = append(out, s)
		return nil
	})
	return out, err
}

// distinct refuses series of equal labels: at some step they may be there both, or not.
func distinct(all []labels.Labels) error {
	seen := make(map[uint64]struct{}, len(all))
	for _, l := range all {
		hash := l.Hash()
		if _, twice := seen[hash]; twice {
			return ErrUnsure
		}
		seen[hash] = struct{}{}
	}
	return nil
}

// dropsName reports whether an operation makes something else of a metric.
func dropsName(op parser.ItemType) bool {
	switch op {
	case parser.ADD, parser.SUB, parser.DIV, parser.MUL, parser.POW, parser.MOD, parser.ATAN2:
		return true
	}
	return false
}

func nameless(l labels.Labels) labels.Labels { return l.DropReserved(schema.IsMetadataLabel) }

// operation returns the value of an operation and whether it is kept, as of two floats; false: there is no such operation.
func operation(op parser.ItemType) (func(a, b float64) (float64, bool), bool) {
	kept := func(f func(a, b float64) float64) (func(a, b float64) (float64, bool), bool) {
		return func(a, b float64) (float64, bool) { return f(a, b), true }, true
	}
	compared := func(f func(a, b float64) bool) (func(a, b float64) (float64, bool), bool) {
		return func(a, b float64) (float64, bool) { return a, f(a, b) }, true
	}
	switch op {
	case parser.ADD:
		return kept(func(a, b float64) float64 { return a + b })
	case parser.SUB:
		return kept(func(a, b float64) float64 { return a - b })
	case parser.MUL:
		return kept(func(a, b float64) float64 { return a * b })
	case parser.DIV:
		return kept(func(a, b float64) float64 { return a / b })
	case parser.POW:
		return kept(math.Pow)
	case parser.MOD:
		return kept(math.Mod)
	case parser.ATAN2:
		return kept(math.Atan2)
	case parser.EQLC:
		return compared(func(a, b float64) bool { return a == b })
	case parser.NEQ:
		return compared(func(a, b float64) bool { return a != b })
	case parser.GTR:
		return compared(func(a, b float64) bool { return a > b })
	case parser.LSS:
		return compared(func(a, b float64) bool { return a < b })
	case parser.GTE:
		return compared(func(a, b float64) bool { return a >= b })
	case parser.LTE:
		return compared(func(a, b float64) bool { return a <= b })
	}
	return nil, false
}

// Supports reports whether Binary has an operation.
func Supports(op parser.ItemType) bool {
	_, ok := operation(op)
	return ok
}

// apply puts the values of an operation into out, and reports whether none is absent.
func apply(op parser.ItemType, returnBool bool, out, left, right []float64, full bool) bool {
	if full && !returnBool {
		switch op {
		case parser.MUL:
			for i, v := range left {
				out[i] = v * right[i]
			}
			return true
		case parser.DIV:
			for i, v := range left {
				out[i] = v / right[i]
			}
			return true
		case parser.ADD:
			for i, v := range left {
				out[i] = v + right[i]
			}
			return true
		case parser.SUB:
			for i, v := range left {
				out[i] = v - right[i]
			}
			return true
		}
	}
	f, _ := operation(op)
	full = true
	for i, v := range left {
		if IsAbsent(v) || IsAbsent(right[i]) {
			out[i], full = Absent(), false
			continue
		}
		answer, keep := f(v, right[i])
		switch {
		case returnBool && keep:
			answer = 1
		case returnBool:
			answer = 0
		case !keep:
			answer, full = Absent(), false
		}
		out[i] = answer
	}
	return full
}
