// SPDX-License-Identifier: AGPL-3.0-only

// Package server translates the rollup service's gRPC contract.
//
// Invariants:
//
//   - A caller without the admin scope sees plans and figures of its own organization only, and changes nothing.
//   - RollupWindow answers when the rollup is there, whoever had it under way before.
package server

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/stage"
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
	"github.com/lakerunner/lakerunner/services/rollup/internal/debt"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
	"github.com/lakerunner/lakerunner/services/rollup/internal/work"
)

// Index is what the server needs of the index.
type Index interface {
	debt.Index
	Enqueue(ctx context.Context, tasks []lake.Task) error
	Backlog(ctx context.Context) ([]index.Backlog, error)
}

// Deps are what a Server needs.
type Deps struct {
	Index  Index
	Config config.Source
	Worker *work.Worker
	// Claims and Batch are those of the service's loop.
	Claims stage.Claims
	Batch  index.Batch
	Log    *slog.Logger
	Meter  metric.Meter
}

// Server implements lakerunner.rollup.v1.RollupService.
type Server struct {
	rollupv1.UnimplementedRollupServiceServer
	deps Deps
}

// New returns a Server.
func New(d Deps) *Server { return &Server{deps: d} }

const day = 24 * time.Hour

// maxSpan is the longest stretch of time that one plan is made for.
const maxSpan = 31 * day

