// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
)

// newDelete is `lakerunner delete`.
func newDelete(client *client) *cobra.Command {
	c := &cobra.Command{
		Use:   "delete",
		Short: "Delete rows for good, and show the proof of it",
		Long: `Delete rows by a LogQL selector, or points of metrics by a selector of series, and a range of time. They are in no answer from the moment the delete is made; compaction then writes them out
of the segments and rollups, replaced files go after the grace, and source objects are dealt with as --sources says. The certificate lists all that was touched,
and what cannot be forgotten.`,
	}
	c.AddCommand(newDeleteCreate(client), newDeleteList(client), newDeleteShow(client), newDeleteCertificate(client))
	return onlyCommands(c)
}

// deleteCommand is `lakerunner delete create`.
type deleteCommand struct {
	client       *client
	organization string
	signal       string
	from, to     string
	sources      string
	reason       string
	yes, dryRun  bool
	output       string
}

func newDeleteCreate(client *client) *cobra.Command {
	d := &deleteCommand{client: client}
	c := &cobra.Command{
		Use:   "create SELECTOR",
		Short: "Delete the rows that a selector lets through",
		Example: `  lakerunner delete create '{service_name="checkout"} |= "4111-1111"' --from 2026-11-01 --to 2026-11-02 --reason "card numbers in logs" --dry-run
  lakerunner delete create '{service_name="login"} | user_id="42"' --sources redact --reason "request 7 of user 42"
  lakerunner delete create --signal metrics '{__name__=~"shop_.+",pod="checkout-1"}' --from now-2h --reason "a broken exporter"`,
		Args: exactArgs("the selector"),
		RunE: func(c *cobra.Command, args []string) error { return d.run(c.Context(), args[0]) },
	}
	flags := c.Flags()
	flags.StringVar(&d.organization, "organization", "", "another organization than the key's own (needs the admin scope)")
	flags.StringVar(&d.signal, "signal", "logs", "logs, by a LogQL selector, or metrics, by a selector of series")
	flags.StringVar(&d.from, "from", "", "first event time, inclusive; default from the beginning")
	flags.StringVar(&d.to, "to", "", "end, exclusive; default now")
	flags.StringVar(&d.sources, "sources", "leave", "what happens to the source objects: leave, erase (the whole object), redact (keep a copy of the other rows; of logs alone)")
	flags.StringVar(&d.reason, "reason", "", "why, for the audit log")
	flags.BoolVarP(&d.yes, "yes", "y", false, "delete without asking")
	flags.BoolVar(&d.dryRun, "dry-run", false, "say what would be touched, change nothing")
	addFormat(c, &d.output)
	completeWords(c, "sources", "leave", "erase", "redact")
	completeWords(c, "signal", "logs", "metrics")
	return c
}

func (d *deleteCommand) run(ctx context.Context, selector string) error {
	request, err := d.request(selector)
	if err != nil {
		return err
	}
	return d.client.janitor(ctx, func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
		request.ValidateOnly = true
		planned, err := service.DeleteData(ctx, request)
		if err != nil {
			return err
		}
		if d.dryRun {
			return d.printPlan(planned)
		}
		if !d.yes && !d.agreed(planned) {
			return nil
		}
		request.ValidateOnly = false
		created, err := service.DeleteData(ctx, request)
		if err != nil {
			return err
		}
		if d.output == "json" {
			return printProto(d.client.env.Stdout, created.GetDelete())
		}
		id := created.GetDelete().GetDeleteId()
		_, err = fmt.Fprintf(d.client.env.Stdout, "delete %s is made: its rows are in no answer any more; see `lakerunner delete show %s`\n", id, id)
		return err
	})
}

func (d *deleteCommand) request(selector string) (*janitorv1.DeleteDataRequest, error) {
	if err := checkFormat(d.output); err != nil {
		return nil, err
	}
	if d.reason == "" {
		return nil, usage("--reason is missing: the audit log wants to know why")
	}
	policy, ok := janitorv1.SourcePolicy_value["SOURCE_POLICY_"+strings.ToUpper(d.sources)]
	if !ok || policy == 0 {
		return nil, usage("--sources %q: want leave, erase or redact", d.sources)
	}
	signal := lakev1.Signal(lakev1.Signal_value["SIGNAL_"+strings.ToUpper(d.signal)])
	if signal != lakev1.Signal_SIGNAL_LOGS && signal != lakev1.Signal_SIGNAL_METRICS {
		return nil, usage("--signal %q: want logs or metrics", d.signal)
	}
	request := &janitorv1.DeleteDataRequest{
		Organization: d.organization, Signal: signal, Selector: selector, Sources: janitorv1.SourcePolicy(policy), Reason: d.reason,
	}
	for _, bound := range []struct {
		flag, value string
		into        **timestamppb.Timestamp
	}{{"--from", d.from, &request.Start}, {"--to", d.to, &request.End}} {
		if bound.value == "" {
			continue
		}
		at, err := parseTime(bound.value, d.client.env.Now())
		if err != nil {
			return nil, usage("%s: %w", bound.flag, err)
		}
		*bound.into = timestamppb.New(at)
	}
	return request, nil
}

func (d *deleteCommand) printPlan(planned *janitorv1.DeleteDataResponse) error {
	if d.output == "json" {
		return printProto(d.client.env.Stdout, planned)
	}
	_, err := fmt.Fprintln(d.client.env.Stdout, d.plan(planned))
	return err
}

