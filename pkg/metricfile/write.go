// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"context"
	"io"
	"iter"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Write writes points of st, given by their row numbers in any order, as one segment and its sidecar. It fails, rather than write a file that cannot
// be read, when a string is not UTF-8 or a point lies outside the window of m.
func Write(ctx context.Context, parquet, sidecar io.Writer, st *Store, rows []uint32, m Meta) (Written, error) {
	return Written{}, fault.New(fault.Unsupported, "metric segments cannot be written")
}

// WriteRollups writes rollups of series, in the order of Compare, as one segment and its sidecar. What rows yields may be reused for the next.
func WriteRollups(ctx context.Context, parquet, sidecar io.Writer, rows iter.Seq2[*Series, *Rollup], m Meta) (Written, error) {
	return Written{}, fault.New(fault.Unsupported, "metric segments cannot be written")
}

// Writer writes a segment row by row.
type Writer struct{}

// NewWriter begins a segment and its sidecar.
func NewWriter(parquet, sidecar io.Writer, m Meta) (*Writer, error) {
	return nil, fault.New(fault.Unsupported, "metric segments cannot be written")
}

// AppendPoints adds a row. Rows come in the order of Compare, points by time, source and hash. Neither s nor p is kept. Rows without points are left out.
func (w *Writer) AppendPoints(s *Series, p *Points) error { return nil }

// AppendRollup adds a row of a rollup segment, in the order of Compare. Neither s nor r is kept.
func (w *Writer) AppendRollup(s *Series, r *Rollup) error { return nil }

// Close writes what is left, footer and sidecar. A writer that failed, or is not needed any more, need not be closed.
func (w *Writer) Close() (Written, error) { return Written{}, nil }
