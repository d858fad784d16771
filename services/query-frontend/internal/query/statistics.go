// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
)

// Statistics says what an answer cost and how complete it is.
type Statistics struct {
	fan.Statistics
	Considered      int64 // segments that the index found
	BytesConsidered int64
	Returned        int64 // lines, or samples
	Duration        time.Duration
	Completeness    index.Completeness
	Partial         string // why the answer was cut; empty: it was not
	// Resolution is the coarsest of rollups that answered; zero: rows as they were received did.
	Resolution time.Duration
}

// Headers of HTTP answers that say how complete they are and what they cost.
const (
	HeaderCompleteness = "X-Lakerunner-Completeness"
	HeaderPartial      = "X-Lakerunner-Partial"
	HeaderStatistics   = "X-Lakerunner-Statistics"
	HeaderResolution   = "X-Lakerunner-Resolution"
)

// Headers returns the figures as values of HTTP headers.
func (s *Statistics) Headers() map[string]string {
	completeness := fmt.Sprintf("pending=%d, failed=%d", s.Completeness.Pending, s.Completeness.Failed)
	if s.Completeness.Pending > 0 && !s.Completeness.OldestPending.IsZero() {
		completeness += ", oldest_pending=" + s.Completeness.OldestPending.UTC().Format(time.RFC3339)
	}
	headers := map[string]string{
		HeaderCompleteness: completeness,
		HeaderStatistics: fmt.Sprintf(
			"segments_considered=%d, segments_pruned=%d, segments_read=%d, bytes_considered=%d, bytes_read=%d, bytes_fetched=%d, object_requests=%d, cache_hits=%d, rows_scanned=%d, retries=%d, seconds=%.4f",
			s.Considered, s.Pruned(), s.SegmentsRead, s.BytesConsidered, s.BytesRead, s.BytesFetched, s.ObjectRequests, s.CacheHits, s.RowsScanned, s.Retries, s.Duration.Seconds()),
	}
	if s.Resolution > 0 {
		headers[HeaderResolution] = model.Duration(s.Resolution).String()
	}
	if s.Partial != "" {
		headers[HeaderPartial] = s.Partial
	}
	return headers
}

// Pruned returns how many segments were not read because a time, catalogue or token filter ruled them out, or because enough was found.
func (s *Statistics) Pruned() int64 { return max(0, s.Considered-s.SegmentsRead) }

// Meters are the frontend's instruments.
type Meters struct {
	duration metric.Float64Histogram
	segments metric.Int64Counter
	bytes    metric.Int64Counter
	requests metric.Int64Counter
	retries  metric.Int64Counter
	hedges   metric.Int64Counter
	tails    metric.Int64UpDownCounter
}

// NewMeters makes the instruments. A nil meter makes them idle.
func NewMeters(meter metric.Meter) *Meters {
	if meter == nil {
		meter = noop.Meter{}
	}
	// Names and units are constant; making the instruments cannot fail.
	m := &Meters{}
	m.duration, _ = meter.Float64Histogram("lakerunner.query.duration", metric.WithUnit("s"), metric.WithDescription("Duration of queries by kind and outcome."))
	m.segments, _ = meter.Int64Counter("lakerunner.query.segments", metric.WithDescription("Segments by what became of them: considered, read."))
	m.bytes, _ = meter.Int64Counter("lakerunner.query.bytes", metric.WithUnit("By"), metric.WithDescription("Bytes of segments: considered, read, fetched from the object store."))
	m.requests, _ = meter.Int64Counter("lakerunner.query.object_requests", metric.WithDescription("Requests to the object store that queries caused."))
	m.retries, _ = meter.Int64Counter("lakerunner.query.retries", metric.WithDescription("Scans asked again of another worker."))
	m.hedges, _ = meter.Int64Counter("lakerunner.query.hedges", metric.WithDescription("Scans asked of a second worker because the first was slow."))
	m.tails, _ = meter.Int64UpDownCounter("lakerunner.query.tails", metric.WithDescription("Tails being followed."))
	return m
}

func (m *Meters) record(kind, outcome string, s Statistics) {
	ctx := context.Background() // the query's own may have ended
	m.duration.Record(ctx, s.Duration.Seconds(), metric.WithAttributes(attribute.String("kind", kind), attribute.String("outcome", outcome)))
	state := func(name string) metric.AddOption { return metric.WithAttributes(attribute.String("state", name)) }
	m.segments.Add(ctx, s.Considered, state("considered"))
	m.segments.Add(ctx, s.SegmentsRead, state("read"))
	m.bytes.Add(ctx, s.BytesConsidered, state("considered"))
	m.bytes.Add(ctx, s.BytesRead, state("read"))
	m.bytes.Add(ctx, s.BytesFetched, state("fetched"))
	m.requests.Add(ctx, s.ObjectRequests)
	m.retries.Add(ctx, s.Retries)
	m.hedges.Add(ctx, s.Hedges)
}
