// SPDX-License-Identifier: AGPL-3.0-only

package verify_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/verify"
)

// metrics ingests a segment of three points, and rolls it up to a bucket that ends where its window does; each may be changed in the index.
func (l *lab) metrics(points, rollup func(*lake.Segment)) (raw, rolled lake.Segment) {
	l.Helper()
	l.keys++
	noticed, err := l.index.Receive(l.Context(), []index.Notice{{
		Object: lake.Object{Bucket: l.bucket.Name(), Key: fmt.Sprint("raw/", l.keys), Tag: "1", Size: 1}, Organization: acme, Signal: lake.SignalMetrics,
	}})
	if err != nil {
		l.Fatal(err)
	}
	receipt := noticed[0].Receipt.ID
	lease := l.claim(index.Batch{Kind: lake.TaskIngest, Receipt: receipt})
	w := lake.WindowOf(time.Now().Add(-time.Duration(l.keys)*time.Hour), time.Hour)
	series := metricfile.Series{Labels: labels.FromStrings("__name__", "up", "pod", "a")}
	store := metricfile.NewStore()
	for i := range 3 {
		at := w.End().Add(time.Duration(i-3) * time.Second)
		store.Float(store.Series(&series), metricfile.Stamp{Time: at.UnixNano(), Source: receipt}, float64(i))
	}
	var parquet, sidecar bytes.Buffer
	written, err := metricfile.Write(l.Context(), &parquet, &sidecar, store, []uint32{0, 1, 2}, metricfile.Meta{
		Organization: acme, Signal: lake.SignalMetrics, Window: w, Lease: lease.ID, Sources: []lake.ReceiptID{receipt},
	})
	if err != nil {
		l.Fatal(err)
	}
	raw = l.metricSegment(lease.ID, w, written, parquet.Bytes(), sidecar.Bytes())
	raw.Sources = []lake.ReceiptID{receipt}
	points(&raw)
	l.commit(lease, lake.Edit{
		Add:      []lake.Segment{raw},
		Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalMetrics, RowsIn: 3, RowsOut: 3}},
	})

	if err := l.index.Enqueue(l.Context(), []lake.Task{{Kind: lake.TaskRollup, Organization: acme, Signal: lake.SignalMetrics, Window: w, Tier: 60}}); err != nil {
		l.Fatal(err)
	}
	lease = l.claim(index.Batch{Kind: lake.TaskRollup})
	rolled = l.rollup(lease.ID, w, &series)
	rollup(&rolled)
	version, err := l.index.WindowVersion(l.Context(), acme, lake.SignalMetrics, w)
	if err != nil {
		l.Fatal(err)
	}
	l.commit(lease, lake.Edit{
		Add:    []lake.Segment{rolled},
		Rolled: []lake.Rolled{{Signal: lake.SignalMetrics, Window: w, Resolution: time.Minute, Version: version.Version}},
	})
	return raw, rolled
}

func (l *lab) rollup(lease lake.LeaseID, w lake.Window, series *metricfile.Series) lake.Segment {
	l.Helper()
	var parquet, sidecar bytes.Buffer
	m := metricfile.Meta{Organization: acme, Signal: lake.SignalMetrics, Window: w, Lease: lease, Resolution: time.Minute, Shard: lake.Shard{Index: 1, Count: 2}}
	if !m.Shard.Holds(series.Hash()) {
		m.Shard.Index = 0
	}
	writer, err := metricfile.NewWriter(&parquet, &sidecar, m)
	if err != nil {
		l.Fatal(err)
	}
	end, one := w.End().UnixMilli(), func(v float64) []float64 { return []float64{v} }
	err = writer.AppendRollup(series, &metricfile.Rollup{
		Ends: []int64{end}, Counts: []int64{3}, FirstTimes: []int64{end - 3000}, LastTimes: []int64{end - 1000}, StaleTimes: []int64{0},
		Tracks: []metricfile.Track{{First: one(0), Last: one(2), Increase: one(2), Sum: one(3), Min: one(0), Max: one(2)}},
	})
	if err != nil {
		l.Fatal(err)
	}
	written, err := writer.Close()
	if err != nil {
		l.Fatal(err)
	}
	s := l.metricSegment(lease, w, written, parquet.Bytes(), sidecar.Bytes())
	s.Resolution, s.Shard = m.Resolution, m.Shard
	s.FirstTime = w.End().Add(-1) // the bucket's end is no longer in the window
	s.LastTime = s.FirstTime
	return s
}

func (l *lab) metricSegment(lease lake.LeaseID, w lake.Window, written metricfile.Written, parquet, sidecar []byte) lake.Segment {
	l.Helper()
	key := lake.SegmentKey(acme, lake.SignalMetrics, w, lease, 0)
	l.put(key, parquet)
	l.put(lake.SidecarKey(key), sidecar)
	return lake.Segment{
		Organization: acme, Signal: lake.SignalMetrics, Window: w, Bucket: l.bucket.Name(), Key: key, Bytes: written.Bytes, SidecarBytes: written.SidecarBytes,
		Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion, RowHash: written.RowHash,
	}
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

// TestVerifyMetrics reads points and rollups, in whatever range they lie, and whether or not the rollups are current.
func TestVerifyMetrics(t *testing.T) {
	t.Parallel()
	l := &lab{T: t, index: indextest.New(t), bucket: objectstest.Memory(t)}
	as := func(*lake.Segment) {}
	goodPoints, goodRollup := l.metrics(as, as)
	badPoints, badShard := l.metrics(func(s *lake.Segment) { s.RowHash++ }, func(s *lake.Segment) { s.Shard.Index = 1 - s.Shard.Index })
	_, missing := l.metrics(as, as)
	if err := l.bucket.Delete(t.Context(), missing.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := l.index.CreateDelete(t.Context(), lake.Delete{
		Organization: acme, Signal: lake.SignalMetrics, Selector: "up", Start: goodPoints.Window.Start, End: goodPoints.Window.End(), Actor: "key", Reason: "a test",
	}); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	o := verify.Options{
		Index: l.index, Objects: store{l.bucket}, Scratch: t.TempDir(), Found: func(p verify.Problem) { found[p.Key] += p.Says },
	}
	result, err := verify.Run(t.Context(), o)
	if err != nil || result.Live != 6 || result.Verified != 6 || result.Bad != 3 {
		t.Errorf("%+v, %v: %v", result, err, found)
	}
	for key, want := range map[string]string{
		badPoints.Key: "sum of row hashes", badShard.Key: "shard", missing.Key: "missing", goodPoints.Key: "", goodRollup.Key: "",
	} {
		if says := found[key]; !strings.Contains(says, want) || want == "" && says != "" {
			t.Errorf("%s: got %q, want %q", key, says, want)
		}
	}
	o.Start, o.End = goodPoints.Window.Start, goodPoints.Window.End()
	if result, err := verify.Run(t.Context(), o); err != nil || result.Live != 2 || result.Bad != 0 {
		t.Errorf("of one window: %+v, %v", result, err)
	}
}
