// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// points are the points of a row within a time range: rising, each in a millisecond of its own.
type points struct {
	times      []int64 // ms since 1970
	starts     []int64 // ms since 1970, 0: not known; nil: were not asked for, or none is known
	values     []float64
	counts     []uint64
	buckets    [][]uint64
	quantiles  [][]float64
	histograms []*histogram.FloatHistogram
	native     bool
}

func (p *points) reset(series *metricfile.Series) {
	p.times, p.starts, p.values, p.counts, p.histograms = p.times[:0], p.starts[:0], p.values[:0], p.counts[:0], p.histograms[:0]
	p.native = series.Kind == metricfile.KindHistogram
	p.buckets, p.quantiles = emptied(p.buckets), emptied(p.quantiles)
}

func emptied[T any](lists [][]T) [][]T {
	for i := range lists {
		lists[i] = lists[i][:0]
	}
	return lists[:0]
}

// collector reads the points of rows. It is for one goroutine; rows should come in order.
type collector struct {
	scan    *Scan
	found   *found
	want    metricfile.Columns
	readers []*metricfile.Reader // by segment
	pieces  []metricfile.Points  // of the parts of a row
	clocks  []clock              // of the pieces
	points  points
}

// clock are the times of a piece in ms. Most rows share the times of the row before.
type clock struct {
	ns, ms []int64
	apart  bool // each time is in a later millisecond than the one before
}

func (c *clock) set(times []int64) {
	if slices.Equal(c.ns, times) {
		return
	}
	c.ns, c.ms, c.apart = append(c.ns[:0], times...), c.ms[:0], true
	before := int64(math.MinInt64)
	for _, t := range times {
		ms := milliseconds(t)
		c.ms, c.apart, before = append(c.ms, ms), c.apart && ms > before, ms
	}
}

func (s *Scan) collector(f *found, want metricfile.Columns) *collector {
	return &collector{scan: s, found: f, want: want, readers: make([]*metricfile.Reader, len(s.segments))}
}

// collect reads the points of a row. They stay until the next call; histograms stay for ever.
func (c *collector) collect(r *row) (*points, error) {
	for len(c.pieces) < len(r.parts) {
		c.pieces, c.clocks = append(c.pieces, metricfile.Points{}), append(c.clocks, clock{apart: true})
	}
	for i := range r.parts {
		want := c.want | metricfile.WantTimes
		if len(c.scan.segments[r.parts[i].segment].Masked) > 0 {
			want |= metricfile.WantSources
		}
		if err := c.read(&r.parts[i], want, &c.pieces[i]); err != nil {
			return nil, err
		}
		c.clocks[i].set(c.pieces[i].Times)
	}
	c.points.reset(r.series)
	if c.plain(r) {
		for i := range r.parts {
			c.appendRange(&c.pieces[i], c.clocks[i].ms)
		}
	} else if err := c.merge(r); err != nil {
		return nil, err
	}
	return &c.points, nil
}

func (c *collector) read(p *part, want metricfile.Columns, into *metricfile.Points) error {
	reader, err := c.reader(p.segment)
	if err != nil {
		return err
	}
	if err := reader.Points(p.ordinal, want, into); err != nil {
		return fmt.Errorf("read segment %s: %w", c.scan.segments[p.segment].File.Key, err)
	}
	c.scan.Statistics.Rows.Add(int64(into.Len()))
	return nil
}

// reader is the goroutine's own of a segment.
func (c *collector) reader(segment int) (*metricfile.Reader, error) {
	if known := c.readers[segment]; known != nil {
		return known, nil
	}
	made, err := c.scan.reader(segment, c.found.catalogues[segment])
	c.readers[segment] = made
	return made, err
}

// plain reports whether the pieces of a row may be taken as they are, one after the other: nothing is hidden, and each point is in a later millisecond than the one before.
func (c *collector) plain(r *row) bool {
	before := int64(math.MinInt64)
	for i := range r.parts {
		if len(r.parts[i].hidden) > 0 || len(c.scan.segments[r.parts[i].segment].Masked) > 0 {
			return false
		}
		ms := c.clocks[i].ms
		if len(ms) > 0 && (!c.clocks[i].apart || ms[0] <= before) {
			return false
		}
		if len(ms) > 0 {
			before = ms[len(ms)-1]
		}
	}
	return true
}

