// SPDX-License-Identifier: AGPL-3.0-only

// Package metrics answers PromQL: it brings the leaves of a plan from workers, and Prometheus' engine evaluates what is above them.
//
// A leaf is asked of shards: parts of all series, by the hash of their labels. A shard's worker gets every segment that may hold series of the shard, so that it sees
// each series whole. Long ranges are cut into slices of time, at steps. Rollups answer those steps of a leaf that they can and that they are there for, the rest is
// asked of the samples.
//
// Invariants:
//
//  1. Values of shards are merged in the order of shards, whoever answers first: equal queries have equal answers.
//  2. A merged value is the one that one worker would have computed over all series, to 1e-9. Where that cannot be said of what shards answered, because sums
//     cancel or overflow, floats meet histograms, or two shards have the same series, one worker is asked for all of it.
//  3. A step is answered from rollups of one resolution or from samples, never from both. Rollups are used only where every hour of the step's range that has data
//     has a current one.
//  4. Samples that a query needs and that are not kept any more, while rollups of them are, are an error that says so, never an emptier answer.
//  5. All of a query's reads end with its context.
package metrics

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// Level is what a lookup found of one resolution.
type Level struct {
	Resolution time.Duration // zero: samples as they were received
	Segments   []lake.Segment
	Deletes    []lake.Delete
	Uncovered  []lake.Window // hours that have data and no current rollup
}

// Limits bounds one query. Zero: no limit, except where a default is named.
type Limits struct {
	Series   int   // of the answer
	Samples  int   // held at a time in one place; 50 million
	Shards   int   // into which series are parted; as many as there are workers, rounded up to a power of two
	PartRows int64 // rows of segments in one part of a shard, before it is cut into slices; 16 million
}

const (
	defaultSamples  = 50_000_000
	defaultPartRows = 16_000_000
)

// Session is one query under way.
type Session struct {
	Organization lake.Organization
	QueryID      string
	Fan          *fan.Fan
	Tally        *fan.Tally
	Engine       *prom.Engine
	Limits       Limits
	Lookback     time.Duration
	// StartTimestamps has rates take counter resets from start times, as the engine does then.
	StartTimestamps bool
	// Samples are the segments of samples, and Rollups those of rollups, coarsest first.
	Samples Level
	Rollups []Level
	// Gone is the time before which samples are not kept any more; zero: they are kept for ever.
	Gone time.Time

	mu         sync.Mutex
	answers    map[*promplan.Leaf]*answered
	annotated  annotations.Annotations
	remarks    []prom.Annotation
	counted    Counts
	resolution time.Duration
	bound      float64
	cause      error
}

// Counts are samples as Prometheus counts them.
type Counts struct {
	Read  int64 // of series that were selected
	Total int64 // that steps looked at, those of overlapping windows several times
	Peak  int64 // most that were held at once in one place
}

// Result is an answer.
type Result struct {
	// Value is a prom.Matrix, prom.Vector, prom.Scalar or prom.String.
	Value       parser.Value
	Annotations annotations.Annotations
	Counts      Counts
	// Resolution is the coarsest that was used, and Bound how far off the answer may be because of it.
	Resolution time.Duration
	Bound      float64
}

// answered is a leaf that was asked for.
type answered struct {
	done   chan struct{}
	series []prom.Series
	err    error
}

// leaf evaluates a leaf, once. What it returns is not to be changed.
func (s *Session) leaf(ctx context.Context, leaf *promplan.Leaf) ([]prom.Series, error) {
	s.mu.Lock()
	asked, known := s.answers[leaf]
	if !known {
		if s.answers == nil {
			s.answers = map[*promplan.Leaf]*answered{}
		}
		asked = &answered{done: make(chan struct{})}
		s.answers[leaf] = asked
	}
	s.mu.Unlock()
	if !known {
		asked.series, asked.err = s.evaluateLeaf(ctx, leaf)
		close(asked.done)
	}
	select {
	case <-asked.done:
		return asked.series, asked.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// remarked keeps what the engine said about a part.
func (s *Session) remarked(a annotations.Annotations) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.annotated.Merge(a)
}

// ended takes in what a worker says at the end of its answer. Place puts remarks where they belong in the query.
func (s *Session) ended(e ending, place func(start, end int) (int, int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range e.remarks {
		if place != nil {
			r.Start, r.End = place(r.Start, r.End)
		}
		s.remarks = append(s.remarks, r)
	}
	s.counted.Read += e.counts.Read
	s.counted.Total += e.counts.Total
	s.counted.Peak = max(s.counted.Peak, e.counts.Peak)
}

// used notes that rollups answered a part.
func (s *Session) used(resolution time.Duration, bound float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolution, s.bound = max(s.resolution, resolution), max(s.bound, bound)
}

// failed remembers the first error of a part: what follows may be but the cancellation of the others.
func (s *Session) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil && err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, fault.Canceled) {
		s.cause = err
	}
	return err
}

// endOf is why a query ended.
func (s *Session) endOf(ctx context.Context, err error) error {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.Canceled):
		return fault.Wrap(fault.Canceled, ctx.Err())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fault.New(fault.Timeout, "query timed out; narrow the time range or the selector: %w", ctx.Err())
	case cause != nil:
		return cause
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, err)
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Canceled, err)
	}
	return err
}

func (s *Session) samples() int {
	if s.Limits.Samples > 0 {
		return s.Limits.Samples
	}
	return defaultSamples
}

func (s *Session) errSamples() error {
	return fault.New(fault.Exhausted,
		"the query needs more than %d samples at once (limit max_query_samples); aggregate by fewer labels, narrow the time range or make the step longer", s.samples())
}

// selectorProto is a conjunction of matchers as fragments have it.
func selectorProto(matchers []matcher) *workerv1.Selector {
	out := &workerv1.Selector{}
	for _, m := range matchers {
		out.Matchers = append(out.Matchers, &workerv1.Matcher{Type: matchType(m.Type), Name: m.Name, Value: m.Value})
	}
	return out
}
