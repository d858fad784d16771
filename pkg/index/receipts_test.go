// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// replacing is a notice of an object whose rewrites replace.
func replacing(key, tag string) index.Notice {
	n := notice(acme, key, tag)
	n.Replace = true
	return n
}

func TestReceive(t *testing.T) {
	t.Parallel()

	t.Run("duplicates vanish, in a call and between calls", func(t *testing.T) {
		l := setup(t)
		got, err := l.Receive(l.Context(), []index.Notice{notice(acme, "b", "1"), notice(acme, "a", "1"), notice(acme, "b", "1")})
		if err != nil {
			l.Fatal(err)
		}
		again, err := l.Receive(l.Context(), []index.Notice{notice(acme, "a", "1")})
		if err != nil {
			l.Fatal(err)
		}
		if got[0].Duplicate || got[1].Duplicate || !got[2].Duplicate || !again[0].Duplicate {
			l.Errorf("duplicates: %v %v", got, again)
		}
		if got[0].Receipt.ID != got[2].Receipt.ID || got[0].Receipt.Object.Key != "b" || again[0].Receipt.ID != got[1].Receipt.ID {
			l.Errorf("receipts: %v %v", got, again)
		}
		if n := l.number("SELECT count(*) FROM tasks"); n != 2 {
			l.Errorf("%d tasks, want 2", n)
		}
	})

	t.Run("the same objects told by many at once get one receipt each", func(t *testing.T) {
		l := setup(t)
		batch := append(notices(acme, 50), notice(acme, "acme/000001", "v2"))
		ids := make([][]lake.ReceiptID, 12)
		l.wantNone(l.together(len(ids), func(i int) error {
			noticed, err := l.Receive(l.Context(), batch)
			for _, n := range noticed {
				ids[i] = append(ids[i], n.Receipt.ID)
			}
			return err
		}))
		for _, other := range ids[1:] {
			if diff := cmp.Diff(ids[0], other); diff != "" {
				l.Error(diff)
			}
		}
		if n := l.number("SELECT count(*) FROM receipts"); n != 51 {
			l.Errorf("%d receipts, want 51", n)
		}
		if n := l.number("SELECT count(*) FROM tasks"); n != 51 {
			l.Errorf("%d tasks, want 51", n)
		}
	})

	t.Run("many contents of one key told at once are its revisions", func(t *testing.T) {
		l := setup(t)
		l.wantNone(l.together(5, func(i int) error {
			_, err := l.Receive(l.Context(), []index.Notice{notice(acme, "k", fmt.Sprint(i))})
			return err
		}))
		if n := l.number("SELECT max(revision) FROM receipts"); n != 5 {
			l.Errorf("highest revision %d, want 5", n)
		}
	})

	t.Run("a skipped object gets a receipt and no task", func(t *testing.T) {
		l := setup(t)
		skipped := notice(acme, "empty", "")
		skipped.SkipReason = "empty object"
		got := l.receive(skipped)[0]
		if l.wantState(got.ID, lake.ReceiptSkipped).Reason != "empty object" {
			l.Errorf("got %+v", got)
		}
		l.claimNothing(ingest)
	})

	t.Run("an object that nobody claimed is ingested once a profile does", func(t *testing.T) {
		l := setup(t)
		unclaimed := notice("", "k", "1")
		unclaimed.SkipReason = "no storage profile"
		first := l.receive(unclaimed)[0]
		known, err := l.Known(l.Context(), "b", []lake.Object{first.Object})
		if err != nil || known[0] {
			l.Errorf("known %v, %v", known, err)
		}
		l.receive(unclaimed)
		got := l.receive(notice(acme, "k", "1"))[0]
		if got.ID != first.ID || got.State != lake.ReceiptPending || got.Organization != acme {
			l.Errorf("got %+v", got)
		}
		l.ingestAll()
		l.wantState(first.ID, lake.ReceiptDone)
	})

	t.Run("what cannot be is refused, and nothing is written", func(t *testing.T) {
		l := setup(t)
		for name, n := range map[string]index.Notice{
			"no key":          notice(acme, "", "1"),
			"no tag":          notice(acme, "k", ""),
			"NUL":             notice(acme, "k\x00", "1"),
			"invalid UTF-8":   notice(acme, "k\xff", "1"),
			"endless key":     notice(acme, strings.Repeat("k", 1025), "1"),
			"no organization": notice("", "k", "1"),
		} {
			_, err := l.Receive(l.Context(), []index.Notice{notice(acme, "good", "1"), n})
			if fault.KindOf(err) != fault.Invalid {
				l.Errorf("%s: got %v, want fault.Invalid", name, err)
			}
		}
		if n := l.number("SELECT count(*) FROM receipts"); n != 0 {
			l.Errorf("%d receipts, want none", n)
		}
	})

	t.Run("absurd times of modification are as good as none", func(t *testing.T) {
		l := setup(t)
		for i, at := range []time.Time{{}, time.Unix(-1<<40, 0), time.Date(250_000, 1, 1, 0, 0, 0, 0, time.UTC)} {
			n := notice(acme, fmt.Sprint(i), "1")
			n.Object.LastModified = at
			if got := l.receive(n)[0].Object.LastModified; !got.IsZero() {
				l.Errorf("%s came back as %s", at, got)
			}
		}
	})
}

