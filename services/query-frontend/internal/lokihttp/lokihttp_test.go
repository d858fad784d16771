// SPDX-License-Identifier: AGPL-3.0-only

package lokihttp_test

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/lokihttp"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

const secret = "lr_a_secret_of_the_tests"

type lab struct {
	*workertest.Lake
	t    *testing.T
	from time.Time
	url  string
}

// setup serves the API over 60 rows, one a second, of two streams in turn.
func setup(t *testing.T) *lab {
	t.Helper()
	hash := config.Hash(secret)
	source, err := config.Static("organizations: [{id: acme, limits: {max_query_lines: 500, max_query_series: 5}}]\n" +
		"api_keys: [{id: k, organization: acme, scopes: [query], sha256: " + hex.EncodeToString(hash[:]) + "}]\n")
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Lake: workertest.NewLake(indextest.New(t)), t: t, from: time.Now().Add(-20 * time.Minute).Truncate(time.Second)}
	worker := &workertest.Worker{Store: l.Store}
	asking := fan.New(func() []fan.Worker { return []fan.Worker{{Name: "w", Client: worker}} }, fan.Options{})
	frontend := query.New(l.Index, source, asking, query.NewMeters(nil), query.Options{})
	mux := host.NewMux(source, nil)
	lokihttp.New(frontend, "test").Register(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	l.url = server.URL
	l.Ingest(t, "acme", rowsFrom(l.from))
	return l
}

func rowsFrom(from time.Time) []querytest.Row {
	rows := make([]querytest.Row, 60)
	for i := range rows {
		rows[i] = querytest.Row{
			Time:     from.Add(time.Duration(i) * time.Second),
			Labels:   map[string]string{"service_name": []string{"cart", "shop"}[i%2], "env": "prod"},
			Metadata: map[string]string{"detected_level": "info", "n": strconv.Itoa(i)},
			Line:     fmt.Sprintf(`{"status":%d,"took":"%dms","http":{"path":"/a"}}`, 200+i%3, i),
		}
	}
	return rows
}

func (l *lab) times() url.Values {
	return url.Values{"start": {ns(l.from)}, "end": {ns(l.from.Add(time.Minute))}}
}

func ns(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func with(values url.Values, pairs ...string) url.Values {
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return values
}

// send asks and returns status, headers and body.
func (l *lab) send(method, path string, params url.Values, headers ...string) (int, http.Header, []byte) {
	l.t.Helper()
	address, body := l.url+"/loki/api/v1/"+path, io.Reader(nil)
	if method == http.MethodPost {
		body = strings.NewReader(params.Encode())
	} else {
		address += "?" + params.Encode()
	}
	req, err := http.NewRequestWithContext(l.t.Context(), method, address, body)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return response.StatusCode, response.Header, content
}

// get asks for JSON.
func (l *lab) get(path string, params url.Values, headers ...string) map[string]any {
	l.t.Helper()
	status, _, body := l.send(http.MethodGet, path, params, headers...)
	if status != http.StatusOK {
		l.t.Fatalf("%s: status %d: %s", path, status, body)
	}
	return decode(l.t, body)
}

func decode(t *testing.T, body []byte) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return out
}

// at walks into decoded JSON.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch s := step.(type) {
		case string:
			v = v.(map[string]any)[s]
		case int:
			list, ok := v.([]any)
			if !ok || len(list) <= s {
				t.Fatalf("no element %d of %v", s, v)
			}
			v = list[s]
		}
	}
	return v
}

func (l *lab) want(got, want any) {
	l.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		l.t.Error(diff)
	}
}

