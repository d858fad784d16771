// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
	"github.com/lakerunner/lakerunner/services/rollup/internal/work"
)

const org = lake.Organization("acme")

// fixture is a lake of one organization with a worker on it.
type fixture struct {
	t       *testing.T
	index   *index.Index
	bucket  objects.Bucket
	worker  *work.Worker
	scratch string
	metrics *metric.ManualReader
	// counters are all workers'.
	counters work.Counters
	// start is that of a day long past.
	start   time.Time
	objects int
	// at is called at each checkpoint.
	at func(name string)
	// truth are the points that rollups are to be made of.
	truth []point
}

// point is a point in brief.
type point struct {
	series string // "name/pod"
	at     time.Time
	value  float64
	source lake.ReceiptID
}

func newFixture(t *testing.T, settings string, change ...func(*work.Config)) *fixture {
	t.Helper()
	return newFixtureOn(t, objectstest.Memory(t), settings, change...)
}

func newFixtureOn(t *testing.T, bucket objects.Bucket, settings string, change ...func(*work.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, index: indextest.New(t), bucket: bucket, scratch: t.TempDir(), metrics: metric.NewManualReader(), at: func(string) {}}
	f.start = lake.WindowOf(time.Now().Add(-100*24*time.Hour), 24*time.Hour).Start
	var err error
	if f.counters, err = work.NewCounters(metric.NewMeterProvider(metric.WithReader(f.metrics)).Meter("test")); err != nil {
		t.Fatal(err)
	}
	f.worker = f.newWorker(settings, change...)
	return f
}

func (f *fixture) newWorker(settings string, change ...func(*work.Config)) *work.Worker {
	f.t.Helper()
	source, err := config.Static("organizations:\n  - id: acme\n" + settings)
	if err != nil {
		f.t.Fatal(err)
	}
	c := work.Config{Scratch: f.scratch, Settle: time.Nanosecond}
	for _, change := range change {
		change(&c)
	}
	return work.New(c, work.Deps{
		Index: f.index, Objects: store{f.bucket}, Config: source, Counters: f.counters, Checkpoint: func(name string) { f.at(name) },
	})
}

// store has one bucket.
type store struct{ bucket objects.Bucket }

func (s store) Bucket(_ context.Context, name string) (objects.Bucket, error) {
	if name != s.bucket.Name() {
		return nil, fault.New(fault.NotFound, "bucket %s", name)
	}
	return s.bucket, nil
}

func seriesOf(text string) *metricfile.Series {
	name, pod, _ := bytes.Cut([]byte(text), []byte("/"))
	return &metricfile.Series{Labels: labels.FromStrings(model.MetricNameLabel, string(name), "pod", string(pod))}
}

// points are n of a series in an hour, which rise, with a reset and a stale marker among them.
func (f *fixture) points(series string, hour, n int) []point {
	var all []point
	for i := range n {
		p := point{series: series, at: f.start.Add(time.Duration(hour)*time.Hour + time.Duration(i)*time.Hour/time.Duration(n)), value: float64(hour*1000 + i*3)}
		switch i {
		case n / 2:
			p.value = math.Float64frombits(value.StaleNaN)
		case n/2 + 1:
			p.value = 1
		}
		all = append(all, p)
	}
	return all
}

// object is how points come into the lake: as one object with a receipt.
type object struct {
	key     string // empty: a new one
	replace bool
	points  []point
	// shards: a compacted segment for each; zero: one, as ingest makes it.
	shards uint32
}

func (f *fixture) ingest(points ...[]point) lake.ReceiptID {
	f.t.Helper()
	return f.put(object{points: slices.Concat(points...)})
}

func (f *fixture) put(o object) lake.ReceiptID {
	f.t.Helper()
	receipt := f.receive(o, lake.SignalMetrics)
	for i := range o.points {
		o.points[i].source = receipt
	}
	f.truth = append(f.truth, o.points...)
	f.commit(receipt, lake.SignalMetrics, len(o.points), func(ctx context.Context, lease *lake.Lease, latest lake.DeleteID) []lake.Segment {
		hours := map[lake.Window][]point{}
		for _, p := range o.points {
			hour := lake.WindowOf(p.at, time.Hour)
			hours[hour] = append(hours[hour], p)
		}
		var added []lake.Segment
		for window, points := range hours {
			for i := range max(o.shards, 1) {
				shard := lake.Shard{Index: i, Count: o.shards}
				if s, ok := f.segment(ctx, lease, len(added), receipt, window, shard, points, latest); ok {
					added = append(added, s)
				}
			}
		}
		return added
	})
	return receipt
}

