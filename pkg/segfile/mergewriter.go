// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// mergeWriter writes one output. It gathers runs of rows from row groups of the inputs by column, and encodes each row group when it is full.
type mergeWriter struct {
	merge     *merger
	z         *zstd.Encoder
	file      *parquetFile
	sidecar   io.Writer
	done      func() error
	filter    filterBuilder
	catalogue *Catalogue
	sources   map[lake.ReceiptID]struct{}
	// streams and origins are the numbers in the catalogue of those in the merge's tables.
	streams, origins []uint32
	first, end       int64 // of the window

	// runs are rows of inputs that wait to be gathered; they end with the present row group.
	runs []mergeRun
	// pending rows, gathered ones included, of so many bytes of text and of one hour.
	pending int
	bytes   int
	hour    int64
	// serial numbers row groups, so that an input knows whether its values have numbers in it.
	serial uint64

	rows                            int // gathered
	numbers                         [fixedColumns][]int64
	observed                        []int64
	traces, spans                   []byte
	body, severityText, level, name textColumn
	rest                            textColumn
	restValues                      []restValue
	attributes                      []attributeSlots

	encoder  numbers
	texts    texts
	bodies   []string
	present  []uint8
	compact  []int64
	strings  []string
	packed   []byte
	each     []columns.Attribute
	scratch  []byte
	attrHash []uint64
	uses     []int32
}

// mergeRun is rows of the row group that an input has loaded.
type mergeRun struct {
	source   *mergeSource
	from, to int
}

// attributeSlots gathers an attribute that has a column: texts or numbers, a slot a row.
type attributeSlots struct {
	key     *mergeKey
	texts   textColumn
	numbers []int64
	present []uint8
}

// restValue is what a text of `attributes` holds.
type restValue struct {
	hash uint64
}

func newMergeWriter(m *merger, parquet, sidecar io.Writer, done func() error) (*mergeWriter, error) {
	z, err := newEncoder(compression(m.options.Meta.Level))
	if err != nil {
		return nil, err
	}
	w := &mergeWriter{
		merge: m, z: z, sidecar: sidecar, done: done, texts: texts{seen: map[string]int64{}},
		catalogue: &Catalogue{Meta: m.options.Meta, FormatVersion: FormatVersion}, sources: map[lake.ReceiptID]struct{}{},
		streams: filled(m.tables.Streams()), origins: filled(m.tables.Origins()), first: math.MinInt64, end: math.MaxInt64,
	}
	if window := m.options.Meta.Window; window.Length > 0 {
		w.first, w.end = window.Start.UnixNano(), window.End().UnixNano()
	}
	schema := fixedSchema()
	for _, k := range m.dense {
		schema = append(schema, attributeColumn(k.Key))
		w.attributes = append(w.attributes, attributeSlots{key: k, texts: textColumn{nullable: true}})
	}
	for _, k := range m.keys {
		k.written, k.distinct = 0, distinct{}
	}
	w.nextSerial()
	w.file, err = newParquetFile(parquet, z, schema)
	return w, err
}

func (w *mergeWriter) nextSerial() {
	w.merge.serial++
	w.serial = w.merge.serial
}

// full reports whether the head of an input does not belong into the present row group any more.
func (w *mergeWriter) full(s *mergeSource) bool {
	return w.pending > 0 && (w.pending == rowGroupRows || w.bytes+int(s.sizes[s.row]) > rowGroupBytes || s.hour != w.hour)
}

// add takes the head of an input.
func (w *mergeWriter) add(s *mergeSource) error {
	if t := s.numbers[columnTime][s.row]; t < w.first || t >= w.end {
		return fault.New(fault.Internal, "merge %s: row at %d ns is outside the window", s.Name, t)
	}
	w.hour = s.hour
	w.pending++
	w.bytes += int(s.sizes[s.row])
	if n := len(w.runs); n > 0 && w.runs[n-1].source == s && w.runs[n-1].to == s.row {
		w.runs[n-1].to++
		return nil
	}
	w.runs = append(w.runs, mergeRun{source: s, from: s.row, to: s.row + 1})
	return nil
}

