// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"context"
	"io"
	"iter"
	"math"
	"slices"
)

// Write writes points of st, given by their row numbers in any order, as one segment and its sidecar. It fails, rather than write a file that cannot
// be read, when a string is not UTF-8 or a point lies outside the window of m.
func Write(ctx context.Context, parquet, sidecar io.Writer, st *Store, rows []uint32, m Meta) (Written, error) {
	w, err := NewWriter(parquet, sidecar, m)
	if err != nil {
		return Written{}, err
	}
	g := gather{store: st}
	g.bySeries(rows)
	for _, id := range g.sorted() {
		if err := ctx.Err(); err != nil {
			return Written{}, err
		}
		s := &st.series[id]
		g.fill(id)
		if err := w.appendPoints(&s.Series, s.hash, &g.points); err != nil {
			return Written{}, err
		}
	}
	return w.Close()
}

// WriteRollups writes rollups of series, in the order of Compare, as one segment and its sidecar. What rows yields may be reused for the next.
func WriteRollups(ctx context.Context, parquet, sidecar io.Writer, rows iter.Seq2[*Series, *Rollup], m Meta) (Written, error) {
	w, err := NewWriter(parquet, sidecar, m)
	if err != nil {
		return Written{}, err
	}
	for s, r := range rows {
		if err := ctx.Err(); err != nil {
			return Written{}, err
		}
		if err := w.AppendRollup(s, r); err != nil {
			return Written{}, err
		}
	}
	return w.Close()
}

// gather makes columns of the points of a store.
type gather struct {
	store     *Store
	rows      []uint32 // by series
	ends      []uint32 // of series, in rows
	exemplars map[SeriesID][]Exemplar
	points    Points
}

// bySeries sorts rows by series, and leaves them in their order otherwise.
func (g *gather) bySeries(rows []uint32) {
	st := g.store
	g.ends = make([]uint32, len(st.series)+1)
	for _, row := range rows {
		g.ends[st.point(row).series+1]++
	}
	for i := 1; i < len(g.ends); i++ {
		g.ends[i] += g.ends[i-1]
	}
	g.rows = make([]uint32, len(rows))
	for _, row := range rows {
		at := &g.ends[st.point(row).series]
		g.rows[*at] = row
		*at++
	}
	if len(st.exemplars) > 0 {
		g.gatherExemplars(rows)
	}
}

// gatherExemplars takes those of the rows.
func (g *gather) gatherExemplars(rows []uint32) {
	st := g.store
	chosen := make([]bool, st.rows)
	for _, row := range rows {
		chosen[row] = true
	}
	g.exemplars = map[SeriesID][]Exemplar{}
	for i := range st.exemplars {
		if e := &st.exemplars[i]; chosen[e.row] {
			id := st.point(e.row).series
			g.exemplars[id] = append(g.exemplars[id], e.Exemplar)
		}
	}
}

// of returns the rows of a series. After bySeries has run, each end is that of the series itself.
func (g *gather) of(id SeriesID) []uint32 {
	start := uint32(0)
	if id > 0 {
		start = g.ends[id-1]
	}
	return g.rows[start:g.ends[id]]
}

// sorted returns the series that have rows, in the order of Compare. Names are few, and hashes hardly ever the same, so that sorting compares numbers.
func (g *gather) sorted() []SeriesID {
	st := g.store
	names := make([]string, len(st.names))
	for name, i := range st.names {
		names[i] = name
	}
	order := make([]uint32, len(names))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Compare(names[a], names[b]) })
	rank := make([]uint32, len(names))
	for i, n := range order {
		rank[n] = uint32(i)
	}
	type key struct {
		rank uint32
		id   SeriesID
		hash uint64
	}
	var keys []key
	for id := range st.series {
		if len(g.of(SeriesID(id))) > 0 {
			s := &st.series[id]
			keys = append(keys, key{rank: rank[s.name], id: SeriesID(id), hash: s.hash})
		}
	}
	slices.SortFunc(keys, func(a, b key) int {
		if a.rank != b.rank {
			return cmp.Compare(a.rank, b.rank)
		}
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return Compare(&st.series[a.id].Series, &st.series[b.id].Series)
	})
	ids := make([]SeriesID, len(keys))
	for i, k := range keys {
		ids[i] = k.id
	}
	return ids
}

// fill sets points to those of a series, sorted.
func (g *gather) fill(id SeriesID) {
	st, rows := g.store, g.of(id)
	g.sortRows(rows)
	p, s := &g.points, &st.series[id]
	p.Reset()
	p.Times, p.Starts, p.Sources = grow(p.Times, len(rows)), grow(p.Starts, len(rows)), grow(p.Sources, len(rows))
	for i, row := range rows {
		at := &st.point(row).Stamp
		p.Times[i], p.Starts[i], p.Sources[i] = at.Time, at.Start, at.Source
	}
	if s.Kind == KindHistogram {
		for _, row := range rows {
			p.Histograms = append(p.Histograms, st.histograms[st.point(row).payload])
		}
	} else {
		p.Values = grow(p.Values, len(rows))
		for i, row := range rows {
			p.Values[i] = math.Float64frombits(st.point(row).value)
		}
	}
	if s.Kind == KindClassic || s.Kind == KindSummary {
		g.fillNumbers(s, rows)
	}
	p.Exemplars = SortExemplars(append(p.Exemplars, g.exemplars[id]...))
}

func (g *gather) fillNumbers(s *storedSeries, rows []uint32) {
	st, p := g.store, &g.points
	p.Counts = grow(p.Counts, len(rows))
	if s.Kind == KindClassic {
		p.Buckets = tracks(p.Buckets, len(s.Bounds)+1, len(rows))
	} else {
		p.Quantiles = tracks(p.Quantiles, len(s.Bounds), len(rows))
	}
	for i, row := range rows {
		numbers := st.payload(st.point(row))
		p.Counts[i] = numbers[0]
		for k := range p.Buckets {
			p.Buckets[k][i] = numbers[1+k]
		}
		for k := range p.Quantiles {
			p.Quantiles[k][i] = math.Float64frombits(numbers[1+k])
		}
	}
}

// tracks makes n vectors of a length, of the memory of those that were.
func tracks[T any](of [][]T, n, length int) [][]T {
	of = of[:cap(of)]
	for len(of) < n {
		of = append(of, nil)
	}
	of = of[:n]
	for i := range of {
		of[i] = grow(of[i], length)
	}
	return of
}

// sortRows sorts by time, source and hash. Mostly they are.
func (g *gather) sortRows(rows []uint32) {
	st := g.store
	for i := 1; i < len(rows); i++ {
		if st.point(rows[i-1]).Time >= st.point(rows[i]).Time {
			slices.SortFunc(rows, func(a, b uint32) int {
				p, q := st.point(a), st.point(b)
				return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Source, q.Source), cmp.Compare(st.RowHash(int(a)), st.RowHash(int(b))))
			})
			return
		}
	}
}
