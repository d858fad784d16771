// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/scan"
)

// segmentsOf checks and translates the segments of a request.
func segmentsOf(ctx context.Context, request *workerv1.ScanRequest) ([]scan.Segment, error) {
	organization := lake.Organization(request.GetOrganization())
	if err := organization.Valid(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if err := authorize(ctx, organization); err != nil {
		return nil, err
	}
	if request.GetSignal() != lakev1.Signal_SIGNAL_LOGS {
		return nil, fault.New(fault.Unsupported, "signal %s cannot be scanned", request.GetSignal())
	}
	var segments []scan.Segment
	for _, s := range request.GetSegments() {
		segment, err := segmentOf(organization, s)
		if err != nil {
			return nil, err
		}
		segments = append(segments, segment)
	}
	return segments, nil
}

func segmentOf(organization lake.Organization, s *workerv1.Segment) (scan.Segment, error) {
	owned := lake.Prefix + string(organization) + "/"
	switch {
	case !strings.HasPrefix(s.GetKey(), owned) || strings.Contains(s.GetKey(), ".."):
		return scan.Segment{}, fault.New(fault.Denied, "segment %s is not organization %s's", s.GetKey(), organization)
	case s.GetBytes() <= 0 || s.GetSidecarBytes() <= 0 || s.GetRows() <= 0:
		return scan.Segment{}, fault.New(fault.Invalid, "segment %s: want its bytes, sidecar bytes and rows", s.GetKey())
	case s.GetFirstTime() == nil || s.GetLastTime() == nil:
		return scan.Segment{}, fault.New(fault.Invalid, "segment %s: want its first and last time", s.GetKey())
	}
	segment := scan.Segment{
		File:    cache.Object{Bucket: s.GetBucket(), Key: s.GetKey(), Bytes: s.GetBytes()},
		Sidecar: cache.Object{Bucket: s.GetBucket(), Key: lake.SidecarKey(s.GetKey()), Bytes: s.GetSidecarBytes()},
		Rows:    s.GetRows(),
		First:   nanoseconds(s.GetFirstTime()),
		Last:    nanoseconds(s.GetLastTime()),
	}
	segment.Applied, segment.Identified, segment.Lease = s.GetAppliedDelete(), s.GetIdentified(), s.GetLease()
	for _, source := range s.GetMaskedSources() {
		segment.Masked = append(segment.Masked, int64(source))
	}
	return segment, nil
}

// deletesOf translates the deletes of a request. What the index holds was parsed before: that one cannot be is not the caller's fault.
func (s *Server) deletesOf(request *workerv1.ScanRequest) ([]scan.Delete, error) {
	var deletes []scan.Delete
	for _, d := range request.GetDeletes() {
		if err := between(d.GetStart(), d.GetEnd()); err != nil {
			return nil, fmt.Errorf("delete %d: %w", d.GetDeleteId(), err)
		}
		parsed, err := s.scanner.Selector(d.GetSelector())
		if err != nil {
			return nil, fault.New(fault.Internal, "delete %d: %v", d.GetDeleteId(), err)
		}
		deletes = append(deletes, scan.Delete{Number: d.GetDeleteId(), Selector: parsed, Start: nanoseconds(d.GetStart()), End: nanoseconds(d.GetEnd())})
	}
	return deletes, nil
}

// nanoseconds since 1970, as near as an int64 comes.
func nanoseconds(t *timestamppb.Timestamp) int64 {
	const most = math.MaxInt64 / 1_000_000_000
	switch seconds := t.GetSeconds(); {
	case seconds >= most:
		return math.MaxInt64
	case seconds <= -most:
		return math.MinInt64
	}
	return t.AsTime().UnixNano()
}

type work func(ctx context.Context, s *scan.Scan, emit func(arrow.RecordBatch) error) error

// fragmentOf translates what is to be done, and names it.
func fragmentOf(request *workerv1.ScanRequest) (work, string, error) {
	switch f := request.GetFragment().(type) {
	case *workerv1.ScanRequest_LogLines:
		w, err := linesOf(f.LogLines)
		return w, "log_lines", err
	case *workerv1.ScanRequest_LogSamples:
		w, err := samplesOf(f.LogSamples)
		return w, "log_samples", err
	case *workerv1.ScanRequest_LogCatalogue:
		w, err := catalogueOf(f.LogCatalogue)
		return w, "log_catalogue", err
	}
	return nil, "", fault.New(fault.Invalid, "a scan without a fragment")
}

// between checks that a range has both ends.
func between(start, end *timestamppb.Timestamp) error {
	if start == nil || end == nil {
		return fault.New(fault.Invalid, "want start and end")
	}
	return nil
}

func linesOf(f *workerv1.LogLines) (work, error) {
	q := scan.Lines{
		Selector: f.GetSelector(),
		Start:    nanoseconds(f.GetStart()),
		End:      nanoseconds(f.GetEnd()),
		Limit:    int(max(0, f.GetLimit())),
		Forward:  f.GetDirection() == workerv1.Direction_DIRECTION_FORWARD,
	}
	return func(ctx context.Context, s *scan.Scan, emit func(arrow.RecordBatch) error) error {
		return s.Lines(ctx, q, emit)
	}, between(f.GetStart(), f.GetEnd())
}

func samplesOf(f *workerv1.LogSamples) (work, error) {
	q := scan.Samples{
		Expression: f.GetExpression(),
		Start:      nanoseconds(f.GetStart()),
		End:        nanoseconds(f.GetEnd()),
		Step:       f.GetStep().AsDuration(),
	}
	if q.Step < 0 {
		return nil, fault.New(fault.Invalid, "step %s: want a positive one, or none", q.Step)
	}
	if f.GetStart() == nil && q.Step == 0 {
		q.Start = q.End
	}
	var err error
	if f.GetEnd() == nil || f.GetStart() == nil && q.Step > 0 {
		err = fault.New(fault.Invalid, "want start and end")
	}
	return func(ctx context.Context, s *scan.Scan, emit func(arrow.RecordBatch) error) error {
		return s.Samples(ctx, q, emit)
	}, err
}

func catalogueOf(f *workerv1.LogCatalogue) (work, error) {
	q := scan.Streams{Selector: f.GetSelector(), Start: nanoseconds(f.GetStart()), End: nanoseconds(f.GetEnd())}
	if err := between(f.GetStart(), f.GetEnd()); err != nil {
		return nil, err
	}
	switch f.GetKind() {
	case workerv1.LogCatalogueKind_LOG_CATALOGUE_KIND_STREAMS:
		return func(ctx context.Context, s *scan.Scan, emit func(arrow.RecordBatch) error) error {
			return s.Streams(ctx, q, emit)
		}, nil
	case workerv1.LogCatalogueKind_LOG_CATALOGUE_KIND_FIELDS:
		return func(ctx context.Context, s *scan.Scan, emit func(arrow.RecordBatch) error) error {
			return s.Fields(ctx, q, emit)
		}, nil
	}
	return nil, fault.New(fault.Invalid, "catalogue question %s", f.GetKind())
}

// encode writes a batch as an IPC stream of its own.
func encode(batch arrow.RecordBatch) ([]byte, error) {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(batch.Schema()))
	if err := w.Write(batch); err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	if err := w.Close(); err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	return b.Bytes(), nil
}

func statisticsOf(s *scan.Statistics) *workerv1.ScanStatistics {
	return &workerv1.ScanStatistics{
		Segments:       s.Segments,
		SegmentsPruned: s.Pruned.Load(),
		SegmentsRead:   s.Read.Load(),
		BytesFetched:   s.Cache.Bytes(),
		BytesRead:      s.BytesRead.Load(),
		RowsScanned:    s.Rows.Load(),
		ObjectRequests: s.Cache.Requests(),
		CacheHits:      s.Cache.Hits(),
		CacheMisses:    s.Cache.Misses(),
		LineBytes:      s.LineBytes.Load(),
	}
}
