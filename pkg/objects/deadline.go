// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Deadlines bound single requests.
type Deadlines struct {
	// Request bounds the wait for an answer. Zero: 30 s.
	Request time.Duration
	// Stall bounds each wait for the next bytes of a body. Zero: 30 s.
	Stall time.Duration
	// BytesPerSecond is the slowest rate at which a Put may send its body; Request is added to that. Zero: 1 MiB.
	BytesPerSecond int64
}

func (d Deadlines) withDefaults() Deadlines {
	if d.Request <= 0 {
		d.Request = 30 * time.Second
	}
	if d.Stall <= 0 {
		d.Stall = 30 * time.Second
	}
	if d.BytesPerSecond <= 0 {
		d.BytesPerSecond = 1 << 20
	}
	return d
}

// WithDeadline bounds every request to a bucket, and every wait for a body or for a page of a listing. A request that is too slow
// is fault.Unavailable: the store's fault, and worth another try, unlike the deadline of the caller's own context.
func WithDeadline(b Bucket, d Deadlines) Bucket {
	return &deadlineBucket{Bucket: b, deadlines: d.withDefaults()}
}

type deadlineBucket struct {
	Bucket
	deadlines Deadlines
}

func (b *deadlineBucket) prices() Prices { return PricesOf(b.Bucket) }

func (b *deadlineBucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error) {
	w := watch(ctx, b.deadlines.Request)
	body, a, err := b.Bucket.Get(w.ctx, key, tag)
	if err != nil {
		return nil, Attributes{}, w.end(err)
	}
	return b.body(w, body), a, nil
}

func (b *deadlineBucket) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	w := watch(ctx, b.deadlines.Request)
	body, err := b.Bucket.GetRange(w.ctx, key, offset, length)
	if err != nil {
		return nil, w.end(err)
	}
	return b.body(w, body), nil
}

func (b *deadlineBucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	w := watch(ctx, b.sending(size))
	a, err := b.Bucket.Put(w.ctx, key, body, size)
	return a, w.end(err)
}

func (b *deadlineBucket) PutIfAbsent(ctx context.Context, key string, body io.ReadSeeker, size int64) (Attributes, error) {
	w := watch(ctx, b.sending(size))
	a, err := b.Bucket.PutIfAbsent(w.ctx, key, body, size)
	return a, w.end(err)
}

func (b *deadlineBucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error] {
	return func(yield func(Attributes, error) bool) {
		w := watch(ctx, b.deadlines.Request)
		defer func() { _ = w.end(nil) }()
		for a, err := range b.Bucket.List(w.ctx, prefix, startAfter) {
			// What the reader does with an object is not the store's time.
			w.pause()
			if !yield(a, w.explain(err)) || err != nil {
				return
			}
			w.resume(b.deadlines.Request)
		}
	}
}

func (b *deadlineBucket) Delete(ctx context.Context, keys ...string) error {
	// Enough for stores that delete one by one.
	w := watch(ctx, b.deadlines.Request+time.Duration(len(keys))*b.deadlines.Request/100)
	return w.end(b.Bucket.Delete(w.ctx, keys...))
}

func (b *deadlineBucket) Head(ctx context.Context, key string) (Attributes, error) {
	w := watch(ctx, b.deadlines.Request)
	a, err := b.Bucket.Head(w.ctx, key)
	return a, w.end(err)
}

func (b *deadlineBucket) SetStorageClass(ctx context.Context, key, tag, class string) (Attributes, error) {
	// The store copies within itself, in the time that it takes.
	w := watch(ctx, 10*b.deadlines.Request)
	a, err := b.Bucket.SetStorageClass(w.ctx, key, tag, class)
	return a, w.end(err)
}

func (b *deadlineBucket) Versioned(ctx context.Context) (bool, error) {
	w := watch(ctx, b.deadlines.Request)
	versioned, err := b.Bucket.Versioned(w.ctx)
	return versioned, w.end(err)
}

func (b *deadlineBucket) sending(size int64) time.Duration {
	return b.deadlines.Request + time.Duration(size/b.deadlines.BytesPerSecond)*time.Second
}

func (b *deadlineBucket) body(w *watched, body io.ReadCloser) io.ReadCloser {
	w.pause()
	return &watchedBody{body: body, watched: w, stall: b.deadlines.Stall}
}

// errSlow is the cause of a context that a deadline ended.
var errSlow = errors.New("the object store was too slow")

// watched is a request's context with a deadline that can be moved.
type watched struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the request
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func watch(ctx context.Context, d time.Duration) *watched {
	ctx, cancel := context.WithCancelCause(ctx)
	return &watched{ctx: ctx, cancel: cancel, timer: time.AfterFunc(d, func() { cancel(errSlow) })}
}

func (w *watched) pause() { w.timer.Stop() }

func (w *watched) resume(d time.Duration) { w.timer.Reset(d) }

// end releases the watch and explains err.
func (w *watched) end(err error) error {
	err = w.explain(err)
	w.timer.Stop()
	w.cancel(nil)
	return err
}

// explain tells an error of our deadline from one of the caller's context.
func (w *watched) explain(err error) error {
	if err == nil || context.Cause(w.ctx) != errSlow { //nolint:errorlint // it is never wrapped
		return err
	}
	return fault.New(fault.Unavailable, "%w: %s", errSlow, err.Error())
}

// watchedBody bounds each read.
type watchedBody struct {
	body    io.ReadCloser
	watched *watched
	stall   time.Duration
}

func (r *watchedBody) Read(p []byte) (int, error) {
	r.watched.resume(r.stall)
	n, err := r.body.Read(p)
	r.watched.pause()
	if err == io.EOF { //nolint:errorlint // readers return it bare
		return n, err
	}
	return n, r.watched.explain(err)
}

func (r *watchedBody) Close() error {
	err := r.body.Close()
	_ = r.watched.end(nil)
	return err
}
