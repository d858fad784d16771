// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// SnapshotInfo says what a snapshot holds.
type SnapshotInfo struct {
	// StartedAt is the database's time before the first row was read.
	StartedAt time.Time
	Rows      int64
}

// snapshotPage is how many rows are read, and written, at once.
const snapshotPage = 2000

// Snapshot reads an organization's part of the index in pages and hands each to write: rows of one table, a JSON document a line. No
// transaction is open over the pages, so the snapshot is of no single moment: the records since an hour before its start, adopted over
// it, make it exact, since a transaction is shorter than that. Live segments are read before removed ones, and both before what deletes
// say of them: what changes meanwhile is seen in the later place.
func (x *Index) Snapshot(ctx context.Context, org lake.Organization, write func(ctx context.Context, table string, rows []byte) error) (info SnapshotInfo, err error) {
	defer x.observe("snapshot", &err)()
	if info.StartedAt, err = x.queries.Now(ctx); err != nil {
		return info, failed("read the index's clock", err)
	}
	s := &snapshot{q: x.queries, org: string(org), write: write}
	for _, table := range []func(context.Context) error{s.leases, s.live, s.removed, s.receipts, s.deletes, s.runs, s.audit, s.versions, s.rollups} {
		if err := table(ctx); err != nil {
			return info, failed("read a snapshot", err)
		}
	}
	info.Rows = s.rows
	return info, nil
}

// SnapshotWritten notes that the bucket has a complete snapshot.
func (x *Index) SnapshotWritten(ctx context.Context, org lake.Organization, startedAt time.Time) (err error) {
	defer x.observe("snapshot_written", &err)()
	return failed("note a snapshot", x.queries.SnapshotWritten(ctx, db.SnapshotWrittenParams{Organization: string(org), StartedAt: startedAt.UTC()}))
}

type snapshot struct {
	q     *db.Queries
	org   string
	write func(ctx context.Context, table string, rows []byte) error
	rows  int64
}

// put writes a page of a table.
func (s *snapshot) put(ctx context.Context, table string, lines [][]byte) error {
	if len(lines) == 0 {
		return nil
	}
	var page []byte
	for _, line := range lines {
		page = append(append(page, line...), '\n')
	}
	s.rows += int64(len(lines))
	return s.write(ctx, table, page)
}

// paged reads pages until one is not full. page returns how many rows it read.
func paged(page func() (int, error)) error {
	for {
		if n, err := page(); err != nil || n < snapshotPage {
			return err
		}
	}
}

func (s *snapshot) leases(ctx context.Context) error {
	after := ""
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotLeases(ctx, db.SnapshotLeasesParams{Organization: s.org, After: after, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, after = append(lines, row.Line), row.ID
		}
		return len(rows), s.put(ctx, "leases", lines)
	})
}

func (s *snapshot) live(ctx context.Context) error {
	for _, place := range places() {
		window, after := time.Time{}, int64(0)
		err := paged(func() (int, error) {
			rows, err := s.q.SnapshotSegments(ctx, db.SnapshotSegmentsParams{
				Organization: s.org, Signal: place, AfterWindow: window, AfterID: after, PageSize: snapshotPage,
			})
			if err != nil {
				return 0, err
			}
			var lines [][]byte
			for _, row := range rows {
				lines, window, after = append(lines, row.Line), row.WindowStart, row.ID
			}
			return len(rows), s.put(ctx, "segments", lines)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) removed(ctx context.Context) error {
	removal, after := time.Time{}, int64(0)
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotRemoved(ctx, db.SnapshotRemovedParams{
			Organization: s.org, AfterRemoval: removal, AfterID: after, PageSize: snapshotPage,
		})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, removal, after = append(lines, row.Line), row.RemovedAt, row.ID
		}
		return len(rows), s.put(ctx, "segments", lines)
	})
}

func (s *snapshot) receipts(ctx context.Context) error {
	after := int64(0)
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotReceipts(ctx, db.SnapshotReceiptsParams{Organization: s.org, After: after, PageSize: snapshotPage})
		var lines [][]byte
		for _, row := range rows {
			lines, after = append(lines, row.Line), row.ID
		}
		if err != nil {
			return 0, err
		}
		return len(rows), s.put(ctx, "receipts", lines)
	})
}

