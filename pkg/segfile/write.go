// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// The keys of the Parquet footer's metadata.
const (
	metadataVersion   = "lakerunner.format"
	metadataCatalogue = "lakerunner.catalogue" // offset and length of the compressed catalogue, which stands before the footer
)

// The columns that every log segment has, in their order; those of attributes follow.
const (
	columnRow = iota
	columnTime
	columnTimeSource
	columnObservedDelay // NULL: no observed time
	columnStream
	columnOrigin
	columnFingerprint
	columnSeverityNumber
	columnSeverityText
	columnDetectedLevel
	columnTraceID
	columnSpanID
	columnFlags
	columnBody
	columnBodyKind
	columnEventName
	columnDropped
	columnSource
	columnAttributes
	fixedColumns
)

func fixedSchema() []column {
	return []column{
		columnRow:            {name: "row", physical: format.Int32},
		columnTime:           {name: "time", physical: format.Int64},
		columnTimeSource:     {name: "time_source", physical: format.Int32},
		columnObservedDelay:  {name: "observed_delay", physical: format.Int64, optional: true},
		columnStream:         {name: "stream", physical: format.Int32},
		columnOrigin:         {name: "origin", physical: format.Int32},
		columnFingerprint:    {name: "fingerprint", physical: format.Int64},
		columnSeverityNumber: {name: "severity_number", physical: format.Int32},
		columnSeverityText:   {name: "severity_text", physical: format.ByteArray, text: true},
		columnDetectedLevel:  {name: "detected_level", physical: format.ByteArray, text: true},
		columnTraceID:        {name: "trace_id", physical: format.FixedLenByteArray, length: 16, optional: true},
		columnSpanID:         {name: "span_id", physical: format.FixedLenByteArray, length: 8, optional: true},
		columnFlags:          {name: "flags", physical: format.Int32},
		columnBody:           {name: "body", physical: format.ByteArray, text: true},
		columnBodyKind:       {name: "body_kind", physical: format.Int32},
		columnEventName:      {name: "event_name", physical: format.ByteArray, text: true},
		columnDropped:        {name: "dropped_attributes", physical: format.Int32},
		columnSource:         {name: "source", physical: format.Int64},
		columnAttributes:     {name: "attributes", physical: format.ByteArray, text: true, optional: true},
	}
}

func attributeColumn(key columns.Key) column {
	c := column{name: ColumnName(key.Name, key.Kind), optional: true, physical: format.ByteArray, text: true}
	switch key.Kind {
	case columns.KindInt:
		c.physical, c.text = format.Int64, false
	case columns.KindDouble:
		c.physical, c.text = format.Double, false
	case columns.KindBool:
		c.physical, c.text = format.Boolean, false
	case columns.KindBytes:
		c.text = false
	}
	return c
}

// WriteLogs writes rows of l, given in the order of Logs.Sort, as one segment and its sidecar. It fails, rather than write a file that
// cannot be read, when a string is not UTF-8 or a row lies outside the window of m.
func WriteLogs(ctx context.Context, parquet, sidecar io.Writer, l *columns.Logs, rows []uint32, m Meta) (Written, error) {
	_, w, err := writeLogs(ctx, parquet, sidecar, l, rows, m)
	return w, err
}

func writeLogs(ctx context.Context, parquet, sidecar io.Writer, l *columns.Logs, rows []uint32, m Meta) (*survey, Written, error) {
	if len(rows) == 0 {
		return nil, Written{}, fault.New(fault.Internal, "a segment without rows")
	}
	s, err := surveyRows(l, rows, m)
	if err != nil {
		return nil, Written{}, err
	}
	w, err := newLogWriter(parquet, l, s, compression(m.Level))
	if err != nil {
		return nil, Written{}, err
	}
	defer w.z.Close()
	for _, g := range s.catalogue.RowGroups {
		if err := ctx.Err(); err != nil {
			return nil, Written{}, err
		}
		if err := w.writeGroup(rows[g.FirstRow:][:g.Rows], g); err != nil {
			return nil, Written{}, err
		}
	}
	catalogue := s.catalogue.marshal(w.z)
	if err := w.finish(catalogue); err != nil {
		return nil, Written{}, err
	}
	n, err := writeSidecar(sidecar, w.z, catalogue, &w.filter)
	if err != nil {
		return nil, Written{}, err
	}
	return s, s.written(w.file.offset, n), nil
}

