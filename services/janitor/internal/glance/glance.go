// SPDX-License-Identifier: AGPL-3.0-only

// Package glance exports the figures of GetStatus as metrics, one set an organization, for dashboards and alerts.
//
// The status is read at most every half minute, however often the metrics are scraped; while it cannot be read nothing is told.
package glance

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

const (
	interval = 30 * time.Second
	timeout  = 10 * time.Second
)

// Read returns the status of all organizations.
type Read func(ctx context.Context) ([]*janitorv1.OrganizationStatus, error)

// figure is one metric of an organization. step tells apart those that share a name.
type figure struct {
	name, unit, about, step string
	of                      func(o *janitorv1.OrganizationStatus) float64
}

func figures() []figure {
	type status = *janitorv1.OrganizationStatus
	const proof = "Segments of the newest run of retention: due, removed from the index, deleted from the bucket, seen to be gone."
	return []figure{
		{"lakerunner.janitor.segments", "{segment}", "Live segments.", "", func(o status) float64 { return float64(o.GetSegments().GetSegments()) }},
		{"lakerunner.janitor.segment_bytes", "By", "Bytes of live segments, sidecars included.", "", func(o status) float64 { return float64(o.GetSegments().GetBytes()) }},
		{"lakerunner.janitor.segment_rows", "{row}", "Rows of live segments.", "", func(o status) float64 { return float64(o.GetSegments().GetRows()) }},
		{"lakerunner.janitor.debt_segments", "{segment}", "Segments of level 0: what compaction owes.", "", func(o status) float64 { return float64(o.GetDebt().GetSegments()) }},
		{"lakerunner.janitor.debt_bytes", "By", "Bytes of segments of level 0.", "", func(o status) float64 { return float64(o.GetDebt().GetBytes()) }},
		{"lakerunner.janitor.ingest_lag", "s", "How long the oldest object that waits to be ingested has waited; 0: none waits.", "", func(o status) float64 { return o.GetIngestLag().AsDuration().Seconds() }},
		{"lakerunner.janitor.failed_objects", "{object}", "Objects that could not be ingested, counted up to 1,000.", "", func(o status) float64 { return float64(o.GetReceipts()["failed"]) }},
		{"lakerunner.janitor.buried_tasks", "{task}", "Tasks that failed too often.", "", buried},
		{"lakerunner.janitor.compared_objects", "{object}", "Objects of the last 24 hours that were compared with the receipts.", "", func(o status) float64 { return float64(o.GetComparedObjects()) }},
		{"lakerunner.janitor.known_objects", "{object}", "Those of them that had a receipt.", "", func(o status) float64 { return float64(o.GetKnownObjects()) }},
		{"lakerunner.janitor.abandoned_leases", "{lease}", "Leases that ended without a commit and whose files have not been swept.", "", func(o status) float64 { return float64(o.GetAbandonedLeases()) }},
		{"lakerunner.janitor.missing_segments", "{segment}", "Live segments whose file is gone.", "", func(o status) float64 { return float64(o.GetMissing()) }},
		{"lakerunner.janitor.removed_segments", "{segment}", "Removed segments that wait for their grace.", "", func(o status) float64 { return float64(o.GetRemoved().GetSegments()) }},
		{"lakerunner.janitor.records_to_ship", "{record}", "Commit records that are not in the bucket yet.", "", func(o status) float64 { return float64(o.GetRecordsToShip()) }},
		{"lakerunner.janitor.snapshot_time", "s", "When the last snapshot of the index was written, in seconds since 1970; 0: never.", "", snapshotTime},
		{"lakerunner.janitor.retention_segments", "{segment}", proof, "due", func(o status) float64 { return float64(o.GetLastRetention().GetDue().GetSegments()) }},
		{"lakerunner.janitor.retention_segments", "{segment}", proof, "removed", func(o status) float64 { return float64(o.GetLastRetention().GetRemoved().GetSegments()) }},
		{"lakerunner.janitor.retention_segments", "{segment}", proof, "deleted", func(o status) float64 { return float64(o.GetLastRetention().GetDeleted().GetSegments()) }},
		{"lakerunner.janitor.retention_segments", "{segment}", proof, "verified", func(o status) float64 { return float64(o.GetLastRetention().GetVerified().GetSegments()) }},
		{"lakerunner.janitor.deletes_under_way", "{delete}", "Deletes of data that are not done.", "", func(o status) float64 { return float64(o.GetDeletesUnderWay()) }},
		{"lakerunner.janitor.raw_bytes", "By", "Bytes of ingested source objects that are kept.", "", func(o status) float64 { return float64(o.GetRawBytes()) }},
		{"lakerunner.janitor.price", "USD", "US dollars a month, by the configured prices.", "", func(o status) float64 { return o.GetDollarsPerMonth() }},
	}
}

func buried(o *janitorv1.OrganizationStatus) (n float64) {
	for _, tasks := range o.GetBuried() {
		n += float64(tasks)
	}
	return n
}

func snapshotTime(o *janitorv1.OrganizationStatus) float64 {
	if o.GetLastSnapshot() == nil {
		return 0
	}
	return float64(o.GetLastSnapshot().AsTime().Unix())
}

// Register exports the figures.
func Register(meter metric.Meter, read Read) error {
	g := &glance{read: read, gauges: map[string]metric.Float64ObservableGauge{}}
	var instruments []metric.Observable
	for _, f := range figures() {
		if _, made := g.gauges[f.name]; made {
			continue
		}
		gauge, err := meter.Float64ObservableGauge(f.name, metric.WithUnit(f.unit), metric.WithDescription(f.about))
		if err != nil {
			return err
		}
		g.gauges[f.name] = gauge
		instruments = append(instruments, gauge)
	}
	_, err := meter.RegisterCallback(g.observe, instruments...)
	return err
}

// glance is the last reading.
type glance struct {
	read   Read
	gauges map[string]metric.Float64ObservableGauge

	mu     sync.Mutex
	status []*janitorv1.OrganizationStatus // nil: the last reading failed
	next   time.Time
}

func (g *glance) observe(ctx context.Context, o metric.Observer) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !time.Now().Before(g.next) {
		g.refresh(ctx)
	}
	for _, status := range g.status {
		for _, f := range figures() {
			labels := []attribute.KeyValue{attribute.String("organization", status.GetOrganization())}
			if f.step != "" {
				labels = append(labels, attribute.String("step", f.step))
			}
			o.ObserveFloat64(g.gauges[f.name], f.of(status), metric.WithAttributes(labels...))
		}
	}
	return nil
}

func (g *glance) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	g.next = time.Now().Add(interval)
	var err error
	if g.status, err = g.read(ctx); err != nil {
		g.status = nil
	}
}
