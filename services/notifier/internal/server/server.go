// SPDX-License-Identifier: AGPL-3.0-only

// Package server translates the notifier's gRPC contract into its own words, and nothing else.
package server

import (
	"context"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/notifier/internal/backfill"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

// Door is the name of gRPC and REST among the doors, in metrics.
const Door = "api"

const (
	maxObjects      = 1000
	defaultPageSize = 100
	maxPageSize     = 1000
)

// Server answers NotifierService.
type Server struct {
	notifierv1.UnimplementedNotifierServiceServer
	config    config.Source
	intake    *intake.Intake
	index     *index.Index
	backfills *backfill.Backfills
}

// New makes the server.
func New(source config.Source, in *intake.Intake, x *index.Index, b *backfill.Backfills) *Server {
	return &Server{config: source, intake: in, index: x, backfills: b}
}

// NotifyObjects takes notice of objects that somebody names.
func (s *Server) NotifyObjects(ctx context.Context, r *notifierv1.NotifyObjectsRequest) (*notifierv1.NotifyObjectsResponse, error) {
	if len(r.GetObjects()) > maxObjects {
		return nil, fault.New(fault.Invalid, "%d objects: at most %d a call", len(r.GetObjects()), maxObjects)
	}
	notices := make([]intake.Notice, len(r.GetObjects()))
	for i, o := range r.GetObjects() {
		n, err := notice(o)
		if err == nil {
			err = s.allowed(ctx, n)
		}
		if err != nil {
			return nil, fault.Wrap(fault.KindOf(err), fault.New(fault.KindOf(err), "objects[%d]: %w", i, err))
		}
		notices[i] = n
	}
	taken, err := s.intake.Take(ctx, Door, notices)
	if err != nil {
		return nil, err
	}
	answer := &notifierv1.NotifyObjectsResponse{}
	for _, t := range taken {
		answer.Results = append(answer.Results, &notifierv1.NotifyResult{Receipt: lakeproto.ReceiptProto(t.Receipt), Duplicate: t.Outcome == intake.Duplicate})
	}
	return answer, nil
}

// allowed keeps a key to its organization: the answer tells of the object's receipt.
func (s *Server) allowed(ctx context.Context, n intake.Notice) error {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return fault.New(fault.Unauthenticated, "no key")
	}
	owner := s.config.Current().Resolve(n.Object.Bucket, n.Object.Key).Organization
	if identity.Organization == "" || owner == "" || identity.Organization == owner {
		return nil
	}
	return fault.New(fault.Denied, "%s/%s belongs to another organization", n.Object.Bucket, n.Object.Key)
}

// EstimateBackfill says what a backfill would take.
func (s *Server) EstimateBackfill(ctx context.Context, r *notifierv1.EstimateBackfillRequest) (*notifierv1.EstimateBackfillResponse, error) {
	scope, err := scopeOf(r)
	if err != nil {
		return nil, err
	}
	e, err := s.backfills.Estimate(ctx, scope, 0)
	if err != nil {
		return nil, err
	}
	return &notifierv1.EstimateBackfillResponse{Estimate: estimateToProto(e)}, nil
}

// CreateBackfill starts a backfill.
func (s *Server) CreateBackfill(ctx context.Context, r *notifierv1.CreateBackfillRequest) (*notifierv1.CreateBackfillResponse, error) {
	scope, err := scopeOf(r)
	if err != nil {
		return nil, err
	}
	if r.GetObjectsPerSecond() < 0 {
		return nil, fault.New(fault.Invalid, "objects_per_second is negative")
	}
	b, err := s.backfills.Create(ctx, scope, int(r.GetObjectsPerSecond()))
	if err != nil {
		return nil, err
	}
	return &notifierv1.CreateBackfillResponse{Backfill: backfillToProto(b)}, nil
}

// GetBackfill returns a backfill.
func (s *Server) GetBackfill(ctx context.Context, r *notifierv1.GetBackfillRequest) (*notifierv1.GetBackfillResponse, error) {
	id, err := backfillID(r.GetBackfillId())
	if err != nil {
		return nil, err
	}
	b, err := s.index.Backfill(ctx, id)
	if err != nil {
		return nil, err
	}
	return &notifierv1.GetBackfillResponse{Backfill: backfillToProto(b)}, nil
}

// ListBackfills lists backfills, newest first.
func (s *Server) ListBackfills(ctx context.Context, r *notifierv1.ListBackfillsRequest) (*notifierv1.ListBackfillsResponse, error) {
	size := int(r.GetPageSize())
	switch {
	case size < 0:
		return nil, fault.New(fault.Invalid, "page_size is negative")
	case size == 0:
		size = defaultPageSize
	}
	all, next, err := s.index.Backfills(ctx, min(size, maxPageSize), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &notifierv1.ListBackfillsResponse{NextPageToken: next}
	for _, b := range all {
		answer.Backfills = append(answer.Backfills, backfillToProto(b))
	}
	return answer, nil
}

// PauseBackfill stops a backfill after the page at hand.
func (s *Server) PauseBackfill(ctx context.Context, r *notifierv1.PauseBackfillRequest) (*notifierv1.PauseBackfillResponse, error) {
	b, err := s.setState(ctx, r.GetBackfillId(), index.BackfillPaused)
	if err != nil {
		return nil, err
	}
	return &notifierv1.PauseBackfillResponse{Backfill: backfillToProto(b)}, nil
}

// ResumeBackfill lets a backfill go on.
func (s *Server) ResumeBackfill(ctx context.Context, r *notifierv1.ResumeBackfillRequest) (*notifierv1.ResumeBackfillResponse, error) {
	b, err := s.setState(ctx, r.GetBackfillId(), index.BackfillRunning)
	if err != nil {
		return nil, err
	}
	return &notifierv1.ResumeBackfillResponse{Backfill: backfillToProto(b)}, nil
}

func (s *Server) setState(ctx context.Context, text string, state index.BackfillState) (index.Backfill, error) {
	id, err := backfillID(text)
	if err != nil {
		return index.Backfill{}, err
	}
	return s.index.SetBackfillState(ctx, id, state, "")
}
