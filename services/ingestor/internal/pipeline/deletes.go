// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

// deletion is a delete of data that was made before the work on a lease began. It reaches the rows of objects that were received before it: replays
// of these stay without them.
type deletion struct {
	id         lake.DeleteID
	start, end int64 // ns since 1970; end is exclusive
	created    time.Time
	// rows chooses rows of logs, series those of metrics: one of them is nil.
	rows   *selector.Matcher
	series func(*metricfile.Series) bool
}

// reaches reports whether a time is within the delete's.
func (d *deletion) reaches(ns int64) bool { return ns >= d.start && ns < d.end }

// readDeletes reads the deletes that the lease's rows may be reached by. Those which are made later have higher numbers than the segments say.
func (r *run) readDeletes(ctx context.Context) error {
	query := index.DeleteQuery{Organization: r.lease.Organization} // of all signals: which the objects are of is not known yet
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
	found := deletion{id: d.ID, start: d.Start.UnixNano(), end: d.End.UnixNano(), created: d.CreatedAt}
	if err := found.parse(d); err != nil {
		return fmt.Errorf("selector of delete %d: %w", d.ID, err)
	}
	if found.rows != nil || found.series != nil {
		r.deletes = append(r.deletes, found)
	}
	return nil
}

// parse reads the selector of a delete, whose language is that of its signal.
func (d *deletion) parse(from lake.Delete) error {
	switch from.Signal {
	case lake.SignalLogs:
		s, err := selector.Parse(from.Selector)
		if err != nil {
			return err
		}
		d.rows = s.NewMatcher()
	case lake.SignalMetrics:
		s, err := selector.ParseSeries(from.Selector)
		if err != nil {
			return err
		}
		d.series = s.Matches
	}
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

// deletedRows counts what deletes left out of the object.
func (c *collector) deletedRows() []lake.DeletedRows {
	var rows []lake.DeletedRows
	for _, id := range slices.Sorted(maps.Keys(c.deleted)) {
		rows = append(rows, lake.DeletedRows{Delete: id, Source: c.receipt.ID, Rows: c.deleted[id]})
	}
	return rows
}
