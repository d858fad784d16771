// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"encoding/binary"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// metadataSegment is the key of the Parquet footer's metadata: what the segment is, as JSON.
const metadataSegment = "lakerunner.metrics"

// Writer writes a segment row by row. It keeps one row group, and the catalogue, in memory. After an error it is of no use.
type Writer struct {
	layout    *layout
	file      *parquetFile
	sidecar   io.Writer
	z         *zstd.Encoder
	catalogue *catalogueBuilder
	group     rowGroup
	totals    totals
	encoder   encoder
	scratch   []int64
	last      rowKey
}

// rowKey is what rows are ordered by.
type rowKey struct {
	name   string
	hash   uint64
	series *Series
}

func (k *rowKey) compare(o *rowKey) int {
	if c := cmp.Or(cmp.Compare(k.name, o.name), cmp.Compare(k.hash, o.hash)); c != 0 {
		return c
	}
	return Compare(k.series, o.series)
}

// NewWriter begins a segment and its sidecar. It is one of rollups if m has a resolution.
func NewWriter(parquet, sidecar io.Writer, m Meta) (*Writer, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(compression(m.Level)), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	w := &Writer{
		layout: layoutOf(&m), sidecar: sidecar, z: z,
		totals: totals{Meta: m, formatVersion: FormatVersion, first: math.MaxInt64, last: math.MinInt64},
	}
	w.catalogue = newCatalogueBuilder(w.layout)
	w.file, err = newParquetFile(parquet, z, w.layout.schema())
	return w, err
}

// compression is cheap for segments that will soon be merged.
func compression(level int) zstd.EncoderLevel {
	if level == 0 {
		return zstd.SpeedFastest
	}
	return zstd.SpeedBetterCompression
}

// AppendPoints adds a row. Rows come in the order of Compare, points sorted by time. Neither s nor p is kept. A row without points is left out.
func (w *Writer) AppendPoints(s *Series, p *Points) error {
	return w.appendPoints(s, s.Hash(), p)
}

func (w *Writer) appendPoints(s *Series, hash uint64, p *Points) error {
	if p.Len() == 0 {
		return nil
	}
	if w.totals.Resolution > 0 {
		return fault.New(fault.Internal, "points for a segment of rollups")
	}
	if err := checkPoints(s, p, w.totals.Window); err != nil {
		return err
	}
	parts, err := w.begin(s, hash)
	if err != nil {
		return err
	}
	n := int64(p.Len())
	r := rowEntry{hash: hash, rows: n, counted: n, exemplars: int64(len(p.Exemplars)), first: p.Times[0], last: p.Times[n-1]}
	w.share(&r, sharedTimes, p.Times)
	w.share(&r, sharedStarts, knownOnly(p.Starts))
	w.share(&r, sharedSources, w.sources(p.Sources))
	w.pointColumns(s, p, &r)
	identity := s.identity(hash)
	w.totals.rowHash += p.hashes(identity, s.Kind)
	for i := range p.Exemplars {
		w.totals.exemplarHash += p.Exemplars[i].hash(identity)
	}
	return w.end(s, parts, &r)
}

// knownOnly is nil where no start is known.
func knownOnly(starts []int64) []int64 {
	for _, s := range starts {
		if s != 0 {
			return starts
		}
	}
	return nil
}

func (w *Writer) sources(sources []lake.ReceiptID) []int64 {
	w.scratch = grow(w.scratch, len(sources))
	for i, s := range sources {
		w.scratch[i] = int64(s)
	}
	return w.scratch
}

func (w *Writer) share(r *rowEntry, column int, values []int64) {
	r.refs[column] = w.group.shared[column].add(values, &w.encoder.vectors)
}