func (f *fixture) receive(o object, signal lake.Signal) lake.ReceiptID {
	f.t.Helper()
	f.objects++
	o.key = cmp.Or(o.key, fmt.Sprint("raw/acme/c/", f.objects))
	noticed, err := f.index.Receive(f.t.Context(), []index.Notice{{
		Object: lake.Object{Bucket: f.bucket.Name(), Key: o.key, Tag: fmt.Sprint(f.objects), Size: 1}, Organization: org, Signal: signal, Replace: o.replace,
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	return noticed[0].Receipt.ID
}

func (f *fixture) commit(receipt lake.ReceiptID, signal lake.Signal, rows int, segments func(context.Context, *lake.Lease, lake.DeleteID) []lake.Segment) {
	f.t.Helper()
	batch := index.Batch{Kind: lake.TaskIngest, Receipt: receipt}
	did, err := stage.One(f.t.Context(), f.index, stage.Options{Batch: batch}, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		_, latest, err := f.index.Deletes(ctx, index.DeleteQuery{Organization: org})
		return lake.Edit{
			Add:      segments(ctx, lease, latest),
			Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: signal, RowsIn: int64(rows), RowsOut: int64(rows)}},
		}, err
	})
	if err != nil || !did {
		f.t.Fatal(did, err)
	}
}

func (f *fixture) segment(
	ctx context.Context, lease *lake.Lease, n int, receipt lake.ReceiptID, window lake.Window, shard lake.Shard, points []point, latest lake.DeleteID,
) (lake.Segment, bool) {
	f.t.Helper()
	m := metricfile.Meta{
		Organization: org, Signal: lake.SignalMetrics, Window: window, Lease: lease.ID, Sources: []lake.ReceiptID{receipt}, AppliedDelete: latest, Shard: shard,
	}
	st := metricfile.NewStore()
	var rows []uint32
	for _, p := range points {
		if s := seriesOf(p.series); shard.Holds(s.Hash()) {
			rows = append(rows, st.Float(st.Series(s), metricfile.Stamp{Time: p.at.UnixNano(), Source: receipt}, p.value))
		}
	}
	if len(rows) == 0 {
		return lake.Segment{}, false
	}
	var parquet, sidecar bytes.Buffer
	written, err := metricfile.Write(ctx, &parquet, &sidecar, st, rows, m)
	if err != nil {
		f.t.Fatal(err)
	}
	key := lake.SegmentKey(org, lake.SignalMetrics, window, lease.ID, n)
	f.store(key, parquet.Bytes())
	f.store(lake.SidecarKey(key), sidecar.Bytes())
	return lake.Segment{
		Organization: org, Signal: lake.SignalMetrics, Window: window, Shard: shard, Bucket: f.bucket.Name(), Key: key, Bytes: written.Bytes,
		SidecarBytes: written.SidecarBytes, Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion,
		RowHash: written.RowHash, Sources: m.Sources, AppliedDelete: latest,
	}, true
}

