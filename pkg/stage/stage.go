// SPDX-License-Identifier: AGPL-3.0-only

// Package stage is the one loop of every pipeline service: claim, work, commit.
//
// Work is func(ctx, *lake.Lease) (lake.Edit, error). Invariants:
//
//  1. Work may run twice; it commits once, by the index's fencing. A commit whose answer was lost is asked again.
//  2. While work runs its lease is renewed. When the lease is lost, work's context is cancelled and nothing is committed.
//  3. An error or a panic of work releases the lease with its cause; a panic never ends the process.
//  4. When Run's context ends nothing more is claimed, and work under way gets Options.Drain to finish; then it is cancelled and
//     its lease released. Run returns when all workers have.
//  5. While the database is away the loop backs off, with jitter, and goes on by itself.
//
// One wide log line and one set of metrics tell of each lease. It does not know what the work is.
package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Claims is what the loop needs of the index.
type Claims interface {
	Claim(ctx context.Context, batch index.Batch) (*lake.Lease, error)
	Renew(ctx context.Context, lease lake.LeaseID) error
	Commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) error
	Release(ctx context.Context, lease *lake.Lease, cause error) error
	Wait(ctx context.Context, kind lake.TaskKind) error
}

// Work does the tasks of a lease, and says how the lake is to change. Its context is cancelled when the lease is lost.
type Work func(ctx context.Context, lease *lake.Lease) (lake.Edit, error)

// Options say what is claimed, and by how many.
type Options struct {
	Batch index.Batch
	// Workers is how many leases are worked on at once. Zero: one.
	Workers int
	// Drain is how long work under way may take after Run's context has ended. Zero: 30 seconds.
	Drain time.Duration
	// Log gets one line a lease. Nil: nobody does.
	Log *slog.Logger
	// Meter gets the metrics. Nil: nobody does.
	Meter metric.Meter
}

const (
	// firstPause and longestPause bound the backing off while the database is away.
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	// callTimeout bounds one call of the index.
	callTimeout = 30 * time.Second
	// defaultDuration is that of a lease whose Batch names none; the index uses the same.
	defaultDuration = time.Minute
)

// Run works until ctx ends. The only errors are those of a wrong set-up.
func Run(ctx context.Context, claims Claims, options Options, work Work) error {
	s, err := newStage(claims, options, work)
	if err != nil {
		return err
	}
	var workers sync.WaitGroup
	for range s.options.Workers {
		workers.Go(func() { s.loop(ctx) })
	}
	workers.Wait()
	return nil
}

// One claims one lease at once, without waiting, and brings it to its end. It reports whether there was anything to do. The error
// is that of the work or the commit; the lease is released then. For calls that want their answer now: see index.Batch.Receipt.
func One(ctx context.Context, claims Claims, options Options, work Work) (bool, error) {
	s, err := newStage(claims, options, work)
	if err != nil {
		return false, err
	}
	lease, err := s.claim(ctx)
	if err != nil || lease == nil {
		return false, err
	}
	return true, s.do(ctx, lease)
}

type stage struct {
	claims  Claims
	options Options
	work    Work
	metrics *metrics
	// turn is held by the worker that claims or waits: idle workers ask the database no more often than one does.
	turn chan struct{}
}

func newStage(claims Claims, options Options, work Work) (*stage, error) {
	if options.Batch.Kind == "" {
		return nil, fault.New(fault.Invalid, "a stage wants a kind of task")
	}
	if options.Batch.Duration <= 0 {
		options.Batch.Duration = defaultDuration
	}
	if options.Workers <= 0 {
		options.Workers = 1
	}
	if options.Drain <= 0 {
		options.Drain = 30 * time.Second
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Meter == nil {
		options.Meter = noop.Meter{}
	}
	m, err := newMetrics(options.Meter, options.Batch.Kind)
	if err != nil {
		return nil, fmt.Errorf("make the metrics of stage %s: %w", options.Batch.Kind, err)
	}
	return &stage{claims: claims, options: options, work: work, metrics: m, turn: make(chan struct{}, 1)}, nil
}

func (s *stage) loop(ctx context.Context) {
	for {
		lease := s.next(ctx)
		if lease == nil {
			return
		}
		_ = s.do(ctx, lease) // its story was told
	}
}

// next claims a lease, however long that takes; nil: ctx has ended.
func (s *stage) next(ctx context.Context) *lake.Lease {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil
	}
	for pause := firstPause; ctx.Err() == nil; {
		lease, err := s.claim(ctx)
		switch {
		case err != nil:
			s.options.Log.WarnContext(ctx, "claim failed", "kind", s.options.Batch.Kind, "error", err, "pause", pause)
			sleep(ctx, pause)
			pause = longer(pause)
		case lease != nil:
			return lease
		default:
			pause = firstPause
			s.wait(ctx)
		}
	}
	return nil
}