// checkPoints makes sure of what readers rely on.
func checkPoints(s *Series, p *Points, window lake.Window) error {
	n := p.Len()
	if n > maxVector {
		return fault.New(fault.Exhausted, "%d points of one series in one segment", n)
	}
	ok := (len(p.Starts) == 0 || len(p.Starts) == n) && (len(p.Sources) == 0 || len(p.Sources) == n)
	even := func(columns ...int) bool {
		return !slices.ContainsFunc(columns, func(l int) bool { return l != n })
	}
	switch s.Kind {
	case KindFloat:
		ok = ok && even(len(p.Values))
	case KindClassic:
		ok = ok && even(len(p.Values), len(p.Counts)) && len(p.Buckets) == len(s.Bounds)+1
		for _, b := range p.Buckets {
			ok = ok && even(len(b))
		}
	case KindSummary:
		ok = ok && even(len(p.Values), len(p.Counts)) && len(p.Quantiles) == len(s.Bounds)
		for _, q := range p.Quantiles {
			ok = ok && even(len(q))
		}
	case KindHistogram:
		ok = ok && even(len(p.Histograms)) && !slices.Contains(p.Histograms, nil)
	default:
		ok = false
	}
	if len(s.Bounds) > maxFloats {
		return fault.New(fault.Exhausted, "a series with %d bounds", len(s.Bounds))
	}
	if !ok {
		return fault.New(fault.Internal, "columns of points do not fit a %s series", s.Kind)
	}
	for i := 1; i < n; i++ {
		if p.Times[i] < p.Times[i-1] {
			return fault.New(fault.Internal, "points are out of order")
		}
	}
	return checkWindow(p.Times[0], p.Times[n-1], window)
}

func checkWindow(first, last int64, window lake.Window) error {
	if window.Length > 0 && (first < window.Start.UnixNano() || last >= window.End().UnixNano()) {
		return fault.New(fault.Internal, "points from %d to %d ns are not all in the window from %s", first, last, window.Start)
	}
	return nil
}

// begin makes sure of the order, and ends block and row group where they are to end before this row.
func (w *Writer) begin(s *Series, hash uint64) ([]labelPart, error) {
	key := rowKey{name: s.Name(), hash: hash, series: s}
	if w.last.series != nil && w.last.compare(&key) >= 0 {
		return nil, fault.New(fault.Internal, "rows are out of order: %s after %s", s.Labels, w.last.series.Labels)
	}
	if w.group.full() {
		if err := w.endGroup(); err != nil {
			return nil, err
		}
	}
	if w.last.series == nil || w.last.name != key.name {
		if err := checkText(key.name); err != nil {
			return nil, err
		}
		w.catalogue.endBlock()
		w.catalogue.names = append(w.catalogue.names, key.name)
	} else if w.catalogue.current.len() == maxBlockRows {
		w.catalogue.endBlock()
	}
	w.last = rowKey{name: key.name, hash: hash, series: s.Clone()}
	return w.catalogue.parts(s.Labels)
}

// end adds the row to catalogue and row group.
func (w *Writer) end(s *Series, parts []labelPart, r *rowEntry) error {
	for i := range w.layout.own {
		c := &w.group.own[i]
		c.defined = append(c.defined, uint8(min(r.sizes[i], 1)))
		if r.sizes[i] == 0 {
			c.nulls++
		}
	}
	if err := w.catalogue.add(s, parts, r); err != nil {
		return err
	}
	samples := r.counted * int64(s.NumTracks())
	w.group.add(s, w.last.name, samples, parts, w.catalogue.labels, r)
	t := &w.totals
	t.series++
	t.rows += r.rows
	t.samples += samples
	t.exemplars += r.exemplars
	t.first, t.last = min(t.first, r.first), max(t.last, r.last)
	return nil
}

// own encodes a value of an own column.
func (w *Writer) own(r *rowEntry, column int, encode func(*encoder)) {
	c := &w.group.own[column]
	head := len(c.values)
	w.encoder.b = append(c.values, 0, 0, 0, 0)
	encode(&w.encoder)
	c.values, w.encoder.b = w.encoder.b, nil
	size := len(c.values) - head - lengthBytes
	binary.LittleEndian.PutUint32(c.values[head:], uint32(size))
	r.sizes[column] = size
	w.group.ownBytes += size
}

