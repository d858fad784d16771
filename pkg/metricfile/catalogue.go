// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Catalogue is what a segment holds, without its points. It is not changed once read, and safe for concurrent use. Rows stay encoded: asking for one decodes
// up to some hundred neighbours, of which the last few are kept, so ordinals are best asked for in their order.
type Catalogue struct {
	Meta
	FormatVersion int
	Rows          int64 // points, or buckets of a rollup
	Samples       int64
	Exemplars     int64
	First, Last   int64 // ns since 1970, both inclusive
	RowHash       uint64

	exemplarHash uint64
	layout       *layout
	names        table
	labels       []labelTable
	shapes       [][]uint32
	bounds       [][]float64
	families     []Family
	groups       []groupPlaces
	blocks       []blockEntry
	length       int
	size         int     // of the sidecar
	limits       []int64 // of labels: how many values they have
	builders     sync.Pool
	recent       [recentBlocks]atomic.Pointer[recentBlock]
	last         atomic.Int32 // block that was asked for
}

// SeriesEntry is what the catalogue says of a row.
type SeriesEntry struct {
	Hash        uint64 // Series.Hash
	Kind        Kind
	Rows        int64 // points, or buckets of a rollup
	Samples     int64
	Exemplars   int64
	First, Last int64 // ns since 1970, both inclusive
	Bytes       int64 // of the values that are its alone
}

// MetricFamily is one metric name with a family, and what its rows amount to.
type MetricFamily struct {
	Name string // base name of classic histograms and summaries
	Family
	Series  int64 // rows
	Rows    int64
	Samples int64
	Bytes   int64
}

// labelTable are the values of a label, in the order in which they appeared.
type labelTable struct {
	name   string
	values table
}

// blockEntry is where a block is, and what of.
type blockEntry struct {
	encoded []byte
	first   int // ordinal
	rows    int
	name    uint32
	group   uint32
	own     [maxOwn]int64 // where its values begin in the pages of own columns
}

const recentBlocks = 16

type recentBlock struct {
	number int
	*block
}

// maxHead bounds what the head of a damaged or hostile sidecar may expand to.
const maxHead = 1 << 30

// ReadCatalogue reads a sidecar. It keeps b.
func ReadCatalogue(sidecar []byte) (*Catalogue, error) {
	const ends = len(sidecarMagic) + 4 + 8
	if len(sidecar) < ends || string(sidecar[:4]) != sidecarMagic {
		return nil, fmt.Errorf("not a sidecar of a metric segment: %w", errDamaged)
	}
	body, sum := sidecar[:len(sidecar)-8], binary.LittleEndian.Uint64(sidecar[len(sidecar)-8:])
	if xxhash.Sum64(body) != sum {
		return nil, fmt.Errorf("sidecar does not have its checksum: %w", errDamaged)
	}
	n := binary.LittleEndian.Uint32(body[4:])
	if uint64(n) > uint64(len(body)-8) {
		return nil, errDamaged
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxHead))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	head, err := z.DecodeAll(body[8:][:n], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	c := &Catalogue{size: len(sidecar)}
	if err := c.read(head, body[8+n:]); err != nil {
		return nil, err
	}
	return c, c.check()
}

func (c *Catalogue) read(head, blocks []byte) error {
	d := decoder{b: head}
	if version := d.uint(); d.err == nil && (version < 1 || version > FormatVersion) {
		return fmt.Errorf("segment has format version %d, and this release reads up to %d", version, FormatVersion)
	}
	t, err := unmarshalTotals([]byte(d.string()))
	if err != nil {
		return err
	}
	c.set(&t)
	c.names = d.table()
	for range d.count() {
		l := labelTable{name: d.string(), values: d.table()}
		c.labels = append(c.labels, l)
		limit := int64(l.values.len())
		if l.name == model.MetricNameLabel {
			limit = 1 // 0, since the name is the block's
		}
		c.limits = append(c.limits, limit)
	}
	for range d.count() {
		var shape []uint32
		for range d.count() {
			shape = append(shape, uint32(d.below(len(c.labels))))
		}
		c.shapes = append(c.shapes, shape)
	}
	c.bounds = append(c.bounds, nil) // 0: none
	for range d.count() {
		c.bounds = append(c.bounds, d.floats())
	}
	for range d.count() {
		c.families = append(c.families, Family{Type: model.MetricType(d.string()), Unit: d.string(), Help: d.string()})
	}
	c.readPlaces(&d)
	c.readIndex(&d, blocks)
	return d.err
}

