// SPDX-License-Identifier: AGPL-3.0-only

package cache_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

func TestPartial(t *testing.T) {
	t.Parallel()
	content := make([]byte, 1<<20+777)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	object := cache.Object{Bucket: "lake", Key: "db/acme/a.parquet", Bytes: int64(len(content))}
	setup := func(t *testing.T) (*memory, *cache.Cache[string]) {
		m := &memory{content: map[string][]byte{object.Key: content}}
		return m, open(t, m, t.TempDir(), 1<<30)
	}
	partial := func(t *testing.T, ctx context.Context, c *cache.Cache[string], u *cache.Usage) *cache.Partial {
		t.Helper()
		p, err := c.Partial(ctx, object, u)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Release)
		return p
	}
	same := func(t *testing.T, p *cache.Partial, at, length int64) {
		t.Helper()
		got := make([]byte, length)
		if n, err := p.ReadAt(got, at); err != nil || n != int(length) || !bytes.Equal(got, content[at:at+length]) {
			t.Fatalf("%d bytes at %d: got %d, %v", length, at, n, err)
		}
	}
	t.Run("fetches what is read, once", func(t *testing.T) {
		t.Parallel()
		m, c := setup(t)
		var u cache.Usage
		p := partial(t, t.Context(), c, &u)
		same(t, p, 100, 1000)
		same(t, p, 5000, 1000)
		same(t, p, object.Bytes-10, 10)
		if m.gets.Load() != 2 || u.Bytes() > 140<<10 || c.Has(object) {
			t.Fatalf("%d requests, %d bytes", m.gets.Load(), u.Bytes())
		}
		p.Release()
		var again cache.Usage
		same(t, partial(t, t.Context(), c, &again), 100, 1000)
		if again.Bytes() != 0 {
			t.Fatalf("%d bytes were fetched again", again.Bytes())
		}
	})
	t.Run("is read by several at once", func(t *testing.T) {
		t.Parallel()
		_, c := setup(t)
		var u cache.Usage
		p := partial(t, t.Context(), c, &u)
		var group sync.WaitGroup
		for seed := range uint64(4) {
			group.Go(func() {
				r := rand.New(rand.NewPCG(seed, 2))
				for range 50 {
					at := r.Int64N(object.Bytes - 4096)
					same(t, p, at, 4096)
				}
			})
		}
		group.Wait()
		if u.Bytes() > object.Bytes {
			t.Fatalf("%d bytes were fetched of %d", u.Bytes(), object.Bytes)
		}
	})
	t.Run("keeps to its budget, and ends with its context", func(t *testing.T) {
		t.Parallel()
		_, c := setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		u := cache.Usage{Budget: 100 << 10}
		p := partial(t, ctx, c, &u)
		same(t, p, 0, 10)
		if _, err := p.ReadAt(make([]byte, 200<<10), 300<<10); !errors.Is(err, fault.Exhausted) {
			t.Fatalf("got %v", err)
		}
		cancel()
		if _, err := p.ReadAt(make([]byte, 10), 800<<10); err == nil {
			t.Fatal("a fetch after the end")
		}
	})
	t.Run("of an object that is gone says so", func(t *testing.T) {
		t.Parallel()
		m, c := setup(t)
		delete(m.content, object.Key)
		if _, err := partial(t, t.Context(), c, &cache.Usage{}).ReadAt(make([]byte, 10), 0); !errors.Is(err, fault.MissingSegment) {
			t.Fatalf("got %v", err)
		}
	})
}
