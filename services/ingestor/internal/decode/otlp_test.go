// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// reference decodes by OpenTelemetry's own library and reads the result as the recorder would.
func reference(t testing.TB, content []byte) []row {
	t.Helper()
	ld, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(content)
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, rl := range ld.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				rows = append(rows, referenceRow(rl, sl, lr))
			}
		}
	}
	return rows
}

func referenceRow(rl plog.ResourceLogs, sl plog.ScopeLogs, lr plog.LogRecord) row {
	r := row{
		Observed: int64(lr.ObservedTimestamp()), Number: int32(lr.SeverityNumber()), Severity: lr.SeverityText(), Flags: uint32(lr.Flags()),
		Dropped: lr.DroppedAttributesCount(), Event: lr.EventName(), Body: lr.Body().AsString(), BodyKind: kindOf(lr.Body()),
		Attributes: attributesOf(lr.Attributes()), Resource: attributesOf(rl.Resource().Attributes()), Scope: attributesOf(sl.Scope().Attributes()),
		Names: [4]string{sl.Scope().Name(), sl.Scope().Version(), rl.SchemaUrl(), sl.SchemaUrl()},
	}
	if id := lr.TraceID(); !id.IsEmpty() {
		r.Trace = id.String()
	}
	if id := lr.SpanID(); !id.IsEmpty() {
		r.Span = id.String()
	}
	switch {
	case lr.Timestamp() != 0:
		r.Time = int64(lr.Timestamp())
	case lr.ObservedTimestamp() != 0:
		r.Time, r.TimeSource = r.Observed, columns.TimeObserved
	default:
		r.Time, r.TimeSource = objectTime().UnixNano(), columns.TimeObject
	}
	return r
}

func attributesOf(m pcommon.Map) []columns.Attribute {
	var attributes []columns.Attribute
	for name, v := range m.All() {
		a := columns.Attribute{Name: name, Value: columns.Value{Kind: kindOf(v)}}
		switch v.Type() {
		case pcommon.ValueTypeInt:
			a.Value.Num = uint64(v.Int())
		case pcommon.ValueTypeDouble:
			a.Value.Num = math.Float64bits(v.Double())
		case pcommon.ValueTypeBool:
			if v.Bool() {
				a.Value.Num = 1
			}
		case pcommon.ValueTypeBytes:
			a.Value.Str = string(v.Bytes().AsRaw())
		default:
			a.Value.Str = v.AsString()
		}
		attributes = append(attributes, a)
	}
	return attributes
}

func kindOf(v pcommon.Value) columns.ValueKind {
	switch v.Type() {
	case pcommon.ValueTypeInt:
		return columns.KindInt
	case pcommon.ValueTypeDouble:
		return columns.KindDouble
	case pcommon.ValueTypeBool:
		return columns.KindBool
	case pcommon.ValueTypeBytes:
		return columns.KindBytes
	case pcommon.ValueTypeSlice:
		return columns.KindArray
	case pcommon.ValueTypeMap:
		return columns.KindMap
	}
	return columns.KindString
}

// generated makes logs with every field and kind of value.
func generated(seed uint64) plog.Logs {
	g := rand.New(rand.NewPCG(seed, 3))
	ld := plog.NewLogs()
	for range 1 + g.IntN(3) {
		rl := ld.ResourceLogs().AppendEmpty()
		rl.SetSchemaUrl([]string{"", "https://schema/1"}[g.IntN(2)])
		generateAttributes(g, rl.Resource().Attributes())
		for range 1 + g.IntN(2) {
			sl := rl.ScopeLogs().AppendEmpty()
			sl.SetSchemaUrl([]string{"", "https://schema/2"}[g.IntN(2)])
			sl.Scope().SetName([]string{"", "lib"}[g.IntN(2)])
			sl.Scope().SetVersion([]string{"", "1.2"}[g.IntN(2)])
			generateAttributes(g, sl.Scope().Attributes())
			for range 1 + g.IntN(4) {
				generateRecord(g, sl.LogRecords().AppendEmpty())
			}
		}
	}
	return ld
}

