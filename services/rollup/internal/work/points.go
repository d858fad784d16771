// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"cmp"
	"math"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// place is a point of one of a row's segments.
type place struct {
	time  int64 // ns since 1970
	piece int
	i     int
}

// points are those of a row within a window, of all segments of rows: rising, one a millisecond, without what is masked and deleted. They are good until the
// next call.
func (m *merging) points(row []*cursor, window lake.Window) (*metricfile.Points, error) {
	from, to := window.Start.UnixNano(), window.End().UnixNano()
	var whole *cursor
	pieces := 0
	for _, c := range row {
		if c.local.segment.Resolution > 0 {
			continue
		}
		if a, b := within(c.points.Times, from, to); a < b {
			m.account.In += int64(b - a)
			whole = c
			pieces++
		}
	}
	if pieces == 0 {
		m.view.Reset()
		return &m.view, nil
	}
	if a, b := within(whole.points.Times, from, to); pieces == 1 && len(whole.masked) == 0 && len(whole.hiding) == 0 && distinct(whole.points.Times[a:b]) {
		slice(&whole.points, a, b, &m.view)
		return &m.view, nil
	}
	if err := m.choose(row, from, to); err != nil {
		return nil, err
	}
	m.take(row)
	return &m.all, nil
}

func within(times []int64, from, to int64) (a, b int) {
	a, _ = slices.BinarySearch(times, from)
	b, _ = slices.BinarySearch(times, to)
	return a, b
}

// distinct reports whether each time is in a later millisecond than the one before.
func distinct(times []int64) bool {
	before := int64(math.MinInt64)
	for _, t := range times {
		ms := rollup.Milliseconds(t)
		if ms <= before {
			return false
		}
		before = ms
	}
	return true
}

// slice makes a view of some of the points.
func slice(p *metricfile.Points, a, b int, into *metricfile.Points) {
	into.Reset()
	into.Times = p.Times[a:b:b]
	if len(p.Values) > 0 {
		into.Values = p.Values[a:b:b]
	}
	if len(p.Counts) > 0 {
		into.Counts = p.Counts[a:b:b]
	}
	if len(p.Histograms) > 0 {
		into.Histograms = p.Histograms[a:b:b]
	}
	for _, bucket := range p.Buckets {
		into.Buckets = append(into.Buckets, bucket[a:b:b])
	}
	for _, quantile := range p.Quantiles {
		into.Quantiles = append(into.Quantiles, quantile[a:b:b])
	}
}

// choose finds the points that count: neither masked nor deleted, and of those in one millisecond the one that queries answer.
func (m *merging) choose(row []*cursor, from, to int64) error {
	m.places = m.places[:0]
	for piece, c := range row {
		if c.local.segment.Resolution > 0 {
			continue
		}
		a, b := within(c.points.Times, from, to)
		for i := a; i < b; i++ {
			switch {
			case len(c.masked) > 0 && c.masked[c.points.Sources[i]]:
				m.account.Masked++
			case c.hidden(c.points.Times[i]):
				m.account.Deleted++
			default:
				m.places = append(m.places, place{c.points.Times[i], piece, i})
			}
		}
	}
	slices.SortStableFunc(m.places, func(a, b place) int { return cmp.Compare(a.time, b.time) })
	all := len(m.places)
	if err := m.dropDoubles(row); err != nil {
		return err
	}
	m.account.Deduplicated += int64(all - len(m.places))
	return nil
}

func (c *cursor) hidden(ns int64) bool {
	return slices.ContainsFunc(c.hiding, func(d deletion) bool { return ns >= d.start && ns < d.end })
}

// dropDoubles keeps, of points of the very same time, that of the lowest source, then of the smallest hash; and of those left in a millisecond, the last.
func (m *merging) dropDoubles(row []*cursor) error {
	same := func(a, b place) bool { return a.time == b.time }
	for i := 1; i < len(m.places); i++ {
		if !same(m.places[i-1], m.places[i]) {
			continue
		}
		for _, c := range row { // sources and hashes decide, and a hash is of every column
			if c.local.segment.Resolution == 0 {
				if err := c.readPoints(metricfile.WantAll &^ metricfile.WantExemplars); err != nil {
					return m.damaged(c.local.segment.Key, err)
				}
			}
		}
		identity := row[0].series.Identity()
		slices.SortStableFunc(m.places, func(a, b place) int {
			if a.time != b.time {
				return cmp.Compare(a.time, b.time)
			}
			return cmp.Or(cmp.Compare(row[a.piece].sourceOf(a.i), row[b.piece].sourceOf(b.i)), cmp.Compare(row[a.piece].rowHash(identity, a.i), row[b.piece].rowHash(identity, b.i)))
		})
		m.places = slices.CompactFunc(m.places, same)
		break
	}
	kept := m.places[:0]
	for i, p := range m.places {
		if i+1 < len(m.places) && rollup.Milliseconds(m.places[i+1].time) == rollup.Milliseconds(p.time) {
			continue
		}
		kept = append(kept, p)
	}
	m.places = kept
	return nil
}

func (c *cursor) sourceOf(i int) lake.ReceiptID {
	if i >= len(c.points.Sources) {
		return 0
	}
	return c.points.Sources[i]
}

func (c *cursor) rowHash(identity uint64, i int) uint64 {
	return c.points.RowHash(identity, c.series.Kind, i)
}

// take copies the points that were chosen.
func (m *merging) take(row []*cursor) {
	p := &m.all
	buckets, quantiles := cut(p.Buckets), cut(p.Quantiles)
	p.Reset()
	for _, at := range m.places {
		from := &row[at.piece].points
		p.Times = append(p.Times, at.time)
		p.Values, p.Counts, p.Histograms = takeAt(p.Values, from.Values, at.i), takeAt(p.Counts, from.Counts, at.i), takeAt(p.Histograms, from.Histograms, at.i)
		buckets, quantiles = takeEach(buckets, from.Buckets, at.i), takeEach(quantiles, from.Quantiles, at.i)
	}
	p.Buckets, p.Quantiles = buckets, quantiles
}

// cut empties lists of lists, and keeps their memory.
func cut[T any](lists [][]T) [][]T {
	lists = lists[:cap(lists)]
	for i := range lists {
		lists[i] = lists[i][:0]
	}
	return lists[:0]
}

func takeAt[T any](to, from []T, i int) []T {
	if len(from) == 0 {
		return to
	}
	return append(to, from[i])
}

func takeEach[T any](to, from [][]T, i int) [][]T {
	for len(to) < len(from) {
		if len(to) < cap(to) {
			to = to[:len(to)+1]
		} else {
			to = append(to, nil)
		}
	}
	for n := range from {
		to[n] = append(to[n], from[n][i])
	}
	return to
}
