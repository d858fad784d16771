// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// The steps of Commit that change rollups.

// rolledWindow is what names a rollup, in the database's terms.
type rolledWindow struct {
	signal     lake.Signal
	resolution time.Duration
	span
}

func rolledOf(r lake.Rolled) rolledWindow {
	return rolledWindow{r.Signal, r.Resolution, spanOf(r.Window)}
}

// checkRolled refuses rollups that could not be, and segments of rollups that are not said to be made.
func checkRolled(edit lake.Edit) error {
	rolled := make(map[rolledWindow]lake.Rolled, len(edit.Rolled))
	for _, r := range edit.Rolled {
		if err := checkTier(r.Resolution, r.Window.Length); err != nil {
			return err
		}
		_, double := rolled[rolledOf(r)]
		switch {
		case r.Signal == lake.SignalUnknown || r.Signal > lake.SignalSpans:
			return fmt.Errorf("a rollup of signal %s", r.Signal)
		case !lake.WindowOf(r.Window.Start, r.Window.Length).Start.Equal(r.Window.Start):
			return fmt.Errorf("a rollup of the window at %s, which is not aligned to %s", r.Window.Start, r.Window.Length)
		case double:
			return fmt.Errorf("the window at %s is rolled up to %s twice", r.Window.Start, r.Resolution)
		case r.AppliedDelete < 0:
			return fmt.Errorf("a rollup with applied delete %d", r.AppliedDelete)
		}
		rolled[rolledOf(r)] = r
	}
	for _, s := range edit.Add {
		if s.Resolution == 0 {
			continue
		}
		r, ok := rolled[rolledWindow{s.Signal, s.Resolution, spanOf(s.Window)}]
		switch {
		case !ok || r.Skipped:
			return fmt.Errorf("segment %s is of a rollup to %s that the edit does not make", s.Key, s.Resolution)
		case r.AppliedDelete != s.AppliedDelete:
			return fmt.Errorf("segment %s has applied delete %d, and its rollup %d", s.Key, s.AppliedDelete, r.AppliedDelete)
		}
	}
	return nil
}

// lost notes the rollup that a removed segment is of, unless the edit makes it anew.
func (c *commit) lost(r db.RemoveSegmentsRow) error {
	w := rolledWindow{signalAt(r.Signal), time.Duration(r.Resolution), span{r.WindowStart.Unix(), time.Duration(r.WindowLength)}}
	for _, made := range c.edit.Rolled {
		if rolledOf(made) == w {
			return nil
		}
	}
	switch c.lease.Kind {
	case lake.TaskExpire, lake.TaskErase, lake.TaskRollup:
	default:
		return unreplaced(w)
	}
	if c.lostRollups == nil {
		c.lostRollups = make(map[rolledWindow]bool)
	}
	c.lostRollups[w] = true
	return nil
}

func unreplaced(w rolledWindow) error {
	return fault.New(fault.Invalid, "segments of the rollup to %s of the window at %s are removed by one that takes its place, by retention, or for a delete",
		w.resolution, time.Unix(w.start, 0).UTC())
}

// roll makes rollups current, and says of lost ones why they are. The hours' versions are locked, and have been checked.
func (c *commit) roll(ctx context.Context) error {
	if err := c.loseRollups(ctx); err != nil {
		return err
	}
	if err := c.markRollups(ctx); err != nil || len(c.edit.Rolled) == 0 {
		return err
	}
	if err := c.checkHeld(ctx); err != nil {
		return err
	}
	p := db.PutRollupsParams{Organization: string(c.lease.Organization), Lease: string(c.lease.ID)}
	left := db.RollupSegmentsLeftParams{Organization: string(c.lease.Organization), Lease: string(c.lease.ID)}
	var expired []lake.Rolled
	for _, r := range c.edit.Rolled {
		version, gone, err := c.versionToRoll(r)
		if err != nil {
			return err
		}
		if gone && !r.OfItself {
			expired = append(expired, r)
		}
		p.Signals = append(p.Signals, int16(r.Signal))
		p.Resolutions = append(p.Resolutions, int64(r.Resolution))
		p.WindowStarts = append(p.WindowStarts, r.Window.Start.UTC())
		p.WindowLengths = append(p.WindowLengths, int64(r.Window.Length))
		p.Versions = append(p.Versions, version)
		p.AppliedDeletes = append(p.AppliedDeletes, int64(r.AppliedDelete))
		p.States = append(p.States, string(standingOf(r)))
		left.Places = append(left.Places, placeOf(r.Signal, r.Resolution))
	}
	left.Resolutions, left.WindowStarts, left.WindowLengths = p.Resolutions, p.WindowStarts, p.WindowLengths
	n, err := c.q.PutRollups(ctx, p)
	if err != nil {
		return err
	}
	if err := counted("rollups", len(c.edit.Rolled), n); err != nil {
		return err
	}
	if n, err = c.q.RollupSegmentsLeft(ctx, left); err != nil {
		return err
	}
	if n > 0 {
		return fault.New(fault.Conflict, "%d segments of earlier rollups are not removed", n)
	}
	return c.checkWhole(ctx, expired)
}

func standingOf(r lake.Rolled) RollupStanding {
	if r.Skipped {
		return RollupSkipped
	}
	return RollupRolled
}

