// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

const (
	// samplePatience is how long the sample may take to be queryable.
	samplePatience = 2 * time.Minute
	sampleCount    = `sum(count_over_time({service_name=~".+"}[10m]))`
	metricCount    = `sum(count_over_time(http_server_requests_total[2h]))`
	countedMetric  = "http_server_requests_total"
	firstLines     = 5
)

// await waits until so much of the sample can be queried.
func await(ctx context.Context, thing string, want int64, count func(context.Context) (int64, error)) error {
	ctx, cancel := context.WithTimeout(ctx, samplePatience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var got int64
	var err error
	for {
		if got, err = count(ctx); err == nil && got >= want {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the sample's %d %s cannot be queried after %s (%d can); see `lakerunner receipts` and `lakerunner doctor`",
				want, thing, samplePatience, got), err)
		}
	}
}

// count counts the rows of the sample's time.
func (u *running) count(ctx context.Context) (int64, error) {
	_, end := u.sampleRange()
	answer, err := u.query.QuerySamples(ctx, &queryv1.QuerySamplesRequest{Query: sampleCount, End: timestamppb.New(end)})
	if err != nil || len(answer.GetSeries()) == 0 || len(answer.GetSeries()[0].GetSamples()) == 0 {
		return 0, err
	}
	return int64(answer.GetSeries()[0].GetSamples()[0].GetValue()), nil
}

// countMetric counts the samples of one of the sample's metrics, of which each of its objects has some.
func (u *running) countMetric(ctx context.Context) (int64, error) {
	series, err := u.askMetrics(ctx, metricCount)
	if err != nil || len(series) == 0 {
		return 0, err
	}
	return int64(series[0].GetSamples()[0].GetValue()), nil
}

// askMetrics asks a PromQL query at the end of the sample, and returns the series of the answer that have a sample.
func (u *running) askMetrics(ctx context.Context, text string) ([]*queryv1.Series, error) {
	stream, err := u.query.QueryMetrics(ctx, &queryv1.QueryMetricsRequest{Query: text, End: timestamppb.New(u.settings.SampleEnd)})
	if err != nil {
		return nil, err
	}
	var series []*queryv1.Series
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return slices.DeleteFunc(series, func(s *queryv1.Series) bool { return len(s.GetSamples()) == 0 }), nil
		}
		if err != nil {
			return nil, err
		}
		series = append(series, part.GetSeries()...)
	}
}

// answerMetrics asks the first query of metrics, for the welcome.
func (u *running) answerMetrics(ctx context.Context, w *welcome) error {
	series, err := u.askMetrics(ctx, firstMetricQuery)
	if err != nil {
		return fmt.Errorf("ask the first query of metrics: %w", err)
	}
	for _, s := range series {
		w.Values = append(w.Values, fmt.Sprintf("%-12s %6.2f", s.GetLabels()["service_name"], s.GetSamples()[0].GetValue()))
	}
	return nil
}

// answerFirst asks the first query, for the welcome.
func (u *running) answerFirst(ctx context.Context, w *welcome) error {
	var err error
	if w.Rows, err = u.count(ctx); err != nil {
		return fmt.Errorf("count the sample's rows: %w", err)
	}
	start, end := u.sampleRange()
	stream, err := u.query.QueryLogs(ctx, &queryv1.QueryLogsRequest{Query: firstQuery, Start: timestamppb.New(start), End: timestamppb.New(end), Limit: firstLines})
	if err != nil {
		return fmt.Errorf("ask the first query: %w", err)
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask the first query: %w", err)
		}
		for _, l := range part.GetLines() {
			w.Lines = append(w.Lines, l.GetTime().AsTime().Local().Format("2006-01-02 15:04:05.000")+"  "+l.GetLine())
		}
	}
}