// gather copies the waiting rows: after it, inputs may load other row groups.
func (w *mergeWriter) gather() {
	if len(w.runs) == 0 {
		return
	}
	for _, c := range numberColumns {
		w.gatherNumbers(c)
	}
	n := len(w.numbers[columnTime])
	for _, run := range w.runs {
		w.observed = append(w.observed, run.source.observed[run.from:run.to]...)
		for row := run.from; row < run.to; row++ {
			p := &run.source.parts[row]
			w.traces = append(w.traces, p.TraceID[:]...)
			w.spans = append(w.spans, p.SpanID[:]...)
		}
	}
	w.gatherTexts(&w.severityText, func(s *mergeSource) *sourceText { return &s.severityText })
	w.gatherTexts(&w.level, func(s *mergeSource) *sourceText { return &s.level })
	w.gatherTexts(&w.name, func(s *mergeSource) *sourceText { return &s.eventName })
	w.gatherBodies()
	w.gatherAttributes(n)
	w.rows = n
	w.runs = w.runs[:0]
}

func (w *mergeWriter) gatherNumbers(c int) {
	into := w.numbers[c]
	for _, run := range w.runs {
		from := run.source.numbers[c][run.from:run.to]
		switch c {
		case columnStream:
			for _, v := range from {
				into = append(into, int64(run.source.streams[v]))
			}
		case columnOrigin:
			for _, v := range from {
				into = append(into, int64(run.source.origins[v]))
			}
		default:
			into = append(into, from...)
		}
	}
	w.numbers[c] = into
}

func (w *mergeWriter) gatherTexts(c *textColumn, of func(*mergeSource) *sourceText) {
	for _, run := range w.runs {
		c.addRun(of(run.source), run.from, run.to, w.serial)
	}
}

func (w *mergeWriter) gatherBodies() {
	for _, run := range w.runs {
		if !run.source.changesBody {
			w.body.addRun(&run.source.body, run.from, run.to, w.serial)
			continue
		}
		for _, body := range run.source.bodies[run.from:run.to] {
			w.body.add(body)
		}
	}
}

// gatherAttributes fills a slot of each attribute's column for each waiting row, of which n is the last.
func (w *mergeWriter) gatherAttributes(n int) {
	for i := range w.attributes {
		w.attributes[i].grow(n)
	}
	row := w.rows
	for _, run := range w.runs {
		s := run.source
		for c := range s.attributes {
			if a := &s.attributes[c]; !a.moves {
				w.attributes[a.key.column].addRun(a, run.from, run.to, row, w.serial)
			}
		}
		w.gatherRest(s, run, row)
		row += run.to - run.from
	}
}

// gatherRest copies `attributes`, and sends those that move to where they belong.
func (w *mergeWriter) gatherRest(s *mergeSource, run mergeRun, row int) {
	for i := run.from; i < run.to; i++ {
		if s.moved[i] {
			w.place(s.moves[i], row)
		} else {
			w.rest.addOne(&s.rest, i, w.serial)
		}
		row++
	}
}

// place puts a row's moved attributes into their columns, and the others into `attributes`.
func (w *mergeWriter) place(moves []columns.Attribute, row int) {
	w.each = w.each[:0]
	for _, a := range moves {
		key := w.merge.keyOf(columns.Key{Name: a.Name, Kind: a.Value.Kind})
		if key.column < 0 {
			w.each = append(w.each, a)
			continue
		}
		w.attributes[key.column].set(row, a.Value)
	}
	if len(w.each) == 0 {
		w.rest.addNone()
		return
	}
	sortAttributes(w.each)
	w.scratch = w.scratch[:0]
	for i, a := range w.each {
		switch {
		case i == 0:
			w.scratch = append(append(w.scratch, '{'), w.prefixOf(a)...)
		case a.Name == w.each[i-1].Name:
			w.scratch = append(w.scratch, ',')
		default:
			w.scratch = append(append(w.scratch, '}', ','), w.prefixOf(a)...)
		}
		w.scratch = appendTagged(w.scratch, a.Value)
	}
	w.scratch = append(w.scratch, '}', '}')
	w.rest.add(textOf(w.scratch))
}

