// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	jsoniter "github.com/json-iterator/go"
	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/jsonutil"
	"github.com/prometheus/prometheus/util/teststorage"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/prom"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// parted spreads the samples of series over n objects: each series is cut somewhere, and either half is in any of them.
func parted(seed uint64, series []prom.Series, start, end time.Time, n int) [][]prom.Series {
	random := rand.New(rand.NewPCG(seed, 11))
	out := make([][]prom.Series, n)
	from, to := start.UnixMilli(), end.UnixMilli()
	for _, one := range series {
		cut := from + random.Int64N(to-from)
		for _, span := range [][2]int64{{from, cut}, {cut + 1, to}} {
			half := one
			half.Trim(span[0], span[1])
			if i := random.IntN(n); half.Len() > 0 {
				out[i] = append(out[i], half)
			}
		}
	}
	return out
}

// remoteWrite is a request of Prometheus' remote write.
func remoteWrite(t testing.TB, series []prom.Series) []byte {
	t.Helper()
	var request prompb.WriteRequest
	for i := range series {
		one := prompb.TimeSeries{Labels: prompb.FromLabels(series[i].Labels, nil)}
		for j, at := range series[i].Times {
			one.Samples = append(one.Samples, prompb.Sample{Timestamp: at, Value: series[i].Values[j]})
		}
		for j, at := range series[i].HistogramTimes {
			one.Histograms = append(one.Histograms, prompb.FromFloatHistogram(at, series[i].Histograms[j]))
		}
		request.Timeseries = append(request.Timeseries, one)
	}
	raw, err := request.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, raw)
}

// tsdb is Prometheus' own storage with the series.
func tsdb(t testing.TB, series []prom.Series) storage.Queryable {
	t.Helper()
	type sample struct {
		at            int64
		series, index int
		histogram     bool
	}
	var all []sample
	for i := range series {
		for j, at := range series[i].Times {
			all = append(all, sample{at, i, j, false})
		}
		for j, at := range series[i].HistogramTimes {
			all = append(all, sample{at, i, j, true})
		}
	}
	slices.SortStableFunc(all, func(a, b sample) int { return cmp.Compare(a.at, b.at) })
	db := teststorage.New(t)
	appender := db.Appender(t.Context())
	for _, one := range all {
		var err error
		if s := &series[one.series]; one.histogram {
			_, err = appender.AppendHistogram(0, s.Labels, one.at, nil, s.Histograms[one.index])
		} else {
			_, err = appender.Append(0, s.Labels, one.at, s.Values[one.index])
		}
		if err != nil {
			t.Fatalf("%s at %d: %v", series[one.series].Labels, one.at, err)
		}
	}
	if err := appender.Commit(); err != nil {
		t.Fatal(err)
	}
	return db
}

// evaluator answers queries.
type evaluator func(ctx context.Context, q metrictest.Query) (parser.Value, error)

// prometheus is Prometheus itself over a storage.
func prometheus(from storage.Queryable) evaluator {
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }, Parser: prom.Parser(),
	})
	return func(ctx context.Context, q metrictest.Query) (parser.Value, error) {
		query, err := engine.NewInstantQuery(ctx, from, nil, q.Text, q.End)
		if q.Step > 0 {
			query, err = engine.NewRangeQuery(ctx, from, nil, q.Text, q.Start, q.End, q.Step)
		}
		if err != nil {
			return nil, err
		}
		result := query.Exec(ctx)
		return result.Value, result.Err
	}
}

// form is how a query is asked by HTTP.
func form(q metrictest.Query) (path string, params url.Values) {
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	if q.Step == 0 {
		return "query", url.Values{"query": {q.Text}, "time": {seconds(q.End)}}
	}
	return "query_range", url.Values{
		"query": {q.Text}, "start": {seconds(q.Start)}, "end": {seconds(q.End)}, "step": {strconv.FormatFloat(q.Step.Seconds(), 'f', -1, 64)},
	}
}

// answer is one of Prometheus' HTTP API.
type answer struct {
	Status, ErrorType, Error string
	Warnings, Infos          []string
	Data                     json.RawMessage
	header                   http.Header
	code                     int
}

// promAPI asks Prometheus' HTTP API.
func (l *lake) promAPI(t testing.TB, organization, path string, params url.Values) answer {
	t.Helper()
	a, err := l.askProm(t.Context(), organization, path, params)
	if err != nil {
		t.Fatalf("%s %v: %v", path, params, err)
	}
	return a
}

