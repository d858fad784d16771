// SPDX-License-Identifier: AGPL-3.0-only

package intake

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Meter makes instruments.
type Meter = metric.Meter

type metrics struct {
	notices  metric.Int64Counter
	failures metric.Int64Counter
}

func newMetrics(meter Meter) metrics {
	// The names are constant and valid; creating the instruments cannot fail.
	notices, _ := meter.Int64Counter("lakerunner.notifier.notices", metric.WithDescription("Notices taken, by door and outcome."))
	failures, _ := meter.Int64Counter("lakerunner.notifier.failures", metric.WithDescription("Groups of notices that could not be taken, by door and cause."))
	return metrics{notices: notices, failures: failures}
}

func (m metrics) took(ctx context.Context, door string, taken []Taken, err error) {
	from := attribute.String("door", door)
	if err != nil {
		m.failures.Add(ctx, 1, metric.WithAttributes(from, attribute.String("cause", string(fault.KindOf(err)))))
		return
	}
	counts := map[Outcome]int64{}
	for _, t := range taken {
		counts[t.Outcome]++
	}
	for outcome, n := range counts {
		m.notices.Add(ctx, n, metric.WithAttributes(from, attribute.String("outcome", string(outcome))))
	}
}
