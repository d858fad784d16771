// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
)

// movedStore says of objects what a store says of copies that SetStorageClass made.
type movedStore struct {
	objects.Store
	from map[string]string // tag of before, by key
}

func (s *movedStore) Bucket(ctx context.Context, name string) (objects.Bucket, error) {
	b, err := s.Store.Bucket(ctx, name)
	return &movedBucket{Bucket: b, from: s.from}, err
}

type movedBucket struct {
	objects.Bucket
	from map[string]string
}

func (b *movedBucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, objects.Attributes, error) {
	body, a, err := b.Bucket.Get(ctx, key, tag)
	a.MovedFrom = b.from[key]
	return body, a, err
}

func (b *movedBucket) Head(ctx context.Context, key string) (objects.Attributes, error) {
	a, err := b.Bucket.Head(ctx, key)
	a.MovedFrom = b.from[key]
	return a, err
}

func TestMovedObjects(t *testing.T) {
	t.Parallel()
	const key, line = "logs-raw/acme/a.log", "2026-11-22T10:00:00Z hello\n"
	store := &movedStore{from: map[string]string{}}
	f := newFixture(t, func(_ *pipeline.Config, d *pipeline.Deps) {
		store.Store = d.Objects
		d.Objects = store
	})
	original := f.put(key, []byte(line))
	original.Revision = 1
	copied := f.put(key, []byte(line))
	copied.Revision = 2
	store.from[key] = original.Object.Tag

	t.Run("a copy beside the receipt of its original is skipped", func(t *testing.T) {
		edit := f.work(copied)
		if o := edit.Outcomes[0]; o.State != lake.ReceiptSkipped || !strings.Contains(o.Reason, "another storage class") || len(edit.Add) != 0 {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("the original can be replayed from its copy", func(t *testing.T) {
		if o := f.work(original).Outcomes[0]; o.State != lake.ReceiptDone || o.RowsOut != 1 {
			t.Errorf("got %+v", o)
		}
	})
	t.Run("a copy that another installation made is a new object", func(t *testing.T) {
		foreign := copied
		foreign.Revision = 1
		if o := f.work(foreign).Outcomes[0]; o.State != lake.ReceiptDone || o.RowsOut != 1 {
			t.Errorf("got %+v", o)
		}
	})
}
