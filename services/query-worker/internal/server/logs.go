// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/scan"
)

// logWork translates a fragment over log segments.
func (s *Server) logWork(request *workerv1.ScanRequest, bytes int64) (work, error) {
	segments := logSegments(request)
	deletes, err := s.logDeletes(request)
	if err != nil {
		return work{}, err
	}
	do, name, err := logFragment(request)
	if err != nil {
		return work{}, err
	}
	return work{name: name, begin: func(context.Context) running {
		scanning := s.logs.Begin(segments, bytes, deletes...)
		return running{
			do: func(ctx context.Context, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
				return nil, do(ctx, scanning, emit)
			},
			spent: func() *workerv1.ScanStatistics { return logStatistics(scanning.Statistics) },
			end:   func() {},
		}
	}}, nil
}

func logSegments(request *workerv1.ScanRequest) []scan.Segment {
	var segments []scan.Segment
	for _, s := range request.GetSegments() {
		segment := scan.Segment{
			File: fileOf(s), Sidecar: sidecarOf(s), Rows: s.GetRows(), First: nanoseconds(s.GetFirstTime()), Last: nanoseconds(s.GetLastTime()),
			Applied: s.GetAppliedDelete(), Identified: s.GetIdentified(), Lease: s.GetLease(),
		}
		for _, source := range s.GetMaskedSources() {
			segment.Masked = append(segment.Masked, int64(source))
		}
		segments = append(segments, segment)
	}
	return segments
}

// logDeletes translates the deletes of a request. What the index holds was parsed before: that one cannot be is not the caller's fault.
func (s *Server) logDeletes(request *workerv1.ScanRequest) ([]scan.Delete, error) {
	var deletes []scan.Delete
	for _, d := range request.GetDeletes() {
		if err := between(d.GetStart(), d.GetEnd()); err != nil {
			return nil, fmt.Errorf("delete %d: %w", d.GetDeleteId(), err)
		}
		parsed, err := s.logs.Selector(d.GetSelector())
		if err != nil {
			return nil, fault.New(fault.Internal, "delete %d: %v", d.GetDeleteId(), err)
		}
		deletes = append(deletes, scan.Delete{Number: d.GetDeleteId(), Selector: parsed, Start: nanoseconds(d.GetStart()), End: nanoseconds(d.GetEnd())})
	}
	return deletes, nil
}

type logScan func(ctx context.Context, s *scan.Scan, emit func(arrow.RecordBatch) error) error

// logFragment translates what is to be done, and names it.
func logFragment(request *workerv1.ScanRequest) (logScan, string, error) {
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
	return nil, "", fault.New(fault.Invalid, "a scan of logs without a fragment of theirs")
}

func linesOf(f *workerv1.LogLines) (logScan, error) {
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

func samplesOf(f *workerv1.LogSamples) (logScan, error) {
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

func catalogueOf(f *workerv1.LogCatalogue) (logScan, error) {
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

func logStatistics(s *scan.Statistics) *workerv1.ScanStatistics {
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
