// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/klauspost/compress/zstd"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// maxCatalogue bounds what a damaged or hostile catalogue may expand to.
const maxCatalogue = 1 << 30

var errDamaged = errors.New("damaged catalogue")

// marshal encodes the catalogue, compressed. Numbers are varints; strings have their length before them.
func (c *Catalogue) marshal(z *zstd.Encoder) []byte {
	var e encoder
	e.int(int64(c.FormatVersion))
	e.meta(&c.Meta)
	e.int(c.Rows)
	e.int(c.BodyBytes)
	e.uint(c.RowHash)
	e.uint(uint64(len(c.Streams)))
	for i := range c.Streams {
		e.stream(&c.Streams[i])
	}
	e.uint(uint64(len(c.Origins)))
	for i := range c.Origins {
		e.origin(&c.Origins[i])
	}
	e.uint(uint64(len(c.Attributes)))
	for _, a := range c.Attributes {
		e.string(a.Name)
		e.uint(uint64(a.Kind))
		e.bool(a.Column != "")
		e.int(a.Rows)
		e.int(a.Cardinality)
	}
	e.uint(uint64(len(c.RowGroups)))
	for _, g := range c.RowGroups {
		e.int(g.Rows)
		e.int(g.First)
		e.int(g.Last - g.First)
	}
	e.secondVersion(c)
	return z.EncodeAll(e.b, nil)
}

// secondVersion appends what version 2 added.
func (e *encoder) secondVersion(c *Catalogue) {
	e.bool(c.Identified)
	e.int(int64(c.AppliedDelete))
	e.uint(uint64(len(c.Rules)))
	for _, rule := range c.Rules {
		e.string(rule)
	}
	for i := range c.Origins {
		e.string(c.Origins[i].Identity)
	}
}

func (d *decoder) secondVersion(c *Catalogue) {
	c.Identified = d.bool()
	c.AppliedDelete = lake.DeleteID(d.int())
	c.Rules = list(d, (*decoder).string)
	for i := range c.Origins {
		c.Origins[i].Identity = d.string()
	}
}

// unmarshalCatalogue is the inverse of marshal.
func unmarshalCatalogue(compressed []byte) (*Catalogue, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxCatalogue))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	plain, err := z.DecodeAll(compressed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	d := decoder{b: plain}
	c := &Catalogue{FormatVersion: int(d.int())}
	if d.err == nil && (c.FormatVersion < 1 || c.FormatVersion > FormatVersion) {
		return nil, fmt.Errorf("segment has format version %d, and this release reads up to %d", c.FormatVersion, FormatVersion)
	}
	d.catalogue(c)
	if d.err != nil {
		return nil, d.err
	}
	return c, nil
}

func (d *decoder) catalogue(c *Catalogue) {
	c.Meta = d.meta()
	c.Rows = d.int()
	c.BodyBytes = d.int()
	c.RowHash = d.uint()
	c.Streams = list(d, (*decoder).stream)
	c.Origins = list(d, (*decoder).origin)
	c.Attributes = list(d, (*decoder).attributeEntry)
	c.RowGroups = list(d, (*decoder).rowGroup)
	row := int64(0)
	for i := range c.RowGroups {
		c.RowGroups[i].FirstRow = row
		row += c.RowGroups[i].Rows
	}
	if c.FormatVersion >= 2 {
		d.secondVersion(c)
	}
}

func (e *encoder) meta(m *Meta) {
	e.string(string(m.Organization))
	e.uint(uint64(m.Signal))
	e.int(m.Window.Start.UnixNano())
	e.int(int64(m.Window.Length))
	e.int(int64(m.Level))
	e.string(string(m.Lease))
	e.uint(uint64(len(m.Sources)))
	for _, s := range m.Sources {
		e.int(int64(s))
	}
	e.uint(uint64(len(m.Inputs)))
	for _, key := range m.Inputs {
		e.string(key)
	}
}