func TestAPI(t *testing.T) {
	t.Parallel()
	l := setup(t)

	t.Run("answers Grafana's health check", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("query", url.Values{"query": {"vector(1)+vector(1)"}, "time": {"4000000000"}})
		l.want(at(t, got, "data", "resultType"), "vector")
		l.want(at(t, got, "data", "result"), []any{map[string]any{"metric": map[string]any{}, "value": []any{4e9, "2"}}})
	})

	t.Run("answers lines newest first with all labels in the stream", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("query_range", with(l.times(), "query", `{service_name="cart"}`, "limit", "2"))
		l.want(at(t, got, "data", "result", 0), map[string]any{
			"stream": map[string]any{"service_name": "cart", "env": "prod", "detected_level": "info", "n": "56"},
			"values": []any{[]any{ns(l.from.Add(56 * time.Second)), `{"status":202,"took":"56ms","http":{"path":"/a"}}`}},
		})
		l.want(len(at(t, got, "data", "result").([]any)), 2)
		l.want(at(t, got, "data", "stats", "summary", "totalEntriesReturned"), 2.0)
		l.want(at(t, got, "data", "stats", "summary", "totalLinesProcessed"), 60.0)
	})

	t.Run("categorizes labels when asked to", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("query_range", with(l.times(), "query", `{service_name="cart"} | json`, "limit", "1", "direction", "forward"),
			"X-Loki-Response-Encoding-Flags", "categorize-labels")
		l.want(at(t, got, "data", "encodingFlags"), []any{"categorize-labels"})
		l.want(at(t, got, "data", "result", 0, "stream"), map[string]any{"service_name": "cart", "env": "prod"})
		l.want(at(t, got, "data", "result", 0, "values", 0, 2), map[string]any{
			"structuredMetadata": map[string]any{"detected_level": "info", "n": "0"},
			"parsed":             map[string]any{"status": "200", "took": "0ms", "http_path": "/a"},
		})
	})

	t.Run("takes a form, seconds as float, RFC 3339 and a step with a unit", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		status, _, body := l.send(http.MethodPost, "query_range", url.Values{
			"query": {`sum(count_over_time({env="prod"}[30s]))`}, "start": {fmt.Sprintf("%d.0", l.from.Unix()+29)},
			"end": {l.from.Add(59 * time.Second).Format(time.RFC3339Nano)}, "step": {"30000ms"},
		})
		if status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
		l.want(at(t, decode(t, body), "data", "result", 0, "values"), []any{
			[]any{float64(l.from.Unix() + 29), "30"}, []any{float64(l.from.Unix() + 59), "30"},
		})
	})

	t.Run("keeps lines an interval apart", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("query_range", with(l.times(), "query", `{env="prod"}`, "interval", "20s", "direction", "forward"))
		l.want(len(at(t, got, "data", "result").([]any)), 3)
	})

	t.Run("compresses", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		_, header, body := l.send(http.MethodGet, "query_range", with(l.times(), "query", `{env="prod"}`), "Accept-Encoding", "gzip")
		l.want(header.Get("Content-Encoding"), "gzip")
		reader, err := gzip.NewReader(strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		l.want(at(t, decode(t, plain), "status"), "success")
	})

	t.Run("lists labels, values and series", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		l.want(l.get("labels", l.times())["data"], []any{"env", "service_name"})
		l.want(l.get("label/service_name/values", l.times())["data"], []any{"cart", "shop"})
		l.want(l.get("label/service_name/values", with(l.times(), "query", `{service_name=~"c.*"}`))["data"], []any{"cart"})
		l.want(l.get("label/nothing/values", l.times()), map[string]any{"status": "success"})
		l.want(l.get("series", with(l.times(), "match[]", `{service_name="shop"}`))["data"], []any{map[string]any{"env": "prod", "service_name": "shop"}})
		l.want(l.get("labels", url.Values{"start": {"1"}, "end": {"2"}}), map[string]any{"status": "success"})
	})

	t.Run("counts streams, lines and bytes", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("index/stats", with(l.times(), "query", `{service_name="cart"}`))
		l.want(got["streams"], 1.0)
		l.want(got["entries"], 30.0)
		if got["bytes"].(float64) <= 0 || got["chunks"].(float64) <= 0 {
			t.Errorf("stats %v", got)
		}
	})

	t.Run("answers volumes by series and by label, at once and over time", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("index/volume", with(l.times(), "query", `{service_name=~".+"}`))
		l.want(at(t, got, "data", "resultType"), "vector")
		l.want(at(t, got, "data", "result", 0, "metric"), map[string]any{"service_name": "cart"})
		got = l.get("index/volume", with(l.times(), "query", `{}`, "targetLabels", "env"))
		l.want(at(t, got, "data", "result", 0, "metric"), map[string]any{"env": "prod"})
		got = l.get("index/volume", with(l.times(), "query", `{env="prod"}`, "aggregateBy", "labels"))
		l.want(at(t, got, "data", "result", 1, "metric"), map[string]any{"service_name": ""})
		got = l.get("index/volume_range", with(l.times(), "query", `{}`, "step", "10s", "targetLabels", "service_name"))
		l.want(at(t, got, "data", "resultType"), "matrix")
		l.want(len(at(t, got, "data", "result").([]any)), 2)
		if n := len(at(t, got, "data", "result", 0, "values").([]any)); n < 6 || n > 7 {
			t.Errorf("%d steps", n)
		}
	})

	t.Run("detects fields, their values and labels", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		got := l.get("detected_fields", with(l.times(), "query", `{service_name="cart"}`))
		found := map[string]any{}
		for _, field := range got["fields"].([]any) {
			found[field.(map[string]any)["label"].(string)] = field
		}
		l.want(found["status"], map[string]any{"label": "status", "type": "int", "cardinality": 3.0, "parsers": []any{"json"}, "jsonPath": []any{"status"}})
		l.want(found["http_path"].(map[string]any)["jsonPath"], []any{"http", "path"})
		l.want(found["took"].(map[string]any)["type"], "duration")
		l.want(found["n"].(map[string]any)["cardinality"], 30.0)
		l.want(l.get("detected_field/status/values", with(l.times(), "query", `{service_name="cart"}`))["values"], []any{"200", "201", "202"})
		l.want(l.get("detected_labels", with(l.times(), "query", `{env="prod"}`))["detectedLabels"], []any{
			map[string]any{"label": "env", "cardinality": 1.0}, map[string]any{"label": "service_name", "cardinality": 2.0},
		})
	})

	t.Run("answers what else Grafana asks", func(t *testing.T) {
		l := &lab{l.Lake, t, l.from, l.url}
		l.want(l.get("status/buildinfo", nil)["version"], "3.7.8")
		l.want(l.get("rules", nil), map[string]any{})
		l.want(at(t, l.get("drilldown-limits", nil), "limits", "max_query_series"), 5.0)
		l.want(l.get("format_query", url.Values{"query": {`{a="b"}|json`}})["data"], `{a="b"} | json`)
		l.want(l.get("patterns", with(l.times(), "query", `{env="prod"}`))["status"], "success")
	})
}

