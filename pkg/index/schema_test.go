// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"embed"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// release1 has the statements of the release before this one, word for word: its processes run beside ours during an upgrade.
//
//go:embed testdata/release1/*.sql
var release1 embed.FS

// statements are those of a release, by name, as pgx takes them.
func statements(t *testing.T, files embed.FS, folder string) map[string]string {
	t.Helper()
	entries, err := files.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	embedded := regexp.MustCompile(`sqlc\.embed\((\w+)\)`)
	found := map[string]string{}
	for _, e := range entries {
		b, err := files.ReadFile(folder + "/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(b), "-- name: ")[1:] {
			head, text, _ := strings.Cut(part, "\n")
			name, _, _ := strings.Cut(head, " ")
			found[name] = embedded.ReplaceAllString(text, "$1.*")
		}
	}
	return found
}

// TestTheReleaseBeforeWorksOnThisSchema runs a lake's life with the statements of the release before, on the schema of this one.
func TestTheReleaseBeforeWorksOnThisSchema(t *testing.T) {
	l := setup(t)
	old := &oldRelease{lab: l, statements: statements(t, release1, "testdata/release1")}

	old.wantAccepted()
	receipts := old.receive("old/1", "old/2")
	lease, segments := old.ingest(receipts)

	t.Run("what it committed is answered", func(t *testing.T) {
		answer := l.lookup(acme)
		if len(answer.Segments) != 1 || int64(answer.Segments[0].ID) != segments[0] {
			t.Errorf("got %+v, want segment %d", answer.Segments, segments[0])
		}
		l.wantVisible(acme, lake.ReceiptID(receipts[0]), lake.ReceiptID(receipts[1]))
		l.wantState(lake.ReceiptID(receipts[0]), lake.ReceiptDone)
	})

	t.Run("a delete reaches what it received", func(t *testing.T) {
		d := l.createDelete(deletion(`{a="b"}`))
		l.wantMasking(d.ID)
		pending := old.receive("old/3")
		claimed := l.claimReceipt(lake.ReceiptID(pending[0]))
		if claimed.Receipts[0].ReceivedAt.IsZero() || claimed.Receipts[0].ReceivedAt.Before(d.CreatedAt) {
			t.Errorf("received at %s, after the delete of %s", claimed.Receipts[0].ReceivedAt, d.CreatedAt)
		}
		l.commit(claimed, whole(claimed))
	})

	t.Run("its commits can be rebuilt from their records", func(t *testing.T) {
		fresh := rebuilt(t, nil, l.records(acme))
		if diff := cmp.Diff(l.visible(acme), fresh.visible(acme)); diff != "" {
			t.Errorf("visible after the rebuild (-want +got):\n%s", diff)
		}
		if states, err := fresh.LeaseStates(t.Context(), []lake.LeaseID{lake.LeaseID(lease)}); err != nil || states[lake.LeaseID(lease)] != "committed" {
			t.Errorf("the lease is %q (%v), want committed", states[lake.LeaseID(lease)], err)
		}
	})

	t.Run("it reads what we committed", func(t *testing.T) {
		later := l.receive(notice(acme, "new/1", "v1"))[0]
		ours := l.claimReceipt(later.ID)
		edit := whole(ours)
		edit.Add[0].Rules, edit.Add[0].Identified = []string{"drop:a"}, true
		l.commit(ours, edit)
		n := 0
		old.query("Lookup", pgx.NamedArgs{
			"organization": string(acme), "signal": int16(lake.SignalLogs), "first_window": hour.Start.Add(-24 * time.Hour), "end_window": hour.End(),
			"start_time": hour.Start.UnixNano(), "end_time": hour.End().UnixNano(), "max_segments": int32(1000),
			"written_after": time.Unix(0, 0), "completeness_cap": int32(1000),
		}, func(pgx.Rows) error { n++; return nil })
		if n < 3 {
			t.Errorf("it reads %d rows, want at least three", n)
		}
	})
}

// TestTheSchemaMayBeAhead migrates and works where a later release has been before.
func TestTheSchemaMayBeAhead(t *testing.T) {
	l := setup(t)
	l.exec("INSERT INTO index_migrations (version_id, is_applied) VALUES (99, true)")
	for _, table := range []string{"receipts", "tasks", "leases", "segments", "segment_sources", "deletes", "commit_records", "window_versions"} {
		l.exec(fmt.Sprintf("ALTER TABLE %s ADD COLUMN later text NOT NULL DEFAULT 'x'", table))
	}
	l.exec("CREATE TABLE later (id bigint PRIMARY KEY)")
	url := l.sql.Config().ConnString()
	if err := index.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	receipts := l.receive(notice(acme, "a", "v1"), notice(acme, "b", "v1"))
	l.ingestAll()
	d := l.createDelete(deletion(`{a="b"}`))
	l.wantVisible(acme, receipts[0].ID, receipts[1].ID)
	l.wantMasking(d.ID)
	if n := len(l.records(acme)); n != 2 {
		t.Errorf("%d records, want two", n)
	}
}

