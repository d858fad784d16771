// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// AdoptResult counts rows that are new in the index, and segments that were live in it and are removed.
type AdoptResult struct {
	Segments int64
	Receipts int64
	Removed  int64
	Deletes  int64
}

// adoptedTables are those that records and snapshots have rows of, in the order in which they are adopted: what is referred to first.
var adoptedTables = []string{
	"leases", "receipts", "deletes", "segments", unversioned, "delete_rows", "delete_segments", "delete_sources",
	"retention_runs", "retention_leases", "audit_log", "window_versions", "rollups",
}

// unversioned are segments of records that do not tell the versions of their windows.
const unversioned = "unversioned"

// Adopt merges records into the index. It is idempotent, and the order of records does not matter. Leases that they name are committed;
// what is pending is enqueued, what is done is not any more; no number that they have is given again.
//
// An object that came once more after an older database was restored, and is still pending, gives way to its record; one that has been
// ingested again is fault.Conflict, since its rows would come twice.
func (x *Index) Adopt(ctx context.Context, org lake.Organization, records []Record) (result AdoptResult, err error) {
	defer x.observe("adopt", &err)()
	rows := make(map[string][]json.RawMessage)
	for i, r := range records {
		if err := collect(org, r, rows); err != nil {
			return result, err
		}
		count := 0
		for _, list := range rows {
			count += len(list)
		}
		if count < adoptRows && i < len(records)-1 {
			continue
		}
		part, err := x.adoptAll(ctx, org, rows)
		if err != nil {
			return result, err
		}
		result.Segments += part.Segments
		result.Receipts += part.Receipts
		result.Removed += part.Removed
		result.Deletes += part.Deletes
		clear(rows)
	}
	return result, nil
}

// adoptRows is about how many rows one transaction adopts; those of one record stay together.
const adoptRows = 5000

// collect gathers a record's rows by table.
func collect(org lake.Organization, r Record, rows map[string][]json.RawMessage) error {
	if r.Version < 1 || r.Version > recordVersion {
		return fault.New(fault.Invalid, "commit record %d has version %d, and this release reads up to %d", r.ID, r.Version, recordVersion)
	}
	if r.Organization != org {
		return fault.New(fault.Invalid, "commit record %d is of organization %s, not of %s", r.ID, r.Organization, org)
	}
	for table, list := range r.Rows {
		var some []json.RawMessage
		if err := json.Unmarshal(list, &some); err != nil {
			return fault.New(fault.Invalid, "commit record %d: %w", r.ID, err)
		}
		rows[table] = append(rows[table], some...)
		if table == "segments" && r.Version < versionedSince {
			rows[unversioned] = append(rows[unversioned], some...)
		}
	}
	return nil
}

// AdoptSnapshot merges rows of one table, a JSON document a line, as Snapshot wrote them.
func (x *Index) AdoptSnapshot(ctx context.Context, org lake.Organization, table string, rows []byte) (err error) {
	defer x.observe("adopt_snapshot", &err)()
	var lines []json.RawMessage
	for line := range bytes.Lines(rows) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	_, err = x.adoptAll(ctx, org, map[string][]json.RawMessage{table: lines})
	return err
}

func (x *Index) adoptAll(ctx context.Context, org lake.Organization, rows map[string][]json.RawMessage) (result AdoptResult, err error) {
	for table := range rows {
		if !slices.Contains(adoptedTables, table) {
			return result, fault.New(fault.Invalid, "rows of table %q cannot be adopted", table)
		}
	}
	highest, err := numbersOf(rows)
	if err != nil {
		return result, fault.Wrap(fault.Invalid, err)
	}
	if err := x.queries.AdvanceSequences(ctx, highest); err != nil {
		return result, failed("advance the numbers", err)
	}
	if err := x.queries.MakeAdoptedMonths(ctx, array(rows["segments"])); err != nil {
		return result, failed("make the partitions of adopted segments", err)
	}
	err = x.inTx(ctx, func(q *db.Queries) error {
		result, err = adopt(ctx, q, org, rows)
		return err
	})
	return result, failed("adopt rows", err)
}

