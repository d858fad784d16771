// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"math"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

// sketcher makes sketches, as bytes, merges them, and answers quantiles. The mapping from values to bins is left out of the bytes: it follows from SketchBound.
type sketcher struct{ sketch *ddsketch.DDSketch }

// open empties the sketch that is worked with.
func (s *sketcher) open() *ddsketch.DDSketch {
	if s.sketch == nil {
		bins, err := mapping.NewLogarithmicMapping(SketchBound)
		if err != nil {
			panic(err) // the bound is a constant between 0 and 1
		}
		s.sketch = ddsketch.NewDDSketch(bins, store.NewDenseStore(), store.NewDenseStore())
	}
	s.sketch.Clear()
	return s.sketch
}

// of sketches values. It returns nothing for no values, or where one is no number that a sketch can hold: NaN, infinite.
func (s *sketcher) of(values []float64) []byte {
	if len(values) == 0 {
		return nil
	}
	sketch := s.open()
	for _, v := range values {
		if err := sketch.Add(v); err != nil {
			return nil
		}
	}
	return s.bytes()
}

func (s *sketcher) bytes() []byte {
	var b []byte
	s.sketch.Encode(&b, true)
	return b
}

// add adds a sketch to the one that is open, and reports whether that was possible. Dense bins are made only of what can be values of a float.
func (s *sketcher) add(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	read, err := ddsketch.DecodeDDSketch(b, store.SparseStoreConstructor, s.sketch.IndexMapping)
	return err == nil && s.fits(read.GetPositiveValueStore()) && s.fits(read.GetNegativeValueStore()) && s.sketch.MergeWith(read) == nil
}

func (s *sketcher) fits(bins store.Store) bool {
	if bins.IsEmpty() {
		return true
	}
	least, err := bins.MinIndex()
	if err != nil {
		return false
	}
	most, err := bins.MaxIndex()
	return err == nil && least >= s.sketch.Index(s.sketch.MinIndexableValue()) && most <= s.sketch.Index(s.sketch.MaxIndexableValue())
}

// merged merges two sketches; nothing, where one is missing or damaged.
func (s *sketcher) merged(a, b []byte) []byte {
	s.open()
	if !s.add(a) || !s.add(b) {
		return nil
	}
	return s.bytes()
}

// quantile answers as quantile_over_time does, of the values of the open sketch: between the two values next to the rank it is weighted.
func (s *sketcher) quantile(q float64) float64 {
	switch {
	case math.IsNaN(q):
		return math.NaN()
	case q < 0:
		return math.Inf(-1)
	case q > 1:
		return math.Inf(1)
	}
	n := s.sketch.GetCount()
	rank := q * (n - 1)
	lower := math.Max(0, math.Floor(rank))
	weight := rank - math.Floor(rank)
	return s.at(lower)*(1-weight) + s.at(math.Min(n-1, lower+1))*weight
}

// at is the value of a rank, from zero.
func (s *sketcher) at(rank float64) float64 {
	negative := s.sketch.GetNegativeValueStore()
	if below := negative.TotalCount(); rank < below {
		return -s.sketch.Value(negative.KeyAtRank(below - 1 - rank))
	}
	rank -= negative.TotalCount()
	if rank < s.sketch.GetZeroCount() {
		return 0
	}
	return s.sketch.Value(s.sketch.GetPositiveValueStore().KeyAtRank(rank - s.sketch.GetZeroCount()))
}
