// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Resolutions are those that rollups can have, finest first.
func Resolutions() []time.Duration {
	return []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 20 * time.Minute, time.Hour}
}

// rollupPlaces lies between the number of a signal and that of its rollups, under which their segments stand in the database.
const rollupPlaces = 10

// placeOf is under what number segments stand.
func placeOf(signal lake.Signal, resolution time.Duration) int16 {
	if resolution > 0 {
		return int16(signal) + rollupPlaces
	}
	return int16(signal)
}

// placesOf are the numbers of a signal's rows and of its rollups.
func placesOf(signal lake.Signal) []int16 { return []int16{placeOf(signal, 0), placeOf(signal, 1)} }

// signalAt is the inverse of placeOf.
func signalAt(place int16) lake.Signal {
	return lake.Signal(place % rollupPlaces)
}

// RollupStanding is what has become of the rollup of a window.
type RollupStanding string

// The standings of a rollup.
const (
	RollupRolled  RollupStanding = "rolled"
	RollupSkipped RollupStanding = "skipped" // the rows are no finer than its resolution
	RollupDropped RollupStanding = "dropped" // its files were removed because of a delete: it may be made anew
	RollupExpired RollupStanding = "expired" // its files were removed by retention: it stays away
)

// Rollup is what is known of the rollup of one window.
type Rollup struct {
	Window        lake.Window
	Resolution    time.Duration
	Standing      RollupStanding
	AppliedDelete lake.DeleteID
	// Current says that the window has the rows that it had when the rollup was made or skipped, and that no later delete masks some of them.
	Current bool
	// Held says the same, but for deletes: it is current, or would be if later deletes were applied to it.
	Held bool
	// Segments are the live ones of the rollup, current or not. One that is made anew removes them.
	Segments []lake.Segment
}

// RollupState is a window as the rollup service needs it, of one snapshot.
type RollupState struct {
	Version lake.WindowVersion
	// Hours are those of the window that have or had rows.
	Hours []lake.Window
	// Segments are the live ones of rows whose windows overlap this one, ordered by window and id, with Sources and MaskedSources. Those of
	// longer windows hold rows of other times as well.
	Segments []lake.Segment
	// Deletes that may mask rows of these segments or of those of rollups, rising.
	Deletes []lake.Delete
	// Latest is the highest number of a delete of the organization, over all signals and states.
	Latest lake.DeleteID
	// Expired says that retention has removed rows of the window, so that Segments do not hold all that it had: only a finer rollup that is
	// current for all of Hours may be rolled up further.
	Expired bool
	// Rollups are those of this window and of windows within it, by resolution and window.
	Rollups []Rollup
	At      time.Time
}

// RollupWindow reads a window of whole hours, a day at most, and its rollups in one snapshot.
func (x *Index) RollupWindow(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (state RollupState, err error) {
	defer x.observe("rollup_window", &err)()
	state.Version = lake.WindowVersion{Signal: signal, Window: window}
	if err := checkExpected([]lake.WindowVersion{state.Version}); err != nil {
		return state, fault.Wrap(fault.Invalid, err)
	}
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, x.transactions, snapshot, func(tx pgx.Tx) error {
		w := windowRead{q: x.queries.WithTx(tx), organization: string(org), state: WindowState{Version: state.Version}, reaching: true}
		if err := w.run(ctx); err != nil {
			return err
		}
		b, err := readBook(ctx, w.q, org, signal, window)
		if err != nil {
			return err
		}
		state = RollupState{
			Version: w.state.Version, Segments: w.state.Segments, Deletes: w.state.Deletes, Latest: w.state.Latest, At: w.state.At,
			Hours: b.hoursOf(window), Expired: b.expired(window),
		}
		if state.Rollups, err = b.withSegments(ctx, w); err != nil {
			return err
		}
		return w.deletesOfRollups(ctx, &state)
	})
	return state, failed("read a window and its rollups", err)
}

// deletesOfRollups adds to a window's deletes those that rollups lack.
func (w *windowRead) deletesOfRollups(ctx context.Context, state *RollupState) error {
	lowest := state.Latest
	for _, r := range state.Rollups {
		for _, s := range r.Segments {
			lowest = min(lowest, s.AppliedDelete)
		}
	}
	if lowest == state.Latest {
		return nil
	}
	for _, s := range state.Segments {
		lowest = min(lowest, s.AppliedDelete)
	}
	above, err := w.deletesAbove(ctx, state.Version.Window, int16(state.Version.Signal), lowest)
	if err != nil {
		return err
	}
	state.Deletes = slices.DeleteFunc(above, func(d lake.Delete) bool {
		return !state.lacks(d) && !slices.ContainsFunc(state.Deletes, func(known lake.Delete) bool { return known.ID == d.ID })
	})
	return nil
}

// lacks reports whether a delete was not applied to one of the rollups.
func (s *RollupState) lacks(d lake.Delete) bool {
	return slices.ContainsFunc(s.Rollups, func(r Rollup) bool {
		return d.Start.Before(r.Window.End()) && r.Window.Start.Before(d.End) &&
			slices.ContainsFunc(r.Segments, func(s lake.Segment) bool { return s.AppliedDelete < d.ID })
	})
}

