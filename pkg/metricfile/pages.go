// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/parquet-go/parquet-go/format"
	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/metricfile/chunk"
)

// Limits of a row group. One has as many dictionaries as shared columns, which are read whole to read one row.
const (
	maxGroupRows       = 1 << 16
	maxGroupBytes      = 16 << 20 // of own columns
	maxDictionaryBytes = 1 << 20  // of one shared column
	maxDictionaryInts  = 1 << 20  // the same before encoding, which the writer keeps
)

// rowGroup gathers rows by column.
type rowGroup struct {
	rows  int
	texts [fixedColumns]textColumn // of columns that are such
	hash  []byte
	// labels: of each entry whether it continues its row; places in the dictionaries.
	labels struct {
		repeated, defined []uint8
		names, values     []int32
		nameWords, words  []byte
		nameCount, count  int32
		nulls             int
	}
	bounds struct {
		repeated, defined []uint8
		values            []byte
		nulls             int
	}
	delta, noSum bitColumn
	counts       []byte // INT32
	samples      []byte
	exemplars    []byte
	first, last  []byte
	shared       [maxShared]sharedColumn
	own          [maxOwn]ownColumn
	ownBytes     int
}

// textColumn has a dictionary of strings.
type textColumn struct {
	places  map[string]int32
	indexes []int32
	words   []byte
	low     string
	high    string
	last    string
	at      int32
}

func (t *textColumn) add(s string) {
	if len(t.indexes) > 0 && s == t.last {
		t.indexes = append(t.indexes, t.at)
		return
	}
	if t.places == nil {
		t.places = map[string]int32{}
	}
	at, ok := t.places[s]
	if !ok {
		at = int32(len(t.places))
		if at == 0 {
			t.low, t.high = s, s
		}
		t.places[s] = at
		t.words = appendText(t.words, s)
		t.low, t.high = min(t.low, s), max(t.high, s)
	}
	t.last, t.at = s, at
	t.indexes = append(t.indexes, at)
}

func (t *textColumn) reset() {
	clear(t.places)
	t.indexes, t.words = t.indexes[:0], t.words[:0]
}

// bitColumn is a column of booleans.
type bitColumn struct {
	bits []byte
	n    int
}

func (b *bitColumn) add(v bool) {
	if b.n%8 == 0 {
		b.bits = append(b.bits, 0)
	}
	if v {
		b.bits[b.n/8] |= 1 << (b.n % 8)
	}
	b.n++
}

// sharedColumn has a dictionary of vectors.
type sharedColumn struct {
	places  map[uint64]int32 // by hash
	vectors []int64          // one after the other
	ends    []int
	words   []byte // encoded
	indexes []int32
}

// add returns the place of a vector in the dictionary.
func (c *sharedColumn) add(values []int64, e *chunk.Encoder) int32 {
	if c.places == nil {
		c.places = map[uint64]int32{}
	}
	hash := hashInts(values)
	at, ok := c.places[hash]
	if !ok || !slices.Equal(c.vector(at), values) {
		at = int32(len(c.ends))
		c.places[hash] = at
		c.vectors = append(c.vectors, values...)
		c.ends = append(c.ends, len(c.vectors))
		head := len(c.words)
		c.words = e.Ints(append(c.words, 0, 0, 0, 0), values)
		binary.LittleEndian.PutUint32(c.words[head:], uint32(len(c.words)-head-lengthBytes))
	}
	c.indexes = append(c.indexes, at)
	return at
}

func (c *sharedColumn) vector(at int32) []int64 {
	start := 0
	if at > 0 {
		start = c.ends[at-1]
	}
	return c.vectors[start:c.ends[at]]
}

func (c *sharedColumn) full() bool {
	return len(c.words) >= maxDictionaryBytes || len(c.vectors) >= maxDictionaryInts
}

func (c *sharedColumn) reset() {
	clear(c.places)
	c.vectors, c.ends, c.words, c.indexes = c.vectors[:0], c.ends[:0], c.words[:0], c.indexes[:0]
}

