// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/objects/objectstest"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

const org = lake.Organization("acme")

// fixture is a lake of one organization with a worker on it.
type fixture struct {
	t       *testing.T
	signal  lake.Signal
	index   *index.Index
	bucket  objects.Bucket
	worker  *work.Worker
	scratch string
	metrics *metric.ManualReader
	// start is that of an hour long past.
	start   time.Time
	objects int
	// at is called at each checkpoint.
	at func(name string)
}

func newFixture(t *testing.T, settings string, change ...func(*work.Config)) *fixture {
	t.Helper()
	return newFixtureOn(t, objectstest.Memory(t), settings, change...)
}

func newFixtureOn(t *testing.T, bucket objects.Bucket, settings string, change ...func(*work.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, signal: lake.SignalLogs, index: indextest.New(t), bucket: bucket, scratch: t.TempDir(), metrics: metric.NewManualReader(), at: func(string) {}}
	f.start = lake.WindowOf(time.Now().Add(-100*24*time.Hour), 24*time.Hour).Start.Add(10 * time.Hour)
	source := f.source(settings)
	counters, err := work.NewCounters(metric.NewMeterProvider(metric.WithReader(f.metrics)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	c := work.Config{Scratch: f.scratch}
	for _, change := range change {
		change(&c)
	}
	f.worker = work.New(c, work.Deps{
		Index: f.index, Objects: store{f.bucket}, Config: source, Counters: counters, Checkpoint: func(name string) { f.at(name) },
	})
	return f
}

// source is a configuration with settings of the organization.
func (f *fixture) source(settings string) config.Source {
	f.t.Helper()
	source, err := config.Static("organizations:\n  - id: acme\n" + settings)
	if err != nil {
		f.t.Fatal(err)
	}
	return source
}

// store has one bucket.
type store struct{ bucket objects.Bucket }

func (s store) Bucket(_ context.Context, name string) (objects.Bucket, error) {
	if name != s.bucket.Name() {
		return nil, fault.New(fault.NotFound, "bucket %s", name)
	}
	return s.bucket, nil
}

// row is a log row in brief.
type row struct {
	time     time.Time
	service  string
	body     string
	fields   map[string]string
	identity string // value of event.id; empty: none
}

// rows makes n rows of an hour.
func (f *fixture) rows(hour, n int, service, word string) []row {
	var all []row
	for i := range n {
		all = append(all, row{
			time: f.start.Add(time.Duration(hour)*time.Hour + time.Duration(i*3600/n)*time.Second), service: service, body: fmt.Sprint(word, " ", i),
			fields: map[string]string{"user": fmt.Sprint("u", i%7)},
		})
	}
	return all
}

// object is how rows come into the lake: as one object with a receipt.
type object struct {
	key     string // empty: a new one
	replace bool
	rows    []row
}

// ingest commits rows as ingest does: a segment an hour.
func (f *fixture) ingest(rows []row) lake.ReceiptID { return f.put(object{rows: rows}) }

func (f *fixture) put(o object) lake.ReceiptID {
	f.t.Helper()
	return f.commit(o.key, o.replace, func(ctx context.Context, lease *lake.Lease, receipt lake.ReceiptID, latest lake.DeleteID) (added []lake.Segment) {
		for n, hour := range byHour(o.rows) {
			added = append(added, f.segment(ctx, lease, n, receipt, hour, latest))
		}
		return added
	})
}

// commit receives an object, empty key: a new one, and commits the segments that are made of it.
func (f *fixture) commit(
	key string, replace bool, segments func(ctx context.Context, lease *lake.Lease, receipt lake.ReceiptID, latest lake.DeleteID) []lake.Segment,
) lake.ReceiptID {
	f.t.Helper()
	ctx := f.t.Context()
	f.objects++
	key = cmp.Or(key, fmt.Sprint("raw/acme/c/", f.objects))
	noticed, err := f.index.Receive(ctx, []index.Notice{{
		Object: lake.Object{Bucket: f.bucket.Name(), Key: key, Tag: fmt.Sprint(f.objects), Size: 1}, Organization: org, Signal: f.signal, Replace: replace,
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	receipt := noticed[0].Receipt.ID
	batch := index.Batch{Kind: lake.TaskIngest, Receipt: receipt}
	did, err := stage.One(ctx, f.index, stage.Options{Batch: batch}, func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		_, latest, err := f.index.Deletes(ctx, index.DeleteQuery{Organization: org})
		if err != nil {
			return lake.Edit{}, err
		}
		edit := lake.Edit{Add: segments(ctx, lease, receipt, latest)}
		rows := int64(0)
		for _, s := range edit.Add {
			rows += s.Rows
		}
		edit.Outcomes = []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: f.signal, RowsIn: rows, RowsOut: rows}}
		return edit, nil
	})
	if err != nil || !did {
		f.t.Fatal(did, err)
	}
	return receipt
}

func byHour(rows []row) [][]row {
	hours := map[time.Time][]row{}
	for _, r := range rows {
		start := lake.WindowOf(r.time, time.Hour).Start
		hours[start] = append(hours[start], r)
	}
	var all [][]row
	for _, hour := range hours {
		all = append(all, hour)
	}
	return all
}

func (f *fixture) segment(ctx context.Context, lease *lake.Lease, n int, receipt lake.ReceiptID, rows []row, latest lake.DeleteID) lake.Segment {
	meta := segfile.Meta{
		Organization: org, Signal: lake.SignalLogs, Window: lake.WindowOf(rows[0].time, time.Hour), Lease: lease.ID, Sources: []lake.ReceiptID{receipt},
		AppliedDelete: latest,
	}
	parquet, sidecar, written := f.encode(rows, receipt, meta)
	key := lake.SegmentKey(org, lake.SignalLogs, meta.Window, lease.ID, n)
	f.store(key, parquet)
	f.store(lake.SidecarKey(key), sidecar)
	return lake.Segment{
		Organization: org, Signal: lake.SignalLogs, Window: meta.Window, Bucket: f.bucket.Name(), Key: key, Bytes: written.Bytes,
		SidecarBytes: written.SidecarBytes, Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion,
		RowHash: written.RowHash, Sources: meta.Sources, AppliedDelete: latest, Identified: written.Identified,
	}
}

func (f *fixture) encode(rows []row, receipt lake.ReceiptID, meta segfile.Meta) (parquet, sidecar []byte, written segfile.Written) {
	f.t.Helper()
	l := columns.NewLogs()
	order := make([]uint32, len(rows))
	for i, r := range rows {
		origin := columns.Origin{Resource: []columns.Attribute{{Name: "host", Value: columns.Value{Str: "h1"}}}}
		var attributes []columns.Attribute
		for _, name := range slices.Sorted(mapsKeys(r.fields)) {
			attributes = append(attributes, columns.Attribute{Name: name, Value: columns.Value{Str: r.fields[name]}})
		}
		if r.identity != "" {
			origin.Identity = "event.id"
			attributes = append(attributes, columns.Attribute{Name: "event.id", Value: columns.Value{Str: r.identity}})
		}
		l.Append(&columns.LogRow{
			Time: r.time.UnixNano(), Stream: l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: r.service}}), Origin: l.Origin(origin),
			Body: r.body, Source: receipt, Attributes: attributes, Fingerprint: lake.FingerprintOf([]byte(r.body)),
		})
		order[i] = uint32(i)
	}
	l.Sort(order)
	var p, s bytes.Buffer
	written, err := segfile.WriteLogs(context.Background(), &p, &s, l, order, meta)
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Bytes(), s.Bytes(), written
}

