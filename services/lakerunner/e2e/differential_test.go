// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/loki/v3/pkg/loghttp"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// TestEveryAnswerIsLokis asks generated queries of the running system, and of Loki's engine over the same rows in memory.
func TestEveryAnswerIsLokis(t *testing.T) {
	t.Parallel()
	const seed = 1
	queries, objects := 150, 6
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		queries = 3000
	}
	l := newLake(t, lakeOptions{streamLabels: []string{"service.name", "env", "k8s.pod.name"}})
	start := lately().Add(-2 * time.Hour)
	rows := querytest.Rows(seed, 1500, start, 90*time.Minute)
	for i, part := range querytest.Partition(seed, rows, objects) {
		l.put(fmt.Sprintf("otel-raw/default/rows/logs_%d.binpb.gz", i), encodeRows(t, part))
	}
	l.awaitReceipts("default", "otel-raw/default/rows/", objects)
	stored := l.storedRows(t, rows, start)

	answered := 0
	for i, q := range querytest.Queries(seed, queries, start, start.Add(90*time.Minute)) {
		want, wantErr := stored.Evaluate(t.Context(), q)
		if wantErr == nil && querytest.Size(want) > 0 {
			answered++
		}
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			got, gotErr := l.evaluate(t, q)
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("%s\nerror %v, want %v", q, gotErr, wantErr)
			}
			if wantErr != nil {
				return
			}
			if diff := querytest.Diff(withoutMetadata(want), got); diff != "" {
				t.Errorf("%s\n(-want +got):\n%.4000s", q, diff)
			}
		})
	}
	if answered < queries/3 {
		t.Errorf("only %d of %d queries have an answer", answered, queries)
	}
}

// storedRows reads back what was ingested, checks it against what was put, and returns it as Loki sees it.
func (l *lake) storedRows(t *testing.T, rows []querytest.Row, start time.Time) querytest.Memory {
	t.Helper()
	lines := l.lines("default", everything, start, start.Add(3*time.Hour))
	if len(lines) != len(rows) {
		t.Fatalf("%d rows came back of %d", len(lines), len(rows))
	}
	var stored querytest.Memory
	for i, line := range lines {
		row := rows[i]
		if !line.GetTime().AsTime().Equal(row.Time) || line.GetLine() != row.Line {
			t.Fatalf("row %d came back as %v %q, want %v %q", i, line.GetTime().AsTime(), line.GetLine(), row.Time, row.Line)
		}
		if diff := cmp.Diff(row.Labels, line.GetLabels()); diff != "" {
			t.Fatalf("labels of row %d: %s", i, diff)
		}
		metadata := asStored(line)
		for name, want := range row.Metadata {
			if got := metadata[name]; got != want && want != strings.Repeat("0", 32) {
				t.Fatalf("row %d has %s = %q in %v, want %q", i, name, got, metadata, want)
			}
		}
		stored = append(stored, querytest.Row{Time: row.Time, Line: row.Line, Labels: line.GetLabels(), Metadata: metadata})
	}
	return stored
}

// asStored undoes what a query does to metadata whose name is a stream label's too.
func asStored(line *queryv1.LogLine) map[string]string {
	metadata := map[string]string{}
	for name, value := range line.GetMetadata() {
		bare := strings.TrimSuffix(name, "_extracted")
		if _, label := line.GetLabels()[bare]; label {
			name = bare
		}
		metadata[name] = value
	}
	return metadata
}

