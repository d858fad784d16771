// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// replayPage is how many receipts one transaction of a replay takes.
const replayPage = 1000

// Replay has objects ingested once more and returns how many, with their bytes. An object that brought no rows gets another try
// of its receipt; one that did gets a next revision, whose commit hides the older rows. What is waiting for its replay already,
// or was superseded, is left out.
func (x *Index) Replay(ctx context.Context, query ReplayQuery) (objects, bytes int64, err error) {
	defer x.observe("replay", &err)()
	if err := checkReplay(query); err != nil {
		return 0, 0, err
	}
	if len(query.Receipts) > 0 {
		objects, bytes, err = x.replayIDs(ctx, query)
	} else {
		objects, bytes, err = x.replayAll(ctx, query)
	}
	if err != nil {
		return objects, bytes, failed("replay objects", err)
	}
	if objects > 0 && !query.DryRun {
		x.bell.announce(ctx, lake.TaskIngest)
	}
	return objects, bytes, nil
}

func checkReplay(query ReplayQuery) error {
	if err := query.Organization.Valid(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if len(query.Receipts) > replayPage {
		return fault.New(fault.Invalid, "%d receipts in one replay: at most %d", len(query.Receipts), replayPage)
	}
	switch query.State {
	case lake.ReceiptFailed, lake.ReceiptSkipped, lake.ReceiptDone:
		return nil
	case "":
		if len(query.Receipts) > 0 {
			return nil
		}
	}
	return fault.New(fault.Invalid, "replay of receipts in state %q: want failed, skipped or done", query.State)
}

func (x *Index) replayIDs(ctx context.Context, query ReplayQuery) (objects, bytes int64, err error) {
	rows, err := x.queries.ReplayableByID(ctx, db.ReplayableByIDParams{
		Ids:          numbers(query.Receipts),
		Organization: string(query.Organization),
		State:        string(query.State),
		KeyPrefix:    query.KeyPrefix,
	})
	if err != nil {
		return 0, 0, err
	}
	candidates := make([]db.ReplayableByStateRow, len(rows))
	for i, row := range rows {
		candidates[i] = db.ReplayableByStateRow(row)
	}
	return x.replayPage(ctx, candidates, query)
}

// replayAll goes through all that match, up to what was there when it began: its own revisions come later.
func (x *Index) replayAll(ctx context.Context, query ReplayQuery) (objects, bytes int64, err error) {
	until, err := x.queries.LatestReceiptID(ctx)
	if err != nil {
		return 0, 0, err
	}
	for after := int64(0); ; {
		rows, err := x.queries.ReplayableByState(ctx, db.ReplayableByStateParams{
			Organization: string(query.Organization),
			State:        string(query.State),
			After:        after,
			Until:        until,
			KeyPrefix:    query.KeyPrefix,
			PageSize:     replayPage,
		})
		if err != nil || len(rows) == 0 {
			return objects, bytes, err
		}
		after = rows[len(rows)-1].ID
		n, size, err := x.replayPage(ctx, rows, query)
		objects, bytes = objects+n, bytes+size
		if err != nil {
			return objects, bytes, err
		}
	}
}

// replayPage replays some receipts in one transaction. One that somebody else changed meanwhile is left out.
func (x *Index) replayPage(ctx context.Context, candidates []db.ReplayableByStateRow, query ReplayQuery) (objects, bytes int64, err error) {
	ids := make([]int64, len(candidates))
	for i, c := range candidates {
		ids[i] = c.ID
		bytes += c.Size
	}
	if query.DryRun || len(ids) == 0 {
		return int64(len(ids)), bytes, nil
	}
	err = x.inTx(ctx, func(q *db.Queries) error {
		objects, bytes = 0, 0
		if _, err := q.LockReceipts(ctx, ids); err != nil {
			return err
		}
		retried, err := q.RetryReceipts(ctx, ids)
		if err != nil {
			return err
		}
		revised, err := q.ReviseReceipts(ctx, ids)
		if err != nil {
			return err
		}
		objects, bytes, err = enqueueReplayed(ctx, q, append(retried, revised...))
		return err
	})
	return objects, bytes, err
}

func enqueueReplayed(ctx context.Context, q *db.Queries, ids []int64) (objects, bytes int64, err error) {
	if len(ids) == 0 {
		return 0, 0, nil
	}
	rows, err := q.ReceiptsByID(ctx, ids)
	if err != nil {
		return 0, 0, err
	}
	var groups []group
	for _, row := range rows {
		objects++
		bytes += row.Receipt.Size
		groups = append(groups, group{lake.TaskIngest, lake.Organization(row.Receipt.Organization), lake.Signal(row.Receipt.Signal)})
	}
	if err := q.EnqueueReceipts(ctx, ids); err != nil {
		return 0, 0, err
	}
	return objects, bytes, openServices(ctx, q, groups)
}
