// SPDX-License-Identifier: AGPL-3.0-only

// Package query is the one service layer under every door of the frontend: gRPC, REST and Loki's HTTP API.
//
// Invariants:
//
//  1. The organization of every read is that of the caller's identity in the context, and nothing else: no parameter names
//     one. A segment of another organization in the index's answer is an error.
//  2. Every answer carries what it cost, how complete the lake is for its range, and, when a limit cut it, which one.
//  3. A query ends when its context does, or its organization's time limit; all its scans end with it.
package query

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logqlmodel"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

// DefaultLines is the limit of a log query that names none.
const DefaultLines = 100

// maxSteps bounds the points of a series, as Prometheus and Loki do.
const maxSteps = 11000

// Index is what the frontend asks of the index.
type Index interface {
	Lookup(ctx context.Context, q index.Query) (index.Answer, error)
	// Arrivals answers the segments that ingest has added since, removed or not.
	Arrivals(ctx context.Context, q index.Query, since time.Time) (index.Answer, error)
}

// Options tunes the frontend. Zero values stand for defaults.
type Options struct {
	MaxPoints    int           // samples held for one leaf of a query
	SoleBytes    int64         // bytes of segments that one worker may be asked to evaluate alone
	TailInterval time.Duration // between looks for new segments; one second
	// DelayedNames drops names of metrics at the end of an evaluation, and StartTimestamps takes counter resets from start times: Prometheus' features
	// promql-delayed-name-removal and use-start-timestamps.
	DelayedNames, StartTimestamps bool
}

// Frontend answers queries. Safe for concurrent use.
type Frontend struct {
	index   Index
	config  config.Source
	fan     *fan.Fan
	engine  *prom.Engine // of PromQL
	options Options
	meters  *Meters
}

// engineTimeout is longer than any query may take: its own context ends it.
const engineTimeout = 24 * time.Hour

// New returns a Frontend.
func New(ix Index, source config.Source, f *fan.Fan, meters *Meters, options Options) *Frontend {
	if options.TailInterval <= 0 {
		options.TailInterval = time.Second
	}
	engine := prom.New(prom.Options{Timeout: engineTimeout, DelayedNameRemoval: options.DelayedNames, StartTimestamps: options.StartTimestamps})
	return &Frontend{index: ix, config: source, fan: f, engine: engine, options: options, meters: meters}
}

// Warm asks the index once, so that the first query need not wait for a connection and a plan. That it cannot be asked yet matters to nobody.
func (f *Frontend) Warm(ctx context.Context) {
	now := time.Now()
	if all := f.config.Current().Organizations(); len(all) > 0 {
		_, _ = f.lookup(ctx, all[0].ID, now.Add(-24*time.Hour), now)
	}
}

// Caller returns the caller's organization and its settings.
func (f *Frontend) Caller(ctx context.Context) (*config.Organization, error) {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "no API key")
	}
	if identity.Organization == "" {
		return nil, fault.New(fault.Invalid, "the key is for no single organization: name one in X-Scope-OrgID")
	}
	organization, ok := f.config.Current().Organization(identity.Organization)
	if !ok {
		return nil, fault.New(fault.Denied, "organization %q is not configured", identity.Organization)
	}
	return organization, nil
}

// Request is a LogQL query.
type Request struct {
	Query      string
	Start, End time.Time
	Step       time.Duration // of a metric query; zero with Start = End: an instant query
	Interval   time.Duration // least distance of lines
	Limit      int           // of lines
	Direction  logproto.Direction
	// Refusal answers a log query where only a metric query will do. Nil: either will.
	Refusal error
}

// Answer is a query's answer.
type Answer struct {
	Data       parser.Value
	Warnings   []string
	Statistics Statistics
}

// Evaluate answers a query of either kind.
func (f *Frontend) Evaluate(ctx context.Context, req Request) (Answer, error) {
	run, err := f.begin(ctx, req)
	if err != nil {
		return Answer{}, err
	}
	result, err := run.session.Evaluate(run.ctx, logs.Request{
		Query: run.plan, Start: req.Start, End: req.End, Step: req.Step, Interval: req.Interval, Limit: req.Limit, Direction: req.Direction,
	})
	run.returned.Store(sizeOf(result.Data))
	answer := Answer{Data: result.Data, Warnings: result.Warnings, Statistics: run.end(err)}
	if reason := answer.Statistics.Partial; reason != "" {
		answer.Warnings = append(answer.Warnings, "partial answer: "+reason)
	}
	return answer, err
}

func sizeOf(data parser.Value) int64 {
	switch v := data.(type) {
	case promql.Vector:
		return int64(len(v))
	case promql.Matrix:
		return int64(v.TotalSamples())
	case logqlmodel.Streams:
		return v.Lines()
	}
	return 0
}

// run is one query under way.
type run struct {
	frontend     *Frontend
	organization *config.Organization
	ctx          context.Context //nolint:containedctx // a query is one call, cut into steps
	cancel       context.CancelFunc
	plan         *plan.Query
	session      *logs.Session
	found        index.Answer
	considered   int64 // bytes of the segments found
	rollups      int64 // segments of rollups that were found
	started      time.Time
	kind         string
	returned     atomic.Int64
}

