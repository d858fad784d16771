// SPDX-License-Identifier: AGPL-3.0-only

// Package notifier takes notice of objects: it writes a receipt and an ingest task for each, once, and only then answers.
//
// News comes through doors: the HTTP webhook of object stores, gRPC and REST, a continuous listing of the buckets, and backfills.
// Behind all of them is one intake (internal/intake). README.md has the invariants, the settings and the metrics.
//
// It does not read objects, and it does not decide what is in them.
package notifier

import (
	"context"
	"log/slog"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/objects"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/notifier/internal/backfill"
	"github.com/lakerunner/lakerunner/services/notifier/internal/door/listing"
	"github.com/lakerunner/lakerunner/services/notifier/internal/door/webhook"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
	"github.com/lakerunner/lakerunner/services/notifier/internal/server"
)

// Config is what users set.
type Config struct {
	Webhook  webhook.Config  `yaml:"webhook"`
	Listing  listing.Config  `yaml:"listing"`
	Backfill backfill.Config `yaml:"backfill"`
}

// Deps are what the process gives.
type Deps struct {
	Index   *index.Index
	Config  config.Source
	Objects objects.Store
	Log     *slog.Logger // nil: nothing is logged
	Meter   metric.Meter // nil: nothing is measured
}

// Service is the notifier.
type Service struct {
	index   *index.Index
	server  *server.Server
	webhook *webhook.Door
	doors   []door
}

// door is a way in which news comes by itself; those that are asked are registered instead.
type door interface {
	Name() string
	// Run hands over news until ctx ends. What hinders it for a while it logs, and tries again.
	Run(ctx context.Context) error
}

// New makes the service.
func New(c Config, d Deps) (*Service, error) {
	if d.Index == nil || d.Config == nil || d.Objects == nil {
		return nil, fault.New(fault.Internal, "the notifier needs an index, a configuration and a store")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Meter == nil {
		d.Meter = noop.Meter{}
	}
	d.Log = d.Log.With("service", name)
	in := intake.New(intake.Options{Index: d.Index, Config: d.Config, Objects: d.Objects, Metrics: d.Meter})
	hook, err := webhook.New(c.Webhook, in, d.Meter)
	if err != nil {
		return nil, err
	}
	backfills := backfill.New(backfill.Options{
		Config: c.Backfill, Index: d.Index, Intake: in, Source: d.Config, Objects: d.Objects, Log: d.Log, Meter: d.Meter,
	})
	lister := listing.New(listing.Options{
		Config: c.Listing, Index: d.Index, Intake: in, Source: d.Config, Objects: d.Objects, Log: d.Log, Meter: d.Meter,
	})
	return &Service{
		index:   d.Index,
		server:  server.New(d.Config, in, d.Index, backfills),
		webhook: hook,
		doors:   []door{lister, backfills},
	}, nil
}

const name = "notifier"

var _ host.Service = (*Service)(nil)

// Name is the service's.
func (s *Service) Name() string { return name }

// RegisterGRPC registers NotifierService.
func (s *Service) RegisterGRPC(r grpc.ServiceRegistrar) {
	notifierv1.RegisterNotifierServiceServer(r, s.server)
}

// RegisterREST registers its REST form.
func (s *Service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	return notifierv1.RegisterNotifierServiceHandler(ctx, mux, conn)
}

// RegisterHTTP registers the webhook, which has tokens of its own.
func (s *Service) RegisterHTTP(mux *host.Mux) {
	mux.Handle(webhook.Pattern, config.ScopeOpen, s.webhook)
}

// Scope lets those notify who may ingest. Backfills reach into buckets and cost money: they are for administrators.
func (s *Service) Scope(fullMethod string) config.Scope {
	switch fullMethod {
	case notifierv1.NotifierService_NotifyObjects_FullMethodName:
		return config.ScopeIngest
	case notifierv1.NotifierService_EstimateBackfill_FullMethodName,
		notifierv1.NotifierService_CreateBackfill_FullMethodName,
		notifierv1.NotifierService_GetBackfill_FullMethodName,
		notifierv1.NotifierService_ListBackfills_FullMethodName,
		notifierv1.NotifierService_PauseBackfill_FullMethodName,
		notifierv1.NotifierService_ResumeBackfill_FullMethodName:
		return config.ScopeAdmin
	}
	return ""
}

// Run opens the doors behind which nobody has to knock.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, d := range s.doors {
		group.Go(func() error { return d.Run(ctx) })
	}
	return group.Wait()
}

// Ready asks whether receipts can be written.
func (s *Service) Ready(ctx context.Context) error { return s.index.Ping(ctx) }
