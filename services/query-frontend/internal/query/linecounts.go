// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// countTiers are the resolutions of rollups of logs that can answer one of a query's leaves, coarsest first.
func (r *run) countTiers(req Request) []time.Duration {
	var all, out []time.Duration
	for _, policy := range r.organization.RollupsOf(lake.SignalLogs) {
		all = append(all, policy.Resolution)
	}
	slices.Reverse(all)
	for _, leaf := range r.plan.Leaves {
		counts, ok := leaf.Counts()
		// Streams that were told apart by what lines are counted by have it as a label of theirs.
		if !ok || counts.Levels() && slices.Contains(r.organization.StreamLabels, rollup.LevelLabel) {
			continue
		}
		bucket := logs.Bucket(counts, leaf, req.Start, req.End, req.Step, all)
		for _, resolution := range all {
			if bucket > 0 && resolution <= bucket && !slices.Contains(out, resolution) {
				out = append(out, resolution)
			}
		}
	}
	slices.SortFunc(out, func(a, b time.Duration) int { return int(b - a) })
	return out
}

// counts looks up the rollups of logs that can answer a part of the query. Where they do not, rows do.
func (r *run) counts(req Request) error {
	tiers := r.countTiers(req)
	if len(tiers) == 0 {
		return nil
	}
	f := r.frontend
	s := &metrics.Session{
		Organization: r.organization.ID, QueryID: r.session.QueryID, Fan: f.fan, Tally: r.session.Tally, Engine: f.engine, Lookback: promplan.DefaultLookback,
		Limits: metrics.Limits{Samples: f.options.MaxPoints}, Samples: metrics.Level{Segments: r.found.Segments},
		Rollups: make([]metrics.Level, len(tiers)),
	}
	from, to := r.plan.Span(req.Start, req.End)
	group, ctx := errgroup.WithContext(r.ctx)
	for i, tier := range tiers {
		group.Go(func() error {
			q := index.Query{Organization: r.organization.ID, Signal: lake.SignalLogs, Start: from.Add(-tier), End: to.Add(tier), Resolution: tier}
			found, err := f.index.Lookup(ctx, q)
			// Those that a delete reaches are not answered, so that none has to be applied to them.
			s.Rollups[i] = metrics.Level{Resolution: tier, Segments: found.Segments, Uncovered: found.Uncovered}
			if err != nil {
				return err
			}
			return owned(r.organization.ID, found.Segments)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, level := range s.Rollups {
		for i := range level.Segments {
			r.considered += level.Segments[i].Bytes
		}
		r.rollups += int64(len(level.Segments))
	}
	r.session.Counts = s
	return nil
}

// resolution is the coarsest of rollups that have answered.
func (r *run) resolution() time.Duration {
	if r.session.Counts == nil || r.plan == nil || r.plan.Kind == plan.KindLogs {
		return 0
	}
	return r.session.Counts.Resolution()
}
