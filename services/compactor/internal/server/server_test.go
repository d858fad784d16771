// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

func newServer(t *testing.T) *Server {
	t.Helper()
	source, err := config.Static("organizations: [{id: acme}, {id: other}]\n")
	if err != nil {
		t.Fatal(err)
	}
	x := indextest.New(t)
	worker := work.New(work.Config{Scratch: t.TempDir()}, work.Deps{Index: x, Objects: config.Buckets(source, nil), Config: source})
	return New(Deps{
		Index: x, Worker: worker, Claims: x, Batch: index.Batch{Kind: lake.TaskCompact, MaxTasks: 1}, Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	})
}

func as(organization lake.Organization, scopes ...config.Scope) context.Context {
	return config.WithIdentity(context.Background(), config.Identity{KeyID: "k", Organization: organization, Scopes: scopes})
}

func TestCallersTouchTheirOwnOrganization(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	start := timestamppb.New(time.Now())
	for name, c := range map[string]struct {
		ctx          context.Context
		organization string
		want         error
	}{
		"nobody":                          {context.Background(), "", fault.Unauthenticated},
		"its own":                         {as("acme", config.ScopeQuery), "", nil},
		"its own by name":                 {as("acme", config.ScopeQuery), "acme", nil},
		"another's":                       {as("acme", config.ScopeQuery), "other", fault.Denied},
		"another's as admin":              {as("acme", config.ScopeAdmin), "other", nil},
		"none as admin":                   {as("", config.ScopeAdmin), "", fault.Invalid},
		"a name that cannot be":           {as("acme", config.ScopeAdmin), "A/B", fault.Invalid},
		"a key of no organization at all": {as("", config.ScopeQuery), "", fault.Denied},
	} {
		if _, err := s.PlanCompaction(c.ctx, &compactorv1.PlanCompactionRequest{Organization: c.organization, Start: start}); !errors.Is(err, c.want) {
			t.Errorf("%s: plan: got %v", name, err)
		}
		if _, err := s.CompactWindow(c.ctx, &compactorv1.CompactWindowRequest{Organization: c.organization, Start: start}); !errors.Is(err, c.want) {
			t.Errorf("%s: compact: got %v", name, err)
		}
	}
	if _, err := s.GetCompactionStatus(as("", config.ScopeAdmin), &compactorv1.GetCompactionStatusRequest{}); err != nil {
		t.Errorf("an admin asks of all: %v", err)
	}
	if _, err := s.GetCompactionStatus(as("acme", config.ScopeQuery), &compactorv1.GetCompactionStatusRequest{Organization: "other"}); !errors.Is(err, fault.Denied) {
		t.Errorf("got %v", err)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	t.Parallel()
	s, ctx, now := newServer(t), as("acme", config.ScopeAdmin), time.Now()
	for name, request := range map[string]*compactorv1.PlanCompactionRequest{
		"no start":      {},
		"an end before": {Start: timestamppb.New(now), End: timestamppb.New(now.Add(-2 * time.Hour))},
		"a year":        {Start: timestamppb.New(now), End: timestamppb.New(now.Add(365 * day))},
		"an odd signal": {Start: timestamppb.New(now), Signal: 77},
	} {
		if _, err := s.PlanCompaction(ctx, request); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := s.PlanCompaction(ctx, &compactorv1.PlanCompactionRequest{Start: timestamppb.New(now), Signal: lakev1.Signal_SIGNAL_SPANS}); !errors.Is(err, fault.Unsupported) {
		t.Errorf("got %v", err)
	}
	if _, err := s.CompactWindow(ctx, &compactorv1.CompactWindowRequest{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestAnEmptyWindowIsNothingToDo(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, signal := range []lakev1.Signal{lakev1.Signal_SIGNAL_UNSPECIFIED, lakev1.Signal_SIGNAL_LOGS, lakev1.Signal_SIGNAL_METRICS} {
		got, err := s.CompactWindow(as("acme", config.ScopeAdmin), &compactorv1.CompactWindowRequest{Start: timestamppb.New(time.Now()), Day: true, Signal: signal})
		if err != nil || got.GetConservation() != nil || got.GetPlan().GetReason() != "the window is empty" || got.GetPlan().GetLengthSeconds() != 86400 {
			t.Errorf("%s: %v, %v", signal, got, err)
		}
	}
}

func TestWindowsOfSegments(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	segments := []lake.Segment{
		{Window: lake.WindowOf(start, time.Hour)},
		{Window: lake.WindowOf(start, time.Hour)},
		{Window: lake.WindowOf(start.Add(time.Hour), time.Hour)},
		{Window: lake.WindowOf(start.Add(-day), day)},
	}
	var got []string
	for _, w := range windowsOf(segments) {
		got = append(got, w.Start.Format("02T15 ")+w.Length.String())
	}
	want := []string{"22T11 1h0m0s", "22T10 1h0m0s", "22T00 24h0m0s", "21T00 24h0m0s"}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