func (s *survey) written(bytes, sidecarBytes int64) Written {
	groups := s.catalogue.RowGroups
	first := slices.MinFunc(groups, func(a, b RowGroup) int { return int(min(1, max(-1, a.First-b.First))) }).First
	last := slices.MaxFunc(groups, func(a, b RowGroup) int { return int(min(1, max(-1, a.Last-b.Last))) }).Last
	return Written{
		Bytes:         bytes,
		SidecarBytes:  sidecarBytes,
		Rows:          s.catalogue.Rows,
		First:         time.Unix(0, first).UTC(),
		Last:          time.Unix(0, last).UTC(),
		RowHash:       s.hash,
		FormatVersion: FormatVersion,
		Identified:    s.catalogue.Identified,
	}
}

// logWriter writes row groups: it gathers the rows of one into slices, a slice a column, and encodes those.
type logWriter struct {
	logs   *columns.Logs
	survey *survey
	z      *zstd.Encoder
	file   *parquetFile
	dense  []denseColumn
	filter filterBuilder

	numbers numbers
	texts   texts

	fixed    [fixedColumns][]int64
	bodies   []string
	delays   presentDelays
	traceIDs presentBytes
	spanIDs  presentBytes
	rest     presentTexts
	entries  []columns.Entry
}

type denseColumn struct {
	id      columns.KeyID
	kind    columns.ValueKind
	present []uint8
	entries []columns.Entry
	numbers []int64
	texts   []string
	// numbered: all entries have a number in the key's dictionary.
	numbered bool
}

// presentBytes gathers fixed-length values that not all rows have.
type presentBytes struct {
	present []uint8
	bytes   []byte
	values  int
}

// presentDelays gathers how much later than its time a row was observed.
type presentDelays struct {
	present []uint8
	values  []int64
}

// presentTexts gathers strings that not all rows have, one after the other.
type presentTexts struct {
	present []uint8
	bytes   []byte
	ends    []int
	values  []string
}

func newLogWriter(parquet io.Writer, l *columns.Logs, s *survey, level zstd.EncoderLevel) (*logWriter, error) {
	z, err := newEncoder(level)
	if err != nil {
		return nil, err
	}
	w := &logWriter{logs: l, survey: s, z: z, texts: texts{seen: map[string]int64{}}}
	for id := range s.keys {
		if s.keys[id].column > 0 {
			w.dense = append(w.dense, denseColumn{id: columns.KeyID(id), kind: l.Key(columns.KeyID(id)).Kind})
		}
	}
	slices.SortFunc(w.dense, func(a, b denseColumn) int { return s.keys[a.id].column - s.keys[b.id].column })
	schema := fixedSchema()
	for i := range w.dense {
		schema = append(schema, attributeColumn(l.Key(w.dense[i].id)))
	}
	w.file, err = newParquetFile(parquet, z, schema)
	return w, err
}

// compression is cheap for segments that will soon be merged: on 3 M lines the better level takes 0.75 us a row more, and 7 percent fewer bytes of
// bodies. The levels between and above them cost more than they give on log lines: the default one is slower than the fastest and makes larger pages, the
// best takes seven times as long as the better one for 0.2 percent.
func compression(level int) zstd.EncoderLevel {
	if level == 0 {
		return zstd.SpeedFastest
	}
	return zstd.SpeedBetterCompression
}

func newEncoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(rowGroupBytes))
}

func (w *logWriter) writeGroup(rows []uint32, g RowGroup) error {
	w.gather(rows, g)
	if err := w.encodeFixed(); err != nil {
		return err
	}
	for i := range w.dense {
		if err := w.encodeDense(&w.dense[i]); err != nil {
			return fmt.Errorf("attribute %q: %w", w.logs.Key(w.dense[i].id).Name, err)
		}
	}
	w.file.endRowGroup(len(rows))
	w.filter.addGroup(w.bodies, w.traceIDs.bytes, w.file.groups[len(w.file.groups)-1].TotalCompressedSize)
	return nil
}

