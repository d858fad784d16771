// SPDX-License-Identifier: AGPL-3.0-only

package fault

import (
	"encoding/json"
	"net/http"
)

// Body is the JSON that an error is over HTTP.
type Body struct {
	// Code is the kind.
	Code Kind `json:"code"`
	// Message is the error's text.
	Message string `json:"message"`
}

// WriteHTTP answers a request with an error: its kind's status code, and {"code","message"}. A missing key is told how to come with one.
func WriteHTTP(w http.ResponseWriter, err error) {
	kind := KindOf(err)
	if kind == Unauthenticated {
		w.Header().Add("WWW-Authenticate", `Bearer realm="lakerunner"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="lakerunner"`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(HTTPStatus(kind))
	// A client that has gone away gets no error.
	_ = json.NewEncoder(w).Encode(Body{Code: kind, Message: err.Error()})
}
