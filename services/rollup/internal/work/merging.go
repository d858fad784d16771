// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// cursor goes through the rows of one segment that belong to a shard, in their order.
type cursor struct {
	local     *local
	source    int // which of the plan's sources a rollup is
	catalogue *metricfile.Catalogue
	reader    *metricfile.Reader
	ordinals  []int
	masked    map[lake.ReceiptID]bool
	deletes   []deletion

	series *metricfile.Series
	name   string
	hash   uint64

	points  metricfile.Points
	buckets metricfile.Rollup
	hiding  []deletion // those that choose the series
}

// deletion is a delete of data that reaches rows of a segment.
type deletion struct {
	chooser
	start, end int64 // ns since 1970; end is exclusive
}

// next moves to the next row, and reports whether there is one.
func (c *cursor) next() bool {
	if len(c.ordinals) == 0 {
		return false
	}
	ordinal := c.ordinals[0]
	c.series, c.hash = c.catalogue.Series(ordinal), c.catalogue.Hash(ordinal)
	c.name = c.series.Name()
	return true
}

func (c *cursor) compare(o *cursor) int {
	if c := cmp.Or(cmp.Compare(c.name, o.name), cmp.Compare(c.hash, o.hash)); c != 0 {
		return c
	}
	return metricfile.Compare(c.series, o.series)
}

// cursors is a heap of them by their rows.
type cursors []*cursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *cursors) Push(x any) { *h = append(*h, x.(*cursor)) }

// Pop implements heap.Interface.
func (h *cursors) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	*h = (*h)[:last]
	return c
}

// merging makes the rollups of one shard from its inputs.
type merging struct {
	resolution time.Duration
	sources    []plan.Source
	sketched   func(name string) bool // nil: no metric has sketches
	account    *Account
	inputs     cursors
	// damaged makes a loud error of one that comes of reading a segment.
	damaged func(key string, err error) error

	aggregator rollup.Aggregator
	merger     rollup.Merger
	view, all  metricfile.Points
	places     []place
}

func (r *run) merging(shard lake.Shard, here []*local) (*merging, error) {
	m := &merging{resolution: resolutionOf(r.task), sources: r.sources, account: &r.account, damaged: r.damaged}
	if r.policy.Tier != nil {
		m.sketched = r.policy.Tier.Sketched()
	}
	for _, l := range here {
		c, err := r.cursor(shard, l)
		if err != nil {
			return nil, r.damaged(l.segment.Key, err)
		}
		c.source = slices.IndexFunc(m.sources, func(s plan.Source) bool {
			return slices.ContainsFunc(s.Segments, func(s lake.Segment) bool { return s.ID == l.segment.ID })
		})
		if c.next() {
			m.inputs = append(m.inputs, c)
		}
	}
	heap.Init(&m.inputs)
	return m, nil
}

// cursor opens a segment.
func (r *run) cursor(shard lake.Shard, l *local) (*cursor, error) {
	catalogue, err := metricfile.ReadCatalogue(l.sidecar)
	if err != nil {
		return nil, err
	}
	reader, err := metricfile.Open(l.parquet, l.parquet.size, catalogue)
	if err != nil {
		return nil, err
	}
	c := &cursor{local: l, catalogue: catalogue, reader: reader, masked: map[lake.ReceiptID]bool{}}
	for ordinal := range catalogue.Len() {
		if shard.Holds(catalogue.Hash(ordinal)) {
			c.ordinals = append(c.ordinals, ordinal)
		}
	}
	for _, source := range l.segment.MaskedSources {
		c.masked[source] = true
	}
	c.deletes, err = r.deletions(&l.segment)
	return c, err
}