func (w *mergeWriter) prefixOf(a columns.Attribute) []byte {
	return w.merge.keyOf(columns.Key{Name: a.Name, Kind: a.Value.Kind}).prefix
}

// endGroup encodes the present row group.
func (w *mergeWriter) endGroup() error {
	w.gather()
	if w.rows == 0 {
		return nil
	}
	w.describe()
	if err := w.encode(); err != nil {
		return err
	}
	w.file.endRowGroup(w.rows)
	w.filter.addGroup(w.bodies, w.packed, w.file.groups[len(w.file.groups)-1].TotalCompressedSize)
	w.resetGroup()
	return nil
}

func (w *mergeWriter) resetGroup() {
	w.nextSerial()
	w.pending, w.bytes, w.rows = 0, 0, 0
	for c := range w.numbers {
		w.numbers[c] = w.numbers[c][:0]
	}
	w.observed, w.traces, w.spans = w.observed[:0], w.traces[:0], w.spans[:0]
	for _, c := range []*textColumn{&w.body, &w.severityText, &w.level, &w.name, &w.rest} {
		c.reset()
	}
	for i := range w.attributes {
		a := &w.attributes[i]
		a.texts.reset()
		a.numbers, a.present = a.numbers[:0], a.present[:0]
	}
}

// describe enters the row group into the catalogue, and sums the hashes of its rows.
func (w *mergeWriter) describe() {
	c := w.catalogue
	group := RowGroup{FirstRow: c.Rows, Rows: int64(w.rows), First: math.MaxInt64, Last: math.MinInt64}
	c.Rows += group.Rows
	w.describeAttributes()
	bodies, severities := w.body.hashAll(), w.severityText.hashAll()
	levels, names := w.level.hashAll(), w.name.hashAll()
	n := &w.numbers
	source := lake.ReceiptID(-1)
	for row := range w.rows {
		stream, origin := n[columnStream][row], n[columnOrigin][row]
		body := w.body.at[row]
		p := columns.RowParts{
			Time: n[columnTime][row], ObservedTime: w.observed[row], Fingerprint: lake.Fingerprint(n[columnFingerprint][row]),
			Source: lake.ReceiptID(n[columnSource][row]), SeverityNumber: int32(n[columnSeverityNumber][row]), Flags: uint32(n[columnFlags][row]),
			DroppedAttributes: uint32(n[columnDropped][row]), TimeSource: columns.TimeSource(n[columnTimeSource][row]),
			BodyKind: columns.ValueKind(n[columnBodyKind][row]), Stream: w.merge.streamHashes[stream], Origin: w.merge.originHashes[origin],
			Body: bodies[body], SeverityText: severities[w.severityText.at[row]], DetectedLevel: levels[w.level.at[row]],
			EventName: names[w.name.at[row]], Attributes: w.attrHash[row],
		}
		copy(p.TraceID[:], w.traces[16*row:])
		copy(p.SpanID[:], w.spans[8*row:])
		c.RowHash += p.Hash()
		if p.Source != source {
			source = p.Source
			w.sources[source] = struct{}{}
		}
		group.First, group.Last = min(group.First, p.Time), max(group.Last, p.Time)
		if !c.Identified {
			c.Identified = w.identified(row, origin)
		}
		n[columnStream][row] = w.describeStream(stream, p.Time, int64(len(w.body.values[body])))
		n[columnOrigin][row] = w.describeOrigin(origin)
	}
	c.RowGroups = append(c.RowGroups, group)
}

func (w *mergeWriter) describeStream(stream, time, bytes int64) int64 {
	c := w.catalogue
	id := w.streams[stream]
	if id == absent {
		id = uint32(len(c.Streams))
		w.streams[stream] = id
		c.Streams = append(c.Streams, StreamEntry{Labels: w.merge.tables.StreamLabels(columns.StreamID(stream)), First: math.MaxInt64, Last: math.MinInt64})
	}
	s := &c.Streams[id]
	s.Rows++
	s.Bytes += bytes
	s.First, s.Last = min(s.First, time), max(s.Last, time)
	c.BodyBytes += bytes
	return int64(id)
}

