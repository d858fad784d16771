// SPDX-License-Identifier: AGPL-3.0-only

// Package admission decides which scans run now, which wait, and which are sent elsewhere.
//
// Scans are let in first come, first served, while there is a free place and enough memory. Those that must wait stand in a queue of
// bounded length; when it is full the caller is refused at once with fault.Unavailable, so that the frontend goes to another worker.
// A waiter whose context ends leaves the queue. The package does not run or measure scans.
package admission

import (
	"container/list"
	"context"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Limits bound what runs and what waits.
type Limits struct {
	// Running is the most scans that run at once.
	Running int
	// Waiting is the most scans that wait.
	Waiting int
	// Memory is the most bytes that running scans may hold together.
	Memory int64
}

// Gate lets scans in.
type Gate struct {
	limits Limits

	mu      sync.Mutex
	running int
	memory  int64
	waiting list.List // of *waiter
}

type waiter struct {
	memory   int64
	admitted chan struct{}
}

// New returns a gate.
func New(limits Limits) *Gate { return &Gate{limits: limits} }

// Enter waits for a place and for memory, and returns what gives them back; it may be called more than once. A scan that wants more memory
// than there is gets all there is.
func (g *Gate) Enter(ctx context.Context, memory int64) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Canceled, err)
	}
	memory = min(memory, g.limits.Memory)
	g.mu.Lock()
	if g.waiting.Len() == 0 && g.fits(memory) {
		g.take(memory)
		g.mu.Unlock()
		return g.leave(memory), nil
	}
	if g.waiting.Len() >= g.limits.Waiting {
		g.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "worker is busy: %d scans run and %d wait", g.limits.Running, g.limits.Waiting)
	}
	w := &waiter{memory: memory, admitted: make(chan struct{})}
	place := g.waiting.PushBack(w)
	g.mu.Unlock()
	return g.wait(ctx, w, place)
}

func (g *Gate) wait(ctx context.Context, w *waiter, place *list.Element) (func(), error) {
	select {
	case <-w.admitted:
		return g.leave(w.memory), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.admitted: // it was let in while it gave up
		g.give(w.memory)
	default:
		g.waiting.Remove(place)
	}
	// The one that left may have stood in the way of smaller ones.
	g.admit()
	return nil, fault.Wrap(fault.Canceled, ctx.Err())
}

func (g *Gate) leave(memory int64) func() {
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.give(memory)
		g.admit()
	})
}

// admit lets waiters in, in their order. A large one is not overtaken: it would wait for ever.
func (g *Gate) admit() {
	for place := g.waiting.Front(); place != nil; place = g.waiting.Front() {
		w := place.Value.(*waiter)
		if !g.fits(w.memory) {
			return
		}
		g.waiting.Remove(place)
		g.take(w.memory)
		close(w.admitted)
	}
}

func (g *Gate) fits(memory int64) bool {
	return g.running < g.limits.Running && g.memory+memory <= g.limits.Memory
}

func (g *Gate) take(memory int64) { g.running++; g.memory += memory }

func (g *Gate) give(memory int64) { g.running--; g.memory -= memory }

// Load says how many scans run and wait.
func (g *Gate) Load() (running, waiting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, g.waiting.Len()
}
