// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
)

// catalogueBuilder gathers the catalogue as rows come.
type catalogueBuilder struct {
	layout   *layout
	labels   []labelBuilder // by number
	byName   map[string]uint32
	names    []string // metric names, in the order of rows
	shapes   [][]uint32
	byShape  map[string]uint32
	bounds   [][]float64
	byBounds map[string]uint32
	families []Family
	byFamily map[Family]uint32
	groups   []groupPlaces
	index    blockIndex
	blocks   []byte

	current block
	// shape, values and parts are of the row that is being added, and those before of the one before it.
	last    []labelPart
	shape   []byte
	shapeID uint32
	encoder encoder
}

// labelBuilder numbers the values of a label.
type labelBuilder struct {
	name    string
	values  []string
	byValue map[string]uint32
	inGroup []int32 // of values: 1 + place in the dictionary of the current row group
	asName  int32   // the same of the name
}

// labelPart is one label of a row.
type labelPart struct {
	label, value uint32
}

// groupPlaces are where the pages of a row group stand.
type groupPlaces struct {
	shared [maxShared]sharedPlace
	own    [maxOwn]ownPlace
}

type sharedPlace struct {
	offset, size int64 // of the dictionary's values
	count        int64
}

type ownPlace struct{ offset, size int64 }

// blockIndex is the directory of blocks, by column.
type blockIndex struct {
	names, rows, groups, sizes []int64
	own                        [maxOwn][]int64 // bytes in the pages of own columns
}

func newCatalogueBuilder(l *layout) *catalogueBuilder {
	return &catalogueBuilder{
		layout: l, byName: map[string]uint32{}, byShape: map[string]uint32{}, byBounds: map[string]uint32{}, byFamily: map[Family]uint32{},
	}
}

// rowEntry is what the catalogue is told of a row, besides its series.
type rowEntry struct {
	hash                     uint64
	rows, counted, exemplars int64
	first, last              int64
	refs                     [maxShared]int32
	sizes                    [maxOwn]int
}

// add adds a row. The caller ends blocks first where one has to end.
func (c *catalogueBuilder) add(s *Series, parts []labelPart, r *rowEntry) error {
	bounds, err := c.boundsOf(s.Bounds)
	if err != nil {
		return err
	}
	family, err := c.familyOf(s.Family)
	if err != nil {
		return err
	}
	b := &c.current
	push := func(column *[]int64, v int64) { *column = append(*column, v) }
	push(&b.hash, int64(r.hash))
	push(&b.flags, s.flags())
	push(&b.bounds, int64(bounds))
	push(&b.family, int64(family))
	push(&b.rows, r.rows)
	push(&b.counted, r.counted)
	push(&b.exemplars, r.exemplars)
	push(&b.first, r.first)
	push(&b.span, r.last-r.first)
	for i := range c.layout.shared {
		push(&b.refs[i], int64(r.refs[i]))
	}
	for i := range c.layout.own {
		push(&b.sizes[i], int64(r.sizes[i]))
	}
	push(&b.shapes, int64(c.shapeOf(parts)))
	b.valuesAt = append(b.valuesAt, uint32(len(b.values)))
	for _, p := range parts {
		b.values = append(b.values, int64(p.value))
	}
	return nil
}

// parts numbers the labels of a row. Neighbours have mostly the same names, in the same order, and some of the same values.
func (c *catalogueBuilder) parts(ls labels.Labels) (parts []labelPart, err error) {
	i := 0
	before := c.last
	c.last = c.last[:0]
	ls.Range(func(l labels.Label) {
		if err != nil {
			return
		}
		var p labelPart
		same := i < len(before) && c.labels[before[i].label].name == l.Name
		if same {
			p = before[i]
		} else if p.label, err = c.labelOf(l.Name); err != nil {
			return
		}
		if l.Name == model.MetricNameLabel {
			p.value = 0 // the name is the block's
		} else if b := &c.labels[p.label]; !same || b.values[p.value] != l.Value {
			p.value, err = b.valueOf(l.Value)
		}
		c.last = append(c.last, p) // in the memory of before, which is not needed any more up to here
		i++
	})
	return c.last, err
}

func (c *catalogueBuilder) labelOf(name string) (uint32, error) {
	id, ok := c.byName[name]
	if ok {
		return id, nil
	}
	if err := checkText(name); err != nil {
		return 0, err
	}
	id = uint32(len(c.labels))
	c.labels = append(c.labels, labelBuilder{name: name, byValue: map[string]uint32{}})
	c.byName[name] = id
	return id, nil
}

func (b *labelBuilder) valueOf(value string) (uint32, error) {
	id, ok := b.byValue[value]
	if ok {
		return id, nil
	}
	if err := checkText(value); err != nil {
		return 0, err
	}
	id = uint32(len(b.values))
	b.values = append(b.values, value)
	b.byValue[value] = id
	return id, nil
}

func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fault.New(fault.Invalid, "a string is not UTF-8: %.40q", s)
	}
	return nil
}

