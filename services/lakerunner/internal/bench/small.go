// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// SmallOptions say how many small objects to bring in.
type SmallOptions struct {
	Objects int
	Dir     string // workplace; empty: a temporary one
	Out     io.Writer
}

const (
	// smallLines rows make an object of about 10 kB, compressed.
	smallLines = 190
	smallBatch = 1000 // objects made at a time
)

// smallFigures are what an hour of small objects cost.
type smallFigures struct {
	Objects, Rows, Bytes int64 // source objects
	IngestCPU, CompactionCPU,
	Wall time.Duration
	Level0, Final storedFigures
	Cost          lake.Cost
}

// RunSmall measures an hour of small objects: what they become, and the requests that took and their price.
func RunSmall(ctx context.Context, o SmallOptions) (err error) {
	if ok, err := runRole(ctx); ok {
		return err
	}
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
	w, err := prepare(ctx, Options{Dir: o.Dir}, server)
	if err != nil {
		return err
	}
	var f smallFigures
	fmt.Fprintf(o.Out, "making %d objects ...\n", o.Objects)
	if err := f.fill(o.Objects, w.bucket()); err != nil {
		return err
	}
	if err := f.run(ctx, w); err != nil {
		return err
	}
	f.write(o.Out)
	return nil
}

// fill makes an hour's objects.
func (f *smallFigures) fill(count int, bucket string) error {
	target := filepath.Join(bucket, filepath.FromSlash(rawPrefix))
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("make the bucket: %w", err)
	}
	end := time.Now().UTC().Truncate(time.Hour).Add(-time.Hour)
	slice := time.Hour * smallBatch / time.Duration(max(count, smallBatch))
	for from := 0; from < count; from += smallBatch {
		n := min(smallBatch, count-from)
		made, err := sample.Objects(sample.Options{
			Seed: uint64(from + 1), Organization: organization, Collector: "corpus", Length: slice, Lines: n * smallLines, Objects: n,
			End: end.Add(-time.Hour + slice*time.Duration(from/smallBatch+1)),
		})
		if err != nil {
			return err
		}
		for i, object := range made {
			name := filepath.Join(target, fmt.Sprintf("logs_%06d.binpb.gz", from+i))
			if err := os.WriteFile(name, object.Body, 0o600); err != nil {
				return fmt.Errorf("fill the bucket: %w", err)
			}
			f.Objects++
			f.Bytes += int64(len(object.Body))
			f.Rows += int64(len(object.Rows))
		}
	}
	return nil
}

func (f *smallFigures) run(ctx context.Context, w workplace) error {
	began := time.Now()
	cmd, err := w.child(ctx, "ingest")
	if err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	f.IngestCPU = cpuOf(usageOf(cmd))
	if f.Level0, err = w.liveSegments(ctx); err != nil {
		return err
	}
	compaction, err := w.compact(ctx)
	if err != nil {
		return err
	}
	f.CompactionCPU, f.Final, f.Wall = compaction.CPU, compaction.After, time.Since(began)
	if f.Final.Rows != f.Rows {
		return fmt.Errorf("%d rows became %d", f.Rows, f.Final.Rows)
	}
	f.Cost, err = costOf(ctx, w.Database)
	return err
}

func costOf(ctx context.Context, database string) (lake.Cost, error) {
	idx, err := index.Open(ctx, index.Config{URL: database, MaxConns: 1})
	if err != nil {
		return lake.Cost{}, err
	}
	defer idx.Close()
	costs, err := idx.Costs(ctx, organization, time.Now().Add(-48*time.Hour))
	if err != nil || len(costs) == 0 {
		return lake.Cost{}, err
	}
	return costs[0].Cost, nil
}

// listPage is how many keys one LIST request names.
const listPage = 1000

func (f *smallFigures) write(out io.Writer) {
	prices := config.DefaultPrices(objects.ProviderAWS).Requests
	gigabytes := float64(f.Bytes) / 1e9
	lists := f.Cost.Lists + (f.Objects+listPage-1)/listPage // the janitor compares the hour once with the receipts
	row := func(name string, n int64, kind objects.Request) []string {
		return []string{name, fmt.Sprint(n), fmt.Sprintf("%.0f", float64(n)/gigabytes), fmt.Sprintf("%.4f", prices.Of(kind, n))}
	}
	fmt.Fprintf(out, "\n%d objects of %.1f kB with %d rows in one hour; date %s; machine %s.\n\n", f.Objects, float64(f.Bytes)/float64(f.Objects)/1e3, f.Rows,
		time.Now().UTC().Format("2006-01-02"), machine())
	writeRows(out, [][]string{
		{"requests", "all", "per GB of objects", "US dollars (AWS list)"},
		row("PUT", f.Cost.Puts, objects.RequestPut),
		row("GET", f.Cost.Gets, objects.RequestGet),
		row("LIST", lists, objects.RequestList),
	})
	fmt.Fprintf(out, "\nSegments: %d of level 0, %d at the end (%.1f MB each). Rows per CPU-second, compaction included: %.0f. Wall clock: %.0f s.\n",
		f.Level0.Segments, f.Final.Segments, float64(f.Final.Bytes+f.Final.Sidecars)/float64(f.Final.Segments)/1e6,
		float64(f.Rows)/(f.IngestCPU+f.CompactionCPU).Seconds(), f.Wall.Seconds())
}
