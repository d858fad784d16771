// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// suiteBlocks is more than the blocks of Prometheus' suite: each begins with no samples, and is an organization here.
const suiteBlocks = 400

// TestPrometheusSuite runs Prometheus' own suite through the whole way: samples are written as objects, ingested, compacted, sharded over three workers, and
// asked for by HTTP. Under LAKERUNNER_TORTURE all of it goes that way, else a sample of its blocks, and the others are asked in memory.
func TestPrometheusSuite(t *testing.T) {
	t.Parallel()
	const seed, oneIn = 4, 6
	whole := os.Getenv("LAKERUNNER_TORTURE") != ""
	s := newSuiteLake(t)
	random := rand.New(rand.NewPCG(seed, 1))
	promtest.Suite(t, func(tb testing.TB) promtest.Lake {
		if whole || random.IntN(oneIn) == 0 {
			return s.open(tb)
		}
		memory := &promtest.Memory{}
		return &promtest.Over{Source: memory, Engine: prom.New(promtest.EngineOptions()), Add: func(series []prom.Series) error {
			memory.Add(series...)
			return nil
		}}
	})
	t.Logf("through the whole way: %d queries of %d blocks over %d objects, %d of them compacted; %d answers had native histograms",
		s.asked.Load(), s.blocks, s.objects, s.compacted, s.native.Load())
	if s.asked.Load() == 0 || s.compacted == 0 || s.native.Load() == 0 {
		t.Error("the whole way was not gone")
	}
}

// suiteLake is where the suite's blocks go.
type suiteLake struct {
	*lake
	blocks, objects, compacted int
	asked, native              atomic.Int64
}

// newSuiteLake starts a lake whose frontend has three workers, with the features that the suite expects.
func newSuiteLake(t testing.TB) *suiteLake {
	t.Helper()
	organizations := make([]string, suiteBlocks)
	for i := range organizations {
		organizations[i] = fmt.Sprintf("block-%d", i)
	}
	l := newLake(t, lakeOptions{
		organizations: organizations, deaf: true, roles: stack.Roles{Notifier: true, Ingestor: true, Compactor: true},
		// The suite's times are those of 1970, and its queries may hold as many samples as its own engine's.
		settings: fmt.Sprintf("    limits: {accept_past: 36500d, max_query_samples: %d}\n    metrics: {utf8_names: true}\n", promtest.EngineOptions().MaxSamples),
	})
	var workers []string
	for range 3 {
		w := *l
		w.work = t.TempDir()
		w.start(lakeOptions{roles: stack.Roles{Worker: true}, deaf: true})
		workers = append(workers, w.stack.GRPC)
	}
	asked := *l
	asked.work = t.TempDir()
	asked.start(lakeOptions{roles: stack.Roles{Frontend: true}, workers: workers, deaf: true, tune: func(s *stack.ServiceSettings) {
		s.Frontend.DelayedNames, s.Frontend.StartTimestamps = true, true
	}})
	l.stack, l.query = asked.stack, asked.query
	return &suiteLake{lake: l}
}

// open begins a block.
func (s *suiteLake) open(tb testing.TB) promtest.Lake {
	if s.blocks == suiteBlocks {
		tb.Fatalf("the suite has more than %d blocks", suiteBlocks)
	}
	s.blocks++
	return &suiteBlock{of: s, organization: fmt.Sprintf("block-%d", s.blocks-1)}
}

// suiteBlock is a promtest.Lake of one organization.
type suiteBlock struct {
	of           *suiteLake
	organization string
	loads        int
}

// Load implements promtest.Lake: every other sample is in another object, and both are compacted.
func (b *suiteBlock) Load(series []prom.Series) error {
	b.loads++
	hours := map[time.Time]bool{}
	for part := range 2 {
		body, err := remoteWrite2(series, func(i int, at int64) bool {
			hours[time.UnixMilli(at).Truncate(time.Hour)] = true
			return i%2 == part
		})
		if err != nil {
			return err
		}
		if err := b.ingest(fmt.Sprintf("otel-raw/%s/suite/metrics_%d_%d", b.organization, b.loads, part), body); err != nil {
			return err
		}
	}
	service := compactorv1.NewCompactorServiceClient(b.of.conn)
	for hour := range hours {
		done, err := service.CompactWindow(withKey(b.of.t.Context(), b.of.adminKey), &compactorv1.CompactWindowRequest{
			Organization: b.organization, Signal: lakev1.Signal_SIGNAL_METRICS, Start: timestamppb.New(hour),
		})
		if err != nil {
			return err
		}
		b.of.compacted += len(done.GetSegmentKeys())
	}
	return nil
}