func (c *catalogueBuilder) shapeOf(parts []labelPart) uint32 {
	if c.shapeID < uint32(len(c.shapes)) && isShape(c.shapes[c.shapeID], parts) {
		return c.shapeID
	}
	c.shape = c.shape[:0]
	for _, p := range parts {
		c.shape = binary.AppendUvarint(c.shape, uint64(p.label))
	}
	id, ok := c.byShape[string(c.shape)]
	if !ok {
		id = uint32(len(c.shapes))
		c.byShape[string(c.shape)] = id
		shape := make([]uint32, len(parts))
		for i, p := range parts {
			shape[i] = p.label
		}
		c.shapes = append(c.shapes, shape)
	}
	c.shapeID = id
	return id
}

func isShape(shape []uint32, parts []labelPart) bool {
	if len(shape) != len(parts) {
		return false
	}
	for i, p := range parts {
		if shape[i] != p.label {
			return false
		}
	}
	return true
}

// boundsOf numbers bounds; 0: none.
func (c *catalogueBuilder) boundsOf(bounds []float64) (uint32, error) {
	if len(bounds) == 0 {
		return 0, nil
	}
	if n := len(c.bounds); n > 0 && compareBounds(c.bounds[n-1], bounds) == 0 {
		return uint32(n), nil
	}
	key := make([]byte, 0, 8*len(bounds))
	for _, b := range bounds {
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(b))
	}
	id, ok := c.byBounds[string(key)]
	if !ok {
		c.bounds = append(c.bounds, append([]float64(nil), bounds...))
		id = uint32(len(c.bounds))
		c.byBounds[string(key)] = id
	}
	return id, nil
}

func (c *catalogueBuilder) familyOf(f Family) (uint32, error) {
	if n := len(c.families); n > 0 && c.families[n-1] == f {
		return uint32(n - 1), nil
	}
	id, ok := c.byFamily[f]
	if ok {
		return id, nil
	}
	for _, s := range []string{string(f.Type), f.Unit, f.Help} {
		if err := checkText(s); err != nil {
			return 0, err
		}
	}
	id = uint32(len(c.families))
	c.families = append(c.families, f)
	c.byFamily[f] = id
	return id, nil
}

// endBlock encodes the current block, if it has rows.
func (c *catalogueBuilder) endBlock() {
	b := &c.current
	if b.len() == 0 {
		return
	}
	at := len(c.blocks)
	c.blocks = b.append(c.blocks, &c.encoder.vectors, c.layout, c.shapes)
	x := &c.index
	x.names = append(x.names, int64(len(c.names)-1))
	x.rows = append(x.rows, int64(b.len()))
	x.groups = append(x.groups, int64(len(c.groups)))
	x.sizes = append(x.sizes, int64(len(c.blocks)-at))
	for i := range c.layout.own {
		x.own[i] = append(x.own[i], b.ownBytes(i))
	}
	b.reset(c.layout)
}

const sidecarMagic = "LRM1"

// marshal writes the sidecar: magic, length of the head, the head, blocks, a hash of all that.
func (c *catalogueBuilder) marshal(z *zstd.Encoder, totals *totals) []byte {
	head := z.EncodeAll(c.head(totals), nil)
	b := binary.LittleEndian.AppendUint32([]byte(sidecarMagic), uint32(len(head)))
	b = append(append(b, head...), c.blocks...)
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
}

func (c *catalogueBuilder) head(t *totals) []byte {
	e := &c.encoder
	e.b = e.b[:0]
	e.uint(FormatVersion)
	e.string(string(t.marshal()))
	e.table(c.names)
	e.uint(uint64(len(c.labels)))
	for i := range c.labels {
		e.string(c.labels[i].name)
		e.table(c.labels[i].values)
	}
	e.uint(uint64(len(c.shapes)))
	for _, shape := range c.shapes {
		e.uint(uint64(len(shape)))
		for _, label := range shape {
			e.uint(uint64(label))
		}
	}
	e.uint(uint64(len(c.bounds)))
	for _, bounds := range c.bounds {
		e.floats(bounds)
	}
	e.uint(uint64(len(c.families)))
	for _, f := range c.families {
		e.string(string(f.Type))
		e.string(f.Unit)
		e.string(f.Help)
	}
	c.places(e)
	x := &c.index
	for _, column := range [][]int64{x.names, x.rows, x.groups, x.sizes} {
		e.ints(column)
	}
	for i := range c.layout.own {
		e.ints(x.own[i])
	}
	return e.b
}

func (c *catalogueBuilder) places(e *encoder) {
	e.uint(uint64(len(c.groups)))
	for i := range c.groups {
		for k := range c.layout.shared {
			p := c.groups[i].shared[k]
			e.int(p.offset)
			e.int(p.size)
			e.int(p.count)
		}
		for k := range c.layout.own {
			p := c.groups[i].own[k]
			e.int(p.offset)
			e.int(p.size)
		}
	}
}