func (w *Writer) pointColumns(s *Series, p *Points, r *rowEntry) {
	if s.Kind == KindHistogram {
		w.own(r, ownHistograms, func(e *encoder) { e.histograms(p.Histograms) })
	} else {
		w.own(r, ownValues, func(e *encoder) { e.b = e.vectors.Floats(e.b, p.Values) })
	}
	switch s.Kind {
	case KindClassic:
		w.own(r, ownCounts, func(e *encoder) { w.scratch = e.counts(p.Counts, w.scratch) })
		w.own(r, ownBuckets, func(e *encoder) { w.scratch = e.bucketCounts(p, w.scratch) })
	case KindSummary:
		w.own(r, ownCounts, func(e *encoder) { w.scratch = e.counts(p.Counts, w.scratch) })
		if len(p.Quantiles) > 0 {
			w.own(r, ownQuantiles, func(e *encoder) {
				for _, q := range p.Quantiles {
					e.b = e.vectors.Floats(e.b, q)
				}
			})
		}
	}
	if len(p.Exemplars) > 0 {
		w.own(r, ownExemplars, func(e *encoder) { e.exemplars(p.Exemplars) })
	}
}

// AppendRollup adds a row of a segment of rollups, in the order of Compare. Neither s nor r is kept. A row without buckets is left out.
func (w *Writer) AppendRollup(s *Series, p *Rollup) error {
	if p.Len() == 0 {
		return nil
	}
	if w.totals.Resolution == 0 {
		return fault.New(fault.Internal, "a rollup for a segment of points")
	}
	if err := checkRollup(s, p, &w.totals.Meta); err != nil {
		return err
	}
	hash := s.Hash()
	parts, err := w.begin(s, hash)
	if err != nil {
		return err
	}
	n := p.Len()
	r := rowEntry{hash: hash, rows: int64(n), first: p.Ends[0] * msNanos, last: p.Ends[n-1] * msNanos}
	for _, count := range p.Counts {
		r.counted += count
	}
	for i, column := range [maxShared][]int64{p.Ends, p.Counts, p.FirstTimes, p.LastTimes, p.StaleTimes} {
		w.share(&r, i, column)
	}
	w.rollupColumns(s, p, &r)
	w.totals.rowHash += p.hashes(s.identity(hash))
	return w.end(s, parts, &r)
}

const msNanos = int64(time.Millisecond)

func (w *Writer) rollupColumns(s *Series, p *Rollup, r *rowEntry) {
	if s.Kind == KindHistogram {
		for i, column := range [][]*histogram.FloatHistogram{ownFirst: p.First, ownLast: p.Last, ownIncrease: p.Increase, ownSum: p.Sum} {
			w.own(r, i, func(e *encoder) { e.histograms(column) })
		}
	} else {
		each := func(column int, encode func(e *encoder, t *Track)) {
			w.own(r, column, func(e *encoder) {
				for i := range p.Tracks {
					encode(e, &p.Tracks[i])
				}
			})
		}
		derived := func(column int, values func(t *Track) []float64) {
			each(column, func(e *encoder, t *Track) { w.scratch = e.derived(values(t), t, w.scratch) })
		}
		each(ownFirst, func(e *encoder, t *Track) { e.b = e.vectors.Floats(e.b, t.First) })
		each(ownLast, func(e *encoder, t *Track) { e.b = e.vectors.Floats(e.b, t.Last) })
		derived(ownIncrease, func(t *Track) []float64 { return t.Increase })
		derived(ownSum, func(t *Track) []float64 { return t.Sum })
		derived(ownMin, func(t *Track) []float64 { return t.Min })
		derived(ownMax, func(t *Track) []float64 { return t.Max })
	}
	if len(p.Sketches) > 0 {
		w.own(r, ownSketches, func(e *encoder) { e.sketches(p.Sketches) })
	}
}

