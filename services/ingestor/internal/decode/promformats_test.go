// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"encoding/binary"
	enchex "encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	promexemplar "github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

const ms = 1_000_000

// writeRequests are the same series in both versions of remote write, with what they say.
func writeRequests(t testing.TB) (v1, v2 []byte, want []point) {
	t.Helper()
	native := &histogram.Histogram{
		Schema: 1, ZeroThreshold: 0.5, ZeroCount: 2, Count: 12, Sum: 7.5, PositiveSpans: []histogram.Span{{Offset: -1, Length: 2}, {Offset: 3, Length: 1}},
		PositiveBuckets: []int64{1, 2, -1}, NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{4},
	}
	custom := &histogram.FloatHistogram{
		CounterResetHint: histogram.GaugeType, Schema: histogram.CustomBucketsSchema, Count: 3, Sum: 2.5, CustomValues: []float64{0.5, 2},
		PositiveSpans: []histogram.Span{{Length: 3}}, PositiveBuckets: []float64{1, 1.5, 0.5},
	}
	named := func(name string) []prompb.Label {
		return []prompb.Label{{Name: "__name__", Value: name}, {Name: "job", Value: "shop"}}
	}
	request := prompb.WriteRequest{
		Timeseries: []prompb.TimeSeries{
			{
				Labels: named("requests_total"), Samples: []prompb.Sample{{Value: 1, Timestamp: 1000}, {Value: math.Float64frombits(0x7ff0000000000002), Timestamp: 2000}},
				Exemplars: []prompb.Exemplar{{Labels: []prompb.Label{{Name: "trace_id", Value: "abc"}}, Value: 0.5, Timestamp: 1500}},
			},
			{Labels: named("took"), Histograms: []prompb.Histogram{prompb.FromIntHistogram(3000, native), prompb.FromFloatHistogram(4000, custom)}},
			{Labels: named("requests_total"), Exemplars: []prompb.Exemplar{{Value: 2, Timestamp: -5}}},
		},
		Metadata: []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "requests", Help: "how many", Unit: "requests"}},
	}
	v1, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	symbols := writev2.NewSymbolTable()
	second := writev2.Request{}
	for _, series := range request.Timeseries {
		l := labels.FromStrings("__name__", series.Labels[0].Value, "job", "shop")
		out := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(l, nil)}
		for _, s := range series.Samples {
			out.Samples = append(out.Samples, writev2.Sample{Value: s.Value, Timestamp: s.Timestamp, StartTimestamp: 500})
		}
		for _, e := range series.Exemplars {
			var refs []uint32
			for _, l := range e.Labels {
				refs = append(refs, symbols.Symbolize(l.Name), symbols.Symbolize(l.Value))
			}
			out.Exemplars = append(out.Exemplars, writev2.Exemplar{LabelsRefs: refs, Value: e.Value, Timestamp: e.Timestamp})
		}
		if len(series.Histograms) > 0 {
			out.Histograms = []writev2.Histogram{writev2.FromIntHistogram(0, 3000, native), writev2.FromFloatHistogram(0, 4000, custom)}
		}
		if len(series.Samples) > 0 {
			out.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER, HelpRef: symbols.Symbolize("how many"), UnitRef: symbols.Symbolize("requests")}
		}
		second.Timeseries = append(second.Timeseries, out)
	}
	second.Symbols = symbols.Symbols()
	if v2, err = second.Marshal(); err != nil {
		t.Fatal(err)
	}
	attributes := func(name string) []columns.Attribute {
		return []columns.Attribute{text("__name__", name), text("job", "shop")}
	}
	series := decode.Metric{Kind: decode.MetricSeries}
	last := exemplar{Time: 1500 * ms, Value: 0.5, Attributes: []columns.Attribute{text("trace_id", "abc")}}
	return v1, v2, []point{
		{Metric: series, Attributes: attributes("requests_total"), Time: 1000 * ms, Value: 1},
		{Metric: series, Attributes: attributes("requests_total"), Time: 2000 * ms, Value: math.Float64frombits(0x7ff0000000000002), Exemplars: []exemplar{last}},
		{Metric: series, Attributes: attributes("took"), Time: 3000 * ms, Native: native.ToFloat(nil)},
		{Metric: series, Attributes: attributes("took"), Time: 4000 * ms, Native: custom},
		{Metric: series, Attributes: attributes("requests_total"), Bare: true, Exemplars: []exemplar{{Time: -5 * ms, Value: 2}}},
	}
}