func TestRewrites(t *testing.T) {
	t.Parallel()

	t.Run("with append both revisions stand", func(t *testing.T) {
		l := setup(t)
		first := l.receive(notice(acme, "k", "1"))[0]
		l.ingestAll()
		second := l.receive(notice(acme, "k", "2"))[0]
		l.ingestAll()
		if second.Revision != 2 {
			l.Errorf("revision %d, want 2", second.Revision)
		}
		l.wantVisible(acme, first.ID, second.ID)
	})

	t.Run("with replace the older rows are masked when the newer ones come", func(t *testing.T) {
		l := setup(t)
		first := l.receive(replacing("k", "1"))[0]
		neighbour := l.receive(notice(acme, "n", "1"))[0]
		l.ingestAll()
		second := l.receive(replacing("k", "2"))[0]
		l.wantVisible(acme, first.ID, neighbour.ID)
		l.ingestAll()
		l.wantVisible(acme, neighbour.ID, second.ID)
		l.wantState(first.ID, lake.ReceiptSuperseded)
	})

	t.Run("an older revision cannot be committed after a newer one, and its task vanishes", func(t *testing.T) {
		l := setup(t)
		first := l.receive(replacing("k", "1"))[0]
		neighbour := l.receive(notice(acme, "n", "1"))[0]
		late := l.claim(ingest) // holds the first revision and its neighbour
		second := l.receive(replacing("k", "2"))[0]
		l.ingestAll()
		err := l.Commit(l.Context(), late, whole(late))
		l.wantFault(err, fault.Conflict)
		l.wantVisible(acme, second.ID)
		if err := l.Release(l.Context(), late, err); err != nil {
			l.Fatal(err)
		}
		l.hurry()
		l.ingestAll()
		l.wantVisible(acme, second.ID, neighbour.ID)
		l.wantState(first.ID, lake.ReceiptSuperseded)
		if n := l.number("SELECT count(*) FROM tasks"); n != 0 {
			l.Errorf("%d tasks are left", n)
		}
	})

	t.Run("a waiting older revision is dropped", func(t *testing.T) {
		l := setup(t)
		l.receive(replacing("k", "1"))
		second := l.receive(replacing("k", "2"))[0]
		lease := l.claimReceipt(second.ID)
		l.commit(lease, whole(lease))
		l.claimNothing(ingest)
		l.wantVisible(acme, second.ID)
	})

	t.Run("an older revision that goes back while the newer is committed is dropped", func(t *testing.T) {
		l := setup(t)
		older := l.receive(replacing("k", "1"))[0]
		second := l.receive(replacing("k", "2"))[0]
		lease := l.claim(ingest)
		edit := lake.Edit{Add: []lake.Segment{segment(lease, 0, hour, second.ID)}, Outcomes: []lake.Outcome{done(second.ID)}}
		edit.Retry = []lake.Retry{{Task: lease.Tasks[0].ID, Cause: "stumbled"}}
		l.commit(lease, edit)
		l.wantState(older.ID, lake.ReceiptSuperseded)
		if n := l.number("SELECT count(*) FROM tasks"); n != 0 {
			l.Errorf("%d tasks are left", n)
		}
	})

	t.Run("two revisions in one lease leave the newer", func(t *testing.T) {
		l := setup(t)
		l.receive(replacing("k", "1"))
		second := l.receive(replacing("k", "2"))[0]
		l.ingestAll()
		l.wantVisible(acme, second.ID)
	})

	t.Run("a newer revision that failed without rows hides nothing", func(t *testing.T) {
		l := setup(t)
		first := l.receive(replacing("k", "1"))[0]
		l.ingestAll()
		second := l.receive(replacing("k", "2"))[0]
		lease := l.claim(ingest)
		l.commit(lease, lake.Edit{Outcomes: []lake.Outcome{{Receipt: second.ID, State: lake.ReceiptFailed, Reason: "broken"}}})
		l.wantVisible(acme, first.ID)
		l.wantState(second.ID, lake.ReceiptFailed)
	})

	t.Run("content that was replaced and is written again is a new revision", func(t *testing.T) {
		l := setup(t)
		first := l.receive(replacing("k", "1"))[0]
		l.ingestAll()
		l.receive(replacing("k", "2"))
		l.ingestAll()
		known, err := l.Known(l.Context(), "b", []lake.Object{{Key: "k", Tag: "1"}, {Key: "k", Tag: "2"}, {Key: "k", Tag: "3"}})
		if err != nil {
			l.Fatal(err)
		}
		if diff := cmp.Diff([]bool{false, true, false}, known); diff != "" {
			l.Error(diff)
		}
		third := l.receive(replacing("k", "1"))[0]
		if third.ID == first.ID || third.Revision != 3 {
			l.Fatalf("got %+v", third)
		}
		l.ingestAll()
		l.wantVisible(acme, third.ID)
	})

	t.Run("a mask is not lost when its segment is compacted at the same time", func(t *testing.T) {
		t.Parallel()
		for round := range 6 {
			t.Run(fmt.Sprint(round), func(t *testing.T) {
				l := setup(t)
				first := l.receive(replacing("k", "1"))[0]
				neighbour := l.receive(notice(acme, "n", "1"))[0]
				l.ingestAll()
				old := l.lookup(acme).Segments[0].ID
				second := l.receive(replacing("k", "2"))[0]
				newer := l.claim(ingest)
				compaction := l.claimWindow(hour)
				l.wantNone(l.together(2, func(i int) error {
					if i == 0 {
						return l.Commit(l.Context(), newer, whole(newer))
					}
					return l.Commit(l.Context(), compaction, lake.Edit{
						Remove:  []lake.SegmentID{old},
						Add:     []lake.Segment{segment(compaction, 0, hour, first.ID, neighbour.ID)},
						Rewrite: true,
					})
				}))
				l.wantVisible(acme, neighbour.ID, second.ID)
			})
		}
	})

	t.Run("a query sees the older rows or the newer, never both or none", func(t *testing.T) {
		l := setup(t)
		l.receive(replacing("k", "0"))
		l.ingestAll()
		ctx, cancel := context.WithCancel(l.Context())
		looked := make(chan error, 1)
		go func() {
			for ctx.Err() == nil {
				if got := len(l.unmasked(acme)); got != 1 {
					looked <- fmt.Errorf("%d revisions visible, want 1", got)
					return
				}
			}
			looked <- nil
		}()
		for i := range 25 {
			l.receive(replacing("k", fmt.Sprint(i+1)))
			l.ingestAll()
		}
		cancel()
		if err := <-looked; err != nil {
			l.Error(err)
		}
	})
}

