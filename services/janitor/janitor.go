// SPDX-License-Identifier: AGPL-3.0-only

// Package janitor is the service that keeps the lake in order for years: retention, deletion of files, orphans and missing files,
// objects whose event was lost, deletes of data, commit records and snapshots, source objects by policy, and the database's upkeep.
// The README has its objectives, invariants and failure modes.
package janitor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/janitor/internal/duty"
	"github.com/lakerunner/lakerunner/services/janitor/internal/erase"
	"github.com/lakerunner/lakerunner/services/janitor/internal/glance"
	"github.com/lakerunner/lakerunner/services/janitor/internal/inspect"
	"github.com/lakerunner/lakerunner/services/janitor/internal/raw"
	"github.com/lakerunner/lakerunner/services/janitor/internal/reconcile"
	"github.com/lakerunner/lakerunner/services/janitor/internal/retention"
	"github.com/lakerunner/lakerunner/services/janitor/internal/server"
	"github.com/lakerunner/lakerunner/services/janitor/internal/ship"
	"github.com/lakerunner/lakerunner/services/janitor/internal/sweep"
	"github.com/lakerunner/lakerunner/services/janitor/internal/upkeep"
)

// Config is what users set. The zero value is a good one.
type Config struct {
	// Notifier is where objects whose event was lost are told of: a gRPC address. Empty: the notifier of this process, or none.
	Notifier string `yaml:"notifier"`
	// Grace is how long files stay after they were removed from the index. Zero: 48 hours. It is never less than the longest query may take.
	Grace time.Duration `yaml:"grace"`
	// Workers is how many organizations each duty is done for at once. Zero: 2.
	Workers int `yaml:"workers"`
	// Lease is how long a duty's lease lives without being renewed. Zero: 1 minute.
	Lease time.Duration `yaml:"lease"`
	// Drain is how long work under way may take after the process was told to stop. Zero: 30 seconds.
	Drain time.Duration `yaml:"drain"`
	// History is how long ended leases and other accounts are kept. Zero: 30 days.
	History time.Duration `yaml:"history"`
	// ScratchDir is where files are while they are read back. Empty: the system's directory for such files.
	ScratchDir string `yaml:"scratch_dir"`

	// Retention is how often retention is applied. Zero: 1 hour.
	Retention time.Duration `yaml:"retention_interval"`
	// Sweep is how often files are swept. Zero: 10 minutes.
	Sweep time.Duration `yaml:"sweep_interval"`
	// Reconcile is how often recent prefixes are compared with the receipts. Zero: 5 minutes.
	Reconcile time.Duration `yaml:"reconcile_interval"`
	// ReconcileObjects is how many objects of the round over everything are compared each time. Zero: 20,000.
	ReconcileObjects int `yaml:"reconcile_objects"`
	// Settle is how long an object's event may take before the object counts as missed. Zero: 2 minutes.
	Settle time.Duration `yaml:"settle"`
	// Inspect is how often our own files are compared with the index. Zero: 1 hour.
	Inspect time.Duration `yaml:"inspect_interval"`
	// Raw is how often source objects are dealt with. Zero: 1 hour.
	Raw time.Duration `yaml:"raw_interval"`
	// Upkeep is how often the database is seen to. Zero: 1 hour.
	Upkeep time.Duration `yaml:"upkeep_interval"`
	// Erase is how often deletes of data are taken further. Zero: 1 minute.
	Erase time.Duration `yaml:"erase_interval"`
	// Ship is how often commit records are brought into the bucket. Zero: 1 minute.
	Ship time.Duration `yaml:"ship_interval"`
	// Snapshot is how old the newest snapshot of the index may become. Zero: 1 day.
	Snapshot time.Duration `yaml:"snapshot_interval"`
}

// Deps are what main gives.
type Deps struct {
	Index   *index.Index
	Config  config.Source
	Objects objects.Store
	Log     *slog.Logger
	Meter   metric.Meter
	// Dial connects to Config.Notifier. It may be nil where that is empty.
	Dial func(target string) (*grpc.ClientConn, error)
	// Notifier reaches the notifier of this process. It may be nil.
	Notifier grpc.ClientConnInterface
	// Checkpoint, if not nil, is called by name between any two steps of the work. Tests end the process in it.
	Checkpoint func(name string)
}

