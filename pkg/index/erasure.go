// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Undecoded counts objects that nobody knows the rows of, up to 100,000 of them.
type Undecoded struct {
	Pending int64 // waiting to be ingested
	Failed  int64
}

// RowsDeleted counts the rows of one source object that deletes of data left out.
type RowsDeleted struct {
	Written   int64 // that were in segments
	Unwritten int64 // that were left out at ingest
}

// Revisions returns the receipts of everything that was received of one bucket and key, oldest first.
func (x *Index) Revisions(ctx context.Context, bucket, key string) (receipts []lake.Receipt, err error) {
	defer x.observe("revisions", &err)()
	rows, err := x.queries.ReceiptsOfKey(ctx, db.ReceiptsOfKeyParams{Bucket: bucket, Key: key})
	if err != nil {
		return nil, failed("read the receipts of a key", err)
	}
	for _, row := range rows {
		receipt, err := receiptOf(row.Receipt)
		if err != nil {
			return nil, err
		}
		receipts = append(receipts, receipt)
	}
	return receipts, nil
}

// Retag gives a receipt the content tag that its object has now: copies to another bucket may get another one for the same content.
func (x *Index) Retag(ctx context.Context, receipt lake.ReceiptID, tag string) (err error) {
	defer x.observe("retag", &err)()
	if tag == "" || len(tag) > 255 || !storable(tag) {
		return fault.New(fault.Invalid, "content tag %q", tag)
	}
	n, err := x.queries.RetagReceipt(ctx, db.RetagReceiptParams{ID: int64(receipt), Tag: tag})
	if err != nil {
		return failed(fmt.Sprintf("give receipt %d another tag", receipt), err)
	}
	if n == 0 {
		return fault.New(fault.NotFound, "there is no receipt %d", receipt)
	}
	return nil
}

// LeasesBefore counts the living leases of an organization and some kinds that were claimed up to a time.
func (x *Index) LeasesBefore(ctx context.Context, org lake.Organization, kinds []lake.TaskKind, before time.Time) (n int64, err error) {
	defer x.observe("leases_before", &err)()
	p := db.CountLeasesBeforeParams{Organization: string(org), Before: before}
	for _, k := range kinds {
		p.Kinds = append(p.Kinds, string(k))
	}
	n, err = x.queries.CountLeasesBefore(ctx, p)
	return n, failed("count leases", err)
}

// Undecoded counts an organization's objects of a signal (or of one not known yet) that were received up to a time and brought no rows yet.
func (x *Index) Undecoded(ctx context.Context, org lake.Organization, signal lake.Signal, before time.Time) (u Undecoded, err error) {
	defer x.observe("undecoded", &err)()
	row, err := x.queries.CountUndecoded(ctx, db.CountUndecodedParams{Organization: string(org), Signal: int16(signal), Before: &before})
	return Undecoded{Pending: row.Pending, Failed: row.Failed}, failed("count objects that are not decoded", err)
}

// RowsDeletedOf counts what deletes of data left out of a receipt's rows.
func (x *Index) RowsDeletedOf(ctx context.Context, receipt lake.ReceiptID) (r RowsDeleted, err error) {
	defer x.observe("rows_deleted_of", &err)()
	row, err := x.queries.RowsDeletedOfSource(ctx, int64(receipt))
	return RowsDeleted{Written: row.Written, Unwritten: row.Unwritten}, failed("count the deleted rows of a source object", err)
}