// identified reports whether a row of the group has an identity.
func (w *mergeWriter) identified(row int, origin int64) bool {
	o := w.merge.tables.OriginOf(columns.OriginID(origin))
	if o.Identity == "" {
		return false
	}
	w.each = w.each[:0]
	for i := range w.attributes {
		switch a := &w.attributes[i]; {
		case a.key.Name != o.Identity:
		case !a.key.Kind.Textual() && a.present[row] != 0:
			w.each = append(w.each, columns.Attribute{Name: a.key.Name, Value: columns.Value{Kind: a.key.Kind, Num: uint64(a.numbers[row])}})
		case a.key.Kind.Textual() && a.texts.at[row] > 0:
			w.each = append(w.each, columns.Attribute{Name: a.key.Name, Value: columns.Value{Kind: a.key.Kind, Str: a.texts.values[a.texts.at[row]]}})
		}
	}
	w.each, _ = DecodeAttributes(w.each, w.rest.values[w.rest.at[row]])
	_, ok := columns.IdentityOf(&o, &columns.LogRow{Time: w.numbers[columnTime][row], Attributes: w.each})
	return ok
}

func (w *mergeWriter) describeOrigin(origin int64) int64 {
	id := w.origins[origin]
	if id == absent {
		id = uint32(len(w.catalogue.Origins))
		w.origins[origin] = id
		w.catalogue.Origins = append(w.catalogue.Origins, w.merge.tables.OriginOf(columns.OriginID(origin)))
	}
	return int64(id)
}

// describeAttributes counts attributes and their values, and sums their hashes by row.
func (w *mergeWriter) describeAttributes() {
	w.attrHash = resize(w.attrHash, w.rows)
	clear(w.attrHash)
	for i := range w.attributes {
		w.describeColumn(&w.attributes[i])
	}
	w.describeRest()
}

func (w *mergeWriter) describeColumn(a *attributeSlots) {
	k := a.key
	if k.Kind.Textual() {
		hashes := a.texts.hashAll()
		w.countUses(&a.texts)
		for i, uses := range w.uses {
			if uses > 0 {
				k.written += int64(uses)
				k.distinct.add(hashes[i])
			}
		}
		for row, i := range a.texts.at {
			if i > 0 {
				w.attrHash[row] += columns.HashAttribute(k.hash, hashes[i])
			}
		}
		return
	}
	last, known := int64(0), uint64(0)
	for row, present := range a.present {
		if present == 0 {
			continue
		}
		k.written++
		if v := a.numbers[row]; known == 0 || v != last {
			last, known = v, columns.HashNumber(uint64(v))
			k.distinct.add(known)
		}
		w.attrHash[row] += columns.HashAttribute(k.hash, known)
	}
}

// countUses counts how many rows have each value of a column; place 0 is that of rows without one.
func (w *mergeWriter) countUses(c *textColumn) {
	w.uses = resize(w.uses, len(c.values))
	clear(w.uses)
	for _, i := range c.at {
		w.uses[i]++
	}
	w.uses[0] = 0
}

func (w *mergeWriter) describeRest() {
	w.countUses(&w.rest)
	w.restValues = resize(w.restValues, len(w.rest.values))
	for i, uses := range w.uses {
		if uses == 0 {
			continue
		}
		w.each, _ = DecodeAttributes(w.each[:0], w.rest.values[i]) // it was decoded when it was read, or is our own
		w.restValues[i].hash = 0
		for _, a := range w.each {
			key, hash := w.merge.keyOf(columns.Key{Name: a.Name, Kind: a.Value.Kind}), columns.HashValue(a.Value)
			w.restValues[i].hash += columns.HashAttribute(key.hash, hash)
			key.written += int64(uses)
			key.distinct.add(hash)
		}
	}
	for row, i := range w.rest.at {
		if i > 0 {
			w.attrHash[row] += w.restValues[i].hash
		}
	}
}

