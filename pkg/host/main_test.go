// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
)

// idle is a service that does nothing until it is told to end.
type idle struct {
	started chan struct{}
	deaf    chan struct{} // not nil: it does not end before this is closed
}

func (*idle) Name() string                                                            { return "idle" }
func (*idle) RegisterGRPC(grpc.ServiceRegistrar)                                      {}
func (*idle) RegisterREST(context.Context, *runtime.ServeMux, *grpc.ClientConn) error { return nil }
func (*idle) RegisterHTTP(*Mux)                                                       {}
func (*idle) Scope(string) config.Scope                                               { return "" }
func (*idle) Ready(context.Context) error                                             { return nil }

func (i *idle) Run(ctx context.Context) error {
	close(i.started)
	<-ctx.Done()
	if i.deaf != nil {
		<-i.deaf
	}
	return nil
}

type outcome struct {
	code     int
	out, log string
}

type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func call(name string, build func(context.Context, *Process) ([]Service, error), signals <-chan os.Signal, environ []string, arguments ...string) outcome {
	var out, log shared
	arguments = append([]string{"--grpc-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"}, arguments...)
	code := run(invocation{name: name, arguments: arguments, environ: environ, out: &out, log: &log, signals: signals}, build, nil)
	return outcome{code, out.String(), log.String()}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "lakerunner.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func nothing(context.Context, *Process) ([]Service, error) { return nil, nil }

func TestProgram(t *testing.T) {
	t.Parallel()
	t.Run("the first signal ends it in order", func(t *testing.T) {
		t.Parallel()
		signals, service := make(chan os.Signal, 2), &idle{started: make(chan struct{})}
		go func() {
			<-service.started
			signals <- syscall.SIGTERM
		}()
		got := call("notifier", func(context.Context, *Process) ([]Service, error) { return []Service{service}, nil }, signals, nil)
		if got.code != ExitOK || !strings.Contains(got.log, "loops ended") {
			t.Errorf("got %d:\n%s", got.code, got.log)
		}
	})
	t.Run("the second ends it at once", func(t *testing.T) {
		t.Parallel()
		signals, service := make(chan os.Signal), &idle{started: make(chan struct{}), deaf: make(chan struct{})}
		defer close(service.deaf)
		go func() {
			<-service.started
			signals <- os.Interrupt
			signals <- os.Interrupt
		}()
		begun := time.Now()
		got := call("notifier", func(context.Context, *Process) ([]Service, error) { return []Service{service}, nil }, signals, nil)
		if got.code != ExitFailed || time.Since(begun) > 8*time.Second {
			t.Errorf("got %d after %s", got.code, time.Since(begun))
		}
	})
	t.Run("a wrong configuration ends it with file, line and remedy", func(t *testing.T) {
		t.Parallel()
		for text, want := range map[string]string{
			"grpc:\n  lisen: x\n":                `:2: grpc.lisen: unknown field; did you mean "listen"?`,
			"notifer: {}\n":                      `:1: notifer: unknown field; did you mean "notifier"?`,
			"storage_profiles:\n  - {name: a}\n": ":2: storage profile \"a\" names no bucket; add `bucket:`",
			"shutdown:\n  drain: soon\n":         `:2: shutdown.drain: "soon" is not a duration: want one such as 30s, 5m, 1h30m or 7d`,
			"log: {level: loud}\n":               `log.level is "loud"; want debug, info, warn or error`,
			"log: {format: xml}\n":               `log.format is "xml"; want json or text`,
			"tls: {cert_file: x}\n":              `tls: cert_file and key_file belong together; give both`,
			"internal_token: short\n":            `internal_token has fewer than 16 characters; make one with: openssl rand -hex 32`,
			"telemetry: {sample_ratio: 2}\n":     `telemetry.sample_ratio is 2; want 0 to 1`,
			"organizations: [\n":                 `not YAML`,
		} {
			got := call("notifier", nothing, nil, nil, "--config", file(t, text))
			if got.code != ExitConfig || !strings.Contains(got.log, want) {
				t.Errorf("%q: want %s, got %d: %s", text, want, got.code, got.log)
			}
		}
	})
	t.Run("so does a wrong section of its service", func(t *testing.T) {
		t.Parallel()
		build := func(_ context.Context, p *Process) ([]Service, error) {
			var c struct {
				Workers int `yaml:"workers"`
			}
			return nil, p.Config(&c)
		}
		name := file(t, "notifier:\n  wrokers: 1\n")
		got := call("notifier", build, nil, nil, "-c", name)
		if got.code != ExitConfig || !strings.Contains(got.log, name+`:2: notifier.wrokers: unknown field; did you mean "workers"?`) {
			t.Errorf("got %d: %s", got.code, got.log)
		}
		if got := call("notifier", build, nil, []string{"LAKERUNNER_NOTIFIER_WORKERS=x"}); got.code != ExitConfig || !strings.Contains(got.log, "environment variable LAKERUNNER_NOTIFIER_WORKERS") {
			t.Errorf("got %d: %s", got.code, got.log)
		}
		if got := call("notifier", build, nil, nil, "--set", "notifier.x=1"); got.code != ExitConfig || !strings.Contains(got.log, "--set notifier.x: unknown field") {
			t.Errorf("got %d: %s", got.code, got.log)
		}
		if got := call("notifier", build, nil, nil, "--set", "ingestor.x=1"); got.code != ExitConfig || !strings.Contains(got.log, "that service is not in this process") {
			t.Errorf("got %d: %s", got.code, got.log)
		}
	})
	t.Run("a wrong command line too", func(t *testing.T) {
		t.Parallel()
		for _, arguments := range [][]string{{"--nope"}, {"extra"}, {"--config", "/does/not/exist"}, {"--set", "grpc.lisen=x"}} {
			if got := call("notifier", nothing, nil, nil, arguments...); got.code != ExitConfig || got.log == "" {
				t.Errorf("%v: got %d: %s", arguments, got.code, got.log)
			}
		}
	})
	t.Run("a build that fails ends it", func(t *testing.T) {
		t.Parallel()
		got := call("notifier", func(context.Context, *Process) ([]Service, error) { return nil, errors.New("oops") }, nil, nil)
		if got.code != ExitFailed || !strings.Contains(got.log, "notifier: oops") {
			t.Errorf("got %d: %s", got.code, got.log)
		}
	})
	t.Run("--check checks and ends, --version and --help say what they say", func(t *testing.T) {
		t.Parallel()
		if got := call("notifier", nothing, nil, nil, "--check", "--config", file(t, "organizations: [{id: a}]\n")); got.code != ExitOK {
			t.Errorf("got %d: %s", got.code, got.log)
		}
		if got := call("notifier", nothing, nil, nil, "--version"); got.code != ExitOK || !strings.HasPrefix(got.out, "notifier ") {
			t.Errorf("got %d: %s", got.code, got.out)
		}
		if got := call("notifier", nothing, nil, nil, "--help"); got.code != ExitOK || !strings.Contains(got.out+got.log, "--config") {
			t.Errorf("got %d: %s", got.code, got.out)
		}
	})
}

// TestPipelineCollectsGarbageEarly is not parallel: the setting is the whole process's.
func TestPipelineCollectsGarbageEarly(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for name, c := range map[string]struct {
		environ []string
		options []MainOption
		want    int
	}{
		"of a pipeline service": {nil, []MainOption{Pipeline()}, 50},
		"where GOGC is set":     {[]string{"GOGC=100"}, []MainOption{Pipeline()}, 100},
		"of any other":          {nil, nil, 100},
	} {
		t.Run(name, func(t *testing.T) {
			debug.SetGCPercent(100)
			p, err := NewProcess(t.Context(), Start{Name: "ingestor", Environ: c.environ})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			p.tune(c.options)
			if got := debug.SetGCPercent(100); got != c.want {
				t.Errorf("GOGC is %d, want %d", got, c.want)
			}
		})
	}
}

func TestProcess(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T, s Start) *Process {
		t.Helper()
		p, err := NewProcess(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		return p
	}
	type section struct {
		A, B, C, D string
		Words      []string      `yaml:"words"`
		Wait       time.Duration `yaml:"wait"`
	}
	t.Run("settings come from files, variables and flags, the last the strongest", func(t *testing.T) {
		t.Parallel()
		p := begin(t, Start{
			Name:     "query-worker",
			Files:    []string{file(t, "query_worker: {a: 1, b: 1, c: 1}\ngrpc: {listen: \":1\"}\n"), file(t, "query_worker: {b: 2, c: 2}\nhttp: {listen: \":1\"}\n")},
			Environ:  []string{"LAKERUNNER_QUERY_WORKER_C=3", "LAKERUNNER_QUERY_WORKER_WORDS=x,y", "LAKERUNNER_HTTP_LISTEN=:3", "LRDB_URL=postgres://plain", "LAKERUNNER_SERVICE_HOST=of-kubernetes"},
			Settings: []string{"query_worker.d=4", "query_worker.wait=5s", "shutdown.delay=1s"},
		})
		got := section{D: "default"}
		if err := p.Config(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(section{"1", "2", "3", "4", []string{"x", "y"}, 5 * time.Second}, got); diff != "" {
			t.Error(diff)
		}
		if s := p.Settings; s.GRPC.Listen != ":1" || s.HTTP.Listen != ":3" || s.LRDB.URL != "postgres://plain" || s.Shutdown.Delay != time.Second || s.Shutdown.Drain != 10*time.Second {
			t.Errorf("got %+v", s)
		}
		if err := p.settings.unused(); err != nil {
			t.Error(err)
		}
	})
	t.Run("several services in a process have a section each", func(t *testing.T) {
		t.Parallel()
		p := begin(t, Start{Name: "lakerunner", Files: []string{file(t, "notifier: {a: n}\ningestor: {a: i}\n")}})
		var n, i section
		if err := errors.Join(p.Section("notifier", &n), p.Section("ingestor", &i)); err != nil || n.A != "n" || i.A != "i" {
			t.Errorf("got %+v, %+v, %v", n, i, err)
		}
	})
	t.Run("the index is opened once, migrated by nobody but Migrate", func(t *testing.T) {
		t.Parallel()
		url := indextest.URL(t)
		p := begin(t, Start{Name: "notifier", Environ: []string{"LRDB_URL=" + url}})
		if err := p.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		one, err := p.Index()
		if err != nil {
			t.Fatal(err)
		}
		if other, err := p.Index(); err != nil || other != one {
			t.Errorf("got %v, %v", other, err)
		}
		w := httptest.NewRecorder()
		p.telemetry.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		for _, name := range []string{"lakerunner_index_duration_seconds", "lakerunner_index_backlog_tasks", "lakerunner_index_buried_tasks"} {
			if !strings.Contains(w.Body.String(), name) {
				t.Errorf("%s is not among the metrics", name)
			}
		}
	})
	t.Run("CONFIGDB_URL names the database of organizations, and one that is away is named", func(t *testing.T) {
		t.Parallel()
		url := indextest.URL(t)
		environ := []string{"CONFIGDB_URL=" + url, "LRDB_URL=" + url}
		if err := begin(t, Start{Name: "notifier", Environ: environ[1:]}).Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := config.MigrateDB(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		if p := begin(t, Start{Name: "notifier", Environ: environ}); p.Settings.ConfigDB.URL != url {
			t.Errorf("got %+v", p.Settings.ConfigDB)
		}
		_, err := NewProcess(t.Context(), Start{Name: "notifier", Environ: []string{"CONFIGDB_URL=postgres://nobody@127.0.0.1:1/none?connect_timeout=1"}})
		if err == nil || !strings.Contains(err.Error(), "check CONFIGDB_URL") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("without a database it says what to set", func(t *testing.T) {
		t.Parallel()
		p := begin(t, Start{Name: "notifier"})
		if _, err := p.Index(); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "set LRDB_URL") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("buckets are those of storage profiles", func(t *testing.T) {
		t.Parallel()
		p := begin(t, Start{Name: "notifier", Files: []string{file(t, "storage_profiles: [{name: a, bucket: b, provider: file, directory: "+t.TempDir()+"}]\n")}})
		if b, err := p.Objects().Bucket(t.Context(), "b"); err != nil || b.Name() != "b" {
			t.Errorf("got %v, %v", b, err)
		}
	})
}
