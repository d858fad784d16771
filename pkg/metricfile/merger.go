// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// merger merges sorted inputs. It holds the points of one series, and a row group of each output.
type merger struct {
	options MergeOptions
	sources []*mergeSource
	// band are the inputs whose heads are merged next, which mostly stay together; heap has the others with rows left, the one whose head comes first on
	// top. rest is for the moment.
	band, rest, heap []*mergeSource
	// numbers are those of strings of all inputs, from 1.
	numbers map[string]uint32
	// passes are the shards that are written one after the other, and chosen those of the present pass.
	passes  [][]uint32
	chosen  []bool
	row     rowMerger
	outputs []*mergeOutput // by shard; nil: not begun
	result  MergeResult
	deleted map[DeletedRows]int64
}

// mergeOutput is a shard's segment, as far as it has been written.
type mergeOutput struct {
	writer  *Writer
	done    func() error
	shard   lake.Shard
	sources sourceSet
}

// sourceSet gathers sources, of which neighbours have mostly the same.
type sourceSet struct {
	all  map[lake.ReceiptID]struct{}
	last lake.ReceiptID
}

func (s *sourceSet) add(sources []lake.ReceiptID) {
	for _, source := range sources {
		if source != s.last || len(s.all) == 0 {
			s.all[source] = struct{}{}
			s.last = source
		}
	}
}

func newMerger(inputs []MergeInput, o MergeOptions) (*merger, error) {
	o.Shards = max(1, o.Shards)
	if o.Shards&(o.Shards-1) != 0 {
		return nil, fault.New(fault.Internal, "a merge into %d shards", o.Shards)
	}
	m := &merger{
		options: o, outputs: make([]*mergeOutput, o.Shards), chosen: make([]bool, o.Shards), deleted: map[DeletedRows]int64{}, numbers: map[string]uint32{},
	}
	for i := range inputs {
		s, err := openSource(m, &inputs[i], i)
		if err != nil {
			return nil, inputs[i].failed(err)
		}
		m.sources = append(m.sources, s)
	}
	if err := m.planPasses(); err != nil {
		return nil, err
	}
	m.rank()
	return m, nil
}

// failed says which input an error is of.
func (in *MergeInput) failed(err error) error {
	if in.Name == "" {
		return err
	}
	return fmt.Errorf("merge %s: %w", in.Name, err)
}

const (
	// writerLeast is about what an output takes at least, mostly for compression, and writerMost what its row group and catalogue may take beside that.
	writerLeast = 8 << 20
	writerMost  = 40 << 20
)

// planPasses decides which shards are written at a time. More passes cost little: a row's points are read in one of them only.
func (m *merger) planPasses() error {
	sources, bytes := int64(0), int64(0)
	for _, s := range m.sources {
		sources += s.memory()
		bytes += s.Size + int64(len(s.Sidecar))
	}
	const expansion = 3 // of what is written, while it is gathered
	shards := m.shards()
	writer := writerLeast + min(writerMost, expansion*bytes/int64(max(1, len(shards))))
	at := len(shards)
	if m.options.Memory > 0 {
		at = min(at, int((m.options.Memory-sources)/writer))
	}
	if at < 1 && len(shards) > 0 {
		return fault.New(fault.Exhausted, "merging %d segments takes about %d MiB of memory, and the limit is %d MiB: merge fewer at once, or allow more",
			len(m.sources), (sources+writer)>>20, m.options.Memory>>20)
	}
	m.passes = slices.Collect(slices.Chunk(shards, max(1, at)))
	return nil
}

// shards are those that may get outputs: inputs that are of shards themselves have rows for some only.
func (m *merger) shards() (all []uint32) {
	for i := range m.options.Shards {
		shard := lake.Shard{Index: i, Count: m.options.Shards}
		if slices.ContainsFunc(m.sources, func(s *mergeSource) bool { return s.catalogue.Shard.Meets(shard) }) {
			all = append(all, i)
		}
	}
	return all
}

// rank numbers metric names in their order.
func (m *merger) rank() {
	ranks := map[string]int{}
	for _, s := range m.sources {
		for _, name := range s.catalogue.Names() {
			ranks[name] = 0
		}
	}
	for i, name := range slices.Sorted(maps.Keys(ranks)) {
		ranks[name] = i
	}
	for _, s := range m.sources {
		s.numberStrings(ranks)
	}
}

// number numbers a string.
func (m *merger) number(text string) uint32 {
	n, ok := m.numbers[text]
	if !ok {
		n = uint32(len(m.numbers)) + 1
		m.numbers[text] = n
	}
	return n
}

func (m *merger) run(ctx context.Context) error {
	for _, pass := range m.passes {
		if err := m.pass(ctx, pass); err != nil {
			return err
		}
	}
	for _, s := range m.sources {
		if err := s.check(); err != nil {
			return s.failed(err)
		}
	}
	for key, n := range m.deleted {
		key.Rows = n
		m.result.DeletedBy = append(m.result.DeletedBy, key)
	}
	slices.SortFunc(m.result.DeletedBy, compareDeletedRows)
	return m.result.Check()
}