func (c *Catalogue) set(t *totals) {
	c.Meta, c.FormatVersion = t.Meta, t.formatVersion
	c.Rows, c.Samples, c.Exemplars, c.First, c.Last, c.RowHash, c.exemplarHash = t.rows, t.samples, t.exemplars, t.first, t.last, t.rowHash, t.exemplarHash
	c.layout = layoutOf(&c.Meta)
	c.length = int(t.series)
}

func (c *Catalogue) readPlaces(d *decoder) {
	for range d.count() {
		var g groupPlaces
		for k := range c.layout.shared {
			g.shared[k] = sharedPlace{offset: d.int(), size: d.int(), count: d.int()}
		}
		for k := range c.layout.own {
			g.own[k] = ownPlace{offset: d.int(), size: d.int()}
		}
		c.groups = append(c.groups, g)
	}
}

// readIndex reads the directory of blocks.
func (c *Catalogue) readIndex(d *decoder, encoded []byte) {
	limit := len(encoded) // each block has a byte at least
	names, rows, groups, sizes := d.ints(limit), d.ints(limit), d.ints(limit), d.ints(limit)
	var own [maxOwn][]int64
	for i := range c.layout.own {
		own[i] = d.ints(limit)
	}
	n := len(names)
	same := len(rows) == n && len(groups) == n && len(sizes) == n
	for i := range c.layout.own {
		same = same && len(own[i]) == n
	}
	if !same {
		d.fail()
		return
	}
	c.blocks = make([]blockEntry, n)
	first, at := 0, [maxOwn]int64{}
	for i := range c.blocks {
		b := blockEntry{first: first, rows: int(rows[i]), name: uint32(names[i]), group: uint32(groups[i])}
		sound := rows[i] > 0 && rows[i] <= maxBlockRows && names[i] >= 0 && names[i] < int64(c.names.len()) && groups[i] >= 0 && groups[i] < int64(len(c.groups)) &&
			sizes[i] >= 0 && sizes[i] <= int64(len(encoded))
		if !sound {
			d.fail()
			return
		}
		b.encoded, encoded = encoded[:sizes[i]], encoded[sizes[i]:]
		if i > 0 && groups[i] != groups[i-1] {
			at = [maxOwn]int64{}
		}
		for k := range c.layout.own {
			b.own[k] = at[k]
			at[k] += own[k][i]
			if own[k][i] < 0 || at[k] > c.groups[b.group].own[k].size {
				d.fail()
				return
			}
		}
		first += b.rows
		c.blocks[i] = b
	}
	if first != c.length || len(encoded) != 0 {
		d.fail()
	}
}

// check decodes every block, so that none is damaged when it is asked for.
func (c *Catalogue) check() error {
	rows, samples := int64(0), int64(0)
	b := &block{}
	for i := range c.blocks {
		e := &c.blocks[i]
		if err := b.decode(e.encoded, e.rows, c.layout, c.shapes); err != nil {
			return err
		}
		if err := c.checkBlock(b, e); err != nil {
			return err
		}
		for row := range b.hash {
			rows += b.rows[row]
			s := c.shell(b, row)
			samples += b.counted[row] * int64(s.NumTracks())
		}
	}
	if rows != c.Rows || samples != c.Samples {
		return fmt.Errorf("the catalogue's rows add up to %d points and %d samples, its totals are %d and %d: %w", rows, samples, c.Rows, c.Samples, errDamaged)
	}
	return nil
}

