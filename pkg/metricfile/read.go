// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

// Columns is a set of columns of points.
type Columns uint16

// The columns. WantValues is all that a kind has: values, counts, buckets, quantiles, histograms; WantTotals is only values and counts of classic
// histograms and summaries, which is much less to read.
const (
	WantTimes Columns = 1 << iota
	WantStarts
	WantSources
	WantTotals
	WantParts
	WantExemplars
	WantValues = WantTotals | WantParts
	WantAll    = WantTimes | WantStarts | WantSources | WantValues | WantExemplars
)

// RollupColumns is a set of columns of rollups. Times and counts are always read.
type RollupColumns uint8

// The columns of rollups, of tracks and histograms alike. Others than first and last may follow from those, which then are read as well.
const (
	WantFirst RollupColumns = 1 << iota
	WantLast
	WantIncrease
	WantSum
	WantMin
	WantMax
	WantSketches
	WantWholeRollup = WantFirst | WantLast | WantIncrease | WantSum | WantMin | WantMax | WantSketches
)

// Reader reads rows of a segment by their ordinals. It reads ahead, and keeps dictionaries, so ordinals should rise. It is not safe for concurrent use.
type Reader struct {
	catalogue *Catalogue
	parquet   io.ReaderAt
	size      int64
	group     uint32
	entry     *blockEntry // of the last row
	block     *block
	shared    [maxShared]*dictionary // of the group; nil: not read yet
	own       [maxOwn]window
	ints      []int64
}

// dictionary is that of a shared column of one row group.
type dictionary struct {
	words   []byte
	starts  []int // of values in words
	decoded map[int64][]int64
	// recent is the vector that was read last, of a place: neighbours mostly have the same.
	place  int64
	recent []int64
}

// window is a stretch of the file that was read.
type window struct {
	offset int64
	bytes  []byte
	ahead  int64 // how much was read beyond what was asked for
}

// Open begins to read a segment's Parquet file, which must be that of the catalogue.
func Open(parquet io.ReaderAt, size int64, c *Catalogue) (*Reader, error) {
	for i := range c.groups {
		for k := range c.layout.shared {
			if p := c.groups[i].shared[k]; !within(p.offset, p.size, size) {
				return nil, fmt.Errorf("the file has %d bytes, the catalogue has more: %w", size, errDamaged)
			}
		}
		for k := range c.layout.own {
			if p := c.groups[i].own[k]; !within(p.offset, p.size, size) {
				return nil, fmt.Errorf("the file has %d bytes, the catalogue has more: %w", size, errDamaged)
			}
		}
	}
	return &Reader{catalogue: c, parquet: parquet, size: size}, nil
}

func within(offset, length, size int64) bool {
	return offset >= 0 && length >= 0 && offset <= size && length <= size-offset
}

// Catalogue returns what the segment holds.
func (r *Reader) Catalogue() *Catalogue { return r.catalogue }

// row is one that is read.
type row struct {
	entry  *blockEntry
	block  *block
	row    int
	series Series // without labels and family
	n      int    // points or buckets
}

func (r *Reader) row(ordinal int) row {
	e, b := r.entry, r.block
	if e == nil || ordinal < e.first || ordinal >= e.first+e.rows {
		e, b, _ = r.catalogue.at(ordinal)
		r.entry, r.block = e, b
	}
	if e.group != r.group {
		r.group, r.shared = e.group, [maxShared]*dictionary{}
	}
	i := ordinal - e.first
	return row{entry: e, block: b, row: i, series: r.catalogue.shell(b, i), n: int(b.rows[i])}
}

// Points reads the points of a row into p, whose memory is used again, also that of its histograms.
func (r *Reader) Points(ordinal int, want Columns, p *Points) error {
	if r.catalogue.Resolution > 0 {
		return fault.New(fault.Internal, "a segment of rollups has no points")
	}
	p.Reset()
	at := r.row(ordinal)
	if err := r.stamps(&at, want, p); err != nil {
		return err
	}
	if want&WantValues != 0 {
		if err := r.values(&at, want, p); err != nil {
			return err
		}
	}
	if want&WantExemplars == 0 || at.block.exemplars[at.row] == 0 {
		return nil
	}
	d, err := r.open(&at, ownExemplars)
	if err != nil {
		return err
	}
	p.Exemplars = d.exemplars(p.Exemplars, int(at.block.exemplars[at.row]))
	return d.end()
}

// stamps reads the shared columns of points.
func (r *Reader) stamps(at *row, want Columns, p *Points) (err error) {
	if want&WantTimes != 0 {
		if p.Times, err = r.vector(at, sharedTimes, p.Times); err != nil {
			return err
		}
		if len(p.Times) != at.n {
			return errDamaged
		}
	}
	if want&WantStarts != 0 {
		if p.Starts, err = r.vector(at, sharedStarts, p.Starts); err != nil {
			return err
		}
	}
	if want&WantSources == 0 {
		return nil
	}
	if r.ints, err = r.vector(at, sharedSources, r.ints[:0]); err != nil {
		return err
	}
	p.Sources = grow(p.Sources, len(r.ints))
	for i, v := range r.ints {
		p.Sources[i] = lake.ReceiptID(v)
	}
	return nil
}