func compareDeletedRows(a, b DeletedRows) int {
	return cmp.Or(cmp.Compare(a.Delete, b.Delete), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Input, b.Input))
}

// pass merges the rows of some shards.
func (m *merger) pass(ctx context.Context, shards []uint32) error {
	clear(m.chosen)
	for _, i := range shards {
		m.chosen[i] = true
	}
	m.band, m.heap = m.band[:0], m.heap[:0]
	for _, s := range m.sources {
		s.rewind()
		if err := s.advance(); err != nil {
			return s.failed(err)
		}
		if !s.ended() {
			m.band = append(m.band, s)
		}
	}
	const patience = 256 // rows between two looks at ctx
	for rows := 0; len(m.band)+len(m.heap) > 0; rows++ {
		if rows%patience == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		m.choose()
		if err := m.mergeRow(); err != nil {
			return err
		}
	}
	return m.finish(shards)
}

// choose leaves the inputs in the band whose heads are the first series of all.
func (m *merger) choose() {
	band := m.band
	m.band, m.rest = m.band[:0], m.rest[:0]
	for _, s := range band { // of which no more are kept than were looked at
		order := -1
		if len(m.band) > 0 {
			order = s.compare(m.band[0])
		}
		if order < 0 {
			m.rest = append(m.rest, m.band...)
			m.band = m.band[:0]
		}
		if order <= 0 {
			m.band = append(m.band, s)
		} else {
			m.rest = append(m.rest, s)
		}
	}
	if len(m.heap) > 0 && len(m.band) > 0 && m.heap[0].compare(m.band[0]) < 0 {
		m.rest = append(m.rest, m.band...)
		m.band = m.band[:0]
	}
	for _, s := range m.rest {
		m.push(s)
	}
	for len(m.heap) > 0 && (len(m.band) == 0 || m.heap[0].compare(m.band[0]) == 0) {
		m.band = append(m.band, m.pop())
	}
}

// mergeRow merges the rows of the inputs in the band, which leave it when they have no more.
func (m *merger) mergeRow() error {
	m.row.begin(m.band[0])
	for _, s := range m.band {
		if err := m.row.add(s); err != nil {
			return s.failed(err)
		}
		if err := s.advance(); err != nil {
			return s.failed(err)
		}
	}
	m.band = slices.DeleteFunc(m.band, (*mergeSource).ended)
	points := m.row.merge(&m.result)
	if points.Len() == 0 {
		return nil
	}
	m.result.RowsOut += int64(points.Len())
	return m.write(points)
}

func (m *merger) write(points *Points) error {
	index := m.shardOf(m.row.head.hash)
	o := m.outputs[index]
	if o == nil {
		var err error
		if o, err = m.begin(index); err != nil {
			return err
		}
	}
	o.sources.add(points.Sources)
	return o.writer.appendPoints(&m.row.series, m.row.head.hash, points)
}

func (m *merger) shardOf(hash uint64) uint32 { return uint32(hash & uint64(m.options.Shards-1)) }

// begin begins the output of a shard.
func (m *merger) begin(index uint32) (*mergeOutput, error) {
	parquet, sidecar, done, err := m.options.Create(int(index))
	if err != nil {
		return nil, err
	}
	o := &mergeOutput{done: done, sources: sourceSet{all: map[lake.ReceiptID]struct{}{}}}
	if m.options.Shards > 1 {
		o.shard = lake.Shard{Index: index, Count: m.options.Shards}
	}
	meta := m.options.Meta
	meta.Shard, meta.Sources = o.shard, nil
	if o.writer, err = NewWriter(parquet, sidecar, meta); err != nil {
		return nil, err
	}
	m.outputs[index] = o
	return o, nil
}

// finish closes the outputs of shards.
func (m *merger) finish(shards []uint32) error {
	for _, i := range shards {
		o := m.outputs[i]
		if o == nil {
			continue
		}
		sources := slices.Sorted(maps.Keys(o.sources.all))
		o.writer.totals.Sources = sources
		written, err := o.writer.Close()
		if err != nil {
			return err
		}
		if err := o.done(); err != nil {
			return err
		}
		m.result.Outputs = append(m.result.Outputs, MergeOutput{Written: written, Shard: o.shard, Sources: sources})
		m.outputs[i] = nil
	}
	return nil
}

// push puts an input into the heap.
func (m *merger) push(s *mergeSource) {
	m.heap = append(m.heap, s)
	h := m.heap
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if h[i].compare(h[parent]) >= 0 {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// pop takes the input from the heap whose head comes first.
func (m *merger) pop() *mergeSource {
	h := m.heap
	top := h[0]
	h[0] = h[len(h)-1]
	h = h[:len(h)-1]
	m.heap = h
	for i := 0; ; {
		first := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h); child++ {
			if h[child].compare(h[first]) < 0 {
				first = child
			}
		}
		if first == i {
			return top
		}
		h[i], h[first] = h[first], h[i]
		i = first
	}
}
