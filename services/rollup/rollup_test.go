// SPDX-License-Identifier: AGPL-3.0-only

package rollup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
	"github.com/lakerunner/lakerunner/services/rollup"
)

// world is a service on a lake of its own.
type world struct {
	t       *testing.T
	index   *index.Index
	bucket  objects.Bucket
	service *rollup.Service
	api     rollupv1.RollupServiceServer

	mu    sync.Mutex
	names []string
}

// RegisterService takes the service's contract.
func (w *world) RegisterService(_ *grpc.ServiceDesc, implementation any) {
	w.api = implementation.(rollupv1.RollupServiceServer)
}

func newWorld(t *testing.T, settings string) *world {
	t.Helper()
	source, err := config.Static(fmt.Sprintf("%s\nstorage_profiles:\n  - {name: main, bucket: telemetry, provider: file, directory: %q}\n", settings, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, index: indextest.New(t)}
	store := config.Buckets(source, nil)
	if w.bucket, err = store.Bucket(t.Context(), "telemetry"); err != nil {
		t.Fatal(err)
	}
	c := rollup.Config{Settle: time.Millisecond, ScanInterval: 100 * time.Millisecond}
	w.service, err = rollup.New(c, rollup.Deps{Index: w.index, Config: source, Objects: store, Scratch: t.TempDir(), Checkpoint: func(name string) {
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

// ingest commits a segment of level 0 with a point every ten seconds of an hour, without a task that asks for anything.
func (w *world) ingest(hour time.Time) {
	w.t.Helper()
	ctx := w.t.Context()
	noticed, err := w.index.Receive(ctx, []index.Notice{{
		Object: lake.Object{Bucket: "telemetry", Key: fmt.Sprint("raw/", hour), Tag: "t", Size: 1}, Organization: "acme", Signal: lake.SignalMetrics,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	receipt := noticed[0].Receipt.ID
	_, err = stage.One(ctx, w.index, stage.Options{Batch: index.Batch{Kind: lake.TaskIngest, Receipt: receipt}}, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		s := w.segment(ctx, lease, receipt, hour)
		return lake.Edit{
			Add: []lake.Segment{s}, Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalMetrics, RowsIn: s.Rows, RowsOut: s.Rows}},
		}, nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) segment(ctx context.Context, lease *lake.Lease, receipt lake.ReceiptID, hour time.Time) lake.Segment {
	st := metricfile.NewStore()
	var rows []uint32
	for i := range 360 {
		for _, pod := range []string{"a", "b"} {
			id := st.Series(&metricfile.Series{Labels: labels.FromStrings(model.MetricNameLabel, "up", "pod", pod)})
			rows = append(rows, st.Float(id, metricfile.Stamp{Time: hour.Add(time.Duration(i) * 10 * time.Second).UnixNano(), Source: receipt}, float64(i)))
		}
	}
	m := metricfile.Meta{Organization: "acme", Signal: lake.SignalMetrics, Window: lake.WindowOf(hour, time.Hour), Lease: lease.ID, Sources: []lake.ReceiptID{receipt}}
	var parquet, sidecar bytes.Buffer
	written, err := metricfile.Write(ctx, &parquet, &sidecar, st, rows, m)
	if err != nil {
		w.t.Fatal(err)
	}
	key := lake.SegmentKey("acme", lake.SignalMetrics, m.Window, lease.ID, 0)
	for name, content := range map[string]*bytes.Buffer{key: &parquet, lake.SidecarKey(key): &sidecar} {
		if _, err := w.bucket.Put(ctx, name, bytes.NewReader(content.Bytes()), int64(content.Len())); err != nil {
			w.t.Fatal(err)
		}
	}
	return lake.Segment{
		Organization: "acme", Signal: lake.SignalMetrics, Window: m.Window, Bucket: "telemetry", Key: key, Bytes: written.Bytes, SidecarBytes: written.SidecarBytes,
		Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion, RowHash: written.RowHash, Sources: m.Sources,
	}
}

func day() time.Time { return lake.WindowOf(time.Now().Add(-30*24*time.Hour), 24*time.Hour).Start }

// covered reports whether a resolution has rollups for all rows.
func (w *world) covered(resolution time.Duration) bool {
	w.t.Helper()
	answer, err := w.index.Lookup(w.t.Context(), index.Query{
		Organization: "acme", Signal: lake.SignalMetrics, Start: day(), End: day().Add(24 * time.Hour), Resolution: resolution,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(answer.Segments) > 0 && len(answer.Uncovered) == 0
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			w.t.Fatal(what)
		}
	}
}

func TestServiceMakesEveryTierThatIsDue(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"of a declared organization": "organizations: [{id: acme, rollups: [{resolution: 1m}, {resolution: 5m}, {resolution: 1h}]}]",
		"by the defaults":            "limits: {}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings)
			w.ingest(day())
			w.ingest(day().Add(time.Hour))
			w.run()
			for _, resolution := range []time.Duration{time.Minute, 5 * time.Minute, time.Hour} {
				w.await(fmt.Sprintf("no rollups to %s", resolution), func() bool { return w.covered(resolution) })
			}
			w.ingest(day().Add(30 * time.Hour).Truncate(24 * time.Hour)) // another day
			w.ingest(day().Add(2 * time.Hour))
			w.await("late data is not rolled up", func() bool { return w.covered(time.Hour) && w.covered(time.Minute) })
			if err := w.service.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, point := range []string{"claimed", "window-read", "fetched", "written", "declared", "sidecar-uploaded", "segment-uploaded", "before-commit", "after-commit"} {
				if !slices.Contains(w.names, "rollup-"+point) {
					t.Errorf("no checkpoint %s", point)
				}
			}
		})
	}
}

func as(organization lake.Organization, scopes ...config.Scope) context.Context {
	return config.WithIdentity(context.Background(), config.Identity{KeyID: "k", Organization: organization, Scopes: scopes})
}

func TestContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "organizations: [{id: acme, rollups: [{resolution: 1m}, {resolution: 1h}]}, {id: other}]")
	ctx := as("acme", config.ScopeAdmin)
	w.ingest(day())
	w.ingest(day().Add(time.Hour))
	at := timestamppb.New(day().Add(30 * time.Minute))
	status, err := w.api.GetRollupStatus(ctx, &rollupv1.GetRollupStatusRequest{})
	if err != nil || len(status.GetStatuses()) != 2 || status.GetStatuses()[0].GetDebtWindows() != 2 || status.GetStatuses()[1].GetDebtWindows() != 1 || status.GetStatuses()[0].GetLagSeconds() < 29*86400 {
		t.Errorf("status: %v, %v", status, err)
	}
	plan, err := w.api.PlanRollup(ctx, &rollupv1.PlanRollupRequest{Start: at, End: timestamppb.New(day().Add(24 * time.Hour))})
	if err != nil || len(plan.GetWindows()) != 3 || plan.GetWindows()[0].GetAction() != rollupv1.RollupAction_ROLLUP_ACTION_ROLL || plan.GetWindows()[2].GetResolutionSeconds() != 3600 {
		t.Errorf("plan: %v, %v", plan, err)
	}
	dry, err := w.api.RollupWindow(ctx, &rollupv1.RollupWindowRequest{Start: at, ResolutionSeconds: 60, ValidateOnly: true})
	if err != nil || len(dry.GetPlan().GetSources()) != 1 || dry.GetAccount() != nil {
		t.Errorf("dry run: %v, %v", dry, err)
	}
	done, err := w.api.RollupWindow(ctx, &rollupv1.RollupWindowRequest{Start: at, ResolutionSeconds: 60})
	if a := done.GetAccount(); err != nil || a.GetPointsIn() != 720 || a.GetCounted() != 720 || a.GetSeries() != 2 || len(done.GetSegmentKeys()) != 1 || done.GetBytes() == 0 {
		t.Errorf("done: %v, %v", done, err)
	}
	again, err := w.api.RollupWindow(ctx, &rollupv1.RollupWindowRequest{Start: at, ResolutionSeconds: 60})
	if err != nil || again.GetPlan().GetAction() != rollupv1.RollupAction_ROLLUP_ACTION_NONE || again.GetPlan().GetSegments() != 1 {
		t.Errorf("again: %v, %v", again, err)
	}
	coarse, err := w.api.RollupWindow(ctx, &rollupv1.RollupWindowRequest{Start: at, ResolutionSeconds: 3600})
	if s := coarse.GetPlan().GetSources(); err != nil || len(s) != 2 || s[0].GetResolutionSeconds() != 60 || s[1].GetResolutionSeconds() != 0 || coarse.GetAccount().GetCounted() != 1440 {
		t.Errorf("coarser: %v, %v", coarse, err)
	}
}

func TestCallersTouchTheirOwnOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "organizations: [{id: acme}, {id: other}]")
	at := timestamppb.Now()
	for name, c := range map[string]struct {
		ctx          context.Context
		organization string
		want         error
	}{
		"nobody":                          {context.Background(), "", fault.Unauthenticated},
		"its own":                         {as("acme", config.ScopeQuery), "", nil},
		"another's":                       {as("acme", config.ScopeQuery), "other", fault.Denied},
		"another's as admin":              {as("acme", config.ScopeAdmin), "other", nil},
		"none as admin":                   {as("", config.ScopeAdmin), "", fault.Invalid},
		"a name that cannot be":           {as("acme", config.ScopeAdmin), "A/B", fault.Invalid},
		"a key of no organization at all": {as("", config.ScopeQuery), "", fault.Denied},
	} {
		if _, err := w.api.PlanRollup(c.ctx, &rollupv1.PlanRollupRequest{Organization: c.organization, Start: at}); !errors.Is(err, c.want) {
			t.Errorf("%s: plan: got %v", name, err)
		}
		if _, err := w.api.RollupWindow(c.ctx, &rollupv1.RollupWindowRequest{Organization: c.organization, Start: at, ResolutionSeconds: 60}); !errors.Is(err, c.want) {
			t.Errorf("%s: run: got %v", name, err)
		}
	}
	if _, err := w.api.GetRollupStatus(as("", config.ScopeAdmin), &rollupv1.GetRollupStatusRequest{}); err != nil {
		t.Errorf("an admin asks of all: %v", err)
	}
	ctx := as("acme", config.ScopeAdmin)
	for name, request := range map[string]*rollupv1.PlanRollupRequest{
		"no start":                  {},
		"an end before":             {Start: at, End: timestamppb.New(at.AsTime().Add(-time.Hour))},
		"a year":                    {Start: at, End: timestamppb.New(at.AsTime().Add(365 * 24 * time.Hour))},
		"a resolution that is none": {Start: at, ResolutionSeconds: 61},
	} {
		if _, err := w.api.PlanRollup(ctx, request); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := w.api.PlanRollup(ctx, &rollupv1.PlanRollupRequest{Start: at, Signal: lakev1.Signal_SIGNAL_SPANS}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("spans: got %v", err)
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "organizations: [{id: acme}]")
	for method, want := range map[string]config.Scope{
		"/lakerunner.rollup.v1.RollupService/RollupWindow": config.ScopeAdmin, "/lakerunner.rollup.v1.RollupService/PlanRollup": config.ScopeQuery,
		"/lakerunner.rollup.v1.RollupService/GetRollupStatus": config.ScopeQuery, "/something/Else": config.ScopeAdmin,
	} {
		if got := w.service.Scope(method); got != want {
			t.Errorf("%s: scope %s, want %s", method, got, want)
		}
	}
	if _, err := rollup.New(rollup.Config{ScratchDir: "/dev/null/x"}, rollup.Deps{}); err == nil {
		t.Error("a scratch directory that cannot be was taken")
	}
}