// hashInts goes four ways at once, for speed.
func hashInts(values []int64) uint64 {
	const prime = 0x9e3779b97f4a7c15
	a, b, c, d := uint64(len(values)), uint64(1), uint64(2), uint64(3)
	for ; len(values) >= 4; values = values[4:] {
		a = (a ^ uint64(values[0])) * prime
		b = (b ^ uint64(values[1])) * prime
		c = (c ^ uint64(values[2])) * prime
		d = (d ^ uint64(values[3])) * prime
		a, b, c, d = a^a>>32, b^b>>32, c^c>>32, d^d>>32
	}
	for _, v := range values {
		a = mix(a, uint64(v))
	}
	return mix(mix(mix(a, b), c), d)
}

// ownColumn has a value of rows that have one.
type ownColumn struct {
	defined []uint8
	values  []byte
	nulls   int
}

func (c *ownColumn) reset() {
	c.defined, c.values, c.nulls = c.defined[:0], c.values[:0], 0
}

// add adds what the catalogue will know, too.
func (g *rowGroup) add(s *Series, name string, samples int64, parts []labelPart, labels []labelBuilder, r *rowEntry) {
	g.texts[columnName].add(name)
	g.texts[columnKind].add(s.Kind.String())
	g.texts[columnType].add(string(s.Family.Type))
	g.texts[columnUnit].add(s.Family.Unit)
	g.texts[columnHelp].add(s.Family.Help)
	g.delta.add(s.Delta)
	g.noSum.add(s.NoSum)
	g.hash = binary.LittleEndian.AppendUint64(g.hash, r.hash)
	g.counts = binary.LittleEndian.AppendUint32(g.counts, uint32(r.rows))
	g.samples = binary.LittleEndian.AppendUint64(g.samples, uint64(samples))
	g.exemplars = binary.LittleEndian.AppendUint32(g.exemplars, uint32(r.exemplars))
	g.first = binary.LittleEndian.AppendUint64(g.first, uint64(r.first))
	g.last = binary.LittleEndian.AppendUint64(g.last, uint64(r.last))
	g.addLabels(parts, labels)
	g.addBounds(s.Bounds)
	g.rows++
}

// addLabels adds all labels but the name.
func (g *rowGroup) addLabels(parts []labelPart, labels []labelBuilder) {
	l := &g.labels
	first := uint8(0)
	for _, p := range parts {
		b := &labels[p.label]
		if b.name == model.MetricNameLabel {
			continue
		}
		if b.asName == 0 {
			l.nameCount++
			b.asName = l.nameCount
			l.nameWords = appendText(l.nameWords, b.name)
		}
		for len(b.inGroup) <= int(p.value) {
			b.inGroup = append(b.inGroup, 0)
		}
		if b.inGroup[p.value] == 0 {
			l.count++
			b.inGroup[p.value] = l.count
			l.words = appendText(l.words, b.values[p.value])
		}
		l.repeated, l.defined = append(l.repeated, first), append(l.defined, 1)
		l.names, l.values = append(l.names, b.asName-1), append(l.values, b.inGroup[p.value]-1)
		first = 1
	}
	if first == 0 {
		l.repeated, l.defined = append(l.repeated, 0), append(l.defined, 0)
		l.nulls++
	}
}

func (g *rowGroup) addBounds(bounds []float64) {
	l := &g.bounds
	for i, b := range bounds {
		l.repeated, l.defined = append(l.repeated, uint8(min(i, 1))), append(l.defined, 1)
		l.values = binary.LittleEndian.AppendUint64(l.values, math.Float64bits(b))
	}
	if len(bounds) == 0 {
		l.repeated, l.defined = append(l.repeated, 0), append(l.defined, 0)
		l.nulls++
	}
}

func (g *rowGroup) full() bool {
	if g.rows >= maxGroupRows || g.ownBytes >= maxGroupBytes {
		return true
	}
	for i := range g.shared {
		if g.shared[i].full() {
			return true
		}
	}
	return false
}