// framed writes requests as files have them: each with its length before it.
func framed(requests ...[]byte) []byte {
	var out []byte
	for _, r := range requests {
		block := snappy.Encode(nil, r)
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(block))), block...)
	}
	return out
}

// equalHistograms compares native histograms by their bits, nil and empty slices alike.
func equalHistograms() cmp.Option {
	return cmp.Comparer(func(a, b *histogram.FloatHistogram) bool {
		return (a == nil) == (b == nil) && (a == nil || a.Equals(b) && a.CounterResetHint == b.CounterResetHint)
	})
}

func sameBits() cmp.Option {
	return cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })
}

func TestRemoteWrite(t *testing.T) {
	t.Parallel()
	v1, v2, want := writeRequests(t)
	started := slices.Clone(want)
	started[0].Start, started[1].Start = 500*ms, 500*ms
	for _, c := range []struct {
		name    string
		content []byte
		want    []point
	}{
		{"one request of the first version", snappy.Encode(nil, v1), want},
		{"one request of the second version", snappy.Encode(nil, v2), started},
		{"many requests with their lengths", framed(v1, v2, v1), slices.Concat(want, started, want)},
		{"one with its length", framed(v2), started},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := decodeMetrics(t, c.content)
			if diff := cmp.Diff(c.want, got.points, equalHistograms(), sameBits()); diff != "" || got.Err != nil || got.Format != "prometheus-remote-write" {
				t.Errorf("%s, %v\n%s", got.Format, got.Err, diff)
			}
			family := decode.Family{Type: model.MetricTypeCounter, Help: "how many", Unit: "requests"}
			if got.families["requests"] != family && got.families["requests_total"] != family {
				t.Errorf("families: %+v", got.families)
			}
			if packed := decodeMetrics(t, gz(t, c.content)); packed.Format != "prometheus-remote-write+gzip" || len(packed.points) != len(c.want) {
				t.Errorf("gzipped: %s, %d points, %v", packed.Format, len(packed.points), packed.Err)
			}
		})
	}
	t.Run("what is cut ends there", func(t *testing.T) {
		t.Parallel()
		content := framed(v1, v2)
		first := len(framed(v1))
		for _, cut := range []int{first + 2, first + 4, first + 9, len(content) - 1} {
			got := decodeMetrics(t, content[:cut])
			if got.Err != nil || got.Problem == "" || len(got.points) != len(want) {
				t.Errorf("cut at %d: %d points, problem %q, %v", cut, len(got.points), got.Problem, got.Err)
			}
		}
	})
	t.Run("broken ones fail the object", func(t *testing.T) {
		t.Parallel()
		for name, broken := range map[string][]byte{
			"a symbol that is not there": framed(mustMarshal(t, &writev2.Request{Symbols: []string{"", "a"}, Timeseries: []writev2.TimeSeries{{LabelsRefs: []uint32{1, 9}, Samples: []writev2.Sample{{Timestamp: 1}}}}})),
			"not snappy":                 append(framed(v1), 9, 0, 0, 0, 'n', 'o', ' ', 's', 'n', 'a', 'p', 'p', 'y'),
			"too large":                  append(framed(v1), 0xff, 0xff, 0xff, 0xff),
			"a bomb":                     append(framed(v1), 6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0),
		} {
			if got := decodeMetrics(t, broken); fault.KindOf(got.Err) != fault.Invalid {
				t.Errorf("%s: %v", name, got.Err)
			}
		}
	})
}

