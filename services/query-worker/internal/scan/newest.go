// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"slices"
)

// candidate is a row that the pipeline may let through.
type candidate struct {
	position
	group int
	at    int32 // in the row group
}

// front collects the candidates that come first in the direction.
type front struct {
	pages *pages
	size  int
	total int // candidates offered
	rows  []candidate
	last  *position // of rows, once there are as many as size
}

func (f *front) before(a, b position) bool { return f.pages.found.before(a, b) }

func (f *front) add(c candidate) {
	f.total++
	if f.last != nil && !f.before(c.position, *f.last) {
		return
	}
	f.rows = append(f.rows, c)
	if len(f.rows) == 2*f.size {
		f.trim()
	}
}

// beyond reports whether a row group can only hold candidates behind those that were found. It counts as one that was offered.
func (f *front) beyond(group int) bool {
	if f.last == nil {
		return false
	}
	behind := cmp.Compare(f.pages.nearest(group), f.last.time)
	if !f.pages.scan.query.Forward {
		behind = -behind
	}
	if behind > 0 {
		f.total++
	}
	return behind > 0
}

// trim keeps the first ones.
func (f *front) trim() {
	slices.SortFunc(f.rows, func(a, b candidate) int {
		if f.before(a.position, b.position) {
			return -1
		}
		return 1
	})
	if len(f.rows) >= f.size {
		f.rows = f.rows[:f.size]
		last := f.rows[f.size-1].position
		f.last = &last
	}
}

// newest gives rows to the pipeline: first those that come first in the direction, of which the large columns are read only where these rows are. Where
// the pipeline drops so many that they do not do, the others follow.
func (p *pages) newest(ctx context.Context, d *direct) error {
	f := &front{pages: p, size: max(2*p.found.limit, leastPage)}
	unwanted := d.skip
	d.skip = func(group int) bool { return unwanted(group) || f.beyond(group) }
	err := d.groups(ctx, func(group int) error {
		time, err := d.column(group, "time")
		if err != nil {
			return err
		}
		first := p.cut.contents.RowGroups[group].FirstRow
		offer := func(i int32) {
			if at := p.position(time.Number(int(i)), first+int64(i)); p.found.wantsPosition(at) {
				f.add(candidate{at, group, i})
			}
		}
		// Rows often stand in the order of their time, so that the first come first.
		if p.scan.query.Forward {
			for _, i := range d.rows {
				offer(i)
			}
			return nil
		}
		for _, i := range slices.Backward(d.rows) {
			offer(i)
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.trim()
	d.skip = unwanted
	if err := p.candidates(d, f.rows); err != nil || f.total <= f.size || !p.found.wantsAt(f.last.time) {
		return err
	}
	wants := func(time, number int64) bool {
		at := p.position(time, number)
		return f.before(*f.last, at) && p.found.wantsPosition(at)
	}
	return d.each(ctx, &p.projection, unordered, wants, func(r *row) error { return p.row(r, p.position(r.Time, r.number)) })
}

// candidates gives rows to the pipeline, row group by row group.
func (p *pages) candidates(d *direct, rows []candidate) error {
	slices.SortFunc(rows, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.at, b.at)) })
	for len(rows) > 0 {
		group := rows[0].group
		var numbers []int32
		for len(rows) > 0 && rows[0].group == group {
			numbers, rows = append(numbers, rows[0].at), rows[1:]
		}
		d.forget()
		always := func(int32) bool { return true }
		err := d.visit(group, &p.projection, numbers, always, func(r *row) error { return p.row(r, p.position(r.Time, r.number)) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pages) position(time, number int64) position {
	return position{time: time, ordinal: p.cut.ordinal, row: number}
}
