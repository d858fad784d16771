// SPDX-License-Identifier: AGPL-3.0-only

// Package queryworker scans segments for queries: it keeps them in a cache on local disk, has DuckDB read logs and Loki's packages evaluate what
// SQL cannot, reads metrics itself and has Prometheus' engine evaluate them, and streams the answers as Arrow record batches. A request carries all that it takes: a worker asks nobody but the object store.
//
// It does not know which segments there are, does not merge its answers with other workers', and changes nothing. The README has the invariants.
package queryworker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/engine"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/admission"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/scan"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/server"
)

// Deps are what a worker is given.
type Deps struct {
	// Objects opens the buckets that segments are in.
	Objects objects.Store
	// Log; nil: nothing is logged.
	Log *slog.Logger
	// Meter; nil: no metrics.
	Meter metric.Meter
}

// Service is a query worker.
type Service struct {
	engine *engine.Engine
	cache  *cache.Cache[any] // of scan.Contents and metricfile.Catalogue
	server *server.Server
}

var _ host.Service = (*Service)(nil)

// New opens the cache and DuckDB. Run closes them.
func New(ctx context.Context, c Config, d Deps) (*Service, error) {
	c = c.withDefaults()
	db, err := engine.Open(ctx, engine.Config{Dir: c.Dir, MemoryLimit: c.EngineMemory, MaxSpill: c.SpillSize, Threads: c.Threads})
	if err != nil {
		return nil, fmt.Errorf("open DuckDB in %s: %w", c.Dir, err)
	}
	s := &Service{engine: db}
	if err := s.open(c, d); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *Service) open(c Config, d Deps) (err error) {
	// DuckDB is given absolute paths, for it may only read below one.
	dir, err := filepath.Abs(filepath.Join(c.Dir, "segments"))
	if err != nil {
		return err
	}
	s.cache, err = cache.Open(cache.Options[any]{Dir: dir, Bytes: c.CacheSize, ParsedBytes: c.CatalogueMemory, Parse: parseSidecar}, d.Objects)
	if err != nil {
		return err
	}
	gate := admission.New(admission.Limits{Running: c.Scans, Waiting: c.Queue, Memory: c.Memory})
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	instruments, err := server.NewMetrics(d.Meter, gate, s.cache.State)
	if err != nil {
		s.cache.Close()
		return fmt.Errorf("make metrics: %w", err)
	}
	logs := scan.New(cache.Of[*scan.Contents]{Cache: s.cache}, sql{s.engine}, scan.Options{
		Parallel: c.Threads, Memory: c.ScanMemory, MaxSeries: c.MaxSeries, RangedFrom: c.RangedFrom, ColumnMemory: c.ColumnMemory,
	})
	points := metrics.New(cache.Of[*metricfile.Catalogue]{Cache: s.cache}, metrics.Options{
		Parallel: c.Threads, Memory: c.ScanMemory, MaxSeries: c.MaxSeries, MaxSamples: c.MaxSamples, RangedFrom: c.RangedFrom,
	})
	if state := s.cache.State(); d.Log != nil {
		d.Log.Info("segment cache is open", "dir", dir, "files", state.Files, "bytes", state.Bytes, "budget", c.CacheSize)
	}
	s.server = server.New(logs, points, gate, server.Options{Memory: c.ScanMemory, MaxBytes: c.MaxFetch}, instruments)
	return nil
}

// parseSidecar reads a sidecar of either signal: each begins with letters of its own.
func parseSidecar(b []byte) (any, error) {
	contents, err := scan.ParseContents(b)
	if err == nil {
		return contents, nil
	}
	catalogue, other := metricfile.ReadCatalogue(b)
	if other == nil {
		return catalogue, nil
	}
	return nil, errors.Join(err, other)
}

// sql is the engine as package scan asks for it.
type sql struct{ *engine.Engine }

// Query implements scan.Engine.
func (s sql) Query(ctx context.Context, text string) (scan.Batches, error) {
	return s.Engine.Query(ctx, text)
}

// Name implements host.Service.
func (s *Service) Name() string { return "query-worker" }

// RegisterGRPC implements host.Service.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	workerv1.RegisterWorkerServiceServer(r, s.server)
}

// RegisterREST implements host.Service. A worker has no REST form: only services call it.
func (s *Service) RegisterREST(context.Context, *runtime.ServeMux, *grpc.ClientConn) error {
	return nil
}

// RegisterHTTP implements host.Service. A worker has no handlers of its own.
func (s *Service) RegisterHTTP(*host.Mux) {}

// Scope implements host.Service.
func (s *Service) Scope(fullMethod string) config.Scope {
	if fullMethod == workerv1.WorkerService_Scan_FullMethodName {
		return config.ScopeInternal
	}
	return ""
}

// Run waits for the end, then for the scans that run, and closes what New opened. The service cannot be used after it.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.server.Drain()
	s.cache.Close()
	s.engine.Close()
	return nil
}

// Ready implements host.Service.
func (s *Service) Ready(context.Context) error {
	if s.server.Draining() {
		return fault.New(fault.Unavailable, "worker is shutting down")
	}
	return nil
}
