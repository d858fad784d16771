// SPDX-License-Identifier: AGPL-3.0-only

package reconcile

import (
	"context"

	"go.opentelemetry.io/otel/metric"
)

// Counters count what is found. The zero value counts nothing.
type Counters struct{ objects metric.Int64Counter }

// NewCounters makes the counters.
func NewCounters(meter metric.Meter) (Counters, error) {
	objects, err := meter.Int64Counter("lakerunner.janitor.missed_objects", metric.WithUnit("{object}"),
		metric.WithDescription("Source objects that were found without a receipt."))
	c := Counters{objects: objects}
	c.missed(context.Background(), 0) // so that an alert on its growth sees the first
	return c, err
}

func (c Counters) missed(ctx context.Context, n int) {
	if c.objects != nil {
		c.objects.Add(ctx, int64(n))
	}
}