func (d *deleteCommand) plan(answer *janitorv1.DeleteDataResponse) string {
	planned, zone := answer.GetDelete(), d.client.env.Now().Location()
	streams := ""
	if answer.GetStreams() > 0 {
		streams = " and " + formatCounted(answer.GetStreams(), "stream")
		if d.signal == "metrics" {
			streams = " and " + formatCount(answer.GetStreams()) + " series"
		}
	}
	from := "the beginning"
	if planned.GetStart().AsTime().Unix() > 0 {
		from = formatTime(planned.GetStart(), zone)
	}
	return fmt.Sprintf("%s of %s, from %s to %s: in at most %s (%s)%s; source objects: %s", planned.GetSelector(), planned.GetOrganization(),
		from, formatTime(planned.GetEnd(), zone), formatCounted(planned.GetSegmentsLeft(), "segment"), formatBytes(planned.GetBytesLeft()), streams, d.sources)
}

// agreed asks the user; no answer is a no.
func (d *deleteCommand) agreed(planned *janitorv1.DeleteDataResponse) bool {
	fmt.Fprintf(d.client.env.Stderr, "%s\nDeleted rows do not come back. Delete them? [y/N] ", d.plan(planned))
	line, _ := bufio.NewReader(d.client.env.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	fmt.Fprintln(d.client.env.Stderr, "nothing was deleted (answer y, or give --yes)")
	return false
}

func newDeleteList(client *client) *cobra.Command {
	var organization, output string
	c := &cobra.Command{
		Use:   "list",
		Short: "List deletes, newest first",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				deletes, err := allDeletes(ctx, service, organization)
				if err != nil {
					return err
				}
				return printDeletes(client.env, output, deletes)
			})
		},
	}
	c.Flags().StringVar(&organization, "organization", "", "another organization than the key's own (needs the admin scope)")
	addFormat(c, &output)
	return c
}

func allDeletes(ctx context.Context, service janitorv1.JanitorServiceClient, organization string) ([]*janitorv1.Delete, error) {
	var all []*janitorv1.Delete
	request := &janitorv1.ListDeletesRequest{Organization: organization}
	for {
		page, err := service.ListDeletes(ctx, request)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetDeletes()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
	}
}

func newDeleteShow(client *client) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show how far a delete has come",
		Args:  exactArgs("the delete's id"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				answer, err := service.GetDelete(ctx, &janitorv1.GetDeleteRequest{DeleteId: args[0]})
				if err != nil {
					return err
				}
				return printDeletes(client.env, output, []*janitorv1.Delete{answer.GetDelete()})
			})
		},
	}
	addFormat(c, &output)
	return c
}

func printDeletes(env Environment, format string, deletes []*janitorv1.Delete) error {
	t := newTable("ID", "STATE", "SELECTOR", "CREATED", "ROWS DELETED", "SEGMENTS LEFT", "FILES LEFT", "OBJECTS LEFT", "REASON")
	for _, d := range deletes {
		if format == "json" {
			if err := printProto(env.Stdout, d); err != nil {
				return err
			}
			continue
		}
		t.add(d.GetDeleteId(), strings.ToLower(strings.TrimPrefix(d.GetState().String(), "DELETE_STATE_")), d.GetSelector(),
			formatTime(d.GetCreatedAt(), env.Now().Location()), formatCount(d.GetRowsDeleted()), formatCount(d.GetSegmentsLeft()),
			formatCount(d.GetFilesLeft()), formatCount(d.GetObjectsLeft()), d.GetReason())
	}
	if format == "table" {
		t.write(env.Stdout)
	}
	return nil
}

func newDeleteCertificate(client *client) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "certificate ID",
		Short: "Show every segment and object that a delete touched, and what cannot be forgotten",
		Args:  exactArgs("the delete's id"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				answer, err := service.GetCertificate(ctx, &janitorv1.GetCertificateRequest{DeleteId: args[0]})
				if err != nil {
					return err
				}
				if output == "json" {
					return printProto(client.env.Stdout, answer)
				}
				printCertificate(client.env, answer)
				return nil
			})
		},
	}
	addFormat(c, &output)
	return c
}

func printCertificate(env Environment, c *janitorv1.GetCertificateResponse) {
	out, zone, d := env.Stdout, env.Now().Location(), c.GetDelete()
	fmt.Fprintf(out, "delete %s of %s: %s\n", d.GetDeleteId(), d.GetOrganization(), d.GetSelector())
	if c.GetFinal() {
		fmt.Fprintf(out, "final: entry %s of the audit log, SHA-256 %s\n", c.GetAuditEntry(), c.GetSha256())
	} else {
		fmt.Fprintf(out, "not final: the delete is %s\n", strings.ToLower(strings.TrimPrefix(d.GetState().String(), "DELETE_STATE_")))
	}
	segments := newTable("SEGMENT", "ROWS", "REPLACED", "SEEN TO BE GONE", "FILE")
	for _, s := range c.GetSegments() {
		segments.add(s.GetSegmentId(), formatCount(s.GetRows()), formatTime(s.GetRemovedAt(), zone), formatTime(s.GetGoneAt(), zone), "s3://"+s.GetBucket()+"/"+s.GetKey())
	}
	segments.write(out)
	sources := newTable("RECEIPT", "ROWS", "SOURCE OBJECT", "WHEN", "OBJECT")
	for _, o := range c.GetObjects() {
		sources.add(o.GetReceiptId(), formatCount(o.GetRows()), firstOf(o.GetAction(), "waits"), formatTime(o.GetDoneAt(), zone),
			"s3://"+o.GetObject().GetBucket()+"/"+o.GetObject().GetKey())
	}
	sources.write(out)
	fmt.Fprintln(out, "What this delete cannot make forgotten:")
	for _, l := range c.GetLimits() {
		fmt.Fprintln(out, " - "+l)
	}
}
