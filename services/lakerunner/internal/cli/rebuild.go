// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/rebuild"
)

// rebuildCommand is `lakerunner rebuild-index`.
type rebuildCommand struct {
	direct
	organizations []string
	buckets       []string
	dryRun        bool
	reconcile     bool
	output        string
}

func newRebuild(client *client) *cobra.Command {
	k := &rebuildCommand{direct: direct{client: client}}
	c := &cobra.Command{
		Use:   "rebuild-index",
		Short: "Make the index again from the bucket alone",
		Long: `Make the index again from the newest snapshot in the bucket and the commit records since: in an empty database, or in an older one that was
restored from a backup, which gets what the bucket knows besides. Stop the services first.

With --bucket OLD=NEW the lake has moved: records speak of OLD, and the index is to speak of NEW. See docs/recovery.md.`,
		Example: `  lakerunner rebuild-index --config lakerunner.yaml --dry-run
  lakerunner rebuild-index --config lakerunner.yaml --reconcile`,
		Args: exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error { return k.rebuild(c.Context()) },
	}
	k.addFlags(c)
	flags := c.Flags()
	flags.StringSliceVar(&k.organizations, "organization", nil, "only these; default all that have files in the buckets")
	flags.StringSliceVar(&k.buckets, "bucket", nil, "OLD=NEW: the name that a moved bucket has now")
	flags.BoolVar(&k.dryRun, "dry-run", false, "read everything, change nothing")
	flags.BoolVar(&k.reconcile, "reconcile", false, "then have source objects ingested that have no receipt")
	addFormat(c, &k.output)
	return c
}

func (k *rebuildCommand) rebuild(ctx context.Context) error {
	if err := checkFormat(k.output); err != nil {
		return err
	}
	buckets, err := renames(k.buckets)
	if err != nil {
		return err
	}
	return k.run(ctx, func(ctx context.Context, p *host.Process) error {
		o := rebuild.Options{
			Config: p.Source, Objects: p.Objects(), Buckets: buckets, DryRun: k.dryRun,
			Say: func(format string, args ...any) { fmt.Fprintf(k.client.env.Stderr, format+"\n", args...) },
		}
		for _, name := range k.organizations {
			o.Organizations = append(o.Organizations, lake.Organization(name))
		}
		return k.work(ctx, p, o)
	})
}

// work opens the database only where it is needed: a dry run of a rebuild reads the bucket alone.
func (k *rebuildCommand) work(ctx context.Context, p *host.Process, o rebuild.Options) error {
	if !k.dryRun {
		if err := host.Migrate(ctx, p.Settings.LRDB.URL, ""); err != nil {
			return err
		}
	}
	if !k.dryRun || k.reconcile {
		index, err := p.Index()
		if err != nil {
			return err
		}
		o.Index = index
	}
	results, err := rebuild.Run(ctx, o)
	k.show(results)
	if err != nil || !k.reconcile {
		return err
	}
	reconciled, err := rebuild.Reconcile(ctx, o)
	k.showReconciled(reconciled)
	return err
}

// renames reads OLD=NEW.
func renames(pairs []string) (map[string]string, error) {
	buckets := map[string]string{}
	for _, pair := range pairs {
		from, to, ok := strings.Cut(pair, "=")
		if !ok || from == "" || to == "" {
			return nil, usage("--bucket %q: want OLD=NEW", pair)
		}
		buckets[from] = to
	}
	return buckets, nil
}

func (k *rebuildCommand) show(results []rebuild.Result) {
	out := k.client.env.Stdout
	t := newTable("ORGANIZATION", "SNAPSHOT", "ROWS", "RECORDS", "NEWEST RECORD", "SEGMENTS", "REMOVED", "RECEIPTS", "DELETES")
	for _, r := range results {
		if k.output == "json" {
			printJSON(out, r)
			continue
		}
		newest := "-"
		if !r.Newest.IsZero() {
			newest = r.Newest.In(k.client.env.Now().Location()).Format(time.DateTime)
		}
		t.add(string(r.Organization), firstOf(r.Snapshot, "-"), formatCount(r.SnapshotRows), formatCount(r.Records), newest,
			formatCount(r.Segments), formatCount(r.Removed), formatCount(r.Receipts), formatCount(r.Deletes))
	}
	if k.output == "table" {
		t.write(out)
	}
}

func (k *rebuildCommand) showReconciled(reconciled []rebuild.Reconciled) {
	out := k.client.env.Stdout
	t := newTable("BUCKET", "OBJECTS", "MISSED", "BYTES", "RETAGGED")
	for _, r := range reconciled {
		if k.output == "json" {
			printJSON(out, r)
			continue
		}
		t.add(r.Bucket, formatCount(r.Objects), formatCount(r.Missed), formatBytes(r.Bytes), formatCount(r.Retagged))
	}
	if k.output == "table" {
		t.write(out)
	}
}
