// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// newLabels is `lakerunner labels`.
func newLabels(client *client) *cobra.Command {
	var span span
	var selector string
	c := &cobra.Command{
		Use:   "labels [NAME]",
		Short: "List label names, or the values of one label",
		Args:  atMostOneArg,
		RunE: func(c *cobra.Command, args []string) error {
			start, end, err := span.resolve(client.env.Now())
			if err != nil {
				return err
			}
			from, to := timestamppb.New(start), timestamppb.New(end)
			return client.query(c.Context(), func(ctx context.Context, service queryv1.QueryServiceClient) error {
				if len(args) == 0 {
					answer, err := service.ListLabels(ctx, &queryv1.ListLabelsRequest{Selector: selector, Start: from, End: to})
					return printWords(client.env.Stdout, answer.GetLabels(), err)
				}
				answer, err := service.ListLabelValues(ctx, &queryv1.ListLabelValuesRequest{Label: args[0], Selector: selector, Start: from, End: to})
				return printWords(client.env.Stdout, answer.GetValues(), err)
			})
		},
	}
	span.addFlags(c.Flags(), "6h")
	c.Flags().StringVar(&selector, "selector", "", "only streams that match, such as '{service_name=\"checkout\"}'")
	return c
}

// newSeries is `lakerunner series`.
func newSeries(client *client) *cobra.Command {
	var span span
	var output string
	c := &cobra.Command{
		Use:   "series [SELECTOR...]",
		Short: "List the streams that match any selector",
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			start, end, err := span.resolve(client.env.Now())
			if err != nil {
				return err
			}
			return client.query(c.Context(), func(ctx context.Context, service queryv1.QueryServiceClient) error {
				answer, err := service.ListSeries(ctx, &queryv1.ListSeriesRequest{Selectors: args, Start: timestamppb.New(start), End: timestamppb.New(end)})
				if err != nil {
					return err
				}
				return printSeries(client.env.Stdout, output, answer.GetSeries())
			})
		},
	}
	span.addFlags(c.Flags(), "6h")
	addFormat(c, &output)
	return c
}

func addFormat(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "table", "table or json")
	completeWords(c, "output", "table", "json")
}

func printSeries(out io.Writer, format string, series []*queryv1.LabelSet) error {
	var b bytes.Buffer
	for _, s := range series {
		if format == "json" {
			writeJSON(&b, s.GetLabels())
			continue
		}
		fmt.Fprintln(&b, formatLabels(s.GetLabels()))
	}
	_, err := out.Write(b.Bytes())
	return err
}

func printWords(out io.Writer, words []string, err error) error {
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, w := range words {
		fmt.Fprintln(&b, w)
	}
	_, err = out.Write(b.Bytes())
	return err
}

// newExplain is `lakerunner explain`.
func newExplain(client *client) *cobra.Command {
	var span span
	var step, output string
	c := &cobra.Command{
		Use:   "explain LOGQL",
		Short: "Say what a query would read and cost, without reading",
		Args:  exactArgs(theQuery),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			if _, err := isMetric(args[0]); err != nil {
				return err
			}
			start, end, err := span.resolve(client.env.Now())
			if err != nil {
				return err
			}
			request := &queryv1.ExplainRequest{Query: args[0], Start: timestamppb.New(start), End: timestamppb.New(end)}
			if step != "" {
				length, err := parseLength(step)
				if err != nil {
					return usage("--step: %w", err)
				}
				request.Step = durationpb.New(length)
			}
			return client.query(c.Context(), func(ctx context.Context, service queryv1.QueryServiceClient) error {
				answer, err := service.Explain(ctx, request)
				if err != nil {
					return err
				}
				return printExplain(client.env.Stdout, output, answer)
			})
		},
	}
	span.addFlags(c.Flags(), "1h")
	c.Flags().StringVar(&step, "step", "", "step of a metric query; without it, it is evaluated once")
	addFormat(c, &output)
	return c
}

func printExplain(out io.Writer, format string, e *queryv1.ExplainResponse) error {
	if format == "json" {
		return printProto(out, proto.Message(e))
	}
	_, err := fmt.Fprintf(out, "segments   %s\nbytes      %s\nrows       %s\nrequests   %s\ntime       about %.2f s\nprice      about %.6f USD with cold caches\npending    %s objects\nfailed     %s objects\n\n%s\n",
		formatCount(e.GetSegments()), formatBytes(e.GetBytes()), formatCount(e.GetRows()), formatCount(e.GetObjectRequests()),
		e.GetEstimatedSeconds(), e.GetEstimatedPriceUsd(),
		formatCount(e.GetCompleteness().GetPendingObjects()), formatCount(e.GetCompleteness().GetFailedObjects()), e.GetPlan())
	return err
}
