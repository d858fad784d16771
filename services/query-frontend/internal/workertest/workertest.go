// SPDX-License-Identifier: AGPL-3.0-only

// Package workertest stands in for the remote peer in tests: query workers that hold rows in memory, answer with Loki's own
// packages, and fail, stall or lose segments when told to.
package workertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sort"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// Store is the object store that all workers of a test read.
type Store struct {
	mu      sync.Mutex
	rows    map[string]stored
	metrics map[string]MetricSegment
	joined  map[string][]prom.Series // by the keys of segments
}

type stored struct {
	organization lake.Organization
	rows         []querytest.Row
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{rows: map[string]stored{}} }

// Put stores rows as a segment and returns its entry for an index.
func (s *Store) Put(organization lake.Organization, id lake.SegmentID, rows []querytest.Row) lake.Segment {
	segment := s.PutAt(fmt.Sprintf("db/%s/logs/2026-01-01/lease/%06d.parquet", organization, id), organization, rows)
	segment.ID = id
	return segment
}

// PutAt stores rows as a segment with that key.
func (s *Store) PutAt(key string, organization lake.Organization, rows []querytest.Row) lake.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[key] = stored{organization: organization, rows: rows}
	segment := lake.Segment{
		Organization: organization, Signal: lake.SignalLogs, Bucket: "lake", Key: key,
		Bytes: int64(len(rows)) * 100, SidecarBytes: int64(len(rows)) * 10, Rows: int64(len(rows)),
	}
	for i, row := range rows {
		if i == 0 || row.Time.Before(segment.FirstTime) {
			segment.FirstTime = row.Time
		}
		if i == 0 || row.Time.After(segment.LastTime) {
			segment.LastTime = row.Time
		}
	}
	return segment
}

func (s *Store) rowsOf(key string) []querytest.Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[key].rows
}

// Remove loses a segment.
func (s *Store) Remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, key)
}

func (s *Store) read(organization string, segments []*workerv1.Segment) (querytest.Memory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rows querytest.Memory
	for _, segment := range segments {
		held, ok := s.rows[segment.GetKey()]
		switch {
		case !ok:
			return nil, fault.New(fault.MissingSegment, "segment %s is not in the store", segment.GetKey())
		case string(held.organization) != organization:
			return nil, fault.New(fault.Denied, "segment %s belongs to another organization", segment.GetKey())
		}
		rows = append(rows, held.rows...)
	}
	sort.SliceStable(rows, func(i, j int) bool { return rows[i].Time.Before(rows[j].Time) })
	return rows, nil
}

// Request is what a worker is asked.
type Request = workerv1.ScanRequest

// Worker is one worker. Its exported fields may be set before it is asked.
type Worker struct {
	Store *Store
	// Before, if set, runs before each scan; its error is the scan's.
	Before func(ctx context.Context, req *workerv1.ScanRequest) error
	// Break, if set, says after how many messages a scan ends as if the worker had died; negative: it does not.
	Break func(req *workerv1.ScanRequest) int
	// Engine is how metric expressions are evaluated, and Inexact says that no rollup has the answer.
	Engine  prom.Options
	Inexact bool

	mu         sync.Mutex
	scans      []*workerv1.ScanRequest
	once       sync.Once
	prometheus *prom.Engine
}

var _ workerv1.WorkerServiceClient = (*Worker)(nil)

// Scans returns the requests so far.
func (w *Worker) Scans() []*workerv1.ScanRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*workerv1.ScanRequest(nil), w.scans...)
}

// Scan answers a fragment.
func (w *Worker) Scan(ctx context.Context, req *workerv1.ScanRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[workerv1.ScanResponse], error) {
	w.mu.Lock()
	w.scans = append(w.scans, req)
	w.mu.Unlock()
	s := &stream{ctx: ctx, left: -1}
	if w.Break != nil {
		s.left = w.Break(req)
	}
	s.answer = sync.OnceValues(func() ([]*workerv1.ScanResponse, error) { return w.answer(ctx, req) })
	return s, nil
}