// askProm asks Prometheus' HTTP API; an error is that of asking.
func (l *lake) askProm(ctx context.Context, organization, path string, params url.Values) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.stack.HTTP+"/prometheus/api/v1/"+path, strings.NewReader(params.Encode()))
	if err != nil {
		return a, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth("lakerunner", l.keys[organization])
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return a, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	a.header, a.code = response.Header, response.StatusCode
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("%w: %s", err, body)
	}
	return a, nil
}

// lines are the series of an answer in the form of the API, each under its labels.
type lines map[string]*line

type line struct {
	values     []model.SamplePair
	histograms []model.SampleHistogramPair
}

// decoded reads the data of an answer.
func decoded(t testing.TB, data json.RawMessage) lines {
	t.Helper()
	var d struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	out := lines{}
	switch d.ResultType {
	case "scalar":
		var v model.Scalar
		unmarshal(t, d.Result, &v)
		out["scalar"] = &line{values: []model.SamplePair{{Timestamp: v.Timestamp, Value: v.Value}}}
	case "string":
		out["string "+string(d.Result)] = &line{}
	case "vector":
		var v model.Vector
		unmarshal(t, d.Result, &v)
		for _, s := range v {
			out.add(t, s.Metric, *s)
		}
	case "matrix":
		var m model.Matrix
		unmarshal(t, d.Result, &m)
		for _, s := range m {
			if out[s.Metric.String()] != nil {
				t.Fatalf("%s is twice in an answer", s.Metric)
			}
			out[s.Metric.String()] = &line{values: s.Values, histograms: s.Histograms}
		}
	default:
		t.Fatalf("an answer of type %q", d.ResultType)
	}
	return out
}

func unmarshal(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v: %.500s", err, data)
	}
}

func (l lines) add(t testing.TB, metric model.Metric, s model.Sample) {
	t.Helper()
	if l[metric.String()] != nil {
		t.Fatalf("%s is twice in an answer", metric)
	}
	if s.Histogram != nil {
		l[metric.String()] = &line{histograms: []model.SampleHistogramPair{{Timestamp: s.Timestamp, Histogram: s.Histogram}}}
		return
	}
	l[metric.String()] = &line{values: []model.SamplePair{{Timestamp: s.Timestamp, Value: s.Value}}}
}

// linesOf puts what an engine answers into the form of the API.
func linesOf(t testing.TB, v parser.Value) lines {
	t.Helper()
	out := lines{}
	switch v := v.(type) {
	case promql.Scalar:
		out["scalar"] = &line{values: []model.SamplePair{{Timestamp: model.Time(v.T), Value: model.SampleValue(v.V)}}}
	case promql.String:
		out[fmt.Sprintf("string [%s,%q]", strconv.FormatFloat(float64(v.T)/1000, 'f', -1, 64), v.V)] = &line{}
	case promql.Vector:
		for _, s := range v {
			out[textOf(s.Metric.Map())] = lineOf(t, promql.Series{Floats: []promql.FPoint{{T: s.T, F: s.F}}}, s.H, s.T)
		}
	case promql.Matrix:
		for _, s := range v {
			out[textOf(s.Metric.Map())] = lineOf(t, s, nil, 0)
		}
	}
	return out
}

func textOf(pairs map[string]string) string {
	metric := model.Metric{}
	for name, value := range pairs {
		metric[model.LabelName(name)] = model.LabelValue(value)
	}
	return metric.String()
}

// lineOf puts a series into the form of the API. With a histogram it is that one alone.
func lineOf(t testing.TB, s promql.Series, h *histogram.FloatHistogram, at int64) *line {
	t.Helper()
	if h != nil {
		s = promql.Series{Histograms: []promql.HPoint{{T: at, H: h}}}
	}
	out := &line{}
	for _, p := range s.Floats {
		out.values = append(out.values, model.SamplePair{Timestamp: model.Time(p.T), Value: model.SampleValue(p.F)})
	}
	for _, p := range s.Histograms {
		var b bytes.Buffer
		stream := jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, &b, 1024)
		jsonutil.MarshalHistogram(p.H, stream)
		if err := stream.Flush(); err != nil {
			t.Fatal(err)
		}
		var written model.SampleHistogram
		unmarshal(t, b.Bytes(), &written)
		out.histograms = append(out.histograms, model.SampleHistogramPair{Timestamp: model.Time(p.T), Histogram: &written})
	}
	return out
}

