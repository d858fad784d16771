// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/matrix"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// join evaluates a join over whole series, or by the engine where that is not sure. Series are sorted by labels.
func (s *Session) join(ctx context.Context, q *promplan.Query, join *promplan.Join) ([]prom.Series, error) {
	if err := s.fetchLeaves(ctx, q, join); err != nil {
		return nil, err
	}
	vector, err := s.joined(ctx, q, join.Expr, join.Times)
	var list matrix.List
	if err == nil {
		list, err = matrix.Collect(vector)
	}
	if errors.Is(err, matrix.ErrUnsure) {
		return s.byEngine(ctx, q, join)
	}
	if err != nil {
		return nil, err
	}
	return prom.Sorted(seriesAt(list, join.Times)), nil
}

// byEngine evaluates a join step by step.
func (s *Session) byEngine(ctx context.Context, q *promplan.Query, join *promplan.Join) ([]prom.Series, error) {
	times := join.Times
	// A step makes it a range query, also of one time.
	step := max(times.Step, 1)
	got, err := s.Engine.Evaluate(ctx, source{s, q}, prom.Request{
		Expr: join.Expr, Start: time.UnixMilli(times.Start), End: time.UnixMilli(times.Last()), Step: time.Duration(step) * time.Millisecond,
		Lookback: s.Lookback, MaxSamples: s.samples(),
	})
	if err != nil {
		return nil, err
	}
	lines, ok := got.Value.(prom.Matrix)
	if !ok {
		return nil, fault.New(fault.Internal, "%s is a %s", join.Expr, got.Value.Type())
	}
	s.remarked(got.Annotations)
	out := make([]prom.Series, len(lines))
	for i := range lines {
		out[i] = prom.SeriesOf(&lines[i])
	}
	return out, nil
}

// fetchLeaves evaluates the leaves of a join, all at once.
func (s *Session) fetchLeaves(ctx context.Context, q *promplan.Query, join *promplan.Join) error {
	group, ctx := errgroup.WithContext(ctx)
	parser.Inspect(join.Expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			if leaf, ok := q.LeafOf(selector.LabelMatchers); ok {
				group.Go(func() error {
					_, err := s.leaf(ctx, leaf)
					return err
				})
			}
		}
		return nil
	})
	return group.Wait()
}

// joined evaluates an expression that promplan has found to be joinable.
func (s *Session) joined(ctx context.Context, q *promplan.Query, expr parser.Expr, times promplan.Grid) (matrix.Vector, error) {
	switch n := expr.(type) {
	case *parser.ParenExpr:
		return s.joined(ctx, q, n.Expr, times)
	case *parser.UnaryExpr:
		v, err := s.joined(ctx, q, n.Expr, times)
		if err != nil || n.Op != parser.SUB {
			return v, err
		}
		return matrix.Negate(v)
	case *parser.AggregateExpr:
		v, err := s.joined(ctx, q, n.Expr, times)
		if err != nil {
			return nil, err
		}
		return matrix.Aggregate(n, v, times.Len())
	case *parser.BinaryExpr:
		return s.joinedBinary(ctx, q, n, times)
	case *parser.VectorSelector:
		leaf, ok := q.LeafOf(n.LabelMatchers)
		if !ok {
			break
		}
		series, err := s.leaf(ctx, leaf)
		if err != nil {
			return nil, err
		}
		return listOf(leaf, series)
	}
	return nil, fault.New(fault.Internal, "%s is no part of a join", expr)
}

func (s *Session) joinedBinary(ctx context.Context, q *promplan.Query, n *parser.BinaryExpr, times promplan.Grid) (matrix.Vector, error) {
	if number, ok := promplan.Number(n.RHS); ok {
		v, err := s.joined(ctx, q, n.LHS, times)
		if err != nil {
			return nil, err
		}
		return matrix.Scalar(n, v, number, false, times.Len())
	}
	if number, ok := promplan.Number(n.LHS); ok {
		v, err := s.joined(ctx, q, n.RHS, times)
		if err != nil {
			return nil, err
		}
		return matrix.Scalar(n, v, number, true, times.Len())
	}
	left, err := s.joined(ctx, q, n.LHS, times)
	if err != nil {
		return nil, err
	}
	right, err := s.joined(ctx, q, n.RHS, times)
	if err != nil {
		return nil, err
	}
	return matrix.Binary(n, left, right, times.Len())
}

// listOf puts the series of a leaf on its times. Histograms are the engine's.
func listOf(leaf *promplan.Leaf, series []prom.Series) (matrix.List, error) {
	n := leaf.Times.Len()
	out := make(matrix.List, len(series))
	for i := range series {
		one := &series[i]
		if len(one.Histograms) > 0 {
			return nil, matrix.ErrUnsure
		}
		out[i] = matrix.Series{Labels: one.Labels, Full: true}
		if len(one.Values) == n && !leaf.Constant {
			out[i].Values = one.Values
			continue
		}
		values := make([]float64, n)
		if leaf.Constant {
			for j := range values {
				values[j] = one.Values[0]
			}
			out[i].Values = values
			continue
		}
		for j := range values {
			values[j] = matrix.Absent()
		}
		for j, t := range one.Times {
			at, ok := leaf.Times.Index(t)
			if !ok {
				return nil, fault.New(fault.Internal, "a worker answered a sample at %d ms, which is no step of %s", t, leaf.Expr)
			}
			values[at] = one.Values[j]
		}
		out[i].Values, out[i].Full = values, false
	}
	return out, nil
}

// seriesAt leaves out what is absent.
func seriesAt(list matrix.List, times promplan.Grid) []prom.Series {
	all := make([]int64, times.Len())
	for i := range all {
		all[i] = times.At(i)
	}
	out := make([]prom.Series, 0, len(list))
	for _, one := range list {
		if one.Full {
			out = append(out, prom.Series{Labels: one.Labels, Times: all, Values: one.Values})
			continue
		}
		s := prom.Series{Labels: one.Labels}
		for i, v := range one.Values {
			if !matrix.IsAbsent(v) {
				s.Times, s.Values = append(s.Times, all[i]), append(s.Values, v)
			}
		}
		if len(s.Times) > 0 {
			out = append(out, s)
		}
	}
	return out
}
