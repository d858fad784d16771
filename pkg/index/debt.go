// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Debt says how much there is of an organization's signal, and how much of it waits for compaction: segments of level 0.
type Debt struct {
	Organization lake.Organization
	Signal       lake.Signal
	Segments     int64
	Bytes        int64 // sidecars included
	Rows         int64
	Rollups      Count // what there is besides, of all resolutions
	DebtSegments int64
	DebtBytes    int64 // sidecars included
	DebtWindows  int64
	OldestDebt   time.Time // when the oldest segment of level 0 came; zero: there is none
}

// WindowCursor is a place in the list of windows with debt; zero: its beginning.
type WindowCursor struct {
	Organization lake.Organization
	Signal       lake.Signal
	Window       lake.Window
}

// WindowDebt is a window with segments that compaction may want to look at.
type WindowDebt struct {
	Organization lake.Organization
	Signal       lake.Signal
	Window       lake.Window // the segments'
	Segments     int64       // those of level 0, and small ones
	Fresh        int64       // those of level 0
	Bytes        int64       // without sidecars
}

// Cursor is the place after a window.
func (w WindowDebt) Cursor() WindowCursor {
	return WindowCursor{Organization: w.Organization, Signal: w.Signal, Window: w.Window}
}

// StaleQuery asks for windows whose segments lack a field rule or are of an old format.
type StaleQuery struct {
	Organization lake.Organization
	Signal       lake.Signal
	Before       time.Time // the windows ended by then
	MissingRule  string    // empty: no rule is asked for
	FormatBelow  int       // zero: no format is asked for
	Limit        int       // zero: 1,000
}

// CompactionDebt counts segments and those that wait for compaction, of an organization or of all (empty). Ordered by
// organization and signal.
func (x *Index) CompactionDebt(ctx context.Context, org lake.Organization) (debts []Debt, err error) {
	defer x.observe("compaction_debt", &err)()
	totals, err := x.queries.Totals(ctx, string(org))
	if err != nil {
		return nil, failed("count segments", err)
	}
	open, err := x.queries.Debts(ctx, string(org))
	if err != nil {
		return nil, failed("count segments that wait for compaction", err)
	}
	type place struct {
		organization string
		signal       int16
	}
	waiting := make(map[place]db.DebtsRow, len(open))
	for _, d := range open {
		waiting[place{d.Organization, d.Signal}] = d
	}
	rollups := make(map[place]Count)
	for _, t := range totals {
		if t.Signal > rollupPlaces {
			rollups[place{t.Organization, t.Signal - rollupPlaces}] = Count{t.Segments, t.RowCount, t.Bytes}
		}
	}
	for _, t := range totals {
		if t.Signal > rollupPlaces {
			continue
		}
		d, indebted := waiting[place{t.Organization, t.Signal}]
		debt := Debt{
			Organization: lake.Organization(t.Organization),
			Signal:       lake.Signal(t.Signal),
			Segments:     t.Segments,
			Bytes:        t.Bytes,
			Rows:         t.RowCount,
			Rollups:      rollups[place{t.Organization, t.Signal}],
			DebtSegments: d.Segments,
			DebtBytes:    d.Bytes,
			DebtWindows:  d.Windows,
		}
		if indebted {
			debt.OldestDebt = d.Oldest.UTC()
		}
		debts = append(debts, debt)
	}
	return debts, nil
}

// WindowsWithDebt lists windows that hold segments of level 0, or more than one small segment (below 64 MiB, in a window shorter
// than a day), by signal, organization and window, from the one after the cursor. Small segments that are settled, one of each shard,
// are no debt. A limit of zero: 1,000. Fewer than the limit: there are no more.
func (x *Index) WindowsWithDebt(ctx context.Context, after WindowCursor, limit int) (windows []WindowDebt, err error) {
	defer x.observe("windows_with_debt", &err)()
	size := int(pageSize(limit))
	for signal := max(after.Signal, lake.SignalLogs); signal <= lake.SignalSpans && len(windows) < size; signal++ {
		if signal != after.Signal {
			after = WindowCursor{Signal: signal}
		}
		rows, err := x.queries.WindowsWithDebt(ctx, db.WindowsWithDebtParams{
			Signal:       int16(signal),
			Organization: string(after.Organization),
			WindowStart:  startOf(after.Window),
			WindowLength: int64(after.Window.Length),
			PageSize:     int32(size - len(windows)),
		})
		if err != nil {
			return nil, failed("list windows with debt", err)
		}
		for _, r := range rows {
			windows = append(windows, WindowDebt{
				Organization: lake.Organization(r.Organization),
				Signal:       signal,
				Window:       windowOf(r.WindowStart, r.WindowLength),
				Segments:     r.Segments,
				Fresh:        r.Fresh,
				Bytes:        r.Bytes,
			})
		}
	}
	return windows, nil
}

// StaleWindows lists windows that ended and hold segments which lack a field rule or are of an old format, oldest first; its
// counts are of such segments.
func (x *Index) StaleWindows(ctx context.Context, query StaleQuery) (windows []WindowDebt, err error) {
	defer x.observe("stale_windows", &err)()
	if query.Signal == lake.SignalUnknown || query.Signal > lake.SignalSpans {
		return nil, fault.New(fault.Invalid, "stale windows of signal %s", query.Signal)
	}
	rows, err := x.queries.StaleWindows(ctx, db.StaleWindowsParams{
		Organization: string(query.Organization),
		Signal:       int16(query.Signal),
		Before:       bounded(query.Before),
		FormatBelow:  int32(query.FormatBelow),
		Rule:         query.MissingRule,
		PageSize:     pageSize(query.Limit),
	})
	if err != nil {
		return nil, failed("list stale windows", err)
	}
	for _, r := range rows {
		windows = append(windows, WindowDebt{
			Organization: query.Organization,
			Signal:       query.Signal,
			Window:       windowOf(r.WindowStart, r.WindowLength),
			Segments:     r.Segments,
			Fresh:        r.Fresh,
			Bytes:        r.Bytes,
		})
	}
	return windows, nil
}
