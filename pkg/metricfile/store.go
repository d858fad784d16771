// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"math"
	"slices"
	"strings"
	"unsafe"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// SeriesID numbers the series of a Store, from 0.
type SeriesID uint32

// Stamp is when a point is, since when it counts, and which source object it came from.
type Stamp struct {
	Time   int64 // ns since 1970
	Start  int64 // ns since 1970; 0: not known
	Source lake.ReceiptID
}

// Store holds points of many series in memory, in the order in which they were appended, which numbers them. It is not safe for concurrent use.
type Store struct {
	series []storedSeries
	lookup map[uint64]SeriesID // by identity; collisions go on through storedSeries.next
	names  map[string]uint32
	// families are those of series, of strings that nothing else keeps alive.
	families map[Family]Family
	chunks   [][]storedPoint
	spare    [][]storedPoint
	rows     int
	// stamps are kept once, since points that were scraped together share theirs; recent are places in it.
	stamps []Stamp
	recent [recentStamps]uint32
	// numbers are sum, count and buckets, or sum, count and bits of quantiles, one point after the other.
	numbers    []uint64
	histograms []*histogram.FloatHistogram
	exemplars  []storedExemplar
	bytes      int64
}

type storedSeries struct {
	Series
	hash     uint64
	identity uint64
	name     uint32
	next     SeriesID // of the same identity; itself: none
}

type storedPoint struct {
	value  uint64 // bits of a float; else where numbers or histograms have the point
	series SeriesID
	stamp  uint32
}

type storedExemplar struct {
	row uint32
	Exemplar
}

const (
	chunkBits    = 13
	chunkRows    = 1 << chunkBits
	recentStamps = 256
)

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{lookup: map[uint64]SeriesID{}, names: map[string]uint32{}, families: map[Family]Family{}}
}

// Reset empties the store: series as well as points. It keeps memory for as many points.
func (st *Store) Reset() {
	clear(st.series)
	clear(st.lookup)
	clear(st.names)
	clear(st.families)
	clear(st.histograms)
	clear(st.exemplars)
	for _, c := range st.chunks {
		st.spare = append(st.spare, c[:0])
	}
	clear(st.chunks)
	st.series, st.chunks, st.rows = st.series[:0], st.chunks[:0], 0
	st.stamps = st.stamps[:0]
	st.numbers, st.histograms, st.exemplars, st.bytes = st.numbers[:0], st.histograms[:0], st.exemplars[:0], 0
}

// Series returns the number of a series. The first one of an identity is copied, and its family counts.
func (st *Store) Series(s *Series) SeriesID {
	hash := s.Hash()
	identity := s.identity(hash)
	last, known := st.lookup[identity]
	for known {
		if st.series[last].Equal(s) {
			return last
		}
		if st.series[last].next == last {
			break
		}
		last = st.series[last].next
	}
	id := SeriesID(len(st.series))
	if known {
		st.series[last].next = id
	} else {
		st.lookup[identity] = id
	}
	stored := storedSeries{Series: *s.Clone(), hash: hash, identity: identity, name: st.name(s), next: id}
	stored.Family = st.family(s.Family)
	st.series = append(st.series, stored)
	st.bytes += int64(unsafe.Sizeof(storedSeries{})) + int64(s.Labels.ByteSize()) + int64(8*len(s.Bounds)) + 32
	return id
}

// name numbers metric names.
func (st *Store) name(s *Series) uint32 {
	name := s.Name()
	id, ok := st.names[name]
	if !ok {
		id = uint32(len(st.names))
		st.names[strings.Clone(name)] = id
	}
	return id
}

func (st *Store) family(f Family) Family {
	own, ok := st.families[f]
	if !ok {
		own = Family{Type: model.MetricType(strings.Clone(string(f.Type))), Unit: strings.Clone(f.Unit), Help: strings.Clone(f.Help)}
		st.families[own] = own
	}
	return own
}

// Float appends a point of a series of KindFloat and returns its row number.
func (st *Store) Float(id SeriesID, at Stamp, v float64) uint32 {
	return st.append(id, at, math.Float64bits(v))
}

// Classic appends a point of a series of KindClassic: buckets are as many as bounds, and one more. A stale marker has the bits of one as its sum.
func (st *Store) Classic(id SeriesID, at Stamp, count uint64, sum float64, buckets []uint64) uint32 {
	if len(buckets) != len(st.series[id].Bounds)+1 {
		panic("metricfile: a histogram with other buckets than its series has")
	}
	place := len(st.numbers)
	st.numbers = append(append(st.numbers, math.Float64bits(sum), count), buckets...)
	return st.append(id, at, uint64(place))
}

