// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// RawQuery asks for source objects that a policy may take, oldest first.
type RawQuery struct {
	Organization  lake.Organization
	Bucket        string
	KeyPrefix     string // empty: any
	WrittenBefore time.Time
	Limit         int            // zero: 1,000
	After         lake.ReceiptID // the last of the page before; zero: the first page
}

// RawDue lists receipts that are done and whose objects are where they were, or in a copy that may have been cut off. notDone counts
// objects of that age whose receipt is not done, up to 10,000; it is told with the first page only.
func (x *Index) RawDue(ctx context.Context, query RawQuery) (due []lake.Receipt, notDone int64, err error) {
	defer x.observe("raw_due", &err)()
	p := db.RawDueParams{
		Organization: string(query.Organization), Bucket: query.Bucket, KeyPrefix: query.KeyPrefix, WrittenBefore: bounded(query.WrittenBefore),
		AfterTime: bounded(time.Time{}), PageSize: pageSize(query.Limit),
	}
	if query.After == 0 {
		notDone, err = x.queries.RawNotDone(ctx, db.RawNotDoneParams{
			Organization: p.Organization, Bucket: p.Bucket, WrittenBefore: p.WrittenBefore, KeyPrefix: p.KeyPrefix,
		})
		if err != nil {
			return nil, 0, failed("count source objects that are not done", err)
		}
	} else if p.AfterTime, p.AfterID, err = x.placeOf(ctx, query.After); err != nil {
		return nil, 0, failed("list source objects", err)
	}
	rows, err := x.queries.RawDue(ctx, p)
	if err != nil {
		return nil, 0, failed("list source objects", err)
	}
	for _, r := range rows {
		receipt, err := receiptOf(r.Receipt)
		if err != nil {
			return nil, 0, err
		}
		due = append(due, receipt)
	}
	return due, notDone, nil
}

// placeOf is where a page that ends with a receipt ends.
func (x *Index) placeOf(ctx context.Context, receipt lake.ReceiptID) (time.Time, int64, error) {
	rows, err := x.queries.ReceiptsByID(ctx, []int64{int64(receipt)})
	if err != nil {
		return time.Time{}, 0, err
	}
	if len(rows) == 0 {
		return time.Time{}, 0, fault.New(fault.NotFound, "there is no receipt %d", receipt)
	}
	return rows[0].Receipt.WrittenAt, int64(receipt), nil
}

// SetRaw says what has become of a receipt's source object; fault.Conflict when it was not in the state from.
func (x *Index) SetRaw(ctx context.Context, id lake.ReceiptID, from, to lake.RawState) (err error) {
	defer x.observe("set_raw", &err)()
	err = x.inTx(ctx, func(q *db.Queries) error {
		owners, err := q.SetRaw(ctx, db.SetRawParams{ID: int64(id), Current: string(from), Next: string(to)})
		if err != nil {
			return err
		}
		if len(owners) == 0 {
			return fault.New(fault.Conflict, "the source object of receipt %d is not %q", id, from)
		}
		return recordRaw(ctx, q, lake.Organization(owners[0]), id)
	})
	return failed("note what has become of a source object", err)
}