func (b *suiteBlock) ingest(key string, body []byte) error {
	b.of.objects++
	answer, err := b.of.ingestor.IngestObject(b.of.as(b.organization), &ingestorv1.IngestObjectRequest{Object: &lakev1.Object{Bucket: b.of.bucket.Name(), Key: key}, Content: body})
	if err != nil {
		return err
	}
	if r := answer.GetReceipt(); r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_DONE || r.GetRowsIn() != r.GetRowsOut() {
		return fmt.Errorf("%s: %v", key, r)
	}
	return nil
}

// remoteWrite2 is a request of Prometheus' remote write 2.0, which has start timestamps, with those samples of series that are wanted.
func remoteWrite2(series []prom.Series, wanted func(i int, at int64) bool) ([]byte, error) {
	symbols := writev2.NewSymbolTable()
	var request writev2.Request
	startAt := func(starts []int64, i int) int64 {
		if starts == nil {
			return 0
		}
		return starts[i]
	}
	for _, s := range series {
		one := writev2.TimeSeries{LabelsRefs: symbols.SymbolizeLabels(s.Labels, nil)}
		for i, at := range s.Times {
			if wanted(i, at) {
				one.Samples = append(one.Samples, writev2.Sample{Timestamp: at, Value: s.Values[i], StartTimestamp: startAt(s.Starts, i)})
			}
		}
		for i, at := range s.HistogramTimes {
			if wanted(i, at) {
				one.Histograms = append(one.Histograms, writev2.FromFloatHistogram(startAt(s.HistogramStarts, i), at, s.Histograms[i]))
			}
		}
		if len(one.Samples)+len(one.Histograms) > 0 {
			request.Timeseries = append(request.Timeseries, one)
		}
	}
	request.Symbols = symbols.Symbols()
	raw, err := request.Marshal()
	return snappy.Encode(nil, raw), err
}

// Query implements promtest.Lake.
func (b *suiteBlock) Query(ctx context.Context, q promtest.Query) (prom.Result, error) {
	b.of.asked.Add(1)
	path, params := form(metrictest.Query{Text: q.Text, Start: q.Start, End: q.End, Step: q.Step})
	a, err := b.of.askProm(ctx, b.organization, path, params)
	switch {
	case err != nil:
		return prom.Result{}, err
	case a.Status != "success":
		return prom.Result{}, errors.New(a.Error)
	}
	result := prom.Result{Annotations: annotated(a)}
	var native bool
	if result.Value, native, err = promValue(a.Data); err == nil && native {
		b.of.native.Add(1)
		result.Value, err = b.native(ctx, q)
	}
	return result, err
}

// Close implements promtest.Lake.
func (b *suiteBlock) Close() error { return nil }

// remark is a warning or an info of an answer.
type remark struct {
	text string
	kind error
}

func (r remark) Error() string { return r.text }

func (r remark) Unwrap() error { return r.kind }

func annotated(a answer) annotations.Annotations {
	out := annotations.New()
	for _, text := range a.Warnings {
		out.Add(remark{text, annotations.PromQLWarning})
	}
	for _, text := range a.Infos {
		out.Add(remark{text, annotations.PromQLInfo})
	}
	return *out
}

// promValue reads the value of an answer; native: it has native histograms, which are not read.
func promValue(data json.RawMessage) (value parser.Value, native bool, err error) {
	var typed struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := json.Unmarshal(data, &typed); err != nil {
		return nil, false, err
	}
	switch typed.ResultType {
	case "scalar":
		var s model.Scalar
		err := json.Unmarshal(typed.Result, &s)
		return promql.Scalar{T: int64(s.Timestamp), V: float64(s.Value)}, false, err
	case "string":
		var s model.String
		err := json.Unmarshal(typed.Result, &s)
		return promql.String{T: int64(s.Timestamp), V: s.Value}, false, err
	case "vector":
		return promVector(typed.Result)
	case "matrix":
		return promMatrix(typed.Result)
	}
	return nil, false, fmt.Errorf("an answer of type %q", typed.ResultType)
}

