// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"io"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// Columns is a set of columns of points.
type Columns uint16

// The columns. WantValues is all that a kind has: values, counts, buckets, quantiles, histograms; WantTotals is only values and counts of classic
// histograms and summaries, which is much less to read.
const (
	WantTimes Columns = 1 << iota
	WantStarts
	WantSources
	WantTotals
	WantParts
	WantExemplars
	WantValues = WantTotals | WantParts
	WantAll    = WantTimes | WantStarts | WantSources | WantValues | WantExemplars
)

// Reader reads rows of a segment by their ordinals. It keeps what it last decompressed, so ordinals should rise. It is not safe for concurrent use.
type Reader struct{}

// Open begins to read a segment's Parquet file, which must be that of the catalogue.
func Open(parquet io.ReaderAt, size int64, c *Catalogue) (*Reader, error) {
	return nil, fault.New(fault.Unsupported, "metric segments cannot be read")
}

// Points reads the points of a row into p, whose memory is used again, also that of its histograms.
func (r *Reader) Points(ordinal int, want Columns, p *Points) error { return nil }

// Rollup reads a row of a rollup segment into p, whose memory is used again, also that of its histograms.
func (r *Reader) Rollup(ordinal int, p *Rollup) error { return nil }
