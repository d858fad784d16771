// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"math"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// rowMerger makes one row of those that several inputs have of a series.
type rowMerger struct {
	head     head
	series   Series
	identity uint64
	// parts are the inputs that have the series; their points are their own until they read the next row.
	parts  []*mergeSource
	latest int64 // when the point is that the family is of
	runs   []run
	// out are the points of the row: those of a part, or own.
	out, own Points
	// exemplars are those of all parts.
	exemplars []Exemplar
}

// run is a stretch of the points of a part: from, and up to but not including to.
type run struct {
	part     *mergeSource
	from, to int
}

// begin begins with the series of an input's head.
func (r *rowMerger) begin(s *mergeSource) {
	r.head.set(&s.head)
	r.series = s.series()
	r.series.Family = Family{}
	r.identity = r.series.identity(s.hash)
	r.latest = math.MinInt64
	r.parts, r.exemplars = r.parts[:0], r.exemplars[:0]
}

// add reads the points of an input's head, and leaves those that stay.
func (r *rowMerger) add(s *mergeSource) error {
	if err := s.read(&r.series, r.identity); err != nil {
		return err
	}
	r.exemplars = append(r.exemplars, s.points.Exemplars...)
	if len(s.gone) > 0 || !s.strict {
		s.compact(r.series.Kind, r.identity)
	}
	if s.points.Len() == 0 {
		return nil
	}
	r.family(s.family(), s.points.Times[s.points.Len()-1])
	r.parts = append(r.parts, s)
	return nil
}

// family notes the family of a part: that of the latest point wins over others, and any over none.
func (r *rowMerger) family(f Family, at int64) {
	known, best := f != (Family{}), r.series.Family != (Family{})
	if !known || best && cmp.Or(cmp.Compare(at, r.latest), compareFamilies(f, r.series.Family)) <= 0 {
		return
	}
	r.series.Family, r.latest = f, at
}

func compareFamilies(a, b Family) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Help, b.Help))
}

// merge returns the points of all parts by time, one at each. They are valid until the next row is begun.
func (r *rowMerger) merge(result *MergeResult) *Points {
	r.runs = r.runs[:0]
	slices.SortStableFunc(r.parts, func(a, b *mergeSource) int { return cmp.Compare(a.points.Times[0], b.points.Times[0]) })
	if r.disjoint() {
		for _, s := range r.parts {
			r.runs = append(r.runs, run{s, 0, s.points.Len()})
		}
	} else {
		r.interleave(result)
	}
	r.gather()
	r.out.Exemplars = SortExemplars(r.exemplars)
	return &r.out
}

// disjoint reports whether each part ends before the next one begins.
func (r *rowMerger) disjoint() bool {
	for i := range len(r.parts) - 1 {
		before := r.parts[i].points.Times
		if before[len(before)-1] >= r.parts[i+1].points.Times[0] {
			return false
		}
	}
	return true
}

// interleave finds the runs of parts that overlap, and leaves out doubles.
func (r *rowMerger) interleave(result *MergeResult) {
	heads := make([]run, 0, len(r.parts))
	for _, s := range r.parts {
		heads = append(heads, run{s, 0, s.points.Len()})
	}
	for len(heads) > 0 {
		first, limit, ties := firstOf(heads)
		if ties > 1 {
			first = r.resolve(heads, first, result)
		}
		h := &heads[first]
		times := h.part.points.Times
		at, n := times[h.from], h.from+1
		for ties == 1 && n < h.to && times[n] < limit {
			n++
		}
		r.runs = append(r.runs, run{h.part, h.from, n})
		h.from = n
		for i := range heads { // doubles
			if o := &heads[i]; ties > 1 && i != first && o.part.points.Times[o.from] == at {
				o.from++
			}
		}
		heads = slices.DeleteFunc(heads, func(h run) bool { return h.from == h.to })
	}
}

// firstOf returns the head that is first, the time at which others begin to be, and how many heads are of that first time.
func firstOf(heads []run) (first int, limit int64, ties int) {
	at := int64(math.MaxInt64)
	limit = math.MaxInt64
	for i := range heads {
		switch t := heads[i].part.points.Times[heads[i].from]; {
		case t < at || ties == 0:
			first, at, limit, ties = i, t, at, 1
		case t == at:
			ties++
		case t < limit:
			limit = t
		}
	}
	return first, limit, ties
}

// resolve returns the head that stays of those which are of the first one's time, and counts the others.
func (r *rowMerger) resolve(heads []run, first int, result *MergeResult) (best int) {
	at := heads[first].part.points.Times[heads[first].from]
	best = -1
	var kept stamped
	for i := range heads {
		p := &heads[i].part.points
		if p.Times[heads[i].from] != at {
			continue
		}
		d := r.stamped(p, heads[i].from)
		if best < 0 {
			best, kept = i, d
			continue
		}
		lost := d
		if d.beats(kept) {
			best, kept, lost = i, d, kept
		}
		result.HashLeft += lost.hash
		result.Deduplicated++
	}
	return best
}

// stamped is what decides which of two doubles stays.
type stamped struct {
	source lake.ReceiptID
	hash   uint64
}

