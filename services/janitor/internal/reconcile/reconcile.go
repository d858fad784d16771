// SPDX-License-Identifier: AGPL-3.0-only

// Package reconcile compares source objects with receipts. Events get lost; a listing does not. What has no receipt goes to the notifier,
// as if its event had come, and what was compared is told by prefix and hour.
//
// Invariants:
//
//	R1. Every object of a bucket that the configuration gives to the organization is compared: those under prefixes that objects came to
//	    lately within minutes, all others in rounds that begin anew when they end.
//	R2. An object counts as missed only when it was written longer ago than its event may take, and has no receipt of any revision with its
//	    content tag. Handing it over twice is handing it over once.
//	R3. The figures of a prefix and hour are those of a whole listing of the prefix; a part is never told as the whole.
//
// It does not write receipts: the notifier does.
package reconcile

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what reconciliation needs of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	Known(ctx context.Context, bucket string, objects []lake.Object) ([]bool, error)
	RecentPrefixes(ctx context.Context, org lake.Organization, since time.Time, limit int) ([]index.Prefix, error)
	RecordCompleteness(ctx context.Context, hours []index.PrefixCompleteness) error
}

// Notifier takes notice of objects, at most Handed a call.
type Notifier interface {
	Notify(ctx context.Context, objects []lake.Object) error
}

// Handed is the most objects of one call of the notifier.
const Handed = 1000

// Deps are what reconciliation works on.
type Deps struct {
	Index   Index
	Config  config.Source
	Objects objects.Store
	// Notifier may be nil: then what was missed is counted, logged and left.
	Notifier Notifier
	Log      *slog.Logger
	Counters Counters
	// Settle is how long an object's event may take. Zero: 2 minutes.
	Settle time.Duration
	// Recent is how long ago the last object may have come to a prefix that is compared in each run. Zero: 2 hours.
	Recent time.Duration
	// Slow is how many objects of the round over everything each run compares. Zero: 20,000.
	Slow       int
	Checkpoint func(name string)
}

const (
	// page is how many objects are compared by one question to the index.
	page = 1000
	// prefixes bounds how many recent prefixes one run compares.
	prefixes = 500
	// deep bounds how many objects of one recent prefix a run compares; the round over everything has the others.
	deep = 20_000
	// shown is how many missed objects a result names.
	shown = 100
)

// Reconciler reconciles.
type Reconciler struct {
	deps   Deps
	rounds rounds
}

// New returns a reconciler.
func New(d Deps) *Reconciler {
	d.Settle = cmp.Or(d.Settle, 2*time.Minute)
	d.Recent = cmp.Or(d.Recent, 2*time.Hour)
	d.Slow = cmp.Or(d.Slow, 20_000)
	return &Reconciler{deps: d, rounds: rounds{at: map[round]*cursor{}}}
}

// Request says what to compare.
type Request struct {
	Organization lake.Organization
	Bucket       string // empty: all of the organization's profiles
	Prefix       string // empty: those that objects came to lately; with a bucket too
	// Inventory is the key of an S3 Inventory's manifest.json in Bucket. Empty: the bucket is listed.
	Inventory string
	// DryRun hands nothing over, and keeps no figures.
	DryRun bool
}

// Result counts.
type Result struct {
	Objects, Missed, MissedBytes int64
	First                        []lake.Object // of the missed ones
	Requests                     int64
}

// Duty compares what is recent, and goes on with the round over everything.
func (r *Reconciler) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	c, err := r.compare(ctx, Request{Organization: lease.Organization})
	if err != nil {
		return lake.Edit{}, err
	}
	if err := c.recent(ctx); err != nil {
		return lake.Edit{}, err
	}
	r.deps.Checkpoint("reconcile-recent")
	return lake.Edit{}, c.everything(ctx)
}

// Run compares what a request names.
func (r *Reconciler) Run(ctx context.Context, request Request) (Result, error) {
	ctx, tally := objects.WithTally(ctx)
	c, err := r.compare(ctx, request)
	if err != nil {
		return Result{}, err
	}
	switch {
	case request.Inventory != "":
		err = c.inventory(ctx)
	case request.Prefix == "":
		err = c.recent(ctx)
	default:
		err = c.named(ctx)
	}
	c.result.Requests = tally.Total()
	return c.result, err
}

// comparison is one run.
type comparison struct {
	*Reconciler
	request  Request
	snapshot *config.Snapshot
	now      time.Time
	result   Result
}

func (r *Reconciler) compare(ctx context.Context, request Request) (*comparison, error) {
	now, err := r.deps.Index.Now(ctx)
	if err != nil {
		return nil, err
	}
	return &comparison{Reconciler: r, request: request, snapshot: r.deps.Config.Current(), now: now}, nil
}

// recent compares the prefixes that objects came to lately.
func (c *comparison) recent(ctx context.Context) error {
	found, err := c.deps.Index.RecentPrefixes(ctx, c.request.Organization, c.now.Add(-c.deps.Recent), prefixes)
	if err != nil {
		return err
	}
	done := map[index.Prefix]bool{}
	for _, p := range found {
		at := index.Prefix{Bucket: p.Bucket, Prefix: Folder(p.Prefix)}
		// The whole bucket is the round's.
		if at.Prefix == "" || done[at] || c.request.Bucket != "" && c.request.Bucket != p.Bucket {
			continue
		}
		done[at] = true
		if err := c.prefix(ctx, at.Bucket, at.Prefix); err != nil {
			return err
		}
	}
	return nil
}

