// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Start says what a process is started with.
type Start struct {
	// Name is the process's; its own section of the configuration is called so.
	Name string
	// Files are the configuration files; a later one replaces what an earlier one says.
	Files []string
	// Settings are "section.field=value" entries, stronger than files and environment.
	Settings []string
	// Environ is as os.Environ returns it.
	Environ []string
	// LogTo is where the log is written, as the settings say. Nil: nowhere.
	LogTo io.Writer
	// Log, if not nil, is the log, whatever LogTo and the settings say.
	Log *slog.Logger
}

// Process is what services are built from. Close it when they have ended.
type Process struct {
	Name string
	// Log is the process's log.
	Log *slog.Logger
	// Meter makes the instruments of services.
	Meter metric.Meter
	// Source holds organizations, storage profiles, keys and limits.
	Source *config.Live
	// Settings are the process's own.
	Settings Config

	ctx         context.Context
	telemetry   *Telemetry
	inProcess   *InProcess
	environment map[string]string
	documents   []*strictyaml.Document
	settings    *settings

	mu     sync.Mutex
	index  *index.Index
	store  objects.Store
	closer []func(context.Context) error // in the order of opening
}

// NewProcess reads the configuration and opens what every process has. What it opens lives until Close; ctx bounds only the opening.
func NewProcess(ctx context.Context, start Start) (*Process, error) {
	p := &Process{
		Name: start.Name, ctx: context.WithoutCancel(ctx), environment: strictyaml.Environment(start.Environ), settings: newSettings(start.Settings),
	}
	if err := p.readSettings(start.Files); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if err := p.openLog(start); err != nil {
		return nil, err
	}
	if err := p.openTelemetry(ctx); err != nil {
		return nil, err
	}
	source, err := config.Open(ctx, config.Options{
		Files: start.Files, OtherKeys: append(ownKeys(), Sections()...), ConfigDBURL: p.Settings.ConfigDB.URL, Environ: start.Environ, Log: p.Log,
	})
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.Source = source
	p.onClose(func(context.Context) error { source.Close(); return nil })
	return p, nil
}

// Sections are the top-level keys of a configuration file that hold the settings of one service each. All processes may share a
// file, so each passes over the sections of the others.
func Sections() []string {
	return []string{"notifier", "ingestor", "compactor", "rollup", "janitor", "query_frontend", "query_worker", "lakerunner"}
}

func ownKeys() []string {
	return []string{"log", "grpc", "http", "tls", "client", "telemetry", "lrdb", "configdb", "shutdown", "runtime", "internal_token"}
}

func (p *Process) readSettings(files []string) error {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
		document, err := strictyaml.Parse(file, data)
		if err != nil {
			return err
		}
		if err := document.Decode(&p.Settings, append(config.Keys(), Sections()...)...); err != nil {
			return err
		}
		p.documents = append(p.documents, document)
	}
	if err := strictyaml.Override(&p.Settings, "LAKERUNNER", p.environment); err != nil {
		return err
	}
	if err := p.settings.apply("", &p.Settings); err != nil {
		return err
	}
	p.Settings.LRDB.URL = cmp.Or(p.Settings.LRDB.URL, p.environment["LRDB_URL"])
	p.Settings.ConfigDB.URL = cmp.Or(p.Settings.ConfigDB.URL, p.environment["CONFIGDB_URL"])
	p.Settings = p.Settings.withDefaults()
	return p.Settings.validate()
}

func (p *Process) openLog(start Start) error {
	if start.Log != nil {
		p.Log = start.Log
		return nil
	}
	if start.LogTo == nil {
		start.LogTo = io.Discard
	}
	log, err := newLog(start.LogTo, p.Settings.Log)
	if err != nil {
		return err
	}
	p.Log = log.With("process", start.Name)
	return nil
}

func (p *Process) openTelemetry(ctx context.Context) error {
	telemetry, err := NewTelemetry(ctx, p.Name, p.Settings.Telemetry, p.environment)
	if err != nil {
		return err
	}
	p.telemetry = telemetry
	p.Meter = telemetry.Meter.Meter(scopeName)
	p.inProcess = NewInProcess(p.Settings.InternalToken)
	p.onClose(telemetry.Shutdown)
	return nil
}

