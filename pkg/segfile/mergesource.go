// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// mergeSource reads an input, a row group at a time, by column. What it holds of a row group is valid until the next load.
type mergeSource struct {
	*MergeInput
	merge     *merger
	number    int
	chunks    *Chunks
	catalogue *Catalogue
	masked    map[lake.ReceiptID]struct{}
	rules     []sourceRule

	// Of streams and origins by their numbers in the catalogue: numbers in the merge's tables (origins as field rules leave them), hashes, ranks of service names.
	streams, origins           []uint32
	streamHashes, originHashes []uint64
	changedOrigins             []uint64 // hashes after field rules
	ranks                      []uint32
	identified                 bool
	changesBody                bool

	body, severityText, level, eventName, rest sourceText
	delay, trace, span                         *Vector
	vectors                                    [fixedColumns]*Vector // of numbers
	attributes                                 []sourceAttribute

	group, rows int
	firstRow    int64
	// By row: numbers, with streams and origins as in the merge's tables; observed times (0: none); hashes as read; sizes; why a row leaves.
	numbers  [fixedColumns][]int64
	observed []int64
	hashes   []uint64
	sizes    []int32
	gone     []Reason
	deletes  []lake.DeleteID // where gone is ReasonDeleted
	bodies   []string        // as field rules leave them, if they change bodies
	// moved rows have attributes that do not stay where they are, or are changed: moves has those, and all of `attributes`.
	moved     []bool
	moves     [][]columns.Attribute
	restHash  []uint64
	restMoved []bool
	restEach  []columns.Attribute
	valueHash []uint64
	attrHash  []uint64
	parts     []columns.RowParts
	// doubles are rows of the whole input, by number, that leave because of their identity.
	doubles []uint64

	// row is the head of the merge.
	row    int
	prefix []uint64 // rank of the service
	hour   int64
	last   sourceKey
	// sum is that of the hashes of the rows read.
	sum  uint64
	scan columns.LogRow
}

// sourceRule is a RowRule with its verdicts on streams.
type sourceRule struct {
	*RowRule
	streams []bool
}

// sourceText is a column of texts; numbers gives those of the values in an output row group.
type sourceText struct {
	v       *Vector
	numbers []int32
	serial  uint64
}

// sourceAttribute is the column of an attribute.
type sourceAttribute struct {
	sourceText
	name   string // of the column
	key    *mergeKey
	number bool
	// moves says that its values do not go to the same column of the output.
	moves bool
}

// sourceKey is the sort key of a row.
type sourceKey struct {
	prefix, fingerprint uint64
	hour, time, source  int64
}

// compare orders keys of one input.
func (k sourceKey) compare(o sourceKey) int {
	return cmp.Or(cmp.Compare(k.prefix, o.prefix), cmp.Compare(k.hour, o.hour), cmp.Compare(k.fingerprint, o.fingerprint),
		cmp.Compare(k.time, o.time), cmp.Compare(k.source, o.source))
}

// numberColumns are the fixed columns of numbers that all rows have, but for `row`.
var numberColumns = []int{
	columnTime, columnTimeSource, columnStream, columnOrigin, columnFingerprint, columnSeverityNumber, columnFlags, columnBodyKind, columnDropped,
	columnSource,
}

func openSource(m *merger, in *MergeInput, number int) (*mergeSource, error) {
	file, err := openParquet(in.Parquet, in.Size)
	if err != nil {
		return nil, err
	}
	s := &mergeSource{MergeInput: in, merge: m, number: number, group: -1}
	if s.catalogue, err = catalogueOf(file, in.Parquet, in.Size); err != nil {
		return nil, err
	}
	if s.chunks, err = chunksOf(file.Metadata(), in.Size); err != nil {
		return nil, err
	}
	if len(s.catalogue.RowGroups) != s.chunks.Groups() {
		return nil, fmt.Errorf("%d row groups, the catalogue has %d: %w", s.chunks.Groups(), len(s.catalogue.RowGroups), errDamaged)
	}
	for g, group := range s.catalogue.RowGroups {
		if int64(s.chunks.Rows(g)) != group.Rows || group.Rows <= 0 {
			return nil, fmt.Errorf("row group %d has %d rows, the catalogue says %d: %w", g, s.chunks.Rows(g), group.Rows, errDamaged)
		}
	}
	s.masked = make(map[lake.ReceiptID]struct{}, len(in.MaskedSources))
	for _, source := range in.MaskedSources {
		s.masked[source] = struct{}{}
	}
	return s, s.makeVectors()
}

