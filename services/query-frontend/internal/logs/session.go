// SPDX-License-Identifier: AGPL-3.0-only

// Package logs answers LogQL: it is the storage under Loki's engine, with workers and segments in place of ingesters and chunks.
//
// Lines of a log query come from waves of segments, newest first (or oldest first), and stop when enough are found. A leaf of
// a metric query that merges is asked of all workers as an expression; one that does not merge is asked of one worker that
// sees all its rows, or, when they are too many for one, its rows are fetched and Loki's extractors are applied here.
//
// Invariants:
//
//  1. No row is dropped or doubled: equal lines are different rows. Answers are joined here by one iterator, never by Loki's
//     merging iterators, which take equal lines for replicas.
//  2. Lines are answered in the order of their time, and a line is not answered while an unread segment may hold one that
//     comes before it.
//  3. All reads of one query see one snapshot of the index; of rollups, one of each resolution.
//  4. Rollups that count lines answer buckets of time that they have all of, and only where the count is that of the rows. A bucket is counted by one of them, or
//     from its rows.
package logs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/grafana/dskit/user"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/grafana/loki/v3/pkg/util/validation"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// Limits bounds one query. Zero: no limit, except where a default is named.
type Limits struct {
	Series    int           // of the answer
	Points    int           // samples held for one leaf; 20 million
	Timeout   time.Duration // one hour
	SoleBytes int64         // bytes of segments that one worker may be asked to evaluate alone; 256 MiB
}

// Session is one query under way over one snapshot of segments.
type Session struct {
	Organization lake.Organization
	QueryID      string
	Fan          *fan.Fan
	Tally        *fan.Tally
	Segments     []lake.Segment
	Deletes      []lake.Delete // that may mask rows of the segments
	Limits       Limits
	// Counts are rollups that count lines; nil: there are none.
	Counts *metrics.Session

	mu      sync.Mutex
	cause   error
	partial string
}

// Request is what is asked.
type Request struct {
	Query      *plan.Query
	Start, End time.Time
	Step       time.Duration // zero with Start = End: an instant query
	Interval   time.Duration // least distance of log lines
	Limit      int           // most lines; zero: all
	Direction  logproto.Direction
}

// Partial returns why the answer is not all of it; empty when it is.
func (s *Session) Partial() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partial
}

func (s *Session) cut(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = reason
}

// Evaluate answers a query by Loki's engine.
func (s *Session) Evaluate(ctx context.Context, req Request) (logqlmodel.Result, error) {
	params := params{req}
	ctx = user.InjectOrgID(ctx, string(s.Organization))
	result, err := guarded(func() (logqlmodel.Result, error) { return s.query(ctx, req, params).Exec(ctx) })
	if err != nil {
		return logqlmodel.Result{}, s.endOf(ctx, err)
	}
	return result, nil
}

// query picks the engine. The one for marked leaves cannot select rows itself, so it is used only where there are leaves.
func (s *Session) query(ctx context.Context, req Request, params logql.Params) logql.Query {
	if req.Query.Kind == plan.KindSamples {
		return logql.NewDownstreamEngine(logql.EngineOpts{}, leaves{s, req.Query}, s.engineLimits(s.Limits.Series), nopLogger).Query(ctx, params)
	}
	return logql.NewEngine(logql.EngineOpts{}, &querier{session: s, request: req}, s.engineLimits(s.Limits.Series), nopLogger).Query(params)
}

// guarded turns a panic of the engine into an error: one query must not end the process.
func guarded(run func() (logqlmodel.Result, error)) (result logqlmodel.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Internal, "the LogQL engine panicked: %v", p)
		}
	}()
	return run()
}

// failed remembers the first error of a leaf: the engine may report its cancellation of the other leaves instead.
func (s *Session) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil && err != nil && !errors.Is(err, context.Canceled) {
		s.cause = err
	}
	return err
}

func (s *Session) endOf(ctx context.Context, err error) error {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.Wrap(fault.Canceled, ctx.Err())
	}
	if cause != nil {
		return cause
	}
	return Classify(err)
}

// Classify gives Loki's errors their kinds and leaves them otherwise as they are.
func Classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, err)
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Canceled, err)
	case errors.Is(err, logqlmodel.ErrLimit):
		return fault.Wrap(fault.Exhausted, err)
	case errors.Is(err, logqlmodel.ErrVariantsDisabled):
		return fault.Wrap(fault.Unsupported, err)
	case errors.Is(err, logqlmodel.ErrParse), errors.Is(err, logqlmodel.ErrPipeline), errors.Is(err, logqlmodel.ErrParseMatchers),
		errors.Is(err, logqlmodel.ErrIntervalLimit), errors.Is(err, logqlmodel.ErrUnsupportedSyntaxForInstantQuery):
		return fault.Wrap(fault.Invalid, err)
	}
	return err
}

// within returns the segments that matter to [from, to).
func (s *Session) within(from, to time.Time) []lake.Segment {
	return place.Within(s.Segments, from, to)
}

func (s *Session) points() int {
	if s.Limits.Points > 0 {
		return s.Limits.Points
	}
	return 20_000_000
}

func (s *Session) errPoints() error {
	return fault.New(fault.Exhausted, "the query needs more than %d samples at once; aggregate by fewer labels or narrow the time range", s.points())
}

func (s *Session) engineLimits(series int) engineLimits {
	limits := engineLimits{series: series, timeout: s.Limits.Timeout}
	if limits.series <= 0 {
		limits.series = 1 << 30
	}
	if limits.timeout <= 0 {
		limits.timeout = time.Hour
	}
	return limits
}

// engineLimits is what Loki's engine asks about a tenant.
type engineLimits struct {
	series  int
	timeout time.Duration
}

// MaxQuerySeries is the most series of an answer.
func (l engineLimits) MaxQuerySeries(context.Context, string) int { return l.series }

// MaxQueryRange does not bound ranges: bytes are bounded.
func (l engineLimits) MaxQueryRange(context.Context, string) time.Duration { return 0 }

// QueryTimeout is how long a query may take.
func (l engineLimits) QueryTimeout(context.Context, string) time.Duration { return l.timeout }

// BlockedQueries blocks none.
func (l engineLimits) BlockedQueries(context.Context, string) []*validation.BlockedQuery { return nil }

// EnableMultiVariantQueries is off, as in Loki.
func (l engineLimits) EnableMultiVariantQueries(string) bool { return false }

// MaxScanTaskParallelism is of an engine not used here.
func (l engineLimits) MaxScanTaskParallelism(string) int { return 0 }

// DebugEngineTasks is of an engine not used here.
func (l engineLimits) DebugEngineTasks(string) bool { return false }

// DebugEngineStreams is of an engine not used here.
func (l engineLimits) DebugEngineStreams(string) bool { return false }