func (c *Catalogue) checkBlock(b *block, e *blockEntry) error {
	sound := true
	below := func(column []int64, limit int) {
		for _, v := range column {
			sound = sound && v >= 0 && v < int64(limit)
		}
	}
	below(b.flags, flagMask+1)
	below(b.bounds, len(c.bounds))
	below(b.family, len(c.families))
	below(b.rows, maxVector+1)
	below(b.exemplars, maxVector+1)
	for k := range c.layout.shared {
		below(b.refs[k], int(min(c.groups[e.group].shared[k].count, maxVector)))
	}
	for k := range c.layout.own {
		sound = sound && b.ownBytes(k) <= c.groups[e.group].own[k].size-e.own[k]
	}
	for row, shape := range b.shapes {
		labels := c.shapes[shape]
		for k, v := range b.labels(row) {
			sound = sound && v >= 0 && v < c.limits[labels[k]]
		}
	}
	if !sound {
		return errDamaged
	}
	return nil
}

// count reads a number of things that take a byte at least.
func (d *decoder) count() int {
	return int(d.below(len(d.b) + 1))
}

// below reads a number that has to be less than a limit.
func (d *decoder) below(limit int) uint64 {
	n := d.uint()
	if n >= uint64(limit) {
		d.fail()
		return 0
	}
	return n
}

// Len returns the number of rows of the Parquet file: ordinals are below it.
func (c *Catalogue) Len() int { return c.length }

// Bytes is about how much memory the catalogue takes.
func (c *Catalogue) Bytes() int64 {
	n := int64(c.size) + int64(len(c.names.text)) + int64(4*len(c.names.ends)) + int64(160*len(c.blocks)) + 1<<16
	for i := range c.labels {
		n += int64(len(c.labels[i].values.text)) + int64(4*len(c.labels[i].values.ends))
	}
	return n
}

// at returns the block of an ordinal, and which of its rows it is.
func (c *Catalogue) at(ordinal int) (e *blockEntry, b *block, row int) {
	number := int(c.last.Load()) // mostly the same again
	if e = &c.blocks[number]; ordinal < e.first || ordinal >= e.first+e.rows {
		var ok bool
		if number, ok = slices.BinarySearchFunc(c.blocks, ordinal, func(e blockEntry, ordinal int) int { return cmp.Compare(e.first, ordinal) }); !ok {
			number--
		}
		c.last.Store(int32(number))
		e = &c.blocks[number]
	}
	return e, c.block(number), ordinal - e.first
}

func (c *Catalogue) block(number int) *block {
	slot := &c.recent[number%recentBlocks]
	if r := slot.Load(); r != nil && r.number == number {
		return r.block
	}
	e := &c.blocks[number]
	b := &block{}
	if err := b.decode(e.encoded, e.rows, c.layout, c.shapes); err != nil {
		panic("metricfile: a block that was sound is damaged")
	}
	slot.Store(&recentBlock{number: number, block: b})
	return b
}

// Entry returns what is known of a row.
func (c *Catalogue) Entry(ordinal int) SeriesEntry {
	_, b, row := c.at(ordinal)
	return c.entry(b, row)
}

func (c *Catalogue) entry(b *block, row int) SeriesEntry {
	s := c.shell(b, row)
	e := SeriesEntry{
		Hash: uint64(b.hash[row]), Kind: s.Kind, Rows: b.rows[row], Exemplars: b.exemplars[row],
		Samples: b.counted[row] * int64(s.NumTracks()),
		First:   b.first[row], Last: b.first[row] + b.span[row],
	}
	for k := range c.layout.own {
		e.Bytes += b.sizes[k][row]
	}
	return e
}

// Hash returns the Series.Hash of a row.
func (c *Catalogue) Hash(ordinal int) uint64 {
	_, b, row := c.at(ordinal)
	return uint64(b.hash[row])
}

