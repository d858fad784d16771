// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metrictest"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
)

// samples reads the samples of metric segments back.
func (f *fixture) samples(segments []lake.Segment) (samples []metrictest.Sample) {
	f.t.Helper()
	for _, s := range segments {
		if s.Signal == lake.SignalMetrics {
			samples = append(samples, metrictest.Segment(f.t, f.read(s.Key), f.read(lake.SidecarKey(s.Key)))...)
		}
	}
	return metrictest.Sort(samples)
}

// points counts the points of metric segments by source, and holds what the segments say of themselves to them.
func (f *fixture) points(segments []lake.Segment) map[lake.ReceiptID]int {
	f.t.Helper()
	counts := map[lake.ReceiptID]int{}
	for _, s := range segments {
		if s.Signal != lake.SignalMetrics {
			continue
		}
		rows := int64(0)
		metrictest.Rows(f.t, f.read(s.Key), f.read(lake.SidecarKey(s.Key)), func(_ *metricfile.Series, p *metricfile.Points) {
			for i, source := range p.Sources {
				at := time.Unix(0, p.Times[i])
				if !s.Window.Contains(at) || at.Before(s.FirstTime) || at.After(s.LastTime) || !slices.Contains(s.Sources, source) {
					f.t.Errorf("a point of %s, of source %d, in %+v", at, source, s)
				}
				counts[source]++
				rows++
			}
		})
		if rows != s.Rows || s.RowHash == 0 || s.Level != 0 || s.Resolution != 0 {
			f.t.Errorf("%d points in %+v", rows, s)
		}
	}
	return counts
}

// expected are the samples that a content should become, by way of a mapper of its own.
func expected(t *testing.T, contents ...[]byte) []metrictest.Sample {
	t.Helper()
	store := metricfile.NewStore()
	s := &storing{Mapper: metricmapping.New(store)}
	for _, content := range contents {
		s.Begin()
		if _, err := decode.Decode(bytes.NewReader(content), decode.Options{}, decode.Sinks{Metrics: s}); err != nil {
			t.Fatal(err)
		}
		err := s.Targets(func(series *metricmapping.Series, ns int64) error {
			s.AppendTarget(series, ns, 1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return metrictest.Store(t, store)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	first, second := otlpMetrics(t, 100, 60, benchTime()), otlpMetrics(t, 60, 40, benchTime().Add(29*time.Minute+40*time.Second))
	for _, memory := range []int64{0, 300 << 10, 60 << 10} {
		t.Run(fmt.Sprintf("of objects become segments of one hour, with %d bytes of memory", memory), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *pipeline.Config, _ *pipeline.Deps) { c.Memory = memory })
			receipts := []lake.Receipt{
				f.put("otel-raw/acme/c/1.binpb.gz", gzipped(first)), f.put("logs-raw/acme/c/2", lines("eve", 3000, benchTime(), time.Millisecond)),
				f.put("otel-raw/acme/c/3.binpb", second),
			}
			for range 2 { // memory is used again
				edit := f.work(receipts...)
				got := f.samples(edit.Add)
				want := expected(t, first, second)
				if memory > 0 { // target_info is told more than once when memory runs out
					got, want = withoutTargets(got), withoutTargets(want)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(diff[:min(len(diff), 3000)])
				}
				counts := f.points(edit.Add)
				for _, i := range []int{0, 2} {
					o := outcomes(edit)[receipts[i].ID]
					if o.State != lake.ReceiptDone || o.Signal != lake.SignalMetrics || int(o.RowsOut) != counts[receipts[i].ID] || o.RowsIn != o.RowsOut {
						t.Errorf("%d points of %+v", counts[receipts[i].ID], o)
					}
				}
				if rows := f.rows(logSegments(edit.Add)); len(rows[receipts[1].ID]) != 3000 {
					t.Errorf("%d rows of logs", len(rows[receipts[1].ID]))
				}
			}
		})
	}
}

func withoutTargets(samples []metrictest.Sample) []metrictest.Sample {
	return slices.DeleteFunc(samples, func(s metrictest.Sample) bool { return strings.Contains(s.Series, `"target_info"`) })
}

func logSegments(segments []lake.Segment) (logs []lake.Segment) {
	for _, s := range segments {
		if s.Signal == lake.SignalLogs {
			logs = append(logs, s)
		}
	}
	return logs
}

// TestBadMetricObjectIsIsolated holds that a bad object's points are in no segment, and its neighbours' all are.
func TestBadMetricObjectIsIsolated(t *testing.T) {
	t.Parallel()
	good := otlpMetrics(t, 100, 50, benchTime())
	broken := append(slices.Clone(good), 0x0a, 0x06, 0x12, 0x04, 0x12, 0x02, 0x0a, 0x09)
	cut := gzipped(good)
	for _, memory := range []int64{0, 200 << 10} {
		t.Run(fmt.Sprintf("with %d bytes of memory", memory), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *pipeline.Config, _ *pipeline.Deps) { c.Memory = memory })
			receipts := []lake.Receipt{
				f.put("otel-raw/acme/c/a", good), f.put("otel-raw/acme/c/b", broken), f.put("otel-raw/acme/c/c", good), f.put("otel-raw/acme/c/d", cut[:len(cut)-20]),
				f.put("otel-raw/acme/c/e", append([]byte("\x00\x00\x00\x00"), good...)),
			}
			edit := f.work(receipts...)
			counts, got := f.points(edit.Add), outcomes(edit)
			for i, state := range []lake.ReceiptState{lake.ReceiptDone, lake.ReceiptFailed, lake.ReceiptDone, lake.ReceiptDone, lake.ReceiptFailed} {
				o := got[receipts[i].ID]
				if o.State != state || int(o.RowsOut) != counts[receipts[i].ID] || state == lake.ReceiptFailed && o.Reason == "" || i%2 == 0 && i < 3 && o.RowsOut < 5000 {
					t.Errorf("%s: %d points, %+v", receipts[i].Object.Key, counts[receipts[i].ID], o)
				}
			}
			if o := got[receipts[3].ID]; !strings.Contains(o.Reason, "truncated") || o.RowsOut >= got[receipts[0].ID].RowsOut {
				t.Errorf("truncated: %+v", o)
			}
		})
	}
}

