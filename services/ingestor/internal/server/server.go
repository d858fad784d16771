// SPDX-License-Identifier: AGPL-3.0-only

// Package server translates the ingestor's gRPC contract. It decides who may touch whose objects; what becomes of them is decided
// elsewhere.
//
// Invariants:
//
//   - A caller without the admin scope touches objects, receipts and segments of its own organization only. What belongs to another one
//     looks as if it did not exist, but for objects whose key names it: these are denied.
//   - IngestObject answers when the receipt is final, whoever ingested the object.
package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
)

// Index is what the server needs of the index.
type Index interface {
	stage.Claims
	Receive(ctx context.Context, notices []index.Notice) ([]index.Noticed, error)
	Receipt(ctx context.Context, id lake.ReceiptID) (lake.Receipt, error)
	Receipts(ctx context.Context, q index.ReceiptQuery) ([]lake.Receipt, string, error)
	Replay(ctx context.Context, q index.ReplayQuery) (objects, bytes int64, err error)
	SegmentsOf(ctx context.Context, receipt lake.ReceiptID) ([]lake.Segment, error)
	Now(ctx context.Context) (time.Time, error)
}

// Deps are what a Server needs.
type Deps struct {
	Index   Index
	Config  config.Source
	Objects objects.Store
	// Work and Batch are those of the service's loop.
	Work  stage.Work
	Batch index.Batch
	Log   *slog.Logger
	Meter metric.Meter
}

// Server implements lakerunner.ingestor.v1.IngestorService.
type Server struct {
	ingestorv1.UnimplementedIngestorServiceServer
	deps Deps
}

// New returns a Server.
func New(d Deps) *Server { return &Server{deps: d} }

// maxContent is the largest content that a request may bring.
const maxContent = 64 << 20

// IngestObject ingests one object now.
func (s *Server) IngestObject(ctx context.Context, request *ingestorv1.IngestObjectRequest) (*ingestorv1.IngestObjectResponse, error) {
	object, resolution, err := s.placed(ctx, request)
	if err != nil {
		return nil, err
	}
	receipt, err := s.received(ctx, object, resolution)
	if err != nil {
		return nil, err
	}
	if receipt.State == lake.ReceiptPending {
		if receipt, err = s.finished(ctx, receipt.ID); err != nil {
			return nil, err
		}
	}
	keys, err := s.segmentKeys(ctx, receipt)
	if err != nil {
		return nil, err
	}
	return &ingestorv1.IngestObjectResponse{Receipt: lakeproto.ReceiptProto(receipt), SegmentKeys: keys}, nil
}

// placed finds the object that a request names, putting its content into the bucket first.
func (s *Server) placed(ctx context.Context, request *ingestorv1.IngestObjectRequest) (lake.Object, config.Resolution, error) {
	object := objectOf(request.GetObject())
	if len(request.GetContent()) > 0 {
		return s.put(ctx, object, request.GetContent())
	}
	if object.Bucket == "" || object.Key == "" {
		return object, config.Resolution{}, fault.New(fault.Invalid, "an object without content wants a bucket and a key")
	}
	resolution, err := s.resolve(ctx, object)
	if err != nil {
		return object, resolution, err
	}
	bucket, err := s.deps.Objects.Bucket(ctx, object.Bucket)
	if err != nil {
		return object, resolution, err
	}
	attributes, err := bucket.Head(ctx, object.Key)
	if err != nil {
		return object, resolution, err
	}
	if object.Tag != "" && object.Tag != attributes.Tag {
		return object, resolution, fault.New(fault.NotFound, "the object has the tag %s by now", attributes.Tag)
	}
	return stored(object, attributes), resolution, nil
}

func stored(object lake.Object, a objects.Attributes) lake.Object {
	object.Tag, object.Size, object.LastModified = a.Tag, a.Size, a.LastModified
	return object
}