func (d *decoder) meta() Meta {
	return Meta{
		Organization: lake.Organization(d.string()),
		Signal:       lake.Signal(d.uint()),
		Window:       lake.Window{Start: time.Unix(0, d.int()).UTC(), Length: time.Duration(d.int())},
		Level:        int(d.int()),
		Lease:        lake.LeaseID(d.string()),
		Sources:      list(d, func(d *decoder) lake.ReceiptID { return lake.ReceiptID(d.int()) }),
		Inputs:       list(d, (*decoder).string),
	}
}

func (e *encoder) stream(s *StreamEntry) {
	e.uint(uint64(len(s.Labels)))
	for _, l := range s.Labels {
		e.string(l.Name)
		e.string(l.Value)
	}
	e.int(s.Rows)
	e.int(s.Bytes)
	e.int(s.First)
	e.int(s.Last - s.First)
}

func (d *decoder) stream() StreamEntry {
	s := StreamEntry{
		Labels: list(d, func(d *decoder) columns.Label { return columns.Label{Name: d.string(), Value: d.string()} }),
		Rows:   d.int(),
		Bytes:  d.int(),
		First:  d.int(),
	}
	s.Last = s.First + d.int()
	return s
}

func (e *encoder) origin(o *columns.Origin) {
	e.attributes(o.Resource)
	e.string(o.ResourceSchemaURL)
	e.string(o.ScopeName)
	e.string(o.ScopeVersion)
	e.attributes(o.Scope)
	e.string(o.ScopeSchemaURL)
}

func (d *decoder) origin() columns.Origin {
	return columns.Origin{
		Resource:          list(d, (*decoder).attribute),
		ResourceSchemaURL: d.string(),
		ScopeName:         d.string(),
		ScopeVersion:      d.string(),
		Scope:             list(d, (*decoder).attribute),
		ScopeSchemaURL:    d.string(),
	}
}

func (e *encoder) attributes(attributes []columns.Attribute) {
	e.uint(uint64(len(attributes)))
	for _, a := range attributes {
		e.string(a.Name)
		e.uint(uint64(a.Value.Kind))
		if a.Value.Kind.Textual() {
			e.string(a.Value.Str)
		} else {
			e.uint(a.Value.Num)
		}
	}
}

func (d *decoder) attribute() columns.Attribute {
	a := columns.Attribute{Name: d.string(), Value: columns.Value{Kind: columns.ValueKind(d.uint())}}
	if a.Value.Kind.Textual() {
		a.Value.Str = d.string()
	} else {
		a.Value.Num = d.uint()
	}
	return a
}

func (d *decoder) attributeEntry() AttributeEntry {
	a := AttributeEntry{Name: d.string(), Kind: columns.ValueKind(d.uint())}
	own := d.bool()
	if a.Kind > columns.KindMap {
		d.err = errDamaged
		return a
	}
	if own {
		a.Column = ColumnName(a.Name, a.Kind)
	}
	a.Rows = d.int()
	a.Cardinality = d.int()
	return a
}

func (d *decoder) rowGroup() RowGroup {
	g := RowGroup{Rows: d.int(), First: d.int()}
	g.Last = g.First + d.int()
	return g
}

type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) string(s string) { e.b = append(binary.AppendUvarint(e.b, uint64(len(s))), s...) }
func (e *encoder) bool(v bool) {
	if v {
		e.uint(1)
	} else {
		e.uint(0)
	}
}

// decoder reads what encoder wrote; its strings share b, which must not change. After the first error all values are zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	return advance(d, v, n)
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	return advance(d, v, n)
}

func advance[T any](d *decoder, v T, n int) (zero T) {
	if n <= 0 {
		d.err, d.b = errDamaged, nil
		return zero
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bool() bool { return d.uint() != 0 }

func (d *decoder) string() string {
	b := d.bytes()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.err, d.b = errDamaged, nil
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

// list reads a count and that many elements. Each takes a byte at least, so that a count cannot ask for more memory than
// the input is worth.
func list[T any](d *decoder, element func(*decoder) T) []T {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.err, d.b = errDamaged, nil
		return nil
	}
	if n == 0 {
		return nil
	}
	elements := make([]T, 0, min(n, 1<<16))
	for range n {
		if d.err != nil {
			return nil
		}
		elements = append(elements, element(d))
	}
	return elements
}
