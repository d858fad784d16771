// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// open is a lab on a database that is there.
func open(t *testing.T, url string) *lab {
	t.Helper()
	x, err := index.Open(t.Context(), index.Config{URL: url, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return &lab{T: t, Index: x, sql: pool}
}

// snapshot reads one.
func (l *lab) snapshot(ctx context.Context) ([]part, error) {
	var parts []part
	_, err := l.Snapshot(ctx, acme, func(_ context.Context, table string, rows []byte) error {
		parts = append(parts, part{table, bytes.Clone(rows)})
		return nil
	})
	return parts, err
}

// contents are what must be the same in a rebuilt index: the rows of each table, as texts.
func (l *lab) contents() map[string][]string {
	l.Helper()
	queries := map[string]string{
		"live segments": "SELECT to_jsonb(s) FROM segments s WHERE removed_at IS NULL",
		// Nobody masks the rows of what is removed.
		"removed segments": "SELECT to_jsonb(s) - 'masked_sources' FROM segments s WHERE removed_at IS NOT NULL",
		"sources":          "SELECT to_jsonb(s) FROM segment_sources s",
		"receipts":         "SELECT to_jsonb(r) FROM receipts r",
		"deletes":          "SELECT to_jsonb(d) FROM deletes d",
		"deleted rows":     "SELECT to_jsonb(d) FROM delete_rows d",
		"deleted segments": "SELECT to_jsonb(d) FROM delete_segments d",
		"deleted sources":  "SELECT to_jsonb(d) FROM delete_sources d",
		"leases":           "SELECT jsonb_build_object('id', id, 'kind', kind, 'organization', organization) FROM leases WHERE state = 'committed'",
		"totals":           "SELECT to_jsonb(t) FROM segment_totals t",
		"tasks":            "SELECT jsonb_build_object('kind', kind, 'receipt', receipt) FROM tasks WHERE kind = 'ingest'",
		"audit log":        "SELECT to_jsonb(a) FROM audit_log a",
		"retention":        "SELECT to_jsonb(r) FROM retention_runs r",
		"rollups":          "SELECT to_jsonb(r) FROM rollups r",
	}
	found := map[string][]string{}
	for name, query := range queries {
		rows, err := l.sql.Query(l.Context(), query)
		if err != nil {
			l.Fatalf("%s: %v", name, err)
		}
		texts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
			var doc json.RawMessage
			err := row.Scan(&doc)
			return string(doc), err
		})
		if err != nil {
			l.Fatalf("%s: %v", name, err)
		}
		slices.Sort(texts)
		found[name] = texts
	}
	return found
}

