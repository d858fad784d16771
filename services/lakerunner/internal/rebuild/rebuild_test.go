// SPDX-License-Identifier: AGPL-3.0-only

package rebuild_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/rebuild"
)

const acme lake.Organization = "acme"

// lab is an index and the bucket that its records go to.
type lab struct {
	*testing.T
	url    string
	index  *index.Index
	bucket objects.Bucket
	// name is what the index calls the bucket.
	name   string
	source config.Source
	hour   lake.Window
	keys   int
}

type store struct{ bucket objects.Bucket }

func (s store) Bucket(_ context.Context, name string) (objects.Bucket, error) {
	if name != s.bucket.Name() {
		return nil, fault.New(fault.NotFound, "no bucket %s", name)
	}
	return s.bucket, nil
}

func setup(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	l := &lab{T: t, url: indextest.URL(t), bucket: objectstest.Memory(t), hour: lake.WindowOf(time.Now().Add(-3*time.Hour), time.Hour)}
	l.name = l.bucket.Name()
	var err error
	l.source, err = config.Static(fmt.Sprintf("storage_profiles: [{name: p, bucket: %s, organization: acme}]\norganizations: [{id: acme}, {id: zoo}]\n", l.name))
	if err != nil {
		t.Fatal(err)
	}
	l.index = l.open(l.url)
	return l
}

func (l *lab) open(url string) *index.Index {
	l.Helper()
	x, err := index.Open(l.Context(), index.Config{URL: url, MaxConns: 4})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(x.Close)
	return x
}

func (l *lab) receive(org lake.Organization) lake.Receipt {
	l.Helper()
	l.keys++
	noticed, err := l.index.Receive(l.Context(), []index.Notice{{
		Object:       lake.Object{Bucket: l.name, Key: fmt.Sprint("raw/", l.keys), Tag: "1", Size: 10, LastModified: time.Now()},
		Organization: org, Signal: lake.SignalLogs,
	}})
	if err != nil {
		l.Fatal(err)
	}
	return noticed[0].Receipt
}

func (l *lab) claim(b index.Batch) *lake.Lease {
	l.Helper()
	lease, err := l.index.Claim(l.Context(), b)
	if err != nil || lease == nil {
		l.Fatalf("claim: %v, %v", lease, err)
	}
	return lease
}

func (l *lab) commit(lease *lake.Lease, edit lake.Edit) {
	l.Helper()
	if err := l.index.Commit(l.Context(), lease, edit); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) segment(lease *lake.Lease, level int, sources ...lake.ReceiptID) lake.Segment {
	return lake.Segment{
		Organization: lease.Organization, Signal: lake.SignalLogs, Window: l.hour, Level: level, Bucket: l.name,
		Key: lake.SegmentKey(lease.Organization, lake.SignalLogs, l.hour, lease.ID, 0), Bytes: 100, SidecarBytes: 10, Rows: int64(len(sources)),
		FirstTime: l.hour.Start.Add(1), LastTime: l.hour.Start.Add(time.Minute + 1), FormatVersion: 2, RowHash: 1<<64 - 3, Sources: sources,
		Rules: []string{"mask:user"}, Identified: true,
	}
}

// ingest brings an object to its end.
func (l *lab) ingest(org lake.Organization, state lake.ReceiptState) lake.Receipt {
	l.Helper()
	r := l.receive(org)
	lease := l.claim(index.Batch{Kind: lake.TaskIngest, Receipt: r.ID})
	edit := lake.Edit{Outcomes: []lake.Outcome{{Receipt: r.ID, State: state, Signal: lake.SignalLogs, Format: "text", Reason: "because"}}}
	if state == lake.ReceiptDone {
		edit.Outcomes[0].RowsIn, edit.Outcomes[0].RowsOut = 2, 1
		edit.Outcomes[0].Rejected = map[string]int64{"bad": 1}
		edit.Add = []lake.Segment{l.segment(lease, 0, r.ID)}
	}
	l.commit(lease, edit)
	return r
}

// compact merges all of an organization's segments, of which a delete takes nothing.
func (l *lab) compact(org lake.Organization) {
	l.Helper()
	if err := l.index.Enqueue(l.Context(), []lake.Task{{Kind: lake.TaskCompact, Organization: org, Signal: lake.SignalLogs, Window: l.hour}}); err != nil {
		l.Fatal(err)
	}
	lease := l.claim(index.Batch{Kind: lake.TaskCompact})
	state, err := l.index.Window(l.Context(), org, lake.SignalLogs, l.hour)
	if err != nil {
		l.Fatal(err)
	}
	edit := lake.Edit{Rewrite: true, Expect: []lake.WindowVersion{state.Version}}
	var sources []lake.ReceiptID
	for _, s := range state.Segments {
		edit.Remove = append(edit.Remove, s.ID)
		sources = append(sources, s.Sources...)
	}
	for _, d := range state.Deletes {
		edit.Deleted = append(edit.Deleted, lake.DeletedRows{Delete: d.ID, Source: sources[0], Segment: edit.Remove[0], Rows: 1})
	}
	edit.Add = []lake.Segment{l.segment(lease, 1, sources...)}
	edit.Add[0].AppliedDelete = state.Latest
	l.commit(lease, edit)
}

