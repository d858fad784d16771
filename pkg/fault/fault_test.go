// SPDX-License-Identifier: AGPL-3.0-only

package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

func kinds() map[fault.Kind]int {
	return map[fault.Kind]int{
		fault.Invalid: 400, fault.Unsupported: 501, fault.NotFound: 404, fault.Conflict: 409, fault.Unauthenticated: 401,
		fault.Denied: 403, fault.Exhausted: 429, fault.Unavailable: 503, fault.Timeout: 504, fault.Canceled: 499,
		fault.MissingSegment: 500, fault.Internal: 500,
	}
}

// failing is a service whose every call fails with one error.
type failing struct {
	healthpb.UnimplementedHealthServer
	err error
}

func (f *failing) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return nil, f.err
}

func (f *failing) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	if err := stream.Send(&healthpb.HealthCheckResponse{}); err != nil {
		return err
	}
	return f.err
}

func dial(t *testing.T, service healthpb.HealthServer) healthpb.HealthClient {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(fault.ServerInterceptors()...)
	healthpb.RegisterHealthServer(server, service)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	options := append(fault.ClientInterceptors(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:///test", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(conn.Close()); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return healthpb.NewHealthClient(conn)
}

func TestKindsCrossTheWire(t *testing.T) {
	t.Parallel()
	for kind := range kinds() {
		t.Run(string(kind)+" of a call", func(t *testing.T) {
			t.Parallel()
			client := dial(t, &failing{err: fmt.Errorf("outer: %w", fault.New(kind, "no %d", 7))})
			_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{})
			if !errors.Is(err, kind) || fault.KindOf(err) != kind {
				t.Errorf("want %s, got %s: %v", kind, fault.KindOf(err), err)
			}
			if err.Error() != "outer: no 7" {
				t.Errorf("got %q", err)
			}
			if status.Code(err) != fault.Code(kind) {
				t.Errorf("want %s, got %s", fault.Code(kind), status.Code(err))
			}
		})
		t.Run(string(kind)+" in the middle of a stream", func(t *testing.T) {
			t.Parallel()
			client := dial(t, &failing{err: fault.New(kind, "no")})
			stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); !errors.Is(err, kind) {
				t.Errorf("want %s, got %v", kind, err)
			}
		})
	}
	t.Run("the end of a stream stays io.EOF", func(t *testing.T) {
		t.Parallel()
		stream, err := dial(t, &failing{}).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an error without a kind is internal", func(t *testing.T) {
		t.Parallel()
		_, err := dial(t, &failing{err: errors.New("oops \xff")}).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if !errors.Is(err, fault.Internal) || err.Error() != "oops �" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a status without a kind keeps its code", func(t *testing.T) {
		t.Parallel()
		_, err := dial(t, &failing{err: status.Error(codes.OutOfRange, "far")}).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if status.Code(err) != codes.OutOfRange || !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("contexts are canceled and timeout", func(t *testing.T) {
		t.Parallel()
		for err, kind := range map[error]fault.Kind{context.Canceled: fault.Canceled, context.DeadlineExceeded: fault.Timeout} {
			_, got := dial(t, &failing{err: fmt.Errorf("wait: %w", err)}).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if !errors.Is(got, kind) || !errors.Is(got, err) {
				t.Errorf("want %s, got %v", kind, got)
			}
		}
	})
	t.Run("the caller's own cancellation is canceled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := dial(t, &failing{}).Check(ctx, &healthpb.HealthCheckRequest{})
		if !errors.Is(err, fault.Canceled) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWriteHTTP(t *testing.T) {
	t.Parallel()
	for kind, code := range kinds() {
		t.Run(fmt.Sprintf("%s is %d", kind, code), func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			fault.WriteHTTP(w, fmt.Errorf("while asked: %w", fault.New(kind, "no")))
			if w.Code != code {
				t.Errorf("want %d, got %d", code, w.Code)
			}
			var got fault.Body
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fault.Body{Code: kind, Message: "while asked: no"}, got); diff != "" {
				t.Error(diff)
			}
			if challenged := len(w.Header().Values("WWW-Authenticate")) > 0; challenged != (code == http.StatusUnauthorized) {
				t.Errorf("WWW-Authenticate: %v", w.Header())
			}
		})
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	t.Run("is the outermost kind, and errors.Is finds the inner ones", func(t *testing.T) {
		t.Parallel()
		err := fault.Wrap(fault.Unavailable, fault.New(fault.NotFound, "gone"))
		if fault.KindOf(err) != fault.Unavailable || !errors.Is(err, fault.NotFound) || !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %s", fault.KindOf(err))
		}
	})
	t.Run("no error has no kind to wrap", func(t *testing.T) {
		t.Parallel()
		if fault.Wrap(fault.Invalid, nil) != nil || fault.FromRPC(nil) != nil || fault.FromStatus(status.New(codes.OK, "")) != nil {
			t.Error("want nil")
		}
	})
}
