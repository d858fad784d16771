// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// writer writes groups of rows as segments of one lease.
type writer struct {
	*Worker
	lease     *lake.Lease
	space     *workspace
	directory string
	// n numbers the lease's segments, uploaded ones of discarded objects included.
	n int
	// segments are the edit's.
	segments []lake.Segment
	// applied is the highest number of a delete that was applied to the rows.
	applied lake.DeleteID
	// bytes are those put into buckets.
	bytes atomic.Int64

	mu sync.Mutex
	// declared are the folders that the index knows of.
	declared map[string]bool
}

func newWriter(w *Worker, lease *lake.Lease, space *workspace, directory string) *writer {
	return &writer{Worker: w, lease: lease, space: space, directory: directory, declared: map[string]bool{}}
}

// declare tells the index of a key's folder before the first file is put there: what a lease that dies leaves behind is found by it.
func (w *writer) declare(ctx context.Context, bucket, key string) error {
	folder := bucket + "/" + path.Dir(key) + "/"
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.declared[folder] {
		return nil
	}
	if err := w.deps.Index.Declare(ctx, w.lease.ID, []string{folder}); err != nil {
		return err
	}
	w.declared[folder] = true
	w.deps.Checkpoint("declared")
	return nil
}

// add makes segments the edit's.
func (w *writer) add(segments []lake.Segment) { w.segments = append(w.segments, segments...) }

// uploads is how many segments are uploaded while the next is written.
const uploads = 2

// write writes each group as one segment and uploads it. It returns when all are in the bucket.
func (w *writer) write(ctx context.Context, g groups) ([]lake.Segment, error) {
	uploading, uploadCtx := errgroup.WithContext(ctx)
	uploading.SetLimit(uploads)
	var segments []lake.Segment
	for _, key := range g.keys() {
		if uploadCtx.Err() != nil {
			break
		}
		file, segment, err := w.segment(ctx, key, g[key])
		if err != nil {
			_ = uploading.Wait() // the first error is this one
			return nil, err
		}
		segments = append(segments, segment)
		n := w.n
		w.n++
		w.deps.Checkpoint(label("written", n))
		uploading.Go(func() error {
			if err := w.upload(uploadCtx, segment, file); err != nil {
				return err
			}
			w.deps.Checkpoint(label("uploaded", n))
			return nil
		})
	}
	if err := uploading.Wait(); err != nil {
		return nil, err
	}
	return segments, nil
}

// scratchPair is a segment's two files on disk.
type scratchPair struct{ parquet, sidecar *os.File }

func (w *writer) segment(ctx context.Context, key groupKey, g *group) (*scratchPair, lake.Segment, error) {
	slices.Sort(g.sources)
	sources := slices.Clone(slices.Compact(g.sources))
	pair, err := w.scratch()
	if err != nil {
		return nil, lake.Segment{}, err
	}
	m := meta{organization: w.lease.Organization, window: key.window(), lease: w.lease.ID, sources: sources, applied: w.applied}
	written, err := pair.write(ctx, w.space.plane(key.signal), g.rows, m)
	if err != nil {
		pair.close()
		return nil, lake.Segment{}, err
	}
	if written.rows != int64(len(g.rows)) {
		pair.close()
		return nil, lake.Segment{}, fault.New(fault.Internal, "a segment of %d rows was written with %d", len(g.rows), written.rows)
	}
	w.deps.Counters.segment(written)
	return pair, lake.Segment{
		Organization: w.lease.Organization, Signal: key.signal, Window: m.window, Bucket: key.bucket,
		Key:   lake.SegmentKey(w.lease.Organization, key.signal, m.window, w.lease.ID, w.n),
		Bytes: written.bytes, SidecarBytes: written.sidecarBytes, Rows: written.rows,
		FirstTime: written.first, LastTime: written.last, FormatVersion: written.formatVersion, RowHash: written.rowHash, Sources: sources,
		AppliedDelete: w.applied, Identified: written.identified,
	}, nil
}

func (w *writer) scratch() (*scratchPair, error) {
	parquet, err := os.Create(filepath.Join(w.directory, label("segment", w.n)+".parquet"))
	if err != nil {
		return nil, scratchError(err)
	}
	sidecar, err := os.Create(filepath.Join(w.directory, label("segment", w.n)+lake.SidecarSuffix))
	if err != nil {
		parquet.Close()
		return nil, scratchError(err)
	}
	return &scratchPair{parquet: parquet, sidecar: sidecar}, nil
}

func (p *scratchPair) write(ctx context.Context, from plane, rows []uint32, m meta) (written, error) {
	parquet, sidecar := bufio.NewWriterSize(p.parquet, 256<<10), bufio.NewWriterSize(p.sidecar, 64<<10)
	w, err := from.write(ctx, parquet, sidecar, rows, m)
	if err != nil {
		return w, fmt.Errorf("write segment: %w", err)
	}
	if err := parquet.Flush(); err != nil {
		return w, scratchError(err)
	}
	if err := sidecar.Flush(); err != nil {
		return w, scratchError(err)
	}
	return w, nil
}

func (p *scratchPair) close() {
	for _, f := range []*os.File{p.parquet, p.sidecar} {
		f.Close()
		os.Remove(f.Name())
	}
}

// upload puts the sidecar first: whoever finds the segment finds both.
func (w *writer) upload(ctx context.Context, s lake.Segment, files *scratchPair) error {
	defer files.close()
	if err := w.declare(ctx, s.Bucket, s.Key); err != nil {
		return err
	}
	bucket, err := w.deps.Objects.Bucket(ctx, s.Bucket)
	if err != nil {
		return bucketError(err)
	}
	if err := w.put(ctx, bucket, lake.SidecarKey(s.Key), files.sidecar); err != nil {
		return err
	}
	return w.put(ctx, bucket, s.Key, files.parquet)
}
