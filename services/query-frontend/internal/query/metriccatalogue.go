// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// truncatedWarning is Prometheus' own.
const truncatedWarning = "results truncated due to limit"

// beginCatalogue looks up the segments of [start, end].
func (f *Frontend) beginCatalogue(ctx context.Context, start, end time.Time) (*metricRun, promplan.Span, error) {
	span := promplan.Span{Start: start.UnixMilli(), End: end.UnixMilli()}
	organization, err := f.Caller(ctx)
	if err != nil {
		return nil, span, err
	}
	if end.Before(start) {
		return nil, span, fault.New(fault.Invalid, "end timestamp must not be before start time")
	}
	r := f.metricRun(ctx, organization, 0)
	if err := r.lookup(span, r.goneTiers(organization, span)); err != nil {
		r.end(err)
		return nil, span, err
	}
	return r, span, nil
}

// MetricSeries lists the series with samples in [start, end] that any of the matcher sets chooses; none: all series. A limit of zero is none.
func (f *Frontend) MetricSeries(ctx context.Context, matchers [][]*labels.Matcher, start, end time.Time, limit int) (MetricCatalogue, error) {
	r, span, err := f.beginCatalogue(ctx, start, end)
	if err != nil {
		return MetricCatalogue{}, err
	}
	entries, err := r.session.Series(r.ctx, matchers, span)
	if err != nil {
		return MetricCatalogue{Statistics: r.end(err)}, err
	}
	var out MetricCatalogue
	if limit > 0 && len(entries) > limit {
		entries, out.Warnings = entries[:limit], []string{truncatedWarning}
	}
	out.Series = make([]MetricSeries, len(entries))
	for i, e := range entries {
		out.Series[i] = MetricSeries(e)
	}
	r.returned.Store(int64(len(entries)))
	out.Statistics = r.end(nil)
	return out, nil
}

// MetricLabels lists label names of the same series.
func (f *Frontend) MetricLabels(ctx context.Context, matchers [][]*labels.Matcher, start, end time.Time, limit int) (Names, error) {
	return f.names(ctx, matchers, start, end, limit, func(to map[string]struct{}, l labels.Labels) {
		l.Range(func(one labels.Label) { to[one.Name] = struct{}{} })
	})
}

// MetricLabelValues lists the values of a label of the same series.
func (f *Frontend) MetricLabelValues(ctx context.Context, name string, matchers [][]*labels.Matcher, start, end time.Time, limit int) (Names, error) {
	return f.names(ctx, matchers, start, end, limit, func(to map[string]struct{}, l labels.Labels) {
		if value := l.Get(name); value != "" {
			to[value] = struct{}{}
		}
	})
}

func (f *Frontend) names(
	ctx context.Context, matchers [][]*labels.Matcher, start, end time.Time, limit int, collect func(map[string]struct{}, labels.Labels),
) (Names, error) {
	found, err := f.MetricSeries(ctx, matchers, start, end, 0)
	if err != nil {
		return Names{}, err
	}
	distinct := map[string]struct{}{}
	for i := range found.Series {
		collect(distinct, found.Series[i].Labels)
	}
	out := Names{All: slices.Sorted(maps.Keys(distinct)), Statistics: found.Statistics}
	if limit > 0 && len(out.All) > limit {
		out.All, out.Warnings = out.All[:limit], []string{truncatedWarning}
	}
	out.Statistics.Returned = int64(len(out.All))
	return out, nil
}

// Metrics lists the metrics whose series any of the matcher sets chooses; none: all.
func (f *Frontend) Metrics(ctx context.Context, matchers [][]*labels.Matcher, start, end time.Time) (Metrics, error) {
	r, span, err := f.beginCatalogue(ctx, start, end)
	if err != nil {
		return Metrics{}, err
	}
	found, err := r.session.Metrics(r.ctx, matchers, span)
	out := Metrics{All: make([]Metric, len(found))}
	for i, m := range found {
		out.All[i] = Metric(m)
	}
	r.returned.Store(int64(len(found)))
	out.Statistics = r.end(err)
	return out, err
}

// Exemplars lists the exemplars in [start, end] of the series that the selectors of a PromQL query choose.
func (f *Frontend) Exemplars(ctx context.Context, query string, start, end time.Time) (Exemplars, error) {
	parsed, err := prom.Parse(query)
	if err != nil {
		return Exemplars{}, err
	}
	r, span, err := f.beginCatalogue(ctx, start, end)
	if err != nil {
		return Exemplars{}, err
	}
	var found []prom.Exemplar
	if sets := parser.ExtractSelectors(parsed); len(sets) > 0 {
		found, err = r.session.Exemplars(r.ctx, sets, span)
	}
	var out Exemplars
	for i, e := range found {
		if i == 0 || !labels.Equal(e.Series, found[i-1].Series) {
			out.Series = append(out.Series, SeriesExemplars{Labels: e.Series})
		}
		last := &out.Series[len(out.Series)-1]
		last.Exemplars = append(last.Exemplars, Exemplar{Labels: e.Labels, Value: e.Value, Time: e.Time})
	}
	r.returned.Store(int64(len(found)))
	out.Statistics = r.end(err)
	return out, err
}

// ReadSamples calls each with the samples of series as they were received, ordered by labels, each series once. An error of each ends it. It is remote read's.
func (f *Frontend) ReadSamples(ctx context.Context, req SamplesRequest, each func(RawSeries) error) (Statistics, error) {
	r, span, err := f.beginCatalogue(ctx, time.UnixMilli(req.Start), time.UnixMilli(req.End))
	if err != nil {
		return Statistics{}, err
	}
	r.kind = "read"
	series, err := r.session.Read(r.ctx, req.Matchers, span)
	for i := 0; err == nil && i < len(series); i++ {
		s := &series[i]
		r.returned.Add(int64(s.Len()))
		err = each(RawSeries{Labels: s.Labels, Times: s.Times, Values: s.Values, HistogramTimes: s.HistogramTimes, Histograms: s.Histograms})
	}
	return r.end(err), err
}

