// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lakerunner/lakerunner/pkg/fault"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// ArrowContentType is that of Arrow IPC streams.
const ArrowContentType = "application/vnd.apache.arrow.stream"

const (
	rowsPerBatch   = 4096
	arrowPartBytes = 1 << 20
	maxArrowBody   = 1 << 20
)

// QueryArrow answers either kind of query as an Arrow IPC stream.
func (s *Server) QueryArrow(req *queryv1.QueryArrowRequest, stream grpc.ServerStreamingServer[queryv1.QueryArrowResponse]) error {
	statistics, err := s.arrow(stream.Context(), req, writerFunc(func(p []byte) error {
		return stream.Send(&queryv1.QueryArrowResponse{Arrow: p})
	}))
	if err != nil {
		return err
	}
	return stream.Send(&queryv1.QueryArrowResponse{Statistics: statisticsOf(statistics)})
}

// ArrowHandler is QueryArrow over HTTP: the request as JSON, the answer as it is. An error after the first rows breaks the connection,
// so that a cut stream is not taken for a whole one. What the answer cost and whether a limit cut it is told in trailers, with the
// names of the headers of Loki's API.
func (s *Server) ArrowHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := arrowRequest(w, r)
		if err != nil {
			fault.WriteHTTP(w, err)
			return
		}
		begun := false
		statistics, err := s.arrow(r.Context(), req, writerFunc(func(p []byte) error {
			if !begun {
				w.Header().Set("Content-Type", ArrowContentType)
				begun = true
			}
			_, err := w.Write(p)
			return err
		}))
		switch {
		case err == nil:
			for name, value := range statistics.Headers() {
				w.Header().Set(http.TrailerPrefix+name, value)
			}
		case begun:
			panic(http.ErrAbortHandler)
		default:
			fault.WriteHTTP(w, err)
		}
	})
}

func arrowRequest(w http.ResponseWriter, r *http.Request) (*queryv1.QueryArrowRequest, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxArrowBody))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	req := &queryv1.QueryArrowRequest{}
	if err := protojson.Unmarshal(body, req); err != nil {
		return nil, fault.New(fault.Invalid, "request body: %w", err)
	}
	return req, nil
}

// writerFunc writes parts of at most arrowPartBytes.
type writerFunc func([]byte) error

// Write hands p on in parts. A part is not kept, but gRPC may still be sending it, so each is a copy.
func (f writerFunc) Write(p []byte) (int, error) {
	for at := 0; at < len(p); at += arrowPartBytes {
		if err := f(append([]byte(nil), p[at:min(len(p), at+arrowPartBytes)]...)); err != nil {
			return at, err
		}
	}
	return len(p), nil
}

func (s *Server) arrow(ctx context.Context, req *queryv1.QueryArrowRequest, w io.Writer) (query.Statistics, error) {
	if isMetric(req.GetQuery()) {
		return s.arrowSamples(ctx, req, w)
	}
	return s.arrowLines(ctx, req, w)
}

func pairsType() arrow.DataType {
	return arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)
}

// linesSchema is that of lines for users: one row a line, in order.
func linesSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "time", Type: &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}},
		{Name: "line", Type: arrow.BinaryTypes.String},
		{Name: "labels", Type: pairsType()},
		{Name: "metadata", Type: pairsType()},
		{Name: "parsed", Type: pairsType()},
	}, nil)
}

// samplesSchema is that of samples for users: one row a sample, series after series.
func samplesSchema() *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "time", Type: &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"}},
		{Name: "value", Type: arrow.PrimitiveTypes.Float64},
		{Name: "labels", Type: pairsType()},
	}, nil)
}

func (s *Server) arrowLines(ctx context.Context, req *queryv1.QueryArrowRequest, w io.Writer) (query.Statistics, error) {
	from, to, err := bounds(req.GetStart(), req.GetEnd(), queryRange)
	if err != nil {
		return query.Statistics{}, err
	}
	lines, err := s.frontend.Lines(ctx, query.Request{
		Query: req.GetQuery(), Start: from, End: to, Limit: int(req.GetLimit()), Direction: directionOf(req.GetDirection()),
	})
	if err != nil {
		return query.Statistics{}, err
	}
	defer lines.Close()
	err = writeLines(lines, w)
	return lines.Statistics(), err
}

func writeLines(lines *query.Lines, w io.Writer) error {
	out := newArrowWriter(w, linesSchema())
	for line := lines.Next(); line != nil; line = lines.Next() {
		row := lineOf(line)
		out.builder.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(line.Time))
		out.builder.Field(1).(*array.StringBuilder).Append(row.GetLine())
		out.pairs(2, row.GetLabels())
		out.pairs(3, row.GetMetadata())
		out.pairs(4, row.GetParsed())
		if err := out.row(); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return out.close()
}

func (s *Server) arrowSamples(ctx context.Context, req *queryv1.QueryArrowRequest, w io.Writer) (query.Statistics, error) {
	asked, err := samplesRequest(req.GetQuery(), req.GetStart(), req.GetEnd(), req.GetStep().AsDuration())
	if err != nil {
		return query.Statistics{}, err
	}
	answer, err := s.frontend.Evaluate(ctx, asked)
	if err != nil {
		return query.Statistics{}, err
	}
	return answer.Statistics, writeSamples(seriesOf(answer.Data), w)
}

func writeSamples(all []*queryv1.Series, w io.Writer) error {
	out := newArrowWriter(w, samplesSchema())
	for _, series := range all {
		for _, sample := range series.GetSamples() {
			out.builder.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(sample.GetTime().AsTime().UnixNano() / int64(time.Millisecond)))
			out.builder.Field(1).(*array.Float64Builder).Append(sample.GetValue())
			out.pairs(2, series.GetLabels())
			if err := out.row(); err != nil {
				return err
			}
		}
	}
	return out.close()
}

// arrowWriter writes rows in batches.
type arrowWriter struct {
	builder *array.RecordBuilder
	ipc     *ipc.Writer
	rows    int
}

func newArrowWriter(w io.Writer, schema *arrow.Schema) *arrowWriter {
	return &arrowWriter{builder: array.NewRecordBuilder(memory.DefaultAllocator, schema), ipc: ipc.NewWriter(w, ipc.WithSchema(schema))}
}

// pairs appends the pairs of a row, sorted by name, so that equal answers are equal bytes.
func (a *arrowWriter) pairs(field int, pairs map[string]string) {
	builder := a.builder.Field(field).(*array.MapBuilder)
	builder.Append(true)
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		builder.KeyBuilder().(*array.StringBuilder).Append(name)
		builder.ItemBuilder().(*array.StringBuilder).Append(pairs[name])
	}
}

func (a *arrowWriter) row() error {
	if a.rows++; a.rows < rowsPerBatch {
		return nil
	}
	return a.flush()
}

func (a *arrowWriter) flush() error {
	a.rows = 0
	batch := a.builder.NewRecordBatch()
	defer batch.Release()
	return a.ipc.Write(batch)
}

// close writes the last batch, which may be empty, so that an answer without rows has its schema.
func (a *arrowWriter) close() error {
	if err := a.flush(); err != nil {
		return err
	}
	return a.ipc.Close()
}
