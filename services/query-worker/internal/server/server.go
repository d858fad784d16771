// SPDX-License-Identifier: AGPL-3.0-only

// Package server is the worker's gRPC face: it translates requests, lets scans in, and sends Arrow record batches.
//
// Invariants:
//
//   - A segment of another organization than the request's is refused before anything is read.
//   - Each message with Arrow bytes is an IPC stream that stands for itself.
//   - The last message of a scan that succeeded, and only that, has the statistics.
package server

import (
	"context"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/admission"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/scan"
)

// Options bound scans.
type Options struct {
	// Memory is what each scan counts against the gate's memory.
	Memory int64
	// MaxBytes is the most bytes that one scan may fetch, if the request does not say less. Zero: any.
	MaxBytes int64
}

// Server implements WorkerService.
type Server struct {
	workerv1.UnimplementedWorkerServiceServer

	scanner *scan.Scanner
	gate    *admission.Gate
	options Options
	metrics *Metrics

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// New returns a server.
func New(s *scan.Scanner, g *admission.Gate, o Options, m *Metrics) *Server {
	return &Server{scanner: s, gate: g, options: o, metrics: m}
}

// Drain refuses new scans and waits for those that run.
func (s *Server) Drain() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}

// Draining reports whether the server refuses new scans.
func (s *Server) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fault.New(fault.Unavailable, "worker is shutting down")
	}
	s.running.Add(1)
	return nil
}

// Scan implements WorkerService.
func (s *Server) Scan(request *workerv1.ScanRequest, stream grpc.ServerStreamingServer[workerv1.ScanResponse]) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.running.Done()
	ctx, started := stream.Context(), time.Now()
	fragment, statistics, err := s.scan(ctx, request, stream.Send)
	s.metrics.finished(ctx, fragment, statistics, err, time.Since(started))
	return err
}

func (s *Server) scan(ctx context.Context, request *workerv1.ScanRequest, send func(*workerv1.ScanResponse) error) (string, *scan.Statistics, error) {
	segments, err := segmentsOf(ctx, request)
	if err != nil {
		return "", nil, err
	}
	deletes, err := s.deletesOf(request)
	if err != nil {
		return "", nil, err
	}
	work, name, err := fragmentOf(request)
	if err != nil {
		return "", nil, err
	}
	leave, err := s.gate.Enter(ctx, s.options.Memory)
	if err != nil {
		return name, nil, err
	}
	defer leave()
	running := s.scanner.Begin(segments, budget(request.GetMaxBytes(), s.options.MaxBytes), deletes...)
	err = work(ctx, running, func(batch arrow.RecordBatch) error {
		encoded, err := encode(batch)
		if err != nil {
			return err
		}
		return send(&workerv1.ScanResponse{Arrow: encoded})
	})
	if err != nil {
		return name, running.Statistics, err
	}
	return name, running.Statistics, send(&workerv1.ScanResponse{Statistics: statisticsOf(running.Statistics)})
}

// budget is the smaller of two limits, of which zero is none.
func budget(a, b int64) int64 {
	if a > 0 && b > 0 {
		return min(a, b)
	}
	return max(a, b)
}

// authorize refuses what the caller may not read. A service calls without an organization of its own.
func authorize(ctx context.Context, organization lake.Organization) error {
	identity, known := config.IdentityFrom(ctx)
	if known && identity.Organization != "" && identity.Organization != organization {
		return fault.New(fault.Denied, "key %s may not read organization %s", identity.KeyID, organization)
	}
	return nil
}