// span is a window that can be compared.
type span struct {
	start  int64 // Unix seconds
	length time.Duration
}

func spanOf(w lake.Window) span { return span{w.Start.Unix(), w.Length} }

// book is what is known of the hours and the rollups of a stretch of time.
type book struct {
	hours   map[int64]db.HoursWithRowsRow // by the Unix seconds of their start
	rollups map[time.Duration]map[span]db.RollupsWithinRow
	listed  []db.RollupsWithinRow
	answers map[time.Duration]map[int64]bool // hours that current rollups of a resolution answer for, once that was asked
}

func readBook(ctx context.Context, q *db.Queries, org lake.Organization, signal lake.Signal, w lake.Window) (*book, error) {
	hours, err := q.HoursWithRows(ctx, db.HoursWithRowsParams{
		Organization: string(org), Signal: int16(signal), FirstHour: w.Start.UTC(), EndHour: w.End().UTC(),
	})
	if err != nil {
		return nil, err
	}
	rollups, err := q.RollupsWithin(ctx, db.RollupsWithinParams{
		Organization: string(org), Signal: int16(signal), Resolutions: nanosecondsOf(Resolutions()), FirstWindow: w.Start.UTC(), EndWindow: w.End().UTC(),
	})
	if err != nil {
		return nil, err
	}
	b := &book{
		hours: make(map[int64]db.HoursWithRowsRow, len(hours)), rollups: make(map[time.Duration]map[span]db.RollupsWithinRow), listed: rollups,
		answers: make(map[time.Duration]map[int64]bool),
	}
	for _, h := range hours {
		b.hours[h.Hour.Unix()] = h
	}
	for _, r := range rollups {
		resolution := time.Duration(r.Resolution)
		if b.rollups[resolution] == nil {
			b.rollups[resolution] = make(map[span]db.RollupsWithinRow)
		}
		b.rollups[resolution][span{r.WindowStart.Unix(), time.Duration(r.WindowLength)}] = r
	}
	return b, nil
}

func nanosecondsOf(durations []time.Duration) []int64 {
	out := make([]int64, len(durations))
	for i, d := range durations {
		out[i] = int64(d)
	}
	return out
}

// hoursOf lists the hours of a window that have or had rows.
func (b *book) hoursOf(w lake.Window) []lake.Window {
	var hours []lake.Window
	for h := lake.WindowOf(w.Start, time.Hour); h.Start.Before(w.End()); h.Start = h.End() {
		if _, known := b.hours[h.Start.Unix()]; known {
			hours = append(hours, h)
		}
	}
	return hours
}

// version is what rollups of a window are held against.
func (b *book) version(w lake.Window) int64 {
	var sum int64
	for _, h := range b.hoursOf(w) {
		sum += b.hours[h.Start.Unix()].Version
	}
	return sum
}

// expired reports whether retention has removed rows of a window.
func (b *book) expired(w lake.Window) bool {
	return slices.ContainsFunc(b.hoursOf(w), func(h lake.Window) bool { return b.hours[h.Start.Unix()].Expired })
}

// holds reports whether what is known of a rollup is of the rows that there are.
func (b *book) holds(r db.RollupsWithinRow) bool { return !r.Masked && b.held(r) }

// held reports the same, whatever deletes there are.
func (b *book) held(r db.RollupsWithinRow) bool {
	return r.Version == b.version(windowOf(r.WindowStart, r.WindowLength))
}

// covered reports whether the current rollups of a resolution answer for all hours of a window.
func (b *book) covered(resolution time.Duration, w lake.Window) bool {
	covered, known := b.answers[resolution]
	if !known {
		covered = make(map[int64]bool)
		b.answers[resolution] = covered
		for _, r := range b.rollups[resolution] {
			if RollupStanding(r.State) != RollupRolled || !b.holds(r) {
				continue
			}
			for _, h := range b.hoursOf(windowOf(r.WindowStart, r.WindowLength)) {
				covered[h.Start.Unix()] = true
			}
		}
	}
	return !slices.ContainsFunc(b.hoursOf(w), func(h lake.Window) bool { return !covered[h.Start.Unix()] })
}

// whole reports whether all that a window had is there to be rolled up to a resolution: as rows, or in a finer rollup.
func (b *book) whole(resolution time.Duration, w lake.Window) bool {
	return !b.expired(w) || slices.ContainsFunc(Resolutions(), func(finer time.Duration) bool { return finer < resolution && b.covered(finer, w) })
}

