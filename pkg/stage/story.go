// SPDX-License-Identifier: AGPL-3.0-only

package stage

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// outcome is how a lease ended for its worker.
type outcome string

const (
	committed outcome = "committed"
	released  outcome = "released"
	lost      outcome = "lost"
)

// metrics are labelled by kind of task and outcome alone:
//
//   - lakerunner.stage.leases: leases that ended, by kind and outcome.
//   - lakerunner.stage.duration: seconds from claim to end, by kind and outcome.
//   - lakerunner.stage.tasks, lakerunner.stage.bytes: what they weighed, by kind and outcome.
//   - lakerunner.stage.age: seconds that the oldest task of a lease had waited when it was claimed, by kind.
//   - lakerunner.stage.busy: leases being worked on, by kind.
type metrics struct {
	kind     attribute.KeyValue
	leases   metric.Int64Counter
	duration metric.Float64Histogram
	tasks    metric.Int64Counter
	bytes    metric.Int64Counter
	age      metric.Float64Histogram
	busy     metric.Int64UpDownCounter
}

func newMetrics(meter metric.Meter, kind lake.TaskKind) (*metrics, error) {
	m := &metrics{kind: attribute.String("kind", string(kind))}
	seconds := metric.WithExplicitBucketBoundaries(.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
	var errs [6]error
	m.leases, errs[0] = meter.Int64Counter("lakerunner.stage.leases", metric.WithDescription("Leases that ended."))
	m.duration, errs[1] = meter.Float64Histogram("lakerunner.stage.duration", metric.WithUnit("s"), seconds,
		metric.WithDescription("Time from claim to end of a lease."))
	m.tasks, errs[2] = meter.Int64Counter("lakerunner.stage.tasks", metric.WithDescription("Tasks of leases that ended."))
	m.bytes, errs[3] = meter.Int64Counter("lakerunner.stage.bytes", metric.WithUnit("By"), metric.WithDescription("Bytes of leases that ended."))
	m.age, errs[4] = meter.Float64Histogram("lakerunner.stage.age", metric.WithUnit("s"), seconds,
		metric.WithDescription("How long the oldest task of a lease had waited."))
	m.busy, errs[5] = meter.Int64UpDownCounter("lakerunner.stage.busy", metric.WithDescription("Leases being worked on."))
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// story is what is told of one lease.
type story struct {
	metrics *metrics
	lease   *lake.Lease
	began   time.Time
	edit    lake.Edit
	outcome outcome
	err     error
}

func (m *metrics) begin(lease *lake.Lease) *story {
	s := &story{metrics: m, lease: lease, began: time.Now()}
	labels := metric.WithAttributes(m.kind)
	m.busy.Add(context.Background(), 1, labels)
	m.age.Record(context.Background(), s.waited().Seconds(), labels)
	return s
}

func (s *story) worked(edit lake.Edit, err error) { s.edit, s.err = edit, err }

func (s *story) end(how outcome, err error) { s.outcome, s.err = how, err }

// tell writes the wide line and the metrics.
func (s *story) tell(ctx context.Context, log *slog.Logger) {
	took := time.Since(s.began)
	m, labels := s.metrics, metric.WithAttributes(s.metrics.kind, attribute.String("outcome", string(s.outcome)))
	m.busy.Add(ctx, -1, metric.WithAttributes(m.kind))
	m.leases.Add(ctx, 1, labels)
	m.duration.Record(ctx, took.Seconds(), labels)
	m.tasks.Add(ctx, int64(len(s.lease.Tasks)), labels)
	m.bytes.Add(ctx, s.bytes(), labels)

	level, line := slog.LevelInfo, s.line(took)
	if s.err != nil {
		level = slog.LevelWarn
		line = append(line, slog.String("fault", string(fault.KindOf(s.err))), slog.Any("error", s.err))
	}
	log.LogAttrs(ctx, level, "lease "+string(s.outcome), line...)
}

func (s *story) line(took time.Duration) []slog.Attr {
	var rows, rejected int64
	states := make(map[lake.ReceiptState]int)
	for _, segment := range s.edit.Add {
		rows += segment.Rows
	}
	for _, o := range s.edit.Outcomes {
		states[o.State]++
		rejected += o.RowsIn - o.RowsOut
	}
	return []slog.Attr{
		slog.String("kind", string(s.lease.Kind)),
		slog.String("organization", string(s.lease.Organization)),
		slog.String("lease", string(s.lease.ID)),
		slog.Int("tasks", len(s.lease.Tasks)),
		slog.Int64("bytes", s.bytes()),
		slog.Duration("waited", s.waited()),
		slog.Duration("took", took),
		slog.Int("added", len(s.edit.Add)),
		slog.Int("removed", len(s.edit.Remove)),
		slog.Int64("rows", rows),
		slog.Int64("rejected", rejected),
		slog.Int("done", states[lake.ReceiptDone]),
		slog.Int("skipped", states[lake.ReceiptSkipped]),
		slog.Int("failed", states[lake.ReceiptFailed]),
		slog.Int("retried", len(s.edit.Retry)),
	}
}

func (s *story) bytes() int64 {
	var n int64
	for _, t := range s.lease.Tasks {
		n += t.Bytes
	}
	return n
}

// waited is how long the oldest task had waited when it was claimed, on the database's clock.
func (s *story) waited() time.Duration {
	var waited time.Duration
	for _, t := range s.lease.Tasks {
		waited = max(waited, s.lease.ClaimedAt.Sub(t.CreatedAt))
	}
	return waited
}