func promVector(data []byte) (value parser.Value, native bool, err error) {
	var v model.Vector
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, false, err
	}
	out := promql.Vector{}
	for _, s := range v {
		native = native || s.Histogram != nil
		out = append(out, promql.Sample{Metric: labelsOf(s.Metric), T: int64(s.Timestamp), F: float64(s.Value)})
	}
	return out, native, nil
}

func promMatrix(data []byte) (value parser.Value, native bool, err error) {
	var m model.Matrix
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, false, err
	}
	out := promql.Matrix{}
	for _, s := range m {
		native = native || len(s.Histograms) > 0
		one := promql.Series{Metric: labelsOf(s.Metric)}
		for _, p := range s.Values {
			one.Floats = append(one.Floats, promql.FPoint{T: int64(p.Timestamp), F: float64(p.Value)})
		}
		out = append(out, one)
	}
	return out, native, nil
}

func labelsOf(metric model.Metric) labels.Labels {
	pairs := make(map[string]string, len(metric))
	for name, value := range metric {
		pairs[string(name)] = string(value)
	}
	return labels.FromMap(pairs)
}

// native asks by gRPC, where native histograms are whole.
func (b *suiteBlock) native(ctx context.Context, q promtest.Query) (parser.Value, error) {
	stream, err := b.of.query.QueryMetrics(withKey(ctx, b.of.keys[b.organization]), &queryv1.QueryMetricsRequest{
		Query: q.Text, Start: timestamppb.New(q.Start), End: timestamppb.New(q.End), Step: durationpb.New(q.Step),
	})
	if err != nil {
		return nil, err
	}
	kind, matrix := queryv1.ValueType_VALUE_TYPE_UNSPECIFIED, promql.Matrix{}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		kind = part.GetType()
		for _, s := range part.GetSeries() {
			matrix = withSeries(matrix, s)
		}
	}
	if kind == queryv1.ValueType_VALUE_TYPE_MATRIX {
		return matrix, nil
	}
	vector := promql.Vector{}
	for _, s := range matrix {
		for _, p := range s.Floats {
			vector = append(vector, promql.Sample{Metric: s.Metric, T: p.T, F: p.F})
		}
		for _, p := range s.Histograms {
			vector = append(vector, promql.Sample{Metric: s.Metric, T: p.T, H: p.H})
		}
	}
	return vector, nil
}

// withSeries adds a part of a series, which may be that of the last one.
func withSeries(to promql.Matrix, s *queryv1.Series) promql.Matrix {
	named := labels.FromMap(s.GetLabels())
	if len(to) == 0 || !labels.Equal(to[len(to)-1].Metric, named) {
		to = append(to, promql.Series{Metric: named})
	}
	last := &to[len(to)-1]
	for _, sample := range s.GetSamples() {
		at := sample.GetTime().AsTime().UnixMilli()
		if h := sample.GetHistogram(); h != nil {
			last.Histograms = append(last.Histograms, promql.HPoint{T: at, H: floatHistogram(h)})
			continue
		}
		last.Floats = append(last.Floats, promql.FPoint{T: at, F: sample.GetValue()})
	}
	return to
}

func floatHistogram(h *queryv1.Histogram) *histogram.FloatHistogram {
	spans := func(of []*queryv1.HistogramSpan) (out []histogram.Span) {
		for _, s := range of {
			out = append(out, histogram.Span{Offset: s.GetOffset(), Length: s.GetLength()})
		}
		return out
	}
	return &histogram.FloatHistogram{
		CounterResetHint: histogram.CounterResetHint(h.GetResetHint()), Schema: h.GetSchema(), ZeroThreshold: h.GetZeroThreshold(), ZeroCount: h.GetZeroCount(),
		Count: h.GetCount(), Sum: h.GetSum(), PositiveSpans: spans(h.GetPositiveSpans()), PositiveBuckets: h.GetPositiveBuckets(),
		NegativeSpans: spans(h.GetNegativeSpans()), NegativeBuckets: h.GetNegativeBuckets(), CustomValues: h.GetCustomBounds(),
	}
}
