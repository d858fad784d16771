// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// RemovedSegment is a segment whose files are to go.
type RemovedSegment struct {
	ID           lake.SegmentID
	Signal       lake.Signal
	WindowStart  time.Time
	Bucket       string
	Key          string
	Bytes        int64
	SidecarBytes int64
	Rows         int64
	RemovedAt    time.Time
	RemovedBy    lake.LeaseID
}

// Sweepable lists segments that were removed longer than the grace ago, by the database's clock, and whose removal's record has reached
// the bucket: a rebuilt index must not find them live without their files. A limit of zero: 1,000.
func (x *Index) Sweepable(ctx context.Context, org lake.Organization, grace time.Duration, limit int) (segments []RemovedSegment, err error) {
	defer x.observe("sweepable", &err)()
	rows, err := x.queries.Sweepable(ctx, db.SweepableParams{Organization: string(org), Grace: interval(grace), PageSize: pageSize(limit)})
	if err != nil {
		return nil, failed("list segments to be swept", err)
	}
	for _, r := range rows {
		segments = append(segments, RemovedSegment{
			ID: lake.SegmentID(r.ID), Signal: signalAt(r.Signal), WindowStart: r.WindowStart.UTC(), Bucket: r.Bucket, Key: r.Key,
			Bytes: r.Bytes, SidecarBytes: r.SidecarBytes, Rows: r.RowCount, RemovedAt: timeOf(r.RemovedAt), RemovedBy: lake.LeaseID(r.RemovedBy),
		})
	}
	return segments, nil
}

// SweepWaiting counts removed segments that are within their grace.
func (x *Index) SweepWaiting(ctx context.Context, org lake.Organization, grace time.Duration) (count Count, err error) {
	defer x.observe("sweep_waiting", &err)()
	row, err := x.queries.RemovedCounts(ctx, db.RemovedCountsParams{Organization: string(org), Grace: interval(grace)})
	return Count(row), failed("count removed segments", err)
}

// Swept forgets removed segments whose files were deleted and seen to be gone, and tells the runs of retention and the deletes of data that
// they were removed for. Live ones, and ones that are forgotten already, are passed over.
func (x *Index) Swept(ctx context.Context, org lake.Organization, ids []lake.SegmentID) (err error) {
	defer x.observe("swept", &err)()
	if len(ids) == 0 {
		return nil
	}
	err = x.inTx(ctx, func(q *db.Queries) error {
		rows, err := q.SweepSegments(ctx, db.SweepSegmentsParams{Ids: numbers(ids), Organization: string(org)})
		if err != nil || len(rows) == 0 {
			return err
		}
		var gone []int64
		for _, r := range rows {
			gone = append(gone, r.ID)
		}
		if err := q.SweepSources(ctx, gone); err != nil {
			return err
		}
		if err := q.SweepDeleteSegments(ctx, gone); err != nil {
			return err
		}
		return q.CountGone(ctx, goneByLease(rows))
	})
	return failed("forget swept segments", err)
}

func goneByLease(rows []db.SweepSegmentsRow) (p db.CountGoneParams) {
	slices.SortFunc(rows, func(a, b db.SweepSegmentsRow) int { return cmp.Compare(a.RemovedBy, b.RemovedBy) })
	for _, r := range rows {
		last := len(p.Leases) - 1
		if last < 0 || p.Leases[last] != r.RemovedBy {
			p.Leases, p.Segments = append(p.Leases, r.RemovedBy), append(p.Segments, 0)
			p.RowCounts, p.Bytes = append(p.RowCounts, 0), append(p.Bytes, 0)
			last++
		}
		p.Segments[last]++
		p.RowCounts[last] += r.RowCount
		p.Bytes[last] += r.Bytes + r.SidecarBytes
	}
	return p
}

// AbandonedLease is a lease that ended without a commit: whatever is in its folders is nobody's.
type AbandonedLease struct {
	ID      lake.LeaseID
	Kind    lake.TaskKind
	Signal  lake.Signal
	EndedAt time.Time
	Folders []string // bucket/prefix
}

// AbandonedLeases lists leases that ended without a commit longer than the grace ago, oldest first. A limit of zero: 1,000.
func (x *Index) AbandonedLeases(ctx context.Context, org lake.Organization, grace time.Duration, limit int) (leases []AbandonedLease, err error) {
	defer x.observe("abandoned_leases", &err)()
	rows, err := x.queries.AbandonedLeases(ctx, db.AbandonedLeasesParams{Organization: string(org), Grace: interval(grace), PageSize: pageSize(limit)})
	if err != nil {
		return nil, failed("list abandoned leases", err)
	}
	for _, r := range rows {
		leases = append(leases, AbandonedLease{
			ID: lake.LeaseID(r.ID), Kind: lake.TaskKind(r.Kind), Signal: lake.Signal(r.Signal), EndedAt: timeOf(r.EndedAt), Folders: r.Folders,
		})
	}
	return leases, nil
}

// ForgetLeases forgets abandoned leases whose folders are empty.
func (x *Index) ForgetLeases(ctx context.Context, ids []lake.LeaseID) (err error) {
	defer x.observe("forget_leases", &err)()
	return failed("forget leases", x.queries.ForgetLeases(ctx, texts(ids)))
}

func texts[T ~string](ids []T) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}
