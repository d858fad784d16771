// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// The states of a lease.
const (
	leaseLive      = "live"
	leaseCommitted = "committed"
	leaseReleased  = "released"
	leaseExpired   = "expired"
)

// Renew makes a lease live for its duration from now on; fault.Conflict when it has ended.
func (x *Index) Renew(ctx context.Context, lease lake.LeaseID) (err error) {
	defer x.observe("renew", &err)()
	n, err := x.queries.RenewLease(ctx, string(lease))
	if err != nil {
		return failed("renew a lease", err)
	}
	if n == 0 {
		return fault.New(fault.Conflict, "lease %s has ended", lease)
	}
	return nil
}

// Release gives all tasks of a lease back, with the cause. The kind of the cause says whom to blame: fault.Canceled nobody
// (the tasks are free at once and nothing is counted), fault.Unavailable, fault.Timeout and fault.Conflict nobody either (they
// back off), any other one the tasks: a batch is halved, a task that is alone comes nearer to being buried. Releasing twice is
// no error.
func (x *Index) Release(ctx context.Context, lease *lake.Lease, cause error) (err error) {
	defer x.observe("release", &err)()
	err = x.inTx(ctx, func(q *db.Queries) error {
		row, err := lockLease(ctx, q, lease.ID)
		switch {
		case err != nil:
			return err
		case row.State == leaseReleased:
			return nil
		case row.State != leaseLive:
			return fault.New(fault.Conflict, "it is %s", row.State)
		}
		return endWithout(ctx, q, row, leaseReleased, accuse(cause))
	})
	if err != nil {
		return failed(fmt.Sprintf("release lease %s", lease.ID), err)
	}
	x.bell.announce(ctx, lease.Kind)
	return nil
}

// endExpired ends leases that were not renewed in time. Whoever claims does this first; each lease is ended by one of them.
func (x *Index) endExpired(ctx context.Context) error {
	ids, err := x.queries.ExpiredLeases(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		err := x.inTx(ctx, func(q *db.Queries) error {
			rows, err := q.LockExpiredLease(ctx, id)
			if err != nil || len(rows) == 0 {
				return err
			}
			return endWithout(ctx, q, db.LockLeaseRow(rows[0]), leaseExpired, died(id))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lockLease locks a lease's row; fault.Conflict when there is none.
func lockLease(ctx context.Context, q *db.Queries, id lake.LeaseID) (db.LockLeaseRow, error) {
	row, err := q.LockLease(ctx, string(id))
	if errors.Is(err, pgx.ErrNoRows) {
		return row, fault.New(fault.Conflict, "there is no such lease")
	}
	return row, err
}

// endWithout ends a lease without a commit: its tasks go back, except those whose receipts want no work any more.
func endWithout(ctx context.Context, q *db.Queries, lease db.LockLeaseRow, state string, why accusation) error {
	tasks, err := q.LockLeaseTasks(ctx, lease.ID)
	if err != nil {
		return err
	}
	states, err := lockStates(ctx, q, receiptsWorkedOn(tasks))
	if err != nil {
		return err
	}
	wanted, unwanted := split(tasks, states)
	if err := finishTasks(ctx, q, lease.ID, unwanted); err != nil {
		return err
	}
	if err := giveBack(ctx, q, lease.ID, why.judge(wanted, lease)); err != nil {
		return err
	}
	return endLease(ctx, q, lease.ID, state, nil)
}

func receiptsWorkedOn(tasks []db.LockLeaseTasksRow) []int64 {
	var ids []int64
	for _, t := range tasks {
		if t.Receipt != 0 {
			ids = append(ids, t.Receipt)
		}
	}
	return ids
}

// lockStates locks receipts and returns their states. So whoever supersedes one of them does it before, and we see it, or after
// us, and sees what we did.
func lockStates(ctx context.Context, q *db.Queries, ids []int64) (map[int64]lake.ReceiptState, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	rows, err := q.LockReceipts(ctx, ids)
	if err != nil {
		return nil, err
	}
	states := make(map[int64]lake.ReceiptState, len(rows))
	for _, r := range rows {
		states[r.ID] = lake.ReceiptState(r.State)
	}
	return states, counted("receipts", len(ids), int64(len(rows)))
}

// split tells tasks that are still wanted from those whose receipts were superseded meanwhile.
func split(tasks []db.LockLeaseTasksRow, states map[int64]lake.ReceiptState) (wanted []db.LockLeaseTasksRow, unwanted []int64) {
	for _, t := range tasks {
		if t.Receipt != 0 && states[t.Receipt] != lake.ReceiptPending {
			unwanted = append(unwanted, t.ID)
			continue
		}
		wanted = append(wanted, t)
	}
	return wanted, unwanted
}

func finishTasks(ctx context.Context, q *db.Queries, lease string, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	n, err := q.FinishTasks(ctx, db.FinishTasksParams{Ids: ids, Lease: lease})
	if err != nil {
		return err
	}
	return counted("tasks", len(ids), n)
}

// giveBack writes verdicts, and charges the receipts of the tasks.
func giveBack(ctx context.Context, q *db.Queries, lease string, verdicts []verdict) error {
	if len(verdicts) == 0 {
		return nil
	}
	tasks := db.GiveBackTasksParams{Lease: lease}
	var receipts db.ChargeReceiptsParams
	for _, v := range verdicts {
		tasks.Ids = append(tasks.Ids, v.task.ID)
		tasks.States = append(tasks.States, v.state())
		tasks.Suspects = append(tasks.Suspects, v.suspects)
		tasks.Attempts = append(tasks.Attempts, v.attempts)
		tasks.Failures = append(tasks.Failures, v.failures)
		tasks.Causes = append(tasks.Causes, v.cause)
		tasks.Delays = append(tasks.Delays, int64(v.delay))
		tasks.Anew = append(tasks.Anew, v.anew)
		if v.task.Receipt != 0 && v.attempts > v.task.Attempts {
			receipts.Ids = append(receipts.Ids, v.task.Receipt)
			receipts.Causes = append(receipts.Causes, v.cause)
			receipts.Buried = append(receipts.Buried, v.buried)
		}
	}
	n, err := q.GiveBackTasks(ctx, tasks)
	if err != nil {
		return err
	}
	if err := counted("tasks", len(verdicts), n); err != nil || len(receipts.Ids) == 0 {
		return err
	}
	return q.ChargeReceipts(ctx, receipts)
}

func endLease(ctx context.Context, q *db.Queries, lease, state string, edit []byte) error {
	if edit == nil {
		edit = []byte{}
	}
	n, err := q.EndLease(ctx, db.EndLeaseParams{ID: lease, State: state, Edit: edit})
	if err != nil {
		return err
	}
	return counted("leases", 1, n)
}

// counted makes a difference of affected rows a conflict.
func counted(what string, want int, got int64) error {
	if int64(want) != got {
		return fault.New(fault.Conflict, "%d of %d %s are as they were", got, want, what)
	}
	return nil
}
