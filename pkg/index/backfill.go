// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
)

// CreateBackfill starts a backfill: it is running, and waits for a driver. Bucket, prefix, bounds, throttle, estimate and cursor
// are taken from the argument.
func (x *Index) CreateBackfill(ctx context.Context, backfill Backfill) (created Backfill, err error) {
	defer x.observe("create_backfill", &err)()
	if backfill.Bucket == "" || backfill.ObjectsPerSecond < 0 || !storable(backfill.Prefix) {
		return Backfill{}, fault.New(fault.Invalid, "a backfill wants a bucket, a valid prefix and a throttle of zero or more")
	}
	estimate, err := json.Marshal(backfill.Estimate)
	if err != nil {
		return Backfill{}, fault.Wrap(fault.Invalid, err)
	}
	row, err := x.queries.InsertBackfill(ctx, db.InsertBackfillParams{
		Bucket:           backfill.Bucket,
		Prefix:           backfill.Prefix,
		ModifiedAfter:    timeOrNil(backfill.ModifiedAfter),
		ModifiedBefore:   timeOrNil(backfill.ModifiedBefore),
		ObjectsPerSecond: int32(backfill.ObjectsPerSecond),
		Estimate:         estimate,
		Cursor:           backfill.Cursor,
	})
	if err != nil {
		return Backfill{}, failed("create a backfill", err)
	}
	return backfillOf(row)
}

// Backfill returns one backfill; fault.NotFound when there is none of that id.
func (x *Index) Backfill(ctx context.Context, id BackfillID) (backfill Backfill, err error) {
	defer x.observe("backfill", &err)()
	rows, err := x.queries.BackfillByID(ctx, int64(id))
	if err != nil {
		return Backfill{}, failed("read a backfill", err)
	}
	if len(rows) == 0 {
		return Backfill{}, fault.New(fault.NotFound, "there is no backfill %d", id)
	}
	return backfillOf(rows[0].Backfill)
}

// Backfills returns a page of backfills, newest first, and the token of the next page; empty: this was the last.
func (x *Index) Backfills(ctx context.Context, pageSize int, pageToken string) (backfills []Backfill, next string, err error) {
	defer x.observe("backfills", &err)()
	size, before, err := page(pageSize, pageToken)
	if err != nil {
		return nil, "", err
	}
	rows, err := x.queries.BackfillPage(ctx, db.BackfillPageParams{Before: before, PageSize: int32(size + 1)})
	if err != nil {
		return nil, "", failed("list backfills", err)
	}
	if len(rows) > size {
		rows = rows[:size]
		next = strconv.FormatInt(rows[size-1].Backfill.ID, 10)
	}
	for _, row := range rows {
		b, err := backfillOf(row.Backfill)
		if err != nil {
			return nil, "", err
		}
		backfills = append(backfills, b)
	}
	return backfills, next, nil
}

// SetBackfillState pauses, resumes, ends or fails a backfill, with a reason for the last. Its driver learns of it at its next
// step. One that is done stays so: fault.Conflict.
func (x *Index) SetBackfillState(ctx context.Context, id BackfillID, state BackfillState, reason string) (backfill Backfill, err error) {
	defer x.observe("set_backfill_state", &err)()
	n, err := x.queries.SetBackfillState(ctx, db.SetBackfillStateParams{ID: int64(id), State: string(state), Reason: clean(reason)})
	if err != nil {
		return Backfill{}, failed(fmt.Sprintf("make backfill %d %s", id, state), err)
	}
	backfill, err = x.Backfill(ctx, id)
	if err == nil && n == 0 && state != BackfillDone {
		return backfill, fault.New(fault.Conflict, "backfill %d is done", id)
	}
	return backfill, err
}

// ClaimBackfill leases the running backfill that has waited longest for a driver; nil when none waits.
func (x *Index) ClaimBackfill(ctx context.Context, duration time.Duration) (lease *BackfillLease, err error) {
	defer x.observe("claim_backfill", &err)()
	id, err := newLeaseID()
	if err != nil {
		return nil, err
	}
	ids, err := x.queries.ClaimBackfill(ctx, db.ClaimBackfillParams{Lease: string(id), Lifetime: interval(duration)})
	if err != nil {
		return nil, failed("claim a backfill", err)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	backfill, err := x.Backfill(ctx, BackfillID(ids[0]))
	if err != nil {
		return nil, err
	}
	return &BackfillLease{ID: id, Backfill: backfill, Duration: duration}, nil
}

// AdvanceBackfill records a step and renews the lease. The answer is the backfill as it is now: a driver stops when it is not
// running any more. fault.Conflict: the lease is another driver's by now, and nothing was recorded.
func (x *Index) AdvanceBackfill(ctx context.Context, lease *BackfillLease, step BackfillStep) (backfill Backfill, err error) {
	defer x.observe("advance_backfill", &err)()
	n, err := x.queries.AdvanceBackfill(ctx, db.AdvanceBackfillParams{
		ID:       int64(lease.Backfill.ID),
		Lease:    string(lease.ID),
		Lifetime: interval(lease.Duration),
		Cursor:   step.Cursor,
		Objects:  step.Objects,
		Bytes:    step.Bytes,
		Done:     step.Done,
	})
	if err != nil {
		return Backfill{}, failed("advance a backfill", err)
	}
	if n == 0 {
		return Backfill{}, fault.New(fault.Conflict, "another driver has backfill %d", lease.Backfill.ID)
	}
	return x.Backfill(ctx, lease.Backfill.ID)
}

// ReleaseBackfill lets another driver go on at once; that another one has it already is no error.
func (x *Index) ReleaseBackfill(ctx context.Context, lease *BackfillLease) (err error) {
	defer x.observe("release_backfill", &err)()
	_, err = x.queries.ReleaseBackfill(ctx, db.ReleaseBackfillParams{ID: int64(lease.Backfill.ID), Lease: string(lease.ID)})
	return failed("release a backfill", err)
}

func backfillOf(b db.Backfill) (Backfill, error) {
	var estimate BackfillEstimate
	if err := json.Unmarshal(b.Estimate, &estimate); err != nil {
		return Backfill{}, fmt.Errorf("estimate of backfill %d: %w", b.ID, err)
	}
	return Backfill{
		ID:               BackfillID(b.ID),
		Bucket:           b.Bucket,
		Prefix:           b.Prefix,
		ModifiedAfter:    timeOf(b.ModifiedAfter),
		ModifiedBefore:   timeOf(b.ModifiedBefore),
		ObjectsPerSecond: int(b.ObjectsPerSecond),
		State:            BackfillState(b.State),
		Reason:           b.Reason,
		Estimate:         estimate,
		Cursor:           b.Cursor,
		ObjectsDone:      b.ObjectsDone,
		BytesDone:        b.BytesDone,
		CreatedAt:        b.CreatedAt.UTC(),
		UpdatedAt:        b.UpdatedAt.UTC(),
	}, nil
}
