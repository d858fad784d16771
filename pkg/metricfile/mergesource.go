// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// mergeSource is an input of a merge.
type mergeSource struct {
	*MergeInput
	merge     *merger
	number    int
	catalogue *Catalogue
	reader    *Reader
	masked    map[lake.ReceiptID]struct{}

	// The head of the merge.
	ordinal int
	series  *Series
	hash    uint64
	name    string
	rank    int
	points  Points
	strict  bool // no two points are of one time
	// gone are the reasons of points which leave, by point; empty: all stay.
	gone []gone
	// sum is that of the hashes of the points read, and rows their number.
	sum  uint64
	rows int64
}

// gone is why a point leaves.
type gone struct {
	reason Reason // zero: it stays
	masked bool
	delete lake.DeleteID
}

func (g gone) stays() bool { return g.reason == 0 && !g.masked }

func openSource(m *merger, in *MergeInput, number int) (*mergeSource, error) {
	s := &mergeSource{MergeInput: in, merge: m, number: number, ordinal: -1, rank: -1}
	var err error
	if s.catalogue, err = ReadCatalogue(in.Sidecar); err != nil {
		return nil, err
	}
	if s.catalogue.Resolution > 0 {
		return nil, fault.New(fault.Internal, "rollups are not merged")
	}
	if s.reader, err = Open(in.Parquet, in.Size, s.catalogue); err != nil {
		return nil, err
	}
	if len(in.MaskedSources) > 0 {
		s.masked = make(map[lake.ReceiptID]struct{}, len(in.MaskedSources))
		for _, source := range in.MaskedSources {
			s.masked[source] = struct{}{}
		}
	}
	return s, nil
}

// memory is about what reading it holds.
func (s *mergeSource) memory() int64 { return sourceMemory + 3*int64(len(s.Sidecar)) }

// ended reports whether no row is left.
func (s *mergeSource) ended() bool { return s.ordinal == s.catalogue.Len() }

// compare orders inputs by their heads, those of one series by their numbers.
func (s *mergeSource) compare(o *mergeSource) int {
	if s.rank != o.rank {
		return cmp.Compare(s.rank, o.rank)
	}
	if s.hash != o.hash {
		return cmp.Compare(s.hash, o.hash)
	}
	return cmp.Or(s.compareSeries(o.series), cmp.Compare(s.number, o.number))
}

// compareSeries orders series of one name and hash.
func (s *mergeSource) compareSeries(o *Series) int {
	if !labels.Equal(s.series.Labels, o.Labels) {
		return labels.Compare(s.series.Labels, o.Labels)
	}
	return compareShapes(s.series, o)
}

// advance moves to the next row; behind the last it compares what was read with the catalogue.
func (s *mergeSource) advance() error {
	before, hash := s.series, s.hash
	s.ordinal++
	if s.ended() {
		if s.sum != s.catalogue.RowHash || s.rows != s.catalogue.Rows {
			return fault.New(fault.Internal, "%d points of hash %x were read, the catalogue has %d of %x", s.rows, s.sum, s.catalogue.Rows, s.catalogue.RowHash)
		}
		return nil
	}
	s.series, s.hash = s.catalogue.Series(s.ordinal), s.catalogue.Hash(s.ordinal)
	rank := s.rank
	if name := s.series.Name(); rank < 0 || name != s.name {
		known, ok := s.merge.ranks[name]
		if !ok {
			return fault.New(fault.Internal, "row %d has a name that is not in the catalogue", s.ordinal)
		}
		s.name, s.rank = name, known
	}
	rises := cmp.Or(cmp.Compare(rank, s.rank), cmp.Compare(hash, s.hash))
	if before != nil && rises == 0 {
		rises = -s.compareSeries(before)
	}
	if rises >= 0 && before != nil {
		return fault.New(fault.Internal, "row %d is out of order", s.ordinal)
	}
	return nil
}

// read reads the points of the head, and judges them. identity is the head's.
func (s *mergeSource) read(identity uint64) error {
	p := &s.points
	if err := s.reader.Points(s.ordinal, WantAll, p); err != nil {
		return fmt.Errorf("row %d: %w", s.ordinal, err)
	}
	sum, last := uint64(0), int64(math.MinInt64)
	s.strict = true
	for i, at := range p.Times {
		if at <= last {
			s.strict = false
			if at < last {
				return fault.New(fault.Internal, "points of row %d are out of order", s.ordinal)
			}
		}
		last = at
		sum += p.RowHash(identity, s.series.Kind, i)
	}
	s.sum += sum
	s.rows += int64(p.Len())
	r := &s.merge.result
	r.RowsIn += int64(p.Len())
	r.HashIn += sum
	s.judge(identity)
	return nil
}

// judge finds the points and exemplars of the head that leave, and counts them.
func (s *mergeSource) judge(identity uint64) {
	s.gone = s.gone[:0]
	p := &s.points
	if s.masked != nil {
		s.spare()
		for i := range p.Times {
			_, s.gone[i].masked = s.masked[p.stamp(i).Source]
		}
		p.Exemplars = slices.DeleteFunc(p.Exemplars, func(e Exemplar) bool {
			_, masked := s.masked[e.Source]
			return masked
		})
	}
	for i := range s.Drop {
		s.judgeBy(&s.Drop[i])
	}
	r := &s.merge.result
	for i, g := range s.gone {
		switch {
		case g.masked:
			r.Masked++
		case g.reason == ReasonDeleted:
			r.Deleted++
			s.merge.deleted[DeletedRows{Delete: g.delete, Source: p.stamp(i).Source, Input: s.number}]++
		case g.reason == ReasonExpired:
			r.Expired++
		default:
			continue
		}
		r.HashLeft += p.RowHash(identity, s.series.Kind, i)
	}
}

// spare lets all points stay, but for those that leave already.
func (s *mergeSource) spare() {
	if len(s.gone) == 0 {
		s.gone = append(s.gone, make([]gone, s.points.Len())...)
	}
}

func (s *mergeSource) judgeBy(rule *DropRule) {
	p := &s.points
	inside := func(at int64) bool { return at >= rule.Start && at < rule.End }
	if !slices.ContainsFunc(p.Times, inside) && !slices.ContainsFunc(p.Exemplars, func(e Exemplar) bool { return inside(e.Time) }) {
		return
	}
	if rule.Series != nil && !rule.Series(s.series) {
		return
	}
	s.spare()
	for i, at := range p.Times {
		if inside(at) && s.gone[i].stays() {
			s.gone[i].reason, s.gone[i].delete = rule.Reason, rule.Delete
		}
	}
	p.Exemplars = slices.DeleteFunc(p.Exemplars, func(e Exemplar) bool { return inside(e.Time) })
}
