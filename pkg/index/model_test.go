// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// TestNothingIsLostOrDoubled lets workers that die, fail, answer late, compact, mark and roll up run against senders that repeat, rewrite and
// replay, others who delete, and readers. At any time no key is visible twice, and none that was deleted before one looked, and a rollup that
// answers holds what the rows say. In the end the newest content's rows of every key that was not deleted are visible, once.
func TestNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			l := setup(t)
			s := newStorm(l)
			const senders, workers, readers = 3, 6, 1
			s.sending.Store(senders)
			l.wantNone(l.together(senders+workers+readers, func(i int) error {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				if i < senders {
					defer s.sending.Add(-1)
					return s.send(r, i)
				}
				if i < senders+readers {
					return s.read()
				}
				return s.work(r)
			}))
			s.settle()
			s.check(senders)
		})
	}
}

type storm struct {
	*lab
	sending atomic.Int32
	// rolled are the keys that files of rollups hold, sorted, by the keys of the files.
	rolled *sync.Map
	// compared counts how often rows and a rollup could be compared.
	compared atomic.Int32
}

func newStorm(l *lab) *storm { return &storm{lab: l, rolled: &sync.Map{}} }

// on is the same lake on another index.
func (s *storm) on(l *lab) *storm { return &storm{lab: l, rolled: s.rolled} }

// rollups are the tiers of a storm, each with its window.
var rollups = []struct {
	window     lake.Window
	resolution time.Duration
}{{hour, time.Minute}, {day, time.Hour}}

const (
	stormKeys  = 12 // of each sender
	stormSends = 25
)

