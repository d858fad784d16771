// SPDX-License-Identifier: AGPL-3.0-only

package fan

import (
	"sync"

	"github.com/lakerunner/lakerunner/pkg/fault"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
)

// Statistics is what scans cost.
type Statistics struct {
	Segments       int64 // asked for
	SegmentsPruned int64 // ruled out by token filter, catalogue or footer
	SegmentsRead   int64
	BytesFetched   int64 // from the object store
	BytesRead      int64 // of the segments read, wherever from
	LineBytes      int64 // uncompressed bodies looked at
	RowsScanned    int64
	ObjectRequests int64
	CacheHits      int64
	CacheMisses    int64
	Retries        int64 // scans asked again of another worker
	Hedges         int64 // scans asked of a second worker because the first was slow
}

func (s *Statistics) add(o *workerv1.ScanStatistics) {
	s.Segments += o.GetSegments()
	s.SegmentsPruned += o.GetSegmentsPruned()
	s.SegmentsRead += o.GetSegmentsRead()
	s.BytesFetched += o.GetBytesFetched()
	s.BytesRead += o.GetBytesRead()
	s.LineBytes += o.GetLineBytes()
	s.RowsScanned += o.GetRowsScanned()
	s.ObjectRequests += o.GetObjectRequests()
	s.CacheHits += o.GetCacheHits()
	s.CacheMisses += o.GetCacheMisses()
}

// Tally adds up the statistics of all scans of one query and holds them to its byte budget. Safe for concurrent use.
type Tally struct {
	mu     sync.Mutex
	total  Statistics
	budget int64
	spent  bool
}

// NewTally returns a tally with a budget of bytes read from segments. Zero: no limit.
func NewTally(budget int64) *Tally { return &Tally{budget: budget} }

// Statistics returns the figures so far.
func (t *Tally) Statistics() Statistics {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// Spent reports whether the budget is used up.
func (t *Tally) Spent() bool { return t.left() < 0 }

// left returns the bytes left, 0 without a budget, and -1 when it is used up.
func (t *Tally) left() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.budget <= 0:
		return 0
	case t.spent, t.total.BytesRead >= t.budget:
		return -1
	}
	return t.budget - t.total.BytesRead
}

func (t *Tally) add(s *workerv1.ScanStatistics) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.add(s)
}

// spend marks the budget as used up: a worker could not keep to the rest of it.
func (t *Tally) spend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spent = true
}

func (t *Tally) retried() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Retries++
}

func (t *Tally) hedged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Hedges++
}

// errBudget says that a query would read more than its organization may.
func (t *Tally) errBudget() error {
	return fault.New(fault.Exhausted, "the query would read more than the limit of %d bytes (max_query_bytes); narrow the time range or the selector", t.budget)
}