// defaultEntries is how many entries the lists of a cardinality have.
const defaultEntries = 20

// Cardinality counts series by metric and label.
func (f *Frontend) Cardinality(ctx context.Context, req CardinalityRequest) (Cardinality, error) {
	limit := cmp.Or(req.Limit, defaultEntries)
	if limit < 0 {
		return Cardinality{}, fault.New(fault.Invalid, "limit must not be negative")
	}
	r, span, err := f.beginCatalogue(ctx, req.Start, req.End)
	if err != nil {
		return Cardinality{}, err
	}
	entries, err := r.session.Series(r.ctx, req.Matchers, span)
	if err != nil {
		return Cardinality{Statistics: r.end(err)}, err
	}
	metrics, err := r.session.Metrics(r.ctx, req.Matchers, span)
	if err != nil {
		return Cardinality{Statistics: r.end(err)}, err
	}
	before, err := f.seriesBefore(ctx, req)
	c := newCounter(entries, before)
	out := c.cardinality(metrics, limit)
	r.returned.Store(int64(len(entries)))
	out.Statistics = r.end(err)
	return out, err
}

// seriesBefore returns the names of metrics of the series of the period before, by the hashes of their labels.
func (f *Frontend) seriesBefore(ctx context.Context, req CardinalityRequest) (map[uint64]string, error) {
	r, span, err := f.beginCatalogue(ctx, req.Start.Add(-req.End.Sub(req.Start)), req.Start.Add(-time.Millisecond))
	if err != nil {
		if errors.Is(err, fault.Invalid) { // a period of no length
			return nil, nil
		}
		return nil, err
	}
	before, err := r.session.Names(r.ctx, req.Matchers, span)
	r.end(err)
	return before, err
}

// counter counts series.
type counter struct {
	out     Cardinality
	metrics map[string]*MetricCardinality
	labels  map[string]map[string]int64
}

func newCounter(entries []prom.Entry, before map[uint64]string) *counter {
	c := &counter{metrics: map[string]*MetricCardinality{}, labels: map[string]map[string]int64{}}
	for i := range entries {
		e := &entries[i]
		hash := e.Labels.Hash()
		_, known := before[hash]
		delete(before, hash)
		c.series(e, !known)
	}
	for _, name := range before {
		c.out.Vanished++
		c.metric(name).Vanished++
	}
	return c
}

func (c *counter) metric(name string) *MetricCardinality {
	if c.metrics[name] == nil {
		c.metrics[name] = &MetricCardinality{Metric: Metric{Name: name}}
	}
	return c.metrics[name]
}

func (c *counter) series(e *prom.Entry, isNew bool) {
	m := c.metric(e.Labels.Get(model.MetricNameLabel))
	c.out.Series, c.out.Samples, c.out.Bytes = c.out.Series+1, c.out.Samples+e.Samples, c.out.Bytes+e.Bytes
	m.Series, m.Samples, m.Bytes = m.Series+1, m.Samples+e.Samples, m.Bytes+e.Bytes
	if isNew {
		c.out.New++
		m.New++
	}
	e.Labels.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel {
			return
		}
		if c.labels[l.Name] == nil {
			c.labels[l.Name] = map[string]int64{}
		}
		c.labels[l.Name][l.Value]++
	})
}

// cardinality cuts what was counted to the largest entries, and says what is known of the metrics.
func (c *counter) cardinality(families []prom.Metric, limit int) Cardinality {
	known := map[string]prom.Metric{}
	for _, m := range families {
		if _, twice := known[m.Name]; !twice {
			known[m.Name] = m
		}
	}
	for _, m := range c.metrics {
		m.describe(known)
		c.out.Metrics = append(c.out.Metrics, *m)
	}
	c.out.Metrics = largest(c.out.Metrics, limit, func(m *MetricCardinality) (int64, string) { return m.Series, m.Name })
	for name, values := range c.labels {
		l := LabelCardinality{Name: name, Values: int64(len(values))}
		for value, n := range values {
			l.Series += n
			l.Top = append(l.Top, ValueCardinality{Value: value, Series: n})
		}
		l.Top = largest(l.Top, limit, func(v *ValueCardinality) (int64, string) { return v.Series, v.Value })
		c.out.Labels = append(c.out.Labels, l)
	}
	c.out.Labels = largest(c.out.Labels, limit, func(l *LabelCardinality) (int64, string) { return l.Series, l.Name })
	return c.out
}

// describe finds the family of a metric: that of its own name, or of the histogram or summary that it is a part of.
func (m *MetricCardinality) describe(known map[string]prom.Metric) {
	for _, name := range families(m.Name) {
		if family, ok := known[name]; ok {
			m.Type, m.Unit, m.Help = family.Type, family.Unit, family.Help
			return
		}
	}
}

// families are the names under which the family of a metric may be known.
func families(name string) []string {
	out := []string{name}
	for _, suffix := range []string{"_bucket", "_sum", "_count", "_total"} {
		if base, ok := strings.CutSuffix(name, suffix); ok {
			out = append(out, base)
		}
	}
	return out
}

// largest returns the largest entries, of equal ones the first by name.
func largest[T any](all []T, limit int, key func(*T) (int64, string)) []T {
	slices.SortFunc(all, func(a, b T) int {
		sizeA, nameA := key(&a)
		sizeB, nameB := key(&b)
		return cmp.Or(cmp.Compare(sizeB, sizeA), cmp.Compare(nameA, nameB))
	})
	return slices.Clip(all[:min(len(all), limit)])
}
