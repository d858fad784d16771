// SPDX-License-Identifier: AGPL-3.0-only

// Command soak runs all services in one process under steady load, and says whether memory, debt and latency stay what they are; see `make soak`.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/soak"
)

func main() {
	length := flag.Duration("for", time.Hour, "how long")
	every := flag.Duration("every", 30*time.Second, "how often figures are taken")
	lines := flag.Int("lines", 1000, "rows put each second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := soak.Run(ctx, soak.Options{For: *length, Every: *every, Lines: *lines, Out: os.Stdout}); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}