func mapsKeys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (f *fixture) store(key string, content []byte) {
	f.t.Helper()
	if _, err := f.bucket.Put(context.Background(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) hour(n int) lake.Window {
	return lake.WindowOf(f.start.Add(time.Duration(n)*time.Hour), time.Hour)
}

func (f *fixture) day() lake.Window { return lake.WindowOf(f.start, 24*time.Hour) }

// segments are the live ones.
func (f *fixture) segments() []lake.Segment {
	f.t.Helper()
	return f.answer().Segments
}

func (f *fixture) answer() index.Answer {
	f.t.Helper()
	answer, err := f.index.Lookup(f.t.Context(), index.Query{
		Organization: org, Signal: f.signal, Start: f.start.Add(-48 * time.Hour), End: time.Now().Add(48 * time.Hour),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return answer
}

// stored are the rows of all live segments that are not masked, as text, sorted. It checks each segment against the index, too.
func (f *fixture) stored() []string {
	f.t.Helper()
	var all []string
	for _, s := range f.segments() {
		content := f.read(s.Key)
		report, err := segfile.Verify(f.t.Context(), bytes.NewReader(content), int64(len(content)), f.read(lake.SidecarKey(s.Key)))
		if err != nil || len(report.Problems) > 0 {
			f.t.Fatalf("%s: %v, %v", s.Key, err, report.Problems)
		}
		c := report.Catalogue
		if c.Rows != s.Rows || c.RowHash != s.RowHash || int64(len(content)) != s.Bytes || c.AppliedDelete != s.AppliedDelete || c.Window != s.Window || c.Level != s.Level {
			f.t.Errorf("%s: the file has %+v, the index says %+v", s.Key, c.Meta, s)
		}
		all = append(all, f.texts(content, s.MaskedSources)...)
	}
	slices.Sort(all)
	return all
}

func (f *fixture) texts(content []byte, masked []lake.ReceiptID) []string {
	f.t.Helper()
	l, err := readAll(content)
	if err != nil {
		f.t.Fatal(err)
	}
	var all []string
	var r columns.LogRow
	for i := range l.Len() {
		l.Row(i, &r)
		if slices.Contains(masked, r.Source) {
			continue
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%d %v %s %d", r.Time, l.StreamLabels(r.Stream), r.Body, r.Source)
		slices.SortFunc(r.Attributes, func(a, b columns.Attribute) int { return strings.Compare(a.Name, b.Name) })
		for _, a := range r.Attributes {
			fmt.Fprintf(&b, " %s=%s", a.Name, a.Value.Text())
		}
		all = append(all, b.String())
	}
	return all
}

func readAll(content []byte) (*columns.Logs, error) {
	r, err := segfile.OpenLogs(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, err
	}
	l := columns.NewLogs()
	for {
		if err := r.Next(l); errors.Is(err, io.EOF) {
			return l, nil
		} else if err != nil {
			return nil, err
		}
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

// compact compacts a window as somebody who asks for it.
func (f *fixture) compact(w lake.Window) work.Report {
	f.t.Helper()
	var report work.Report
	if err := f.try(f.index, w, f.worker.Asked(func(r work.Report) { report = r })); err != nil {
		f.t.Fatal(err)
	}
	f.scratchIsEmpty()
	return report
}

// due compacts a window as the service does.
func (f *fixture) due(w lake.Window) {
	f.t.Helper()
	if err := f.try(f.index, w, f.worker.Work); err != nil {
		f.t.Fatal(err)
	}
	f.scratchIsEmpty()
}

// try claims the task of a window, when its lease can be had, and brings it to its end.
func (f *fixture) try(claims stage.Claims, w lake.Window, do stage.Work) error {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	task := work.TaskOf(org, f.signal, w)
	for {
		if err := f.index.Enqueue(ctx, []lake.Task{task}); err != nil {
			return err
		}
		batch := index.Batch{Kind: lake.TaskCompact, Work: &task, MaxTasks: 1, Duration: 2 * time.Second}
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