// PlanRollup says what would be done.
func (s *Server) PlanRollup(ctx context.Context, request *rollupv1.PlanRollupRequest) (*rollupv1.PlanRollupResponse, error) {
	organization, err := organizationOf(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	signal, err := signalOf(request.GetSignal())
	if err != nil {
		return nil, err
	}
	start, end, err := spanOf(request)
	if err != nil {
		return nil, err
	}
	resolutions, err := s.resolutions(organization, signal, request.GetResolutionSeconds())
	if err != nil {
		return nil, err
	}
	response := &rollupv1.PlanRollupResponse{}
	for _, resolution := range resolutions {
		for w := lake.WindowOf(start, config.RollupWindow(resolution)); w.Start.Before(end); w.Start = w.End() {
			made, state, err := s.deps.Worker.Plan(ctx, plan.TaskOf(organization, signal, w, resolution), false)
			if err != nil {
				return nil, err
			}
			if len(state.Hours) > 0 {
				response.Windows = append(response.Windows, planProto(made, state, false))
			}
		}
	}
	return response, nil
}

// resolutions are the one that is asked for, or those that the organization has.
func (s *Server) resolutions(organization lake.Organization, signal lake.Signal, seconds int64) ([]time.Duration, error) {
	if seconds != 0 {
		resolution, err := resolutionOf(seconds)
		return []time.Duration{resolution}, err
	}
	var out []time.Duration
	if o, known := s.deps.Config.Current().Organization(organization); known {
		for _, tier := range o.RollupsOf(signal) {
			out = append(out, tier.Resolution)
		}
	}
	return out, nil
}

func resolutionOf(seconds int64) (time.Duration, error) {
	for _, tier := range config.Tiers() {
		if int64(tier/time.Second) == seconds {
			return tier, nil
		}
	}
	return 0, fault.New(fault.Invalid, "resolution_seconds is %d: want 10, 60, 300, 1200 or 3600", seconds)
}

func spanOf(request *rollupv1.PlanRollupRequest) (start, end time.Time, err error) {
	if request.GetStart() == nil {
		return start, end, fault.New(fault.Invalid, "start is not set")
	}
	start = request.GetStart().AsTime()
	end = start.Add(time.Nanosecond)
	if request.GetEnd() != nil {
		end = request.GetEnd().AsTime()
	}
	if !end.After(start) || end.Sub(start) > maxSpan {
		return start, end, fault.New(fault.Invalid, "end: want a time after start, by 31 days at most")
	}
	return start, end, nil
}

// RollupWindow makes one rollup.
func (s *Server) RollupWindow(ctx context.Context, request *rollupv1.RollupWindowRequest) (*rollupv1.RollupWindowResponse, error) {
	organization, err := organizationOf(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	signal, err := signalOf(request.GetSignal())
	if err != nil {
		return nil, err
	}
	resolution, err := resolutionOf(request.GetResolutionSeconds())
	if err != nil {
		return nil, err
	}
	if request.GetStart() == nil {
		return nil, fault.New(fault.Invalid, "start is not set")
	}
	task := plan.TaskOf(organization, signal, lake.WindowOf(request.GetStart().AsTime(), config.RollupWindow(resolution)), resolution)
	made, state, err := s.deps.Worker.Plan(ctx, task, true)
	if err != nil {
		return nil, err
	}
	response := &rollupv1.RollupWindowResponse{Plan: planProto(made, state, false)}
	if request.GetValidateOnly() || made.Action == plan.None || made.Action == plan.Wait {
		return response, nil
	}
	if made.Action == plan.Refuse {
		return nil, fault.New(fault.Unsupported, "beyond_retention: %s", made.Reason)
	}
	report, err := s.roll(ctx, task)
	if err != nil {
		return nil, err
	}
	response.Plan = planProto(report.Plan, state, report.Skipped)
	fill(response, report)
	return response, nil
}

// roll claims the task of a rollup, as soon as nobody else has it, and does it.
func (s *Server) roll(ctx context.Context, task lake.Task) (work.Report, error) {
	var report work.Report
	batch := s.deps.Batch
	batch.Work = &task
	options := stage.Options{Batch: batch, Log: s.deps.Log, Meter: s.deps.Meter}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		if err := s.deps.Index.Enqueue(ctx, []lake.Task{task}); err != nil {
			return report, err
		}
		worked, err := stage.One(ctx, s.deps.Claims, options, s.deps.Worker.Asked(func(r work.Report) { report = r }))
		if err != nil || worked {
			return report, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return report, ctx.Err()
		}
	}
}

// GetRollupStatus says how far rollups are behind.
func (s *Server) GetRollupStatus(ctx context.Context, request *rollupv1.GetRollupStatusRequest) (*rollupv1.GetRollupStatusResponse, error) {
	organization, err := organizationOrAll(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	backlog, err := s.deps.Index.Backlog(ctx)
	if err != nil {
		return nil, err
	}
	response := &rollupv1.GetRollupStatusResponse{}
	organizations, err := debt.Organizations(ctx, s.deps.Index, s.deps.Config.Current(), organization)
	if err != nil {
		return nil, err
	}
	for _, o := range organizations {
		owed, err := debt.Of(ctx, s.deps.Index, o, 0, 1)
		if err != nil {
			return nil, err
		}
		for _, d := range owed {
			response.Statuses = append(response.Statuses, statusProto(d, backlog))
		}
	}
	return response, nil
}

// organizationOf is the one that a request is about: the caller's own, or, for an admin, the one it names.
func organizationOf(ctx context.Context, named string) (lake.Organization, error) {
	organization, err := organizationOrAll(ctx, named)
	if err == nil && organization == "" {
		return "", fault.New(fault.Invalid, "an admin key acts for no organization of its own: name one")
	}
	return organization, err
}

// organizationOrAll is organizationOf, but for an admin of no organization, who may mean all: empty.
func organizationOrAll(ctx context.Context, named string) (lake.Organization, error) {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return "", fault.New(fault.Unauthenticated, "no API key")
	}
	wanted := lake.Organization(named)
	if named == "" {
		wanted = identity.Organization
	}
	if wanted != identity.Organization && !identity.Has(config.ScopeAdmin) {
		return "", fault.New(fault.Denied, "another organization's rollups need the admin scope")
	}
	if wanted == "" {
		if !identity.Has(config.ScopeAdmin) {
			return "", fault.New(fault.Denied, "all organizations' rollups need the admin scope")
		}
		return "", nil
	}
	if err := wanted.Valid(); err != nil {
		return "", fault.Wrap(fault.Invalid, err)
	}
	return wanted, nil
}
