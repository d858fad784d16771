// SPDX-License-Identifier: AGPL-3.0-only

// Package raw deals with source objects after they were ingested, as their storage profile says: it deletes them, or moves them to another
// storage class by copying them onto themselves.
//
// Invariants:
//
//	W1. An object is touched only when its receipt is done and no other receipt of its bucket and key waits or has failed.
//	W2. An object is touched only while it has the content that was ingested.
//	W3. A copy says what it is a copy of, and the receipt gets the copy's tag: neither its event nor a listing makes it a new object.
//	W4. Every step may be done twice: after a crash the next run finds what was done by looking at the object.
package raw

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what this package needs of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	RawDue(ctx context.Context, query index.RawQuery) (due []lake.Receipt, notDone int64, err error)
	Revisions(ctx context.Context, bucket, key string) ([]lake.Receipt, error)
	Retag(ctx context.Context, receipt lake.ReceiptID, tag string) error
	SetRaw(ctx context.Context, id lake.ReceiptID, from, to lake.RawState) error
}

// Deps are what this package works on.
type Deps struct {
	Index      Index
	Config     config.Source
	Objects    objects.Store
	Log        *slog.Logger
	Checkpoint func(name string)
}

const (
	page = 500
	// pages bounds one run for each profile, so that its lease does not grow old.
	pages = 40
)

// Keeper deals with source objects.
type Keeper struct{ deps Deps }

// New returns a keeper.
func New(d Deps) *Keeper { return &Keeper{deps: d} }

// Result counts.
type Result struct {
	Expired, ExpiredBytes int64
	Moved, MovedBytes     int64
	Kept                  int64 // due, and kept because the receipt is not done or the object cannot be touched
}

// Duty deals with an organization's objects.
func (k *Keeper) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	_, err := k.Run(ctx, lease.Organization, false)
	return lake.Edit{}, err
}

// Run deals with an organization's objects. A dry run counts only.
func (k *Keeper) Run(ctx context.Context, org lake.Organization, dryRun bool) (Result, error) {
	var result Result
	now, err := k.deps.Index.Now(ctx)
	if err != nil {
		return result, err
	}
	snapshot := k.deps.Config.Current()
	for _, profile := range snapshot.Profiles() {
		if profile.Raw.Action == config.RawKeep || profile.Raw.Action == "" {
			continue
		}
		p := &pass{Keeper: k, snapshot: snapshot, profile: profile, organization: org, dryRun: dryRun, result: &result}
		if err := p.run(ctx, now); err != nil {
			return result, err
		}
	}
	return result, nil
}

// pass is one profile's objects of one organization.
type pass struct {
	*Keeper
	snapshot     *config.Snapshot
	profile      *config.Profile
	organization lake.Organization
	dryRun       bool
	bucket       objects.Bucket
	result       *Result
}

func (p *pass) run(ctx context.Context, now time.Time) error {
	bucket, err := p.deps.Objects.Bucket(ctx, p.profile.Bucket())
	if err != nil {
		return err
	}
	p.bucket = bucket
	literal, _, _ := strings.Cut(p.profile.Prefix, "{")
	literal, _, _ = strings.Cut(literal, "*")
	query := index.RawQuery{
		Organization: p.organization, Bucket: p.profile.Bucket(), KeyPrefix: literal, WrittenBefore: now.Add(-p.profile.Raw.After), Limit: page,
	}
	for n := range pages {
		due, notDone, err := p.deps.Index.RawDue(ctx, query)
		if err != nil {
			return err
		}
		if n == 0 {
			p.result.Kept += notDone
		}
		if err := p.each(ctx, due); err != nil {
			return err
		}
		if len(due) < page {
			return nil
		}
		query.After = due[len(due)-1].ID
	}
	return nil
}

func (p *pass) each(ctx context.Context, due []lake.Receipt) error {
	for _, receipt := range due {
		if !p.mine(receipt) {
			continue
		}
		if err := p.one(ctx, receipt); err != nil {
			return err
		}
	}
	return nil
}

// mine reports whether this profile is the one that decides about an object.
func (p *pass) mine(r lake.Receipt) bool {
	resolution := p.snapshot.Resolve(r.Object.Bucket, r.Object.Key)
	return resolution.Profile == p.profile && resolution.Organization == p.organization && resolution.SkipReason == ""
}

