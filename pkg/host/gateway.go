// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// newGateway returns the mux of the REST forms. Names are those of the contract (snake_case), unknown fields are errors, and errors
// are {"code","message"}.
func newGateway() *runtime.ServeMux {
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(forwarded),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
	)
}

// forwarded says which headers of a request reach the service: who asks, for whom. The gateway itself forwards Authorization.
func forwarded(header string) (string, bool) {
	switch textproto.CanonicalMIMEHeaderKey(header) {
	case "X-Scope-Orgid":
		return organizationHeader, true
	case "Traceparent", "Tracestate":
		return strings.ToLower(header), true
	}
	return "", false
}

func writeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	var routed *runtime.HTTPStatusError
	if errors.As(err, &routed) {
		err = routed.Err
	}
	// These were set for the answer that is not to be.
	w.Header().Del("Trailer")
	w.Header().Del("Transfer-Encoding")
	err = fault.FromRPC(err)
	fault.WriteHTTP(w, err)
}

func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		fault.WriteHTTP(w, fault.New(fault.NotFound, "no such path: %s; /openapi.json lists them", r.URL.Path))
	case http.StatusMethodNotAllowed:
		writeBody(w, code, fault.Body{Code: fault.Invalid, Message: "method " + r.Method + " is not for this path; /openapi.json says which is"})
	default:
		writeBody(w, code, fault.Body{Code: fault.Invalid, Message: http.StatusText(code)})
	}
}

func writeBody(w http.ResponseWriter, code int, body fault.Body) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// newMarshaler writes messages as JSON, HttpBody messages as they are, and the error that ends a stream like all other errors.
func newMarshaler() runtime.Marshaler {
	return &marshaler{runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true},
	}}}
}

type marshaler struct{ runtime.HTTPBodyMarshaler }

// streamError is the last line of a stream that failed. Before the first line it is the whole answer, so it has the form of other errors too.
type streamError struct {
	fault.Body
	Error fault.Body `json:"error"`
}

func (m *marshaler) Marshal(v any) ([]byte, error) {
	chunk, ok := v.(map[string]proto.Message)
	if !ok {
		return m.HTTPBodyMarshaler.Marshal(v)
	}
	failed, ok := chunk["error"].(*spb.Status)
	if !ok {
		return m.HTTPBodyMarshaler.Marshal(v)
	}
	err := fault.FromStatus(status.FromProto(failed))
	body := fault.Body{Code: fault.KindOf(err), Message: failed.GetMessage()}
	return json.Marshal(streamError{Body: body, Error: body})
}

// challenged adds to a 401 how to come with a key, where the gateway did not: it writes the first error of a stream by itself.
type challenged struct{ http.ResponseWriter }

func (w challenged) WriteHeader(code int) {
	if code == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Add("WWW-Authenticate", `Bearer realm="lakerunner"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="lakerunner"`)
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w challenged) Unwrap() http.ResponseWriter { return w.ResponseWriter }