// roll rolls the hour up.
func (l *lab) roll(org lake.Organization) {
	l.Helper()
	task := lake.Task{Kind: lake.TaskRollup, Organization: org, Signal: lake.SignalLogs, Window: l.hour, Tier: 60}
	if err := l.index.Enqueue(l.Context(), []lake.Task{task}); err != nil {
		l.Fatal(err)
	}
	lease := l.claim(index.Batch{Kind: lake.TaskRollup})
	state, err := l.index.RollupWindow(l.Context(), org, lake.SignalLogs, l.hour)
	if err != nil {
		l.Fatal(err)
	}
	edit := lake.Edit{Add: []lake.Segment{l.segment(lease, 0)}, Rolled: []lake.Rolled{{
		Signal: lake.SignalLogs, Window: l.hour, Resolution: time.Minute, Version: state.Version.Version, AppliedDelete: state.Latest,
	}}}
	edit.Add[0].Rows, edit.Add[0].Resolution, edit.Add[0].AppliedDelete = 1, time.Minute, state.Latest
	for _, r := range state.Rollups {
		for _, s := range r.Segments {
			edit.Remove = append(edit.Remove, s.ID)
		}
	}
	l.commit(lease, edit)
}

func (l *lab) delete(org lake.Organization) lake.Delete {
	l.Helper()
	d, err := l.index.CreateDelete(l.Context(), lake.Delete{
		Organization: org, Signal: lake.SignalLogs, Selector: `{a="b"}`, Start: l.hour.Start, End: l.hour.End(), Actor: "key", Reason: "a test",
	})
	if err != nil {
		l.Fatal(err)
	}
	return d
}