func (d stamped) beats(o stamped) bool {
	return d.source < o.source || d.source == o.source && d.hash < o.hash
}

func (r *rowMerger) stamped(p *Points, i int) stamped {
	return stamped{p.stamp(i).Source, p.RowHash(r.identity, r.series.Kind, i)}
}

// compact leaves the points of a head that stay, and one of each time of these.
func (s *mergeSource) compact(kind Kind, identity uint64) {
	p, r := &s.points, &s.merge.result
	n := 0
	var kept stamped
	for i := range p.Times {
		if len(s.gone) > 0 && !s.gone[i].stays() {
			continue
		}
		if n > 0 && p.Times[n-1] == p.Times[i] {
			d := stamped{p.stamp(i).Source, p.RowHash(identity, kind, i)}
			kept = stamped{p.stamp(n - 1).Source, p.RowHash(identity, kind, n-1)}
			r.Deduplicated++
			if kept.beats(d) || kept == d {
				r.HashLeft += d.hash
				continue
			}
			r.HashLeft += kept.hash
			n--
		}
		p.move(i, n)
		n++
	}
	p.truncate(n)
}

// move puts point i where an earlier one is. Histograms change places, since each has its memory.
func (p *Points) move(i, to int) {
	if i == to {
		return
	}
	p.Times[to] = p.Times[i]
	moveOne(p.Starts, i, to)
	moveOne(p.Sources, i, to)
	moveOne(p.Values, i, to)
	moveOne(p.Counts, i, to)
	for _, bucket := range p.Buckets {
		moveOne(bucket, i, to)
	}
	for _, quantile := range p.Quantiles {
		moveOne(quantile, i, to)
	}
	if len(p.Histograms) > 0 {
		p.Histograms[i], p.Histograms[to] = p.Histograms[to], p.Histograms[i]
	}
}

func moveOne[T any](column []T, i, to int) {
	if len(column) > 0 {
		column[to] = column[i]
	}
}

// truncate leaves the first points.
func (p *Points) truncate(n int) {
	p.Times = p.Times[:n]
	p.Starts, p.Sources = p.Starts[:min(n, len(p.Starts))], p.Sources[:min(n, len(p.Sources))]
	p.Values, p.Counts = p.Values[:min(n, len(p.Values))], p.Counts[:min(n, len(p.Counts))]
	for i := range p.Buckets {
		p.Buckets[i] = p.Buckets[i][:n]
	}
	for i := range p.Quantiles {
		p.Quantiles[i] = p.Quantiles[i][:n]
	}
	p.Histograms = p.Histograms[:min(n, len(p.Histograms))]
}

// gather makes columns of the runs.
func (r *rowMerger) gather() {
	if len(r.runs) == 1 && r.runs[0].from == 0 && r.runs[0].to == r.runs[0].part.points.Len() {
		r.out = r.runs[0].part.points // nothing of it is changed before the part reads its next row
		return
	}
	starts := slices.ContainsFunc(r.parts, func(s *mergeSource) bool { return len(s.points.Starts) > 0 })
	sources := slices.ContainsFunc(r.parts, func(s *mergeSource) bool { return len(s.points.Sources) > 0 })
	own := &r.own
	own.Reset()
	for _, run := range r.runs {
		p, from, to := &run.part.points, run.from, run.to
		own.Times = append(own.Times, p.Times[from:to]...)
		if starts {
			own.Starts = appendRun(own.Starts, p.Starts, from, to)
		}
		if sources {
			own.Sources = appendRun(own.Sources, p.Sources, from, to)
		}
		r.gatherValues(p, from, to)
	}
	r.out = *own
}

// appendRun appends a stretch of a column, or as many zeros where there is none.
func appendRun[T any](dst, column []T, from, to int) []T {
	if len(column) == 0 {
		return append(dst, make([]T, to-from)...)
	}
	return append(dst, column[from:to]...)
}

func (r *rowMerger) gatherValues(p *Points, from, to int) {
	own := &r.own
	if r.series.Kind == KindHistogram {
		own.Histograms = append(own.Histograms, p.Histograms[from:to]...)
		return
	}
	own.Values = append(own.Values, p.Values[from:to]...)
	switch r.series.Kind {
	case KindClassic:
		own.Counts = append(own.Counts, p.Counts[from:to]...)
		own.Buckets = appendColumns(own.Buckets, p.Buckets, from, to)
	case KindSummary:
		own.Counts = append(own.Counts, p.Counts[from:to]...)
		own.Quantiles = appendColumns(own.Quantiles, p.Quantiles, from, to)
	}
}

// appendColumns appends a stretch of each column to that in dst, which is empty or has as many; columns that it once had are used again.
func appendColumns[T any](dst, columns [][]T, from, to int) [][]T {
	if len(dst) == 0 {
		for i := range columns {
			if i < cap(dst) {
				dst = dst[:i+1]
				dst[i] = dst[i][:0]
			} else {
				dst = append(dst, nil)
			}
		}
	}
	for i := range columns {
		dst[i] = append(dst[i], columns[i][from:to]...)
	}
	return dst
}