// TestMigrationsWaitForEachOther has several processes migrate an empty database at once.
func TestMigrationsWaitForEachOther(t *testing.T) {
	l := setup(t)
	l.exec("CREATE SCHEMA empty")
	url := l.sql.Config().ConnString()
	separator := "?"
	if strings.Contains(url, "?") {
		separator = "&"
	}
	url += separator + "search_path=empty"
	l.wantNone(l.together(6, func(int) error { return index.Migrate(t.Context(), url) }))
	if n := l.number("SELECT count(*) FROM empty.index_migrations WHERE version_id > 0"); n != l.number("SELECT count(*) FROM index_migrations WHERE version_id > 0") {
		t.Errorf("%d migrations were noted", n)
	}
}

// oldRelease does what the release before does.
type oldRelease struct {
	*lab
	statements map[string]string
}

// wantAccepted prepares all of its statements.
func (o *oldRelease) wantAccepted() {
	o.Helper()
	parameter := regexp.MustCompile(`([^@\w])@(\w+)`)
	for name, text := range o.statements {
		var numbers []string
		numbered := parameter.ReplaceAllStringFunc(text, func(match string) string {
			parts := parameter.FindStringSubmatch(match)
			for i, known := range numbers {
				if known == parts[2] {
					return fmt.Sprintf("%s$%d", parts[1], i+1)
				}
			}
			numbers = append(numbers, parts[2])
			return fmt.Sprintf("%s$%d", parts[1], len(numbers))
		})
		if _, err := o.sql.Exec(o.Context(), "DEALLOCATE ALL"); err != nil {
			o.Fatal(err)
		}
		if err := o.prepare(numbered); err != nil {
			o.Errorf("%s is not accepted any more: %v", name, err)
		}
	}
}

func (o *oldRelease) prepare(text string) error {
	conn, err := pgx.Connect(o.Context(), o.sql.Config().ConnString())
	if err != nil {
		return err
	}
	defer conn.Close(o.Context())
	_, err = conn.Prepare(o.Context(), "", text)
	return err
}

func (o *oldRelease) query(name string, args pgx.NamedArgs, each func(pgx.Rows) error) {
	o.Helper()
	rows, err := o.sql.Query(o.Context(), o.statements[name], args)
	if err != nil {
		o.Fatalf("%s: %v", name, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			o.Fatalf("%s: %v", name, err)
		}
	}
	if err := rows.Err(); err != nil {
		o.Fatalf("%s: %v", name, err)
	}
}

func (o *oldRelease) run(name string, args pgx.NamedArgs) {
	o.Helper()
	o.query(name, args, func(pgx.Rows) error { return nil })
}

// receive makes pending receipts and their tasks.
func (o *oldRelease) receive(keys ...string) (ids []int64) {
	o.Helper()
	n := len(keys)
	ordinals := make([]int64, n)
	for i := range ordinals {
		ordinals[i] = int64(i)
	}
	same := func(s string) []string { return strings.Split(strings.Repeat(s+"\n", n)[:n*(len(s)+1)-1], "\n") }
	o.query("InsertReceipts", pgx.NamedArgs{
		"ordinals": ordinals, "organizations": same(string(acme)), "collectors": same("agent"), "signals": make([]int16, n), "buckets": same("b"),
		"keys": keys, "tags": same("v1"), "sizes": make([]int64, n), "last_modifieds": times(n), "replays": make([]int32, n),
		"hides": same("nothing"), "states": same("pending"), "reasons": make([]string, n),
	}, func(rows pgx.Rows) error {
		values, err := rows.Values()
		if err == nil {
			ids = append(ids, values[0].(int64))
		}
		return err
	})
	o.run("EnqueueReceipts", pgx.NamedArgs{"ids": ids, "receipts": ids})
	return ids
}

func times(n int) []time.Time {
	out := make([]time.Time, n)
	for i := range out {
		out[i] = time.Unix(0, 0).UTC()
	}
	return out
}

