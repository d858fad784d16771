// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
)

// Service is what a process is made of.
type Service interface {
	// Name is the service's, as logs and health checks call it.
	Name() string
	// RegisterGRPC registers its gRPC services.
	RegisterGRPC(s grpc.ServiceRegistrar)
	// RegisterREST registers their REST forms; conn reaches them in this process.
	RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error
	// RegisterHTTP registers HTTP handlers of its own.
	RegisterHTTP(mux *Mux)
	// Scope returns what a call of one of its gRPC methods ("/package.Service/Method") needs. The empty scope: nobody may.
	Scope(fullMethod string) config.Scope
	// Run runs its loops. It returns when ctx ends, its work finished or given back; an error ends the process.
	Run(ctx context.Context) error
	// Ready reports why it cannot do its work now; nil: it can.
	Ready(ctx context.Context) error
}
