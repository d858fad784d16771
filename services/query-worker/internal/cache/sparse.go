// SPDX-License-Identifier: AGPL-3.0-only

package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/parquet-go/parquet-go"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Rows is a span of rows of a segment: First to Last, both inclusive.
type Rows struct{ First, Last int64 }

// span is a stretch of bytes of a file: from begin to before end.
type span struct{ begin, end int64 }

// sparse is a local file of a segment's full size in which only some stretches have been written. Everything but the column chunks of row
// groups is always there (header, bloom filters, indexes, footer), so that DuckDB can open it; it must be asked only for rows that were fetched.
type sparse struct {
	turn   chan struct{} // holds a token while nobody fetches
	file   *file         // nil until the file is there
	groups []rowGroup
	have   []span // sorted, apart
}

// rowGroup is where one row group of a Parquet file is.
type rowGroup struct {
	rows  Rows
	bytes []span
}

// Rows returns a file in which at least the row groups that hold the given rows can be read.
func (c *Cache[T]) Rows(ctx context.Context, o Object, rows []Rows, u *Usage) (*Pinned, error) {
	name := fileName(o) + ".sparse"
	s := c.sparseFile(name)
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Canceled, ctx.Err())
	}
	pinned, err := c.openSparse(ctx, s, name, o, u)
	if err != nil {
		return nil, err
	}
	if err := c.fill(ctx, s, o, s.wanted(rows), u); err != nil {
		pinned.Release()
		return nil, err
	}
	return pinned, nil
}

func (c *Cache[T]) sparseFile(name string) *sparse {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sparse[name]
	if s == nil {
		s = &sparse{turn: make(chan struct{}, 1)}
		c.sparse[name] = s
	}
	return s
}

// openSparse pins the file, and makes it with the stretches that are always needed when it is not there.
func (c *Cache[T]) openSparse(ctx context.Context, s *sparse, name string, o Object, u *Usage) (*Pinned, error) {
	c.mu.Lock()
	if s.file != nil {
		s.file.pins++
		c.files.recent.MoveToFront(s.file.place)
		c.mu.Unlock()
		u.hit()
		return c.pinnedSparse(s.file), nil
	}
	c.mu.Unlock()
	u.miss()
	groups, footer, err := c.footer(ctx, o, u)
	if err != nil {
		return nil, err
	}
	if err := createSparse(c.sparsePath(name), o.Bytes); err != nil {
		return nil, err
	}
	s.groups, s.have = groups, nil
	if err := writeAt(c.sparsePath(name), footer, o.Bytes-int64(len(footer))); err != nil {
		return nil, err
	}
	s.have = []span{{o.Bytes - int64(len(footer)), o.Bytes}}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.file = c.files.add(temporary+name, int64(len(footer)))
	s.file.pins = 1
	s.file.gone = func() { s.file, s.groups, s.have = nil, nil, nil }
	return c.pinnedSparse(s.file), nil
}

// sparsePath begins as temporary files do: holes cannot be told from zeros after a restart.
func (c *Cache[T]) sparsePath(name string) string {
	return filepath.Join(c.options.Dir, temporary+name)
}

func (c *Cache[T]) pinnedSparse(f *file) *Pinned {
	return &Pinned{
		Path:   filepath.Join(c.options.Dir, f.name),
		Sparse: true,
		release: sync.OnceFunc(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			f.pins--
			c.files.evict()
		}),
	}
}

// wanted is all but the column chunks of those row groups that hold none of the rows.
func (s *sparse) wanted(rows []Rows) []span {
	var skipped []span
	for _, g := range s.groups {
		needed := slices.ContainsFunc(rows, func(r Rows) bool { return r.First <= g.rows.Last && g.rows.First <= r.Last })
		if !needed {
			skipped = append(skipped, g.bytes...)
		}
	}
	end := s.have[len(s.have)-1].end
	return subtract([]span{{0, end}}, skipped)
}

// fill fetches what is wanted and not there.
func (c *Cache[T]) fill(ctx context.Context, s *sparse, o Object, wanted []span, u *Usage) error {
	for _, gap := range join(subtract(wanted, s.have)) {
		content, err := c.fetchSpan(ctx, o, gap, u)
		if err != nil {
			return err
		}
		c.mu.Lock()
		f := s.file
		c.mu.Unlock()
		if err := writeAt(filepath.Join(c.options.Dir, f.name), content, gap.begin); err != nil {
			return err
		}
		s.have = unite(append(s.have, gap))
		c.mu.Lock()
		c.files.grow(f, int64(len(content)))
		c.files.evict()
		c.mu.Unlock()
	}
	return nil
}

