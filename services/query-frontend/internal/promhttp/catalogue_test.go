// SPDX-License-Identifier: AGPL-3.0-only

package promhttp_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// during adds the ten minutes of the lab to parameters.
func during(pairs ...string) url.Values {
	return values(append([]string{"start", seconds(0), "end", seconds(600)}, pairs...)...)
}

func TestCatalogues(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	for name, c := range map[string]struct {
		path   string
		params url.Values
		want   string
	}{
		"labels":                       {"labels", during(), `{"data":["__name__","code","http.method","instance","job"]}`},
		"labels of some":               {"labels", during("match[]", "up", "match[]", "latency_seconds"), `{"data":["__name__","instance","job"]}`},
		"few labels":                   {"labels", during("limit", "2"), `{"data":["__name__","code"],"warnings":["results truncated due to limit"]}`},
		"labels of another time":       {"labels", values("start", "1", "end", "2"), `{"data":[]}`},
		"values":                       {"label/__name__/values", during(), `{"data":["http.size","http_requests_total","latency_seconds","up"]}`},
		"values of some":               {"label/code/values", during("match[]", `{code!="200", job="api"}`, "match[]", `up`), `{"data":["500"]}`},
		"few values":                   {"label/__name__/values", during("limit", "1"), `{"data":["http.size"],"warnings":["results truncated due to limit"]}`},
		"values of nothing":            {"label/nothing/values", during(), `{"data":[]}`},
		"values of a name in a code":   {"label/U__http_2e_method/values", during(), `{"data":["GET"]}`},
		"values of a name as it is":    {"label/http.method/values", during(), `{"data":["GET"]}`},
		"series":                       {"series", during("match[]", `http_requests_total`, "match[]", `{code="200"}`), `{"data":[{"__name__":"http_requests_total","code":"200","job":"api"},{"__name__":"http_requests_total","code":"500","job":"api"}]}`},
		"few series":                   {"series", during("match[]", `http_requests_total`, "limit", "1"), `{"data":[{"__name__":"http_requests_total","code":"200","job":"api"}],"warnings":["results truncated due to limit"]}`},
		"series of nothing":            {"series", during("match[]", `nothing`), `{"data":[]}`},
		"metadata":                     {"metadata", during("metric", "up"), `{"data":{"up":[{"type":"gauge","help":"Help of up","unit":""}]}}`},
		"metadata of nothing":          {"metadata", during("metric", "u"), `{"data":{}}`},
		"little metadata":              {"metadata", during("limit", "1", "limit_per_metric", "1"), `{"data":{"http.size":[{"type":"gauge","help":"Help of http.size","unit":""}]}}`},
		"no metadata":                  {"metadata", during("limit", "0"), `{"data":{}}`},
		"Grafana's probe of exemplars": {"query_exemplars", values("query", "test", "start", ms(0), "end", ms(600)), `{"data":[]}`},
		"exemplars": {
			"query_exemplars", during("query", `rate(http_requests_total{code="500"}[1m]) / on() up`),
			`{"data":[{"seriesLabels":{"__name__":"http_requests_total","code":"500","job":"api"},"exemplars":[{"labels":{"trace_id":"1"},"value":"40","timestamp":` + seconds(600) + `}]},` +
				`{"seriesLabels":{"__name__":"up","instance":"a","job":"api"},"exemplars":[{"labels":{"trace_id":"1"},"value":"1","timestamp":` + seconds(600) + `}]}]}`,
		},
		"cardinality": {
			"cardinality", during("match[]", "http_requests_total", "limit", "1"),
			`{"data":{"series":2,"newSeries":2,"vanishedSeries":0,"samples":82,"bytes":820,` +
				`"metrics":[{"name":"http_requests_total","type":"gauge","unit":"","series":2,"newSeries":2,"vanishedSeries":0,"samples":82,"bytes":820}],` +
				`"labels":[{"name":"code","series":2,"values":2,"top":[{"value":"200","series":1}]}]}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := l.of(t)
			methods := []string{http.MethodGet, http.MethodPost}
			if strings.Contains(c.path, "/") || c.path == "metadata" || c.path == "cardinality" {
				methods = methods[:1]
			}
			for _, method := range methods {
				status, _, body := l.send(l.request(method, c.path, c.params))
				got := l.decode(body)
				if status != http.StatusOK || got["status"] != "success" {
					t.Fatalf("%s: status %d: %s", method, status, body)
				}
				delete(got, "status")
				l.same(got, c.want)
			}
		})
	}
}

// ms is a time in milliseconds, which Grafana takes for seconds where it asks for exemplars.
func ms(after int64) string { return strconv.FormatInt(from.UnixMilli()+after*1000, 10) }

func TestCataloguesSayHowCompleteTheyAre(t *testing.T) {
	t.Parallel()
	l := setup(t, "name: Acme")
	l.index.complete = index.Completeness{Pending: 1, OldestPending: from}
	for path, params := range map[string]url.Values{
		"labels": during(), "label/job/values": during(), "series": during("match[]", "up"), "metadata": during(), "cardinality": during(),
		"query_exemplars": during("query", "up"),
	} {
		_, header, _ := l.send(l.request(http.MethodGet, path, params))
		if got := header.Get(query.HeaderCompleteness); got != "pending=1, failed=0, oldest_pending=2026-03-01T12:00:00Z" {
			t.Errorf("%s: completeness %q", path, got)
		}
		if header.Get(query.HeaderStatistics) == "" {
			t.Errorf("%s: no statistics", path)
		}
	}
}
