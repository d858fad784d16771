// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/util/kahansum"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// Merger makes a rollup of finer rollups, or of the rollups of several windows. It is for one goroutine.
type Merger struct {
	out      metricfile.Rollup
	delta    bool
	native   bool
	width    int64
	sketcher sketcher
	// compensations are of the sums of the last bucket, a track each; compensation of its sum of native histograms.
	compensations []float64
	compensation  *histogram.FloatHistogram
}

// Begin begins the rollup of a row at a resolution, which is a multiple of that of what will be added.
func (m *Merger) Begin(s *metricfile.Series, resolution time.Duration) {
	empty(&m.out)
	m.delta, m.native, m.width = s.Delta, s.Kind == metricfile.KindHistogram, resolution.Milliseconds()
	m.compensations = slices.Grow(m.compensations[:0], s.NumTracks())[:s.NumTracks()]
	m.compensation = nil
	if !m.native {
		m.out.Tracks = tracks(m.out.Tracks, s.NumTracks())
	}
}

// Add adds buckets, which are not before those added already. Nothing of r is kept.
func (m *Merger) Add(r *metricfile.Rollup) error {
	if !m.native && len(r.Tracks) != len(m.out.Tracks) {
		return fault.New(fault.Internal, "a rollup of %d tracks where %d are wanted", len(r.Tracks), len(m.out.Tracks))
	}
	if m.width <= 0 {
		return fault.New(fault.Invalid, "no resolution of rollups")
	}
	for i := range r.Ends {
		end := endOf(r.Ends[i], m.width)
		last := len(m.out.Ends) - 1
		switch {
		case last < 0 || m.out.Ends[last] < end:
			m.close()
			m.open(r, i, end)
		case m.out.Ends[last] > end || r.Counts[i] > 0 && m.out.Counts[last] > 0 && r.FirstTimes[i] < m.out.LastTimes[last]:
			return fault.New(fault.Internal, "a bucket that ends at %d ms comes after one that ends at %d ms", r.Ends[i], m.out.Ends[last])
		default:
			m.join(r, i, last)
		}
	}
	return nil
}

// Rollup returns what was made since Begin. It is good until the next Begin.
func (m *Merger) Rollup() *metricfile.Rollup {
	m.close()
	return &m.out
}

// open begins a bucket.
func (m *Merger) open(r *metricfile.Rollup, i int, end int64) {
	o := &m.out
	o.Ends, o.Counts = append(o.Ends, end), append(o.Counts, r.Counts[i])
	o.FirstTimes, o.LastTimes, o.StaleTimes = append(o.FirstTimes, r.FirstTimes[i]), append(o.LastTimes, r.LastTimes[i]), append(o.StaleTimes, r.StaleTimes[i])
	for n := range o.Tracks {
		appendBucket(&o.Tracks[n], bucketAt(&r.Tracks[n], i))
		m.compensations[n] = 0
	}
	if m.native {
		appendHistograms(o, copied(r, i))
	}
	// Once a rollup has sketches it has one for each bucket; those of before have none.
	if len(r.Sketches) > 0 || len(o.Sketches) > 0 {
		for len(o.Sketches) < len(o.Ends)-1 {
			o.Sketches = append(o.Sketches, nil)
		}
		o.Sketches = append(o.Sketches, slices.Clone(sketchAt(r, i)))
	}
}

// close ends the sums of the last bucket.
func (m *Merger) close() {
	last := len(m.out.Ends) - 1
	if last < 0 {
		return
	}
	for n := range m.out.Tracks {
		t := &m.out.Tracks[n]
		t.Sum[last] = compensated(t.Sum[last], m.compensations[n])
		m.compensations[n] = 0
		if m.delta {
			t.Increase[last] = t.Sum[last]
		}
	}
	if m.compensation != nil && m.out.Sum[last] != nil {
		m.out.Sum[last] = added(m.out.Sum[last], m.compensation)
	}
	m.compensation = nil
}

// join adds bucket i of r to the last bucket.
func (m *Merger) join(r *metricfile.Rollup, i, last int) {
	o := &m.out
	o.StaleTimes[last] = max(o.StaleTimes[last], r.StaleTimes[i])
	if r.Counts[i] == 0 {
		return
	}
	if o.Counts[last] == 0 {
		m.replace(r, i, last)
		return
	}
	o.LastTimes[last] = r.LastTimes[i]
	for n := range o.Tracks {
		m.joinTrack(&o.Tracks[n], bucketAt(&r.Tracks[n], i), n, r.Counts[i] == 1, o.Counts[last] == 1)
	}
	if m.native {
		m.joinHistograms(copied(r, i), last)
	}
	o.Counts[last] += r.Counts[i]
	if len(o.Sketches) > 0 {
		o.Sketches[last] = m.sketcher.merged(o.Sketches[last], sketchAt(r, i))
	}
}

