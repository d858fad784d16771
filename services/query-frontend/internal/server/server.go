// SPDX-License-Identifier: AGPL-3.0-only

// Package server translates QueryService to the frontend's service layer. It decides nothing.
package server

import (
	"context"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// What times default to.
const (
	queryRange = time.Hour
	labelRange = 6 * time.Hour
)

// Server serves QueryService.
type Server struct {
	queryv1.UnimplementedQueryServiceServer
	frontend *query.Frontend
}

// New returns the server.
func New(frontend *query.Frontend) *Server { return &Server{frontend: frontend} }

// Register registers QueryService.
func (s *Server) Register(r grpc.ServiceRegistrar) { queryv1.RegisterQueryServiceServer(r, s) }

// QuerySamples evaluates a metric query.
func (s *Server) QuerySamples(ctx context.Context, req *queryv1.QuerySamplesRequest) (*queryv1.QuerySamplesResponse, error) {
	asked, err := samplesRequest(req.GetQuery(), req.GetStart(), req.GetEnd(), req.GetStep().AsDuration())
	if err != nil {
		return nil, err
	}
	asked.Refusal = fault.New(fault.Invalid, "%s is a log query; ask for its lines", req.GetQuery())
	answer, err := s.frontend.Evaluate(ctx, asked)
	if err != nil {
		return nil, err
	}
	return &queryv1.QuerySamplesResponse{Series: seriesOf(answer.Data), Statistics: statisticsOf(answer.Statistics)}, nil
}

// ListLabels lists label names.
func (s *Server) ListLabels(ctx context.Context, req *queryv1.ListLabelsRequest) (*queryv1.ListLabelsResponse, error) {
	streams, err := s.streams(ctx, []string{req.GetSelector()}, req.GetStart(), req.GetEnd())
	if err != nil {
		return nil, err
	}
	return &queryv1.ListLabelsResponse{Labels: streams.Names(), Statistics: statisticsOf(streams.Statistics)}, nil
}

// ListLabelValues lists the values of a label.
func (s *Server) ListLabelValues(ctx context.Context, req *queryv1.ListLabelValuesRequest) (*queryv1.ListLabelValuesResponse, error) {
	if req.GetLabel() == "" {
		return nil, fault.New(fault.Invalid, "label is empty")
	}
	streams, err := s.streams(ctx, []string{req.GetSelector()}, req.GetStart(), req.GetEnd())
	if err != nil {
		return nil, err
	}
	return &queryv1.ListLabelValuesResponse{Values: streams.Values(req.GetLabel()), Statistics: statisticsOf(streams.Statistics)}, nil
}

// ListSeries lists streams.
func (s *Server) ListSeries(ctx context.Context, req *queryv1.ListSeriesRequest) (*queryv1.ListSeriesResponse, error) {
	streams, err := s.streams(ctx, req.GetSelectors(), req.GetStart(), req.GetEnd())
	if err != nil {
		return nil, err
	}
	out := &queryv1.ListSeriesResponse{Statistics: statisticsOf(streams.Statistics)}
	for _, stream := range streams.All {
		out.Series = append(out.Series, &queryv1.LabelSet{Labels: stream.Labels.Map()})
	}
	return out, nil
}

func (s *Server) streams(ctx context.Context, selectors []string, start, end *timestamppb.Timestamp) (query.Streams, error) {
	from, to, err := bounds(start, end, labelRange)
	if err != nil {
		return query.Streams{}, err
	}
	return s.frontend.Streams(ctx, selectors, from, to)
}

// Explain plans and prices a query.
func (s *Server) Explain(ctx context.Context, req *queryv1.ExplainRequest) (*queryv1.ExplainResponse, error) {
	if req.GetLanguage() == queryv1.QueryLanguage_QUERY_LANGUAGE_PROMQL {
		return s.explainMetrics(ctx, req)
	}
	asked, err := eitherRequest(req.GetQuery(), req.GetStart(), req.GetEnd(), req.GetStep().AsDuration())
	if err != nil {
		return nil, err
	}
	return explained(s.frontend.Explain(ctx, asked))
}

func explained(e query.Explanation, err error) (*queryv1.ExplainResponse, error) {
	if err != nil {
		return nil, err
	}
	return &queryv1.ExplainResponse{
		Segments: e.Segments, Bytes: e.Bytes, Rows: e.Rows, ObjectRequests: e.Requests,
		EstimatedSeconds: e.Seconds, EstimatedPriceUsd: e.PriceUSD, Plan: e.Plan, Completeness: completenessOf(e.Completeness),
	}, nil
}

// bounds applies the defaults of a range.
func bounds(start, end *timestamppb.Timestamp, length time.Duration) (from, to time.Time, err error) {
	to = time.Now()
	if end != nil {
		if end.CheckValid() != nil {
			return from, to, fault.New(fault.Invalid, "end is out of range")
		}
		to = end.AsTime()
	}
	from = to.Add(-length)
	if start != nil {
		if start.CheckValid() != nil {
			return from, to, fault.New(fault.Invalid, "start is out of range")
		}
		from = start.AsTime()
	}
	return from, to, nil
}

// samplesRequest is a metric query's: instant at the end without a step.
func samplesRequest(text string, start, end *timestamppb.Timestamp, step time.Duration) (query.Request, error) {
	from, to, err := bounds(start, end, queryRange)
	if err != nil {
		return query.Request{}, err
	}
	if step == 0 {
		from = to
	}
	return query.Request{Query: text, Start: from, End: to, Step: step}, nil
}

// eitherRequest is that of a query of either kind.
func eitherRequest(text string, start, end *timestamppb.Timestamp, step time.Duration) (query.Request, error) {
	if isMetric(text) {
		return samplesRequest(text, start, end, step)
	}
	from, to, err := bounds(start, end, queryRange)
	return query.Request{Query: text, Start: from, End: to, Direction: logproto.BACKWARD}, err
}

func directionOf(d queryv1.Direction) logproto.Direction {
	if d == queryv1.Direction_DIRECTION_FORWARD {
		return logproto.FORWARD
	}
	return logproto.BACKWARD
}
