// SPDX-License-Identifier: AGPL-3.0-only

package compactor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/stage"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	"github.com/lakerunner/lakerunner/services/compactor"
)

// world is a service on a lake of its own.
type world struct {
	t       *testing.T
	index   *index.Index
	bucket  objects.Bucket
	service *compactor.Service
	api     compactorv1.CompactorServiceServer

	mu    sync.Mutex
	names []string
}

// RegisterService takes the service's contract.
func (w *world) RegisterService(_ *grpc.ServiceDesc, implementation any) {
	w.api = implementation.(compactorv1.CompactorServiceServer)
}

func newWorld(t *testing.T, c compactor.Config) *world {
	t.Helper()
	source, err := config.Static(fmt.Sprintf("organizations: [{id: acme}]\nstorage_profiles:\n  - {name: main, bucket: telemetry, provider: file, directory: %q}\n", t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, index: indextest.New(t)}
	store := config.Buckets(source, nil)
	if w.bucket, err = store.Bucket(t.Context(), "telemetry"); err != nil {
		t.Fatal(err)
	}
	w.service, err = compactor.New(c, compactor.Deps{Index: w.index, Config: source, Objects: store, Scratch: t.TempDir(), Checkpoint: func(name string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.names = append(w.names, name)
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.service.RegisterGRPC(w)
	return w
}

func (w *world) run() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.service.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

// ingest commits a segment of level 0, with or without a task that asks for compaction.
func (w *world) ingest(at time.Time, ask bool) {
	w.t.Helper()
	ctx := w.t.Context()
	noticed, err := w.index.Receive(ctx, []index.Notice{{
		Object: lake.Object{Bucket: "telemetry", Key: fmt.Sprint("logs-raw/acme/c/", time.Now().UnixNano()), Tag: "t", Size: 1}, Organization: "acme", Signal: lake.SignalLogs,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	receipt := noticed[0].Receipt.ID
	batch := index.Batch{Kind: lake.TaskIngest, Receipt: receipt}
	_, err = stage.One(ctx, w.index, stage.Options{Batch: batch}, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		s := w.segment(ctx, lease, receipt, at)
		edit := lake.Edit{Add: []lake.Segment{s}, Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, RowsIn: s.Rows, RowsOut: s.Rows}}}
		if ask {
			edit.Next = []lake.Task{{Kind: lake.TaskCompact, Organization: "acme", Signal: lake.SignalLogs, Window: s.Window}}
		}
		return edit, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) segment(ctx context.Context, lease *lake.Lease, receipt lake.ReceiptID, at time.Time) lake.Segment {
	l := columns.NewLogs()
	var rows []uint32
	for i := range 10 {
		l.Append(&columns.LogRow{
			Time: at.Add(time.Duration(i)).UnixNano(), Stream: l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: "a"}}), Origin: l.Origin(columns.Origin{}),
			Body: fmt.Sprint("line ", i), Source: receipt,
		})
		rows = append(rows, uint32(i))
	}
	l.Sort(rows)
	meta := segfile.Meta{Organization: "acme", Signal: lake.SignalLogs, Window: lake.WindowOf(at, time.Hour), Lease: lease.ID, Sources: []lake.ReceiptID{receipt}}
	var parquet, sidecar bytes.Buffer
	written, err := segfile.WriteLogs(ctx, &parquet, &sidecar, l, rows, meta)
	if err != nil {
		w.t.Fatal(err)
	}
	key := lake.SegmentKey("acme", lake.SignalLogs, meta.Window, lease.ID, 0)
	for name, content := range map[string]*bytes.Buffer{key: &parquet, lake.SidecarKey(key): &sidecar} {
		if _, err := w.bucket.Put(ctx, name, bytes.NewReader(content.Bytes()), int64(content.Len())); err != nil {
			w.t.Fatal(err)
		}
	}
	return lake.Segment{
		Organization: "acme", Signal: lake.SignalLogs, Window: meta.Window, Bucket: "telemetry", Key: key, Bytes: written.Bytes, SidecarBytes: written.SidecarBytes,
		Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion, RowHash: written.RowHash, Sources: meta.Sources,
	}
}

// await polls until the live segments are as wanted.
func (w *world) await(what string, ok func(segments []lake.Segment) bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		answer, err := w.index.Lookup(ctx, index.Query{Organization: "acme", Signal: lake.SignalLogs, Start: time.Now().Add(-90 * 24 * time.Hour), End: time.Now().Add(time.Hour)})
		if err != nil {
			w.t.Fatal(err)
		}
		if ok(answer.Segments) {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			w.t.Fatalf("%s: there are %+v", what, answer.Segments)
		}
	}
}

func TestServiceMergesFreshSegments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, compactor.Config{FreshSegments: 4})
	w.run()
	now := time.Now().Truncate(time.Minute)
	for range 4 {
		w.ingest(now, true)
	}
	w.await("four fresh segments are enough", func(s []lake.Segment) bool { return len(s) == 1 && s[0].Level == 1 && s[0].Rows == 40 })
	if err := w.service.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range []string{"claimed", "window-read", "fetched", "merged", "declared", "sidecar-uploaded", "segment-uploaded", "before-commit", "after-commit"} {
		if !slices.Contains(w.names, name) {
			t.Errorf("no checkpoint %s in %v", name, w.names)
		}
	}
}

func TestServiceFindsWhatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, compactor.Config{Settle: time.Millisecond})
	old := time.Now().Add(-50 * 24 * time.Hour).Truncate(time.Minute)
	w.ingest(old, false)
	w.ingest(old, false)
	w.run()
	w.await("a window without a task is settled", func(s []lake.Segment) bool { return len(s) == 1 && s[0].Level == 2 })
}

func TestContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t, compactor.Config{})
	ctx := config.WithIdentity(t.Context(), config.Identity{KeyID: "k", Organization: "acme", Scopes: []config.Scope{config.ScopeAdmin}})
	at := lake.WindowOf(time.Now().Add(-30*24*time.Hour), 24*time.Hour).Start.Add(10 * time.Hour)
	for range 3 {
		w.ingest(at, false)
	}
	w.ingest(at.Add(time.Hour), false)
	start := timestamppb.New(at)
	dry, err := w.api.CompactWindow(ctx, &compactorv1.CompactWindowRequest{Start: start, ValidateOnly: true})
	if err != nil || len(dry.GetPlan().GetMerges()) != 1 || dry.GetConservation() != nil || dry.GetPlan().GetMerges()[0].GetReason() != "asked" {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	status, err := w.api.GetCompactionStatus(ctx, &compactorv1.GetCompactionStatusRequest{})
	if err != nil || len(status.GetStatuses()) != 1 || status.GetStatuses()[0].GetDebtSegments() != 4 || status.GetStatuses()[0].GetSegments() != 4 {
		t.Errorf("status: %v, %v", status, err)
	}
	plan, err := w.api.PlanCompaction(ctx, &compactorv1.PlanCompactionRequest{Start: start, End: timestamppb.New(at.Add(2 * time.Hour))})
	if err != nil || len(plan.GetWindows()) < 3 || plan.GetWindows()[0].GetSegments() != 1 || plan.GetWindows()[1].GetRows() != 30 {
		t.Errorf("plan: %v, %v", plan, err)
	}
	done, err := w.api.CompactWindow(ctx, &compactorv1.CompactWindowRequest{Start: start})
	if err != nil || done.GetConservation().GetRowsIn() != 30 || done.GetConservation().GetRowsOut() != 30 || len(done.GetSegmentKeys()) != 1 || done.GetBytes() == 0 {
		t.Errorf("compact: %v, %v", done, err)
	}
	for _, key := range done.GetSegmentKeys() {
		if _, err := w.bucket.Head(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	again, err := w.api.CompactWindow(ctx, &compactorv1.CompactWindowRequest{Start: start})
	if err != nil || again.GetConservation() != nil || len(again.GetPlan().GetMerges()) != 0 {
		t.Errorf("again: %v, %v", again, err)
	}
	whole, err := w.api.CompactWindow(ctx, &compactorv1.CompactWindowRequest{Start: start, Day: true})
	if err != nil || whole.GetConservation().GetRowsIn() < 30 {
		t.Errorf("day: %v, %v", whole, err)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, compactor.Config{})
	for method, want := range map[string]config.Scope{
		"/lakerunner.compactor.v1.CompactorService/CompactWindow": config.ScopeAdmin, "/lakerunner.compactor.v1.CompactorService/PlanCompaction": config.ScopeQuery,
		"/lakerunner.compactor.v1.CompactorService/GetCompactionStatus": config.ScopeQuery, "/something/Else": config.ScopeAdmin,
	} {
		if got := w.service.Scope(method); got != want {
			t.Errorf("%s: scope %s, want %s", method, got, want)
		}
	}
	if _, err := compactor.New(compactor.Config{ScratchDir: "/dev/null/x"}, compactor.Deps{}); err == nil || errors.Is(err, context.Canceled) {
		t.Error("a scratch directory that cannot be was taken")
	}
}