// encode writes the columns of the row group.
func (w *mergeWriter) encode() error {
	for c := range w.file.schema[:fixedColumns] {
		if err := w.encodeFixed(c); err != nil {
			return fmt.Errorf("column %s: %w", fixedNames[c], err)
		}
	}
	for i := range w.attributes {
		if err := w.encodeAttribute(&w.attributes[i]); err != nil {
			return fmt.Errorf("attribute %q: %w", w.attributes[i].key.Name, err)
		}
	}
	return nil
}

func (w *mergeWriter) encodeFixed(c int) (err error) {
	chunk := chunk{rows: w.rows}
	switch c {
	case columnRow:
		w.compact = w.compact[:0]
		first := w.catalogue.Rows - int64(w.rows)
		for row := range w.rows {
			w.compact = append(w.compact, first+int64(row))
		}
		err = w.encoder.encode(&chunk, w.compact, false)
	case columnBody:
		err = w.encodeTexts(&chunk, &w.body, false)
		w.bodies = w.body.appendAll(w.bodies[:0])
	case columnSeverityText:
		err = w.encodeTexts(&chunk, &w.severityText, false)
	case columnDetectedLevel:
		err = w.encodeTexts(&chunk, &w.level, false)
	case columnEventName:
		err = w.encodeTexts(&chunk, &w.name, false)
	case columnAttributes:
		err = w.encodeTexts(&chunk, &w.rest, true)
	case columnObservedDelay:
		w.present, w.compact = zeroed(w.present, w.rows), w.compact[:0]
		for row, observed := range w.observed {
			if observed != 0 {
				w.present[row] = 1
				w.compact = append(w.compact, observed-w.numbers[columnTime][row])
			}
		}
		chunk.present = w.present
		err = w.encoder.encode(&chunk, w.compact, true)
	case columnSpanID:
		w.encodeBytes(&chunk, w.spans, 8)
	case columnTraceID:
		w.encodeBytes(&chunk, w.traces, 16)
	default:
		err = w.encoder.encode(&chunk, w.numbers[c], w.file.schema[c].physical == format.Int64)
	}
	if err != nil {
		return err
	}
	if err := w.file.add(&chunk); err != nil {
		return err
	}
	if c == columnTraceID { // for the token filter
		w.packed = append(w.packed[:0], chunk.page...)
	}
	return nil
}

// encodeBytes encodes values of a fixed length, zeros being none.
func (w *mergeWriter) encodeBytes(c *chunk, values []byte, size int) {
	w.present, w.scratch = zeroed(w.present, w.rows), w.scratch[:0]
	for row := range w.rows {
		value := values[row*size:][:size]
		for _, b := range value {
			if b != 0 {
				w.present[row] = 1
				w.scratch = append(w.scratch, value...)
				c.values++
				break
			}
		}
	}
	c.present, c.encoding, c.page = w.present, format.Plain, w.scratch
}

// encodeTexts encodes a column of texts; in an optional one, rows without a value have none.
func (w *mergeWriter) encodeTexts(c *chunk, t *textColumn, optional bool) error {
	at := t.at
	if optional {
		w.present, w.uses = zeroed(w.present, w.rows), w.uses[:0]
		for row, i := range t.at {
			if i > 0 {
				w.present[row] = 1
				w.uses = append(w.uses, i)
			}
		}
		c.present, at = w.present, w.uses
	}
	if len(t.values) <= 32+len(at)/8 {
		w.compact = w.compact[:0]
		for _, i := range at {
			w.compact = append(w.compact, int64(i))
		}
		return w.texts.encodeNumbered(c, w.compact, func(i int64) string { return t.values[i] })
	}
	w.strings = w.strings[:0]
	for _, i := range at {
		w.strings = append(w.strings, t.values[i])
	}
	return w.texts.encodeDeltaLength(c, w.strings)
}

