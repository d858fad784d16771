// SPDX-License-Identifier: AGPL-3.0-only

// Package sweep deletes files that are nobody's any more: of segments that were removed from the index longer than the grace ago, and of
// leases that ended without a commit.
//
// Invariants:
//
//	S1. A removed segment's files stay for the whole grace, measured from its removal by the database's clock, and until the record of the
//	    removal has reached the bucket: a query that read the index before can finish.
//	S2. Only files below a folder that a lease declared for itself are taken for its leavings, and only after it ended without a commit.
//	S3. A segment is forgotten only after a listing of its folder shows that its files are gone; what could not be deleted is tried again.
//	S4. Done twice, or by two at once, it deletes the same files.
package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Index is what sweeping needs of the index.
type Index interface {
	Sweepable(ctx context.Context, org lake.Organization, grace time.Duration, limit int) ([]index.RemovedSegment, error)
	SweepWaiting(ctx context.Context, org lake.Organization, grace time.Duration) (index.Count, error)
	Swept(ctx context.Context, org lake.Organization, ids []lake.SegmentID) error
	AbandonedLeases(ctx context.Context, org lake.Organization, grace time.Duration, limit int) ([]index.AbandonedLease, error)
	ForgetLeases(ctx context.Context, ids []lake.LeaseID) error
}

// Deps are what sweeping works on.
type Deps struct {
	Index   Index
	Objects objects.Store
	Log     *slog.Logger
	// Grace is how long files are kept after they were removed from the index.
	Grace      time.Duration
	Checkpoint func(name string)
}

const (
	// batch is how many segments are deleted at a time: with their sidecars two requests.
	batch = 1000
	// leases is how many ended leases are looked after at a time.
	leases = 100
	// rounds bounds one run, so that its lease does not grow old.
	rounds = 100
	// counted bounds a dry run.
	counted = 10_000
)

// Sweeper sweeps.
type Sweeper struct{ deps Deps }

// New returns a sweeper.
func New(d Deps) *Sweeper {
	d.Grace = cmp.Or(d.Grace, 48*time.Hour)
	return &Sweeper{deps: d}
}

// Result counts.
type Result struct {
	Removed, RemovedBytes   int64 // files of removed segments
	Orphaned, OrphanedBytes int64 // files of leases that ended without a commit
	Waiting                 int64 // segments that wait for their grace
}

// Duty sweeps for an organization.
func (s *Sweeper) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	_, err := s.Run(ctx, lease.Organization, false)
	return lake.Edit{}, err
}

// Run sweeps. A dry run counts what would be deleted, up to 10,000 segments and 100 leases.
func (s *Sweeper) Run(ctx context.Context, org lake.Organization, dryRun bool) (Result, error) {
	var result Result
	waiting, err := s.deps.Index.SweepWaiting(ctx, org, s.deps.Grace)
	if err != nil {
		return result, err
	}
	result.Waiting = waiting.Segments
	if dryRun {
		return result, errors.Join(s.countSegments(ctx, org, &result), s.countLeases(ctx, org, &result))
	}
	// What hinders one of the two need not hinder the other.
	return result, errors.Join(s.segments(ctx, org, &result), s.leases(ctx, org, &result))
}

func (s *Sweeper) countSegments(ctx context.Context, org lake.Organization, result *Result) error {
	found, err := s.deps.Index.Sweepable(ctx, org, s.deps.Grace, counted)
	for _, r := range found {
		result.add(r)
	}
	return err
}

func (r *Result) add(s index.RemovedSegment) {
	r.Removed += int64(len(filesOf(s)))
	r.RemovedBytes += s.Bytes + s.SidecarBytes
}

func filesOf(s index.RemovedSegment) []string {
	if s.SidecarBytes == 0 {
		return []string{s.Key}
	}
	return []string{s.Key, lake.SidecarKey(s.Key)}
}

// segments deletes files of removed segments until none is left, or no more can be deleted.
func (s *Sweeper) segments(ctx context.Context, org lake.Organization, result *Result) error {
	for range rounds {
		found, err := s.deps.Index.Sweepable(ctx, org, s.deps.Grace, batch)
		if err != nil || len(found) == 0 {
			return err
		}
		gone, failed := s.deleteSegments(ctx, org, found)
		s.deps.Checkpoint("sweep-deleted")
		if err := s.deps.Index.Swept(ctx, org, idsOf(gone)); err != nil {
			return err
		}
		s.deps.Checkpoint("sweep-swept")
		for _, r := range gone {
			result.add(r)
		}
		if failed != nil || len(found) < batch {
			return failed
		}
	}
	return nil
}

func idsOf(segments []index.RemovedSegment) []lake.SegmentID {
	ids := make([]lake.SegmentID, len(segments))
	for i, s := range segments {
		ids[i] = s.ID
	}
	return ids
}

// deleteSegments deletes files and returns the segments that were seen to be gone.
func (s *Sweeper) deleteSegments(ctx context.Context, org lake.Organization, segments []index.RemovedSegment) (gone []index.RemovedSegment, err error) {
	byBucket := map[string][]index.RemovedSegment{}
	for _, segment := range segments {
		if !strings.HasPrefix(segment.Key, lake.Prefix+string(org)+"/") {
			err = errors.Join(err, fault.New(fault.Internal, "segment %d has the key %s, which is not of organization %s", segment.ID, segment.Key, org))
			continue
		}
		byBucket[segment.Bucket] = append(byBucket[segment.Bucket], segment)
	}
	for name, of := range byBucket {
		deleted, failed := s.deleteIn(ctx, name, of)
		gone, err = append(gone, deleted...), errors.Join(err, failed)
	}
	return gone, err
}

