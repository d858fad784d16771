// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// waitAtMost is how long Wait waits when nothing is announced: announcements are hints, and may be lost.
	waitAtMost = 2 * time.Second
	// announceEvery bounds announcements: NOTIFY takes a lock of the whole server.
	announceEvery = 50 * time.Millisecond
)

// Wait returns when tasks of a kind were announced, or after a few seconds: a hint that a claim is worth trying. The only
// error is that of ctx.
func (x *Index) Wait(ctx context.Context, kind lake.TaskKind) error {
	x.bell.listen()
	rung := x.bell.rung(kind)
	timer := time.NewTimer(waitAtMost)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return failed("wait for tasks", ctx.Err())
	case <-rung:
	case <-timer.C:
	}
	return nil
}

// bell announces tasks to all processes, and hears of them on one connection.
type bell struct {
	pool *pgxpool.Pool

	mu        sync.Mutex
	rings     map[lake.TaskKind]chan struct{} // closed at the next announcement
	missed    map[lake.TaskKind]bool          // announced since the last Wait began
	announced map[lake.TaskKind]time.Time     // last, or when the next is due
	stop      context.CancelFunc              // nil: not listening
	stopped   chan struct{}
	closed    bool
}

func newBell(pool *pgxpool.Pool) *bell {
	return &bell{
		pool:      pool,
		rings:     make(map[lake.TaskKind]chan struct{}),
		missed:    make(map[lake.TaskKind]bool),
		announced: make(map[lake.TaskKind]time.Time),
	}
}

// announce tells all processes of new tasks, at once or, when it was done just now, a little later. It is done after their
// transaction, and its failure is no error: a claim finds the tasks anyway.
func (b *bell) announce(ctx context.Context, kinds ...lake.TaskKind) {
	now := time.Now()
	var due []string
	b.mu.Lock()
	for _, kind := range kinds {
		next := b.announced[kind].Add(announceEvery)
		switch {
		case b.announced[kind].After(now): // one is on its way
		case next.After(now):
			b.announced[kind] = next
			time.AfterFunc(next.Sub(now), func() { b.notify(context.Background(), string(kind)) })
		default:
			b.announced[kind] = now
			due = append(due, string(kind))
		}
	}
	b.mu.Unlock()
	if len(due) > 0 {
		b.notify(ctx, due...)
	}
}

func (b *bell) notify(ctx context.Context, kinds ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = db.New(b.pool).Notify(ctx, kinds)
}

// rung returns a channel that is closed at the next announcement, at once when one came since the last Wait began: the
// caller's claim may have been too early to see its tasks.
func (b *bell) rung(kind lake.TaskKind) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.missed[kind] {
		b.missed[kind] = false
		now := make(chan struct{})
		close(now)
		return now
	}
	if b.rings[kind] == nil {
		b.rings[kind] = make(chan struct{})
	}
	return b.rings[kind]
}

func (b *bell) ring(kind lake.TaskKind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.missed[kind] = true
	if b.rings[kind] != nil {
		close(b.rings[kind])
		delete(b.rings, kind)
	}
}

// ringAll wakes everybody, since announcements may have been missed.
func (b *bell) ringAll() {
	b.mu.Lock()
	kinds := make([]lake.TaskKind, 0, len(b.rings))
	for kind := range b.rings {
		kinds = append(kinds, kind)
	}
	b.mu.Unlock()
	for _, kind := range kinds {
		b.ring(kind)
	}
}

// listen begins to listen, once.
func (b *bell) listen() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil || b.closed {
		return
	}
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	b.stopped = make(chan struct{})
	go func() {
		defer close(b.stopped)
		b.keepListening(ctx)
	}()
}

func (b *bell) keepListening(ctx context.Context) {
	for ctx.Err() == nil {
		_ = b.listenOnce(ctx) // what went wrong shows elsewhere; Wait goes on without hints
		b.ringAll()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (b *bell) listenOnce(ctx context.Context) error {
	// A connection of its own: one of the pool's would be missing there.
	conn, err := pgx.ConnectConfig(ctx, b.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN lakerunner_tasks"); err != nil {
		return err
	}
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		b.ring(lake.TaskKind(n.Payload))
	}
}

func (b *bell) close() {
	b.mu.Lock()
	stop, stopped := b.stop, b.stopped
	b.closed = true
	b.mu.Unlock()
	if stop != nil {
		stop()
		<-stopped
	}
}
