// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// input is a segment on disk.
type input struct {
	segment lake.Segment
	file    *spilled
	sidecar []byte // where the signal's merges read it; nil: it is missing
}

// fetch brings segments to disk. Those whose files are missing are reported, and not among the inputs.
func (r *run) fetch(ctx context.Context, segments []lake.Segment) ([]input, error) {
	all := make([]input, len(segments))
	var mu sync.Mutex
	var missing []lake.SegmentID
	group, fetching := errgroup.WithContext(ctx)
	group.SetLimit(r.config.Fetch)
	for i := range segments {
		group.Go(func() error {
			in, err := r.fetchOne(fetching, &segments[i])
			if fault.KindOf(err) == fault.NotFound {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, segments[i].ID)
				return nil
			}
			all[i] = in
			return err
		})
	}
	if err := group.Wait(); err != nil {
		r.scratch.clear()
		return nil, err
	}
	if err := r.reportMissing(ctx, missing); err != nil {
		return nil, err
	}
	there := all[:0]
	for _, in := range all {
		if in.file != nil {
			there = append(there, in)
			r.edit.Cost.BytesRead += in.file.size + int64(len(in.sidecar))
		}
	}
	return there, nil
}

func (r *run) reportMissing(ctx context.Context, missing []lake.SegmentID) error {
	if len(missing) == 0 {
		return nil
	}
	r.deps.Counters.miss(len(missing))
	return r.deps.Index.MarkMissing(ctx, missing, true)
}

// fetchOne brings a segment to disk, and its sidecar into memory where that is read; one that is missing can be made anew.
func (r *run) fetchOne(ctx context.Context, s *lake.Segment) (in input, err error) {
	if r.merger.readsSidecars() {
		in.sidecar, err = r.sidecar(ctx, s)
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return input{}, err
		}
	}
	in.segment = *s
	in.file, err = r.fetchFile(ctx, s)
	return in, err
}

func (r *run) fetchFile(ctx context.Context, s *lake.Segment) (*spilled, error) {
	bucket, err := r.bucket(ctx, s.Bucket)
	if err != nil {
		return nil, err
	}
	body, attributes, err := bucket.Get(ctx, s.Key, "")
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", s.Key, err)
	}
	defer body.Close()
	file, err := r.scratch.create()
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(file, body)
	switch {
	case err != nil && (isSpilling(err) || errors.Is(err, fault.Exhausted)):
		return nil, err
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, fmt.Errorf("read %s: %w", s.Key, err))
	case n < attributes.Size:
		return nil, fault.New(fault.Unavailable, "read %s: the connection ended %d bytes before the object", s.Key, attributes.Size-n)
	case n != s.Bytes:
		return nil, r.damaged(s, fault.New(fault.Internal, "the file has %d bytes, the index says %d", n, s.Bytes))
	}
	return file, nil
}

// bucket opens a bucket. One that no profile names is not a file that is gone: configuration comes back.
func (r *run) bucket(ctx context.Context, name string) (objects.Bucket, error) {
	bucket, err := r.deps.Objects.Bucket(ctx, name)
	if fault.KindOf(err) == fault.NotFound {
		return nil, fault.New(fault.Unavailable, "open bucket: %s", err)
	}
	return bucket, err
}

// sidecar reads a segment's sidecar, which is small and says what it holds.
func (r *run) sidecar(ctx context.Context, s *lake.Segment) ([]byte, error) {
	bucket, err := r.bucket(ctx, s.Bucket)
	if err != nil {
		return nil, err
	}
	body, _, err := bucket.Get(ctx, lake.SidecarKey(s.Key), "")
	if err != nil {
		return nil, fmt.Errorf("get the sidecar of %s: %w", s.Key, err)
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, r.config.ScratchBytes))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, fmt.Errorf("read the sidecar of %s: %w", s.Key, err))
	}
	return content, nil
}
