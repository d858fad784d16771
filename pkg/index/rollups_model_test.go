// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// TestRollupsNeverLie does everything to a few hours of rows and their rollups, in any order: late rows, compaction, rolling up by workers of
// whom some read the window long ago and some overlook that rows are missing, deletes, retention of rows and of tiers. After each step every
// hour for which a rollup answers has all the rows that it ever had before retention came, and no deleted one.
func TestRollupsNeverLie(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			m := &rollupModel{
				lab: setup(t), r: rand.New(rand.NewPCG(seed, 7)), truth: map[lake.Window]map[lake.ReceiptID]bool{}, expired: map[lake.Window]bool{},
				files: map[string]map[lake.Window][]lake.ReceiptID{},
			}
			steps := []func(){m.late, m.late, m.compact, m.rollHour, m.rollHour, m.rollHour, m.rollDay, m.rollDay, m.outdated, m.delete, m.expireRows, m.expireTier, m.erase}
			for range 70 {
				steps[m.r.IntN(len(steps))]()
				m.check()
			}
			m.rebuild()
			if m.answered == 0 || m.refused == 0 {
				t.Errorf("%d hours were answered and %d rollups refused: this shows nothing", m.answered, m.refused)
			}
		})
	}
}

const modelHours = 3

type rollupModel struct {
	*lab
	r *rand.Rand
	// truth are the rows that a rollup of an hour has to have.
	truth   map[lake.Window]map[lake.ReceiptID]bool
	expired map[lake.Window]bool
	// files are what files of rollups hold.
	files             map[string]map[lake.Window][]lake.ReceiptID
	keys              int
	answered, refused int
}

func (m *rollupModel) hour() lake.Window { return hourAt(m.r.IntN(modelHours)) }

// late brings a row to an hour.
func (m *rollupModel) late() {
	w := m.hour()
	m.keys++
	s := m.ingestAt(fmt.Sprint(m.keys), w)
	if m.expired[w] {
		return // it changes no rollup
	}
	if m.truth[w] == nil {
		m.truth[w] = map[lake.ReceiptID]bool{}
	}
	m.truth[w][s.Sources[0]] = true
}

// taken reports whether a delete takes the rows of a source: its selector is a remainder by three.
func taken(d lake.Delete, id lake.ReceiptID) bool { return d.Selector == fmt.Sprint(id%3) }

// rows are those of a segment that no delete masks.
func rows(s lake.Segment, deletes []lake.Delete) []lake.ReceiptID {
	return slices.DeleteFunc(slices.Clone(s.Sources), func(id lake.ReceiptID) bool {
		return slices.ContainsFunc(deletes, func(d lake.Delete) bool {
			return d.ID > s.AppliedDelete && taken(d, id) && s.Window.Start.Before(d.End) && d.Start.Before(s.Window.End())
		})
	})
}

// compact merges the rows of an hour.
func (m *rollupModel) compact() {
	w := m.hour()
	state := m.rollupWindow(w)
	lease := m.claimWindow(w)
	edit := lake.Edit{Rewrite: true, Expect: []lake.WindowVersion{state.Version}}
	var kept []lake.ReceiptID
	for _, s := range state.Segments {
		edit.Remove = append(edit.Remove, s.ID)
		kept = append(kept, rows(s, state.Deletes)...)
	}
	if len(kept) > 0 {
		edit.Add = []lake.Segment{segment(lease, 0, w, kept...)}
		edit.Add[0].Level, edit.Add[0].AppliedDelete = 1, state.Latest
	}
	m.commit(lease, edit)
}

func (m *rollupModel) rollHour() { m.try(m.hour(), time.Minute, m.rollupWindow) }
func (m *rollupModel) rollDay()  { m.try(day, time.Hour, m.rollupWindow) }

// outdated rolls up what was read before something happened.
func (m *rollupModel) outdated() {
	w, resolution := m.hour(), time.Minute
	if m.r.IntN(2) == 0 {
		w, resolution = day, time.Hour
	}
	m.try(w, resolution, func(w lake.Window) index.RollupState {
		state := m.rollupWindow(w)
		[]func(){m.late, m.delete, m.expireRows, m.rollHour, m.compact}[m.r.IntN(5)]()
		return state
	})
}

// try rolls a window up, from finer rollups if they are current for all of it, else from rows, whether or not some are missing.
func (m *rollupModel) try(w lake.Window, resolution time.Duration, read func(lake.Window) index.RollupState) {
	state := read(w)
	lease := m.claimRollup(w, resolution)
	edit := rolledUp(lease, state, resolution)
	content := map[lake.Window][]lake.ReceiptID{}
	for _, r := range state.Rollups {
		if r.Resolution < resolution && r.Current && r.Standing == index.RollupRolled {
			for _, s := range r.Segments {
				maps.Copy(content, m.files[s.Key])
			}
			if len(r.Segments) == 0 {
				content[r.Window] = nil
			}
		}
	}
	if len(content) < len(state.Hours) || len(state.Hours) == 0 {
		clear(content)
		for _, s := range state.Segments {
			content[s.Window] = append(content[s.Window], rows(s, state.Deletes)...)
		}
	}
	m.files[edit.Add[0].Key] = content
	m.finish(lease, edit)
}

