// SPDX-License-Identifier: AGPL-3.0-only

// Package debt finds the windows whose rollups are due and not current: by an organization's policy and the index's account of windows.
//
// It decides nothing about a window: what there is to do about it is package plan's.
package debt

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Index is what it asks.
type Index interface {
	RollupDebt(ctx context.Context, query index.RollupQuery) ([]index.RollupDebt, error)
	CompactionDebt(ctx context.Context, org lake.Organization) ([]index.Debt, error)
	Now(ctx context.Context) (time.Time, error)
}

// Organizations are those that are declared; where none is, those that have rows. Not named: all.
func Organizations(ctx context.Context, x Index, snapshot *config.Snapshot, named lake.Organization) ([]*config.Organization, error) {
	if named != "" {
		if o, known := snapshot.Organization(named); known {
			return []*config.Organization{o}, nil
		}
		return nil, nil
	}
	if declared := snapshot.Organizations(); len(declared) > 0 {
		return declared, nil
	}
	totals, err := x.CompactionDebt(ctx, "")
	if err != nil {
		return nil, err
	}
	var out []*config.Organization
	for _, t := range totals { // ordered by organization
		if o, known := snapshot.Organization(t.Organization); known && (len(out) == 0 || out[len(out)-1].ID != o.ID) {
			out = append(out, o)
		}
	}
	return out, nil
}

// Tier is what an organization's tier lacks.
type Tier struct {
	Organization lake.Organization
	Signal       lake.Signal
	Policy       config.RollupPolicy
	index.RollupDebt
	// Lag is since when the oldest of the windows is due.
	Lag time.Duration
}

// Of is the debt of an organization's tiers, with up to limit windows of each, of those that ended within a time. Zero: of all.
func Of(ctx context.Context, x Index, o *config.Organization, within time.Duration, limit int) ([]Tier, error) {
	now, err := x.Now(ctx)
	if err != nil {
		return nil, err
	}
	var out []Tier
	for _, signal := range []lake.Signal{lake.SignalLogs, lake.SignalMetrics} {
		policies := o.RollupsOf(signal)
		query := index.RollupQuery{Organization: o.ID, Signal: signal, Limit: limit}
		for _, p := range policies {
			query.Tiers = append(query.Tiers, tier(o, p, now, within))
		}
		debts, err := x.RollupDebt(ctx, query)
		if err != nil {
			return nil, err
		}
		for i, d := range debts {
			t := Tier{Organization: o.ID, Signal: signal, Policy: policies[i], RollupDebt: d}
			if len(d.Windows) > 0 {
				t.Lag = max(now.Sub(d.Windows[0].End().Add(t.Policy.After)), 0)
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// tier bounds the windows of a tier: those that are due, and whose rollup would not be beyond its own retention at once.
func tier(o *config.Organization, p config.RollupPolicy, now time.Time, within time.Duration) index.RollupTier {
	t := index.RollupTier{Resolution: p.Resolution, Length: config.RollupWindow(p.Resolution), Until: now.Add(-p.After)}
	if keep := o.TierRetention(p.Signal, p.Resolution); keep > 0 {
		t.From = now.Add(-keep)
	}
	if recent := now.Add(-within - t.Length - p.After); within > 0 && recent.After(t.From) {
		t.From = recent
	}
	return t
}