func mustMarshal(t testing.TB, m interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExposition(t *testing.T) {
	t.Parallel()
	series := func(typ model.MetricType) decode.Metric { return decode.Metric{Kind: decode.MetricSeries, Type: typ} }
	named := func(pairs ...string) (attributes []columns.Attribute) {
		for i := 0; i < len(pairs); i += 2 {
			attributes = append(attributes, text(pairs[i], pairs[i+1]))
		}
		return attributes
	}
	now := objectTime().UnixNano()
	for _, c := range []struct {
		name, content string
		want          []point
		families      map[string]decode.Family
		rejects       []reject
	}{
		{
			name: "Prometheus' text, with times in ms or without",
			content: "# HELP http_requests_total How many \\\\ \\nrequests.\n# TYPE http_requests_total counter\n" +
				"http_requests_total{code=\"200\",path=\"a\\\\b\\\"c\\nd\"} 1027 1395066363000\nhttp_requests_total{ code = \"400\" , } 3\n\n# a comment\n" +
				"# TYPE rpc_seconds histogram\nrpc_seconds_bucket{le=\"1\"} 7\nrpc_seconds_bucket{le=\"+Inf\"} 9\nsomething_weird{problem=\"division by zero\"} +Inf -3982045000000\n" +
				"{\"my.metric\",\"a.b\"=\"c\"} NaN\n",
			want: []point{
				{Metric: series(model.MetricTypeCounter), Attributes: named("__name__", "http_requests_total", "code", "200", "path", "a\\b\"c\nd"), Time: 1395066363000 * ms, Value: 1027},
				{Metric: series(model.MetricTypeCounter), Attributes: named("__name__", "http_requests_total", "code", "400"), Time: now, Value: 3},
				{Metric: series(model.MetricTypeHistogram), Attributes: named("__name__", "rpc_seconds_bucket", "le", "1.0"), Time: now, Value: 7},
				{Metric: series(model.MetricTypeHistogram), Attributes: named("__name__", "rpc_seconds_bucket", "le", "+Inf"), Time: now, Value: 9},
				{Metric: series(model.MetricTypeHistogram), Attributes: named("__name__", "something_weird", "problem", "division by zero"), Time: -3982045000000 * ms, Value: math.Inf(1)},
				{Metric: series(model.MetricTypeHistogram), Attributes: named("__name__", "my.metric", "a.b", "c"), Time: now, Value: math.NaN()},
			},
			families: map[string]decode.Family{
				"http_requests_total": {Type: model.MetricTypeCounter, Help: "How many \\ \nrequests."}, "rpc_seconds": {Type: model.MetricTypeHistogram},
			},
		},
		{
			name: "OpenMetrics, with times in seconds and exemplars",
			content: "# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\n# HELP foo_seconds How long.\nfoo_seconds_total{a=\"b\"} 17.0 1520879607.789 # {trace_id=\"KOO5S4vxi0o\"} 0.67 1520879607.25\n" +
				"foo_seconds_created{a=\"b\"} 1520430000.123 1520879607\n# TYPE s stateset\ns{s=\"on\"} 1\n# EOF\n",
			want: []point{
				{
					Metric: series(model.MetricTypeCounter), Attributes: named("__name__", "foo_seconds_total", "a", "b"), Time: 1520879607789 * ms, Value: 17,
					Exemplars: []exemplar{{Time: 1520879607250 * ms, Value: 0.67, Attributes: named("trace_id", "KOO5S4vxi0o")}},
				},
				{Metric: series(model.MetricTypeCounter), Attributes: named("__name__", "foo_seconds_created", "a", "b"), Time: 1520879607000 * ms, Value: 1520430000.123},
				{Metric: series(model.MetricTypeStateset), Attributes: named("__name__", "s", "s", "on"), Time: now, Value: 1},
			},
			families: map[string]decode.Family{
				"foo_seconds": {Type: model.MetricTypeCounter, Unit: "seconds", Help: "How long."}, "s": {Type: model.MetricTypeStateset},
			},
		},
		{
			// Multiplied, both would be times of today.
			name:    "times that are too late for an int64",
			content: "# TYPE up gauge\nup 1 20242104074\nup 2 20242104074.5\nup 3 -99999999999.5\nup 4 9223372036\n",
			want: []point{
				{Metric: series(model.MetricTypeGauge), Attributes: named("__name__", "up"), Time: math.MaxInt64, Value: 1},
				{Metric: series(model.MetricTypeGauge), Attributes: named("__name__", "up"), Time: math.MaxInt64, Value: 2},
				{Metric: series(model.MetricTypeGauge), Attributes: named("__name__", "up"), Time: math.MinInt64, Value: 3},
				{Metric: series(model.MetricTypeGauge), Attributes: named("__name__", "up"), Time: 9223372036 * 1e9, Value: 4},
			},
			families: map[string]decode.Family{"up": {Type: model.MetricTypeGauge}},
		},
		{
			name: "lines that are none among samples",
			content: "up{job=\"a\"} 1\n" + strings.Repeat("up{job=\"a\"} 2\n", 100) + "panic: runtime error\nup{job=\"a\"} 0x1p-2\nup{job=\"a\" 1\nup{job=\"a\"} 1 2 3\n" +
				"1up 3\nup{job=\"a\"} 3\n",
			want: slices.Concat(
				[]point{{Metric: series(""), Attributes: named("__name__", "up", "job", "a"), Time: now, Value: 1}},
				slices.Repeat([]point{{Metric: series(""), Attributes: named("__name__", "up", "job", "a"), Time: now, Value: 2}}, 100),
				[]point{{Metric: series(""), Attributes: named("__name__", "up", "job", "a"), Time: now, Value: 3}},
			),
			families: map[string]decode.Family{},
			rejects: []reject{
				{decode.ReasonMalformed, "panic: runtime error"},
				{decode.ReasonMalformed, `up{job="a"} 0x1p-2`},
				{decode.ReasonMalformed, `up{job="a" 1`},
				{decode.ReasonMalformed, `up{job="a"} 1 2 3`},
				{decode.ReasonMalformed, "1up 3"},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := decodeMetrics(t, []byte(c.content))
			if diff := cmp.Diff(c.want, got.points, nans()) + cmp.Diff(c.families, got.families) + cmp.Diff(c.rejects, got.rejects); diff != "" || got.Err != nil || got.Format != "prometheus-text" {
				t.Errorf("%s, %v\n%s", got.Format, got.Err, diff)
			}
		})
	}
	t.Run("a word and a number may be anything, and logs are logs", func(t *testing.T) {
		t.Parallel()
		for content, want := range map[string]map[lake.Signal]string{
			"started 1\nstopped 2\n":             {lake.SignalUnknown: "text", lake.SignalMetrics: "prometheus-text", lake.SignalLogs: "text"},
			"up{job=\"a\"} 1\n":                  {lake.SignalUnknown: "prometheus-text", lake.SignalMetrics: "prometheus-text", lake.SignalLogs: "text"},
			"# TYPE up gauge\nup 1\n":            {lake.SignalUnknown: "prometheus-text", lake.SignalLogs: "text"},
			"# a comment\nhello world\n":         {lake.SignalUnknown: "text", lake.SignalMetrics: "text"},
			"up{job=\"a\"} 1\nthis is a story\n": {lake.SignalUnknown: "text"},
		} {
			for hint, format := range want {
				s := newMetricRecorder(t)
				result, err := decode.Decode(strings.NewReader(content), decode.Options{Hint: hint}, decode.Sinks{Logs: &recorder{}, Metrics: s})
				if result.Format != format || err != nil {
					t.Errorf("%q, said to be %s: %s, %v; want %s", content, hint, result.Format, err, format)
				}
			}
		}
	})
}

// TestExpositionIsPrometheus holds samples to what Prometheus' own parsers read, over generated expositions.
func TestExpositionIsPrometheus(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		open := seed%2 == 0
		content := generatedExposition(r, open)
		want := parsedExposition(t, content, open)
		got := decodeMetrics(t, content, func(o *decode.Options) { o.Hint = lake.SignalMetrics })
		if diff := cmp.Diff(want, shortened(got.points), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 0)); diff != "" || got.Err != nil || len(got.rejects) > 0 {
			t.Fatalf("seed %d: %v, %v (- Prometheus, + ours)\n%s\nof %s", seed, got.Err, got.rejects, diff, content)
		}
	}
}

