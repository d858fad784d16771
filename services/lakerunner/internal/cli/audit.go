// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

// newAudit is `lakerunner audit`.
func newAudit(client *client) *cobra.Command {
	c := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit log, and prove that nobody changed it",
	}
	c.AddCommand(newAuditList(client), newAuditVerify(client))
	return onlyCommands(c)
}

func newAuditList(client *client) *cobra.Command {
	var organization, output string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the entries, newest first",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				return listAudit(ctx, client.env, service, organization, output)
			})
		},
	}
	c.Flags().StringVar(&organization, "organization", "", "another organization than the key's own (needs the admin scope)")
	addFormat(c, &output)
	return c
}

func listAudit(ctx context.Context, env Environment, service janitorv1.JanitorServiceClient, organization, output string) error {
	t := newTable("ENTRY", "AT", "ACTOR", "ORGANIZATION", "ACTION", "SUBJECT", "HASH")
	request := &janitorv1.ListAuditLogRequest{Organization: organization}
	for {
		page, err := service.ListAuditLog(ctx, request)
		if err != nil {
			return err
		}
		for _, e := range page.GetEntries() {
			if output == "json" {
				if err := printProto(env.Stdout, e); err != nil {
					return err
				}
				continue
			}
			t.add(e.GetEntryId(), formatTime(e.GetAt(), env.Now().Location()), e.GetActor(), firstOf(e.GetOrganization(), "-"), e.GetAction(), e.GetSubject(), e.GetHash())
		}
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			break
		}
	}
	if output == "table" {
		t.write(env.Stdout)
	}
	return nil
}

func newAuditVerify(client *client) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Compute the chain of hashes anew; keep the head somewhere else to compare it later",
		Args:  exactArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			return client.janitor(c.Context(), func(ctx context.Context, service janitorv1.JanitorServiceClient) error {
				answer, err := service.VerifyAuditLog(ctx, &janitorv1.VerifyAuditLogRequest{})
				if err != nil {
					return err
				}
				if broken := answer.GetFirstBrokenEntry(); broken != "" {
					return fmt.Errorf("the chain is broken at entry %s: it, or one before it, was changed", broken)
				}
				_, err = fmt.Fprintf(client.env.Stdout, "%s, the chain is whole; head %s\n", formatCount(answer.GetEntries())+" entries", answer.GetHead())
				return err
			})
		},
	}
}
