// SPDX-License-Identifier: AGPL-3.0-only

// Package scanner asks for the compaction of windows that need it. Ingest and compaction ask for the next look themselves; but what there is to do
// is derived from the segments that are live, so nothing depends on a task that was lost.
//
// It decides nothing: a task is a hint, and the plan is made when the task is done.
package scanner

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

// Index is what a Scanner needs of the index.
type Index interface {
	WindowsWithDebt(ctx context.Context, after index.WindowCursor, limit int) ([]index.WindowDebt, error)
	StaleWindows(ctx context.Context, query index.StaleQuery) ([]index.WindowDebt, error)
	Enqueue(ctx context.Context, tasks []lake.Task) error
	Now(ctx context.Context) (time.Time, error)
}

// Scanner looks for windows. It is for one goroutine.
type Scanner struct {
	Index  Index
	Config config.Source
	Log    *slog.Logger
	// Every is how long it waits between two looks at debt.
	Every time.Duration
	// Page is how many windows it asks for at a time. Zero: 500.
	Page int

	looks int
	// seen are the windows of the last look at debt, and those of the present one.
	seen, present map[index.WindowCursor]sighting
}

// sighting is what a window with debt was like.
type sighting struct {
	segments, fresh, bytes int64
	// times is how often it has been like that, and again the look from which on it is asked for once more.
	times, again int
}

// maxPause is the longest time, in looks, for which a window is not asked for that never changes: it waits for something, or its task is buried, and
// asking revives that.
const maxPause = 60

// maxPauseSettled is that of windows without fresh segments: settled shards of metrics are small and several, and yet nothing is to be done.
const maxPauseSettled = 1000

// news reports whether a window is to be asked for: it has changed, or has stayed as it is for so long. Each time that is twice as long.
func (s *Scanner) news(w index.WindowDebt) bool {
	now := sighting{segments: w.Segments, fresh: w.Fresh, bytes: w.Bytes}
	before, known := s.seen[w.Cursor()]
	if known && before.segments == now.segments && before.fresh == now.fresh && before.bytes == now.bytes {
		now.times, now.again = before.times, before.again
	}
	due := s.looks >= now.again
	if due {
		now.times++
		longest := maxPause
		if w.Fresh == 0 {
			longest = maxPauseSettled
		}
		now.again = s.looks + min(1<<min(now.times, 10), longest)
	}
	s.present[w.Cursor()] = now
	return due
}

// staleEvery is after how many looks at debt it looks for segments without a rule, or of an old format: such a look reads all segments.
const staleEvery = 15

// Run looks until ctx ends.
func (s *Scanner) Run(ctx context.Context) {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		if err := s.Look(ctx); err != nil && ctx.Err() == nil {
			s.Log.WarnContext(ctx, "looking for windows to compact failed", "error", err)
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
	now, err := s.Index.Now(ctx)
	if err != nil {
		return err
	}
	if err := s.debts(ctx, now); err != nil {
		return fmt.Errorf("windows with debt: %w", err)
	}
	s.looks++
	if s.looks%staleEvery != 1 {
		return nil
	}
	if err := s.stale(ctx, now); err != nil {
		return fmt.Errorf("stale windows: %w", err)
	}
	return nil
}

func (s *Scanner) page() int {
	if s.Page > 0 {
		return s.Page
	}
	return 500
}

func (s *Scanner) debts(ctx context.Context, now time.Time) error {
	s.present = map[index.WindowCursor]sighting{}
	var after index.WindowCursor
	for {
		windows, err := s.Index.WindowsWithDebt(ctx, after, s.page())
		if err != nil {
			return err
		}
		news := slices.DeleteFunc(slices.Clone(windows), func(w index.WindowDebt) bool { return !s.news(w) })
		if err := s.enqueue(ctx, now, news); err != nil {
			return err
		}
		if len(windows) < s.page() {
			s.seen = s.present
			return nil
		}
		after = windows[len(windows)-1].Cursor()
	}
}

// enqueue asks for windows, the hot ones first: tasks are claimed in the order in which they came.
func (s *Scanner) enqueue(ctx context.Context, now time.Time, windows []index.WindowDebt) error {
	windows = slices.Clone(windows)
	slices.SortStableFunc(windows, func(a, b index.WindowDebt) int { return b.Window.Start.Compare(a.Window.Start) })
	tasks := make([]lake.Task, 0, len(windows))
	for _, w := range windows {
		task := work.TaskOf(w.Organization, w.Signal, w.Window)
		task.Bytes = w.Bytes
		if w.Window.End().Before(now) {
			task.Delay = time.Second
		}
		tasks = append(tasks, task)
	}
	return s.Index.Enqueue(ctx, tasks)
}

// stale asks for windows whose segments lack a rule that is due, or have an older format.
func (s *Scanner) stale(ctx context.Context, now time.Time) error {
	snapshot := s.Config.Current()
	for _, organization := range snapshot.Organizations() {
		for _, signal := range work.Signals() {
			policy := work.PolicyOf(snapshot, organization.ID, signal)
			query := index.StaleQuery{Organization: organization.ID, Signal: signal, Before: now, FormatBelow: policy.Format, Limit: s.page()}
			if err := s.staleBy(ctx, now, query); err != nil {
				return err
			}
			for _, rule := range policy.Rules {
				query.Before, query.MissingRule, query.FormatBelow = now.Add(-rule.After), rule.Name, 0
				if err := s.staleBy(ctx, now, query); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// staleBy asks for the oldest ones; others are found when these are done.
func (s *Scanner) staleBy(ctx context.Context, now time.Time, query index.StaleQuery) error {
	windows, err := s.Index.StaleWindows(ctx, query)
	if err != nil {
		return err
	}
	return s.enqueue(ctx, now, windows)
}
