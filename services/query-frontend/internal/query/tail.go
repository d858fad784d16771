// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// tailLookback is how late, behind now, a row of a new segment may be and still be followed.
const tailLookback = 6 * time.Hour

// tailOverlap is how far back, behind the newest segment that was seen, arrivals are asked for: one may be seen that late after its own time, and the
// clocks of database and frontend may differ by so much.
const tailOverlap = 5 * time.Minute

// tailAhead is how far in the future a row may be where the organization does not say.
const tailAhead = 24 * time.Hour

// TailRequest follows a log query.
type TailRequest struct {
	Query string
	Start time.Time // of the history
	Limit int       // most lines of history, the newest ones; zero: no history
	// Delay holds lines back this long after their time, so that those of slower sources come in order.
	Delay time.Duration
}

// Tail answers the history of a log query and then its new lines, until ctx ends. Each call of emit has lines in the order of
// their time; no row comes twice. New are the rows of segments that ingest commits, even if they were merged and replaced since: those that merging
// makes hold no new ones. Doubles of identified rows are left out among segments that come at one time, not among earlier ones.
func (f *Frontend) Tail(ctx context.Context, req TailRequest, emit func([]logs.Line) error) error {
	organization, err := f.Caller(ctx)
	if err != nil {
		return err
	}
	planned, err := plan.Parse(req.Query)
	if err != nil {
		return logs.Classify(err)
	}
	if planned.Kind != plan.KindLogs {
		return fault.New(fault.Invalid, "only log queries can be followed")
	}
	f.meters.tails.Add(ctx, 1)
	defer f.meters.tails.Add(context.WithoutCancel(ctx), -1)
	t := &tail{frontend: f, organization: organization, plan: planned, request: req, seen: map[lake.SegmentID]time.Time{}, emit: emit}
	if err := t.history(ctx, time.Now()); err != nil {
		return err
	}
	return t.follow(ctx)
}

// tail is one being followed.
type tail struct {
	frontend     *Frontend
	organization *config.Organization
	plan         *plan.Query
	request      TailRequest
	seen         map[lake.SegmentID]time.Time // with the time of their commit
	newest       time.Time                    // of these
	held         []logs.Line                  // not yet emitted, in order
	emit         func([]logs.Line) error
}

// history emits the newest lines since the start, and marks the segments of that moment as seen. Those that have arrived are marked before the history
// is looked up, so that one that was merged in between counts as history; what arrives in between is in both.
func (t *tail) history(ctx context.Context, now time.Time) error {
	from, to := t.span(now)
	t.newest = now
	arrived, err := t.arrivals(ctx, now)
	if err != nil {
		return err
	}
	run, err := t.frontend.open(ctx, t.organization, from, to, true)
	if err != nil {
		return err
	}
	run.kind = "tail"
	lines, err := t.lines(run, run.found.Segments, logproto.BACKWARD, t.request.Limit)
	run.end(err)
	if err != nil {
		return err
	}
	slices.Reverse(lines)
	t.mark(arrived.Segments)
	t.mark(run.found.Segments)
	t.hold(lines)
	return t.release(now)
}

// arrivals are the segments that ingest has added of late.
func (t *tail) arrivals(ctx context.Context, now time.Time) (index.Answer, error) {
	from, to := t.span(now)
	if oldest := now.Add(-tailLookback); from.Before(oldest) {
		from = oldest
	}
	q := index.Query{Organization: t.organization.ID, Signal: lake.SignalLogs, Start: from, End: to}
	found, err := t.frontend.index.Arrivals(ctx, q, t.newest.Add(-tailOverlap))
	if err != nil {
		return index.Answer{}, err
	}
	return found, owned(t.organization.ID, found.Segments)
}

// span is the range of rows that are followed.
func (t *tail) span(now time.Time) (from, to time.Time) {
	ahead := t.organization.Limits.AcceptFuture
	if ahead <= 0 {
		ahead = tailAhead
	}
	return t.request.Start, now.Add(ahead)
}

func (t *tail) follow(ctx context.Context) error {
	ticker := time.NewTicker(t.frontend.options.TailInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Canceled, ctx.Err())
		case now := <-ticker.C:
			if err := t.poll(ctx, now); err != nil {
				return err
			}
		}
	}
}

// poll emits the lines of segments that were not there before. What is unavailable now is looked for again next time.
func (t *tail) poll(ctx context.Context, now time.Time) error {
	run, err := t.frontend.openWith(ctx, t.organization, func(ctx context.Context) (index.Answer, error) { return t.arrivals(ctx, now) })
	if err != nil {
		return unlessUnavailable(err)
	}
	run.kind = "tail"
	fresh := t.fresh(run.found.Segments)
	lines, err := t.lines(run, fresh, logproto.FORWARD, 0)
	if len(fresh) > 0 || err != nil {
		run.end(err)
	} else {
		run.cancel()
	}
	if err != nil {
		return unlessUnavailable(err)
	}
	t.mark(fresh)
	t.forget()
	t.hold(lines)
	return t.release(now)
}

func unlessUnavailable(err error) error {
	if errors.Is(err, fault.Unavailable) {
		return nil
	}
	return err
}

func (t *tail) fresh(segments []lake.Segment) []lake.Segment {
	var fresh []lake.Segment
	for i := range segments {
		if _, seen := t.seen[segments[i].ID]; !seen && segments[i].Level == 0 {
			fresh = append(fresh, segments[i])
		}
	}
	return fresh
}

func (t *tail) mark(segments []lake.Segment) {
	for i := range segments {
		at := segments[i].CreatedAt
		t.seen[segments[i].ID] = at
		if at.After(t.newest) {
			t.newest = at
		}
	}
}

// forget drops segments that arrivals are not asked for again.
func (t *tail) forget() {
	for id, at := range t.seen {
		if at.Before(t.newest.Add(-2 * tailOverlap)) {
			delete(t.seen, id)
		}
	}
}

// lines reads all lines of segments, so that they are emitted together or, after an error, not at all.
func (t *tail) lines(run *run, segments []lake.Segment, direction logproto.Direction, limit int) ([]logs.Line, error) {
	if len(segments) == 0 || direction == logproto.BACKWARD && limit == 0 {
		return nil, nil
	}
	run.session.Segments = segments
	from, to := t.span(time.Now())
	all := run.session.Select(run.ctx, logs.Selection{
		Selector: t.request.Query, Filters: t.plan.Logs.HasFilter(), Start: from, End: to, Limit: limit, Direction: direction,
	})
	var lines []logs.Line
	for line := all.Next(); line != nil; line = all.Next() {
		lines = append(lines, *line)
	}
	run.returned.Store(int64(len(lines)))
	return lines, logs.Classify(all.Err())
}

func (t *tail) hold(lines []logs.Line) {
	t.held = append(t.held, lines...)
	slices.SortStableFunc(t.held, func(a, b logs.Line) int { return cmp.Compare(a.Time, b.Time) })
}

// release emits the lines that are old enough.
func (t *tail) release(now time.Time) error {
	ready := len(t.held)
	if t.request.Delay > 0 {
		limit := now.Add(-t.request.Delay).UnixNano()
		ready, _ = slices.BinarySearchFunc(t.held, limit+1, func(l logs.Line, at int64) int { return cmp.Compare(l.Time, at) })
	}
	if ready == 0 {
		return nil
	}
	lines := t.held[:ready:ready]
	t.held = slices.Clone(t.held[ready:])
	return t.emit(lines)
}
