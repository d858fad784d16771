// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// observer is told of the beginning of a verb, and returns what is to be called at its end.
type observer func(verb string, err *error) func()

func unobserved(string, *error) func() { return func() {} }

// Instrumented returns the same index with metrics. Their labels are bounded, never an organization:
//
//   - lakerunner.index.duration: seconds of each verb, by verb and outcome (the kind of error).
//   - lakerunner.index.connections: connections to the database, by state.
//   - lakerunner.index.backlog_tasks, lakerunner.index.backlog_bytes: waiting work and work under way, by kind and signal.
//   - lakerunner.index.backlog_oldest: seconds that the oldest waiting task has waited, by kind and signal.
//   - lakerunner.index.buried_tasks: tasks that failed too often, by kind and signal.
//
// The last four are the whole deployment's, whichever process tells them. They are read every half minute at most, and only when
// somebody scrapes.
func Instrumented(x *Index, meter metric.Meter) (*Index, error) {
	durations, err := meter.Float64Histogram("lakerunner.index.duration", metric.WithUnit("s"),
		metric.WithDescription("How long the index's verbs take."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10))
	if err != nil {
		return nil, fmt.Errorf("instrument the index: %w", err)
	}
	if err := x.instrumentPool(meter); err != nil {
		return nil, fmt.Errorf("instrument the index: %w", err)
	}
	instrumented := *x
	instrumented.observe = func(verb string, failure *error) func() {
		began := time.Now()
		return func() {
			durations.Record(context.Background(), time.Since(began).Seconds(), metric.WithAttributes(
				attribute.String("verb", verb), attribute.String("outcome", outcome(*failure))))
		}
	}
	if err := instrumented.instrumentBacklog(meter); err != nil {
		return nil, fmt.Errorf("instrument the index: %w", err)
	}
	return &instrumented, nil
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return string(fault.KindOf(err))
}

func (x *Index) instrumentPool(meter metric.Meter) error {
	_, err := meter.Int64ObservableGauge("lakerunner.index.connections",
		metric.WithDescription("Connections to the index's database."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			stat := x.pool.Stat()
			o.Observe(int64(stat.AcquiredConns()), metric.WithAttributes(attribute.String("state", "busy")))
			o.Observe(int64(stat.IdleConns()), metric.WithAttributes(attribute.String("state", "idle")))
			o.Observe(int64(stat.MaxConns()), metric.WithAttributes(attribute.String("state", "limit")))
			return nil
		}))
	return err
}
