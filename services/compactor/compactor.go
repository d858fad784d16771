// SPDX-License-Identifier: AGPL-3.0-only

// Package compactor makes few large segments of many small ones: it claims windows, plans, merges, and leaves out the rows that are not to be
// answered any more. The README has its objectives, invariants and failure modes.
package compactor

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
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
	"github.com/lakerunner/lakerunner/services/compactor/internal/scanner"
	"github.com/lakerunner/lakerunner/services/compactor/internal/server"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

// Config is what users set. The zero value is a good one.
type Config struct {
	// Workers is how many windows are compacted at once. Zero: 2.
	Workers int `yaml:"workers"`
	// MemoryBytes is what all workers' merges together hold. Zero: 1 GiB.
	MemoryBytes int64 `yaml:"memory_bytes"`
	// ScratchDir is where the inputs and outputs of merges are, and ScratchBytes what they may take there together. Empty: the system's directory
	// for such files. Zero: 8 GiB.
	ScratchDir   string `yaml:"scratch_dir"`
	ScratchBytes int64  `yaml:"scratch_bytes"`
	// FetchObjects is how many segments each worker fetches at a time. Zero: 4.
	FetchObjects int `yaml:"fetch_objects"`
	// TargetBytes is the size of settled segments of logs that is aimed at; a day that holds less is one window. Zero: 128 MiB.
	TargetBytes int64 `yaml:"target_bytes"`
	// ShardBytes is the most that a shard of metrics is to have in a settled window: one that holds more has more shards. Zero: 64 MiB.
	ShardBytes int64 `yaml:"shard_bytes"`
	// FreshSegments and FreshBytes of an hour's fresh segments are merged at once; fewer when the oldest is FreshWait old. Zero: 16, 32 MiB and
	// 90 seconds.
	FreshSegments int           `yaml:"fresh_segments"`
	FreshBytes    int64         `yaml:"fresh_bytes"`
	FreshWait     time.Duration `yaml:"fresh_wait"`
	// Settle is how long after its end, or after late data, an hour is settled. Zero: 15 minutes.
	Settle time.Duration `yaml:"settle"`
	// DaySettle is how long after a day's end its hours may become one window. Zero: 1 hour.
	DaySettle time.Duration `yaml:"day_settle"`
	// MaxInputs and MaxMergeBytes bound one merge. Zero: 64, and 1 GiB or what the scratch allows.
	MaxInputs     int   `yaml:"max_inputs"`
	MaxMergeBytes int64 `yaml:"max_merge_bytes"`
	// ScanInterval is how often windows are looked for that need compaction. Zero: 1 minute.
	ScanInterval time.Duration `yaml:"scan_interval"`
	// Lease is how long a lease lives without being renewed. Zero: 1 minute.
	Lease time.Duration `yaml:"lease"`
	// MaxAttempts is how often a window's compaction may fail before its task is buried. Zero: 5.
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
	// Checkpoint, if not nil, is called by name between any two steps of the work: claimed; window-read; for each merge catalogue-read, fetched,
	// merged, declared, sidecar-uploaded, segment-uploaded; before-commit, after-commit. Tests end the process in it.
	Checkpoint func(name string)
}

// Service is the compactor.
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
		return nil, fmt.Errorf("make the metrics of compaction: %w", err)
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
		Index: d.Index, Worker: s.worker, Claims: s.claims, Batch: s.options.Batch, Log: d.Log, Meter: d.Meter,
	})
	s.scanner = &scanner.Scanner{Index: d.Index, Config: d.Config, Log: d.Log, Every: cmp.Or(c.ScanInterval, time.Minute)}
	return s, nil
}

func (c Config) work() work.Config {
	return work.Config{
		Memory: cmp.Or(c.MemoryBytes, 1<<30) / int64(c.Workers), Scratch: c.ScratchDir, ScratchBytes: cmp.Or(c.ScratchBytes, 8<<30) / int64(c.Workers),
		Fetch: c.FetchObjects,
		Policy: plan.Policy{
			Target: c.TargetBytes, FreshSegments: c.FreshSegments, FreshBytes: c.FreshBytes, FreshWait: c.FreshWait, Settle: c.Settle, DaySettle: c.DaySettle,
			FanIn: c.MaxInputs, MergeBytes: c.MaxMergeBytes, Shard: c.ShardBytes,
		},
	}
}

// batch is one task: a window is worked on as a whole, however large it is.
func (c Config) batch() index.Batch {
	return index.Batch{
		Kind: lake.TaskCompact, MaxTasks: 1, Duration: cmp.Or(c.Lease, time.Minute), MaxAttempts: cmp.Or(c.MaxAttempts, 5),
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

// Name is "compactor".
func (s *Service) Name() string { return "compactor" }

// RegisterGRPC registers CompactorService.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	compactorv1.RegisterCompactorServiceServer(r, s.server)
}

// RegisterREST registers its REST form.
func (s *Service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	return compactorv1.RegisterCompactorServiceHandler(ctx, mux, conn)
}

// RegisterHTTP registers nothing.
func (s *Service) RegisterHTTP(*host.Mux) {}

// Scope is the admin scope for what changes something, and the query scope for what tells of the caller's own organization.
func (s *Service) Scope(method string) config.Scope {
	if strings.HasSuffix(method, "/PlanCompaction") || strings.HasSuffix(method, "/GetCompactionStatus") {
		return config.ScopeQuery
	}
	return config.ScopeAdmin
}

// Run compacts until ctx ends.
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
