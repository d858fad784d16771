// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Mux routes HTTP requests to handlers behind doors. Its patterns are those of http.ServeMux.
type Mux struct {
	mux      *http.ServeMux
	door     *door
	log      *slog.Logger
	tracer   trace.Tracer
	duration metric.Float64Histogram
}

// NewMux returns a mux that admits by the keys of source: for tests of one service's handlers. Run makes its own.
func NewMux(source config.Source, log *slog.Logger) *Mux {
	return newMux(newDoor(source, config.NewSecret()), log, quiet())
}

func newMux(d *door, log *slog.Logger, t *Telemetry) *Mux {
	if log == nil {
		log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	// The instrument's name and unit are constant; creating it cannot fail.
	duration, _ := t.Meter.Meter(scopeName).Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Duration of HTTP requests by route."))
	return &Mux{mux: http.NewServeMux(), door: d, log: log, tracer: t.Tracer.Tracer(scopeName), duration: duration}
}

// Handle registers a handler for a pattern. Requests without a key of that scope are refused; the others bring a config.Identity in
// their context. A panic is answered with 500. Each request is logged in one line.
func (m *Mux) Handle(pattern string, scope config.Scope, h http.Handler) {
	m.mux.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := m.tracer.Start(ctx, pattern, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		ctx, line := withLine(ctx)
		r = r.WithContext(ctx)
		recorder := &recorder{ResponseWriter: w}
		start := time.Now()
		defer func() { m.finish(recorder, r, pattern, line, time.Since(start)) }()
		defer m.recover(recorder, line)
		identity, err := m.door.admit(scope, claimsOfHTTP(r.Header))
		if err != nil {
			line.fail(err)
			fault.WriteHTTP(recorder, err)
			return
		}
		line.identity(identity)
		if scope != config.ScopeOpen {
			r = r.WithContext(config.WithIdentity(ctx, identity))
		}
		h.ServeHTTP(recorder, r)
	}))
}

// handleQuietly registers a handler of the process itself: open, and not worth a line.
func (m *Mux) handleQuietly(pattern string, h http.HandlerFunc) { m.mux.HandleFunc(pattern, h) }

// ServeHTTP answers a request.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

func (m *Mux) recover(w *recorder, line *line) {
	value := recover()
	if value == nil {
		return
	}
	// The server's own way to break a connection off.
	if abort, ok := value.(error); ok && errors.Is(abort, http.ErrAbortHandler) {
		panic(value)
	}
	err := fault.New(fault.Internal, "panic: %v", value)
	line.fail(err)
	line.add(slog.String("stack", string(debug.Stack())))
	if w.status == 0 {
		fault.WriteHTTP(w, fault.New(fault.Internal, "internal error"))
	}
}

func (m *Mux) finish(w *recorder, r *http.Request, pattern string, line *line, took time.Duration) {
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	m.duration.Record(r.Context(), took.Seconds(), metric.WithAttributes(
		attribute.String("http.route", pattern), attribute.String("http.request.method", methodOf(r)), attribute.Int("http.response.status_code", status)))
	level := slog.LevelInfo
	if status >= http.StatusInternalServerError {
		level = slog.LevelError
		trace.SpanFromContext(r.Context()).SetStatus(codes.Error, http.StatusText(status))
	}
	line.write(r.Context(), m.log, level, "http",
		slog.String("method", r.Method), slog.String("route", pattern), slog.Int("status", status),
		slog.Int64("bytes", w.bytes), slog.Duration("duration", took), slog.String("peer", r.RemoteAddr))
}

// methodOf bounds the label: clients may send any word as a method.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return r.Method
	}
	return "_OTHER"
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Flush lets handlers stream.
func (w *recorder) Flush() {
	// A writer that cannot flush does so at the end.
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the connection, which websockets take over.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