// Summary appends a point of a series of KindSummary: quantiles are as many as bounds. A stale marker has the bits of one as its sum.
func (st *Store) Summary(id SeriesID, at Stamp, count uint64, sum float64, quantiles []float64) uint32 {
	if len(quantiles) != len(st.series[id].Bounds) {
		panic("metricfile: a summary with other quantiles than its series has")
	}
	place := len(st.numbers)
	st.numbers = append(st.numbers, math.Float64bits(sum), count)
	for _, q := range quantiles {
		st.numbers = append(st.numbers, math.Float64bits(q))
	}
	return st.append(id, at, uint64(place))
}

// Histogram appends a point of a series of KindHistogram. The store keeps h, which is not to be changed any more.
func (st *Store) Histogram(id SeriesID, at Stamp, h *histogram.FloatHistogram) uint32 {
	place := len(st.histograms)
	st.histograms = append(st.histograms, h)
	st.bytes += int64(h.Size())
	return st.append(id, at, uint64(place))
}

// Exemplar adds an exemplar to a point, with which it will be written. Its source is the point's.
func (st *Store) Exemplar(row uint32, e Exemplar) {
	e.Source = st.stamps[st.point(row).stamp].Source
	e.Labels = e.Labels.Copy()
	st.exemplars = append(st.exemplars, storedExemplar{row: row, Exemplar: e})
	st.bytes += int64(unsafe.Sizeof(storedExemplar{})) + int64(e.Labels.ByteSize())
}

func (st *Store) append(id SeriesID, at Stamp, value uint64) uint32 {
	row := st.rows
	if row&(chunkRows-1) == 0 {
		st.grow()
	}
	last := &st.chunks[row>>chunkBits]
	*last = append(*last, storedPoint{value: value, series: id, stamp: st.stamp(at)})
	st.rows++
	return uint32(row)
}

// stamp returns where stamps has one that is the same, if it was used lately.
func (st *Store) stamp(at Stamp) uint32 {
	slot := &st.recent[mix(uint64(at.Time)^uint64(at.Start)<<1, uint64(at.Source))>>32%recentStamps]
	if int(*slot) < len(st.stamps) && st.stamps[*slot] == at {
		return *slot
	}
	*slot = uint32(len(st.stamps))
	st.stamps = append(st.stamps, at)
	return *slot
}

func (st *Store) grow() {
	if n := len(st.spare); n > 0 {
		st.chunks = append(st.chunks, st.spare[n-1])
		st.spare = slices.Delete(st.spare, n-1, n)
		return
	}
	st.chunks = append(st.chunks, make([]storedPoint, 0, chunkRows))
}

func (st *Store) point(row uint32) *storedPoint {
	return &st.chunks[row>>chunkBits][row&(chunkRows-1)]
}

// Len returns the number of points.
func (st *Store) Len() int { return st.rows }

// Bytes is about how much memory the store's content takes.
func (st *Store) Bytes() int64 {
	return st.bytes + int64(st.rows)*int64(unsafe.Sizeof(storedPoint{})) + int64(8*len(st.numbers)) + int64(len(st.stamps))*int64(unsafe.Sizeof(Stamp{}))
}

// Time returns the time of a point, ns since 1970.
func (st *Store) Time(row int) int64 { return st.stamps[st.point(uint32(row)).stamp].Time }

// SeriesOf returns the series of a point. It is not to be changed.
func (st *Store) SeriesOf(row int) *Series { return &st.series[st.point(uint32(row)).series].Series }

// RowHash returns what the point adds to Written.RowHash.
func (st *Store) RowHash(row int) uint64 {
	p := st.point(uint32(row))
	s, at := &st.series[p.series], st.stamps[p.stamp]
	switch s.Kind {
	case KindClassic, KindSummary:
		numbers := st.numbersOf(s, p.value)
		h := hashNumber(s.identity, at, numbers[0])
		for _, n := range numbers[1:] {
			h = mix(h, n)
		}
		return scramble(h)
	case KindHistogram:
		return scramble(hashHistogram(hashNumber(s.identity, at, 0), st.histograms[p.value]))
	}
	return scramble(hashNumber(s.identity, at, p.value))
}

// numbersOf returns sum, count and buckets, or sum, count and quantiles.
func (st *Store) numbersOf(s *storedSeries, place uint64) []uint64 {
	n := 2 + len(s.Bounds)
	if s.Kind == KindClassic {
		n++
	}
	return st.numbers[place:][:n]
}