func TestPatternsCountTheLinesOfEachTemplate(t *testing.T) {
	t.Parallel()
	l := setup(t)
	var rows []querytest.Row
	for i := range 40 {
		rows = append(rows, querytest.Row{
			Time:   l.from.Add(time.Duration(i) * time.Second),
			Labels: map[string]string{"service_name": "plain"}, Metadata: map[string]string{"detected_level": "warn"},
			Line: fmt.Sprintf("user %d logged in from the office in %d ms", i, i*7),
		})
	}
	l.Ingest(t, "acme", rows)
	got := l.get("patterns", with(l.times(), "query", `{service_name="plain"}`, "step", "1m"))
	l.want(at(t, got, "data", 0, "pattern"), "user <_> logged in from the office in <_> ms")
	l.want(at(t, got, "data", 0, "level"), "warn")
	total := 0.0
	for _, sample := range at(t, got, "data", 0, "samples").([]any) {
		total += sample.([]any)[1].(float64)
	}
	l.want(total, 40.0)
}

func TestErrorsAreWordedAsLokis(t *testing.T) {
	t.Parallel()
	l := setup(t)
	for name, c := range map[string]struct {
		path   string
		params url.Values
		status int
		text   string
	}{
		"a syntax error": {"query_range", with(l.times(), "query", `{a="b"`), 400, "parse error at line 1, col 7: syntax error: unexpected $end, expecting } or ,"},
		"lines at one time": {
			"query",
			url.Values{"query": {`{a="b"}`}},
			400,
			"log queries are not supported as an instant query type, please change your query to a range query type",
		},
		"a bad direction":     {"query_range", with(l.times(), "query", `{a="b"}`, "direction", "up"), 400, "invalid direction 'up'"},
		"a negative limit":    {"query_range", with(l.times(), "query", `{a="b"}`, "limit", "-1"), 400, "limit must be a positive value"},
		"an end before start": {"query_range", url.Values{"query": {`{a="b"}`}, "start": {"20"}, "end": {"10"}}, 400, "end timestamp must not be before or equal to start time"},
		"too many steps":      {"query_range", url.Values{"query": {`rate({a="b"}[1m])`}, "start": {"0"}, "end": {"100000"}, "step": {"1"}}, 400, "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter"},
		"too many lines":      {"query_range", with(l.times(), "query", `{a="b"}`, "limit", "501"), 400, "max entries limit per query exceeded, limit > max_entries_limit_per_query (501 > 500)"},
		"too many series": {
			"query",
			url.Values{"query": {`count_over_time({env="prod"}[1h])`}, "time": {ns(l.from.Add(time.Minute))}},
			400,
			"maximum number of series (5) reached for a single query; consider reducing query cardinality by adding more specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk()",
		},
		"a filter where matchers are wanted": {"series", with(l.times(), "match[]", `{a="b"} |= "x"`), 400, "only label matchers are supported"},
		"variants":                           {"query", url.Values{"query": {`variants(count_over_time({a="b"}[5m])) of ({a="b"}[5m])`}}, 400, "multi variant queries are disabled for this instance"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &lab{l.Lake, t, l.from, l.url}
			status, header, body := l.send(http.MethodGet, c.path, c.params)
			l.want(status, c.status)
			l.want(string(body), c.text)
			l.want(header.Get("Content-Type"), "text/plain; charset=utf-8")
		})
	}

	t.Run("a pipeline error", func(t *testing.T) {
		t.Parallel()
		l := &lab{l.Lake, t, l.from, l.url}
		status, _, body := l.send(http.MethodGet, "query", url.Values{
			"query": {`sum(sum_over_time({env="prod"} | json | unwrap took [1h]))`}, "time": {ns(l.from.Add(time.Minute))},
		})
		l.want(status, 400)
		if !strings.HasPrefix(string(body), "pipeline error: 'SampleExtractionErr' for series: '{") {
			t.Errorf("body %s", body)
		}
	})
}

func TestCompletenessIsInEveryAnswer(t *testing.T) {
	t.Parallel()
	l := setup(t)
	l.Pending(t, "acme")
	for path, q := range map[string]string{
		"query": `count_over_time({env="prod"}[1m])`, "query_range": `{env="prod"}`, "labels": "", "label/env/values": "", "series": "",
		"index/stats": `{env="prod"}`, "index/volume": "", "index/volume_range": "", "detected_fields": `{env="prod"}`,
		"detected_field/detected_level/values": `{env="prod"}`, "detected_labels": "", "patterns": `{env="prod"}`,
	} {
		_, header, _ := l.send(http.MethodGet, path, with(l.times(), "query", q))
		if got := header.Get(query.HeaderCompleteness); !strings.HasPrefix(got, "pending=1, failed=0, oldest_pending=") {
			t.Errorf("%s: completeness %q", path, got)
		}
		if header.Get(query.HeaderStatistics) == "" {
			t.Errorf("%s: no statistics", path)
		}
	}
}
