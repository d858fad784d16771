// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// partition is one month of a signal's segments.
type partition struct {
	Parent string `json:"parent"`
	Name   string `json:"name"`
	Month  string `json:"month"` // YYYYMM
}

const monthLayout = "200601"

func (x *Index) partitions(ctx context.Context) ([]partition, error) {
	b, err := x.queries.MonthPartitions(ctx)
	if err != nil {
		return nil, err
	}
	var found []partition
	return found, json.Unmarshal(b, &found)
}

// MakePartitions makes the partitions of this month and of some ahead, and returns the names of those that were not there. A dry run
// makes none.
func (x *Index) MakePartitions(ctx context.Context, ahead int, dryRun bool) (made []string, err error) {
	defer x.observe("make_partitions", &err)()
	now, err := x.queries.Now(ctx)
	if err != nil {
		return nil, failed("read the index's clock", err)
	}
	known, err := x.partitions(ctx)
	if err != nil {
		return nil, failed("list partitions", err)
	}
	first := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	for n := range min(max(ahead, 0), 12) + 1 {
		month := first.AddDate(0, n, 0)
		for _, parent := range []string{tableOf(lake.SignalLogs), tableOf(lake.SignalMetrics), tableOf(lake.SignalSpans), rollupsTable} {
			name := parent + "_" + month.Format(monthLayout)
			if slices.ContainsFunc(known, func(p partition) bool { return p.Name == name }) {
				continue
			}
			if !dryRun {
				if err := x.queries.MakeSegmentMonth(ctx, db.MakeSegmentMonthParams{Parent: parent, MonthStart: month}); err != nil {
					return made, failed("make partition "+name, err)
				}
			}
			made = append(made, name)
		}
	}
	return made, nil
}

// DropPartitions drops the partitions of months that ended by a time and in which there is no segment any more, and returns their names. One
// that is being used is left for the next time. A dry run drops none.
func (x *Index) DropPartitions(ctx context.Context, before time.Time, dryRun bool) (dropped []string, err error) {
	defer x.observe("drop_partitions", &err)()
	known, err := x.partitions(ctx)
	if err != nil {
		return nil, failed("list partitions", err)
	}
	for _, p := range known {
		month, err := time.Parse(monthLayout, p.Month)
		if err != nil || month.AddDate(0, 1, 0).After(before) {
			continue
		}
		gone, err := x.dropPartition(ctx, p.Name, dryRun)
		if err != nil {
			return dropped, failed("drop partition "+p.Name, err)
		}
		if gone {
			dropped = append(dropped, p.Name)
		}
	}
	if len(dropped) > 0 && !dryRun {
		x.months.Clear()
	}
	return dropped, nil
}

func (x *Index) dropPartition(ctx context.Context, name string, dryRun bool) (bool, error) {
	if dryRun {
		return x.queries.IsMonthEmpty(ctx, name)
	}
	return x.queries.DropMonth(ctx, name)
}

// TrimOptions say what is old.
type TrimOptions struct {
	// History is how long accounts of the past are kept. At least a day: a commit whose answer was lost may be asked again.
	History time.Duration
	// Batch is how many rows one statement removes. Zero: 1,000.
	Batch  int
	DryRun bool // count only, up to 10,000 rows of each table
}

const minHistory = 24 * time.Hour

// Trim removes accounts of the past in small batches, and returns how many rows of which table: committed leases whose record was shipped,
// receipts of source objects that are gone and whose rows are in no segment, comparisons, costs, and runs of retention that are proven.
// Leases that ended without a commit stay until they were swept.
func (x *Index) Trim(ctx context.Context, options TrimOptions) (trimmed map[string]int64, err error) {
	defer x.observe("trim", &err)()
	if options.History < minHistory {
		return nil, fault.New(fault.Invalid, "a history of %s: want %s at least", options.History, minHistory)
	}
	history := interval(options.History)
	if options.DryRun {
		n, err := x.queries.CountTrimmable(ctx, history)
		counts := map[string]int64{
			"leases": n.Leases, "receipts": n.Receipts, "completeness": n.Completeness, "costs": n.Costs, "retention_runs": n.Runs,
		}
		return counts, failed("count what is old", err)
	}
	batch := int32(min(max(options.Batch, 0), maxPage))
	if batch == 0 {
		batch = maxPage
	}
	q := x.queries
	trims := []struct {
		table string
		run   func(context.Context, pgtype.Interval, int32) (int64, error)
	}{
		{"leases", func(ctx context.Context, h pgtype.Interval, n int32) (int64, error) {
			return q.TrimLeases(ctx, db.TrimLeasesParams{History: h, Batch: n})
		}},
		{"receipts", func(ctx context.Context, h pgtype.Interval, n int32) (int64, error) {
			return q.TrimReceipts(ctx, db.TrimReceiptsParams{History: h, Batch: n})
		}},
		{"completeness", func(ctx context.Context, h pgtype.Interval, n int32) (int64, error) {
			return q.TrimCompleteness(ctx, db.TrimCompletenessParams{History: h, Batch: n})
		}},
		{"costs", func(ctx context.Context, h pgtype.Interval, n int32) (int64, error) {
			return q.TrimCosts(ctx, db.TrimCostsParams{History: h, Batch: n})
		}},
		{"retention_runs", func(ctx context.Context, h pgtype.Interval, n int32) (int64, error) {
			return q.TrimRetentionRuns(ctx, db.TrimRetentionRunsParams{History: h, Batch: n})
		}},
		{"retention_leases", func(ctx context.Context, _ pgtype.Interval, n int32) (int64, error) {
			return q.TrimRetentionLeases(ctx, n)
		}},
	}
	trimmed = make(map[string]int64, len(trims))
	for _, t := range trims {
		n, err := inBatches(ctx, batch, func(ctx context.Context) (int64, error) { return t.run(ctx, history, batch) })
		trimmed[t.table] = n
		if err != nil {
			return trimmed, failed("trim "+t.table, err)
		}
	}
	return trimmed, nil
}

// inBatches repeats a statement, each time in a transaction of its own, until it finds less than a batch.
func inBatches(ctx context.Context, batch int32, run func(context.Context) (int64, error)) (total int64, err error) {
	for {
		n, err := run(ctx)
		total += n
		if err != nil || n < int64(batch) {
			return total, err
		}
	}
}

// TableSize says what a table takes, its partitions included.
type TableSize struct {
	Table      string `json:"name"`
	Bytes      int64  `json:"bytes"` // without indexes
	IndexBytes int64  `json:"index_bytes"`
	LiveRows   int64  `json:"live_rows"` // estimated
	DeadRows   int64  `json:"dead_rows"` // estimated; not vacuumed yet
}

// TableSizes measures the index's tables, the largest first.
func (x *Index) TableSizes(ctx context.Context) (sizes []TableSize, err error) {
	defer x.observe("table_sizes", &err)()
	b, err := x.queries.TableSizes(ctx)
	if err != nil {
		return nil, failed("measure tables", err)
	}
	if err := json.Unmarshal(b, &sizes); err != nil {
		return nil, fmt.Errorf("read the sizes of tables: %w", err)
	}
	return sizes, nil
}