func adopt(ctx context.Context, q *db.Queries, org lake.Organization, rows map[string][]json.RawMessage) (result AdoptResult, err error) {
	if err := q.LockAdoption(ctx); err != nil {
		return result, err
	}
	if err := yieldReceipts(ctx, q, org, rows["receipts"]); err != nil {
		return result, err
	}
	collided, err := q.CollidingSegment(ctx, array(rows["segments"]))
	if err != nil {
		return result, err
	}
	if collided != 0 {
		return result, fault.New(fault.Conflict, "segment %d is another one in the database, which has been written to since it was restored: %s", collided, remedy)
	}
	if err := checkNumbers(ctx, q, org, rows); err != nil {
		return result, err
	}
	adopted := make(map[string][]int64)
	for _, table := range adoptedTables {
		if len(rows[table]) == 0 {
			continue
		}
		merged, err := mergeable(table, rows[table])
		if err != nil {
			return result, err
		}
		adopted[table], err = q.AdoptRows(ctx, db.AdoptRowsParams{Organization: string(org), TableName: table, Rows: array(merged)})
		if err != nil {
			return result, fmt.Errorf("table %s: %w", table, err)
		}
	}
	result = AdoptResult{
		Segments: added(adopted["segments"]), Receipts: added(adopted["receipts"]), Deletes: added(adopted["deletes"]), Removed: changed(adopted["segments"]),
	}
	return result, settleTasks(ctx, q, org, rows["receipts"])
}

// numberedRow is a row of those whose numbers a database gives again once an older one was restored, with what tells it from another of its
// number: of an entry of the audit log its hash, else when it was made.
type numberedRow struct {
	recordedRow
	Organization lake.Organization `json:"organization"`
	Hash         string            `json:"hash"`
	CreatedAt    string            `json:"created_at"`
	StartedAt    string            `json:"started_at"`
}

// checkNumbers refuses deletes, runs of retention and entries of the audit log whose numbers others have here: none of the two may be forgotten.
func checkNumbers(ctx context.Context, q *db.Queries, org lake.Organization, rows map[string][]json.RawMessage) error {
	for _, table := range []string{"deletes", "retention_runs", "audit_log"} {
		p := db.CollidingNumberParams{TableName: table, Organization: string(org)}
		for _, raw := range rows[table] {
			var row numberedRow
			if err := json.Unmarshal(raw, &row); err != nil {
				return fault.New(fault.Invalid, "a row of %s: %w", table, err)
			}
			if row.Organization == org {
				p.Ids, p.Marks = append(p.Ids, row.ID), append(p.Marks, cmp.Or(row.Hash, row.CreatedAt, row.StartedAt))
			}
		}
		if len(p.Ids) == 0 {
			continue
		}
		collided, err := q.CollidingNumber(ctx, p)
		if err != nil {
			return fmt.Errorf("table %s: %w", table, err)
		}
		if collided != 0 {
			return fault.New(fault.Conflict, "number %d of %s is another one in the database, which has been written to since it was restored: %s", collided, table, remedy)
		}
	}
	return nil
}

// What AdoptRows says: how many rows are new, and how many were changed.
func added(counts []int64) int64   { return countAt(counts, 0) }
func changed(counts []int64) int64 { return countAt(counts, 1) }

func countAt(counts []int64, i int) int64 {
	if i >= len(counts) {
		return 0
	}
	return counts[i]
}

// recordedRow is what is read of a row here.
type recordedRow struct {
	ID int64 `json:"id"`
}

