// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// MaxNotices is how many notices one Receive takes.
const MaxNotices = 10_000

// Whose rows a revision's commit hides; the values of receipts.hides.
const (
	hidesNothing  = "nothing"
	hidesAllOlder = "all_older"
)

// content is what an object is.
type content struct{ bucket, key, tag string }

func contentOf(o lake.Object) content { return content{o.Bucket, o.Key, o.Tag} }

// Receive writes a receipt and, unless it is skipped, an ingest task for each object, in one transaction. Objects that have a
// receipt which stands for them get no second one. The answers are in the order of the notices.
func (x *Index) Receive(ctx context.Context, notices []Notice) (noticed []Noticed, err error) {
	defer x.observe("receive", &err)()
	if err := checkNotices(notices); err != nil || len(notices) == 0 {
		return nil, err
	}
	var r *reception
	err = x.inTx(ctx, func(q *db.Queries) error {
		r = newReception(q, notices)
		return r.run(ctx)
	})
	if err != nil {
		return nil, failed("receive objects", err)
	}
	if len(r.pending) > 0 {
		x.bell.announce(ctx, lake.TaskIngest)
	}
	return r.answers()
}

func checkNotices(notices []Notice) error {
	if len(notices) > MaxNotices {
		return fault.New(fault.Invalid, "%d notices in one call: at most %d", len(notices), MaxNotices)
	}
	for _, n := range notices {
		if err := checkNotice(n); err != nil {
			return fault.New(fault.Invalid, "object %q in bucket %q: %w", n.Object.Key, n.Object.Bucket, err)
		}
	}
	return nil
}

func checkNotice(n Notice) error {
	o := n.Object
	switch {
	case o.Bucket == "" || o.Key == "":
		return fmt.Errorf("a bucket and a key are wanted")
	case len(o.Bucket) > 255 || len(o.Key) > 1024 || len(o.Tag) > 255:
		return fmt.Errorf("bucket and tag may have 255 bytes, a key 1024")
	case !storable(o.Bucket) || !storable(o.Key) || !storable(o.Tag):
		return fmt.Errorf("not valid UTF-8")
	case o.Size < 0:
		return fmt.Errorf("size %d", o.Size)
	case n.SkipReason != "":
		return nil
	case o.Tag == "":
		return fmt.Errorf("no content tag")
	}
	return n.Organization.Valid()
}

func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// reception is one transaction of Receive.
type reception struct {
	q       *db.Queries
	notices []Notice
	first   map[content]int // ordinal of the first notice of each content
	ids     []int64         // receipt of each notice, by ordinal
	created []bool          // by ordinal: the receipt is this call's work
	pending []int64         // receipts that want a task
	rows    map[int64]db.Receipt
}

func newReception(q *db.Queries, notices []Notice) *reception {
	r := &reception{
		q:       q,
		notices: notices,
		first:   make(map[content]int, len(notices)),
		ids:     make([]int64, len(notices)),
		created: make([]bool, len(notices)),
	}
	for i, n := range notices {
		if _, seen := r.first[contentOf(n.Object)]; !seen {
			r.first[contentOf(n.Object)] = i
		}
	}
	return r
}

func (r *reception) run(ctx context.Context) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	if err := r.enqueue(ctx); err != nil {
		return err
	}
	return r.load(ctx)
}

// settle finds or makes a receipt for each content. Another transaction may make one between our look and our insert, or take
// the revision that we wanted: then we look again.
func (r *reception) settle(ctx context.Context) error {
	open := make([]int, 0, len(r.first))
	for _, i := range r.first {
		open = append(open, i)
	}
	slices.Sort(open)
	for try := 0; len(open) > 0; try++ {
		if try == maxTries {
			return fault.New(fault.Unavailable, "others keep receiving the same %d objects", len(open))
		}
		fresh, err := r.findStanding(ctx, open)
		if err != nil {
			return err
		}
		if open, err = r.insert(ctx, fresh); err != nil {
			return err
		}
	}
	return nil
}

// fresh is a content that needs a receipt.
type fresh struct {
	ordinal int
	replay  int32
}

// findStanding notes the receipts that stand, and returns what has none: contents never seen, and those that other content has
// replaced since, which were written again.
func (r *reception) findStanding(ctx context.Context, open []int) ([]fresh, error) {
	found, err := r.q.FindReceipts(ctx, r.contents(open))
	if err != nil {
		return nil, err
	}
	byOrdinal := make(map[int]db.FindReceiptsRow, len(found))
	for _, f := range found {
		byOrdinal[int(f.Ordinal)] = f
	}
	var missing []fresh
	var unclaimed []int
	for _, i := range open {
		f, seen := byOrdinal[i]
		switch {
		case !seen:
			missing = append(missing, fresh{ordinal: i})
			continue
		case f.State == string(lake.ReceiptSuperseded):
			missing = append(missing, fresh{ordinal: i, replay: f.Replay + 1})
			continue
		case f.State == string(lake.ReceiptSkipped) && f.Organization == "" && r.notices[i].SkipReason == "":
			unclaimed = append(unclaimed, i)
		}
		r.ids[i] = f.ID
	}
	return missing, r.adopt(ctx, unclaimed)
}

func (r *reception) contents(ordinals []int) db.FindReceiptsParams {
	var p db.FindReceiptsParams
	for _, i := range ordinals {
		o := r.notices[i].Object
		p.Ordinals = append(p.Ordinals, int64(i))
		p.Buckets = append(p.Buckets, o.Bucket)
		p.Keys = append(p.Keys, o.Key)
		p.Tags = append(p.Tags, o.Tag)
	}
	return p
}

