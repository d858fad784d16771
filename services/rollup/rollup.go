// SPDX-License-Identifier: AGPL-3.0-only

// Package rollup is the service that makes rollups of metrics and counts of log lines: it claims windows, aggregates their rows, or finer rollups, and checks
// that every point is accounted for. What a rollup is, and what it answers, is package pkg/rollup. The README has its objectives, invariants and failure modes.
package rollup

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
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
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
	"github.com/lakerunner/lakerunner/services/rollup/internal/scanner"
	"github.com/lakerunner/lakerunner/services/rollup/internal/server"
	"github.com/lakerunner/lakerunner/services/rollup/internal/work"
)

// Config is what users set. The zero value is a good one.
type Config struct {
	// Workers is how many windows are rolled up at once. Zero: 2.
	Workers int `yaml:"workers"`
	// MemoryBytes is what all workers together hold. Zero: 1 GiB.
	MemoryBytes int64 `yaml:"memory_bytes"`
	// ScratchDir is where segments are while they are read and written, and ScratchBytes what they may take there together. Empty: the system's directory
	// for such files. Zero: 8 GiB.
	ScratchDir   string `yaml:"scratch_dir"`
	ScratchBytes int64  `yaml:"scratch_bytes"`
	// FetchObjects is how many segments each worker fetches at a time. Zero: 4.
	FetchObjects int `yaml:"fetch_objects"`
	// TargetBytes is the size of segments that is aimed at. Zero: 64 MiB.
	TargetBytes int64 `yaml:"target_bytes"`
	// Settle is how long after its last change a window is rolled up again. Zero: 1 minute.
	Settle time.Duration `yaml:"settle"`
	// MaxInputs is how many segments of rows one rollup may read: a window of more waits for compaction. Zero: 256.
	MaxInputs int `yaml:"max_inputs"`
	// ScanInterval is how often windows are looked for whose rollups are not current. Zero: 1 minute.
	ScanInterval time.Duration `yaml:"scan_interval"`
	// Lease is how long a lease lives without being renewed. Zero: 1 minute.
	Lease time.Duration `yaml:"lease"`
	// MaxAttempts is how often a rollup may fail before its task is buried. Zero: 5.
	MaxAttempts int `yaml:"max_attempts"`
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
	// Checkpoint, if not nil, is called by name between any two steps of the work: rollup-claimed; rollup-window-read; for each shard rollup-fetched,
	// rollup-written, rollup-declared, rollup-sidecar-uploaded, rollup-segment-uploaded; rollup-before-commit, rollup-after-commit. Tests end the process in it.
	Checkpoint func(name string)
}

// Service is the rollup service.
type Service struct {
	deps    Deps
	options stage.Options
	claims  stage.Claims
	worker  *work.Worker
	server  *server.Server
	scanner *scanner.Scanner
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
	counters, err := work.NewCounters(d.Meter)
	if err != nil {
		return nil, fmt.Errorf("make the metrics of rollups: %w", err)
	}
	lag, err := newLag(d.Meter)
	if err != nil {
		return nil, fmt.Errorf("make the metrics of rollups: %w", err)
	}
	c.ScratchDir = cmp.Or(c.ScratchDir, d.Scratch)
	if c.ScratchDir != "" {
		if err := os.MkdirAll(c.ScratchDir, 0o700); err != nil {
			return nil, fmt.Errorf("scratch directory: %w", err)
		}
		if err := work.RemoveAbandoned(c.ScratchDir); err != nil {
			return nil, fmt.Errorf("scratch directory: %w", err)
		}
	}
	c.Workers = cmp.Or(c.Workers, 2)
	s := &Service{deps: d, claims: observed{Claims: d.Index, checkpoint: d.Checkpoint}}
	s.worker = work.New(c.work(), work.Deps{
		Index: d.Index, Objects: d.Objects, Config: d.Config, Counters: counters, Checkpoint: d.Checkpoint,
	})
	s.options = stage.Options{Batch: c.batch(), Workers: c.Workers, Drain: c.Drain, Log: d.Log, Meter: d.Meter}
	s.server = server.New(server.Deps{
		Index: d.Index, Config: d.Config, Worker: s.worker, Claims: s.claims, Batch: s.options.Batch, Log: d.Log, Meter: d.Meter,
	})
	s.scanner = &scanner.Scanner{Index: d.Index, Config: d.Config, Log: d.Log, Lag: lag.record, Every: cmp.Or(c.ScanInterval, time.Minute)}
	return s, nil
}

func (c Config) work() work.Config {
	workers := int64(c.Workers)
	return work.Config{
		Memory: cmp.Or(c.MemoryBytes, 1<<30) / workers, Scratch: c.ScratchDir, ScratchBytes: cmp.Or(c.ScratchBytes, 8<<30) / workers, Fetch: c.FetchObjects,
		Target: c.TargetBytes, Settle: c.Settle, MaxInputs: c.MaxInputs,
	}
}

// batch is one task: one rollup of one window.
func (c Config) batch() index.Batch {
	return index.Batch{
		Kind: lake.TaskRollup, MaxTasks: 1, Duration: cmp.Or(c.Lease, time.Minute), MaxAttempts: cmp.Or(c.MaxAttempts, 5),
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
		o.checkpoint("rollup-claimed")
	}
	return lease, err
}

// Commit commits.
func (o observed) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	o.checkpoint("rollup-before-commit")
	err := o.Claims.Commit(ctx, lease, edit)
	if err == nil {
		o.checkpoint("rollup-after-commit")
	}
	return err
}

// Name is "rollup".
func (s *Service) Name() string { return "rollup" }

// RegisterGRPC registers RollupService.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	rollupv1.RegisterRollupServiceServer(r, s.server)
}

// RegisterREST registers its REST form.
func (s *Service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	return rollupv1.RegisterRollupServiceHandler(ctx, mux, conn)
}

// RegisterHTTP registers nothing.
func (s *Service) RegisterHTTP(*host.Mux) {}

// Scope is the admin scope for what changes something, and the query scope for what tells of the caller's own organization.
func (s *Service) Scope(method string) config.Scope {
	if strings.HasSuffix(method, "/PlanRollup") || strings.HasSuffix(method, "/GetRollupStatus") {
		return config.ScopeQuery
	}
	return config.ScopeAdmin
}

// Run makes rollups until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var scanning sync.WaitGroup
	scanning.Go(func() { s.scanner.Run(ctx) })
	err := stage.Run(ctx, s.claims, s.options, s.worker.Work)
	scanning.Wait()
	return err
}

// Ready reports whether the index answers.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.deps.Index.Ping(ctx); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}
