// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/grpc"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

const (
	linesPerMessage  = 256
	bytesPerMessage  = 1 << 20
	progressInterval = 250 * time.Millisecond
	// unlimitedHistory is the most lines of a tail's history where the organization has no limit of lines.
	unlimitedHistory = 100_000
)

// QueryLogs streams lines as soon as their order allows, says now and then how far it is, and ends with the final figures.
func (s *Server) QueryLogs(req *queryv1.QueryLogsRequest, stream grpc.ServerStreamingServer[queryv1.QueryLogsResponse]) error {
	from, to, err := bounds(req.GetStart(), req.GetEnd(), queryRange)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	lines, err := s.frontend.Lines(ctx, query.Request{
		Query: req.GetQuery(), Start: from, End: to, Limit: int(req.GetLimit()), Direction: directionOf(req.GetDirection()),
	})
	if err != nil {
		return err
	}
	found := make(chan *logs.Line, linesPerMessage)
	go func() {
		defer close(found)
		for line := lines.Next(); line != nil; line = lines.Next() {
			select {
			case found <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	err = forward(found, lines, stream)
	cancel()
	for range found { //nolint:revive // waits for the reader
	}
	defer lines.Close()
	if err == nil {
		err = lines.Err()
	}
	if err != nil {
		return err
	}
	return stream.Send(&queryv1.QueryLogsResponse{Statistics: statisticsOf(lines.Statistics())})
}

// forward sends lines in messages of fair size, and progress while none comes.
func forward(found <-chan *logs.Line, lines *query.Lines, stream grpc.ServerStreamingServer[queryv1.QueryLogsResponse]) error {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	message, size := &queryv1.QueryLogsResponse{}, 0
	flush := func() error {
		message.Statistics = statisticsOf(lines.Statistics())
		err := stream.Send(message)
		message, size = &queryv1.QueryLogsResponse{}, 0
		return err
	}
	for {
		select {
		case line, ok := <-found:
			if !ok {
				if len(message.Lines) == 0 {
					return nil
				}
				return flush()
			}
			message.Lines = append(message.Lines, lineOf(line))
			size += len(line.Line) + len(line.Labels)
			if len(message.Lines) < linesPerMessage && size < bytesPerMessage {
				continue
			}
		case <-ticker.C:
		}
		if err := flush(); err != nil {
			return err
		}
	}
}

// TailLogs streams new lines until the caller cancels.
func (s *Server) TailLogs(req *queryv1.TailLogsRequest, stream grpc.ServerStreamingServer[queryv1.TailLogsResponse]) error {
	asked := query.TailRequest{Query: req.GetQuery(), Start: time.Now()}
	if start := req.GetStart(); start != nil {
		from, _, err := bounds(start, nil, queryRange)
		if err != nil {
			return err
		}
		organization, err := s.frontend.Caller(stream.Context())
		if err != nil {
			return err
		}
		asked.Start, asked.Limit = from, cmp.Or(organization.Limits.MaxQueryLines, unlimitedHistory)
	}
	return s.frontend.Tail(stream.Context(), asked, func(lines []logs.Line) error {
		for len(lines) > 0 {
			n := min(len(lines), linesPerMessage)
			message := &queryv1.TailLogsResponse{Lines: make([]*queryv1.LogLine, n)}
			for i := range n {
				message.Lines[i] = lineOf(&lines[i])
			}
			if err := stream.Send(message); err != nil {
				return err
			}
			lines = lines[n:]
		}
		return nil
	})
}
