// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/admission"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/scan"
)

// Metrics are the worker's instruments.
type Metrics struct {
	duration metric.Float64Histogram
	segments metric.Int64Counter
	fetched  metric.Int64Counter
	requests metric.Int64Counter
	lookups  metric.Int64Counter
}

// NewMetrics makes the instruments; gate and state are asked whenever metrics are read.
func NewMetrics(meter metric.Meter, gate *admission.Gate, state func() cache.State) (*Metrics, error) {
	m := &Metrics{}
	var errs [8]error
	m.duration, errs[0] = meter.Float64Histogram("worker.scan.duration", metric.WithUnit("s"), metric.WithDescription("Duration of scans by fragment and outcome, time in the queue included."))
	m.segments, errs[1] = meter.Int64Counter("worker.segments", metric.WithDescription("Segments of scans, read or pruned."))
	m.fetched, errs[2] = meter.Int64Counter("worker.fetched", metric.WithUnit("By"), metric.WithDescription("Bytes read from the object store."))
	m.requests, errs[3] = meter.Int64Counter("worker.requests", metric.WithDescription("Requests to the object store."))
	m.lookups, errs[4] = meter.Int64Counter("worker.cache.lookups", metric.WithDescription("Files asked of the cache, hit or miss."))
	_, errs[5] = meter.Int64ObservableGauge("worker.cache.size", metric.WithUnit("By"), metric.WithDescription("Bytes in the cache."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error { o.Observe(state().Bytes); return nil }))
	_, errs[6] = meter.Int64ObservableGauge("worker.scans.running", metric.WithDescription("Scans that run."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			r, _ := gate.Load()
			o.Observe(int64(r))
			return nil
		}))
	_, errs[7] = meter.Int64ObservableGauge("worker.scans.waiting", metric.WithDescription("Scans that wait."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			_, w := gate.Load()
			o.Observe(int64(w))
			return nil
		}))
	return m, errors.Join(errs[:]...)
}

func (m *Metrics) finished(ctx context.Context, fragment string, s *scan.Statistics, err error, took time.Duration) {
	ctx = context.WithoutCancel(ctx)
	outcome := "ok"
	if err != nil {
		outcome = string(fault.KindOf(err))
	}
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributes(attribute.String("fragment", fragment), attribute.String("outcome", outcome)))
	if s == nil {
		return
	}
	add := func(c metric.Int64Counter, n int64, name, value string) {
		c.Add(ctx, n, metric.WithAttributes(attribute.String(name, value)))
	}
	add(m.segments, s.Read.Load(), "outcome", "read")
	add(m.segments, s.Pruned.Load(), "outcome", "pruned")
	add(m.lookups, s.Cache.Hits(), "outcome", "hit")
	add(m.lookups, s.Cache.Misses(), "outcome", "miss")
	m.fetched.Add(ctx, s.Cache.Bytes())
	m.requests.Add(ctx, s.Cache.Requests())
}
