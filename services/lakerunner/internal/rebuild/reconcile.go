// SPDX-License-Identifier: AGPL-3.0-only

package rebuild

import (
	"context"
	"fmt"
	"iter"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Reconciled says what a comparison of source objects with receipts found in one bucket.
type Reconciled struct {
	Bucket  string `json:"bucket"`
	Objects int64  `json:"objects"`
	Missed  int64  `json:"missed"` // without a receipt: they were handed to ingest
	Bytes   int64  `json:"missed_bytes"`
	// Retagged are objects of a moved bucket that have another content tag than before, and the same key and size: their receipts were
	// given the new tag, so that they are not taken for new ones.
	Retagged int64 `json:"retagged"`
}

const reconcilePage = 1000

// Reconcile compares the source objects of all buckets with the receipts, and hands those without one to ingest.
func Reconcile(ctx context.Context, o Options) ([]Reconciled, error) {
	r := &rebuild{Options: o}
	if r.Say == nil {
		r.Say = func(string, ...any) {}
	}
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	var all []Reconciled
	for _, b := range r.buckets {
		one, err := r.reconcile(ctx, b)
		all = append(all, one)
		if err != nil {
			return all, fmt.Errorf("bucket %s: %w", b.Name(), err)
		}
	}
	return all, nil
}

func (r *rebuild) reconcile(ctx context.Context, b objects.Bucket) (Reconciled, error) {
	result := Reconciled{Bucket: b.Name()}
	var page []lake.Object
	for a, err := range sources(ctx, b) {
		if err != nil {
			return result, err
		}
		page = append(page, lake.Object{Bucket: b.Name(), Key: a.Key, Tag: a.Tag, Size: a.Size, LastModified: a.LastModified})
		if len(page) < reconcilePage {
			continue
		}
		if err := r.compare(ctx, page, &result); err != nil {
			return result, err
		}
		page = page[:0]
		r.Say("bucket %s: %d objects compared, %d missed", b.Name(), result.Objects, result.Missed)
	}
	err := r.compare(ctx, page, &result)
	r.Say("bucket %s: %d objects compared, %d missed", b.Name(), result.Objects, result.Missed)
	return result, err
}

// sources lists a bucket without our own files.
func sources(ctx context.Context, b objects.Bucket) iter.Seq2[objects.Attributes, error] {
	return func(yield func(objects.Attributes, error) bool) {
		for a, err := range b.List(ctx, "", "") {
			if err == nil && lake.OwnKey(a.Key) {
				break
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
		for a, err := range b.List(ctx, "", behindOwn) {
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// behindOwn sorts behind every key of our own.
const behindOwn = "db/\xff"

func (r *rebuild) compare(ctx context.Context, page []lake.Object, result *Reconciled) error {
	if len(page) == 0 {
		return nil
	}
	known, err := r.Index.Known(ctx, page[0].Bucket, page)
	if err != nil {
		return err
	}
	var missed []index.Notice
	for i, o := range page {
		result.Objects++
		if known[i] {
			continue
		}
		notice, wanted := noticeOf(r.Config.Current(), o)
		if !wanted {
			continue
		}
		retagged, err := r.retag(ctx, o)
		if err != nil {
			return err
		}
		if retagged {
			result.Retagged++
			continue
		}
		result.Missed++
		result.Bytes += o.Size
		missed = append(missed, notice)
	}
	if r.DryRun || len(missed) == 0 {
		return nil
	}
	_, err = r.Index.Receive(ctx, missed)
	return err
}

// noticeOf tells of an object as the notifier does; wanted is false for one that is nobody's or empty.
func noticeOf(snapshot *config.Snapshot, o lake.Object) (index.Notice, bool) {
	resolved := snapshot.Resolve(o.Bucket, o.Key)
	return index.Notice{
		Object: o, Organization: resolved.Organization, Collector: resolved.Collector, Signal: resolved.Signal,
		Replace: resolved.Profile != nil && resolved.Profile.OnRewrite == config.Replace,
	}, resolved.SkipReason == "" && o.Size > 0 && o.Tag != ""
}

// retag recognises an object that was moved here and got another content tag on the way, as a copy in parts does: the newest revision
// of its key has its size.
func (r *rebuild) retag(ctx context.Context, o lake.Object) (bool, error) {
	if !r.movedTo(o.Bucket) {
		return false, nil
	}
	revisions, err := r.Index.Revisions(ctx, o.Bucket, o.Key)
	if err != nil || len(revisions) == 0 {
		return false, err
	}
	newest := revisions[0]
	for _, other := range revisions {
		if other.Revision > newest.Revision {
			newest = other
		}
	}
	if newest.Object.Size != o.Size {
		return false, nil
	}
	if r.DryRun {
		return true, nil
	}
	return true, r.Index.Retag(ctx, newest.ID, o.Tag)
}

func (r *rebuild) movedTo(bucket string) bool {
	for _, to := range r.Buckets {
		if to == bucket {
			return true
		}
	}
	return false
}