// named compares the prefix of the request in its bucket, or in all of the organization's.
func (c *comparison) named(ctx context.Context) error {
	buckets := c.buckets()
	if c.request.Bucket != "" {
		buckets = []string{c.request.Bucket}
	}
	for _, bucket := range buckets {
		if err := c.prefix(ctx, bucket, c.request.Prefix); err != nil {
			return err
		}
	}
	return nil
}

// buckets are those of the profiles whose objects can be the organization's.
func (c *comparison) buckets() []string {
	var out []string
	seen := map[string]bool{}
	for _, p := range c.snapshot.Profiles() {
		elsewhere := p.Organization != "" && p.Organization != c.request.Organization && p.Prefix != "" && !strings.Contains(p.Prefix, "{organization}")
		if !elsewhere && !seen[p.Bucket()] {
			seen[p.Bucket()] = true
			out = append(out, p.Bucket())
		}
	}
	return out
}

// prefix compares one prefix from its first object to its last.
func (c *comparison) prefix(ctx context.Context, bucket, prefix string) error {
	opened, err := c.deps.Objects.Bucket(ctx, bucket)
	if err != nil {
		return err
	}
	b := c.batch(bucket)
	n := 0
	for a, err := range opened.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		if n++; n > deep {
			return b.compare(ctx) // what was seen is not the whole prefix, and is not told as such
		}
		if err := b.add(ctx, objectOf(bucket, a)); err != nil {
			return err
		}
	}
	if err := b.compare(ctx); err != nil {
		return err
	}
	return b.keep(ctx, func(folder string) bool { return strings.HasPrefix(folder, prefix) })
}

func objectOf(bucket string, a objects.Attributes) lake.Object {
	return lake.Object{Bucket: bucket, Key: a.Key, Tag: a.Tag, Size: a.Size, LastModified: a.LastModified}
}

// batch gathers objects, asks the index about a page of them at a time, and counts.
type batch struct {
	*comparison
	bucket  string
	objects []lake.Object
	hours   map[hour]*index.PrefixCompleteness
}

// hour is what figures are of.
type hour struct {
	prefix string
	start  int64
}

func (c *comparison) batch(bucket string) *batch {
	return &batch{comparison: c, bucket: bucket, hours: map[hour]*index.PrefixCompleteness{}}
}

// add takes an object that is the organization's, and whose event has had its time.
func (b *batch) add(ctx context.Context, o lake.Object) error {
	if o.Size == 0 || b.now.Sub(o.LastModified) < b.deps.Settle {
		return nil
	}
	resolution := b.snapshot.Resolve(b.bucket, o.Key)
	if resolution.SkipReason != "" || resolution.Organization != b.request.Organization {
		return nil
	}
	b.objects = append(b.objects, o)
	if len(b.objects) < page {
		return nil
	}
	return b.compare(ctx)
}

// compare asks about the page, hands over what was missed, and counts.
func (b *batch) compare(ctx context.Context) error {
	if len(b.objects) == 0 {
		return nil
	}
	known, err := b.deps.Index.Known(ctx, b.bucket, b.objects)
	if err != nil {
		return err
	}
	if len(known) != len(b.objects) {
		return fault.New(fault.Internal, "the index answered for %d of %d objects", len(known), len(b.objects))
	}
	var missed []lake.Object
	for i, o := range b.objects {
		figures := b.figures(o)
		figures.Objects++
		figures.Bytes += o.Size
		if known[i] {
			figures.Known++
			continue
		}
		missed = append(missed, o)
	}
	b.result.Objects += int64(len(b.objects))
	b.objects = b.objects[:0]
	return b.missed(ctx, missed)
}

func (b *batch) figures(o lake.Object) *index.PrefixCompleteness {
	prefix := Folder(o.Key)
	start := o.LastModified.UTC().Truncate(time.Hour)
	at := hour{prefix, start.Unix()}
	if b.hours[at] == nil {
		b.hours[at] = &index.PrefixCompleteness{Organization: b.request.Organization, Bucket: b.bucket, Prefix: prefix, Hour: start}
	}
	return b.hours[at]
}

func (b *batch) missed(ctx context.Context, missed []lake.Object) error {
	if len(missed) == 0 {
		return nil
	}
	b.result.Missed += int64(len(missed))
	for _, o := range missed {
		b.result.MissedBytes += o.Size
		if len(b.result.First) < shown {
			b.result.First = append(b.result.First, o)
		}
	}
	if b.request.DryRun {
		return nil
	}
	b.deps.Counters.missed(ctx, len(missed))
	if b.deps.Notifier == nil {
		b.deps.Log.WarnContext(ctx, "objects without a receipt, and no notifier to tell", "bucket", b.bucket, "objects", len(missed), "first", missed[0].Key)
		return nil
	}
	b.deps.Log.InfoContext(ctx, "objects without a receipt go to the notifier", "bucket", b.bucket, "objects", len(missed), "first", missed[0].Key)
	if err := b.deps.Notifier.Notify(ctx, missed); err != nil {
		return err
	}
	b.deps.Checkpoint("reconcile-notified")
	return nil
}

// end compares the rest and keeps the figures of what was listed whole.
func (b *batch) end(ctx context.Context) error {
	if err := b.compare(ctx); err != nil {
		return err
	}
	return b.keep(ctx, func(string) bool { return true })
}

// keep writes the figures of the prefixes that are chosen, and forgets them.
func (b *batch) keep(ctx context.Context, chosen func(prefix string) bool) error {
	var hours []index.PrefixCompleteness
	for at, figures := range b.hours {
		if chosen(at.prefix) {
			hours = append(hours, *figures)
			delete(b.hours, at)
		}
	}
	if b.request.DryRun || len(hours) == 0 {
		return nil
	}
	return b.deps.Index.RecordCompleteness(ctx, hours)
}
