// SPDX-License-Identifier: AGPL-3.0-only

// Command bench measures ingest, compaction and queries on a corpus, the index at a size, an hour of small objects, a year of rollups, or an hour of very many
// series; see `make bench`.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/indexbench"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/bench"
)

func main() {
	corpus := flag.String("corpus", "", "folder with otlp/*.binpb.gz and truth.json")
	markdown := flag.String("markdown", "", "write the figures to this file as well")
	dir := flag.String("dir", "", "workplace that is kept; default a temporary one")
	segments := flag.String("index", "", "measure the index alone, at this many segments, such as 10M")
	small := flag.Int("small", 0, "measure an hour of so many small objects")
	year := flag.Int("year", 0, "measure panels over a year of 1 h rollups of so many series")
	series := flag.String("series", "", "measure an hour of this many series, such as 1M")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *segments != "" {
		exit(benchIndex(ctx, *segments, *dir, *markdown))
		return
	}
	if *small > 0 {
		exit(bench.RunSmall(ctx, bench.SmallOptions{Objects: *small, Dir: *dir, Out: os.Stdout}))
		return
	}
	if *year > 0 {
		exit(bench.RunYear(ctx, bench.MadeUpOptions{Series: *year, Dir: *dir, Out: os.Stdout}))
		return
	}
	if *series != "" {
		exit(benchSeries(ctx, *series, *dir))
		return
	}
	o := bench.Options{Corpus: *corpus, Markdown: *markdown, Dir: *dir, Command: "make bench CORPUS=dir", Out: os.Stdout}
	exit(bench.Run(ctx, o))
}

func exit(err error) {
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", strings.TrimSpace(err.Error()))
	os.Exit(1)
}

func benchSeries(ctx context.Context, size, dir string) error {
	series, err := count(size)
	if err != nil {
		return fmt.Errorf("-series %w", err)
	}
	return bench.RunSeries(ctx, bench.MadeUpOptions{Series: series, Dir: dir, Out: os.Stdout})
}

// benchIndex measures the index, and a tenth of as many pending objects as it has segments.
func benchIndex(ctx context.Context, size, dir, markdown string) error {
	segments, err := count(size)
	if err != nil {
		return fmt.Errorf("-index %w", err)
	}
	o := indexbench.Options{Segments: segments, Pending: max(segments/10, 1), Dir: dir, Out: os.Stdout}
	if markdown != "" {
		file, err := os.Create(markdown)
		if err != nil {
			return err
		}
		defer file.Close()
		o.Out = io.MultiWriter(os.Stdout, file)
	}
	o.Log = func(step string, took time.Duration) {
		fmt.Fprintf(os.Stderr, "%-32s %s\n", step, took.Round(time.Millisecond))
	}
	_, err = indexbench.Run(ctx, o)
	return err
}

// count reads a number such as 200k or 10M.
func count(text string) (int, error) {
	unit := 1
	switch {
	case strings.HasSuffix(text, "k"):
		unit = 1_000
	case strings.HasSuffix(text, "M"):
		unit = 1_000_000
	}
	n, err := strconv.Atoi(strings.TrimRight(text, "kM"))
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s: want a number such as 200k or 10M", text)
	}
	return n * unit, nil
}
