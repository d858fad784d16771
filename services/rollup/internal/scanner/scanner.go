// SPDX-License-Identifier: AGPL-3.0-only

// Package scanner asks for rollups that are due and not current. Ingest, deletes and finer rollups ask for them themselves; but what there is to do is derived
// from the content versions of windows, so nothing depends on a task that was lost, and a tier that is new to the configuration is made of what there is.
//
// It decides nothing: a task is a hint, and the plan is made when the task is done.
package scanner

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/rollup/internal/debt"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// Index is what a Scanner needs of the index.
type Index interface {
	debt.Index
	Enqueue(ctx context.Context, tasks []lake.Task) error
}

// Scanner looks for windows. It is for one goroutine.
type Scanner struct {
	Index  Index
	Config config.Source
	Log    *slog.Logger
	// Lag, if not nil, is told after each look at all windows how far tiers are behind.
	Lag func(context.Context, []debt.Tier)
	// Every is how long it waits between two looks.
	Every time.Duration
	// Page is how many windows of a tier it asks for at a time, the oldest of them. Zero: 500.
	Page int

	looks int
	seen  map[place]sighting
}

// Most looks are at windows that ended lately, since a look at years costs a read of all of them. Whatever changes older ones asks for their rollups itself,
// but for deletes and new tiers: every so many looks are at all.
const (
	lately = 72 * time.Hour
	whole  = 15
)

type place struct {
	organization lake.Organization
	signal       lake.Signal
	resolution   time.Duration
	start        int64
}

// sighting is how often a window was seen, and from which look on it is asked for once more.
type sighting struct{ times, again int }

// maxPause is the longest time, in looks, for which a window is not asked for that stays in debt: it waits for something, or its task is buried, and asking
// revives that.
const maxPause = 60

// Run looks until ctx ends.
func (s *Scanner) Run(ctx context.Context) {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		if err := s.Look(ctx); err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "looking for windows to roll up failed", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Look looks once.
func (s *Scanner) Look(ctx context.Context) error {
	page := s.Page
	if page <= 0 {
		page = 500
	}
	present, within := map[place]sighting{}, time.Duration(0)
	if s.looks%whole != 0 {
		within = lately
	}
	organizations, err := debt.Organizations(ctx, s.Index, s.Config.Current(), "")
	if err != nil {
		return fmt.Errorf("organizations: %w", err)
	}
	var all []debt.Tier
	for _, o := range organizations {
		tiers, err := debt.Of(ctx, s.Index, o, within, page)
		if err != nil {
			return fmt.Errorf("windows of %s: %w", o.ID, err)
		}
		all = append(all, tiers...)
		for _, t := range tiers {
			if err := s.ask(ctx, t, present); err != nil {
				return err
			}
		}
	}
	if within == 0 && s.Lag != nil {
		s.Lag(ctx, all)
	}
	if within > 0 { // older ones were not looked for
		for at, seen := range s.seen {
			if _, there := present[at]; !there {
				present[at] = seen
			}
		}
	}
	s.seen = present
	s.looks++
	return nil
}

// ask asks for windows that are new, or were asked for long enough ago: each time twice as long.
func (s *Scanner) ask(ctx context.Context, t debt.Tier, present map[place]sighting) error {
	var tasks []lake.Task
	for _, w := range t.Windows {
		at := place{t.Organization, t.Signal, t.Resolution, w.Start.Unix()}
		seen := s.seen[at]
		if s.looks >= seen.again {
			seen.times++
			seen.again = s.looks + min(1<<min(seen.times, 10), maxPause)
			tasks = append(tasks, plan.TaskOf(t.Organization, t.Signal, w, t.Resolution))
		}
		present[at] = seen
	}
	if len(tasks) == 0 {
		return nil
	}
	return s.Index.Enqueue(ctx, tasks)
}
