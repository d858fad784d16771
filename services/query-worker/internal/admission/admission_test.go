// SPDX-License-Identifier: AGPL-3.0-only

package admission_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/admission"
)

func enter(t *testing.T, g *admission.Gate, memory int64) func() {
	t.Helper()
	leave, err := g.Enter(t.Context(), memory)
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never happened: %s", what)
		}
	}
}

func waiting(g *admission.Gate, n int) func() bool {
	return func() bool { _, w := g.Load(); return w == n }
}

func TestGate(t *testing.T) {
	t.Parallel()
	t.Run("refuses when the queue is full", func(t *testing.T) {
		t.Parallel()
		g := admission.New(admission.Limits{Running: 1, Waiting: 0, Memory: 10})
		leave := enter(t, g, 1)
		if _, err := g.Enter(t.Context(), 1); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("want unavailable, got %v", err)
		}
		leave()
		leave()
		enter(t, g, 1)()
		if running, _ := g.Load(); running != 0 {
			t.Fatalf("%d still run", running)
		}
	})
	t.Run("lets a waiter in when one leaves", func(t *testing.T) {
		t.Parallel()
		g := admission.New(admission.Limits{Running: 1, Waiting: 1, Memory: 10})
		leave := enter(t, g, 1)
		in := make(chan error, 1)
		go func() {
			_, err := g.Enter(t.Context(), 1)
			in <- err
		}()
		eventually(t, "one waits", waiting(g, 1))
		leave()
		if err := <-in; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("counts memory", func(t *testing.T) {
		t.Parallel()
		g := admission.New(admission.Limits{Running: 9, Waiting: 0, Memory: 10})
		leave := enter(t, g, 8)
		if _, err := g.Enter(t.Context(), 3); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("want unavailable, got %v", err)
		}
		leave()
		enter(t, g, 100)
	})
	t.Run("a cancelled waiter leaves and lets the next one in", func(t *testing.T) {
		t.Parallel()
		g := admission.New(admission.Limits{Running: 2, Waiting: 2, Memory: 10})
		enter(t, g, 5)
		ctx, cancel := context.WithCancel(t.Context())
		large, small := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := g.Enter(ctx, 9)
			large <- err
		}()
		eventually(t, "the large one waits", waiting(g, 1))
		go func() {
			_, err := g.Enter(t.Context(), 1)
			small <- err
		}()
		eventually(t, "the small one waits behind it", waiting(g, 2))
		cancel()
		if err := <-large; !errors.Is(err, fault.Canceled) {
			t.Fatalf("want canceled, got %v", err)
		}
		if err := <-small; err != nil {
			t.Fatal(err)
		}
	})
}
