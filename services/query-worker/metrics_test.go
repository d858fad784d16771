// SPDX-License-Identifier: AGPL-3.0-only

package queryworker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
)

// writeMetrics writes a segment of two counters and a histogram, with a point a minute, and an exemplar.
func writeMetrics(t *testing.T, dir string) *workerv1.Segment {
	t.Helper()
	st := metricfile.NewStore()
	h := &metricfile.Series{Labels: labels.FromStrings("__name__", "latency_seconds"), Kind: metricfile.KindClassic, Bounds: []float64{0.1}, Family: metricfile.Family{Type: "histogram"}}
	for k := range 60 {
		at := metricfile.Stamp{Time: hour.Add(time.Duration(k) * time.Minute).UnixNano(), Source: 1}
		for i := range 2 {
			st.Float(st.Series(&metricfile.Series{Labels: labels.FromStrings("__name__", "requests", "job", fmt.Sprint(i))}), at, float64(k*60*(i+1)))
		}
		row := st.Classic(st.Series(h), at, uint64(2*k), float64(k), []uint64{uint64(k), uint64(k)})
		if k == 7 {
			st.Exemplar(row, metricfile.Exemplar{Labels: labels.FromStrings("trace_id", "abc"), Value: 0.05, Time: at.Time})
		}
	}
	var rows []uint32
	for row := range st.Len() {
		rows = append(rows, uint32(row))
	}
	var file, sidecar bytes.Buffer
	written, err := metricfile.Write(t.Context(), &file, &sidecar, st, rows, metricfile.Meta{
		Organization: "acme", Signal: lake.SignalMetrics, Window: lake.Window{Start: hour, Length: time.Hour}, Lease: "lease", Sources: []lake.ReceiptID{1},
	})
	if err != nil {
		t.Fatal(err)
	}
	const key = "db/acme/metrics/2026-11-22/lease/000000.parquet"
	for name, content := range map[string][]byte{key: file.Bytes(), lake.SidecarKey(key): sidecar.Bytes()} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &workerv1.Segment{
		SegmentId: "1", Bucket: "lake", Key: key, Bytes: written.Bytes, SidecarBytes: written.SidecarBytes, Rows: written.Rows,
		FirstTime: timestamppb.New(written.First), LastTime: timestamppb.New(written.Last),
	}
}

func vectorRequest(s *workerv1.Segment, expression string) *workerv1.ScanRequest {
	return &workerv1.ScanRequest{
		Organization: "acme", Signal: lakev1.Signal_SIGNAL_METRICS, Segments: []*workerv1.Segment{s},
		Fragment: &workerv1.ScanRequest_MetricVector{MetricVector: &workerv1.MetricVector{
			Expression: expression, StartMs: hour.Add(10 * time.Minute).UnixMilli(), EndMs: hour.Add(20 * time.Minute).UnixMilli(), StepMs: 600_000,
		}},
	}
}

func selectorOf(name string) *workerv1.Selector {
	return &workerv1.Selector{Matchers: []*workerv1.Matcher{{Type: workerv1.MatchType_MATCH_TYPE_EQUAL, Name: "__name__", Value: name}}}
}

// batches reads a scan's stream to its end and gives its record batches to a function.
func batches(t *testing.T, c workerv1.WorkerServiceClient, r *workerv1.ScanRequest, each func(arrow.RecordBatch) error) (*workerv1.ScanResponse, error) {
	t.Helper()
	stream, err := c.Scan(t.Context(), r)
	if err != nil {
		return nil, err
	}
	var last *workerv1.ScanResponse
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		if last = m; len(m.GetArrow()) == 0 {
			continue
		}
		reader, err := ipc.NewReader(bytes.NewReader(m.GetArrow()))
		if err != nil {
			t.Fatal(err)
		}
		for reader.Next() {
			if err := each(reader.RecordBatch()); err != nil {
				t.Fatal(err)
			}
		}
		reader.Release()
	}
}

func TestScanOfMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	segment := writeMetrics(t, dir)
	client := serve(t, dir)
	seriesOf := func(t *testing.T, r *workerv1.ScanRequest) ([]prom.Series, *workerv1.ScanResponse) {
		t.Helper()
		var series []prom.Series
		last, err := batches(t, client, r, func(b arrow.RecordBatch) (err error) {
			series, err = prom.DecodeSeries(series, b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return series, last
	}
	for name, expression := range map[string]string{"columns": `sum by (job) (rate(requests[5m]))`, "the engine": `sum by (job) (rate(requests[5m])) * 1`} {
		t.Run("evaluates by "+name, func(t *testing.T) {
			t.Parallel()
			series, last := seriesOf(t, vectorRequest(segment, expression))
			if len(series) != 2 || series[1].Labels.Get("job") != "1" || fmt.Sprint(series[1].Values) != "[2 2]" || series[1].Times[1] != hour.Add(20*time.Minute).UnixMilli() {
				t.Fatal(series)
			}
			want := []*workerv1.Annotation{{
				Info: true, Start: 19, End: 31,
				Text: `PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "requests"`,
			}}
			if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(last.GetAnnotations())); diff != "" {
				t.Error(diff)
			}
			if s := last.GetStatistics(); s.GetSegmentsRead() != 1 || s.GetSamplesRead() != 30 || s.GetSamplesQueryable() != 20 || s.GetRowsScanned() == 0 {
				t.Error(s)
			}
		})
	}
	t.Run("streams samples", func(t *testing.T) {
		t.Parallel()
		r := vectorRequest(segment, "")
		r.Fragment = &workerv1.ScanRequest_MetricSamples{MetricSamples: &workerv1.MetricSamples{Selector: selectorOf("latency_seconds_bucket"), EndMs: hour.Add(time.Hour).UnixMilli()}}
		series, _ := seriesOf(t, r)
		if len(series) != 2 || series[0].Len() != 60 || series[0].Labels.Get("le") == "" {
			t.Fatal(series)
		}
	})
	t.Run("answers from the catalogue", func(t *testing.T) {
		t.Parallel()
		r := vectorRequest(segment, "")
		f := &workerv1.MetricCatalogue{Kind: workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_METRICS, EndMs: hour.Add(time.Hour).UnixMilli()}
		r.Fragment = &workerv1.ScanRequest_MetricCatalogue{MetricCatalogue: f}
		var metrics []prom.Metric
		if _, err := batches(t, client, r, func(b arrow.RecordBatch) (err error) { metrics, err = prom.DecodeMetrics(metrics, b); return err }); err != nil {
			t.Fatal(err)
		}
		if len(metrics) != 2 || metrics[0].Name != "latency_seconds" || metrics[0].Type != "histogram" || metrics[0].Series != 4 || metrics[1].Samples != 120 {
			t.Fatal(metrics)
		}
		f.Kind, f.Selectors = workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_SERIES, []*workerv1.Selector{selectorOf("requests")}
		var entries []prom.Entry
		last, err := batches(t, client, r, func(b arrow.RecordBatch) (err error) { entries, err = prom.DecodeEntries(entries, b); return err })
		if err != nil || len(entries) != 2 || entries[0].Samples != 60 || last.GetStatistics().GetSegmentsRead() != 0 {
			t.Fatal(entries, err)
		}
	})
	t.Run("finds exemplars", func(t *testing.T) {
		t.Parallel()
		r := vectorRequest(segment, "")
		r.Fragment = &workerv1.ScanRequest_MetricExemplars{MetricExemplars: &workerv1.MetricExemplars{
			Selectors: []*workerv1.Selector{selectorOf("latency_seconds_bucket")}, EndMs: hour.Add(time.Hour).UnixMilli(),
		}}
		var exemplars []prom.Exemplar
		if _, err := batches(t, client, r, func(b arrow.RecordBatch) (err error) { exemplars, err = prom.DecodeExemplars(exemplars, b); return err }); err != nil {
			t.Fatal(err)
		}
		if len(exemplars) != 1 || exemplars[0].Series.Get("le") != "0.1" || exemplars[0].Labels.Get("trace_id") != "abc" {
			t.Fatal(exemplars)
		}
	})
	t.Run("leaves out the points of deletes and masked sources", func(t *testing.T) {
		t.Parallel()
		r := vectorRequest(proto.CloneOf(segment), `count(requests)`)
		r.Deletes = []*workerv1.Delete{{DeleteId: 1, Selector: `requests{job="0"}`, Start: timestamppb.New(hour), End: timestamppb.New(hour.Add(time.Hour))}}
		if series, _ := seriesOf(t, r); fmt.Sprint(series[0].Values) != "[1 1]" {
			t.Fatal(series)
		}
		r.Segments[0].MaskedSources = []uint32{1}
		if series, _ := seriesOf(t, r); len(series) != 0 {
			t.Fatal(series)
		}
	})
	for name, c := range map[string]struct {
		change func(*workerv1.ScanRequest)
		want   fault.Kind
		words  string
	}{
		"a segment of another organization": {func(r *workerv1.ScanRequest) { r.Organization = "other" }, fault.Denied, ""},
		"PromQL that does not parse":        {func(r *workerv1.ScanRequest) { r.GetMetricVector().Expression = "sum(" }, fault.Invalid, "parse error"},
		"a shard that is none":              {func(r *workerv1.ScanRequest) { r.GetMetricVector().Shard = &workerv1.Shard{Index: 2, Count: 2} }, fault.Invalid, "power of two"},
		"an end before its start":           {func(r *workerv1.ScanRequest) { r.GetMetricVector().EndMs = 0 }, fault.Invalid, ""},
		"too many steps":                    {func(r *workerv1.ScanRequest) { r.GetMetricVector().EndMs += 1e12 }, fault.Exhausted, "longer step"},
		"too many samples":                  {func(r *workerv1.ScanRequest) { r.GetMetricVector().MaxSamples = 3 }, fault.Exhausted, "max_query_samples"},
		"points for rollups":                {func(r *workerv1.ScanRequest) { r.GetMetricVector().ResolutionMs = 60_000 }, fault.Invalid, "resolution"},
		"what no rollup answers": {func(r *workerv1.ScanRequest) {
			r.Segments[0].Resolution = durationpb.New(time.Minute)
			r.GetMetricVector().ResolutionMs, r.GetMetricVector().Expression = 60_000, "irate(requests[5m])"
		}, fault.Unsupported, "irate"},
		"many-to-many matching": {func(r *workerv1.ScanRequest) {
			r.GetMetricVector().Expression = "requests * on () requests"
		}, fault.Invalid, "many-to-many"},
		"a selector without matchers": {func(r *workerv1.ScanRequest) {
			r.Fragment = &workerv1.ScanRequest_MetricSamples{MetricSamples: &workerv1.MetricSamples{Selector: &workerv1.Selector{}}}
		}, fault.Invalid, ""},
		"a fragment of logs":     {func(r *workerv1.ScanRequest) { r.Fragment = linesRequest(segment).Fragment }, fault.Invalid, ""},
		"a segment that is gone": {func(r *workerv1.ScanRequest) { r.Segments[0].Key = "db/acme/gone.parquet" }, fault.MissingSegment, ""},
		"a delete that it cannot apply": {func(r *workerv1.ScanRequest) {
			r.Deletes = []*workerv1.Delete{{DeleteId: 1, Selector: "{", Start: timestamppb.New(hour), End: timestamppb.New(hour)}}
		}, fault.Internal, ""},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			t.Parallel()
			r := vectorRequest(proto.CloneOf(segment), `sum by (job) (rate(requests[5m]))`)
			c.change(r)
			_, err := batches(t, client, r, func(arrow.RecordBatch) error { return nil })
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.words) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}
