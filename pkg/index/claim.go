// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// MaxBatchTasks is how many tasks one lease may hold, which bounds the transaction that commits it.
const MaxBatchTasks = 5_000

// withDefaults fills in what is zero and refuses what cannot be.
func (b Batch) withDefaults() (Batch, error) {
	if b.MaxBytes == 0 {
		b.MaxBytes = 64 << 20
	}
	if b.MaxTasks == 0 {
		b.MaxTasks = 500
	}
	if b.Duration == 0 {
		b.Duration = time.Minute
	}
	if b.MaxAttempts == 0 {
		b.MaxAttempts = 5
	}
	negative := b.MaxBytes < 0 || b.MaxTasks < 0 || b.Duration < 0 || b.MaxAttempts < 0 || b.MaxWait < 0
	if b.Kind == "" || negative || b.MaxTasks > MaxBatchTasks {
		return b, fault.New(fault.Invalid, "a batch wants a kind, no negative bounds and at most %d tasks", MaxBatchTasks)
	}
	if b.Work != nil && (b.Work.Kind != b.Kind || b.Work.Receipt != 0 || b.Receipt != 0) {
		return b, fault.New(fault.Invalid, "the work asked for is of kind %q and receipt %d, the batch of kind %q", b.Work.Kind, b.Work.Receipt, b.Kind)
	}
	return b, nil
}

// Claim leases a batch of one organization's tasks; nil when there is nothing to do now. It never waits for another claim.
func (x *Index) Claim(ctx context.Context, batch Batch) (lease *lake.Lease, err error) {
	defer x.observe("claim", &err)()
	b, err := batch.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := x.endExpired(ctx); err != nil {
		return nil, failed("end expired leases", err)
	}
	id, err := newLeaseID()
	if err != nil {
		return nil, err
	}
	rows, err := x.claim(ctx, id, b)
	if err != nil {
		return nil, failed("claim tasks", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	lease = leaseOf(id, b, rows)
	if lease.Receipts, err = x.receiptsOf(ctx, lease.Tasks); err != nil {
		return nil, failed("read the receipts of a claim", err) // the lease will expire
	}
	return lease, nil
}

// claim tries groups in the order of fairness: another claim may have taken a group's last tasks since the order was read.
func (x *Index) claim(ctx context.Context, id lake.LeaseID, b Batch) ([]db.ClaimTasksRow, error) {
	if b.Receipt != 0 {
		return x.claimReceipt(ctx, id, b)
	}
	if b.Work != nil {
		return x.claimWork(ctx, id, b)
	}
	groups, err := x.queries.ClaimableGroups(ctx, db.ClaimableGroupsParams{
		Kind:     string(b.Kind),
		MinBytes: b.MinBytes,
		MaxWait:  interval(b.MaxWait),
		MaxTasks: int64(b.MaxTasks),
	})
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		rows, err := x.queries.ClaimTasks(ctx, db.ClaimTasksParams{
			Kind:         string(b.Kind),
			Organization: g.Organization,
			Signal:       g.Signal,
			Suspects:     g.Suspects,
			MaxTasks:     int64(b.MaxTasks),
			MaxBytes:     b.MaxBytes,
			MinBytes:     b.MinBytes,
			MaxWait:      interval(b.MaxWait),
			Lease:        string(id),
			Duration:     int64(b.Duration),
			Lifetime:     interval(b.Duration),
			MaxAttempts:  int32(b.MaxAttempts),
		})
		if err != nil || len(rows) > 0 {
			return rows, err
		}
	}
	return nil, nil
}

func (x *Index) claimReceipt(ctx context.Context, id lake.LeaseID, b Batch) ([]db.ClaimTasksRow, error) {
	rows, err := x.queries.ClaimReceipt(ctx, db.ClaimReceiptParams{
		Receipt:     int64(b.Receipt),
		Kind:        string(b.Kind),
		Lease:       string(id),
		Duration:    int64(b.Duration),
		Lifetime:    interval(b.Duration),
		MaxAttempts: int32(b.MaxAttempts),
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return []db.ClaimTasksRow{db.ClaimTasksRow(rows[0])}, nil
}

func (x *Index) claimWork(ctx context.Context, id lake.LeaseID, b Batch) ([]db.ClaimTasksRow, error) {
	rows, err := x.queries.ClaimWork(ctx, db.ClaimWorkParams{
		Kind:         string(b.Kind),
		Organization: string(b.Work.Organization),
		Signal:       int16(b.Work.Signal),
		WindowStart:  startOf(b.Work.Window),
		WindowLength: int64(b.Work.Window.Length),
		Tier:         int32(b.Work.Tier),
		Lease:        string(id),
		Duration:     int64(b.Duration),
		Lifetime:     interval(b.Duration),
		MaxAttempts:  int32(b.MaxAttempts),
	})
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return []db.ClaimTasksRow{db.ClaimTasksRow(rows[0])}, nil
}

func leaseOf(id lake.LeaseID, b Batch, rows []db.ClaimTasksRow) *lake.Lease {
	lease := &lake.Lease{
		ID:           id,
		Kind:         b.Kind,
		Organization: lake.Organization(rows[0].Organization),
		Tasks:        make([]lake.Task, len(rows)),
		Duration:     b.Duration,
		ClaimedAt:    rows[0].ClaimedAt.UTC(),
	}
	for i, row := range rows {
		lease.Tasks[i] = taskOf(row)
	}
	return lease
}

// receiptsOf reads the receipts of ingest tasks, in the order of the tasks.
func (x *Index) receiptsOf(ctx context.Context, tasks []lake.Task) ([]lake.Receipt, error) {
	var ids []int64
	for _, t := range tasks {
		if t.Receipt != 0 {
			ids = append(ids, int64(t.Receipt))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := x.queries.ClaimedReceipts(ctx, ids)
	if err != nil {
		return nil, err
	}
	byID := make(map[lake.ReceiptID]lake.Receipt, len(rows))
	for _, row := range rows {
		receipt, err := receiptOf(row.Receipt)
		if err != nil {
			return nil, err
		}
		receipt.ReceivedAt = row.FirstReceivedAt.UTC()
		byID[receipt.ID] = receipt
	}
	receipts := make([]lake.Receipt, 0, len(ids))
	for _, id := range ids {
		receipts = append(receipts, byID[lake.ReceiptID(id)])
	}
	return receipts, nil
}
