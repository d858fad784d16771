// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/proto"
)

// Addr is where a process listens.
type Addr struct {
	GRPC string // host:port
	HTTP string // host:port
}

// Options are what Run needs beside the services. Process.Options fills them in.
type Options struct {
	Config Config
	// Source holds the keys that open the doors.
	Source config.Source
	// Log; nil: nothing is logged.
	Log *slog.Logger
	// Telemetry; nil: none.
	Telemetry *Telemetry
	// InProcess is how services of this process call one another; nil: one of its own, with Config.InternalToken.
	InProcess *InProcess
	// OnListening is called once the doors are open, OnReady once all services were ready for the first time.
	OnListening, OnReady func(Addr)
}

// Run serves until ctx ends or a service fails, and then shuts down in phases. It returns nil after an orderly end.
func Run(ctx context.Context, o Options, services ...Service) error {
	r, err := newRunner(ctx, o, services)
	if err != nil {
		return err
	}
	r.start()
	if o.OnListening != nil {
		o.OnListening(r.addr())
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-r.failed:
		r.log.Error("a service failed, the process ends", "error", failed)
	}
	return errors.Join(failed, r.shutdown())
}

type runner struct {
	options  Options
	log      *slog.Logger
	services []Service

	grpcListener, httpListener net.Listener
	grpcServer                 *grpc.Server
	httpServer                 *http.Server
	gatewayConn                *grpc.ClientConn
	health                     *health.Server
	draining                   atomic.Bool

	requests    context.Context // of HTTP requests; ends when they must
	endRequests context.CancelFunc
	loops       context.Context // of services
	endLoops    context.CancelFunc

	servers, running, watching sync.WaitGroup
	failed                     chan error
}

func newRunner(ctx context.Context, o Options, services []Service) (*runner, error) {
	o.Config = o.Config.withDefaults()
	if err := o.Config.validate(); err != nil {
		return nil, err
	}
	if o.Source == nil {
		return nil, fault.New(fault.Invalid, "a process needs a configuration source")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if o.Telemetry == nil {
		o.Telemetry = quiet()
	}
	if o.InProcess == nil {
		o.InProcess = NewInProcess(o.Config.InternalToken)
	}
	r := &runner{options: o, log: o.Log, services: services, failed: make(chan error, len(services)+3), health: health.NewServer()}
	detached := context.WithoutCancel(ctx)
	r.requests, r.endRequests = context.WithCancel(detached)
	r.loops, r.endLoops = context.WithCancel(detached)
	if err := r.build(ctx); err != nil {
		return nil, errors.Join(err, r.abandon())
	}
	return r, nil
}

func (r *runner) build(ctx context.Context) error {
	if err := r.listen(ctx); err != nil {
		return err
	}
	d := newDoor(r.options.Source, r.options.InProcess.token)
	calls := &rpc{door: d, log: r.log, owners: map[string]Service{}}
	r.grpcServer = calls.server(r.options.Telemetry)
	for _, service := range r.services {
		service.RegisterGRPC(registrar{r.grpcServer, service, calls.owners})
	}
	healthpb.RegisterHealthServer(r.grpcServer, r.health)
	reflection.Register(r.grpcServer)
	r.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	mux, err := r.mux(ctx, d)
	if err != nil {
		return err
	}
	r.httpServer = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return r.requests },
	}
	return nil
}

func (r *runner) listen(ctx context.Context) (err error) {
	c := r.options.Config
	if r.grpcListener, err = listen(ctx, c.GRPC.Listen, c.TLS, "h2"); err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	if r.httpListener, err = listen(ctx, c.HTTP.Listen, c.TLS, "http/1.1"); err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	return nil
}

// listen adds TLS to the listener, not to the server: the server also serves the process itself, which needs none.
func listen(ctx context.Context, address string, c TLSConfig, protocol string) (net.Listener, error) {
	security, err := serverTLS(c, protocol)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "%w; choose another address with grpc.listen or http.listen, or end what listens there", err)
	}
	if security == nil {
		return listener, nil
	}
	return tls.NewListener(listener, security), nil
}

func (r *runner) mux(ctx context.Context, d *door) (*Mux, error) {
	gateway := newGateway()
	conn, err := r.options.InProcess.dial()
	if err != nil {
		return nil, err
	}
	r.gatewayConn = conn
	mux := newMux(d, r.log, r.options.Telemetry)
	for _, service := range r.services {
		if err := service.RegisterREST(ctx, gateway, conn); err != nil {
			return nil, fmt.Errorf("register REST of %s: %w", service.Name(), err)
		}
		service.RegisterHTTP(mux)
	}
	// The services behind the gateway admit the request and log it; here it only passes.
	mux.handleQuietly("/api/v1/", func(w http.ResponseWriter, req *http.Request) {
		req.Body = http.MaxBytesReader(w, req.Body, maxMessage)
		gateway.ServeHTTP(challenged{w}, req)
	})
	mux.handleQuietly("GET /openapi.json", serveOpenAPI)
	mux.handleQuietly("GET /metrics", r.options.Telemetry.Handler().ServeHTTP)
	mux.handleQuietly("GET /livez", serveOK)
	mux.handleQuietly("GET /healthz", serveOK)
	mux.handleQuietly("GET /readyz", r.serveReady)
	return mux, nil
}

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(proto.OpenAPI)
}

func (r *runner) addr() Addr {
	return Addr{GRPC: r.grpcListener.Addr().String(), HTTP: r.httpListener.Addr().String()}
}

func (r *runner) start() {
	r.serve("gRPC", func() error { return r.grpcServer.Serve(r.grpcListener) })
	r.serve("in-process gRPC", func() error { return r.grpcServer.Serve(r.options.InProcess.listener) })
	r.serve("HTTP", func() error { return r.httpServer.Serve(r.httpListener) })
	for _, service := range r.services {
		r.running.Go(func() {
			if err := runService(r.loops, service); err != nil && r.loops.Err() == nil {
				r.failed <- fmt.Errorf("%s: %w", service.Name(), err)
			}
		})
	}
	r.watching.Go(r.watchReadiness)
	r.log.Info("listening", "grpc", r.addr().GRPC, "http", r.addr().HTTP)
}

func (r *runner) serve(name string, serve func() error) {
	r.servers.Go(func() {
		err := serve()
		if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) && !r.draining.Load() {
			r.failed <- fmt.Errorf("serve %s: %w", name, err)
		}
	})
}

func runService(ctx context.Context, service Service) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fault.New(fault.Internal, "panic: %v", value)
		}
	}()
	return service.Run(ctx)
}

// abandon closes what a failed start has opened.
func (r *runner) abandon() error {
	r.endRequests()
	r.endLoops()
	var all []error
	for _, listener := range []net.Listener{r.grpcListener, r.httpListener} {
		if listener != nil {
			all = append(all, listener.Close())
		}
	}
	if r.gatewayConn != nil {
		all = append(all, r.gatewayConn.Close())
	}
	return errors.Join(all...)
}
