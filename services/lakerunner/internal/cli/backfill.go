// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
)

// backfillCommand is `lakerunner backfill`.
type backfillCommand struct {
	client        *client
	after, before string
	rate          int32
	yes           bool
	dryRun        bool
}

func newBackfill(client *client) *cobra.Command {
	b := &backfillCommand{client: client}
	c := &cobra.Command{
		Use:   "backfill s3://BUCKET/PREFIX",
		Short: "Ingest what stands under a prefix already",
		Long: `Ingest what stands under a prefix already: newest first, throttled, and only after an estimate was agreed to.

Objects that were ingested before are passed over.`,
		Args: exactArgs("the prefix, as s3://bucket/prefix,"),
		RunE: func(c *cobra.Command, args []string) error { return b.run(c.Context(), args[0]) },
	}
	flags := c.Flags()
	flags.StringVar(&b.after, "after", "", "only objects modified at or after this time")
	flags.StringVar(&b.before, "before", "", "only objects modified before this time")
	flags.Int32Var(&b.rate, "rate", 0, "most objects a second; default the server's")
	flags.BoolVarP(&b.yes, "yes", "y", false, "start without asking")
	flags.BoolVar(&b.dryRun, "dry-run", false, "estimate only")
	c.AddCommand(newBackfillList(client), newBackfillShow(client), newBackfillPause(client), newBackfillResume(client))
	return c
}

func (b *backfillCommand) run(ctx context.Context, source string) error {
	bucket, prefix, err := parseURL(source)
	if err != nil {
		return err
	}
	after, before, err := b.bounds()
	if err != nil {
		return err
	}
	return b.client.notifier(ctx, func(ctx context.Context, service notifierv1.NotifierServiceClient) error {
		answer, err := service.EstimateBackfill(ctx, &notifierv1.EstimateBackfillRequest{Bucket: bucket, Prefix: prefix, ModifiedAfter: after, ModifiedBefore: before})
		if err != nil {
			return err
		}
		printEstimate(b.client.env.Stdout, answer.GetEstimate())
		if b.dryRun || !b.agreed() {
			return nil
		}
		created, err := service.CreateBackfill(ctx, &notifierv1.CreateBackfillRequest{
			Bucket: bucket, Prefix: prefix, ModifiedAfter: after, ModifiedBefore: before, ObjectsPerSecond: b.rate,
		})
		if err != nil {
			return err
		}
		id := created.GetBackfill().GetBackfillId()
		_, err = fmt.Fprintf(b.client.env.Stdout, "backfill %s is running; see `lakerunner backfill show %s`\n", id, id)
		return err
	})
}

func (b *backfillCommand) bounds() (after, before *timestamppb.Timestamp, err error) {
	now := b.client.env.Now()
	if b.after != "" {
		t, err := parseTime(b.after, now)
		if err != nil {
			return nil, nil, usage("--after: %w", err)
		}
		after = timestamppb.New(t)
	}
	if b.before != "" {
		t, err := parseTime(b.before, now)
		if err != nil {
			return nil, nil, usage("--before: %w", err)
		}
		before = timestamppb.New(t)
	}
	return after, before, nil
}

// agreed asks the user; no answer is a no.
func (b *backfillCommand) agreed() bool {
	if b.yes {
		return true
	}
	fmt.Fprint(b.client.env.Stderr, "Start it? [y/N] ")
	line, _ := bufio.NewReader(b.client.env.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	fmt.Fprintln(b.client.env.Stderr, "not started (answer y, or give --yes)")
	return false
}

func printEstimate(out io.Writer, e *notifierv1.BackfillEstimate) {
	atLeast := ""
	if e.GetTruncated() {
		atLeast = " at least (the listing was cut)"
	}
	fmt.Fprintf(out, "objects   %s%s, %s of them known already\nbytes     %s\nrequests  %s\nprice     about %.4f USD\ntime      about %s\n",
		formatCount(e.GetObjects()), atLeast, formatCount(e.GetKnownObjects()), formatBytes(e.GetBytes()), formatCount(e.GetRequests()), e.GetPriceUsd(), e.GetDuration().AsDuration().Round(time.Second))
}

func newBackfillList(client *client) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "list",
		Short: "List backfills, newest first",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.notifier(c.Context(), func(ctx context.Context, service notifierv1.NotifierServiceClient) error {
				backfills, err := allBackfills(ctx, service)
				if err != nil {
					return err
				}
				return printBackfills(client.env, output, backfills)
			})
		},
	}
	addFormat(c, &output)
	return c
}

func allBackfills(ctx context.Context, service notifierv1.NotifierServiceClient) ([]*notifierv1.Backfill, error) {
	var all []*notifierv1.Backfill
	request := &notifierv1.ListBackfillsRequest{}
	for {
		page, err := service.ListBackfills(ctx, request)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetBackfills()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}

func newBackfillShow(client *client) *cobra.Command {
	return backfillByID(client, "show ID", "Show one backfill", func(ctx context.Context, service notifierv1.NotifierServiceClient, id string) (*notifierv1.Backfill, error) {
		answer, err := service.GetBackfill(ctx, &notifierv1.GetBackfillRequest{BackfillId: id})
		return answer.GetBackfill(), err
	})
}

func newBackfillPause(client *client) *cobra.Command {
	return backfillByID(client, "pause ID", "Pause a running backfill", func(ctx context.Context, service notifierv1.NotifierServiceClient, id string) (*notifierv1.Backfill, error) {
		answer, err := service.PauseBackfill(ctx, &notifierv1.PauseBackfillRequest{BackfillId: id})
		return answer.GetBackfill(), err
	})
}

func newBackfillResume(client *client) *cobra.Command {
	return backfillByID(client, "resume ID", "Go on with a paused backfill", func(ctx context.Context, service notifierv1.NotifierServiceClient, id string) (*notifierv1.Backfill, error) {
		answer, err := service.ResumeBackfill(ctx, &notifierv1.ResumeBackfillRequest{BackfillId: id})
		return answer.GetBackfill(), err
	})
}

func backfillByID(client *client, use, short string, call func(context.Context, notifierv1.NotifierServiceClient, string) (*notifierv1.Backfill, error)) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  exactArgs("the backfill's id"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.notifier(c.Context(), func(ctx context.Context, service notifierv1.NotifierServiceClient) error {
				backfill, err := call(ctx, service, args[0])
				if err != nil {
					return err
				}
				return printBackfills(client.env, output, []*notifierv1.Backfill{backfill})
			})
		},
	}
	addFormat(c, &output)
	return c
}

func printBackfills(env Environment, format string, backfills []*notifierv1.Backfill) error {
	t := newTable("ID", "STATE", "PREFIX", "OBJECTS", "BYTES", "CREATED", "REMARK")
	for _, b := range backfills {
		if format == "json" {
			if err := printProto(env.Stdout, b); err != nil {
				return err
			}
			continue
		}
		t.add(b.GetBackfillId(), strings.ToLower(strings.TrimPrefix(b.GetState().String(), "BACKFILL_STATE_")),
			fmt.Sprintf("s3://%s/%s", b.GetBucket(), b.GetPrefix()),
			fmt.Sprintf("%s of %s", formatCount(b.GetObjectsDone()), formatCount(b.GetEstimate().GetObjects())),
			fmt.Sprintf("%s of %s", formatBytes(b.GetBytesDone()), formatBytes(b.GetEstimate().GetBytes())),
			formatTime(b.GetCreatedAt(), env.Now().Location()), b.GetReason())
	}
	if format == "table" {
		t.write(env.Stdout)
	}
	return nil
}
