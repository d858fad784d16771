// SPDX-License-Identifier: AGPL-3.0-only

package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// memory is a store of one bucket whose reads can be held up and are counted.
type memory struct {
	objects.Bucket
	content map[string][]byte
	gate    chan struct{} // if not nil: Get waits for one receive
	started chan string   // if not nil: told of each Get
	gets    atomic.Int64
	stopped atomic.Int64
}

type store struct{ m *memory }

func (s store) Bucket(context.Context, string) (objects.Bucket, error) { return s.m, nil }

func (m *memory) Get(ctx context.Context, key, _ string) (io.ReadCloser, objects.Attributes, error) {
	m.gets.Add(1)
	if m.started != nil {
		m.started <- key
	}
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			m.stopped.Add(1)
			return nil, objects.Attributes{}, ctx.Err()
		}
	}
	b, ok := m.content[key]
	if !ok {
		return nil, objects.Attributes{}, fault.New(fault.NotFound, "no object %s", key)
	}
	return io.NopCloser(bytes.NewReader(b)), objects.Attributes{Size: int64(len(b))}, nil
}

func (m *memory) GetRange(_ context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	m.gets.Add(1)
	b, ok := m.content[key]
	if !ok {
		return nil, fault.New(fault.NotFound, "no object %s", key)
	}
	return io.NopCloser(bytes.NewReader(b[offset : offset+length])), nil
}

func (m *memory) List(context.Context, string, string) iter.Seq2[objects.Attributes, error] {
	return nil
}