// ingest claims and commits one segment.
func (o *oldRelease) ingest(receipts []int64) (lease string, segments []int64) {
	o.Helper()
	lease = "0190a0b0-0000-7000-8000-000000000001"
	var tasks []int64
	o.query("ClaimTasks", pgx.NamedArgs{
		"kind": "ingest", "organization": string(acme), "signal": int16(0), "suspects": "", "max_tasks": int64(100), "max_bytes": int64(1 << 30),
		"min_bytes": int64(0), "max_wait": span(0), "lease": lease, "duration": int64(time.Minute), "lifetime": span(time.Minute), "max_attempts": int32(3),
	}, func(rows pgx.Rows) error {
		values, err := rows.Values()
		if err == nil {
			tasks = append(tasks, values[0].(int64))
		}
		return err
	})
	if len(tasks) != len(receipts) {
		o.Fatalf("it claims %d tasks, want %d", len(tasks), len(receipts))
	}
	o.query("SegmentIDs", pgx.NamedArgs{"count": int32(1)}, func(rows pgx.Rows) error {
		values, err := rows.Values()
		if err == nil {
			segments = append(segments, values[0].(int64))
		}
		return err
	})
	o.run("MakeSegmentMonth", pgx.NamedArgs{"parent": "segments_logs", "month_start": hour.Start})
	key := lake.SegmentKey(acme, lake.SignalLogs, hour, lake.LeaseID(lease), 0)
	o.run("InsertSegments", pgx.NamedArgs{
		"organization": string(acme), "ids": segments, "signals": []int16{1}, "window_starts": []time.Time{hour.Start}, "window_lengths": []int64{int64(time.Hour)},
		"levels": []int32{0}, "buckets": []string{"b"}, "keys": []string{key}, "bytes": []int64{1000}, "sidecar_bytes": []int64{100},
		"row_counts": []int64{2}, "first_times": []int64{hour.Start.UnixNano()}, "last_times": []int64{hour.Start.UnixNano()},
		"format_versions": []int32{1}, "row_hashes": []int64{-1}, "lease": lease,
		"applied_deletes": []int64{0}, "rules": []string{""}, "identified": []bool{false}, // since the release after the first
	})
	o.run("InsertSegmentSources", pgx.NamedArgs{
		"receipts": receipts, "segments": []int64{segments[0], segments[0]}, "signals": []int16{1, 1}, "window_starts": []time.Time{hour.Start, hour.Start},
	})
	ones, texts := []int64{1, 1}, []string{"", ""}
	o.run("FinishReceipts", pgx.NamedArgs{
		"ids": receipts, "states": []string{"done", "done"}, "signals": []int16{1, 1}, "reasons": texts, "formats": texts, "rows_in": ones, "rows_out": ones,
		"rejected": [][]byte{[]byte("{}"), []byte("{}")},
	})
	o.run("BumpVersions", pgx.NamedArgs{
		"organization": string(acme), "signals": []int16{1}, "hours": []time.Time{hour.Start}, "increments": []int64{1},
	})
	o.run("FinishTasks", pgx.NamedArgs{"ids": tasks, "lease": lease})
	record := fmt.Sprintf(`{"lease":%q,"kind":"ingest","organization":"acme","added":[{"bucket":"b","key":%q,"id":%d,"sources":[%d,%d]}],
		"receipts":[{"id":%d,"state":"done","rows":1},{"id":%d,"state":"done","rows":1}]}`,
		lease, key, segments[0], receipts[0], receipts[1], receipts[0], receipts[1])
	o.run("InsertCommitRecord", pgx.NamedArgs{"lease": lease, "organization": string(acme), "record": []byte(record)})
	o.run("EndLease", pgx.NamedArgs{"id": lease, "state": "committed", "edit": []byte{1}})
	return lease, segments
}

func span(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}

// records are those in the outbox.
func (l *lab) records(org lake.Organization) []index.Record {
	l.Helper()
	records, err := l.Records(l.Context(), org, 10_000)
	if err != nil {
		l.Fatal(err)
	}
	return records
}

// part is some rows of a snapshot.
type part struct {
	table string
	rows  []byte
}

// rebuilt is another index, made from the parts of a snapshot and records of acme.
func rebuilt(t *testing.T, parts []part, records []index.Record) *lab {
	t.Helper()
	url := indextest.URL(t)
	fresh := open(t, url)
	for _, p := range parts {
		if err := fresh.AdoptSnapshot(t.Context(), acme, p.table, p.rows); err != nil {
			t.Fatalf("adopt rows of %s: %v", p.table, err)
		}
	}
	if _, err := fresh.Adopt(t.Context(), acme, records); err != nil {
		t.Fatalf("adopt records: %v", err)
	}
	return fresh
}
