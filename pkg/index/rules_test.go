// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestRule1CommitIsIdempotentByToken(t *testing.T) {
	t.Parallel()

	t.Run("the same commit at once from many is made once", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(notices(acme, 3)...)
		lease := l.claim(ingest)
		edit := whole(lease)
		edit.Next = []lake.Task{window(hour)}
		l.wantNone(l.together(16, func(int) error { return l.Commit(l.Context(), lease, edit) }))
		l.wantVisible(acme, receipts[0].ID, receipts[1].ID, receipts[2].ID)
		if got := l.number("SELECT count(*) FROM segments"); got != 1 {
			l.Errorf("%d segments, want 1", got)
		}
		if got := l.number("SELECT count(*) FROM commit_records"); got != 1 {
			l.Errorf("%d commit records, want 1", got)
		}
	})

	t.Run("another edit by a token that was used is a conflict", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		lease := l.claim(ingest)
		l.commit(lease, whole(lease))
		other := whole(lease)
		other.Outcomes[0].Reason = "other"
		l.wantFault(l.Commit(l.Context(), lease, other), fault.Conflict)
	})

	t.Run("a lease that ended cannot commit", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		dead := l.claim(ingest)
		l.expire(dead)
		heir := l.claim(ingest)
		l.wantFault(l.Commit(l.Context(), dead, whole(dead)), fault.Conflict)
		l.wantFault(l.Renew(l.Context(), dead.ID), fault.Conflict)
		l.wantVisible(acme)
		l.commit(heir, whole(heir))
		l.wantVisible(acme, receipt.ID)
	})

	t.Run("a removed segment must be live, else nothing happens", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		l.ingestAll()
		old := l.lookup(acme).Segments[0].ID
		lease := l.claimWindow(hour)
		edit := lake.Edit{
			Add:     []lake.Segment{segment(lease, 0, hour, receipt.ID)},
			Remove:  []lake.SegmentID{old, 99999},
			Next:    []lake.Task{{Kind: "rollup", Organization: acme, Signal: lake.SignalLogs, Window: hour}},
			Rewrite: true,
		}
		l.wantFault(l.Commit(l.Context(), lease, edit), fault.Conflict)
		l.wantVisible(acme, receipt.ID)
		l.claimNothing(index.Batch{Kind: "rollup"})

		edit.Remove = edit.Remove[:1]
		l.commit(lease, edit)
		l.wantVisible(acme, receipt.ID)
	})

	t.Run("of two that remove the same segment one succeeds", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		l.ingestAll()
		old := l.lookup(acme).Segments[0].ID
		var leases []*lake.Lease
		for i := range 8 {
			leases = append(leases, l.claimWindow(lake.Window{Start: hour.Start.Add(time.Duration(i) * time.Hour), Length: time.Hour}))
		}
		errs := l.together(len(leases), func(i int) error {
			edit := lake.Edit{Remove: []lake.SegmentID{old}, Add: []lake.Segment{segment(leases[i], 0, hour, receipt.ID)}, Rewrite: true}
			return l.Commit(l.Context(), leases[i], edit)
		})
		if got := l.succeeded(errs); got != 1 {
			l.Errorf("%d commits succeeded, want 1", got)
		}
		l.wantVisible(acme, receipt.ID)
	})

	t.Run("an edit must account for every task", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 2)...)
		lease := l.claim(ingest)
		edits := map[string]lake.Edit{}
		partial := whole(lease)
		partial.Outcomes, partial.Add = partial.Outcomes[:1], []lake.Segment{segment(lease, 0, hour, partial.Outcomes[0].Receipt)}
		edits["a task without an outcome"] = partial
		both := whole(lease)
		both.Retry = []lake.Retry{{Task: lease.Tasks[0].ID, Cause: "x"}}
		edits["outcome and retry of one task"] = both
		foreign := whole(lease)
		foreign.Outcomes = append(foreign.Outcomes, done(4711))
		edits["a receipt of another lease"] = foreign
		twice := whole(lease)
		twice.Outcomes = append(twice.Outcomes, twice.Outcomes[0])
		edits["an outcome named twice"] = twice
		unfinished := whole(lease)
		unfinished.Outcomes[0] = lake.Outcome{Receipt: unfinished.Outcomes[0].Receipt, State: lake.ReceiptFailed}
		edits["rows of a receipt that brought none"] = unfinished
		for name, edit := range edits {
			if err := l.Commit(l.Context(), lease, edit); !errors.Is(err, fault.Invalid) {
				l.Errorf("%s: got %v, want fault.Invalid", name, err)
			}
		}
		l.commit(lease, whole(lease))
	})

	t.Run("outcomes are written whole", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		lease := l.claim(ingest)
		edit := whole(lease)
		edit.Outcomes[0] = lake.Outcome{
			Receipt: lease.Receipts[0].ID, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "otlp\x00\xff", Reason: strings.Repeat("ä", 5000),
			RowsIn: 10, RowsOut: 7, Rejected: map[string]int64{"too_old": 2, "bad\x00": 1},
		}
		l.commit(lease, edit)
		got := l.wantState(lease.Receipts[0].ID, lake.ReceiptDone)
		if diff := cmp.Diff(map[string]int64{"too_old": 2, "bad\uFFFD": 1}, got.Rejected); diff != "" {
			l.Error(diff)
		}
		if got.RowsIn != 10 || got.RowsOut != 7 || got.Attempts != 1 || got.Format != "otlp\uFFFD\uFFFD" || len(got.Reason) > 2048 {
			l.Errorf("got %+v", got)
		}
	})
}

