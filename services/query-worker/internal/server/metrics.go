// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/admission"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// Metrics are the worker's instruments.
type Metrics struct {
	duration metric.Float64Histogram
	segments metric.Int64Counter
	fetched  metric.Int64Counter
	requests metric.Int64Counter
	lookups  metric.Int64Counter
	samples  metric.Int64Counter
}

// NewMetrics makes the instruments; gate and state are asked whenever metrics are read.
func NewMetrics(meter metric.Meter, gate *admission.Gate, state func() cache.State) (*Metrics, error) {
	m := &Metrics{}
	var errs [9]error
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
	m.samples, errs[8] = meter.Int64Counter("worker.samples", metric.WithDescription("Metric samples that were read."))
	return m, errors.Join(errs[:]...)
}

func (m *Metrics) finished(ctx context.Context, fragment string, s *workerv1.ScanStatistics, err error, took time.Duration) {
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
	add(m.segments, s.GetSegmentsRead(), "outcome", "read")
	add(m.segments, s.GetSegmentsPruned(), "outcome", "pruned")
	add(m.lookups, s.GetCacheHits(), "outcome", "hit")
	add(m.lookups, s.GetCacheMisses(), "outcome", "miss")
	m.fetched.Add(ctx, s.GetBytesFetched())
	m.requests.Add(ctx, s.GetObjectRequests())
	m.samples.Add(ctx, s.GetSamplesRead())
}
