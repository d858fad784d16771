// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// merged joins the answers of all slices and shards.
func (q *question) merged() ([]prom.Series, error) {
	var pieces []piece
	for i, slice := range q.answers {
		series, err := q.mergedSlice(slice)
		if err != nil {
			return nil, err
		}
		for _, one := range series {
			pieces = append(pieces, piece{slice: i, Series: one})
		}
	}
	return joined(pieces, len(q.answers) > 1)
}

// mergedSlice merges the shards of one slice.
func (q *question) mergedSlice(slice [][]*seriesDecoder) ([]prom.Series, error) {
	if q.shards == 1 {
		return seriesOf(slice[0][0]), nil
	}
	switch q.leaf.Merge {
	case promplan.MergeNone, promplan.MergeBest:
		var all []prom.Series
		for _, d := range slice[0] {
			all = append(all, seriesOf(d)...)
		}
		return all, nil
	case promplan.MergeAverage:
		return averages(slice[0], slice[1])
	}
	return mergeGroups(slice[0], q.leaf.Merge)
}

func seriesOf(d *seriesDecoder) []prom.Series {
	if d == nil {
		return nil
	}
	return d.series
}

// piece is a series in a slice of time.
type piece struct {
	slice int
	prom.Series
}

// joined sorts series by labels and strings their slices together. A series that is twice in one slice comes of two shards, which each have a part of its samples.
func joined(pieces []piece, sliced bool) ([]prom.Series, error) {
	byLabels := func(a, b piece) int { return cmp.Or(labels.Compare(a.Labels, b.Labels), cmp.Compare(a.slice, b.slice)) }
	if !slices.IsSortedFunc(pieces, byLabels) {
		slices.SortFunc(pieces, byLabels)
	}
	out := make([]prom.Series, 0, len(pieces))
	for i, p := range pieces {
		if i == 0 || !labels.Equal(p.Labels, pieces[i-1].Labels) {
			out = append(out, p.Series)
			continue
		}
		if !sliced || p.slice == pieces[i-1].slice {
			return nil, errUnmerged
		}
		last := &out[len(out)-1]
		last.Times, last.Values = append(last.Times, p.Times...), append(last.Values, p.Values...)
		last.HistogramTimes, last.Histograms = append(last.HistogramTimes, p.HistogramTimes...), append(last.Histograms, p.Histograms...)
	}
	return out, nil
}

// groups are series of shards by labels, in the order of shards.
func groups(shards []*seriesDecoder) [][]*prom.Series {
	at := map[uint64][]int{}
	var out [][]*prom.Series
	for _, d := range shards {
		all := seriesOf(d)
		for i := range all {
			one := &all[i]
			hash := one.Labels.Hash()
			found := slices.IndexFunc(at[hash], func(g int) bool { return labels.Equal(out[g][0].Labels, one.Labels) })
			if found < 0 {
				at[hash] = append(at[hash], len(out))
				out = append(out, []*prom.Series{one})
				continue
			}
			g := at[hash][found]
			out[g] = append(out[g], one)
		}
	}
	return out
}

// mergeGroups merges the series of equal labels.
func mergeGroups(shards []*seriesDecoder, by promplan.Merge) ([]prom.Series, error) {
	var out []prom.Series
	for _, group := range groups(shards) {
		if len(group) == 1 {
			out = append(out, *group[0])
			continue
		}
		merged, err := mergeGroup(group, by)
		if err != nil {
			return nil, err
		}
		out = append(out, merged)
	}
	return out, nil
}

func mergeGroup(group []*prom.Series, by promplan.Merge) (prom.Series, error) {
	out := prom.Series{Labels: group[0].Labels}
	if err := mergeFloats(&out, group, by); err != nil {
		return out, err
	}
	if err := mergeHistograms(&out, group); err != nil {
		return out, err
	}
	if meets(out.Times, out.HistogramTimes) {
		return out, errUnmerged // a float of one shard, a histogram of another
	}
	return out, nil
}

// cursor walks through the times of a group's series.
type cursor struct {
	at    []int
	times func(*prom.Series) []int64
	group []*prom.Series
}

// next returns the next time of any series; false: there is none.
func (c *cursor) next() (int64, bool) {
	least := int64(math.MaxInt64)
	for i, s := range c.group {
		if times := c.times(s); c.at[i] < len(times) {
			least = min(least, times[c.at[i]])
		}
	}
	return least, least != math.MaxInt64
}