func (w *mergeWriter) encodeAttribute(a *attributeSlots) error {
	chunk := chunk{rows: w.rows}
	var err error
	if a.key.Kind.Textual() {
		err = w.encodeTexts(&chunk, &a.texts, true)
	} else {
		chunk.present, w.compact = a.present, w.compact[:0]
		for row, present := range a.present {
			if present != 0 {
				w.compact = append(w.compact, a.numbers[row])
			}
		}
		switch a.key.Kind {
		case columns.KindBool:
			err = booleans(&chunk, w.compact)
		case columns.KindDouble:
			err = w.encoder.encodeDoubles(&chunk, w.compact)
		default:
			err = w.encoder.encode(&chunk, w.compact, true)
		}
	}
	if err != nil {
		return err
	}
	return w.file.add(&chunk)
}

// finish ends the output: its last row group, catalogue, footer and sidecar.
func (w *mergeWriter) finish() error {
	if err := w.endGroup(); err != nil {
		return err
	}
	defer w.z.Close()
	w.merge.writer = nil
	c := w.catalogue
	c.Sources = slices.Sorted(maps.Keys(w.sources))
	for _, k := range w.merge.keys {
		if k.written == 0 {
			continue
		}
		entry := AttributeEntry{Name: k.Name, Kind: k.Kind, Rows: k.written, Cardinality: min(k.distinct.count(), k.written)}
		if k.column >= 0 {
			entry.Column = ColumnName(k.Name, k.Kind)
		}
		c.Attributes = append(c.Attributes, entry)
	}
	slices.SortFunc(c.Attributes, func(a, b AttributeEntry) int {
		return compareKeys(columns.Key{Name: a.Name, Kind: a.Kind}, columns.Key{Name: b.Name, Kind: b.Kind})
	})
	packed := c.marshal(w.z)
	place := strconv.FormatInt(w.file.offset, 10) + " " + strconv.Itoa(len(packed))
	if err := w.file.write(packed); err != nil {
		return err
	}
	err := w.file.close([]format.KeyValue{
		{Key: metadataVersion, Value: strconv.Itoa(FormatVersion)}, {Key: metadataCatalogue, Value: place},
	})
	if err != nil {
		return err
	}
	n, err := writeSidecar(w.sidecar, w.z, packed, &w.filter)
	if err != nil {
		return err
	}
	r := &w.merge.result
	r.Outputs = append(r.Outputs, Output{Written: w.written(n), Sources: c.Sources, Catalogue: c})
	r.RowsOut += c.Rows
	r.HashOut += c.RowHash
	return w.done()
}

func (w *mergeWriter) written(sidecarBytes int64) Written {
	c := w.catalogue
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for _, g := range c.RowGroups {
		first, last = min(first, g.First), max(last, g.Last)
	}
	return Written{
		Bytes: w.file.offset, SidecarBytes: sidecarBytes, Rows: c.Rows, First: time.Unix(0, first).UTC(), Last: time.Unix(0, last).UTC(),
		RowHash: c.RowHash, FormatVersion: FormatVersion, Identified: c.Identified,
	}
}

// grow makes slots up to row n.
func (a *attributeSlots) grow(n int) {
	if a.key.Kind.Textual() {
		a.texts.grow(n)
		return
	}
	for len(a.numbers) < n {
		a.numbers, a.present = append(a.numbers, 0), append(a.present, 0)
	}
}

func (a *attributeSlots) set(row int, v columns.Value) {
	if a.key.Kind.Textual() {
		a.texts.at[row] = a.texts.number(v.Str)
		return
	}
	a.numbers[row], a.present[row] = int64(v.Num), 1
}

func (a *attributeSlots) addRun(from *sourceAttribute, first, end, row int, serial uint64) {
	if a.key.Kind.Textual() {
		from.renumber(serial)
		for i := first; i < end; i++ {
			if p := from.v.place(i); p >= 0 {
				a.texts.at[row] = a.texts.numberOf(&from.sourceText, p)
			}
			row++
		}
		return
	}
	for i := first; i < end; i++ {
		if p := from.v.place(i); p >= 0 {
			a.numbers[row], a.present[row] = from.v.numbers[p], 1
		}
		row++
	}
}