func (s *mergeSource) makeVectors() error {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage))
	if err != nil {
		return err
	}
	for _, c := range numberColumns {
		s.vectors[c] = &Vector{z: z}
	}
	s.delay, s.trace, s.span = &Vector{z: z}, &Vector{z: z}, &Vector{z: z}
	for _, t := range []*sourceText{&s.body, &s.severityText, &s.level, &s.eventName, &s.rest} {
		t.v = &Vector{z: z}
	}
	fixed := map[string]bool{}
	for _, c := range fixedSchema() {
		fixed[c.name] = true
		if !c.optional && !s.chunks.Has(c.name) {
			return fmt.Errorf("no column %s: %w", c.name, errDamaged)
		}
	}
	for name := range s.chunks.columns {
		if fixed[name] {
			continue
		}
		attribute, kind, err := ParseColumnName(name)
		if err != nil {
			return err
		}
		s.attributes = append(s.attributes, sourceAttribute{
			name: name, sourceText: sourceText{v: &Vector{z: z}}, number: !kind.Textual(),
			key: &mergeKey{Key: columns.Key{Name: attribute, Kind: kind}},
		})
	}
	slices.SortFunc(s.attributes, func(a, b sourceAttribute) int { return compareKeys(a.key.Key, b.key.Key) })
	return nil
}

func compareKeys(a, b columns.Key) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
}

// sourceOverhead is about what an input takes beside its row group: decoders, and buffers of each column.
const sourceOverhead = 160 << 10

// memory is about what the largest row group takes.
func (s *mergeSource) memory() int64 {
	largest := int64(0)
	for g, rows := range s.chunks.rows {
		bytes := int64(rows) * 8 * int64(2*len(numberColumns)+8)
		for _, p := range s.chunks.places[g*len(s.chunks.shapes):][:len(s.chunks.shapes)] {
			bytes += p.unpacked + p.end - p.data + 12*int64(rows)
		}
		largest = max(largest, bytes)
	}
	return largest + sourceOverhead
}

// at is the sort key of a row of the row group.
func (s *mergeSource) at(row int) sourceKey {
	return sourceKey{
		prefix: s.prefix[row], hour: s.hour, fingerprint: uint64(s.numbers[columnFingerprint][row]), time: s.numbers[columnTime][row],
		source: s.numbers[columnSource][row],
	}
}

// before reports whether the head comes before that of another input.
func (s *mergeSource) before(o *mergeSource) bool {
	i, j := s.row, o.row
	if a, b := s.prefix[i], o.prefix[j]; a != b {
		return a < b
	}
	if s.hour != o.hour {
		return s.hour < o.hour
	}
	if a, b := uint64(s.numbers[columnFingerprint][i]), uint64(o.numbers[columnFingerprint][j]); a != b {
		return a < b
	}
	if a, b := s.numbers[columnTime][i], o.numbers[columnTime][j]; a != b {
		return a < b
	}
	if a, b := s.numbers[columnSource][i], o.numbers[columnSource][j]; a != b {
		return a < b
	}
	return s.number < o.number
}

// next loads the next row group, and returns io.EOF after the last.
func (s *mergeSource) next() error {
	if s.group+1 == s.chunks.Groups() {
		return io.EOF
	}
	if s.group >= 0 {
		s.last = s.at(s.rows - 1)
	}
	if err := s.load(s.group + 1); err != nil {
		return err
	}
	for row := range s.rows {
		key := s.at(row)
		if (row > 0 || s.group > 0) && s.last.compare(key) > 0 {
			return fmt.Errorf("row %d is out of order: %w", s.firstRow+int64(row), errDamaged)
		}
		s.last = key
	}
	return nil
}

