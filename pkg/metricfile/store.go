// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"math"
	"slices"
	"unsafe"

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
	chunks [][]storedPoint
	spare  [][]storedPoint
	rows   int
	// numbers are the counts, buckets and bits of quantiles of classic histograms and summaries, one point after the other.
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
	Stamp
	value   uint64 // bits
	series  SeriesID
	payload uint32 // where numbers or histograms have the rest
}

type storedExemplar struct {
	row uint32
	Exemplar
}

const (
	chunkBits = 13
	chunkRows = 1 << chunkBits
)

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{lookup: map[uint64]SeriesID{}, names: map[string]uint32{}}
}

// Reset empties the store: series as well as points. It keeps memory for as many points.
func (st *Store) Reset() {
	clear(st.series)
	clear(st.lookup)
	clear(st.names)
	clear(st.histograms)
	clear(st.exemplars)
	for _, c := range st.chunks {
		st.spare = append(st.spare, c[:0])
	}
	clear(st.chunks)
	st.series, st.chunks, st.rows = st.series[:0], st.chunks[:0], 0
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
	st.series = append(st.series, storedSeries{Series: *s.Clone(), hash: hash, identity: identity, name: st.name(s), next: id})
	st.bytes += int64(unsafe.Sizeof(storedSeries{})) + int64(s.Labels.ByteSize()) + int64(8*len(s.Bounds)) + 32
	return id
}

// name numbers metric names.
func (st *Store) name(s *Series) uint32 {
	name := s.Name()
	id, ok := st.names[name]
	if !ok {
		id = uint32(len(st.names))
		st.names[name] = id
	}
	return id
}

// Float appends a point of a series of KindFloat and returns its row number.
func (st *Store) Float(id SeriesID, at Stamp, v float64) uint32 {
	return st.append(storedPoint{Stamp: at, value: math.Float64bits(v), series: id})
}

// Classic appends a point of a series of KindClassic: buckets are as many as bounds, and one more. A stale marker has the bits of one as its sum.
func (st *Store) Classic(id SeriesID, at Stamp, count uint64, sum float64, buckets []uint64) uint32 {
	if len(buckets) != len(st.series[id].Bounds)+1 {
		panic("metricfile: a histogram with other buckets than its series has")
	}
	payload := uint32(len(st.numbers))
	st.numbers = append(append(st.numbers, count), buckets...)
	return st.append(storedPoint{Stamp: at, value: math.Float64bits(sum), series: id, payload: payload})
}

// Summary appends a point of a series of KindSummary: quantiles are as many as bounds. A stale marker has the bits of one as its sum.
func (st *Store) Summary(id SeriesID, at Stamp, count uint64, sum float64, quantiles []float64) uint32 {
	if len(quantiles) != len(st.series[id].Bounds) {
		panic("metricfile: a summary with other quantiles than its series has")
	}
	payload := uint32(len(st.numbers))
	st.numbers = append(st.numbers, count)
	for _, q := range quantiles {
		st.numbers = append(st.numbers, math.Float64bits(q))
	}
	return st.append(storedPoint{Stamp: at, value: math.Float64bits(sum), series: id, payload: payload})
}

// Histogram appends a point of a series of KindHistogram. The store keeps h, which is not to be changed any more.
func (st *Store) Histogram(id SeriesID, at Stamp, h *histogram.FloatHistogram) uint32 {
	payload := uint32(len(st.histograms))
	st.histograms = append(st.histograms, h)
	st.bytes += int64(h.Size())
	return st.append(storedPoint{Stamp: at, series: id, payload: payload})
}

// Exemplar adds an exemplar to a point, with which it will be written. Its source is the point's.
func (st *Store) Exemplar(row uint32, e Exemplar) {
	e.Source = st.point(row).Source
	e.Labels = e.Labels.Copy()
	st.exemplars = append(st.exemplars, storedExemplar{row: row, Exemplar: e})
	st.bytes += int64(unsafe.Sizeof(storedExemplar{})) + int64(e.Labels.ByteSize())
}

func (st *Store) append(p storedPoint) uint32 {
	row := st.rows
	if row&(chunkRows-1) == 0 {
		st.grow()
	}
	last := &st.chunks[row>>chunkBits]
	*last = append(*last, p)
	st.rows++
	return uint32(row)
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
	return st.bytes + int64(st.rows)*int64(unsafe.Sizeof(storedPoint{})) + int64(8*len(st.numbers))
}

// Time returns the time of a point, ns since 1970.
func (st *Store) Time(row int) int64 { return st.point(uint32(row)).Time }

// SeriesOf returns the series of a point. It is not to be changed.
func (st *Store) SeriesOf(row int) *Series { return &st.series[st.point(uint32(row)).series].Series }

// RowHash returns what the point adds to Written.RowHash.
func (st *Store) RowHash(row int) uint64 {
	p := st.point(uint32(row))
	s := &st.series[p.series]
	switch s.Kind {
	case KindClassic, KindSummary:
		h := hashNumber(s.identity, p.Stamp, p.value)
		for _, n := range st.payload(p) {
			h = mix(h, n)
		}
		return scramble(h)
	case KindHistogram:
		return scramble(hashHistogram(hashNumber(s.identity, p.Stamp, 0), st.histograms[p.payload]))
	}
	return scramble(hashNumber(s.identity, p.Stamp, p.value))
}

// payload returns count and buckets, or count and quantiles.
func (st *Store) payload(p *storedPoint) []uint64 {
	s := &st.series[p.series]
	n := 1 + len(s.Bounds)
	if s.Kind == KindClassic {
		n++
	}
	return st.numbers[p.payload:][:n]
}