func TestRule2WindowsHaveAContentVersion(t *testing.T) {
	t.Parallel()

	version := func(l *lab, w lake.Window) lake.WindowVersion {
		v, err := l.WindowVersion(l.Context(), acme, lake.SignalLogs, w)
		if err != nil {
			l.Fatal(err)
		}
		return v
	}
	day := lake.WindowOf(hour.Start, 24*time.Hour)

	t.Run("late data cannot be overlooked", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		l.ingestAll()
		read := version(l, day)
		lease := l.claimWindow(hour)
		l.receive(notice(acme, "late", "v1"))
		l.ingestAll()
		edit := lake.Edit{Add: []lake.Segment{segment(lease, 0, hour, receipt.ID)}, Expect: []lake.WindowVersion{read}}
		l.wantFault(l.Commit(l.Context(), lease, edit), fault.Conflict)
		if got := version(l, day).Version; got != read.Version+1 {
			l.Errorf("version %d after one more edit, want %d", got, read.Version+1)
		}
		edit.Expect = []lake.WindowVersion{version(l, day)}
		l.commit(lease, edit)
	})

	t.Run("of two first derivations one stands", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		l.ingestAll()
		read := version(l, hour)
		var leases []*lake.Lease
		for i := range 8 {
			leases = append(leases, l.claimWindow(lake.Window{Start: hour.Start.Add(time.Duration(i) * time.Hour), Length: time.Hour}))
		}
		errs := l.together(len(leases), func(i int) error {
			edit := lake.Edit{Add: []lake.Segment{segment(leases[i], 0, hour, receipt.ID)}, Expect: []lake.WindowVersion{read}}
			return l.Commit(l.Context(), leases[i], edit)
		})
		if got := l.succeeded(errs); got != 1 {
			l.Errorf("%d derivations stand, want 1", got)
		}
	})

	t.Run("a rewrite changes no version, a removal does", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		l.ingestAll()
		read := version(l, hour)
		lease := l.claimWindow(hour)
		old := l.lookup(acme).Segments[0].ID
		l.commit(lease, lake.Edit{Remove: []lake.SegmentID{old}, Add: []lake.Segment{segment(lease, 0, hour, receipt.ID)}, Rewrite: true})
		if got := version(l, hour); got != read {
			l.Errorf("version %d after a rewrite, want %d", got.Version, read.Version)
		}
		lease = l.claimWindow(hour)
		l.commit(lease, lake.Edit{Remove: []lake.SegmentID{l.lookup(acme).Segments[0].ID}})
		if got := version(l, hour).Version; got != read.Version+1 {
			l.Errorf("version %d after a removal, want %d", got, read.Version+1)
		}
	})

	t.Run("one live lease a piece of work", func(t *testing.T) {
		l := setup(t)
		l.claimWindow(hour)
		if err := l.Enqueue(l.Context(), []lake.Task{window(hour)}); err != nil {
			l.Fatal(err)
		}
		for _, err := range l.together(8, func(int) error {
			lease, err := l.Claim(l.Context(), compact)
			if lease != nil {
				return errors.New("leased twice")
			}
			return err
		}) {
			if err != nil {
				l.Error(err)
			}
		}
	})
}

