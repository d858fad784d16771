// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
)

// maxUpload is what the server takes as content of a request.
const maxUpload = 64 << 20

// newIngest is `lakerunner ingest`.
func newIngest(client *client) *cobra.Command {
	var bucket, key, output string
	c := &cobra.Command{
		Use:   "ingest FILE|s3://BUCKET/KEY...",
		Short: "Ingest objects now, and wait until their rows can be queried",
		Long: `Ingest objects now, and wait until their rows can be queried.

A local file is put into the bucket first. An object that was ingested before is not ingested again.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("the file or object is missing; see `%s --help`", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			if key != "" && len(args) > 1 {
				return usage("--key names one object; %d were given", len(args))
			}
			return client.ingestor(c.Context(), func(ctx context.Context, service ingestorv1.IngestorServiceClient) error {
				for _, source := range args {
					if err := ingestOne(ctx, client.env.Stdout, service, source, bucket, key, output); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&bucket, "bucket", "", "bucket for a local file; default the organization's first")
	flags.StringVar(&key, "key", "", "key for a local file; default the organization's upload prefix and the file's name")
	addFormat(c, &output)
	return c
}

func ingestOne(ctx context.Context, out io.Writer, service ingestorv1.IngestorServiceClient, source, bucket, key, output string) error {
	object, content, err := openSource(source, bucket, key)
	if err != nil {
		return err
	}
	answer, err := service.IngestObject(ctx, &ingestorv1.IngestObjectRequest{Object: object, Content: content})
	if err != nil {
		return err
	}
	receipt := answer.GetReceipt()
	if output == "json" {
		err = printProto(out, answer)
	} else {
		_, err = fmt.Fprintf(out, "%s: %s\n", source, receiptLine(receipt))
	}
	if err == nil && receipt.GetState() == lakev1.ReceiptState_RECEIPT_STATE_FAILED {
		return usage("%s could not be ingested: %s", source, receipt.GetReason())
	}
	return err
}

// openSource reads a local file, or names a stored object.
func openSource(source, bucket, key string) (*lakev1.Object, []byte, error) {
	if strings.HasPrefix(source, "s3://") {
		bucket, key, err := parseURL(source)
		if err == nil && key == "" {
			err = usage("%s names a bucket; want s3://bucket/key", source)
		}
		return &lakev1.Object{Bucket: bucket, Key: key}, nil, err
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, nil, usage("%w", err)
	}
	if info.Size() > maxUpload {
		return nil, nil, usage("%s has %s; at most %s can be sent: put it into the bucket and name it as s3://bucket/key", source, formatBytes(info.Size()), formatBytes(maxUpload))
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return nil, nil, usage("%w", err)
	}
	if len(content) == 0 {
		return nil, nil, usage("%s is empty", source)
	}
	return &lakev1.Object{Bucket: bucket, Key: firstOf(key, filepath.Base(source)), Size: int64(len(content))}, content, nil
}

// parseURL splits s3://bucket/key.
func parseURL(s string) (bucket, key string, err error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return "", "", usage("%q: want s3://bucket/key", s)
	}
	rest := strings.TrimPrefix(s, "s3://"+u.Host)
	return u.Host, strings.TrimPrefix(rest, "/"), nil
}

func receiptLine(r *lakev1.Receipt) string {
	line := fmt.Sprintf("%s, %s, %s rows in, %s rows out", stateName(r.GetState()), firstOf(r.GetFormat(), "unknown format"), formatCount(r.GetRowsIn()), formatCount(r.GetRowsOut()))
	if rejected := formatCounts(r.GetRejected()); rejected != "" {
		line += ", rejected " + rejected
	}
	if r.GetReason() != "" {
		line += " (" + r.GetReason() + ")"
	}
	return line
}

// formatCounts writes counts by reason, sorted by reason.
func formatCounts(counts map[string]int64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s=%s", reason, formatCount(counts[reason])))
	}
	return strings.Join(parts, " ")
}

// newPreview is `lakerunner preview`.
func newPreview(client *client) *cobra.Command {
	var rows int32
	var output string
	c := &cobra.Command{
		Use:   "preview FILE|s3://BUCKET/KEY",
		Short: "Show what an object would become; nothing is written",
		Args:  exactArgs("the file or object"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			object, content, err := openSource(args[0], "", "")
			if err != nil {
				return err
			}
			return client.ingestor(c.Context(), func(ctx context.Context, service ingestorv1.IngestorServiceClient) error {
				answer, err := service.PreviewObject(ctx, &ingestorv1.PreviewObjectRequest{Object: object, Content: content, Rows: rows})
				if err != nil {
					return err
				}
				if output == "json" {
					return printProto(client.env.Stdout, answer)
				}
				return printPreview(client.env.Stdout, answer, client.env.Now().Location())
			})
		},
	}
	c.Flags().Int32Var(&rows, "rows", 10, "rows to show")
	addFormat(c, &output)
	return c
}

func printPreview(out io.Writer, p *ingestorv1.PreviewObjectResponse, zone *time.Location) error {
	fmt.Fprintf(out, "format    %s\nsignal    %s\nrows      %s in, %s out\n", firstOf(p.GetFormat(), "unknown"), signalName(p.GetSignal()), formatCount(p.GetRowsIn()), formatCount(p.GetRowsOut()))
	for _, line := range [][2]string{
		{"owner", p.GetOrganization()}, {"skipped", p.GetSkipReason()}, {"rejected", formatCounts(p.GetRejected())}, {"problem", p.GetProblem()},
	} {
		if line[1] != "" {
			fmt.Fprintf(out, "%-8s  %s\n", line[0], line[1])
		}
	}
	printAttributes(out, p.GetAttributes())
	printRows(out, p.GetFirstRows(), zone)
	for i, r := range p.GetFirstRejects() {
		if i == 0 {
			fmt.Fprintln(out, "\nREJECTED")
		}
		fmt.Fprintf(out, "%s: %s\n", r.GetReason(), r.GetRow())
	}
	return nil
}

func printAttributes(out io.Writer, attributes []*ingestorv1.Attribute) {
	if len(attributes) == 0 {
		return
	}
	fmt.Fprintln(out)
	t := newTable("ATTRIBUTE", "TYPE", "FROM", "ROWS")
	for _, a := range attributes {
		t.add(a.GetName(), a.GetType(), a.GetScope(), formatCount(a.GetRows()))
	}
	t.write(out)
}

func printRows(out io.Writer, rows []*ingestorv1.PreviewRow, zone *time.Location) {
	for _, r := range rows {
		fmt.Fprintf(out, "\n%s (%s)  %s\n  %s\n", r.GetTime().AsTime().In(zone).Format("2006-01-02 15:04:05.000"), r.GetTimeSource(), formatLabels(r.GetLabels()),
			strings.ReplaceAll(r.GetBody(), "\n", "\n    "))
		if len(r.GetMetadata()) > 0 {
			fmt.Fprintf(out, "  metadata  %s\n", formatLabels(r.GetMetadata()))
		}
		if r.GetTemplate() != "" {
			fmt.Fprintf(out, "  template  %s\n", r.GetTemplate())
		}
	}
}

func stateName(s lakev1.ReceiptState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "RECEIPT_STATE_"))
}

func signalName(s lakev1.Signal) string {
	if s == lakev1.Signal_SIGNAL_UNSPECIFIED {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(s.String(), "SIGNAL_"))
}