func (c *Cache[T]) fetchSpan(ctx context.Context, o Object, s span, u *Usage) ([]byte, error) {
	if err := u.reserve(s.end - s.begin); err != nil {
		return nil, err
	}
	bucket, err := c.store.Bucket(ctx, o.Bucket)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", o.Bucket, err)
	}
	u.request()
	body, err := bucket.GetRange(ctx, o.Key, s.begin, s.end-s.begin)
	if err != nil {
		return nil, missing(o, err)
	}
	defer func() { _ = body.Close() }()
	content, err := io.ReadAll(body)
	u.fetched(int64(len(content)))
	switch {
	case err != nil:
		return nil, missing(o, err)
	case int64(len(content)) != s.end-s.begin:
		return nil, fault.New(fault.Unavailable, "fetch %s/%s: got %d of %d bytes at %d", o.Bucket, o.Key, len(content), s.end-s.begin, s.begin)
	}
	return content, nil
}

// footerGuess is how much of a file's end is fetched at first; a footer is seldom larger.
const footerGuess = 128 << 10

// footer reads where the row groups are, and returns the end of the file that it had to fetch for that.
func (c *Cache[T]) footer(ctx context.Context, o Object, u *Usage) ([]rowGroup, []byte, error) {
	tail, err := c.fetchSpan(ctx, o, span{max(0, o.Bytes-footerGuess), o.Bytes}, u)
	if err != nil {
		return nil, nil, err
	}
	length, err := footerLength(tail)
	if err != nil {
		return nil, nil, fmt.Errorf("read footer of %s: %w", o.Key, err)
	}
	if length > o.Bytes {
		return nil, nil, fault.New(fault.Internal, "read footer of %s: it would have %d of %d bytes", o.Key, length, o.Bytes)
	}
	if missing := length - int64(len(tail)); missing > 0 {
		begin := o.Bytes - length
		rest, err := c.fetchSpan(ctx, o, span{begin, begin + missing}, u)
		if err != nil {
			return nil, nil, err
		}
		tail = append(rest, tail...)
	}
	groups, err := rowGroups(tail, o.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("read footer of %s: %w", o.Key, err)
	}
	return groups, tail, nil
}

// footerLength is how many bytes of a file's end its footer takes, trailer included.
func footerLength(tail []byte) (int64, error) {
	const trailer = 8 // four bytes of length, four of "PAR1"
	if len(tail) < trailer || !bytes.Equal(tail[len(tail)-4:], []byte("PAR1")) {
		return 0, errors.New("it is not a Parquet file")
	}
	return int64(binary.LittleEndian.Uint32(tail[len(tail)-trailer:])) + trailer, nil
}

func rowGroups(tail []byte, size int64) ([]rowGroup, error) {
	f, err := parquet.OpenFile(ending{tail, size}, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.SkipMagicBytes(true))
	if err != nil {
		return nil, err
	}
	var groups []rowGroup
	var row int64
	for _, g := range f.Metadata().RowGroups {
		group := rowGroup{rows: Rows{row, row + g.NumRows - 1}}
		for _, column := range g.Columns {
			begin := column.MetaData.DataPageOffset
			if d := column.MetaData.DictionaryPageOffset; d > 0 {
				begin = min(begin, d)
			}
			group.bytes = append(group.bytes, span{begin, begin + column.MetaData.TotalCompressedSize})
		}
		group.bytes = unite(group.bytes)
		groups = append(groups, group)
		row += g.NumRows
	}
	return groups, nil
}

// ending reads a file of which only the end is there.
type ending struct {
	tail []byte
	size int64
}

func (e ending) ReadAt(p []byte, at int64) (int, error) {
	begin := at - (e.size - int64(len(e.tail)))
	if begin < 0 || begin > int64(len(e.tail)) {
		return 0, fmt.Errorf("byte %d of %d was not fetched", at, e.size)
	}
	n := copy(p, e.tail[begin:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func createSparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make cache file: %w", err)
	}
	err = f.Truncate(size)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func writeAt(path string, content []byte, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open cache file: %w", err)
	}
	_, err = f.WriteAt(content, at)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write cache file: %w", err)
	}
	return nil
}

// unite sorts spans and merges those that touch.
func unite(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return int(a.begin - b.begin) })
	var united []span
	for _, s := range spans {
		if last := len(united) - 1; last >= 0 && s.begin <= united[last].end {
			united[last].end = max(united[last].end, s.end)
			continue
		}
		united = append(united, s)
	}
	return united
}

// subtract returns what of the united spans from is not in minus.
func subtract(from, minus []span) []span {
	minus = unite(slices.Clone(minus))
	var rest []span
	for _, f := range from {
		for _, m := range minus {
			if m.end <= f.begin || m.begin >= f.end {
				continue
			}
			if m.begin > f.begin {
				rest = append(rest, span{f.begin, m.begin})
			}
			f.begin = m.end
		}
		if f.begin < f.end {
			rest = append(rest, f)
		}
	}
	return rest
}

// joinable is how many bytes are rather read than spent a request on.
const joinable = 256 << 10

// join merges gaps that lie so near that one request is cheaper than two. What lies between is then there too.
func join(gaps []span) []span {
	var joined []span
	for _, g := range gaps {
		if last := len(joined) - 1; last >= 0 && g.begin-joined[last].end <= joinable {
			joined[last].end = g.end
			continue
		}
		joined = append(joined, g)
	}
	return joined
}