// begin parses and checks a query, and looks up its segments.
func (f *Frontend) begin(ctx context.Context, req Request) (*run, error) {
	organization, err := f.Caller(ctx)
	if err != nil {
		return nil, err
	}
	planned, err := plan.Parse(req.Query)
	if err != nil {
		return nil, logs.Classify(err)
	}
	if req.Refusal != nil && planned.Kind == plan.KindLogs {
		return nil, req.Refusal
	}
	if err := check(planned, req, organization.Limits); err != nil {
		return nil, err
	}
	from, to := planned.Span(req.Start, req.End)
	r, err := f.open(ctx, organization, from, to, planned.Kind != plan.KindConstant)
	if err != nil {
		return nil, err
	}
	r.plan, r.kind = planned, kindName(planned.Kind)
	if err := r.counts(req); err != nil {
		r.end(err)
		return nil, err
	}
	return r, nil
}

func kindName(k plan.Kind) string {
	if k == plan.KindLogs {
		return "logs"
	}
	return "samples"
}

func check(q *plan.Query, req Request, limits config.Limits) error {
	switch {
	case req.End.Before(req.Start):
		return fault.New(fault.Invalid, "end timestamp must not be before or equal to start time")
	case req.Step < 0:
		return fault.New(fault.Invalid, "negative query resolution step widths are not accepted. Try a positive integer")
	case req.Interval < 0:
		return fault.New(fault.Invalid, "interval must be >= 0")
	case q.Kind == plan.KindLogs && limits.MaxQueryLines > 0 && req.Limit > limits.MaxQueryLines:
		return fault.New(fault.Invalid, "max entries limit per query exceeded, limit > max_entries_limit_per_query (%d > %d)", req.Limit, limits.MaxQueryLines)
	case q.Kind != plan.KindLogs && req.Step == 0 && !req.Start.Equal(req.End):
		return fault.New(fault.Invalid, "zero or negative query resolution step widths are not accepted. Try a positive integer")
	case q.Kind != plan.KindLogs && req.Step > 0 && req.End.Sub(req.Start)/req.Step > maxSteps:
		return fault.New(fault.Invalid, "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter")
	}
	return nil
}

// open looks up the segments of [from, to) for a new session of an organization.
func (f *Frontend) open(ctx context.Context, organization *config.Organization, from, to time.Time, lookup bool) (*run, error) {
	if !lookup {
		return f.openWith(ctx, organization, nil)
	}
	return f.openWith(ctx, organization, func(ctx context.Context) (index.Answer, error) { return f.lookup(ctx, organization.ID, from, to) })
}

// openWith begins a session over the segments that are found; nil: over none.
func (f *Frontend) openWith(ctx context.Context, organization *config.Organization, find func(context.Context) (index.Answer, error)) (*run, error) {
	limits := organization.Limits
	r := &run{frontend: f, organization: organization, started: time.Now(), kind: "catalogue"}
	r.ctx, r.cancel = bounded(ctx, limits.QueryTimeout)
	if find != nil {
		found, err := find(r.ctx)
		if err != nil {
			r.cancel()
			return nil, err
		}
		r.found = found
		for i := range found.Segments {
			r.considered += found.Segments[i].Bytes
		}
	}
	r.session = &logs.Session{
		Organization: organization.ID,
		QueryID:      newQueryID(),
		Fan:          f.fan,
		Tally:        fan.NewTally(limits.MaxQueryBytes),
		Segments:     r.found.Segments,
		Deletes:      r.found.Deletes,
		Limits: logs.Limits{
			Series: limits.MaxQuerySeries, Timeout: limits.QueryTimeout, Points: f.options.MaxPoints, SoleBytes: f.options.SoleBytes,
		},
	}
	return r, nil
}

func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout > 0 {
		return context.WithTimeout(ctx, timeout)
	}
	return context.WithCancel(ctx)
}

// lookup finds the segments of [from, to). Where some of them are identified, also those of the same hours beside the range that decide which of
// their rows are answered.
func (f *Frontend) lookup(ctx context.Context, organization lake.Organization, from, to time.Time) (index.Answer, error) {
	q := index.Query{Organization: organization, Signal: lake.SignalLogs, Start: from, End: to}
	found, err := f.index.Lookup(ctx, q)
	if err == nil && slices.ContainsFunc(found.Segments, func(s lake.Segment) bool { return s.Identified }) {
		if q.Start, q.End = place.Hours(from, to); !q.Start.Equal(from) || !q.End.Equal(to) {
			found, err = f.index.Lookup(ctx, q)
			found.Segments = place.Within(found.Segments, from, to)
		}
	}
	if err != nil {
		return index.Answer{}, err
	}
	return found, owned(organization, found.Segments)
}

// owned refuses segments of another organization.
func owned(organization lake.Organization, segments []lake.Segment) error {
	for i := range segments {
		if owner := segments[i].Organization; owner != organization {
			return fault.New(fault.Internal, "the index answered a segment of organization %q to %q", owner, organization)
		}
	}
	return nil
}

func newQueryID() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// end releases the run and returns its final statistics.
func (r *run) end(err error) Statistics {
	r.cancel()
	s := r.statistics()
	r.frontend.meters.record(r.kind, outcomeOf(err), s)
	return s
}

func outcomeOf(err error) string {
	if err == nil {
		return "ok"
	}
	if errors.Is(err, context.Canceled) {
		return string(fault.Canceled)
	}
	return string(fault.KindOf(err))
}

// statistics returns the figures so far.
func (r *run) statistics() Statistics {
	scans := r.session.Tally.Statistics()
	return Statistics{
		Statistics:      scans,
		Considered:      int64(len(r.found.Segments)) + r.rollups,
		BytesConsidered: r.considered,
		Returned:        r.returned.Load(),
		Duration:        time.Since(r.started),
		Completeness:    r.found.Completeness,
		Partial:         r.session.Partial(),
		Resolution:      r.resolution(),
	}
}
