// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// OrganizationStatus is what the index knows of an organization at a glance. Segments and debt are CompactionDebt's, requests Costs'.
type OrganizationStatus struct {
	Organization    lake.Organization
	PendingReceipts int64            // counted up to 1,000
	FailedReceipts  int64            // counted up to 1,000
	OldestPending   time.Time        // when the oldest pending receipt came; zero: none is pending
	Buried          map[string]int64 // tasks by kind
	ComparedObjects int64            // written in the last 24 hours
	KnownObjects    int64            // those of them that had a receipt
	AbandonedLeases int64            // that ended without a commit and were not swept
	Removed         Count            // segments whose files are still to go
	Missing         int64            // live segments whose file is gone
	RecordsToShip   int64
	LastSnapshot    time.Time     // zero: never
	LastRetention   *RetentionRun // nil: none ran
	DeletesUnderWay int64
	RawBytes        int64 // of source objects with a receipt 'done' that are kept
}

// Status reads the status of an organization, or of all that have or had work (empty), by name.
func (x *Index) Status(ctx context.Context, org lake.Organization) (all []OrganizationStatus, err error) {
	defer x.observe("status", &err)()
	names, err := x.queries.StatusOrganizations(ctx, string(org))
	if err != nil {
		return nil, failed("list organizations", err)
	}
	for _, name := range names {
		one, err := x.statusOf(ctx, name)
		if err != nil {
			return nil, failed("read the status of "+name, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (x *Index) statusOf(ctx context.Context, org string) (OrganizationStatus, error) {
	row, err := x.queries.StatusOf(ctx, org)
	if err != nil {
		return OrganizationStatus{}, err
	}
	s := OrganizationStatus{
		Organization: lake.Organization(org), PendingReceipts: row.Pending, FailedReceipts: row.Failed, OldestPending: zeroIfEpoch(row.OldestPending),
		ComparedObjects: row.Compared, KnownObjects: row.Known, AbandonedLeases: row.AbandonedLeases,
		Removed: Count{row.RemovedSegments, row.RemovedRows, row.RemovedBytes}, Missing: row.Missing, RecordsToShip: row.Records,
		LastSnapshot: zeroIfEpoch(row.LastSnapshot), DeletesUnderWay: row.Deletes,
	}
	if s.RawBytes, err = x.queries.RawBytes(ctx, org); err != nil {
		return s, err
	}
	if s.LastRetention, err = x.lastRun(ctx, org); err != nil {
		return s, err
	}
	s.Buried, err = x.buried(ctx, x.queries, org)
	return s, err
}

func (x *Index) buried(ctx context.Context, q *db.Queries, org string) (map[string]int64, error) {
	rows, err := q.BuriedByKind(ctx, org)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	kinds := make(map[string]int64, len(rows))
	for _, r := range rows {
		kinds[r.Kind] = r.Tasks
	}
	return kinds, nil
}