func (f *fixture) store(key string, content []byte) {
	f.t.Helper()
	if _, err := f.bucket.Put(context.Background(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) read(key string) []byte {
	f.t.Helper()
	body, _, err := f.bucket.Get(context.Background(), key, "")
	if err != nil {
		f.t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		f.t.Fatal(err)
	}
	return content
}

func (f *fixture) hour(n int) lake.Window {
	return lake.WindowOf(f.start.Add(time.Duration(n)*time.Hour), time.Hour)
}

// task is that of the rollup of an hour's window.
func (f *fixture) task(signal lake.Signal, hour int, resolution time.Duration) lake.Task {
	return plan.TaskOf(org, signal, lake.WindowOf(f.hour(hour).Start, config.RollupWindow(resolution)), resolution)
}

// roll makes a rollup as somebody who asks for it.
func (f *fixture) roll(hour int, resolution time.Duration) work.Report {
	f.t.Helper()
	return f.rollOf(lake.SignalMetrics, hour, resolution)
}

func (f *fixture) rollOf(signal lake.Signal, hour int, resolution time.Duration) work.Report {
	f.t.Helper()
	var report work.Report
	if err := f.try(f.index, f.task(signal, hour, resolution), f.worker.Asked(func(r work.Report) { report = r })); err != nil {
		f.t.Fatal(err)
	}
	f.scratchIsEmpty()
	return report
}

// due does what the service does about a rollup.
func (f *fixture) due(hour int, resolution time.Duration) work.Report {
	f.t.Helper()
	var edit lake.Edit
	err := f.try(f.index, f.task(lake.SignalMetrics, hour, resolution), func(ctx context.Context, lease *lake.Lease) (made lake.Edit, err error) {
		edit, err = f.worker.Work(ctx, lease)
		return edit, err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.scratchIsEmpty()
	return work.Report{Added: edit.Add, Skipped: len(edit.Rolled) > 0 && edit.Rolled[0].Skipped}
}

// try claims a task, when its lease can be had, and brings it to its end.
func (f *fixture) try(claims stage.Claims, task lake.Task, do stage.Work) error {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	for {
		if err := f.index.Enqueue(ctx, []lake.Task{task}); err != nil {
			return err
		}
		batch := index.Batch{Kind: lake.TaskRollup, Work: &task, MaxTasks: 1, Duration: 2 * time.Second}
		did, err := stage.One(ctx, claims, stage.Options{Batch: batch}, do)
		if did || err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fixture) scratchIsEmpty() {
	f.t.Helper()
	left, err := os.ReadDir(f.scratch)
	if err != nil || len(left) > 0 {
		f.t.Errorf("scratch holds %v, %v", left, err)
	}
}

// answer is what the index says of a resolution.
func (f *fixture) answer(signal lake.Signal, resolution time.Duration) index.Answer {
	f.t.Helper()
	answer, err := f.index.Lookup(f.t.Context(), index.Query{
		Organization: org, Signal: signal, Start: f.start.Add(-48 * time.Hour), End: f.start.Add(72 * time.Hour), Resolution: resolution,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return answer
}

// rolled is what the current rollups of a resolution have, by series, with the windows joined. It checks each segment against the index, too.
func (f *fixture) rolled(signal lake.Signal, resolution time.Duration) map[string]*metricfile.Rollup {
	f.t.Helper()
	mergers := map[string]*rollup.Merger{}
	for _, s := range f.answer(signal, resolution).Segments {
		content, sidecar := f.read(s.Key), f.read(lake.SidecarKey(s.Key))
		report, err := metricfile.Verify(f.t.Context(), bytes.NewReader(content), int64(len(content)), sidecar)
		if err != nil || len(report.Problems) > 0 {
			f.t.Fatalf("%s: %v, %v", s.Key, err, report.Problems)
		}
		c := report.Catalogue
		if report.Rows != s.Rows || report.RowHash != s.RowHash || int64(len(content)) != s.Bytes || c.Window != s.Window || c.Resolution != resolution {
			f.t.Errorf("%s: the file has %+v, the index says %+v", s.Key, c.Meta, s)
		}
		f.readInto(content, c, resolution, mergers)
	}
	out := map[string]*metricfile.Rollup{}
	for name, m := range mergers {
		out[name] = m.Rollup()
	}
	return out
}

func (f *fixture) readInto(content []byte, c *metricfile.Catalogue, resolution time.Duration, mergers map[string]*rollup.Merger) {
	f.t.Helper()
	reader, err := metricfile.Open(bytes.NewReader(content), int64(len(content)), c)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := range c.Len() {
		series := c.Series(i)
		if !c.Shard.Holds(c.Hash(i)) {
			f.t.Errorf("series %s is not of shard %v", series.Labels, c.Shard)
		}
		var r metricfile.Rollup
		if err := reader.Rollup(i, &r); err != nil {
			f.t.Fatal(err)
		}
		name := series.Labels.String()
		if mergers[name] == nil {
			mergers[name] = &rollup.Merger{}
			mergers[name].Begin(series, resolution)
		}
		if err := mergers[name].Add(&r); err != nil {
			f.t.Fatal(err)
		}
	}
}

// want is what the truth comes to.
func (f *fixture) want(resolution time.Duration) map[string]*metricfile.Rollup {
	f.t.Helper()
	points := slices.Clone(f.truth)
	slices.SortStableFunc(points, func(a, b point) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.source, b.source)) })
	columns := map[string]*metricfile.Points{}
	for _, p := range points {
		c := columns[p.series]
		if c == nil {
			c = &metricfile.Points{}
			columns[p.series] = c
		}
		if n := c.Len(); n > 0 && c.Times[n-1] == p.at.UnixNano() {
			continue // the lowest source has it
		}
		c.Times, c.Values = append(c.Times, p.at.UnixNano()), append(c.Values, p.value)
	}
	out := map[string]*metricfile.Rollup{}
	for name, c := range columns {
		var a rollup.Aggregator
		made, err := a.Aggregate(seriesOf(name), c, rollup.Options{Resolution: resolution})
		if err != nil {
			f.t.Fatal(err)
		}
		out[seriesOf(name).Labels.String()] = made
	}
	return out
}

// count reads a counter.
func (f *fixture) count(name string) (total int64) {
	f.t.Helper()
	var all metricdata.ResourceMetrics
	if err := f.metrics.Collect(context.Background(), &all); err != nil {
		f.t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
				for _, p := range sum.DataPoints {
					total += p.Value
				}
			}
		}
	}
	return total
}