func (s *snapshot) deletes(ctx context.Context) error {
	after := int64(0)
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotDeletes(ctx, db.SnapshotDeletesParams{Organization: s.org, After: after, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, after = append(lines, row.Line), row.ID
		}
		if err := s.put(ctx, "deletes", lines); err != nil {
			return 0, err
		}
		for _, row := range rows {
			if err := s.deleted(ctx, row.ID); err != nil {
				return 0, err
			}
		}
		return len(rows), nil
	})
}

// deleted reads what a delete touched.
func (s *snapshot) deleted(ctx context.Context, id int64) error {
	source, segment := int64(0), int64(-1)
	err := paged(func() (int, error) {
		rows, err := s.q.SnapshotDeleteRows(ctx, db.SnapshotDeleteRowsParams{DeleteID: id, AfterSource: source, AfterSegment: segment, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, source, segment = append(lines, row.Line), row.Source, row.Segment
		}
		return len(rows), s.put(ctx, "delete_rows", lines)
	})
	if err != nil {
		return err
	}
	after := int64(0)
	err = paged(func() (int, error) {
		rows, err := s.q.SnapshotDeleteSegments(ctx, db.SnapshotDeleteSegmentsParams{DeleteID: id, After: after, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, after = append(lines, row.Line), row.Segment
		}
		return len(rows), s.put(ctx, "delete_segments", lines)
	})
	if err != nil {
		return err
	}
	after = 0
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotDeleteSources(ctx, db.SnapshotDeleteSourcesParams{DeleteID: id, After: after, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, after = append(lines, row.Line), row.Receipt
		}
		return len(rows), s.put(ctx, "delete_sources", lines)
	})
}

func (s *snapshot) runs(ctx context.Context) error {
	after := int64(0)
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotRuns(ctx, db.SnapshotRunsParams{Organization: s.org, After: after, PageSize: snapshotPage})
		if err != nil || len(rows) == 0 {
			return 0, err
		}
		var ids []int64
		var lines [][]byte
		for _, row := range rows {
			ids, lines, after = append(ids, row.ID), append(lines, row.Line), row.ID
		}
		if err := s.put(ctx, "retention_runs", lines); err != nil {
			return 0, err
		}
		leases, err := s.q.SnapshotRunLeases(ctx, ids)
		if err != nil {
			return 0, err
		}
		return len(rows), s.put(ctx, "retention_leases", leases)
	})
}

// audit reads the organization's entries, which are a chain of their own.
func (s *snapshot) audit(ctx context.Context) error {
	after := int64(0)
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotAudit(ctx, db.SnapshotAuditParams{Organization: s.org, After: after, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, after = append(lines, row.Line), row.ID
		}
		return len(rows), s.put(ctx, "audit_log", lines)
	})
}

func (s *snapshot) versions(ctx context.Context) error {
	signal, hour := int16(0), epoch()
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotVersions(ctx, db.SnapshotVersionsParams{Organization: s.org, AfterSignal: signal, AfterHour: hour, PageSize: snapshotPage})
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines, signal, hour = append(lines, row.Line), row.Signal, row.Hour
		}
		return len(rows), s.put(ctx, "window_versions", lines)
	})
}

// rollups are read after the versions: one whose window changed in between has the version that it was made from, and not the one before.
func (s *snapshot) rollups(ctx context.Context) error {
	after := db.SnapshotRollupsParams{Organization: s.org, AfterWindow: epoch(), PageSize: snapshotPage}
	return paged(func() (int, error) {
		rows, err := s.q.SnapshotRollups(ctx, after)
		if err != nil {
			return 0, err
		}
		var lines [][]byte
		for _, row := range rows {
			lines = append(lines, row.Line)
			after.AfterSignal, after.AfterResolution, after.AfterWindow, after.AfterLength = row.Signal, row.Resolution, row.WindowStart, row.WindowLength
		}
		return len(rows), s.put(ctx, "rollups", lines)
	})
}

// places are the numbers under which segments stand: those of rows, then those of rollups.
func places() []int16 {
	var all []int16
	for _, resolution := range []time.Duration{0, 1} {
		for signal := lake.SignalLogs; signal <= lake.SignalSpans; signal++ {
			all = append(all, placeOf(signal, resolution))
		}
	}
	return all
}