func checkRollup(s *Series, p *Rollup, m *Meta) error {
	n := p.Len()
	if n > maxVector {
		return fault.New(fault.Exhausted, "%d buckets of one series in one segment", n)
	}
	lengths := []int{len(p.Counts), len(p.FirstTimes), len(p.LastTimes), len(p.StaleTimes)}
	if s.Kind == KindHistogram {
		lengths = append(lengths, len(p.First), len(p.Last), len(p.Increase), len(p.Sum))
	}
	for i := range p.Tracks {
		t := &p.Tracks[i]
		lengths = append(lengths, len(t.First), len(t.Last), len(t.Increase), len(t.Sum), len(t.Min), len(t.Max))
	}
	if len(p.Sketches) > 0 {
		lengths = append(lengths, len(p.Sketches))
	}
	tracks := s.NumTracks()
	if s.Kind == KindHistogram {
		tracks = 0
	}
	if slices.ContainsFunc(lengths, func(l int) bool { return l != n }) || len(p.Tracks) != tracks {
		return fault.New(fault.Internal, "columns of a rollup do not fit a %s series", s.Kind)
	}
	for i := 1; i < n; i++ {
		if p.Ends[i] <= p.Ends[i-1] {
			return fault.New(fault.Internal, "buckets are out of order")
		}
	}
	if slices.ContainsFunc(p.Counts, func(count int64) bool { return count < 0 }) {
		return fault.New(fault.Internal, "a bucket counts less than nothing")
	}
	start, end := m.Window.Start.UnixMilli(), m.Window.End().Add(m.Resolution).UnixMilli()
	if m.Window.Length > 0 && (p.Ends[0] < start || p.Ends[n-1] >= end) {
		return fault.New(fault.Internal, "buckets from %d to %d ms are not of the window from %s", p.Ends[0], p.Ends[n-1], m.Window.Start)
	}
	return nil
}

func (w *Writer) endGroup() error {
	w.catalogue.endBlock()
	places, err := w.group.write(w.file, w.layout)
	if err != nil {
		return err
	}
	w.catalogue.groups = append(w.catalogue.groups, places)
	w.file.endRowGroup(w.group.rows)
	w.group.reset(w.catalogue.labels)
	return nil
}

// Close writes what is left, footer and sidecar. A writer that is not needed any more need not be closed.
func (w *Writer) Close() (Written, error) {
	defer w.z.Close()
	t := &w.totals
	if t.series == 0 {
		return Written{}, fault.New(fault.Internal, "a segment without rows")
	}
	if err := w.endGroup(); err != nil {
		return Written{}, err
	}
	if err := w.file.close([]format.KeyValue{{Key: metadataSegment, Value: string(t.marshal())}}); err != nil {
		return Written{}, err
	}
	sidecar := w.catalogue.marshal(w.z, t)
	if _, err := w.sidecar.Write(sidecar); err != nil {
		return Written{}, err
	}
	written := t.written()
	written.Bytes, written.SidecarBytes, written.Columns = w.file.offset, int64(len(sidecar)), maps.Clone(w.file.written)
	return written, nil
}

func (t *totals) written() Written {
	return Written{
		Rows: t.rows, Samples: t.samples, Series: t.series, Exemplars: t.exemplars, RowHash: t.rowHash, FormatVersion: t.formatVersion,
		First: time.Unix(0, t.first).UTC(), Last: time.Unix(0, t.last).UTC(),
	}
}

// hashes is the sum of the row hashes of points.
func (p *Points) hashes(identity uint64, kind Kind) (sum uint64) {
	for i := range p.Times {
		sum += p.RowHash(identity, kind, i)
	}
	return sum
}

// hashes is the sum of the hashes of buckets.
func (r *Rollup) hashes(identity uint64) (sum uint64) {
	for i := range r.Ends {
		sum += r.RowHash(identity, i)
	}
	return sum
}
