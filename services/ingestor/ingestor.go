// SPDX-License-Identifier: AGPL-3.0-only

// Package ingestor turns source objects into level-0 segments: it claims ingest tasks, decodes and maps their objects' rows, writes
// segments, and commits them with the receipts. The README has its objectives, invariants and failure modes.
package ingestor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/server"
)

// Config is what users set. The zero value is a good one.
type Config struct {
	// Workers is how many leases are worked on at once. Zero: 2.
	Workers int `yaml:"workers"`
	// MemoryBytes is how many bytes of rows all workers together hold before they write segments. Zero: 256 MiB.
	MemoryBytes int64 `yaml:"memory_bytes"`
	// ScratchDir is where segment files are until they are uploaded. Empty: the system's directory for such files.
	ScratchDir string `yaml:"scratch_dir"`
	// FetchObjects is how many objects each worker fetches at a time. Zero: 2.
	FetchObjects int `yaml:"fetch_objects"`
	// BatchBytes is the most that one lease's objects have together, as stored. Zero: 64 MiB.
	BatchBytes int64 `yaml:"batch_bytes"`
	// BatchObjects is the most objects of one lease. Zero: 500.
	BatchObjects int `yaml:"batch_objects"`
	// MinBatchBytes are what a batch waits for, but no longer than BatchWait. Zero: it does not wait.
	MinBatchBytes int64         `yaml:"min_batch_bytes"`
	BatchWait     time.Duration `yaml:"batch_wait"`
	// Lease is how long a lease lives without being renewed. Zero: 1 minute.
	Lease time.Duration `yaml:"lease"`
	// MaxAttempts is how often an object may fail alone before its task is buried. Zero: 5.
	MaxAttempts int `yaml:"max_attempts"`
	// MaxObjectBytes is the most that one object may become when decompressed. Zero: 16 GiB.
	MaxObjectBytes int64 `yaml:"max_object_bytes"`
	// Drain is how long work under way may take after the process was told to stop. Zero: 30 seconds.
	Drain time.Duration `yaml:"drain"`
}

// Deps are what main gives.
type Deps struct {
	Index   *index.Index
	Config  config.Source
	Objects objects.Store
	Log     *slog.Logger
	Meter   metric.Meter
	// Scratch is Config.ScratchDir where that is empty.
	Scratch string
	// Checkpoint, if not nil, is called by name between any two steps of ingest: claimed, deletes-read; for each object fetched, decoded; for
	// each folder declared; for each segment written-N, uploaded-N; before-commit, after-commit. Tests end the process in it.
	Checkpoint func(name string)
}

// Service is the ingestor.
type Service struct {
	deps    Deps
	options stage.Options
	claims  stage.Claims
	work    stage.Work
	server  *server.Server
}

var _ host.Service = (*Service)(nil)

// New returns the service.
func New(c Config, d Deps) (*Service, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	if d.Checkpoint == nil {
		d.Checkpoint = func(string) {}
	}
	counters, err := pipeline.NewCounters(d.Meter)
	if err != nil {
		return nil, fmt.Errorf("make the metrics of ingest: %w", err)
	}
	scratch := cmp.Or(c.ScratchDir, d.Scratch)
	if scratch != "" {
		if err := os.MkdirAll(scratch, 0o700); err != nil {
			return nil, fmt.Errorf("scratch directory: %w", err)
		}
	}
	workers := cmp.Or(c.Workers, 2)
	worker := pipeline.New(pipeline.Config{
		Memory: cmp.Or(c.MemoryBytes, 256<<20) / int64(workers), Scratch: scratch, Fetch: c.FetchObjects, MaxObjectBytes: c.MaxObjectBytes,
	}, pipeline.Deps{Index: d.Index, Objects: d.Objects, Config: d.Config, Counters: counters, Checkpoint: d.Checkpoint})
	s := &Service{deps: d, claims: observed{Claims: d.Index, checkpoint: d.Checkpoint}, work: worker.Work}
	s.options = stage.Options{Batch: c.batch(), Workers: workers, Drain: c.Drain, Log: d.Log, Meter: d.Meter}
	s.server = server.New(server.Deps{
		Index: d.Index, Config: d.Config, Objects: d.Objects, Work: worker.Work, Batch: s.options.Batch, Log: d.Log, Meter: d.Meter,
	})
	return s, nil
}

func (c Config) batch() index.Batch {
	return index.Batch{
		Kind: lake.TaskIngest, MaxBytes: cmp.Or(c.BatchBytes, 64<<20), MaxTasks: cmp.Or(c.BatchObjects, 500),
		MinBytes: c.MinBatchBytes, MaxWait: c.BatchWait, Duration: cmp.Or(c.Lease, time.Minute), MaxAttempts: cmp.Or(c.MaxAttempts, 5),
	}
}

// observed calls checkpoints around a claim and a commit.
type observed struct {
	stage.Claims
	checkpoint func(name string)
}

// Claim claims.
func (o observed) Claim(ctx context.Context, batch index.Batch) (*lake.Lease, error) {
	lease, err := o.Claims.Claim(ctx, batch)
	if lease != nil {
		o.checkpoint("claimed")
	}
	return lease, err
}

// Commit commits.
func (o observed) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	o.checkpoint("before-commit")
	err := o.Claims.Commit(ctx, lease, edit)
	if err == nil {
		o.checkpoint("after-commit")
	}
	return err
}

// Name is "ingestor".
func (s *Service) Name() string { return "ingestor" }

// RegisterGRPC registers IngestorService.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	ingestorv1.RegisterIngestorServiceServer(r, s.server)
}

// RegisterREST registers its REST form.
func (s *Service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	return ingestorv1.RegisterIngestorServiceHandler(ctx, mux, conn)
}

// RegisterHTTP registers nothing.
func (s *Service) RegisterHTTP(*host.Mux) {}

// Scope is the ingest scope for every method.
func (s *Service) Scope(string) config.Scope { return config.ScopeIngest }

// Run ingests until ctx ends.
func (s *Service) Run(ctx context.Context) error { return stage.Run(ctx, s.claims, s.options, s.work) }

// Ready reports whether the index answers.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.deps.Index.Ping(ctx); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}