// limited is a configuration of metrics.
func limited(t *testing.T, organization string) func(*pipeline.Config, *pipeline.Deps) {
	t.Helper()
	directory := t.TempDir()
	source, err := config.Static(fmt.Sprintf("organizations:\n  - {id: acme, %s}\nstorage_profiles:\n  - {name: main, bucket: %s, provider: file, directory: %q}\n", organization, bucketName, directory))
	if err != nil {
		t.Fatal(err)
	}
	return func(_ *pipeline.Config, d *pipeline.Deps) { d.Config, d.Objects = source, config.Buckets(source, nil) }
}

// newMetricFixture is a fixture whose organization is configured so.
func newMetricFixture(t *testing.T, organization string) *fixture {
	t.Helper()
	change := limited(t, organization)
	f := newFixture(t, change)
	var d pipeline.Deps
	change(nil, &d)
	bucket, err := d.Objects.Bucket(context.Background(), bucketName)
	if err != nil {
		t.Fatal(err)
	}
	f.bucket = bucket
	return f
}

func TestRejectedPoints(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t, "limits: {accept_past: 240h, accept_future: 1h, max_object_series: 4}, retention: [{signal: metrics, resolution: raw, keep: 48h}, {signal: metrics, keep: 400d}]")
	now := benchTime().Add(time.Hour) // of the claim
	line := func(name string, at time.Time) string { return fmt.Sprintf("%s{a=\"b\"} 1 %d\n", name, at.UnixMilli()) }
	content := "# TYPE a gauge\n" + line("a", now) + line("b", now.Add(-47*time.Hour)) + line("beyond", now.Add(-49*time.Hour)) + line("beyond", now.Add(-300*time.Hour)) +
		line("soon", now.Add(2*time.Hour)) + line("c", now) + line("d", now) + line("e", now) + line("a", now.Add(time.Second)) + "nonsense\n"
	receipt := f.put("otel-raw/acme/c/a.prom", []byte(content))
	lease := f.lease(receipt)
	edit, err := f.worker.Work(context.Background(), lease)
	if err != nil {
		t.Fatal(err)
	}
	o := outcomes(edit)[receipt.ID]
	want := map[string]int64{"beyond_retention": 2, "too_new": 1, "too_many_series": 1, "malformed": 1}
	if diff := cmp.Diff(want, o.Rejected); diff != "" || o.RowsIn != 10 || o.RowsOut != 5 || o.Format != "prometheus-text" {
		t.Errorf("%+v\n%s", o, diff)
	}
	kept := gunzip(t, f.read(lake.RejectsKey("acme", lease.ID, receipt.ID)))
	again := newMetricFixture(t, "limits: {accept_past: 5000h, accept_future: 100h}")
	second := again.put("otel-raw/acme/rejects.ndjson", kept)
	var names []string
	for _, s := range again.samples(again.work(second).Add) {
		names = append(names, s.Series)
	}
	if diff := cmp.Diff([]string{`{__name__="beyond", a="b"}`, `{__name__="beyond", a="b"}`, `{__name__="e", a="b"}`, `{__name__="soon", a="b"}`}, names); diff != "" {
		t.Errorf("ingested again: %s\nof %s", diff, kept)
	}
}

