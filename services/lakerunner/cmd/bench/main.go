// SPDX-License-Identifier: AGPL-3.0-only

// Command bench measures ingest and queries on a corpus; see `make bench`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/bench"
)

func main() {
	corpus := flag.String("corpus", "", "folder with otlp/*.binpb.gz and truth.json")
	markdown := flag.String("markdown", "", "write the figures to this file as well")
	dir := flag.String("dir", "", "workplace that is kept; default a temporary one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o := bench.Options{Corpus: *corpus, Markdown: *markdown, Dir: *dir, Command: "make bench CORPUS=dir", Out: os.Stdout}
	if err := bench.Run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", strings.TrimSpace(err.Error()))
		os.Exit(1)
	}
}