func (p *pass) one(ctx context.Context, r lake.Receipt) error {
	wanted, err := p.wanted(ctx, r)
	if err != nil {
		return err
	}
	if wanted {
		p.result.Kept++
		return nil
	}
	if p.dryRun {
		p.count(r)
		return nil
	}
	if p.profile.Raw.Action == config.RawExpire {
		return p.expire(ctx, r)
	}
	return p.move(ctx, r)
}

// wanted reports whether somebody still needs the object: another receipt of it is not done.
func (p *pass) wanted(ctx context.Context, r lake.Receipt) (bool, error) {
	revisions, err := p.deps.Index.Revisions(ctx, r.Object.Bucket, r.Object.Key)
	if err != nil {
		return false, err
	}
	for _, other := range revisions {
		if other.State == lake.ReceiptPending || other.State == lake.ReceiptFailed {
			return true, nil
		}
	}
	return false, nil
}

func (p *pass) count(r lake.Receipt) {
	if p.profile.Raw.Action == config.RawExpire {
		p.result.Expired++
		p.result.ExpiredBytes += r.Object.Size
		return
	}
	p.result.Moved++
	p.result.MovedBytes += r.Object.Size
}

// expire deletes an object that still has the content that was ingested. Gone already, or written anew, it is as good as deleted.
func (p *pass) expire(ctx context.Context, r lake.Receipt) error {
	head, err := p.bucket.Head(ctx, r.Object.Key)
	switch {
	case errors.Is(err, fault.NotFound):
	case err != nil:
		return err
	case head.Tag == r.Object.Tag || head.MovedFrom == r.Object.Tag:
		if err := p.bucket.Delete(ctx, r.Object.Key); err != nil {
			return err
		}
		p.deps.Checkpoint("raw-deleted")
	}
	if err := p.deps.Index.SetRaw(ctx, r.ID, r.Raw, lake.RawExpired); err != nil {
		return unlessDone(err)
	}
	p.count(r)
	return nil
}

// move copies an object onto itself. Each copy bears the tag of what it is a copy of, so one that was made before a crash is recognised.
func (p *pass) move(ctx context.Context, r lake.Receipt) error {
	head, err := p.bucket.Head(ctx, r.Object.Key)
	switch {
	case errors.Is(err, fault.NotFound):
		return unlessDone(p.deps.Index.SetRaw(ctx, r.ID, r.Raw, lake.RawExpired))
	case err != nil:
		return err
	case head.MovedFrom == r.Object.Tag, head.MovedFrom != "" && head.Tag == r.Object.Tag:
		return p.moved(ctx, r, head.Tag)
	case head.Tag != r.Object.Tag: // a newer version, which has a receipt of its own
		return unlessDone(p.deps.Index.SetRaw(ctx, r.ID, r.Raw, lake.RawExpired))
	}
	copied, err := p.bucket.SetStorageClass(ctx, r.Object.Key, r.Object.Tag, p.profile.Raw.Class)
	if errors.Is(err, fault.Unsupported) || errors.Is(err, fault.Conflict) {
		p.deps.Log.WarnContext(ctx, "a source object cannot be moved", "bucket", r.Object.Bucket, "key", r.Object.Key, "error", err)
		p.result.Kept++
		return nil
	}
	if err != nil {
		return err
	}
	p.deps.Checkpoint("raw-copied")
	return p.moved(ctx, r, copied.Tag)
}

func (p *pass) moved(ctx context.Context, r lake.Receipt, tag string) error {
	if tag != r.Object.Tag && tag != "" {
		// The copy's own event may have been received first; then its receipt bears the tag, and ingest skips it.
		if err := p.deps.Index.Retag(ctx, r.ID, tag); err != nil && !errors.Is(err, fault.Conflict) {
			return err
		}
		p.deps.Checkpoint("raw-retagged")
	}
	if err := p.deps.Index.SetRaw(ctx, r.ID, r.Raw, lake.RawMoved); err != nil {
		return unlessDone(err)
	}
	p.count(r)
	return nil
}

// unlessDone forgives that another was faster.
func unlessDone(err error) error {
	if errors.Is(err, fault.Conflict) {
		return nil
	}
	return err
}