// Service is the janitor.
type Service struct {
	deps   Deps
	runner *duty.Runner
	server *server.Server
}

const name = "janitor"

var _ host.Service = (*Service)(nil)

// New returns the service.
func New(c Config, d Deps) (*Service, error) {
	if d.Index == nil || d.Config == nil || d.Objects == nil {
		return nil, fault.New(fault.Internal, "the janitor needs an index, a configuration and a store")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	if d.Checkpoint == nil {
		d.Checkpoint = func(string) {}
	}
	d.Log = d.Log.With("service", name)
	c = c.withDefaults(d.Config.Current())
	deps, err := c.make(d)
	if err != nil {
		return nil, err
	}
	s := &Service{deps: d, server: server.New(deps)}
	s.runner = duty.New(duty.Options{
		Index: observed{Index: d.Index, checkpoint: d.Checkpoint}, Organizations: s.server.Organizations, Log: d.Log, Meter: d.Meter,
		Workers: c.Workers, Lease: c.Lease, Drain: c.Drain,
	}, c.duties(deps)...)
	if err := glance.Register(d.Meter, s.server.Status); err != nil {
		return nil, fmt.Errorf("make the metrics of the status: %w", err)
	}
	return s, nil
}

func (c Config) withDefaults(current *config.Snapshot) Config {
	c.Grace = max(cmp.Or(c.Grace, 48*time.Hour), longestQuery(current))
	c.Retention = cmp.Or(c.Retention, time.Hour)
	c.Sweep = cmp.Or(c.Sweep, 10*time.Minute)
	c.Reconcile = cmp.Or(c.Reconcile, 5*time.Minute)
	c.Inspect = cmp.Or(c.Inspect, time.Hour)
	c.Raw = cmp.Or(c.Raw, time.Hour)
	c.Upkeep = cmp.Or(c.Upkeep, time.Hour)
	c.Erase = cmp.Or(c.Erase, time.Minute)
	c.Ship = cmp.Or(c.Ship, time.Minute)
	return c
}

// longestQuery is how long a query may go on reading files that are removed under it.
func longestQuery(current *config.Snapshot) time.Duration {
	longest := time.Duration(0)
	for _, organization := range current.Organizations() {
		longest = max(longest, organization.Limits.QueryTimeout)
	}
	if longest == 0 {
		longest = config.DefaultLimits().QueryTimeout
	}
	return longest
}

// make makes what does the duties.
func (c Config) make(d Deps) (server.Deps, error) {
	out := server.Deps{Index: d.Index, Config: d.Config, Log: d.Log, Meter: d.Meter}
	notifier, err := c.notifier(d)
	if err != nil {
		return out, err
	}
	counters, err := reconcile.NewCounters(d.Meter)
	if err != nil {
		return out, fmt.Errorf("make the metrics of reconciliation: %w", err)
	}
	out.Upkeep, err = upkeep.New(upkeep.Deps{Index: d.Index, Meter: d.Meter, History: c.History, Checkpoint: d.Checkpoint})
	if err != nil {
		return out, fmt.Errorf("make the metrics of upkeep: %w", err)
	}
	out.Retention = retention.New(retention.Deps{Index: d.Index, Config: d.Config, Checkpoint: d.Checkpoint})
	out.Sweep = sweep.New(sweep.Deps{Index: d.Index, Objects: d.Objects, Log: d.Log, Grace: c.Grace, Checkpoint: d.Checkpoint})
	out.Inspect = inspect.New(inspect.Deps{
		Index: d.Index, Objects: d.Objects, Buckets: out.Buckets, Log: d.Log, Grace: c.Grace, Turn: c.Inspect, Checkpoint: d.Checkpoint,
	})
	out.Reconcile = reconcile.New(reconcile.Deps{
		Index: d.Index, Config: d.Config, Objects: d.Objects, Notifier: notifier, Log: d.Log, Counters: counters,
		Settle: c.Settle, Slow: c.ReconcileObjects, Checkpoint: d.Checkpoint,
	})
	out.Raw = raw.New(raw.Deps{Index: d.Index, Config: d.Config, Objects: d.Objects, Log: d.Log, Checkpoint: d.Checkpoint})
	out.Ship = ship.New(ship.Deps{
		Index: d.Index, Objects: d.Objects, Config: d.Config, Every: c.Ship, SnapshotEvery: c.Snapshot, Grace: c.Grace,
	})
	out.Erase = erase.New(erase.Deps{
		Index: d.Index, Objects: d.Objects, Config: d.Config, Scratch: c.ScratchDir, Every: c.Erase, Ship: shipNow(out.Ship),
	})
	return out, nil
}

func shipNow(s *ship.Shipper) func(context.Context, lake.Organization) error {
	return func(ctx context.Context, org lake.Organization) error {
		_, err := s.Records(ctx, org)
		return err
	}
}

// notifier returns the notifier that the settings name, else that of this process; nil: there is none.
func (c Config) notifier(d Deps) (reconcile.Notifier, error) {
	conn := d.Notifier
	if c.Notifier != "" {
		if d.Dial == nil {
			return nil, fault.New(fault.Internal, "janitor.notifier is set, and this process cannot dial")
		}
		dialed, err := d.Dial(c.Notifier)
		if err != nil {
			return nil, fmt.Errorf("janitor.notifier: %w", err)
		}
		conn = dialed
	}
	if conn == nil {
		return nil, nil //nolint:nilnil // none is no error
	}
	return server.NewNotifier(conn), nil
}

func (c Config) duties(d server.Deps) []duty.Duty {
	return []duty.Duty{
		{Kind: lake.TaskExpire, Interval: c.Retention, PerSignal: true, Work: d.Retention.Duty},
		{Kind: lake.TaskSweep, Interval: c.Sweep, Work: d.Sweep.Duty},
		{Kind: lake.TaskReconcile, Interval: c.Reconcile, Work: d.Reconcile.Duty},
		{Kind: lake.TaskInspect, Interval: c.Inspect, PerSignal: true, Work: d.Inspect.Duty},
		{Kind: lake.TaskRaw, Interval: c.Raw, Work: d.Raw.Duty},
		{Kind: lake.TaskUpkeep, Interval: c.Upkeep, Alone: true, Work: d.Upkeep.Duty},
		{Kind: lake.TaskErase, Interval: c.Erase, Work: d.Erase.Duty},
		{Kind: lake.TaskShip, Interval: c.Ship, Work: d.Ship.Duty},
	}
}

// observed calls checkpoints around a claim and a commit.
type observed struct {
	duty.Index
	checkpoint func(name string)
}

// Claim claims.
func (o observed) Claim(ctx context.Context, batch index.Batch) (*lake.Lease, error) {
	lease, err := o.Index.Claim(ctx, batch)
	if lease != nil {
		o.checkpoint("claimed-" + string(batch.Kind))
	}
	return lease, err
}

// Commit commits.
func (o observed) Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error {
	o.checkpoint("before-commit-" + string(lease.Kind))
	err := o.Index.Commit(ctx, lease, edit)
	if err == nil {
		o.checkpoint("after-commit-" + string(lease.Kind))
	}
	return err
}

var _ stage.Claims = observed{}

// Name is "janitor".
func (s *Service) Name() string { return name }

// RegisterGRPC registers JanitorService.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	janitorv1.RegisterJanitorServiceServer(r, s.server)
}

// RegisterREST registers its REST form.
func (s *Service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	return janitorv1.RegisterJanitorServiceHandler(ctx, mux, conn)
}

// RegisterHTTP registers nothing.
func (s *Service) RegisterHTTP(*host.Mux) {}

// Scope is the admin scope for every method.
func (s *Service) Scope(string) config.Scope { return config.ScopeAdmin }

// Run does the duties until ctx ends.
func (s *Service) Run(ctx context.Context) error { return s.runner.Run(ctx) }

// Ready reports whether the index answers.
func (s *Service) Ready(ctx context.Context) error { return s.deps.Index.Ping(ctx) }