// gather collects the rows of a row group by column, in one pass.
func (w *logWriter) gather(rows []uint32, g RowGroup) {
	w.reset(len(rows))
	l, s := w.logs, w.survey
	for i, row := range rows {
		r := l.Record(int(row))
		for c, v := range [fixedColumns]int64{
			columnRow:            g.FirstRow + int64(i),
			columnTime:           r.Time,
			columnTimeSource:     int64(r.TimeSource),
			columnStream:         int64(s.streams[r.Stream]),
			columnOrigin:         int64(s.origins[r.Origin]),
			columnFingerprint:    int64(r.Fingerprint),
			columnSeverityNumber: int64(r.SeverityNumber),
			columnSeverityText:   int64(r.SeverityText),
			columnDetectedLevel:  int64(r.DetectedLevel),
			columnFlags:          int64(r.Flags),
			columnBodyKind:       int64(r.BodyKind),
			columnEventName:      int64(r.EventName),
			columnDropped:        int64(r.DroppedAttributes),
			columnSource:         int64(r.Source),
		} {
			w.fixed[c][i] = v
		}
		w.bodies[i] = l.Text(r.Body)
		w.delays.add(i, r)
		w.traceIDs.add(i, r.TraceID[:], r.TraceID != [16]byte{})
		w.spanIDs.add(i, r.SpanID[:], r.SpanID != [8]byte{})
		w.gatherEntries(i, l.Entries(r))
	}
	w.rest.end()
}

func (w *logWriter) reset(n int) {
	for c := range w.fixed {
		w.fixed[c] = slices.Grow(w.fixed[c][:0], n)[:n]
	}
	w.bodies = slices.Grow(w.bodies[:0], n)[:n]
	w.delays = presentDelays{present: zeroed(w.delays.present, n), values: w.delays.values[:0]}
	w.traceIDs = presentBytes{present: zeroed(w.traceIDs.present, n), bytes: w.traceIDs.bytes[:0]}
	w.spanIDs = presentBytes{present: zeroed(w.spanIDs.present, n), bytes: w.spanIDs.bytes[:0]}
	w.rest = presentTexts{present: zeroed(w.rest.present, n), bytes: w.rest.bytes[:0], ends: w.rest.ends[:0], values: w.rest.values[:0]}
	for i := range w.dense {
		d := &w.dense[i]
		d.present, d.entries, d.numbered = zeroed(d.present, n), d.entries[:0], true
	}
}

func zeroed(b []uint8, n int) []uint8 {
	b = slices.Grow(b[:0], n)[:n]
	clear(b)
	return b
}

func (p *presentBytes) add(row int, value []byte, present bool) {
	if present {
		p.present[row] = 1
		p.bytes = append(p.bytes, value...)
		p.values++
	}
}

func (p *presentDelays) add(row int, r *columns.Record) {
	if r.ObservedTime != 0 {
		p.present[row] = 1
		p.values = append(p.values, r.ObservedTime-r.Time)
	}
}

// gatherEntries sends attributes to their columns, and the others to the column `attributes`, sorted by name and kind.
func (w *logWriter) gatherEntries(row int, entries []columns.Entry) {
	w.entries = w.entries[:0]
	for _, e := range entries {
		column := w.survey.keys[e.Key].column
		if column == 0 {
			w.entries = append(w.entries, e)
			continue
		}
		d := &w.dense[column-1]
		d.present[row] = 1
		d.entries = append(d.entries, e)
		_, numbered := e.Numbered()
		d.numbered = d.numbered && numbered
	}
	if len(w.entries) == 0 {
		return
	}
	slices.SortFunc(w.entries, func(a, b columns.Entry) int { return w.survey.keys[a.Key].rank - w.survey.keys[b.Key].rank })
	w.rest.present[row] = 1
	w.rest.bytes = w.appendRest(w.rest.bytes)
	w.rest.ends = append(w.rest.ends, len(w.rest.bytes))
}

// appendRest appends the sorted entries as the JSON text that `attributes` holds.
func (w *logWriter) appendRest(dst []byte) []byte {
	for i, e := range w.entries {
		switch {
		case i == 0:
			dst = append(append(dst, '{'), w.survey.keys[e.Key].prefix...)
		case w.logs.Key(e.Key).Name == w.logs.Key(w.entries[i-1].Key).Name:
			dst = append(dst, ',')
		default:
			dst = append(append(dst, '}', ','), w.survey.keys[e.Key].prefix...)
		}
		dst = appendTagged(dst, w.logs.EntryValue(e))
	}
	return append(dst, '}', '}')
}