// encodeRows writes rows as OTLP, so that Loki's mapping makes them again.
func encodeRows(t *testing.T, rows []querytest.Row) []byte {
	t.Helper()
	data := &logspb.LogsData{}
	for _, row := range rows {
		record := &logspb.LogRecord{
			TimeUnixNano: uint64(row.Time.UnixNano()),
			SeverityText: strings.ToUpper(row.Metadata["detected_level"]),
			Body:         &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: row.Line}},
		}
		for _, name := range slices.Sorted(maps.Keys(row.Metadata)) {
			switch value := row.Metadata[name]; name {
			case "detected_level":
			case "trace_id":
				record.TraceId, _ = hex.DecodeString(value)
			default:
				record.Attributes = append(record.Attributes, attribute(name, value))
			}
		}
		resource := &resourcepb.Resource{}
		for name, from := range map[string]string{"service.name": "service_name", "env": "env", "k8s.pod.name": "k8s_pod_name"} {
			if value, ok := row.Labels[from]; ok {
				resource.Attributes = append(resource.Attributes, attribute(name, value))
			}
		}
		data.ResourceLogs = append(data.ResourceLogs, &logspb.ResourceLogs{Resource: resource, ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{record}}}})
	}
	body, err := sample.Compress(data)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func attribute(name, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: name, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// evaluate asks the Loki API.
func (l *lake) evaluate(t *testing.T, q querytest.Query) (parser.Value, error) {
	t.Helper()
	path, params := "/loki/api/v1/query_range", url.Values{
		"query": {q.Text}, "start": {nanos(q.Start)}, "end": {nanos(q.End)}, "limit": {strconv.Itoa(q.Limit)}, "direction": {q.Direction.String()},
	}
	if q.Step > 0 {
		params.Set("step", strconv.FormatFloat(q.Step.Seconds(), 'f', -1, 64))
	}
	if q.Interval > 0 {
		params.Set("interval", strconv.FormatFloat(q.Interval.Seconds(), 'f', -1, 64))
	}
	if !q.Logs() && q.Step == 0 {
		path = "/loki/api/v1/query"
		params.Set("time", nanos(q.End))
	}
	status, body := l.fetch(l.keys["default"], path, params)
	if status != http.StatusOK {
		return nil, fmt.Errorf("%d: %s", status, body)
	}
	var answer loghttp.QueryResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return valueOf(t, answer.Data.Result), nil
}

// valueOf turns an answer of the API back into what the engine gave.
func valueOf(t *testing.T, result loghttp.ResultValue) parser.Value {
	t.Helper()
	switch v := result.(type) {
	case loghttp.Scalar:
		return promql.Scalar{T: int64(v.Timestamp), V: float64(v.Value)}
	case loghttp.Vector:
		var out promql.Vector
		for _, s := range v {
			out = append(out, promql.Sample{Metric: metricOf(s.Metric), T: int64(s.Timestamp), F: float64(s.Value)})
		}
		return out
	case loghttp.Matrix:
		var out promql.Matrix
		for _, s := range v {
			series := promql.Series{Metric: metricOf(s.Metric)}
			for _, p := range s.Values {
				series.Floats = append(series.Floats, promql.FPoint{T: int64(p.Timestamp), F: float64(p.Value)})
			}
			out = append(out, series)
		}
		return out
	case loghttp.Streams:
		var out logqlmodel.Streams
		for _, s := range v {
			stream := logproto.Stream{Labels: s.Labels.String()}
			for _, e := range s.Entries {
				stream.Entries = append(stream.Entries, logproto.Entry{Timestamp: e.Timestamp, Line: e.Line})
			}
			out = append(out, stream)
		}
		return out
	}
	t.Fatalf("a result of type %T", result)
	return nil
}

func metricOf(m model.Metric) labels.Labels {
	set := map[string]string{}
	for name, value := range m {
		set[string(name)] = string(value)
	}
	return labels.FromMap(set)
}

// withoutMetadata takes away what the API says only to those who ask for categorized labels.
func withoutMetadata(v parser.Value) parser.Value {
	streams, ok := v.(logqlmodel.Streams)
	if !ok {
		return v
	}
	out := make(logqlmodel.Streams, 0, len(streams))
	for _, s := range streams {
		bare := logproto.Stream{Labels: s.Labels}
		for _, e := range s.Entries {
			bare.Entries = append(bare.Entries, logproto.Entry{Timestamp: e.Timestamp, Line: e.Line})
		}
		out = append(out, bare)
	}
	return out
}
