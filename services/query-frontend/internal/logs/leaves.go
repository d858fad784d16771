// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"context"
	"errors"
	"time"

	"github.com/grafana/loki/v3/pkg/iter"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// soleSegments is the most segments that one worker is asked to evaluate alone.
const soleSegments = 256

// leaves evaluates the leaves of a metric query for Loki's engine.
type leaves struct {
	session *Session
	query   *plan.Query
}

var (
	_ logql.Downstreamable = leaves{}
	_ logql.Downstreamer   = leaves{}
)

// Downstreamer returns l.
func (l leaves) Downstreamer(context.Context) logql.Downstreamer { return l }

// Downstream evaluates leaves.
func (l leaves) Downstream(ctx context.Context, queries []logql.DownstreamQuery, acc logql.Accumulator) ([]logqlmodel.Result, error) {
	for i, q := range queries {
		leaf, ok := l.query.Leaf(q.Params.GetExpression())
		if !ok {
			return nil, fault.New(fault.Internal, "the engine asks for %s, which is no leaf of the plan", q.Params.GetExpression())
		}
		result, err := l.evaluate(ctx, leaf, q.Params)
		if err != nil {
			return nil, l.session.failed(Classify(err))
		}
		if err := acc.Accumulate(ctx, result, i); err != nil {
			return nil, l.session.failed(err)
		}
	}
	return acc.Result(), nil
}

func (l leaves) evaluate(ctx context.Context, leaf *plan.Leaf, p logql.Params) (logqlmodel.Result, error) {
	if counts, ok := l.session.countsOf(leaf, p); ok {
		return counts.evaluate(ctx)
	}
	segments := l.session.within(leaf.Span(p.Start(), p.End()))
	if leaf.Merge != plan.MergeNone {
		return l.session.pushed(ctx, leaf, segments, p, false)
	}
	if l.session.fitsOne(segments) && leaf.Push != "" {
		result, err := l.session.pushed(ctx, leaf, segments, p, true)
		if !errors.Is(err, fault.Unsupported) {
			return result, err
		}
	}
	return l.session.here(ctx, leaf, p)
}

// fitsOne reports whether one worker may be asked to see all of the segments.
func (s *Session) fitsOne(segments []lake.Segment) bool {
	var bytes int64
	for i := range segments {
		bytes += segments[i].Bytes
	}
	limit := s.Limits.SoleBytes
	if limit == 0 {
		limit = 256 << 20
	}
	return len(segments) > 0 && len(segments) <= soleSegments && bytes <= limit
}

// pushed asks workers to evaluate a leaf over their segments, and merges their values. With whole, one worker gets all segments.
func (s *Session) pushed(ctx context.Context, leaf *plan.Leaf, segments []lake.Segment, p logql.Params, whole bool) (logqlmodel.Result, error) {
	merged := newMergedSeries(leaf, newSteps(p), s.points())
	err := s.Fan.Run(ctx, fan.Scan{
		Organization: s.Organization,
		QueryID:      s.QueryID,
		Segments:     segments,
		Deletes:      s.Deletes,
		Fragment: func(req *workerv1.ScanRequest) {
			req.Fragment = &workerv1.ScanRequest_LogSamples{LogSamples: &workerv1.LogSamples{
				Expression: leaf.Push,
				Start:      timestamppb.New(p.Start()),
				End:        timestamppb.New(p.End()),
				Step:       durationpb.New(stepOf(p)),
			}}
		},
		NewDecoder: func([]lake.Segment) fan.Decoder { return newSampleDecoder(s.points()) },
		Done: func(d fan.Decoder) error {
			if !merged.add(d.(*sampleDecoder)) {
				return s.errPoints()
			}
			return nil
		},
		Tally: s.Tally,
		Whole: whole,
	})
	if err != nil {
		return logqlmodel.Result{}, err
	}
	data, err := merged.value()
	return logqlmodel.Result{Data: data}, err
}

// stepOf returns the step to send: zero for an instant query.
func stepOf(p logql.Params) time.Duration {
	if logql.GetRangeType(p) == logql.InstantType {
		return 0
	}
	return p.Step()
}

// here evaluates a leaf by Loki's engine in this process, over the rows that workers send.
func (s *Session) here(ctx context.Context, leaf *plan.Leaf, p logql.Params) (logqlmodel.Result, error) {
	engine := logql.NewEngine(logql.EngineOpts{}, &rows{session: s, leaf: leaf}, s.engineLimits(0), nopLogger)
	return engine.Query(logql.ParamsWithExpressionOverride{Params: p, ExpressionOverride: leaf.Expr}).Exec(ctx)
}

// SelectSamples is never asked of a log query's storage: metric queries go by leaves.
func (q *querier) SelectSamples(context.Context, logql.SelectSampleParams) (iter.SampleIterator, error) {
	return nil, fault.New(fault.Internal, "samples were asked of a query without leaves")
}