func generateRecord(g *rand.Rand, lr plog.LogRecord) {
	lr.SetTimestamp(pcommon.Timestamp(g.Int64N(3) * (1_790_000_000_000_000_000 + g.Int64N(1e9))))
	lr.SetObservedTimestamp(pcommon.Timestamp(g.Int64N(2) * (1_790_000_000_000_000_000 + g.Int64N(1e9))))
	lr.SetSeverityNumber(plog.SeverityNumber(g.IntN(25)))
	lr.SetSeverityText([]string{"", "INFO"}[g.IntN(2)])
	lr.SetEventName([]string{"", "clicked"}[g.IntN(2)])
	lr.SetDroppedAttributesCount(uint32(g.IntN(3)))
	lr.SetFlags(plog.LogRecordFlags(g.IntN(2)))
	lr.SetTraceID(pcommon.TraceID{byte(g.IntN(2)), 15: byte(g.IntN(2))})
	lr.SetSpanID(pcommon.SpanID{7: byte(g.IntN(2))})
	generateValue(g, lr.Body(), 3)
	generateAttributes(g, lr.Attributes())
}

func generateAttributes(g *rand.Rand, m pcommon.Map) {
	for i := range g.IntN(5) {
		generateValue(g, m.PutEmpty(fmt.Sprint("name.", i)), 3)
	}
}

func generateValue(g *rand.Rand, v pcommon.Value, depth int) {
	kinds := 9
	if depth == 0 {
		kinds = 7
	}
	switch g.IntN(kinds) {
	case 0, 1:
		v.SetStr([]string{"", "text", "<&> \"q\" \\ \n\t\x01", "größe \u2028 \U0001F600"}[g.IntN(4)])
	case 2:
		v.SetInt([]int64{0, -1, math.MaxInt64, math.MinInt64}[g.IntN(4)])
	case 3:
		v.SetDouble([]float64{1, -0.5, 1e21, 1e-7, math.MaxFloat64}[g.IntN(5)])
	case 4:
		v.SetBool(g.IntN(2) == 0)
	case 5:
		v.SetEmptyBytes().FromRaw([]byte("\x00\xff bytes")[:1+g.IntN(7)])
	case 6:
		v.SetStr("again")
	case 7:
		s := v.SetEmptySlice()
		for range g.IntN(4) {
			generateValue(g, s.AppendEmpty(), depth-1)
		}
	case 8:
		m := v.SetEmptyMap()
		for i := range g.IntN(4) {
			generateValue(g, m.PutEmpty(fmt.Sprint("k", 9-i)), depth-1)
		}
	}
}

func marshalProto(t testing.TB, ld plog.Logs) []byte {
	t.Helper()
	b, err := (&plog.ProtoMarshaler{}).MarshalLogs(ld)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marshalJSON(t testing.TB, ld plog.Logs) []byte {
	t.Helper()
	b, err := (&plog.JSONMarshaler{}).MarshalLogs(ld)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOTLPIsTheReferences holds both OTLP decoders to OpenTelemetry's own library.
func TestOTLPIsTheReferences(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		ld := generated(seed)
		content := marshalProto(t, ld)
		want := reference(t, content)
		for format, content := range map[string][]byte{"otlp-proto": content, "otlp-json": marshalJSON(t, ld)} {
			got := decodeBytes(content)
			if got.Err != nil || got.Format != format || got.Problem != "" || len(got.Rejects) > 0 {
				t.Fatalf("seed %d: %s: %+v", seed, format, got)
			}
			if diff := cmp.Diff(want, got.Rows); diff != "" {
				t.Fatalf("seed %d, %s (- reference, + ours):\n%s", seed, format, diff)
			}
		}
	}
}

// TestAppendOTLPComesBack holds what rejected rows are written as to what they were.
func TestAppendOTLPComesBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		s := &rewriter{}
		if _, err := decode.Decode(bytes.NewReader(marshalProto(t, generated(seed))), decode.Options{ObjectTime: objectTime()}, decode.Sinks{Logs: s}); err != nil {
			t.Fatal(err)
		}
		again := decodeBytes(s.lines)
		if diff := cmp.Diff(s.rows, again.Rows); diff != "" || again.Err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, again.Err, diff)
		}
	}
}

// rewriter writes rows as rejected ones are.
type rewriter struct {
	recorder
	current *columns.Origin
	lines   []byte
}

func (s *rewriter) Origin(o *columns.Origin) {
	s.recorder.Origin(o)
	s.current = o
}

func (s *rewriter) Row(r *columns.LogRow) error {
	s.lines = append(decode.AppendOTLP(s.lines, "too_old", s.current, r), '\n')
	return s.recorder.Row(r)
}