// ship does what the janitor does.
func (l *lab) ship() {
	l.Helper()
	for _, org := range []lake.Organization{acme, "zoo"} {
		records, err := l.index.Records(l.Context(), org, 1000)
		if err != nil {
			l.Fatal(err)
		}
		if len(records) == 0 {
			continue
		}
		var b archive.Batch
		var ids []int64
		for _, r := range records {
			line, err := json.Marshal(r)
			if err != nil {
				l.Fatal(err)
			}
			b.Lines = append(append(b.Lines, line...), '\n')
			b.Last, b.At = r.ID, r.CommittedAt
			ids = append(ids, r.ID)
		}
		if _, err := archive.WriteRecords(l.Context(), l.bucket, org, b); err != nil {
			l.Fatal(err)
		}
		if err := l.index.RecordsShipped(l.Context(), ids); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *lab) snapshot(id string) {
	l.Helper()
	w := archive.NewSnapshot(l.bucket, acme, id)
	info, err := l.index.Snapshot(l.Context(), acme, w.Part)
	if err != nil {
		l.Fatal(err)
	}
	if _, _, err := w.Finish(l.Context(), info.StartedAt, info.StartedAt); err != nil {
		l.Fatal(err)
	}
}

// contents are what an index says of the organizations.
type contents struct {
	Answers  map[lake.Organization]index.Answer
	Rollups  map[lake.Organization]index.Answer
	Windows  map[lake.Organization]index.WindowState
	Receipts map[lake.Organization][]lake.Receipt
	Deletes  map[lake.Organization][]lake.Delete
	Deleted  map[lake.DeleteID][]index.DeletedSource
	Removed  []string
}

func (l *lab) contents(x *index.Index) contents {
	l.Helper()
	c := contents{
		map[lake.Organization]index.Answer{},
		map[lake.Organization]index.Answer{},
		map[lake.Organization]index.WindowState{},
		map[lake.Organization][]lake.Receipt{},
		map[lake.Organization][]lake.Delete{},
		map[lake.DeleteID][]index.DeletedSource{},
		nil,
	}
	var errs [7]error
	for _, org := range []lake.Organization{acme, "zoo"} {
		c.Answers[org], errs[0] = x.Lookup(l.Context(), index.Query{Organization: org, Signal: lake.SignalLogs, Start: l.hour.Start, End: l.hour.End()})
		c.Rollups[org], errs[5] = x.Lookup(l.Context(), index.Query{
			Organization: org, Signal: lake.SignalLogs, Start: l.hour.Start, End: l.hour.End(), Resolution: time.Minute,
		})
		c.Windows[org], errs[1] = x.Window(l.Context(), org, lake.SignalLogs, l.hour)
		c.Receipts[org], _, errs[2] = x.Receipts(l.Context(), index.ReceiptQuery{Organization: org, PageSize: 1000})
		c.Deletes[org], _, errs[3] = x.Deletes(l.Context(), index.DeleteQuery{Organization: org})
		for _, d := range c.Deletes[org] {
			c.Deleted[d.ID], errs[4] = x.DeleteSources(l.Context(), d.ID, 0, 0)
		}
		for _, err := range errs {
			if err != nil {
				l.Fatal(err)
			}
		}
	}
	return c
}

// wantSame compares what two indexes say, but for moments and the versions of windows, which nobody alive has read.
func (l *lab) wantSame(want, got contents) {
	l.Helper()
	ignored := cmp.Options{
		cmpopts.IgnoreFields(index.Answer{}, "At"), cmpopts.IgnoreFields(index.WindowState{}, "At", "Version"),
		cmpopts.IgnoreFields(lake.Receipt{}, "Attempts"), cmpopts.EquateEmpty(),
	}
	if diff := cmp.Diff(want, got, ignored); diff != "" {
		l.Errorf("the index before and after (-want +got):\n%s", diff)
	}
}

func (l *lab) options(x *index.Index) rebuild.Options {
	return rebuild.Options{Index: x, Config: l.source, Objects: store{l.bucket}, Say: l.Logf}
}

func (l *lab) rebuild(o rebuild.Options) []rebuild.Result {
	l.Helper()
	results, err := rebuild.Run(l.Context(), o)
	if err != nil {
		l.Fatal(err)
	}
	return results
}

// litter leaves files of attempts that died.
func (l *lab) litter() {
	l.Helper()
	for _, key := range []string{
		lake.SegmentKey(acme, lake.SignalLogs, l.hour, "dead", 0), lake.SidecarKey(lake.SegmentKey(acme, lake.SignalLogs, l.hour, "dead", 0)),
		"db/acme/snapshots/29990101T000000.000000Z/segments-000000.ndjson.gz", "db/acme/rejects/dead/7.ndjson.gz",
	} {
		if _, err := l.bucket.Put(l.Context(), key, strings.NewReader("litter"), 6); err != nil {
			l.Fatal(err)
		}
	}
}

// history is a lake's life before it loses its database.
func (l *lab) history(between func()) {
	l.Helper()
	l.ingest(acme, lake.ReceiptDone)
	l.ingest(acme, lake.ReceiptDone)
	l.ingest("zoo", lake.ReceiptDone)
	l.ingest(acme, lake.ReceiptFailed)
	l.roll(acme)
	l.roll("zoo")
	l.ship()
	between()
	l.roll(acme)
	l.compact(acme)
	l.delete(acme)
	l.compact(acme)
	l.ingest(acme, lake.ReceiptDone)
	l.delete(acme)
	l.ship()
	l.litter()
}

func TestRebuild(t *testing.T) {
	t.Run("records alone make the index again", func(t *testing.T) {
		l := setup(t)
		l.history(func() {})
		fresh := l.open(indextest.URL(t))
		results := l.rebuild(l.options(fresh))
		l.wantSame(l.contents(l.index), l.contents(fresh))
		if len(results) != 2 || results[0].Organization != acme || results[0].Records == 0 || results[0].Snapshot != "" {
			t.Errorf("%+v", results)
		}
		l.rebuild(l.options(fresh))
		l.wantSame(l.contents(l.index), l.contents(fresh))
	})

	t.Run("a snapshot and the records since do too", func(t *testing.T) {
		l := setup(t)
		l.history(func() { l.snapshot("20200101T000000.000000Z") })
		fresh := l.open(indextest.URL(t))
		if results := l.rebuild(l.options(fresh)); results[0].Snapshot == "" || results[0].SnapshotRows == 0 {
			t.Errorf("%+v", results)
		}
		l.wantSame(l.contents(l.index), l.contents(fresh))
	})

	t.Run("a dry run needs no index", func(t *testing.T) {
		l := setup(t)
		l.history(func() { l.snapshot("20200101T000000.000000Z") })
		o := l.options(nil)
		o.Index, o.DryRun = nil, true
		if results := l.rebuild(o); len(results) != 2 || results[0].Records == 0 {
			t.Errorf("%+v", results)
		}
	})

	t.Run("new numbers go on where the old ones ended", func(t *testing.T) {
		l := setup(t)
		l.history(func() {})
		latest, before := l.receive(acme), l.delete(acme)
		l.ingest(acme, lake.ReceiptDone)
		l.ship()
		was := l.index
		l.index = l.open(indextest.URL(t))
		l.rebuild(l.options(l.index))
		if r := l.receive(acme); r.ID <= latest.ID {
			t.Errorf("receipt %d after %d", r.ID, latest.ID)
		}
		if d := l.delete(acme); d.ID <= before.ID {
			t.Errorf("delete %d after %d", d.ID, before.ID)
		}
		was.Close()
	})
}

// TestVeryOldBackup restores a database whose live segments were replaced, swept and forgotten since, records and all.
func TestVeryOldBackup(t *testing.T) {
	l := setup(t)
	l.ingest(acme, lake.ReceiptDone)
	l.ingest(acme, lake.ReceiptDone)
	l.roll(acme)
	l.backdate() // the snapshot's overlap is an hour
	l.index.Close()
	backup := l.copyDatabase()
	l.index = l.open(l.url)
	l.compact(acme)
	l.roll(acme)
	l.exec(l.url, "DELETE FROM segments WHERE removed_at IS NOT NULL")
	l.exec(l.url, "DELETE FROM commit_records")
	l.snapshot("20200101T000000.000000Z")
	restored := l.open(backup)
	if results := l.rebuild(l.options(restored)); results[0].Removed != 3 {
		t.Errorf("%+v, want two of rows and one of a rollup removed", results)
	}
	l.wantSame(l.contents(l.index), l.contents(restored))
}

// backdate makes everything two hours older.
func (l *lab) backdate() {
	l.Helper()
	l.exec(l.url, "UPDATE segments SET created_at = created_at - interval '2 hours'")
}

func (l *lab) exec(url, sql string) {
	l.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		l.Fatal(err)
	}
}

