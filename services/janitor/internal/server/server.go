// SPDX-License-Identifier: AGPL-3.0-only

// Package server translates the janitor's gRPC contract. What a duty does is decided in its own package; here only: for whom, and at once.
//
// Invariants:
//
//   - A caller without the admin scope of another organization touches its own only; a key of no organization names one.
//   - Retention, sweeping and source objects are done under a lease, as the duties themselves do them; the others may be done by several at
//     once. A dry run changes nothing.
package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	"github.com/lakerunner/lakerunner/pkg/stage"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/janitor/internal/duty"
	"github.com/lakerunner/lakerunner/services/janitor/internal/erase"
	"github.com/lakerunner/lakerunner/services/janitor/internal/inspect"
	"github.com/lakerunner/lakerunner/services/janitor/internal/raw"
	"github.com/lakerunner/lakerunner/services/janitor/internal/reconcile"
	"github.com/lakerunner/lakerunner/services/janitor/internal/retention"
	"github.com/lakerunner/lakerunner/services/janitor/internal/ship"
	"github.com/lakerunner/lakerunner/services/janitor/internal/sweep"
	"github.com/lakerunner/lakerunner/services/janitor/internal/upkeep"
)

// Deps are what a Server needs.
type Deps struct {
	Index     *index.Index
	Config    config.Source
	Retention *retention.Keeper
	Sweep     *sweep.Sweeper
	Inspect   *inspect.Inspector
	Reconcile *reconcile.Reconciler
	Raw       *raw.Keeper
	Upkeep    *upkeep.Keeper
	Erase     *erase.Eraser
	Ship      *ship.Shipper
	Log       *slog.Logger
	Meter     metric.Meter
}

// Buckets returns the names of all buckets: an organization's own files stay where they are when its profiles change.
func (d Deps) Buckets(lake.Organization) []string {
	var names []string
	for _, p := range d.Config.Current().Profiles() {
		if !slices.Contains(names, p.Bucket()) {
			names = append(names, p.Bucket())
		}
	}
	return names
}

// Server implements lakerunner.janitor.v1.JanitorService.
type Server struct {
	janitorv1.UnimplementedJanitorServiceServer
	deps Deps
}

// New returns a Server.
func New(d Deps) *Server { return &Server{deps: d} }

var allSignals = []lake.Signal{lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans}

