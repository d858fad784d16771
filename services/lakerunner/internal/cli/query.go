// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// queryCommand is `lakerunner query`.
type queryCommand struct {
	client    *client
	span      span
	step      string
	limit     int32
	direction string
	output    string
	labels    bool
	tail      bool
	stats     bool
	quiet     bool
	utc       bool
	promql    bool
	instant   bool
	width     int
}

func newQuery(client *client) *cobra.Command {
	q := &queryCommand{client: client}
	c := &cobra.Command{
		Use:   "query QUERY",
		Short: "Answer a LogQL query, or with --promql a PromQL one",
		Long: `Answer a LogQL query: log lines of a log query, samples of a metric query.
With --promql answer a PromQL query over metrics.

A LogQL metric query is evaluated at the end of the range, or with --step over the range.
A PromQL query is drawn over the range, or with --instant evaluated at its end.`,
		Example: `  lakerunner query '{service_name="checkout"} |= "declined"' --since 15m
  lakerunner query 'sum by (service_name) (count_over_time({service_name=~".+"}[1m]))' --step 1m -o json
  lakerunner query '{service_name="checkout"}' --tail
  lakerunner query --promql 'sum by (service_name) (rate(http_server_requests_total[5m]))' --since 3h
  lakerunner query --promql 'topk(5, process_memory_usage_bytes)' --instant`,
		Args: exactArgs(theQuery),
		RunE: func(c *cobra.Command, args []string) error {
			if q.promql {
				return q.promQL(c.Context(), args[0])
			}
			return q.run(c.Context(), args[0])
		},
	}
	flags := c.Flags()
	q.span.addFlags(flags, "1h")
	flags.BoolVar(&q.promql, "promql", false, "the query is PromQL")
	flags.BoolVar(&q.instant, "instant", false, "evaluate a PromQL query once, at the end")
	flags.StringVar(&q.step, "step", "", "step of a metric query; without it a LogQL query is evaluated once, at the end, and a PromQL query at a step that fits the range")
	flags.Int32Var(&q.limit, "limit", 100, "most lines of a log query")
	flags.StringVar(&q.direction, "direction", "backward", "order of lines: backward (newest first) or forward")
	flags.StringVarP(&q.output, "output", "o", "", "table, json (a document a line), raw (lines alone), arrow (an Arrow IPC stream), or chart (of samples over a range); default table, with --promql chart")
	flags.IntVar(&q.width, "width", 0, "columns of a chart (COLUMNS, or those of the terminal)")
	flags.BoolVar(&q.labels, "labels", false, "show all labels of each line in a table")
	flags.BoolVar(&q.tail, "tail", false, "go on showing new lines until interrupted")
	flags.BoolVar(&q.stats, "stats", false, "print statistics to standard error")
	flags.BoolVarP(&q.quiet, "quiet", "q", false, "no progress and no remarks on standard error")
	flags.BoolVar(&q.utc, "utc", false, "show times in UTC")
	completeWords(c, "output", "table", "json", "raw", "arrow", outputChart)
	completeWords(c, "direction", "backward", "forward")
	return c
}

func completeWords(c *cobra.Command, flag string, words ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func (q *queryCommand) run(ctx context.Context, query string) error {
	metric, err := isMetric(query)
	if err != nil {
		return err
	}
	if err := q.check(metric); err != nil {
		return err
	}
	start, end, err := q.span.resolve(q.client.env.Now())
	if err != nil {
		return err
	}
	return q.client.query(ctx, func(ctx context.Context, service queryv1.QueryServiceClient) error {
		switch {
		case q.output == "arrow":
			return q.arrow(ctx, service, query, start, end)
		case q.tail:
			return q.follow(ctx, service, query)
		case metric:
			return q.samples(ctx, service, query, start, end)
		}
		return q.lines(ctx, service, query, start, end)
	})
}

// isMetric parses the query here, so that a slip is shown before a server is asked.
func isMetric(query string) (bool, error) {
	expr, err := syntax.ParseExpr(query)
	if err != nil {
		return false, usage("LogQL: %w", err)
	}
	_, metric := expr.(syntax.SampleExpr)
	return metric, nil
}

// checkOutput refuses outputs that there are not.
func (q *queryCommand) checkOutput() error {
	switch q.output {
	case "table", "json", "raw", "arrow", outputChart:
		return nil
	}
	return usage("--output %q: want table, json, raw, arrow or chart", q.output)
}

func (q *queryCommand) check(metric bool) error {
	q.output = firstOf(q.output, "table")
	if err := q.checkOutput(); err != nil {
		return err
	}
	switch {
	case q.instant:
		return usage("--instant is for --promql; a LogQL metric query without --step is evaluated once")
	case q.output == outputChart && (!metric || q.step == ""):
		return usage("-o chart draws samples over a range: it wants a metric query and --step")
	case q.direction != "backward" && q.direction != "forward":
		return usage("--direction %q: want backward or forward", q.direction)
	case q.limit <= 0:
		return usage("--limit must be positive")
	case q.tail && metric:
		return usage("--tail shows lines; this is a metric query")
	case q.tail && q.output == "arrow":
		return usage("--tail cannot write Arrow; want -o table, json or raw")
	case q.step != "" && !metric:
		return usage("--step is for metric queries; this is a log query")
	}
	return nil
}

func (q *queryCommand) lines(ctx context.Context, service queryv1.QueryServiceClient, query string, start, end time.Time) error {
	meter := q.meter()
	defer meter.stop()
	stream, err := service.QueryLogs(ctx, &queryv1.QueryLogsRequest{
		Query: query, Start: timestamppb.New(start), End: timestamppb.New(end), Limit: q.limit, Direction: q.order(),
	})
	if err != nil {
		return err
	}
	printer := q.linePrinter()
	var last *queryv1.Statistics
	found := false
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			meter.finish(last)
			q.remarkNone(found, "lines", start, end)
			return nil
		}
		if err != nil {
			return err
		}
		if part.GetStatistics() != nil {
			last = part.GetStatistics()
			meter.update(last)
		}
		if len(part.GetLines()) == 0 {
			continue
		}
		found = true
		meter.clear()
		if err := printer.print(part.GetLines()); err != nil {
			return err
		}
	}
}

