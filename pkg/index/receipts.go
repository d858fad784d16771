// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"math"
	"strconv"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// Receipt returns one receipt; fault.NotFound when there is none of that id.
func (x *Index) Receipt(ctx context.Context, id lake.ReceiptID) (receipt lake.Receipt, err error) {
	defer x.observe("receipt", &err)()
	rows, err := x.queries.ReceiptsByID(ctx, []int64{int64(id)})
	if err != nil {
		return lake.Receipt{}, failed("read a receipt", err)
	}
	if len(rows) == 0 {
		return lake.Receipt{}, fault.New(fault.NotFound, "there is no receipt %d", id)
	}
	return receiptOf(rows[0].Receipt)
}

// Receipts returns a page of receipts, newest first, and the token of the next page; empty: this was the last.
func (x *Index) Receipts(ctx context.Context, query ReceiptQuery) (receipts []lake.Receipt, next string, err error) {
	defer x.observe("receipts", &err)()
	size, before, err := page(query.PageSize, query.PageToken)
	if err != nil {
		return nil, "", err
	}
	rows, err := x.receiptPage(ctx, query, size+1, before)
	if err != nil {
		return nil, "", failed("list receipts", err)
	}
	if len(rows) > size {
		rows = rows[:size]
		next = strconv.FormatInt(rows[size-1].ID, 10)
	}
	for _, row := range rows {
		receipt, err := receiptOf(row)
		if err != nil {
			return nil, "", err
		}
		receipts = append(receipts, receipt)
	}
	return receipts, next, nil
}

// page reads size and token of a page whose rows have ids below the token's.
func page(size int, token string) (int, int64, error) {
	if size <= 0 {
		size = defaultPage
	}
	if token == "" {
		return min(size, maxPage), math.MaxInt64, nil
	}
	before, err := strconv.ParseInt(token, 10, 64)
	if err != nil {
		return 0, 0, fault.New(fault.Invalid, "page token %q is not one of ours", token)
	}
	return min(size, maxPage), before, nil
}

func (x *Index) receiptPage(ctx context.Context, query ReceiptQuery, size int, before int64) ([]db.Receipt, error) {
	var receipts []db.Receipt
	if query.State == "" {
		rows, err := x.queries.ReceiptPage(ctx, db.ReceiptPageParams{
			Organization: string(query.Organization),
			Before:       before,
			Bucket:       query.Bucket,
			KeyPrefix:    query.KeyPrefix,
			PageSize:     int32(size),
		})
		for _, row := range rows {
			receipts = append(receipts, row.Receipt)
		}
		return receipts, err
	}
	rows, err := x.queries.ReceiptPageByState(ctx, db.ReceiptPageByStateParams{
		Organization: string(query.Organization),
		State:        string(query.State),
		Before:       before,
		Bucket:       query.Bucket,
		KeyPrefix:    query.KeyPrefix,
		PageSize:     int32(size),
	})
	for _, row := range rows {
		receipts = append(receipts, row.Receipt)
	}
	return receipts, err
}

// Known reports for each object whether a receipt stands for it, by key and tag. Not so: an object that no storage profile
// claimed when it came, and content that other content has replaced since. Telling Receive of those is right.
func (x *Index) Known(ctx context.Context, bucket string, objects []lake.Object) (known []bool, err error) {
	defer x.observe("known", &err)()
	p := db.KnownContentsParams{Bucket: bucket}
	for i, o := range objects {
		p.Ordinals = append(p.Ordinals, int64(i))
		p.Keys = append(p.Keys, o.Key)
		p.Tags = append(p.Tags, o.Tag)
	}
	known = make([]bool, len(objects))
	if len(objects) == 0 {
		return known, nil
	}
	ordinals, err := x.queries.KnownContents(ctx, p)
	if err != nil {
		return nil, failed("look for receipts", err)
	}
	for _, i := range ordinals {
		known[i] = true
	}
	return known, nil
}

// Backlog returns the waiting and buried work by kind, organization and signal. It reads every task: ask now and then.
func (x *Index) Backlog(ctx context.Context) (backlog []Backlog, err error) {
	defer x.observe("backlog", &err)()
	rows, err := x.queries.Backlogs(ctx)
	if err != nil {
		return nil, failed("read the backlog", err)
	}
	for _, r := range rows {
		backlog = append(backlog, Backlog{
			Kind:         lake.TaskKind(r.Kind),
			Organization: lake.Organization(r.Organization),
			Signal:       lake.Signal(r.Signal),
			Tasks:        r.Tasks,
			Bytes:        r.Bytes,
			Oldest:       zeroIfEpoch(r.Oldest),
			Buried:       r.Buried,
		})
	}
	return backlog, nil
}
