// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/up"
)

// newUp is `lakerunner up`.
func newUp(env Environment) *cobra.Command {
	var o up.Options
	var verbose bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine, with sample telemetry",
		Long: `Run all services in one process on this machine, with PostgreSQL and an S3 server beside them, and load a few minutes of sample telemetry.

Everything is kept in the data directory: the next start goes on with the same data.
LRDB_URL names another database; S3_BUCKET, with S3_ENDPOINT and the AWS_ variables, another bucket.`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			o.Data = firstOf(o.Data, c.Flag("data").Value.String(), env.Getenv("LAKERUNNER_DATA"))
			o.Program = firstOf(env.Program, "lakerunner")
			o.Environ, o.Getenv, o.Now, o.Out = env.Environ, env.Getenv, env.Now, env.Stdout
			o.Log = slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: levelOf(verbose)}))
			return up.Run(c.Context(), o)
		},
	}
	flags := c.Flags()
	flags.StringVar(&o.HTTP, "http", up.DefaultHTTP, "address for Grafana, REST and webhook")
	flags.StringVar(&o.GRPC, "grpc", up.DefaultGRPC, "address for gRPC")
	flags.StringVar(&o.S3, "s3", up.DefaultS3, "address of the S3 server")
	flags.IntVar(&o.Postgres, "postgres-port", up.DefaultPostgres, "port of the local PostgreSQL; -1: any free one")
	flags.BoolVar(&o.NoSample, "no-sample", false, "load no sample telemetry")
	flags.BoolVar(&o.Trickle, "trickle", false, "go on making sample telemetry while it runs")
	flags.BoolVarP(&verbose, "verbose", "v", false, "log everything, not only what goes wrong")
	return c
}

func levelOf(verbose bool) slog.Level {
	if verbose {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}
