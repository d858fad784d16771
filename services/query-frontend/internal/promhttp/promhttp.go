// SPDX-License-Identifier: AGPL-3.0-only

// Package promhttp is Prometheus' HTTP API over the frontend's service layer, below /prometheus: what Grafana's data source, promtool, Perses
// and remote read ask for. Status codes, error types, warnings and the form of values are Prometheus'. docs/prometheus-api.md says what is
// served and where it differs on purpose.
//
// It parses parameters and writes answers; it evaluates nothing.
package promhttp

import (
	"context"
	"errors"
	"net/http"
	"strings"

	jsoniter "github.com/json-iterator/go"
	"github.com/klauspost/compress/gzhttp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// Base is the path below which the API is served. A client's address ends with it.
const Base = "/prometheus"

// Mux is where handlers are registered behind a door.
type Mux interface {
	Handle(pattern string, scope config.Scope, h http.Handler)
}

// API serves Prometheus' HTTP API.
type API struct {
	frontend *query.Frontend
	version  string
}

// New returns the API. version is what it says its revision is.
func New(frontend *query.Frontend, version string) *API {
	return &API{frontend: frontend, version: version}
}

// answer is what a handler has to say.
type answer struct {
	// data writes the value of the field "data".
	data            func(*jsoniter.Stream)
	warnings, infos []string
	statistics      *query.Statistics // nil: the answer cost nothing
}

// handler answers a request, or returns an error.
type handler func(r *http.Request) (answer, error)

// Register registers all endpoints.
func (a *API) Register(mux Mux) {
	both := map[string]handler{
		"query":           a.instant,
		"query_range":     a.ranged,
		"query_exemplars": a.exemplars,
		"labels":          a.labels,
		"series":          a.series,
		"format_query":    a.formatQuery,
		"parse_query":     a.parseQuery,
	}
	for path, h := range both {
		wrapped := gzhttp.GzipHandler(wrap(h))
		mux.Handle("GET "+Base+"/api/v1/"+path, config.ScopeQuery, wrapped)
		mux.Handle("POST "+Base+"/api/v1/"+path, config.ScopeQuery, wrapped)
	}
	for path, h := range map[string]handler{
		"label/{name}/values": a.labelValues,
		"metadata":            a.metadata,
		"cardinality":         a.cardinality,
		"status/buildinfo":    a.buildInfo,
		"rules":               a.rules,
		"alerts":              a.alerts,
		"targets":             a.targets,
	} {
		mux.Handle("GET "+Base+"/api/v1/"+path, config.ScopeQuery, gzhttp.GzipHandler(wrap(h)))
	}
	mux.Handle("POST "+Base+"/api/v1/read", config.ScopeQuery, http.HandlerFunc(a.read))
	for _, path := range []string{"/-/healthy", "/-/ready"} {
		mux.Handle("GET "+Base+path, config.ScopeOpen, http.HandlerFunc(healthy))
	}
}

func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("LakeRunner is healthy.\n"))
}

// wrap parses the form and writes what the handler has to say.
func wrap(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			writeError(w, fault.New(fault.Invalid, "error parsing form values: %w", err))
			return
		}
		said, err := h(r)
		if err != nil {
			writeError(w, err)
			return
		}
		write(w, said)
	})
}

func write(w http.ResponseWriter, said answer) {
	if said.statistics != nil {
		for name, value := range said.statistics.Headers() {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	stream := jsoniter.ConfigCompatibleWithStandardLibrary.BorrowStream(w)
	defer jsoniter.ConfigCompatibleWithStandardLibrary.ReturnStream(stream)
	stream.WriteRaw(`{"status":"success","data":`)
	said.data(stream)
	for _, list := range []struct {
		name  string
		texts []string
	}{{"warnings", said.warnings}, {"infos", said.infos}} {
		if len(list.texts) > 0 {
			stream.WriteMore()
			stream.WriteObjectField(list.name)
			stream.WriteVal(list.texts)
		}
	}
	stream.WriteObjectEnd()
	_ = stream.Flush() // a client that went away reads nothing
}

// evaluationError is that of a query that was well-formed: what its series do not allow is no fault of the request's form.
type evaluationError struct{ err error }

func (e *evaluationError) Error() string { return e.err.Error() }
func (e *evaluationError) Unwrap() error { return e.err }

// errorType is Prometheus' word for a kind of error, and its status.
func errorType(err error) (name string, status int) {
	if errors.Is(err, context.Canceled) {
		return "canceled", fault.HTTPStatus(fault.Canceled)
	}
	switch kind := fault.KindOf(err); kind {
	case fault.Invalid:
		if evaluation := new(evaluationError); errors.As(err, &evaluation) {
			return "execution", http.StatusUnprocessableEntity
		}
		return "bad_data", http.StatusBadRequest
	case fault.Canceled:
		return "canceled", fault.HTTPStatus(kind)
	case fault.Timeout:
		return "timeout", http.StatusServiceUnavailable
	case fault.Exhausted, fault.Unsupported, fault.Conflict:
		return "execution", http.StatusUnprocessableEntity
	case fault.NotFound:
		return "not_found", http.StatusNotFound
	case fault.Unavailable:
		return "unavailable", http.StatusServiceUnavailable
	case fault.Unauthenticated, fault.Denied:
		return "unauthorized", fault.HTTPStatus(kind)
	}
	return "internal", http.StatusInternalServerError
}

func writeError(w http.ResponseWriter, err error) {
	name, status := errorType(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := jsoniter.ConfigCompatibleWithStandardLibrary.NewEncoder(w)
	_ = encoder.Encode(map[string]string{"status": "error", "errorType": name, "error": strings.TrimSpace(err.Error())})
}

// value returns what writes v as JSON.
func value(v any) func(*jsoniter.Stream) { return func(s *jsoniter.Stream) { s.WriteVal(v) } }
