// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// The steps of Commit that say of segments what was done to their rows, and count.

// checkApplied refuses to say that a delete was applied which has not been made: it would not mask once it is.
func (c *commit) checkApplied(ctx context.Context) error {
	var highest lake.DeleteID
	for _, s := range c.edit.Add {
		highest = max(highest, s.AppliedDelete)
	}
	for _, m := range c.edit.Marks {
		highest = max(highest, m.AppliedDelete)
	}
	if highest == 0 {
		return nil
	}
	latest, err := c.q.LatestDelete(ctx, string(c.lease.Organization))
	if err != nil {
		return err
	}
	if highest > lake.DeleteID(latest) {
		return fault.New(fault.Invalid, "delete %d is said to be applied, the latest one is %d", highest, latest)
	}
	return nil
}

func (c *commit) markSegments(ctx context.Context) error {
	if len(c.edit.Marks) == 0 {
		return nil
	}
	marks := slices.SortedFunc(slices.Values(c.edit.Marks), func(a, b lake.Mark) int { return cmp.Compare(a.Segment, b.Segment) })
	p := db.MarkSegmentsParams{Organization: string(c.lease.Organization)}
	for _, m := range marks {
		p.Ids = append(p.Ids, int64(m.Segment))
		p.AppliedDeletes = append(p.AppliedDeletes, int64(m.AppliedDelete))
		p.Rules = append(p.Rules, joined(m.Rules))
	}
	var err error
	if c.marked, err = c.q.MarkSegments(ctx, p); err != nil {
		return err
	}
	return counted("segments", len(marks), int64(len(c.marked)))
}

// countDeleted notes the rows that deletes kept from being written, and the segments that they leave with this edit.
func (c *commit) countDeleted(ctx context.Context) error {
	if len(c.edit.Deleted) == 0 {
		return nil
	}
	sums := make(map[lake.DeletedRows]int64)
	for _, d := range c.edit.Deleted {
		sums[lake.DeletedRows{Delete: d.Delete, Source: d.Source, Segment: d.Segment}] += d.Rows
	}
	p := db.InsertDeletedRowsParams{Organization: string(c.lease.Organization), Lease: string(c.lease.ID)}
	for d, rows := range sums {
		p.Deletes = append(p.Deletes, int64(d.Delete))
		p.Sources = append(p.Sources, int64(d.Source))
		p.Segments = append(p.Segments, int64(d.Segment))
		p.RowCounts = append(p.RowCounts, rows)
	}
	n, err := c.q.InsertDeletedRows(ctx, p)
	if err != nil {
		return err
	}
	if err := counted("counts of deleted rows", len(sums), n); err != nil {
		return err
	}
	return c.noteSegments(ctx, sums)
}

func (c *commit) noteSegments(ctx context.Context, sums map[lake.DeletedRows]int64) error {
	type touched struct{ delete, segment int64 }
	rows := make(map[touched]int64)
	for d, n := range sums {
		rows[touched{int64(d.Delete), int64(d.Segment)}] += n
	}
	removed := make(map[int64]db.RemoveSegmentsRow, len(c.removed))
	for _, r := range c.removed {
		removed[r.ID] = r
	}
	var p db.InsertDeletedSegmentsParams
	for t, n := range rows {
		if t.segment == 0 {
			continue
		}
		p.Deletes = append(p.Deletes, t.delete)
		p.Segments = append(p.Segments, t.segment)
		p.Buckets = append(p.Buckets, removed[t.segment].Bucket)
		p.Keys = append(p.Keys, removed[t.segment].Key)
		p.RowCounts = append(p.RowCounts, n)
	}
	if len(p.Deletes) == 0 {
		return nil
	}
	return c.q.InsertDeletedSegments(ctx, p)
}

// total is what an edit changes of a signal's totals.
type total struct{ segments, bytes, rows int64 }

// addTotals counts the live segments of each signal.
func (c *commit) addTotals(ctx context.Context) error {
	totals := make(map[int16]total)
	for _, s := range c.edit.Add {
		place := placeOf(s.Signal, s.Resolution)
		t := totals[place]
		totals[place] = total{t.segments + 1, t.bytes + s.Bytes + s.SidecarBytes, t.rows + s.Rows}
	}
	for _, r := range c.removed {
		t := totals[r.Signal]
		totals[r.Signal] = total{t.segments - 1, t.bytes - r.Bytes - r.SidecarBytes, t.rows - r.RowCount}
	}
	return addTotals(ctx, c.q, c.lease.Organization, totals)
}

// addTotals changes an organization's totals, by signal. Whoever adds or removes live segments calls it in the same transaction.
func addTotals(ctx context.Context, q *db.Queries, org lake.Organization, totals map[int16]total) error {
	if len(totals) == 0 {
		return nil
	}
	p := db.AddTotalsParams{Organization: string(org)}
	for _, signal := range slices.Sorted(maps.Keys(totals)) {
		t := totals[signal]
		p.Signals = append(p.Signals, signal)
		p.Segments = append(p.Segments, t.segments)
		p.Bytes = append(p.Bytes, t.bytes)
		p.RowCounts = append(p.RowCounts, t.rows)
	}
	return q.AddTotals(ctx, p)
}

func (c *commit) addCost(ctx context.Context) error {
	cost := c.edit.Cost
	if cost == (lake.Cost{}) {
		return nil
	}
	return c.q.AddCost(ctx, db.AddCostParams{
		Organization: string(c.lease.Organization),
		Kind:         string(c.lease.Kind),
		Puts:         cost.Puts,
		Gets:         cost.Gets,
		Lists:        cost.Lists,
		Deletes:      cost.Deletes,
		BytesRead:    cost.BytesRead,
		BytesWritten: cost.BytesWritten,
	})
}
