// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// row is a series as it is stored: its rows in all segments.
type row struct {
	series *metricfile.Series
	name   string
	hash   uint64
	next   *row   // of the same hash
	parts  []part // by their first times
	// tracks are which of the Prometheus series that it stands for were asked for, rising.
	tracks []int
}

// partSize is about how much memory a part takes.
const partSize = 64

// part is a row of one segment.
type part struct {
	segment, ordinal int
	// first and last are the times of its points.
	first, last int64
	// hidden are stretches of time whose points are not answered.
	hidden []stretch
}

// size is about how much memory a row takes.
func (r *row) size() int64 { return 400 + int64(r.series.Labels.ByteSize()) + 8*int64(cap(r.tracks)) }

// stretch is from start, inclusive, to end, exclusive; ns since 1970.
type stretch struct{ start, end int64 }

// found are the rows of a selection.
type found struct {
	rows       []*row // in the order of metricfile.Compare, so that ordinals of each segment rise
	catalogues []*metricfile.Catalogue
	start, end int64 // ns since 1970, both inclusive
}

// find finds the rows that any of some selectors chooses and that may have points within a time range.
func (s *Scan) find(ctx context.Context, selectors [][]*labels.Matcher, startMs, endMs int64, shard lake.Shard) (*found, error) {
	f := &found{start: nanoseconds(startMs), end: untilEnd(endMs)}
	var err error
	if f.catalogues, err = s.catalogues(ctx, f.start, f.end, shard); err != nil {
		return nil, err
	}
	parts := s.divided(f, shard)
	used, rows := make([]atomic.Bool, len(f.catalogues)), make([]rowSet, len(parts))
	err = s.share(ctx, len(parts), 1, func() (func(int) error, func() error) {
		return func(i int) error {
			rows[i] = rowSet{}
			return s.findShard(ctx, f, selectors, parts[i], rows[i], used)
		}, func() error { return nil }
	})
	if err != nil {
		return nil, err
	}
	for i := range used {
		if !used[i].Load() {
			s.Statistics.Pruned.Add(1)
		}
	}
	f.rows = sorted(rows)
	return f, nil
}

// worthDividing is how many rows of catalogues are looked at by several processors.
const worthDividing = 20_000

// divided are parts of a shard, for as many processors, if there is much to look at.
func (s *Scan) divided(f *found, shard lake.Shard) []lake.Shard {
	rows := 0
	for _, c := range f.catalogues {
		if c != nil {
			rows += c.Len()
		}
	}
	count := uint32(1)
	for rows > worthDividing && int(2*count) <= s.scanner.options.Parallel {
		count *= 2
	}
	whole := max(1, shard.Count)
	parts := make([]lake.Shard, count)
	for i := range parts {
		parts[i] = lake.Shard{Index: shard.Index + uint32(i)*whole, Count: whole * count}
	}
	return parts
}

// findShard finds rows of a shard, and notes in which segments some are.
func (s *Scan) findShard(ctx context.Context, f *found, selectors [][]*labels.Matcher, shard lake.Shard, rows rowSet, used []atomic.Bool) error {
	for i, c := range f.catalogues {
		if c == nil || !s.segments[i].Shard.Meets(shard) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		some, err := s.findIn(i, c, selectors, f, shard, rows)
		if err != nil {
			return err
		}
		if some {
			used[i].Store(true)
		}
	}
	return nil
}

// findIn finds the rows of one segment.
func (s *Scan) findIn(segment int, c *metricfile.Catalogue, selectors [][]*labels.Matcher, f *found, shard lake.Shard, rows rowSet) (some bool, err error) {
	needed, parts := int64(0), int64(0)
	for _, ordinal := range s.selected(c, selectors, shard) {
		entry := c.Entry(ordinal)
		if entry.Last < f.start || entry.First > f.end {
			continue
		}
		r := rows.of(c, ordinal, &entry)
		p := part{segment: segment, ordinal: ordinal, first: entry.First, last: entry.Last}
		if s.hide(&p, r.series) {
			continue
		}
		r.parts, some = append(r.parts, p), true
		needed, parts = needed+entry.Bytes, parts+1
		if r.tracks != nil {
			continue
		}
		r.tracks = chosenTracks(r.series, selectors)
		if err := s.count(int64(len(r.tracks))); err != nil {
			return false, err
		}
		if err := s.memory.take(r.size()); err != nil {
			return false, err
		}
	}
	s.open[segment].needed.Add(needed)
	return some, s.memory.take(parts * partSize)
}

// chosenTracks are which Prometheus series of a row any of the selectors chooses, rising.
func chosenTracks(series *metricfile.Series, selectors [][]*labels.Matcher) []int {
	tracks := make([]int, 0, series.NumTracks())
	for _, matchers := range selectors {
		tracks = metricfile.SelectTracks(series, matchers, tracks)
	}
	if len(selectors) > 1 {
		slices.Sort(tracks)
		tracks = slices.Compact(tracks)
	}
	return tracks
}

// selected are the ordinals that any of the selectors chooses, rising.
func (s *Scan) selected(c *metricfile.Catalogue, selectors [][]*labels.Matcher, shard lake.Shard) []int {
	if len(selectors) == 1 {
		return c.Select(selectors[0], shard)
	}
	var all []int
	for _, matchers := range selectors {
		all = append(all, c.Select(matchers, shard)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// count counts Prometheus series.
func (s *Scan) count(series int64) error {
	if s.series.Add(series) > s.maxSeries && s.maxSeries > 0 {
		return fault.New(fault.Exhausted, "query chooses more than %d series of one worker (max_query_series): narrow the selector with more labels", s.maxSeries)
	}
	return nil
}

// hide notes what of a part is not answered because of deletes. True: nothing of it is.
func (s *Scan) hide(p *part, series *metricfile.Series) bool {
	for i := range s.deletes {
		d := &s.deletes[i]
		if d.Number <= s.segments[p.segment].Applied || p.last < d.Start || p.first >= d.End || !d.Selector.Matches(series) {
			continue
		}
		if p.first >= d.Start && p.last < d.End {
			return true
		}
		p.hidden = append(p.hidden, stretch{d.Start, d.End})
	}
	return false
}

// rowSet are rows by the hash of their labels; rows of one hash are chained.
type rowSet map[uint64]*row

// of returns the row that a segment's row belongs to.
func (rows rowSet) of(c *metricfile.Catalogue, ordinal int, entry *metricfile.SeriesEntry) *row {
	for known := rows[entry.Hash]; known != nil; known = known.next {
		if c.Is(ordinal, known.series) {
			return known
		}
	}
	series := c.Series(ordinal)
	r := &row{series: series, name: series.Name(), hash: entry.Hash, next: rows[entry.Hash]}
	rows[entry.Hash] = r
	return r
}

// sorted returns the rows that have parts.
func sorted(sets []rowSet) []*row {
	var all []*row
	for _, rows := range sets {
		for _, first := range rows {
			for r := first; r != nil; r = r.next {
				if len(r.parts) > 0 && len(r.tracks) > 0 {
					slices.SortStableFunc(r.parts, func(a, b part) int { return cmp.Compare(a.first, b.first) })
					all = append(all, r)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b *row) int {
		if c := cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.hash, b.hash)); c != 0 {
			return c
		}
		return metricfile.Compare(a.series, b.series)
	})
	return all
}
