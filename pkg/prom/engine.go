// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// The values that Prometheus evaluates to, so that callers need not import its engine.
type (
	Matrix = promql.Matrix
	Vector = promql.Vector
	Scalar = promql.Scalar
	String = promql.String
	Sample = promql.Sample
	FPoint = promql.FPoint
	HPoint = promql.HPoint
	// Line is a series of a Matrix.
	Line = promql.Series
)

// Options are an engine's. Their zero values are Prometheus' defaults.
type Options struct {
	// MaxSamples is the most samples that a query may hold at once, unless it says less itself. Zero: 50,000,000.
	MaxSamples int
	// Timeout of one query. Zero: two minutes.
	Timeout time.Duration
	// Lookback is how far an instant selector looks back, unless a query says so itself. Zero: five minutes.
	Lookback time.Duration
	// DelayedNameRemoval drops __name__ at the end of the evaluation, not at the first function that loses it.
	DelayedNameRemoval bool
	// StartTimestamps lets rate and its like take counter resets from start times.
	StartTimestamps bool
}

const (
	defaultMaxSamples = 50_000_000
	defaultTimeout    = 2 * time.Minute
	defaultLookback   = 5 * time.Minute
	// subqueryStep is the step of a subquery that names none: Prometheus' default evaluation interval.
	subqueryStep = time.Minute
	// maxEngines is for how many different limits an engine is kept.
	maxEngines = 64
)

// Engine evaluates expressions. It is safe for concurrent use.
type Engine struct {
	options Options

	mu      sync.Mutex
	engines map[int]*promql.Engine // by the most samples
}

// New returns an engine.
func New(o Options) *Engine {
	o.MaxSamples = cmp.Or(o.MaxSamples, defaultMaxSamples)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Lookback = cmp.Or(o.Lookback, defaultLookback)
	return &Engine{options: o, engines: map[int]*promql.Engine{}}
}

// Request is an expression and where to evaluate it.
type Request struct {
	Expr       parser.Expr
	Start, End time.Time
	// Step is zero for an instant query, at End.
	Step time.Duration
	// Lookback is zero for the engine's.
	Lookback time.Duration
	// MaxSamples is zero for the engine's.
	MaxSamples int
	// Shard is what the source is asked for.
	Shard lake.Shard
	// PerStep counts samples of each step, too.
	PerStep bool
}

// Result is the value of an expression.
type Result struct {
	// Value is a Matrix, sorted by labels, or what an instant query gives: a Vector in Prometheus' order, a Scalar, a String or a Matrix.
	Value       parser.Value
	Annotations annotations.Annotations
	Statistics  *stats.Statistics
}

// Evaluate evaluates an expression over a source. What is wrong with the expression or its evaluation is fault.Invalid in Prometheus' words; too many samples are
// fault.Exhausted; errors of the source keep their kinds.
func (e *Engine) Evaluate(ctx context.Context, source Source, r Request) (Result, error) {
	if err := r.valid(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.options.Timeout)
	defer cancel()
	store := newStore(source, r.Shard)
	defer store.wait()
	defer cancel()
	query, statement, err := e.query(ctx, store, &r)
	if err != nil {
		return Result{}, err
	}
	if err := store.prepare(ctx, statement); err != nil {
		return Result{}, e.fault(&r, err)
	}
	answer := query.Exec(ctx)
	if answer.Err != nil {
		return Result{Annotations: answer.Warnings, Statistics: query.Stats()}, e.fault(&r, answer.Err)
	}
	return Result{Value: answer.Value, Annotations: answer.Warnings, Statistics: query.Stats()}, nil
}

func (r *Request) valid() error {
	switch {
	case r.Step == 0:
		r.Start = r.End
		return nil
	case r.Step < time.Millisecond:
		return fault.New(fault.Invalid, "step %s: want at least a millisecond", r.Step)
	case r.End.Before(r.Start):
		return fault.New(fault.Invalid, "end timestamp must not be before start time")
	}
	return Ranged(r.Expr)
}

// query makes a query of Prometheus' for a number, and puts the expression in its place: expressions that were parsed already keep their positions so.
func (e *Engine) query(ctx context.Context, store *store, r *Request) (promql.Query, *parser.EvalStmt, error) {
	engine := e.engine(cmp.Or(r.MaxSamples, e.options.MaxSamples))
	options := promql.NewPrometheusQueryOpts(r.PerStep, r.Lookback)
	var query promql.Query
	var err error
	if r.Step == 0 {
		query, err = engine.NewInstantQuery(ctx, store, options, "0", r.End)
	} else {
		query, err = engine.NewRangeQuery(ctx, store, options, "0", r.Start, r.End, r.Step)
	}
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err)
	}
	statement := query.Statement().(*parser.EvalStmt)
	statement.Expr, err = promql.PreprocessExpr(Clone(r.Expr), r.Start, r.End, r.Step)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err)
	}
	return query, statement, nil
}

func (e *Engine) engine(samples int) *promql.Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.engines[samples]; known != nil {
		return known
	}
	made := promql.NewEngine(promql.EngineOpts{
		MaxSamples:               samples,
		Timeout:                  e.options.Timeout,
		LookbackDelta:            e.options.Lookback,
		NoStepSubqueryIntervalFn: func(int64) int64 { return subqueryStep.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       true,
		EnableDelayedNameRemoval: e.options.DelayedNameRemoval,
		UseStartTimestamps:       e.options.StartTimestamps,
		Parser:                   Parser(),
	})
	if len(e.engines) < maxEngines {
		e.engines[samples] = made
	}
	return made
}

// fault gives an error of the evaluation its kind.
func (e *Engine) fault(r *Request, err error) error {
	var (
		source   *sourceError
		timeout  promql.ErrQueryTimeout
		canceled promql.ErrQueryCanceled
		many     promql.ErrTooManySamples
	)
	switch {
	case errors.As(err, &source):
		return source.err
	case errors.As(err, &timeout):
		return fault.Wrap(fault.Timeout, err)
	case errors.As(err, &canceled):
		return fault.Wrap(fault.Canceled, err)
	case errors.As(err, &many):
		return fault.New(fault.Exhausted, "%w: more than %d at once: ask for fewer series, a shorter range or a longer step", err, cmp.Or(r.MaxSamples, e.options.MaxSamples))
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fault.Wrap(fault.Invalid, err)
}

// Milliseconds are a time as Prometheus has it.
func Milliseconds(t time.Time) int64 { return timestamp.FromTime(t) }
