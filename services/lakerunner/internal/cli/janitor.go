// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

// janitorFlags are those of all duties.
type janitorFlags struct {
	organization string
	dryRun       bool
	bucket       string
	prefix       string
	inventory    string
	snapshot     bool
	at           string
	start        *timestamppb.Timestamp // of at; nil: none was given
}

// duty is one command below `lakerunner janitor`.
type duty struct {
	use, short string
	flags      func(c *cobra.Command, f *janitorFlags)
	call       func(ctx context.Context, service janitorv1.JanitorServiceClient, f *janitorFlags) (proto.Message, error)
}

func newJanitor(client *client) *cobra.Command {
	c := &cobra.Command{
		Use:   "janitor",
		Short: "Run one of the janitor's duties now, or say what it would do",
		Long: `The janitor does its duties by itself. These commands do one now, or with --dry-run say what it would do, and show their accounts. Each prints
one JSON document.`,
		Example: `  lakerunner janitor retention --dry-run
  lakerunner janitor reconcile --bucket telemetry --prefix otel-raw/acme/
  lakerunner janitor completeness`,
	}
	for _, d := range duties() {
		c.AddCommand(d.command(client))
	}
	return onlyCommands(c)
}

func (d duty) command(client *client) *cobra.Command {
	f := &janitorFlags{}
	c := &cobra.Command{
		Use: d.use, Short: d.short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				if err := f.resolve(client.env); err != nil {
					return err
				}
				answer, err := d.call(ctx, service, f)
				if err != nil {
					return err
				}
				return printWhole(client.env.Stdout, answer)
			})
		},
	}
	c.Flags().StringVar(&f.organization, "organization", "", "another organization than the key's own (needs the admin scope)")
	if d.flags != nil {
		d.flags(c, f)
	}
	return c
}

// resolve reads the time that was given.
func (f *janitorFlags) resolve(env Environment) error {
	if f.at == "" {
		return nil
	}
	at, err := parseTime(f.at, env.Now())
	f.start = timestamppb.New(at)
	return err
}

func dryRun(c *cobra.Command, f *janitorFlags) {
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, change nothing")
}

func inspected(c *cobra.Command, f *janitorFlags) {
	dryRun(c, f)
	c.Flags().StringVar(&f.at, "at", "", "any time in the day to look at; empty: where the duty goes on by itself")
}

func reconciled(c *cobra.Command, f *janitorFlags) {
	dryRun(c, f)
	c.Flags().StringVar(&f.bucket, "bucket", "", "only this bucket")
	c.Flags().StringVar(&f.prefix, "prefix", "", "only keys with this prefix; empty: those that objects were received under lately")
	c.Flags().StringVar(&f.inventory, "inventory", "", "key of the manifest.json of an S3 Inventory to read instead of listing")
}

func shipped(c *cobra.Command, f *janitorFlags) {
	dryRun(c, f)
	c.Flags().BoolVar(&f.snapshot, "snapshot", false, "write a snapshot of the index too")
}

func prefixed(c *cobra.Command, f *janitorFlags) {
	c.Flags().StringVar(&f.prefix, "prefix", "", "only prefixes that begin so")
}

func duties() []duty {
	type (
		ctx     = context.Context
		service = janitorv1.JanitorServiceClient
		flags   = *janitorFlags
	)
	return []duty{
		{"retention", "Remove segments that are past their retention", dryRun, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.RunRetention(ctx, &janitorv1.RunRetentionRequest{Organization: f.organization, ValidateOnly: f.dryRun})
		}},
		{"runs", "Show the runs of retention and their proof", nil, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ListRetentionRuns(ctx, &janitorv1.ListRetentionRunsRequest{Organization: f.organization})
		}},
		{"sweep", "Delete files that are nobody's any more", dryRun, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.SweepFiles(ctx, &janitorv1.SweepFilesRequest{Organization: f.organization, ValidateOnly: f.dryRun})
		}},
		{"inspect", "Compare LakeRunner's own files with the index", inspected, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.InspectFiles(ctx, f.inspection())
		}},
		{"missing", "List live segments whose file is gone", nil, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ListMissingFiles(ctx, &janitorv1.ListMissingFilesRequest{Organization: f.organization})
		}},
		{"reconcile", "Compare source objects with receipts", reconciled, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ReconcileObjects(ctx, &janitorv1.ReconcileObjectsRequest{
				Organization: f.organization, Bucket: f.bucket, Prefix: f.prefix, Inventory: f.inventory, ValidateOnly: f.dryRun,
			})
		}},
		{"completeness", "Show by prefix and hour how many objects have receipts", prefixed, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ListCompleteness(ctx, &janitorv1.ListCompletenessRequest{Organization: f.organization, Prefix: f.prefix})
		}},
		{"fields", "Have the field rules applied that are due", dryRun, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ApplyFieldRules(ctx, &janitorv1.ApplyFieldRulesRequest{Organization: f.organization, ValidateOnly: f.dryRun})
		}},
		{"raw", "Expire or move source objects by policy", dryRun, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ManageRawObjects(ctx, &janitorv1.ManageRawObjectsRequest{Organization: f.organization, ValidateOnly: f.dryRun})
		}},
		{"maintain", "Make partitions ahead, drop old ones, trim history", dryRun, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.MaintainIndex(ctx, &janitorv1.MaintainIndexRequest{ValidateOnly: f.dryRun})
		}},
		{"ship", "Bring commit records, and a snapshot, into the bucket", shipped, func(ctx ctx, s service, f flags) (proto.Message, error) {
			return s.ShipRecords(ctx, &janitorv1.ShipRecordsRequest{Organization: f.organization, Snapshot: f.snapshot, ValidateOnly: f.dryRun})
		}},
	}
}

func (f *janitorFlags) inspection() *janitorv1.InspectFilesRequest {
	return &janitorv1.InspectFilesRequest{Organization: f.organization, ValidateOnly: f.dryRun, Start: f.start}
}
