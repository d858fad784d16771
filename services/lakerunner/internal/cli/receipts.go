// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
)

// receiptsCommand is `lakerunner receipts`.
type receiptsCommand struct {
	client       *client
	organization string
	state        string
	bucket       string
	prefix       string
	limit        int
	replay       bool
	dryRun       bool
	output       string
}

func newReceipts(client *client) *cobra.Command {
	r := &receiptsCommand{client: client}
	c := &cobra.Command{
		Use:   "receipts [ID...]",
		Short: "Show what became of each object, and replay objects",
		Long: `Show what became of each object, newest first, or with --replay ingest objects once more.

Replayed are the receipts named, or all that match --state and --prefix.`,
		Example: `  lakerunner receipts --state failed
  lakerunner receipts --replay --state failed --prefix otel-raw/default/
  lakerunner receipts --replay 1042 1043`,
		RunE: func(c *cobra.Command, args []string) error { return r.run(c.Context(), args) },
	}
	flags := c.Flags()
	flags.StringVar(&r.organization, "organization", "", "another organization than the key's own (needs the admin scope); -: objects that no storage profile claims")
	flags.StringVar(&r.state, "state", "", "only pending, done, skipped, failed or superseded ones")
	flags.StringVar(&r.bucket, "bucket", "", "only of this bucket")
	flags.StringVar(&r.prefix, "prefix", "", "only keys with this prefix")
	flags.IntVar(&r.limit, "limit", 100, "most receipts to show")
	flags.BoolVar(&r.replay, "replay", false, "ingest them once more")
	flags.BoolVar(&r.dryRun, "dry-run", false, "with --replay: count only")
	addFormat(c, &r.output)
	completeWords(c, "state", "pending", "done", "skipped", "failed", "superseded")
	return c
}

func (r *receiptsCommand) run(ctx context.Context, ids []string) error {
	if err := checkFormat(r.output); err != nil {
		return err
	}
	state, err := parseState(r.state)
	if err != nil {
		return err
	}
	switch {
	case len(ids) > 0 && !r.replay:
		return usage("receipt ids are for --replay")
	case r.replay && len(ids) == 0 && r.state == "":
		return usage("--replay needs receipt ids, or --state failed, skipped or done")
	}
	return r.client.ingestor(ctx, func(ctx context.Context, service ingestorv1.IngestorServiceClient) error {
		if r.replay {
			return r.replayAll(ctx, service, ids, state)
		}
		return r.list(ctx, service, state)
	})
}

func (r *receiptsCommand) list(ctx context.Context, service ingestorv1.IngestorServiceClient, state lakev1.ReceiptState) error {
	t := newTable("ID", "STATE", "UPDATED", "ROWS IN", "ROWS OUT", "FORMAT", "OBJECT", "REMARK")
	request := &ingestorv1.ListReceiptsRequest{Organization: r.organization, State: state, Bucket: r.bucket, KeyPrefix: r.prefix}
	for shown := 0; shown < r.limit; {
		request.PageSize = int32(min(r.limit-shown, 1000))
		page, err := service.ListReceipts(ctx, request)
		if err != nil {
			return err
		}
		for _, receipt := range page.GetReceipts() {
			if r.output == "json" {
				if err := printProto(r.client.env.Stdout, receipt); err != nil {
					return err
				}
				continue
			}
			r.addRow(t, receipt)
		}
		shown += len(page.GetReceipts())
		request.PageToken = page.GetNextPageToken()
		if request.GetPageToken() == "" {
			break
		}
	}
	if r.output == "table" {
		t.write(r.client.env.Stdout)
	}
	return nil
}

func (r *receiptsCommand) addRow(t *table, receipt *lakev1.Receipt) {
	remark := receipt.GetReason()
	if rejected := formatCounts(receipt.GetRejected()); rejected != "" {
		remark = strings.TrimPrefix(remark+"; rejected "+rejected, "; ")
	}
	t.add(receipt.GetReceiptId(), stateName(receipt.GetState()), formatTime(receipt.GetUpdatedAt(), r.client.env.Now().Location()),
		formatCount(receipt.GetRowsIn()), formatCount(receipt.GetRowsOut()), firstOf(receipt.GetFormat(), "-"),
		fmt.Sprintf("s3://%s/%s", receipt.GetObject().GetBucket(), receipt.GetObject().GetKey()), remark)
}

func (r *receiptsCommand) replayAll(ctx context.Context, service ingestorv1.IngestorServiceClient, ids []string, state lakev1.ReceiptState) error {
	answer, err := service.ReplayObjects(ctx, &ingestorv1.ReplayObjectsRequest{
		Organization: r.organization, ReceiptIds: ids, State: state, KeyPrefix: r.prefix, ValidateOnly: r.dryRun,
	})
	if err != nil {
		return err
	}
	if r.output == "json" {
		return printProto(r.client.env.Stdout, answer)
	}
	verb := "queued to be ingested once more"
	if r.dryRun {
		verb = "would be replayed"
	}
	_, err = fmt.Fprintf(r.client.env.Stdout, "%s (%s) %s\n", formatCounted(answer.GetObjects(), "object"), formatBytes(answer.GetBytes()), verb)
	return err
}

func parseState(s string) (lakev1.ReceiptState, error) {
	if s == "" {
		return lakev1.ReceiptState_RECEIPT_STATE_UNSPECIFIED, nil
	}
	n, ok := lakev1.ReceiptState_value["RECEIPT_STATE_"+strings.ToUpper(s)]
	if !ok || n == 0 {
		return 0, usage("--state %q: want pending, done, skipped, failed or superseded", s)
	}
	return lakev1.ReceiptState(n), nil
}