func TestRule3TimeIsTheDatabases(t *testing.T) {
	t.Parallel()

	t.Run("a lease ends by the database's clock, whatever its worker's says", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		batch := ingest
		batch.Duration = 24 * time.Hour
		lease := l.claim(batch)
		l.claimNothing(ingest)
		l.expire(lease)
		heir := l.claim(ingest)
		if heir.ID == lease.ID {
			l.Error("a token was used twice")
		}
	})

	t.Run("a lease that is renewed goes on", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		lease := l.claim(ingest)
		l.expire(lease)
		if err := l.Renew(l.Context(), lease.ID); err != nil {
			l.Fatal(err)
		}
		l.claimNothing(ingest)
		l.commit(lease, whole(lease))
	})

	t.Run("times of claims and answers are the database's", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		before, err := l.Now(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		lease := l.claim(ingest)
		at := l.lookup(acme).At
		after, err := l.Now(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		for _, got := range []time.Time{lease.ClaimedAt, at} {
			if got.Before(before) || got.After(after) {
				l.Errorf("%s is not between %s and %s", got, before, after)
			}
		}
	})
}

func TestRule4EnqueueCoalesces(t *testing.T) {
	t.Parallel()

	t.Run("overlapping enqueues in any order make each task once, without deadlock", func(t *testing.T) {
		l := setup(t)
		l.wantNone(l.together(16, func(i int) error {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 20 {
				var tasks []lake.Task
				for _, n := range r.Perm(40)[:20] {
					tasks = append(tasks, window(lake.Window{Start: hour.Start.Add(time.Duration(n) * time.Hour), Length: time.Hour}))
				}
				if err := l.Enqueue(l.Context(), append(tasks, tasks[0])); err != nil {
					return err
				}
			}
			return nil
		}))
		if got := l.number("SELECT count(*) FROM tasks"); got != 40 {
			l.Errorf("%d tasks, want 40", got)
		}
	})

	t.Run("what is asked for while it is being done is done again, however it ends", func(t *testing.T) {
		l := setup(t)
		for name, end := range map[string]func(lease *lake.Lease) error{
			"committed": func(lease *lake.Lease) error { return l.Commit(l.Context(), lease, lake.Edit{}) },
			"released":  func(lease *lake.Lease) error { return l.Release(l.Context(), lease, context.Canceled) },
			"retried": func(lease *lake.Lease) error {
				return l.Commit(l.Context(), lease, lake.Edit{Retry: []lake.Retry{{Task: lease.Tasks[0].ID, Cause: "x"}}})
			},
		} {
			lease := l.claimWindow(hour)
			if err := l.Enqueue(l.Context(), []lake.Task{window(hour)}); err != nil {
				l.Fatal(err)
			}
			l.claimNothing(compact)
			if err := end(lease); err != nil {
				l.Fatalf("%s: %v", name, err)
			}
			l.hurry()
			l.commit(l.claim(compact), lake.Edit{})
			l.claimNothing(compact)
		}
	})

	t.Run("asking for what was buried digs it out", func(t *testing.T) {
		l := setup(t)
		for range compact.MaxAttempts {
			l.hurry()
			if err := l.Release(l.Context(), l.claimWindow(hour), errors.New("poison")); err != nil {
				l.Fatal(err)
			}
		}
		l.hurry()
		l.claimNothing(compact)
		l.commit(l.claimWindow(hour), lake.Edit{})
	})

	t.Run("no wake-up is lost", func(t *testing.T) {
		l := setup(t)
		const works, workers, rounds = 5, 6, 60
		var wanted, seen [works]atomic.Int64
		windowOf := func(n int) lake.Window {
			return lake.Window{Start: hour.Start.Add(time.Duration(n) * time.Hour), Length: time.Hour}
		}
		// workOnce does what is wanted at the time of the work, as a worker that reads the lake would.
		workOnce := func(batch index.Batch) (bool, error) {
			lease, err := l.Claim(context.Background(), batch)
			if err != nil || lease == nil {
				return false, err
			}
			n := int(lease.Tasks[0].Window.Start.Sub(hour.Start) / time.Hour)
			found := wanted[n].Load()
			if err := l.Commit(context.Background(), lease, lake.Edit{}); err != nil {
				return true, err
			}
			for old := seen[n].Load(); old < found && !seen[n].CompareAndSwap(old, found); old = seen[n].Load() {
			}
			return true, nil
		}
		var asking sync.WaitGroup
		asking.Add(3)
		l.wantNone(l.together(3+workers, func(i int) error {
			if i < 3 {
				defer asking.Done()
				for round := range rounds {
					n := (round*7 + i) % works
					wanted[n].Add(1)
					if err := l.Enqueue(context.Background(), []lake.Task{window(windowOf(n))}); err != nil {
						return err
					}
				}
				return nil
			}
			finished := make(chan struct{})
			go func() { asking.Wait(); close(finished) }()
			for {
				worked, err := workOnce(compact)
				if err != nil {
					return err
				}
				select {
				case <-finished:
					if !worked {
						return nil
					}
				default:
				}
			}
		}))
		for { // what others still held when the last worker looked
			worked, err := workOnce(compact)
			if err != nil {
				l.Fatal(err)
			}
			if !worked {
				break
			}
		}
		for n := range works {
			if seen[n].Load() != wanted[n].Load() {
				l.Errorf("work %d: %d of %d wake-ups were seen", n, seen[n].Load(), wanted[n].Load())
			}
		}
	})
}

