// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"context"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// Lines answers a log query line by line, as soon as the order of lines allows. Close it.
type Lines struct {
	run   *run
	lines *logs.Lines
}

// Lines begins a log query. A limit of zero is DefaultLines.
func (f *Frontend) Lines(ctx context.Context, req Request) (*Lines, error) {
	if req.Limit <= 0 {
		req.Limit = DefaultLines
	}
	run, err := f.begin(ctx, req)
	if err != nil {
		return nil, err
	}
	if run.plan.Kind != plan.KindLogs {
		run.cancel()
		return nil, fault.New(fault.Invalid, "%s is a metric query; ask for its samples", req.Query)
	}
	return &Lines{run: run, lines: run.session.Select(run.ctx, logs.Selection{
		Selector: req.Query, Filters: run.plan.Logs.HasFilter(), Start: req.Start, End: req.End, Limit: req.Limit, Direction: req.Direction,
	})}, nil
}

// Next returns the next line, and nil at the end or after an error.
func (l *Lines) Next() *logs.Line {
	line := l.lines.Next()
	if line != nil {
		l.run.returned.Add(1)
	}
	return line
}

// Err returns why Next ended early.
func (l *Lines) Err() error {
	if err := l.lines.Err(); err != nil {
		return logs.Classify(err)
	}
	return nil
}

// Statistics returns the figures so far.
func (l *Lines) Statistics() Statistics { return l.run.statistics() }

// Close ends the query.
func (l *Lines) Close() { l.run.end(l.Err()) }
