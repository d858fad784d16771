// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// maxMessage is the largest gRPC message in bytes: Arrow batches are a few MiB, previews of objects more.
const maxMessage = 64 << 20

// rpc is the gRPC server's side of a process: who owns which method, and what is done around every call.
type rpc struct {
	door   *door
	log    *slog.Logger
	owners map[string]Service // by gRPC service name
}

func (r *rpc) server(t *Telemetry) *grpc.Server {
	return grpc.NewServer(
		grpc.StatsHandler(otelgrpc.NewServerHandler(t.rpcOptions()...)),
		grpc.ChainUnaryInterceptor(r.observeUnary, fault.UnaryServer, r.guardUnary),
		grpc.ChainStreamInterceptor(r.observeStream, fault.StreamServer, r.guardStream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
}

func (t *Telemetry) rpcOptions() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithMeterProvider(t.Meter), otelgrpc.WithTracerProvider(t.Tracer), otelgrpc.WithPropagators(propagation.TraceContext{}),
	}
}

// registrar notes whose a gRPC service is while it is registered.
type registrar struct {
	grpc.ServiceRegistrar
	owner  Service
	owners map[string]Service
}

func (r registrar) RegisterService(desc *grpc.ServiceDesc, implementation any) {
	r.owners[desc.ServiceName] = r.owner
	r.ServiceRegistrar.RegisterService(desc, implementation)
}

// scope of a method. Health and reflection tell nothing that is secret.
func (r *rpc) scope(fullMethod string) config.Scope {
	name, _, _ := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	if owner, ok := r.owners[name]; ok {
		return owner.Scope(fullMethod)
	}
	if strings.HasPrefix(name, "grpc.health.") || strings.HasPrefix(name, "grpc.reflection.") {
		return config.ScopeOpen
	}
	return ""
}

func (r *rpc) observeUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, line := withLine(ctx)
	start := time.Now()
	response, err := handler(ctx, request)
	r.finish(ctx, line, info.FullMethod, time.Since(start), err)
	return response, err
}

func (r *rpc) observeStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, line := withLine(stream.Context())
	start := time.Now()
	err := handler(server, &contextStream{stream, ctx})
	r.finish(ctx, line, info.FullMethod, time.Since(start), err)
	return err
}

func (r *rpc) finish(ctx context.Context, line *line, method string, took time.Duration, err error) {
	level := slog.LevelInfo
	switch fault.KindOf(fault.FromRPC(err)) {
	case fault.Internal, fault.MissingSegment:
		if err != nil {
			level = slog.LevelError
		}
	}
	if strings.HasPrefix(method, "/grpc.") {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{
		slog.String("method", method), slog.String("code", status.Code(err).String()), slog.Duration("duration", took),
	}
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	line.write(ctx, r.log, level, "rpc", attrs...)
}

func (r *rpc) guardUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer func() { err = note(ctx, err, recover()) }()
	ctx, err = r.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (r *rpc) guardStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx := stream.Context()
	defer func() { err = note(ctx, err, recover()) }()
	admitted, err := r.admit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	return handler(server, &contextStream{stream, admitted})
}

// note puts an error into the request's line; a panic is one, of ours.
func note(ctx context.Context, err error, panicked any) error {
	if panicked != nil {
		err = fault.New(fault.Internal, "panic: %v", panicked)
		Annotate(ctx, slog.String("stack", string(debug.Stack())))
	}
	if l, ok := ctx.Value(lineKey{}).(*line); ok && err != nil {
		l.fail(err)
	}
	if panicked != nil {
		return fault.New(fault.Internal, "internal error")
	}
	return err
}

func (r *rpc) admit(ctx context.Context, method string) (context.Context, error) {
	scope := r.scope(method)
	md, _ := metadata.FromIncomingContext(ctx)
	identity, err := r.door.admit(scope, claimsOfRPC(md))
	if err != nil || scope == config.ScopeOpen {
		return ctx, err
	}
	if l, ok := ctx.Value(lineKey{}).(*line); ok {
		l.identity(identity)
	}
	return config.WithIdentity(ctx, identity), nil
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *contextStream) Context() context.Context { return s.ctx }
