// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// row is a row of a segment on its way to Loki. Its strings live as long as their batch.
type row struct {
	columns.LogRow
	number int64
	count  int64 // of rows that are counted together
	bytes  int64 // of their bodies
	bucket int64
	sparse string
}

// field is one column of a statement, and how its values get into a row.
type field struct {
	sql string
	// column is what the value is made of in a file that is read without SQL.
	column string
	set    func(r *row, v values, i int)
}

// values are the values of one column: those of a batch, or a segfile.Vector.
type values interface {
	IsNull(i int) bool
	// Number is an integer, the bits of a double, or 0 or 1 for a truth value; 0 for null.
	Number(i int) int64
	// Text is text or bytes without a copy; empty for null.
	Text(i int) string
}

var _ values = (*segfile.Vector)(nil)

// arrowValues are the values of a column of a batch.
type arrowValues struct{ arrow.Array }

// Number implements values.
func (a arrowValues) Number(i int) int64 { return int64At(a.Array, i) }

// Text implements values.
func (a arrowValues) Text(i int) string { return bytesAt(a.Array, i) }

func valuesOf(batch arrow.RecordBatch) []values {
	all := make([]values, batch.NumCols())
	for i := range all {
		all[i] = arrowValues{batch.Column(i)}
	}
	return all
}

// projection is the columns that a query needs of a segment.
type projection struct {
	fields []field
	// metadata is whether rows can have structured metadata that the query sees.
	metadata bool
	// sparse is whether attributes without a column are needed, and origin whether resource and scope are.
	sparse, origin bool
}

func (p *projection) add(sql string, set func(r *row, v values, i int)) {
	p.fields = append(p.fields, field{sql, sql, set})
}

func (p *projection) columns() []string {
	var names []string
	for _, f := range p.fields {
		names = append(names, f.sql)
	}
	return names
}

// aliased are the columns with short names, and these names.
func (p *projection) aliased() (columns, names []string) {
	for i, f := range p.fields {
		names = append(names, fmt.Sprintf("c%d", i))
		columns = append(columns, f.sql+" AS "+names[i])
	}
	return columns, names
}

func int64At(a arrow.Array, i int) int64 {
	switch a := a.(type) {
	case *array.Int64:
		return a.Value(i)
	case *array.Int32:
		return int64(a.Value(i))
	case *array.Float64:
		return int64(math.Float64bits(a.Value(i)))
	case *array.Boolean:
		if a.Value(i) {
			return 1
		}
	}
	return 0
}

// bytesAt is a value of text or bytes without a copy; empty for null.
func bytesAt(a arrow.Array, i int) string {
	if a.IsNull(i) {
		return ""
	}
	switch a := a.(type) {
	case *array.String:
		return a.Value(i)
	case *array.Binary:
		return a.ValueString(i)
	}
	return ""
}

func (p *projection) time() {
	p.add("time", func(r *row, v values, i int) { r.Time = v.Number(i) })
}

func (p *projection) stream() {
	p.add("stream", func(r *row, v values, i int) { r.Stream = columns.StreamID(v.Number(i)) })
}

func (p *projection) number() {
	p.add("row", func(r *row, v values, i int) { r.number = v.Number(i) })
}

func (p *projection) source() {
	p.add("source", func(r *row, v values, i int) { r.Source = lake.ReceiptID(v.Number(i)) })
}

func (p *projection) body() {
	p.add("body", func(r *row, v values, i int) { r.Body = v.Text(i) })
}

// structured adds what the names need of a cut.
func (p *projection) structured(k *cut, names plan.Names) {
	if names.All {
		p.everything(k)
		return
	}
	for _, name := range names.List() {
		// Metadata of a name that the stream has is shown under another one.
		if !k.allStreamsHave(name) || names.Has(plan.Extracted(name)) {
			p.named(k, name)
		}
	}
}

func (p *projection) everything(k *cut) {
	p.addOrigin()
	for _, name := range []string{
		columns.MetadataDetectedLevel, columns.MetadataObservedTimestamp, columns.MetadataSeverityNumber, columns.MetadataSeverityText,
		columns.MetadataDroppedAttributes, columns.MetadataFlags, columns.MetadataTraceID, columns.MetadataSpanID,
	} {
		p.fixed(name)
	}
	for i := range k.contents.attributes {
		p.attribute(&k.contents.attributes[i])
	}
}

func (p *projection) named(k *cut, name string) {
	p.fixed(name)
	if k.contents.originHas[name] {
		p.addOrigin()
	}
	for i := range k.contents.attributes {
		if a := &k.contents.attributes[i]; a.mayShow(name) {
			p.attribute(a)
		}
	}
}

func (p *projection) addOrigin() {
	p.metadata = true
	if p.origin {
		return
	}
	p.origin = true
	p.add("origin", func(r *row, v values, i int) { r.Origin = columns.OriginID(v.Number(i)) })
}

