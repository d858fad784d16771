// SPDX-License-Identifier: AGPL-3.0-only

package lokicheck_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/grafana/loki/v3/pkg/loghttp/push"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/mapping"
)

// seen is a row as LogQL sees it.
type seen struct {
	Labels   string
	Line     string
	Metadata map[string]string
}

// TestMappingIsLokis holds streams, lines and structured metadata to what Loki's own OTLP endpoint makes of the same requests, over
// generated ones.
func TestMappingIsLokis(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		g := &generator{rand: rand.New(rand.NewPCG(seed, 7))}
		request := g.request()
		content, err := request.MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		want, got := byLoki(t, content), byUs(t, content)
		if diff := cmp.Diff(want, got); diff != "" {
			document, _ := request.MarshalJSON()
			t.Fatalf("seed %d (- Loki, + ours):\n%s\nof %s", seed, diff, document)
		}
	}
}

func byUs(t *testing.T, content []byte) map[int64]seen {
	t.Helper()
	s := newSink()
	if _, err := decode.Decode(bytes.NewReader(content), decode.Options{}, decode.Sinks{Logs: s}); err != nil {
		t.Fatal(err)
	}
	rows := map[int64]seen{}
	for i := range s.logs.Len() {
		var r columns.LogRow
		s.logs.Row(i, &r)
		stream := s.logs.StreamLabels(r.Stream)
		r.DetectedLevel = "" // the distributor's, not the endpoint's
		row := seen{Line: r.Body, Metadata: map[string]string{}}
		pairs := make([]string, len(stream))
		for i, l := range stream {
			pairs[i] = fmt.Sprintf("%s=%q", l.Name, l.Value)
		}
		row.Labels = "{" + strings.Join(pairs, ", ") + "}"
		for _, l := range columns.NewMetadata(s.logs.OriginOf(r.Origin), stream).Append(nil, &r) {
			row.Metadata[l.Name] = l.Value
		}
		rows[r.Time] = row
	}
	return rows
}

