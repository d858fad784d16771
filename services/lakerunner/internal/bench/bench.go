// SPDX-License-Identifier: AGPL-3.0-only

// Package bench measures LakeRunner on a corpus: what ingest costs, how big the result is, and how fast the queries L1 to L7 are on logs, or
// M1 to M6 on metrics, each beside its floor (what gunzip and decoding, DuckDB on the same files, or Prometheus' engine on samples in memory,
// cost alone) and its aim.
//
// Ingest runs in a process of its own, so that its CPU time and memory are its own and nobody else's. Queries go through the Loki or
// Prometheus API, the client's time included. Every answer is compared with the corpus's truth.json, or with what Prometheus itself answers
// on the same objects; a wrong one fails the run.
package bench

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
)

// Options say what to measure.
type Options struct {
	Corpus   string // folder with otlp/*.binpb.gz and truth.json
	Dir      string // workplace; empty: a temporary one
	Markdown string // file for the figures; empty: none
	Command  string // as the user gave it, for the record
	Out      io.Writer
	settings string // of the organization, as further lines of YAML
}

// warmRuns is how often a warm query is asked; the median counts.
const warmRuns = 5

// Run measures, prints, and returns an error when an answer was wrong.
func Run(ctx context.Context, o Options) (err error) {
	if ok, err := runRole(ctx); ok {
		return err
	}
	t, err := readTruth(o.Corpus)
	if err != nil {
		return err
	}
	load := loadAverage()
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "lakerunner-bench-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(o.Dir) }()
	}
	server, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(o.Dir, "postgres"), Log: logger()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	w, err := prepare(ctx, o, server)
	if err != nil {
		return err
	}
	w.Signal = t.signal()
	r := &result{command: o.Command, at: time.Now(), truth: t, load: load}
	fmt.Fprintf(o.Out, "ingesting %s ...\n", t.size())
	if r.ingest, err = measureIngest(ctx, o.Corpus, w, t); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "%.0f %s per CPU-second; compacting ...\n", r.ingest.perCPU(t.units()), t.unit())
	if r.compaction, err = w.compact(ctx); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "%.0f %s per CPU-second all in; querying ...\n", r.perCPU(), t.unit())
	if w.Signal == lake.SignalMetrics {
		err = r.measureMetricQueries(ctx, o, w)
	} else {
		err = r.measureQueries(ctx, w, t)
	}
	if err != nil {
		return err
	}
	return r.finish(o)
}

func (r *result) finish(o Options) error {
	fmt.Fprintln(o.Out)
	r.write(o.Out)
	if o.Markdown != "" {
		file, err := os.Create(o.Markdown)
		if err != nil {
			return fmt.Errorf("write the figures: %w", err)
		}
		r.write(file)
		if err := file.Close(); err != nil {
			return fmt.Errorf("write the figures: %w", err)
		}
	}
	if wrong := r.failures(); len(wrong) > 0 {
		return fmt.Errorf("wrong answers: %v", wrong)
	}
	return nil
}

// prepare makes database, bucket and configuration.
func prepare(ctx context.Context, o Options, server *postgres.Server) (workplace, error) {
	w := workplace{Dir: o.Dir, APIKey: config.NewSecret()}
	if err := server.CreateDatabase(ctx, "bench"); err != nil {
		return w, err
	}
	w.Database = server.URL("bench")
	if err := index.Migrate(ctx, w.Database); err != nil {
		return w, err
	}
	hash := config.Hash(w.APIKey)
	document := fmt.Sprintf(`organizations:
  - id: %[1]s
%[5]sstorage_profiles:
  - name: bench
    bucket: %[2]s
    provider: file
    directory: %[3]q
api_keys:
  - id: bench
    organization: %[1]s
    scopes: [query, admin]
    sha256: %[4]s
`, organization, bucketName, w.bucket(), hex.EncodeToString(hash[:]), o.settings)
	if err := os.MkdirAll(w.bucket(), 0o755); err != nil {
		return w, err
	}
	return w, os.WriteFile(w.config(), []byte(document), 0o600)
}

func measureIngest(ctx context.Context, corpus string, w workplace, t *truth) (f ingestFigures, err error) {
	if f.Objects, err = fillBucket(corpus, w.bucket()); err != nil {
		return f, err
	}
	decode := decodeLogs
	if w.Signal == lake.SignalMetrics {
		decode = decodeMetrics
	}
	if f.DecodeCPU, f.Rows, f.OTLP, err = decodeFloor(corpus, decode); err != nil {
		return f, err
	}
	if f.Rows != t.rows() {
		return f, fmt.Errorf("the corpus has %d rows, its truth.json says %d", f.Rows, t.rows())
	}
	cmd, err := w.child(ctx, "ingest")
	if err != nil {
		return f, err
	}
	started := time.Now()
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("ingest: %w", err)
	}
	f.Wall = time.Since(started)
	usage := usageOf(cmd)
	f.CPU, f.PeakRSS = cpuOf(usage), usage.Maxrss*1024
	f.Stored, err = w.liveSegments(ctx)
	return f, err
}

// measureQueries asks each query with an empty cache, cold and warm, and measures its floor.
func (r *result) measureQueries(ctx context.Context, w workplace, t *truth) error {
	r.cacheDropped = dropPageCache()
	for _, q := range queries(t) {
		figures := queryFigures{query: q}
		if err := figures.measure(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		r.queries = append(r.queries, figures)
	}
	return r.measureFloors(ctx, w)
}

// measureFloors measures what the queries cost DuckDB on the same files.
func (r *result) measureFloors(ctx context.Context, w workplace) error {
	floor, err := openFloor(ctx, w)
	if err != nil {
		return err
	}
	defer floor.close()
	for i := range r.queries {
		if err := floor.measure(ctx, &r.queries[i]); err != nil {
			return fmt.Errorf("floor of %s: %w", r.queries[i].query.name, err)
		}
	}
	return nil
}

func (f *queryFigures) measure(ctx context.Context, w workplace) (err error) {
	if err := os.RemoveAll(w.cache()); err != nil {
		return err
	}
	if f.first, _, err = f.restart(ctx, w, 0); err != nil {
		return err
	}
	var warm []time.Duration
	f.cold, warm, err = f.restart(ctx, w, warmRuns)
	if err == nil {
		f.warm = median(warm)
	}
	return err
}

// restart asks the query of fresh services with nothing in the page cache, and then so many times more.
func (f *queryFigures) restart(ctx context.Context, w workplace, more int) (first time.Duration, warm []time.Duration, err error) {
	s, err := w.serve(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		err = errors.Join(err, s.stop())
		f.peakRSS = max(f.peakRSS, usageOf(s.cmd).Maxrss*1024)
	}()
	dropPageCache()
	if first, err = f.ask(ctx, s, w.APIKey); err != nil {
		return 0, nil, err
	}
	for range more {
		took, err := f.ask(ctx, s, w.APIKey)
		if err != nil {
			return 0, nil, err
		}
		warm = append(warm, took)
	}
	return first, warm, nil
}

// ask asks once; a wrong answer is noted, not returned.
func (f *queryFigures) ask(ctx context.Context, s *server, key string) (time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+f.query.path+"?"+f.query.params.Encode(), nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	started := time.Now()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(response.Body)
	took := time.Since(started)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return 0, err
	}
	var a answer
	if json.Unmarshal(body, &a) != nil {
		f.problem = fmt.Errorf("%s: %.300s", response.Status, body)
	} else if err := f.query.check(&a); err != nil {
		f.problem = fmt.Errorf("%w (%s %s)", err, response.Status, a.Error)
	}
	return took, nil
}
