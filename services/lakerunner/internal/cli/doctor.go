// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/doctor"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/up"
)

// newDoctor is `lakerunner doctor`.
func newDoctor(client *client) *cobra.Command {
	var files []string
	var output string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps it from working, and say what to do",
		Long: `Check the server, PostgreSQL, the buckets (write, read, list, delete), that events arrive, the clocks of database and bucket, and permissions.

Database and buckets are those of ` + "`lakerunner up`" + `, or of LRDB_URL, CONFIGDB_URL, S3_BUCKET and --config.`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return diagnose(c.Context(), client, files, output)
		},
	}
	c.Flags().StringSliceVarP(&files, "config", "c", nil, "configuration files of the services")
	addFormat(c, &output)
	return c
}

func diagnose(ctx context.Context, client *client, files []string, output string) error {
	if err := client.resolve(); err != nil {
		return err
	}
	env := client.env
	o := doctor.Options{
		Database: env.Getenv("LRDB_URL"), ConfigDB: env.Getenv("CONFIGDB_URL"), Files: files, Environ: env.Environ, Address: client.address,
		AskServer: func(ctx context.Context) error {
			return client.query(ctx, func(ctx context.Context, service queryv1.QueryServiceClient) error {
				_, err := service.ListLabels(ctx, &queryv1.ListLabelsRequest{})
				return err
			})
		},
		Show: func(r doctor.Result) { showResult(env, output, r) },
	}
	local, found, err := up.ReadAccess(client.dataDir())
	if err != nil {
		return err
	}
	if found {
		o.Data = client.dataDir()
		o.Database, o.ConfigDB = firstOf(o.Database, local.Database), firstOf(o.ConfigDB, local.Database)
		if len(files) == 0 {
			o.Files = []string{filepath.Join(o.Data, up.ConfigFile)}
		}
	}
	bad := 0
	for _, r := range doctor.Run(ctx, o) {
		if r.State == doctor.Bad {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("checks that failed: %d", bad)
	}
	return nil
}

func showResult(env Environment, output string, r doctor.Result) {
	if output == "table" {
		doctor.Print(env.Stdout, r)
		return
	}
	var b bytes.Buffer
	writeJSON(&b, r)
	_, _ = env.Stdout.Write(b.Bytes())
}
