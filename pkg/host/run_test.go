// SPDX-License-Identifier: AGPL-3.0-only

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

func contains(text, part string) bool {
	// protojson puts spaces where it likes.
	return strings.Contains(strings.ReplaceAll(text, `": "`, `":"`), part)
}

func asAdmin(t *testing.T) context.Context {
	t.Helper()
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+adminKey)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	p := start(t, host.Options{}, &service{name: "s"})
	conn := p.dial(t)
	for _, kind := range []fault.Kind{
		fault.Invalid, fault.Unsupported, fault.NotFound, fault.Conflict, fault.Unauthenticated, fault.Denied, fault.Exhausted,
		fault.Unavailable, fault.Timeout, fault.Canceled, fault.MissingSegment, fault.Internal,
	} {
		t.Run(string(kind)+" over gRPC", func(t *testing.T) {
			t.Parallel()
			_, err := configv1.NewConfigServiceClient(conn).DeleteAPIKey(asAdmin(t), &configv1.DeleteAPIKeyRequest{KeyId: string(kind)})
			if !errors.Is(err, kind) || err.Error() != "no such luck" {
				t.Errorf("got %v", err)
			}
		})
		t.Run(string(kind)+" over REST", func(t *testing.T) {
			t.Parallel()
			a := p.ask(t, http.MethodDelete, "/api/v1/apikeys/"+string(kind), "", "Authorization", "Bearer "+adminKey)
			var body fault.Body
			if err := json.Unmarshal([]byte(a.body), &body); err != nil {
				t.Fatalf("%v: %s", err, a.body)
			}
			if a.code != fault.HTTPStatus(kind) || body != (fault.Body{Code: kind, Message: "no such luck"}) {
				t.Errorf("got %d %s", a.code, a.body)
			}
		})
		t.Run(string(kind)+" before the first line of a REST stream", func(t *testing.T) {
			t.Parallel()
			a := p.ask(t, http.MethodPost, "/api/v1/logs:query", `{"query":"`+string(kind)+`"}`, "Authorization", "Bearer "+queryKey)
			if a.code != fault.HTTPStatus(kind) || !contains(a.body, `"code":"`+string(kind)+`","message":"no such luck"`) {
				t.Errorf("got %d %s", a.code, a.body)
			}
		})
		t.Run(string(kind)+" in the middle of a REST stream", func(t *testing.T) {
			t.Parallel()
			a := p.ask(t, http.MethodPost, "/api/v1/logs:query", `{"query":"`+string(kind)+`","limit":2}`, "Authorization", "Bearer "+queryKey)
			lines := strings.Split(a.body, "\n")
			if a.code != http.StatusOK || len(lines) != 3 || !contains(lines[0], `"result"`) || !contains(lines[2], `"error":{"code":"`+string(kind)+`","message":"no such luck"}`) {
				t.Errorf("got %d %s", a.code, a.body)
			}
		})
	}
	t.Run("a panic is internal, says nothing of itself, and is logged with its stack", func(t *testing.T) {
		t.Parallel()
		_, err := configv1.NewConfigServiceClient(conn).DeleteAPIKey(asAdmin(t), &configv1.DeleteAPIKeyRequest{KeyId: "panic"})
		if !errors.Is(err, fault.Internal) || err.Error() != "internal error" {
			t.Errorf("got %v", err)
		}
		a := p.ask(t, http.MethodGet, "/own/panic", "")
		if a.code != http.StatusInternalServerError || !contains(a.body, `"message":"internal error"`) {
			t.Errorf("got %d %s", a.code, a.body)
		}
		a = p.ask(t, http.MethodPost, "/api/v1/logs:query", `{"query":"panic"}`, "Authorization", "Bearer "+queryKey)
		if a.code != http.StatusInternalServerError || contains(a.body, "oops") {
			t.Errorf("got %d %s", a.code, a.body)
		}
		eventually(t, "the log", func() bool { return strings.Count(p.log.String(), "panic: oops") == 3 })
		if !strings.Contains(p.log.String(), "service_test.go") {
			t.Error("no stack is logged")
		}
	})
	for name, c := range map[string]struct {
		method, path, body string
		code               int
		want               string
	}{
		"a path that is not there":   {http.MethodGet, "/api/v1/nothing", "", 404, `"code":"not_found"`},
		"a method that is not there": {http.MethodPut, "/api/v1/config", "", 405, `"code":"invalid"`},
		"a body that is no JSON":     {http.MethodPost, "/api/v1/config:apply", "{", 400, `"code":"invalid"`},
		"a field that is not there":  {http.MethodPost, "/api/v1/config:apply", `{"documnet":"x"}`, 400, "documnet"},
		"a method not served":        {http.MethodPost, "/api/v1/config:apply", `{"document":"x"}`, 501, `"code":"unsupported"`},
	} {
		t.Run(name+" is said in the same form", func(t *testing.T) {
			t.Parallel()
			a := p.ask(t, c.method, c.path, c.body, "Authorization", "Bearer "+adminKey)
			if a.code != c.code || !contains(a.body, c.want) || !contains(a.body, `"message":"`) {
				t.Errorf("got %d %s", a.code, a.body)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	away.Store(true)
	s := &service{name: "db-user", ready: func() error {
		if away.Load() {
			return errors.New("database is away")
		}
		return nil
	}}
	ready := make(chan host.Addr, 1)
	p := start(t, host.Options{OnReady: func(a host.Addr) { ready <- a }}, s, &other{})
	health := healthpb.NewHealthClient(p.dial(t))
	status := func(name string) healthpb.HealthCheckResponse_ServingStatus {
		response, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			return healthpb.HealthCheckResponse_UNKNOWN
		}
		return response.GetStatus()
	}
	// The order matters: first away, then there.
	t.Run("a process lives before it is ready", func(t *testing.T) {
		for _, path := range []string{"/livez", "/healthz"} {
			if a := p.ask(t, http.MethodGet, path, ""); a.code != http.StatusOK {
				t.Errorf("%s: got %d", path, a.code)
			}
		}
		a := p.ask(t, http.MethodGet, "/readyz", "")
		if a.code != http.StatusServiceUnavailable || !contains(a.body, `"db-user":"database is away"`) || !contains(a.body, `"other":"ready"`) {
			t.Errorf("got %d %s", a.code, a.body)
		}
		eventually(t, "health of the other", func() bool { return status("other") == healthpb.HealthCheckResponse_SERVING })
		if got := status(""); got != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("got %s", got)
		}
		if len(ready) != 0 {
			t.Error("it said that it is ready")
		}
	})
	t.Run("it is ready when all its services are", func(t *testing.T) {
		away.Store(false)
		if a := <-ready; a != p.Addr {
			t.Errorf("got %+v", a)
		}
		if a := p.ask(t, http.MethodGet, "/readyz", ""); a.code != http.StatusOK {
			t.Errorf("got %d %s", a.code, a.body)
		}
		eventually(t, "health of all", func() bool { return status("") == healthpb.HealthCheckResponse_SERVING })
	})
	t.Run("metrics, the API's description and reflection are open", func(t *testing.T) {
		if a := p.ask(t, http.MethodGet, "/metrics", ""); a.code != http.StatusOK {
			t.Errorf("got %d", a.code)
		}
		a := p.ask(t, http.MethodGet, "/openapi.json", "")
		if !json.Valid([]byte(a.body)) || !contains(a.body, "/api/v1/config:apply") {
			t.Errorf("got %d %.100s", a.code, a.body)
		}
		stream, err := reflectionpb.NewServerReflectionClient(p.dial(t)).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		response, receiveErr := stream.Recv()
		if err := errors.Join(err, receiveErr); err != nil || !strings.Contains(response.String(), "lakerunner.config.v1.ConfigService") {
			t.Errorf("got %v, %v", response, err)
		}
	})
}

// other is a service without RPCs.
type other struct{ service }

func (o *other) Name() string                       { return "other" }
func (o *other) RegisterGRPC(grpc.ServiceRegistrar) {}
func (o *other) RegisterHTTP(*host.Mux)             {}

func TestShutdown(t *testing.T) {
	t.Parallel()
	t.Run("comes in phases: not ready, drained, loops ended", func(t *testing.T) {
		t.Parallel()
		loopEnded, unready := make(chan struct{}), make(chan struct{})
		s := &service{name: "s", entered: make(chan struct{}), release: make(chan struct{})}
		s.run = func(ctx context.Context) error {
			<-ctx.Done()
			close(loopEnded)
			return nil
		}
		p := start(t, host.Options{}, s)
		watching, unwatch := context.WithCancel(t.Context())
		defer unwatch()
		health, err := healthpb.NewHealthClient(p.dial(t)).Watch(watching, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer close(unready)
			defer unwatch()
			serving := false
			for {
				response, err := health.Recv()
				if err != nil || serving && response.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING {
					return
				}
				serving = serving || response.GetStatus() == healthpb.HealthCheckResponse_SERVING
			}
		}()
		eventually(t, "readiness", func() bool { return p.ask(t, http.MethodGet, "/readyz", "").code == http.StatusOK })
		answered := make(chan error, 1)
		ctx := asAdmin(t)
		conn := p.dial(t)
		go func() {
			_, err := configv1.NewConfigServiceClient(conn).GetConfig(ctx, &configv1.GetConfigRequest{})
			answered <- err
		}()
		<-s.entered
		stopped := make(chan error, 1)
		go func() { stopped <- p.stop() }()
		<-unready
		select {
		case <-loopEnded:
			t.Error("the loop ended before the RPC")
		case err := <-stopped:
			t.Errorf("the process ended before the RPC: %v", err)
		case <-answered:
			t.Error("the RPC was cut off")
		default:
		}
		close(s.release)
		if err := <-answered; err != nil {
			t.Errorf("the RPC was cut off: %v", err)
		}
		<-loopEnded
	})
	t.Run("cuts off what takes too long", func(t *testing.T) {
		t.Parallel()
		s := &service{name: "s", entered: make(chan struct{}), release: make(chan struct{})}
		p := start(t, host.Options{Config: host.Config{Shutdown: host.ShutdownConfig{Drain: 20 * time.Millisecond}}}, s)
		conn, ctx := p.dial(t), asAdmin(t)
		answered := make(chan error, 1)
		go func() {
			_, err := configv1.NewConfigServiceClient(conn).GetConfig(ctx, &configv1.GetConfigRequest{})
			answered <- err
		}()
		<-s.entered
		go func() {
			<-answered
			close(s.release)
		}()
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("names what does not end", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		defer close(release)
		s := &service{name: "s", run: func(context.Context) error { <-release; return nil }}
		ctx, cancel := context.WithCancel(t.Context())
		err := host.Run(ctx, host.Options{
			Source: source(t), Config: host.Config{GRPC: local(), HTTP: local(), Shutdown: host.ShutdownConfig{Loops: time.Millisecond}},
			OnListening: func(host.Addr) { cancel() },
		}, s)
		if !errors.Is(err, fault.Timeout) {
			t.Errorf("got %v", err)
		}
	})
	for name, run := range map[string]func(context.Context) error{
		"fails":  func(context.Context) error { return fault.New(fault.Conflict, "oops") },
		"panics": func(context.Context) error { panic("oops") },
	} {
		t.Run("follows when a service "+name, func(t *testing.T) {
			t.Parallel()
			err := host.Run(t.Context(), host.Options{Source: source(t), Config: host.Config{GRPC: local(), HTTP: local()}}, &service{name: "weak", run: run})
			if err == nil || !strings.HasPrefix(err.Error(), "weak: ") || !strings.Contains(err.Error(), "oops") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a start that fails closes what it has opened", func(t *testing.T) {
		t.Parallel()
		p := start(t, host.Options{}, &service{name: "s"})
		options := host.Options{Source: source(t), Config: host.Config{GRPC: local(), HTTP: host.ListenConfig{Listen: p.HTTP}}}
		if err := host.Run(t.Context(), options, &service{name: "s"}); !errors.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "choose another address") {
			t.Errorf("got %v", err)
		}
	})
}

func local() host.ListenConfig { return host.ListenConfig{Listen: "127.0.0.1:0"} }

func TestLines(t *testing.T) {
	t.Parallel()
	p := start(t, host.Options{}, &service{name: "s"})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+queryKey)
	if _, err := queryv1.NewQueryServiceClient(p.dial(t)).ListLabels(ctx, &queryv1.ListLabelsRequest{}); err != nil {
		t.Fatal(err)
	}
	p.ask(t, http.MethodGet, "/own/query", "", "Authorization", "Bearer "+ingestKey)
	p.ask(t, http.MethodGet, "/readyz", "")
	find := func(t *testing.T, message string) map[string]any {
		t.Helper()
		var found map[string]any
		eventually(t, "the line of "+message, func() bool {
			for line := range strings.Lines(p.log.String()) {
				var record map[string]any
				if json.Unmarshal([]byte(line), &record) == nil && record["msg"] == message {
					found = record
					return true
				}
			}
			return false
		})
		return found
	}
	t.Run("an RPC is one line with who, what and how long", func(t *testing.T) {
		t.Parallel()
		line := find(t, "rpc")
		for key, want := range map[string]string{"method": "/lakerunner.query.v1.QueryService/ListLabels", "code": "OK", "key": "reader", "organization": "acme"} {
			if line[key] != want {
				t.Errorf("%s: want %s, got %v", key, want, line[key])
			}
		}
	})
	t.Run("so is a request, with why it failed", func(t *testing.T) {
		t.Parallel()
		line := find(t, "http")
		if line["route"] != "/own/query" || line["status"] != 403.0 || line["kind"] != "denied" || line["error"] != `API key "writer" has not the scope "query"` {
			t.Errorf("got %v", line)
		}
	})
	t.Run("no key is ever logged", func(t *testing.T) {
		t.Parallel()
		find(t, "http")
		for _, key := range []string{queryKey, ingestKey} {
			if strings.Contains(p.log.String(), key) {
				t.Errorf("%s is logged", key)
			}
		}
	})
}