func (w *Worker) answer(ctx context.Context, req *workerv1.ScanRequest) ([]*workerv1.ScanResponse, error) {
	if w.Before != nil {
		if err := w.Before(ctx, req); err != nil {
			return nil, err
		}
	}
	switch req.GetFragment().(type) {
	case *workerv1.ScanRequest_MetricVector, *workerv1.ScanRequest_MetricSamples, *workerv1.ScanRequest_MetricCatalogue, *workerv1.ScanRequest_MetricExemplars:
		return w.metricAnswer(ctx, req)
	}
	rows, err := w.Store.read(req.GetOrganization(), req.GetSegments())
	if err != nil {
		return nil, err
	}
	batches, err := answer(ctx, req, rows)
	if err != nil {
		return nil, err
	}
	out := make([]*workerv1.ScanResponse, 0, len(batches)+1)
	for _, batch := range batches {
		out = append(out, &workerv1.ScanResponse{Arrow: encode(batch)})
	}
	n := int64(len(req.GetSegments()))
	var read int64
	for _, s := range req.GetSegments() {
		read += s.GetBytes()
	}
	return append(out, &workerv1.ScanResponse{Statistics: &workerv1.ScanStatistics{
		Segments: n, SegmentsRead: n, BytesRead: read, BytesFetched: read, RowsScanned: int64(len(rows)), ObjectRequests: 2 * n, CacheMisses: n,
	}}), nil
}

func answer(ctx context.Context, req *workerv1.ScanRequest, rows querytest.Memory) ([]arrow.RecordBatch, error) {
	switch fragment := req.GetFragment().(type) {
	case *workerv1.ScanRequest_LogLines:
		return logLines(fragment.LogLines, rows)
	case *workerv1.ScanRequest_LogSamples:
		return logSamples(ctx, fragment.LogSamples, rows)
	case *workerv1.ScanRequest_LogCatalogue:
		return logCatalogue(fragment.LogCatalogue, rows)
	}
	return nil, fault.New(fault.Invalid, "no fragment")
}

func logLines(f *workerv1.LogLines, rows querytest.Memory) ([]arrow.RecordBatch, error) {
	expr, err := syntax.ParseLogSelector(f.GetSelector(), true)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	direction := logproto.BACKWARD
	if f.GetDirection() == workerv1.Direction_DIRECTION_FORWARD {
		direction = logproto.FORWARD
	}
	lines, err := rows.Lines(expr, f.GetStart().AsTime().UnixNano(), f.GetEnd().AsTime().UnixNano(), direction)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if limit := int(f.GetLimit()); limit > 0 && len(lines) > limit {
		lines = lines[:limit]
	}
	var batches []arrow.RecordBatch
	for len(lines) > 0 {
		n := min(len(lines), 500)
		batches = append(batches, linesBatch(lines[:n]))
		lines = lines[n:]
	}
	return batches, nil
}

func linesBatch(lines []querytest.Line) arrow.RecordBatch {
	builder := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogLinesSchema())
	for _, line := range lines {
		builder.Field(0).(*array.Int64Builder).Append(line.Time)
		_ = builder.Field(1).(*array.BinaryDictionaryBuilder).AppendString(line.Labels.String())
		builder.Field(2).(*array.Uint64Builder).Append(line.Stream)
		builder.Field(3).(*array.StringBuilder).Append(line.Line)
		appendPairs(builder.Field(4).(*array.MapBuilder), line.Labels.StructuredMetadata())
		appendPairs(builder.Field(5).(*array.MapBuilder), line.Labels.Parsed())
	}
	return builder.NewRecordBatch()
}

func appendPairs(builder *array.MapBuilder, pairs labels.Labels) {
	builder.Append(true)
	pairs.Range(func(l labels.Label) {
		builder.KeyBuilder().(*array.StringBuilder).Append(l.Name)
		builder.ItemBuilder().(*array.StringBuilder).Append(l.Value)
	})
}