// take calls a function with the index of a time in each series that has it.
func (c *cursor) take(t int64, each func(s *prom.Series, i int)) {
	for i, s := range c.group {
		if times := c.times(s); c.at[i] < len(times) && times[c.at[i]] == t {
			each(s, c.at[i])
			c.at[i]++
		}
	}
}

func floatTimes(s *prom.Series) []int64     { return s.Times }
func histogramTimes(s *prom.Series) []int64 { return s.HistogramTimes }

func mergeFloats(out *prom.Series, group []*prom.Series, by promplan.Merge) error {
	c := cursor{at: make([]int, len(group)), times: floatTimes, group: group}
	out.Times, out.Values = make([]int64, 0, len(group[0].Times)), make([]float64, 0, len(group[0].Times))
	for t, ok := c.next(); ok; t, ok = c.next() {
		var m merging
		c.take(t, func(s *prom.Series, i int) { m.add(s.Values[i], by) })
		if by == promplan.MergeSum && m.cancels() {
			return errUnmerged
		}
		out.Times, out.Values = append(out.Times, t), append(out.Values, m.value(by))
	}
	return nil
}

// mostCancellation is how much larger the summands may be than the sum: each of them is rounded to a part of 2^53.
const mostCancellation = 1e6

// merging is one merged value.
type merging struct {
	seen                    bool
	held, compensation, sum float64 // sum is that of magnitudes
}

func (m *merging) add(v float64, by promplan.Merge) {
	switch {
	case by == promplan.MergeSum:
		m.held, m.compensation = kahansum.Inc(v, m.held, m.compensation)
		m.sum += math.Abs(v)
	case !m.seen, math.IsNaN(m.held), by == promplan.MergeMin && v < m.held, by == promplan.MergeMax && v > m.held:
		m.held = v
	}
	m.seen = true
}

func (m *merging) value(by promplan.Merge) float64 {
	if by == promplan.MergeSum && !math.IsInf(m.held, 0) {
		return m.held + m.compensation
	}
	return m.held
}

// cancels reports whether so much of the summands is lost in the sum that their own rounding shows.
func (m *merging) cancels() bool {
	sum := math.Abs(m.value(promplan.MergeSum))
	return m.sum > mostCancellation*sum && !math.IsInf(m.sum, 0)
}

func mergeHistograms(out *prom.Series, group []*prom.Series) error {
	c := cursor{at: make([]int, len(group)), times: histogramTimes, group: group}
	for t, ok := c.next(); ok; t, ok = c.next() {
		var sum *histogram.FloatHistogram
		var failed error
		c.take(t, func(s *prom.Series, i int) {
			if sum == nil {
				sum = s.Histograms[i].Copy()
				return
			}
			added, collision, reconciled, err := sum.Add(s.Histograms[i])
			if err != nil || collision || reconciled {
				failed = errUnmerged // the engine has something to say about it
				return
			}
			sum = added
		})
		if failed != nil {
			return failed
		}
		out.HistogramTimes, out.Histograms = append(out.HistogramTimes, t), append(out.Histograms, sum.Compact(0))
	}
	return nil
}

// meets reports whether two rising lists have a time in common.
func meets(a, b []int64) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			return true
		case a[i] < b[j]:
			i++
		default:
			j++
		}
	}
	return false
}

// averages divides merged sums by merged counts. Means of histograms, and of what no sum can hold, are another matter.
func averages(sums, counts []*seriesDecoder) ([]prom.Series, error) {
	for _, d := range sums {
		for _, s := range seriesOf(d) {
			if len(s.Histograms) > 0 || slices.ContainsFunc(s.Values, notFinite) {
				return nil, errUnmerged
			}
		}
	}
	sum, err := mergeGroups(sums, promplan.MergeSum)
	if err != nil {
		return nil, err
	}
	count, err := mergeGroups(counts, promplan.MergeSum)
	if err != nil {
		return nil, err
	}
	byLabels := func(a, b prom.Series) int { return labels.Compare(a.Labels, b.Labels) }
	slices.SortFunc(sum, byLabels)
	slices.SortFunc(count, byLabels)
	if len(sum) != len(count) {
		return nil, fault.New(fault.Internal, "workers answered %d sums and %d counts", len(sum), len(count))
	}
	for i := range sum {
		if !slices.Equal(sum[i].Times, count[i].Times) {
			return nil, fault.New(fault.Internal, "workers answered a sum and a count of %s at different times", sum[i].Labels)
		}
		for j, n := range count[i].Values {
			if sum[i].Values[j] /= n; notFinite(sum[i].Values[j]) {
				return nil, errUnmerged
			}
		}
	}
	return sum, nil
}

func notFinite(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