func (s *Sweeper) deleteIn(ctx context.Context, name string, segments []index.RemovedSegment) ([]index.RemovedSegment, error) {
	bucket, err := s.deps.Objects.Bucket(ctx, name)
	if err != nil {
		return nil, err
	}
	var keys []string
	folders := map[string]bool{}
	for _, segment := range segments {
		keys = append(keys, filesOf(segment)...)
		folders[path.Dir(segment.Key)+"/"] = true
	}
	failed := bucket.Delete(ctx, keys...)
	var partly *objects.DeleteError
	if failed != nil && !errors.As(failed, &partly) {
		return nil, failed
	}
	s.deps.Checkpoint("sweep-requested")
	left, err := listed(ctx, bucket, folders)
	if err != nil {
		return nil, errors.Join(failed, err)
	}
	var gone []index.RemovedSegment
	for _, segment := range segments {
		if !left[segment.Key] && !left[lake.SidecarKey(segment.Key)] {
			gone = append(gone, segment)
		}
	}
	if failed == nil && len(gone) < len(segments) {
		failed = fault.New(fault.Unavailable, "bucket %s still lists files of %d segments that were deleted", name, len(segments)-len(gone))
	}
	return gone, failed
}

// listed returns what is left in folders.
func listed(ctx context.Context, bucket objects.Bucket, folders map[string]bool) (map[string]bool, error) {
	left := map[string]bool{}
	for folder := range folders {
		for a, err := range bucket.List(ctx, folder, "") {
			if err != nil {
				return nil, err
			}
			left[a.Key] = true
		}
	}
	return left, nil
}

func (s *Sweeper) countLeases(ctx context.Context, org lake.Organization, result *Result) error {
	ended, err := s.deps.Index.AbandonedLeases(ctx, org, s.deps.Grace, leases)
	for _, lease := range ended {
		err = errors.Join(err, s.eachFolder(ctx, org, lease, func(_ objects.Bucket, files []objects.Attributes) error {
			result.orphaned(files)
			return nil
		}))
	}
	return err
}

func (r *Result) orphaned(files []objects.Attributes) {
	for _, f := range files {
		r.Orphaned++
		r.OrphanedBytes += f.Size
	}
}

func (s *Sweeper) leases(ctx context.Context, org lake.Organization, result *Result) error {
	for range rounds {
		ended, err := s.deps.Index.AbandonedLeases(ctx, org, s.deps.Grace, leases)
		if err != nil || len(ended) == 0 {
			return err
		}
		done, failed := s.clear(ctx, org, ended, result)
		s.deps.Checkpoint("sweep-orphans-deleted")
		if err := s.deps.Index.ForgetLeases(ctx, done); err != nil {
			return err
		}
		if failed != nil || len(ended) < leases {
			return failed
		}
	}
	return nil
}

// clear empties the folders of ended leases and returns those whose folders were seen to be empty.
func (s *Sweeper) clear(ctx context.Context, org lake.Organization, ended []index.AbandonedLease, result *Result) (done []lake.LeaseID, failed error) {
	for _, lease := range ended {
		err := s.eachFolder(ctx, org, lease, func(bucket objects.Bucket, files []objects.Attributes) error {
			if len(files) == 0 {
				return nil
			}
			if err := bucket.Delete(ctx, keysOf(files)...); err != nil {
				return err
			}
			result.orphaned(files)
			return nil
		})
		if err == nil {
			err = s.eachFolder(ctx, org, lease, func(bucket objects.Bucket, files []objects.Attributes) error {
				if len(files) > 0 {
					return fault.New(fault.Unavailable, "bucket %s still lists %s", bucket.Name(), files[0].Key)
				}
				return nil
			})
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("sweep after lease %s: %w", lease.ID, err))
			continue
		}
		done = append(done, lease.ID)
	}
	return done, failed
}

func keysOf(files []objects.Attributes) []string {
	keys := make([]string, len(files))
	for i, f := range files {
		keys[i] = f.Key
	}
	return keys
}

// eachFolder calls f with the files of each folder that a lease declared.
func (s *Sweeper) eachFolder(ctx context.Context, org lake.Organization, lease index.AbandonedLease, f func(objects.Bucket, []objects.Attributes) error) error {
	for _, folder := range lease.Folders {
		name, prefix, _ := strings.Cut(folder, "/")
		if !own(org, lease.ID, prefix) {
			s.deps.Log.WarnContext(ctx, "a lease declared a folder that is not its own; it is left alone", "lease", lease.ID, "folder", folder)
			continue
		}
		bucket, err := s.deps.Objects.Bucket(ctx, name)
		if err != nil {
			return err
		}
		var files []objects.Attributes
		for a, err := range bucket.List(ctx, prefix, "") {
			if err != nil {
				return err
			}
			files = append(files, a)
		}
		if err := f(bucket, files); err != nil {
			return err
		}
	}
	return nil
}

// own reports whether a folder is below the organization's part of our own files and bears the lease's name.
func own(org lake.Organization, lease lake.LeaseID, prefix string) bool {
	return lease != "" && strings.HasPrefix(prefix, lake.Prefix+string(org)+"/") && strings.HasSuffix(prefix, "/"+string(lease)+"/")
}
