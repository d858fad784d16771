// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Partial is an object of which only those stretches are fetched that are read. It may be read by several goroutines.
type Partial struct {
	*Pinned
	ctx    context.Context //nolint:containedctx // it lives as long as one scan
	file   *os.File
	ensure func(ctx context.Context, s span) error
	close  func()
}

// stretch is what fetches begin and end at multiples of.
const stretch = 64 << 10

// Partial returns an object that is fetched as it is read, until the context ends; what was fetched is kept as the row groups of Rows are. Release it.
func (c *Cache[T]) Partial(ctx context.Context, o Object, u *Usage) (*Partial, error) {
	name := fileName(o) + ".sparse"
	s := c.sparseFile(name)
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	pinned, err := c.openPartial(s, name, o, u)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(c.options.Dir, s.file.name))
	if err != nil {
		pinned.Release()
		return nil, fmt.Errorf("open cached %s: %w", o.Key, err)
	}
	p := &Partial{Pinned: pinned, ctx: ctx, file: file}
	p.close = sync.OnceFunc(func() { _ = file.Close(); pinned.Release() })
	p.ensure = func(ctx context.Context, wanted span) error {
		if err := s.lock(ctx); err != nil {
			return err
		}
		defer s.unlock()
		return c.fill(ctx, s, o, []span{{wanted.begin / stretch * stretch, min(o.Bytes, (wanted.end+stretch-1)/stretch*stretch)}}, u)
	}
	return p, nil
}

// ReadAt implements io.ReaderAt.
func (p *Partial) ReadAt(b []byte, at int64) (int, error) {
	if err := p.ensure(p.ctx, span{at, at + int64(len(b))}); err != nil {
		return 0, err
	}
	return p.file.ReadAt(b, at)
}

// Release lets the file go; it may be called more than once.
func (p *Partial) Release() { p.close() }

// openPartial pins the file, and makes an empty one when it is not there.
func (c *Cache[T]) openPartial(s *sparse, name string, o Object, u *Usage) (*Pinned, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.file != nil {
		s.file.pins++
		c.files.recent.MoveToFront(s.file.place)
		u.hit()
		return c.pinnedSparse(s.file), nil
	}
	u.miss()
	if err := createSparse(c.sparsePath(name), o.Bytes); err != nil {
		return nil, err
	}
	s.groups, s.have = nil, nil
	s.file = c.files.add(temporary+name, 0)
	s.file.pins = 1
	s.file.gone = func() { s.file, s.groups, s.have = nil, nil, nil }
	return c.pinnedSparse(s.file), nil
}

// lock waits until nobody else fetches.
func (s *sparse) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Canceled, ctx.Err())
	}
}

func (s *sparse) unlock() { <-s.turn }
