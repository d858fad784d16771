// SPDX-License-Identifier: AGPL-3.0-only

// Package cli is LakeRunner's command line. A command asks a server by gRPC, as any other client would, and prints the answer;
// `up`, `migrate` and `doctor` are the exceptions, because they work when there is no server (yet).
//
// Answers go to standard output and nothing else does: progress, statistics and remarks go to standard error.
package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// Environment is what a command sees of the world, so that tests can give it another one.
type Environment struct {
	Args     []string // without the program's name
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Terminal bool // Stderr is a terminal: progress may be drawn
	Columns  int  // of the terminal that Stdout is; zero: it is none
	Getenv   func(string) string
	Environ  []string
	Now      func() time.Time
	Version  string // of the release
	Program  string // as it was called; empty: lakerunner
}

// Run executes the command line and returns the process's exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
func Run(ctx context.Context, env Environment) int {
	root := newRoot(env)
	root.SetArgs(env.Args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return 130
	}
	fmt.Fprintln(env.Stderr, "lakerunner:", explainError(err))
	if isUsage(err) {
		return 2
	}
	return 1
}

func newRoot(env Environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "lakerunner",
		Short: "Query and run an observability lake in your own bucket",
		Long: `LakeRunner turns an S3-compatible bucket into an observability backend.

  lakerunner up                                          start everything on this machine
  lakerunner query '{service_name="checkout"} |= "declined"'   ask it for logs
  lakerunner query --promql 'sum(rate(http_server_requests_total[5m]))'   and for metrics

A command finds the server by --address and --api-key, else by LAKERUNNER_ADDRESS and LAKERUNNER_API_KEY,
else by what ` + "`lakerunner up`" + ` left in its data directory.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage("%w; see `%s --help`", err, c.CommandPath()) })
	client := &client{env: env}
	client.addFlags(root)
	root.AddGroup(
		&cobra.Group{ID: "ask", Title: "Ask:"},
		&cobra.Group{ID: "feed", Title: "Feed:"},
		&cobra.Group{ID: "run", Title: "Run:"},
	)
	addGroup(root, "ask", newQuery(client), newLabels(client), newSeries(client), newMetrics(client), newCardinality(client), newExplain(client))
	addGroup(root, "feed", newIngest(client), newPreview(client), newReceipts(client), newBackfill(client))
	addGroup(root, "run", newUp(env), newStatus(client), newCompact(client), newRollup(client), newJanitor(client), newDelete(client), newAudit(client), newConfig(client), newAPIKey(client), newMigrate(env), newRebuild(client), newVerify(client), newDoctor(client))
	root.AddCommand(newVersion(env))
	return onlyCommands(root)
}

func addGroup(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}
