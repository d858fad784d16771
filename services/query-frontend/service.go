// SPDX-License-Identifier: AGPL-3.0-only

// Package queryfrontend answers queries over the lake: it parses LogQL, looks up segments in the index, plans, places segments on
// query workers, merges what they answer and finishes with Loki's engine. It serves gRPC, REST, Arrow and Loki's HTTP API.
//
// It reads neither the object store nor segments: workers do. The README has its invariants.
package queryfrontend

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/configserver"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/lokihttp"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promhttp"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/server"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workers"
)

// Config is what users set. Every zero value stands for its default.
type Config struct {
	// Workers are query workers: host:port of one, or dns:///host:port, whose addresses are looked up again every few seconds.
	Workers []string `yaml:"workers"`
	// WorkerInterval is how often names of workers are looked up. Zero: 5 s.
	WorkerInterval time.Duration `yaml:"worker_interval"`
	// ScansPerWorker is how many scans of one query run at a time on one worker. Zero: 4.
	ScansPerWorker int `yaml:"scans_per_worker"`
	// ScanSegments and ScanBytes bound one scan. Zero: 64 segments, 256 MiB.
	ScanSegments int   `yaml:"scan_segments"`
	ScanBytes    int64 `yaml:"scan_bytes"`
	// HedgeAfter is the age from which a scan that is far slower than others is asked of a second worker. Zero: 3 s. Negative: never.
	HedgeAfter time.Duration `yaml:"hedge_after"`
	// MaxPoints is the most samples held for one part of a metric query. Zero: 20 million.
	MaxPoints int `yaml:"max_points"`
	// SoleBytes is the most bytes of segments that one worker evaluates alone, where values of parts cannot be merged. Zero: 256 MiB.
	SoleBytes int64 `yaml:"sole_bytes"`
	// TailInterval is how often a tail looks for new segments. Zero: 1 s.
	TailInterval time.Duration `yaml:"tail_interval"`
	// DelayedNames and StartTimestamps are Prometheus' features promql-delayed-name-removal and use-start-timestamps: PromQL drops names of metrics at the end of an
	// evaluation only, and takes counter resets from start times. Workers have to be told the same.
	DelayedNames    bool `yaml:"delayed_names"`
	StartTimestamps bool `yaml:"start_timestamps"`
}

// Worker is a query worker and a connection to it.
type Worker struct {
	Name string
	Conn grpc.ClientConnInterface
}

// Deps are what a frontend is given.
type Deps struct {
	Index *index.Index
	// Config says who may ask what, and up to which limits.
	Config config.Source
	// Workers are there beside those of Config.Workers.
	Workers []Worker
	// Dial connects to a worker of Config.Workers. It may be nil where there are none.
	Dial func(target string) (*grpc.ClientConn, error)
	// ConfigDB is the configuration that ConfigService manages; *config.Live is one. Nil: there is none to manage.
	ConfigDB configserver.Configuration
	// Log; nil: nothing is logged.
	Log *slog.Logger
	// Meter; nil: no metrics.
	Meter metric.Meter
}

// Service is a query frontend.
type Service struct {
	index    *index.Index
	pool     *workers.Pool
	frontend *query.Frontend
	server   *server.Server
	loki     *lokihttp.API
	prom     *promhttp.API
	config   *configserver.Server
}

var _ host.Service = (*Service)(nil)

// New builds the frontend. It connects to nothing yet.
func New(c Config, d Deps) (*Service, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	pool, err := newPool(c, d)
	if err != nil {
		return nil, err
	}
	asking := fan.New(pool.Workers, fan.Options{
		Concurrency: c.ScansPerWorker, BatchSegments: c.ScanSegments, BatchBytes: c.ScanBytes, HedgeAfter: c.HedgeAfter,
	})
	frontend := query.New(d.Index, d.Config, asking, query.NewMeters(d.Meter), query.Options{
		MaxPoints: c.MaxPoints, SoleBytes: c.SoleBytes, TailInterval: c.TailInterval,
		DelayedNames: c.DelayedNames, StartTimestamps: c.StartTimestamps,
	})
	return &Service{
		index:    d.Index,
		pool:     pool,
		frontend: frontend,
		server:   server.New(frontend),
		loki:     lokihttp.New(frontend, host.Version()),
		prom:     promhttp.New(frontend, host.Version()),
		config:   configserver.New(d.ConfigDB),
	}, nil
}

func newPool(c Config, d Deps) (*workers.Pool, error) {
	o := workers.Options{Addresses: c.Workers, Interval: c.WorkerInterval, Log: d.Log}
	for _, w := range d.Workers {
		o.Fixed = append(o.Fixed, fan.Worker{Name: w.Name, Client: workerv1.NewWorkerServiceClient(w.Conn)})
	}
	if d.Dial != nil {
		o.Dial = func(target string) (grpc.ClientConnInterface, error) { return d.Dial(target) }
	}
	return workers.New(o)
}

// Name implements host.Service.
func (s *Service) Name() string { return "query-frontend" }

// RegisterGRPC implements host.Service.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	s.server.Register(r)
	s.config.Register(r)
}

// RegisterREST implements host.Service.
func (s *Service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	if err := queryv1.RegisterQueryServiceHandler(ctx, mux, conn); err != nil {
		return err
	}
	return configv1.RegisterConfigServiceHandler(ctx, mux, conn)
}

// RegisterHTTP implements host.Service.
func (s *Service) RegisterHTTP(mux *host.Mux) {
	s.loki.Register(mux)
	s.prom.Register(mux)
	mux.Handle("POST /api/v1/query/arrow", config.ScopeQuery, s.server.ArrowHandler())
}

// Scope implements host.Service.
func (s *Service) Scope(fullMethod string) config.Scope {
	switch {
	case strings.HasPrefix(fullMethod, "/"+queryv1.QueryService_ServiceDesc.ServiceName+"/"):
		return config.ScopeQuery
	case strings.HasPrefix(fullMethod, "/"+configv1.ConfigService_ServiceDesc.ServiceName+"/"):
		return s.config.Scope()
	}
	return ""
}

// Run keeps the list of workers fresh until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var warming sync.WaitGroup
	defer warming.Wait()
	warming.Go(func() { s.frontend.Warm(ctx) })
	return s.pool.Run(ctx)
}

// Ready implements host.Service: a frontend needs the index and a worker.
func (s *Service) Ready(ctx context.Context) error {
	if len(s.pool.Workers()) == 0 {
		return fault.New(fault.Unavailable, "no query worker is known")
	}
	return s.index.Ping(ctx)
}