// adopt makes receipts pending that were skipped because no storage profile claimed their objects.
func (r *reception) adopt(ctx context.Context, ordinals []int) error {
	if len(ordinals) == 0 {
		return nil
	}
	var p db.AdoptUnclaimedParams
	for _, i := range ordinals {
		n := r.notices[i]
		p.Ids = append(p.Ids, r.ids[i])
		p.Organizations = append(p.Organizations, string(n.Organization))
		p.Collectors = append(p.Collectors, clean(n.Collector))
		p.Signals = append(p.Signals, int16(n.Signal))
		p.Hides = append(p.Hides, hidden(n))
	}
	adopted, err := r.q.AdoptUnclaimed(ctx, p)
	if err != nil {
		return err
	}
	r.pending = append(r.pending, adopted...)
	for _, i := range ordinals {
		r.created[i] = slices.Contains(adopted, r.ids[i])
	}
	return nil
}

// insert makes receipts and returns the ordinals of those that somebody else was faster with.
func (r *reception) insert(ctx context.Context, wanted []fresh) ([]int, error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	inserted, err := r.q.InsertReceipts(ctx, r.rowsOf(wanted))
	if err != nil {
		return nil, err
	}
	for _, row := range inserted {
		i := r.first[content{row.Bucket, row.Key, row.Tag}]
		r.ids[i], r.created[i] = row.ID, true
		if r.notices[i].SkipReason == "" {
			r.pending = append(r.pending, row.ID)
		}
	}
	var left []int
	for _, w := range wanted {
		if r.ids[w.ordinal] == 0 {
			left = append(left, w.ordinal)
		}
	}
	return left, nil
}

func (r *reception) rowsOf(wanted []fresh) db.InsertReceiptsParams {
	var p db.InsertReceiptsParams
	for _, w := range wanted {
		n := r.notices[w.ordinal]
		p.Ordinals = append(p.Ordinals, int64(w.ordinal))
		p.Organizations = append(p.Organizations, string(n.Organization))
		p.Collectors = append(p.Collectors, clean(n.Collector))
		p.Signals = append(p.Signals, int16(n.Signal))
		p.Buckets = append(p.Buckets, n.Object.Bucket)
		p.Keys = append(p.Keys, n.Object.Key)
		p.Tags = append(p.Tags, n.Object.Tag)
		p.Sizes = append(p.Sizes, n.Object.Size)
		p.LastModifieds = append(p.LastModifieds, modified(n.Object))
		p.Replays = append(p.Replays, w.replay)
		p.Hides = append(p.Hides, hidden(n))
		p.States = append(p.States, string(firstState(n)))
		p.Reasons = append(p.Reasons, clean(n.SkipReason))
	}
	return p
}

// modified is the time of an object's last write, or the epoch when it is not known or cannot be.
func modified(o lake.Object) time.Time {
	if o.LastModified.Year() < 1970 || o.LastModified.Year() > 9999 {
		return epoch()
	}
	return o.LastModified
}

func hidden(n Notice) string {
	if n.Replace {
		return hidesAllOlder
	}
	return hidesNothing
}

func firstState(n Notice) lake.ReceiptState {
	if n.SkipReason != "" {
		return lake.ReceiptSkipped
	}
	return lake.ReceiptPending
}

// enqueue makes the ingest tasks.
func (r *reception) enqueue(ctx context.Context) error {
	if len(r.pending) == 0 {
		return nil
	}
	if err := r.q.EnqueueReceipts(ctx, r.pending); err != nil {
		return err
	}
	var groups []group
	for i, n := range r.notices {
		if r.created[i] && n.SkipReason == "" {
			groups = append(groups, group{lake.TaskIngest, n.Organization, n.Signal})
		}
	}
	return openServices(ctx, r.q, groups)
}

// load reads the receipts as they stand now.
func (r *reception) load(ctx context.Context) error {
	ids := make([]int64, 0, len(r.first))
	for _, i := range r.first {
		ids = append(ids, r.ids[i])
	}
	rows, err := r.q.ReceiptsByID(ctx, ids)
	if err != nil {
		return err
	}
	r.rows = make(map[int64]db.Receipt, len(rows))
	for _, row := range rows {
		r.rows[row.Receipt.ID] = row.Receipt
	}
	return nil
}

func (r *reception) answers() ([]Noticed, error) {
	out := make([]Noticed, len(r.notices))
	for i, n := range r.notices {
		first := r.first[contentOf(n.Object)]
		receipt, err := receiptOf(r.rows[r.ids[first]])
		if err != nil {
			return nil, err
		}
		out[i] = Noticed{Receipt: receipt, Duplicate: i != first || !r.created[first]}
	}
	return out, nil
}

// group is what claims are fair between.
type group struct {
	kind         lake.TaskKind
	organization lake.Organization
	signal       lake.Signal
}

// openServices lets groups take part in fairness.
func openServices(ctx context.Context, q *db.Queries, groups []group) error {
	slices.SortFunc(groups, func(a, b group) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.organization, b.organization), cmp.Compare(a.signal, b.signal))
	})
	var p db.OpenServicesParams
	for _, g := range slices.Compact(groups) {
		p.Kinds = append(p.Kinds, string(g.kind))
		p.Organizations = append(p.Organizations, string(g.organization))
		p.Signals = append(p.Signals, int16(g.signal))
	}
	return q.OpenServices(ctx, p)
}
