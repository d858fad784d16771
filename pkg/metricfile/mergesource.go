// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/common/model"
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
	ids       sourceIDs

	// The head of the merge, and where it is in the catalogue.
	head
	ordinal int
	block   *block
	blockAt int
	row     int // of the block

	// points are those of the head that was read last.
	points Points
	strict bool // no two of them are of one time
	// gone are the reasons of points which leave, by point; empty: all stay.
	gone []gone
	// sum is that of the hashes of the points read, and rows their number.
	sum  uint64
	rows int64
}

// head is a series in numbers that all inputs have in common.
type head struct {
	rank   int // of the metric name
	hash   uint64
	shape  uint32   // label names
	values []uint32 // of labels
	flags  int64
	bounds []float64
}

// sameLabels reports whether heads have the same labels.
func (h *head) sameLabels(o *head) bool {
	return h.hash == o.hash && h.rank == o.rank && h.shape == o.shape && slices.Equal(h.values, o.values)
}

// same reports whether heads are the same series.
func (h *head) same(o *head) bool {
	return h.flags == o.flags && h.sameLabels(o) && compareBounds(h.bounds, o.bounds) == 0
}

// set copies a head.
func (h *head) set(o *head) {
	values := append(h.values[:0], o.values...)
	*h = *o
	h.values = values
}

// shell is the series without its labels.
func (h *head) shell() Series {
	return Series{Kind: Kind(h.flags & flagKind), Delta: h.flags&flagDelta != 0, NoSum: h.flags&flagNoSum != 0, Bounds: h.bounds}
}

// sourceIDs are what an input's numbers of strings are in the merge.
type sourceIDs struct {
	ranks  []int      // by number of the metric name
	shapes []uint32   // by number of the shape
	values [][]uint32 // by label and value, and one more; 0: not known yet
}

// gone is why a point leaves.
type gone struct {
	reason Reason // zero: it stays
	masked bool
	delete lake.DeleteID
}

func (g gone) stays() bool { return g.reason == 0 && !g.masked }

