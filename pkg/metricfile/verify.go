// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"context"
	"io"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Report is what Verify found in a segment.
type Report struct {
	Catalogue *Catalogue // as the Parquet file alone has it
	// Written is of the rows that were read, not of what the catalogue says.
	Written
	// Sources of the points, sorted. Rollups have none.
	Sources []lake.ReceiptID
	// Problems are contradictions between rows, catalogue and sidecar, the first few of them; none: the segment is sound.
	Problems []string
}

// Verify reads every point of a segment and compares them with what catalogue and sidecar say: counts, hashes, order, window, sources, labels. No
// sidecar (nil) is not looked at. An error means that the segment could not be read.
func Verify(ctx context.Context, parquet io.ReaderAt, size int64, sidecar []byte) (Report, error) {
	return Report{}, fault.New(fault.Unsupported, "metric segments cannot be read")
}

// RebuildCatalogue makes the catalogue of a segment, and its sidecar, from the Parquet file alone.
func RebuildCatalogue(ctx context.Context, parquet io.ReaderAt, size int64) (c *Catalogue, sidecar []byte, err error) {
	return nil, nil, fault.New(fault.Unsupported, "metric segments cannot be read")
}
