// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import "github.com/lakerunner/lakerunner/pkg/lake"

// SeriesID numbers the series of a Store, from 0.
type SeriesID uint32

// Stamp is when a point is, since when it counts, and which source object it came from.
type Stamp struct {
	Time   int64 // ns since 1970
	Start  int64 // ns since 1970; 0: not known
	Source lake.ReceiptID
}