// TestDeletedPointsAreNotIngested holds that a delete of metrics reaches the series that its selector finds, target_info among them, and no logs.
func TestDeletedPointsAreNotIngested(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := benchTime()
	content := otlpMetrics(t, 50, 10, at)
	old, recent, logs := f.put("otel-raw/acme/c/old", content), f.put("otel-raw/acme/c/new", content), f.put("logs-raw/acme/c/l", lines("eve", 10, at, time.Second))
	recent.ReceivedAt = at.Add(time.Hour)
	metric := func(id lake.DeleteID, selector string, end time.Duration) lake.Delete {
		d := deleteOf(id, selector, at, at.Add(end), at.Add(time.Minute))
		d.Signal = lake.SignalMetrics
		return d
	}
	f.accounts.deletes = []lake.Delete{
		metric(1, `http_requests_total{code="203"}`, 5*time.Second), metric(2, `http_duration_seconds_bucket{le="0.5",route="/r9"}`, time.Hour),
		metric(3, `target_info`, time.Hour), metric(4, `nothing`, time.Hour),
		{ID: 5, Signal: lake.SignalSpans, Selector: `{}`, CreatedAt: at.Add(time.Minute), Start: at, End: at.Add(time.Hour)},
	}
	edit := f.work(old, recent, logs)
	counts, got := f.points(edit.Add), outcomes(edit)
	const all, reached = 50*10 + 2, 5 + 10 + 2 // with target_info at the first second and the last
	if counts[old.ID] != all-reached || counts[recent.ID] != all || got[old.ID].Rejected["deleted"] != reached || got[logs.ID].RowsOut != 10 {
		t.Errorf("%d and %d points are left: %+v", counts[old.ID], counts[recent.ID], edit.Outcomes)
	}
	want := []lake.DeletedRows{{Delete: 1, Source: old.ID, Rows: 5}, {Delete: 2, Source: old.ID, Rows: 10}, {Delete: 3, Source: old.ID, Rows: 2}}
	if diff := cmp.Diff(want, edit.Deleted); diff != "" {
		t.Error(diff)
	}
	for _, s := range edit.Add {
		if s.AppliedDelete != 5 {
			t.Errorf("deletes up to %d were applied", s.AppliedDelete)
		}
	}
}

