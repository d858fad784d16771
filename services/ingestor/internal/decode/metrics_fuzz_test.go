// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"testing"

	"github.com/klauspost/compress/snappy"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// fuzzMetrics decodes with one decoder. Any error will do; a panic will not, nor a point that is not as Point says.
func fuzzMetrics(d func() decode.Decoder) func(t *testing.T, content []byte) {
	return func(t *testing.T, content []byte) {
		o := small()
		o.Signal, o.MaxBytes, o.MaxRatio = lake.SignalMetrics, 1<<20, 400
		_ = d().Decode(reader(t, content), o, decode.Sinks{Metrics: newMetricRecorder(t)})
	}
}

func FuzzMetricContent(f *testing.F) {
	v1, v2, _ := writeRequests(f)
	for _, content := range [][]byte{
		metricsProto(f, generatedMetrics(1)), metricsJSON(f, generatedMetrics(2)), framed(v1, v2), snappy.Encode(nil, v2),
		[]byte("# TYPE a counter\na{b=\"c\"} 1 2 # {} 3\n"), []byte("ts,metric,value\n1795348800,a,1\n"), parquetOf(f, readings(5)),
	} {
		f.Add(content)
		f.Add(gz(f, content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		small := func(o *decode.Options) {
			o.MaxLineBytes, o.MaxResourceBytes, o.MaxBytes, o.Hint = 4096, 1<<16, 1<<20, lake.SignalMetrics
		}
		first, again := decodeMetrics(t, content, small), decodeMetrics(t, content, small)
		if len(again.points) != len(first.points) || len(again.rejects) != len(first.rejects) || (again.Err == nil) != (first.Err == nil) {
			t.Errorf("%d points, %d rejects, %v; then %d, %d, %v",
				len(first.points), len(first.rejects), first.Err, len(again.points), len(again.rejects), again.Err)
		}
	})
}

func FuzzOTLPMetricProto(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(metricsProto(f, generatedMetrics(seed)))
	}
	f.Fuzz(fuzzMetrics(func() decode.Decoder { return decode.OTLPProto{} }))
}

func FuzzOTLPMetricJSON(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(metricsJSON(f, generatedMetrics(seed)))
	}
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"dataPoints":[{"asInt":"\u00`))
	f.Add([]byte(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"bucketCounts":null,"explicitBounds":[null,{}],"count":{}},5]}}]}]}]}`))
	f.Fuzz(fuzzMetrics(func() decode.Decoder { return decode.OTLPJSON{} }))
}

func FuzzRemoteWrite(f *testing.F) {
	v1, v2, _ := writeRequests(f)
	f.Add(v1)
	f.Add(v2)
	f.Fuzz(func(t *testing.T, request []byte) { // compressed here, so that what is fuzzed is the request
		fuzzMetrics(func() decode.Decoder { return decode.RemoteWrite{} })(t, framed(request))
		fuzzMetrics(func() decode.Decoder { return decode.RemoteWrite{} })(t, request)
	})
}

func FuzzExposition(f *testing.F) {
	for _, seed := range []string{
		"# TYPE a histogram\na_bucket{le=\"1\"} 1 1395066363000\n", "{\"a\",b=\"\\\"\\n\\\\\"} NaN # {c=\"d\"} 1 2.5", "a{b=\"c\",} +Inf -1", "# HELP \"a b\" \\", "a{", "\ufeffa 1e309 9e99",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(fuzzMetrics(func() decode.Decoder { return decode.Exposition{} }))
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{"ts,metric,value\n1,a,1\n", "\"time\";name;value;\"x\"\"\"\n2026-11-22;a;\"1\n", "ts|metric|value\n9e99|a|1\n-1.5|b|0x", "ts,metric,value,ts,\n"} {
		f.Add([]byte(seed))
	}
	table := &decode.Table{Time: "ts", TimeUnit: "us", Values: []string{"value"}, Prefix: "p"}
	f.Fuzz(func(t *testing.T, content []byte) {
		fuzzMetrics(func() decode.Decoder { return decode.CSV{} })(t, content)
		fuzzMetrics(func() decode.Decoder { return decode.CSV{Table: table} })(t, content)
	})
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetOf(f, readings(3)))
	f.Add(parquetOf(f, nil))
	f.Fuzz(fuzzMetrics(func() decode.Decoder { return decode.Parquet{} }))
}