// withSegments lists the rollups with their live segments.
func (b *book) withSegments(ctx context.Context, w windowRead) ([]Rollup, error) {
	window := w.state.Version.Window
	rows, err := w.q.WindowSegments(ctx, db.WindowSegmentsParams{
		Organization: w.organization, Signal: int16(w.state.Version.Signal) + rollupPlaces,
		FirstWindow: window.Start.UTC(), EndWindow: window.End().UTC(), MaxSegments: MaxLookupSegments + 1,
	})
	if err != nil {
		return nil, err
	}
	if len(rows) > MaxLookupSegments {
		return nil, fault.New(fault.Exhausted, "the rollups of the window have more than %d segments", MaxLookupSegments)
	}
	type place struct {
		span
		resolution int64
	}
	segments := make(map[place][]lake.Segment)
	for _, r := range rows {
		s := segmentOf(r.Segment)
		at := place{spanOf(s.Window), r.Segment.Resolution}
		segments[at] = append(segments[at], s)
	}
	out := make([]Rollup, 0, len(b.listed))
	for _, r := range b.listed {
		rollup := Rollup{
			Window: windowOf(r.WindowStart, r.WindowLength), Resolution: time.Duration(r.Resolution), Standing: RollupStanding(r.State),
			AppliedDelete: lake.DeleteID(r.AppliedDelete), Current: b.holds(r), Held: b.held(r),
		}
		if rollup.Standing == RollupDropped || rollup.Standing == RollupExpired {
			rollup.Current, rollup.Held = false, false
		}
		rollup.Segments = segments[place{spanOf(rollup.Window), r.Resolution}]
		out = append(out, rollup)
	}
	return out, nil
}

// RollupQuery asks for the windows of an organization's signal that lack a current rollup.
type RollupQuery struct {
	Organization lake.Organization
	Signal       lake.Signal
	Tiers        []RollupTier
	// Limit is how many windows of each tier are named. Zero: 1,000.
	Limit int
}

// RollupTier is a resolution that windows of a length, an hour or a day, are rolled up to.
type RollupTier struct {
	Resolution, Length time.Duration
	// From and Until bound the windows: those that begin at From or later, and have ended by Until.
	From, Until time.Time
}

// RollupDebt is what a tier lacks.
type RollupDebt struct {
	Resolution time.Duration
	Windows    []lake.Window // oldest first, up to the limit
	Count      int64         // of all
}

// RollupDebt lists, for each tier, windows with rows whose rollup is not there or not current. Deletes of data make debt of the windows that
// they reach. Windows whose rollup went by retention are no debt, nor are those whose rows did, before there was a rollup to make it from.
func (x *Index) RollupDebt(ctx context.Context, query RollupQuery) (debts []RollupDebt, err error) {
	defer x.observe("rollup_debt", &err)()
	limit := int(pageSize(query.Limit))
	for _, t := range query.Tiers {
		if err := checkTier(t.Resolution, t.Length); err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		debts = append(debts, RollupDebt{Resolution: t.Resolution})
	}
	if len(query.Tiers) == 0 {
		return nil, nil
	}
	from, until := query.Tiers[0].From, query.Tiers[0].Until
	for _, t := range query.Tiers {
		if t.From.Before(from) {
			from = t.From
		}
		if t.Until.After(until) {
			until = t.Until
		}
	}
	from, err = x.queries.FirstHour(ctx, db.FirstHourParams{
		Organization: string(query.Organization), Signal: int16(query.Signal), FromHour: bounded(from), Otherwise: bounded(until),
	})
	if err != nil {
		return nil, failed("list windows without rollups", err)
	}
	for at := lake.WindowOf(from, maxWindow); at.Start.Before(bounded(until)); at.Start = at.End() {
		at.Length = debtStretch
		b, err := readBook(ctx, x.queries, query.Organization, query.Signal, at)
		if err != nil {
			return nil, failed("list windows without rollups", err)
		}
		for i, t := range query.Tiers {
			b.owed(t, at, limit, &debts[i])
		}
	}
	return debts, nil
}

// debtStretch is how much time is looked at in one go.
const debtStretch = 90 * 24 * time.Hour

// owed adds the windows of a stretch that a tier lacks.
func (b *book) owed(t RollupTier, stretch lake.Window, limit int, debt *RollupDebt) {
	var seen lake.Window
	for _, h := range b.hoursOf(stretch) {
		w := lake.WindowOf(h.Start, t.Length)
		if w == seen || w.Start.Before(t.From) || w.End().After(t.Until) {
			continue
		}
		seen = w
		r, known := b.rollups[t.Resolution][spanOf(w)]
		settled := known && (RollupStanding(r.State) == RollupExpired || RollupStanding(r.State) != RollupDropped && b.holds(r))
		if settled || b.version(w) == 0 || !b.whole(t.Resolution, w) {
			continue
		}
		debt.Count++
		if len(debt.Windows) < limit {
			debt.Windows = append(debt.Windows, w)
		}
	}
}

func checkTier(resolution, length time.Duration) error {
	if !slices.Contains(Resolutions(), resolution) {
		return fmt.Errorf("a rollup to %s: want one of %s", resolution, Resolutions())
	}
	if length != time.Hour && length != maxWindow {
		return fmt.Errorf("a rollup of windows of %s: want an hour or a day", length)
	}
	return nil
}