// finish commits what may be refused.
func (m *rollupModel) finish(lease *lake.Lease, edit lake.Edit) {
	err := m.Commit(m.Context(), lease, edit)
	if err == nil {
		return
	}
	m.wantFault(err, fault.Conflict)
	m.refused++
	if err := m.Release(m.Context(), lease, errors.New("refused")); err != nil {
		m.Fatal(err)
	}
}

// delete deletes some rows of an hour.
func (m *rollupModel) delete() {
	w := m.hour()
	d := deletion(fmt.Sprint(m.r.IntN(3)))
	d.Start, d.End = w.Start, w.End()
	d = m.createDelete(d)
	maps.DeleteFunc(m.truth[w], func(id lake.ReceiptID, _ bool) bool { return taken(d, id) })
}

// expireRows lets retention take the rows of an hour.
func (m *rollupModel) expireRows() {
	if m.r.IntN(3) > 0 {
		return
	}
	w := m.hour()
	var ids []lake.SegmentID
	for _, s := range m.rollupWindow(w).Segments {
		ids = append(ids, s.ID)
	}
	if len(ids) > 0 {
		m.remove(ids...)
		m.expired[w] = true
	}
}

// expireTier lets retention take a rollup.
func (m *rollupModel) expireTier() {
	if found := m.rollupSegments(); len(found) > 0 && m.r.IntN(3) == 0 {
		m.remove(found[m.r.IntN(len(found))].ID)
	}
}

// erase removes a rollup under a delete, or takes the deleted rows out of it, or marks it if there are none.
func (m *rollupModel) erase() {
	found := slices.DeleteFunc(m.rollupSegments(), func(lake.Segment) bool { return m.r.IntN(2) == 0 })
	if len(found) == 0 {
		return
	}
	old := found[0]
	if m.r.IntN(4) == 0 {
		m.commit(m.claimErase(), lake.Edit{Remove: []lake.SegmentID{old.ID}})
		return
	}
	state := m.rollupWindow(old.Window)
	deletes, _, err := m.Deletes(m.Context(), index.DeleteQuery{Organization: acme, After: old.AppliedDelete})
	if err != nil {
		m.Fatal(err)
	}
	content, changed := map[lake.Window][]lake.ReceiptID{}, false
	for w, ids := range m.files[old.Key] {
		content[w] = slices.DeleteFunc(slices.Clone(ids), func(id lake.ReceiptID) bool {
			return slices.ContainsFunc(deletes, func(d lake.Delete) bool { return taken(d, id) && w.Start.Before(d.End) && d.Start.Before(w.End()) })
		})
		changed = changed || len(content[w]) != len(ids)
	}
	lease := m.claimErase()
	edit := ofItself(rolledUp(lease, state, old.Resolution))
	if !changed {
		edit = lake.Edit{Marks: []lake.Mark{{Segment: old.ID, AppliedDelete: state.Latest}}}
	} else {
		m.files[edit.Add[0].Key] = content
	}
	m.finish(lease, edit)
}

func (m *rollupModel) rollupSegments() []lake.Segment {
	var found []lake.Segment
	for _, r := range m.rollupWindow(day).Rollups {
		found = append(found, r.Segments...)
	}
	return found
}

func (m *rollupModel) check() {
	m.Helper()
	for _, resolution := range []time.Duration{time.Minute, time.Hour} {
		m.checkOn(m.lab, resolution)
	}
	for _, windows := range m.debt(minutes, hours) {
		for _, w := range windows {
			if r := m.rollupWindow(w).Rollups; slices.ContainsFunc(r, func(r index.Rollup) bool { return r.Window == w && r.Current }) {
				m.Errorf("the window at %s is debt, and has a rollup that is current", w.Start)
			}
		}
	}
}

func (m *rollupModel) checkOn(l *lab, resolution time.Duration) {
	m.Helper()
	answer := l.lookupRollups(resolution)
	got := map[lake.Window][]lake.ReceiptID{}
	for _, s := range answer.Segments {
		for w, ids := range m.files[s.Key] {
			got[w] = append(got[w], ids...)
		}
	}
	for n := range modelHours {
		w := hourAt(n)
		if slices.Contains(answer.Uncovered, w) {
			if len(got[w]) > 0 {
				m.Errorf("%s at %s is answered for and uncovered", resolution, w.Start)
			}
			continue
		}
		if len(m.truth[w]) == 0 && len(got[w]) == 0 {
			continue
		}
		m.answered++
		slices.Sort(got[w])
		if want := slices.Sorted(maps.Keys(m.truth[w])); !slices.Equal(got[w], want) {
			m.Fatalf("%s at %s: the rollup has %v, want %v", resolution, w.Start, got[w], want)
		}
	}
}

// rebuild makes another index of the records, which has to know the same.
func (m *rollupModel) rebuild() {
	m.Helper()
	fresh := rebuiltInAnyOrder(m.T, m.r, nil, m.records(acme))
	m.wantSame(fresh)
	for _, resolution := range []time.Duration{time.Minute, time.Hour} {
		m.checkOn(fresh, resolution)
	}
}
