// SPDX-License-Identifier: AGPL-3.0-only

package ship

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
)

const acme lake.Organization = "acme"

type lab struct {
	*testing.T
	*Shipper
	index  *index.Index
	bucket *fragile
	keys   int
}

// fragile is a bucket whose writes may fail, before or after they have happened.
type fragile struct {
	objects.Bucket
	before, after error
	// putting, if not nil, is called before each write.
	putting func(key string)
}

func (f *fragile) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (objects.Attributes, error) {
	if f.putting != nil {
		f.putting(key)
	}
	return f.Bucket.Put(ctx, key, body, size)
}

func (f *fragile) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (objects.Attributes, error) {
	if f.putting != nil {
		f.putting(key)
	}
	if f.before != nil {
		return objects.Attributes{}, f.before
	}
	a, err := f.Bucket.PutIfAbsent(ctx, key, body, size)
	if err == nil && f.after != nil {
		return objects.Attributes{}, f.after
	}
	return a, err
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
	l := &lab{T: t, index: indextest.New(t), bucket: &fragile{Bucket: objectstest.Memory(t)}}
	source, err := config.Static(fmt.Sprintf("storage_profiles: [{name: p, bucket: %s, organization: acme}]\norganizations: [{id: acme}]\n", l.bucket.Name()))
	if err != nil {
		t.Fatal(err)
	}
	l.Shipper = New(Deps{Index: l.index, Objects: store{l.bucket}, Config: source})
	return l
}

// commit makes so many commits, each with its record.
func (l *lab) commit(n int) {
	l.Helper()
	for range n {
		l.keys++
		object := lake.Object{Bucket: l.bucket.Name(), Key: fmt.Sprint("raw/", l.keys), Tag: "1", Size: 1, LastModified: time.Now()}
		noticed, err := l.index.Receive(l.Context(), []index.Notice{{Object: object, Organization: acme, Signal: lake.SignalLogs}})
		if err != nil {
			l.Fatal(err)
		}
		receipt := noticed[0].Receipt.ID
		lease, err := l.index.Claim(l.Context(), index.Batch{Kind: lake.TaskIngest, Receipt: receipt})
		if err != nil || lease == nil {
			l.Fatalf("claim: %v, %v", lease, err)
		}
		w := lake.WindowOf(time.Now().Add(-time.Hour), time.Hour)
		edit := lake.Edit{
			Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalLogs, RowsIn: 1, RowsOut: 1}},
			Add: []lake.Segment{{
				Organization: acme, Signal: lake.SignalLogs, Window: w, Bucket: l.bucket.Name(), Key: lake.SegmentKey(acme, lake.SignalLogs, w, lease.ID, 0),
				Bytes: 1, Rows: 1, FirstTime: w.Start, LastTime: w.Start, FormatVersion: 1, Sources: []lake.ReceiptID{receipt},
			}},
		}
		if err := l.index.Commit(l.Context(), lease, edit); err != nil {
			l.Fatal(err)
		}
	}
}

// shipped reads how often each record is in the bucket.
func (l *lab) shipped() map[int64]int {
	l.Helper()
	found := map[int64]int{}
	for f, err := range archive.RecordFiles(l.Context(), l.bucket, acme, time.Time{}) {
		if err != nil {
			l.Fatal(err)
		}
		err := archive.ReadLines(l.Context(), l.bucket, f.Key, func(line []byte) error {
			var r index.Record
			err := json.Unmarshal(line, &r)
			found[r.ID]++
			return err
		})
		if err != nil {
			l.Fatal(err)
		}
	}
	return found
}

func (l *lab) waiting() int {
	l.Helper()
	records, err := l.index.Records(l.Context(), acme, 1000)
	if err != nil {
		l.Fatal(err)
	}
	return len(records)
}

