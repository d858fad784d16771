// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"slices"
	"time"

	kitlog "github.com/go-kit/log"
	"github.com/grafana/dskit/user"
	"github.com/grafana/loki/v3/pkg/iter"
	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql"
	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// evaluate has Loki's engine evaluate an expression over the segments' rows.
func (s *Scan) evaluate(ctx context.Context, q Samples) ([]series, error) {
	start := q.Start
	if q.Step == 0 {
		start = q.End
	}
	params, err := logql.NewLiteralParams(q.Expression, time.Unix(0, start).UTC(), time.Unix(0, q.End).UTC(), q.Step, 0, logproto.FORWARD, 0, nil, nil)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	querier := &querier{scan: s}
	engine := logql.NewEngine(logql.EngineOpts{}, querier, logql.NoLimits, kitlog.NewNopLogger())
	// Loki wants a tenant; whose rows these are was decided by what segments were given.
	result, err := engine.Query(params).Exec(user.InjectOrgID(ctx, "lake"))
	switch {
	case querier.err != nil:
		return nil, querier.err // Loki wraps errors so that their kind is lost
	case ctx.Err() != nil:
		return nil, fault.Wrap(fault.Canceled, ctx.Err())
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, err)
	}
	return seriesOf(result.Data)
}

func seriesOf(value parser.Value) ([]series, error) {
	var all []series
	switch v := value.(type) {
	case promql.Vector:
		for _, sample := range v {
			all = append(all, series{sample.Metric.String(), []point{{sample.T, sample.F}}})
		}
	case promql.Matrix:
		for _, s := range v {
			one := series{text: s.Metric.String()}
			for _, p := range s.Floats {
				one.points = append(one.points, point{p.T, p.F})
			}
			all = append(all, one)
		}
	case promql.Scalar:
		all = append(all, series{"{}", []point{{v.T, v.V}}})
	default:
		return nil, fault.New(fault.Unsupported, "an answer of type %s", value.Type())
	}
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Compare(a.text, b.text) })
	return all, nil
}

// querier is Loki's view of a scan.
type querier struct {
	scan *Scan
	err  error // the first one
}

// SelectLogs implements logql.Querier. Metric queries do not ask for it.
func (q *querier) SelectLogs(context.Context, logql.SelectLogParams) (iter.EntryIterator, error) {
	return nil, fault.New(fault.Invalid, "a sample expression was expected")
}

// SelectSamples implements logql.Querier.
func (q *querier) SelectSamples(ctx context.Context, params logql.SelectSampleParams) (iter.SampleIterator, error) {
	found, err := q.samples(ctx, params)
	if err != nil {
		q.err = cmp.Or(q.err, err)
		return nil, err
	}
	return found, nil
}

func (q *querier) samples(ctx context.Context, params logql.SelectSampleParams) (iter.SampleIterator, error) {
	expr, err := params.Expr()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	selector, err := expr.Selector()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	sel := plan.Select(selector)
	// Loki's range is closed at its end by one nanosecond more.
	cuts, err := q.scan.cuts(ctx, &sel, params.Start.UnixNano(), params.End.UnixNano())
	if err != nil {
		return nil, err
	}
	all := sampled{}
	err = q.scan.share(ctx, cuts, func(ctx context.Context, next func() *cut) (func() error, error) {
		own := sampled{}
		for k := next(); k != nil; k = next() {
			if err := q.sample(ctx, k, expr, own); err != nil {
				return nil, err
			}
		}
		return func() error { all.merge(own); return nil }, nil
	})
	if err != nil {
		return nil, err
	}
	return all.iterator(), nil
}

// sample runs an expression's extractors on the rows of a cut.
func (q *querier) sample(ctx context.Context, k *cut, expr syntax.SampleExpr, into sampled) error {
	file, err := q.scan.open(ctx, k)
	if err != nil {
		return err
	}
	defer file.Release()
	q.scan.looked(k)
	own, err := syntax.Clone(expr)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	extractors, err := own.Extractors()
	if err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	var p projection
	p.time()
	p.stream()
	p.body()
	p.structured(k, plan.Names{All: true})
	structured := newStructuredOf(k, &p)
	visit := func(r *row) error {
		stream := &k.contents.streams[r.Stream]
		metadata := structured.labels(r)
		for _, e := range extractors {
			samples, _ := e.ForStream(stream.labels).ProcessString(r.Time, r.Body, metadata)
			for _, sample := range samples {
				if err := into.add(q.scan, sample, r.Time, stream.hash); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if !q.scan.byDirect(k) {
		return q.scan.rows(ctx, k.from(file, p.columns(), k.conditions(k.streams, k.start, k.end)), &p, visit)
	}
	d, err := q.scan.openDirect(k, file)
	if err != nil {
		return err
	}
	defer d.close()
	return d.each(ctx, &p, unordered, anyRow, visit)
}

// sampled holds samples by their labels.
type sampled map[string]*logproto.Series

func (s sampled) add(scan *Scan, sample log.ExtractedSample, time int64, hash uint64) error {
	const each, fixed = 24, 200
	text, size := sample.Labels.String(), each
	of := s[text]
	if of == nil {
		of = &logproto.Series{Labels: text, StreamHash: hash}
		s[text] = of
		size += fixed + len(text)
	}
	// Without a hash Loki takes no sample for a copy of another.
	of.Samples = append(of.Samples, logproto.Sample{Timestamp: time, Value: sample.Value})
	return scan.memory.take(size)
}

func (s sampled) merge(other sampled) {
	for text, more := range other {
		if of := s[text]; of != nil {
			of.Samples = append(of.Samples, more.Samples...)
			continue
		}
		s[text] = more
	}
}

// iterator gives the samples in the order of time; equal times in that of values, so that the answer does not depend on who was faster.
func (s sampled) iterator() iter.SampleIterator {
	var its []iter.SampleIterator
	for _, of := range s {
		slices.SortFunc(of.Samples, func(a, b logproto.Sample) int {
			return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Value, b.Value))
		})
		its = append(its, iter.NewSeriesIterator(*of))
	}
	return iter.NewSortSampleIterator(its)
}