func TestWhatFollowsMetrics(t *testing.T) {
	t.Parallel()
	from := benchTime().Add(-25 * time.Hour)
	hour := lake.WindowOf(from, time.Hour)
	for organization, want := range map[string][]lake.Task{
		"rollups: []": nil,
		"rollups: [{resolution: 1h, after: 1h}, {resolution: 10s, after: 2h}]": {
			{Kind: lake.TaskRollup, Organization: "acme", Signal: lake.SignalMetrics, Window: hour, Tier: 10},
			{Kind: lake.TaskRollup, Organization: "acme", Signal: lake.SignalMetrics, Window: lake.WindowOf(benchTime(), time.Hour), Tier: 10, Delay: 90 * time.Minute},
		},
		"rollups: [{signal: logs, resolution: 1m, after: 10m}, {signal: logs, resolution: 1h, after: 1h}]": {
			{Kind: lake.TaskRollup, Organization: "acme", Signal: lake.SignalLogs, Window: lake.WindowOf(benchTime(), time.Hour), Tier: 60},
		},
		"rollups: [{resolution: 5m, after: 24h}]": {
			{Kind: lake.TaskRollup, Organization: "acme", Signal: lake.SignalMetrics, Window: lake.WindowOf(from, 24*time.Hour), Tier: 300, Delay: 12*time.Hour + 30*time.Minute},
			{Kind: lake.TaskRollup, Organization: "acme", Signal: lake.SignalMetrics, Window: lake.WindowOf(benchTime(), 24*time.Hour), Tier: 300, Delay: 36*time.Hour + 30*time.Minute},
		},
	} {
		t.Run(organization, func(t *testing.T) {
			t.Parallel()
			f := newMetricFixture(t, organization)
			edit := f.work(f.put("a", otlpMetrics(t, 10, 3, from)), f.put("b", otlpMetrics(t, 10, 3, benchTime())), f.put("c", lines("eve", 3, benchTime(), time.Second)))
			var rollups []lake.Task
			compactions := map[string]time.Duration{}
			for _, task := range edit.Next {
				if task.Bytes <= 0 {
					t.Errorf("%+v weighs nothing", task)
				}
				if task.Bytes = 0; task.Kind == lake.TaskRollup {
					rollups = append(rollups, task)
					continue
				}
				compactions[fmt.Sprintf("%s of %d:00, %d", task.Signal, task.Window.Start.Hour(), task.Tier)] = task.Delay
			}
			slices.SortFunc(rollups, func(a, b lake.Task) int { return a.Window.Start.Compare(b.Window.Start) })
			if diff := cmp.Diff(want, rollups); diff != "" {
				t.Error(diff)
			}
			wanted := map[string]time.Duration{"metrics of 9:00, 0": time.Minute, "metrics of 10:00, 0": time.Minute, "logs of 10:00, 0": time.Minute}
			if diff := cmp.Diff(wanted, compactions); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestFormatsOfMetrics has one sample in each format.
func TestFormatsOfMetrics(t *testing.T) {
	t.Parallel()
	at := benchTime()
	request := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "job", Value: "shop"}}, Samples: []prompb.Sample{{Value: 1, Timestamp: at.UnixMilli()}},
	}}}
	raw, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	block := snappy.Encode(nil, raw)
	f := newMetricFixture(t, `metrics: {mappings: [{key: "*.meters", time: when, time_unit: s, values: [power], static: {job: shop}, prefix: grid., type: gauge}]}`)
	for key, c := range map[string]struct{ content, format, series string }{
		"otel-raw/acme/rw":         {string(block), "prometheus-remote-write", `{__name__="up", job="shop"}`},
		"otel-raw/acme/rws":        {string(append(binary.LittleEndian.AppendUint32(nil, uint32(len(block))), block...)), "prometheus-remote-write", `{__name__="up", job="shop"}`},
		"otel-raw/acme/om":         {fmt.Sprintf("# TYPE up gauge\nup{job=\"shop\"} 1 %d.000\n# EOF\n", at.Unix()), "prometheus-text", `{__name__="up", job="shop"}`},
		"otel-raw/acme/csv":        {"timestamp,metric,value,job\n" + at.Format(time.RFC3339) + ",up,1,shop\n", "csv", `{__name__="up", job="shop"}`},
		"otel-raw/acme/a.meters":   {fmt.Sprintf("when;power\n%d;1\n", at.Unix()), "csv", `{__name__="grid_power", job="shop"}`},
		"otel-raw/acme/json":       {fmt.Sprintf(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"up","gauge":{"dataPoints":[{"timeUnixNano":"%d","asInt":"1"}]}}]}]}]}`, at.UnixNano()), "otlp-json", `{__name__="up"}`},
		"metrics-raw/acme/untimed": {"up 1\n", "prometheus-text", `{__name__="up"}`},
	} {
		receipt := f.put(key, []byte(c.content))
		want := []metrictest.Sample{{Series: c.series, Time: at.UnixNano(), Value: "1"}}
		if strings.Contains(key, "untimed") {
			attributes, err := f.bucket.Head(context.Background(), key)
			if err != nil {
				t.Fatal(err)
			}
			receipt.Signal, want[0].Time = lake.SignalMetrics, attributes.LastModified.UnixNano()
		}
		edit := f.work(receipt)
		if o := outcomes(edit)[receipt.ID]; o.State != lake.ReceiptDone || o.Format != c.format || o.Signal != lake.SignalMetrics {
			if strings.Contains(key, "untimed") && o.Rejected["too_new"]+o.Rejected["too_old"] == 1 {
				continue // it was written now, which is not the day of the others
			}
			t.Errorf("%s: %+v", key, o)
		}
		if diff := cmp.Diff(want, f.samples(edit.Add)); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
	}
}

func TestPreviewOfMetrics(t *testing.T) {
	t.Parallel()
	source, err := config.Static("organizations: [{id: acme, limits: {accept_past: 240h, max_object_series: 12}, retention: [{signal: metrics, keep: 24h}]}]")
	if err != nil {
		t.Fatal(err)
	}
	o := pipeline.PreviewOptionsOf(source.Current(), config.Resolution{Organization: "acme"}, "a")
	o.Now, o.Rows = benchTime().Add(time.Hour), 3
	content := slices.Concat(otlpMetrics(t, 20, 5, benchTime()), otlpMetrics(t, 1, 2, benchTime().Add(-48*time.Hour)))
	preview, err := pipeline.Look(bytes.NewReader(content), o)
	if err != nil {
		t.Fatal(err)
	}
	if preview.Signal != lake.SignalMetrics || preview.In != 102 || preview.Out != 60 || preview.Rejected["too_many_series"] != 40 || preview.Rejected["beyond_retention"] != 2 {
		t.Errorf("%+v", preview)
	}
	if len(preview.Rows) != 3 || preview.Rows[1].Body != "0" || !slices.Contains(preview.Rows[1].Labels, columns.Label{Name: "__name__", Value: "http_requests_total"}) {
		t.Errorf("%+v", preview.Rows)
	}
	if len(preview.Rejects) != 3 || !strings.Contains(preview.Rejects[0].Row, "resourceMetrics") {
		t.Errorf("%+v", preview.Rejects)
	}
	found := map[string]int64{}
	for _, a := range preview.Attributes {
		found[a.Scope+" "+a.Name] = a.Rows
	}
	if found["resource service.name"] != 60 || found["point code"] == 0 {
		t.Errorf("%v", found)
	}
}

// TestMetricMemory holds that memory does not grow with the series of an object: what is in memory at a time is bounded.
func TestMetricMemory(t *testing.T) {
	t.Parallel()
	n, memory := 40_000, int64(4<<20)
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		n, memory = 1_000_000, 128<<20
	}
	f := newFixture(t, func(c *pipeline.Config, _ *pipeline.Deps) { c.Memory = memory })
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "requests_total{pod=\"checkout-%08d\",node=\"node-%d\",path=\"/api/orders/%d\"} %d %d\n", i, i%100, i, i, benchTime().UnixMilli())
	}
	object := b.Bytes()
	receipt := f.put("otel-raw/acme/many", gzipped(object))
	segments := f.work(receipt).Add
	largest, rows := int64(0), int64(0)
	for _, s := range segments {
		largest, rows = max(largest, s.Rows), rows+s.Rows
	}
	if rows != int64(n) || len(segments) < 4 || largest*500 > memory {
		t.Errorf("%d points in %d segments, at most %d in memory", rows, len(segments), largest)
	}
	t.Logf("%d series in %d segments, the largest of %d", n, len(segments), largest)
}