// Config reads the settings of the service that the process is named after: those of its section of the files, of environment
// variables LAKERUNNER_<SECTION>_<FIELD>, and of --set, each stronger than the one before. Into points to a struct with yaml tags.
func (p *Process) Config(into any) error { return p.Section(p.Name, into) }

// Section is Config for one of several services in a process. The section of query-frontend is query_frontend.
func (p *Process) Section(service string, into any) error {
	section := strings.ReplaceAll(service, "-", "_")
	if !slices.Contains(Sections(), section) {
		return fault.New(fault.Internal, "no section of the configuration is called %s", section)
	}
	for _, document := range p.documents {
		if err := document.Section(section, into); err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
	}
	if err := strictyaml.Override(into, "LAKERUNNER_"+strings.ToUpper(section), p.environment); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	return fault.Wrap(fault.Invalid, p.settings.apply(section, into))
}

// Index opens lrdb, once, checks that it answers, and counts its calls. It does not migrate.
func (p *Process) Index() (*index.Index, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.index != nil {
		return p.index, nil
	}
	if err := p.needsLRDB(); err != nil {
		return nil, err
	}
	opened, err := index.Open(p.ctx, index.Config{URL: p.Settings.LRDB.URL, MaxConns: p.Settings.LRDB.MaxConns})
	if err != nil {
		return nil, fmt.Errorf("open lrdb: %w", err)
	}
	if err := opened.Ping(p.ctx); err != nil {
		opened.Close()
		return nil, fmt.Errorf("lrdb does not answer; check LRDB_URL and that Postgres runs: %w", err)
	}
	p.onClose(func(context.Context) error { opened.Close(); return nil })
	p.index, err = index.Instrumented(opened, p.Meter)
	return p.index, err
}

func (p *Process) needsLRDB() error {
	if p.Settings.LRDB.URL == "" {
		return fault.New(fault.Invalid, "no database: set LRDB_URL to one, such as postgres://user:password@host:5432/lrdb")
	}
	return nil
}

// Migrate brings the tables of lrdb, and of configdb where there is one, to this release.
func (p *Process) Migrate(ctx context.Context) error {
	if err := p.needsLRDB(); err != nil {
		return err
	}
	return Migrate(ctx, p.Settings.LRDB.URL, p.Settings.ConfigDB.URL)
}

// Migrate brings the tables of lrdb and configdb to this release. An empty URL: there is no such database.
func Migrate(ctx context.Context, lrdb, configdb string) error {
	if lrdb != "" {
		if err := index.Migrate(ctx, lrdb); err != nil {
			return fmt.Errorf("migrate lrdb: %w", err)
		}
	}
	if configdb != "" {
		return config.MigrateDB(ctx, configdb)
	}
	return nil
}

// Objects is the store of the buckets that storage profiles name.
func (p *Process) Objects() objects.Store {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.store == nil {
		p.store = config.Buckets(p.Source, func(b objects.Bucket) objects.Bucket { return objects.Standard(b, p.Meter) })
	}
	return p.store
}

// Dial connects to a service: of this process when target is empty, else at a gRPC target such as dns:///query-worker:9090, whose
// addresses are called in turn. The connection shows the internal token, its errors have their kinds; it lives until Close.
func (p *Process) Dial(target string) (*grpc.ClientConn, error) {
	conn, err := p.dial(target)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onClose(func(context.Context) error { return conn.Close() })
	return conn, nil
}

func (p *Process) dial(target string) (*grpc.ClientConn, error) {
	if target == "" {
		return p.inProcess.Dial(grpc.WithStatsHandler(otelgrpc.NewClientHandler(p.telemetry.rpcOptions()...)))
	}
	return dialRemote(target, p.Settings.Client, p.inProcess.token, p.telemetry)
}

// Options are what Run needs to serve in this process.
func (p *Process) Options() Options {
	return Options{Config: p.Settings, Source: p.Source, Log: p.Log, Telemetry: p.telemetry, InProcess: p.inProcess}
}

func (p *Process) onClose(f func(context.Context) error) { p.closer = append(p.closer, f) }

// Close closes what was opened, the last first, within the deadline of the last phase of a shutdown.
func (p *Process) Close() error {
	ctx, cancel := context.WithTimeout(p.ctx, p.Settings.Shutdown.Close)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []error
	for _, f := range slices.Backward(p.closer) {
		all = append(all, f(ctx))
	}
	p.closer = nil
	return errors.Join(all...)
}
