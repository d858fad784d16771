// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

func newStatus(client *client) *cobra.Command {
	var organization, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show debt, lag, completeness, orphans, retention and price at a glance",
		Long: `Show each organization at a glance: what is stored, what compaction owes, how long objects wait to be ingested, whether the bucket and the
receipts agree, what is buried, orphaned or missing, the last retention run and its proof, and what it costs a month.

A line that needs a look begins with "!" and says what to do.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				status, err := service.GetStatus(ctx, &janitorv1.GetStatusRequest{Organization: organization})
				if err != nil {
					return err
				}
				if output == "json" {
					return printProto(client.env.Stdout, status)
				}
				return printStatus(client.env.Stdout, status, client.env.Now())
			})
		},
	}
	c.Flags().StringVar(&organization, "organization", "", "only this one (another than the key's own needs the admin scope)")
	addFormat(c, &output)
	return c
}

func (c *client) janitor(ctx context.Context, f func(context.Context, janitorv1.JanitorServiceClient) error) error {
	return c.call(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, janitorv1.NewJanitorServiceClient(conn))
	})
}

func printStatus(out io.Writer, status *janitorv1.GetStatusResponse, now time.Time) error {
	for i, o := range status.GetOrganizations() {
		if i > 0 {
			fmt.Fprintln(out)
		}
		t := &table{}
		for _, l := range statusLines(o, now) {
			mark := " "
			if l.remedy != "" {
				mark, l.value = "!", l.value+"; "+l.remedy
			}
			t.add(mark, l.name, l.value)
		}
		fmt.Fprintf(out, "organization %s\n", o.GetOrganization())
		t.write(out)
	}
	return nil
}

// statusLine is one figure; remedy is empty when all is well.
type statusLine struct{ name, value, remedy string }

// Waits longer than these are worth a look.
const (
	longLag      = 5 * time.Minute
	longSnapshot = 48 * time.Hour
)

func statusLines(o *janitorv1.OrganizationStatus, now time.Time) []statusLine {
	lines := []statusLine{
		{name: "segments", value: formatSegments(o.GetSegments())},
		{name: "compaction debt", value: formatSegments(o.GetDebt())},
		lagLine(o),
		{name: "failed objects", value: formatCount(o.GetReceipts()["failed"]), remedy: when(o.GetReceipts()["failed"] > 0, "see: lakerunner receipts --state failed")},
		{name: "buried tasks", value: firstOf(formatCounts(o.GetBuried()), "0"), remedy: when(len(o.GetBuried()) > 0, "each has its cause in the log and is tried again when asked for")},
		completenessLine(o),
		{name: "missing files", value: formatCount(o.GetMissing()), remedy: when(o.GetMissing() > 0, "see: lakerunner janitor missing")},
		{name: "orphaned leases", value: formatCount(o.GetAbandonedLeases()) + " to sweep"},
		{name: "removed, in grace", value: formatSegments(o.GetRemoved())},
		{name: "records to ship", value: formatCount(o.GetRecordsToShip())},
		snapshotLine(o, now),
		retentionLine(o.GetLastRetention(), now.Location()),
		{name: "deletes under way", value: formatCount(o.GetDeletesUnderWay())},
	}
	return append(lines, priceLines(o)...)
}

func when(bad bool, remedy string) string {
	if bad {
		return remedy
	}
	return ""
}

func formatSegments(c *janitorv1.Count) string {
	return fmt.Sprintf("%s, %s, %s", formatCounted(c.GetSegments(), "segment"), formatCounted(c.GetRows(), "row"), formatBytes(c.GetBytes()))
}

func lagLine(o *janitorv1.OrganizationStatus) statusLine {
	if o.GetIngestLag() == nil {
		return statusLine{name: "ingest lag", value: "none: nothing waits"}
	}
	lag := o.GetIngestLag().AsDuration().Round(time.Second)
	return statusLine{
		name: "ingest lag", value: fmt.Sprintf("%s, %s waiting", lag, formatCounted(o.GetReceipts()["pending"], "object")),
		remedy: when(lag > longLag, "add ingestors, or look at their log"),
	}
}

func completenessLine(o *janitorv1.OrganizationStatus) statusLine {
	if o.GetComparedObjects() == 0 {
		return statusLine{name: "completeness", value: "nothing compared in the last 24 h"}
	}
	missed := o.GetComparedObjects() - o.GetKnownObjects()
	return statusLine{
		name:   "completeness",
		value:  fmt.Sprintf("%s of %s of the last 24 h have receipts", formatCount(o.GetKnownObjects()), formatCounted(o.GetComparedObjects(), "object")),
		remedy: when(missed > 0, "missed ones were handed to the notifier; see: lakerunner janitor completeness"),
	}
}

func snapshotLine(o *janitorv1.OrganizationStatus, now time.Time) statusLine {
	if o.GetLastSnapshot() == nil {
		return statusLine{name: "index snapshot", value: "none yet"}
	}
	return statusLine{
		name: "index snapshot", value: formatTime(o.GetLastSnapshot(), now.Location()),
		remedy: when(now.Sub(o.GetLastSnapshot().AsTime()) > longSnapshot, "it is old: look at the janitor's log"),
	}
}

// retentionLine follows one run from what was due to what was seen to be gone.
func retentionLine(r *janitorv1.RetentionRun, zone *time.Location) statusLine {
	if r == nil {
		return statusLine{name: "retention", value: "nothing was due yet"}
	}
	return statusLine{name: "retention", value: fmt.Sprintf("%s: %s due, %s removed, %s deleted, %s seen to be gone", formatTime(r.GetStartedAt(), zone),
		formatCounted(r.GetDue().GetSegments(), "segment"), formatCount(r.GetRemoved().GetSegments()),
		formatCount(r.GetDeleted().GetSegments()), formatCount(r.GetVerified().GetSegments()))}
}

func priceLines(o *janitorv1.OrganizationStatus) []statusLine {
	r := o.GetRequests()
	return []statusLine{
		{name: "source objects", value: formatBytes(o.GetRawBytes())},
		{name: "requests, 24 h", value: fmt.Sprintf("%s PUT, %s GET, %s LIST, %s DELETE", formatCount(r.GetPuts()), formatCount(r.GetGets()),
			formatCount(r.GetLists()), formatCount(r.GetDeletes()))},
		{name: "price", value: fmt.Sprintf("%.2f US dollars a month", o.GetDollarsPerMonth())},
	}
}
