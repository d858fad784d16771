// SPDX-License-Identifier: AGPL-3.0-only

package host_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// The keys that the tests' doors know.
const (
	queryKey  = "query-key-of-acme"
	ingestKey = "ingest-key-of-acme"
	adminKey  = "admin-key-of-nobody"
)

func source(t *testing.T) config.Source {
	t.Helper()
	live, err := config.Open(t.Context(), config.Options{
		Environ: []string{"Q=" + queryKey, "I=" + ingestKey, "LAKERUNNER_ADMIN_KEY=" + adminKey},
		Files:   []string{"testdata/keys.yaml"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(live.Close)
	return live
}

// service stands in for the real ones: its RPCs answer with who asked, or fail as they are asked to.
type service struct {
	configv1.UnimplementedConfigServiceServer
	queryv1.UnimplementedQueryServiceServer

	name    string
	run     func(ctx context.Context) error
	ready   func() error
	entered chan struct{} // not nil: GetConfig says that it was entered, and waits
	release chan struct{}
}

func (s *service) Name() string { return s.name }

func (s *service) RegisterGRPC(r grpc.ServiceRegistrar) {
	configv1.RegisterConfigServiceServer(r, s)
	queryv1.RegisterQueryServiceServer(r, s)
}

func (s *service) RegisterREST(ctx context.Context, mux *runtime.ServeMux, conn *grpc.ClientConn) error {
	if err := configv1.RegisterConfigServiceHandler(ctx, mux, conn); err != nil {
		return err
	}
	return queryv1.RegisterQueryServiceHandler(ctx, mux, conn)
}

func (s *service) RegisterHTTP(mux *host.Mux) {
	mux.Handle("/own/query", config.ScopeQuery, http.HandlerFunc(whoami))
	mux.Handle("/own/internal", config.ScopeInternal, http.HandlerFunc(whoami))
	mux.Handle("/own/nobody", "", http.HandlerFunc(whoami))
	mux.Handle("/own/open", config.ScopeOpen, http.HandlerFunc(whoami))
	mux.Handle("/own/panic", config.ScopeOpen, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") }))
}

func whoami(w http.ResponseWriter, r *http.Request) {
	identity, _ := config.IdentityFrom(r.Context())
	_, _ = io.WriteString(w, identity.KeyID+"@"+string(identity.Organization))
}

func (s *service) Scope(method string) config.Scope {
	switch {
	case strings.HasSuffix(method, "/ListAPIKeys"):
		return config.ScopeInternal
	case strings.HasPrefix(method, "/lakerunner.config."):
		return config.ScopeAdmin
	case strings.HasSuffix(method, "/Explain"):
		return ""
	}
	return config.ScopeQuery
}

func (s *service) Run(ctx context.Context) error {
	if s.run != nil {
		return s.run(ctx)
	}
	<-ctx.Done()
	return nil
}

func (s *service) Ready(context.Context) error {
	if s.ready != nil {
		return s.ready()
	}
	return nil
}

func (s *service) GetConfig(ctx context.Context, _ *configv1.GetConfigRequest) (*configv1.GetConfigResponse, error) {
	if s.entered != nil {
		s.entered <- struct{}{}
		<-s.release
	}
	identity, _ := config.IdentityFrom(ctx)
	return &configv1.GetConfigResponse{Document: identity.KeyID + "@" + string(identity.Organization)}, nil
}

func (s *service) ListAPIKeys(ctx context.Context, _ *configv1.ListAPIKeysRequest) (*configv1.ListAPIKeysResponse, error) {
	identity, _ := config.IdentityFrom(ctx)
	return &configv1.ListAPIKeysResponse{Keys: []*configv1.APIKey{{KeyId: identity.KeyID}}}, nil
}

// DeleteAPIKey fails with the kind that is the key's id.
func (s *service) DeleteAPIKey(_ context.Context, request *configv1.DeleteAPIKeyRequest) (*configv1.DeleteAPIKeyResponse, error) {
	if request.GetKeyId() == "panic" {
		panic("oops")
	}
	return nil, fault.New(fault.Kind(request.GetKeyId()), "no such luck")
}

// QueryLogs sends as many messages as the limit says, and then fails with the kind that is the query.
func (s *service) QueryLogs(request *queryv1.QueryLogsRequest, stream queryv1.QueryService_QueryLogsServer) error {
	for range request.GetLimit() {
		if err := stream.Send(&queryv1.QueryLogsResponse{}); err != nil {
			return err
		}
	}
	if request.GetQuery() == "panic" {
		panic("oops")
	}
	return fault.New(fault.Kind(request.GetQuery()), "no such luck")
}

// ListLabels answers with who asked.
func (s *service) ListLabels(ctx context.Context, _ *queryv1.ListLabelsRequest) (*queryv1.ListLabelsResponse, error) {
	identity, _ := config.IdentityFrom(ctx)
	return &queryv1.ListLabelsResponse{Labels: []string{identity.KeyID + "@" + string(identity.Organization)}}, nil
}

// logged is a log that can be read while it is written.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// process is a running one.
type process struct {
	host.Addr
	log  *logged
	stop func() error // ends it, once
}

func start(t *testing.T, options host.Options, services ...host.Service) *process {
	t.Helper()
	p := &process{log: &logged{}}
	options.Config.GRPC.Listen, options.Config.HTTP.Listen = "127.0.0.1:0", "127.0.0.1:0"
	if options.Source == nil {
		options.Source = source(t)
	}
	if options.Log == nil {
		options.Log = slog.New(slog.NewJSONHandler(p.log, nil))
	}
	listening, done := make(chan host.Addr, 1), make(chan error, 1)
	options.OnListening = func(a host.Addr) { listening <- a }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- host.Run(ctx, options, services...) }()
	p.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	select {
	case p.Addr = <-listening:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *process) dial(t *testing.T, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, append(fault.ClientInterceptors(), options...)...)
	conn, err := grpc.NewClient(p.GRPC, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

type answer struct {
	code   int
	header http.Header
	body   string
}

func (p *process) ask(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, strings.TrimSpace(string(text))}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("%s did not happen in time", what)
		case <-tick.C:
		}
	}
}
