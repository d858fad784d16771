// SPDX-License-Identifier: AGPL-3.0-only

package intake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
)

const (
	// commitsAtOnce and commitNotices shape the transactions: while some are under way, what arrives is gathered for the next.
	commitsAtOnce  = 4
	commitNotices  = 1000
	commitPatience = 30 * time.Second
)

// committer writes the notices of many callers in few transactions, since a transaction costs the wait for a disk, however small
// it is. Whoever finds a turn free leads: he commits what waits, his own and others'.
type committer struct {
	index Index
	turns chan struct{}

	mu      sync.Mutex
	waiting []*call
}

// call is the part of one caller; notices has at most commitNotices.
type call struct {
	notices []index.Notice
	done    chan struct{} // closed when the two below are set
	noticed []index.Noticed
	err     error
}

func newCommitter(x Index) *committer {
	return &committer{index: x, turns: make(chan struct{}, commitsAtOnce)}
}

// receive is index.Receive for any number of notices. A transaction holds all or none of each commitNotices of them.
func (c *committer) receive(ctx context.Context, notices []index.Notice) ([]index.Noticed, error) {
	all := make([]index.Noticed, 0, len(notices))
	for len(notices) > 0 {
		n := min(len(notices), commitNotices)
		noticed, err := c.one(ctx, notices[:n])
		if err != nil {
			return nil, err
		}
		all = append(all, noticed...)
		notices = notices[n:]
	}
	return all, nil
}

func (c *committer) one(ctx context.Context, notices []index.Notice) ([]index.Noticed, error) {
	mine := &call{notices: notices, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, mine)
	c.mu.Unlock()
	turns := c.turns
	for {
		select {
		case <-mine.done:
			return mine.noticed, mine.err
		case turns <- struct{}{}:
			c.lead(ctx)
			<-c.turns
			if !c.waits(mine) {
				turns = nil // another leads for us: there is nothing to do but wait
			}
		case <-ctx.Done():
			// It may be committed all the same; then the next try finds a duplicate.
			return nil, ended(ctx)
		}
	}
}

func (c *committer) waits(mine *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.waiting, mine)
}

// lead commits what waits. The leader's own context must not end what others wait for.
func (c *committer) lead(ctx context.Context) {
	batch := c.next()
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitPatience)
	defer cancel()
	err := c.commit(ctx, batch)
	if err != nil && len(batch) > 1 && errors.Is(err, fault.Invalid) {
		// Somebody's fault is not everybody's.
		for _, w := range batch {
			w.err = c.commit(ctx, []*call{w})
			close(w.done)
		}
		return
	}
	for _, w := range batch {
		w.err = err
		close(w.done)
	}
}

func (c *committer) commit(ctx context.Context, batch []*call) error {
	var notices []index.Notice
	for _, w := range batch {
		notices = append(notices, w.notices...)
	}
	noticed, err := c.index.Receive(ctx, notices)
	if err != nil {
		return err
	}
	for _, w := range batch {
		w.noticed, noticed = noticed[:len(w.notices)], noticed[len(w.notices):]
	}
	return nil
}

// next takes as many waiting calls as fit in a transaction, and at least one.
func (c *committer) next() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for n < len(c.waiting) && (n == 0 || size+len(c.waiting[n].notices) <= commitNotices) {
		size += len(c.waiting[n].notices)
		n++
	}
	batch := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	return batch
}

func ended(ctx context.Context) error {
	if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // Err returns it bare
		return fault.Wrap(fault.Timeout, ctx.Err())
	}
	return fault.Wrap(fault.Canceled, ctx.Err())
}
