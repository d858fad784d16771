// SPDX-License-Identifier: AGPL-3.0-only

// Package stack runs several of LakeRunner's services in one process: all of them for `lakerunner up`, some of them for tests and
// for the benchmark.
//
// It wires, and nothing else: each service gets what its Deps ask for, services call one another without a network where they live
// in the same process, and settings come from the same files and variables as those of a service that runs alone.
package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/lakerunner/lakerunner/pkg/chaos"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Options say what to run and on what.
type Options struct {
	Database    string   // URL of the index
	ConfigDB    string   // URL of configdb; empty: none
	ConfigFiles []string // YAML documents
	Environ     []string // as os.Environ returns it
	Dir         string   // for the segment cache and scratch files
	HTTP, GRPC  string   // addresses to listen on; port 0: a free one
	// InternalToken is what services of several processes show one another. Empty: there is one process only.
	InternalToken string
	// WebhookToken opens the webhook of WebhookPath. Empty: no webhook.
	WebhookToken string
	Roles        Roles    // zero: all
	Workers      []string // gRPC addresses of workers in other processes
	// Tune changes settings after they were read; nil: nothing is changed.
	Tune func(*ServiceSettings)
	// Checkpoint is called between the steps of ingest; nil: nobody is.
	Checkpoint func(name string)
	// Faults decides what happens at the fault points of every service; nil: there are none.
	Faults chaos.Injector
	Log    *slog.Logger
}

// Roles are the services to run.
type Roles struct {
	Notifier, Ingestor, Compactor, Rollup, Janitor, Frontend, Worker bool
}

func (o Options) withDefaults() Options {
	if o.Roles == (Roles{}) {
		o.Roles = Roles{Notifier: true, Ingestor: true, Compactor: true, Rollup: true, Janitor: true, Frontend: true, Worker: true}
	}
	if o.Tune == nil {
		o.Tune = func(*ServiceSettings) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stack is a running process's worth of services.
type Stack struct {
	HTTP, GRPC string // addresses
	// Objects opens the buckets of the configuration, as the services do.
	Objects objects.Store

	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

// Start migrates the databases, runs the services, and returns when they are ready. They run until Stop; ctx bounds the start only.
func Start(ctx context.Context, o Options) (*Stack, error) {
	o = o.withDefaults()
	if err := host.Migrate(ctx, o.Database, o.ConfigDB); err != nil {
		return nil, err
	}
	process, err := host.NewProcess(ctx, host.Start{Name: "lakerunner", Files: o.ConfigFiles, Settings: o.settings(), Environ: o.Environ})
	if err != nil {
		return nil, err
	}
	process.Log = o.Log
	services, err := o.build(ctx, process)
	if err != nil {
		return nil, errors.Join(err, process.Close())
	}
	return run(ctx, process, services)
}

// settings are the process's own, in the words of the configuration.
func (o Options) settings() []string {
	settings := []string{"lrdb.url=" + o.Database, "configdb.url=" + o.ConfigDB, "http.listen=" + o.HTTP, "grpc.listen=" + o.GRPC}
	if o.InternalToken != "" {
		settings = append(settings, "internal_token="+o.InternalToken)
	}
	return settings
}

func (o Options) workerDir() string  { return filepath.Join(o.Dir, "worker") }
func (o Options) scratchDir() string { return filepath.Join(o.Dir, "scratch") }

func run(ctx context.Context, process *host.Process, services []host.Service) (*Stack, error) {
	living, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stack{Objects: process.Objects(), cancel: cancel, done: make(chan struct{})}
	ready := make(chan host.Addr, 1)
	options := process.Options()
	options.OnReady = func(a host.Addr) { ready <- a }
	go func() {
		defer close(s.done)
		s.err = errors.Join(host.Run(living, options, services...), process.Close())
	}()
	select {
	case a := <-ready:
		s.HTTP, s.GRPC = a.HTTP, a.GRPC
		return s, nil
	case <-s.done:
		cancel()
		return nil, fmt.Errorf("start the services: %w", s.err)
	case <-ctx.Done():
		cancel()
		<-s.done
		return nil, errors.Join(fmt.Errorf("the services did not get ready: %w", ctx.Err()), s.err)
	}
}

// Done is closed when the services have ended, by Stop or by themselves.
func (s *Stack) Done() <-chan struct{} { return s.done }

// Err is why they ended; call it after Done is closed.
func (s *Stack) Err() error { return s.err }

// Stop ends the services in order and returns when they have ended.
func (s *Stack) Stop(ctx context.Context) error {
	s.cancel()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("the services did not end: %w", ctx.Err())
	}
}
