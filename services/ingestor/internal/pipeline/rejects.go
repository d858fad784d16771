// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/klauspost/compress/gzip"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// rejects keeps the rejected rows of one object on disk: a line of JSON each, with its reason. Lines of rows that were decoded are OTLP
// documents, so that the file can be ingested itself.
type rejects struct {
	path string
	file *os.File
	z    *gzip.Writer
	line []byte
}

func newRejects(directory string, id lake.ReceiptID) *rejects {
	return &rejects{path: filepath.Join(directory, "rejects-"+strconv.FormatInt(int64(id), 10)+".ndjson.gz")}
}

func (r *rejects) row(reason string, o *columns.Origin, row *columns.LogRow) error {
	r.line = decode.AppendOTLP(r.line[:0], reason, o, row)
	return r.write()
}

func (r *rejects) point(reason string, o *columns.Origin, m *decode.Metric, p *decode.Point) error {
	r.line = decode.AppendOTLPPoint(r.line[:0], reason, o, m, p)
	return r.write()
}

func (r *rejects) raw(reason string, raw []byte) error {
	r.line = decode.AppendRejected(r.line[:0], reason, raw)
	return r.write()
}

func (r *rejects) write() error {
	if r.file == nil {
		file, err := os.Create(r.path)
		if err != nil {
			return scratchError(err)
		}
		r.file, r.z = file, gzip.NewWriter(file)
	}
	if _, err := r.z.Write(append(r.line, '\n')); err != nil {
		return scratchError(err)
	}
	return nil
}

// upload puts the file where the receipt's reader finds it. There is one.
func (r *rejects) upload(ctx context.Context, bucket objects.Bucket, key string, w *writer) error {
	if err := r.z.Close(); err != nil {
		return scratchError(err)
	}
	return w.put(ctx, bucket, key, r.file)
}

func (r *rejects) close() {
	if r.file != nil {
		r.file.Close()
		os.Remove(r.path)
	}
}

// put uploads a scratch file.
func (w *writer) put(ctx context.Context, bucket objects.Bucket, key string, file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return scratchError(err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		return scratchError(err)
	}
	if _, err := bucket.Put(ctx, key, file, info.Size()); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	w.bytes.Add(info.Size())
	return nil
}

func scratchError(err error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("scratch directory: %w", err))
}
