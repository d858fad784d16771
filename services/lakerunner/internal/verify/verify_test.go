// SPDX-License-Identifier: AGPL-3.0-only

package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/verify"
)

const acme lake.Organization = "acme"

type lab struct {
	*testing.T
	index  *index.Index
	bucket objects.Bucket
	keys   int
}

type store struct{ bucket objects.Bucket }

func (s store) Bucket(_ context.Context, name string) (objects.Bucket, error) {
	if name != s.bucket.Name() {
		return nil, fault.New(fault.NotFound, "no bucket %s", name)
	}
	return s.bucket, nil
}

// segment makes a segment of a few lines, whose row in the index change may spoil.
func (l *lab) segment(change func(*lake.Segment)) lake.Segment {
	l.Helper()
	l.keys++
	noticed, err := l.index.Receive(l.Context(), []index.Notice{{
		Object: lake.Object{Bucket: l.bucket.Name(), Key: fmt.Sprint("raw/", l.keys), Tag: "1", Size: 1}, Organization: acme, Signal: lake.SignalLogs,
	}})
	if err != nil {
		l.Fatal(err)
	}
	receipt := noticed[0].Receipt.ID
	lease, err := l.index.Claim(l.Context(), index.Batch{Kind: lake.TaskIngest, Receipt: receipt})
	if err != nil || lease == nil {
		l.Fatalf("claim: %v, %v", lease, err)
	}
	s := l.write(lease.ID, receipt)
	if change != nil {
		change(&s)
	}
	edit := lake.Edit{
		Add:      []lake.Segment{s},
		Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalLogs, RowsIn: 3, RowsOut: 3}},
	}
	if err := l.index.Commit(l.Context(), lease, edit); err != nil {
		l.Fatal(err)
	}
	return s
}

func (l *lab) write(lease lake.LeaseID, receipt lake.ReceiptID) lake.Segment {
	l.Helper()
	w := lake.WindowOf(time.Now().Add(-time.Hour), time.Hour)
	logs := columns.NewLogs()
	stream := logs.Stream([]columns.Label{{Name: "service_name", Value: "checkout"}})
	origin := logs.Origin(columns.Origin{})
	for i := range 3 {
		logs.Append(&columns.LogRow{Time: w.Start.UnixNano() + int64(i), Stream: stream, Origin: origin, Body: fmt.Sprint("line ", i), Source: receipt})
	}
	var parquet, sidecar bytes.Buffer
	written, err := segfile.WriteLogs(l.Context(), &parquet, &sidecar, logs, []uint32{0, 1, 2}, segfile.Meta{
		Organization: acme, Signal: lake.SignalLogs, Window: w, Lease: lease, Sources: []lake.ReceiptID{receipt},
	})
	if err != nil {
		l.Fatal(err)
	}
	key := lake.SegmentKey(acme, lake.SignalLogs, w, lease, 0)
	l.put(key, parquet.Bytes())
	l.put(lake.SidecarKey(key), sidecar.Bytes())
	return lake.Segment{
		Organization: acme, Signal: lake.SignalLogs, Window: w, Bucket: l.bucket.Name(), Key: key, Bytes: written.Bytes, SidecarBytes: written.SidecarBytes,
		Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion, RowHash: written.RowHash,
		Sources: []lake.ReceiptID{receipt},
	}
}

func (l *lab) put(key string, content []byte) {
	l.Helper()
	if _, err := l.bucket.Put(l.Context(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) get(key string) []byte {
	l.Helper()
	body, _, err := l.bucket.Get(l.Context(), key, "")
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	content, err := io.ReadAll(body)
	if err != nil {
		l.Fatal(err)
	}
	return content
}

// TestVerify finds each kind of damage, and nothing where there is none.
func TestVerify(t *testing.T) {
	t.Parallel()
	l := &lab{T: t, index: indextest.New(t), bucket: objectstest.Memory(t)}
	good := l.segment(nil)
	wrongHash := l.segment(func(s *lake.Segment) { s.RowHash++; s.Rows++ })
	missing, bare, damaged, short := l.segment(nil), l.segment(nil), l.segment(nil), l.segment(nil)
	if err := l.bucket.Delete(t.Context(), missing.Key, lake.SidecarKey(bare.Key)); err != nil {
		t.Fatal(err)
	}
	content := l.get(damaged.Key)
	for i := 8; i < 60; i++ { // within the first pages
		content[i] ^= 0x55
	}
	l.put(damaged.Key, content)
	l.put(short.Key, l.get(short.Key)[:20])

	var marked []lake.SegmentID
	found := map[string][]string{}
	o := verify.Options{
		Index: l.index, Objects: store{l.bucket}, Scratch: t.TempDir(), Parallel: 2,
		Mark: func(_ context.Context, ids []lake.SegmentID, missing bool) error {
			if missing {
				marked = append(marked, ids...)
			}
			return nil
		},
		Found: func(p verify.Problem) { found[p.Key] = append(found[p.Key], p.Says) },
	}
	o.Parallel = 1 // marked is one goroutine's
	result, err := verify.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if result.Live != 6 || result.Verified != 6 || result.Bad != 5 {
		t.Errorf("%+v", result)
	}
	want := []string{wrongHash.Key, missing.Key, bare.Key, damaged.Key, short.Key}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(found))); diff != "" {
		t.Errorf("segments with problems: %s\n%v", diff, found)
	}
	if says := strings.Join(found[wrongHash.Key], "; "); !strings.Contains(says, "rows: the index says 4, the file 3") || !strings.Contains(says, "sum of row hashes") {
		t.Error(says)
	}
	if len(marked) != 2 {
		t.Errorf("%d segments were marked as missing, want 2", len(marked))
	}
	if _, bad := found[good.Key]; bad {
		t.Errorf("a good segment: %v", found[good.Key])
	}

	t.Run("a sample takes a part, and the same one for the same seed", func(t *testing.T) {
		o := o
		o.Mark, o.Sample, o.Seed = nil, 0.5, 7
		first, err := verify.Run(t.Context(), o)
		if err != nil || first.Live != 6 || first.Verified == 6 {
			t.Errorf("%+v, %v", first, err)
		}
		if again, err := verify.Run(t.Context(), o); err != nil || again != first {
			t.Errorf("%+v, %v; want %+v", again, err, first)
		}
	})

	t.Run("another organization has none", func(t *testing.T) {
		o := o
		o.Organization = "zoo"
		if r, err := verify.Run(t.Context(), o); err != nil || r != (verify.Result{}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