func TestRule5ALeaseOwnsItsKeySpace(t *testing.T) {
	t.Parallel()

	t.Run("other keys are refused", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		lease := l.claim(ingest)
		for _, key := range []string{"", "logs/x.parquet", "db/acme/logs/2026-03-01/other/000000.parquet", "x/" + string(lease.ID) + "/0.parquet"} {
			edit := whole(lease)
			edit.Add[0].Key = key
			l.wantFault(l.Commit(l.Context(), lease, edit), fault.Invalid)
		}
		other := whole(lease)
		other.Add[0].Organization = "globex"
		l.wantFault(l.Commit(l.Context(), lease, other), fault.Invalid)
	})

	t.Run("leases that end without a commit stay on record", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		dead := l.claim(ingest)
		l.expire(dead)
		released := l.claim(ingest)
		if err := l.Release(l.Context(), released, fault.New(fault.Canceled, "shutdown")); err != nil {
			l.Fatal(err)
		}
		committed := l.claim(ingest)
		l.commit(committed, whole(committed))
		for id, want := range map[lake.LeaseID]string{dead.ID: "expired", released.ID: "released", committed.ID: "committed"} {
			var got string
			if err := l.sql.QueryRow(l.Context(), "SELECT state FROM leases WHERE id = $1 AND ended_at IS NOT NULL", id).Scan(&got); err != nil {
				l.Fatal(err)
			}
			if got != want {
				l.Errorf("lease is %s, want %s", got, want)
			}
		}
	})
}

