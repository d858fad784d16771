// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/chaos"
	"github.com/lakerunner/lakerunner/pkg/index"
	nouns "github.com/lakerunner/lakerunner/pkg/lake"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// faultPatience is how long a story may wait for any one thing: leases lapse, tasks back off, on a busy machine.
const faultPatience = 90 * time.Second

// faultSettings are those of an organization whose files are swept and whose rows expire while a test looks on.
const faultSettings = "    limits: {query_timeout: 3s}\n    rollups: []\n    retention:\n      - {signal: logs, keep: 90d}\n"

// lane is a lake in which stories are told one after another, each in a stretch of event time of its own, while faults happen. The
// test's process has the query services, a child everything that changes the lake.
type lane struct {
	t     *testing.T
	lake  *lake
	index *index.Index
	base  time.Time // the stories go back in time from here
	runs  int
	plots []*plot
	now   *changer
	old   []*changer // hung ones, which wake up while another one works
}

func newLane(t *testing.T) *lane {
	t.Helper()
	return newLaneOn(t, lakeOptions{})
}

// newLaneOn is newLane with another database or endpoint, or other settings.
func newLaneOn(t *testing.T, o lakeOptions) *lane {
	t.Helper()
	o.roles, o.deaf, o.onRewrite = stack.Roles{Frontend: true, Worker: true}, true, "replace"
	o.settings = cmp.Or(o.settings, faultSettings)
	l := newLake(t, o)
	opened, err := index.Open(t.Context(), index.Config{URL: l.database, MaxConns: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	return &lane{t: t, lake: l, index: opened, base: lately()}
}

// mind sees to it that somebody works: when the child has died of its fault, or hangs, another one is started.
func (n *lane) mind(o order) {
	n.t.Helper()
	switch {
	case closed(n.now.exited):
		if !n.now.mortal && o.Kind != chaos.Crash || !n.now.killed() {
			n.t.Fatalf("%s: the child ended by itself: %s", o, n.now.said())
		}
		n.now = n.lake.startChanger(n.t, order{})
	case o.Kind == chaos.Hang && n.now.hit() && len(n.old) == 0:
		n.old = append(n.old, n.now)
		n.now = n.lake.startChanger(n.t, order{})
	}
}

// until waits for a condition while it minds the children.
func (n *lane) until(o order, what string, check func() error) {
	n.t.Helper()
	deadline := time.After(faultPatience)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		n.mind(o)
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			n.t.Fatalf("%s: %s: still not after %s: %v\n%.6000s", o, what, faultPatience, err, tail(n.now.said(), 6000))
		}
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// call asks the child until it answers, as a queue or a user would.
func (n *lane) call(o order, what string, f func(ctx context.Context, c *changer) error) {
	n.t.Helper()
	n.until(o, what, func() error {
		ctx, cancel := context.WithTimeout(n.t.Context(), 2*hang)
		defer cancel()
		return f(ctx, n.now)
	})
}

// story tells a story with a fault in it: ingest, a rewritten object, a replay, a delete, a late object, retention, and whatever the
// compactor and the janitor do meanwhile. It returns whether the fault happened, and the points that were passed.
func (n *lane) story(o order) (happened bool, passed map[string]int) {
	n.t.Helper()
	n.runs++
	s := n.write()
	n.plots = append(n.plots, s.fresh, s.aged)
	if n.now == nil {
		n.now = n.lake.startChanger(n.t, order{})
	}
	n.now.give(n.t, o)
	ordered := n.now
	finish := n.follow(o, s.fresh, s.aged)
	s.tell(o)
	finish()
	happened, passed = ordered.hit(), ordered.points()
	if !closed(n.now.exited) {
		n.now.give(n.t, order{})
	}
	for _, c := range n.old {
		c.kill()
	}
	n.old = nil
	s.verify(o)
	return happened, passed
}

// follow has standing queries asked all along. The returned function ends them.
func (n *lane) follow(o order, plots ...*plot) func() {
	ctx, stop := context.WithCancel(n.t.Context())
	var all sync.WaitGroup
	for _, p := range plots {
		all.Go(func() {
			if _, err := p.follow(ctx, n.lake); err != nil {
				n.t.Errorf("%s: a wrong answer meanwhile: %v\n%s", o, err, n.state(p))
			}
		})
	}
	return func() {
		stop()
		all.Wait()
	}
}

// state tells of the receipts and segments behind a wrong answer.
func (n *lane) state(p *plot) string {
	ctx := n.t.Context()
	var b strings.Builder
	at, _ := n.index.Now(ctx)
	fmt.Fprintf(&b, "at %s\n", at.Format(time.TimeOnly+".000"))
	receipts, _, err := n.index.Receipts(ctx, index.ReceiptQuery{Organization: "default", KeyPrefix: fmt.Sprintf("otel-raw/default/run%d/", n.runs), PageSize: 100})
	fmt.Fprintln(&b, "receipts:", err)
	for _, r := range receipts {
		fmt.Fprintf(&b, "  %d %s revision %d %s of %s, updated %s: %d rows\n", r.ID, r.Object.Key, r.Revision, r.State, r.CreatedAt.Format(time.TimeOnly+".000"), r.UpdatedAt.Format(time.TimeOnly+".000"), r.RowsOut)
	}
	answer, err := n.index.Lookup(ctx, index.Query{Organization: "default", Signal: nouns.SignalLogs, Start: p.start, End: p.end})
	fmt.Fprintln(&b, "segments:", err)
	for _, s := range answer.Segments {
		fmt.Fprintf(&b, "  %d %s level %d, %d rows, applied %d, masked %v, made %s\n", s.ID, s.Key, s.Level, s.Rows, s.AppliedDelete, s.MaskedSources, s.CreatedAt.Format(time.TimeOnly+".000"))
	}
	return b.String()
}

// tale is the material of one story.
type tale struct {
	*lane
	prefix                                     string
	selector                                   string
	fresh, aged                                *plot
	plain, first, second, third, late, expired *unit
}

// write makes the objects of the next story.
func (n *lane) write() *tale {
	end := n.base.Add(-time.Duration(2*n.runs) * time.Hour)
	ages := n.base.Add(-100*24*time.Hour - time.Duration(2*n.runs)*time.Hour)
	s := &tale{lane: n, prefix: fmt.Sprintf("otel-raw/default/run%d/", n.runs), selector: `{service_name="checkout"}`}
	if n.runs%2 == 0 {
		s.selector += ` |= "declined"`
	}
	chosen := func(r sample.Row) bool {
		return r.Service == "checkout" && (n.runs%2 != 0 || strings.Contains(r.Line, "declined"))
	}
	object := func(i int, name string, end time.Time) *unit {
		o := makeSample(n.t, sample.Options{
			Seed: uint64(10*n.runs + i), Collector: fmt.Sprintf("run%d", n.runs), End: end.Add(time.Duration(i)), Length: 30 * time.Minute, Lines: 60, Objects: 1,
		})[0]
		return newUnit(name, o, chosen)
	}
	s.plain, s.first, s.second = object(0, "the plain object", end), object(1, "the object before it was rewritten", end), object(2, "the rewritten object", end)
	s.third, s.late, s.expired = object(3, "another object", end), object(4, "the late object", end), object(5, "the expired object", ages)
	s.second.object.Key = s.first.object.Key
	s.fresh = newPlot(end.Add(-time.Hour), end.Add(time.Minute), s.plain, s.first, s.second, s.third, s.late)
	s.fresh.either = [][2]*unit{{s.first, s.second}}
	s.aged = newPlot(ages.Add(-time.Hour), ages.Add(time.Minute), s.expired)
	return s
}

// put writes an object and tells the notifier of it until that has heard.
func (s *tale) put(o order, units ...*unit) {
	s.t.Helper()
	var notice notifierv1.NotifyObjectsRequest
	for _, u := range units {
		tag := s.lake.put(u.object.Key, u.object.Body)
		notice.Objects = append(notice.Objects, &lakev1.Object{Bucket: s.lake.bucket.Name(), Key: u.object.Key, Tag: tag, Size: int64(len(u.object.Body))})
	}
	s.call(o, "notify", func(ctx context.Context, c *changer) error {
		_, err := c.notifier.NotifyObjects(withKey(ctx, s.lake.keys["default"]), &notice)
		return err
	})
}

// tell does what the story says.
func (s *tale) tell(o order) {
	s.t.Helper()
	for _, u := range []*unit{s.plain, s.first, s.third} {
		s.fresh.widen(u, whole)
	}
	s.aged.widen(s.expired, whole)
	s.put(o, s.plain, s.first, s.third, s.expired)
	s.settled(o, 4)
	for _, u := range []*unit{s.plain, s.first, s.third} {
		s.fresh.narrow(u, whole)
	}

	s.fresh.widen(s.first, absent)
	s.fresh.widen(s.second, whole)
	s.put(o, s.second)
	s.settled(o, 5)
	s.fresh.narrow(s.first, absent)
	s.fresh.narrow(s.second, whole)

	s.replay(o)
	for _, u := range []*unit{s.plain, s.second, s.third} {
		s.fresh.widen(u, spared)
	}
	s.erase(o)
	for _, u := range []*unit{s.plain, s.second, s.third} {
		s.fresh.narrow(u, spared)
	}

	s.fresh.widen(s.late, whole)
	s.put(o, s.late)
	s.settled(o, 6)
	s.fresh.narrow(s.late, whole)
	s.until(o, "the delete is rewritten", func() error {
		deletes, _, err := s.index.Deletes(s.t.Context(), index.DeleteQuery{Organization: "default", States: []nouns.DeleteState{nouns.DeleteRewriting}, Limit: 10})
		if err == nil && len(deletes) > 0 {
			left, err := s.index.DeleteProgress(s.t.Context(), deletes[0].ID)
			return errors.Join(err, fmt.Errorf("delete %d is at it: %+v", deletes[0].ID, left))
		}
		return err
	})
	s.until(o, "old rows expire", func() error {
		lines, err := s.lake.tryLines(s.t.Context(), everything, s.aged.start, s.aged.end)
		if err == nil && len(lines) > 0 {
			err = fmt.Errorf("%d rows are there", len(lines))
		}
		return err
	})
	s.aged.narrow(s.expired, absent)
}

// settled waits until so many receipts, or more, are there, and none is pending.
func (s *tale) settled(o order, want int) {
	s.t.Helper()
	s.until(o, "ingest", func() error {
		receipts, err := s.receipts()
		if err != nil {
			return err
		}
		pending := 0
		for _, r := range receipts {
			if r.State == nouns.ReceiptPending {
				pending++
			}
		}
		if len(receipts) < want || pending > 0 {
			return fmt.Errorf("%d receipts, %d of them pending; want %d", len(receipts), pending, want)
		}
		return nil
	})
}

func (s *tale) receipts() ([]nouns.Receipt, error) {
	receipts, _, err := s.index.Receipts(s.t.Context(), index.ReceiptQuery{Organization: "default", KeyPrefix: s.prefix, PageSize: 1000})
	return receipts, err
}

// surely are the receipts, as soon as the database tells them.
func (s *tale) surely(o order) (receipts []nouns.Receipt) {
	s.t.Helper()
	s.until(o, "receipts", func() (err error) {
		receipts, err = s.receipts()
		return err
	})
	return receipts
}

// replay ingests the plain object once more, and waits until that is done.
func (s *tale) replay(o order) {
	s.t.Helper()
	receipts := s.surely(o)
	at := slices.IndexFunc(receipts, func(r nouns.Receipt) bool { return r.Object.Key == s.plain.object.Key })
	s.call(o, "replay", func(ctx context.Context, c *changer) error {
		_, err := c.ingestor.ReplayObjects(withKey(ctx, s.lake.keys["default"]), &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{fmt.Sprint(receipts[at].ID)}})
		return err
	})
	s.settled(o, 5)
}

// erase deletes rows of the story's hour.
func (s *tale) erase(o order) {
	s.t.Helper()
	s.call(o, "delete", func(ctx context.Context, c *changer) error {
		_, err := c.janitor.DeleteData(withKey(ctx, s.lake.adminKey), &janitorv1.DeleteDataRequest{
			Organization: "default", Selector: s.selector, Start: timestamppb.New(s.fresh.start), End: timestamppb.New(s.fresh.end), Reason: "story",
			Sources: janitorv1.SourcePolicy_SOURCE_POLICY_LEAVE,
		})
		return err
	})
}

// verify finds exactly the rows that the story left, and receipts that account for them.
func (s *tale) verify(o order) {
	s.t.Helper()
	for _, p := range []*plot{s.fresh, s.aged} {
		s.until(order{}, "ask", func() error {
			answered, err := p.ask(s.t.Context(), s.lake)
			if answered && err != nil {
				s.t.Fatalf("%s: afterwards: %v\n%s", o, err, s.state(p))
			}
			return err
		})
	}
	receipts := s.surely(o)
	done := map[string]int{}
	for _, r := range receipts {
		if r.State == nouns.ReceiptDone {
			done[r.Object.Key]++
		} else if r.State != nouns.ReceiptSuperseded {
			s.t.Errorf("%s: a receipt of %s is %s: %s", o, r.Object.Key, r.State, r.Reason)
		}
	}
	for _, u := range []*unit{s.plain, s.second, s.third, s.late, s.expired} {
		if done[u.object.Key] != 1 {
			s.t.Errorf("%s: %d receipts of %s are done, want one", o, done[u.object.Key], u.name)
		}
	}
	s.account(o, receipts)
}

// account compares the receipts that are done with the rows that were put.
func (s *tale) account(o order, receipts []nouns.Receipt) {
	s.t.Helper()
	for _, r := range receipts {
		if r.State != nouns.ReceiptDone {
			continue
		}
		for _, u := range []*unit{s.plain, s.second, s.third, s.late, s.expired} {
			if u.object.Key == r.Object.Key && (r.RowsIn != int64(len(u.object.Rows)) || r.RowsOut != r.RowsIn) {
				s.t.Errorf("%s: the receipt of %s has %d rows in, %d out, want %d", o, u.name, r.RowsIn, r.RowsOut, len(u.object.Rows))
			}
		}
	}
}

// close waits until the janitor has nothing left to do, and looks for what should not be there: rows that are not any story's, and
// files that are nobody's.
func (n *lane) close() {
	n.t.Helper()
	if n.now == nil {
		return // the other lanes took all faults
	}
	n.until(order{}, "the deletes end", func() error {
		deletes, _, err := n.index.Deletes(n.t.Context(), index.DeleteQuery{
			Organization: "default", States: []nouns.DeleteState{nouns.DeleteRewriting, nouns.DeleteSweeping}, Limit: 1000,
		})
		if err == nil && len(deletes) > 0 {
			left, err := n.index.DeleteProgress(n.t.Context(), deletes[0].ID)
			return errors.Join(err, fmt.Errorf("%d deletes go on; of the first is left: %+v", len(deletes), left))
		}
		return err
	})
	n.until(order{}, "orphans are swept", n.orphans)
	for _, p := range n.plots {
		n.until(order{}, "ask", func() error {
			answered, err := p.ask(n.t.Context(), n.lake)
			if answered && err != nil {
				n.t.Fatalf("at the end: %v", err)
			}
			return err
		})
	}
}

// orphans names files below db/ that are neither a live segment's nor kept by design, and live segments without a file.
func (n *lane) orphans() error {
	ctx := n.t.Context()
	missing := map[string]bool{}
	for _, q := range []index.Query{
		{Signal: nouns.SignalLogs},
		{Signal: nouns.SignalMetrics},
		{Signal: nouns.SignalMetrics, Resolution: time.Minute},
		{Signal: nouns.SignalMetrics, Resolution: 5 * time.Minute},
	} {
		q.Organization, q.Start, q.End = "default", n.base.Add(-400*24*time.Hour), n.base.Add(48*time.Hour)
		answer, err := n.index.Lookup(ctx, q)
		if err != nil {
			return err
		}
		for _, s := range answer.Segments {
			missing[s.Key], missing[s.Key+nouns.SidecarSuffix] = true, true
		}
	}
	var orphans []string
	for a, err := range n.lake.bucket.List(ctx, "db/", "") {
		switch {
		case err != nil:
			return err
		case missing[a.Key]:
			delete(missing, a.Key)
		case !ownFile(a.Key):
			orphans = append(orphans, a.Key)
		}
	}
	if len(orphans) > 0 || len(missing) > 0 {
		return fmt.Errorf("%d files are nobody's: %q; %d files of live segments are missing", len(orphans), orphans[:min(3, len(orphans))], len(missing))
	}
	return nil
}