// Series makes the series of a row. Bounds are not to be changed.
func (c *Catalogue) Series(ordinal int) *Series {
	e, b, row := c.at(ordinal)
	s := c.shell(b, row)
	s.Family = c.families[b.family[row]]
	builder, ok := c.builders.Get().(*labels.ScratchBuilder)
	if !ok {
		fresh := labels.NewScratchBuilder(16)
		builder = &fresh
	}
	defer c.builders.Put(builder)
	builder.Reset()
	for k, v := range b.labels(row) {
		l := &c.labels[c.shapes[b.shapes[row]][k]]
		if l.name == model.MetricNameLabel {
			builder.Add(l.name, c.names.at(int(e.name)))
		} else {
			builder.Add(l.name, l.values.at(int(v)))
		}
	}
	s.Labels = builder.Labels()
	return &s
}

// Is reports whether a row is of a series. It makes no garbage.
func (c *Catalogue) Is(ordinal int, s *Series) bool {
	e, b, row := c.at(ordinal)
	shell := c.shell(b, row)
	return compareShapes(&shell, s) == 0 && c.sameLabels(e, b, row, s.Labels)
}

func (c *Catalogue) sameLabels(e *blockEntry, b *block, row int, of labels.Labels) bool {
	values := b.labels(row)
	if len(values) != of.Len() {
		return false
	}
	for k, v := range values {
		l := &c.labels[c.shapes[b.shapes[row]][k]]
		value := c.names.at(int(e.name))
		if l.name != model.MetricNameLabel {
			value = l.values.at(int(v))
		}
		if of.Get(l.name) != value {
			return false
		}
	}
	return true
}

// shell is the series of a row without labels and family.
func (c *Catalogue) shell(b *block, row int) Series {
	f := b.flags[row]
	return Series{Kind: Kind(f & flagKind), Delta: f&flagDelta != 0, NoSum: f&flagNoSum != 0, Bounds: c.bounds[b.bounds[row]]}
}

// Value returns the value of a label of a row as it is stored; empty: it has not that label.
func (c *Catalogue) Value(ordinal int, label string) string {
	e, b, row := c.at(ordinal)
	if label == model.MetricNameLabel {
		return c.names.at(int(e.name))
	}
	for k, number := range c.shapes[b.shapes[row]] {
		if l := &c.labels[number]; l.name == label {
			return l.values.at(int(b.labels(row)[k]))
		}
	}
	return ""
}

// Names returns the names of rows, sorted.
func (c *Catalogue) Names() []string {
	names := make([]string, c.names.len())
	for i := range names {
		names[i] = c.names.at(i)
	}
	return names
}

// Families returns metric names with what is said of them, sorted by name, then type, unit and help.
func (c *Catalogue) Families() []MetricFamily {
	type key struct {
		name   uint32
		family int64
	}
	places := map[key]int{}
	var all []MetricFamily
	for number := range c.blocks {
		e, b := &c.blocks[number], c.block(number)
		for row := range b.hash {
			k := key{name: e.name, family: b.family[row]}
			at, ok := places[k]
			if !ok {
				at = len(all)
				places[k] = at
				all = append(all, MetricFamily{Name: c.names.at(int(e.name)), Family: c.families[b.family[row]]})
			}
			f, entry := &all[at], c.entry(b, row)
			f.Series++
			f.Rows += entry.Rows
			f.Samples += entry.Samples
			f.Bytes += entry.Bytes
		}
	}
	slices.SortFunc(all, func(a, b MetricFamily) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Help, b.Help))
	})
	return all
}

// LabelNames returns the names of labels of rows, sorted. Those of tracks (le, quantile) are not among them.
func (c *Catalogue) LabelNames() []string {
	var names []string
	for i := range c.labels {
		names = append(names, c.labels[i].name)
	}
	slices.Sort(names)
	return names
}

// LabelValues returns the distinct values of a label of rows, sorted.
func (c *Catalogue) LabelValues(name string) []string {
	if name == model.MetricNameLabel {
		return c.Names()
	}
	var values []string
	for i := range c.labels {
		if l := &c.labels[i]; l.name == name {
			for k := range l.values.len() {
				values = append(values, l.values.at(k))
			}
		}
	}
	slices.Sort(values)
	return values
}