func TestRule6ADeadWorkerCostsATry(t *testing.T) {
	t.Parallel()

	// endings are the ways in which a lease fails because of one poisonous object in it.
	endings := map[string]func(l *lab, lease *lake.Lease){
		"killed": func(l *lab, lease *lake.Lease) { l.expire(lease) },
		"failed": func(l *lab, lease *lake.Lease) {
			if err := l.Release(l.Context(), lease, errors.New("poison")); err != nil {
				l.Fatal(err)
			}
		},
	}
	for name, end := range endings {
		t.Run("a poisonous object is buried alone when its worker is "+name, func(t *testing.T) {
			l := setup(t)
			receipts := l.receive(notices(acme, 16)...)
			poison := receipts[5].ID
			deaths := 0
			for l.number("SELECT count(*) FROM tasks WHERE state <> 'buried'") > 0 {
				l.hurry()
				lease := l.claim(ingest)
				if slices.ContainsFunc(lease.Receipts, func(r lake.Receipt) bool { return r.ID == poison }) {
					end(l, lease)
					l.claimReapOnly()
					deaths++
					continue
				}
				l.commit(lease, whole(lease))
			}
			// 16, 8, 4, 2, and alone as often as it may be.
			if want := 4 + ingest.MaxAttempts; deaths != want {
				l.Errorf("%d workers died, want %d", deaths, want)
			}
			for _, r := range receipts {
				if r.ID != poison {
					l.wantState(r.ID, lake.ReceiptDone)
				}
			}
			buried := l.wantState(poison, lake.ReceiptFailed)
			if buried.Reason == "" || int(buried.Attempts) != deaths {
				l.Errorf("buried after %d attempts for %q", buried.Attempts, buried.Reason)
			}
			backlog, err := l.Backlog(l.Context())
			if err != nil {
				l.Fatal(err)
			}
			if len(backlog) != 1 || backlog[0].Buried != 1 || backlog[0].Tasks != 0 {
				l.Errorf("backlog %+v, want one buried task", backlog)
			}

			objects, bytes, err := l.Replay(l.Context(), index.ReplayQuery{Organization: acme, State: lake.ReceiptFailed})
			if err != nil || objects != 1 || bytes != 100 {
				l.Fatalf("replayed %d objects, %d bytes, %v", objects, bytes, err)
			}
			l.ingestAll()
			l.wantState(poison, lake.ReceiptDone)
		})
	}

	t.Run("what is nobody's fault backs off and buries nothing", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 4)...)
		for range 3 * ingest.MaxAttempts {
			lease := l.claim(ingest)
			if len(lease.Tasks) != 4 {
				l.Fatalf("%d tasks, want the whole batch", len(lease.Tasks))
			}
			if err := l.Release(l.Context(), lease, fault.New(fault.Unavailable, "the store is away")); err != nil {
				l.Fatal(err)
			}
			l.claimNothing(ingest)
			l.hurry()
		}
		l.ingestAll()
	})

	t.Run("a store that does not answer in time is nobody's fault either", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		for range 3 * ingest.MaxAttempts {
			if err := l.Release(l.Context(), l.claim(ingest), fault.New(fault.Timeout, "the store is slow")); err != nil {
				l.Fatal(err)
			}
			l.claimNothing(ingest)
			l.hurry()
		}
		l.wantState(receipt.ID, lake.ReceiptPending)
		l.ingestAll()
	})

	t.Run("a single task that is blameless backs off and is never buried", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		retry := func(blameless bool) {
			lease := l.claim(ingest)
			l.commit(lease, lake.Edit{Retry: []lake.Retry{{Task: lease.Tasks[0].ID, Cause: "the store is away", Blameless: blameless}}})
			l.claimNothing(ingest)
			l.hurry()
		}
		for range 3 * ingest.MaxAttempts {
			retry(true)
		}
		if got := l.wantState(receipt.ID, lake.ReceiptPending); got.Reason != "the store is away" || int(got.Attempts) != 3*ingest.MaxAttempts {
			l.Errorf("receipt %+v, want the cause and the attempts", got)
		}
		for range ingest.MaxAttempts {
			l.wantState(receipt.ID, lake.ReceiptPending)
			retry(false)
		}
		l.wantState(receipt.ID, lake.ReceiptFailed)
	})

	t.Run("a shutdown costs nothing", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		for range 2 * ingest.MaxAttempts {
			lease := l.claim(ingest)
			if err := l.Release(l.Context(), lease, context.Canceled); err != nil {
				l.Fatal(err)
			}
		}
		if got := l.wantState(receipt.ID, lake.ReceiptPending); got.Attempts != 0 {
			l.Errorf("%d attempts, want none", got.Attempts)
		}
	})

	t.Run("single tasks go back while the others are committed", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(notices(acme, 3)...)
		for attempt := range ingest.MaxAttempts {
			l.hurry()
			lease := l.claim(ingest)
			var edit lake.Edit
			for i, r := range lease.Receipts {
				if r.ID == receipts[1].ID {
					edit.Retry = append(edit.Retry, lake.Retry{Task: lease.Tasks[i].ID, Cause: fmt.Sprintf("try %d", attempt)})
					continue
				}
				edit.Outcomes = append(edit.Outcomes, done(r.ID))
				edit.Add = append(edit.Add, segment(lease, i, hour, r.ID))
			}
			l.commit(lease, edit)
			l.claimNothing(ingest)
		}
		l.wantVisible(acme, receipts[0].ID, receipts[2].ID)
		if got := l.wantState(receipts[1].ID, lake.ReceiptFailed); got.Reason != "try 2" {
			l.Errorf("reason %q, want that of the last try", got.Reason)
		}
	})

	t.Run("releasing twice is no error, releasing a lost lease is a conflict", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		lease := l.claim(ingest)
		l.wantNone(l.together(4, func(int) error { return l.Release(l.Context(), lease, context.Canceled) }))
		dead := l.claim(ingest)
		l.expire(dead)
		l.claim(ingest)
		l.wantFault(l.Release(l.Context(), dead, context.Canceled), fault.Conflict)
	})
}

