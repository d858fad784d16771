// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"context"
	"slices"
	"unsafe"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// keptRow is the row that an identity is kept with, so far.
type keptRow struct {
	source lake.ReceiptID
	hash   uint64
	row    int64 // of the input
	input  int
}

func (k keptRow) beats(o keptRow) bool {
	return k.source < o.source || k.source == o.source && k.hash < o.hash
}

// identityBytes is about what one identity takes in the table of an hour.
const identityBytes = 2 * int64(unsafe.Sizeof(columns.Identity{})+unsafe.Sizeof(keptRow{}))

// findDoubles reads the inputs that have rows with identity before they are merged, and marks the rows that leave for one of another row. Doubles may be
// of different services and fingerprints, far from each other in the order of rows, but they are of one hour, and so are the rows of a row group: the table
// of identities is of one hour at a time.
func (m *merger) findDoubles(ctx context.Context) error {
	groups := map[int64][]groupOf{}
	for _, s := range m.sources {
		if !s.identified {
			continue
		}
		s.doubles = make([]uint64, (s.catalogue.Rows+63)/64)
		for g := range s.catalogue.RowGroups {
			hour := columns.HourOf(s.catalogue.RowGroups[g].First)
			groups[hour] = append(groups[hour], groupOf{source: s, group: g})
		}
	}
	for _, of := range groups {
		if err := m.findDoublesOfHour(ctx, of); err != nil {
			return err
		}
	}
	for _, s := range m.sources {
		s.group, s.row, s.rows = -1, 0, 0 // from the beginning
	}
	return nil
}

type groupOf struct {
	source *mergeSource
	group  int
}

func (m *merger) findDoublesOfHour(ctx context.Context, groups []groupOf) error {
	kept := map[columns.Identity]keptRow{}
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := g.source
		if err := s.load(g.group); err != nil {
			return s.failed(err)
		}
		for row := range s.rows {
			if s.gone[row] != ReasonNone {
				continue
			}
			if id, ok := s.identity(row); ok {
				m.keepOne(kept, id, s, row)
			}
		}
		if held := int64(len(kept)) * identityBytes; m.bounded && held > m.options.Memory {
			return fault.New(fault.Exhausted, "merge %s: an hour has more than %d rows with identity, and what is left of the memory limit is %d MiB: "+
				"allow more memory, or merge fewer segments at once", s.Name, len(kept), max(0, m.options.Memory)>>20)
		}
	}
	return nil
}

// keepOne marks either a row or the one that its identity was kept with.
func (m *merger) keepOne(kept map[columns.Identity]keptRow, id columns.Identity, s *mergeSource, row int) {
	hash := s.hashes[row]
	if len(s.Fields) > 0 {
		p := s.partsAfter(row)
		hash = p.Hash()
	}
	this := keptRow{source: s.parts[row].Source, hash: hash, row: s.firstRow + int64(row), input: s.number}
	before, double := kept[id]
	if double && !this.beats(before) {
		s.markDouble(this.row)
		return
	}
	if double {
		m.sources[before.input].markDouble(before.row)
	}
	kept[id] = this
}

func (s *mergeSource) markDouble(row int64) { s.doubles[row/64] |= 1 << (row % 64) }

// identity is a row's, as field rules leave it.
func (s *mergeSource) identity(row int) (columns.Identity, bool) {
	o := &s.catalogue.Origins[s.numbers[columnOrigin][row]]
	if o.Identity == "" {
		return columns.Identity{}, false
	}
	s.restEach = s.restEach[:0]
	for c := range s.attributes {
		if a := &s.attributes[c]; a.key.Name == o.Identity {
			if i := a.v.place(row); i >= 0 {
				s.restEach = append(s.restEach, columns.Attribute{Name: o.Identity, Value: a.value(i)})
			}
		}
	}
	prefix := s.merge.keyOf(columns.Key{Name: o.Identity}).prefix
	if rest := s.rest.v.Text(row); bytes.Contains(unsafe.Slice(unsafe.StringData(rest), len(rest)), prefix) {
		s.restEach, _ = DecodeAttributes(s.restEach, rest)
		s.restEach = slices.DeleteFunc(s.restEach, func(a columns.Attribute) bool { return a.Name != o.Identity })
	}
	s.restEach = changeAttributes(s.restEach, s.Fields)
	return columns.IdentityOf(o, &columns.LogRow{Time: s.numbers[columnTime][row], Attributes: s.restEach})
}
