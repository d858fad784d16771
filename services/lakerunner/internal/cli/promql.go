// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/prom"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// outputChart draws the answer.
const outputChart = "chart"

// promQL answers a PromQL query.
func (q *queryCommand) promQL(ctx context.Context, text string) error {
	expr, err := prom.Parse(text)
	if err != nil {
		return usage("PromQL: %w", err)
	}
	if err := q.checkPromQL(expr); err != nil {
		return err
	}
	start, end, err := q.span.resolve(q.client.env.Now())
	if err != nil {
		return err
	}
	step, err := q.promStep(start, end)
	if err != nil {
		return err
	}
	if step > 0 {
		start, end = start.Truncate(step), end.Truncate(step)
	}
	request := &queryv1.QueryMetricsRequest{
		Query: text, Start: timestamppb.New(start), End: timestamppb.New(end), Step: durationpb.New(step), Arrow: q.output == "arrow",
	}
	return q.client.query(ctx, func(ctx context.Context, service queryv1.QueryServiceClient) error {
		meter := q.meter()
		defer meter.stop()
		answer, err := q.receive(ctx, service, request)
		if err != nil {
			return err
		}
		meter.clear()
		if err := q.showMetrics(answer, start, end, step); err != nil {
			return err
		}
		meter.finish(answer.GetStatistics())
		q.remark(answer)
		q.remarkNone(request.GetArrow() || len(answer.GetSeries()) > 0 || answer.GetText() != "", "samples", start, end)
		return nil
	})
}

// checkPromQL refuses flags that mean nothing to PromQL, and finds out how the answer is shown.
func (q *queryCommand) checkPromQL(expr parser.Expr) error {
	// A range vector or a text has no values over a range: it is what it is at the end.
	if t := expr.Type(); t == parser.ValueTypeMatrix || t == parser.ValueTypeString {
		if q.step != "" || q.output == outputChart {
			return usage("a query of type %s has a value at one time only; leave out --step and -o chart", parser.DocumentedType(t))
		}
		q.instant = true
	}
	switch {
	case q.instant && q.step != "":
		return usage("--instant evaluates once; leave out --step")
	case q.tail:
		return usage("--tail shows lines; this is a PromQL query")
	case q.output == "" && q.instant:
		q.output = "table"
	case q.output == "":
		q.output = outputChart
	}
	if q.instant && q.output == outputChart {
		return usage("--instant has nothing to draw; want -o table, json, raw or arrow")
	}
	return q.checkOutput()
}

// promStep is the step that was asked for, or one that fits a chart. Zero: there is none.
func (q *queryCommand) promStep(start, end time.Time) (time.Duration, error) {
	switch {
	case q.instant:
		return 0, nil
	case q.step != "":
		return q.stepLength()
	}
	return stepFor(end.Sub(start), q.chart(start, end, 0).columns()), nil
}

func (q *queryCommand) chart(start, end time.Time, step time.Duration) *chart {
	env := q.client.env
	width := q.width
	if width <= 0 {
		width, _ = strconv.Atoi(env.Getenv("COLUMNS"))
	}
	if width <= 0 {
		width = env.Columns
	}
	if width <= 0 {
		width = 100
	}
	return &chart{start: start, end: end, step: step, width: width, colors: env.Columns > 0 && env.Getenv("NO_COLOR") == "", zone: q.zone()}
}

// receive joins the messages of an answer. Arrow is written as it comes.
func (q *queryCommand) receive(ctx context.Context, service queryv1.QueryServiceClient, request *queryv1.QueryMetricsRequest) (*queryv1.QueryMetricsResponse, error) {
	stream, err := service.QueryMetrics(ctx, request)
	if err != nil {
		return nil, err
	}
	all := &queryv1.QueryMetricsResponse{}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if _, err := q.client.env.Stdout.Write(part.GetArrow()); err != nil {
			return nil, fmt.Errorf("write the answer: %w", err)
		}
		series := append(all.GetSeries(), joined(all.GetSeries(), part.GetSeries())...)
		all, part.Arrow = part, nil
		all.Series = series
	}
}

// joined adds the samples of a series that goes on to its last part, and returns the other series.
func joined(known, more []*queryv1.Series) []*queryv1.Series {
	if len(known) == 0 || len(more) == 0 {
		return more
	}
	if last := known[len(known)-1]; maps.Equal(last.GetLabels(), more[0].GetLabels()) {
		last.Samples = append(last.Samples, more[0].GetSamples()...)
		return more[1:]
	}
	return more
}

func (q *queryCommand) showMetrics(answer *queryv1.QueryMetricsResponse, start, end time.Time, step time.Duration) error {
	out := q.client.env.Stdout
	switch {
	case q.output == "arrow":
		return nil
	case answer.GetType() == queryv1.ValueType_VALUE_TYPE_STRING:
		_, err := fmt.Fprintln(out, answer.GetText())
		return err
	case q.output != outputChart:
		printer := q.seriesPrinter()
		printer.promQL = true
		return printer.print(answer.GetSeries())
	}
	text, left := q.chart(start, end, step).draw(answer.GetSeries())
	if text == "" && len(answer.GetSeries()) > 0 {
		// Histograms have no line.
		return (&seriesPrinter{out: out, format: "table", zone: q.zone(), promQL: true}).print(answer.GetSeries())
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	if left > 0 && !q.quiet {
		fmt.Fprintf(q.client.env.Stderr, "%s more series are not drawn; topk(%d, ...) chooses, -o table shows all\n", formatCount(int64(left)), chartSeries)
	}
	return nil
}

// remark prints what Prometheus has to say on the evaluation.
func (q *queryCommand) remark(answer *queryv1.QueryMetricsResponse) {
	if q.quiet {
		return
	}
	for _, text := range answer.GetWarnings() {
		fmt.Fprintln(q.client.env.Stderr, "warning:", text)
	}
	for _, text := range answer.GetInfos() {
		fmt.Fprintln(q.client.env.Stderr, "info:", text)
	}
}
