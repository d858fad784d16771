// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
)

// compactCommand is `lakerunner compact`.
type compactCommand struct {
	client       *client
	organization string
	at           string
	day          bool
	dryRun       bool
	output       string
}

func newCompact(client *client) *cobra.Command {
	k := &compactCommand{client: client}
	c := &cobra.Command{
		Use:   "compact",
		Short: "Compact one window now, or say what compaction would do",
		Long: `Compact the hour of --at, or its day with --day, now. It is never needed: the compactor does so by itself. With --dry-run: say
what would be merged, and why.`,
		Example: `  lakerunner compact --at 2026-11-22T15:00:00Z --dry-run
  lakerunner compact --at now-1d --day`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return k.run(c.Context()) },
	}
	flags := c.Flags()
	flags.StringVar(&k.organization, "organization", "", "another organization than the key's own (needs the admin scope)")
	flags.StringVar(&k.at, "at", "now", "any time in the window")
	flags.BoolVar(&k.day, "day", false, "the whole day")
	flags.BoolVar(&k.dryRun, "dry-run", false, "plan only")
	addFormat(c, &k.output)
	return c
}

func (k *compactCommand) run(ctx context.Context) error {
	if err := checkFormat(k.output); err != nil {
		return err
	}
	at, err := parseTime(k.at, k.client.env.Now())
	if err != nil {
		return err
	}
	return k.client.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		answer, err := compactorv1.NewCompactorServiceClient(conn).CompactWindow(ctx, &compactorv1.CompactWindowRequest{
			Organization: k.organization, Start: timestamppb.New(at), Day: k.day, ValidateOnly: k.dryRun,
		})
		if err != nil {
			return err
		}
		if k.output == "json" {
			return printProto(k.client.env.Stdout, answer)
		}
		k.print(answer)
		return nil
	})
}

func (k *compactCommand) print(answer *compactorv1.CompactWindowResponse) {
	out, plan := k.client.env.Stdout, answer.GetPlan()
	fmt.Fprintf(out, "%s from %s: %s, %s, %s\n", time.Duration(plan.GetLengthSeconds())*time.Second, formatTime(plan.GetStart(), k.client.env.Now().Location()),
		formatCounted(plan.GetSegments(), "segment"), formatCounted(plan.GetRows(), "row"), formatBytes(plan.GetBytes()))
	for _, m := range plan.GetMerges() {
		fmt.Fprintf(out, "  merge %s (%s) to level %d: %s\n", formatCounted(int64(len(m.GetInputs())), "segment"), formatBytes(m.GetBytes()), m.GetLevel(), m.GetReason())
	}
	if plan.GetReason() != "" {
		fmt.Fprintf(out, "  %s\n", plan.GetReason())
	}
	if c := answer.GetConservation(); c != nil {
		fmt.Fprintf(out, "done: %s in = %s out + %s doubles + %s masked + %s deleted + %s expired; now %s, %s\n",
			formatCounted(c.GetRowsIn(), "row"), formatCount(c.GetRowsOut()), formatCount(c.GetDeduplicated()), formatCount(c.GetMasked()),
			formatCount(c.GetDeleted()), formatCount(c.GetExpired()), formatCounted(int64(len(answer.GetSegmentKeys())), "segment"), formatBytes(answer.GetBytes()))
	}
}
