// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Counters are the pipeline's metrics. The zero value counts nothing.
type Counters struct {
	objects, rows, rejected, segments, bytes metric.Int64Counter
}

// NewCounters makes the counters of a meter.
func NewCounters(m metric.Meter) (Counters, error) {
	var c Counters
	for _, counter := range []struct {
		into              *metric.Int64Counter
		name, unit, about string
	}{
		{&c.objects, "lakerunner.ingest.objects", "{object}", "Source objects by the state of their receipts; 'retried' goes back to the queue."},
		{&c.rows, "lakerunner.ingest.rows", "{row}", "Rows written to segments that were handed to a commit."},
		{&c.rejected, "lakerunner.ingest.rejected_rows", "{row}", "Rows rejected, by reason."},
		{&c.segments, "lakerunner.ingest.segments", "{segment}", "Segments written."},
		{&c.bytes, "lakerunner.ingest.segment_bytes", "By", "Bytes of segments and sidecars written."},
	} {
		made, err := m.Int64Counter(counter.name, metric.WithUnit(counter.unit), metric.WithDescription(counter.about))
		if err != nil {
			return Counters{}, err
		}
		*counter.into = made
	}
	return c, nil
}

func (c Counters) object(state string) {
	add(c.objects, 1, attribute.String("state", state))
}

func (c Counters) outcome(o lake.Outcome) {
	c.object(string(o.State))
	add(c.rows, o.RowsOut)
	for reason, n := range o.Rejected {
		add(c.rejected, n, attribute.String("reason", reason))
	}
}

func (c Counters) segment(w written) {
	add(c.segments, 1)
	add(c.bytes, w.bytes+w.sidecarBytes)
}

func add(c metric.Int64Counter, n int64, attributes ...attribute.KeyValue) {
	if c != nil {
		c.Add(context.Background(), n, metric.WithAttributes(attributes...))
	}
}
