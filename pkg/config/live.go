// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
)

// Options say where the configuration is.
type Options struct {
	// Files are YAML documents; a later one replaces what an earlier one says.
	Files []string
	// OtherKeys are top-level keys of the files that somebody else reads. Any other unknown key is an error.
	OtherKeys []string
	// ConfigDBURL is the Postgres that holds configdb. Empty: there is none.
	ConfigDBURL string
	// Environ is as os.Environ returns it.
	Environ []string
	// Poll is how often configdb's version is asked and files are looked at even if nothing was heard. Zero: 2 s.
	Poll time.Duration
	// Log hears of reloads. Nil: nobody does.
	Log *slog.Logger
}

// Live is a Source that follows its files and configdb. Close ends that.
type Live struct {
	options     Options
	environment map[string]string
	db          *DB // nil: no configdb
	current     atomic.Pointer[Snapshot]

	mu   sync.Mutex // held while loading
	seen state

	stop context.CancelFunc
	done chan struct{}
}

// state is what the layers were when last looked at.
type state struct {
	files   [sha256.Size]byte
	version int64  // of configdb
	trouble string // the last problem that was logged
}

// Open reads the configuration and follows it until Close. A wrong one is an error that says file, line and remedy.
func Open(ctx context.Context, options Options) (*Live, error) {
	if options.Log == nil {
		options.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if options.Poll <= 0 {
		options.Poll = 2 * time.Second
	}
	l := &Live{options: options, environment: strictyaml.Environment(options.Environ), done: make(chan struct{})}
	if options.ConfigDBURL != "" {
		db, err := OpenDB(ctx, options.ConfigDBURL)
		if err != nil {
			return nil, err
		}
		l.db = db
	}
	if err := l.reload(ctx); err != nil {
		l.closeDB()
		return nil, err
	}
	heard, closeWatch := watch(options.Files)
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	go func() {
		defer close(l.done)
		defer closeWatch()
		l.follow(following, heard)
	}()
	return l, nil
}

// Current returns the configuration in force.
func (l *Live) Current() *Snapshot { return l.current.Load() }

// Close ends following, and returns when it has ended.
func (l *Live) Close() {
	l.stop()
	<-l.done
	l.closeDB()
}

func (l *Live) closeDB() {
	if l.db != nil {
		l.db.Close()
	}
}

// follow reloads when the files were heard of, and looks every so often in case nothing was: network file systems send no events.
func (l *Live) follow(ctx context.Context, heard <-chan struct{}) {
	ticker := time.NewTicker(l.options.Poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
		case <-ticker.C:
		}
		l.settle(ctx)
		l.refresh(ctx)
	}
}

// settleTime is how long files must have stayed the same before a change is taken.
const settleTime = 100 * time.Millisecond

// settle returns when two looks at changed files, a moment apart, agree: who writes a file in place empties it first, and an empty
// file is a valid configuration, without any key or organization.
func (l *Live) settle(ctx context.Context) {
	l.mu.Lock()
	before := l.seen.files
	l.mu.Unlock()
	for {
		_, now, err := l.read()
		if err != nil || now == before {
			return
		}
		before = now
		select {
		case <-ctx.Done():
			return
		case <-time.After(settleTime):
		}
	}
}

func (l *Live) refresh(ctx context.Context) {
	before := l.Current()
	err := l.reload(ctx)
	if ctx.Err() != nil {
		return
	}
	trouble := ""
	if err != nil {
		trouble = err.Error()
	}
	if trouble != "" && trouble != l.seen.trouble {
		l.options.Log.Error("the new configuration is not taken, the one before stays in force", "error", err)
	}
	l.seen.trouble = trouble
	if err == nil && l.Current() != before {
		l.options.Log.Info("configuration changed")
	}
}

// reload takes the configuration as it is now, if it is not the one in force.
func (l *Live) reload(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	contents, hash, err := l.read()
	if err != nil {
		return err
	}
	version, err := l.version(ctx)
	if err != nil {
		return err
	}
	if l.Current() != nil && hash == l.seen.files && version == l.seen.version {
		return nil
	}
	snapshot, err := l.compose(ctx, contents)
	if err != nil {
		return err
	}
	l.seen.files, l.seen.version = hash, version
	l.current.Store(snapshot)
	return nil
}

func (l *Live) compose(ctx context.Context, contents [][]byte) (*Snapshot, error) {
	layers, err := l.fileLayers(contents)
	if err != nil {
		return nil, err
	}
	if l.db != nil {
		stored, err := l.db.layer(ctx)
		if err != nil {
			return nil, err
		}
		layers = append(layers, stored)
	}
	return l.build(layers)
}

// build puts the environment below the layers.
func (l *Live) build(layers []layer) (*Snapshot, error) {
	environment, err := environmentLayer(l.environment, layers)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	snapshot, err := build(append([]layer{environment}, layers...), l.environment)
	return snapshot, fault.Wrap(fault.Invalid, err)
}

func (l *Live) fileLayers(contents [][]byte) ([]layer, error) {
	var layers []layer
	var problems []error
	for i, file := range l.options.Files {
		f, err := parseForm(file, contents[i], l.options.OtherKeys)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		layers = append(layers, layer{name: file, form: f})
	}
	return layers, fault.Wrap(fault.Invalid, errors.Join(problems...))
}

func (l *Live) read() (contents [][]byte, hash [sha256.Size]byte, err error) {
	all := sha256.New()
	for _, file := range l.options.Files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, hash, fault.New(fault.Invalid, "read configuration: %w", err)
		}
		contents = append(contents, data)
		fmt.Fprintf(all, "%d:", len(data))
		all.Write(data)
	}
	return contents, [sha256.Size]byte(all.Sum(nil)), nil
}

func (l *Live) version(ctx context.Context) (int64, error) {
	if l.db == nil {
		return 0, nil
	}
	return l.db.version(ctx)
}
