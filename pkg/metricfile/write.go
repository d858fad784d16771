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
		if err := w.appendPoints(&s.Series, s.hash, &g.columns); err != nil {
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
	points    []gathered // by series
	ends      []uint32   // of series, in points
	exemplars map[SeriesID][]Exemplar
	columns   Points
}

// gathered is a point that stands among those of its series: copied there, since looking each up where it was appended would miss every cache.
type gathered struct {
	value uint64
	stamp uint32
	row   uint32
}

// bySeries sorts points by series, and leaves them in their order otherwise.
func (g *gather) bySeries(rows []uint32) {
	st := g.store
	g.ends = make([]uint32, len(st.series)+1)
	for _, row := range rows {
		g.ends[st.point(row).series+1]++
	}
	for i := 1; i < len(g.ends); i++ {
		g.ends[i] += g.ends[i-1]
	}
	g.points = make([]gathered, len(rows))
	for _, row := range rows {
		p := st.point(row)
		at := &g.ends[p.series] // the end of the series before, and in the end of this one
		g.points[*at] = gathered{value: p.value, stamp: p.stamp, row: row}
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

// of returns the points of a series.
func (g *gather) of(id SeriesID) []gathered {
	start := uint32(0)
	if id > 0 {
		start = g.ends[id-1]
	}
	return g.points[start:g.ends[id]]
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

// fill sets columns to the points of a series, sorted.
func (g *gather) fill(id SeriesID) {
	st, points := g.store, g.of(id)
	g.sort(points)
	p, s := &g.columns, &st.series[id]
	p.Reset()
	p.Times, p.Starts, p.Sources = grow(p.Times, len(points)), grow(p.Starts, len(points)), grow(p.Sources, len(points))
	for i := range points {
		at := &st.stamps[points[i].stamp]
		p.Times[i], p.Starts[i], p.Sources[i] = at.Time, at.Start, at.Source
	}
	switch s.Kind {
	case KindHistogram:
		for i := range points {
			p.Histograms = append(p.Histograms, st.histograms[points[i].value])
		}
	case KindFloat:
		p.Values = grow(p.Values, len(points))
		for i := range points {
			p.Values[i] = math.Float64frombits(points[i].value)
		}
	default:
		g.fillNumbers(s, points)
	}
	p.Exemplars = SortExemplars(append(p.Exemplars, g.exemplars[id]...))
}

func (g *gather) fillNumbers(s *storedSeries, points []gathered) {
	st, p := g.store, &g.columns
	p.Values, p.Counts = grow(p.Values, len(points)), grow(p.Counts, len(points))
	if s.Kind == KindClassic {
		p.Buckets = tracks(p.Buckets, len(s.Bounds)+1, len(points))
	} else {
		p.Quantiles = tracks(p.Quantiles, len(s.Bounds), len(points))
	}
	for i := range points {
		numbers := st.numbersOf(s, points[i].value)
		p.Values[i], p.Counts[i] = math.Float64frombits(numbers[0]), numbers[1]
		for k := range p.Buckets {
			p.Buckets[k][i] = numbers[2+k]
		}
		for k := range p.Quantiles {
			p.Quantiles[k][i] = math.Float64frombits(numbers[2+k])
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

// sort sorts by time, source and hash. Mostly they are.
func (g *gather) sort(points []gathered) {
	st := g.store
	for i := 1; i < len(points); i++ {
		if st.stamps[points[i-1].stamp].Time >= st.stamps[points[i].stamp].Time {
			slices.SortFunc(points, func(a, b gathered) int {
				p, q := &st.stamps[a.stamp], &st.stamps[b.stamp]
				return cmp.Or(cmp.Compare(p.Time, q.Time), cmp.Compare(p.Source, q.Source), cmp.Compare(st.RowHash(int(a.row)), st.RowHash(int(b.row))))
			})
			return
		}
	}
}
