// SPDX-License-Identifier: AGPL-3.0-only

package promhttp_test

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promhttp"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
)

const secret = "lr_a_secret_of_the_tests"

// from is when the lab's first sample is: not near the end of an hour, so that one segment holds all.
var from = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// catalogue is an index in memory.
type catalogue struct {
	segments []lake.Segment
	complete index.Completeness
}

// Lookup implements query.Index.
func (c *catalogue) Lookup(_ context.Context, q index.Query) (index.Answer, error) {
	answer := index.Answer{Completeness: c.complete}
	for _, s := range c.segments {
		overlaps := s.FirstTime.Before(q.End) && !s.LastTime.Before(q.Start)
		if s.Organization == q.Organization && s.Signal == q.Signal && s.Resolution == q.Resolution && overlaps {
			answer.Segments = append(answer.Segments, s)
		}
	}
	return answer, nil
}

// Arrivals implements query.Index.
func (c *catalogue) Arrivals(context.Context, index.Query, time.Time) (index.Answer, error) {
	return index.Answer{}, nil
}

type lab struct {
	t      *testing.T
	index  *catalogue
	worker *workertest.Worker
	server http.Handler
	url    string
}

// setup serves the API over the series of scraped.
func setup(t *testing.T, settings string) *lab {
	t.Helper()
	hash := config.Hash(secret)
	source, err := config.Static("organizations: [{id: acme, " + settings + "}]\n" +
		"api_keys: [{id: k, organization: acme, scopes: [query], sha256: " + hex.EncodeToString(hash[:]) + "}]\n")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, index: &catalogue{}, worker: &workertest.Worker{Store: workertest.NewStore()}}
	asking := fan.New(func() []fan.Worker { return []fan.Worker{{Name: "w", Client: l.worker}} }, fan.Options{})
	mux := host.NewMux(source, nil)
	promhttp.New(query.New(l.index, source, asking, query.NewMeters(nil), query.Options{}), "test").Register(mux)
	l.server = mux
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	l.url = server.URL
	l.put(workertest.MetricSegment{Series: scraped()})
	return l
}

func (l *lab) put(m workertest.MetricSegment) {
	m.Window = lake.WindowOf(from, time.Hour)
	l.index.segments = append(l.index.segments, l.worker.Store.PutMetrics("acme", lake.SegmentID(len(l.index.segments)+1), m))
}

// scraped are ten minutes of a shop, scraped every 15 seconds; native histograms every minute.
func scraped() []prom.Series {
	floats := func(value func(i int) float64, pairs ...string) prom.Series {
		s := prom.Series{Labels: labels.FromStrings(pairs...)}
		for i := range 41 {
			s.Times, s.Values = append(s.Times, from.UnixMilli()+int64(i)*15_000), append(s.Values, value(i))
		}
		return s
	}
	latency := prom.Series{Labels: labels.FromStrings(model.MetricNameLabel, "latency_seconds", "job", "api")}
	for i := range 11 {
		latency.HistogramTimes = append(latency.HistogramTimes, from.UnixMilli()+int64(i)*60_000)
		latency.Histograms = append(latency.Histograms, latencyAt(float64(i)))
	}
	return []prom.Series{
		floats(func(int) float64 { return 3 }, model.MetricNameLabel, "http.size", "http.method", "GET"),
		floats(func(i int) float64 { return float64(i * 10) }, model.MetricNameLabel, "http_requests_total", "code", "200", "job", "api"),
		floats(func(i int) float64 { return float64(i) }, model.MetricNameLabel, "http_requests_total", "code", "500", "job", "api"),
		latency,
		floats(func(int) float64 { return 1 }, model.MetricNameLabel, "up", "instance", "a", "job", "api"),
	}
}

func latencyAt(n float64) *histogram.FloatHistogram {
	return &histogram.FloatHistogram{
		Schema: 0, ZeroThreshold: 0.001, ZeroCount: n, Count: 6 * n, Sum: 9 * n,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{2 * n, 3 * n},
	}
}

// seconds is a time as the API takes it, so many seconds after the first sample.
func seconds(after int) string { return strconv.FormatInt(from.Unix()+int64(after), 10) }

