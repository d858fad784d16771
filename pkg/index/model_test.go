// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// TestNothingIsLostOrDoubled lets workers that die, fail, answer late and compact run against senders that repeat, rewrite and
// replay, and then counts: of every key the newest content's rows are visible, once.
func TestNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			l := setup(t)
			s := &storm{lab: l, seed: seed}
			const senders, workers = 3, 6
			s.sending.Store(senders)
			l.wantNone(l.together(senders+workers, func(i int) error {
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				if i < senders {
					defer s.sending.Add(-1)
					return s.send(r, i)
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
	seed    uint64
	sending atomic.Int32
}

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
			key := fmt.Sprintf("%d/%02d", sender, r.IntN(stormKeys))
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
		if err := s.Enqueue(ctx, []lake.Task{window(hour)}); err != nil {
			return fmt.Errorf("enqueue: %w", err)
		}
	}
	return nil
}

// work does what is there, badly.
func (s *storm) work(r *rand.Rand) error {
	for s.sending.Load() > 0 {
		batch := index.Batch{Kind: lake.TaskIngest, MaxTasks: 1 + r.IntN(8), MaxAttempts: 1000}
		if r.IntN(4) == 0 {
			batch.Kind = "compact"
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
	edit, err := s.edit(ctx, lease)
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
	_, err = s.sql.Exec(context.Background(), "UPDATE tasks SET not_before = clock_timestamp() WHERE not_before > clock_timestamp() AND state = 'ready'")
	return err
}

// edit is one row a receipt for ingest, and one segment of all that is there for compaction.
func (s *storm) edit(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	if lease.Kind == lake.TaskIngest {
		return whole(lease), nil
	}
	answer, err := s.Lookup(ctx, index.Query{Organization: acme, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()})
	if err != nil || len(answer.Segments) < 2 {
		return lake.Edit{}, err
	}
	edit := lake.Edit{Rewrite: true}
	var sources []lake.ReceiptID
	for _, segment := range answer.Segments {
		edit.Remove = append(edit.Remove, segment.ID)
		kept, err := s.kept(ctx, segment)
		if err != nil {
			return lake.Edit{}, err
		}
		sources = append(sources, kept...)
	}
	slices.Sort(sources)
	if len(slices.Compact(slices.Clone(sources))) != len(sources) {
		return lake.Edit{}, fmt.Errorf("a source is doubled in %v", sources)
	}
	if len(sources) > 0 {
		edit.Add = []lake.Segment{segment(lease, 0, hour, sources...)}
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
		s.ingestAll()
	}
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
	keys := map[string]lake.ReceiptID{}
	for _, id := range s.visible(acme) {
		r := s.wantState(id, lake.ReceiptDone)
		if other, double := keys[r.Object.Key]; double {
			s.Errorf("key %s is visible by receipts %d and %d", r.Object.Key, other, id)
		}
		keys[r.Object.Key] = id
		if later := s.number("SELECT count(*) FROM receipts WHERE key = $1 AND (revision > $2 OR tag > $3)", r.Object.Key, r.Revision, r.Object.Tag); later != 0 {
			s.Errorf("key %s is visible by revision %d of content %s, of which there are %d later ones", r.Object.Key, r.Revision, r.Object.Tag, later)
		}
	}
	if len(keys) != newest {
		s.Errorf("%d keys are visible, want %d", len(keys), newest)
	}
}
