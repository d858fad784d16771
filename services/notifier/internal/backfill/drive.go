// SPDX-License-Identifier: AGPL-3.0-only

package backfill

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

const (
	leaseDuration = 2 * time.Minute
	// turn is how long one backfill is driven before another may be.
	turn = time.Minute
	// stepTime is what a step may take at the throttle, so that a pause is heeded soon.
	stepTime = 5 * time.Second
	// examined is how many keys a step looks at, when few of them are wanted.
	examined = 20_000
	// backlogAge is how old an answer about the backlog may be.
	backlogAge = 10 * time.Second
)

// Name is the door's.
func (b *Backfills) Name() string { return Name }

// Run drives backfills until ctx ends.
func (b *Backfills) Run(ctx context.Context) error {
	var group errgroup.Group
	for range b.options.Config.Drivers {
		group.Go(func() error {
			for b.turn(ctx) {
				continue
			}
			return nil
		})
	}
	return group.Wait()
}

// turn drives one backfill for a while, or waits for one. It returns false when ctx has ended.
func (b *Backfills) turn(ctx context.Context) bool {
	lease, err := b.options.Index.ClaimBackfill(ctx, leaseDuration)
	if lease == nil || err != nil {
		if err != nil && ctx.Err() == nil {
			b.options.Log.WarnContext(ctx, "no backfill can be claimed", "error", err)
		}
		return pause(ctx, b.options.Config.Poll)
	}
	err = b.drive(ctx, lease)
	if err == nil || ctx.Err() != nil {
		return b.release(ctx, lease)
	}
	b.failed(ctx, lease, err)
	return b.release(ctx, lease) && pause(ctx, b.options.Config.Poll)
}

// release gives the backfill back even when ctx has ended.
func (b *Backfills) release(ctx context.Context, lease *index.BackfillLease) bool {
	if err := b.options.Index.ReleaseBackfill(context.WithoutCancel(ctx), lease); err != nil {
		b.options.Log.WarnContext(ctx, "a backfill was not released, and waits for its lease to end", "backfill", lease.Backfill.ID, "error", err)
	}
	return ctx.Err() == nil
}

// failed ends a backfill that cannot go on, and leaves others to be tried again.
func (b *Backfills) failed(ctx context.Context, lease *index.BackfillLease, err error) {
	log := b.options.Log.With("backfill", lease.Backfill.ID, "error", err)
	switch fault.KindOf(err) {
	case fault.Conflict:
		return // another driver has it
	case fault.NotFound, fault.Denied, fault.Invalid, fault.Unsupported:
		log.ErrorContext(ctx, "the backfill failed")
		if _, err := b.options.Index.SetBackfillState(ctx, lease.Backfill.ID, index.BackfillFailed, err.Error()); err != nil {
			log.WarnContext(ctx, "its state was not written", "cause", err)
		}
	default:
		log.WarnContext(ctx, "the backfill will go on later")
	}
}

// driver takes a backfill's steps.
type driver struct {
	*Backfills
	lease   *index.BackfillLease
	scope   Scope
	bucket  objects.Bucket
	plan    *plan
	limiter *rate.Limiter
	chunk   int

	backlog   int64
	backlogAt time.Time
}

func (b *Backfills) drive(ctx context.Context, lease *index.BackfillLease) error {
	d, err := b.newDriver(ctx, lease)
	if err != nil {
		return err
	}
	for until := time.Now().Add(turn); time.Now().Before(until); {
		state, err := d.step(ctx)
		if err != nil || state != index.BackfillRunning {
			return err
		}
	}
	return nil
}

func (b *Backfills) newDriver(ctx context.Context, lease *index.BackfillLease) (*driver, error) {
	f := lease.Backfill
	p, err := parsePlan(f.Cursor)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	bucket, err := b.options.Objects.Bucket(ctx, f.Bucket)
	if err != nil {
		return nil, err
	}
	perSecond := b.rate(f.ObjectsPerSecond)
	size := min(chunk, max(1, perSecond*int(stepTime/time.Second)))
	return &driver{
		Backfills: b,
		lease:     lease,
		scope:     Scope{Bucket: f.Bucket, Prefix: f.Prefix, After: f.ModifiedAfter, Before: f.ModifiedBefore},
		bucket:    bucket,
		plan:      p,
		limiter:   rate.NewLimiter(rate.Limit(perSecond), size),
		chunk:     size,
	}, nil
}

// step does a bounded piece of work and records it. The answer is the backfill's state after it.
func (d *driver) step(ctx context.Context) (index.BackfillState, error) {
	if !d.plan.Surveyed {
		d.count(ctx, "survey")
		if err := d.survey(ctx); err != nil {
			return "", err
		}
		return d.advance(ctx, index.BackfillStep{})
	}
	waits, err := d.waits(ctx)
	if err != nil {
		return "", err
	}
	if waits {
		d.count(ctx, "wait")
		pause(ctx, d.options.Config.Poll)
		return d.advance(ctx, index.BackfillStep{})
	}
	at, ok := d.plan.at()
	if !ok {
		return d.advance(ctx, index.BackfillStep{Done: true})
	}
	d.count(ctx, "hand")
	return d.hand(ctx, at)
}

