// SPDX-License-Identifier: AGPL-3.0-only

package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Retries say how often and how soon a request is tried again.
type Retries struct {
	// Tries counts the first one. Zero: 5.
	Tries int
	// First is the pause before the second try; each further one doubles, up to Longest, and a random part of it is waited.
	// Zero: 100 ms and 5 s.
	First   time.Duration
	Longest time.Duration
}

func (r Retries) withDefaults() Retries {
	if r.Tries <= 0 {
		r.Tries = 5
	}
	if r.First <= 0 {
		r.First = 100 * time.Millisecond
	}
	if r.Longest <= 0 {
		r.Longest = 5 * time.Second
	}
	return r
}

// WithRetry tries again what failed with fault.Unavailable and may be done twice: everything but PutIfAbsent, which could find its
// own first try. Bodies are resumed where they broke: of Get by reading that same version again, of GetRange by asking for the
// rest (so it is for objects that never change, as segments are); a range from the end is not resumed. Listings go on behind the
// last key.
func WithRetry(b Bucket, r Retries) Bucket {
	return &retryBucket{Bucket: b, retries: r.withDefaults()}
}

type retryBucket struct {
	Bucket
	retries Retries
}

func (b *retryBucket) prices() Prices { return PricesOf(b.Bucket) }

func (b *retryBucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, Attributes, error) {
	var body io.ReadCloser
	var a Attributes
	err := b.retries.do(ctx, func() (err error) {
		body, a, err = b.Bucket.Get(ctx, key, tag)
		return err
	})
	if err != nil {
		return nil, Attributes{}, err
	}
	again := func(read int64) (io.ReadCloser, error) {
		body, _, err := b.Bucket.Get(ctx, key, a.Tag)
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, body, read); err != nil {
			return nil, errors.Join(err, body.Close())
		}
		return body, nil
	}
	return &resumedBody{ctx: ctx, body: body, again: again, retries: b.retries, length: a.Size}, a, nil
}

func (b *retryBucket) GetRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := b.retries.do(ctx, func() (err error) {
		body, err = b.Bucket.GetRange(ctx, key, offset, length)
		return err
	})
	if err != nil || offset < 0 {
		return body, err
	}
	again := func(read int64) (io.ReadCloser, error) {
		rest := length
		if length >= 0 {
			rest = length - read
		}
		return b.Bucket.GetRange(ctx, key, offset+read, rest)
	}
	return &resumedBody{ctx: ctx, body: body, again: again, retries: b.retries, length: length}, nil
}

func (b *retryBucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (a Attributes, err error) {
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return Attributes{}, fault.Wrap(fault.Invalid, fmt.Errorf("put %s/%s: %w", b.Name(), key, err))
	}
	err = b.retries.do(ctx, func() error {
		if _, err := body.Seek(start, io.SeekStart); err != nil {
			return fault.Wrap(fault.Invalid, fmt.Errorf("put %s/%s: %w", b.Name(), key, err))
		}
		a, err = b.Bucket.Put(ctx, key, body, size)
		return err
	})
	return a, err
}

func (b *retryBucket) List(ctx context.Context, prefix, startAfter string) iter.Seq2[Attributes, error] {
	return func(yield func(Attributes, error) bool) {
		tries := 0
		for {
			last, done, err := b.listOn(ctx, prefix, startAfter, yield)
			if done {
				return
			}
			if last != startAfter {
				startAfter, tries = last, 0
			}
			tries++
			if err = b.retries.wait(ctx, tries, err); err != nil {
				yield(Attributes{}, err)
				return
			}
		}
	}
}

// listOn yields until the end or an error; last is the last key that was yielded.
func (b *retryBucket) listOn(ctx context.Context, prefix, startAfter string, yield func(Attributes, error) bool) (last string, done bool, err error) {
	last = startAfter
	for a, err := range b.Bucket.List(ctx, prefix, startAfter) {
		if err != nil {
			return last, false, err
		}
		last = a.Key
		if !yield(a, nil) {
			return last, true, nil
		}
	}
	return last, true, nil
}

// SetStorageClass is not tried again blindly: a first try that succeeded leaves another tag, or the one that was asked for with the mark
// of the move. Both are told by Head.
func (b *retryBucket) SetStorageClass(ctx context.Context, key, tag, class string) (a Attributes, err error) {
	tries := 0
	err = b.retries.do(ctx, func() error {
		if tries++; tries > 1 {
			if a, err = b.Bucket.Head(ctx, key); err == nil && a.MovedFrom == tag {
				return nil
			}
		}
		a, err = b.Bucket.SetStorageClass(ctx, key, tag, class)
		return err
	})
	return a, err
}

func (b *retryBucket) Versioned(ctx context.Context) (versioned bool, err error) {
	err = b.retries.do(ctx, func() error {
		versioned, err = b.Bucket.Versioned(ctx)
		return err
	})
	return versioned, err
}

func (b *retryBucket) Delete(ctx context.Context, keys ...string) error {
	return b.retries.do(ctx, func() error { return b.Bucket.Delete(ctx, keys...) })
}

func (b *retryBucket) Head(ctx context.Context, key string) (a Attributes, err error) {
	err = b.retries.do(ctx, func() error {
		a, err = b.Bucket.Head(ctx, key)
		return err
	})
	return a, err
}

// do tries until it succeeds, or fails for good.
func (r Retries) do(ctx context.Context, try func() error) error {
	for tries := 1; ; tries++ {
		err := try()
		if err == nil {
			return nil
		}
		if err = r.wait(ctx, tries, err); err != nil {
			return err
		}
	}
}

// wait pauses before the next try, or returns the error to give up with: err, where trying again is useless or was done enough.
func (r Retries) wait(ctx context.Context, tries int, err error) error {
	if !errors.Is(err, fault.Unavailable) || tries >= r.Tries {
		return err
	}
	pause := time.NewTimer(r.pause(tries))
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return err
	}
}

// pause is random between half and all of the doubled pause, so that many clients do not come back at once.
func (r Retries) pause(tries int) time.Duration {
	whole := r.Longest
	if shift := tries - 1; shift < 20 {
		whole = min(r.Longest, r.First<<shift)
	}
	return whole/2 + rand.N(whole/2+1) //nolint:gosec // no secret
}

// resumedBody goes on with a body that broke.
type resumedBody struct {
	ctx     context.Context //nolint:containedctx // it is the context of the request that this is the answer to
	body    io.ReadCloser
	again   func(read int64) (io.ReadCloser, error)
	retries Retries
	length  int64 // of the body, negative: not known
	read    int64
	tries   int
}

func (r *resumedBody) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.read += int64(n)
	if n > 0 {
		r.tries = 0
	}
	if err == nil || err == io.EOF || !errors.Is(err, fault.Unavailable) { //nolint:errorlint // readers return io.EOF bare
		return n, err
	}
	if r.read == r.length {
		return n, io.EOF
	}
	return n, r.resume(err)
}

// resume replaces the broken body; nil means that reading can go on.
func (r *resumedBody) resume(err error) error {
	for {
		r.tries++
		if err = r.retries.wait(r.ctx, r.tries, err); err != nil {
			return err
		}
		var body io.ReadCloser
		if body, err = r.again(r.read); err == nil {
			_ = r.body.Close()
			r.body = body
			return nil
		}
	}
}

func (r *resumedBody) Close() error { return r.body.Close() }
