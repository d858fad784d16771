// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// local is a segment whose files come to disk when they are wanted.
type local struct {
	segment lake.Segment
	parquet *spilled // nil: not fetched
	sidecar []byte   // nil: not fetched
	// rows are those that were read of it so far.
	rows int64
	// of are the segments that it was made of, where it is none of the lake's.
	of []lake.Segment
}

// from are the lake's segments that it stands for.
func (l *local) from() []lake.Segment {
	if l.of != nil {
		return l.of
	}
	return []lake.Segment{l.segment}
}

// fetch brings the files of segments to disk, and their sidecars to memory.
func (r *run) fetch(ctx context.Context, all []*local, parquet bool) error {
	if err := r.fits(all); err != nil {
		return err
	}
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(r.config.Fetch)
	for _, l := range all {
		group.Go(func() (err error) {
			if l.sidecar == nil {
				if l.sidecar, err = r.fetchSidecar(fetching, &l.segment); err != nil {
					return err
				}
			}
			if l.parquet == nil && parquet {
				l.parquet, err = r.fetchParquet(fetching, &l.segment)
			}
			return err
		})
	}
	return group.Wait()
}

// errCrowded says that a window has more catalogues than memory has room for. Compaction makes fewer of them.
var errCrowded = errors.New("compaction is to make fewer segments first")

// fits refuses to hold more catalogues than memory has room for.
func (r *run) fits(all []*local) error {
	var bytes int64
	for _, l := range all {
		bytes += l.segment.SidecarBytes
	}
	// A catalogue in memory is about as large as its file, which is kept as well.
	if 3*bytes > r.config.Memory {
		return errCrowded
	}
	return nil
}

// release frees what was fetched.
func (r *run) release(l *local) {
	if l.parquet != nil {
		r.scratch.discard(l.parquet)
	}
	l.parquet, l.sidecar = nil, nil
}

func (r *run) fetchParquet(ctx context.Context, s *lake.Segment) (*spilled, error) {
	body, err := r.open(ctx, s, s.Key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	file, err := r.scratch.create()
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(file, body)
	switch {
	case err != nil && (isSpilling(err) || fault.KindOf(err) == fault.Exhausted):
		return nil, err
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, fmt.Errorf("read %s: %w", s.Key, err))
	case n != s.Bytes:
		return nil, r.damaged(s.Key, fmt.Errorf("the file has %d bytes, the index says %d", n, s.Bytes))
	}
	return file, nil
}

func (r *run) fetchSidecar(ctx context.Context, s *lake.Segment) ([]byte, error) {
	body, err := r.open(ctx, s, lake.SidecarKey(s.Key))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, s.SidecarBytes+1))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, fmt.Errorf("read the sidecar of %s: %w", s.Key, err))
	}
	if int64(len(content)) != s.SidecarBytes {
		return nil, r.damaged(s.Key, fmt.Errorf("the sidecar has other than the %d bytes that the index says", s.SidecarBytes))
	}
	return content, nil
}

// open begins to read a file. One that is missing is reported.
func (r *run) open(ctx context.Context, s *lake.Segment, key string) (io.ReadCloser, error) {
	bucket, err := r.bucket(ctx, s.Bucket)
	if err != nil {
		return nil, err
	}
	body, _, err := bucket.Get(ctx, key, "")
	if fault.KindOf(err) != fault.NotFound {
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", key, err)
		}
		return body, nil
	}
	r.deps.Counters.miss()
	if err := r.deps.Index.MarkMissing(ctx, []lake.SegmentID{s.ID}, true); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.MissingSegment, "the file %s is missing: there is no rollup without it", key)
}

// bucket opens a bucket. One that no profile names is not a file that is gone: configuration comes back.
func (r *run) bucket(ctx context.Context, name string) (objects.Bucket, error) {
	bucket, err := r.deps.Objects.Bucket(ctx, name)
	if fault.KindOf(err) == fault.NotFound {
		return nil, fault.New(fault.Unavailable, "open bucket: %s", err)
	}
	return bucket, err
}

// damaged counts, and makes a loud error of, a segment that does not hold what the index says, or a rollup that does not add up.
func (r *run) damaged(key string, err error) error {
	r.deps.Counters.conservationFailure()
	return fault.New(fault.Internal, "conservation: window %s of %s to %s, segment %s and those read with it: %s",
		r.task.Window.Start.Format("2006-01-02T15:04Z"), r.task.Signal, resolutionOf(r.task), key, err)
}