func (d *driver) count(ctx context.Context, phase string) {
	d.steps.Add(ctx, 1, metric.WithAttributes(attribute.String("phase", phase)))
}

func (d *driver) advance(ctx context.Context, step index.BackfillStep) (index.BackfillState, error) {
	var err error
	if step.Cursor, err = d.plan.cursor(); err != nil {
		return "", err
	}
	now, err := d.options.Index.AdvanceBackfill(ctx, d.lease, step)
	return now.State, err
}

// survey goes on with the walk that finds families and counts the other objects by day.
func (d *driver) survey(ctx context.Context) error {
	seen := 0
	for s, err := range d.plan.walk(ctx, d.bucket, d.scope.Prefix, d.plan.Place) {
		if err != nil {
			return err
		}
		if s.First == nil && d.scope.holds(s.Object) {
			d.plan.Days[dayOf(s.Object.LastModified)]++
		}
		d.plan.Place = s.Place
		if seen++; seen == examined {
			return nil
		}
	}
	d.plan.finishSurvey(d.scope, time.Now())
	return nil
}

// waits reports whether the ingestors have enough to do: what a backfill adds would stand before fresh objects.
func (d *driver) waits(ctx context.Context) (bool, error) {
	if time.Since(d.backlogAt) < backlogAge && d.backlog <= d.options.Config.MaxBacklog {
		return false, nil
	}
	all, err := d.options.Index.Backlog(ctx)
	if err != nil {
		return false, err
	}
	d.backlog, d.backlogAt = 0, time.Now()
	for _, b := range all {
		if b.Kind == lake.TaskIngest {
			d.backlog += b.Tasks
		}
	}
	return d.backlog > d.options.Config.MaxBacklog, nil
}

// hand hands over the next objects of a slice, the newest of them first.
func (d *driver) hand(ctx context.Context, at slice) (index.BackfillState, error) {
	found, place, end, err := d.gather(ctx, at)
	if err != nil {
		return "", err
	}
	slices.SortStableFunc(found, func(a, b lake.Object) int { return b.LastModified.Compare(a.LastModified) })
	step := index.BackfillStep{Objects: int64(len(found))}
	notices := make([]intake.Notice, len(found))
	for i, o := range found {
		step.Bytes += o.Size
		notices[i] = intake.Notice{Object: o, Complete: true}
	}
	if err := d.limiter.WaitN(ctx, len(found)); err != nil {
		return "", fault.Wrap(fault.Canceled, err)
	}
	if _, err := d.options.Intake.Take(ctx, Name, notices); err != nil {
		return "", err
	}
	if d.backlog += step.Objects; end {
		d.plan.next(at)
	} else {
		d.plan.Place = place
	}
	return d.advance(ctx, step)
}

// errFull ends a gathering.
var errFull = errors.New("the step is full")

// gather reads a slice on from its place; end: to its end.
func (d *driver) gather(ctx context.Context, at slice) (found []lake.Object, place string, end bool, err error) {
	seen := 0
	take := func(a objects.Attributes, here string) error {
		if place = here; at.wants(d.scope, a) {
			found = append(found, objectOf(d.scope.Bucket, a))
		}
		if seen++; len(found) == d.chunk || seen == examined {
			return errFull
		}
		return nil
	}
	if at.family != nil {
		err = d.readDay(ctx, at, take)
	} else {
		err = d.readBand(ctx, take)
	}
	if errors.Is(err, errFull) {
		return found, place, false, nil
	}
	return found, place, err == nil, err
}

// wants reports whether an object belongs to the slice.
func (s slice) wants(scope Scope, a objects.Attributes) bool {
	if !scope.holds(a) {
		return false
	}
	day := dayOf(a.LastModified)
	return s.family != nil || day >= s.band.From && day < s.band.To
}

func (d *driver) readDay(ctx context.Context, at slice, take func(objects.Attributes, string) error) error {
	for a, err := range at.list(ctx, d.bucket, d.plan.Place) {
		if err != nil {
			return err
		}
		if err := take(a, a.Key); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) readBand(ctx context.Context, take func(objects.Attributes, string) error) error {
	for s, err := range d.plan.walk(ctx, d.bucket, d.scope.Prefix, d.plan.Place) {
		if err != nil {
			return err
		}
		if s.First != nil {
			continue
		}
		if err := take(s.Object, s.Place); err != nil {
			return err
		}
	}
	return nil
}

// pause waits, and returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
