// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
)

// merger merges sorted inputs. It holds one row group of each input, by column, and one of the output.
type merger struct {
	options MergeOptions
	sources []*mergeSource
	// heap has the inputs with rows left, the one whose head comes first on top.
	heap   []*mergeSource
	tables *columns.Logs // numbers streams and origins of all inputs
	// hashes of the tables' streams and origins.
	streamHashes, originHashes []uint64
	keys                       map[columns.Key]*mergeKey
	dense                      []*mergeKey
	// left is how many rows have not been merged; rows and bytes are of all inputs.
	left, rows, bytes int64
	result            MergeResult
	bounded           bool // Memory, less what the merge itself takes, is what is left for other things
	deleted           map[DeletedRows]int64
	writer            *mergeWriter
	serial            uint64 // of the last row group begun
}

// mergeKey is an attribute name with one kind of value.
type mergeKey struct {
	columns.Key
	hash uint64
	// rows of all inputs have it, by their catalogues.
	rows int64
	// column is its place among those that have a column in the outputs; -1: none.
	column int
	// prefix is `"name":{`.
	prefix []byte
	// written rows of the present output have it, with so many values.
	written  int64
	distinct distinct
}

func (m *merger) keyOf(key columns.Key) *mergeKey {
	k, ok := m.keys[key]
	if !ok {
		k = &mergeKey{Key: key, hash: columns.HashKey(key), column: -1, prefix: append(appendJSONString(nil, key.Name), ':', '{')}
		m.keys[columns.Key{Name: k.Name, Kind: key.Kind}] = k
	}
	return k
}

func newMerger(inputs []MergeInput, o MergeOptions) (*merger, error) {
	m := &merger{options: o, tables: columns.NewLogs(), keys: map[columns.Key]*mergeKey{}, deleted: map[DeletedRows]int64{}}
	memory := int64(mergeOverhead)
	for i := range inputs {
		s, err := openSource(m, &inputs[i], i)
		if err != nil {
			return nil, inputs[i].failed(err)
		}
		m.sources = append(m.sources, s)
		m.rows += s.catalogue.Rows
		m.bytes += inputs[i].Size
		memory += s.memory()
	}
	if o.Memory > 0 && memory > o.Memory {
		return nil, fault.New(fault.Exhausted, "merging %d segments takes about %d MiB of memory, and the limit is %d MiB: merge fewer at once, or allow more",
			len(inputs), memory>>20, o.Memory>>20)
	}
	m.left = m.rows
	m.bounded = o.Memory > 0
	m.options.Memory -= memory
	m.planKeys()
	m.planTables()
	return m, nil
}

// failed says which input an error is of.
func (in *MergeInput) failed(err error) error {
	if in.Name == "" {
		return err
	}
	return fmt.Errorf("merge %s: %w", in.Name, err)
}

// mergeOverhead is about what an output takes: a row group by column, encoded, and its token filter.
const mergeOverhead = 32 << 20

// planKeys decides anew which attributes get columns, by the catalogues of all inputs and as field rules leave them.
func (m *merger) planKeys() {
	for _, s := range m.sources {
		for _, a := range s.catalogue.Attributes {
			if key, stays := s.keyAfter(columns.Key{Name: a.Name, Kind: a.Kind}); stays {
				m.keyOf(key).rows += a.Rows
			}
		}
	}
	var keys []*mergeKey
	for _, k := range m.keys {
		if k.rows > 0 && k.rows*denseOne >= m.rows {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b *mergeKey) int { return cmp.Or(cmp.Compare(b.rows, a.rows), compareKeys(a.Key, b.Key)) })
	m.dense = keys[:min(len(keys), maxDense)]
	slices.SortFunc(m.dense, func(a, b *mergeKey) int { return compareKeys(a.Key, b.Key) })
	for i, k := range m.dense {
		k.column = i
	}
	for _, s := range m.sources {
		for i := range s.attributes {
			a := &s.attributes[i]
			a.key = m.keyOf(a.key.Key)
			a.moves = a.key.column < 0 || s.changes(a.key.Name)
		}
	}
}

// keyAfter is what field rules make of a key, if they do not drop it.
func (s *mergeSource) keyAfter(key columns.Key) (after columns.Key, stays bool) {
	for i := range s.Fields {
		if f := &s.Fields[i]; f.Name == key.Name && f.ofAttribute() {
			if f.Action == FieldDrop {
				return key, false
			}
			key.Kind = columns.KindString
		}
	}
	return key, true
}

