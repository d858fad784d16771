// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Record is what follows a change of the index into the bucket: the rows that it wrote, as they were after it. Records are sets: what
// happens to a row only ever happens once and stays (a segment is added, then removed; a receipt is finished, then superseded), so they
// can be read in any order, and more than once. docs/adr/0011 says why.
type Record struct {
	Version      int               `json:"version"`
	ID           int64             `json:"id"` // in the outbox
	Cause        string            `json:"cause"`
	Kind         string            `json:"kind"`
	Organization lake.Organization `json:"organization"`
	CommittedAt  time.Time         `json:"committed_at"`
	// Rows are JSON arrays of rows by table, as PostgreSQL writes them.
	Rows map[string]json.RawMessage `json:"rows"`
}

// recordVersion is that of the records that this release writes.
const (
	recordVersion = 2
	// versionedSince is from which version on records tell the versions of the hours that their transaction locked.
	versionedSince = 2
)

// Buckets lists the buckets that the record's files and objects are in, those of files first.
func (r *Record) Buckets() []string {
	var buckets []string
	for _, table := range []string{"segments", "receipts"} {
		var rows []struct {
			Bucket string `json:"bucket"`
		}
		if err := json.Unmarshal(r.Rows[table], &rows); err != nil {
			continue // no rows of that table
		}
		for _, row := range rows {
			if !slices.Contains(buckets, row.Bucket) {
				buckets = append(buckets, row.Bucket)
			}
		}
	}
	return buckets
}

// Records returns the oldest records of an organization that are not in the bucket yet. A limit of zero: 1,000.
func (x *Index) Records(ctx context.Context, org lake.Organization, limit int) (records []Record, err error) {
	defer x.observe("records", &err)()
	rows, err := x.queries.Records(ctx, db.RecordsParams{Organization: string(org), PageSize: pageSize(limit)})
	if err != nil {
		return nil, failed("read commit records", err)
	}
	for _, row := range rows {
		r := Record{ID: row.ID, Cause: row.Lease, Organization: org, CommittedAt: row.CommittedAt.UTC()}
		if err := json.Unmarshal(row.Record, &r); err != nil {
			return nil, fmt.Errorf("commit record %d: %w", row.ID, err)
		}
		if r.Version == 0 {
			if r, err = x.completed(ctx, r, row.Record); err != nil {
				return nil, failed(fmt.Sprintf("complete commit record %d", row.ID), err)
			}
		}
		records = append(records, r)
	}
	return records, nil
}

// completed turns a record of the release before, which only names rows, into one of this release.
func (x *Index) completed(ctx context.Context, r Record, document []byte) (Record, error) {
	var named struct {
		Added    []struct{ ID int64 }
		Receipts []struct{ ID int64 }
	}
	if err := json.Unmarshal(document, &named); err != nil {
		return r, err
	}
	p := db.CompleteRecordParams{Organization: string(r.Organization), Cause: r.Cause, CommittedAt: r.CommittedAt, Segments: []int64{}, Receipts: []int64{}}
	for _, s := range named.Added {
		p.Segments = append(p.Segments, s.ID)
	}
	for _, receipt := range named.Receipts {
		p.Receipts = append(p.Receipts, receipt.ID)
	}
	rows, err := x.queries.CompleteRecord(ctx, p)
	if err != nil {
		return r, err
	}
	r.Version = 1
	return r, json.Unmarshal(rows, &r.Rows)
}

// RecordsShipped forgets records that have reached the bucket.
func (x *Index) RecordsShipped(ctx context.Context, ids []int64) (err error) {
	defer x.observe("records_shipped", &err)()
	return failed("forget commit records", x.queries.ForgetRecords(ctx, ids))
}

// changes names the rows that a record tells of.
type changes struct {
	cause        string // lease, or what else changed the index
	kind         string
	organization lake.Organization
	segments     []int64
	receipts     []int64
	deletes      []int64
	hours        []hour
	rollups      []rolledWindow
	// first and last are the earliest and the latest start of the segments' windows.
	first, last time.Time
	edit        []byte // digest of the lease's edit
}

// hold notes a segment.
func (c *changes) hold(id int64, start time.Time) {
	if len(c.segments) == 0 || start.Before(c.first) {
		c.first = start
	}
	if len(c.segments) == 0 || start.After(c.last) {
		c.last = start
	}
	c.segments = append(c.segments, id)
}

// putRecord puts rows into the outbox as they are now, in the transaction that changed them.
func putRecord(ctx context.Context, q *db.Queries, c changes) error {
	p := db.InsertRecordParams{
		Cause: c.cause, Organization: string(c.organization), Kind: c.kind,
		Segments: distinct(c.segments), Receipts: distinct(c.receipts), Deletes: distinct(c.deletes),
		FirstWindow: c.first.UTC(), LastWindow: c.last.UTC(), Edit: append([]byte{}, c.edit...),
		Signals: []int16{}, Hours: []time.Time{}, RollupSignals: []int16{}, Resolutions: []int64{}, Starts: []time.Time{},
	}
	for _, h := range c.hours {
		p.Signals = append(p.Signals, h.signal)
		p.Hours = append(p.Hours, time.Unix(h.start, 0).UTC())
	}
	for _, r := range c.rollups {
		p.RollupSignals = append(p.RollupSignals, int16(r.signal))
		p.Resolutions = append(p.Resolutions, int64(r.resolution))
		p.Starts = append(p.Starts, time.Unix(r.start, 0).UTC())
	}
	return q.InsertRecord(ctx, p)
}

func distinct(ids []int64) []int64 {
	sorted := slices.Sorted(slices.Values(ids))
	return append([]int64{}, slices.Compact(sorted)...)
}

// recordDelete puts a delete into the outbox, in the transaction that changes it.
func recordDelete(ctx context.Context, q *db.Queries, d lake.Delete) error {
	return recordAnew(ctx, q, changes{kind: "delete", organization: d.Organization, deletes: []int64{int64(d.ID)}})
}

// recordRaw puts a receipt into the outbox, in the transaction that says what has become of its source object.
func recordRaw(ctx context.Context, q *db.Queries, org lake.Organization, receipt lake.ReceiptID) error {
	return recordAnew(ctx, q, changes{kind: "raw", organization: org, receipts: []int64{int64(receipt)}})
}

// recordAnew records what no lease did.
func recordAnew(ctx context.Context, q *db.Queries, c changes) error {
	id, err := newLeaseID()
	if err != nil {
		return err
	}
	c.cause = c.kind + "/" + string(id)
	return putRecord(ctx, q, c)
}

// RemovalRecord is a record that says of segments of an organization that they were removed at a time: for what is known to be gone and has no
// record any more.
func RemovalRecord(org lake.Organization, segments []lake.Segment, at time.Time) (Record, error) {
	type row struct {
		ID           lake.SegmentID    `json:"id"`
		Organization lake.Organization `json:"organization"`
		Signal       int16             `json:"signal"`
		WindowStart  time.Time         `json:"window_start"`
		WindowLength time.Duration     `json:"window_length"`
		RemovedAt    time.Time         `json:"removed_at"`
	}
	var rows []row
	for _, s := range segments {
		rows = append(rows, row{s.ID, org, placeOf(s.Signal, s.Resolution), s.Window.Start, s.Window.Length, at})
	}
	b, err := json.Marshal(rows)
	return Record{Version: recordVersion, Organization: org, Rows: map[string]json.RawMessage{"segments": b}}, err
}
