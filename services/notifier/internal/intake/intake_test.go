// SPDX-License-Identifier: AGPL-3.0-only

package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// slowDisk receives like an index whose transactions take a while; notices of the key "bad" are invalid.
type slowDisk struct {
	mu           sync.Mutex
	transactions int
	largest      int
	err          error
}

func (d *slowDisk) Receive(_ context.Context, notices []index.Notice) ([]index.Noticed, error) {
	<-time.After(10 * time.Millisecond) // of the bubble, not of a clock
	d.mu.Lock()
	defer d.mu.Unlock()
	d.transactions++
	d.largest = max(d.largest, len(notices))
	var noticed []index.Noticed
	for _, n := range notices {
		if n.Object.Key == "bad" {
			return nil, fault.New(fault.Invalid, "bad")
		}
		noticed = append(noticed, index.Noticed{Receipt: lake.Receipt{Object: n.Object}})
	}
	return noticed, d.err
}

func TestCommitter(t *testing.T) {
	t.Parallel()
	t.Run("many callers share few transactions, and each gets his own answer", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			d := &slowDisk{}
			c := newCommitter(d)
			const callers = 200
			var group sync.WaitGroup
			for i := range callers {
				group.Go(func() {
					notices := make([]index.Notice, i%3+1)
					for j := range notices {
						notices[j].Object.Key = fmt.Sprint(i, "/", j)
					}
					noticed, err := c.receive(t.Context(), notices)
					if err != nil || len(noticed) != len(notices) {
						t.Errorf("got %v, %v", noticed, err)
						return
					}
					for j, n := range noticed {
						if n.Receipt.Object.Key != notices[j].Object.Key {
							t.Errorf("got the receipt of %s for %s", n.Receipt.Object.Key, notices[j].Object.Key)
						}
					}
				})
			}
			group.Wait()
			if d.transactions > callers/4 {
				t.Errorf("%d transactions", d.transactions)
			}
		})
	})
	t.Run("a caller's mistake is his own", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := newCommitter(&slowDisk{})
			var group sync.WaitGroup
			for i := range 50 {
				group.Go(func() {
					key, want := "good", fault.Kind("")
					if i%10 == 0 {
						key, want = "bad", fault.Invalid
					}
					_, err := c.receive(t.Context(), []index.Notice{{Object: lake.Object{Key: key}}})
					if want == "" && err != nil || want != "" && !errors.Is(err, want) {
						t.Errorf("%s: got %v", key, err)
					}
				})
			}
			group.Wait()
		})
	})
	t.Run("who goes away does not take the others along", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := newCommitter(&slowDisk{})
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			for i := range 20 {
				group.Go(func() {
					if i == 0 {
						_, _ = c.receive(ctx, []index.Notice{{Object: lake.Object{Key: "x"}}})
						return
					}
					if _, err := c.receive(t.Context(), []index.Notice{{Object: lake.Object{Key: "x"}}}); err != nil {
						t.Error(err)
					}
				})
			}
			cancel()
			group.Wait()
		})
	})
	t.Run("large calls are cut into transactions of a thousand", func(t *testing.T) {
		t.Parallel()
		d := &slowDisk{}
		noticed, err := newCommitter(d).receive(t.Context(), make([]index.Notice, 2500))
		if err != nil || len(noticed) != 2500 || d.transactions != 3 || d.largest != 1000 {
			t.Errorf("%d answers, %v, %d transactions of at most %d", len(noticed), err, d.transactions, d.largest)
		}
	})
	t.Run("an error is everybody's", func(t *testing.T) {
		t.Parallel()
		c := newCommitter(&slowDisk{err: fault.New(fault.Unavailable, "away")})
		if _, err := c.receive(t.Context(), make([]index.Notice, 1)); !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	})
}
