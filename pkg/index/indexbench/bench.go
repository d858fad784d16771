// SPDX-License-Identifier: AGPL-3.0-only

// Package indexbench measures the index at size: a database of its own is filled with segments over a year and many organizations,
// and with the pending objects of one of them, and then the index's verbs are timed from outside, as services call them.
//
// The data is made by the database itself and skewed: an organization's share falls with the square root of its rank. Settled
// segments are hours of large organizations and days of small ones. It measures the index alone: no bucket and no rows.
package indexbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
)

// Options say what to measure.
type Options struct {
	Segments      int // zero: 10 million
	Organizations int // zero: 1,000
	Days          int // zero: 365
	Pending       int // objects of one organization that wait to be ingested; zero: 1 million
	Rounds        int // of each claim; others follow from it. Zero: 300
	// Dir of the database, which is kept, and measured again when it is loaded already; empty: a temporary one that goes with the run.
	Dir string
	Out io.Writer
	// Log hears of each step; nil: nobody does.
	Log func(step string, took time.Duration)
}

const (
	defaultSegments      = 10_000_000
	defaultOrganizations = 1_000
	defaultDays          = 365
	defaultPending       = 1_000_000
	defaultRounds        = 300
)

func (o Options) withDefaults() Options {
	if o.Segments == 0 {
		o.Segments = defaultSegments
	}
	if o.Organizations == 0 {
		o.Organizations = defaultOrganizations
	}
	if o.Days == 0 {
		o.Days = defaultDays
	}
	if o.Pending == 0 {
		o.Pending = defaultPending
	}
	if o.Rounds == 0 {
		o.Rounds = defaultRounds
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Log == nil {
		o.Log = func(string, time.Duration) {}
	}
	return o
}

// settings are those of a small server of its own: durable, with a gigabyte of cache.
func settings() map[string]string {
	return map[string]string{
		"shared_buffers":                   "1GB",
		"max_wal_size":                     "16GB",
		"checkpoint_timeout":               "30min",
		"maintenance_work_mem":             "512MB",
		"max_parallel_maintenance_workers": "2",
		"jit":                              "off",
	}
}

// Run fills a database, measures, prints the figures and returns them.
func Run(ctx context.Context, o Options) (report Report, err error) {
	o = o.withDefaults()
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "lakerunner-index-bench-"); err != nil {
			return report, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
	}
	server, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(o.Dir, "postgres"), Settings: settings()})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	b, err := open(ctx, o, server)
	if err != nil {
		return report, err
	}
	defer b.close()
	if err := b.measure(ctx); err != nil {
		return report, err
	}
	b.report.Print(o.Out)
	return b.report, nil
}

// bench is one run.
type bench struct {
	Options
	index  *index.Index
	sql    *pgxpool.Pool
	end    time.Time // of the youngest hour
	run    string    // tells this run's objects from those of others
	report Report
}

const database = "indexbench"

func open(ctx context.Context, o Options, server *postgres.Server) (*bench, error) {
	if err := server.CreateDatabase(ctx, database); err != nil {
		return nil, err
	}
	url := server.URL(database)
	if err := index.Migrate(ctx, url); err != nil {
		return nil, err
	}
	sql, err := pgxpool.New(ctx, url)
	if err != nil {
		return nil, err
	}
	x, err := index.Open(ctx, index.Config{URL: url})
	if err != nil {
		sql.Close()
		return nil, err
	}
	now, err := x.Now(ctx)
	if err != nil {
		x.Close()
		sql.Close()
		return nil, err
	}
	b := &bench{Options: o, index: x, sql: sql, end: lake.WindowOf(now, time.Hour).Start, run: now.Format("150405.000000")}
	b.report = Report{Segments: o.Segments, Organizations: o.Organizations, Days: o.Days, Pending: o.Pending}
	return b, nil
}

func (b *bench) close() {
	b.index.Close()
	b.sql.Close()
}

func (b *bench) measure(ctx context.Context) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"load", b.load},
		{"sizes", b.sizes},
		{"lookup", b.lookups},
		{"window", b.windows},
		{"commit of ingest", b.ingestCommits},
		{"commit of compaction", b.compactionCommits},
		{"claim", b.claims},
		{"fairness", b.fairness},
		{"retention", b.retention},
		{"gauges", b.gauges},
	}
	for _, s := range steps {
		began := time.Now()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.Log(s.name, time.Since(began))
	}
	return nil
}

// organization names an organization by its rank; the first is the largest.
func organization(rank int) lake.Organization {
	return lake.Organization(fmt.Sprintf("org-%04d", rank))
}
