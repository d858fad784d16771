// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// MadeUpOptions say of which made-up series to measure queries.
type MadeUpOptions struct {
	Series int
	Dir    string // workplace; empty: a temporary one
	Out    io.Writer
}

// madeUp are counters, one for each of many instances, which begin anew now and then. Every sample follows from its place.
type madeUp struct {
	series, instances int // series of all jobs, and of each
	start             time.Time
	interval          time.Duration
	samples           int // of each series
}

const madeUpName = "bench_requests_total"

func (m *madeUp) labels(n int) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, madeUpName, "job", fmt.Sprintf("job-%03d", n/m.instances), "instance", fmt.Sprintf("10.0.%d.%d:9100", n/250, n%250),
		"zone", fmt.Sprintf("zone-%d", n%3))
}

func (m *madeUp) at(i int) int64 { return m.start.UnixMilli() + int64(i)*m.interval.Milliseconds() }

// value is that of sample i of series n: since the counter last began, steps of a length, each not quite at its time.
func (m *madeUp) value(n, i int) float64 {
	const lifetime = 5003
	step := 10 + n%90
	since := (i + n*37) % lifetime
	noise := uint32(n*31+i) * 2654435761 >> 16
	return float64(since*step + int(noise)%step)
}

// object is a remote write request with some samples of some series.
func (m *madeUp) object(fromSeries, toSeries, fromSample, toSample int) ([]byte, error) {
	symbols := writev2.NewSymbolTable()
	request := writev2.Request{Timeseries: make([]writev2.TimeSeries, 0, toSeries-fromSeries)}
	for n := fromSeries; n < toSeries; n++ {
		one := writev2.TimeSeries{
			LabelsRefs: symbols.SymbolizeLabels(m.labels(n), nil), Metadata: writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_COUNTER},
			Samples: make([]writev2.Sample, 0, toSample-fromSample),
		}
		for i := fromSample; i < toSample; i++ {
			one.Samples = append(one.Samples, writev2.Sample{Timestamp: m.at(i), Value: m.value(n, i)})
		}
		request.Timeseries = append(request.Timeseries, one)
	}
	request.Symbols = symbols.Symbols()
	raw, err := request.Marshal()
	return snappy.Encode(nil, raw), err
}

// fill puts all samples into the bucket: objects of so many series and samples each.
func (m *madeUp) fill(bucket string, series, samples int) error {
	target := filepath.Join(bucket, filepath.FromSlash(rawPrefix))
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make the bucket: %w", err)
	}
	for i := 0; i < m.samples; i += samples {
		for n := 0; n < m.series; n += series {
			body, err := m.object(n, min(n+series, m.series), i, min(i+samples, m.samples))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(target, fmt.Sprintf("metrics_%08d_%08d", i, n)), body, 0o600); err != nil {
				return fmt.Errorf("fill the bucket: %w", err)
			}
		}
	}
	return nil
}

// madeUpRun is a run over made-up series.
type madeUpRun struct {
	madeUp
	w       workplace
	out     io.Writer
	load    string
	ingest  ingestFigures
	queries []queryFigures
}

// runMadeUp makes a workplace for a run.
func runMadeUp(ctx context.Context, o MadeUpOptions, settings string, run func(*madeUpRun) error) (err error) {
	if ok, err := runRole(ctx); ok {
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
	w, err := prepare(ctx, Options{Dir: o.Dir, settings: settings}, server)
	if err != nil {
		return err
	}
	w.Signal = lake.SignalMetrics
	r := &madeUpRun{w: w, out: o.Out, load: load}
	if err := run(r); err != nil {
		return err
	}
	return r.wrong()
}

func (r *madeUpRun) wrong() (err error) {
	for _, q := range r.queries {
		if q.problem != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", q.query.name, q.problem))
		}
	}
	return err
}

// takeIn has the objects ingested.
func (r *madeUpRun) takeIn(ctx context.Context) error {
	cmd, err := r.w.child(ctx, "ingest")
	if err != nil {
		return err
	}
	started := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	usage := usageOf(cmd)
	r.ingest.Wall, r.ingest.CPU, r.ingest.PeakRSS = time.Since(started), cpuOf(usage), usage.Maxrss*1024
	if r.ingest.Stored, err = r.w.liveSegments(ctx); err != nil {
		return err
	}
	return same("samples", r.ingest.Stored.Rows, int64(r.series)*int64(r.samples))
}

// ask measures queries.
func (r *madeUpRun) ask(ctx context.Context, queries []query) error {
	dropPageCache()
	for _, q := range queries {
		figures := queryFigures{query: q}
		if err := figures.measure(ctx, r.w); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		r.queries = append(r.queries, figures)
	}
	return nil
}

func (r *madeUpRun) head() {
	fmt.Fprintf(r.out, "\n%d series, %d samples each, %s apart. Date: %s. Machine: %s; load average at the start: %s.\n\n",
		r.series, r.samples, r.interval, time.Now().UTC().Format("2006-01-02"), machine(), r.load)
}

func (r *madeUpRun) perCPU(spent time.Duration) string {
	return fmt.Sprintf("%.0f", float64(r.series)*float64(r.samples)/spent.Seconds())
}

func (r *madeUpRun) writeQueries() {
	fmt.Fprintln(r.out)
	rows := [][]string{{"query, seconds", "empty cache", "cold", "warm", "peak RSS of frontend and worker, MB", "answer"}}
	for _, q := range r.queries {
		state := "right"
		if q.problem != nil {
			state = "WRONG"
		}
		rows = append(rows, []string{q.query.name + " " + q.query.what, seconds(q.first), seconds(q.cold), seconds(q.warm), megabytes(q.peakRSS), state})
	}
	writeRows(r.out, rows)
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f", float64(n)/1e6) }

// rollupRole is the main function of a process that makes rollups until there are none to make.
func rollupRole(ctx context.Context, w workplace) error {
	services, err := stack.Start(ctx, stack.Options{
		Database: w.Database, ConfigFiles: []string{w.config()}, Dir: filepath.Join(w.Dir, "rollup"), HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0",
		Roles: stack.Roles{Rollup: true}, Log: logger(),
	})
	if err != nil {
		return err
	}
	return errors.Join(awaitIdle(ctx, w.Database, lake.TaskRollup), services.Stop(ctx))
}

// promParams are a query of the Prometheus API; step zero: an instant one.
func promParams(promql string, start, end time.Time, step time.Duration) (path string, params url.Values) {
	if step == 0 {
		return promInstantPath, url.Values{"query": {promql}, "time": {unix(end)}}
	}
	return promRangePath, url.Values{"query": {promql}, "start": {unix(start)}, "end": {unix(end)}, "step": {fmt.Sprint(int64(step / time.Second))}}
}

// seriesOfJob are the values of a job's series, for a database to compare with.
func (m *madeUp) seriesOfJob(job int) (all []labels.Labels, values [][]float64) {
	for n := job * m.instances; n < (job+1)*m.instances; n++ {
		all = append(all, m.labels(n))
		one := make([]float64, m.samples)
		for i := range one {
			one[i] = m.value(n, i)
		}
		values = append(values, one)
	}
	return slices.Clip(all), values
}