// appendRange takes the points of a piece that lie within the range. Histograms are taken all: what is before tells about resets.
func (c *collector) appendRange(p *metricfile.Points, ms []int64) {
	from, to := 0, len(p.Times)
	if !c.points.native {
		from = sort.Search(to, func(i int) bool { return p.Times[i] >= c.found.start })
		to = max(from, sort.Search(to, func(i int) bool { return p.Times[i] > c.found.end }))
	}
	out := &c.points
	c.alignStarts(p)
	out.times = append(out.times, ms[from:to]...)
	if len(p.Starts) > 0 {
		for _, t := range p.Starts[from:to] {
			out.starts = append(out.starts, milliseconds(t))
		}
	} else if len(out.starts) > 0 {
		out.starts = append(out.starts, make([]int64, to-from)...)
	}
	out.values, out.counts = appendPart(out.values, p.Values, from, to), appendPart(out.counts, p.Counts, from, to)
	out.buckets, out.quantiles = appendParts(out.buckets, p.Buckets, from, to), appendParts(out.quantiles, p.Quantiles, from, to)
	if out.native {
		for _, h := range p.Histograms[from:to] {
			out.histograms = append(out.histograms, h.Copy())
		}
	}
}

// alignStarts makes up unknown starts of what is there already, if the piece that follows has some.
func (c *collector) alignStarts(p *metricfile.Points) {
	if out := &c.points; len(p.Starts) > 0 && len(out.starts) < len(out.times) {
		out.starts = append(out.starts, make([]int64, len(out.times)-len(out.starts))...)
	}
}

func appendPart[T any](to, from []T, start, end int) []T {
	if len(from) == 0 {
		return to
	}
	return append(to, from[start:end]...)
}

func appendParts[T any](to, from [][]T, start, end int) [][]T {
	for i := range from {
		if i == len(to) {
			to = grown(to)
		}
		to[i] = append(to[i], from[i][start:end]...)
	}
	return to
}

// grown makes one list more, with the memory of one that was there before.
func grown[T any](lists [][]T) [][]T {
	if len(lists) < cap(lists) {
		return lists[:len(lists)+1]
	}
	return append(lists, nil)
}

// place is a point of a piece.
type place struct {
	time  int64
	piece int
	i     int
}

// merge merges pieces that overlap, or of which points are left out.
func (c *collector) merge(r *row) error {
	places := c.answered(r)
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.time, b.time) })
	if hasEqual(places) { // sources and hashes decide, and a hash is of all columns
		for i := range r.parts {
			if err := c.read(&r.parts[i], metricfile.WantAll&^metricfile.WantExemplars, &c.pieces[i]); err != nil {
				return err
			}
		}
		places = c.distinct(places, r.series)
	}
	c.take(latest(places))
	return nil
}

// answered are the points that are not hidden, and within the range.
func (c *collector) answered(r *row) []place {
	var places []place
	for i := range r.parts {
		part, piece := &r.parts[i], &c.pieces[i]
		masked := c.scan.segments[part.segment].Masked
		for n, t := range piece.Times {
			if !c.points.native && (t < c.found.start || t > c.found.end) || within(part.hidden, t) {
				continue
			}
			if len(masked) == 0 || !slices.Contains(masked, piece.Sources[n]) {
				places = append(places, place{t, i, n})
			}
		}
	}
	return places
}

func within(hidden []stretch, t int64) bool {
	return slices.ContainsFunc(hidden, func(s stretch) bool { return t >= s.start && t < s.end })
}

func hasEqual(places []place) bool {
	for i := 1; i < len(places); i++ {
		if places[i].time == places[i-1].time {
			return true
		}
	}
	return false
}