func TestOTLPSignals(t *testing.T) {
	t.Parallel()
	metrics := pmetric.NewMetrics()
	m := metrics.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("up")
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	traces := ptrace.NewTraces()
	span := traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
	span.SetName("GET")
	span.SetTraceID(pcommon.TraceID{1})
	span.SetSpanID(pcommon.SpanID{1})
	span.SetStartTimestamp(1)
	metricsProto, _ := (&pmetric.ProtoMarshaler{}).MarshalMetrics(metrics)
	metricsJSON, _ := (&pmetric.JSONMarshaler{}).MarshalMetrics(metrics)
	tracesProto, _ := (&ptrace.ProtoMarshaler{}).MarshalTraces(traces)
	tracesJSON, _ := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
	for _, c := range []struct {
		content []byte
		want    lake.Signal
	}{
		{metricsProto, lake.SignalMetrics}, {metricsJSON, lake.SignalMetrics}, {tracesProto, lake.SignalSpans}, {tracesJSON, lake.SignalSpans},
	} {
		got := decodeBytes(c.content)
		if got.Signal != c.want || !decode.IsUnsupported(got.Err) || len(got.Rows) > 0 {
			t.Errorf("%s: got %+v", c.want, got)
		}
		if !strings.Contains(got.Err.Error(), "signal not supported by this release: "+c.want.String()) {
			t.Errorf("got %v", got.Err)
		}
	}
}

func TestOTLPJSONIsGenerous(t *testing.T) {
	t.Parallel()
	record := func(fields string) string {
		return `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{` + fields + `}]}]}]}`
	}
	traceID := bytes.Repeat([]byte{0xab}, 16)
	for _, c := range []struct {
		about, content string
		check          func(r row) bool
	}{
		{"snake case", `{"resource_logs":[{"resource":{"attributes":[{"key":"service.name","value":{"string_value":"s"}}]},"scope_logs":[{"log_records":[{"time_unix_nano":"5","severity_number":9,"severity_text":"INFO","body":{"string_value":"b"},"trace_id":"` + strings.Repeat("ab", 16) + `"}]}]}]}`, func(r row) bool {
			return r.Time == 5 && r.Number == 9 && r.Severity == "INFO" && r.Body == "b" && r.Trace == strings.Repeat("ab", 16) && len(r.Resource) == 1
		}},
		{"ids in base64", record(`"traceId":"` + base64.StdEncoding.EncodeToString(traceID) + `","spanId":"` + base64.StdEncoding.EncodeToString(traceID[:8]) + `"`), func(r row) bool {
			return r.Trace == strings.Repeat("ab", 16) && r.Span == strings.Repeat("ab", 8)
		}},
		{"ids that are none", record(`"traceId":"xyz","spanId":""`), func(r row) bool { return r.Trace == "" && r.Span == "" }},
		{"times as numbers", record(`"timeUnixNano":1790000000000000001,"observedTimeUnixNano":1790000000000000002`), func(r row) bool {
			return r.Time == 1790000000000000001 && r.Observed == 1790000000000000002
		}},
		{"a zero time", record(`"timeUnixNano":"0","observedTimeUnixNano":"7"`), func(r row) bool { return r.Time == 7 && r.TimeSource == columns.TimeObserved }},
		{"no time", record(`"body":{"stringValue":"x"}`), func(r row) bool {
			return r.Time == objectTime().UnixNano() && r.TimeSource == columns.TimeObject
		}},
		{"a time beyond 2262", record(`"timeUnixNano":"18446744073709551615"`), func(r row) bool { return r.Time == math.MaxInt64 }},
		{"the name of an enum", record(`"severityNumber":"SEVERITY_NUMBER_ERROR3"`), func(r row) bool { return r.Number == 19 }},
		{"ints with and without quotes", record(`"attributes":[{"key":"a","value":{"intValue":"-3"}},{"key":"b","value":{"intValue":4}}]`), func(r row) bool {
			return int64(r.Attributes[0].Value.Num) == -3 && r.Attributes[1].Value.Num == 4
		}},
		{"doubles that JSON has not", record(`"attributes":[{"key":"a","value":{"doubleValue":"NaN"}},{"key":"b","value":{"doubleValue":"-Infinity"}}]`), func(r row) bool {
			return math.IsNaN(math.Float64frombits(r.Attributes[0].Value.Num)) && math.IsInf(math.Float64frombits(r.Attributes[1].Value.Num), -1)
		}},
		{"unknown fields", record(`"new":{"a":[1,{"b":"}"}]},"body":{"stringValue":"x"}`), func(r row) bool { return r.Body == "x" }},
		{"a structured body", record(`"body":{"kvlistValue":{"values":[{"key":"b","value":{"doubleValue":1.0}},{"key":"a","value":{"arrayValue":{"values":[{"boolValue":true},{}]}}}]}}`), func(r row) bool {
			return r.Body == `{"a":[true,null],"b":1}` && r.BodyKind == columns.KindMap
		}},
		{"escapes", record(`"body":{"stringValue":"a\u00e9\ud83d\ude00\n\\\"\/\ud800"}`), func(r row) bool { return r.Body == "aé😀\n\\\"/\uFFFD" }},
		{"a byte order mark", "\xef\xbb\xbf" + record(`"body":{"stringValue":"x"}`), func(r row) bool { return r.Body == "x" }},
		{"a resource after its scopes", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}],"scope":{"name":"n"}}],"schemaUrl":"u","resource":{"attributes":[{"key":"k","value":{"stringValue":"v"}}]}}]}`, func(r row) bool {
			return len(r.Resource) == 1 && r.Names == [4]string{"n", "", "u", ""}
		}},
		{"null where an object should be", `{"resourceLogs":[{"resource":null,"scopeLogs":[{"scope":null,"logRecords":[{"body":null,"attributes":null}]}]}]}`, func(r row) bool { return r.Body == "" }},
	} {
		t.Run("reads "+c.about, func(t *testing.T) {
			t.Parallel()
			got := decodeBytes([]byte(c.content))
			if got.Err != nil || got.Format != "otlp-json" || len(got.Rows) != 1 || !c.check(got.Rows[0]) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestOTLPJSONDocuments(t *testing.T) {
	t.Parallel()
	document := func(body string) string {
		return `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"` + body + `"}}]}]}]}`
	}
	t.Run("may be many, with or without a line feed between", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes([]byte(document("a") + "\n" + document("b") + document("c") + "\r\n\r\n{}" + document("d")))
		if diff := cmp.Diff([]string{"a", "b", "c", "d"}, got.bodies()); diff != "" || got.Err != nil {
			t.Errorf("%v\n%s", got.Err, diff)
		}
	})
	t.Run("that are broken are rejected alone", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes([]byte(document("a") + "\n" + `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":]}` + "\nno json\n" + document("b")))
		if diff := cmp.Diff([]string{"a", "b"}, got.bodies()); diff != "" || got.Err != nil || len(got.Rejects) != 2 {
			t.Errorf("%v %v\n%s", got.Err, got.Rejects, diff)
		}
	})
	t.Run("that are cut give the rows before the cut", func(t *testing.T) {
		t.Parallel()
		whole := `{"resourceLogs":[{"resource":{},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}},{"body":{"stringValue":"b"}}]}]}]}`
		got := decodeBytes([]byte(whole[:strings.Index(whole, `"b"`)+1]))
		if diff := cmp.Diff([]string{"a"}, got.bodies()); diff != "" || got.Err != nil || got.Problem == "" {
			t.Errorf("%+v\n%s", got, diff)
		}
	})
}