// replace puts a bucket in the place of one that has stale markers alone.
func (m *Merger) replace(r *metricfile.Rollup, i, last int) {
	o := &m.out
	o.Counts[last], o.FirstTimes[last], o.LastTimes[last] = r.Counts[i], r.FirstTimes[i], r.LastTimes[i]
	for n := range o.Tracks {
		t, b := &o.Tracks[n], bucketAt(&r.Tracks[n], i)
		t.First[last], t.Last[last], t.Increase[last], t.Sum[last], t.Min[last], t.Max[last] = b.first, b.last, b.increase, b.sum, b.min, b.max
	}
	if m.native {
		h := copied(r, i)
		o.First[last], o.Last[last], o.Increase[last], o.Sum[last] = h.first, h.last, h.increase, h.sum
	}
	if len(r.Sketches) > 0 || len(o.Sketches) > 0 {
		for len(o.Sketches) < len(o.Ends) {
			o.Sketches = append(o.Sketches, nil)
		}
		o.Sketches[last] = slices.Clone(sketchAt(r, i))
	}
}

func (m *Merger) joinTrack(t *metricfile.Track, b bucket, n int, single, wasSingle bool) {
	last := len(t.First) - 1
	resets := resetsOf(t.First[last], t.Last[last], t.Increase[last], wasSingle)
	if b.first < t.Last[last] {
		resets += t.Last[last]
	}
	resets += resetsOf(b.first, b.last, b.increase, single)
	t.Last[last] = b.last
	t.Increase[last] = t.Last[last] - t.First[last] + resets
	t.Min[last], t.Max[last] = lesser(t.Min[last], b.min), greater(t.Max[last], b.max)
	t.Sum[last], m.compensations[n] = kahansum.Inc(b.sum, t.Sum[last], m.compensations[n])
}

// resetsOf is what the resets in a bucket add to the difference of its last and first values. Without one that is exactly zero, as long as the values are
// finite; of others it is NaN, which says that it is not known.
func resetsOf(first, last, increase float64, single bool) float64 {
	if single {
		return 0
	}
	return increase - (last - first)
}

// joinHistograms joins the native histograms of a bucket. Where some have exponential buckets and some custom ones, there is no sum, which says that nothing but
// the first and the last is known.
func (m *Merger) joinHistograms(h histograms, last int) {
	o := &m.out
	before := histograms{o.First[last], o.Last[last], o.Increase[last], o.Sum[last]}
	o.Last[last], o.Increase[last], o.Sum[last] = h.last, nil, nil
	if before.sum == nil || h.sum == nil {
		m.compensation = nil
		return
	}
	resets, known := resetsBetween(before, h)
	compensation, _, _, err := before.sum.KahanAdd(h.sum, m.compensation)
	if m.compensation = compensation; err != nil || !known {
		m.compensation = nil
		return
	}
	o.Sum[last] = before.sum
	if resets != nil && !m.delta {
		o.Increase[last] = added(difference(before.first, h.last), resets)
	}
}

// resetsBetween is what resets within two buckets and between them add; nil without one.
func resetsBetween(a, b histograms) (resets *histogram.FloatHistogram, known bool) {
	resets, known = resetsWithin(a)
	if !known || a.last.UsesCustomBuckets() != b.first.UsesCustomBuckets() {
		return nil, false
	}
	if isReset(a.last, b.first) {
		resets = added(resets, a.last)
	}
	within, known := resetsWithin(b)
	if within != nil {
		resets = added(resets, within)
	}
	return resets, known
}

// resetsWithin is what resets in a bucket add; nil without one.
func resetsWithin(h histograms) (resets *histogram.FloatHistogram, known bool) {
	if h.increase == nil {
		return nil, h.sum != nil
	}
	d := difference(h.first, h.last)
	if d == nil {
		return nil, false
	}
	resets = difference(d, h.increase)
	return resets, resets != nil
}

func bucketAt(t *metricfile.Track, i int) bucket {
	return bucket{t.First[i], t.Last[i], t.Increase[i], t.Sum[i], t.Min[i], t.Max[i]}
}

func copied(r *metricfile.Rollup, i int) histograms {
	return histograms{copyOf(r.First, i), copyOf(r.Last, i), copyOf(r.Increase, i), copyOf(r.Sum, i)}
}

func copyOf(list []*histogram.FloatHistogram, i int) *histogram.FloatHistogram {
	if i >= len(list) || list[i] == nil {
		return nil
	}
	return plain(list[i])
}

func sketchAt(r *metricfile.Rollup, i int) []byte {
	if i >= len(r.Sketches) {
		return nil
	}
	return r.Sketches[i]
}
