// SPDX-License-Identifier: AGPL-3.0-only

package listing

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

// book is index and intake: it knows what it took.
type book struct {
	mu    sync.Mutex
	known map[string]bool
}

func (b *book) Known(_ context.Context, _ string, all []lake.Object) ([]bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := make([]bool, len(all))
	for i, o := range all {
		known[i] = b.known[o.Key+o.Tag]
	}
	return known, nil
}

func (b *book) Take(_ context.Context, _ string, notices []intake.Notice) ([]intake.Taken, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range notices {
		b.known[n.Object.Key+n.Object.Tag] = true
	}
	return make([]intake.Taken, len(notices)), nil
}

// store is a directory as a bucket, whose LIST requests are counted.
type store struct{ bucket objects.Bucket }

func (s store) Bucket(context.Context, string) (objects.Bucket, error) { return s.bucket, nil }

type world struct {
	t      *testing.T
	door   *Door
	book   *book
	bucket objects.Bucket
	now    time.Time
}

func setup(t *testing.T, c Config) *world {
	t.Helper()
	source, err := config.Static("storage_profiles: [{name: a, bucket: b, organization: acme}]")
	if err != nil {
		t.Fatal(err)
	}
	b, err := objects.OpenDirectory("b", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c.Settle = -1
	w := &world{t: t, book: &book{known: map[string]bool{}}, bucket: b, now: time.Now()}
	w.door = New(Options{
		Config: c, Index: w.book, Intake: w.book, Source: source, Objects: store{b}, Log: slog.New(slog.DiscardHandler),
		Meter: noop.Meter{}, Now: func() time.Time { return w.now },
	})
	return w
}

func (w *world) put(keys ...string) {
	w.t.Helper()
	for _, key := range keys {
		if _, err := w.bucket.Put(w.t.Context(), key, strings.NewReader("x"), 1); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) round() {
	w.t.Helper()
	w.door.Round(w.t.Context())
}

func (w *world) key(ago time.Duration, name string) string {
	return w.now.UTC().Add(-ago).Format("base/year=2006/month=01/day=02/hour=15/") + name
}

func TestRound(t *testing.T) {
	t.Parallel()
	t.Run("looks back far at first, and then a little", func(t *testing.T) {
		t.Parallel()
		w := setup(t, Config{StartLookback: 48 * time.Hour, Lookback: time.Hour})
		w.put(w.key(0, "1"), w.key(40*time.Hour, "1"), w.key(200*time.Hour, "1"))
		w.round()
		if len(w.book.known) != 2 {
			t.Errorf("the first round took %v", w.book.known)
		}
		w.now = w.now.Add(time.Minute)
		w.put(w.key(0, "2"), w.key(30*time.Hour, "2"))
		w.round()
		if len(w.book.known) != 3 {
			t.Errorf("the second round: %v", w.book.known)
		}
		w.now = w.now.Add(2 * time.Hour)
		w.put(w.key(30*time.Hour, "3"))
		w.round()
		if len(w.book.known) != 5 {
			t.Errorf("the deep round: %v", w.book.known)
		}
	})
	t.Run("follows collectors in other zones", func(t *testing.T) {
		t.Parallel()
		for _, zone := range []time.Duration{-8 * time.Hour, 5*time.Hour + 30*time.Minute} {
			w := setup(t, Config{Lookback: time.Hour})
			for i := range 3 {
				name := fmt.Sprint("object", i)
				w.put(w.key(-zone, name))
				w.round()
				if len(w.book.known) != i+1 {
					t.Errorf("%s, round %d: %v", zone, i, w.book.known)
				}
			}
		}
	})
	t.Run("goes on where its requests were used up", func(t *testing.T) {
		t.Parallel()
		w := setup(t, Config{Requests: 2})
		var want []string
		for i := range 6 {
			// Each folder of dates costs a request to jump over.
			w.put(fmt.Sprintf("c%d/2020/01/01/old", i))
			key := fmt.Sprintf("c%d/plain", i)
			w.put(key)
			want = append(want, key)
		}
		for range 20 {
			w.round()
		}
		got := keysOf(w.book)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("leaves what is too young to the events", func(t *testing.T) {
		t.Parallel()
		w := setup(t, Config{})
		w.door.options.Config.Settle = time.Hour
		w.put("young", w.key(0, "young"))
		w.round()
		if len(w.book.known) != 0 {
			t.Errorf("took %v", w.book.known)
		}
		w.now = w.now.Add(2 * time.Hour)
		w.round()
		if len(w.book.known) != 2 {
			t.Errorf("then took %v", w.book.known)
		}
	})
}

func TestScopes(t *testing.T) {
	t.Parallel()
	source, err := config.Static(`storage_profiles:
  - {name: a, bucket: one, organization: acme, prefix: "x/{collector}/"}
  - {name: b, bucket: one, organization: acme, prefix: "x/y/"}
  - {name: c, bucket: one, organization: acme, prefix: "z/*/logs/"}
  - {name: d, bucket: two, organization: acme}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"one": {"x/", "z/"}, "two": {""}}
	if diff := cmp.Diff(want, scopesOf(source.Current())); diff != "" {
		t.Error(diff)
	}
}

func keysOf(b *book) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []string
	for k := range b.known {
		// The tag of a directory's object is two hexadecimal numbers.
		name := k[:strings.LastIndexByte(k, '-')]
		keys = append(keys, strings.TrimRight(name, "0123456789abcdef"))
	}
	slices.Sort(keys)
	return keys
}
