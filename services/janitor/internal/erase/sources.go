// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// What was done with a source object, as the certificate says it.
const (
	actionLeft     = "left"
	actionErased   = "erased"
	actionRedacted = "redacted"
	actionGone     = "gone before"
)

const sourcePage = 500

// treatSources deals with the source objects of a delete's rows, and reports whether all are dealt with.
func (e *Eraser) treatSources(ctx context.Context, d lake.Delete, files *kept) (bool, error) {
	var waiting atomic.Int64
	for after := lake.ReceiptID(0); ; {
		sources, err := e.deps.Index.DeleteSources(ctx, d.ID, after, sourcePage)
		if err != nil {
			return false, err
		}
		group, working := errgroup.WithContext(ctx)
		group.SetLimit(parallel)
		for _, s := range sources {
			after = s.Receipt.ID
			if s.Action != "" {
				continue
			}
			group.Go(func() error {
				dealt, err := e.treatSource(working, d, s, files)
				if !dealt {
					waiting.Add(1)
				}
				if err != nil {
					return fmt.Errorf("source object %s of bucket %s: %w", s.Receipt.Object.Key, s.Receipt.Object.Bucket, err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return false, err
		}
		if len(sources) < sourcePage {
			return waiting.Load() == 0, nil
		}
	}
}

// verdict is what is to be said of one source object; no action: it has to wait.
type verdict struct {
	action string
	raw    lake.RawState
}

func (e *Eraser) treatSource(ctx context.Context, d lake.Delete, s index.DeletedSource, files *kept) (bool, error) {
	v, err := e.judge(ctx, d, s.Receipt, files)
	if err != nil || v.action == "" {
		return false, err
	}
	return true, e.deps.Index.MarkDeleteSource(ctx, d.ID, s.Receipt.ID, v.action, v.raw)
}

func (e *Eraser) judge(ctx context.Context, d lake.Delete, receipt lake.Receipt, files *kept) (verdict, error) {
	if d.Sources == lake.SourceLeave {
		return verdict{actionLeft, receipt.Raw}, nil
	}
	same, err := e.sameContent(ctx, receipt)
	if err != nil {
		return verdict{}, err
	}
	if slices.ContainsFunc(same, func(r lake.Receipt) bool { return r.State == lake.ReceiptPending }) {
		return verdict{}, nil
	}
	standing, stands := newest(same)
	switch {
	case !stands: // newer content has taken its place
		return e.overwritten(ctx, receipt)
	case standing.Raw == lake.RawMoving: // a copy under way could bring it back
		return verdict{}, nil
	case standing.State != lake.ReceiptDone:
		return verdict{actionLeft, receipt.Raw}, nil
	case d.Sources == lake.SourceErase:
		return e.eraseObject(ctx, receipt, standing, files)
	}
	return e.redactObject(ctx, d, receipt, standing, files)
}

// sameContent returns the receipts of the object that a receipt is of: the same bucket, key and content.
func (e *Eraser) sameContent(ctx context.Context, receipt lake.Receipt) ([]lake.Receipt, error) {
	revisions, err := e.deps.Index.Revisions(ctx, receipt.Object.Bucket, receipt.Object.Key)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(revisions, func(r lake.Receipt) bool { return r.Object.Tag != receipt.Object.Tag }), nil
}

// newest is the revision whose rows count: a later try that failed brought none, or else the older ones are superseded.
func newest(revisions []lake.Receipt) (lake.Receipt, bool) {
	var found lake.Receipt
	for _, r := range revisions {
		better := r.Revision > found.Revision
		if done := r.State == lake.ReceiptDone; done != (found.State == lake.ReceiptDone) {
			better = done
		}
		if r.State != lake.ReceiptSuperseded && better {
			found = r
		}
	}
	return found, found.Revision > 0
}

// overwritten deals with content that other content has replaced at its key: it is gone, unless it was put back and nobody was told.
func (e *Eraser) overwritten(ctx context.Context, receipt lake.Receipt) (verdict, error) {
	there, err := e.isThere(ctx, receipt.Object)
	if err != nil {
		return verdict{}, err
	}
	if there {
		return verdict{actionLeft, receipt.Raw}, nil
	}
	return verdict{actionGone, receipt.Raw}, nil
}

// isThere reports whether an object still has the content that was ingested.
func (e *Eraser) isThere(ctx context.Context, o lake.Object) (bool, error) {
	bucket, err := e.deps.Objects.Bucket(ctx, o.Bucket)
	if err != nil {
		return false, err
	}
	found, err := bucket.Head(ctx, o.Key)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil && found.Tag == o.Tag, err
}

// eraseObject deletes a source object, and what else was kept of its rows.
func (e *Eraser) eraseObject(ctx context.Context, receipt, standing lake.Receipt, files *kept) (verdict, error) {
	there, err := e.isThere(ctx, receipt.Object)
	if err != nil {
		return verdict{}, err
	}
	if there {
		if err := e.remove(ctx, standing, lake.RawErased); err != nil {
			return verdict{}, err
		}
	}
	copies, err := files.deleteOf(ctx, standing, "")
	if err != nil {
		return verdict{}, err
	}
	if !there && copies == 0 && standing.Raw != lake.RawErased {
		return verdict{actionGone, receipt.Raw}, nil
	}
	return verdict{actionErased, lake.RawErased}, nil
}

// remove deletes a source object. Its receipt says so first: so nobody begins a replay of it, and a run that comes after one that was cut
// off knows that it was us.
func (e *Eraser) remove(ctx context.Context, standing lake.Receipt, raw lake.RawState) error {
	if standing.Raw != raw {
		if err := e.deps.Index.SetRaw(ctx, standing.ID, standing.Raw, raw); err != nil {
			return err
		}
	}
	bucket, err := e.deps.Objects.Bucket(ctx, standing.Object.Bucket)
	if err != nil {
		return err
	}
	return bucket.Delete(ctx, standing.Object.Key)
}
