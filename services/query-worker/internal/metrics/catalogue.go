// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
)

// Series gives the label sets that may have samples in the range, as record batches of prom.CatalogueSchema, sorted. Figures are those of whole segments.
func (s *Scan) Series(ctx context.Context, q Catalogue, emit func(arrow.RecordBatch) error) error {
	s.limitSeries(q.MaxSeries)
	f, err := s.find(ctx, selectorsOf(&q), q.Start, q.End, lake.Shard{})
	if err != nil {
		return err
	}
	var entries []prom.Entry
	for _, r := range f.rows {
		one := prom.Entry{First: milliseconds(r.parts[0].first)}
		for _, p := range r.parts {
			entry := f.catalogues[p.segment].Entry(p.ordinal)
			one.Samples += entry.Rows
			one.Bytes += entry.Bytes / max(1, int64(r.series.NumTracks()))
			one.First, one.Last = min(one.First, milliseconds(p.first)), max(one.Last, milliseconds(p.last))
		}
		all := r.series.Tracks()
		for _, track := range r.tracks {
			one.Labels = all[track]
			entries = append(entries, one)
		}
	}
	return prom.EncodeEntries(mergeEntries(entries), emit)
}

// selectorsOf are a question's selectors; none choose all.
func selectorsOf(q *Catalogue) [][]*labels.Matcher {
	if len(q.Selectors) == 0 {
		return [][]*labels.Matcher{nil}
	}
	return q.Selectors
}

// limitSeries takes over the limit of a request, where it is the lower one.
func (s *Scan) limitSeries(most int64) {
	if most > 0 && (s.maxSeries == 0 || most < s.maxSeries) {
		s.maxSeries = most
	}
}

// mergeEntries sorts entries, and makes one of those with the same labels.
func mergeEntries(entries []prom.Entry) []prom.Entry {
	slices.SortStableFunc(entries, func(a, b prom.Entry) int { return labels.Compare(a.Labels, b.Labels) })
	merged := entries[:0]
	for _, e := range entries {
		if last := len(merged) - 1; last >= 0 && labels.Equal(merged[last].Labels, e.Labels) {
			to := &merged[last]
			to.Samples, to.Bytes = to.Samples+e.Samples, to.Bytes+e.Bytes
			to.First, to.Last = min(to.First, e.First), max(to.Last, e.Last)
			continue
		}
		merged = append(merged, e)
	}
	return merged
}

// Metrics gives the metric names that may have samples in the range, as record batches of prom.MetricsSchema, sorted. Histograms and summaries have their base names, and
// count with all their series, which are counted once however many segments they are in.
func (s *Scan) Metrics(ctx context.Context, q Catalogue, emit func(arrow.RecordBatch) error) error {
	start, end := nanoseconds(q.Start), untilEnd(q.End)
	catalogues, err := s.catalogues(ctx, start, end, lake.Shard{})
	if err != nil {
		return err
	}
	names := metricNames{byName: map[string]*metricName{}}
	for _, c := range catalogues {
		if c == nil {
			s.Statistics.Pruned.Add(1)
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		names.add(c, s.selected(c, selectorsOf(&q), lake.Shard{}), start, end)
	}
	return prom.EncodeMetrics(names.all(), emit)
}

// metricNames are metrics by their names.
type metricNames struct {
	byName map[string]*metricName
}

type metricName struct {
	prom.Metric
	family  metricfile.MetricFamily
	hashes  map[uint64]struct{}
	counted int64 // rows of the family
}

// add counts rows of a segment.
func (n *metricNames) add(c *metricfile.Catalogue, ordinals []int, start, end int64) {
	found := map[string]bool{}
	for _, ordinal := range ordinals {
		e := c.Entry(ordinal)
		if e.Last < start || e.First > end {
			continue
		}
		name := c.Value(ordinal, model.MetricNameLabel)
		m := n.byName[name]
		if m == nil {
			m = &metricName{Metric: prom.Metric{Name: strings.Clone(name)}, hashes: map[uint64]struct{}{}}
			n.byName[m.Name] = m
		}
		found[name] = true
		m.Samples, m.Bytes = m.Samples+e.Samples, m.Bytes+e.Bytes
		key := e.Hash*31 + uint64(e.Kind)
		if _, known := m.hashes[key]; !known {
			m.hashes[key] = struct{}{}
			m.Series += e.Samples / max(1, e.Rows)
		}
	}
	for _, family := range c.Families() {
		if m := n.byName[family.Name]; found[family.Name] && family.Series > m.counted {
			m.family, m.counted = family, family.Series
		}
	}
}

// all are the metrics, each with the family that most of its rows have in any one segment.
func (n *metricNames) all() []prom.Metric {
	all := make([]prom.Metric, 0, len(n.byName))
	for _, m := range n.byName {
		m.Type, m.Unit, m.Help = string(m.family.Type), m.family.Unit, m.family.Help
		all = append(all, m.Metric)
	}
	slices.SortFunc(all, func(a, b prom.Metric) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// maxExemplars is the most exemplars of an answer.
const maxExemplars = 100_000

// Exemplars gives exemplars of series within the range, as record batches of prom.ExemplarsSchema, sorted by series and time.
func (s *Scan) Exemplars(ctx context.Context, q Catalogue, emit func(arrow.RecordBatch) error) error {
	f, err := s.find(ctx, selectorsOf(&q), q.Start, q.End, lake.Shard{})
	if err != nil {
		return err
	}
	c := s.collector(f, metricfile.WantExemplars)
	var all []prom.Exemplar
	var p metricfile.Points
	for _, r := range f.rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range r.parts {
			part := &r.parts[i]
			if f.catalogues[part.segment].Entry(part.ordinal).Exemplars == 0 {
				continue
			}
			if err := c.read(part, metricfile.WantExemplars, &p); err != nil {
				return err
			}
			all = append(all, s.exemplars(r, part, &p, f)...)
		}
		if len(all) > maxExemplars {
			return fault.New(fault.Exhausted, "query finds more than %d exemplars in one worker: narrow the selector, or choose a shorter range", maxExemplars)
		}
	}
	slices.SortStableFunc(all, func(a, b prom.Exemplar) int {
		return cmp.Or(labels.Compare(a.Series, b.Series), cmp.Compare(a.Time, b.Time))
	})
	return prom.EncodeExemplars(slices.CompactFunc(all, sameExemplar), emit)
}

func sameExemplar(a, b prom.Exemplar) bool {
	return a.Time == b.Time && a.Value == b.Value && labels.Equal(a.Labels, b.Labels) && labels.Equal(a.Series, b.Series)
}

// exemplars are those of a part that are answered.
func (s *Scan) exemplars(r *row, p *part, from *metricfile.Points, f *found) []prom.Exemplar {
	var all []prom.Exemplar
	tracks := r.series.Tracks()
	masked := s.segments[p.segment].Masked
	for _, e := range from.Exemplars {
		if e.Time < f.start || e.Time > f.end || slices.Contains(masked, e.Source) || within(p.hidden, e.Time) || !slices.Contains(r.tracks, e.Track) {
			continue
		}
		all = append(all, prom.Exemplar{Series: tracks[e.Track], Labels: e.Labels.Copy(), Value: e.Value, Time: milliseconds(e.Time)})
	}
	return all
}
