// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
)

// newMigrate is `lakerunner migrate`.
func newMigrate(env Environment) *cobra.Command {
	var database, configDB string
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the databases to this version's schema",
		Long: `Bring the index's database (LRDB_URL) and the configuration's (CONFIGDB_URL) to this version's schema.

Several at once do no harm: one works, the others wait. The version before this one keeps running meanwhile.`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			database, configDB = firstOf(database, env.Getenv("LRDB_URL")), firstOf(configDB, env.Getenv("CONFIGDB_URL"))
			if database == "" && configDB == "" {
				return usage("no database is named: set LRDB_URL or give --database")
			}
			if database != "" {
				if err := index.Migrate(c.Context(), database); err != nil {
					return err
				}
				fmt.Fprintln(env.Stdout, "the index's database is up to date")
			}
			if configDB != "" {
				if err := config.MigrateDB(c.Context(), configDB); err != nil {
					return err
				}
				fmt.Fprintln(env.Stdout, "the configuration's database is up to date")
			}
			return nil
		},
	}
	c.Flags().StringVar(&database, "database", "", "URL of the index's database (LRDB_URL)")
	c.Flags().StringVar(&configDB, "config-database", "", "URL of the configuration's database (CONFIGDB_URL)")
	return c
}