func logSamples(ctx context.Context, f *workerv1.LogSamples, rows querytest.Memory) ([]arrow.RecordBatch, error) {
	value, err := rows.Evaluate(ctx, querytest.Query{
		Text: f.GetExpression(), Start: f.GetStart().AsTime(), End: f.GetEnd().AsTime(), Step: f.GetStep().AsDuration(),
	})
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	builder := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogSamplesSchema())
	add := func(metric labels.Labels, at int64, value float64) {
		_ = builder.Field(0).(*array.BinaryDictionaryBuilder).AppendString(metric.String())
		builder.Field(1).(*array.Int64Builder).Append(at)
		builder.Field(2).(*array.Float64Builder).Append(value)
	}
	switch answer := value.(type) {
	case promql.Vector:
		for _, s := range answer {
			add(s.Metric, s.T, s.F)
		}
	case promql.Matrix:
		for _, series := range answer {
			for _, p := range series.Floats {
				add(series.Metric, p.T, p.F)
			}
		}
	}
	return []arrow.RecordBatch{builder.NewRecordBatch()}, nil
}

func logCatalogue(f *workerv1.LogCatalogue, rows querytest.Memory) ([]arrow.RecordBatch, error) {
	var matchers []*labels.Matcher
	if f.GetSelector() != "" {
		parsed, err := syntax.ParseMatchers(f.GetSelector(), false)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		matchers = parsed
	}
	type entry struct{ rows, bytes, first, last int64 }
	streams := map[string]*entry{}
	for _, row := range rows {
		stream := labels.FromMap(row.Labels)
		at := row.Time.UnixNano()
		if at < f.GetStart().AsTime().UnixNano() || at >= f.GetEnd().AsTime().UnixNano() || !matchAll(matchers, stream) {
			continue
		}
		e, ok := streams[stream.String()]
		if !ok {
			e = &entry{first: at}
			streams[stream.String()] = e
		}
		e.rows, e.bytes, e.last = e.rows+1, e.bytes+int64(len(row.Line)), at
	}
	builder := array.NewRecordBuilder(memory.DefaultAllocator, columns.LogStreamsSchema())
	for text, e := range streams {
		builder.Field(0).(*array.StringBuilder).Append(text)
		for i, v := range []int64{e.rows, e.bytes, e.first, e.last} {
			builder.Field(i + 1).(*array.Int64Builder).Append(v)
		}
	}
	return []arrow.RecordBatch{builder.NewRecordBatch()}, nil
}

func matchAll(matchers []*labels.Matcher, stream labels.Labels) bool {
	for _, m := range matchers {
		if !m.Matches(stream.Get(m.Name)) {
			return false
		}
	}
	return true
}

func encode(batch arrow.RecordBatch) []byte {
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(batch.Schema()))
	_ = w.Write(batch) // into memory: cannot fail
	_ = w.Close()
	return out.Bytes()
}

// stream is the client's end of a scan.
type stream struct {
	ctx    context.Context //nolint:containedctx // as gRPC's own streams
	answer func() ([]*workerv1.ScanResponse, error)
	at     int
	left   int
}

// Recv returns the next message.
func (s *stream) Recv() (*workerv1.ScanResponse, error) {
	type result struct {
		messages []*workerv1.ScanResponse
		err      error
	}
	done := make(chan result, 1)
	go func() {
		messages, err := s.answer()
		done <- result{messages, err}
	}()
	select {
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		if s.left == 0 {
			return nil, fault.New(fault.Unavailable, "the connection was lost")
		}
		s.left--
		if s.at >= len(r.messages) {
			return nil, io.EOF
		}
		s.at++
		return r.messages[s.at-1], nil
	}
}

// Header is empty.
func (s *stream) Header() (metadata.MD, error) { return metadata.MD{}, nil }

// Trailer is empty.
func (s *stream) Trailer() metadata.MD { return metadata.MD{} }

// CloseSend does nothing.
func (s *stream) CloseSend() error { return nil }

// Context returns the stream's context.
func (s *stream) Context() context.Context { return s.ctx }

// SendMsg does nothing.
func (s *stream) SendMsg(any) error { return nil }

// RecvMsg is not used by generated clients.
func (s *stream) RecvMsg(any) error { return io.EOF }

// Until polls a condition until it holds, or fails the wait after a while.
func Until(condition func() bool) bool {
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			return false
		case <-tick.C:
		}
	}
	return true
}