// exposed is a sample of an exposition.
type exposed struct {
	Labels    string
	Time      int64 // ms
	Value     float64
	Exemplars int
}

func shortened(points []point) (samples []exposed) {
	for _, p := range points {
		b := labels.NewScratchBuilder(8)
		for _, a := range p.Attributes {
			b.Add(a.Name, a.Value.Str)
		}
		b.Sort()
		samples = append(samples, exposed{Labels: b.Labels().String(), Time: p.Time / ms, Value: p.Value, Exemplars: len(p.Exemplars)})
	}
	return samples
}

func parsedExposition(t *testing.T, content []byte, open bool) (samples []exposed) {
	t.Helper()
	p := textparse.NewPromParser(content, labels.NewSymbolTable(), false)
	if open {
		p = textparse.NewOpenMetricsParser(content, labels.NewSymbolTable())
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return samples
		}
		if err != nil {
			t.Fatalf("%v in %s", err, content)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		var l labels.Labels
		p.Labels(&l)
		_, at, v := p.Series()
		one := exposed{Labels: l.String(), Time: objectTime().UnixMilli(), Value: v}
		if at != nil {
			one.Time = *at
		}
		if p.Exemplar(&promexemplar.Exemplar{}) {
			one.Exemplars = 1
		}
		samples = append(samples, one)
	}
}