// unmasked lists the segments, of one source each, that one Lookup leaves unmasked.
func (l *lab) unmasked(org lake.Organization) []lake.SegmentID {
	answer, err := l.Lookup(context.Background(), index.Query{Organization: org, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()})
	if err != nil {
		l.Error(err)
	}
	var ids []lake.SegmentID
	for _, s := range answer.Segments {
		if len(s.MaskedSources) == 0 {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

func TestReplay(t *testing.T) {
	t.Parallel()
	replay := func(l *lab, query index.ReplayQuery) int64 {
		l.Helper()
		query.Organization = acme
		objects, bytes, err := l.Replay(l.Context(), query)
		if err != nil {
			l.Fatal(err)
		}
		if bytes != 100*objects {
			l.Errorf("%d bytes of %d objects", bytes, objects)
		}
		return objects
	}

	t.Run("a done object's next revision takes the place of its rows", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(notices(acme, 3)...)
		other := l.receive(notice(acme, receipts[0].Object.Key, "v2"))[0] // appended
		l.ingestAll()
		query := index.ReplayQuery{Receipts: []lake.ReceiptID{receipts[0].ID}}
		dry := query
		dry.DryRun = true
		if n := replay(l, dry); n != 1 {
			l.Errorf("a dry run counts %d, want 1", n)
		}
		l.claimNothing(ingest)
		query.Organization = acme
		counts := make([]int64, 6)
		l.wantNone(l.together(len(counts), func(i int) (err error) {
			counts[i], _, err = l.Replay(l.Context(), query)
			return err
		}))
		var sum int64
		for _, n := range counts {
			sum += n
		}
		if sum != 1 {
			l.Errorf("replayed %d times, want once", sum)
		}
		l.wantVisible(acme, receipts[0].ID, receipts[1].ID, receipts[2].ID, other.ID)
		lease := l.claim(ingest)
		l.commit(lease, whole(lease))
		l.wantVisible(acme, lease.Receipts[0].ID, receipts[1].ID, receipts[2].ID, other.ID)
		l.wantState(receipts[0].ID, lake.ReceiptSuperseded)
	})

	t.Run("all of a state, page by page, each once", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1500)...)
		l.ingestAll()
		before := len(l.visible(acme))
		if n := replay(l, index.ReplayQuery{State: lake.ReceiptDone}); n != 1500 {
			l.Errorf("replayed %d, want 1500", n)
		}
		if n := replay(l, index.ReplayQuery{State: lake.ReceiptDone}); n != 0 {
			l.Errorf("replayed %d again, want none", n)
		}
		l.ingestAll()
		if after := len(l.visible(acme)); after != before {
			l.Errorf("%d sources visible, want %d", after, before)
		}
	})

	t.Run("failed and skipped objects get another try of their receipts", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(notices(acme, 2)...)
		lease := l.claim(ingest)
		l.commit(lease, lake.Edit{Outcomes: []lake.Outcome{
			{Receipt: receipts[0].ID, State: lake.ReceiptFailed, Reason: "broken"},
			{Receipt: receipts[1].ID, State: lake.ReceiptSkipped, Reason: "empty"},
		}})
		if n := replay(l, index.ReplayQuery{State: lake.ReceiptFailed, KeyPrefix: "acme/"}); n != 1 {
			l.Errorf("replayed %d failed ones, want 1", n)
		}
		if n := replay(l, index.ReplayQuery{State: lake.ReceiptSkipped, KeyPrefix: "other/"}); n != 0 {
			l.Errorf("replayed %d of another prefix, want none", n)
		}
		if n := replay(l, index.ReplayQuery{State: lake.ReceiptSkipped}); n != 1 {
			l.Errorf("replayed %d skipped ones, want 1", n)
		}
		l.ingestAll()
		l.wantVisible(acme, receipts[0].ID, receipts[1].ID)
	})

	t.Run("a failed object that brought rows gets a next revision, so that they do not come twice", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		lease := l.claim(ingest)
		edit := whole(lease)
		edit.Outcomes[0].State, edit.Outcomes[0].Reason = lake.ReceiptFailed, "truncated"
		l.commit(lease, edit)
		if got := l.lookup(acme).Completeness.Failed; got != 1 {
			l.Errorf("%d failed, want 1", got)
		}
		replay(l, index.ReplayQuery{State: lake.ReceiptFailed})
		lease = l.claim(ingest)
		if lease.Receipts[0].ID == receipt.ID {
			l.Error("the same receipt was tried again")
		}
		l.commit(lease, whole(lease))
		l.wantVisible(acme, lease.Receipts[0].ID)
	})

	t.Run("content that is about to be replaced is not replayed", func(t *testing.T) {
		l := setup(t)
		first := l.receive(replacing("k", "1"))[0]
		l.ingestAll()
		second := l.receive(replacing("k", "2"))[0]
		if n := replay(l, index.ReplayQuery{Receipts: []lake.ReceiptID{first.ID}}); n != 0 {
			l.Errorf("replayed %d, want none", n)
		}
		l.ingestAll()
		l.wantVisible(acme, second.ID)
	})

	t.Run("another organization's receipts are out of reach", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices("globex", 1)...)[0]
		l.ingestAll()
		if n := replay(l, index.ReplayQuery{Receipts: []lake.ReceiptID{receipt.ID}}); n != 0 {
			l.Errorf("replayed %d, want none", n)
		}
	})

	t.Run("a query without a state is refused", func(t *testing.T) {
		l := setup(t)
		for _, state := range []lake.ReceiptState{"", lake.ReceiptPending, lake.ReceiptSuperseded} {
			_, _, err := l.Replay(l.Context(), index.ReplayQuery{Organization: acme, State: state})
			l.wantFault(err, fault.Invalid)
		}
	})
}

