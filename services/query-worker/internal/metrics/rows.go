// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"context"
	"slices"
	"strings"

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
	parts  []part // by their first times
	// tracks are which of the Prometheus series that it stands for were asked for, rising.
	tracks []int
}

// part is a row of one segment.
type part struct {
	segment, ordinal int
	// first and last are the times of its points.
	first, last int64
	// hidden are stretches of time whose points are not answered.
	hidden []stretch
}

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
	rows := rowSet{}
	for i, c := range f.catalogues {
		any := false
		if c != nil {
			if any, err = s.findIn(i, c, selectors, f, shard, rows); err != nil {
				return nil, err
			}
		}
		if !any {
			s.Statistics.Pruned.Add(1)
		}
	}
	f.rows = rows.sorted()
	return f, nil
}

// findIn finds the rows of one segment.
func (s *Scan) findIn(segment int, c *metricfile.Catalogue, selectors [][]*labels.Matcher, f *found, shard lake.Shard, rows rowSet) (bool, error) {
	any := false
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
		r.parts, any = append(r.parts, p), true
		s.open[segment].needed.Add(entry.Bytes)
		if r.tracks != nil {
			continue
		}
		for _, matchers := range selectors {
			r.tracks = metricfile.SelectTracks(r.series, matchers, r.tracks)
		}
		if len(selectors) > 1 {
			slices.Sort(r.tracks)
			r.tracks = slices.Compact(r.tracks)
		}
		if err := s.count(int64(len(r.tracks))); err != nil {
			return false, err
		}
	}
	return any, nil
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

// rowSet are rows by the hash of their labels.
type rowSet map[uint64][]*row

// of returns the row that a segment's row belongs to.
func (rows rowSet) of(c *metricfile.Catalogue, ordinal int, entry *metricfile.SeriesEntry) *row {
	series := c.Series(ordinal)
	for _, known := range rows[entry.Hash] {
		if known.series.Equal(series) {
			return known
		}
	}
	r := &row{series: series, name: series.Name(), hash: entry.Hash}
	rows[entry.Hash] = append(rows[entry.Hash], r)
	return r
}

// sorted returns the rows that have parts.
func (rows rowSet) sorted() []*row {
	all := make([]*row, 0, len(rows))
	for _, some := range rows {
		for _, r := range some {
			if len(r.parts) > 0 && len(r.tracks) > 0 {
				slices.SortStableFunc(r.parts, func(a, b part) int { return cmp.Compare(a.first, b.first) })
				all = append(all, r)
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