func (l *lab) request(method, path string, params url.Values) *http.Request {
	l.t.Helper()
	address, body := l.url+"/prometheus/api/v1/"+path, io.Reader(nil)
	if method == http.MethodPost {
		body = strings.NewReader(params.Encode())
	} else {
		address += "?" + params.Encode()
	}
	r, err := http.NewRequestWithContext(l.t.Context(), method, address, body)
	if err != nil {
		l.t.Fatal(err)
	}
	r.SetBasicAuth("anybody", secret)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

// send asks and returns status, headers and body.
func (l *lab) send(r *http.Request) (int, http.Header, []byte) {
	l.t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return response.StatusCode, response.Header, body
}

// get asks and returns the whole answer.
func (l *lab) get(path string, pairs ...string) map[string]any {
	l.t.Helper()
	status, _, body := l.send(l.request(http.MethodGet, path, values(pairs...)))
	if status != http.StatusOK {
		l.t.Fatalf("%s %v: status %d: %s", path, pairs, status, body)
	}
	return l.decode(body)
}

func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

func (l *lab) decode(body []byte) map[string]any {
	l.t.Helper()
	var out map[string]any
	if err := json.Unmarshal(body, &out); err != nil {
		l.t.Fatalf("%v: %s", err, body)
	}
	return out
}

// same compares an answer with JSON.
func (l *lab) same(got any, want string) {
	l.t.Helper()
	var wanted any
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		l.t.Fatalf("%v: %s", err, want)
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		l.t.Errorf("(-want +got):\n%s", diff)
	}
}

// of is the lab of a subtest.
func (l *lab) of(t *testing.T) *lab {
	other := *l
	other.t = t
	return &other
}

