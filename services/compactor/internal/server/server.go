// SPDX-License-Identifier: AGPL-3.0-only

// Package server translates the compactor's gRPC contract.
//
// Invariants:
//
//   - A caller without the admin scope sees plans and figures of its own organization only, and changes nothing.
//   - CompactWindow answers when the window was compacted, whoever had it under way before.
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
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

// Index is what the server needs of the index.
type Index interface {
	Enqueue(ctx context.Context, tasks []lake.Task) error
	CompactionDebt(ctx context.Context, org lake.Organization) ([]index.Debt, error)
	Backlog(ctx context.Context) ([]index.Backlog, error)
	Lookup(ctx context.Context, query index.Query) (index.Answer, error)
}

// Deps are what a Server needs.
type Deps struct {
	Index  Index
	Worker *work.Worker
	// Claims and Batch are those of the service's loop.
	Claims stage.Claims
	Batch  index.Batch
	Log    *slog.Logger
	Meter  metric.Meter
}

// Server implements lakerunner.compactor.v1.CompactorService.
type Server struct {
	compactorv1.UnimplementedCompactorServiceServer
	deps Deps
}

// New returns a Server.
func New(d Deps) *Server { return &Server{deps: d} }

const day = 24 * time.Hour

// maxSpan is the longest stretch of time that one plan is made for.
const maxSpan = 31 * day

// PlanCompaction says what would be done.
func (s *Server) PlanCompaction(ctx context.Context, request *compactorv1.PlanCompactionRequest) (*compactorv1.PlanCompactionResponse, error) {
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
	windows, err := s.windows(ctx, index.Query{Organization: organization, Signal: signal, Start: start, End: end})
	if err != nil {
		return nil, err
	}
	response := &compactorv1.PlanCompactionResponse{}
	for _, w := range windows {
		made, state, err := s.deps.Worker.Plan(ctx, organization, signal, w, false)
		if err != nil {
			return nil, err
		}
		if len(state.Segments) > 0 {
			response.Windows = append(response.Windows, windowProto(made, state))
		}
	}
	return response, nil
}

func spanOf(request *compactorv1.PlanCompactionRequest) (start, end time.Time, err error) {
	if request.GetStart() == nil {
		return start, end, fault.New(fault.Invalid, "start is not set")
	}
	hour := lake.WindowOf(request.GetStart().AsTime(), time.Hour)
	start, end = hour.Start, hour.End()
	if request.GetEnd() != nil {
		end = request.GetEnd().AsTime()
	}
	if !end.After(start) || end.Sub(start) > maxSpan+time.Hour {
		return start, end, fault.New(fault.Invalid, "end: want a time after start, by 31 days at most")
	}
	return start, end, nil
}

// windows are those of the segments in a range: hours first, the newest of them first, then their days.
func (s *Server) windows(ctx context.Context, query index.Query) ([]lake.Window, error) {
	answer, err := s.deps.Index.Lookup(ctx, query)
	if err != nil {
		return nil, err
	}
	return windowsOf(answer.Segments), nil
}

// CompactWindow compacts one window.
func (s *Server) CompactWindow(ctx context.Context, request *compactorv1.CompactWindowRequest) (*compactorv1.CompactWindowResponse, error) {
	organization, err := organizationOf(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	signal, err := signalOf(request.GetSignal())
	if err != nil {
		return nil, err
	}
	if request.GetStart() == nil {
		return nil, fault.New(fault.Invalid, "start is not set")
	}
	window := lake.WindowOf(request.GetStart().AsTime(), time.Hour)
	if request.GetDay() {
		window = lake.WindowOf(window.Start, day)
	}
	made, state, err := s.deps.Worker.Plan(ctx, organization, signal, window, true)
	if err != nil {
		return nil, err
	}
	response := &compactorv1.CompactWindowResponse{Plan: windowProto(made, state)}
	if request.GetValidateOnly() || len(made.Merges) == 0 {
		return response, nil
	}
	report, err := s.compact(ctx, work.TaskOf(organization, signal, window))
	if err != nil {
		return nil, err
	}
	fill(response, report)
	return response, nil
}

// compact claims the task of a window, as soon as nobody else has it, and does it.
func (s *Server) compact(ctx context.Context, task lake.Task) (work.Report, error) {
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

// GetCompactionStatus says how far compaction is behind.
func (s *Server) GetCompactionStatus(ctx context.Context, request *compactorv1.GetCompactionStatusRequest) (*compactorv1.GetCompactionStatusResponse, error) {
	organization, err := organizationOrAll(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	debts, err := s.deps.Index.CompactionDebt(ctx, organization)
	if err != nil {
		return nil, err
	}
	backlog, err := s.deps.Index.Backlog(ctx)
	if err != nil {
		return nil, err
	}
	response := &compactorv1.GetCompactionStatusResponse{}
	for _, d := range debts {
		response.Statuses = append(response.Statuses, statusProto(d, backlog))
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
		return "", fault.New(fault.Denied, "another organization's segments need the admin scope")
	}
	if wanted == "" {
		if !identity.Has(config.ScopeAdmin) {
			return "", fault.New(fault.Denied, "all organizations' segments need the admin scope")
		}
		return "", nil
	}
	if err := wanted.Valid(); err != nil {
		return "", fault.Wrap(fault.Invalid, err)
	}
	return wanted, nil
}
