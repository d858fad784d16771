// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/lakerunner/lakerunner/pkg/index"
)

// A year of a sample every half an hour, in objects of a day; rollups of an hour, and no others.
const (
	yearDays     = 365
	yearInterval = 30 * time.Minute
	yearSettings = "    rollups: [{resolution: 1h}]\n"
)

// yearQueries are panels over a year, with a step of a day.
func (m *madeUp) yearQueries() []query {
	start, end := m.start.AddDate(0, 0, 1), m.start.AddDate(0, 0, yearDays)
	var out []query
	for _, q := range []struct{ name, what, promql string }{
		{"Y1", "sum of rates by job", "sum by (job)(rate(" + madeUpName + "[1d]))"},
		{"Y2", "largest by job", "max by (job)(max_over_time(" + madeUpName + "[1d]))"},
		{"Y3", "average by job", "avg by (job)(avg_over_time(" + madeUpName + "[1d]))"},
	} {
		path, params := promParams(q.promql, start, end, 24*time.Hour)
		out = append(out, query{name: q.name, what: q.what, path: path, params: params, cold: 2, warm: 2})
	}
	return out
}

// RunYear measures panels over a year of 1 h rollups. One job's answers are compared with those of Prometheus' engine over its samples.
func RunYear(ctx context.Context, o MadeUpOptions) error {
	return runMadeUp(ctx, o, yearSettings, func(r *madeUpRun) error {
		r.madeUp = madeUp{
			series: o.Series, instances: 50, start: time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -yearDays-2), interval: yearInterval,
			samples: yearDays * int(24*time.Hour/yearInterval),
		}
		return r.year(ctx)
	})
}

func (r *madeUpRun) year(ctx context.Context) error {
	fmt.Fprintf(r.out, "making a year of %d series ...\n", r.series)
	if err := r.fill(r.w.bucket(), r.series, int(24*time.Hour/yearInterval)); err != nil {
		return err
	}
	fmt.Fprintln(r.out, "ingesting ...")
	if err := r.takeIn(ctx); err != nil {
		return err
	}
	fmt.Fprintln(r.out, "rolling up ...")
	cmd, err := r.w.child(ctx, "rollup")
	if err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("roll up: %w", err)
	}
	usage := usageOf(cmd)
	rolled, err := r.w.rollups(ctx, time.Hour)
	if err != nil {
		return err
	}
	queries, err := r.checked(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(r.out, "querying ...")
	if err := r.ask(ctx, queries); err != nil {
		return err
	}
	r.head()
	writeRows(r.out, [][]string{
		{"", "ingest", "rollups"},
		{"samples per CPU-second", r.perCPU(r.ingest.CPU), r.perCPU(cpuOf(usage))},
		{"peak RSS of the process, MB", megabytes(r.ingest.PeakRSS), megabytes(usage.Maxrss * 1024)},
		{"segments", fmt.Sprint(r.ingest.Stored.Segments), fmt.Sprint(rolled.Segments)},
		{"MB", megabytes(r.ingest.Stored.Bytes + r.ingest.Stored.Sidecars), megabytes(rolled.Bytes + rolled.Sidecars)},
	})
	r.writeQueries()
	return nil
}

// rollups are the current segments of a resolution.
func (w workplace) rollups(ctx context.Context, resolution time.Duration) (f storedFigures, err error) {
	idx, err := index.Open(ctx, index.Config{URL: w.Database, MaxConns: 1})
	if err != nil {
		return f, err
	}
	defer idx.Close()
	answer, err := idx.Lookup(ctx, index.Query{Organization: organization, Signal: w.Signal, Resolution: resolution, Start: time.Unix(0, 0), End: time.Now()})
	for _, s := range answer.Segments {
		f.Segments++
		f.Rows += s.Rows
		f.Bytes += s.Bytes
		f.Sidecars += s.SidecarBytes
	}
	return f, err
}

// checked has each query compare the first job with Prometheus.
func (r *madeUpRun) checked(ctx context.Context) ([]query, error) {
	prometheus, err := newReference(r.w.Dir)
	if err != nil {
		return nil, err
	}
	appender := prometheus.db.Appender(ctx)
	all, values := r.seriesOfJob(0)
	for n, l := range all {
		for i, v := range values[n] {
			if _, err := appender.Append(0, l, r.at(i), v); err != nil {
				return nil, errors.Join(err, prometheus.close())
			}
		}
	}
	if err := appender.Commit(); err != nil {
		return nil, errors.Join(err, prometheus.close())
	}
	queries := r.yearQueries()
	for i := range queries {
		q := metricQuery{query: queries[i], promql: queries[i].params.Get("query"), start: r.start.AddDate(0, 0, 1), end: r.start.AddDate(0, 0, yearDays), step: 24 * time.Hour}
		want, err := prometheus.once(ctx, &q)
		if err != nil {
			return nil, errors.Join(err, prometheus.close())
		}
		queries[i].check = r.wantJob(want.(promql.Matrix))
	}
	return queries, prometheus.close()
}

// wantJob expects the values of one job, a series for each other one, and an answer from rollups.
func (r *madeUpRun) wantJob(want promql.Matrix) func(*answer) error {
	return func(a *answer) error {
		var got []series
		if err := a.decode("matrix", &got); err != nil {
			return err
		}
		if err := same("series", int64(len(got)), int64(r.series/r.instances)); err != nil {
			return err
		}
		if !slices.ContainsFunc(a.Infos, func(info string) bool { return strings.Contains(info, "rollups of 1h") }) {
			return fmt.Errorf("the answer is not from rollups of an hour: %q", a.Infos)
		}
		for _, s := range got {
			if s.Metric["job"] == want[0].Metric.Get("job") {
				return samePoints(s.Values, want[0].Floats)
			}
		}
		return fmt.Errorf("no series of %s", want[0].Metric)
	}
}
