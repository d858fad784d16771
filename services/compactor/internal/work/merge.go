// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// output is a segment that a merge wrote to disk.
type output struct {
	parquet, sidecar   *spilled
	parquetTo, indexTo *bufio.Writer
}

func (o *output) flush() error { return errors.Join(o.parquetTo.Flush(), o.indexTo.Flush()) }

// rewrite merges inputs, checks that all rows are accounted for, uploads, and notes the change.
func (r *run) rewrite(ctx context.Context, m plan.Merge, inputs []input) error {
	outputs := map[int]*output{}
	defer func() {
		for _, o := range outputs {
			r.scratch.discard(o.parquet)
			r.scratch.discard(o.sidecar)
		}
	}()
	result, err := r.merger.merge(ctx, inputs, mergeOptions{
		organization: r.lease.Organization, lease: r.lease.ID, merge: &m, state: r.state, memory: r.config.Memory,
		create: func(number int) (io.Writer, io.Writer, func() error, error) {
			made, err := r.output()
			if err != nil {
				return nil, nil, nil, err
			}
			outputs[number] = made
			return made.parquetTo, made.indexTo, made.flush, nil
		},
	})
	if err != nil {
		return r.mergeError(ctx, inputs, err)
	}
	r.deps.Checkpoint("merged")
	if err := conserved(inputs, &result); err != nil {
		return r.damaged(&inputs[0].segment, err)
	}
	added := r.segments(m, inputs[0].segment.Bucket, &result)
	if err := r.upload(ctx, added, result.outputs, outputs); err != nil {
		return err
	}
	r.note(m, inputs, added, &result)
	return nil
}

func (r *run) output() (*output, error) {
	parquet, err := r.scratch.create()
	if err != nil {
		return nil, err
	}
	sidecar, err := r.scratch.create()
	if err != nil {
		return nil, err
	}
	return &output{parquet, sidecar, bufio.NewWriterSize(parquet, 256<<10), bufio.NewWriterSize(sidecar, 64<<10)}, nil
}

// mergeError tells an error of the segments from one of the surroundings.
func (r *run) mergeError(ctx context.Context, inputs []input, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case isSpilling(err), errors.Is(err, fault.Exhausted), errors.Is(err, fault.Unavailable):
		return err
	}
	return r.damaged(&inputs[0].segment, err)
}

// damaged counts, and makes a loud error of, a segment that does not hold what the index says, or a merge that does not add up.
func (r *run) damaged(s *lake.Segment, err error) error {
	r.deps.Counters.conservationFailure()
	return fault.New(fault.Internal, "conservation: window %s of %s, segment %s and those merged with it: %s",
		r.task.Window.Start.Format("2006-01-02T15:04Z"), r.task.Signal, s.Key, err)
}

// conserved checks a merge against what the index says of its inputs, and against itself.
func conserved(inputs []input, result *merged) error {
	var rows int64
	var hash uint64
	for _, in := range inputs {
		rows += in.segment.Rows
		hash += in.segment.RowHash
	}
	a := &result.account
	if rows != a.In || hash != result.hashIn {
		return fmt.Errorf("%d rows of hash %x were read, the index says %d of %x", a.In, result.hashIn, rows, hash)
	}
	written := int64(0)
	for i := range result.outputs {
		written += result.outputs[i].rows
	}
	if left := a.Deduplicated + a.Masked + a.Deleted + a.Expired; written != a.Out || rows != written+left {
		return fmt.Errorf("of %d rows %d were written, and %d left", rows, written, left)
	}
	return nil
}

// segments are the outputs as the index will know them.
func (r *run) segments(m plan.Merge, bucket string, result *merged) []lake.Segment {
	added := make([]lake.Segment, len(result.outputs))
	for i := range result.outputs {
		o := &result.outputs[i]
		added[i] = lake.Segment{
			Organization: r.lease.Organization, Signal: r.task.Signal, Window: m.Window, Level: m.Level, Shard: o.shard, Bucket: bucket,
			Key:   lake.SegmentKey(r.lease.Organization, r.task.Signal, m.Window, r.lease.ID, r.files+i),
			Bytes: o.bytes, SidecarBytes: o.sidecarBytes, Rows: o.rows, FirstTime: o.first, LastTime: o.last,
			FormatVersion: o.formatVersion, RowHash: o.rowHash, Sources: o.sources,
			AppliedDelete: r.state.Latest, Rules: m.Rules, Identified: o.identified,
		}
	}
	r.files += len(added)
	return added
}

// upload puts the outputs where the index will say they are, sidecars first: whoever finds a segment finds both.
func (r *run) upload(ctx context.Context, added []lake.Segment, from []made, outputs map[int]*output) error {
	for i := range added {
		s, o := &added[i], outputs[from[i].number]
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
		r.deps.Checkpoint("sidecar-uploaded")
		if err := r.put(ctx, bucket, s.Key, o.parquet); err != nil {
			return err
		}
		r.deps.Checkpoint("segment-uploaded")
	}
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
	r.deps.Checkpoint("declared")
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

// note makes a merge part of the edit.
func (r *run) note(m plan.Merge, inputs []input, added []lake.Segment, result *merged) {
	for _, in := range inputs {
		r.edit.Remove = append(r.edit.Remove, in.segment.ID)
	}
	r.edit.Add = append(r.edit.Add, added...)
	r.edit.Deleted = append(r.edit.Deleted, result.deleted...)
	if result.changed {
		r.edit.Rewrite = false
	}
	// Rollups are kept for their own time, and not made anew of what is left.
	r.edit.Expired = r.edit.Expired || result.account.Expired > 0
	r.account.add(result.account)
	r.deps.Counters.merged(m.Reason, inputs, added, result.account)
}

func (a *Account) add(other Account) {
	a.In += other.In
	a.Out += other.Out
	a.Deduplicated += other.Deduplicated
	a.Masked += other.Masked
	a.Deleted += other.Deleted
	a.Expired += other.Expired
}