// versionToRoll is the version that a rollup is held against, and says whether retention has removed rows of its window.
func (c *commit) versionToRoll(r lake.Rolled) (version int64, expired bool, err error) {
	for _, h := range hoursOf(int16(r.Signal), r.Window.Start, int64(r.Window.Length)) {
		if n := c.bumps[h]; n.increment != 0 || n.quiet != 0 {
			return 0, false, fault.New(fault.Invalid, "the edit rolls up the window at %s, and changes rows of it", r.Window.Start)
		}
		version += c.versions[h].Version
		expired = expired || c.versions[h].Expired
	}
	return version, expired, nil
}

// checkWhole refuses rollups of windows that rows are missing from, unless finer rollups have them all.
func (c *commit) checkWhole(ctx context.Context, expired []lake.Rolled) error {
	for _, r := range expired {
		b, err := readBook(ctx, c.q, c.lease.Organization, r.Signal, r.Window)
		if err != nil {
			return err
		}
		if !b.whole(r.Resolution, r.Window) {
			return fault.New(fault.Conflict, "retention has removed %s of the window at %s, and no finer rollup than %s is current for all of it",
				r.Signal, r.Window.Start, r.Resolution)
		}
	}
	return nil
}

// checkHeld refuses what is made of the rollup itself, unless that lacks nothing but deletes. Then it does not matter whether the rows are
// all there.
func (c *commit) checkHeld(ctx context.Context) error {
	for _, r := range c.edit.Rolled {
		if !r.OfItself {
			continue
		}
		b, err := readBook(ctx, c.q, c.lease.Organization, r.Signal, r.Window)
		if err != nil {
			return err
		}
		before, known := b.rollups[r.Resolution][spanOf(r.Window)]
		if !known || RollupStanding(before.State) != RollupRolled || !b.held(before) {
			return fault.New(fault.Conflict, "the window at %s has no rollup to %s that lacks deletes alone", r.Window.Start, r.Resolution)
		}
	}
	return nil
}

// markRollups says of rollups whose segments are marked which deletes were applied to them.
func (c *commit) markRollups(ctx context.Context) error {
	c.markedRollups = make(map[rolledWindow]bool)
	p := db.MarkRollupsParams{Organization: string(c.lease.Organization), Lease: string(c.lease.ID)}
	for _, m := range c.marked {
		w := rolledWindow{signalAt(m.Signal), time.Duration(m.Resolution), span{m.WindowStart.Unix(), time.Duration(m.WindowLength)}}
		if m.Resolution == 0 || c.markedRollups[w] {
			continue
		}
		c.markedRollups[w] = true
		p.Signals = append(p.Signals, int16(w.signal))
		p.Places = append(p.Places, m.Signal)
		p.Resolutions = append(p.Resolutions, m.Resolution)
		p.WindowStarts = append(p.WindowStarts, m.WindowStart)
		p.WindowLengths = append(p.WindowLengths, m.WindowLength)
	}
	if len(p.Signals) == 0 {
		return nil
	}
	return c.q.MarkRollups(ctx, p)
}

func (c *commit) loseRollups(ctx context.Context) error {
	if len(c.lostRollups) == 0 {
		return nil
	}
	standing := RollupDropped
	if c.lease.Kind == lake.TaskExpire {
		standing = RollupExpired
	}
	p := db.LoseRollupsParams{Organization: string(c.lease.Organization), Lease: string(c.lease.ID), State: string(standing)}
	for w := range c.lostRollups {
		p.Signals = append(p.Signals, int16(w.signal))
		p.Resolutions = append(p.Resolutions, int64(w.resolution))
		p.WindowStarts = append(p.WindowStarts, time.Unix(w.start, 0).UTC())
		p.WindowLengths = append(p.WindowLengths, int64(w.length))
	}
	if err := c.checkLost(ctx); err != nil {
		return err
	}
	_, err := c.q.LoseRollups(ctx, p)
	return err
}

// checkLost refuses that a rollup which is answered is removed by somebody who makes rollups.
func (c *commit) checkLost(ctx context.Context) error {
	if c.lease.Kind != lake.TaskRollup {
		return nil
	}
	for w := range c.lostRollups {
		b, err := readBook(ctx, c.q, c.lease.Organization, w.signal, lake.Window{Start: time.Unix(w.start, 0).UTC(), Length: w.length})
		if err != nil {
			return err
		}
		if r, known := b.rollups[w.resolution][w.span]; known && RollupStanding(r.State) == RollupRolled && b.holds(r) {
			return unreplaced(w)
		}
	}
	return nil
}

// noteRollups has the deletes of data that were not applied to removed rollups wait for their files: what was aggregated of deleted rows is
// in them.
func (c *commit) noteRollups(ctx context.Context) error {
	bySignal := make(map[int16]*db.NoteRollupsUnderDeletesParams)
	for _, r := range c.removed {
		if r.Resolution == 0 {
			continue
		}
		signal := int16(signalAt(r.Signal))
		p := bySignal[signal]
		if p == nil {
			p = &db.NoteRollupsUnderDeletesParams{Places: []int16{r.Signal}, Signal: signal, FirstWindow: r.WindowStart, LastWindow: r.WindowStart}
			bySignal[signal] = p
		}
		p.Ids = append(p.Ids, r.ID)
		if r.WindowStart.Before(p.FirstWindow) {
			p.FirstWindow = r.WindowStart
		}
		if r.WindowStart.After(p.LastWindow) {
			p.LastWindow = r.WindowStart
		}
	}
	for signal := int16(lake.SignalLogs); signal <= int16(lake.SignalSpans); signal++ {
		if p := bySignal[signal]; p != nil {
			if err := c.q.NoteRollupsUnderDeletes(ctx, *p); err != nil {
				return err
			}
		}
	}
	return nil
}