func generatedExposition(r *rand.Rand, open bool) []byte {
	var b strings.Builder
	oneOf := func(words ...string) string { return words[r.IntN(len(words))] }
	for i := range 1 + r.IntN(5) {
		typ := oneOf("counter", "gauge", "histogram", "summary")
		name := fmt.Sprintf("m%d_%s", i, oneOf("a", "b:c", "_"))
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, oneOf("", "text", `a \\ b \n c`), name, typ)
		for range 1 + r.IntN(4) {
			suffix, label := "", ""
			switch typ {
			case "counter":
				suffix = "_total"
			case "histogram":
				suffix, label = "_bucket", `le="`+oneOf("1", "0.5", "+Inf", "1e3", "2.0")+`",`
			case "summary":
				label = `quantile="` + oneOf("0.5", "1") + `",`
			}
			if !open && typ == "counter" {
				suffix = oneOf("", "_total")
			}
			series := fmt.Sprintf(`%s%s{%sx="%s",y="%s"}`, name, suffix, label, oneOf("", "1", "ü", `a\"b`, `a\\b`, `a\nb`, "}", "a,b", " "), oneOf("0", "1"))
			if label == "" && r.IntN(4) == 0 {
				series = fmt.Sprintf(`{"%s%s","x.y"="%s"}`, name, suffix, oneOf("", "v"))
			}
			b.WriteString(series + " " + oneOf("0", "1", "-1.5", "1e10", "NaN", "+Inf", "-Inf", "0.1", "1.7976931348623157e308"))
			switch at := 1_700_000_000_000 + r.Int64N(1e9); {
			case r.IntN(3) == 0:
			case open:
				fmt.Fprintf(&b, " %d.%03d", at/1000, 500) // a fraction that a float holds
			default:
				fmt.Fprintf(&b, " %d", at)
			}
			if open && (typ == "counter" || typ == "histogram") && r.IntN(3) == 0 {
				b.WriteString(` # {trace_id="x"} 0.5` + oneOf("", " 1700000000.5"))
			}
			b.WriteString("\n")
		}
	}
	if open {
		b.WriteString("# EOF\n")
	}
	return []byte(b.String())
}

// TestRemoteWriteIsKnown holds that requests of any size are known as such, and that neither OTLP nor noise is taken for one.
func TestRemoteWriteIsKnown(t *testing.T) {
	t.Parallel()
	known := func(content []byte) bool {
		_, ok := decode.RemoteWrite{}.Sniff(decode.Head{Bytes: content[:min(len(content), 64<<10)], Whole: len(content) <= 64<<10})
		return ok
	}
	r := rand.New(rand.NewPCG(1, 9))
	for n := 1; n < 3000; n += 1 + n/4 {
		var request prompb.WriteRequest
		symbols := writev2.NewSymbolTable()
		var second writev2.Request
		for i := range n {
			name, pod := fmt.Sprint("m", i%7), fmt.Sprintf("p-%x", r.Uint64())
			request.Timeseries = append(request.Timeseries, prompb.TimeSeries{
				Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "pod", Value: pod}}, Samples: []prompb.Sample{{Value: r.Float64(), Timestamp: int64(i)}},
			})
			second.Timeseries = append(second.Timeseries, writev2.TimeSeries{
				LabelsRefs: symbols.SymbolizeLabels(labels.FromStrings("__name__", name, "pod", pod), nil), Samples: []writev2.Sample{{Value: 1, Timestamp: 1}},
			})
		}
		second.Symbols = symbols.Symbols()
		for _, raw := range [][]byte{mustMarshal(t, &request), mustMarshal(t, &second)} {
			if !known(snappy.Encode(nil, raw)) || !known(framed(raw)) || !known(framed(raw, raw)) {
				t.Errorf("a request of %d series is not known", n)
			}
		}
	}
	for _, hex := range []string{
		"0a74121a0a181a0c12033a01000a05782f79207a1203312e320a036c69620a560a1f120f0a0d76736572766963652e6e616d650a0c736572766963652e6e616d65",
		"0a6612360a341a12120b18ffffffffffffffffff010a036170701a0a12053a0300ff200a01611a12120210010a0c736572766963655f6e616d650a2c0a10120210",
	} {
		content, err := enchex.DecodeString(hex)
		if err != nil || known(content) {
			t.Errorf("%s is taken for a request, %v", hex, err)
		}
	}
	for seed := range uint64(2000) {
		noise := make([]byte, 300)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		for _, content := range [][]byte{marshalProto(t, generated(seed%400)), metricsProto(t, generatedMetrics(seed%400)), noise} {
			if known(content) {
				t.Fatalf("seed %d: %x is taken for a request", seed, content[:min(len(content), 64)])
			}
		}
	}
}