func openSource(m *merger, in *MergeInput, number int) (*mergeSource, error) {
	s := &mergeSource{MergeInput: in, merge: m, number: number}
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
func (s *mergeSource) memory() int64 {
	values := 0
	for i := range s.catalogue.labels {
		values += s.catalogue.labels[i].values.len()
	}
	return min(sourceMost, sourceLeast+2*s.Size) + s.catalogue.Bytes() + 4*int64(values)
}

const (
	// sourceLeast and sourceMost are about what an input takes beside its catalogue: a block of that, what was read ahead of each column, vectors of a row
	// group, the points of a row.
	sourceLeast = 512 << 10
	sourceMost  = 4 << 20
)

// numberStrings finds the merge's numbers of names and shapes. ranks are those of metric names.
func (s *mergeSource) numberStrings(ranks map[string]int) {
	c, m := s.catalogue, s.merge
	for i := range c.names.len() {
		s.ids.ranks = append(s.ids.ranks, ranks[c.names.at(i)])
	}
	labels := make([]uint32, len(c.labels))
	s.ids.values = make([][]uint32, len(c.labels))
	for i := range c.labels {
		labels[i] = m.number(c.labels[i].name)
		if c.labels[i].name != model.MetricNameLabel {
			s.ids.values[i] = make([]uint32, c.labels[i].values.len())
		}
	}
	for _, shape := range c.shapes {
		var key []byte
		for _, label := range shape {
			key = binary.AppendUvarint(key, uint64(labels[label]))
		}
		s.ids.shapes = append(s.ids.shapes, m.number("\xff"+string(key))) // no label has such a name
	}
}

// ended reports whether no row is left.
func (s *mergeSource) ended() bool { return s.ordinal == s.catalogue.Len() }

// compare orders inputs by their heads.
func (s *mergeSource) compare(o *mergeSource) int {
	if c := cmp.Compare(s.rank, o.rank); c != 0 {
		return c
	}
	if c := cmp.Compare(s.hash, o.hash); c != 0 {
		return c
	}
	if s.same(&o.head) {
		return 0
	}
	if !s.sameLabels(&o.head) { // two series of one hash
		a, b := s.series(), o.series()
		return labels.Compare(a.Labels, b.Labels)
	}
	a, b := s.shell(), o.shell()
	return compareShapes(&a, &b)
}

// series makes the series of the head.
func (s *mergeSource) series() Series { return *s.catalogue.Series(s.ordinal) }

// family is that of the head.
func (s *mergeSource) family() Family { return s.catalogue.families[s.block.family[s.row]] }

// rewind moves before the first row.
func (s *mergeSource) rewind() { s.ordinal, s.block, s.blockAt, s.row = -1, nil, -1, -1 }

// check compares what was read with the catalogue.
func (s *mergeSource) check() error {
	if c := s.catalogue; s.sum != c.RowHash || s.rows != c.Rows {
		return fault.New(fault.Internal, "%d points of hash %x were read, the catalogue has %d of %x", s.rows, s.sum, c.Rows, c.RowHash)
	}
	return nil
}

// advance moves to the next row of the pass's shards.
func (s *mergeSource) advance() error {
	before, rank, hash := s.ordinal, s.rank, s.hash
	if !s.next() {
		return nil
	}
	s.load()
	if before >= 0 && (s.rank < rank || s.rank == rank && s.hash <= hash) {
		return s.checkOrder(before)
	}
	return nil
}

// next finds the next row of the pass's shards, if there is one.
func (s *mergeSource) next() bool {
	for {
		if s.ordinal++; s.ended() {
			return false
		}
		if s.row++; s.block == nil || s.row == s.block.len() {
			s.nextBlock()
		}
		if s.merge.chosen[s.merge.shardOf(uint64(s.block.hash[s.row]))] {
			return true
		}
	}
}

// nextBlock decodes the next rows of the catalogue, which nobody else reads: those before are not needed any more.
func (s *mergeSource) nextBlock() {
	if s.block != nil {
		s.catalogue.recent[s.blockAt%recentBlocks].Store(nil)
	}
	s.blockAt++
	s.block, s.row = s.catalogue.block(s.blockAt), 0
}

// load finds the head's numbers.
func (s *mergeSource) load() {
	c, b, row := s.catalogue, s.block, s.row
	shape := b.shapes[row]
	s.rank, s.hash, s.shape = s.ids.ranks[c.blocks[s.blockAt].name], uint64(b.hash[row]), s.ids.shapes[shape]
	s.flags, s.bounds = b.flags[row], c.bounds[b.bounds[row]]
	s.values = s.values[:0]
	for k, v := range b.labels(row) {
		label := c.shapes[shape][k]
		known := s.ids.values[label]
		if known == nil {
			continue // the metric name, which the rank stands for
		}
		if known[v] == 0 {
			known[v] = s.merge.number(c.labels[label].values.at(int(v)))
		}
		s.values = append(s.values, known[v])
	}
}

// checkOrder is an error unless the head comes behind a row before it.
func (s *mergeSource) checkOrder(before int) error {
	if this := s.series(); Compare(s.catalogue.Series(before), &this) >= 0 {
		return fault.New(fault.Internal, "row %d is out of order", s.ordinal)
	}
	return nil
}

// read reads the points of the head, and judges them. identity is that of its series.
func (s *mergeSource) read(series *Series, identity uint64) error {
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
		sum += p.RowHash(identity, series.Kind, i)
	}
	s.sum += sum
	s.rows += int64(p.Len())
	r := &s.merge.result
	r.RowsIn += int64(p.Len())
	r.HashIn += sum
	s.judge(series, identity)
	return nil
}

// judge finds the points and exemplars of the head that leave, and counts them.
func (s *mergeSource) judge(series *Series, identity uint64) {
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
		s.judgeBy(&s.Drop[i], series)
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
		r.HashLeft += p.RowHash(identity, series.Kind, i)
	}
}

// spare lets all points stay, but for those that leave already.
func (s *mergeSource) spare() {
	if len(s.gone) == 0 {
		s.gone = append(s.gone, make([]gone, s.points.Len())...)
	}
}

func (s *mergeSource) judgeBy(rule *DropRule, series *Series) {
	p := &s.points
	inside := func(at int64) bool { return at >= rule.Start && at < rule.End }
	if !slices.ContainsFunc(p.Times, inside) && !slices.ContainsFunc(p.Exemplars, func(e Exemplar) bool { return inside(e.Time) }) {
		return
	}
	if rule.Series != nil && !rule.Series(series) {
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