func open(t *testing.T, m *memory, dir string, budget int64) *cache.Cache[string] {
	t.Helper()
	c, err := cache.Open(cache.Options[string]{
		Dir: dir, Bytes: budget, ParsedBytes: 1 << 10,
		Parse: func(b []byte) (string, error) { return string(b), nil },
	}, store{m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func object(key string, size int) cache.Object {
	return cache.Object{Bucket: "b", Key: key, Bytes: int64(size)}
}

func fetch(t *testing.T, c *cache.Cache[string], o cache.Object) *cache.Pinned {
	t.Helper()
	p, err := c.File(t.Context(), o, &cache.Usage{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

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

func TestFile(t *testing.T) {
	t.Parallel()
	t.Run("is downloaded once however many ask", func(t *testing.T) {
		t.Parallel()
		m := &memory{content: map[string][]byte{"k.parquet": []byte("hello")}, gate: make(chan struct{})}
		c := open(t, m, t.TempDir(), 100)
		var all sync.WaitGroup
		var usage cache.Usage
		for range 10 {
			all.Go(func() {
				p, err := c.File(t.Context(), object("k.parquet", 5), &usage)
				if err != nil {
					t.Error(err)
					return
				}
				defer p.Release()
				if b, err := os.ReadFile(p.Path); err != nil || string(b) != "hello" {
					t.Errorf("read %q, %v", b, err)
				}
			})
		}
		eventually(t, "ten wait", func() bool { return usage.Misses() == 10 })
		close(m.gate)
		all.Wait()
		if got := m.gets.Load(); got != 1 {
			t.Fatalf("%d downloads", got)
		}
		if usage.Requests() != 1 || usage.Bytes() != 5 {
			t.Fatalf("usage: %d requests, %d bytes", usage.Requests(), usage.Bytes())
		}
		if s := c.State(); s.Pinned != 0 || s.Bytes != 5 {
			t.Fatalf("state %+v", s)
		}
	})
	t.Run("goes on when one of the waiters leaves", func(t *testing.T) {
		t.Parallel()
		m := &memory{content: map[string][]byte{"k.parquet": []byte("hello")}, gate: make(chan struct{})}
		c := open(t, m, t.TempDir(), 100)
		ctx, cancel := context.WithCancel(t.Context())
		var usage cache.Usage
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { _, err := c.File(ctx, object("k.parquet", 5), &usage); first <- err }()
		eventually(t, "the first waits", func() bool { return usage.Misses() == 1 })
		go func() { _, err := c.File(t.Context(), object("k.parquet", 5), &usage); second <- err }()
		eventually(t, "the second waits", func() bool { return usage.Misses() == 2 })
		cancel()
		if err := <-first; !errors.Is(err, fault.Canceled) {
			t.Fatalf("first: %v", err)
		}
		close(m.gate)
		if err := <-second; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("stops when all waiters have left, and can be asked for again", func(t *testing.T) {
		t.Parallel()
		m := &memory{content: map[string][]byte{"k.parquet": []byte("hello")}, gate: make(chan struct{}, 1)}
		c := open(t, m, t.TempDir(), 100)
		ctx, cancel := context.WithCancel(t.Context())
		var usage cache.Usage
		left := make(chan error, 1)
		go func() { _, err := c.File(ctx, object("k.parquet", 5), &usage); left <- err }()
		eventually(t, "it downloads", func() bool { return m.gets.Load() == 1 })
		cancel()
		<-left
		eventually(t, "the download stops", func() bool { return m.stopped.Load() == 1 })
		m.gate <- struct{}{}
		fetch(t, c, object("k.parquet", 5)).Release()
	})
	t.Run("that the store does not have is a missing segment by name", func(t *testing.T) {
		t.Parallel()
		c := open(t, &memory{}, t.TempDir(), 100)
		_, err := c.File(t.Context(), object("db/o/gone.parquet", 5), &cache.Usage{})
		if !errors.Is(err, fault.MissingSegment) || !bytes.Contains([]byte(err.Error()), []byte("db/o/gone.parquet")) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("of another size than expected is refused and not kept", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		c := open(t, &memory{content: map[string][]byte{"k.parquet": []byte("hell")}}, dir, 100)
		if _, err := c.File(t.Context(), object("k.parquet", 5), &cache.Usage{}); !errors.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Fatalf("left behind: %v", left)
		}
	})
	t.Run("beyond the scan's budget is refused before it is fetched", func(t *testing.T) {
		t.Parallel()
		m := &memory{content: map[string][]byte{"k.parquet": []byte("hello")}}
		c := open(t, m, t.TempDir(), 100)
		if _, err := c.File(t.Context(), object("k.parquet", 5), &cache.Usage{Budget: 4}); !errors.Is(err, fault.Exhausted) {
			t.Fatalf("got %v", err)
		}
		if m.gets.Load() != 0 {
			t.Fatal("it was fetched")
		}
	})
}

func TestBudget(t *testing.T) {
	t.Parallel()
	content := map[string][]byte{}
	for i := range 10 {
		content[fmt.Sprintf("%d.parquet", i)] = bytes.Repeat([]byte{byte(i)}, 10)
	}
	t.Run("the least recently used files go first", func(t *testing.T) {
		t.Parallel()
		c := open(t, &memory{content: content}, t.TempDir(), 30)
		for _, key := range []string{"0.parquet", "1.parquet", "2.parquet", "0.parquet", "3.parquet"} {
			fetch(t, c, object(key, 10)).Release()
		}
		for key, want := range map[string]bool{"0.parquet": true, "1.parquet": false, "2.parquet": true, "3.parquet": true} {
			if got := c.Has(object(key, 10)); got != want {
				t.Errorf("%s: there %v, want %v", key, got, want)
			}
		}
		if s := c.State(); s.Bytes != 30 {
			t.Errorf("state %+v", s)
		}
	})
	t.Run("pinned files stay until they are released", func(t *testing.T) {
		t.Parallel()
		c := open(t, &memory{content: content}, t.TempDir(), 20)
		var pins []*cache.Pinned
		for i := range 4 {
			pins = append(pins, fetch(t, c, object(fmt.Sprintf("%d.parquet", i), 10)))
		}
		for _, p := range pins {
			if _, err := os.Stat(p.Path); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range pins {
			p.Release()
			p.Release()
		}
		if s := c.State(); s.Bytes != 20 || s.Pinned != 0 {
			t.Fatalf("state %+v", s)
		}
	})
	t.Run("a restart finds the files, and removes what is not whole", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		m := &memory{content: content}
		c := open(t, m, dir, 100)
		p := fetch(t, c, object("1.parquet", 10))
		p.Release()
		c.Close()
		for _, name := range []string{"tmp-123", filepath.Base(p.Path)[:32] + "-11.parquet"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		again := open(t, m, dir, 100)
		if s := again.State(); s.Files != 1 || s.Bytes != 10 {
			t.Fatalf("state %+v", s)
		}
		fetch(t, again, object("1.parquet", 10)).Release()
		if m.gets.Load() != 1 {
			t.Fatalf("%d downloads", m.gets.Load())
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Fatalf("left: %v", left)
		}
	})
}

func TestSidecar(t *testing.T) {
	t.Parallel()
	t.Run("is kept parsed", func(t *testing.T) {
		t.Parallel()
		m := &memory{content: map[string][]byte{"k.idx": []byte("hello")}}
		c := open(t, m, t.TempDir(), 100)
		for range 3 {
			got, err := c.Sidecar(t.Context(), object("k.idx", 5), &cache.Usage{})
			if err != nil || got != "hello" {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if m.gets.Load() != 1 {
			t.Fatalf("%d downloads", m.gets.Load())
		}
	})
	t.Run("that cannot be parsed is fetched again once", func(t *testing.T) {
		t.Parallel()
		m := &memory{content: map[string][]byte{"k.idx": []byte("hello")}}
		c, err := cache.Open(cache.Options[string]{
			Dir: t.TempDir(), Bytes: 100, ParsedBytes: 100,
			Parse: func([]byte) (string, error) { return "", errors.New("bad magic") },
		}, store{m})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Sidecar(t.Context(), object("k.idx", 5), &cache.Usage{}); err == nil {
			t.Fatal("no error")
		}
		if m.gets.Load() != 2 {
			t.Fatalf("%d downloads", m.gets.Load())
		}
	})
}

func TestSidecarsAreParsedAgainAtTheStart(t *testing.T) {
	t.Parallel()
	m := &memory{content: map[string][]byte{"k.idx": []byte("hello"), "k.parquet": []byte("rows")}}
	dir := t.TempDir()
	c := open(t, m, dir, 100)
	fetch(t, c, object("k.parquet", 4)).Release()
	if _, err := c.Sidecar(t.Context(), object("k.idx", 5), &cache.Usage{}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	c = open(t, m, dir, 100)
	eventually(t, "it is parsed", func() bool {
		parsed, ok := c.Parsed(object("k.idx", 5))
		return ok && parsed == "hello"
	})
}

type row struct {
	Row  int32  `parquet:"row"`
	Body string `parquet:"body"`
}

// segment is a Parquet file of ten row groups of a hundred rows.
func segment(t *testing.T) []byte {
	t.Helper()
	var file bytes.Buffer
	w := parquet.NewGenericWriter[row](&file)
	for g := range 10 {
		for i := range 100 {
			n := g*100 + i
			body := fmt.Sprintf("row %d %x", n, bytes.Repeat([]byte{byte(n), byte(n >> 3)}, 4000))
			if _, err := w.Write([]row{{int32(n), body}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func TestRows(t *testing.T) {
	t.Parallel()
	content := segment(t)
	m := &memory{content: map[string][]byte{"k.parquet": content}}
	c := open(t, m, t.TempDir(), 1<<30)
	o := object("k.parquet", len(content))
	read := func(rows ...cache.Rows) *cache.Usage {
		t.Helper()
		var u cache.Usage
		p, err := c.Rows(t.Context(), o, rows, &u)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Release()
		f, err := os.Open(p.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		file, err := parquet.OpenFile(f, o.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range rows {
			got := make([]row, 1)
			r := parquet.NewGenericRowGroupReader[row](file.RowGroups()[want.First/100])
			if err := r.SeekToRow(want.First % 100); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(got); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if int64(got[0].Row) != want.First {
				t.Fatalf("row %d reads as %d", want.First, got[0].Row)
			}
		}
		return &u
	}
	first := read(cache.Rows{First: 250, Last: 260})
	if first.Bytes() == 0 || first.Bytes() > int64(len(content))/2 {
		t.Fatalf("fetched %d of %d bytes", first.Bytes(), len(content))
	}
	if again := read(cache.Rows{First: 210, Last: 211}); again.Bytes() != 0 {
		t.Fatalf("fetched %d bytes again", again.Bytes())
	}
	if more := read(cache.Rows{First: 10, Last: 20}, cache.Rows{First: 910, Last: 950}); more.Bytes() == 0 {
		t.Fatal("fetched nothing")
	}
	if c.Has(o) {
		t.Fatal("a part passes for the whole")
	}
}