// put stores content that a request brought. A name that no storage profile claims goes below logs-raw/{organization}/.
func (s *Server) put(ctx context.Context, object lake.Object, content []byte) (lake.Object, config.Resolution, error) {
	if len(content) > maxContent {
		return object, config.Resolution{}, fault.New(fault.Invalid, "the content exceeds %d bytes: put it into the bucket and name it", maxContent)
	}
	organization, err := s.organization(ctx, "")
	if err != nil {
		return object, config.Resolution{}, err
	}
	if object.Bucket == "" {
		if object.Bucket, err = s.firstBucket(organization); err != nil {
			return object, config.Resolution{}, err
		}
	}
	object.Key = s.keyFor(object, organization)
	resolution, err := s.resolve(ctx, object)
	if err != nil {
		return object, resolution, err
	}
	if resolution.SkipReason != "" {
		return object, resolution, fault.New(fault.Invalid, "an object of that key would be skipped: %s", resolution.SkipReason)
	}
	bucket, err := s.deps.Objects.Bucket(ctx, object.Bucket)
	if err != nil {
		return object, resolution, err
	}
	attributes, err := bucket.Put(ctx, object.Key, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return object, resolution, err
	}
	return stored(object, attributes), resolution, nil
}

func (s *Server) firstBucket(organization lake.Organization) (string, error) {
	for _, profile := range s.deps.Config.Current().Profiles() {
		if profile.Organization == organization || profile.Organization == "" {
			return profile.Bucket(), nil
		}
	}
	return "", fault.New(fault.Invalid, "no storage profile has a bucket for organization %s: name one, or add a profile", organization)
}

func (s *Server) keyFor(object lake.Object, organization lake.Organization) string {
	below := "logs-raw/" + string(organization) + "/upload/"
	if object.Key == "" {
		return below + rand.Text()
	}
	resolution := s.deps.Config.Current().Resolve(object.Bucket, object.Key)
	if resolution.SkipReason == config.SkipUnclaimed || resolution.Organization == "" && resolution.SkipReason == "" {
		return below + object.Key
	}
	return object.Key
}

// resolve finds whose an object is, and denies another organization's.
func (s *Server) resolve(ctx context.Context, object lake.Object) (config.Resolution, error) {
	identity, err := identityOf(ctx)
	if err != nil {
		return config.Resolution{}, err
	}
	resolution := s.deps.Config.Current().Resolve(object.Bucket, object.Key)
	if identity.Has(config.ScopeAdmin) {
		return resolution, nil
	}
	if resolution.Organization == "" || resolution.Organization != identity.Organization {
		return resolution, fault.New(fault.Denied, "the object is not organization %s's", identity.Organization)
	}
	return resolution, nil
}

func (s *Server) received(ctx context.Context, object lake.Object, r config.Resolution) (lake.Receipt, error) {
	notice := index.Notice{
		Object: object, Organization: r.Organization, Collector: r.Collector, Signal: r.Signal, SkipReason: r.SkipReason,
		Replace: r.Profile != nil && r.Profile.OnRewrite == config.Replace,
	}
	if object.Size == 0 && notice.SkipReason == "" {
		notice.SkipReason = config.SkipEmpty
	}
	noticed, err := s.deps.Index.Receive(ctx, []index.Notice{notice})
	if err != nil {
		return lake.Receipt{}, err
	}
	return noticed[0].Receipt, nil
}

// finished works on a pending receipt until it is final; if another has it under way, it waits.
func (s *Server) finished(ctx context.Context, id lake.ReceiptID) (lake.Receipt, error) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		cause, err := s.work(ctx, id)
		if err != nil {
			return lake.Receipt{}, err
		}
		receipt, err := s.deps.Index.Receipt(ctx, id)
		if err != nil || receipt.State != lake.ReceiptPending {
			return receipt, err
		}
		if cause != nil {
			return receipt, cause // the loop goes on trying
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return receipt, ctx.Err()
		}
	}
}

// work claims one receipt and works on it as the loop does. The cause is why it was given back, or is to be tried again.
func (s *Server) work(ctx context.Context, id lake.ReceiptID) (cause, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	one := &single{Index: s.deps.Index, end: cancel}
	batch := s.deps.Batch
	batch.Receipt = id
	if err := stage.Run(ctx, one, stage.Options{Batch: batch, Log: s.deps.Log, Meter: s.deps.Meter}, s.deps.Work); err != nil {
		return nil, err
	}
	return one.cause, one.err
}

