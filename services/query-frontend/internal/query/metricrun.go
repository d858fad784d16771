// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// metricRun is one question about metrics under way.
type metricRun struct {
	frontend   *Frontend
	ctx        context.Context //nolint:containedctx // a query is one call, cut into steps
	cancel     context.CancelFunc
	plan       *promplan.Query // nil: it is no query
	session    *metrics.Session
	segments   int64 // found, of all resolutions
	bytes      int64
	rows       int64
	complete   index.Completeness
	started    time.Time
	timeout    time.Duration // zero: none
	kind       string
	returned   atomic.Int64
	resolution time.Duration
}

// beginMetrics parses, checks and plans a query, and looks up its segments.
func (f *Frontend) beginMetrics(ctx context.Context, req MetricRequest) (*metricRun, error) {
	organization, err := f.Caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkMetrics(&req); err != nil {
		return nil, err
	}
	parsed, err := prom.Parse(req.Query)
	if err != nil {
		return nil, err
	}
	plan, simple, err := f.plans(parsed, req)
	if err != nil {
		return nil, err
	}
	r := f.metricRun(ctx, organization, req.Timeout)
	r.kind, r.session.Lookback = "metrics", cmp.Or(req.Lookback, promplan.DefaultLookback)
	if plan.Span.Empty() {
		r.plan = plan
		return r, nil
	}
	if err := r.lookup(plan.Span, r.tiers(organization, simple)); err != nil {
		err = r.named(err)
		r.end(err)
		return nil, err
	}
	r.plan = plan
	if slices.ContainsFunc(simple.Leaves, r.session.UsesRollups) {
		r.plan = simple
	}
	return r, nil
}

func checkMetrics(req *MetricRequest) error {
	switch {
	case req.Step < 0, req.Step == 0 && !req.Start.Equal(req.End) && !req.Start.IsZero():
		return fault.New(fault.Invalid, "zero or negative query resolution step widths are not accepted. Try a positive integer")
	case req.Step > 0 && req.Step < time.Millisecond:
		return fault.New(fault.Invalid, "step %s: want at least a millisecond", req.Step)
	case req.Step > 0 && req.End.Before(req.Start):
		return fault.New(fault.Invalid, "end timestamp must not be before start time")
	case req.Step > 0 && req.End.Sub(req.Start)/req.Step > maxSteps:
		return fault.New(fault.Invalid, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	case req.Lookback < 0 || req.Timeout < 0 || req.Limit < 0:
		return fault.New(fault.Invalid, "lookback, timeout and limit must not be negative")
	}
	return nil
}

// plans returns a query's plan, and the one whose leaves rollups can answer.
func (f *Frontend) plans(parsed parser.Expr, req MetricRequest) (plan, simple *promplan.Query, err error) {
	o := promplan.Options{
		Start: req.Start, End: req.End, Step: req.Step, Lookback: req.Lookback,
		DelayedNames: f.options.DelayedNames, StartTimestamps: f.options.StartTimestamps,
	}
	if plan, err = promplan.Plan(req.Query, parsed, o); err != nil {
		return nil, nil, err
	}
	o.Simple = true
	simple, err = promplan.Plan(req.Query, parsed, o)
	return plan, simple, err
}

// metricRun begins a run without segments.
func (f *Frontend) metricRun(ctx context.Context, organization *config.Organization, timeout time.Duration) *metricRun {
	limits := organization.Limits
	r := &metricRun{frontend: f, started: time.Now(), kind: "catalogue"}
	if limits.QueryTimeout > 0 && (timeout == 0 || timeout > limits.QueryTimeout) {
		timeout = limits.QueryTimeout
	}
	r.timeout = timeout
	r.ctx, r.cancel = bounded(ctx, timeout)
	r.session = &metrics.Session{
		Organization:    organization.ID,
		QueryID:         newQueryID(),
		Fan:             f.fan,
		Tally:           fan.NewTally(limits.MaxQueryBytes),
		Engine:          f.engine,
		StartTimestamps: f.options.StartTimestamps,
		Limits:          metrics.Limits{Series: limits.MaxQuerySeries, Samples: limits.MaxQuerySamples},
	}
	if kept := organization.RawRetention(lake.SignalMetrics); kept > 0 {
		r.session.Gone = r.started.Add(-kept)
	}
	return r
}

// tiers are the resolutions that matter to a query, coarsest first: those that can answer one of its leaves, and those that know what there was.
func (r *metricRun) tiers(organization *config.Organization, plan *promplan.Query) []time.Duration {
	out := r.goneTiers(organization, plan.Span)
	for _, policy := range organization.RollupsOf(lake.SignalMetrics) {
		if slices.ContainsFunc(plan.Leaves, func(l *promplan.Leaf) bool {
			ok, _, _ := l.Answers(policy.Resolution)
			return ok
		}) {
			out = append(out, policy.Resolution)
		}
	}
	slices.SortFunc(out, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	return slices.Compact(out)
}

// goneTiers are all resolutions, coarsest first, where a span begins when samples are not kept any more: only rollups know what there was then.
func (r *metricRun) goneTiers(organization *config.Organization, span promplan.Span) []time.Duration {
	if r.session.Gone.IsZero() || span.Start >= r.session.Gone.UnixMilli() {
		return nil
	}
	var out []time.Duration
	for _, policy := range organization.RollupsOf(lake.SignalMetrics) {
		out = append(out, policy.Resolution)
	}
	slices.Reverse(out)
	return out
}

// lookup finds the segments of a span: those of samples, and of the tiers.
func (r *metricRun) lookup(span promplan.Span, tiers []time.Duration) error {
	found := make([]index.Answer, 1+len(tiers))
	group, ctx := errgroup.WithContext(r.ctx)
	for i := range found {
		var tier time.Duration
		if i > 0 {
			tier = tiers[i-1]
		}
		from, to := span.Times()
		group.Go(func() (err error) {
			// A bucket ends up to a resolution behind its samples.
			q := index.Query{Organization: r.session.Organization, Signal: lake.SignalMetrics, Start: from.Add(-tier), End: to.Add(tier), Resolution: tier}
			if found[i], err = r.frontend.index.Lookup(ctx, q); err != nil {
				return err
			}
			return owned(r.session.Organization, found[i].Segments)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	r.complete = found[0].Completeness
	for i, answer := range found {
		level := metrics.Level{Segments: answer.Segments, Deletes: answer.Deletes, Uncovered: answer.Uncovered}
		for j := range answer.Segments {
			r.bytes, r.rows = r.bytes+answer.Segments[j].Bytes, r.rows+answer.Segments[j].Rows
		}
		r.segments += int64(len(answer.Segments))
		if i == 0 {
			r.session.Samples = level
			continue
		}
		level.Resolution = tiers[i-1]
		r.session.Rollups = append(r.session.Rollups, level)
	}
	return nil
}

// end releases the run and returns its final statistics.
func (r *metricRun) end(err error) Statistics {
	r.cancel()
	s := Statistics{
		Statistics:      r.session.Tally.Statistics(),
		Considered:      r.segments,
		BytesConsidered: r.bytes,
		Returned:        r.returned.Load(),
		Duration:        time.Since(r.started),
		Completeness:    r.complete,
		Resolution:      r.resolution,
	}
	r.frontend.meters.record(r.kind, outcomeOf(err), s)
	return s
}
