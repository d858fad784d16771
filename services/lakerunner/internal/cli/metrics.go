// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/prom"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// newMetrics is `lakerunner metrics`.
func newMetrics(client *client) *cobra.Command {
	var span span
	var output string
	c := &cobra.Command{
		Use:   "metrics [MATCH...]",
		Short: "List metrics with type, unit, description and how many series they have",
		Long: `List metrics with type, unit, description and how many series they have.

MATCH is a series selector, such as http_server_requests_total or '{service_name="checkout"}', or a part of names with *, such as 'http_*'.
A metric is listed where any of its series matches any MATCH; its series count those that do.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			request := &queryv1.ListMetricsRequest{}
			var err error
			if request.Selectors, err = seriesSelectors(args); err != nil {
				return err
			}
			start, end, err := span.resolve(client.env.Now())
			if err != nil {
				return err
			}
			request.Start, request.End = timestamppb.New(start), timestamppb.New(end)
			return client.query(c.Context(), func(ctx context.Context, service queryv1.QueryServiceClient) error {
				answer, err := service.ListMetrics(ctx, request)
				if err != nil {
					return err
				}
				return printMetrics(client.env.Stdout, output, answer.GetMetrics())
			})
		},
	}
	span.addFlags(c.Flags(), "6h")
	addFormat(c, &output)
	return c
}

// newCardinality is `lakerunner cardinality`.
func newCardinality(client *client) *cobra.Command {
	var span span
	var output string
	var limit int32
	c := &cobra.Command{
		Use:   "cardinality [MATCH...]",
		Short: "Say which metrics and labels make series, which are new, and what they weigh",
		Long: `Say which metrics and labels make series, which are new, and what they weigh.

New and vanished series are told against the time of the same length before. MATCH is as in ` + "`lakerunner metrics`" + `.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(output); err != nil {
				return err
			}
			if limit < 1 {
				return usage("--limit %d: want 1 or more", limit)
			}
			request := &queryv1.GetCardinalityRequest{Limit: limit}
			var err error
			if request.Selectors, err = seriesSelectors(args); err != nil {
				return err
			}
			start, end, err := span.resolve(client.env.Now())
			if err != nil {
				return err
			}
			request.Start, request.End = timestamppb.New(start), timestamppb.New(end)
			return client.query(c.Context(), func(ctx context.Context, service queryv1.QueryServiceClient) error {
				answer, err := service.GetCardinality(ctx, request)
				if err != nil {
					return err
				}
				return printCardinality(client.env.Stdout, output, answer)
			})
		},
	}
	span.addFlags(c.Flags(), "6h")
	c.Flags().Int32Var(&limit, "limit", 20, "most metrics and labels, the largest")
	addFormat(c, &output)
	return c
}

// seriesSelectors reads selectors of series, and names with *.
func seriesSelectors(matches []string) ([]string, error) {
	selectors := make([]string, len(matches))
	for i, match := range matches {
		if strings.Contains(match, "*") && !strings.Contains(match, "{") {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(match), `\*`, ".*")
			match = "{" + model.MetricNameLabel + "=~" + strconv.Quote(pattern) + "}"
		}
		if _, err := prom.ParseSelector(match); err != nil {
			return nil, usage("%q is no series selector: %w", match, err)
		}
		selectors[i] = match
	}
	return selectors, nil
}

func printMetrics(out io.Writer, format string, metrics []*queryv1.Metric) error {
	if format == "json" {
		for _, m := range metrics {
			if err := printWhole(out, m); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable("NAME", "TYPE", "UNIT", "SERIES", "SAMPLES", "BYTES", "HELP")
	for _, m := range metrics {
		t.add(m.GetName(), cmp.Or(m.GetType(), "-"), cmp.Or(m.GetUnit(), "-"), formatCount(m.GetSeries()), formatCount(m.GetSamples()),
			formatBytes(m.GetBytes()),
			strings.Join(strings.Fields(m.GetHelp()), " "))
	}
	t.write(out)
	return nil
}

func printCardinality(out io.Writer, format string, answer *queryv1.GetCardinalityResponse) error {
	if format == "json" {
		return printWhole(out, answer)
	}
	fmt.Fprintf(out, "%s series, %s new, %s vanished; %s samples in %s\n\n", formatCount(answer.GetSeries()), formatCount(answer.GetNewSeries()),
		formatCount(answer.GetVanishedSeries()), formatCount(answer.GetSamples()), formatBytes(answer.GetBytes()))
	metrics := newTable("METRIC", "TYPE", "SERIES", "NEW", "VANISHED", "SAMPLES", "BYTES")
	for _, m := range answer.GetMetrics() {
		metrics.add(m.GetMetric().GetName(), cmp.Or(m.GetMetric().GetType(), "-"), formatCount(m.GetMetric().GetSeries()), formatCount(m.GetNewSeries()),
			formatCount(m.GetVanishedSeries()), formatCount(m.GetMetric().GetSamples()), formatBytes(m.GetMetric().GetBytes()))
	}
	metrics.write(out)
	fmt.Fprintln(out)
	names := newTable("LABEL", "SERIES", "VALUES", "MOST FREQUENT")
	for _, l := range answer.GetLabels() {
		names.add(l.GetName(), formatCount(l.GetSeries()), formatCount(l.GetValues()), formatTop(l.GetTop()))
	}
	names.write(out)
	return nil
}

// formatTop writes the most frequent values of a label that fit.
func formatTop(top []*queryv1.ValueCardinality) string {
	const most, widest = 3, 32
	var parts []string
	for _, v := range top[:min(len(top), most)] {
		value := v.GetValue()
		if runes := []rune(value); len(runes) > widest {
			value = string(runes[:widest-1]) + "…"
		}
		parts = append(parts, fmt.Sprintf("%s (%s)", strconv.Quote(value), formatCount(v.GetSeries())))
	}
	return strings.Join(parts, ", ")
}
