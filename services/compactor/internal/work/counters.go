// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// Counters are the metrics of the work. The zero value counts nothing.
type Counters struct {
	merges, bytesIn, bytesOut, rowsIn, rowsLeft, segmentsIn, segmentsOut metric.Int64Counter
	marks, missing, skipped, failures                                    metric.Int64Counter
}

// NewCounters makes the counters of a meter.
func NewCounters(m metric.Meter) (Counters, error) {
	var c Counters
	for _, counter := range []struct {
		into              *metric.Int64Counter
		name, unit, about string
	}{
		{&c.merges, "lakerunner.compactor.merges", "{merge}", "Merges that were handed to a commit, by reason."},
		{&c.bytesIn, "lakerunner.compactor.bytes_in", "By", "Bytes of segments merged, sidecars not included."},
		{&c.bytesOut, "lakerunner.compactor.bytes_out", "By", "Bytes of segments and sidecars written."},
		{&c.rowsIn, "lakerunner.compactor.rows_in", "{row}", "Rows of segments merged."},
		{&c.rowsLeft, "lakerunner.compactor.rows_left", "{row}", "Rows that were left out, by reason: deduplicated, masked, deleted, expired."},
		{&c.segmentsIn, "lakerunner.compactor.segments_in", "{segment}", "Segments merged."},
		{&c.segmentsOut, "lakerunner.compactor.segments_out", "{segment}", "Segments written."},
		{&c.marks, "lakerunner.compactor.marks", "{segment}", "Segments in which deletes and rules found nothing, and which were not rewritten."},
		{&c.missing, "lakerunner.compactor.missing_inputs", "{segment}", "Segments to be merged whose files are missing."},
		{&c.skipped, "lakerunner.compactor.skipped_merges", "{merge}", "Merges that would have exceeded memory or scratch, by reason."},
		{&c.failures, "lakerunner.compactor.conservation_failures", "{merge}", "Merges whose rows did not add up, or whose inputs are not what the index says. Nothing was changed."},
	} {
		made, err := m.Int64Counter(counter.name, metric.WithUnit(counter.unit), metric.WithDescription(counter.about))
		if err != nil {
			return Counters{}, err
		}
		*counter.into = made
	}
	add(c.failures, 0) // so that an alert on its growth sees the first
	add(c.skipped, 0, attribute.String("reason", string(plan.ReasonDeletes)))
	return c, nil
}

func (c Counters) merged(reason plan.Reason, inputs []input, added []lake.Segment, a Account) {
	add(c.merges, 1, attribute.String("reason", string(reason)))
	for _, in := range inputs {
		add(c.bytesIn, in.segment.Bytes)
	}
	for _, s := range added {
		add(c.bytesOut, s.Bytes+s.SidecarBytes)
	}
	add(c.rowsIn, a.In)
	add(c.segmentsIn, int64(len(inputs)))
	add(c.segmentsOut, int64(len(added)))
	for why, n := range map[string]int64{"deduplicated": a.Deduplicated, "masked": a.Masked, "deleted": a.Deleted, "expired": a.Expired} {
		if n > 0 {
			add(c.rowsLeft, n, attribute.String("reason", why))
		}
	}
}

func (c Counters) mark()      { add(c.marks, 1) }
func (c Counters) miss(n int) { add(c.missing, int64(n)) }
func (c Counters) skip(reason plan.Reason) {
	add(c.skipped, 1, attribute.String("reason", string(reason)))
}
func (c Counters) conservationFailure() { add(c.failures, 1) }

func add(c metric.Int64Counter, n int64, attributes ...attribute.KeyValue) {
	if c != nil {
		c.Add(context.Background(), n, metric.WithAttributes(attributes...))
	}
}