// fixed adds the columns of a fixed field, if that is what the name is of.
func (p *projection) fixed(name string) {
	before := len(p.fields)
	switch name {
	case columns.MetadataDetectedLevel:
		p.add("detected_level", func(r *row, v values, i int) { r.DetectedLevel = v.Text(i) })
	case columns.MetadataSeverityText:
		p.add("severity_text", func(r *row, v values, i int) { r.SeverityText = v.Text(i) })
	case columns.MetadataSeverityNumber:
		p.add("severity_number", func(r *row, v values, i int) { r.SeverityNumber = int32(v.Number(i)) })
	case columns.MetadataObservedTimestamp:
		p.add("time_source", func(r *row, v values, i int) { r.TimeSource = columns.TimeSource(v.Number(i)) })
		p.add(segfile.ObservedTimeSQL, func(r *row, v values, i int) { r.ObservedTime = v.Number(i) })
		p.fields[len(p.fields)-1].column = delayColumn
	case columns.MetadataDroppedAttributes:
		p.add("dropped_attributes", func(r *row, v values, i int) { r.DroppedAttributes = uint32(v.Number(i)) })
	case columns.MetadataFlags:
		p.add("flags", func(r *row, v values, i int) { r.Flags = uint32(v.Number(i)) })
	case columns.MetadataTraceID:
		p.add("trace_id", func(r *row, v values, i int) { r.TraceID = [16]byte{}; copy(r.TraceID[:], v.Text(i)) })
	case columns.MetadataSpanID:
		p.add("span_id", func(r *row, v values, i int) { r.SpanID = [8]byte{}; copy(r.SpanID[:], v.Text(i)) })
	}
	p.metadata = p.metadata || len(p.fields) > before
}

// delayColumn is the column that ObservedTimeSQL adds to the time.
const delayColumn = "observed_delay"

func (p *projection) attribute(of *attribute) {
	p.metadata = true
	if of.Column == "" {
		p.addSparse()
		return
	}
	if slices.ContainsFunc(p.fields, func(f field) bool { return f.sql == of.Column }) {
		return
	}
	name, kind := of.Name, of.Kind
	value := valueReader(kind)
	p.add(of.Column, func(r *row, v values, i int) {
		if !v.IsNull(i) {
			r.Attributes = append(r.Attributes, columns.Attribute{Name: name, Value: value(v, i)})
		}
	})
}

func (p *projection) addSparse() {
	if p.sparse {
		return
	}
	p.sparse = true
	p.add("attributes", func(r *row, v values, i int) { r.sparse = v.Text(i) })
}

func valueReader(kind columns.ValueKind) func(v values, i int) columns.Value {
	switch kind {
	case columns.KindInt, columns.KindDouble, columns.KindBool:
		return func(v values, i int) columns.Value { return columns.Value{Kind: kind, Num: uint64(v.Number(i))} }
	}
	return func(v values, i int) columns.Value { return columns.Value{Kind: kind, Str: v.Text(i)} }
}

// read sets a row from one of the fields' values.
func (p *projection) read(r *row, from []values, i int) error {
	r.Attributes = r.Attributes[:0]
	for c := range p.fields {
		p.fields[c].set(r, from[c], i)
	}
	if !p.sparse || r.sparse == "" {
		p.sort(r)
		return nil
	}
	var err error
	if r.Attributes, err = segfile.DecodeAttributes(r.Attributes, r.sparse); err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	p.sort(r)
	return nil
}

// sort gives a row's attributes their order. Columns come in it; others do not.
func (p *projection) sort(r *row) {
	compare := func(a, b columns.Attribute) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value.Kind, b.Value.Kind))
	}
	if !slices.IsSortedFunc(r.Attributes, compare) {
		slices.SortFunc(r.Attributes, compare)
	}
}

// structuredOf makes the structured metadata of rows of one cut. It is for one goroutine.
type structuredOf struct {
	cut        *cut
	projection *projection
	byOrigin   map[uint64]*columns.Metadata
	scratch    []columns.Label
	builder    labels.ScratchBuilder
}

func newStructuredOf(k *cut, p *projection) *structuredOf {
	return &structuredOf{cut: k, projection: p, byOrigin: map[uint64]*columns.Metadata{}, builder: labels.NewScratchBuilder(16)}
}

// labels returns a row's structured metadata.
func (s *structuredOf) labels(r *row) labels.Labels {
	if !s.projection.metadata {
		return labels.EmptyLabels()
	}
	s.scratch = s.metadata(r).Append(s.scratch[:0], &r.LogRow)
	s.builder.Reset()
	for _, l := range s.scratch {
		s.builder.Add(l.Name, l.Value)
	}
	s.builder.Sort()
	return s.builder.Labels()
}

func (s *structuredOf) metadata(r *row) *columns.Metadata {
	key := uint64(r.Stream)<<32 | uint64(r.Origin)
	if m, ok := s.byOrigin[key]; ok {
		return m
	}
	var origin columns.Origin
	if s.projection.origin {
		origin = s.cut.contents.Origins[r.Origin]
	}
	m := columns.NewMetadata(origin, s.cut.contents.streams[r.Stream].StreamEntry.Labels)
	s.byOrigin[key] = m
	return m
}