// mergeable puts one row for each segment: several states of it are merged before the database sees them, which merges each row once.
func mergeable(table string, rows []json.RawMessage) ([]json.RawMessage, error) {
	if table != "segments" {
		return rows, nil
	}
	merged := make(map[int64]map[string]any, len(rows))
	for _, raw := range rows {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber() // hashes do not fit into a float
		var row map[string]any
		if err := d.Decode(&row); err != nil {
			return nil, err
		}
		var key recordedRow
		if err := json.Unmarshal(raw, &key); err != nil {
			return nil, err
		}
		if known, ok := merged[key.ID]; ok {
			mergeSegment(known, row)
			continue
		}
		merged[key.ID] = row
	}
	ids := make([]int64, 0, len(merged))
	for id := range merged {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	out := make([]json.RawMessage, 0, len(ids))
	for _, id := range ids {
		b, err := json.Marshal(merged[id])
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// mergeSegment brings into a segment's row what another state of it knows besides.
func mergeSegment(into, other map[string]any) {
	if into["removed_at"] == nil && other["removed_at"] != nil {
		into["removed_at"], into["removed_by"] = other["removed_at"], other["removed_by"]
	}
	for _, name := range []string{"masked_sources", "rules"} {
		some, _ := into[name].([]any)
		more, _ := other[name].([]any)
		for _, m := range more {
			if !slices.Contains(some, m) {
				some = append(some, m)
			}
		}
		slices.SortFunc(some, func(a, b any) int { return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(text(a), text(b))) })
		into[name] = some
	}
	if number(other["applied_delete"]) > number(into["applied_delete"]) {
		into["applied_delete"] = other["applied_delete"]
	}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func number(v any) int64 {
	n, _ := v.(json.Number)
	i, _ := n.Int64()
	return i
}

// numbersOf finds the highest number of each kind.
func numbersOf(rows map[string][]json.RawMessage) (highest db.AdvanceSequencesParams, err error) {
	for table, into := range map[string]*int64{
		"receipts": &highest.Receipt, "segments": &highest.Segment, "deletes": &highest.DeleteID, "retention_runs": &highest.Run, "audit_log": &highest.Audit,
	} {
		for _, raw := range rows[table] {
			var row recordedRow
			if err := json.Unmarshal(raw, &row); err != nil {
				return highest, fmt.Errorf("a row of %s: %w", table, err)
			}
			*into = max(*into, row.ID)
		}
	}
	return highest, nil
}

// remedy is what helps when the database went on by itself.
const remedy = "restore it again and rebuild the index before the services start"

// collision is a receipt that the database numbered otherwise than the bucket.
type collision struct {
	ID       int64  `json:"id"`
	Recorded int64  `json:"recorded"`
	State    string `json:"state"`
	Bucket   string `json:"bucket"`
	Key      string `json:"key"`
}

// yieldReceipts takes receipts away that stand where adopted ones belong, and have brought no rows.
func yieldReceipts(ctx context.Context, q *db.Queries, org lake.Organization, receipts []json.RawMessage) error {
	if len(receipts) == 0 {
		return nil
	}
	b, err := q.CollidingReceipts(ctx, db.CollidingReceiptsParams{Organization: string(org), Rows: array(receipts)})
	if err != nil {
		return err
	}
	var collisions []collision
	if err := json.Unmarshal(b, &collisions); err != nil || len(collisions) == 0 {
		return err
	}
	var ids []int64
	var ingested []string
	for _, c := range collisions {
		ids = append(ids, c.ID)
		if c.State == string(lake.ReceiptDone) || c.State == string(lake.ReceiptSuperseded) {
			ingested = append(ingested, fmt.Sprintf("s3://%s/%s (receipt %d, recorded as %d)", c.Bucket, c.Key, c.ID, c.Recorded))
		}
	}
	if len(ingested) > 0 {
		return fault.New(fault.Conflict, "%d objects were ingested once more since the database was restored, %s first: %s",
			len(ingested), ingested[0], remedy)
	}
	if err := q.ForgetReceiptsTasks(ctx, ids); err != nil {
		return err
	}
	return q.ForgetReceipts(ctx, ids)
}

// settleTasks enqueues what is pending and drops what is not any more.
func settleTasks(ctx context.Context, q *db.Queries, org lake.Organization, receipts []json.RawMessage) error {
	var ids []int64
	for _, raw := range receipts {
		var row recordedRow
		if err := json.Unmarshal(raw, &row); err != nil {
			return err
		}
		ids = append(ids, row.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	ids = distinct(ids)
	if err := q.ForgetSettledTasks(ctx, ids); err != nil {
		return err
	}
	if err := q.EnqueueReceipts(ctx, ids); err != nil {
		return err
	}
	var groups []group
	for signal := lake.SignalUnknown; signal <= lake.SignalSpans; signal++ {
		groups = append(groups, group{lake.TaskIngest, org, signal})
	}
	return openServices(ctx, q, groups)
}

// array joins rows to a JSON array.
func array(rows []json.RawMessage) []byte {
	texts := make([]string, len(rows))
	for i, r := range rows {
		texts[i] = string(r)
	}
	return []byte("[" + strings.Join(texts, ",") + "]")
}
