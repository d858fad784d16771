// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"strconv"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/janitor/internal/erase"
	"github.com/lakerunner/lakerunner/services/janitor/internal/ship"
)

// DeleteData deletes rows, or says what that would touch.
func (s *Server) DeleteData(ctx context.Context, r *janitorv1.DeleteDataRequest) (*janitorv1.DeleteDataResponse, error) {
	d, err := s.deletion(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.GetValidateOnly() {
		d, planned, err := s.deps.Erase.Plan(ctx, d)
		answer := deleteProto(d, index.DeleteProgress{SegmentsLeft: planned.Segments, BytesLeft: planned.Bytes})
		answer.DeleteId = ""
		return &janitorv1.DeleteDataResponse{Delete: answer, Streams: planned.Streams}, err
	}
	d, err = s.deps.Erase.Create(ctx, d)
	if err != nil {
		return nil, err
	}
	shown, err := s.shown(ctx, d.ID)
	return &janitorv1.DeleteDataResponse{Delete: shown}, err
}

func (s *Server) deletion(ctx context.Context, r *janitorv1.DeleteDataRequest) (lake.Delete, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return lake.Delete{}, err
	}
	signal, err := lakeproto.Signal(r.GetSignal())
	if err != nil {
		return lake.Delete{}, err
	}
	sources, err := policyOf(r.GetSources())
	if err != nil {
		return lake.Delete{}, err
	}
	identity, _ := config.IdentityFrom(ctx) // organization has seen it
	d := lake.Delete{
		Organization: org, Signal: signal, Selector: r.GetSelector(), Sources: sources, Actor: identity.KeyID, Reason: r.GetReason(),
	}
	if r.GetStart() != nil {
		d.Start = r.GetStart().AsTime()
	}
	if r.GetEnd() != nil {
		d.End = r.GetEnd().AsTime()
	}
	return d, nil
}

func policyOf(p janitorv1.SourcePolicy) (lake.SourcePolicy, error) {
	switch p {
	case janitorv1.SourcePolicy_SOURCE_POLICY_UNSPECIFIED, janitorv1.SourcePolicy_SOURCE_POLICY_LEAVE:
		return lake.SourceLeave, nil
	case janitorv1.SourcePolicy_SOURCE_POLICY_ERASE:
		return lake.SourceErase, nil
	case janitorv1.SourcePolicy_SOURCE_POLICY_REDACT:
		return lake.SourceRedact, nil
	}
	return "", fault.New(fault.Invalid, "sources %d: no such policy", p)
}

func policyProto(p lake.SourcePolicy) janitorv1.SourcePolicy {
	switch p {
	case lake.SourceErase:
		return janitorv1.SourcePolicy_SOURCE_POLICY_ERASE
	case lake.SourceRedact:
		return janitorv1.SourcePolicy_SOURCE_POLICY_REDACT
	}
	return janitorv1.SourcePolicy_SOURCE_POLICY_LEAVE
}

func deleteStateProto(s lake.DeleteState) janitorv1.DeleteState {
	switch s {
	case lake.DeleteRewriting:
		return janitorv1.DeleteState_DELETE_STATE_REWRITING
	case lake.DeleteSweeping:
		return janitorv1.DeleteState_DELETE_STATE_SWEEPING
	case lake.DeleteDone:
		return janitorv1.DeleteState_DELETE_STATE_DONE
	}
	return janitorv1.DeleteState_DELETE_STATE_UNSPECIFIED
}

func deleteProto(d lake.Delete, p index.DeleteProgress) *janitorv1.Delete {
	return &janitorv1.Delete{
		DeleteId: strconv.FormatInt(int64(d.ID), 10), Organization: string(d.Organization), Signal: lakeproto.SignalProto(d.Signal),
		Selector: d.Selector, Start: lakeproto.Time(d.Start), End: lakeproto.Time(d.End), Sources: policyProto(d.Sources), Reason: d.Reason, Actor: d.Actor,
		State: deleteStateProto(d.State), CreatedAt: lakeproto.Time(d.CreatedAt), UpdatedAt: lakeproto.Time(d.UpdatedAt),
		SegmentsLeft: p.SegmentsLeft, BytesLeft: p.BytesLeft, RowsDeleted: p.RowsDeleted, FilesLeft: p.FilesLeft, ObjectsLeft: p.ObjectsLeft,
	}
}

// shown is a delete with its progress, if the caller may see it.
func (s *Server) shown(ctx context.Context, id lake.DeleteID) (*janitorv1.Delete, error) {
	d, progress, err := s.deps.Erase.Progress(ctx, id)
	if err != nil {
		return nil, err
	}
	if _, err := s.organization(ctx, string(d.Organization)); err != nil {
		return nil, err
	}
	return deleteProto(d, progress), nil
}

func deleteID(text string) (lake.DeleteID, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 {
		return 0, fault.New(fault.Invalid, "delete_id %q: want a decimal number", text)
	}
	return lake.DeleteID(id), nil
}

// GetDelete says how far a delete has come.
func (s *Server) GetDelete(ctx context.Context, r *janitorv1.GetDeleteRequest) (*janitorv1.GetDeleteResponse, error) {
	id, err := deleteID(r.GetDeleteId())
	if err != nil {
		return nil, err
	}
	shown, err := s.shown(ctx, id)
	return &janitorv1.GetDeleteResponse{Delete: shown}, err
}

