// SPDX-License-Identifier: AGPL-3.0-only

package doctor

import (
	"context"
	"log/slog"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
)

// Options say what to look at.
type Options struct {
	Database string   // URL of the index; empty: not known
	ConfigDB string   // URL of configdb; empty: none
	Files    []string // configuration files
	Environ  []string
	Data     string // data directory of `lakerunner up`; empty: none
	// AskServer asks the server something small as the user would.
	AskServer func(context.Context) error
	Address   string // of that server, for messages
	// Show is given each result as it comes.
	Show func(Result)
}

// Limits of single checks.
const (
	checkPatience = 20 * time.Second
	eventPatience = 30 * time.Second
	clockDrift    = 5 * time.Second
)

// Run makes all checks and returns their results.
func Run(ctx context.Context, o Options) []Result {
	r := &report{show: o.Show}
	bounded(ctx, checkPatience, func(ctx context.Context) { r.checkServer(ctx, o) })
	idx := r.openIndex(ctx, o)
	if idx != nil {
		defer idx.Close()
		bounded(ctx, checkPatience, func(ctx context.Context) { r.checkDatabaseClock(ctx, idx) })
		bounded(ctx, checkPatience, func(ctx context.Context) { r.checkBacklog(ctx, idx) })
	}
	if source := r.openConfig(ctx, o); source != nil {
		defer source.Close()
		r.checkBuckets(ctx, source, idx)
	}
	r.checkData(o.Data)
	return r.results
}

func (r *report) checkServer(ctx context.Context, o Options) {
	took, err := timed(func() error { return o.AskServer(ctx) })
	if err != nil {
		r.add("server", Bad, "start one with `lakerunner up`, or name another with --address and --api-key", "%s: %v", o.Address, err)
		return
	}
	r.add("server", Good, "", "%s answers in %s", o.Address, took.Round(time.Millisecond))
}

func (r *report) openIndex(ctx context.Context, o Options) *index.Index {
	if o.Database == "" {
		r.add("PostgreSQL", Skipped, "set LRDB_URL, or name the data directory of `lakerunner up` with --data", "its URL is not known")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	var idx *index.Index
	took, err := timed(func() (err error) {
		idx, err = index.Open(ctx, index.Config{URL: o.Database, MaxConns: 2})
		return err
	})
	if err != nil {
		r.add("PostgreSQL", Bad, "check LRDB_URL, that the server runs and lets you in, and that `lakerunner migrate` was run", "%v", err)
		return nil
	}
	r.add("PostgreSQL", Good, "", "answers in %s, its schema is up to date", took.Round(time.Millisecond))
	return idx
}

func (r *report) checkDatabaseClock(ctx context.Context, idx *index.Index) {
	before := time.Now()
	there, err := idx.Now(ctx)
	if err != nil {
		r.add("clock of the database", Bad, "see the check of PostgreSQL", "%v", err)
		return
	}
	r.addDrift("clock of the database", there, before, time.Now(), 0)
}

// addDrift compares a clock with ours, read before and after. Resolution is the other clock's.
func (r *report) addDrift(check string, there, before, after time.Time, resolution time.Duration) {
	drift := time.Duration(0)
	switch {
	case there.Before(before.Add(-resolution)):
		drift = there.Sub(before)
	case there.After(after.Add(resolution)):
		drift = there.Sub(after)
	}
	if drift.Abs() > clockDrift {
		r.add(check, Warning, "let both machines take their time from NTP: freshness and acceptance windows go by it", "%s away from the clock here", drift.Round(time.Millisecond))
		return
	}
	r.add(check, Good, "", "agrees with the clock here")
}

func (r *report) checkBacklog(ctx context.Context, idx *index.Index) {
	backlog, err := idx.Backlog(ctx)
	if err != nil {
		r.add("backlog", Bad, "see the check of PostgreSQL", "%v", err)
		return
	}
	var waiting, buried int64
	for _, b := range backlog {
		waiting, buried = waiting+b.Tasks, buried+b.Buried
	}
	if buried > 0 {
		r.add("backlog", Warning, "see why with `lakerunner receipts --state failed`; then `lakerunner receipts --replay --state failed`", "objects that wait: %d, that failed: %d", waiting, buried)
		return
	}
	r.add("backlog", Good, "", "objects that wait: %d, none failed", waiting)
}

func (r *report) openConfig(ctx context.Context, o Options) *config.Live {
	source, err := config.Open(ctx, config.Options{Files: o.Files, OtherKeys: otherKeys(), ConfigDBURL: o.ConfigDB, Environ: o.Environ, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.add("configuration", Bad, "mend what is named there", "%v", err)
		return nil
	}
	current := source.Current()
	if len(current.Profiles()) == 0 {
		r.add("configuration", Warning, "name the bucket with S3_BUCKET, or add a storage profile with `lakerunner config apply`", "there is no storage profile, so no object is anybody's")
		return source
	}
	r.add("configuration", Good, "", "organizations: %d, storage profiles: %d", len(current.Organizations()), len(current.Profiles()))
	return source
}