// TestOlderBackup rebuilds into a copy of the database from the middle of its life.
func TestOlderBackup(t *testing.T) {
	l := setup(t)
	var backup string
	l.history(func() {
		l.index.Close()
		backup = l.copyDatabase()
		l.index = l.open(l.url)
	})
	restored := l.open(backup)
	l.rebuild(l.options(restored))
	l.wantSame(l.contents(l.index), l.contents(restored))
	if n := len(l.contents(restored).Rollups["zoo"].Segments); n != 1 {
		t.Errorf("%d segments of zoo's rollup are current, want one", n)
	}
}

// copyDatabase copies the lab's database, which nobody may be connected to.
func (l *lab) copyDatabase() string {
	l.Helper()
	u, err := url.Parse(l.url)
	if err != nil {
		l.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	admin := *u
	admin.Path = "/postgres"
	l.exec(admin.String(), "CREATE DATABASE "+name+"_backup TEMPLATE "+name)
	l.Cleanup(func() { l.exec(admin.String(), "DROP DATABASE "+name+"_backup WITH (FORCE)") })
	u.Path += "_backup"
	return u.String()
}

// TestMovedBucket rebuilds a lake whose records call the bucket by another name.
func TestMovedBucket(t *testing.T) {
	l := setup(t)
	here := l.name
	l.name = "old-bucket"
	l.history(func() { l.snapshot("20200101T000000.000000Z") })
	fresh := l.open(indextest.URL(t))
	o := l.options(fresh)
	o.Buckets = map[string]string{"old-bucket": here}
	l.rebuild(o)
	got, want := l.contents(fresh), l.contents(l.index)
	text, err := json.Marshal(got)
	if err != nil || bytes.Contains(text, []byte("old-bucket")) {
		t.Errorf("%v: the old name is still there: %s", err, text)
	}
	var moved contents
	before, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes.ReplaceAll(before, []byte("old-bucket"), []byte(here)), &moved); err != nil {
		t.Fatal(err)
	}
	l.wantSame(moved, got)

	t.Run("a bucket that no storage profile names is refused", func(t *testing.T) {
		o := l.options(fresh)
		o.Buckets = map[string]string{"old-bucket": "nowhere"}
		if _, err := rebuild.Run(t.Context(), o); fault.KindOf(err) != fault.Invalid {
			t.Errorf("got %v", err)
		}
	})

	t.Run("objects with other tags are recognised, others are missed", func(t *testing.T) {
		for i := range 5 { // four of them are known
			key := fmt.Sprint("raw/", l.keys-i)
			if i == 4 {
				key = "raw/never-seen"
			}
			if _, err := l.bucket.Put(t.Context(), key, strings.NewReader("ten bytes!"), 10); err != nil {
				t.Fatal(err)
			}
		}
		got, err := rebuild.Reconcile(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		want := []rebuild.Reconciled{{Bucket: here, Objects: 5, Missed: 1, Bytes: 10, Retagged: 4}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		want[0] = rebuild.Reconciled{Bucket: here, Objects: 5}
		if again, err := rebuild.Reconcile(t.Context(), o); err != nil || !cmp.Equal(again, want) {
			t.Errorf("once more: %+v, %v", again, err)
		}
	})
}
