// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

func nans() cmp.Option { return cmpopts.EquateNaNs() }

// TestOTLPMetricKinds has each kind of OTLP metric written out, in JSON as producers write it, with what must come of it.
func TestOTLPMetricKinds(t *testing.T) {
	t.Parallel()
	attributes := []columns.Attribute{text("route", "/")}
	for _, c := range []struct {
		name, metric string
		want         []point
		rejects      []reject
	}{
		{
			name: "gauges of integers and doubles",
			metric: `{"name":"queue.length","unit":"{item}","description":"how long","gauge":{"dataPoints":[
				{"attributes":[{"key":"route","value":{"stringValue":"/"}}],"startTimeUnixNano":"5","timeUnixNano":"1795360000000000001","asInt":"-7"},
				{"timeUnixNano":1795360000000000002,"asDouble":1.5,"exemplars":[{"timeUnixNano":"9","asInt":"3","traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","filteredAttributes":[{"key":"k","value":{"stringValue":"v"}}]}]},
				{"timeUnixNano":"1795360000000000003","asDouble":"NaN"},
				{"timeUnixNano":"1795360000000000004","asDouble":"-Infinity"}]}}`,
			want: []point{
				{Metric: gauge(), Attributes: attributes, Start: 5, Time: 1795360000000000001, Value: -7},
				{
					Metric: gauge(), Time: 1795360000000000002, Value: 1.5,
					Exemplars: []exemplar{{Time: 9, Value: 3, Trace: "0102030405060708090a0b0c0d0e0f10", Span: "0102030405060708", Attributes: []columns.Attribute{text("k", "v")}}},
				},
				{Metric: gauge(), Time: 1795360000000000003, Value: math.NaN()},
				{Metric: gauge(), Time: 1795360000000000004, Value: math.Inf(-1)},
			},
		},
		{
			name: "sums, whose temporality may stand after the points, and what has no value any more",
			metric: `{"name":"requests","sum":{"dataPoints":[{"timeUnixNano":"10","asInt":5},{"timeUnixNano":"20","flags":1}],
				"aggregationTemporality":2,"isMonotonic":true}}`,
			want: []point{
				{Metric: decode.Metric{Name: "requests", Kind: decode.MetricSum, Temporality: decode.TemporalityCumulative, Monotonic: true}, Time: 10, Value: 5},
				{Metric: decode.Metric{Name: "requests", Kind: decode.MetricSum, Temporality: decode.TemporalityCumulative, Monotonic: true}, Time: 20, Stale: true},
			},
		},
		{
			name: "names of enums, snake_case, and the object's time where a point has none",
			metric: `{"name":"requests","sum":{"data_points":[{"start_time_unix_nano":"1","as_double":2,"flags":"DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK"}],
				"aggregation_temporality":"AGGREGATION_TEMPORALITY_DELTA","is_monotonic":false}}`,
			want: []point{{
				Metric: decode.Metric{Name: "requests", Kind: decode.MetricSum, Temporality: decode.TemporalityDelta},
				Start:  1, Time: objectTime().UnixNano(), Value: 2, Stale: true,
			}},
		},
		{
			name: "histograms, with buckets and without, with a sum and without, with the infinite bound and without the infinite bucket",
			metric: `{"name":"took","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
				{"timeUnixNano":"1","count":"6","sum":4.5,"bucketCounts":["1","2","3"],"explicitBounds":[0.5,1],"min":0.1,"max":2},
				{"timeUnixNano":"2","count":6,"bucketCounts":[1,2,3],"explicitBounds":["0.5","1"]},
				{"timeUnixNano":"3","count":"6","sum":1},
				{"timeUnixNano":"4","count":"6","sum":1,"bucketCounts":["1","2","3"],"explicitBounds":[0.5,"Infinity"]},
				{"timeUnixNano":"5","count":"6","sum":1,"bucketCounts":["1","2"],"explicitBounds":[0.5,1]},
				{"timeUnixNano":"6","count":"6","sum":1,"bucketCounts":["1","2","3"],"explicitBounds":[1,0.5]},
				{"timeUnixNano":"7","count":"6","sum":1,"bucketCounts":["1"],"explicitBounds":[1,2,3]},
				{"timeUnixNano":"8","count":"0","flags":1,"explicitBounds":[1,2,3]}]}}`,
			want: []point{
				{Metric: took(), Time: 1, Count: 6, Sum: 4.5, HasSum: true, Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}},
				{Metric: took(), Time: 2, Count: 6, Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}},
				{Metric: took(), Time: 3, Count: 6, Sum: 1, HasSum: true, Counts: []uint64{6}},
				{Metric: took(), Time: 4, Count: 6, Sum: 1, HasSum: true, Bounds: []float64{0.5}, Counts: []uint64{1, 5}},
				{Metric: took(), Time: 5, Count: 6, Sum: 1, HasSum: true, Bounds: []float64{0.5, 1}, Counts: []uint64{1, 2, 3}},
				{Metric: took(), Time: 8, Stale: true, Counts: []uint64{0}},
			},
			rejects: []reject{{Reason: decode.ReasonMalformed}, {Reason: decode.ReasonMalformed}},
		},
		{
			name: "exponential histograms of any scale",
			metric: `{"name":"took","unit":"s","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
				{"timeUnixNano":"1","count":"9","sum":4.5,"scale":-2,"zeroCount":"2","zeroThreshold":0.25,"positive":{"offset":-3,"bucketCounts":["1","0","3"]},"negative":{"offset":4,"bucketCounts":[3]}},
				{"timeUnixNano":"2","count":"0","scale":20}]}}`,
			want: []point{
				{
					Metric: exponential(), Time: 1, Count: 9, Sum: 4.5, HasSum: true, Exponential: decode.Exponential{
						Scale: -2, ZeroCount: 2, ZeroThreshold: 0.25, Positive: decode.Buckets{Offset: -3, Counts: []uint64{1, 0, 3}},
						Negative: decode.Buckets{Offset: 4, Counts: []uint64{3}},
					},
				},
				{Metric: exponential(), Time: 2, Exponential: decode.Exponential{Scale: 20}},
			},
		},
		{
			name: "summaries, whose quantiles are sorted, each once",
			metric: `{"name":"took","summary":{"dataPoints":[
				{"timeUnixNano":"1","count":"9","sum":4.5,"quantileValues":[{"quantile":0.9,"value":3},{"quantile":0.5,"value":1},{"quantile":0.9,"value":7},{"value":0.5}]},
				{"timeUnixNano":"2","count":"9","sum":4.5,"quantileValues":[{"quantile":"NaN","value":3}]}]}}`,
			want: []point{{
				Metric: decode.Metric{Name: "took", Kind: decode.MetricSummary}, Time: 1, Count: 9, Sum: 4.5, HasSum: true,
				Bounds: []float64{0, 0.5, 0.9}, Quantiles: []float64{0.5, 1, 3},
			}},
			rejects: []reject{{Reason: decode.ReasonMalformed}},
		},
		{name: "nothing, of a metric without data", metric: `{"name":"nothing"},{"name":"none","gauge":{}},{"name":"empty","sum":{"dataPoints":[]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			content := `{"resourceMetrics":[{"resource":{"attributes":[{"key":"host","value":{"stringValue":"h"}}]},"schemaUrl":"r",
				"scopeMetrics":[{"schemaUrl":"s","metrics":[` + c.metric + `],"scope":{"name":"lib","version":"1"}}]}]}`
			for i := range c.want {
				c.want[i].Resource, c.want[i].Names = []columns.Attribute{text("host", "h")}, [4]string{"lib", "1", "r", "s"}
			}
			got := decodeMetrics(t, []byte(content))
			if diff := cmp.Diff(c.want, got.points, nans()); diff != "" || got.Err != nil || got.Format != "otlp-json" {
				t.Errorf("%s, %v\n%s", got.Format, got.Err, diff)
			}
			if diff := cmp.Diff(c.rejects, got.rejects, cmpopts.IgnoreFields(reject{}, "Raw")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func gauge() decode.Metric {
	return decode.Metric{Name: "queue.length", Unit: "{item}", Description: "how long", Kind: decode.MetricGauge}
}

func took() decode.Metric {
	return decode.Metric{Name: "took", Unit: "s", Kind: decode.MetricHistogram, Temporality: decode.TemporalityCumulative}
}

func exponential() decode.Metric {
	return decode.Metric{Name: "took", Unit: "s", Kind: decode.MetricExponential, Temporality: decode.TemporalityDelta}
}

// TestOTLPMetricJSONIsProtobuf holds that generated metrics come out alike of either form, and are as the collector's library reads them.
func TestOTLPMetricJSONIsProtobuf(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		m := generatedMetrics(seed)
		proto, json := metricsProto(t, m), metricsJSON(t, m)
		fromProto, fromJSON := decodeMetrics(t, proto), decodeMetrics(t, json)
		if fromProto.Err != nil || fromJSON.Err != nil || fromProto.Format != "otlp-proto" || fromJSON.Format != "otlp-json" {
			t.Fatalf("seed %d: %s %v, %s %v", seed, fromProto.Format, fromProto.Err, fromJSON.Format, fromJSON.Err)
		}
		if diff := cmp.Diff(fromProto.points, fromJSON.points, nans()); diff != "" {
			t.Fatalf("seed %d (- protobuf, + JSON):\n%s", seed, diff)
		}
		if diff := cmp.Diff(referencePoints(m), fromProto.points, nans()); diff != "" {
			t.Fatalf("seed %d (- library, + ours):\n%s", seed, diff)
		}
	}
}

// TestRejectedPointsAreOTLP holds that what is written of a rejected point is that point when it is read again.
func TestRejectedPointsAreOTLP(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		m := generatedMetrics(seed)
		s := &pointRewriter{metricRecorder: newMetricRecorder(t)}
		if _, err := decode.Decode(strings.NewReader(string(metricsProto(t, m))), decode.Options{ObjectTime: objectTime()}, decode.Sinks{Metrics: s}); err != nil {
			t.Fatal(err)
		}
		again := decodeMetrics(t, s.written)
		if diff := cmp.Diff(s.points, again.points, nans()); diff != "" || again.Err != nil || len(again.rejects) > 0 {
			t.Fatalf("seed %d: %v, %v\n%s\nof %s", seed, again.Err, again.rejects, diff, s.written)
		}
	}
}

// pointRewriter writes each point as a rejected one.
type pointRewriter struct {
	*metricRecorder
	at      columns.Origin
	written []byte
}

func (s *pointRewriter) Origin(o *columns.Origin) {
	s.metricRecorder.Origin(o)
	s.at = columns.Origin{
		Resource: s.origin.Resource, Scope: s.origin.Scope, ScopeName: s.origin.Names[0], ScopeVersion: s.origin.Names[1],
		ResourceSchemaURL: s.origin.Names[2], ScopeSchemaURL: s.origin.Names[3],
	}
}

func (s *pointRewriter) Point(p *decode.Point) error {
	if err := s.metricRecorder.Point(p); err != nil {
		return err
	}
	s.written = append(decode.AppendOTLPPoint(s.written, "too_old", &s.at, &s.metric, p), '\n')
	return nil
}

func TestOTLPMetricBounds(t *testing.T) {
	t.Parallel()
	t.Run("a point of too many buckets is rejected, its neighbours are not", func(t *testing.T) {
		t.Parallel()
		m := pmetric.NewMetrics()
		metric := m.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		metric.SetName("x")
		points := metric.SetEmptyHistogram().DataPoints()
		for _, n := range []int{3, decode.MaxBuckets + 1, 2} {
			p := points.AppendEmpty()
			p.SetTimestamp(1)
			for i := range n {
				p.ExplicitBounds().Append(float64(i))
				p.BucketCounts().Append(1)
			}
		}
		exponential := m.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().AppendEmpty()
		p := exponential.SetEmptyExponentialHistogram().DataPoints().AppendEmpty()
		p.SetTimestamp(1)
		p.Positive().BucketCounts().FromRaw(make([]uint64, decode.MaxBuckets+1))
		for name, content := range map[string][]byte{"protobuf": metricsProto(t, m), "JSON": metricsJSON(t, m)} {
			got := decodeMetrics(t, content, func(o *decode.Options) { o.Hint = lake.SignalMetrics })
			if got.Err != nil || len(got.points) != 2 || len(got.rejects) != 2 || got.rejects[0].Reason != decode.ReasonTooManyBuckets || got.rejects[1].Reason != decode.ReasonTooManyBuckets {
				t.Errorf("%s: %d points, %d rejects, %v", name, len(got.points), len(got.rejects), got.Err)
			}
		}
	})
	t.Run("content that is cut gives whole metrics, and says so", func(t *testing.T) {
		t.Parallel()
		for name, content := range map[string][]byte{"protobuf": metricsProto(t, generatedMetrics(4)), "JSON": metricsJSON(t, generatedMetrics(4))} {
			whole := decodeMetrics(t, content)
			for cut := 1; cut < len(content); cut += 1 + cut/40 {
				got := decodeMetrics(t, content[:cut], func(o *decode.Options) { o.Hint = lake.SignalMetrics })
				if len(got.points) > len(whole.points) {
					t.Errorf("%s cut at %d: %d points of %d", name, cut, len(got.points), len(whole.points))
				}
				for i := range got.points {
					if diff := cmp.Diff(whole.points[i], got.points[i], nans(), cmpopts.IgnoreFields(point{}, "Names")); diff != "" {
						t.Fatalf("%s cut at %d:\n%s", name, cut, diff)
					}
				}
				if got.Err == nil && got.Problem == "" && len(got.points) != len(whole.points) && len(got.rejects) == 0 {
					t.Errorf("%s cut at %d: no problem", name, cut)
				}
			}
		}
	})
	t.Run("a broken point fails the object", func(t *testing.T) {
		t.Parallel()
		content := []byte{0x0a, 9, 0x12, 7, 0x12, 5, 0x2a, 3, 0x0a, 1, 0x39} // a fixed64 without its bytes
		if got := decodeMetrics(t, content, func(o *decode.Options) { o.Hint = lake.SignalMetrics }); fault.KindOf(got.Err) != fault.Invalid {
			t.Errorf("%v", got.Err)
		}
	})
}

func metricsProto(t testing.TB, m pmetric.Metrics) []byte {
	t.Helper()
	b, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func metricsJSON(t testing.TB, m pmetric.Metrics) []byte {
	t.Helper()
	b, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// generatedMetrics makes metrics of every kind, a few of each, the same for a seed.
func generatedMetrics(seed uint64) pmetric.Metrics {
	r := rand.New(rand.NewPCG(seed, 3))
	m := pmetric.NewMetrics()
	for i := range 1 + r.IntN(3) {
		resource := m.ResourceMetrics().AppendEmpty()
		resource.SetSchemaUrl("https://example.com/resource")
		resource.Resource().Attributes().PutStr("service.name", fmt.Sprint("service ", i))
		resource.Resource().Attributes().PutInt("process.pid", r.Int64())
		for j := range 1 + r.IntN(2) {
			scope := resource.ScopeMetrics().AppendEmpty()
			scope.Scope().SetName(fmt.Sprint("lib ", j))
			scope.Scope().Attributes().PutBool("x", true)
			for k := range 1 + r.IntN(6) {
				metric := scope.Metrics().AppendEmpty()
				metric.SetName(fmt.Sprintf("metric %d \u00fc", k))
				metric.SetUnit("ms")
				metric.SetDescription("what \"it\" is\n")
				generatedPoints(r, metric)
			}
		}
	}
	return m
}

func generatedPoints(r *rand.Rand, m pmetric.Metric) {
	temporality := pmetric.AggregationTemporality(1 + r.IntN(2))
	n := 1 + r.IntN(4)
	switch r.IntN(5) {
	case 0:
		points := m.SetEmptyGauge().DataPoints()
		for range n {
			numberPoint(r, points.AppendEmpty())
		}
	case 1:
		sum := m.SetEmptySum()
		sum.SetAggregationTemporality(temporality)
		sum.SetIsMonotonic(r.IntN(2) == 0)
		for range n {
			numberPoint(r, sum.DataPoints().AppendEmpty())
		}
	case 2:
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(temporality)
		for range n {
			p := h.DataPoints().AppendEmpty()
			p.SetTimestamp(pcommon.Timestamp(1 + r.Uint64N(1<<62)))
			p.SetStartTimestamp(pcommon.Timestamp(r.Uint64N(1 << 62)))
			p.SetCount(r.Uint64())
			if r.IntN(2) == 0 {
				p.SetSum(r.NormFloat64())
			}
			bounds := r.IntN(4)
			for i := range bounds {
				p.ExplicitBounds().Append(float64(i) - r.Float64())
			}
			for range bounds + 1 {
				p.BucketCounts().Append(r.Uint64())
			}
			generatedAttributes(r, p.Attributes())
			generatedExemplars(r, p.Exemplars())
		}
	case 3:
		h := m.SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(temporality)
		for range n {
			p := h.DataPoints().AppendEmpty()
			p.SetTimestamp(pcommon.Timestamp(1 + r.Uint64N(1<<62)))
			p.SetCount(r.Uint64())
			if r.IntN(2) == 0 {
				p.SetSum(r.NormFloat64())
			}
			p.SetScale(int32(r.Uint32()))
			p.SetZeroCount(r.Uint64())
			p.SetZeroThreshold(r.Float64())
			p.SetFlags(pmetric.DataPointFlags(r.IntN(2)))
			p.Positive().SetOffset(int32(r.Uint32()))
			for range r.IntN(5) {
				p.Positive().BucketCounts().Append(r.Uint64())
				p.Negative().BucketCounts().Append(r.Uint64N(300))
			}
			generatedAttributes(r, p.Attributes())
			generatedExemplars(r, p.Exemplars())
		}
	case 4:
		points := m.SetEmptySummary().DataPoints()
		for range n {
			p := points.AppendEmpty()
			p.SetTimestamp(pcommon.Timestamp(1 + r.Uint64N(1<<62)))
			p.SetCount(r.Uint64())
			p.SetSum(r.NormFloat64())
			for i := range r.IntN(4) {
				q := p.QuantileValues().AppendEmpty()
				q.SetQuantile(float64(i) / 4)
				q.SetValue(r.NormFloat64())
			}
			generatedAttributes(r, p.Attributes())
		}
	}
}

func numberPoint(r *rand.Rand, p pmetric.NumberDataPoint) {
	p.SetTimestamp(pcommon.Timestamp(1 + r.Uint64N(1<<62)))
	p.SetStartTimestamp(pcommon.Timestamp(r.Uint64N(1 << 62)))
	p.SetFlags(pmetric.DataPointFlags(r.IntN(2)))
	switch r.IntN(3) {
	case 0:
		p.SetIntValue(r.Int64() - r.Int64())
	case 1:
		p.SetDoubleValue([]float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)}[r.IntN(4)])
	default:
		p.SetDoubleValue(r.NormFloat64())
	}
	generatedAttributes(r, p.Attributes())
	generatedExemplars(r, p.Exemplars())
}

func generatedAttributes(r *rand.Rand, into pcommon.Map) {
	if r.IntN(2) == 0 {
		into.PutStr("route", fmt.Sprintf("/%d\u00e4\"", r.IntN(3)))
	}
	if r.IntN(3) == 0 {
		into.PutInt("code", r.Int64N(1000))
	}
	if r.IntN(5) == 0 {
		into.PutEmptySlice("list").AppendEmpty().SetDouble(0.5)
		into.PutEmptyMap("map").PutStr("k", "v")
	}
}

func generatedExemplars(r *rand.Rand, into pmetric.ExemplarSlice) {
	for range r.IntN(3) {
		e := into.AppendEmpty()
		e.SetTimestamp(pcommon.Timestamp(1 + r.Uint64N(1<<62)))
		if r.IntN(2) == 0 {
			e.SetIntValue(r.Int64N(1 << 40))
		} else {
			e.SetDoubleValue(r.Float64())
		}
		e.SetTraceID([16]byte{1, byte(r.IntN(256))})
		e.SetSpanID([8]byte{2, byte(r.IntN(256))})
		generatedAttributes(r, e.FilteredAttributes())
	}
}

// referencePoints is what the collector's library says.
func referencePoints(m pmetric.Metrics) (points []point) {
	for _, rm := range m.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			origin := point{
				Resource: referenceAttributes(rm.Resource().Attributes()), Scope: referenceAttributes(sm.Scope().Attributes()),
				Names: [4]string{sm.Scope().Name(), sm.Scope().Version(), rm.SchemaUrl(), sm.SchemaUrl()},
			}
			for _, metric := range sm.Metrics().All() {
				for _, p := range referenceMetric(metric) {
					p.Resource, p.Scope, p.Names = origin.Resource, origin.Scope, origin.Names
					p.Metric.Name, p.Metric.Unit, p.Metric.Description = metric.Name(), metric.Unit(), metric.Description()
					points = append(points, p)
				}
			}
		}
	}
	return points
}

func referenceMetric(m pmetric.Metric) (points []point) {
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		for _, p := range m.Gauge().DataPoints().All() {
			points = append(points, referenceNumber(p, decode.Metric{Kind: decode.MetricGauge}))
		}
	case pmetric.MetricTypeSum:
		for _, p := range m.Sum().DataPoints().All() {
			points = append(points, referenceNumber(p, decode.Metric{
				Kind: decode.MetricSum, Monotonic: m.Sum().IsMonotonic(), Temporality: decode.Temporality(m.Sum().AggregationTemporality()),
			}))
		}
	case pmetric.MetricTypeHistogram:
		for _, p := range m.Histogram().DataPoints().All() {
			points = append(points, point{
				Metric: decode.Metric{Kind: decode.MetricHistogram, Temporality: decode.Temporality(m.Histogram().AggregationTemporality())},
				Time:   int64(p.Timestamp()), Start: int64(p.StartTimestamp()), Count: p.Count(), Sum: p.Sum(), HasSum: p.HasSum(),
				Bounds: owned(p.ExplicitBounds().AsRaw()), Counts: owned(p.BucketCounts().AsRaw()),
				Attributes: referenceAttributes(p.Attributes()), Exemplars: referenceExemplars(p.Exemplars()),
			})
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			points = append(points, point{
				Metric: decode.Metric{Kind: decode.MetricExponential, Temporality: decode.Temporality(m.ExponentialHistogram().AggregationTemporality())},
				Time:   int64(p.Timestamp()), Start: int64(p.StartTimestamp()), Count: p.Count(), Sum: p.Sum(), HasSum: p.HasSum(), Stale: p.Flags().NoRecordedValue(),
				Exponential: decode.Exponential{
					Scale: p.Scale(), ZeroCount: p.ZeroCount(), ZeroThreshold: p.ZeroThreshold(),
					Positive: decode.Buckets{Offset: p.Positive().Offset(), Counts: owned(p.Positive().BucketCounts().AsRaw())},
					Negative: decode.Buckets{Offset: p.Negative().Offset(), Counts: owned(p.Negative().BucketCounts().AsRaw())},
				},
				Attributes: referenceAttributes(p.Attributes()), Exemplars: referenceExemplars(p.Exemplars()),
			})
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			one := point{
				Metric: decode.Metric{Kind: decode.MetricSummary}, Time: int64(p.Timestamp()), Count: p.Count(), Sum: p.Sum(), HasSum: true,
				Attributes: referenceAttributes(p.Attributes()),
			}
			for _, q := range p.QuantileValues().All() {
				one.Bounds, one.Quantiles = append(one.Bounds, q.Quantile()), append(one.Quantiles, q.Value())
			}
			points = append(points, one)
		}
	}
	return points
}

func referenceNumber(p pmetric.NumberDataPoint, m decode.Metric) point {
	one := point{
		Metric: m, Time: int64(p.Timestamp()), Start: int64(p.StartTimestamp()), Stale: p.Flags().NoRecordedValue(), Value: p.DoubleValue(),
		Attributes: referenceAttributes(p.Attributes()), Exemplars: referenceExemplars(p.Exemplars()),
	}
	if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
		one.Value = float64(p.IntValue())
	}
	return one
}

func referenceAttributes(m pcommon.Map) (attributes []columns.Attribute) {
	for name, v := range m.All() {
		a := columns.Attribute{Name: name, Value: columns.Value{Str: v.AsString()}}
		switch v.Type() {
		case pcommon.ValueTypeInt:
			a.Value = columns.Value{Kind: columns.KindInt, Num: uint64(v.Int())}
		case pcommon.ValueTypeBool:
			a.Value = columns.Value{Kind: columns.KindBool, Num: 1}
		case pcommon.ValueTypeSlice:
			a.Value.Kind = columns.KindArray
		case pcommon.ValueTypeMap:
			a.Value.Kind = columns.KindMap
		}
		attributes = append(attributes, a)
	}
	return slices.Clip(attributes)
}

func referenceExemplars(list pmetric.ExemplarSlice) (exemplars []exemplar) {
	for _, e := range list.All() {
		one := exemplar{
			Time: int64(e.Timestamp()), Value: e.DoubleValue(), Trace: e.TraceID().String(), Span: e.SpanID().String(),
			Attributes: referenceAttributes(e.FilteredAttributes()),
		}
		if e.ValueType() == pmetric.ExemplarValueTypeInt {
			one.Value = float64(e.IntValue())
		}
		exemplars = append(exemplars, one)
	}
	return exemplars
}