// end makes strings of the gathered bytes, which do not move any more.
func (p *presentTexts) end() {
	all, from := string(p.bytes), 0
	for _, end := range p.ends {
		p.values = append(p.values, all[from:end])
		from = end
	}
}

func (w *logWriter) encodeFixed() error {
	for c := range w.file.schema[:fixedColumns] {
		chunk := chunk{rows: len(w.bodies)}
		var err error
		switch c {
		case columnBody:
			err = w.encodeTexts(&chunk, w.bodies)
		case columnSeverityText, columnDetectedLevel, columnEventName:
			err = w.encodeInterned(&chunk, w.fixed[c])
		case columnObservedDelay:
			chunk.present = w.delays.present
			err = w.numbers.encode(&chunk, w.delays.values, true)
		case columnTraceID:
			w.traceIDs.encode(&chunk)
		case columnSpanID:
			w.spanIDs.encode(&chunk)
		case columnAttributes:
			chunk.present = w.rest.present
			err = w.encodeTexts(&chunk, w.rest.values)
		default:
			err = w.numbers.encode(&chunk, w.fixed[c], w.file.schema[c].physical == format.Int64)
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", w.file.schema[c].name, err)
		}
		if err := w.file.add(&chunk); err != nil {
			return err
		}
	}
	return nil
}

func (p *presentBytes) encode(c *chunk) {
	c.present, c.values, c.encoding, c.page = p.present, p.values, format.Plain, p.bytes
}

func (w *logWriter) encodeInterned(c *chunk, ids []int64) error {
	value := func(id int64) string { return w.logs.Interned(uint32(id)) }
	return w.encodeNumbered(c, ids, value)
}

// encodeTexts encodes strings after making sure that they are UTF-8.
func (w *logWriter) encodeTexts(c *chunk, values []string) error {
	for _, v := range values {
		if !validText(v) {
			return notText(v)
		}
	}
	return w.texts.encode(c, values)
}

func (w *logWriter) encodeNumbered(c *chunk, ids []int64, value func(int64) string) error {
	for i, id := range ids {
		if i > 0 && id == ids[i-1] {
			continue
		}
		if v := value(id); !validText(v) {
			return notText(v)
		}
	}
	return w.texts.encodeNumbered(c, ids, value)
}

func notText(s string) error {
	return fault.New(fault.Invalid, "a string is not UTF-8: %.40q", s)
}

func (w *logWriter) encodeDense(d *denseColumn) error {
	c := chunk{rows: len(w.bodies), present: d.present}
	d.numbers, d.texts = d.numbers[:0], d.texts[:0]
	var err error
	switch {
	case !d.kind.Textual():
		err = w.encodeDenseNumbers(&c, d)
	case d.numbered && d.kind != columns.KindBytes:
		for _, e := range d.entries {
			n, _ := e.Numbered()
			d.numbers = append(d.numbers, int64(n))
		}
		err = w.encodeNumbered(&c, d.numbers, func(n int64) string { return w.logs.DictionaryValue(d.id, uint32(n)) })
	default:
		for _, e := range d.entries {
			d.texts = append(d.texts, w.logs.EntryText(e))
		}
		if d.kind == columns.KindBytes {
			err = w.texts.encode(&c, d.texts)
		} else {
			err = w.encodeTexts(&c, d.texts)
		}
	}
	if err != nil {
		return err
	}
	return w.file.add(&c)
}

func (w *logWriter) encodeDenseNumbers(c *chunk, d *denseColumn) error {
	for _, e := range d.entries {
		d.numbers = append(d.numbers, int64(w.logs.EntryNumber(e)))
	}
	switch d.kind {
	case columns.KindBool:
		return booleans(c, d.numbers)
	case columns.KindDouble:
		return w.numbers.encodeDoubles(c, d.numbers)
	}
	return w.numbers.encode(c, d.numbers, true)
}

// finish writes the catalogue and the footer.
func (w *logWriter) finish(catalogue []byte) error {
	place := strconv.FormatInt(w.file.offset, 10) + " " + strconv.Itoa(len(catalogue))
	if err := w.file.write(catalogue); err != nil {
		return err
	}
	return w.file.close([]format.KeyValue{
		{Key: metadataVersion, Value: strconv.Itoa(FormatVersion)},
		{Key: metadataCatalogue, Value: place},
	})
}
