// SPDX-License-Identifier: AGPL-3.0-only

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/pflag"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Exit codes of Main.
const (
	ExitOK     = 0
	ExitFailed = 1
	// ExitConfig: the configuration or the command line is wrong; starting again is pointless.
	ExitConfig = 2
)

// MainOption says what is special of a process.
type MainOption func(*mainOptions)

type mainOptions struct {
	gogc   int
	memory float64
}

// Pipeline is for services that decode and write in bulk: it collects garbage at 50 % growth unless GOGC says otherwise, for their
// memory is mostly short-lived buffers.
func Pipeline() MainOption { return func(o *mainOptions) { o.gogc = 50 } }

// GoMemory is the share of the container's memory that Go may use, where something else, such as DuckDB, uses the rest.
func GoMemory(share float64) MainOption { return func(o *mainOptions) { o.memory = share } }

// Main is the main function of a process: flags, configuration, logs, signals. It returns the exit code. Build makes the services
// once the process is set up. The first SIGINT or SIGTERM begins an orderly end, the second ends at once.
func Main(name string, build func(ctx context.Context, p *Process) ([]Service, error), options ...MainOption) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	return run(invocation{
		name: name, arguments: os.Args[1:], environ: os.Environ(), out: os.Stdout, log: os.Stderr, signals: signals,
	}, build, options)
}

// invocation is what Main takes from the system.
type invocation struct {
	name      string
	arguments []string
	environ   []string
	out, log  io.Writer
	signals   <-chan os.Signal
}

type flags struct {
	files, settings []string
	check, version  bool
}

func run(call invocation, build func(context.Context, *Process) ([]Service, error), options []MainOption) int {
	f, err := parseFlags(call)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return ExitOK
	case err != nil:
		fmt.Fprintf(call.log, "%s: %v\n", call.name, err)
		return ExitConfig
	case f.version:
		fmt.Fprintf(call.out, "%s %s\n", call.name, Version())
		return ExitOK
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- serve(ctx, call, f, build, options) }()
	select {
	case err = <-done:
		return exitCode(call, err)
	case <-call.signals:
		cancel()
	}
	select {
	case err = <-done:
		// A start that the signal broke off is an orderly end too.
		if errors.Is(err, context.Canceled) {
			return ExitOK
		}
		return exitCode(call, err)
	case <-call.signals:
		return ExitFailed
	}
}

func exitCode(call invocation, err error) int {
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(call.log, "%s: %v\n", call.name, err)
	if errors.Is(err, fault.Invalid) {
		return ExitConfig
	}
	return ExitFailed
}

func parseFlags(call invocation) (flags, error) {
	var f flags
	set := pflag.NewFlagSet(call.name, pflag.ContinueOnError)
	set.SetOutput(call.out)
	set.StringArrayVarP(&f.files, "config", "c", defaultFiles(call.environ), "configuration file; may be repeated, a later one is stronger (LAKERUNNER_CONFIG)")
	set.StringArrayVar(&f.settings, "set", nil, "section.field=value; may be repeated, stronger than files and environment")
	level := set.String("log-level", "", "debug, info, warn or error")
	format := set.String("log-format", "", "json or text")
	grpcListen := set.String("grpc-listen", "", "address of the gRPC listener (default :9090)")
	httpListen := set.String("http-listen", "", "address of the HTTP listener (default :8080)")
	set.BoolVar(&f.check, "check", false, "check the configuration and end")
	set.BoolVar(&f.version, "version", false, "print the version and end")
	if err := set.Parse(call.arguments); err != nil {
		return flags{}, err
	}
	if set.NArg() > 0 {
		return flags{}, fault.New(fault.Invalid, "unexpected argument %q; see --help", set.Arg(0))
	}
	for path, value := range map[string]string{"log.level": *level, "log.format": *format, "grpc.listen": *grpcListen, "http.listen": *httpListen} {
		if value != "" {
			f.settings = append(f.settings, path+"="+value)
		}
	}
	return f, nil
}

func defaultFiles(environ []string) []string {
	for _, entry := range environ {
		if files, ok := strings.CutPrefix(entry, "LAKERUNNER_CONFIG="); ok && files != "" {
			return strings.Split(files, ",")
		}
	}
	return nil
}

func serve(ctx context.Context, call invocation, f flags, build func(context.Context, *Process) ([]Service, error), options []MainOption) error {
	p, err := NewProcess(ctx, Start{Name: call.name, Files: f.files, Settings: f.settings, Environ: call.environ, LogTo: call.log})
	if err != nil {
		return err
	}
	p.tune(options)
	services, err := build(ctx, p)
	if err == nil {
		err = p.settings.unused()
	}
	if err == nil && !f.check {
		p.Log.Info("starting", "version", Version())
		err = Run(ctx, p.Options(), services...)
	}
	return errors.Join(err, p.Close())
}

// tune bounds the Go runtime. What the environment says of GOGC and GOMEMLIMIT stands.
func (p *Process) tune(options []MainOption) {
	o := mainOptions{memory: 0.9}
	for _, option := range options {
		option(&o)
	}
	if o.gogc != 0 && p.environment["GOGC"] == "" {
		debug.SetGCPercent(o.gogc)
	}
	if ratio := p.Settings.Runtime.MemoryRatio; ratio > 0 {
		o.memory = ratio
	}
	limit, err := memlimit.Set(memlimit.WithRatio(o.memory))
	if err != nil {
		p.Log.Warn("GOMEMLIMIT is not set from the container's memory", "error", err)
		return
	}
	p.Log.Debug("GOMEMLIMIT", "bytes", limit)
}

// Version is the release that was built, and the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			version += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return version
}
