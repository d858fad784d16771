// SPDX-License-Identifier: AGPL-3.0-only

package listing

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
	"github.com/lakerunner/lakerunner/services/notifier/internal/layout"
)

const (
	// page is how many objects are held against the receipts at once.
	page = 1000
	// farthestWest is how far a collector's clock can be behind UTC; it is assumed until a family has shown its zone.
	farthestWest = -12 * time.Hour
)

// reconciler holds one bucket against the receipts, round by round.
type reconciler struct {
	door     *Door
	bucket   string
	walks    map[string]string // by prefix: the place to go on at
	families map[familyID]*family
}

type familyID = layout.Family

// family is what is known of keys with time in them.
type family struct {
	id    familyID
	hours bool
	zone  time.Duration // of its newest objects' keys against their time of writing; never east of UTC
	place string        // where a listing that was cut goes on; empty: the last one came to its end
	at    time.Time     // of its last turn, zero: none
	deep  time.Time     // when its last deep listing began that came to its end, zero: none
	dives time.Time     // when the deep listing under way began, zero: none is
}

// errEnough ends a listing whose requests are used up.
var errEnough = errors.New("the requests of this round are used up")

// round lists what has time in its keys first, the longest unlisted before the others, and walks with what is left. A fifth of the
// requests belongs to the walk, which finds new families.
func (r *reconciler) round(ctx context.Context, prefixes []string) error {
	b, err := r.door.options.Objects.Bucket(ctx, r.bucket)
	if err != nil {
		return err
	}
	ctx, tally := objects.WithTally(ctx)
	limit := r.door.options.Config.Requests
	enough := func(limit int64) func() bool { return func() bool { return tally.Count(objects.RequestList) > limit } }
	if err := r.tails(ctx, b, r.byAge(), enough(limit-limit/5)); err != nil {
		return err
	}
	before := len(r.families)
	if err := r.walk(ctx, b, prefixes, enough(limit)); err != nil || len(r.families) == before {
		return err
	}
	// What was just found should not wait for a round.
	return r.tails(ctx, b, r.unlisted(), enough(limit))
}

func (r *reconciler) byAge() []*family {
	all := make([]*family, 0, len(r.families))
	for _, f := range r.families {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *family) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id.Base, b.id.Base)) })
	return all
}

func (r *reconciler) unlisted() []*family {
	return slices.DeleteFunc(r.byAge(), func(f *family) bool { return !f.at.IsZero() })
}

func (r *reconciler) tails(ctx context.Context, b objects.Bucket, families []*family, enough func() bool) error {
	for _, f := range families {
		if enough() {
			return nil
		}
		if err := r.tail(ctx, b, f, enough); err != nil {
			return err
		}
	}
	return nil
}

// tail lists a family from its look-back on, or from where it was cut.
func (r *reconciler) tail(ctx context.Context, b objects.Bucket, f *family, enough func() bool) error {
	if f.at = r.door.options.Now(); f.place == "" {
		f.place = f.id.From(r.since(f), f.hours)
	}
	zone := farthestWest
	p := r.newPage()
	for a, err := range b.List(ctx, f.id.Prefix(), f.place) {
		if err != nil {
			return err
		}
		if a.Key > f.id.End() {
			break
		}
		zone = max(zone, zoneOf(a))
		if err := p.add(ctx, a); err != nil {
			return err
		}
		if enough() {
			f.place = a.Key
			return p.flush(ctx)
		}
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	f.finish(zone)
	return nil
}

// since is the beginning of a family's look-back, in its own zone.
func (r *reconciler) since(f *family) time.Time {
	c := r.door.options.Config
	lookback, zone := c.Lookback, f.zone
	switch {
	case f.deep.IsZero():
		lookback, zone, f.dives = c.StartLookback, farthestWest, f.at
	case f.at.Sub(f.deep) >= c.DeepInterval:
		lookback, zone, f.dives = c.DeepLookback, farthestWest, f.at
	}
	// A partition is named after its beginning.
	return f.at.Add(zone - lookback - time.Hour)
}

func (f *family) finish(zone time.Duration) {
	f.place, f.zone = "", min(zone, 0)
	if !f.dives.IsZero() {
		f.deep, f.dives = f.dives, time.Time{}
	}
}

// zoneOf is how far a key's time is ahead of the object's writing: at most the zone of the clock that made the key, since objects
// are written later than their partition begins.
func zoneOf(a objects.Attributes) time.Duration {
	p, ok := layout.Of(a.Key, "")
	if !ok || a.LastModified.IsZero() {
		return farthestWest
	}
	return max(farthestWest, p.Start.Sub(a.LastModified))
}

// walk goes on with each prefix until its end, or until the requests are used up.
func (r *reconciler) walk(ctx context.Context, b objects.Bucket, prefixes []string, enough func() bool) error {
	for _, prefix := range prefixes {
		err := r.walkOne(ctx, b, prefix, enough)
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reconciler) walkOne(ctx context.Context, b objects.Bucket, prefix string, enough func() bool) error {
	p := r.newPage()
	for s, err := range layout.Walk(ctx, b, prefix, r.walks[prefix]) {
		if err != nil {
			return err
		}
		if s.First != nil {
			r.found(*s.First)
		} else if err := p.add(ctx, s.Object); err != nil {
			return err
		}
		r.walks[prefix] = s.Place
		if enough() {
			return cmp.Or(p.flush(ctx), errEnough)
		}
	}
	r.walks[prefix] = ""
	return p.flush(ctx)
}

func (r *reconciler) found(p layout.Partition) {
	if _, ok := r.families[p.Family]; !ok {
		r.families[p.Family] = &family{id: p.Family, hours: p.Length == time.Hour}
	}
}

// pageOf gathers objects until there are enough to be held against the receipts.
type pageOf struct {
	reconciler *reconciler
	youngest   time.Time // zero: none is too young
	objects    []lake.Object
}

func (r *reconciler) newPage() *pageOf {
	p := &pageOf{reconciler: r}
	if settle := r.door.options.Config.Settle; settle > 0 {
		p.youngest = r.door.options.Now().Add(-settle)
	}
	return p
}

func (p *pageOf) add(ctx context.Context, a objects.Attributes) error {
	if lake.OwnKey(a.Key) || !p.youngest.IsZero() && a.LastModified.After(p.youngest) {
		return nil
	}
	p.objects = append(p.objects, lake.Object{Bucket: p.reconciler.bucket, Key: a.Key, Tag: a.Tag, Size: a.Size, LastModified: a.LastModified})
	if len(p.objects) < page {
		return nil
	}
	return p.flush(ctx)
}

// flush takes in what has no receipt.
func (p *pageOf) flush(ctx context.Context) error {
	d := p.reconciler.door
	known, err := d.options.Index.Known(ctx, p.reconciler.bucket, p.objects)
	if err != nil {
		return err
	}
	var missed []intake.Notice
	for i, o := range p.objects {
		if !known[i] {
			missed = append(missed, intake.Notice{Object: o, Complete: true})
		}
	}
	p.objects = p.objects[:0]
	if len(missed) == 0 {
		return nil
	}
	taken, err := d.options.Intake.Take(ctx, Name, missed)
	for _, t := range taken {
		if t.Outcome == intake.Received {
			d.missed.Add(ctx, 1)
		}
	}
	return err
}