// renumber forgets the numbers of an earlier row group of the output.
func (t *sourceText) renumber(serial uint64) {
	if t.serial == serial {
		return
	}
	t.serial = serial
	if len(t.v.indexes) == 0 {
		return
	}
	t.numbers = resize(t.numbers, t.v.values())
	clear(t.numbers)
}

// textColumn gathers texts: at has for each row the place of its text in values; place 0 is that of the empty text, and of none.
type textColumn struct {
	at     []int32
	values []string
	hashes []uint64
	seen   map[string]int32
	// closed: values have proved too many to look for equal ones.
	closed bool
	// nullable: the empty text is another than none.
	nullable bool
	blocks   [][]byte
	block    int
}

// hashAll returns the hashes of all values.
func (c *textColumn) hashAll() []uint64 {
	for i := len(c.hashes); i < len(c.values); i++ {
		c.hashes = append(c.hashes, columns.HashText(c.values[i]))
	}
	return c.hashes
}

func (c *textColumn) reset() {
	c.at, c.values, c.hashes, c.closed, c.block = c.at[:0], c.values[:0], c.hashes[:0], false, 0
	clear(c.seen)
	clear(c.values[:cap(c.values)])
	kept := c.blocks[:0]
	for _, b := range c.blocks {
		if cap(b) == textBlock {
			kept = append(kept, b[:0])
		}
	}
	clear(c.blocks[len(kept):])
	c.blocks = kept
}

func (c *textColumn) grow(n int) {
	c.first()
	for len(c.at) < n {
		c.at = append(c.at, 0)
	}
}

func (c *textColumn) first() {
	if len(c.values) == 0 {
		c.values = append(c.values, "")
	}
}

func (c *textColumn) addNone() {
	c.first()
	c.at = append(c.at, 0)
}

func (c *textColumn) add(s string) {
	c.first()
	c.at = append(c.at, c.number(s))
}

func (c *textColumn) addOne(from *sourceText, row int, serial uint64) {
	c.first()
	from.renumber(serial)
	p := from.v.place(row)
	if p < 0 {
		c.at = append(c.at, 0)
		return
	}
	c.at = append(c.at, c.numberOf(from, p))
}

func (c *textColumn) addRun(from *sourceText, first, end int, serial uint64) {
	for row := first; row < end; row++ {
		c.addOne(from, row, serial)
	}
}

// numberOf numbers a value of an input; one in a dictionary is looked up once.
func (c *textColumn) numberOf(from *sourceText, place int32) int32 {
	if len(from.v.indexes) == 0 {
		return c.number(from.v.value(int(place)))
	}
	n := from.numbers[place]
	if n == 0 {
		n = c.number(from.v.value(int(place)))
		from.numbers[place] = n
	}
	return n
}

// number puts a value in, or finds an equal one.
func (c *textColumn) number(s string) int32 {
	if s == "" && !c.nullable {
		return 0
	}
	last := int32(len(c.values) - 1)
	if last > 0 && c.values[last] == s {
		return last
	}
	if !c.closed {
		if n, ok := c.seen[s]; ok {
			return n
		}
	}
	own := ""
	if s != "" {
		own = c.keep(s)
	}
	c.values = append(c.values, own)
	if !c.closed {
		if c.seen == nil {
			c.seen = map[string]int32{}
		}
		c.seen[own] = last + 1
		c.closed = len(c.values) > 64+len(c.at)/4
	}
	return last + 1
}

const textBlock = 256 << 10

// keep copies a text to where it stays until reset.
func (c *textColumn) keep(s string) string {
	for ; c.block < len(c.blocks); c.block++ {
		if b := c.blocks[c.block]; cap(b)-len(b) >= len(s) {
			break
		}
	}
	if c.block == len(c.blocks) {
		c.blocks = append(c.blocks, make([]byte, 0, max(textBlock, len(s))))
	}
	b := c.blocks[c.block]
	at := len(b)
	b = append(b, s...)
	c.blocks[c.block] = b
	return unsafe.String(&b[at], len(s))
}

func (c *textColumn) appendAll(dst []string) []string {
	for _, i := range c.at {
		dst = append(dst, c.values[i])
	}
	return dst
}
