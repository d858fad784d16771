// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// Segment is a stored segment and what is needed to read it.
type Segment struct {
	File, Sidecar cache.Object
	First, Last   int64 // ns since 1970, both inclusive
	Masked        []lake.ReceiptID
	// Applied is the highest number of a delete whose points are not in the file any more.
	Applied int64
	// Resolution is the width of a rollup's buckets; zero: the points themselves.
	Resolution time.Duration
	Shard      lake.Shard
}

// Delete is a delete of data: points of the rows that its selector chooses are not answered. Segments say up to which number theirs are gone already.
type Delete struct {
	Number   int64
	Selector *selector.SeriesSelector
	// Start is inclusive, End is not: ns since 1970.
	Start, End int64
}

// Samples asks for samples as they are.
type Samples struct {
	Matchers []*labels.Matcher
	// Start and End are ms since 1970, both inclusive.
	Start, End int64
	Shard      lake.Shard
	// MaxSamples is the most samples of the answer; zero: the worker's limit.
	MaxSamples int64
	// Starts asks for start times of all series; those of deltas are always there.
	Starts bool
}

// Vector asks for an expression at steps.
type Vector struct {
	Text string
	Expr parser.Expr
	// Start and End are ms since 1970, both inclusive; Step is zero for an instant query, at End.
	Start, End, Step int64
	// Lookback is ms.
	Lookback int64
	Shard    lake.Shard
	// Resolution is ms; zero: segments are no rollups.
	Resolution int64
	// MaxSamples is the most samples held at once; zero: the worker's limit.
	MaxSamples int64
	// StartTimestamps lets rates take counter resets from start times.
	StartTimestamps bool
}

// Catalogue asks which series there are. No selectors choose all.
type Catalogue struct {
	Selectors  [][]*labels.Matcher
	Start, End int64 // ms since 1970, both inclusive
	MaxSeries  int64 // zero: the worker's limit
}

// Statistics says what a scan cost, beside what the cache counts.
type Statistics struct {
	Segments  int64
	Pruned    atomic.Int64
	Read      atomic.Int64
	BytesRead atomic.Int64
	// Rows are points that were read.
	Rows atomic.Int64
	// Samples are those of the series that were selected; Queryable and Peak are what Prometheus' engine counts of an evaluation.
	Samples, Queryable, Peak atomic.Int64
	Cache                    cache.Usage
}

// allowance is a budget of bytes that a scan may hold.
type allowance struct {
	limit int64
	held  atomic.Int64
}

func (m *allowance) take(bytes int64) error {
	if held := m.held.Add(bytes); m.limit > 0 && held > m.limit {
		return fault.New(fault.Exhausted, "query holds more than %d bytes of metric points in a worker (scan_memory): choose fewer series or a shorter range", m.limit)
	}
	return nil
}

// nanoseconds is the first one of a millisecond, as near as an int64 comes.
func nanoseconds(ms int64) int64 {
	const most = math.MaxInt64 / 1_000_000
	switch {
	case ms > most:
		return math.MaxInt64
	case ms < -most:
		return math.MinInt64
	}
	return ms * 1_000_000
}

// untilEnd is the last nanosecond of a millisecond.
func untilEnd(ms int64) int64 {
	if ms == math.MaxInt64 {
		return ms
	}
	if end := nanoseconds(ms + 1); end != math.MaxInt64 {
		return end - 1
	}
	return math.MaxInt64
}

// milliseconds is the millisecond that a time lies in.
func milliseconds(ns int64) int64 {
	ms := ns / 1_000_000
	if ns < ms*1_000_000 {
		ms--
	}
	return ms
}