// Organizations returns all that have duties: those that are declared, those that storage profiles name, and those that the index has
// segments or tasks of.
func (s *Server) Organizations(ctx context.Context) ([]lake.Organization, error) {
	current := s.deps.Config.Current()
	var ids []lake.Organization
	for _, o := range current.Organizations() {
		ids = append(ids, o.ID)
	}
	for _, p := range current.Profiles() {
		if p.Organization != "" {
			ids = append(ids, p.Organization)
		}
	}
	debts, err := s.deps.Index.CompactionDebt(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, d := range debts {
		ids = append(ids, d.Organization)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// organization is the one that a request is about: the caller's own, or, for an admin, the one it names.
func (s *Server) organization(ctx context.Context, named string) (lake.Organization, error) {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return "", fault.New(fault.Unauthenticated, "no API key")
	}
	wanted := cmp.Or(lake.Organization(named), identity.Organization)
	if wanted == "" {
		return "", fault.New(fault.Invalid, "an admin key acts for no organization of its own: name one")
	}
	if err := wanted.Valid(); err != nil {
		return "", fault.Wrap(fault.Invalid, err)
	}
	if wanted != identity.Organization && !identity.Has(config.ScopeAdmin) {
		return "", fault.New(fault.Denied, "another organization needs the admin scope")
	}
	return wanted, nil
}

// now does a duty's task at once, under a lease.
func (s *Server) now(ctx context.Context, task lake.Task, work stage.Work) error {
	return duty.Now(ctx, s.deps.Index, task, stage.Options{Log: s.deps.Log, Meter: s.deps.Meter}, work)
}

// signals are the ones that a request names: one, or all.
func signals(s lakev1.Signal) ([]lake.Signal, error) {
	signal, err := lakeproto.Signal(s)
	if err != nil {
		return nil, err
	}
	if signal == lake.SignalUnknown {
		return allSignals, nil
	}
	return []lake.Signal{signal}, nil
}

const (
	defaultPage = 100
	maxPage     = 1000
)

func pageSize(n int32) (int, error) {
	if n < 0 || n > maxPage {
		return 0, fault.New(fault.Invalid, "page_size %d: want 1 to %d, or 0 for %d", n, maxPage, defaultPage)
	}
	return cmp.Or(int(n), defaultPage), nil
}

// RunRetention removes what is past its retention.
func (s *Server) RunRetention(ctx context.Context, r *janitorv1.RunRetentionRequest) (*janitorv1.RunRetentionResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	of, err := signals(r.GetSignal())
	if err != nil {
		return nil, err
	}
	if r.GetValidateOnly() {
		runs, err := s.deps.Retention.Would(ctx, org, of)
		return &janitorv1.RunRetentionResponse{Runs: runsProto(runs)}, err
	}
	before, err := s.newestRun(ctx, org)
	if err != nil {
		return nil, err
	}
	for _, signal := range of {
		if err := s.retain(ctx, org, signal); err != nil {
			return nil, err
		}
	}
	runs, _, err := s.deps.Index.RetentionRuns(ctx, org, maxPage, "")
	if err != nil {
		return nil, err
	}
	runs = slices.DeleteFunc(runs, func(run index.RetentionRun) bool { return run.ID <= before || !slices.Contains(of, run.Signal) })
	return &janitorv1.RunRetentionResponse{Runs: runsProto(runs)}, nil
}

// newestRun is the number of the newest run that is over; zero: there is none.
func (s *Server) newestRun(ctx context.Context, org lake.Organization) (int64, error) {
	runs, _, err := s.deps.Index.RetentionRuns(ctx, org, defaultPage, "")
	newest := int64(0)
	for _, run := range runs {
		if !run.FinishedAt.IsZero() {
			newest = max(newest, run.ID)
		}
	}
	return newest, err
}

// maxSteps bounds one request: ten million segments.
const maxSteps = 10_000

// retain takes steps until a run has nothing more to remove.
func (s *Server) retain(ctx context.Context, org lake.Organization, signal lake.Signal) error {
	task := lake.Task{Kind: lake.TaskExpire, Organization: org, Signal: signal}
	for range maxSteps {
		more := false
		err := s.now(ctx, task, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
			edit, err := s.deps.Retention.Duty(ctx, lease)
			more = retention.More(edit)
			return edit, err
		})
		switch {
		case errors.Is(err, fault.Conflict): // compaction replaced a segment meanwhile: what is due now is looked up again
		case err != nil || !more:
			return err
		}
	}
	return nil
}

// ListRetentionRuns lists runs.
func (s *Server) ListRetentionRuns(ctx context.Context, r *janitorv1.ListRetentionRunsRequest) (*janitorv1.ListRetentionRunsResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(r.GetPageSize())
	if err != nil {
		return nil, err
	}
	runs, next, err := s.deps.Index.RetentionRuns(ctx, org, size, r.GetPageToken())
	return &janitorv1.ListRetentionRunsResponse{Runs: runsProto(runs), NextPageToken: next}, err
}

func runsProto(runs []index.RetentionRun) []*janitorv1.RetentionRun {
	out := make([]*janitorv1.RetentionRun, len(runs))
	for i, run := range runs {
		out[i] = runProto(run)
	}
	return out
}

func runProto(r index.RetentionRun) *janitorv1.RetentionRun {
	id := ""
	if r.ID != 0 {
		id = strconv.FormatInt(r.ID, 10)
	}
	out := &janitorv1.RetentionRun{
		RunId: id, Organization: string(r.Organization), Signal: lakeproto.SignalProto(r.Signal), Cutoff: lakeproto.Time(r.Cutoff), Selector: r.Selector,
		StartedAt: lakeproto.Time(r.StartedAt), FinishedAt: lakeproto.Time(r.FinishedAt), Due: countProto(r.Due), Removed: countProto(r.Removed),
		Deleted: countProto(r.Deleted), Verified: countProto(r.Verified), WindowsToRewrite: r.WindowsToRewrite,
	}
	if r.Resolution > 0 {
		out.Resolution = durationpb.New(r.Resolution)
	}
	return out
}

func countProto(c index.Count) *janitorv1.Count {
	return &janitorv1.Count{Segments: c.Segments, Rows: c.Rows, Bytes: c.Bytes}
}

// SweepFiles deletes files that are nobody's any more.
func (s *Server) SweepFiles(ctx context.Context, r *janitorv1.SweepFilesRequest) (*janitorv1.SweepFilesResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	var result sweep.Result
	if r.GetValidateOnly() {
		result, err = s.deps.Sweep.Run(ctx, org, true)
	} else {
		err = s.now(ctx, lake.Task{Kind: lake.TaskSweep, Organization: org}, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
			var err error
			result, err = s.deps.Sweep.Run(ctx, lease.Organization, false)
			return lake.Edit{}, err
		})
	}
	return &janitorv1.SweepFilesResponse{
		RemovedFiles: result.Removed, RemovedBytes: result.RemovedBytes, OrphanedFiles: result.Orphaned, OrphanedBytes: result.OrphanedBytes,
		WaitingSegments: result.Waiting,
	}, err
}

