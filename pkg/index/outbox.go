// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// recordDelete puts a delete into the outbox, in the transaction that makes it.
func recordDelete(ctx context.Context, q *db.Queries, d lake.Delete) error {
	return putRecord(ctx, q, d.Organization, fmt.Sprintf("delete/%d", d.ID), map[string]any{"deletes": []lake.Delete{d}})
}

// recordRaw puts what has become of a source object into the outbox.
func recordRaw(ctx context.Context, q *db.Queries, org lake.Organization, receipt lake.ReceiptID, raw lake.RawState) error {
	id, err := newLeaseID()
	if err != nil {
		return err
	}
	return putRecord(ctx, q, org, fmt.Sprintf("raw/%s", id), map[string]any{"raw": map[lake.ReceiptID]lake.RawState{receipt: raw}})
}

func putRecord(ctx context.Context, q *db.Queries, org lake.Organization, cause string, record any) error {
	b, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return q.InsertCommitRecord(ctx, db.InsertCommitRecordParams{Lease: cause, Organization: string(org), Record: b})
}