// ListDeletes lists deletes, newest first.
func (s *Server) ListDeletes(ctx context.Context, r *janitorv1.ListDeletesRequest) (*janitorv1.ListDeletesResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	query := index.DeleteQuery{Organization: org, Descending: true, Limit: size + 1}
	if r.GetPageToken() != "" {
		if query.After, err = deleteID(r.GetPageToken()); err != nil {
			return nil, err
		}
	}
	deletes, _, err := s.deps.Index.Deletes(ctx, query)
	if err != nil {
		return nil, err
	}
	answer := &janitorv1.ListDeletesResponse{}
	if len(deletes) > size {
		deletes = deletes[:size]
		answer.NextPageToken = strconv.FormatInt(int64(deletes[size-1].ID), 10)
	}
	for _, d := range deletes {
		progress, err := s.deps.Index.DeleteProgress(ctx, d.ID)
		if err != nil {
			return nil, err
		}
		answer.Deletes = append(answer.Deletes, deleteProto(d, progress))
	}
	return answer, nil
}

// GetCertificate is the account of a delete.
func (s *Server) GetCertificate(ctx context.Context, r *janitorv1.GetCertificateRequest) (*janitorv1.GetCertificateResponse, error) {
	id, err := deleteID(r.GetDeleteId())
	if err != nil {
		return nil, err
	}
	shown, err := s.shown(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := s.deps.Erase.Certificate(ctx, id)
	if err != nil {
		return nil, err
	}
	return certificateProto(shown, c), nil
}

func certificateProto(shown *janitorv1.Delete, c *erase.Certificate) *janitorv1.GetCertificateResponse {
	answer := &janitorv1.GetCertificateResponse{Delete: shown, Final: c.Final, Limits: c.Limits, Sha256: c.SHA256}
	if c.Final {
		answer.AuditEntry = strconv.FormatInt(c.AuditEntry, 10)
	}
	for _, g := range c.Segments {
		answer.Segments = append(answer.Segments, &janitorv1.ErasedSegment{
			SegmentId: strconv.FormatInt(int64(g.Segment), 10), Bucket: g.Bucket, Key: g.Key, Rows: g.Rows,
			RemovedAt: lakeproto.Time(g.RemovedAt), GoneAt: lakeproto.Time(g.GoneAt),
		})
	}
	for _, o := range c.Objects {
		answer.Objects = append(answer.Objects, &janitorv1.ErasedObject{
			ReceiptId: strconv.FormatInt(int64(o.Receipt.ID), 10), Object: lakeproto.ObjectProto(o.Receipt.Object), Rows: o.Rows,
			Action: o.Action, DoneAt: lakeproto.Time(o.DoneAt),
		})
	}
	return answer
}

// ListAuditLog lists entries of the audit log.
func (s *Server) ListAuditLog(ctx context.Context, r *janitorv1.ListAuditLogRequest) (*janitorv1.ListAuditLogResponse, error) {
	org, err := s.scope(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	entries, next, err := s.deps.Index.AuditLog(ctx, org, size, r.GetPageToken())
	answer := &janitorv1.ListAuditLogResponse{NextPageToken: next}
	for _, e := range entries {
		answer.Entries = append(answer.Entries, &janitorv1.AuditEntry{
			EntryId: strconv.FormatInt(e.ID, 10), At: lakeproto.Time(e.At), Actor: e.Actor, Organization: string(e.Organization),
			Action: e.Action, Subject: e.Subject, Detail: e.Detail, PreviousHash: e.PreviousHash, Hash: e.Hash,
		})
	}
	return answer, err
}

// scope is the organization that a request is about; empty, for a key of no organization that names none: all.
func (s *Server) scope(ctx context.Context, named string) (lake.Organization, error) {
	identity, ok := config.IdentityFrom(ctx)
	if ok && named == "" && identity.Organization == "" && identity.Has(config.ScopeAdmin) {
		return "", nil
	}
	return s.organization(ctx, named)
}

// VerifyAuditLog computes the chains of hashes anew.
func (s *Server) VerifyAuditLog(ctx context.Context, _ *janitorv1.VerifyAuditLogRequest) (*janitorv1.VerifyAuditLogResponse, error) {
	entries, broken, head, err := s.deps.Index.VerifyAudit(ctx)
	answer := &janitorv1.VerifyAuditLogResponse{Entries: entries, Head: head}
	if broken != 0 {
		answer.FirstBrokenEntry = strconv.FormatInt(broken, 10)
	}
	return answer, err
}

// ShipRecords brings commit records, and a snapshot, into the bucket.
func (s *Server) ShipRecords(ctx context.Context, r *janitorv1.ShipRecordsRequest) (*janitorv1.ShipRecordsResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	request := ship.Request{Organization: org, Snapshot: r.GetSnapshot(), DryRun: r.GetValidateOnly()}
	var result ship.Result
	if request.DryRun {
		result, err = s.deps.Ship.Run(ctx, request)
	} else {
		err = s.now(ctx, lake.Task{Kind: lake.TaskShip, Organization: org}, func(ctx context.Context, _ *lake.Lease) (lake.Edit, error) {
			var err error
			result, err = s.deps.Ship.Run(ctx, request)
			return lake.Edit{}, err
		})
	}
	return &janitorv1.ShipRecordsResponse{Records: result.Records, SnapshotKey: result.SnapshotKey, SnapshotRows: result.SnapshotRows}, err
}
