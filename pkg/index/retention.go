// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Count counts segments.
type Count struct {
	Segments int64
	Rows     int64
	Bytes    int64 // sidecars included
}

// DueQuery asks for live segments whose windows ended by a time, oldest first.
type DueQuery struct {
	Organization lake.Organization
	Signal       lake.Signal
	Resolution   time.Duration // of rollups; zero: of rows as they came
	Before       time.Time
	Limit        int // zero: 1,000
	// After is the last segment of the page before; nil: the first page is asked for.
	After *lake.Segment
}

// DueSegments lists live segments all of whose rows may be past a retention.
func (x *Index) DueSegments(ctx context.Context, query DueQuery) (segments []lake.Segment, err error) {
	defer x.observe("due_segments", &err)()
	p := db.DueSegmentsParams{
		Organization: string(query.Organization),
		Signal:       placeOf(query.Signal, query.Resolution),
		Resolution:   int64(query.Resolution),
		Before:       query.Before.UTC(),
		PageSize:     pageSize(query.Limit),
	}
	if query.After != nil {
		p.AfterWindow, p.AfterID = query.After.Window.Start.UTC(), int64(query.After.ID)
	}
	rows, err := x.queries.DueSegments(ctx, p)
	if err != nil {
		return nil, failed("list segments that are due", err)
	}
	for _, r := range rows {
		segments = append(segments, segmentOf(r.Segment))
	}
	return segments, nil
}

// RetentionRun is the proof of one run of retention: what was due, then removed from the index, then deleted from the bucket, then seen
// to be gone.
type RetentionRun struct {
	ID               int64
	Organization     lake.Organization
	Signal           lake.Signal
	Resolution       time.Duration // of rollups; zero: of rows as they came
	Cutoff           time.Time     // windows that ended by then were due
	Selector         string        // that the policy is limited to; empty: none
	StartedAt        time.Time
	FinishedAt       time.Time // zero: it is going on
	Due              Count
	Removed          Count
	Deleted          Count
	Verified         Count
	WindowsToRewrite int64
}

// BeginRetention notes what is due and returns the run's number.
func (x *Index) BeginRetention(ctx context.Context, run RetentionRun) (id int64, err error) {
	defer x.observe("begin_retention", &err)()
	row, err := x.queries.InsertRetentionRun(ctx, db.InsertRetentionRunParams{
		Organization:     string(run.Organization),
		Signal:           placeOf(run.Signal, run.Resolution),
		Resolution:       int64(run.Resolution),
		Cutoff:           bounded(run.Cutoff),
		Selector:         run.Selector,
		DueSegments:      run.Due.Segments,
		DueRows:          run.Due.Rows,
		DueBytes:         run.Due.Bytes,
		WindowsToRewrite: run.WindowsToRewrite,
	})
	return row.ID, failed("begin a run of retention", err)
}

// RetentionRemoved says that a lease works for a run: what its commit removes counts as removed by the run, in the commit's own
// transaction, and what is swept of that later counts as gone. more is what turned out to be due besides; finished: the lease is the last.
func (x *Index) RetentionRemoved(ctx context.Context, id int64, lease lake.LeaseID, more Count, finished bool) (err error) {
	defer x.observe("retention_removed", &err)()
	err = x.inTx(ctx, func(q *db.Queries) error {
		if _, err := q.InsertRetentionLease(ctx, db.InsertRetentionLeaseParams{Lease: string(lease), Run: id}); err != nil {
			return err
		}
		n, err := q.AdvanceRetentionRun(ctx, db.AdvanceRetentionRunParams{
			ID: id, DueSegments: more.Segments, DueRows: more.Rows, DueBytes: more.Bytes, Finished: finished,
		})
		if err == nil && n == 0 {
			return fault.New(fault.NotFound, "there is no run %d of retention", id)
		}
		return err
	})
	return failed("note a lease of a run of retention", err)
}

// RetentionRuns returns a page of runs, newest first, and the token of the next page; empty: this was the last.
func (x *Index) RetentionRuns(ctx context.Context, org lake.Organization, size int, token string) (runs []RetentionRun, next string, err error) {
	defer x.observe("retention_runs", &err)()
	size, before, err := page(size, token)
	if err != nil {
		return nil, "", err
	}
	rows, err := x.queries.RetentionRuns(ctx, db.RetentionRunsParams{Organization: string(org), Before: before, PageSize: int32(size + 1)})
	if err != nil {
		return nil, "", failed("list runs of retention", err)
	}
	for _, r := range rows {
		runs = append(runs, runOf(r.RetentionRun))
	}
	if len(runs) > size {
		runs = runs[:size]
		next = strconv.FormatInt(runs[size-1].ID, 10)
	}
	return runs, next, nil
}

func runOf(r db.RetentionRun) RetentionRun {
	return RetentionRun{
		ID: r.ID, Organization: lake.Organization(r.Organization), Signal: signalAt(r.Signal), Resolution: time.Duration(r.Resolution), Cutoff: r.Cutoff.UTC(),
		Selector:  r.Selector,
		StartedAt: r.StartedAt.UTC(), FinishedAt: timeOf(r.FinishedAt),
		Due:              Count{r.DueSegments, r.DueRows, r.DueBytes},
		Removed:          Count{r.RemovedSegments, r.RemovedRows, r.RemovedBytes},
		Deleted:          Count{r.DeletedSegments, r.DeletedRows, r.DeletedBytes},
		Verified:         Count{r.GoneSegments, r.GoneRows, r.GoneBytes},
		WindowsToRewrite: r.WindowsToRewrite,
	}
}

// lastRun is an organization's newest run; nil: none.
func (x *Index) lastRun(ctx context.Context, org string) (*RetentionRun, error) {
	rows, err := x.queries.RetentionRuns(ctx, db.RetentionRunsParams{Organization: org, Before: math.MaxInt64, PageSize: 1})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	run := runOf(rows[0].RetentionRun)
	return &run, nil
}
