// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

var errSoon = fault.New(fault.Unavailable, "index is being built")

type Index struct{}

func Migrate(ctx context.Context, url string) error           { return errSoon }
func Open(ctx context.Context, config Config) (*Index, error) { return nil, errSoon }
func (x *Index) Close()                                       {}
func (x *Index) Ping(ctx context.Context) error               { return errSoon }
func (x *Index) Now(ctx context.Context) (time.Time, error)   { return time.Time{}, errSoon }
func (x *Index) Receive(ctx context.Context, notices []Notice) ([]Noticed, error) {
	return nil, errSoon
}
func (x *Index) Enqueue(ctx context.Context, tasks []lake.Task) error        { return errSoon }
func (x *Index) Claim(ctx context.Context, batch Batch) (*lake.Lease, error) { return nil, errSoon }
func (x *Index) Renew(ctx context.Context, lease lake.LeaseID) error         { return errSoon }
func (x *Index) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error { return errSoon }

func (x *Index) Release(ctx context.Context, lease *lake.Lease, cause error) error { return errSoon }

func (x *Index) Receipt(ctx context.Context, id lake.ReceiptID) (lake.Receipt, error) {
	return lake.Receipt{}, errSoon
}

func (x *Index) Receipts(ctx context.Context, query ReceiptQuery) ([]lake.Receipt, string, error) {
	return nil, "", errSoon
}

func (x *Index) Replay(ctx context.Context, query ReplayQuery) (objects, bytes int64, err error) {
	return 0, 0, errSoon
}

func (x *Index) Known(ctx context.Context, bucket string, objects []lake.Object) ([]bool, error) {
	return nil, errSoon
}

func (x *Index) Lookup(ctx context.Context, query Query) (Answer, error) { return Answer{}, errSoon }

func (x *Index) SegmentsOf(ctx context.Context, receipt lake.ReceiptID) ([]lake.Segment, error) {
	return nil, errSoon
}

func (x *Index) WindowVersion(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (lake.WindowVersion, error) {
	return lake.WindowVersion{}, errSoon
}
func (x *Index) Backlog(ctx context.Context) ([]Backlog, error)     { return nil, errSoon }
func (x *Index) Wait(ctx context.Context, kind lake.TaskKind) error { return errSoon }
func (x *Index) CreateBackfill(ctx context.Context, backfill Backfill) (Backfill, error) {
	return Backfill{}, errSoon
}

func (x *Index) Backfill(ctx context.Context, id BackfillID) (Backfill, error) {
	return Backfill{}, errSoon
}

func (x *Index) Backfills(ctx context.Context, pageSize int, pageToken string) ([]Backfill, string, error) {
	return nil, "", errSoon
}

func (x *Index) SetBackfillState(ctx context.Context, id BackfillID, state BackfillState, reason string) (Backfill, error) {
	return Backfill{}, errSoon
}

func (x *Index) ClaimBackfill(ctx context.Context, duration time.Duration) (*BackfillLease, error) {
	return nil, errSoon
}

func (x *Index) AdvanceBackfill(ctx context.Context, lease *BackfillLease, step BackfillStep) (Backfill, error) {
	return Backfill{}, errSoon
}
func (x *Index) ReleaseBackfill(ctx context.Context, lease *BackfillLease) error { return errSoon }