// deletions are the deletes that may reach rows of a segment.
func (r *run) deletions(s *lake.Segment) ([]deletion, error) {
	var out []deletion
	for _, d := range r.state.Deletes {
		if d.ID <= s.AppliedDelete || d.Signal != r.task.Signal || !d.Start.Before(s.Window.End()) || !s.Window.Start.Before(d.End) {
			continue
		}
		of, known := r.choosers[d.ID]
		if !known {
			var err error
			if of, err = chooserOf(d); err != nil {
				return nil, err
			}
			r.choosers[d.ID] = of
		}
		out = append(out, deletion{chooser: of, start: d.Start.UnixNano(), end: d.End.UnixNano()})
	}
	return out, nil
}

// run yields the rollup of each row.
func (m *merging) run(ctx context.Context, yield func(*metricfile.Series, *metricfile.Rollup) error) error {
	var row []*cursor
	for len(m.inputs) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		row = append(row[:0], heap.Pop(&m.inputs).(*cursor))
		for len(m.inputs) > 0 && m.inputs[0].compare(row[0]) == 0 {
			row = append(row, heap.Pop(&m.inputs).(*cursor))
		}
		made, err := m.row(row)
		if err != nil {
			return err
		}
		if err := yield(row[0].series, made); err != nil {
			return err
		}
		for _, c := range row {
			c.ordinals = c.ordinals[1:]
			if c.next() {
				heap.Push(&m.inputs, c)
			}
		}
	}
	return nil
}

// row makes the rollup of one series of all that was read of it, source by source in the order of time.
func (m *merging) row(row []*cursor) (*metricfile.Rollup, error) {
	s := row[0].series
	if err := m.read(row); err != nil {
		return nil, err
	}
	options := rollup.Options{Resolution: m.resolution, Sketches: m.sketched != nil && s.Kind == metricfile.KindFloat && m.sketched(s.Name())}
	m.merger.Begin(s, m.resolution)
	for i, source := range m.sources {
		made, err := m.part(i, source, row, options)
		if err != nil {
			return nil, err
		}
		for _, part := range made {
			m.account.Counted += counted(part)
			if err := m.merger.Add(part); err != nil {
				return nil, err
			}
		}
	}
	out := m.merger.Rollup()
	if !options.Sketches {
		out.Sketches = out.Sketches[:0]
	}
	return out, nil
}

// read reads what the segments have of a row.
func (m *merging) read(row []*cursor) error {
	for _, c := range row {
		var err error
		if c.local.segment.Resolution > 0 {
			err = c.reader.Rollup(c.ordinals[0], &c.buckets)
			c.local.rows += int64(c.buckets.Len())
		} else {
			err = c.readPoints(metricfile.WantTimes | metricfile.WantValues)
			c.local.rows += int64(c.points.Len())
		}
		if err != nil {
			return m.damaged(c.local.segment.Key, err)
		}
	}
	return nil
}

func (c *cursor) readPoints(want metricfile.Columns) error {
	if len(c.masked) > 0 {
		want |= metricfile.WantSources
	}
	c.hide()
	return c.reader.Points(c.ordinals[0], want, &c.points)
}

// hide finds the deletes that choose the row.
func (c *cursor) hide() {
	c.hiding = c.hiding[:0]
	for _, d := range c.deletes {
		if d.chooses(c.series) {
			c.hiding = append(c.hiding, d)
		}
	}
}

// part is what a source has of a row.
func (m *merging) part(i int, source plan.Source, row []*cursor, options rollup.Options) ([]*metricfile.Rollup, error) {
	if source.Resolution == 0 {
		points, err := m.points(row, source.Window)
		if err != nil || points.Len() == 0 {
			return nil, err
		}
		made, err := m.aggregator.Aggregate(row[0].series, points, options)
		if err != nil {
			return nil, err
		}
		m.account.Stale += int64(points.Len()) - counted(made)
		return []*metricfile.Rollup{made}, nil
	}
	var out []*metricfile.Rollup
	for _, c := range row {
		if c.source == i && c.local.segment.Resolution > 0 {
			m.account.In += counted(&c.buckets)
			out = append(out, &c.buckets)
		}
	}
	return out, nil
}

func counted(r *metricfile.Rollup) (n int64) {
	for _, c := range r.Counts {
		n += c
	}
	return n
}