func (q *queryCommand) follow(ctx context.Context, service queryv1.QueryServiceClient, query string) error {
	stream, err := service.TailLogs(ctx, &queryv1.TailLogsRequest{Query: query})
	if err != nil {
		return err
	}
	printer := q.linePrinter()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil //nolint:nilerr // the end, or the user's own wish to stop
		}
		if err != nil {
			return err
		}
		if err := printer.print(part.GetLines()); err != nil {
			return err
		}
	}
}

func (q *queryCommand) samples(ctx context.Context, service queryv1.QueryServiceClient, query string, start, end time.Time) error {
	step, err := q.stepLength()
	if err != nil {
		return err
	}
	meter := q.meter()
	defer meter.stop()
	request := &queryv1.QuerySamplesRequest{Query: query, Start: timestamppb.New(start), End: timestamppb.New(end)}
	if step > 0 {
		request.Step = durationpb.New(step)
	}
	answer, err := service.QuerySamples(ctx, request)
	if err != nil {
		return err
	}
	meter.clear()
	if err := q.showMetrics(&queryv1.QueryMetricsResponse{Series: answer.GetSeries()}, start, end, step); err != nil {
		return err
	}
	meter.finish(answer.GetStatistics())
	q.remarkNone(len(answer.GetSeries()) > 0, "samples", start, end)
	return nil
}

// remarkNone says that an answer is empty, and of which range: the wrong range is the usual reason.
func (q *queryCommand) remarkNone(found bool, what string, start, end time.Time) {
	if found || q.quiet {
		return
	}
	const layout = "2006-01-02 15:04:05"
	fmt.Fprintf(q.client.env.Stderr, "no %s from %s to %s; --since and --from choose another range\n", what, start.In(q.zone()).Format(layout), end.In(q.zone()).Format(layout))
}

func (q *queryCommand) arrow(ctx context.Context, service queryv1.QueryServiceClient, query string, start, end time.Time) error {
	step, err := q.stepLength()
	if err != nil {
		return err
	}
	request := &queryv1.QueryArrowRequest{Query: query, Start: timestamppb.New(start), End: timestamppb.New(end), Limit: q.limit, Direction: q.order()}
	if step > 0 {
		request.Step = durationpb.New(step)
	}
	meter := q.meter()
	defer meter.stop()
	stream, err := service.QueryArrow(ctx, request)
	if err != nil {
		return err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if part.GetStatistics() != nil {
			meter.finish(part.GetStatistics())
		}
		if _, err := q.client.env.Stdout.Write(part.GetArrow()); err != nil {
			return fmt.Errorf("write the answer: %w", err)
		}
	}
}

func (q *queryCommand) stepLength() (time.Duration, error) {
	if q.step == "" {
		return 0, nil
	}
	step, err := parseLength(q.step)
	if err != nil {
		return 0, usage("--step: %w", err)
	}
	return step, nil
}

func (q *queryCommand) order() queryv1.Direction {
	if q.direction == "forward" {
		return queryv1.Direction_DIRECTION_FORWARD
	}
	return queryv1.Direction_DIRECTION_BACKWARD
}

func (q *queryCommand) linePrinter() *linePrinter {
	return &linePrinter{out: q.client.env.Stdout, format: q.output, allLabels: q.labels, zone: q.zone()}
}

func (q *queryCommand) seriesPrinter() *seriesPrinter {
	return &seriesPrinter{out: q.client.env.Stdout, format: q.output, zone: q.zone()}
}

func (q *queryCommand) zone() *time.Location {
	if q.utc {
		return time.UTC
	}
	return q.client.env.Now().Location()
}

func (q *queryCommand) meter() *meter {
	env := q.client.env
	return startMeter(env.Stderr, meterOptions{draw: env.Terminal && !q.quiet, always: q.stats, quiet: q.quiet, now: env.Now})
}