func (g *rowGroup) reset(labels []labelBuilder) {
	for i := range g.texts {
		g.texts[i].reset()
	}
	for i := range g.shared {
		g.shared[i].reset()
	}
	for i := range g.own {
		g.own[i].reset()
	}
	for i := range labels {
		labels[i].asName = 0
		clear(labels[i].inGroup)
	}
	l, b := &g.labels, &g.bounds
	l.repeated, l.defined, l.names, l.values = l.repeated[:0], l.defined[:0], l.names[:0], l.values[:0]
	l.nameWords, l.words, l.nameCount, l.count, l.nulls = l.nameWords[:0], l.words[:0], 0, 0, 0
	b.repeated, b.defined, b.values, b.nulls = b.repeated[:0], b.defined[:0], b.values[:0], 0
	g.delta, g.noSum = bitColumn{bits: g.delta.bits[:0]}, bitColumn{bits: g.noSum.bits[:0]}
	g.hash, g.counts, g.samples, g.exemplars = g.hash[:0], g.counts[:0], g.samples[:0], g.exemplars[:0]
	g.first, g.last = g.first[:0], g.last[:0]
	g.rows, g.ownBytes = 0, 0
}

// write writes the row group and returns where its pages are.
func (g *rowGroup) write(f *parquetFile, l *layout) (places groupPlaces, err error) {
	var packed []byte
	for c := range f.schema[:fixedColumns] {
		p := pages{entries: g.rows, encoding: format.Plain}
		switch c {
		case columnName, columnKind, columnType, columnUnit, columnHelp:
			t := &g.texts[c]
			p.encoding, p.dictionary, p.dictionaryValues = format.RLEDictionary, t.words, len(t.places)
			p.values, packed, err = appendIndexes(nil, packed, t.indexes, len(t.places))
			if len(t.low) <= maxStatistic && len(t.high) <= maxStatistic {
				p.min, p.max = []byte(t.low), []byte(t.high)
			}
		case columnLabelNames:
			x := &g.labels
			p.entries, p.nulls, p.repeated, p.defined = len(x.defined), x.nulls, x.repeated, x.defined
			p.encoding, p.dictionary, p.dictionaryValues = format.RLEDictionary, notNil(x.nameWords), int(x.nameCount)
			p.values, packed, err = appendIndexes(nil, packed, x.names, int(x.nameCount))
		case columnLabelValues:
			x := &g.labels
			p.entries, p.nulls, p.repeated, p.defined = len(x.defined), x.nulls, x.repeated, x.defined
			p.encoding, p.dictionary, p.dictionaryValues = format.RLEDictionary, notNil(x.words), int(x.count)
			p.values, packed, err = appendIndexes(nil, packed, x.values, int(x.count))
		case columnBounds:
			x := &g.bounds
			p.entries, p.nulls, p.repeated, p.defined, p.values = len(x.defined), x.nulls, x.repeated, x.defined, x.values
		default:
			p.values = *g.plain(c)
		}
		if err != nil {
			return places, err
		}
		if _, err = f.add(&p); err != nil {
			return places, err
		}
	}
	return places, g.writeBytes(f, l, &places)
}

// maxStatistic is the longest string that is worth a place in a row group's statistics.
const maxStatistic = 64

// notNil makes a dictionary of an empty one, too.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// plain are the values of a column of numbers.
func (g *rowGroup) plain(column int) *[]byte {
	switch column {
	case columnHash:
		return &g.hash
	case columnDelta:
		return &g.delta.bits
	case columnNoSum:
		return &g.noSum.bits
	case columnRows:
		return &g.counts
	case columnSamples:
		return &g.samples
	case columnExemplarCount:
		return &g.exemplars
	case columnFirst:
		return &g.first
	}
	return &g.last
}

// writeBytes writes the shared and own columns.
func (g *rowGroup) writeBytes(f *parquetFile, l *layout, places *groupPlaces) (err error) {
	var packed []byte
	for i := range l.shared {
		c := &g.shared[i]
		p := pages{entries: g.rows, encoding: format.RLEDictionary, dictionary: c.words, dictionaryValues: len(c.ends)}
		if p.values, packed, err = appendIndexes(nil, packed, c.indexes, len(c.ends)); err != nil {
			return err
		}
		at, err := f.add(&p)
		if err != nil {
			return err
		}
		places.shared[i] = sharedPlace{offset: at.dictionary, size: at.dictionarySize, count: int64(len(c.ends))}
	}
	for i := range l.own {
		c := &g.own[i]
		at, err := f.add(&pages{entries: g.rows, nulls: c.nulls, defined: c.defined, encoding: format.Plain, values: c.values})
		if err != nil {
			return err
		}
		places.own[i] = ownPlace{offset: at.values, size: at.valuesSize}
	}
	return nil
}
