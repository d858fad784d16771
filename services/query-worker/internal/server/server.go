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
	"github.com/lakerunner/lakerunner/pkg/prom"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/admission"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/metrics"
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

	logs    *scan.Scanner
	points  *metrics.Scanner
	gate    *admission.Gate
	options Options
	metrics *Metrics

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// New returns a server.
func New(logs *scan.Scanner, points *metrics.Scanner, g *admission.Gate, o Options, m *Metrics) *Server {
	return &Server{logs: logs, points: points, gate: g, options: o, metrics: m}
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
	work, err := s.workOf(ctx, request)
	if err != nil {
		s.metrics.finished(ctx, work.name, nil, err, time.Since(started))
		return err
	}
	statistics, err := s.scan(ctx, &work, stream.Send)
	s.metrics.finished(ctx, work.name, statistics, err, time.Since(started))
	return err
}

// work is a fragment that was translated.
type work struct {
	name string
	// begin is called once the scan is let in.
	begin func(ctx context.Context) running
}

// running is a fragment on its way.
type running struct {
	do func(ctx context.Context, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error)
	// spent says what it cost so far.
	spent func() *workerv1.ScanStatistics
	end   func()
}

func (s *Server) workOf(ctx context.Context, request *workerv1.ScanRequest) (work, error) {
	if err := permitted(ctx, request); err != nil {
		return work{}, err
	}
	bytes := budget(request.GetMaxBytes(), s.options.MaxBytes)
	switch signal := request.GetSignal(); signal {
	case lakev1.Signal_SIGNAL_LOGS:
		return s.logWork(request, bytes)
	case lakev1.Signal_SIGNAL_METRICS:
		return s.metricWork(request, bytes)
	default:
		return work{}, fault.New(fault.Unsupported, "signal %s cannot be scanned", signal)
	}
}

func (s *Server) scan(ctx context.Context, w *work, send func(*workerv1.ScanResponse) error) (*workerv1.ScanStatistics, error) {
	leave, err := s.gate.Enter(ctx, s.options.Memory)
	if err != nil {
		return nil, err
	}
	defer leave()
	scanning := w.begin(ctx)
	defer scanning.end()
	remarks, err := scanning.do(ctx, func(batch arrow.RecordBatch) error {
		encoded, err := encode(batch)
		if err != nil {
			return err
		}
		return send(&workerv1.ScanResponse{Arrow: encoded})
	})
	spent := scanning.spent()
	if err != nil {
		return spent, err
	}
	return spent, send(&workerv1.ScanResponse{Statistics: spent, Annotations: annotationsOf(remarks)})
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
