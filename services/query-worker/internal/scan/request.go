// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"sync/atomic"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// Segment is a stored segment and what is needed to read it.
type Segment struct {
	File        cache.Object
	Sidecar     cache.Object
	Rows        int64
	First, Last int64 // ns since 1970, both inclusive
	Masked      []int64
	// Applied is the highest number of a delete whose rows are not in the file any more.
	Applied int64
	// Identified is whether rows of it may have doubles in identified segments of other leases than Lease; if that is empty, in itself, too.
	Identified bool
	Lease      string
}

// Lines asks for log lines.
type Lines struct {
	Selector string
	// Start is inclusive, End is not: ns since 1970.
	Start, End int64
	// Limit is the most lines; zero: all.
	Limit int
	// Forward is oldest first.
	Forward bool
}

// Samples asks for a sample expression.
type Samples struct {
	Expression string
	// Start and End are the first and last evaluation time, ns since 1970.
	Start, End int64
	// Step is zero for an instant query, which is evaluated at End.
	Step time.Duration
}

// Streams asks the catalogues for streams.
type Streams struct {
	Selector   string // empty: all
	Start, End int64
}

// Statistics says what a scan cost, beside what the cache counts.
type Statistics struct {
	Segments  int64
	Pruned    atomic.Int64
	Read      atomic.Int64
	BytesRead atomic.Int64
	Rows      atomic.Int64
	LineBytes atomic.Int64
	Cache     cache.Usage
}

// allowance is a budget of bytes that a scan may hold.
type allowance struct {
	limit int64
	held  atomic.Int64
}

func (m *allowance) take(bytes int) error {
	if held := m.held.Add(int64(bytes)); m.limit > 0 && held > m.limit {
		return fault.New(fault.Exhausted, "query holds more than %d bytes in a worker: ask for less at once", m.limit)
	}
	return nil
}

func (m *allowance) give(bytes int) { m.held.Add(-int64(bytes)) }
