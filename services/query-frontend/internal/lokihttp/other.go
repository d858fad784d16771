// SPDX-License-Identifier: AGPL-3.0-only

package lokihttp

import (
	"encoding/json"
	"net/http"
	"runtime"
	"time"

	"github.com/grafana/loki/v3/pkg/loghttp"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/util/marshal"
)

// lokiVersion is the release of Loki whose language and API are served; clients choose features by it.
const lokiVersion = "3.7.8"

func (a *API) patterns(w http.ResponseWriter, r *http.Request) error {
	asked, err := loghttp.ParsePatternsQuery(r)
	if err != nil {
		return invalid(err)
	}
	series, statistics, err := a.frontend.Patterns(r.Context(), asked.Query, asked.Start, asked.End, time.Duration(asked.Step)*time.Millisecond)
	if err != nil {
		return err
	}
	describe(w, statistics)
	jsonContent(w)
	_ = marshal.WriteQueryPatternsResponseJSON(&logproto.QueryPatternsResponse{Series: series}, w)
	return nil
}

// formatQuery answers as Loki does: with its own status words, in JSON even for an error.
func (a *API) formatQuery(w http.ResponseWriter, r *http.Request) error {
	answer := struct {
		Status string `json:"status"`
		Data   string `json:"data,omitempty"`
		Error  string `json:"error,omitempty"`
	}{Status: "success"}
	status := http.StatusOK
	if expr, err := syntax.ParseExpr(r.FormValue("query")); err != nil {
		status, answer.Status, answer.Error = http.StatusBadRequest, "invalid-query", err.Error()
	} else {
		answer.Data = syntax.Prettify(expr)
	}
	writeJSON(w, status, answer)
	return nil
}

func (a *API) drilldownLimits(w http.ResponseWriter, r *http.Request) error {
	organization, err := a.frontend.Caller(r.Context())
	if err != nil {
		return err
	}
	limits := organization.Limits
	writeJSON(w, http.StatusOK, map[string]any{
		"limits": map[string]any{
			"discover_log_levels":         true,
			"discover_service_name":       []string{"service_name"},
			"log_level_fields":            []string{"severity_text", "severity_number"},
			"max_entries_limit_per_query": limits.MaxQueryLines,
			"max_line_size":               limits.MaxLineBytes,
			"max_query_bytes_read":        limits.MaxQueryBytes,
			"max_query_series":            limits.MaxQuerySeries,
			"query_timeout":               limits.QueryTimeout.String(),
			"volume_enabled":              true,
			"volume_max_series":           limits.MaxQuerySeries,
		},
		"pattern_ingester_enabled": true,
		"version":                  lokiVersion,
	})
	return nil
}

func (a *API) buildInfo(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]string{
		"version": lokiVersion, "revision": a.version, "branch": "lakerunner", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
	})
	return nil
}

// rules answers that there are none: an empty YAML document, which is an empty JSON object too.
func (a *API) rules(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write([]byte("{}\n"))
	return nil
}

func (a *API) ready(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ready\n"))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	jsonContent(w)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away gets no error
}
