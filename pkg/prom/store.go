// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// store is a source as the engine's storage, for one query. What a selector needs is selected once, all selectors at once, before the evaluation begins: then it
// is known where there are deltas.
type store struct {
	source Source
	shard  lake.Shard
	tasks  sync.WaitGroup

	mu      sync.Mutex
	fetches map[string]*fetch
	marked  [][]view // what the selectors of rewritten calls find
}

// sourceError is an error of the source, on its way through the engine.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// fetch is what one selector asks of the source.
type fetch struct {
	done   chan struct{}
	series []Series
	err    error
}

func newStore(source Source, shard lake.Shard) *store {
	return &store{source: source, shard: shard, fetches: map[string]*fetch{}}
}

// wait waits for what was asked of the source; the context must have ended.
func (s *store) wait() { s.tasks.Wait() }

// prepare asks the source for what the selectors of a statement need, and rewrites the calls that found deltas.
func (s *store) prepare(ctx context.Context, statement *parser.EvalStmt) error {
	uses := usesOf(statement)
	for i := range uses {
		uses[i].fetch = s.fetch(ctx, uses[i].selection())
	}
	deltas := false
	for _, use := range uses {
		if err := use.fetch.wait(ctx); err != nil {
			return err
		}
		deltas = deltas || slices.ContainsFunc(use.fetch.series, func(s Series) bool { return s.Delta })
	}
	if deltas {
		statement.Expr = s.rewrite(statement.Expr, uses)
	}
	return nil
}

// use is a selector and what is above it.
type use struct {
	selector *parser.VectorSelector
	matrix   *parser.MatrixSelector // the range that it is of; nil: none
	function string                 // that is called with it; empty: none
	start    int64
	end      int64
	step     int64
	fetch    *fetch
}

// usesOf finds the selectors that are evaluated.
func usesOf(statement *parser.EvalStmt) []use {
	var uses []use
	parser.Inspect(statement.Expr, func(node parser.Node, path []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok || isInfoSelector(selector, path) {
			return nil
		}
		found := use{selector: selector, step: statement.Interval.Milliseconds()}
		if len(path) > 0 {
			found.matrix, _ = path[len(path)-1].(*parser.MatrixSelector)
		}
		if call := callOf(path, found.matrix != nil); call != nil {
			found.function = call.Func.Name
		}
		found.start, found.end = reach(statement, &found, path)
		uses = append(uses, found)
		return nil
	})
	return uses
}

// isInfoSelector reports whether a selector is info's second argument, which is not evaluated as it stands.
func isInfoSelector(selector *parser.VectorSelector, path []parser.Node) bool {
	call := callOf(path, false)
	return call != nil && call.Func.Name == "info" && len(call.Args) > 1 && call.Args[1] == parser.Expr(selector)
}

// callOf is the call right above a selector, or above its range.
func callOf(path []parser.Node, ranged bool) *parser.Call {
	at := len(path) - 1
	if ranged {
		at--
	}
	if at < 0 {
		return nil
	}
	call, _ := path[at].(*parser.Call)
	return call
}

// reach is the time range that a selector needs: the engine's own, of a statement that has the selector and the subqueries around it alone.
func reach(statement *parser.EvalStmt, u *use, path []parser.Node) (start, end int64) {
	var expr parser.Expr = u.selector
	if u.matrix != nil {
		expr = u.matrix
	}
	for _, node := range slices.Backward(path) {
		if subquery, ok := node.(*parser.SubqueryExpr); ok {
			around := *subquery
			around.Expr = expr
			expr = &around
		}
	}
	alone := *statement
	alone.Expr = expr
	return promql.FindMinMaxTime(&alone)
}

func (u *use) selection() Selection {
	hints := &storage.SelectHints{Start: u.start, End: u.end, Step: u.step, Func: u.function}
	if u.matrix != nil {
		hints.Range = u.matrix.Range.Milliseconds()
	}
	return Selection{Matchers: u.selector.LabelMatchers, Start: u.start, End: u.end, Hints: hints}
}

// fetch asks the source, unless it was asked for the same already.
func (s *store) fetch(ctx context.Context, selection Selection) *fetch {
	key := keyOf(&selection)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.fetches[key]; known != nil {
		return known
	}
	selection.Shard = s.shard
	asked := &fetch{done: make(chan struct{})}
	s.fetches[key] = asked
	s.tasks.Go(func() {
		defer close(asked.done)
		asked.series, asked.err = s.source.Select(ctx, selection)
		if asked.err != nil {
			asked.err = &sourceError{asked.err}
		}
	})
	return asked
}

func keyOf(s *Selection) string {
	var b strings.Builder
	fmt.Fprint(&b, s.Start, " ", s.End)
	for _, m := range s.Matchers {
		fmt.Fprintf(&b, " %d%q%q", m.Type, m.Name, m.Value)
	}
	return b.String()
}

func (f *fetch) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Querier implements storage.Queryable.
func (s *store) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{store: s, start: mint, end: maxt}, nil
}

// querier implements storage.Querier.
type querier struct {
	store      *store
	start, end int64
}

// Select implements storage.Querier. Nothing is asked of the source before the set is read.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	if set, ok := q.store.markedSet(matchers); ok {
		return set
	}
	if hints == nil {
		hints = &storage.SelectHints{Start: q.start, End: q.end}
	}
	selection := Selection{Matchers: matchers, Start: hints.Start, End: hints.End, Hints: hints}
	return &lazySet{read: func() ([]view, error) {
		asked := q.store.fetch(ctx, selection)
		if err := asked.wait(ctx); err != nil {
			return nil, err
		}
		return merged(asked.series), nil
	}}
}

// LabelValues implements storage.Querier.
func (q *querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, fault.New(fault.Unsupported, "label values are not asked of a query's storage")
}

// LabelNames implements storage.Querier.
func (q *querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, fault.New(fault.Unsupported, "label names are not asked of a query's storage")
}

// Close implements storage.Querier.
func (q *querier) Close() error { return nil }

// lazySet is a storage.SeriesSet that is read when it is first asked.
type lazySet struct {
	read  func() ([]view, error)
	views []view
	at    int
	err   error
}

// setOf returns a set of what is there already.
func setOf(views []view) *lazySet {
	return &lazySet{read: func() ([]view, error) { return views, nil }}
}

// Next implements storage.SeriesSet.
func (s *lazySet) Next() bool {
	if s.read != nil {
		s.views, s.err = s.read()
		s.read, s.at = nil, -1
	}
	s.at++
	return s.err == nil && s.at < len(s.views)
}

// At implements storage.SeriesSet.
func (s *lazySet) At() storage.Series { return &s.views[s.at] }

// Err implements storage.SeriesSet.
func (s *lazySet) Err() error { return s.err }

// Warnings implements storage.SeriesSet.
func (s *lazySet) Warnings() annotations.Annotations { return nil }
