// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"fmt"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/selector"
)

// Delete is a delete of data: the rows that its selector lets through are not answered. Segments say up to which number their rows are gone already.
type Delete struct {
	Number   int64
	Selector *selector.Selector
	// Start is inclusive, End is not: ns since 1970.
	Start, End int64
}

// hidden are rows of some streams within a range of time that are not answered.
type hidden struct {
	ids        []uint32 // of streams, ascending
	streams    []bool   // by number
	start, end int64
	// of says which of these rows; nil: all.
	of *selector.Selector
}

// applyDeletes takes off the cut the streams of which nothing is left, and notes what else must not be answered. False: nothing is left at all.
func (k *cut) applyDeletes(deletes []Delete) bool {
	for i := range deletes {
		if d := &deletes[i]; d.Number > k.segment.Applied {
			k.applyDelete(d)
		}
	}
	return len(k.streams) > 0
}

func (k *cut) applyDelete(d *Delete) {
	h := hidden{start: d.Start, end: d.End}
	simple := d.Selector.Simple()
	k.streams = slices.DeleteFunc(slices.Clone(k.streams), func(id uint32) bool {
		s := &k.contents.streams[id]
		first, last := max(s.First, k.start), min(s.Last, k.end-1)
		if last < d.Start || first >= d.End || !d.Selector.Stream(s.Labels) {
			return false
		}
		if simple && first >= d.Start && last < d.End {
			return true
		}
		h.ids = append(h.ids, id)
		return false
	})
	if len(h.ids) == 0 {
		return
	}
	h.streams = make([]bool, len(k.contents.streams))
	for _, id := range h.ids {
		h.streams[id] = true
	}
	if !simple {
		h.of = d.Selector
		k.chosen = true
	}
	k.hidden = append(k.hidden, h)
}

// excludeHidden leaves out what SQL can tell.
func (k *cut) excludeHidden() {
	for _, h := range k.hidden {
		if h.of == nil {
			k.where = append(k.where, fmt.Sprintf("NOT (%s AND time >= %d AND time < %d)", idCondition("stream", h.ids), h.start, h.end))
		}
	}
}

// whole reports whether every row of the cut's streams and times is answered, so that what the catalogue says of a stream is true.
func (k *cut) whole() bool { return len(k.where) == 0 && !k.chosen }

// dropHidden takes rows off those chosen of a row group.
func (d *direct) dropHidden(group int) error {
	for i := range d.cut.hidden {
		h := &d.cut.hidden[i]
		if len(d.rows) == 0 {
			return nil
		}
		inside, err := d.inside(group, h)
		if err != nil {
			return err
		}
		if h.of == nil {
			d.rows = slices.DeleteFunc(d.rows, inside)
			continue
		}
		if err := d.dropMatching(group, i, inside); err != nil {
			return err
		}
	}
	return nil
}

// inside returns what says whether a row has the streams and times of what is hidden.
func (d *direct) inside(group int, h *hidden) (func(i int32) bool, error) {
	streams, err := d.column(group, "stream")
	if err != nil {
		return nil, err
	}
	times, err := d.column(group, "time")
	if err != nil {
		return nil, err
	}
	return func(i int32) bool {
		id, time := streams.Number(int(i)), times.Number(int(i))
		return id >= 0 && int(id) < len(h.streams) && h.streams[id] && time >= h.start && time < h.end
	}, nil
}

// dropMatching takes off the rows inside that the delete's pipeline lets through.
func (d *direct) dropMatching(group, of int, inside func(i int32) bool) error {
	if !slices.ContainsFunc(d.rows, inside) {
		return nil
	}
	if d.matchers == nil {
		d.matchers = make([]*selector.Matcher, len(d.cut.hidden))
		d.all = everythingOf(d.cut)
		d.allValues = make([]values, len(d.all.fields))
	}
	if d.matchers[of] == nil {
		d.matchers[of] = d.cut.hidden[of].of.NewMatcher()
	}
	if err := d.fields(group, d.all, d.allValues); err != nil {
		return err
	}
	kept := d.rows[:0]
	var r row
	for _, i := range d.rows {
		if inside(i) {
			if err := d.all.read(&r, d.allValues, int(i)); err != nil {
				return err
			}
			if d.matchers[of].Row(d.cut.contents.streams[r.Stream].Labels, d.cut.contents.Origins[r.Origin], &r.LogRow) {
				continue
			}
		}
		kept = append(kept, i)
	}
	d.rows = kept
	return nil
}

// everythingOf is all that a selector may look at.
func everythingOf(k *cut) *projection {
	p := &projection{}
	p.time()
	p.stream()
	p.body()
	p.everything(k)
	return p
}
