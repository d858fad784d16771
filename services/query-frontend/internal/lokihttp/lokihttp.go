// SPDX-License-Identifier: AGPL-3.0-only

// Package lokihttp is Loki's HTTP API over the frontend's service layer. Parameters are parsed, answers marshalled and errors
// worded by Loki's own packages. docs/loki-api.md says what is served and where it differs on purpose.
package lokihttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/grafana/loki/v3/pkg/util/httpreq"
	"github.com/grafana/loki/v3/pkg/util/server"
	"github.com/klauspost/compress/gzhttp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// Mux is where handlers are registered behind a door.
type Mux interface {
	Handle(pattern string, scope config.Scope, h http.Handler)
}

// API serves Loki's HTTP API.
type API struct {
	frontend *query.Frontend
	version  string
}

// New returns the API. version is what it says to be.
func New(frontend *query.Frontend, version string) *API {
	return &API{frontend: frontend, version: version}
}

// handler answers a request or returns an error, before it wrote anything.
type handler func(w http.ResponseWriter, r *http.Request) error

// Register registers all endpoints below /loki/api/v1, for GET and for POST of a form.
func (a *API) Register(mux Mux) {
	for path, h := range map[string]handler{
		"query":                        a.instant,
		"query_range":                  a.rangeQuery,
		"labels":                       a.labels,
		"label":                        a.labels, // as old clients call it
		"label/{name}/values":          a.labelValues,
		"series":                       a.series,
		"index/stats":                  a.stats,
		"index/volume":                 a.volume,
		"index/volume_range":           a.volumeRange,
		"detected_fields":              a.detectedFields,
		"detected_field/{name}/values": a.detectedFieldValues,
		"detected_labels":              a.detectedLabels,
		"patterns":                     a.patterns,
		"format_query":                 a.formatQuery,
		"drilldown-limits":             a.drilldownLimits,
		"status/buildinfo":             a.buildInfo,
		"rules":                        a.rules,
	} {
		wrapped := gzhttp.GzipHandler(wrap(h))
		mux.Handle("GET /loki/api/v1/"+path, config.ScopeQuery, wrapped)
		mux.Handle("POST /loki/api/v1/"+path, config.ScopeQuery, wrapped)
	}
	mux.Handle("GET /loki/api/v1/tail", config.ScopeQuery, wrap(a.tail))
	mux.Handle("GET /loki/ready", config.ScopeOpen, http.HandlerFunc(a.ready))
}

// wrap parses the form, gives Loki's engine what it wants to know of the request, and writes errors.
func wrap(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			writeError(w, fault.Wrap(fault.Invalid, err))
			return
		}
		ctx := httpreq.AddEncodingFlagsToContext(r.Context(), httpreq.ExtractEncodingFlags(r))
		if tags := httpreq.ExtractQueryTagsFromHTTP(r); tags != "" {
			ctx = httpreq.InjectQueryTags(ctx, tags)
		}
		if err := h(w, r.WithContext(ctx)); err != nil {
			writeError(w, err)
		}
	})
}

// writeError answers with Loki's status and text, plain, as its clients expect.
func writeError(w http.ResponseWriter, err error) {
	status, text := statusOf(err)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprint(w, text) // a client that went away gets no error
}

func statusOf(err error) (int, string) {
	status, shown := server.ClientHTTPStatusAndError(err)
	if known(err) {
		return status, shown.Error()
	}
	switch kind := fault.KindOf(err); kind {
	case fault.Canceled:
		return server.StatusClientClosedRequest, server.ErrClientCanceled
	case fault.Timeout:
		return http.StatusGatewayTimeout, server.ErrDeadlineExceeded
	case fault.Exhausted, fault.Unsupported:
		return http.StatusBadRequest, err.Error() // as Loki answers its limits
	default:
		return fault.HTTPStatus(kind), err.Error()
	}
}

// known reports whether Loki's own mapping knows the error.
func known(err error) bool {
	for _, target := range []error{
		logqlmodel.ErrLimit, logqlmodel.ErrParse, logqlmodel.ErrPipeline, logqlmodel.ErrParseMatchers, logqlmodel.ErrIntervalLimit,
		logqlmodel.ErrUnsupportedSyntaxForInstantQuery, logqlmodel.ErrVariantsDisabled, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// invalid marks what Loki's parameter parsers return as the client's fault.
func invalid(err error) error { return fault.Wrap(fault.Invalid, err) }

// describe sets the headers that say how complete an answer is and what it cost.
func describe(w http.ResponseWriter, s query.Statistics) {
	for name, value := range s.Headers() {
		w.Header().Set(name, value)
	}
}

func jsonContent(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
}