// send writes rising contents of its own keys, now and then twice, and replays.
func (s *storm) send(r *rand.Rand, sender int) error {
	ctx := context.Background()
	for round := range stormSends {
		var batch []index.Notice
		for range 1 + r.IntN(6) {
			key := fmt.Sprintf("%d/%02d", sender, r.IntN(min(stormKeys, round+2))) // some are new when a delete was made
			batch = append(batch, replacing(key, fmt.Sprintf("%04d", round)))
		}
		for range 1 + r.IntN(2) {
			if _, err := s.Receive(ctx, batch); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
		if r.IntN(8) == 0 {
			if _, _, err := s.Replay(ctx, index.ReplayQuery{Organization: acme, State: lake.ReceiptDone, KeyPrefix: fmt.Sprintf("%d/", sender)}); err != nil {
				return fmt.Errorf("replay: %w", err)
			}
		}
		if r.IntN(6) == 0 {
			d := deletion(fmt.Sprintf("%d/%02d", sender, r.IntN(stormKeys)))
			if _, err := s.CreateDelete(ctx, d); err != nil {
				return fmt.Errorf("delete: %w", err)
			}
		}
		tasks := []lake.Task{window(hour)}
		for _, rollup := range rollups {
			tasks = append(tasks, lake.Task{
				Kind: lake.TaskRollup, Organization: acme, Signal: lake.SignalLogs, Window: rollup.window, Tier: int(rollup.resolution.Seconds()),
			})
		}
		if err := s.Enqueue(ctx, tasks); err != nil {
			return fmt.Errorf("enqueue: %w", err)
		}
	}
	return nil
}

// reaches says whether a delete, whose selector is a key here, takes the row of a receipt.
func reaches(d lake.Delete, key string, received time.Time) bool {
	return d.Selector == key && !received.After(d.CreatedAt)
}

// origin is where a row came from.
type origin struct {
	key      string
	received time.Time
}

// origins reads where the row of each source came from.
func (s *storm) origins(ctx context.Context) (map[lake.ReceiptID]origin, error) {
	rows, err := s.sql.Query(ctx, "SELECT id, key, min(created_at) OVER (PARTITION BY key) FROM receipts")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	origins := map[lake.ReceiptID]origin{}
	for rows.Next() {
		var id lake.ReceiptID
		var o origin
		if err := rows.Scan(&id, &o.key, &o.received); err != nil {
			return nil, err
		}
		origins[id] = o
	}
	return origins, rows.Err()
}

// read looks again and again, as a query does.
func (s *storm) read() error {
	ctx := context.Background()
	for s.sending.Load() > 0 {
		known, _, err := s.Deletes(ctx, index.DeleteQuery{Organization: acme})
		if err != nil {
			return err
		}
		if _, err := s.seen(ctx, known); err != nil {
			return err
		}
		if err := s.compare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// compare holds the rollups that answer against the rows, unless these changed meanwhile.
func (s *storm) compare(ctx context.Context) error {
	for _, rollup := range rollups {
		before, err := s.WindowVersion(ctx, acme, lake.SignalLogs, day)
		if err != nil {
			return err
		}
		answer, err := s.Lookup(ctx, index.Query{Organization: acme, Signal: lake.SignalLogs, Start: day.Start, End: day.End(), Resolution: rollup.resolution})
		if err != nil {
			return err
		}
		rows, err := s.seen(ctx, nil)
		if err != nil {
			return err
		}
		after, err := s.WindowVersion(ctx, acme, lake.SignalLogs, day)
		if err != nil || after != before || len(answer.Uncovered) > 0 {
			if len(answer.Segments) > 0 && len(answer.Uncovered) > 0 {
				return fmt.Errorf("%d segments of rollups are answered, and the only hour is not covered", len(answer.Segments))
			}
			continue
		}
		var keys []string
		for _, segment := range answer.Segments {
			held, _ := s.rolled.Load(segment.Key)
			keys = append(keys, held.([]string)...)
		}
		slices.Sort(keys)
		if want := slices.Sorted(maps.Keys(rows)); !slices.Equal(keys, want) {
			return fmt.Errorf("the rollup to %s holds %v, the rows are %v", rollup.resolution, keys, want)
		}
		s.compared.Add(1)
	}
	return nil
}

// seen returns the keys that a query sees, and the sources that it sees them by. No key may be there twice, and none that one
// of the deletes took which were known before.
func (s *storm) seen(ctx context.Context, known []lake.Delete) (map[string]lake.ReceiptID, error) {
	answer, err := s.Lookup(ctx, index.Query{Organization: acme, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()})
	if err != nil {
		return nil, err
	}
	origins, err := s.origins(ctx)
	if err != nil {
		return nil, err
	}
	keys := map[string]lake.ReceiptID{}
	for _, segment := range answer.Segments {
		sources, err := s.kept(ctx, segment)
		if err != nil {
			return nil, err
		}
		for _, id := range sources {
			o := origins[id]
			if slices.ContainsFunc(answer.Deletes, func(d lake.Delete) bool { return d.ID > segment.AppliedDelete && reaches(d, o.key, o.received) }) {
				continue
			}
			if other, double := keys[o.key]; double {
				return nil, fmt.Errorf("key %s is visible by receipts %d and %d", o.key, other, id)
			}
			if slices.ContainsFunc(known, func(d lake.Delete) bool { return reaches(d, o.key, o.received) }) {
				return nil, fmt.Errorf("key %s is visible by receipt %d, but was deleted before", o.key, id)
			}
			keys[o.key] = id
		}
	}
	return keys, nil
}

// work does what is there, badly.
func (s *storm) work(r *rand.Rand) error {
	for s.sending.Load() > 0 {
		batch := index.Batch{Kind: lake.TaskIngest, MaxTasks: 1 + r.IntN(8), MaxAttempts: 1000}
		switch r.IntN(5) {
		case 0:
			batch.Kind = "compact"
		case 1:
			batch.Kind, batch.MaxTasks = lake.TaskRollup, 1
		}
		if err := s.workOnce(r, batch); err != nil {
			return err
		}
	}
	return nil
}

func (s *storm) workOnce(r *rand.Rand, batch index.Batch) error {
	ctx := context.Background()
	lease, err := s.Claim(ctx, batch)
	if err != nil || lease == nil {
		return err
	}
	edit, err := s.edit(ctx, r, lease)
	if err != nil {
		return err
	}
	switch r.IntN(8) {
	case 0: // dies before its commit
		_, err := s.sql.Exec(ctx, "UPDATE leases SET expires_at = clock_timestamp() WHERE id = $1", lease.ID)
		return err
	case 1: // dies, and its commit arrives nevertheless
		if _, err := s.sql.Exec(ctx, "UPDATE leases SET expires_at = clock_timestamp() WHERE id = $1", lease.ID); err != nil {
			return err
		}
		return s.tolerate(s.Commit(ctx, lease, edit), lease)
	case 2: // fails
		return s.tolerate(s.Release(ctx, lease, errors.New("stumbled")), lease)
	case 3: // does not hear the answer
		first := s.Commit(ctx, lease, edit)
		second := s.Commit(ctx, lease, edit)
		if first == nil && second != nil {
			return fmt.Errorf("asked again: %w", second)
		}
		return s.tolerate(second, lease)
	}
	return s.tolerate(s.Commit(ctx, lease, edit), lease)
}

// tolerate releases the lease after a conflict, as a stage does.
func (s *storm) tolerate(err error, lease *lake.Lease) error {
	if !errors.Is(err, fault.Conflict) {
		return err
	}
	if err := s.Release(context.Background(), lease, err); err != nil && !errors.Is(err, fault.Conflict) {
		return err
	}
	const free = "SELECT id FROM tasks WHERE not_before > clock_timestamp() AND state = 'ready' FOR UPDATE SKIP LOCKED"
	_, err = s.sql.Exec(context.Background(), "UPDATE tasks SET not_before = clock_timestamp() WHERE id IN ("+free+")")
	return err
}

// edit is one row a receipt for ingest, and one segment of all that is there for compaction, or marks.
func (s *storm) edit(ctx context.Context, r *rand.Rand, lease *lake.Lease) (lake.Edit, error) {
	switch lease.Kind {
	case lake.TaskIngest:
		return s.ingest(ctx, lease)
	case lake.TaskRollup:
		return s.rollup(ctx, lease)
	}
	state, err := s.Window(ctx, acme, lake.SignalLogs, hour)
	if err != nil {
		return lake.Edit{}, err
	}
	origins, err := s.origins(ctx)
	if err != nil {
		return lake.Edit{}, err
	}
	if r.IntN(3) == 0 {
		return marks(state, origins), nil
	}
	return merged(lease, state, origins)
}

// rollup rolls up a window, from finer rollups where they are current, else from the rows.
func (s *storm) rollup(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	task := lease.Tasks[0]
	resolution := time.Duration(task.Tier) * time.Second
	state, err := s.RollupWindow(ctx, acme, lake.SignalLogs, task.Window)
	if err != nil {
		return lake.Edit{}, err
	}
	origins, err := s.origins(ctx)
	if err != nil {
		return lake.Edit{}, err
	}
	keys, finer := s.finer(state, resolution)
	for _, segment := range state.Segments {
		for _, id := range segment.Sources {
			if !finer && !slices.Contains(segment.MaskedSources, id) && taker(state.Deletes, segment, origins[id]) < 0 {
				keys = append(keys, origins[id].key)
			}
		}
	}
	slices.Sort(keys)
	edit := rolledUp(lease, state, resolution)
	s.rolled.Store(edit.Add[0].Key, keys)
	return edit, nil
}

// finer returns what the finer rollups of a window hold, if they are current for all of it.
func (s *storm) finer(state index.RollupState, resolution time.Duration) (keys []string, whole bool) {
	for _, r := range state.Rollups {
		if r.Resolution >= resolution || !r.Current || r.Standing != index.RollupRolled {
			continue
		}
		for _, segment := range r.Segments {
			held, _ := s.rolled.Load(segment.Key)
			keys = append(keys, held.([]string)...)
		}
		whole = true // there is one hour
	}
	return keys, whole
}

// ingest reads the deletes after the claim, as an ingestor does, and leaves out what they reach.
func (s *storm) ingest(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	deletes, latest, err := s.Deletes(ctx, index.DeleteQuery{Organization: acme})
	if err != nil {
		return lake.Edit{}, err
	}
	var edit lake.Edit
	var sources []lake.ReceiptID
	for _, receipt := range lease.Receipts {
		outcome := done(receipt.ID)
		hit := slices.IndexFunc(deletes, func(d lake.Delete) bool { return reaches(d, receipt.Object.Key, receipt.ReceivedAt) })
		if hit < 0 {
			sources = append(sources, receipt.ID)
		} else {
			outcome.RowsOut = 0
			edit.Deleted = append(edit.Deleted, lake.DeletedRows{Delete: deletes[hit].ID, Source: receipt.ID, Rows: 1})
		}
		edit.Outcomes = append(edit.Outcomes, outcome)
	}
	if len(sources) > 0 {
		edit.Add = []lake.Segment{segment(lease, 0, hour, sources...)}
		edit.Add[0].AppliedDelete = latest
	}
	return edit, nil
}

// marks says of segments that no delete reaches that all deletes were applied to them.
func marks(state index.WindowState, origins map[lake.ReceiptID]origin) lake.Edit {
	var edit lake.Edit
	for _, segment := range state.Segments {
		touched := slices.ContainsFunc(segment.Sources, func(id lake.ReceiptID) bool { return taker(state.Deletes, segment, origins[id]) >= 0 })
		if !touched {
			edit.Marks = append(edit.Marks, lake.Mark{Segment: segment.ID, AppliedDelete: state.Latest, Rules: []string{"drop:a"}})
		}
	}
	return edit
}

// taker finds the delete that takes a row which is in a segment; -1: none.
func taker(deletes []lake.Delete, segment lake.Segment, o origin) int {
	return slices.IndexFunc(deletes, func(d lake.Delete) bool { return d.ID > segment.AppliedDelete && reaches(d, o.key, o.received) })
}

// merged is one segment of all that is there, without what is masked or deleted.
func merged(lease *lake.Lease, state index.WindowState, origins map[lake.ReceiptID]origin) (lake.Edit, error) {
	edit := lake.Edit{Rewrite: true, Expect: []lake.WindowVersion{state.Version}}
	var sources []lake.ReceiptID
	for _, segment := range state.Segments {
		edit.Remove = append(edit.Remove, segment.ID)
		for _, id := range segment.Sources {
			if slices.Contains(segment.MaskedSources, id) {
				continue
			}
			if hit := taker(state.Deletes, segment, origins[id]); hit >= 0 {
				edit.Deleted = append(edit.Deleted, lake.DeletedRows{Delete: state.Deletes[hit].ID, Source: id, Segment: segment.ID, Rows: 1})
				continue
			}
			sources = append(sources, id)
		}
	}
	slices.Sort(sources)
	if len(slices.Compact(slices.Clone(sources))) != len(sources) {
		return lake.Edit{}, fmt.Errorf("a source is doubled in %v", sources)
	}
	if len(sources) > 0 {
		edit.Add = []lake.Segment{segment(lease, 0, hour, sources...)}
		edit.Add[0].Level, edit.Add[0].AppliedDelete = 1, state.Latest
	}
	return edit, nil
}

// kept lists the sources of a segment whose rows compaction keeps.
func (s *storm) kept(ctx context.Context, segment lake.Segment) ([]lake.ReceiptID, error) {
	var all []int64
	err := s.sql.QueryRow(ctx, "SELECT array_agg(receipt) FROM segment_sources WHERE segment = $1", segment.ID).Scan(&all)
	var kept []lake.ReceiptID
	for _, id := range all {
		if !slices.Contains(segment.MaskedSources, lake.ReceiptID(id)) {
			kept = append(kept, lake.ReceiptID(id))
		}
	}
	return kept, err
}

// settle ends what is left behind and does what is left over.
func (s *storm) settle() {
	s.exec("UPDATE leases SET expires_at = clock_timestamp() WHERE state = 'live'")
	for s.number("SELECT count(*) FROM tasks WHERE kind = 'ingest'")+s.number("SELECT count(*) FROM leases WHERE state = 'live'") > 0 {
		s.hurry()
		s.drain()
	}
}

// drain ingests until nothing is left.
func (s *storm) drain() {
	for {
		lease, err := s.Claim(s.Context(), ingest)
		if err != nil {
			s.Fatal(err)
		}
		if lease == nil {
			return
		}
		edit, err := s.ingest(s.Context(), lease)
		if err != nil {
			s.Fatal(err)
		}
		s.commit(lease, edit)
	}
}

// rollUp does so when nothing else goes on.
func (s *storm) rollUp(w lake.Window, resolution time.Duration) {
	s.Helper()
	lease := s.claimRollup(w, resolution)
	edit, err := s.rollup(s.Context(), lease)
	if err != nil {
		s.Fatal(err)
	}
	s.commit(lease, edit)
}

func (s *storm) check(senders int) {
	s.Helper()
	if n := s.number("SELECT count(*) FROM receipts WHERE state NOT IN ('done', 'superseded')"); n != 0 {
		s.Errorf("%d receipts are neither done nor superseded", n)
	}
	newest := s.number("SELECT count(*) FROM (SELECT DISTINCT bucket, key FROM receipts) keys")
	if newest == 0 || newest > senders*stormKeys {
		s.Fatalf("%d keys", newest)
	}
	deletes, _, err := s.Deletes(s.Context(), index.DeleteQuery{Organization: acme})
	if err != nil {
		s.Fatal(err)
	}
	keys, err := s.seen(s.Context(), deletes)
	if err != nil {
		s.Fatal(err)
	}
	for key, id := range keys {
		r := s.wantState(id, lake.ReceiptDone)
		if later := s.number("SELECT count(*) FROM receipts WHERE key = $1 AND (revision > $2 OR tag > $3)", key, r.Revision, r.Object.Tag); later != 0 {
			s.Errorf("key %s is visible by revision %d of content %s, of which there are %d later ones", key, r.Revision, r.Object.Tag, later)
		}
	}
	origins, err := s.origins(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	deleted := map[string]bool{}
	for _, o := range origins {
		if slices.ContainsFunc(deletes, func(d lake.Delete) bool { return reaches(d, o.key, o.received) }) {
			deleted[o.key] = true
		}
	}
	if len(keys)+len(deleted) != newest {
		s.Errorf("%d keys are visible and %d deleted, want %d", len(keys), len(deleted), newest)
	}
	for _, rollup := range rollups {
		s.rollUp(rollup.window, rollup.resolution)
	}
	compared := s.compared.Load()
	if err := s.compare(s.Context()); err != nil || s.compared.Load() != compared+int32(len(rollups)) {
		s.Errorf("the rollups in the end: %v", err)
	}
	if n := s.number("SELECT count(*) FROM segments WHERE signal > 10 AND removed_at IS NULL"); n != len(rollups) {
		s.Errorf("%d segments of rollups are live, want %d", n, len(rollups))
	}
	if n := s.number("SELECT count(*) - (SELECT sum(segments) FROM segment_totals) FROM segments WHERE removed_at IS NULL"); n != 0 {
		s.Errorf("%d segments more than are counted", n)
	}
}
