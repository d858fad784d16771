// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

const (
	// samplePatience is how long the sample may take to be queryable.
	samplePatience = 2 * time.Minute
	sampleCount    = `sum(count_over_time({service_name=~".+"}[10m]))`
	firstLines     = 5
)

// awaitRows waits until so many rows of the sample's time can be queried.
func (u *running) awaitRows(ctx context.Context, want int64) error {
	ctx, cancel := context.WithTimeout(ctx, samplePatience)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var got int64
	var err error
	for {
		if got, err = u.count(ctx); err == nil && got >= want {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the sample's %d rows cannot be queried after %s (%d can); see `lakerunner receipts` and `lakerunner doctor`", want, samplePatience, got), err)
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