// wantSame compares with the index that was rebuilt.
func (l *lab) wantSame(fresh *lab) {
	l.Helper()
	want, got := l.contents(), fresh.contents()
	for name := range want {
		if diff := cmp.Diff(want[name], got[name]); diff != "" {
			l.Errorf("%s (-before +rebuilt):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(l.lookup(acme).Segments, fresh.lookup(acme).Segments); diff != "" {
		l.Errorf("answers (-before +rebuilt):\n%s", diff)
	}
	for _, resolution := range index.Resolutions() {
		before, after := l.lookupRollups(resolution), fresh.lookupRollups(resolution)
		before.At, after.At = time.Time{}, time.Time{}
		if diff := cmp.Diff(before, after); diff != "" {
			l.Errorf("answers at %s (-before +rebuilt):\n%s", resolution, diff)
		}
	}
	for _, sequence := range []string{"receipt_ids", "segment_ids", "delete_ids"} {
		before, after := l.number("SELECT last_value FROM "+sequence), fresh.number("SELECT nextval('"+sequence+"')")
		table := map[string]string{"receipt_ids": "receipts", "segment_ids": "segments", "delete_ids": "deletes"}[sequence]
		if highest := l.number("SELECT coalesce(max(id), 0) FROM " + table); after <= highest {
			l.Errorf("%s gives %d, but %d was given before (of up to %d)", sequence, after, highest, before)
		}
	}
}

// wantVersions: every hour that had a version has one. Leases that lived are gone, so nobody compares it with the one before.
func (l *lab) wantVersions(fresh *lab) {
	l.Helper()
	query := "SELECT count(*) FROM window_versions WHERE version > 0"
	if want, got := l.number(query), fresh.number(query); want != got {
		l.Errorf("%d hours have a version, want %d", got, want)
	}
}

// TestTheBucketRebuildsTheIndex takes a snapshot while a storm goes over a lake, and makes another index of the snapshot and the records
// that were not in the outbox when it began, in any order and some of them twice.
func TestTheBucketRebuildsTheIndex(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			l := setup(t)
			s := newStorm(l)
			const senders, workers = 2, 4
			s.sending.Store(senders)
			var parts []part
			shipped := map[int64]bool{}
			l.wantNone(l.together(senders+workers+1, func(i int) error {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				if i < senders {
					defer s.sending.Add(-1)
					return s.send(r, i)
				}
				if i < senders+workers {
					return s.work(r)
				}
				for s.sending.Load() == senders && l.number("SELECT count(*) FROM commit_records") < 20 {
					continue
				}
				records, err := l.Records(context.Background(), acme, 10_000)
				if err != nil {
					return err
				}
				for _, r := range records {
					shipped[r.ID] = true
				}
				parts, err = l.snapshot(context.Background())
				return err
			}))
			s.settle()
			l.decorate()
			r := rand.New(rand.NewPCG(seed, 99))

			t.Run("from a snapshot and the records since", func(t *testing.T) {
				since := slices.DeleteFunc(l.records(acme), func(r index.Record) bool { return shipped[r.ID] })
				fresh := rebuiltInAnyOrder(t, r, parts, since)
				l.wantSame(fresh)
				l.wantVersions(fresh)
				s.on(fresh).check(senders)
			})
			t.Run("from the records alone", func(t *testing.T) {
				fresh := rebuiltInAnyOrder(t, r, nil, l.records(acme))
				l.wantSame(fresh)
				s.on(fresh).check(senders)
			})
			t.Run("and once more over what is there", func(t *testing.T) {
				records := l.records(acme)
				before := l.contents()
				if _, err := l.Adopt(t.Context(), acme, records); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, l.contents()); diff != "" {
					t.Errorf("adopting what is known changed it (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// decorate does to the lake what the storm does not.
func (l *lab) decorate() {
	l.Helper()
	ctx := l.Context()
	deletes, _, err := l.Deletes(ctx, index.DeleteQuery{Organization: acme})
	if err != nil || len(deletes) == 0 {
		l.Fatalf("%d deletes: %v", len(deletes), err)
	}
	sources, err := l.DeleteSources(ctx, deletes[0].ID, 0, 0)
	if err != nil {
		l.Fatal(err)
	}
	for _, s := range sources {
		if err := l.MarkDeleteSource(ctx, deletes[0].ID, s.Receipt.ID, "erased", lake.RawErased); err != nil {
			l.Fatal(err)
		}
	}
	if err := l.AdvanceDelete(ctx, deletes[0].ID, lake.DeleteRewriting, lake.DeleteSweeping); err != nil {
		l.Fatal(err)
	}
	for _, action := range []string{"delete", "certify"} {
		if _, err := l.Audit(ctx, index.AuditEntry{Organization: acme, Actor: "key", Action: action, Subject: "1", Detail: `{"a":1}`}); err != nil {
			l.Fatal(err)
		}
	}
}

// rebuiltInAnyOrder adopts in small batches, in any order, and some of it twice.
func rebuiltInAnyOrder(t *testing.T, r *rand.Rand, parts []part, records []index.Record) *lab {
	t.Helper()
	parts, records = slices.Clone(parts), slices.Clone(records)
	for range len(parts) / 3 {
		parts = append(parts, parts[r.IntN(len(parts))])
	}
	for range len(records) / 3 {
		records = append(records, records[r.IntN(len(records))])
	}
	r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	r.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	for i := range records {
		records[i] = throughTheBucket(t, records[i])
	}
	fresh := rebuilt(t, parts, nil)
	for batch := range slices.Chunk(records, 1+r.IntN(40)) {
		if _, err := fresh.Adopt(t.Context(), acme, batch); err != nil {
			t.Fatalf("adopt records: %v", err)
		}
	}
	return fresh
}

// throughTheBucket is a record as it is read from the bucket.
func throughTheBucket(t *testing.T, r index.Record) index.Record {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var read index.Record
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// TestAnOlderDatabaseCatchesUp adopts records into a database that was restored from before them, with work under way.
func TestAnOlderDatabaseCatchesUp(t *testing.T) {
	l := setup(t)
	l.receive(notice(acme, "a", "v1"), notice(acme, "b", "v1"))
	l.ingestAll()
	pending := l.receive(notice(acme, "c", "v1"), notice(acme, "d", "v1"))
	if err := l.Enqueue(t.Context(), []lake.Task{window(hour)}); err != nil {
		t.Fatal(err)
	}
	parts, err := l.snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	older := rebuilt(t, parts, nil)
	late := older.claimReceipt(pending[0].ID)
	state, err := older.Window(t.Context(), acme, lake.SignalLogs, hour)
	if err != nil {
		t.Fatal(err)
	}
	merging := older.claimWindow(hour)

	lease := l.claimReceipt(pending[0].ID)
	edit := whole(lease)
	l.commit(lease, edit)
	compaction := l.claimWindow(hour)
	now, err := l.Window(t.Context(), acme, lake.SignalLogs, hour)
	if err != nil {
		t.Fatal(err)
	}
	merge := lake.Edit{Rewrite: true, Expect: []lake.WindowVersion{now.Version}}
	var sources []lake.ReceiptID
	for _, s := range now.Segments {
		merge.Remove = append(merge.Remove, s.ID)
		sources = append(sources, s.Sources...)
	}
	slices.Sort(sources)
	merge.Add = []lake.Segment{segment(compaction, 0, hour, sources...)}
	merge.Add[0].Level = 1
	l.commit(compaction, merge)
	records := l.records(acme)
	if _, err := older.Adopt(t.Context(), acme, records); err != nil {
		t.Fatal(err)
	}

	t.Run("it answers what the newer one does", func(t *testing.T) {
		older.wantVisible(acme, l.visible(acme)...)
		older.wantState(pending[0].ID, lake.ReceiptDone)
	})
	t.Run("what is done elsewhere cannot be committed here", func(t *testing.T) {
		older.wantFault(older.Commit(t.Context(), late, whole(late)), fault.Conflict)
	})
	t.Run("what was made of an older window cannot be committed", func(t *testing.T) {
		stale := lake.Edit{Rewrite: true, Expect: []lake.WindowVersion{state.Version}}
		older.wantFault(older.Commit(t.Context(), merging, stale), fault.Conflict)
	})
	t.Run("a commit that it did not know can be asked again", func(t *testing.T) {
		if err := older.Commit(t.Context(), lease, edit); err != nil {
			t.Error(err)
		}
	})
	t.Run("what is pending still comes", func(t *testing.T) {
		if err := older.Release(t.Context(), late, fault.New(fault.Canceled, "shutdown")); err != nil {
			older.wantFault(err, fault.Conflict)
		}
		older.ingestAll()
		older.wantState(pending[1].ID, lake.ReceiptDone)
	})
}

// TestAdoptRefusesWhatWouldComeTwice adopts into an index in which the same objects came once more.
func TestAdoptRefusesWhatWouldComeTwice(t *testing.T) {
	l := setup(t)
	l.receive(notice(acme, "a", "v1"), notice(acme, "b", "v1"))
	l.ingestAll()
	records := l.records(acme)

	t.Run("an object that waits gives way to its record", func(t *testing.T) {
		other := rebuilt(t, nil, nil)
		other.receive(notice(acme, "b", "v1"))
		other.receive(notice(acme, "a", "v1"))
		if _, err := other.Adopt(t.Context(), acme, records); err != nil {
			t.Fatal(err)
		}
		other.wantVisible(acme, l.visible(acme)...)
		other.claimNothing(ingest)
	})
	t.Run("one that was ingested is a conflict", func(t *testing.T) {
		other := rebuilt(t, nil, nil)
		other.receive(notice(acme, "b", "v1"))
		other.receive(notice(acme, "a", "v1"))
		other.ingestAll()
		_, err := other.Adopt(t.Context(), acme, records)
		other.wantFault(err, fault.Conflict)
	})
	t.Run("a segment whose number another one has is a conflict", func(t *testing.T) {
		other := rebuilt(t, nil, nil)
		other.receive(notice(acme, "a", "v1"), notice(acme, "b", "v1")) // get the same numbers
		other.ingestAll()
		_, err := other.Adopt(t.Context(), acme, records)
		other.wantFault(err, fault.Conflict)
	})
	t.Run("a delete, a run of retention or an entry of the audit log whose number another one has is a conflict", func(t *testing.T) {
		for table, write := range map[string]func(l *lab, which string){
			"deletes": func(l *lab, which string) { l.createDelete(deletion(`{a="` + which + `"}`)) },
			"retention_runs": func(l *lab, which string) {
				if _, err := l.BeginRetention(t.Context(), index.RetentionRun{Organization: acme, Signal: lake.SignalLogs, Selector: which}); err != nil {
					t.Fatal(err)
				}
			},
			"audit_log": func(l *lab, which string) {
				if _, err := l.Audit(t.Context(), index.AuditEntry{Actor: "a", Organization: acme, Action: which, Subject: "s", Detail: "{}"}); err != nil {
					t.Fatal(err)
				}
			},
		} {
			first := rebuilt(t, nil, nil)
			write(first, "before")
			var rows []byte
			if err := first.sql.QueryRow(t.Context(), "SELECT string_agg(to_jsonb(r)::text, chr(10)) FROM "+table+" r").Scan(&rows); err != nil {
				t.Fatal(err)
			}
			other := rebuilt(t, nil, nil)
			write(other, "since")
			err := other.AdoptSnapshot(t.Context(), acme, table, rows)
			other.wantFault(err, fault.Conflict)
			if !strings.Contains(fmt.Sprint(err), table) {
				t.Errorf("%s: %v", table, err)
			}
			if err := first.AdoptSnapshot(t.Context(), acme, table, rows); err != nil {
				t.Errorf("%s of its own: %v", table, err)
			}
		}
	})
	t.Run("a record of a later release is refused", func(t *testing.T) {
		other := rebuilt(t, nil, nil)
		later := slices.Clone(records)
		later[0].Version = 1000
		_, err := other.Adopt(t.Context(), acme, later)
		other.wantFault(err, fault.Invalid)
	})
	t.Run("another organization's rows are not adopted", func(t *testing.T) {
		other := rebuilt(t, nil, nil)
		if _, err := other.Adopt(t.Context(), "globex", records); err == nil {
			if n := other.number("SELECT count(*) FROM segments") + other.number("SELECT count(*) FROM receipts") + other.number("SELECT count(*) FROM segment_sources"); n != 0 {
				t.Errorf("%d rows of acme came with records that were said to be globex's", n)
			}
		}
	})
}
