// SPDX-License-Identifier: AGPL-3.0-only

// Package cache keeps segments and their sidecars on local disk, within a budget of bytes.
//
// Invariants:
//
//   - A file has its final name only once it is whole and of the expected size; what is not is removed at the next start.
//   - An object is downloaded once however many ask for it at the same time. The download goes on while anyone still waits for it,
//     and stops when nobody does.
//   - A file is not removed while it is pinned. So the budget can be exceeded, by what is pinned alone.
//   - The files are the index: it is rebuilt from the directory, least recently used first.
//   - Objects are immutable (a segment's key is never written twice), so that nothing is ever revalidated.
//
// Parts of a segment are kept in a sparse file apart from whole ones (see Rows and Partial); these do not survive a restart. The package does not know
// what is in a file, but for the row groups of a Parquet footer and for sidecars, which it keeps parsed by the function it is given.
package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Object names what is cached, and its size in bytes.
type Object struct {
	Bucket string
	Key    string
	Bytes  int64
}

// Options bound a cache.
type Options[T any] struct {
	// Dir holds the files; nothing else may be kept in it.
	Dir string
	// Bytes is the budget on disk.
	Bytes int64
	// ParsedBytes is the budget of the sidecars that are kept parsed, counted by the size of their files.
	ParsedBytes int64
	// Parse makes of a sidecar's bytes what Sidecar returns; the bytes are its own.
	Parse func([]byte) (T, error)
}

// Cache is the segment cache of one worker. T is a parsed sidecar.
type Cache[T any] struct {
	options Options[T]
	store   objects.Store
	parsed  *recent[T]

	life  context.Context // ends with Close; downloads live in it
	close context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex
	files   files
	flights map[string]*flight
	sparse  map[string]*sparse
}

// Open returns a cache over the files that an earlier one left in the directory.
func Open[T any](options Options[T], store objects.Store) (*Cache[T], error) {
	if err := os.MkdirAll(options.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache directory: %w", err)
	}
	c := &Cache[T]{
		options: options,
		store:   store,
		parsed:  newRecent[T](options.ParsedBytes),
		files:   newFiles(options.Dir, options.Bytes),
		flights: map[string]*flight{},
		sparse:  map[string]*sparse{},
	}
	if err := c.files.load(); err != nil {
		return nil, fmt.Errorf("read cache directory: %w", err)
	}
	c.life, c.close = context.WithCancel(context.Background())
	c.tasks.Go(c.warm)
	return c, nil
}

// warm parses the sidecars that are there, the last used first, as far as they fit, so that the first scans after a start need not wait for them.
func (c *Cache[T]) warm() {
	left := c.options.ParsedBytes
	for _, name := range c.sidecars() {
		size, _ := sizeOf(name)
		if left -= size; left < 0 || c.life.Err() != nil {
			return
		}
		if _, known := c.parsed.get(name); known {
			continue
		}
		content, err := os.ReadFile(filepath.Join(c.options.Dir, name))
		if err != nil {
			continue // it was evicted meanwhile
		}
		if parsed, err := c.options.Parse(content); err == nil { // what cannot be parsed is fetched again when it is asked for
			c.parsed.put(name, parsed, size)
		}
	}
}

// sidecars are the names of the sidecars' files, the last used first.
func (c *Cache[T]) sidecars() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for place := c.files.recent.Front(); place != nil; place = place.Next() {
		if name := place.Value.(*file).name; strings.HasSuffix(name, lake.SidecarSuffix) {
			names = append(names, name)
		}
	}
	return names
}

// Close stops all downloads. Files stay.
func (c *Cache[T]) Close() {
	c.close()
	c.tasks.Wait()
}

// Pinned is a file that stays until Release.
type Pinned struct {
	// Path of the file.
	Path string
	// Sparse is whether only some of its row groups are there: see Rows.
	Sparse  bool
	release func()
}

// Release lets the file go; it may be called more than once.
func (p *Pinned) Release() { p.release() }

// File returns a whole object's file. An object that the store does not have is a fault.MissingSegment.
func (c *Cache[T]) File(ctx context.Context, o Object, u *Usage) (*Pinned, error) {
	name := fileName(o)
	c.mu.Lock()
	if f := c.files.pin(name); f != nil {
		c.mu.Unlock()
		u.hit()
		return c.pinned(f), nil
	}
	fl, joined := c.flights[name]
	if !joined {
		if err := u.reserve(o.Bytes); err != nil {
			c.mu.Unlock()
			return nil, err
		}
		fl = c.depart(name, o, u)
	}
	fl.waiters++
	c.mu.Unlock()
	u.miss()
	return c.await(ctx, fl)
}

// Has reports whether a whole object's file is there.
func (c *Cache[T]) Has(o Object) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files.byName[fileName(o)] != nil
}

// Sidecar returns an object parsed. A file that cannot be parsed is fetched again, once.
func (c *Cache[T]) Sidecar(ctx context.Context, o Object, u *Usage) (T, error) {
	name := fileName(o)
	if parsed, ok := c.parsed.get(name); ok {
		return parsed, nil
	}
	parsed, err := c.parse(ctx, o, u)
	if errors.Is(err, errUnparsed) {
		c.drop(name)
		parsed, err = c.parse(ctx, o, u)
	}
	if err != nil {
		var none T
		return none, err
	}
	c.parsed.put(name, parsed, o.Bytes)
	return parsed, nil
}

var errUnparsed = errors.New("cannot be parsed")

func (c *Cache[T]) parse(ctx context.Context, o Object, u *Usage) (T, error) {
	var none T
	file, err := c.File(ctx, o, u)
	if err != nil {
		return none, err
	}
	defer file.Release()
	content, err := os.ReadFile(file.Path)
	if err != nil {
		return none, fmt.Errorf("read cached %s: %w", o.Key, err)
	}
	parsed, err := c.options.Parse(content)
	if err != nil {
		return none, fault.New(fault.Internal, "sidecar %s %w: %w", o.Key, errUnparsed, err)
	}
	return parsed, nil
}

// drop removes a file that is not pinned.
func (c *Cache[T]) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files.byName[name]; f != nil && f.pins == 0 {
		c.files.remove(f)
	}
}

func (c *Cache[T]) pinned(f *file) *Pinned {
	return &Pinned{
		Path: filepath.Join(c.options.Dir, f.name),
		release: sync.OnceFunc(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			f.pins--
			c.files.evict()
		}),
	}
}

// State says what a cache holds.
type State struct {
	Files, Pinned int
	Bytes         int64
}

// State says what the cache holds now.
func (c *Cache[T]) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Files: len(c.files.byName), Bytes: c.files.used}
	for _, f := range c.files.byName {
		if f.pins > 0 {
			s.Pinned++
		}
	}
	return s
}

func missing(o Object, err error) error {
	if !errors.Is(err, fault.NotFound) {
		return fmt.Errorf("fetch %s/%s: %w", o.Bucket, o.Key, err)
	}
	what := "segment"
	if !strings.HasSuffix(o.Key, ".parquet") {
		what = "sidecar"
	}
	return fault.New(fault.MissingSegment, "%s %s/%s is not in the object store", what, o.Bucket, o.Key)
}

// Parsed returns a sidecar if it is in memory.
func (c *Cache[T]) Parsed(o Object) (T, bool) { return c.parsed.get(fileName(o)) }
