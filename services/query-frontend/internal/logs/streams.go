// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
)

// Stream is a stream with what it holds in a range.
type Stream struct {
	Labels      labels.Labels
	Rows, Bytes int64
	First, Last int64 // ns since 1970
}

// Streams lists the streams with rows in [start, end) that match a selector; empty: all.
func (s *Session) Streams(ctx context.Context, selector string, start, end time.Time) ([]Stream, error) {
	found := map[string]Stream{}
	err := s.Fan.Run(ctx, fan.Scan{
		Organization: s.Organization,
		QueryID:      s.QueryID,
		Segments:     s.within(start, end),
		Deletes:      s.Deletes,
		Fragment: func(req *workerv1.ScanRequest) {
			req.Fragment = &workerv1.ScanRequest_LogCatalogue{LogCatalogue: &workerv1.LogCatalogue{
				Kind:     workerv1.LogCatalogueKind_LOG_CATALOGUE_KIND_STREAMS,
				Selector: selector,
				Start:    timestamppb.New(start),
				End:      timestamppb.New(end),
			}}
		},
		NewDecoder: func([]lake.Segment) fan.Decoder { return &streamDecoder{} },
		Done: func(d fan.Decoder) error {
			for _, stream := range d.(*streamDecoder).streams {
				key := stream.Labels.String()
				if before, ok := found[key]; ok {
					stream = join(before, stream)
				}
				found[key] = stream
			}
			return nil
		},
		Tally: s.Tally,
	})
	if err != nil {
		return nil, s.endOf(ctx, err)
	}
	out := make([]Stream, 0, len(found))
	for _, stream := range found {
		out = append(out, stream)
	}
	return out, nil
}

func join(a, b Stream) Stream {
	return Stream{
		Labels: a.Labels, Rows: a.Rows + b.Rows, Bytes: a.Bytes + b.Bytes, First: min(a.First, b.First), Last: max(a.Last, b.Last),
	}
}

// streamDecoder collects the streams of one attempt.
type streamDecoder struct{ streams []Stream }

// Add takes in a batch of columns.LogStreamsSchema.
func (d *streamDecoder) Add(batch arrow.RecordBatch) error {
	numbers := map[string]*array.Int64{}
	for _, name := range []string{"rows", "bytes", "first_time", "last_time"} {
		at := batch.Schema().FieldIndices(name)
		if len(at) != 1 {
			return fmt.Errorf("log streams: %w", badColumn(name))
		}
		column, ok := batch.Column(at[0]).(*array.Int64)
		if !ok {
			return fmt.Errorf("log streams: %w", badColumn(name))
		}
		numbers[name] = column
	}
	at := batch.Schema().FieldIndices("labels")
	if len(at) != 1 {
		return fmt.Errorf("log streams: %w", badColumn("labels"))
	}
	text, err := textOf("labels", batch.Column(at[0]))
	if err != nil {
		return fmt.Errorf("log streams: %w", err)
	}
	for i := range int(batch.NumRows()) {
		parsed, err := parseLabels(strings.Clone(text.Value(i)))
		if err != nil {
			return err
		}
		d.streams = append(d.streams, Stream{
			Labels: parsed, Rows: numbers["rows"].Value(i), Bytes: numbers["bytes"].Value(i),
			First: numbers["first_time"].Value(i), Last: numbers["last_time"].Value(i),
		})
	}
	return nil
}