func TestRecords(t *testing.T) {
	t.Run("records reach the bucket and leave the outbox", func(t *testing.T) {
		l := setup(t)
		l.commit(3)
		if n, err := l.Records(t.Context(), acme); n != 3 || err != nil {
			t.Errorf("%d records shipped, %v; want 3", n, err)
		}
		if got := len(l.shipped()); got != 3 || l.waiting() != 0 {
			t.Errorf("%d records in the bucket, %d in the outbox; want 3 and none", got, l.waiting())
		}
		if n, err := l.Records(t.Context(), acme); n != 0 || err != nil {
			t.Errorf("%d records shipped once more, %v", n, err)
		}
	})

	t.Run("a commit that changed nothing is not worth a file", func(t *testing.T) {
		l := setup(t)
		if err := l.index.Enqueue(t.Context(), []lake.Task{{Kind: lake.TaskShip, Organization: acme}}); err != nil {
			t.Fatal(err)
		}
		lease, err := l.index.Claim(t.Context(), index.Batch{Kind: lake.TaskShip})
		if err != nil || lease == nil {
			t.Fatalf("claim: %v, %v", lease, err)
		}
		if err := l.index.Commit(t.Context(), lease, lake.Edit{Cost: lake.Cost{Puts: 1}}); err != nil {
			t.Fatal(err)
		}
		if n, err := l.Records(t.Context(), acme); n != 0 || err != nil || l.waiting() != 0 || len(l.shipped()) != 0 {
			t.Errorf("%d records shipped, %v, %d in the outbox", n, err, l.waiting())
		}
	})

	t.Run("a write that fails leaves them in the outbox", func(t *testing.T) {
		l := setup(t)
		l.commit(2)
		l.bucket.before = fault.New(fault.Unavailable, "away")
		if _, err := l.Records(t.Context(), acme); err == nil || l.waiting() != 2 {
			t.Errorf("%v, %d records in the outbox; want an error and 2", err, l.waiting())
		}
	})

	t.Run("a write whose answer is lost is repeated without harm", func(t *testing.T) {
		l := setup(t)
		l.commit(2)
		l.bucket.after = fault.New(fault.Unavailable, "the answer is lost")
		if _, err := l.Records(t.Context(), acme); err == nil {
			t.Error("no error")
		}
		l.bucket.after = nil
		if n, err := l.Records(t.Context(), acme); n != 2 || err != nil {
			t.Errorf("%d records shipped, %v; want 2", n, err)
		}
		for id, times := range l.shipped() {
			if times != 1 {
				t.Errorf("record %d is %d times in the bucket", id, times)
			}
		}
	})

	t.Run("records that came between the tries are in a file of both", func(t *testing.T) {
		l := setup(t)
		l.commit(1)
		l.bucket.after = fault.New(fault.Unavailable, "the answer is lost")
		_, _ = l.Records(t.Context(), acme)
		l.bucket.after = nil
		l.commit(1)
		if n, err := l.Records(t.Context(), acme); n != 2 || err != nil || len(l.shipped()) != 2 {
			t.Errorf("%d records shipped, %v, %v in the bucket", n, err, l.shipped())
		}
	})
}

func TestDuty(t *testing.T) {
	l := setup(t)
	l.commit(2)
	lease := &lake.Lease{Organization: acme}
	edit, err := l.Duty(t.Context(), lease)
	if err != nil {
		t.Fatal(err)
	}
	want := []lake.Task{{Kind: lake.TaskShip, Organization: acme, Delay: time.Minute}}
	if diff := cmp.Diff(want, edit.Next); diff != "" {
		t.Error(diff)
	}
	l.wantSnapshots(1)
	if _, err := l.Duty(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	l.wantSnapshots(1) // none is due
}

func (l *lab) wantSnapshots(want int) {
	l.Helper()
	found, err := archive.Snapshots(l.Context(), l.bucket, acme)
	if err != nil || len(found) != want {
		l.Errorf("%d snapshots, %v; want %d", len(found), err, want)
	}
}

// TestASnapshotCountsOnlyWithItsRecords: a commit may be seen in a part of a snapshot and not in another. Its record makes that right, if it is
// in the bucket by the time that the snapshot counts.
func TestASnapshotCountsOnlyWithItsRecords(t *testing.T) {
	l := setup(t)
	l.commit(1)
	if _, err := l.Records(t.Context(), acme); err != nil {
		t.Fatal(err)
	}
	parts, left := 0, -1
	l.bucket.putting = func(key string) {
		switch {
		case strings.HasSuffix(key, "/manifest.json"):
			left = l.waiting()
		case parts == 0:
			parts++
			l.commit(1)
		}
	}
	if _, _, err := l.Snapshot(t.Context(), acme); err != nil {
		t.Fatal(err)
	}
	if parts != 1 || left != 0 {
		t.Errorf("%d records were not in the bucket when the manifest was written, want none", left)
	}
}

func TestTrim(t *testing.T) {
	t.Run("two snapshots stay, and all records since an hour before the older", func(t *testing.T) {
		l := setup(t)
		l.deps.Grace = 0
		old := archive.Batch{Last: 1, At: time.Now().Add(-72 * time.Hour), Lines: []byte("{}\n")}
		if _, err := archive.WriteRecords(t.Context(), l.bucket, acme, old); err != nil {
			t.Fatal(err)
		}
		abandoned := archive.NewSnapshot(l.bucket, acme, "20200101T000000.000000Z")
		if err := abandoned.Part(t.Context(), "segments", []byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		l.commit(1)
		for range 3 {
			if r, err := l.Shipper.Run(t.Context(), Request{Organization: acme, Snapshot: true}); err != nil || r.SnapshotKey == "" || r.SnapshotRows == 0 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		l.wantSnapshots(2)
		if got := len(l.shipped()); got != 1 {
			t.Errorf("%d records are left, want 1", got)
		}
	})

	t.Run("nothing younger than the grace goes", func(t *testing.T) {
		l := setup(t)
		l.commit(1)
		for range 4 {
			if _, err := l.Shipper.Run(t.Context(), Request{Organization: acme, Snapshot: true}); err != nil {
				t.Fatal(err)
			}
		}
		l.wantSnapshots(4)
	})
}

func TestDryRun(t *testing.T) {
	l := setup(t)
	l.commit(2)
	r, err := l.Shipper.Run(t.Context(), Request{Organization: acme, Snapshot: true, DryRun: true})
	if err != nil || r.Records != 2 || l.waiting() != 2 || len(l.shipped()) != 0 {
		t.Errorf("%+v, %v, %d in the outbox", r, err, l.waiting())
	}
	l.wantSnapshots(0)
}