// TestOTLPProtoCut cuts a message at every byte: what is whole before the cut counts, and nothing is made up.
func TestOTLPProtoCut(t *testing.T) {
	t.Parallel()
	content := marshalProto(t, generated(11))
	whole := decodeBytes(content).Rows
	most := 0
	for cut := range content {
		got := decodeBytes(content[:cut], func(o *decode.Options) { o.Hint = lake.SignalLogs })
		if got.Err != nil || got.Format != "otlp-proto" {
			continue // too little to know what it is
		}
		if len(got.Rows) > len(whole) || len(got.Rows) < most {
			t.Fatalf("cut at %d of %d: %d rows after %d", cut, len(content), len(got.Rows), most)
		}
		most = len(got.Rows)
		if diff := cmp.Diff(bodiesOf(whole[:most]), got.bodies()); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
	}
	if most == 0 {
		t.Error("no cut gave a row")
	}
}

func bodiesOf(rows []row) []string { return decoded{Rows: rows}.bodies() }

func TestOTLPProtoBroken(t *testing.T) {
	t.Parallel()
	t.Run("in the middle is an error", func(t *testing.T) {
		t.Parallel()
		content := marshalProto(t, generated(5))
		got := decodeBytes(append(content, 0x0a, 0x02, 0x12, 0x50))
		if got.Err == nil {
			t.Errorf("got %d rows and no error", len(got.Rows))
		}
	})
	t.Run("by a resource beyond the limit is an error", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes(marshalProto(t, generated(5)), func(o *decode.Options) { o.MaxResourceBytes = 16 })
		if got.Err == nil {
			t.Error("no error")
		}
	})
	t.Run("by nesting without end is an error", func(t *testing.T) {
		t.Parallel()
		ld := plog.NewLogs()
		v := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body()
		for range 200 {
			v = v.SetEmptySlice().AppendEmpty()
		}
		if got := decodeBytes(marshalProto(t, ld), func(o *decode.Options) { o.Hint = lake.SignalLogs }); got.Err == nil {
			t.Error("no error")
		}
	})
}
