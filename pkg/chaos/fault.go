// SPDX-License-Identifier: AGPL-3.0-only

package chaos

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Kind is a kind of fault.
type Kind string

// The kinds of fault.
const (
	Crash Kind = "crash" // the process ends by SIGKILL before the step
	Fail  Kind = "fail"  // the step fails
	Hang  Kind = "hang"  // the step and every later one hang, for longer than any lease of the test, and go on then as if nothing had been
	Lose  Kind = "lose"  // the step succeeds and its answer is lost
)

// Kinds are all of them.
func Kinds() []Kind { return []Kind{Crash, Fail, Hang, Lose} }

// One is an injector that has one fault happen, and tells of every point that is passed. Its zero value has none happen.
type One struct {
	Point string
	Kind  Kind
	// Nth is at which passage of the point it happens, from 1.
	Nth int
	// HangFor is how long Hang hangs.
	HangFor time.Duration
	// Passed, if not nil, is told of each point before its step. Struck is told that the fault happens, before it does.
	Passed func(point string)
	Struck func()
	// Die ends the process; nil: SIGKILL does.
	Die func()

	mu     sync.Mutex
	passed int
	armed  bool          // the answer of the step under way is to be lost
	frozen chan struct{} // closed when the hang is over; nil: there was none
}

// Before tells of the point, and fails, hangs or ends the process.
func (o *One) Before(ctx context.Context, point string) error {
	if o.Passed != nil {
		o.Passed(point)
	}
	if point != o.Point || !o.turn() {
		return o.thawed(ctx)
	}
	if o.Kind == Lose {
		o.arm()
		return nil
	}
	if o.Struck != nil {
		o.Struck()
	}
	switch o.Kind {
	case Crash:
		o.die()
	case Hang:
		o.freeze()
		return o.thawed(ctx)
	}
	return injected(point)
}

// After loses the answer. Of several steps under way at one point, one loses its answer.
func (o *One) After(_ context.Context, point string) error {
	if point != o.Point || !o.disarm() {
		return nil
	}
	if o.Struck != nil {
		o.Struck()
	}
	return fmt.Errorf("the answer is lost: %w", injected(point))
}

func (o *One) turn() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.passed++
	return o.passed == max(1, o.Nth)
}

func (o *One) disarm() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	armed := o.armed
	o.armed = false
	return armed
}

func (o *One) arm() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.armed = true
}

func (o *One) freeze() {
	o.mu.Lock()
	defer o.mu.Unlock()
	frozen := make(chan struct{})
	o.frozen = frozen
	time.AfterFunc(o.HangFor, func() { close(frozen) })
}

// thawed waits until the hang is over, or the caller has given up.
func (o *One) thawed(ctx context.Context) error {
	o.mu.Lock()
	frozen := o.frozen
	o.mu.Unlock()
	if frozen == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-frozen:
		return nil
	}
}

func (o *One) die() {
	if o.Die != nil {
		o.Die()
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// Switch is an injector whose fault can be changed while it is in use. Its zero value has none happen.
type Switch struct{ current atomic.Pointer[One] }

// Set has the faults of o happen from now on; nil: none.
func (s *Switch) Set(o *One) { s.current.Store(o) }

// Before asks the injector of the moment.
func (s *Switch) Before(ctx context.Context, point string) error {
	if o := s.current.Load(); o != nil {
		return o.Before(ctx, point)
	}
	return nil
}

// After asks the injector of the moment.
func (s *Switch) After(ctx context.Context, point string) error {
	if o := s.current.Load(); o != nil {
		return o.After(ctx, point)
	}
	return nil
}

func injected(point string) error {
	return fault.New(fault.Unavailable, "injected fault at %s", point)
}
