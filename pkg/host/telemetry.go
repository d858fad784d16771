// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// scopeName is how our instruments and spans are marked.
const scopeName = "github.com/lakerunner/lakerunner"

// Telemetry is what a process tells of itself: metrics that are scraped, and traces that are sent.
type Telemetry struct {
	Meter  metric.MeterProvider
	Tracer trace.TracerProvider

	gatherer prometheus.Gatherer
	shutdown []func(context.Context) error
}

// NewTelemetry sets metrics up, and traces where a receiver is configured.
func NewTelemetry(ctx context.Context, name string, c TelemetryConfig, environment map[string]string) (*Telemetry, error) {
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("set up metrics: %w", err)
	}
	described, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", name)), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("set up telemetry: %w", err)
	}
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(described))
	t := &Telemetry{
		Meter:  meter,
		Tracer: tracenoop.NewTracerProvider(),
		// Libraries that we run, Loki's among them, count in the default registry; so does the Go runtime.
		gatherer: prometheus.Gatherers{registry, prometheus.DefaultGatherer},
		shutdown: []func(context.Context) error{meter.Shutdown},
	}
	if c.OTLPEndpoint == "" && environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "" && environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] == "" {
		return t, nil
	}
	return t, t.sendTraces(ctx, c, described)
}

func (t *Telemetry) sendTraces(ctx context.Context, c TelemetryConfig, described *resource.Resource) error {
	var options []otlptracegrpc.Option
	if c.OTLPEndpoint != "" {
		options = append(options, otlptracegrpc.WithEndpointURL(c.OTLPEndpoint))
	}
	// The exporter connects when there is something to send: a receiver that is away hinders nothing.
	sender, err := otlptracegrpc.New(ctx, options...)
	if err != nil {
		return fmt.Errorf("set up traces: %w", err)
	}
	ratio := 1.0
	if c.SampleRatio != nil {
		ratio = *c.SampleRatio
	}
	tracer := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(sender), sdktrace.WithResource(described), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))))
	t.Tracer = tracer
	t.shutdown = append(t.shutdown, tracer.Shutdown)
	return nil
}

// quiet is telemetry that tells nothing.
func quiet() *Telemetry {
	return &Telemetry{Meter: metricnoop.NewMeterProvider(), Tracer: tracenoop.NewTracerProvider(), gatherer: prometheus.NewRegistry()}
}

// Handler serves the metrics.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError})
}

// Shutdown sends what is left.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var all []error
	for _, shutdown := range t.shutdown {
		all = append(all, shutdown(ctx))
	}
	return errors.Join(all...)
}
