// SPDX-License-Identifier: AGPL-3.0-only

// Command lakerunner is LakeRunner in one binary: all services in one process (`lakerunner up`) and the command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/cli"
)

// version is the release; the linker sets it.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, cli.Environment{
		Args:     os.Args[1:],
		Stdin:    os.Stdin,
		Stdout:   os.Stdout,
		Stderr:   os.Stderr,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())),
		Columns:  columns(),
		Getenv:   os.Getenv,
		Environ:  os.Environ(),
		Now:      time.Now,
		Version:  version,
		Program:  os.Args[0],
	})
	stop()
	os.Exit(code)
}

// columns is the width of the terminal that standard output is; zero: it is none.
func columns() int {
	width, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return width
}
