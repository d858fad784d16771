// SPDX-License-Identifier: AGPL-3.0-only

package logs

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
)

// maxWave is the most segments asked for at once.
const maxWave = 1024

// Selection is a log query's share of rows.
type Selection struct {
	Selector   string // LogQL, with pipeline
	Filters    bool   // it has a pipeline that may drop lines
	Start, End time.Time
	Limit      int // zero: all
	Direction  logproto.Direction
}

// Lines answers lines in the order of their time. Not safe for concurrent use.
type Lines struct {
	session  *Session
	ctx      context.Context //nolint:containedctx // Loki's iterators take their context when they are made
	request  Selection
	unread   []place.Unit // in the order in which they are needed
	found    []Line       // in order, from at on
	at       int
	answered int
	wave     int
	err      error
}

// Select returns the lines of a selection. Nothing is read before the first Next.
func (s *Session) Select(ctx context.Context, request Selection) *Lines {
	unread := place.Units(s.within(request.Start, request.End))
	slices.SortStableFunc(unread, func(a, b place.Unit) int {
		if request.Direction == logproto.FORWARD {
			return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Key, b.Key))
		}
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Key, b.Key))
	})
	wave := s.Fan.Parallel()
	if request.Filters {
		wave *= 4
	}
	return &Lines{session: s, ctx: ctx, request: request, unread: unread, wave: wave}
}

// Next returns the next line, and nil at the end or after an error.
func (l *Lines) Next() *Line {
	for l.err == nil && !l.enough() {
		if l.at < len(l.found) && !l.precedes(&l.found[l.at]) {
			line := &l.found[l.at]
			l.at++
			l.answered++
			return line
		}
		if len(l.unread) == 0 {
			return nil
		}
		l.read()
	}
	return nil
}

// Err returns why Next ended early.
func (l *Lines) Err() error { return l.err }

func (l *Lines) enough() bool { return l.request.Limit > 0 && l.answered >= l.request.Limit }

// precedes reports whether an unread segment may hold a line that comes before line: one of the same time may, as lines of one
// time have an order too.
func (l *Lines) precedes(line *Line) bool {
	if len(l.unread) == 0 {
		return false
	}
	if l.request.Direction == logproto.FORWARD {
		return l.unread[0].First.UnixNano() <= line.Time
	}
	return l.unread[0].Last.UnixNano() >= line.Time
}

// read asks for the lines of the next wave of segments.
func (l *Lines) read() {
	units := 0
	var wave []lake.Segment
	for units < len(l.unread) && len(wave) < l.wave {
		wave = append(wave, l.unread[units].Segments...)
		units++
	}
	before := len(l.found) - l.at
	err := l.session.Fan.Run(l.ctx, fan.Scan{
		Organization: l.session.Organization,
		QueryID:      l.session.QueryID,
		Segments:     wave,
		Deletes:      l.session.Deletes,
		Fragment:     l.fragment,
		NewDecoder:   func([]lake.Segment) fan.Decoder { return newLineDecoder() },
		Done: func(d fan.Decoder) error {
			l.merge(d.(*lineDecoder).lines)
			return nil
		},
		Tally: l.session.Tally,
	})
	if err != nil {
		l.stop(err)
		return
	}
	l.unread = l.unread[units:]
	l.grow(len(l.found) - l.at - before)
}

// stop ends the query. A budget that is used up leaves the lines found so far as a partial answer.
func (l *Lines) stop(err error) {
	if errors.Is(err, fault.Exhausted) && l.session.Tally.Spent() {
		l.session.cut(err.Error())
		l.unread = nil
		return
	}
	l.err = l.session.failed(err)
}

// grow sizes the next wave: large when little was found, since most likely there is little.
func (l *Lines) grow(found int) {
	factor := 4
	if missing := l.request.Limit - l.answered - (len(l.found) - l.at); found > 0 && l.request.Limit > 0 {
		factor = min(4, max(1, int(math.Ceil(float64(missing)/float64(found)))))
	}
	l.wave = min(maxWave, l.wave*factor)
}

func (l *Lines) fragment(req *workerv1.ScanRequest) {
	req.Fragment = &workerv1.ScanRequest_LogLines{LogLines: &workerv1.LogLines{
		Selector:  l.request.Selector,
		Start:     timestamppb.New(l.request.Start),
		End:       timestamppb.New(l.request.End),
		Limit:     int32(l.missing()),
		Direction: directionOf(l.request.Direction),
	}}
}

// missing returns how many lines are still wanted; zero: all.
func (l *Lines) missing() int {
	if l.request.Limit <= 0 {
		return 0
	}
	return l.request.Limit - l.answered
}

// merge joins sorted lines to those found, and drops what lies behind the limit.
func (l *Lines) merge(more []Line) {
	slices.SortStableFunc(more, func(a, b Line) int { return l.compare(&a, &b) })
	found := l.found[l.at:]
	total := len(found) + len(more)
	if missing := l.missing(); missing > 0 {
		total = min(total, missing)
	}
	merged := make([]Line, 0, total)
	for len(merged) < total {
		if len(more) == 0 || len(found) > 0 && l.compare(&found[0], &more[0]) <= 0 {
			merged, found = append(merged, found[0]), found[1:]
		} else {
			merged, more = append(merged, more[0]), more[1:]
		}
	}
	l.found, l.at = merged, 0
}

// compare orders lines by time, and lines of one time by stream and text, so that an answer does not depend on who was faster.
func (l *Lines) compare(a, b *Line) int {
	byTime := cmp.Compare(a.Time, b.Time)
	if l.request.Direction == logproto.BACKWARD {
		byTime = -byTime
	}
	return cmp.Or(byTime, cmp.Compare(a.Labels, b.Labels), cmp.Compare(a.Line, b.Line))
}

func directionOf(d logproto.Direction) workerv1.Direction {
	if d == logproto.FORWARD {
		return workerv1.Direction_DIRECTION_FORWARD
	}
	return workerv1.Direction_DIRECTION_BACKWARD
}
