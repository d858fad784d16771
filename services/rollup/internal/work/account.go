// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// Account tells where points went: In = Counted + Stale + Deduplicated + Masked + Deleted. Of finer rollups In is what their buckets count.
type Account struct {
	In, Counted, Stale, Deduplicated, Masked, Deleted int64
	// Written is what the buckets count that were written, Buckets how many these are, Series of how many rows.
	Written, Buckets, Series int64
}

// balanced checks that no point was lost or counted twice.
func (a *Account) balanced() error {
	left := a.Stale + a.Deduplicated + a.Masked + a.Deleted
	if a.In != a.Counted+left || a.Counted != a.Written {
		return fmt.Errorf("of %d points %d were counted, and %d left; the buckets written count %d", a.In, a.Counted, left, a.Written)
	}
	return nil
}

// Counters are the metrics of the work. The zero value counts nothing.
type Counters struct {
	windows, points, left, buckets, segments, bytesIn, bytesOut metric.Int64Counter
	missing, failures                                           metric.Int64Counter
}

// NewCounters makes the counters of a meter.
func NewCounters(m metric.Meter) (Counters, error) {
	var c Counters
	for _, counter := range []struct {
		into              *metric.Int64Counter
		name, unit, about string
	}{
		{&c.windows, "lakerunner.rollup.windows", "{window}", "Windows looked at, by signal, tier and action: none, roll, skip, wait, refuse, erase, drop."},
		{&c.points, "lakerunner.rollup.points", "{point}", "Points, or points of finer rollups, that went into rollups, by signal and tier."},
		{&c.left, "lakerunner.rollup.points_left", "{point}", "Points that are in no bucket, by reason: stale, deduplicated, masked, deleted."},
		{&c.buckets, "lakerunner.rollup.buckets", "{bucket}", "Buckets written, by signal and tier."},
		{&c.segments, "lakerunner.rollup.segments", "{segment}", "Segments written."},
		{&c.bytesIn, "lakerunner.rollup.bytes_in", "By", "Bytes of segments read, sidecars included."},
		{&c.bytesOut, "lakerunner.rollup.bytes_out", "By", "Bytes of segments and sidecars written."},
		{&c.missing, "lakerunner.rollup.missing_inputs", "{segment}", "Segments to be read whose files are missing."},
		{&c.failures, "lakerunner.rollup.conservation_failures", "{window}", "Rollups that did not add up, or whose inputs are not what the index says. Nothing was changed."},
	} {
		made, err := m.Int64Counter(counter.name, metric.WithUnit(counter.unit), metric.WithDescription(counter.about))
		if err != nil {
			return Counters{}, err
		}
		*counter.into = made
	}
	add(c.failures, 0) // so that an alert on its growth sees the first
	return c, nil
}

// tier are the attributes of a task; both have few values.
func tier(task lake.Task) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("signal", task.Signal.String()), attribute.String("tier", resolutionOf(task).String())}
}

func (c Counters) worked(action plan.Action, skipped bool, task lake.Task) {
	name := string(action)
	if skipped {
		name = "skip"
	}
	add(c.windows, 1, append(tier(task), attribute.String("action", name))...)
}

func (c Counters) made(task lake.Task, a *Account, read int64, added []lake.Segment) {
	add(c.points, a.In, tier(task)...)
	add(c.buckets, a.Buckets, tier(task)...)
	add(c.segments, int64(len(added)))
	add(c.bytesIn, read)
	for _, s := range added {
		add(c.bytesOut, s.Bytes+s.SidecarBytes)
	}
	for why, n := range map[string]int64{"stale": a.Stale, "deduplicated": a.Deduplicated, "masked": a.Masked, "deleted": a.Deleted} {
		if n > 0 {
			add(c.left, n, attribute.String("reason", why))
		}
	}
}

func (c Counters) miss()                { add(c.missing, 1) }
func (c Counters) conservationFailure() { add(c.failures, 1) }

func add(c metric.Int64Counter, n int64, attributes ...attribute.KeyValue) {
	if c != nil {
		c.Add(context.Background(), n, metric.WithAttributes(attributes...))
	}
}
