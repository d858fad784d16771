// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// backlogInterval is how long a reading of the backlog serves, however often it is scraped.
	backlogInterval = 30 * time.Second
	// backlogRest is how many times as long as a reading took the next one waits at least: a process spends one hundredth of the
	// database's time on it at most, however long the backlog is.
	backlogRest = 100
	// backlogTimeout bounds a reading, so that a database that is away does not hold up a scrape.
	backlogTimeout = 5 * time.Second
)

// queue is whose backlog is summed up: all organizations' together, so that labels are bounded.
type queue struct {
	kind   lake.TaskKind
	signal lake.Signal
}

// gauges are the last reading of the backlog.
type gauges struct {
	index *Index
	tasks metric.Int64ObservableGauge
	bytes metric.Int64ObservableGauge
	age   metric.Float64ObservableGauge
	dead  metric.Int64ObservableGauge

	mu     sync.Mutex
	queues map[queue]Backlog // those that were seen once stay, with zeros
	readAt time.Time
	now    time.Time // on the database's clock, of the reading
	next   time.Time
}

func (x *Index) instrumentBacklog(meter metric.Meter) error {
	g := &gauges{index: x, queues: map[queue]Backlog{{lake.TaskIngest, lake.SignalUnknown}: {}}}
	var errs [4]error
	g.tasks, errs[0] = meter.Int64ObservableGauge("lakerunner.index.backlog_tasks", metric.WithUnit("{task}"),
		metric.WithDescription("Tasks that wait or are being worked on."))
	g.bytes, errs[1] = meter.Int64ObservableGauge("lakerunner.index.backlog_bytes", metric.WithUnit("By"),
		metric.WithDescription("What the tasks of the backlog weigh."))
	g.age, errs[2] = meter.Float64ObservableGauge("lakerunner.index.backlog_oldest", metric.WithUnit("s"),
		metric.WithDescription("How long the oldest waiting task has waited; 0: none waits."))
	g.dead, errs[3] = meter.Int64ObservableGauge("lakerunner.index.buried_tasks", metric.WithUnit("{task}"),
		metric.WithDescription("Tasks that failed too often and wait for a replay."))
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	_, err := meter.RegisterCallback(g.observe, g.tasks, g.bytes, g.age, g.dead)
	return err
}

// observe tells of the last reading, or of a new one when that is old. While there is none it tells nothing: that the reading
// failed shows in the durations of the verb "backlog".
func (g *gauges) observe(ctx context.Context, o metric.Observer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !time.Now().Before(g.next) {
		g.read(ctx)
	}
	if g.readAt.IsZero() {
		return nil
	}
	for q, b := range g.queues {
		labels := metric.WithAttributes(attribute.String("kind", string(q.kind)), attribute.String("signal", q.signal.String()))
		o.ObserveInt64(g.tasks, b.Tasks, labels)
		o.ObserveInt64(g.bytes, b.Bytes, labels)
		o.ObserveInt64(g.dead, b.Buried, labels)
		o.ObserveFloat64(g.age, g.waited(b).Seconds(), labels)
	}
	return nil
}

// waited is how long a queue's oldest task has waited by now.
func (g *gauges) waited(b Backlog) time.Duration {
	if b.Oldest.IsZero() {
		return 0
	}
	return max(0, g.now.Sub(b.Oldest)+time.Since(g.readAt))
}

func (g *gauges) read(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
	defer cancel()
	began := time.Now()
	err := g.sumUp(ctx)
	g.next = time.Now().Add(max(backlogInterval, backlogRest*time.Since(began)))
	if err != nil {
		g.readAt = time.Time{}
	}
}

func (g *gauges) sumUp(ctx context.Context) error {
	all, err := g.index.Backlog(ctx)
	if err != nil {
		return err
	}
	if g.now, err = g.index.Now(ctx); err != nil {
		return err
	}
	g.readAt = time.Now()
	for q := range g.queues {
		g.queues[q] = Backlog{}
	}
	for _, b := range all {
		q := queue{b.Kind, b.Signal}
		sum := g.queues[q]
		sum.Tasks += b.Tasks
		sum.Bytes += b.Bytes
		sum.Buried += b.Buried
		if sum.Oldest.IsZero() || !b.Oldest.IsZero() && b.Oldest.Before(sum.Oldest) {
			sum.Oldest = b.Oldest
		}
		g.queues[q] = sum
	}
	return nil
}
