// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// flight is one download that one or more callers wait for.
type flight struct {
	waiters int // guarded by the cache's lock
	cancel  context.CancelFunc
	done    chan struct{}
	// file and err are set before done is closed. file then has one pin for each waiter.
	file *file
	err  error
}

// depart begins a download. The cache's lock is held.
func (c *Cache[T]) depart(name string, o Object, u *Usage) *flight {
	ctx, cancel := context.WithCancel(c.life)
	fl := &flight{cancel: cancel, done: make(chan struct{})}
	c.flights[name] = fl
	c.files.makeRoom(o.Bytes)
	c.tasks.Go(func() {
		defer cancel()
		err := c.download(ctx, name, o, u)
		c.arrive(name, o, fl, err)
	})
	return fl
}

func (c *Cache[T]) arrive(name string, o Object, fl *flight, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A flight that everybody left is not in the map any more, and another one may be on its way.
	if c.flights[name] == fl {
		delete(c.flights, name)
	}
	fl.err = err
	if err == nil {
		fl.file = c.files.byName[name]
		if fl.file == nil {
			fl.file = c.files.add(name, o.Bytes)
		}
		fl.file.pins += fl.waiters
		c.files.evict()
	}
	close(fl.done)
}

func (c *Cache[T]) await(ctx context.Context, fl *flight) (*Pinned, error) {
	select {
	case <-fl.done:
	case <-ctx.Done():
		c.leave(fl)
		return nil, fault.Wrap(fault.Canceled, ctx.Err())
	}
	if fl.err != nil {
		return nil, fl.err
	}
	return c.pinned(fl.file), nil
}

// leave takes one waiter off a flight; the last one stops it.
func (c *Cache[T]) leave(fl *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-fl.done:
		if fl.file != nil {
			fl.file.pins--
		}
		return
	default:
	}
	fl.waiters--
	if fl.waiters > 0 {
		return
	}
	fl.cancel()
	for name, other := range c.flights {
		if other == fl {
			delete(c.flights, name)
		}
	}
}

// download brings an object's file to its final name.
func (c *Cache[T]) download(ctx context.Context, name string, o Object, u *Usage) error {
	bucket, err := c.store.Bucket(ctx, o.Bucket)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", o.Bucket, err)
	}
	u.request()
	body, _, err := bucket.Get(ctx, o.Key, "")
	if err != nil {
		return missing(o, err)
	}
	defer func() { _ = body.Close() }()
	part, err := os.CreateTemp(c.options.Dir, temporary+"*")
	if err != nil {
		return fmt.Errorf("make cache file: %w", err)
	}
	defer func() { _ = os.Remove(part.Name()) }()
	written, err := io.Copy(part, body)
	u.fetched(written)
	if closeErr := part.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil:
		return missing(o, err)
	case written != o.Bytes:
		return fault.New(fault.Unavailable, "fetch %s/%s: got %d of %d bytes", o.Bucket, o.Key, written, o.Bytes)
	}
	if err := os.Rename(part.Name(), filepath.Join(c.options.Dir, name)); err != nil {
		return fmt.Errorf("keep cache file: %w", err)
	}
	return nil
}
