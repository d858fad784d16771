// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

// deletion is a delete of data that was made before the work on a lease began. It reaches the rows of objects that were received before it: replays
// of these stay without them.
type deletion struct {
	id         lake.DeleteID
	start, end int64 // ns since 1970; end is exclusive
	created    time.Time
	matcher    *selector.Matcher
}

// readDeletes reads the deletes that the lease's rows may be reached by. Those which are made later have higher numbers than the segments say.
func (r *run) readDeletes(ctx context.Context) error {
	query := index.DeleteQuery{Organization: r.lease.Organization, Signal: lake.SignalLogs}
	for {
		page, latest, err := r.deps.Index.Deletes(ctx, query)
		if err != nil {
			return err
		}
		if query.After == 0 {
			r.writer.applied = latest // those that come while pages are read are left to compaction
		}
		for _, d := range page {
			if err := r.addDelete(d); err != nil {
				return err
			}
		}
		if len(page) < index.MaxDeletes {
			return nil
		}
		query.After = page[len(page)-1].ID
	}
}

func (r *run) addDelete(d lake.Delete) error {
	if d.ID > r.writer.applied || !r.reaches(d) {
		return nil
	}
	s, err := selector.Parse(d.Selector)
	if err != nil {
		return fmt.Errorf("selector of delete %d: %w", d.ID, err)
	}
	r.deletes = append(r.deletes, deletion{
		id: d.ID, start: d.Start.UnixNano(), end: d.End.UnixNano(), created: d.CreatedAt, matcher: s.NewMatcher(),
	})
	return nil
}

// reaches reports whether a delete may reach rows of one of the lease's objects.
func (r *run) reaches(d lake.Delete) bool {
	return slices.ContainsFunc(r.lease.Receipts, func(receipt lake.Receipt) bool { return !receipt.ReceivedAt.After(d.CreatedAt) })
}

// reaching are the deletes that may reach rows of a receipt's object.
func reaching(deletes []deletion, receipt lake.Receipt) []deletion {
	var some []deletion
	for _, d := range deletes {
		if !receipt.ReceivedAt.After(d.created) {
			some = append(some, d)
		}
	}
	return some
}

// deletedBy returns the delete that a row is left out for; zero: it stays.
func (c *collector) deletedBy(r *columns.LogRow) lake.DeleteID {
	for i := range c.deletes {
		d := &c.deletes[i]
		inside := r.Time >= d.start && r.Time < d.end
		if inside && d.matcher.Row(c.space.logs.StreamLabels(r.Stream), *c.space.mapper.CurrentOrigin(), r) {
			return d.id
		}
	}
	return 0
}

// deletedRows counts what deletes left out of the object.
func (c *collector) deletedRows() []lake.DeletedRows {
	var rows []lake.DeletedRows
	for _, id := range slices.Sorted(maps.Keys(c.deleted)) {
		rows = append(rows, lake.DeletedRows{Delete: id, Source: c.receipt.ID, Rows: c.deleted[id]})
	}
	return rows
}

const (
	// hotDelay is how long compaction of an hour that is being written waits for more, coldDelay that of one long past: the hot ones go first.
	hotDelay  = 10 * time.Second
	coldDelay = time.Minute
	// settling is how long after its end an hour is still hot.
	settling = 15 * time.Minute
)

// compactions ask for a look at each window that got segments.
func compactions(lease *lake.Lease, added []lake.Segment) []lake.Task {
	bytes := map[lake.Window]int64{}
	for _, s := range added {
		bytes[s.Window] += s.Bytes
	}
	var tasks []lake.Task
	for _, w := range slices.SortedFunc(maps.Keys(bytes), func(a, b lake.Window) int { return b.Start.Compare(a.Start) }) {
		task := lake.Task{
			Kind: lake.TaskCompact, Organization: lease.Organization, Signal: lake.SignalLogs, Window: w, Bytes: bytes[w], Delay: hotDelay,
		}
		if lease.ClaimedAt.After(w.End().Add(settling)) {
			task.Delay = coldDelay
		}
		tasks = append(tasks, task)
	}
	return tasks
}
