// SPDX-License-Identifier: AGPL-3.0-only

// Package compactor is the service of that name; the README has its objectives, invariants and failure modes.
package compactor

import (
	"context"
	"log/slog"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Config is what users set. The zero value is a good one.
type Config struct{}

// Deps are what main gives.
type Deps struct {
	Index   *index.Index
	Config  config.Source
	Objects objects.Store
	Log     *slog.Logger
	Meter   metric.Meter
	// Checkpoint, if not nil, is called by name between any two steps of the work. Tests end the process in it.
	Checkpoint func(name string)
}

// Service is the compactor.
type Service struct{ deps Deps }

var _ host.Service = (*Service)(nil)

// New returns the service.
func New(_ Config, d Deps) (*Service, error) { return &Service{deps: d}, nil }

// Name is "compactor".
func (s *Service) Name() string { return "compactor" }

// RegisterGRPC registers nothing.
func (s *Service) RegisterGRPC(grpc.ServiceRegistrar) {}

// RegisterREST registers nothing.
func (s *Service) RegisterREST(context.Context, *runtime.ServeMux, *grpc.ClientConn) error { return nil }

// RegisterHTTP registers nothing.
func (s *Service) RegisterHTTP(*host.Mux) {}

// Scope is the admin scope for every method.
func (s *Service) Scope(string) config.Scope { return config.ScopeAdmin }

// Run works until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Ready reports whether the index answers.
func (s *Service) Ready(ctx context.Context) error { return s.deps.Index.Ping(ctx) }