// InspectFiles compares our own files with the index.
func (s *Server) InspectFiles(ctx context.Context, r *janitorv1.InspectFilesRequest) (*janitorv1.InspectFilesResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	of, err := signals(r.GetSignal())
	if err != nil {
		return nil, err
	}
	scope := inspect.Scope{Organization: org, Signals: of, DryRun: r.GetValidateOnly()}
	if scope.Start, err = timeOf("start", r.GetStart()); err != nil {
		return nil, err
	}
	if scope.End, err = timeOf("end", r.GetEnd()); err != nil {
		return nil, err
	}
	result, err := s.deps.Inspect.Run(ctx, scope)
	if err != nil {
		return nil, err
	}
	missing, err := s.missing(ctx, org)
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(missing, func(m *janitorv1.MissingFile) bool { return !among(result.Missing, m.GetSegmentId()) })
	return &janitorv1.InspectFilesResponse{
		Files: result.Files, OrphanedFiles: result.Orphaned, OrphanedBytes: result.OrphanedBytes, Missing: named(found, result.Missing, org),
	}, nil
}

func among(files []index.KnownFile, id string) bool {
	return slices.ContainsFunc(files, func(f index.KnownFile) bool { return idProto(f.ID) == id })
}

// named adds the segments that a dry run did not mark, with what is known of their files.
func named(marked []*janitorv1.MissingFile, all []index.KnownFile, org lake.Organization) []*janitorv1.MissingFile {
	for _, f := range all {
		if !slices.ContainsFunc(marked, func(m *janitorv1.MissingFile) bool { return m.GetSegmentId() == idProto(f.ID) }) {
			marked = append(marked, &janitorv1.MissingFile{SegmentId: idProto(f.ID), Organization: string(org), Bucket: f.Bucket, Key: f.Key})
		}
	}
	return marked
}

func idProto(id lake.SegmentID) string { return strconv.FormatInt(int64(id), 10) }

// ListMissingFiles lists live segments whose file is gone.
func (s *Server) ListMissingFiles(ctx context.Context, r *janitorv1.ListMissingFilesRequest) (*janitorv1.ListMissingFilesResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	missing, err := s.missing(ctx, org)
	return &janitorv1.ListMissingFilesResponse{Missing: missing}, err
}