// planTables gives streams, origins and service names numbers that all inputs share.
func (m *merger) planTables() {
	var services []string
	for _, s := range m.sources {
		for i := range s.catalogue.Streams {
			labels := s.catalogue.Streams[i].Labels
			s.streams = append(s.streams, uint32(m.tables.Stream(labels)))
			s.streamHashes = append(s.streamHashes, columns.HashLabels(labels))
			services = append(services, labelOf(labels, columns.ServiceLabel))
		}
		s.planOrigins()
	}
	slices.Sort(services)
	services = slices.Compact(services)
	for _, s := range m.sources {
		for i := range s.catalogue.Streams {
			rank, _ := slices.BinarySearch(services, labelOf(s.catalogue.Streams[i].Labels, columns.ServiceLabel))
			s.ranks = append(s.ranks, uint32(rank))
		}
		s.planRules()
	}
	for i := range m.tables.Streams() {
		m.streamHashes = append(m.streamHashes, columns.HashLabels(m.tables.StreamLabels(columns.StreamID(i))))
	}
	for i := range m.tables.Origins() {
		m.originHashes = append(m.originHashes, columns.HashOrigin(m.tables.OriginOf(columns.OriginID(i))))
	}
}

func (s *mergeSource) planOrigins() {
	for _, o := range s.catalogue.Origins {
		changed := changeOrigin(o, s.Fields)
		s.origins = append(s.origins, uint32(s.merge.tables.Origin(changed)))
		s.originHashes = append(s.originHashes, columns.HashOrigin(o))
		s.changedOrigins = append(s.changedOrigins, columns.HashOrigin(changed))
		s.identified = s.identified || o.Identity != ""
	}
}

func (s *mergeSource) planRules() {
	for i := range s.Drop {
		rule := sourceRule{RowRule: &s.Drop[i]}
		for _, stream := range s.catalogue.Streams {
			rule.streams = append(rule.streams, rule.Stream == nil || rule.Stream(stream.Labels))
		}
		if slices.Contains(rule.streams, true) {
			s.rules = append(s.rules, rule)
		}
	}
	s.changesBody = slices.ContainsFunc(s.Fields, func(f FieldRule) bool { return f.Name == fieldBody })
}

func (m *merger) run(ctx context.Context) error {
	if err := m.findDoubles(ctx); err != nil {
		return err
	}
	for _, s := range m.sources {
		if err := m.advance(ctx, s); err != nil {
			return err
		}
		if s.row < s.rows {
			m.heap = append(m.heap, s)
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.sift(i)
	}
	for len(m.heap) > 0 {
		if err := m.takeRun(ctx, m.heap[0]); err != nil {
			return err
		}
		m.sift(0)
	}
	if m.writer != nil {
		if err := m.writer.finish(); err != nil {
			return err
		}
	}
	for key, n := range m.deleted {
		key.Rows = n
		m.result.DeletedBy = append(m.result.DeletedBy, key)
	}
	slices.SortFunc(m.result.DeletedBy, compareDeleted)
	return m.result.Check()
}

func compareDeleted(a, b DeletedRows) int {
	return cmp.Or(cmp.Compare(a.Delete, b.Delete), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Input, b.Input))
}

// sift lets the input at a place of the heap sink to where it belongs; one without rows leaves from the top.
func (m *merger) sift(i int) {
	if h := m.heap; i == 0 && h[0].row == h[0].rows {
		h[0] = h[len(h)-1]
		m.heap = h[:len(h)-1]
	}
	h := m.heap
	for {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].before(h[first]) {
				first = child
			}
		}
		if first == i {
			return
		}
		h[i], h[first] = h[first], h[i]
		i = first
	}
}

// second is the input that comes next after the top one.
func (m *merger) second() *mergeSource {
	switch h := m.heap; {
	case len(h) < 2:
		return nil
	case len(h) > 2 && h[2].before(h[1]):
		return h[2]
	default:
		return h[1]
	}
}

// takeRun takes rows of the top input up to the first that comes after another's.
func (m *merger) takeRun(ctx context.Context, s *mergeSource) error {
	other := m.second()
	for {
		if err := m.take(ctx, s); err != nil {
			return err
		}
		if err := m.advance(ctx, s); err != nil {
			return err
		}
		if s.row == s.rows || other != nil && other.before(s) {
			return nil
		}
	}
}