// distinct keeps of points of one time that of the lowest source, then of the lowest hash.
func (c *collector) distinct(places []place, series *metricfile.Series) []place {
	identity, kept := series.Identity(), places[:0]
	var to int
	for from := 0; from < len(places); from = to {
		best := places[from]
		for to = from + 1; to < len(places) && places[to].time == places[from].time; to++ {
			if c.before(places[to], best, identity, series.Kind) {
				best = places[to]
			}
		}
		kept = append(kept, best)
	}
	return kept
}

func (c *collector) before(a, b place, identity uint64, kind metricfile.Kind) bool {
	one, other := &c.pieces[a.piece], &c.pieces[b.piece]
	if one.Sources[a.i] != other.Sources[b.i] {
		return one.Sources[a.i] < other.Sources[b.i]
	}
	return one.RowHash(identity, kind, a.i) < other.RowHash(identity, kind, b.i)
}

// latest keeps the last point of each millisecond.
func latest(places []place) []place {
	kept := places[:0]
	for i, p := range places {
		if i+1 == len(places) || milliseconds(p.time) != milliseconds(places[i+1].time) {
			kept = append(kept, p)
		}
	}
	return kept
}

// take makes points of places, column by column.
func (c *collector) take(places []place) {
	out, starts := &c.points, false
	for _, p := range places {
		out.times = append(out.times, milliseconds(p.time))
		starts = starts || len(c.pieces[p.piece].Starts) > 0
	}
	if starts {
		for _, p := range places {
			start := int64(0)
			if of := c.pieces[p.piece].Starts; len(of) > 0 {
				start = milliseconds(of[p.i])
			}
			out.starts = append(out.starts, start)
		}
	}
	out.values = takeColumn(c, places, out.values, func(p *metricfile.Points) []float64 { return p.Values })
	out.counts = takeColumn(c, places, out.counts, func(p *metricfile.Points) []uint64 { return p.Counts })
	if len(places) == 0 {
		return
	}
	first := &c.pieces[places[0].piece]
	for b := range first.Buckets {
		out.buckets = grown(out.buckets)
		out.buckets[b] = takeColumn(c, places, out.buckets[b], func(p *metricfile.Points) []uint64 { return p.Buckets[b] })
	}
	for q := range first.Quantiles {
		out.quantiles = grown(out.quantiles)
		out.quantiles[q] = takeColumn(c, places, out.quantiles[q], func(p *metricfile.Points) []float64 { return p.Quantiles[q] })
	}
	if out.native {
		for _, p := range places {
			out.histograms = append(out.histograms, c.pieces[p.piece].Histograms[p.i].Copy())
		}
	}
}

// takeColumn takes a column that all pieces have, or none.
func takeColumn[T any](c *collector, places []place, to []T, of func(*metricfile.Points) []T) []T {
	for _, p := range places {
		from := of(&c.pieces[p.piece])
		if len(from) == 0 {
			return to
		}
		to = append(to, from[p.i])
	}
	return to
}

// dropStale leaves out stale markers. Histograms keep theirs: the engine has them.
func (p *points) dropStale() {
	first := slices.IndexFunc(p.values, value.IsStaleNaN)
	if first < 0 || p.native {
		return
	}
	var keep []int
	for i, v := range p.values {
		if !value.IsStaleNaN(v) {
			keep = append(keep, i)
		}
	}
	p.times, p.starts, p.counts = chosen(p.times, keep), chosen(p.starts, keep), chosen(p.counts, keep)
	for i := range p.buckets {
		p.buckets[i] = chosen(p.buckets[i], keep)
	}
	for i := range p.quantiles {
		p.quantiles[i] = chosen(p.quantiles[i], keep)
	}
	p.values = chosen(p.values, keep)
}

// chosen keeps entries of a column that may be missing.
func chosen[T any](column []T, keep []int) []T {
	if len(column) == 0 {
		return column
	}
	for to, from := range keep {
		column[to] = column[from]
	}
	return column[:len(keep)]
}

// cumulate makes of buckets the series of Prometheus: each has what is below its bound.
func (p *points) cumulate() {
	for b := 1; b < len(p.buckets); b++ {
		below, here := p.buckets[b-1], p.buckets[b]
		for i := range here {
			here[i] += below[i]
		}
	}
}
