// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
)

// Samples gives the samples of series as record batches of prom.SeriesSchema. They come as they are read, in no order, and a label set may come several times, where
// differently shaped rows stand for it.
func (s *Scan) Samples(ctx context.Context, q Samples, emit func(arrow.RecordBatch) error) error {
	s.limitSamples(q.MaxSamples)
	s.starts = q.Starts
	f, err := s.find(ctx, [][]*labels.Matcher{q.Matchers}, q.Start, q.End, q.Shard)
	if err != nil {
		return err
	}
	var sending sync.Mutex
	e := prom.NewEncoder(emit)
	defer e.Release()
	err = s.each(ctx, f, q.Start, q.End, func(series []prom.Series) error {
		sending.Lock()
		defer sending.Unlock()
		for i := range series {
			if err := e.Add(&series[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.Flush()
}

// rowsAtOnce is how many neighbouring rows one goroutine takes: their columns lie in the same pages.
const rowsAtOnce = 32

// each gives the Prometheus series of found rows, as they are read, from several goroutines at once.
func (s *Scan) each(ctx context.Context, f *found, start, end int64, give func([]prom.Series) error) error {
	return s.share(ctx, len(f.rows), rowsAtOnce, func() (func(int) error, func() error) {
		c := s.collector(f, metricfile.WantValues)
		return func(i int) error {
			r := f.rows[i]
			c.want = s.wanted(r)
			p, err := c.collect(r)
			if err != nil || len(p.times) == 0 {
				return err
			}
			if err := s.countSamples(int64(len(p.times)) * int64(len(r.tracks))); err != nil {
				return err
			}
			return give(expand(r, p, start, end))
		}, func() error { return nil }
	})
}

// wanted are the columns that the chosen series of a row need.
func (s *Scan) wanted(r *row) metricfile.Columns {
	want := metricfile.WantTotals
	if needsParts(r) {
		want |= metricfile.WantParts
	}
	if r.series.Delta || s.starts {
		want |= metricfile.WantStarts
	}
	return want
}

// needsParts reports whether more than sum and count of the row's points matter. The bucket without a bound is its count.
func needsParts(r *row) bool {
	switch r.series.Kind {
	case metricfile.KindClassic, metricfile.KindSummary:
		return r.tracks[0] < len(r.series.Bounds)
	}
	return true
}

// countSamples counts samples of selected series.
func (s *Scan) countSamples(n int64) error {
	if total := s.Statistics.Samples.Add(n); s.maxSamples > 0 && total > s.maxSamples {
		return fault.New(fault.Exhausted, "query reads more than %d samples in one worker (max_query_samples): choose fewer series or a shorter range", s.maxSamples)
	}
	return nil
}

// expand makes the chosen Prometheus series of a row's points, which they do not share memory with.
func expand(r *row, p *points, start, end int64) []prom.Series {
	if p.native {
		s := prom.Series{
			Labels: r.series.Labels, Delta: r.series.Delta,
			HistogramTimes: slices.Clone(p.times), HistogramStarts: startsOf(p), Histograms: slices.Clone(p.histograms),
		}
		prom.Hints(&s)
		s.Trim(start, end)
		if s.Len() == 0 {
			return nil
		}
		return []prom.Series{s}
	}
	all := r.series.Tracks()
	series := make([]prom.Series, 0, len(r.tracks))
	times, starts := slices.Clone(p.times), startsOf(p)
	p.cumulate()
	for _, track := range r.tracks {
		series = append(series, prom.Series{Labels: all[track], Delta: r.series.Delta, Times: times, Starts: starts, Values: p.track(r.series, track)})
	}
	return series
}

func startsOf(p *points) []int64 {
	if len(p.starts) == 0 {
		return nil
	}
	return slices.Clone(p.starts)
}

// track are the values of one Prometheus series, in memory of their own. Buckets have been cumulated.
func (p *points) track(s *metricfile.Series, track int) []float64 {
	floats, numbers := p.column(s, track)
	if numbers == nil {
		out := slices.Clone(floats)
		if len(p.quantiles) > 0 {
			p.markStale(out)
		}
		return out
	}
	out := make([]float64, len(numbers))
	for i, n := range numbers {
		out[i] = float64(n)
	}
	p.markStale(out)
	return out
}

// markStale puts stale markers where the whole point is one.
func (p *points) markStale(out []float64) {
	for i, v := range p.values {
		if value.IsStaleNaN(v) {
			out[i] = math.Float64frombits(value.StaleNaN)
		}
	}
}

// column is where the values of one Prometheus series of a row are: in one of the two. Buckets have been cumulated.
func (p *points) column(s *metricfile.Series, track int) ([]float64, []uint64) {
	bounds := len(s.Bounds)
	switch s.Kind {
	case metricfile.KindClassic:
		if track < bounds {
			return nil, p.buckets[track]
		}
		if track == bounds { // le="+Inf"
			return nil, p.counts
		}
		track -= bounds + 1
	case metricfile.KindSummary:
		if track < bounds {
			return p.quantiles[track], nil
		}
		track -= bounds
	default:
		return p.values, nil
	}
	if track == 0 && !s.NoSum {
		return p.values, nil
	}
	return nil, p.counts
}

// Source is the scan as the engine's source.
func (s *Scan) source() prom.Source { return source{s} }

type source struct{ *Scan }

// Select implements prom.Source.
func (s source) Select(ctx context.Context, q prom.Selection) ([]prom.Series, error) {
	return s.selectSeries(ctx, q.Matchers, q.Start, q.End, q.Shard)
}

func (s *Scan) selectSeries(ctx context.Context, matchers []*labels.Matcher, start, end int64, shard lake.Shard) ([]prom.Series, error) {
	f, err := s.find(ctx, [][]*labels.Matcher{matchers}, start, end, shard)
	if err != nil {
		return nil, err
	}
	var adding sync.Mutex
	var all []prom.Series
	err = s.each(ctx, f, start, end, func(series []prom.Series) error {
		if err := s.memory.take(sizeOf(series)); err != nil {
			return err
		}
		adding.Lock()
		defer adding.Unlock()
		all = append(all, series...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return prom.Sorted(all), nil
}

// sizeOf is about how much memory series take; times are shared.
func sizeOf(series []prom.Series) int64 {
	var bytes int64
	for i := range series {
		s := &series[i]
		bytes += 128 + int64(s.Labels.ByteSize()) + 8*int64(len(s.Values))
		for _, h := range s.Histograms {
			bytes += int64(h.Size())
		}
		if i == 0 {
			bytes += 8 * int64(len(s.Times)+len(s.Starts)+len(s.HistogramTimes)+len(s.HistogramStarts))
		}
	}
	return bytes
}