func (m *merger) take(ctx context.Context, s *mergeSource) error {
	if m.writer == nil {
		if err := m.begin(); err != nil {
			return err
		}
	}
	w := m.writer
	if w.full(s) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.endGroup(); err != nil {
			return err
		}
		if m.outputEnds() {
			if err := w.finish(); err != nil {
				return err
			}
			if err := m.begin(); err != nil {
				return err
			}
			w = m.writer
		}
	}
	m.left--
	return w.add(s)
}

// outputEnds reports whether the output is large enough and what is left, too, by its share of the inputs' bytes.
func (m *merger) outputEnds() bool {
	target := m.options.TargetBytes
	if target <= 0 || m.writer.file.offset < target {
		return false
	}
	return m.left*m.bytes/max(1, m.rows) >= target/8
}

// advance moves an input to its next row that stays; at the end, row is rows.
func (m *merger) advance(ctx context.Context, s *mergeSource) error {
	for {
		for s.row++; s.row < s.rows; s.row++ {
			if s.gone[s.row] == ReasonNone {
				return nil
			}
			m.left--
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if m.writer != nil {
			m.writer.gather()
		}
		err := s.next()
		if errors.Is(err, io.EOF) {
			s.row = s.rows
			return s.checkSum()
		}
		if err != nil {
			return s.failed(err)
		}
		s.account(&m.result)
	}
}

// checkSum compares the rows that were read with the input's catalogue.
func (s *mergeSource) checkSum() error {
	if s.sum != s.catalogue.RowHash {
		return s.failed(fmt.Errorf("rows have the hash %x, the catalogue has %x: %w", s.sum, s.catalogue.RowHash, errDamaged))
	}
	return nil
}

// account counts the rows of a row group.
func (s *mergeSource) account(r *MergeResult) {
	for row, hash := range s.hashes {
		r.RowsIn++
		r.HashIn += hash
		s.sum += hash
		switch s.gone[row] {
		case ReasonNone:
			if len(s.Fields) > 0 {
				s.accountChange(row, r)
			}
			continue
		case ReasonMasked:
			r.Masked++
		case ReasonDeleted:
			r.Deleted++
			s.merge.deleted[DeletedRows{Delete: s.deletes[row], Source: s.parts[row].Source, Input: s.number}]++
		case ReasonExpired:
			r.Expired++
		case ReasonDeduplicated:
			r.Deduplicated++
		}
		r.HashLeft += hash
	}
}

// accountChange counts what field rules make of a row.
func (s *mergeSource) accountChange(row int, r *MergeResult) {
	p := s.partsAfter(row)
	if after := p.Hash(); after != s.hashes[row] {
		r.Changed++
		r.HashBefore += s.hashes[row]
		r.HashAfter += after
	}
}

// partsAfter is what a row is made of after the field rules.
func (s *mergeSource) partsAfter(row int) columns.RowParts {
	p := s.parts[row]
	p.Origin = s.changedOrigins[s.numbers[columnOrigin][row]]
	if s.changesBody {
		var kind columns.ValueKind
		s.bodies[row], kind = changeBody(s.body.v.Text(row), p.BodyKind, s.Fields)
		s.numbers[columnBodyKind][row] = int64(kind)
		p.Body, p.BodyKind = columns.HashText(s.bodies[row]), kind
	}
	if !s.moved[row] {
		return p
	}
	for c := range s.attributes {
		if a := &s.attributes[c]; a.moves {
			if i := a.v.place(row); i >= 0 {
				p.Attributes -= columns.HashAttribute(a.key.hash, columns.HashValue(a.value(i)))
			}
		}
	}
	if i := s.rest.v.place(row); i >= 0 {
		p.Attributes -= s.restHash[i]
	}
	for _, a := range s.moves[row] {
		p.Attributes += columns.HashAttribute(s.merge.keyOf(columns.Key{Name: a.Name, Kind: a.Value.Kind}).hash, columns.HashValue(a.Value))
	}
	return p
}

// begin opens the next output.
func (m *merger) begin() error {
	n := len(m.result.Outputs)
	parquet, sidecar, done, err := m.options.Create(n)
	if err != nil {
		return err
	}
	m.writer, err = newMergeWriter(m, parquet, sidecar, done)
	return err
}
