// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// receiver is an OTLP receiver that remembers the names of spans.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	names chan string
}

func (r *receiver) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				r.names <- span.GetName()
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTelemetry(t *testing.T) {
	t.Parallel()
	t.Run("metrics are served in the words of Prometheus", func(t *testing.T) {
		t.Parallel()
		telemetry, err := NewTelemetry(t.Context(), "test", TelemetryConfig{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		counter, err := telemetry.Meter.Meter(scopeName).Int64Counter("lakerunner.objects", metric.WithUnit("{object}"))
		if err != nil {
			t.Fatal(err)
		}
		counter.Add(t.Context(), 3)
		w := httptest.NewRecorder()
		telemetry.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		for _, part := range []string{"lakerunner_objects_total{", "} 3\n", "go_goroutines "} {
			if !strings.Contains(w.Body.String(), part) {
				t.Errorf("%q is missing in\n%.2000s", part, w.Body.String())
			}
		}
		if err := telemetry.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("spans go to the receiver that is configured, and nowhere else", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, r, done := grpc.NewServer(), &receiver{names: make(chan string, 10)}, make(chan error, 1)
		collector.RegisterTraceServiceServer(server, r)
		go func() { done <- server.Serve(listener) }()
		defer func() {
			server.Stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		for _, c := range []TelemetryConfig{{}, {OTLPEndpoint: "http://" + listener.Addr().String()}} {
			telemetry, err := NewTelemetry(t.Context(), "test", c, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, span := telemetry.Tracer.Tracer(scopeName).Start(t.Context(), "to "+c.OTLPEndpoint)
			span.End()
			if err := telemetry.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if got := <-r.names; got != "to http://"+listener.Addr().String() {
			t.Errorf("got %s", got)
		}
		if len(r.names) != 0 {
			t.Errorf("got %s too", <-r.names)
		}
	})
}