// claimReapOnly makes a claim of a kind that has no tasks, which ends expired leases of all kinds.
func (l *lab) claimReapOnly() {
	l.Helper()
	l.claimNothing(index.Batch{Kind: "nothing"})
}

func TestRule7RemovalIsAMark(t *testing.T) {
	l := setup(t)
	receipt := l.receive(notices(acme, 1)...)[0]
	l.ingestAll()
	old := l.lookup(acme).Segments[0]
	lease := l.claimWindow(hour)
	l.commit(lease, lake.Edit{Remove: []lake.SegmentID{old.ID}, Add: []lake.Segment{segment(lease, 0, hour, receipt.ID)}, Rewrite: true})

	for _, s := range l.lookup(acme).Segments {
		if s.ID == old.ID {
			l.Error("a removed segment is answered")
		}
	}
	kept := l.number("SELECT count(*) FROM segments WHERE id = $1 AND removed_by = $2 AND removed_at >= created_at", old.ID, lease.ID)
	if kept != 1 {
		l.Error("the removed segment is not on record")
	}
}

func TestRule8ClaimsAreFair(t *testing.T) {
	t.Parallel()

	t.Run("a backfill of one organization does not delay another's fresh object", func(t *testing.T) {
		l := setup(t)
		for range 2 {
			l.receive(notices("big", 4000)...)
		}
		small := ingest
		small.MaxTasks = 100
		l.claim(small)
		l.claim(small)
		l.receive(notices("small", 1)...)
		if lease := l.claim(small); lease.Organization != "small" {
			l.Errorf("claimed for %s, want small", lease.Organization)
		}
	})

	t.Run("groups take turns", func(t *testing.T) {
		l := setup(t)
		orgs := []lake.Organization{"a", "b", "c"}
		for _, org := range orgs {
			l.receive(notices(org, 20)...)
		}
		batch := ingest
		batch.MaxTasks = 4
		served := map[lake.Organization]int{}
		for range 12 {
			served[l.claim(batch).Organization]++
		}
		for _, org := range orgs {
			if served[org] != 4 {
				l.Errorf("served %v, want 4 each", served)
			}
		}
	})

	t.Run("claims at once take each task once, and never wait for each other", func(t *testing.T) {
		l := setup(t)
		const tasks = 600
		l.receive(notices(acme, tasks/2)...)
		l.receive(notices("globex", tasks/2)...)
		// A transaction that holds some tasks and a service: nobody may wait for it.
		tx, err := l.sql.Begin(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(l.Context())) }()
		if _, err := tx.Exec(l.Context(), "SELECT 1 FROM tasks WHERE id <= 10 FOR UPDATE"); err != nil {
			l.Fatal(err)
		}
		if _, err := tx.Exec(l.Context(), "SELECT 1 FROM services FOR UPDATE"); err != nil {
			l.Fatal(err)
		}
		batch := ingest
		batch.MaxTasks = 7
		var mu sync.Mutex
		taken := map[lake.TaskID]int{}
		l.wantNone(l.together(12, func(int) error {
			for {
				lease, err := l.Claim(l.Context(), batch)
				if err != nil || lease == nil {
					return err
				}
				mu.Lock()
				for _, task := range lease.Tasks {
					taken[task.ID]++
				}
				mu.Unlock()
			}
		}))
		if len(taken) != tasks-10 {
			l.Errorf("%d tasks taken, want %d", len(taken), tasks-10)
		}
		for id, n := range taken {
			if n != 1 {
				l.Errorf("task %d taken %d times", id, n)
			}
		}
	})
}

