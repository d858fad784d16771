// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/rollup/internal/debt"
)

// lag says how far rollups are behind: of the organizations together, so that its labels are few.
type lag struct{ seconds, windows metric.Int64Gauge }

func newLag(m metric.Meter) (l lag, err error) {
	l.seconds, err = m.Int64Gauge("lakerunner.rollup.lag", metric.WithUnit("s"),
		metric.WithDescription("How long ago the oldest window became due whose rollup is not current, by signal and tier, of all organizations."))
	if err != nil {
		return l, err
	}
	l.windows, err = m.Int64Gauge("lakerunner.rollup.debt", metric.WithUnit("{window}"),
		metric.WithDescription("Windows that are due and whose rollup is not current, by signal and tier, of all organizations."))
	return l, err
}

func (l lag) record(ctx context.Context, tiers []debt.Tier) {
	type place struct {
		signal     lake.Signal
		resolution time.Duration
	}
	type total struct{ seconds, windows int64 }
	totals := map[place]total{}
	for _, t := range tiers {
		at := place{t.Signal, t.Resolution}
		totals[at] = total{max(totals[at].seconds, int64(t.Lag/time.Second)), totals[at].windows + t.Count}
	}
	for at, t := range totals {
		of := metric.WithAttributes(attribute.String("signal", at.signal.String()), attribute.String("tier", at.resolution.String()))
		l.seconds.Record(ctx, t.seconds, of)
		l.windows.Record(ctx, t.windows, of)
	}
}