func TestQueriesAreAnsweredAsPrometheusDoes(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	at := strconv.FormatInt(from.Unix()+600, 10)
	for name, c := range map[string]struct {
		path   string
		params url.Values
		data   string
	}{
		"Grafana's health check": {"query", values("query", "1+1", "time", "4"), `{"resultType":"scalar","result":[4,"2"]}`},
		"a string":               {"query", values("query", `"a\"b"`, "time", "1.5"), `{"resultType":"string","result":[1.5,"a\"b"]}`},
		"a vector": {
			"query",
			values("query", `max_over_time(http_requests_total{code="500"}[1m]) / 2`, "time", at),
			`{"resultType":"vector","result":[{"metric":{"code":"500","job":"api"},"value":[` + at + `,"20"]}]}`,
		},
		"an empty vector": {"query", values("query", "nothing", "time", at), `{"resultType":"vector","result":[]}`},
		"values without a JSON number": {
			"query",
			values("query", `vector(1)/0 or label_replace(vector(NaN),"a","b","","")`, "time", "7"),
			`{"resultType":"vector","result":[{"metric":{},"value":[7,"+Inf"]},{"metric":{"a":"b"},"value":[7,"NaN"]}]}`,
		},
		"a matrix at a time": {
			"query",
			values("query", `up[20s]`, "time", at),
			`{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a","job":"api"},"values":[[` + seconds(585) + `,"1"],[` + at + `,"1"]]}]}`,
		},
		"a matrix over a range": {
			"query_range",
			values("query", `sum by (job) (http_requests_total)`, "start", seconds(0), "end", seconds(70), "step", "30"),
			`{"resultType":"matrix","result":[{"metric":{"job":"api"},"values":[[` + seconds(0) + `,"0"],[` + seconds(30) + `,"22"],[` + seconds(60) + `,"44"]]}]}`,
		},
		"times as RFC 3339 and a step with units": {
			"query_range",
			values("query", `up`, "start", from.Format(time.RFC3339), "end", from.Add(30500*time.Millisecond).Format(time.RFC3339Nano), "step", "30s500ms"),
			`{"resultType":"matrix","result":[{"metric":{"__name__":"up","instance":"a","job":"api"},"values":[[` + seconds(0) + `,"1"],[` + seconds(30) + `.5,"1"]]}]}`,
		},
		"a scalar over a range": {
			"query_range",
			values("query", "3", "start", "10", "end", "11", "step", "1"),
			`{"resultType":"matrix","result":[{"metric":{},"values":[[10,"3"],[11,"3"]]}]}`,
		},
		"a lookback": {"query", values("query", "latency_seconds", "time", seconds(645), "lookback_delta", "44"), `{"resultType":"vector","result":[]}`},
		"names in UTF-8": {
			"query",
			values("query", `{"http.size", "http.method"="GET"}`, "time", at),
			`{"resultType":"vector","result":[{"metric":{"__name__":"http.size","http.method":"GET"},"value":[` + at + `,"3"]}]}`,
		},
		"a native histogram": {
			"query",
			values("query", "latency_seconds", "time", seconds(60)),
			`{"resultType":"vector","result":[{"metric":{"__name__":"latency_seconds","job":"api"},"histogram":[` + seconds(60) +
				`,{"count":"6","sum":"9","buckets":[[3,"-0.001","0.001","1"],[0,"0.5","1","2"],[0,"1","2","3"]]}]}]}`,
		},
		"native histograms over a range": {
			"query_range",
			values("query", "latency_seconds", "start", seconds(60), "end", seconds(60), "step", "1"),
			`{"resultType":"matrix","result":[{"metric":{"__name__":"latency_seconds","job":"api"},"histograms":[[` + seconds(60) +
				`,{"count":"6","sum":"9","buckets":[[3,"-0.001","0.001","1"],[0,"0.5","1","2"],[0,"1","2","3"]]}]]}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := l.of(t)
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				status, header, body := l.send(l.request(method, c.path, c.params))
				if status != http.StatusOK || header.Get("Content-Type") != "application/json" {
					t.Fatalf("%s: status %d, %s: %s", method, status, header.Get("Content-Type"), body)
				}
				l.same(l.decode(body), `{"status":"success","data":`+c.data+`}`)
			}
		})
	}
}

func TestWhatAnAnswerSaysBeside(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	at := seconds(600)

	t.Run("statistics, when asked for", func(t *testing.T) {
		t.Parallel()
		l := l.of(t)
		for _, asked := range []string{"true", "all"} {
			stats := l.get("query", "query", "http_requests_total", "time", at, "stats", asked)["data"].(map[string]any)["stats"].(map[string]any)
			samples := stats["samples"].(map[string]any)
			if len(samples) != 3 || samples["samplesRead"].(float64) <= 0 {
				t.Errorf("samples %v", samples)
			}
			if names := stats["timings"].(map[string]any); len(names) != 6 || names["execTotalTime"].(float64) <= 0 {
				t.Errorf("timings %v", names)
			}
		}
		if got := l.get("query", "query", "1", "time", at, "stats", "some")["warnings"]; got == nil || !strings.Contains(fmt.Sprint(got), `use "true" or "all"`) {
			t.Errorf("warnings %v", got)
		}
	})

	t.Run("warnings and infos of the engine, with their places", func(t *testing.T) {
		t.Parallel()
		l := l.of(t)
		got := l.get("query", "query", "rate(up[1m])", "time", at)
		l.same(got["infos"], `["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:6)"]`)
		got = l.get("query", "query", `quantile(2, up)`, "time", at)
		l.same(got["warnings"], `["PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)"]`)
	})

	t.Run("that rollups answered", func(t *testing.T) {
		t.Parallel()
		l := setup(t, "name: Acme")
		l.put(workertest.MetricSegment{Resolution: time.Minute, Series: scraped()})
		got := l.get("query_range", "query", "count_over_time(up[5m])", "start", seconds(300), "end", seconds(600), "step", "60")
		l.same(got["infos"], `["lakerunner: answered from rollups of 1m, exactly"]`)
	})

	t.Run("that a limit cut it", func(t *testing.T) {
		t.Parallel()
		l := l.of(t)
		got := l.get("query", "query", "http_requests_total", "time", at, "limit", "1")
		l.same(got["warnings"], `["results truncated due to limit"]`)
		if n := len(got["data"].(map[string]any)["result"].([]any)); n != 1 {
			t.Errorf("%d series", n)
		}
	})

	t.Run("how complete it is, and what it cost", func(t *testing.T) {
		t.Parallel()
		l := setup(t, "name: Acme")
		l.index.complete = index.Completeness{Pending: 2, Failed: 1, OldestPending: from}
		_, header, _ := l.send(l.request(http.MethodGet, "query", values("query", "up", "time", at)))
		if got := header.Get(query.HeaderCompleteness); got != "pending=2, failed=1, oldest_pending=2026-03-01T12:00:00Z" {
			t.Errorf("completeness %q", got)
		}
		if got := header.Get(query.HeaderStatistics); !strings.Contains(got, "segments_considered=1,") {
			t.Errorf("statistics %q", got)
		}
	})

	t.Run("that it is compressed", func(t *testing.T) {
		t.Parallel()
		l := l.of(t)
		r := l.request(http.MethodPost, "query_range", values("query", `{job="api"}`, "start", seconds(0), "end", at, "step", "1"))
		r.Header.Set("Accept-Encoding", "gzip")
		_, header, body := l.send(r)
		if header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("headers %v", header)
		}
		reader, err := gzip.NewReader(strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		l.same(l.decode(plain)["status"], `"success"`)
	})
}

// refused is an answer that is an error.
type refused struct {
	status    int
	errorType string
	text      string // or a part of it, with ... on either side
}

func (l *lab) refuses(r *http.Request, want refused) {
	l.t.Helper()
	status, header, body := l.send(r)
	got := l.decode(body)
	text, _ := got["error"].(string)
	right := text == want.text
	if part, ok := strings.CutPrefix(want.text, "..."); ok {
		right = strings.Contains(text, strings.TrimSuffix(part, "..."))
	}
	if status != want.status || got["status"] != "error" || got["errorType"] != want.errorType || !right || header.Get("Content-Type") != "application/json" {
		l.t.Errorf("%d %s: %s\nwant %d %s: %s", status, got["errorType"], text, want.status, want.errorType, want.text)
	}
}

func TestErrorsHavePrometheusTypesAndWords(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	ranged := func(pairs ...string) url.Values {
		v := values("query", "up", "start", "0", "end", "100", "step", "10")
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	for name, c := range map[string]struct {
		path   string
		params url.Values
		want   refused
	}{
		"a syntax error": {"query", values("query", "up{"), refused{400, "bad_data", `invalid parameter "query": 1:4: parse error: unexpected end of input inside braces`}},
		"no query":       {"query", nil, refused{400, "bad_data", `invalid parameter "query": unknown position: parse error: no expression found in input`}},
		"a bad time":     {"query", values("query", "up", "time", "soon"), refused{400, "bad_data", `invalid parameter "time": cannot parse "soon" to a valid timestamp`}},
		"milliseconds":   {"query", values("query", "up", "time", "1772366400000"), refused{400, "bad_data", `...is out of range...`}},
		"a bad timeout":  {"query", values("query", "up", "timeout", "x"), refused{400, "bad_data", `invalid parameter "timeout": cannot parse "x" to a valid duration`}},
		"a bad limit":    {"query", values("query", "up", "limit", "-1"), refused{400, "bad_data", `invalid parameter "limit": limit must be non-negative`}},
		"a range vector over a range": {
			"query_range", ranged("query", "up[1m]"),
			refused{400, "bad_data", `invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector`},
		},
		"no step":              {"query_range", ranged("step", ""), refused{400, "bad_data", `invalid parameter "step": cannot parse "" to a valid duration`}},
		"no start":             {"query_range", ranged("start", ""), refused{400, "bad_data", `invalid parameter "start": cannot parse "" to a valid timestamp`}},
		"a step of nothing":    {"query_range", ranged("step", "0"), refused{400, "bad_data", `invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer`}},
		"an end before start":  {"query_range", ranged("end", "-1"), refused{400, "bad_data", `invalid parameter "end": end timestamp must not be before start time`}},
		"too many steps":       {"query_range", ranged("end", "110011"), refused{400, "bad_data", `...exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)`}},
		"many to many":         {"query", values("query", "http_requests_total / on(job) http_requests_total", "time", seconds(60)), refused{422, "execution", `...found duplicate series for the match group {job="api"} on the right hand-side of the operation...`}},
		"no time left":         {"query", values("query", "up", "time", seconds(60), "timeout", "0.000000001"), refused{503, "timeout", `...query timed out...`}},
		"series of nothing":    {"series", nil, refused{400, "bad_data", `no match[] parameter provided`}},
		"series of everything": {"series", values("match[]", `{job=~".*"}`), refused{400, "bad_data", `invalid parameter "match[]": match[] must contain at least one non-empty matcher`}},
		"a bad selector":       {"labels", values("match[]", `up+1`), refused{400, "bad_data", `invalid parameter "match[]": 1:3: parse error: unexpected <op:+>`}},
		"a bad limit of names": {"labels", values("limit", "x"), refused{400, "bad_data", `invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax`}},
		"metadata of x":        {"metadata", values("limit", "x"), refused{400, "bad_data", `limit must be a number`}},
		"a tree of nothing":    {"parse_query", values("query", "foo("), refused{400, "bad_data", `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`}},
		"a form of nothing":    {"format_query", values("query", "("), refused{400, "bad_data", `invalid parameter "query": 1:2: parse error: unclosed left parenthesis`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := l.of(t)
			l.refuses(l.request(http.MethodGet, c.path, c.params), c.want)
		})
	}
}

func TestErrorsOfTheLakeHaveTheirTypes(t *testing.T) {
	t.Parallel()
	up := values("query", "up", "time", seconds(60))
	for name, c := range map[string]struct {
		err  error
		want refused
	}{
		"a lost segment":      {fault.New(fault.MissingSegment, "segment 7 is gone"), refused{500, "internal", "...segment 7 is gone"}},
		"no worker":           {fault.New(fault.Unavailable, "no worker"), refused{503, "unavailable", "...no query worker is available..."}},
		"what is unsupported": {fault.New(fault.Unsupported, "not that"), refused{422, "execution", "...not that"}},
		"what is too much":    {fault.New(fault.Exhausted, "too much"), refused{422, "execution", "...too much"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := setup(t, "name: Acme")
			l.worker.Before = func(context.Context, *workerv1.ScanRequest) error { return c.err }
			l.refuses(l.request(http.MethodGet, "query", up), c.want)
		})
	}
	t.Run("a limit names itself", func(t *testing.T) {
		t.Parallel()
		l := setup(t, "limits: {max_query_series: 3}")
		l.refuses(l.request(http.MethodGet, "query", values("query", `{job="api"}`, "time", seconds(60))), refused{422, "execution", "...max_query_series..."})
		l = setup(t, "limits: {max_query_samples: 10}")
		l.refuses(l.request(http.MethodGet, "query", values("query", `sum(rate(http_requests_total[10m]))`, "time", seconds(600))), refused{422, "execution", "...more than 10 at once..."})
	})
	t.Run("a client that went away", func(t *testing.T) {
		t.Parallel()
		l := setup(t, "name: Acme")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		recorder := httptest.NewRecorder()
		l.server.ServeHTTP(recorder, l.request(http.MethodGet, "query", up).WithContext(ctx))
		if got := l.decode(recorder.Body.Bytes()); recorder.Code != 499 || got["errorType"] != "canceled" {
			t.Errorf("%d: %v", recorder.Code, got)
		}
	})
	t.Run("nobody without a key", func(t *testing.T) {
		t.Parallel()
		l := setup(t, "name: Acme")
		r := l.request(http.MethodGet, "query", up)
		r.Header.Del("Authorization")
		if status, _, _ := l.send(r); status != http.StatusUnauthorized {
			t.Errorf("status %d", status)
		}
		for _, path := range []string{"/-/healthy", "/-/ready"} {
			response, err := http.Get(l.url + "/prometheus" + path) //nolint:noctx // it is the test's own server
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("%s: status %d", path, response.StatusCode)
			}
		}
	})
}

func TestWhatElseClientsAsk(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	t.Run("catalogues, in an encoding of their choice", func(t *testing.T) {
		t.Parallel()
		l := l.of(t)
		for _, path := range []string{"labels", "label/__name__/values", "metadata", "cardinality"} {
			r := l.request(http.MethodGet, path, nil)
			r.Header.Set("Accept-Encoding", "gzip")
			status, header, _ := l.send(r)
			if status != http.StatusOK || header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s: status %d, headers %v", path, status, header)
			}
		}
	})
	for name, c := range map[string]struct {
		path string
		want string
	}{
		"rules":   {"rules", `{"groups":[]}`},
		"alerts":  {"alerts", `{"alerts":[]}`},
		"targets": {"targets", `{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := l.of(t)
			l.same(l.get(c.path)["data"], c.want)
		})
	}
	t.Run("the version, without features", func(t *testing.T) {
		t.Parallel()
		l := l.of(t)
		got := l.get("status/buildinfo")["data"].(map[string]any)
		if !slices.Equal([]any{got["version"], got["revision"], got["features"]}, []any{"3.15.0", "test", nil}) {
			t.Errorf("%v", got)
		}
	})
}
