// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

const acme lake.Organization = "acme"

// lab is an eraser on a real index and a bucket in memory, with an ingest and a compaction that do what these promise.
type lab struct {
	*testing.T
	*Eraser
	index  *index.Index
	bucket objects.Bucket
	hour   lake.Window
	served int // objects put
}

// store is that of one bucket.
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
	bucket := objectstest.Memory(t)
	source, err := config.Static(fmt.Sprintf("storage_profiles: [{name: p, bucket: %s, organization: acme}]\norganizations: [{id: acme}]\n", bucket.Name()))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t, index: indextest.New(t), bucket: bucket, hour: lake.WindowOf(time.Now().Add(-3*time.Hour), time.Hour)}
	l.Eraser = New(Deps{Index: l.index, Objects: store{bucket}, Config: source, Scratch: t.TempDir()})
	return l
}

// put makes an object, which nobody decodes: its content does not matter here.
func (l *lab) put(key string) lake.Receipt {
	l.Helper()
	l.served++
	content := fmt.Sprint("object ", l.served)
	written, err := l.bucket.Put(l.Context(), key, strings.NewReader(content), int64(len(content)))
	if err != nil {
		l.Fatal(err)
	}
	noticed, err := l.index.Receive(l.Context(), []index.Notice{{
		Object:       lake.Object{Bucket: l.bucket.Name(), Key: key, Tag: written.Tag, Size: int64(len(content)), LastModified: time.Now()},
		Organization: acme, Signal: lake.SignalLogs,
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

// ingest brings lines of a receipt's object, whose deletes were read when the lease was claimed.
func (l *lab) ingest(lease *lake.Lease, applied lake.DeleteID, lines ...string) {
	l.Helper()
	receipt := lease.Receipts[0].ID
	logs := columns.NewLogs()
	stream := logs.Stream([]columns.Label{{Name: "service_name", Value: "checkout"}})
	origin := logs.Origin(columns.Origin{})
	for i, line := range lines {
		logs.Append(&columns.LogRow{Time: l.hour.Start.Add(time.Duration(i) * time.Second).UnixNano(), Stream: stream, Origin: origin, Body: line, Source: receipt})
	}
	edit := lake.Edit{Outcomes: []lake.Outcome{{
		Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalLogs, RowsIn: int64(len(lines)), RowsOut: int64(len(lines)),
	}}}
	if len(lines) > 0 {
		edit.Add = append(edit.Add, l.write(lease.ID, 0, logs, applied, receipt))
	}
	if err := l.index.Commit(l.Context(), lease, edit); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) write(lease lake.LeaseID, level int, logs *columns.Logs, applied lake.DeleteID, sources ...lake.ReceiptID) lake.Segment {
	l.Helper()
	rows := make([]uint32, logs.Len())
	for i := range rows {
		rows[i] = uint32(i)
	}
	logs.Sort(rows)
	var parquet, sidecar bytes.Buffer
	written, err := segfile.WriteLogs(l.Context(), &parquet, &sidecar, logs, rows, segfile.Meta{
		Organization: acme, Signal: lake.SignalLogs, Window: l.hour, Level: level, Lease: lease, Sources: sources,
	})
	if err != nil {
		l.Fatal(err)
	}
	key := lake.SegmentKey(acme, lake.SignalLogs, l.hour, lease, 0)
	for name, content := range map[string][]byte{key: parquet.Bytes(), lake.SidecarKey(key): sidecar.Bytes()} {
		if _, err := l.bucket.Put(l.Context(), name, bytes.NewReader(content), int64(len(content))); err != nil {
			l.Fatal(err)
		}
	}
	return lake.Segment{
		Organization: acme, Signal: lake.SignalLogs, Window: l.hour, Level: level, Bucket: l.bucket.Name(), Key: key, Bytes: written.Bytes,
		SidecarBytes: written.SidecarBytes, Rows: written.Rows, FirstTime: written.First, LastTime: written.Last,
		FormatVersion: written.FormatVersion, RowHash: written.RowHash, Sources: sources, AppliedDelete: applied,
	}
}

// object puts and ingests one.
func (l *lab) object(key string, applied lake.DeleteID, lines ...string) lake.Receipt {
	l.Helper()
	receipt := l.put(key)
	l.ingest(l.claim(index.Batch{Kind: lake.TaskIngest, Receipt: receipt.ID}), applied, lines...)
	return receipt
}

// compact does what tasks of the duty ask for: rows of the deletes are left out, and counted.
func (l *lab) compact(tasks []lake.Task) {
	l.Helper()
	for _, task := range tasks {
		if err := l.index.Enqueue(l.Context(), []lake.Task{task}); err != nil {
			l.Fatal(err)
		}
		lease := l.claim(index.Batch{Kind: lake.TaskCompact})
		state, err := l.index.Window(l.Context(), acme, lake.SignalLogs, lease.Tasks[0].Window)
		if err != nil {
			l.Fatal(err)
		}
		if err := l.index.Commit(l.Context(), lease, l.rewritten(lease, state)); err != nil {
			l.Fatal(err)
		}
	}
}

func (l *lab) rewritten(lease *lake.Lease, state index.WindowState) lake.Edit {
	l.Helper()
	edit := lake.Edit{Rewrite: true, Expect: []lake.WindowVersion{state.Version}}
	kept := columns.NewLogs()
	var sources []lake.ReceiptID
	for _, s := range state.Segments {
		edit.Remove = append(edit.Remove, s.ID)
		sources = append(sources, s.Sources...)
		l.eachRow(s, func(logs *columns.Logs, row *columns.LogRow) {
			labels := logs.StreamLabels(row.Stream)
			for _, d := range state.Deletes {
				if d.ID > s.AppliedDelete && matches(l.T, d.Selector, labels, row) {
					edit.Deleted = append(edit.Deleted, lake.DeletedRows{Delete: d.ID, Source: row.Source, Segment: s.ID, Rows: 1})
					return
				}
			}
			row.Stream, row.Origin = kept.Stream(labels), kept.Origin(logs.OriginOf(row.Origin))
			kept.Append(row)
		})
	}
	if kept.Len() > 0 {
		edit.Add = append(edit.Add, l.write(lease.ID, 1, kept, state.Latest, sources...))
	}
	return edit
}

func (l *lab) eachRow(s lake.Segment, each func(*columns.Logs, *columns.LogRow)) {
	l.Helper()
	body, _, err := l.bucket.Get(l.Context(), s.Key, "")
	if err != nil {
		l.Fatal(err)
	}
	content, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		l.Fatal(err)
	}
	reader, err := segfile.OpenLogs(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		l.Fatal(err)
	}
	logs := columns.NewLogs()
	for err = reader.Next(logs); err == nil; err = reader.Next(logs) {
	}
	if !errors.Is(err, io.EOF) {
		l.Fatal(err)
	}
	var row columns.LogRow
	for i := range logs.Len() {
		logs.Row(i, &row)
		each(logs, &row)
	}
}

func matches(t *testing.T, text string, labels []columns.Label, row *columns.LogRow) bool {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s.NewMatcher().Row(labels, columns.Origin{}, row)
}

// sweep deletes the files of removed segments and says so, as the janitor's sweep does after the grace.
func (l *lab) sweep() {
	l.Helper()
	records, err := l.index.Records(l.Context(), acme, 1000)
	if err != nil {
		l.Fatal(err)
	}
	var ids []int64
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	if err := l.index.RecordsShipped(l.Context(), ids); err != nil {
		l.Fatal(err)
	}
	removed, err := l.index.Sweepable(l.Context(), acme, 0, 1000)
	if err != nil {
		l.Fatal(err)
	}
	var gone []lake.SegmentID
	for _, s := range removed {
		gone = append(gone, s.ID)
		if err := l.bucket.Delete(l.Context(), s.Key, lake.SidecarKey(s.Key)); err != nil {
			l.Fatal(err)
		}
	}
	if err := l.index.Swept(l.Context(), acme, gone); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) delete(text string, sources lake.SourcePolicy) lake.Delete {
	l.Helper()
	d, err := l.Create(l.Context(), lake.Delete{Organization: acme, Selector: text, Sources: sources, Reason: "a test", Actor: "key"})
	if err != nil {
		l.Fatal(err)
	}
	return d
}

func (l *lab) run() []lake.Task {
	l.Helper()
	tasks, err := l.Eraser.Run(l.Context(), acme)
	if err != nil {
		l.Fatal(err)
	}
	return tasks
}

func (l *lab) wantState(id lake.DeleteID, want lake.DeleteState) {
	l.Helper()
	d, err := l.index.Delete(l.Context(), id)
	if err != nil || d.State != want {
		l.Errorf("delete %d is %s, %v; want %s", id, d.State, err, want)
	}
}

func (l *lab) wantObject(key string, want bool) {
	l.Helper()
	_, err := l.bucket.Head(l.Context(), key)
	if err != nil && !errors.Is(err, fault.NotFound) {
		l.Fatal(err)
	}
	if got := err == nil; got != want {
		l.Errorf("object %s is there: %v, want %v", key, got, want)
	}
}

func (l *lab) certificate(id lake.DeleteID) *Certificate {
	l.Helper()
	c, err := l.Certificate(l.Context(), id)
	if err != nil {
		l.Fatal(err)
	}
	return c
}

// bodies reads the lines of a redacted copy.
func (l *lab) bodies(key string) []string {
	l.Helper()
	body, _, err := l.bucket.Get(l.Context(), key, "")
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	z, err := gzip.NewReader(body)
	if err != nil {
		l.Fatal(err)
	}
	var out []string
	for d := json.NewDecoder(z); ; {
		var line document
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			l.Fatal(err)
		}
		out = append(out, *line.ResourceLogs[0].ScopeLogs[0].LogRecords[0].Body.String)
	}
}

const cards = `{service_name="checkout"} |= "card"`

func TestDeleteToTheEnd(t *testing.T) {
	l := setup(t)
	l.object("raw/a", 0, "card 1", "fine", "card 2")
	l.object("raw/b", 0, "fine as well")
	d := l.delete(cards, lake.SourceErase)

	tasks := l.run()
	want := []lake.Task{{Kind: lake.TaskCompact, Organization: acme, Signal: lake.SignalLogs, Window: l.hour, Bytes: tasks[0].Bytes}}
	if diff := cmp.Diff(want, tasks); diff != "" {
		t.Fatal(diff)
	}
	l.wantState(d.ID, lake.DeleteRewriting)
	l.wantObject("raw/a", true)

	l.compact(tasks)
	if left := l.run(); len(left) != 0 {
		t.Errorf("%d windows are to be compacted again", len(left))
	}
	l.wantState(d.ID, lake.DeleteSweeping)
	l.wantObject("raw/a", false)
	l.wantObject("raw/b", true)
	if c := l.certificate(d.ID); c.Final || len(c.Segments) != 1 || c.SHA256 != "" {
		t.Errorf("before the sweep: %+v", c)
	}

	l.sweep()
	l.run()
	l.wantState(d.ID, lake.DeleteDone)
	c := l.certificate(d.ID)
	if !c.Final || len(c.Segments) != 1 || c.Segments[0].Rows != 2 || c.Segments[0].GoneAt.IsZero() {
		t.Errorf("segments: %+v", c)
	}
	if len(c.Objects) != 1 || c.Objects[0].Action != actionErased || c.Objects[0].Rows != 2 || c.Objects[0].Receipt.Object.Key != "raw/a" {
		t.Errorf("objects: %+v", c.Objects)
	}
	body, _, err := l.bucket.Get(t.Context(), CertificateKey(acme, d.ID), "")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil || hashOf(text) != c.SHA256 {
		t.Errorf("the certificate in the bucket has hash %s, the one in the audit log %s, %v", hashOf(text), c.SHA256, err)
	}
	if n, broken, _, err := l.index.VerifyAudit(t.Context()); err != nil || broken != 0 || n < 3 {
		t.Errorf("the audit log: %d entries, broken at %d, %v", n, broken, err)
	}
	l.run() // nothing is left to do
	if again := l.certificate(d.ID); again.SHA256 != c.SHA256 {
		t.Errorf("another certificate: %s, %s", again.SHA256, c.SHA256)
	}
}

func TestAFinalCertificateStaysAsItIs(t *testing.T) {
	l := setup(t)
	r := l.object("raw/a", 0, "card 1", "fine")
	d := l.delete(cards, lake.SourceLeave)
	l.compact(l.run())
	l.run()
	l.sweep()
	l.run()
	l.wantState(d.ID, lake.DeleteDone)
	want := l.certificate(d.ID)

	// A replay leaves the same rows out once more.
	if _, _, err := l.index.Replay(t.Context(), index.ReplayQuery{Organization: acme, Receipts: []lake.ReceiptID{r.ID}}); err != nil {
		t.Fatal(err)
	}
	lease := l.claim(index.Batch{Kind: lake.TaskIngest})
	again := lease.Receipts[0].ID
	err := l.index.Commit(t.Context(), lease, lake.Edit{
		Outcomes: []lake.Outcome{{Receipt: again, State: lake.ReceiptDone, Signal: lake.SignalLogs, RowsIn: 2, RowsOut: 0}},
		Deleted:  []lake.DeletedRows{{Delete: d.ID, Source: again, Rows: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := l.certificate(d.ID)
	if !got.Final || got.SHA256 != want.SHA256 || len(got.Objects) != 1 || got.Objects[0].Action != actionLeft || got.Objects[0].Receipt.Object.Key != "raw/a" {
		t.Errorf("it says %+v by now, want %+v", got, want)
	}
	if diff := cmp.Diff(want.Segments, got.Segments); diff != "" || len(got.Segments) != 1 {
		t.Error(diff)
	}
}

func TestWorkFromBeforeTheDelete(t *testing.T) {
	t.Run("an ingest that did not see the delete keeps it from going on, and is rewritten", func(t *testing.T) {
		l := setup(t)
		slow := l.put("raw/slow")
		lease := l.claim(index.Batch{Kind: lake.TaskIngest, Receipt: slow.ID})
		d := l.delete(cards, lake.SourceLeave)
		l.run()
		l.wantState(d.ID, lake.DeleteRewriting)
		l.ingest(lease, 0, "card", "fine")
		tasks := l.run()
		l.wantState(d.ID, lake.DeleteRewriting)
		l.compact(tasks)
		l.run()
		l.wantState(d.ID, lake.DeleteSweeping)
		if c := l.certificate(d.ID); len(c.Objects) != 1 || c.Objects[0].Action != actionLeft {
			t.Errorf("objects: %+v", c.Objects)
		}
	})

	t.Run("an object that waits to be ingested keeps the certificate open, but not for ever", func(t *testing.T) {
		l := setup(t)
		l.put("raw/waits")
		d := l.delete(cards, lake.SourceErase)
		l.run()
		l.run()
		l.wantState(d.ID, lake.DeleteSweeping)
		l.deps.Patience = 0
		l.run()
		l.wantState(d.ID, lake.DeleteDone)
		if limits := strings.Join(l.certificate(d.ID).Limits, "\n"); !strings.Contains(limits, "1 object received before the delete had not been decoded") {
			t.Error(limits)
		}
	})
}

func TestRedaction(t *testing.T) {
	t.Run("the other rows are kept and the object goes", func(t *testing.T) {
		l := setup(t)
		r := l.object("raw/a", 0, "card 1", "fine 1", "card 2", "fine 2")
		l.object("raw/b", 0, "fine 3")
		d := l.delete(cards, lake.SourceRedact)
		l.compact(l.run())
		l.run()
		l.wantObject("raw/a", false)
		l.wantObject("raw/b", true)
		if diff := cmp.Diff([]string{"fine 1", "fine 2"}, l.bodies(copyKey(acme, d.ID, r.ID))); diff != "" {
			t.Error(diff)
		}

		// The next delete reaches the copy.
		next := l.delete(`{service_name="checkout"} |= "fine 2"`, lake.SourceRedact)
		l.compact(l.run())
		l.run()
		l.wantObject(copyKey(acme, d.ID, r.ID), false)
		if diff := cmp.Diff([]string{"fine 1"}, l.bodies(copyKey(acme, next.ID, r.ID))); diff != "" {
			t.Error(diff)
		}
		last := l.delete(`{service_name="checkout"}`, lake.SourceErase)
		l.compact(l.run())
		l.run()
		l.wantObject(copyKey(acme, next.ID, r.ID), false)
		l.wantObject("raw/b", false)
		for id, want := range map[lake.DeleteID]string{d.ID: actionRedacted, next.ID: actionRedacted, last.ID: actionErased} {
			if c := l.certificate(id); c.Objects[0].Action != want {
				t.Errorf("delete %d: %+v, want %s", id, c.Objects, want)
			}
		}
	})

	t.Run("an object whose other rows are not all there stays", func(t *testing.T) {
		l := setup(t)
		receipt := l.put("raw/a")
		lease := l.claim(index.Batch{Kind: lake.TaskIngest, Receipt: receipt.ID})
		l.ingest(lease, 0, "card 1", "fine 1")
		d := l.delete(cards, lake.SourceRedact)
		tasks := l.run()
		l.compact(tasks)
		// Retention removes what is left of it.
		segments, err := l.index.SegmentsOf(t.Context(), receipt.ID)
		if err != nil || len(segments) != 1 {
			t.Fatalf("%d segments, %v", len(segments), err)
		}
		if err := l.index.Enqueue(t.Context(), []lake.Task{{Kind: lake.TaskExpire, Organization: acme, Signal: lake.SignalLogs}}); err != nil {
			t.Fatal(err)
		}
		expire := l.claim(index.Batch{Kind: lake.TaskExpire})
		if err := l.index.Commit(t.Context(), expire, lake.Edit{Remove: []lake.SegmentID{segments[0].ID}}); err != nil {
			t.Fatal(err)
		}
		l.run()
		l.wantObject("raw/a", true)
		c := l.certificate(d.ID)
		if c.Objects[0].Action != actionLeft || !strings.Contains(strings.Join(c.Limits, "\n"), "1 source object stay whole") {
			t.Errorf("%+v", c)
		}
	})
}

func TestObjectsThatMustNotBeTouched(t *testing.T) {
	t.Run("other content at the key by now", func(t *testing.T) {
		l := setup(t)
		l.object("raw/a", 0, "card")
		l.put("raw/a")
		d := l.delete(cards, lake.SourceErase)
		l.compact(l.run())
		l.run()
		l.wantObject("raw/a", true)
		if c := l.certificate(d.ID); c.Objects[0].Action != actionGone {
			t.Errorf("%+v", c.Objects)
		}
	})

	t.Run("an object that is being replayed", func(t *testing.T) {
		l := setup(t)
		r := l.object("raw/a", 0, "card", "fine")
		d := l.delete(cards, lake.SourceErase)
		l.compact(l.run())
		if _, _, err := l.index.Replay(t.Context(), index.ReplayQuery{Organization: acme, Receipts: []lake.ReceiptID{r.ID}}); err != nil {
			t.Fatal(err)
		}
		l.run()
		l.wantObject("raw/a", true)
		l.ingest(l.claim(index.Batch{Kind: lake.TaskIngest}), d.ID, "fine")
		l.run()
		l.wantObject("raw/a", false)
	})
}

// denying is a bucket that nothing may be deleted from.
type denying struct{ objects.Bucket }

func (denying) Delete(context.Context, ...string) error {
	return fault.New(fault.Denied, "s3:DeleteObject is not allowed")
}

func TestDuty(t *testing.T) {
	t.Run("asks for itself again", func(t *testing.T) {
		l := setup(t)
		edit, err := l.Duty(t.Context(), &lake.Lease{Organization: acme, Tasks: []lake.Task{{ID: 7}}})
		want := lake.Edit{Next: []lake.Task{{Kind: lake.TaskErase, Organization: acme, Delay: time.Minute}}}
		if diff := cmp.Diff(want, edit); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})

	t.Run("one delete that cannot go on does not hold up the others", func(t *testing.T) {
		l := setup(t)
		l.object("raw/a", 0, "card")
		stuck := l.delete(cards, lake.SourceErase)
		l.compact(l.run()[:1])
		l.deps.Objects = store{denying{l.bucket}}
		l.object("raw/b", stuck.ID, "fine")
		l.delete(`{service_name="checkout"} |= "fine"`, lake.SourceLeave)
		edit, err := l.Duty(t.Context(), &lake.Lease{Organization: acme, Tasks: []lake.Task{{ID: 7}}})
		if err != nil || len(edit.Next) != 1 || edit.Next[0].Kind != lake.TaskCompact {
			t.Errorf("%+v, %v", edit, err)
		}
		if len(edit.Retry) != 1 || edit.Retry[0].Task != 7 || !strings.Contains(edit.Retry[0].Cause, "not allowed") || edit.Retry[0].Blameless {
			t.Errorf("%+v", edit.Retry)
		}
		l.deps.Objects = store{l.bucket}
		l.run()
		l.wantObject("raw/a", false)
		if c := l.certificate(stuck.ID); c.Objects[0].Action != actionErased {
			t.Errorf("%+v", c.Objects)
		}
	})
}

// forgetful is an index to which what was done to an object cannot be said.
type forgetful struct{ Index }

func (forgetful) MarkDeleteSource(context.Context, lake.DeleteID, lake.ReceiptID, string, lake.RawState) error {
	return fault.New(fault.Unavailable, "the index is away")
}

func TestRunsThatAreCutOff(t *testing.T) {
	for _, policy := range []lake.SourcePolicy{lake.SourceErase, lake.SourceRedact} {
		t.Run("after an object went: "+string(policy), func(t *testing.T) {
			l := setup(t)
			r := l.object("raw/a", 0, "card", "fine")
			d := l.delete(cards, policy)
			l.compact(l.run())
			whole := l.deps.Index
			l.deps.Index = forgetful{whole}
			if _, err := l.Eraser.Run(t.Context(), acme); !errors.Is(err, fault.Unavailable) {
				t.Fatalf("got %v", err)
			}
			l.wantObject("raw/a", false)
			if objects, _, err := l.index.Replay(t.Context(), index.ReplayQuery{Organization: acme, Receipts: []lake.ReceiptID{r.ID}}); err != nil || objects > 0 {
				t.Errorf("%d objects that are gone are replayed, %v", objects, err)
			}
			l.deps.Index = whole
			l.run()
			want := map[lake.SourcePolicy]string{lake.SourceErase: actionErased, lake.SourceRedact: actionRedacted}[policy]
			if c := l.certificate(d.ID); c.Objects[0].Action != want {
				t.Errorf("%+v, want %s", c.Objects, want)
			}
		})
	}
}

func TestRejectedRowsGoWithTheirObject(t *testing.T) {
	l := setup(t)
	receipt := l.put("raw/a")
	lease := l.claim(index.Batch{Kind: lake.TaskIngest, Receipt: receipt.ID})
	logs := columns.NewLogs()
	logs.Append(&columns.LogRow{
		Time: l.hour.Start.UnixNano(), Stream: logs.Stream([]columns.Label{{Name: "service_name", Value: "checkout"}}), Origin: logs.Origin(columns.Origin{}),
		Body: "card", Source: receipt.ID,
	})
	rejects := lake.RejectsKey(acme, lease.ID, receipt.ID)
	other := lake.RejectsKey(acme, lease.ID, receipt.ID+1)
	for _, key := range []string{rejects, other} {
		if _, err := l.bucket.Put(t.Context(), key, strings.NewReader("rejected"), 8); err != nil {
			t.Fatal(err)
		}
	}
	edit := lake.Edit{
		Add: []lake.Segment{l.write(lease.ID, 0, logs, 0, receipt.ID)},
		Outcomes: []lake.Outcome{{
			Receipt: receipt.ID, State: lake.ReceiptDone, Signal: lake.SignalLogs, RowsIn: 2, RowsOut: 1, Rejected: map[string]int64{"too_long": 1},
		}},
	}
	if err := l.index.Commit(t.Context(), lease, edit); err != nil {
		t.Fatal(err)
	}
	l.delete(cards, lake.SourceErase)
	l.compact(l.run())
	l.run()
	l.wantObject("raw/a", false)
	l.wantObject(rejects, false)
	l.wantObject(other, true)
}

func TestNewest(t *testing.T) {
	t.Parallel()
	revision := func(n int32, state lake.ReceiptState) lake.Receipt { return lake.Receipt{Revision: n, State: state} }
	for name, c := range map[string]struct {
		revisions []lake.Receipt
		want      int32
	}{
		"none":                         {nil, 0},
		"the only one":                 {[]lake.Receipt{revision(1, lake.ReceiptDone)}, 1},
		"a replay that is done":        {[]lake.Receipt{revision(1, lake.ReceiptSuperseded), revision(2, lake.ReceiptDone)}, 2},
		"a replay that failed":         {[]lake.Receipt{revision(1, lake.ReceiptDone), revision(2, lake.ReceiptFailed)}, 1},
		"a second copy":                {[]lake.Receipt{revision(1, lake.ReceiptDone), revision(2, lake.ReceiptDone)}, 2},
		"all superseded":               {[]lake.Receipt{revision(1, lake.ReceiptSuperseded)}, 0},
		"failed, with the rows it has": {[]lake.Receipt{revision(1, lake.ReceiptSuperseded), revision(2, lake.ReceiptFailed)}, 2},
	} {
		if got, _ := newest(c.revisions); got.Revision != c.want {
			t.Errorf("%s: revision %d, want %d", name, got.Revision, c.want)
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	l := setup(t)
	good := lake.Delete{Organization: acme, Selector: cards, Reason: "a test"}
	cases := map[string]func(d *lake.Delete){
		"no selector":             func(d *lake.Delete) { d.Selector = " " },
		"a selector of all":       func(d *lake.Delete) { d.Selector = `{service_name=~".*"}` },
		"a metric query":          func(d *lake.Delete) { d.Selector = `rate({a="b"}[1m])` },
		"no reason":               func(d *lake.Delete) { d.Reason = "" },
		"an empty range":          func(d *lake.Delete) { d.Start, d.End = l.hour.Start, l.hour.Start },
		"another signal":          func(d *lake.Delete) { d.Signal = lake.SignalMetrics },
		"an unknown policy":       func(d *lake.Delete) { d.Sources = "burn" },
		"not an organization":     func(d *lake.Delete) { d.Organization = "No" },
		"an end in a far century": func(d *lake.Delete) { d.End = time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			d := good
			spoil(&d)
			if _, err := l.Create(t.Context(), d); !errors.Is(err, fault.Invalid) {
				t.Errorf("got %v, want %v", err, fault.Invalid)
			}
			if _, _, err := l.Plan(t.Context(), d); !errors.Is(err, fault.Invalid) {
				t.Errorf("planned: got %v, want %v", err, fault.Invalid)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	l := setup(t)
	l.object("raw/a", 0, "card")
	_, planned, err := l.Plan(t.Context(), lake.Delete{Organization: acme, Selector: cards, Reason: "a test"})
	if err != nil || planned.Segments != 1 || planned.Streams != 1 || !planned.Counted || planned.Bytes == 0 {
		t.Errorf("%+v, %v", planned, err)
	}
	_, planned, err = l.Plan(t.Context(), lake.Delete{Organization: acme, Selector: `{service_name="login"}`, Reason: "a test"})
	if err != nil || planned != (Planned{Counted: true}) {
		t.Errorf("%+v, %v", planned, err)
	}
	if deletes, _, err := l.index.Deletes(t.Context(), index.DeleteQuery{Organization: acme}); err != nil || len(deletes) != 0 {
		t.Errorf("%d deletes, %v", len(deletes), err)
	}
}