func TestReceipts(t *testing.T) {
	t.Parallel()

	t.Run("pages hold every receipt once, newest first", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 25)...)
		l.receive(notices("globex", 5)...)
		var got []lake.ReceiptID
		query := index.ReceiptQuery{Organization: acme, PageSize: 10}
		for pages := 1; ; pages++ {
			receipts, next, err := l.Receipts(l.Context(), query)
			if err != nil {
				l.Fatal(err)
			}
			for _, r := range receipts {
				if len(got) > 0 && r.ID >= got[len(got)-1] {
					l.Errorf("receipt %d after %d", r.ID, got[len(got)-1])
				}
				got = append(got, r.ID)
			}
			if next == "" {
				if pages != 3 || len(got) != 25 {
					l.Errorf("%d receipts on %d pages, want 25 on 3", len(got), pages)
				}
				return
			}
			query.PageToken = next
		}
	})

	t.Run("filters", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(notices(acme, 3)...)
		lease := l.claimReceipt(receipts[0].ID)
		l.commit(lease, whole(lease))
		for name, test := range map[string]struct {
			query index.ReceiptQuery
			want  int
		}{
			"state":        {index.ReceiptQuery{State: lake.ReceiptDone}, 1},
			"other state":  {index.ReceiptQuery{State: lake.ReceiptFailed}, 0},
			"bucket":       {index.ReceiptQuery{Bucket: "b"}, 3},
			"other bucket": {index.ReceiptQuery{Bucket: "c"}, 0},
			"prefix":       {index.ReceiptQuery{KeyPrefix: "acme/000001"}, 1},
			"wildcards":    {index.ReceiptQuery{KeyPrefix: "acme/00000_"}, 0},
		} {
			test.query.Organization = acme
			got, _, err := l.Receipts(l.Context(), test.query)
			if err != nil || len(got) != test.want {
				l.Errorf("%s: %d receipts, %v, want %d", name, len(got), err, test.want)
			}
		}
	})

	t.Run("what is not there is fault.NotFound, a foreign token fault.Invalid", func(t *testing.T) {
		l := setup(t)
		_, err := l.Receipt(l.Context(), 4711)
		l.wantFault(err, fault.NotFound)
		_, _, err = l.Receipts(l.Context(), index.ReceiptQuery{Organization: acme, PageToken: "x"})
		l.wantFault(err, fault.Invalid)
	})
}
