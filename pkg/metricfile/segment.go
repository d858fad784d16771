// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// FormatVersion is the version of the files this release writes. It reads this one and all before it.
const FormatVersion = 1

// Meta says what a segment is, and where it came from.
type Meta struct {
	Organization lake.Organization
	Signal       lake.Signal
	Window       lake.Window
	Level        int
	Lease        lake.LeaseID
	Sources      []lake.ReceiptID // the source objects whose points are in it
	Inputs       []string         // keys of the segments it was made from; none at level 0
	// AppliedDelete is the highest number of a delete whose points are not in it; Rules are the field rules that were applied, sorted.
	AppliedDelete lake.DeleteID
	Rules         []string
	// Resolution is the width of a rollup's buckets; zero: the points themselves.
	Resolution time.Duration
	// Shard is the part of the window's series that it holds.
	Shard lake.Shard
}

// Written is what the index wants to know of a segment.
type Written struct {
	Bytes        int64
	SidecarBytes int64
	Rows         int64 // points; of a rollup, buckets
	// Samples is what Prometheus would count: a point's samples are as many as its row has tracks. Of a rollup: of the points that its buckets count.
	Samples       int64
	Series        int64 // rows of the Parquet file
	Exemplars     int64
	First, Last   time.Time // of points, both inclusive; of a rollup, the ends of buckets
	RowHash       uint64    // sum of the hashes of points, or of buckets
	FormatVersion int
	Columns       map[string]int64 // compressed bytes of each column of the Parquet file
}
