// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// An hour of a sample every five minutes; an object has one sample of a tenth of the series.
const (
	manyInterval = 5 * time.Minute
	manySamples  = int(time.Hour / manyInterval)
	manyObjects  = 10
)

// RunSeries measures an hour with very many series: what ingest, compaction and queries of all of them need.
func RunSeries(ctx context.Context, o MadeUpOptions) error {
	return runMadeUp(ctx, o, "    rollups: []\n", func(r *madeUpRun) error {
		r.madeUp = madeUp{series: o.Series, instances: 1000, start: time.Now().UTC().Truncate(time.Hour).Add(-3 * time.Hour), interval: manyInterval, samples: manySamples}
		return r.hour(ctx)
	})
}

func (r *madeUpRun) hour(ctx context.Context) error {
	fmt.Fprintf(r.out, "making an hour of %d series ...\n", r.series)
	if err := r.fill(r.w.bucket(), (r.series+manyObjects-1)/manyObjects, 1); err != nil {
		return err
	}
	fmt.Fprintln(r.out, "ingesting ...")
	if err := r.takeIn(ctx); err != nil {
		return err
	}
	fmt.Fprintln(r.out, "compacting ...")
	compaction, err := r.w.compact(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(r.out, "querying ...")
	if err := r.ask(ctx, r.hourQueries()); err != nil {
		return err
	}
	r.head()
	stored := func(s storedFigures) string {
		return fmt.Sprintf("%.2f", float64(s.Bytes+s.Sidecars)/float64(r.series)/float64(r.samples))
	}
	writeRows(r.out, [][]string{
		{"", "ingest", "compaction"},
		{"samples per CPU-second", r.perCPU(r.ingest.CPU), r.perCPU(compaction.CPU)},
		{"peak RSS of the process, MB", megabytes(r.ingest.PeakRSS), megabytes(compaction.PeakRSS)},
		{"segments after it", fmt.Sprint(r.ingest.Stored.Segments), fmt.Sprint(compaction.After.Segments)},
		{"bytes per sample after it, labels included", stored(r.ingest.Stored), stored(compaction.After)},
	})
	r.writeQueries()
	return nil
}

// hourQueries are of all series, and of one.
func (r *madeUpRun) hourQueries() []query {
	end := r.start.Add(50 * time.Minute)
	var out []query
	for _, q := range []struct {
		what, promql string
		step         time.Duration
		check        func(*answer) error
	}{
		{"count of all", "count(" + madeUpName + ")", 0, wantValue(int64(r.series))},
		{"sum by job of all", "sum by (job)(" + madeUpName + ")", 0, wantTotalOf(r.sum())},
		{"rates by zone, 5 steps", "sum by (zone)(rate(" + madeUpName + "[10m]))", 5 * time.Minute, wantCount("matrix", 3)},
		{"top 10", "topk(10, " + madeUpName + ")", 0, wantCount("vector", 10)},
		{"one series", madeUpName + `{instance="10.0.1.1:9100"}`, 0, wantCount("vector", 1)},
		{"all of them, refused", madeUpName, 0, wantRefusal("max_query_series")},
	} {
		path, params := promParams(q.promql, end.Add(-20*time.Minute), end, q.step)
		out = append(out, query{name: fmt.Sprintf("S%d", len(out)+1), what: q.what, path: path, params: params, check: q.check})
	}
	return out
}

// sum is that of all series 50 minutes after the start.
func (r *madeUpRun) sum() (total float64) {
	for n := range r.series {
		total += r.value(n, int(50*time.Minute/r.interval))
	}
	return total
}

// wantTotalOf expects the values of a vector to make a sum.
func wantTotalOf(want float64) func(*answer) error {
	return func(a *answer) error {
		var vector []series
		if err := a.decode("vector", &vector); err != nil {
			return err
		}
		got := 0.0
		for _, s := range vector {
			v, err := floating(s.Value[1])
			if err != nil {
				return err
			}
			got += v
		}
		if math.Abs(got-want) > tolerance*math.Abs(want) {
			return fmt.Errorf("sum of all values: got %v, want %v", got, want)
		}
		return nil
	}
}

// wantCount expects so many series.
func wantCount(kind string, want int64) func(*answer) error {
	return func(a *answer) error {
		var all []json.RawMessage
		if err := a.decode(kind, &all); err != nil {
			return err
		}
		return same("series", int64(len(all)), want)
	}
}

// wantRefusal expects an error that names a limit.
func wantRefusal(limit string) func(*answer) error {
	return func(a *answer) error {
		if a.Status != "error" || !strings.Contains(a.Error, limit) {
			return fmt.Errorf("got %s %q, want an error that names %s", a.Status, a.Error, limit)
		}
		return nil
	}
}
