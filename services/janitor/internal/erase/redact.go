// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// redactObject puts a copy without the deleted rows in the place of a source object. The copy is made of what the lake holds of the
// object, and only one that is whole makes the object go.
func (e *Eraser) redactObject(ctx context.Context, d lake.Delete, receipt, standing lake.Receipt, files *kept) (verdict, error) {
	there, err := e.isThere(ctx, receipt.Object)
	if err != nil {
		return verdict{}, err
	}
	if !there && standing.Raw != lake.RawRedacted {
		// A run that was cut off after it deleted the object has left the copy.
		return e.afterRedaction(ctx, d, receipt, standing, files)
	}
	whole, free, err := e.writeCopy(ctx, d, standing)
	switch {
	case err != nil || !free:
		return verdict{}, err
	case !whole:
		return verdict{actionLeft, receipt.Raw}, nil
	}
	if there {
		if err := e.remove(ctx, standing, lake.RawRedacted); err != nil {
			return verdict{}, err
		}
	}
	return e.afterRedaction(ctx, d, receipt, standing, files)
}

// afterRedaction removes what else was kept of the object.
func (e *Eraser) afterRedaction(ctx context.Context, d lake.Delete, receipt, standing lake.Receipt, files *kept) (verdict, error) {
	bucket, err := e.deps.Objects.Bucket(ctx, standing.Object.Bucket)
	if err != nil {
		return verdict{}, err
	}
	own := copyKey(d.Organization, d.ID, standing.ID)
	if _, err := bucket.Head(ctx, own); errors.Is(err, fault.NotFound) {
		return verdict{actionGone, receipt.Raw}, nil
	} else if err != nil {
		return verdict{}, err
	}
	if _, err := files.deleteOf(ctx, standing, own); err != nil {
		return verdict{}, err
	}
	return verdict{actionRedacted, lake.RawRedacted}, nil
}

// writeCopy writes the copy. whole: it holds every row that the object brought, less the deleted ones; else it is not written. free is
// false while a segment with rows of the object is not free of the delete's rows yet.
func (e *Eraser) writeCopy(ctx context.Context, d lake.Delete, standing lake.Receipt) (whole, free bool, err error) {
	before, err := e.deps.Index.RowsDeletedOf(ctx, standing.ID)
	if err != nil {
		return false, false, err
	}
	segments, err := e.deps.Index.SegmentsOf(ctx, standing.ID)
	if err != nil {
		return false, false, err
	}
	for _, s := range segments {
		under := s.AppliedDelete < d.ID && s.FirstTime.Before(d.End) && !s.LastTime.Before(d.Start)
		if under || slices.Contains(s.MaskedSources, standing.ID) {
			return false, false, nil
		}
	}
	file, err := e.scratch("redacted-*" + copySuffix)
	if err != nil {
		return false, false, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	rows, err := e.copyRows(ctx, file, segments, standing.ID)
	if err != nil {
		return false, false, err
	}
	// What a compaction took out while we read would be missing without a reason.
	after, err := e.deps.Index.RowsDeletedOf(ctx, standing.ID)
	if err != nil || before != after {
		return false, false, err
	}
	if rows != standing.RowsOut-after.Written {
		return false, true, nil
	}
	return true, true, e.upload(ctx, file, standing.Object.Bucket, copyKey(d.Organization, d.ID, standing.ID))
}

func (e *Eraser) copyRows(ctx context.Context, into io.Writer, segments []lake.Segment, source lake.ReceiptID) (rows int64, err error) {
	z := gzip.NewWriter(into)
	for _, s := range segments {
		n, err := e.copySegment(ctx, z, s, source)
		if err != nil {
			return rows, fmt.Errorf("segment %s: %w", s.Key, err)
		}
		rows += n
	}
	return rows, z.Close()
}

func (e *Eraser) copySegment(ctx context.Context, into io.Writer, s lake.Segment, source lake.ReceiptID) (rows int64, err error) {
	file, size, err := e.fetch(ctx, s)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	reader, err := segfile.OpenLogs(file, size)
	if err != nil {
		return 0, err
	}
	logs := columns.NewLogs()
	var line []byte
	for {
		logs.Reset()
		err := reader.Next(logs)
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		var row columns.LogRow
		for i := range logs.Len() {
			if logs.Record(i).Source != source {
				continue
			}
			logs.Row(i, &row)
			if line, err = appendRow(line[:0], logs.OriginOf(row.Origin), &row); err != nil {
				return rows, err
			}
			if _, err := into.Write(line); err != nil {
				return rows, scratchError(err)
			}
			rows++
		}
	}
}

// fetch brings a segment's Parquet file to the scratch directory.
func (e *Eraser) fetch(ctx context.Context, s lake.Segment) (file *os.File, size int64, err error) {
	bucket, err := e.deps.Objects.Bucket(ctx, s.Bucket)
	if err != nil {
		return nil, 0, err
	}
	body, _, err := bucket.Get(ctx, s.Key, "")
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if file, err = e.scratch("segment-*.parquet"); err != nil {
		return nil, 0, err
	}
	if size, err = io.Copy(file, body); err != nil {
		return nil, 0, errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	return file, size, nil
}

func (e *Eraser) upload(ctx context.Context, file *os.File, name, key string) error {
	bucket, err := e.deps.Objects.Bucket(ctx, name)
	if err != nil {
		return err
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return scratchError(err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return scratchError(err)
	}
	_, err = bucket.Put(ctx, key, file, size)
	return err
}

func (e *Eraser) scratch(pattern string) (*os.File, error) {
	if err := os.MkdirAll(e.deps.Scratch, 0o700); err != nil {
		return nil, scratchError(err)
	}
	file, err := os.CreateTemp(e.deps.Scratch, pattern)
	if err != nil {
		return nil, scratchError(err)
	}
	return file, nil
}

func scratchError(err error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("scratch directory: %w", err))
}