func (r *Reader) values(at *row, want Columns, p *Points) error {
	if at.series.Kind == KindHistogram {
		d, err := r.open(at, ownHistograms)
		if err != nil {
			return err
		}
		p.Histograms = d.histograms(p.Histograms[:cap(p.Histograms)], at.n)
		if slices.Contains(p.Histograms, nil) {
			d.fail()
		}
		if err = d.end(); err == nil && !at.series.Delta {
			deriveHints(p.Histograms)
		}
		return err
	}
	d, err := r.open(at, ownValues)
	if err != nil {
		return err
	}
	p.Values = d.floatVector(p.Values, at.n)
	if err := d.end(); err != nil || at.series.Kind == KindFloat {
		return err
	}
	if d, err = r.open(at, ownCounts); err != nil {
		return err
	}
	r.ints = d.counts(&p.Counts, r.ints, at.n)
	if err := d.end(); err != nil || want&WantParts == 0 {
		return err
	}
	return r.parts(at, p)
}

// parts reads buckets or quantiles.
func (r *Reader) parts(at *row, p *Points) error {
	if at.series.Kind == KindClassic {
		d, err := r.open(at, ownBuckets)
		if err != nil {
			return err
		}
		p.Buckets = tracks(p.Buckets, len(at.series.Bounds)+1, at.n)
		r.ints = d.bucketCounts(p, r.ints, at.n)
		return d.end()
	}
	p.Quantiles = tracks(p.Quantiles, len(at.series.Bounds), at.n)
	if len(p.Quantiles) == 0 {
		return nil
	}
	d, err := r.open(at, ownQuantiles)
	if err != nil {
		return err
	}
	for i := range p.Quantiles {
		p.Quantiles[i] = d.floatVector(p.Quantiles[i], at.n)
	}
	return d.end()
}

// end is an error if anything is left, too.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail()
	}
	return d.err
}

// open begins to decode what the row has of an own column.
func (r *Reader) open(at *row, column int) (decoder, error) {
	size := at.block.sizes[column][at.row]
	if size == 0 {
		return decoder{}, fmt.Errorf("a %s row without %s: %w", at.series.Kind, r.catalogue.layout.own[column], errDamaged)
	}
	place := r.catalogue.groups[at.entry.group].own[column]
	offset := place.offset + at.entry.own[column] + at.block.offsets[column][at.row]
	b, err := r.own[column].read(r.parquet, offset, lengthBytes+size, place.offset+place.size)
	if err != nil {
		return decoder{}, fmt.Errorf("read %s of a row: %w", r.catalogue.layout.own[column], err)
	}
	if int64(binary.LittleEndian.Uint32(b)) != size {
		return decoder{}, fmt.Errorf("a row's %s have another length than the catalogue says: %w", r.catalogue.layout.own[column], errDamaged)
	}
	return decoder{b: b[lengthBytes:]}, nil
}

const (
	leastAhead = 16 << 10
	mostAhead  = 1 << 20
)

// read returns bytes of the file. As long as one stretch follows the other closely, it reads ever further ahead.
func (w *window) read(r io.ReaderAt, offset, size, end int64) ([]byte, error) {
	if size > end-offset {
		return nil, errDamaged
	}
	have := w.offset + int64(len(w.bytes))
	if offset >= w.offset && offset+size <= have {
		return w.bytes[offset-w.offset:][:size], nil
	}
	if offset >= w.offset && offset <= have+leastAhead {
		w.ahead = min(max(2*w.ahead, leastAhead), mostAhead)
	} else {
		w.ahead = 0
	}
	n := min(max(size, w.ahead), end-offset)
	w.bytes = grow(w.bytes, int(n))
	w.offset = offset
	if _, err := r.ReadAt(w.bytes, offset); err != nil && err != io.EOF {
		w.bytes = w.bytes[:0]
		return nil, err
	}
	return w.bytes[:size], nil
}

// vector appends a vector of a shared column to dst.
func (r *Reader) vector(at *row, column int, dst []int64) ([]int64, error) {
	if r.shared[column] == nil {
		d, err := r.openDictionary(at.entry.group, column)
		if err != nil {
			return dst, fmt.Errorf("read %s of a row group: %w", r.catalogue.layout.shared[column], err)
		}
		r.shared[column] = d
	}
	values, err := r.shared[column].vector(at.block.refs[column][at.row], at.n)
	return append(dst, values...), err
}

func (r *Reader) openDictionary(group uint32, column int) (*dictionary, error) {
	place := r.catalogue.groups[group].shared[column]
	d := &dictionary{words: make([]byte, place.size), decoded: map[int64][]int64{}}
	if _, err := r.parquet.ReadAt(d.words, place.offset); err != nil && err != io.EOF {
		return nil, err
	}
	for at := 0; at < len(d.words); {
		if len(d.words)-at < lengthBytes {
			return nil, errDamaged
		}
		n := binary.LittleEndian.Uint32(d.words[at:])
		at += lengthBytes
		d.starts = append(d.starts, at)
		if int64(n) > int64(len(d.words)-at) {
			return nil, errDamaged
		}
		at += int(n)
	}
	if int64(len(d.starts)) != place.count {
		return nil, errDamaged
	}
	return d, nil
}