// single claims once.
type single struct {
	Index
	end        context.CancelFunc
	cause, err error
}

// Claim claims, and ends the stage when there is nothing to claim.
func (c *single) Claim(ctx context.Context, batch index.Batch) (*lake.Lease, error) {
	lease, err := c.Index.Claim(ctx, batch)
	if err != nil || lease == nil {
		c.err = err
		c.end()
	}
	return lease, err
}

// Commit commits, and ends the stage.
func (c *single) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	err := c.Index.Commit(ctx, lease, edit)
	if err == nil {
		for _, retry := range edit.Retry {
			c.cause = fault.New(fault.Unavailable, "%s", retry.Cause)
		}
		c.end()
	}
	return err
}

// Release gives back, and ends the stage.
func (c *single) Release(ctx context.Context, lease *lake.Lease, cause error) error {
	c.cause = cause
	c.end()
	return c.Index.Release(ctx, lease, cause)
}

func (s *Server) segmentKeys(ctx context.Context, receipt lake.Receipt) ([]string, error) {
	if receipt.State != lake.ReceiptDone {
		return nil, nil
	}
	segments, err := s.deps.Index.SegmentsOf(ctx, receipt.ID)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(segments))
	for i, segment := range segments {
		keys[i] = segment.Key
	}
	return keys, nil
}

const (
	defaultPreviewRows = 10
	maxPreviewRows     = 1000
)

// PreviewObject says what an object would become. It writes nothing.
func (s *Server) PreviewObject(ctx context.Context, request *ingestorv1.PreviewObjectRequest) (*ingestorv1.PreviewObjectResponse, error) {
	if request.GetRows() < 0 || request.GetRows() > maxPreviewRows {
		return nil, fault.New(fault.Invalid, "rows: want 0 to %d", maxPreviewRows)
	}
	object := objectOf(request.GetObject())
	content, resolution, written, err := s.content(ctx, object, request.GetContent())
	if err != nil {
		return nil, err
	}
	defer content.Close()
	now, err := s.deps.Index.Now(ctx)
	if err != nil {
		return nil, err
	}
	rows := int(request.GetRows())
	if rows == 0 {
		rows = defaultPreviewRows
	}
	snapshot := s.deps.Config.Current()
	options := pipeline.PreviewOptionsOf(snapshot, resolution, object.Key)
	options.Decode.ObjectTime, options.Now, options.Rows = written, now, rows
	preview, err := pipeline.Look(content, options)
	if err != nil && !pipeline.Unsupported(err) && fault.KindOf(err) != fault.Invalid {
		return nil, err
	}
	response := previewProto(preview)
	response.Organization, response.SkipReason = string(resolution.Organization), resolution.SkipReason
	if pipeline.Unsupported(err) && response.GetSkipReason() == "" {
		response.SkipReason, response.Problem = response.GetProblem(), ""
	}
	return response, nil
}

// content opens what a request brings or names.
func (s *Server) content(ctx context.Context, object lake.Object, brought []byte) (io.ReadCloser, config.Resolution, time.Time, error) {
	if len(brought) > 0 {
		resolution, written, err := s.broughtBy(ctx, object)
		return io.NopCloser(bytes.NewReader(brought)), resolution, written, err
	}
	resolution, err := s.resolve(ctx, object)
	if err != nil {
		return nil, resolution, time.Time{}, err
	}
	bucket, err := s.deps.Objects.Bucket(ctx, object.Bucket)
	if err != nil {
		return nil, resolution, time.Time{}, err
	}
	body, attributes, err := bucket.Get(ctx, object.Key, object.Tag)
	return body, resolution, attributes.LastModified, err
}