// diff says where two answers are not the same to 1e-9.
func diff(want, got lines) string {
	var b strings.Builder
	for name, w := range want {
		g := got[name]
		switch {
		case g == nil:
			fmt.Fprintf(&b, "-%s %v %v\n", name, w.values, w.histograms)
		case !slices.EqualFunc(w.values, g.values, nearPair) || !slices.EqualFunc(w.histograms, g.histograms, nearHistogram):
			fmt.Fprintf(&b, "-%s %v %v\n+%s %v %v\n", name, w.values, w.histograms, name, g.values, g.histograms)
		}
	}
	for name, g := range got {
		if want[name] == nil {
			fmt.Fprintf(&b, "+%s %v %v\n", name, g.values, g.histograms)
		}
	}
	return b.String()
}

func nearPair(a, b model.SamplePair) bool {
	return a.Timestamp == b.Timestamp && near(float64(a.Value), float64(b.Value))
}

func nearHistogram(a, b model.SampleHistogramPair) bool {
	return a.Timestamp == b.Timestamp && near(float64(a.Histogram.Count), float64(b.Histogram.Count)) && near(float64(a.Histogram.Sum), float64(b.Histogram.Sum)) &&
		slices.EqualFunc(a.Histogram.Buckets, b.Histogram.Buckets, func(x, y *model.HistogramBucket) bool {
			return x.Boundaries == y.Boundaries && near(float64(x.Lower), float64(y.Lower)) && near(float64(x.Upper), float64(y.Upper)) &&
				near(float64(x.Count), float64(y.Count))
		})
}

func near(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return math.IsNaN(a) && math.IsNaN(b)
	case a == b:
		return true
	}
	return math.Abs(a-b) <= metrictest.Tolerance*max(math.Abs(a), math.Abs(b))
}

// holds asks queries of the lake by HTTP and of an engine, and says how many had an answer, and how many of those came of rollups.
func (l *lake) holds(t *testing.T, organization string, truth evaluator, queries []metrictest.Query) (answered, rolled int) {
	t.Helper()
	for i, q := range queries {
		want, wantErr := truth(t.Context(), q)
		path, params := form(q)
		got := l.promAPI(t, organization, path, params)
		switch {
		case (wantErr == nil) != (got.Status == "success"):
			t.Errorf("%d: %s\n%d %s: %s\nwant %v", i, q, got.code, got.ErrorType, got.Error, wantErr)
			continue
		case wantErr != nil:
			continue
		}
		expected := linesOf(t, want)
		if len(expected) > 0 {
			answered++
		}
		if got.header.Get("X-Lakerunner-Resolution") != "" {
			rolled++
		}
		if text := diff(expected, decoded(t, got.Data)); text != "" {
			t.Errorf("%d: %s\n%v, resolution %q\n%.3000s", i, q, got.header["X-Lakerunner-Statistics"], got.header.Get("X-Lakerunner-Resolution"), text)
		}
	}
	return answered, rolled
}

// compactMetrics compacts the hours of a stretch.
func (l *lake) compactMetrics(t *testing.T, organization string, start, end time.Time) (made int) {
	t.Helper()
	service := compactorv1.NewCompactorServiceClient(l.conn)
	for hour := start.Truncate(time.Hour); hour.Before(end); hour = hour.Add(time.Hour) {
		eventually(t, func() error {
			done, err := service.CompactWindow(withKey(t.Context(), l.adminKey), &compactorv1.CompactWindowRequest{
				Organization: organization, Signal: lakev1.Signal_SIGNAL_METRICS, Start: timestamppb.New(hour),
			})
			made += len(done.GetSegmentKeys())
			return err
		})
	}
	return made
}

// rollUp makes the rollups of a resolution for a stretch, and returns how many points they count.
func (l *lake) rollUp(t *testing.T, organization string, resolution time.Duration, start, end time.Time) (counted int64) {
	t.Helper()
	service := rollupv1.NewRollupServiceClient(l.conn)
	for hour := start.Truncate(time.Hour); hour.Before(end); hour = hour.Add(time.Hour) {
		eventually(t, func() error {
			done, err := service.RollupWindow(withKey(t.Context(), l.adminKey), &rollupv1.RollupWindowRequest{
				Organization: organization, Signal: lakev1.Signal_SIGNAL_METRICS, Start: timestamppb.New(hour), ResolutionSeconds: int64(resolution.Seconds()),
			})
			counted += done.GetAccount().GetCounted()
			return err
		})
	}
	return counted
}

// awaitDone waits until so many objects under a prefix are ingested, without a rejected row.
func (l *lake) awaitDone(organization, prefix string, want int) {
	l.t.Helper()
	for _, r := range l.awaitReceipts(organization, prefix, want) {
		if r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_DONE || r.GetRowsIn() != r.GetRowsOut() {
			l.t.Fatalf("receipt %v", r)
		}
	}
}
