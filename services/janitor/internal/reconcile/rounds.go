// SPDX-License-Identifier: AGPL-3.0-only

package reconcile

import (
	"context"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// rounds are the places where the rounds over everything go on. They are this process's: another one, or the next, begins anew.
type rounds struct {
	mu sync.Mutex
	at map[round]*cursor
}

// round is one bucket's, for one organization.
type round struct {
	organization lake.Organization
	bucket       string
}

// cursor is a place in a bucket, with the figures of the folder that it stands in.
type cursor struct {
	after string
	batch *batch
}

func (r *rounds) take(at round) *cursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.at[at]
	delete(r.at, at)
	if c == nil {
		return &cursor{}
	}
	return c
}

func (r *rounds) put(at round, c *cursor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at[at] = c
}

// everything goes on with the rounds over the organization's buckets. An error begins a round anew: figures must not be counted twice.
func (c *comparison) everything(ctx context.Context) error {
	for _, bucket := range c.buckets() {
		at := round{c.request.Organization, bucket}
		cur := c.rounds.take(at)
		if cur.batch == nil {
			cur.batch = c.batch(bucket)
		}
		cur.batch.comparison = c
		more, err := cur.advance(ctx)
		if err != nil {
			return err
		}
		if more {
			c.rounds.put(at, cur)
		}
	}
	return nil
}

// advance compares the next objects and reports whether there are more.
func (cur *cursor) advance(ctx context.Context) (bool, error) {
	b := cur.batch
	opened, err := b.deps.Objects.Bucket(ctx, b.bucket)
	if err != nil {
		return false, err
	}
	n := 0
	after := cur.after
	for a, err := range opened.List(ctx, "", after) {
		if err != nil {
			return false, err
		}
		if lake.OwnKey(a.Key) {
			// Our own files are a stretch of their own; listing on behind it costs less than reading through it.
			return cur.skipOwn(ctx)
		}
		if n++; n > b.deps.Slow {
			return true, cur.told(ctx)
		}
		cur.after = a.Key
		if err := b.add(ctx, objectOf(b.bucket, a)); err != nil {
			return false, err
		}
	}
	return false, b.end(ctx)
}

// behindOwn follows every key of our own files: they go on with an organization's id.
const behindOwn = lake.Prefix + "~"

func (cur *cursor) skipOwn(ctx context.Context) (bool, error) {
	cur.after = behindOwn
	return true, cur.told(ctx)
}

// told keeps the figures of the folders that the cursor has left.
func (cur *cursor) told(ctx context.Context) error {
	if err := cur.batch.compare(ctx); err != nil {
		return err
	}
	here := Folder(cur.after)
	return cur.batch.keep(ctx, func(prefix string) bool { return prefix != here && !isBelow(here, prefix) })
}

// isBelow reports whether a folder is inside another: keys of the outer one may follow those of the inner one.
func isBelow(inner, outer string) bool {
	return len(inner) >= len(outer) && inner[:len(outer)] == outer
}