// broughtBy is what content would be of that is not in a bucket: that of its name if it has one that is the caller's, else the caller's.
func (s *Server) broughtBy(ctx context.Context, object lake.Object) (config.Resolution, time.Time, error) {
	organization, err := s.organization(ctx, "")
	if err != nil {
		return config.Resolution{}, time.Time{}, err
	}
	if object.Bucket == "" || object.Key == "" {
		return config.Resolution{Organization: organization}, time.Now(), nil
	}
	resolution, err := s.resolve(ctx, object)
	return resolution, time.Now(), err
}

// nobody names the receipts of objects that no storage profile claims; no organization can be called so.
const nobody = "-"

// listed is whose receipts a request lists. Those that are nobody's are the admins' to see: their keys may name anybody.
func (s *Server) listed(ctx context.Context, named string) (lake.Organization, error) {
	identity, err := identityOf(ctx)
	if err != nil {
		return "", err
	}
	if identity.Has(config.ScopeAdmin) && (named == nobody || named == "" && identity.Organization == "") {
		return "", nil
	}
	return s.organization(ctx, named)
}

// ListReceipts lists receipts of one organization, or of none.
func (s *Server) ListReceipts(ctx context.Context, request *ingestorv1.ListReceiptsRequest) (*ingestorv1.ListReceiptsResponse, error) {
	organization, err := s.listed(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	if size := request.GetPageSize(); size < 0 || size > 1000 {
		return nil, fault.New(fault.Invalid, "page_size: want 0 to 1000")
	}
	state, err := lakeproto.State(request.GetState())
	if err != nil {
		return nil, err
	}
	receipts, next, err := s.deps.Index.Receipts(ctx, index.ReceiptQuery{
		Organization: organization, State: state, Bucket: request.GetBucket(), KeyPrefix: request.GetKeyPrefix(),
		PageSize: int(request.GetPageSize()), PageToken: request.GetPageToken(),
	})
	if err != nil {
		return nil, err
	}
	response := &ingestorv1.ListReceiptsResponse{NextPageToken: next}
	for _, receipt := range receipts {
		response.Receipts = append(response.Receipts, lakeproto.ReceiptProto(receipt))
	}
	return response, nil
}

// ReplayObjects has objects ingested once more.
func (s *Server) ReplayObjects(ctx context.Context, request *ingestorv1.ReplayObjectsRequest) (*ingestorv1.ReplayObjectsResponse, error) {
	organization, err := s.organization(ctx, request.GetOrganization())
	if err != nil {
		return nil, err
	}
	query := index.ReplayQuery{Organization: organization, KeyPrefix: request.GetKeyPrefix(), DryRun: request.GetValidateOnly()}
	if query.State, err = lakeproto.State(request.GetState()); err != nil {
		return nil, err
	}
	if query.Receipts, err = receiptIDs(request.GetReceiptIds()); err != nil {
		return nil, err
	}
	if len(query.Receipts) == 0 && query.State == "" {
		return nil, fault.New(fault.Invalid, "name receipts, or a state: failed, skipped or done")
	}
	count, size, err := s.deps.Index.Replay(ctx, query)
	if err != nil {
		return nil, err
	}
	return &ingestorv1.ReplayObjectsResponse{Objects: count, Bytes: size}, nil
}

// organization is the one that a request is about: the caller's own, or, for an admin, the one it names.
func (s *Server) organization(ctx context.Context, named string) (lake.Organization, error) {
	identity, err := identityOf(ctx)
	if err != nil {
		return "", err
	}
	wanted := lake.Organization(named)
	if named == "" {
		wanted = identity.Organization
	}
	if wanted == "" {
		return "", fault.New(fault.Invalid, "an admin key acts for no organization of its own: name one")
	}
	if err := wanted.Valid(); err != nil {
		return "", fault.Wrap(fault.Invalid, err)
	}
	if wanted != identity.Organization && !identity.Has(config.ScopeAdmin) {
		return "", fault.New(fault.Denied, "another organization's objects need the admin scope")
	}
	return wanted, nil
}

func identityOf(ctx context.Context) (config.Identity, error) {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return identity, fault.New(fault.Unauthenticated, "no API key")
	}
	return identity, nil
}
