// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"context"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/loki/v3/pkg/iter"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
)

// nopLogger keeps Loki's engine quiet: libraries do not log.
var nopLogger = log.NewNopLogger()

// pageLines is how many lines are fetched at a time when only some of them, an interval apart, are wanted.
const pageLines = 1000

// querier is the storage under Loki's engine for one query.
type querier struct {
	session *Session
	request Request
}

// SelectLogs answers a log query.
func (q *querier) SelectLogs(ctx context.Context, p logql.SelectLogParams) (iter.EntryIterator, error) {
	expr, err := p.LogSelector()
	if err != nil {
		return nil, err
	}
	selection := Selection{
		Selector:  q.request.Query.Text,
		Filters:   expr.HasFilter(),
		Start:     p.Start,
		End:       p.End,
		Limit:     int(p.Limit),
		Direction: p.Direction,
	}
	if q.request.Interval > 0 {
		return &entries{source: newSpaced(ctx, q.session, selection, q.request.Interval)}, nil
	}
	return &entries{source: q.session.Select(ctx, selection)}, nil
}

// source is a sequence of lines.
type source interface {
	Next() *Line
	Err() error
}

// entries shows a source as Loki's iterator.
type entries struct {
	source source
	line   *Line
}

var _ iter.EntryIterator = (*entries)(nil)

// Next moves to the next line.
func (e *entries) Next() bool {
	e.line = e.source.Next()
	return e.line != nil
}

// At returns the line.
func (e *entries) At() logproto.Entry { return e.line.Entry() }

// Labels returns all labels of the line.
func (e *entries) Labels() string { return e.line.Labels }

// StreamHash returns the hash of the line's stream.
func (e *entries) StreamHash() uint64 { return e.line.StreamHash }

// Err returns why the lines ended early.
func (e *entries) Err() error { return e.source.Err() }

// Close has nothing to release: nothing is being read between calls of Next.
func (e *entries) Close() error { return nil }

// spaced answers lines at least an interval apart, reading pages and skipping to where the next line may be.
type spaced struct {
	ctx       context.Context //nolint:containedctx // as Lines
	session   *Session
	selection Selection
	interval  time.Duration
	page      *Lines
	read      int // lines taken from the page
	last      int64
	any       bool
}

func newSpaced(ctx context.Context, s *Session, selection Selection, interval time.Duration) *spaced {
	selection.Limit = pageLines
	return &spaced{ctx: ctx, session: s, selection: selection, interval: interval, page: s.Select(ctx, selection)}
}

// Next returns the next line that is far enough from the one before.
func (s *spaced) Next() *Line {
	for {
		line := s.page.Next()
		if line == nil {
			if s.page.Err() != nil || s.read < pageLines || !s.turn() {
				return nil
			}
			continue
		}
		s.read++
		if !s.any || s.far(line.Time) {
			s.any, s.last = true, line.Time
			return line
		}
	}
}

// Err returns why Next ended early.
func (s *spaced) Err() error { return s.page.Err() }

func (s *spaced) far(t int64) bool {
	if s.selection.Direction == logproto.FORWARD {
		return t >= s.last+int64(s.interval)
	}
	return t <= s.last-int64(s.interval)
}

// turn goes on to the page that begins where the next line may be.
func (s *spaced) turn() bool {
	if s.selection.Direction == logproto.FORWARD {
		s.selection.Start = time.Unix(0, s.last+int64(s.interval))
	} else {
		s.selection.End = time.Unix(0, s.last-int64(s.interval)+1)
	}
	if !s.selection.Start.Before(s.selection.End) {
		return false
	}
	s.page, s.read = s.session.Select(s.ctx, s.selection), 0
	return true
}
