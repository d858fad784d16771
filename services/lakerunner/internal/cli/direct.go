// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/up"
)

// direct is for the commands that work on database and buckets themselves, because there is no server to ask.
type direct struct {
	client             *client
	database, configDB string
	files              []string
}

func (d *direct) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&d.database, "database", "", "URL of the index's database (LRDB_URL)")
	flags.StringVar(&d.configDB, "config-database", "", "URL of the configuration's database (CONFIGDB_URL)")
	flags.StringSliceVarP(&d.files, "config", "c", nil, "configuration files of the services")
}

// open reads the configuration as a service does, and fills in what `lakerunner up` left in its data directory.
func (d *direct) open(ctx context.Context) (*host.Process, error) {
	env := d.client.env
	database, configDB, files := firstOf(d.database, env.Getenv("LRDB_URL")), firstOf(d.configDB, env.Getenv("CONFIGDB_URL")), d.files
	data := d.client.dataDir()
	local, found, err := up.ReadAccess(data)
	if err != nil {
		return nil, err
	}
	if found && len(files) == 0 && (database == "" || database == local.Database) {
		database, configDB = firstOf(database, local.Database), firstOf(configDB, local.Database)
		files = []string{filepath.Join(data, up.ConfigFile)}
	}
	if database == "" {
		return nil, usage("no database is named: set LRDB_URL or give --database")
	}
	settings := []string{"lrdb.url=" + database}
	if configDB != "" {
		settings = append(settings, "configdb.url="+configDB)
	}
	return host.NewProcess(ctx, host.Start{Name: "lakerunner", Files: files, Settings: settings, Environ: env.Environ})
}

// run opens a process for f and closes it.
func (d *direct) run(ctx context.Context, f func(ctx context.Context, p *host.Process) error) (err error) {
	p, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return f(ctx, p)
}

// printJSON writes a value as one JSON document a line.
func printJSON(out io.Writer, v any) {
	var b bytes.Buffer
	writeJSON(&b, v)
	_, _ = out.Write(b.Bytes())
}