// load reads a row group and judges its rows.
func (s *mergeSource) load(group int) error {
	s.group, s.rows, s.firstRow = group, s.chunks.Rows(group), s.catalogue.RowGroups[group].FirstRow
	if err := s.read(); err != nil {
		return fmt.Errorf("row group %d: %w", group, err)
	}
	s.gone = resize(s.gone, s.rows)
	clear(s.gone)
	s.deletes = resize(s.deletes, s.rows)
	s.bodies = resize(s.bodies, s.rows)
	s.moved = resize(s.moved, s.rows)
	clear(s.moved)
	if err := s.hash(); err != nil {
		return fmt.Errorf("row group %d: %w", group, err)
	}
	s.judge()
	for row := range s.rows {
		n := s.firstRow + int64(row)
		if s.gone[row] == ReasonNone && s.doubles != nil && s.doubles[n/64]&(1<<(n%64)) != 0 {
			s.gone[row] = ReasonDeduplicated
		}
	}
	s.row = -1
	return nil
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

func (s *mergeSource) read() error {
	for _, c := range numberColumns {
		if err := s.readNumbers(c); err != nil {
			return err
		}
	}
	for c, v := range map[int]*Vector{columnObservedDelay: s.delay, columnTraceID: s.trace, columnSpanID: s.span} {
		if err := s.readColumn(v, fixedNames[c], c != columnObservedDelay); err != nil {
			return err
		}
	}
	for c, t := range map[int]*sourceText{
		columnBody: &s.body, columnSeverityText: &s.severityText, columnDetectedLevel: &s.level, columnEventName: &s.eventName, columnAttributes: &s.rest,
	} {
		if err := s.readColumn(t.v, fixedNames[c], true); err != nil {
			return err
		}
		t.serial = 0
	}
	for i := range s.attributes {
		a := &s.attributes[i]
		if err := s.readColumn(a.v, a.name, !a.number); err != nil {
			return err
		}
		a.serial = 0
	}
	return s.checkRange()
}

// fixedNames are the names of the fixed columns.
var fixedNames = func() (names [fixedColumns]string) {
	for i, c := range fixedSchema() {
		names[i] = c.name
	}
	return names
}()

func (s *mergeSource) readColumn(v *Vector, name string, text bool) error {
	if err := v.Read(s.Parquet, s.chunks, s.group, name); err != nil {
		return err
	}
	if v.isText != text && s.chunks.Has(name) {
		return fmt.Errorf("column %s has another type: %w", name, errDamaged)
	}
	return nil
}

func (s *mergeSource) readNumbers(c int) error {
	v := s.vectors[c]
	if err := s.readColumn(v, fixedNames[c], false); err != nil {
		return err
	}
	into := resize(s.numbers[c], s.rows)
	if v.at == nil {
		copy(into, v.numbers)
	} else {
		for row, i := range v.at {
			if i < 0 {
				return fmt.Errorf("column %s has no value in a row: %w", fixedNames[c], errDamaged)
			}
			into[row] = v.numbers[i]
		}
	}
	s.numbers[c] = into
	return nil
}

// checkRange makes sure that numbers which name something do so, and sets what is derived from times and streams.
func (s *mergeSource) checkRange() error {
	s.hour = columns.HourOf(s.numbers[columnTime][0])
	s.prefix = resize(s.prefix, s.rows)
	s.observed = resize(s.observed, s.rows)
	for row := range s.rows {
		stream, origin := s.numbers[columnStream][row], s.numbers[columnOrigin][row]
		if uint64(stream) >= uint64(len(s.streams)) || uint64(origin) >= uint64(len(s.origins)) {
			return fmt.Errorf("row %d has stream %d of %d, origin %d of %d: %w", row, stream, len(s.streams), origin, len(s.origins), errDamaged)
		}
		time := s.numbers[columnTime][row]
		if columns.HourOf(time) != s.hour {
			return fmt.Errorf("rows of two hours in a row group: %w", errDamaged)
		}
		if kind := s.numbers[columnBodyKind][row]; uint64(kind) > uint64(columns.KindMap) {
			return fmt.Errorf("a body of kind %d: %w", kind, errDamaged)
		}
		if n := len(s.trace.Text(row)); n != 0 && n != 16 {
			return fmt.Errorf("a trace id of %d bytes: %w", n, errDamaged)
		}
		if n := len(s.span.Text(row)); n != 0 && n != 8 {
			return fmt.Errorf("a span id of %d bytes: %w", n, errDamaged)
		}
		s.prefix[row] = uint64(s.ranks[stream])
		s.observed[row] = 0
		if !s.delay.IsNull(row) {
			s.observed[row] = max(0, time+s.delay.Number(row))
		}
	}
	return nil
}

// values is how many distinct places a column's rows have.
func (v *Vector) values() int {
	if v.isText {
		return len(v.offsets) - 1
	}
	return len(v.numbers)
}

// value is a text by its place.
func (v *Vector) value(i int) string { return textOf(v.data[v.offsets[i]:v.offsets[i+1]]) }

// place is that of a row's value, -1: none.
func (v *Vector) place(row int) int32 {
	if v.at == nil {
		return int32(row)
	}
	return v.at[row]
}

// hash computes the hashes of rows as they were read, and their sizes.
func (s *mergeSource) hash() error {
	s.attrHash, s.sizes = resize(s.attrHash, s.rows), resize(s.sizes, s.rows)
	clear(s.attrHash)
	clear(s.sizes)
	s.hashAttributes()
	if err := s.hashRest(); err != nil {
		return err
	}
	s.parts, s.hashes = resize(s.parts, s.rows), resize(s.hashes, s.rows)
	n := &s.numbers
	for row := range s.rows {
		stream, origin := n[columnStream][row], n[columnOrigin][row]
		p := &s.parts[row]
		*p = columns.RowParts{
			Time: n[columnTime][row], ObservedTime: s.observed[row], Fingerprint: lake.Fingerprint(n[columnFingerprint][row]),
			Source: lake.ReceiptID(n[columnSource][row]), SeverityNumber: int32(n[columnSeverityNumber][row]), Flags: uint32(n[columnFlags][row]),
			DroppedAttributes: uint32(n[columnDropped][row]), TimeSource: columns.TimeSource(n[columnTimeSource][row]),
			BodyKind: columns.ValueKind(n[columnBodyKind][row]), Stream: s.streamHashes[stream], Origin: s.originHashes[origin], Attributes: s.attrHash[row],
		}
		copy(p.TraceID[:], s.trace.Text(row))
		copy(p.SpanID[:], s.span.Text(row))
	}
	s.hashTexts(&s.body, true, func(p *columns.RowParts, h uint64) { p.Body = h })
	s.hashTexts(&s.severityText, false, func(p *columns.RowParts, h uint64) { p.SeverityText = h })
	s.hashTexts(&s.level, false, func(p *columns.RowParts, h uint64) { p.DetectedLevel = h })
	s.hashTexts(&s.eventName, false, func(p *columns.RowParts, h uint64) { p.EventName = h })
	for row := range s.rows {
		s.hashes[row] = s.parts[row].Hash()
	}
	return nil
}

// hashTexts sets the hash of a column's text in all rows; where it counts, its length is added to their sizes.
func (s *mergeSource) hashTexts(t *sourceText, counts bool, set func(*columns.RowParts, uint64)) {
	v := t.v
	s.valueHash = s.valueHash[:0]
	for i := range v.values() {
		s.valueHash = append(s.valueHash, columns.HashText(v.value(i)))
	}
	for row := range s.rows {
		i := v.place(row)
		if i < 0 {
			set(&s.parts[row], columns.HashText(""))
			continue
		}
		set(&s.parts[row], s.valueHash[i])
		if counts {
			s.sizes[row] += v.offsets[i+1] - v.offsets[i]
		}
	}
}

// hashAttributes adds the hashes and sizes of attributes with columns.
func (s *mergeSource) hashAttributes() {
	for c := range s.attributes {
		a := &s.attributes[c]
		s.valueHash = s.valueHash[:0]
		for i := range a.v.values() {
			var h uint64
			if a.number {
				h = columns.HashNumber(uint64(a.v.numbers[i]))
			} else {
				h = columns.HashText(a.v.value(i))
			}
			s.valueHash = append(s.valueHash, columns.HashAttribute(a.key.hash, h))
		}
		ownBytes := !a.number && len(a.v.indexes) == 0
		for row := range s.rows {
			i := a.v.place(row)
			if i < 0 {
				continue
			}
			s.attrHash[row] += s.valueHash[i]
			s.sizes[row] += 8
			if ownBytes {
				s.sizes[row] += a.v.offsets[i+1] - a.v.offsets[i]
			}
			s.moved[row] = s.moved[row] || a.moves
		}
	}
}

// hashRest adds the hashes of attributes without columns, and finds the rows in which one of them moves.
func (s *mergeSource) hashRest() error {
	v := s.rest.v
	n := v.values()
	s.restHash, s.restMoved = resize(s.restHash, n), resize(s.restMoved, n)
	for i := range n {
		var err error
		if s.restEach, err = DecodeAttributes(s.restEach[:0], v.value(i)); err != nil {
			return err
		}
		s.restHash[i], s.restMoved[i] = 0, false
		for _, a := range s.restEach {
			key := s.merge.keyOf(columns.Key{Name: a.Name, Kind: a.Value.Kind})
			s.restHash[i] += columns.HashAttribute(key.hash, columns.HashValue(a.Value))
			s.restMoved[i] = s.restMoved[i] || key.column >= 0 || s.changes(a.Name)
		}
	}
	for row := range s.rows {
		if i := v.place(row); i >= 0 {
			s.attrHash[row] += s.restHash[i]
			s.sizes[row] += v.offsets[i+1] - v.offsets[i]
			s.moved[row] = s.moved[row] || s.restMoved[i]
		}
	}
	return nil
}

// changes reports whether a field rule changes a log attribute.
func (s *mergeSource) changes(name string) bool {
	return slices.ContainsFunc(s.Fields, func(f FieldRule) bool { return f.Name == name && f.ofAttribute() })
}

// fill reads a row as it stands in the input. Its strings are valid until the next load.
func (s *mergeSource) fill(row int, into *columns.LogRow) {
	p := &s.parts[row]
	attributes := into.Attributes[:0]
	for c := range s.attributes {
		a := &s.attributes[c]
		if i := a.v.place(row); i >= 0 {
			attributes = append(attributes, columns.Attribute{Name: a.key.Name, Value: a.value(i)})
		}
	}
	if rest := s.rest.v.Text(row); rest != "" {
		attributes, _ = DecodeAttributes(attributes, rest) // hashRest has decoded it before
	}
	*into = columns.LogRow{
		Time: p.Time, TimeSource: p.TimeSource, ObservedTime: p.ObservedTime, Fingerprint: p.Fingerprint, SeverityNumber: p.SeverityNumber,
		SeverityText: s.severityText.v.Text(row), DetectedLevel: s.level.v.Text(row), TraceID: p.TraceID, SpanID: p.SpanID, Flags: p.Flags,
		Body: s.body.v.Text(row), BodyKind: p.BodyKind, EventName: s.eventName.v.Text(row), DroppedAttributes: p.DroppedAttributes, Source: p.Source,
		Attributes: attributes,
	}
	sortAttributes(into.Attributes)
}

func (a *sourceAttribute) value(i int32) columns.Value {
	if a.number {
		return columns.Value{Kind: a.key.Kind, Num: uint64(a.v.numbers[i])}
	}
	return columns.Value{Kind: a.key.Kind, Str: a.v.value(int(i))}
}

// judge decides which rows leave, and what field rules make of those that stay.
func (s *mergeSource) judge() {
	for row := range s.rows {
		if _, masked := s.masked[s.parts[row].Source]; masked {
			s.gone[row] = ReasonMasked
		}
	}
	for i := range s.rules {
		s.judgeBy(&s.rules[i])
	}
	s.moves = resize(s.moves, s.rows)
	for row := range s.rows {
		if s.gone[row] == ReasonNone && s.moved[row] {
			s.moves[row] = s.movesOf(row, s.moves[row][:0])
		}
	}
}

func (s *mergeSource) judgeBy(rule *sourceRule) {
	for row := range s.rows {
		time, stream := s.numbers[columnTime][row], s.numbers[columnStream][row]
		if s.gone[row] != ReasonNone || time < rule.Start || time >= rule.End || !rule.streams[stream] {
			continue
		}
		if rule.Row != nil {
			s.fill(row, &s.scan)
			if !rule.Row(s.catalogue.Streams[stream].Labels, s.catalogue.Origins[s.numbers[columnOrigin][row]], &s.scan) {
				continue
			}
		}
		s.gone[row] = rule.Reason
		s.deletes[row] = rule.Delete
	}
}

// movesOf returns the attributes of a row that do not stay where they are, as field rules leave them.
func (s *mergeSource) movesOf(row int, into []columns.Attribute) []columns.Attribute {
	for c := range s.attributes {
		if a := &s.attributes[c]; a.moves {
			if i := a.v.place(row); i >= 0 {
				into = append(into, columns.Attribute{Name: a.key.Name, Value: a.value(i)})
			}
		}
	}
	if rest := s.rest.v.Text(row); rest != "" {
		into, _ = DecodeAttributes(into, rest) // hashRest has decoded it before
	}
	return changeAttributes(into, s.Fields)
}
