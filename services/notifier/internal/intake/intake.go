// SPDX-License-Identifier: AGPL-3.0-only

// Package intake is what all doors of the notifier have behind them. A door is a way in which news of objects comes: a webhook, a
// call, a listing, a queue. Each has the same shape:
//
//	what came -> []Notice -> Take -> acknowledge
//
// Take resolves whose each object is, looks up what the news did not tell, and writes receipts and tasks in one transaction. A
// door acknowledges only when Take has returned without an error, so what is lost on the way comes again; what comes again finds
// its receipt and vanishes. A new door is a package beside internal/door/webhook that makes Notices, and a line in service.go.
//
// Objects that are not to be ingested get receipts 'skipped' with the reason, so that nobody has to guess: those that no storage
// profile claims, empty ones, directory markers, and LakeRunner's own files below db/, each of which comes back as an event.
package intake

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// headsAtOnce bounds the HEAD requests of one Take.
const headsAtOnce = 16

// Index is what the intake needs of the index.
type Index interface {
	Receive(ctx context.Context, notices []index.Notice) ([]index.Noticed, error)
}

// Notice is the news of one object.
type Notice struct {
	Object lake.Object
	// Complete is set when Object has its tag and size; else they are looked up.
	Complete bool
	// Asked is set when a user named this object: then one that does not exist is an error.
	Asked bool
}

// Outcome is what became of a notice.
type Outcome string

// The outcomes.
const (
	Received  Outcome = "received"  // a receipt and a task
	Skipped   Outcome = "skipped"   // a receipt with the reason, no task
	Duplicate Outcome = "duplicate" // it had its receipt
	Gone      Outcome = "gone"      // it does not exist any more; no receipt
	Malformed Outcome = "malformed" // no object can have this name; no receipt
)

// Taken is what became of one notice. Receipt is zero where the outcome has none.
type Taken struct {
	Outcome Outcome
	Receipt lake.Receipt
}

// Intake takes notices. It is safe for concurrent use.
type Intake struct {
	config  config.Source
	objects objects.Store
	commit  *committer
	metrics metrics
}

// Options are what an Intake is made of.
type Options struct {
	Index   Index
	Config  config.Source
	Objects objects.Store
	Metrics Meter
}

// New makes an intake.
func New(o Options) *Intake {
	return &Intake{config: o.Config, objects: o.Objects, commit: newCommitter(o.Index), metrics: newMetrics(o.Metrics)}
}

// Take takes notices from a door and returns, in their order, what became of them, once that is committed. With an error some of
// them may be committed, and all may be taken again: one object that cannot be looked up does not hold up its neighbours.
func (in *Intake) Take(ctx context.Context, door string, notices []Notice) ([]Taken, error) {
	taken, err := in.take(ctx, notices)
	in.metrics.took(ctx, door, taken, err)
	return taken, err
}

func (in *Intake) take(ctx context.Context, notices []Notice) ([]Taken, error) {
	rows := in.resolve(ctx, notices)
	var wanted []index.Notice
	var failed error
	for _, r := range rows {
		failed = cmp.Or(failed, r.err)
		if r.wanted() {
			wanted = append(wanted, r.notice)
		}
	}
	noticed, err := in.commit.receive(ctx, wanted)
	if err != nil || failed != nil {
		return nil, cmp.Or(err, failed)
	}
	taken := make([]Taken, len(rows))
	for i, r := range rows {
		taken[i].Outcome = r.outcome
		if r.wanted() {
			taken[i] = account(r.notice, noticed[0])
			noticed = noticed[1:]
		}
	}
	return taken, nil
}

func account(n index.Notice, noticed index.Noticed) Taken {
	t := Taken{Outcome: Received, Receipt: noticed.Receipt}
	switch {
	case noticed.Duplicate:
		t.Outcome = Duplicate
	case n.SkipReason != "":
		t.Outcome = Skipped
	}
	return t
}

// row is a notice on its way: outcome is set where it gets no receipt, err where that could not be found out.
type row struct {
	notice  index.Notice
	outcome Outcome
	err     error
}

func (r *row) wanted() bool { return r.outcome == "" && r.err == nil }

func (in *Intake) resolve(ctx context.Context, notices []Notice) []row {
	snapshot := in.config.Current()
	rows := make([]row, len(notices))
	var group errgroup.Group
	group.SetLimit(headsAtOnce)
	for i, n := range notices {
		rows[i] = resolved(snapshot, n)
		if !rows[i].needsHead(n) {
			rows[i].settle()
			continue
		}
		group.Go(func() error {
			rows[i].err = in.head(ctx, n, &rows[i])
			return nil
		})
	}
	_ = group.Wait() // each row has its own error
	return rows
}

func resolved(snapshot *config.Snapshot, n Notice) row {
	if err := check(n.Object); err != nil {
		if n.Asked {
			return row{err: err}
		}
		return row{outcome: Malformed}
	}
	r := snapshot.Resolve(n.Object.Bucket, n.Object.Key)
	return row{notice: index.Notice{
		Object:       n.Object,
		Organization: r.Organization,
		Collector:    r.Collector,
		Signal:       r.Signal,
		SkipReason:   r.SkipReason,
		Replace:      r.Profile != nil && r.Profile.OnRewrite == config.Replace,
	}}
}

// needsHead reports whether tag and size have to be looked up: not for what will be skipped whatever they are.
func (r *row) needsHead(n Notice) bool {
	return r.wanted() && r.notice.SkipReason == "" && (!n.Complete || n.Object.Tag == "")
}

// settle gives the reasons that depend on the size.
func (r *row) settle() {
	if r.wanted() && r.notice.SkipReason == "" && r.notice.Object.Size == 0 {
		r.notice.SkipReason = config.SkipEmpty
	}
}

// check refuses what the index would refuse, whose transaction others share. The bounds are those of S3.
func check(o lake.Object) error {
	switch {
	case o.Bucket == "" || o.Key == "":
		return fault.New(fault.Invalid, "object %q in bucket %q: want a bucket and a key", o.Key, o.Bucket)
	case len(o.Bucket) > 255 || len(o.Key) > 1024 || len(o.Tag) > 255:
		return fault.New(fault.Invalid, "object %.80q in bucket %.80q: bucket and tag may have 255 bytes, a key 1024", o.Key, o.Bucket)
	case !storable(o.Bucket) || !storable(o.Key) || !storable(o.Tag):
		return fault.New(fault.Invalid, "object %q in bucket %q: want UTF-8 without NUL", o.Key, o.Bucket)
	case o.Size < 0:
		return fault.New(fault.Invalid, "object %q in bucket %q: size %d", o.Key, o.Bucket, o.Size)
	}
	return nil
}

func storable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func (in *Intake) head(ctx context.Context, n Notice, r *row) error {
	bucket, err := in.objects.Bucket(ctx, n.Object.Bucket)
	if err != nil {
		return err
	}
	a, err := bucket.Head(ctx, n.Object.Key)
	if errors.Is(err, fault.NotFound) && !n.Asked {
		r.outcome = Gone
		return nil
	}
	if err != nil {
		return err
	}
	o := &r.notice.Object
	o.Tag, o.Size, o.LastModified = a.Tag, a.Size, a.LastModified
	r.settle()
	return nil
}