func byLoki(t *testing.T, content []byte) map[int64]seen {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	request, _, err := push.ParseOTLPRequest("acme", r, lokiLimits{}, nil, 0, 0, nil, lokiStreams{}, log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	rows := map[int64]seen{}
	for _, stream := range request.Streams {
		for _, entry := range stream.Entries {
			row := seen{Labels: stream.Labels, Line: entry.Line, Metadata: map[string]string{}}
			// A query sets them one after the other: the last stands.
			for _, l := range entry.StructuredMetadata {
				row.Metadata[l.Name] = l.Value
			}
			rows[entry.Timestamp.UnixNano()] = row
		}
	}
	return rows
}

type lokiLimits struct{}

func (lokiLimits) OTLPConfig(string) push.OTLPConfig {
	return push.DefaultOTLPConfig(push.GlobalOTLPConfig{DefaultOTLPResourceAttributesAsIndexLabels: config.DefaultStreamLabels()})
}

func (lokiLimits) DiscoverServiceName(string) []string {
	return []string{
		"service", "app", "application", "app_name", "name", "app_kubernetes_io_name", "container", "container_name",
		"k8s_container_name", "component", "workload", "job", "k8s_job_name",
	}
}

type lokiStreams struct{}

func (lokiStreams) RetentionPeriodFor(labels.Labels) time.Duration  { return 0 }
func (lokiStreams) RetentionHoursFor(labels.Labels) string          { return "" }
func (lokiStreams) PolicyFor(context.Context, labels.Labels) string { return "" }

// generator makes requests in which names meet after translation, and values are of every kind.
type generator struct {
	rand *rand.Rand
	time int64
}

func (g *generator) request() plogotlp.ExportRequest {
	ld := plog.NewLogs()
	for range 1 + g.rand.IntN(3) {
		resource := ld.ResourceLogs().AppendEmpty()
		g.resource(resource.Resource().Attributes())
		for range 1 + g.rand.IntN(2) {
			scope := resource.ScopeLogs().AppendEmpty()
			if g.rand.IntN(2) == 0 {
				scope.Scope().SetName("lib")
				scope.Scope().SetVersion("1.2")
			}
			g.attributes(scope.Scope().Attributes(), 3)
			for range g.rand.IntN(4) {
				g.record(scope.LogRecords().AppendEmpty())
			}
		}
	}
	return plogotlp.NewExportRequestFromLogs(ld)
}

func (g *generator) resource(m pcommon.Map) {
	for _, name := range []string{"service.name", "k8s.container.name", "k8s.pod.name", "k8s.job.name", "cloud.region"} {
		switch g.rand.IntN(4) {
		case 0:
			m.PutStr(name, "v"+name)
		case 1:
			m.PutInt(name, g.rand.Int64N(100))
		}
	}
	g.attributes(m, 5)
}

func (g *generator) record(r plog.LogRecord) {
	g.time++
	r.SetTimestamp(pcommon.Timestamp(1_700_000_000_000_000_000 + g.time))
	if g.rand.IntN(2) == 0 {
		r.SetObservedTimestamp(pcommon.Timestamp(g.rand.Int64()))
	}
	if g.rand.IntN(4) == 0 {
		r.SetObservedTimestamp(r.Timestamp())
		r.SetTimestamp(0)
	}
	if g.rand.IntN(2) == 0 {
		r.SetSeverityNumber(plog.SeverityNumber(g.rand.IntN(25)))
		r.SetSeverityText([]string{"", "INFO", "Error"}[g.rand.IntN(3)])
		r.SetDroppedAttributesCount(uint32(g.rand.IntN(3)))
		r.SetFlags(plog.LogRecordFlags(g.rand.IntN(2)))
		r.SetTraceID(pcommon.TraceID{byte(g.rand.IntN(2)), 15: byte(g.rand.IntN(2))})
		r.SetSpanID(pcommon.SpanID{7: byte(g.rand.IntN(2))})
		r.SetEventName([]string{"", "clicked"}[g.rand.IntN(2)])
	}
	g.value(r.Body(), 3)
	g.attributes(r.Attributes(), 8)
}

func (g *generator) attributes(m pcommon.Map, most int) {
	for range g.rand.IntN(most + 1) {
		g.value(m.PutEmpty(g.name()), 3)
	}
}

func (g *generator) name() string {
	names := []string{
		"a.b", "a_b", "a-b", "a..b", "a__b", "a", "b", "service_name", "service", "app", "level", "severity_text", "severity_number",
		"trace_id", "flags", "observed_timestamp", "scope_name", "1st", "_x", "__r__", "größe", "x/y z", "userId", "userid", "k8s_pod_name",
	}
	return names[g.rand.IntN(len(names))]
}

func (g *generator) value(v pcommon.Value, depth int) {
	kinds := 9
	if depth == 0 {
		kinds = 7
	}
	switch g.rand.IntN(kinds) {
	case 0, 1:
		v.SetStr([]string{"", "text", "<&> \"q\" \\ \n\t\b\f\x01\x7f", "größe \u2028 \U0001F600"}[g.rand.IntN(4)])
	case 2:
		v.SetInt([]int64{0, -1, math.MaxInt64, math.MinInt64, 42}[g.rand.IntN(5)])
	case 3:
		v.SetDouble([]float64{1.0, -0.5, 1e21, 1e-7, 123456789.125, 0, math.MaxFloat64, math.SmallestNonzeroFloat64}[g.rand.IntN(8)])
	case 4:
		v.SetBool(g.rand.IntN(2) == 0)
	case 5:
		v.SetEmptyBytes().FromRaw([]byte("\x00\xff bytes")[:g.rand.IntN(8)])
	case 6: // empty
	case 7:
		s := v.SetEmptySlice()
		for range g.rand.IntN(4) {
			g.value(s.AppendEmpty(), depth-1)
		}
	case 8:
		g.mapValue(v.SetEmptyMap(), depth)
	}
}

// mapValue puts keys in order: that of a map's entries is not kept.
func (g *generator) mapValue(m pcommon.Map, depth int) {
	var names []string
	for range g.rand.IntN(4) {
		names = append(names, g.name())
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		g.value(m.PutEmpty(name), depth-1)
	}
}

// sink maps what it is given.
type sink struct {
	logs   *columns.Logs
	mapper *mapping.Mapper
}

func newSink() *sink {
	logs := columns.NewLogs()
	s := &sink{logs: logs, mapper: mapping.New(logs)}
	s.mapper.SetLabels(config.DefaultStreamLabels())
	return s
}

func (s *sink) Origin(o *columns.Origin) { s.mapper.Origin(o) }

func (s *sink) Row(r *columns.LogRow) error {
	s.mapper.Row(r, 0)
	s.logs.Append(r)
	return nil
}

func (s *sink) Reject(reason string, _ []byte) error { return fmt.Errorf("rejected: %s", reason) }