func (s *Server) missing(ctx context.Context, org lake.Organization) ([]*janitorv1.MissingFile, error) {
	found, err := s.deps.Index.Missing(ctx, org, inspect.MaxMissing)
	out := make([]*janitorv1.MissingFile, len(found))
	for i, m := range found {
		out[i] = missingProto(m)
	}
	return out, err
}

func missingProto(m index.MissingSegment) *janitorv1.MissingFile {
	out := &janitorv1.MissingFile{
		SegmentId: idProto(m.ID), Organization: string(m.Organization), Signal: lakeproto.SignalProto(m.Signal), Bucket: m.Bucket, Key: m.Key,
		Rows: m.Rows, WindowStart: lakeproto.Time(m.Window.Start), MissingSince: lakeproto.Time(m.MissingSince),
	}
	for _, id := range m.Sources {
		out.ReceiptIds = append(out.ReceiptIds, strconv.FormatInt(int64(id), 10))
	}
	return out
}

// ReconcileObjects compares source objects with receipts.
func (s *Server) ReconcileObjects(ctx context.Context, r *janitorv1.ReconcileObjectsRequest) (*janitorv1.ReconcileObjectsResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	result, err := s.deps.Reconcile.Run(ctx, reconcile.Request{
		Organization: org, Bucket: r.GetBucket(), Prefix: r.GetPrefix(), Inventory: r.GetInventory(), DryRun: r.GetValidateOnly(),
	})
	if err != nil {
		return nil, err
	}
	out := &janitorv1.ReconcileObjectsResponse{
		Objects: result.Objects, Missed: result.Missed, MissedBytes: result.MissedBytes, Requests: result.Requests,
	}
	for _, o := range result.First {
		out.FirstMissed = append(out.FirstMissed, lakeproto.ObjectProto(o))
	}
	return out, nil
}

// ApplyFieldRules has windows compacted that lack a field rule.
func (s *Server) ApplyFieldRules(ctx context.Context, r *janitorv1.ApplyFieldRulesRequest) (*janitorv1.ApplyFieldRulesResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	enqueue := func(tasks []lake.Task) error { return s.deps.Index.Enqueue(ctx, tasks) }
	if r.GetValidateOnly() {
		enqueue = nil
	}
	total, err := s.deps.Retention.ApplyFields(ctx, org, allSignals, enqueue)
	return &janitorv1.ApplyFieldRulesResponse{Segments: total.Segments, Bytes: total.Bytes, Windows: total.Windows}, err
}

// ManageRawObjects deals with source objects by policy.
func (s *Server) ManageRawObjects(ctx context.Context, r *janitorv1.ManageRawObjectsRequest) (*janitorv1.ManageRawObjectsResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	var result raw.Result
	if r.GetValidateOnly() {
		result, err = s.deps.Raw.Run(ctx, org, true)
	} else {
		err = s.now(ctx, lake.Task{Kind: lake.TaskRaw, Organization: org}, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
			var err error
			result, err = s.deps.Raw.Run(ctx, lease.Organization, false)
			return lake.Edit{}, err
		})
	}
	return &janitorv1.ManageRawObjectsResponse{
		Expired: result.Expired, ExpiredBytes: result.ExpiredBytes, Moved: result.Moved, MovedBytes: result.MovedBytes, Kept: result.Kept,
	}, err
}

// MaintainIndex keeps the database in shape.
func (s *Server) MaintainIndex(ctx context.Context, r *janitorv1.MaintainIndexRequest) (*janitorv1.MaintainIndexResponse, error) {
	result, err := s.deps.Upkeep.Run(ctx, r.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	out := &janitorv1.MaintainIndexResponse{PartitionsMade: result.Made, PartitionsDropped: result.Dropped, RowsTrimmed: result.Trimmed}
	for _, t := range result.Tables {
		out.Tables = append(out.Tables, &janitorv1.TableSize{
			Table: t.Table, Bytes: t.Bytes, IndexBytes: t.IndexBytes, LiveRows: t.LiveRows, DeadRows: t.DeadRows,
		})
	}
	return out, nil
}