// maxDecoded bounds the vectors of a dictionary that are kept decoded.
const maxDecoded = 1024

// vector returns a value of the dictionary, as n integers or none. It is not to be changed.
func (d *dictionary) vector(place int64, n int) ([]int64, error) {
	if place == d.place && len(d.recent) == n && n > 0 {
		return d.recent, nil
	}
	if values, ok := d.decoded[place]; ok && (len(values) == n || len(values) == 0) {
		d.place, d.recent = place, values
		return values, nil
	}
	b := d.words[d.starts[place]:]
	b = b[:binary.LittleEndian.Uint32(d.words[d.starts[place]-lengthBytes:])]
	var values []int64
	if len(b) > 0 {
		var err error
		if values, b, err = chunk.Ints(nil, b, n); err != nil || len(b) > 0 {
			return nil, errDamaged
		}
	}
	if len(d.decoded) == maxDecoded {
		clear(d.decoded)
	}
	d.decoded[place] = values
	return values, nil
}

// Rollup reads a row of a rollup segment into p, whose memory is used again, also that of its histograms.
func (r *Reader) Rollup(ordinal int, p *Rollup) error {
	return r.RollupOnly(ordinal, WantWholeRollup, p)
}

// RollupOnly reads some columns of a row of a rollup segment. The others are empty.
func (r *Reader) RollupOnly(ordinal int, want RollupColumns, p *Rollup) error {
	if r.catalogue.Resolution == 0 {
		return fault.New(fault.Internal, "a segment of points has no rollups")
	}
	at := r.row(ordinal)
	var err error
	for i, column := range [...]*[]int64{&p.Ends, &p.Counts, &p.FirstTimes, &p.LastTimes, &p.StaleTimes} {
		if *column, err = r.vector(&at, i, (*column)[:0]); err != nil {
			return err
		}
		if len(*column) != at.n {
			return errDamaged
		}
	}
	p.Sketches = p.Sketches[:0]
	if want&WantSketches != 0 && at.block.sizes[ownSketches][at.row] > 0 {
		d, err := r.open(&at, ownSketches)
		if err != nil {
			return err
		}
		p.Sketches = d.sketches(p.Sketches, at.n)
		if err := d.end(); err != nil {
			return err
		}
	}
	if at.series.Kind == KindHistogram {
		p.Tracks = p.Tracks[:0]
		return r.histogramRollup(&at, want, p)
	}
	p.First, p.Last, p.Increase, p.Sum = p.First[:0], p.Last[:0], p.Increase[:0], p.Sum[:0]
	return r.trackRollup(&at, want, p)
}

func (r *Reader) histogramRollup(at *row, want RollupColumns, p *Rollup) error {
	all := [...]*[]*histogram.FloatHistogram{ownFirst: &p.First, ownLast: &p.Last, ownIncrease: &p.Increase, ownSum: &p.Sum}
	for column, values := range all {
		if want&(1<<column) == 0 {
			*values = (*values)[:0]
			continue
		}
		d, err := r.open(at, column)
		if err != nil {
			return err
		}
		*values = d.histograms((*values)[:cap(*values)], at.n)
		if err := d.end(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reader) trackRollup(at *row, want RollupColumns, p *Rollup) error {
	n := at.series.NumTracks()
	p.Tracks = p.Tracks[:cap(p.Tracks)]
	for len(p.Tracks) < n {
		p.Tracks = append(p.Tracks, Track{})
	}
	p.Tracks = p.Tracks[:n]
	needed := want
	if want&(WantIncrease|WantSum|WantMin|WantMax) != 0 {
		needed |= WantFirst | WantLast
	}
	for column := ownFirst; column <= ownMax; column++ {
		if err := r.trackColumn(at, column, needed&(1<<column) != 0, p.Tracks); err != nil {
			return err
		}
	}
	for i := range p.Tracks {
		for column, extra := range [...]RollupColumns{WantFirst, WantLast} {
			if want&extra == 0 {
				values := p.Tracks[i].column(column)
				*values = (*values)[:0]
			}
		}
	}
	return nil
}

// trackColumn reads one column of all tracks, or empties it.
func (r *Reader) trackColumn(at *row, column int, wanted bool, all []Track) error {
	if !wanted {
		for i := range all {
			values := all[i].column(column)
			*values = (*values)[:0]
		}
		return nil
	}
	d, err := r.open(at, column)
	if err != nil {
		return err
	}
	for i := range all {
		values := all[i].column(column)
		if column == ownFirst || column == ownLast {
			*values = d.floatVector(*values, at.n)
		} else {
			*values = d.derived(*values, &all[i], at.n, &r.ints)
		}
	}
	return d.end()
}

// column returns the values of an own column.
func (t *Track) column(column int) *[]float64 {
	return [...]*[]float64{
		ownFirst: &t.First, ownLast: &t.Last, ownIncrease: &t.Increase, ownSum: &t.Sum, ownMin: &t.Min, ownMax: &t.Max,
	}[column]
}