func TestRule9BatchingIsAConditionOfTheClaim(t *testing.T) {
	t.Parallel()
	patient := index.Batch{Kind: lake.TaskIngest, MinBytes: 1000, MaxWait: time.Hour, MaxTasks: 50}

	t.Run("it waits for bytes", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 9)...)
		l.claimNothing(patient)
		l.receive(notice(acme, "tenth", "v1"))
		if got := len(l.claim(patient).Tasks); got != 10 {
			l.Errorf("%d tasks, want all 10", got)
		}
	})

	t.Run("or for age", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		l.claimNothing(patient)
		l.exec("UPDATE tasks SET not_before = not_before - interval '1 hour'")
		l.claim(patient)
	})

	t.Run("or for a full batch", func(t *testing.T) {
		l := setup(t)
		full := patient
		full.MaxTasks = 3
		l.receive(notices(acme, 3)...)
		l.claim(full)
	})

	t.Run("it keeps to its budget of bytes, and takes a larger task alone", func(t *testing.T) {
		l := setup(t)
		budget := index.Batch{Kind: lake.TaskIngest, MaxBytes: 250}
		large := notice(acme, "0-large", "v1")
		large.Object.Size = 10_000
		l.receive(large)
		l.receive(notices(acme, 4)...)
		var got []int
		for range 3 {
			got = append(got, len(l.claim(budget).Tasks))
		}
		if diff := cmp.Diff([]int{1, 2, 2}, got); diff != "" {
			l.Error(diff)
		}
	})

	t.Run("one receipt is had at once", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(notices(acme, 3)...)
		wanted := patient
		wanted.Receipt = receipts[1].ID
		lease := l.claim(wanted)
		if len(lease.Receipts) != 1 || lease.Receipts[0].ID != receipts[1].ID {
			l.Errorf("got %+v", lease.Receipts)
		}
		l.claimNothing(wanted)
	})

	t.Run("an announcement ends the wait, of which none is needed", func(t *testing.T) {
		l := setup(t)
		if err := l.Wait(l.Context(), lake.TaskIngest); err != nil { // begins to listen
			l.Fatal(err)
		}
		rung := make(chan error)
		go func() { rung <- l.Wait(l.Context(), lake.TaskIngest) }()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case err := <-rung:
				if err != nil {
					l.Fatal(err)
				}
				return
			case <-tick.C:
				l.receive(notice(acme, fmt.Sprint(i), "v1"))
			}
		}
	})

	t.Run("the end of the context ends the wait", func(t *testing.T) {
		l := setup(t)
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		l.wantFault(l.Wait(ctx, lake.TaskIngest), fault.Canceled)
	})
}