// claim is not cut off by the end of ctx: the answer might be lost of a claim that was made, and its tasks would have to wait for
// the lease to expire.
func (s *stage) claim(ctx context.Context) (*lake.Lease, error) {
	calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	lease, err := s.claims.Claim(calling, s.options.Batch)
	if err != nil || lease == nil || ctx.Err() == nil {
		return lease, err
	}
	return nil, s.claims.Release(calling, lease, fault.Wrap(fault.Canceled, ctx.Err()))
}

// wait waits for a hint, but no longer than it may take a batch to become old enough.
func (s *stage) wait(ctx context.Context) {
	if s.options.Batch.MaxWait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(s.options.Batch.MaxWait/2, 10*time.Millisecond))
		defer cancel()
	}
	_ = s.claims.Wait(ctx, s.options.Batch.Kind) // its only error is that ctx ended
}

// errLost is the cause of the end of a work's context whose lease is another's now.
var errLost = errors.New("the lease was lost")

// do brings one lease to its end, and returns why it was not committed.
func (s *stage) do(ctx context.Context, lease *lake.Lease) error {
	story := s.metrics.begin(lease)
	after, stop := s.draining(ctx)
	defer stop()
	working, lose := context.WithCancelCause(after)
	var heart sync.WaitGroup
	beating, still := context.WithCancel(context.WithoutCancel(ctx))
	heart.Go(func() { s.renew(beating, lease.ID, lose) })

	edit, err := s.run(working, lease)
	story.worked(edit, err)
	switch {
	case errors.Is(context.Cause(working), errLost):
		story.end(lost, errors.Join(errLost, err))
	case err != nil:
		story.end(released, s.release(ctx, lease, causeOf(after, err)))
	default:
		story.end(s.commit(after, lease, edit))
	}
	still()
	heart.Wait()
	lose(nil)
	story.tell(ctx, s.options.Log)
	return story.err
}

// draining returns a context that ends Options.Drain after ctx has.
func (s *stage) draining(ctx context.Context) (context.Context, context.CancelFunc) {
	after, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		sleep(after, s.options.Drain)
		cancel()
	})
	return after, func() {
		unhook()
		cancel()
	}
}

// causeOf makes an error that came of the end of the drain a shutdown's: it is nobody's fault.
func causeOf(after context.Context, err error) error {
	if after.Err() == nil {
		return err
	}
	return fault.New(fault.Canceled, "shut down before it was done: %w", err)
}

// run is the work, with panics made into errors.
func (s *stage) run(ctx context.Context, lease *lake.Lease) (edit lake.Edit, err error) {
	defer func() {
		if r := recover(); r != nil {
			edit, err = lake.Edit{}, fault.New(fault.Internal, "panic: %v\n%s", r, debug.Stack())
		}
	}()
	return s.work(ctx, lease)
}

// renew is the heartbeat. The lease is lost when the index says so, or when nobody could be asked for as long as it lives.
func (s *stage) renew(ctx context.Context, lease lake.LeaseID, lose context.CancelCauseFunc) {
	renewed := time.Now()
	for sleep(ctx, s.options.Batch.Duration/3) {
		calling, cancel := context.WithTimeout(ctx, s.options.Batch.Duration/3)
		err := s.claims.Renew(calling, lease)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			renewed = time.Now()
		case errors.Is(err, fault.Conflict) || time.Since(renewed) >= s.options.Batch.Duration:
			lose(errLost)
			return
		}
	}
}

// commit asks until there is an answer; the index knows a commit that it has made already.
func (s *stage) commit(ctx context.Context, lease *lake.Lease, edit lake.Edit) (outcome, error) {
	for pause := firstPause; ; pause = longer(pause) {
		err := s.call(ctx, func(ctx context.Context) error { return s.claims.Commit(ctx, lease, edit) })
		switch {
		case err == nil:
			return committed, nil
		case worthAsking(err) && sleep(ctx, pause):
			continue
		case worthAsking(err):
			return lost, err // nobody knows whether it was made: the lease's end will show
		}
		return released, s.release(ctx, lease, err)
	}
}

func worthAsking(err error) bool {
	return errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout) || errors.Is(err, fault.Canceled)
}

// release gives the lease back and returns why. That it failed or had ended is no matter: its end is the same.
func (s *stage) release(ctx context.Context, lease *lake.Lease, cause error) error {
	err := s.call(ctx, func(ctx context.Context) error { return s.claims.Release(ctx, lease, cause) })
	if err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// call makes one bounded call that the end of ctx does not cut off.
func (s *stage) call(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	return f(ctx)
}

// sleep reports whether the time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// longer doubles a pause, and spreads it so that those who were cut off together come back apart.
func longer(pause time.Duration) time.Duration {
	doubled := min(2*pause, longestPause)
	return doubled - time.Duration(rand.Int64N(int64(doubled)/4))
}
