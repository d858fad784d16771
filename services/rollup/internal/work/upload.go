// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// level of the segments of rollups: none of them waits for compaction.
const level = 1

// output is one shard of a rollup that is being written to disk.
type output struct {
	shard              lake.Shard
	bucket             string
	inputs             []string
	parquet, sidecar   *spilled
	parquetTo, indexTo *bufio.Writer
	writer             *metricfile.Writer
}

// create begins a shard of which segments are read.
func (r *run) create(shard lake.Shard, from []*local) (*output, error) {
	parquet, err := r.scratch.create()
	if err != nil {
		return nil, err
	}
	sidecar, err := r.scratch.create()
	if err != nil {
		return nil, err
	}
	o := &output{
		shard: shard, bucket: from[0].from()[0].Bucket, parquet: parquet, sidecar: sidecar,
		parquetTo: bufio.NewWriterSize(parquet, 256<<10), indexTo: bufio.NewWriterSize(sidecar, 64<<10),
	}
	for _, l := range from {
		for _, s := range l.from() {
			o.inputs = append(o.inputs, s.Key)
		}
	}
	slices.Sort(o.inputs)
	o.inputs = slices.Compact(o.inputs)
	o.writer, err = metricfile.NewWriter(o.parquetTo, o.indexTo, metricfile.Meta{
		Organization: r.lease.Organization, Signal: r.task.Signal, Window: r.task.Window, Level: level, Lease: r.lease.ID, Inputs: o.inputs,
		AppliedDelete: r.state.Latest, Resolution: resolutionOf(r.task), Shard: shard,
	})
	return o, err
}

// append adds a row.
func (r *run) append(o *output, s *metricfile.Series, rollup *metricfile.Rollup) error {
	if rollup.Len() == 0 {
		return nil
	}
	if err := o.writer.AppendRollup(s, rollup); err != nil {
		return err
	}
	r.account.Series++
	r.account.Buckets += int64(rollup.Len())
	for _, n := range rollup.Counts {
		r.account.Written += n
	}
	return nil
}

// finish uploads a shard, unless it is empty.
func (r *run) finish(ctx context.Context, o *output) error {
	defer func() {
		r.scratch.discard(o.parquet)
		r.scratch.discard(o.sidecar)
	}()
	written, err := o.writer.Close()
	if err := errors.Join(err, o.parquetTo.Flush(), o.indexTo.Flush()); err != nil {
		return err
	}
	r.deps.Checkpoint("rollup-written")
	if written.Rows == 0 {
		return nil
	}
	s := lake.Segment{
		Organization: r.lease.Organization, Signal: r.task.Signal, Window: r.task.Window, Level: level, Resolution: resolutionOf(r.task), Shard: o.shard,
		Bucket: o.bucket, Key: lake.SegmentKey(r.lease.Organization, r.task.Signal, r.task.Window, r.lease.ID, r.files),
		Bytes: written.Bytes, SidecarBytes: written.SidecarBytes, Rows: written.Rows, FirstTime: written.First, LastTime: written.Last,
		FormatVersion: written.FormatVersion, RowHash: written.RowHash, AppliedDelete: r.state.Latest,
	}
	// The last bucket may end where the window does, which is no longer in it.
	if last := r.task.Window.End().Add(-time.Nanosecond); s.LastTime.After(last) {
		s.LastTime = last
	}
	if s.FirstTime.After(s.LastTime) {
		s.FirstTime = s.LastTime
	}
	r.files++
	if err := r.upload(ctx, &s, o); err != nil {
		return err
	}
	r.edit.Add = append(r.edit.Add, s)
	return nil
}

// upload puts a shard where the index will say it is, the sidecar first: whoever finds a segment finds both.
func (r *run) upload(ctx context.Context, s *lake.Segment, o *output) error {
	if err := r.declare(ctx, folderOf(s, s.Key)); err != nil {
		return err
	}
	bucket, err := r.bucket(ctx, s.Bucket)
	if err != nil {
		return err
	}
	if err := r.put(ctx, bucket, lake.SidecarKey(s.Key), o.sidecar); err != nil {
		return err
	}
	r.deps.Checkpoint("rollup-sidecar-uploaded")
	if err := r.put(ctx, bucket, s.Key, o.parquet); err != nil {
		return err
	}
	r.deps.Checkpoint("rollup-segment-uploaded")
	return nil
}

func (r *run) declare(ctx context.Context, folder string) error {
	if r.declared[folder] {
		return nil
	}
	if err := r.deps.Index.Declare(ctx, r.lease.ID, []string{folder}); err != nil {
		return err
	}
	r.declared[folder] = true
	r.deps.Checkpoint("rollup-declared")
	return nil
}

func (r *run) put(ctx context.Context, bucket objects.Bucket, key string, file *spilled) error {
	if _, err := file.file.Seek(0, io.SeekStart); err != nil {
		return scratchError(err)
	}
	if _, err := bucket.Put(ctx, key, file.file, file.size); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	r.edit.Cost.BytesWritten += file.size
	return nil
}
