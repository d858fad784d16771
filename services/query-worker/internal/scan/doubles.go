// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// Rows of some origins say by one of their attributes which record they are. Of rows with one identity in one hour one is answered: that of the lowest
// source, and of several of it that with the lowest row hash. Compaction leaves the same one. Segments that one lease merged have no such doubles among them; those of no lease may have them in
// themselves.

// rowSet is a set of rows of one segment.
type rowSet []uint64

func (s rowSet) has(row int64) bool { return s[row/64]&(1<<(row%64)) != 0 }
func (s rowSet) add(row int64)      { s[row/64] |= 1 << (row % 64) }

// claim is a row that has an identity.
type claim struct {
	segment int // its place by key
	row     int64
	source  int64
}

// doubles finds the rows of a group of segments that lose their identity to others.
type doubles struct {
	scan *Scan
	cuts map[int]*cut

	mu    sync.Mutex
	first map[columns.Identity]claim
	// ties are further claims of the same source.
	ties map[columns.Identity][]claim
	lost map[int]rowSet
	held int // bytes of the scan's memory
}

// lost returns the rows that are not answered because others have their identity, by segment. It looks at whole hours, for a double may lie outside of
// the time that is asked for.
func (s *Scan) lost(ctx context.Context, start, end int64) (map[int]rowSet, error) {
	start, end = hours(start, end)
	all := map[int]rowSet{}
	for _, group := range s.rivals(start, end) {
		// Who loses depends on these segments, and on nothing else that is asked.
		found, err := s.scanner.lost.get(s.signature(group, start, end), func(string) (map[int]rowSet, error) { return s.lostIn(ctx, group, start, end) })
		if err != nil {
			return nil, err
		}
		for n, rows := range found {
			all[group[n]] = rows
		}
	}
	return all, nil
}

// signature says all that the doubles of a group depend on.
func (s *Scan) signature(group []int, start, end int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d", start, end)
	for _, d := range s.deletes {
		fmt.Fprintf(&b, " %d", d.Number)
	}
	for _, i := range group {
		g := &s.segments[i]
		fmt.Fprintf(&b, "\n%s/%s %d %v", g.File.Bucket, g.File.Key, g.Applied, g.Masked)
	}
	return b.String()
}

// lostIn finds who loses in one group, by place in it.
func (s *Scan) lostIn(ctx context.Context, group []int, start, end int64) (map[int]rowSet, error) {
	contents, err := s.contents(ctx, start, end)
	if err != nil {
		return nil, err
	}
	d := &doubles{scan: s, cuts: map[int]*cut{}, first: map[columns.Identity]claim{}, ties: map[columns.Identity][]claim{}, lost: map[int]rowSet{}}
	err = d.find(ctx, group, contents, start, end)
	s.memory.give(d.held)
	found := map[int]rowSet{}
	for n, i := range group {
		if rows := d.lost[i]; rows != nil {
			found[n] = rows
		}
	}
	return found, err
}

// hours widens a range to whole ones.
func hours(start, end int64) (first, last int64) {
	const hour = int64(time.Hour)
	if first = columns.HourOf(start) * hour; first > start {
		first = start // the hour began before the first time that there is
	}
	if last = columns.HourOf(end-1) * hour; last <= 1<<63-1-hour {
		last += hour
	}
	return first, last
}

// rivals are groups of identified segments that share hours, and were not all merged by one lease.
func (s *Scan) rivals(start, end int64) [][]int {
	var identified []int
	for i := range s.segments {
		if g := &s.segments[i]; g.Identified && g.Last >= start && g.First < end {
			identified = append(identified, i)
		}
	}
	slices.SortFunc(identified, func(a, b int) int { return cmp.Compare(s.segments[a].First, s.segments[b].First) })
	var groups [][]int
	for n := 0; n < len(identified); {
		group, last := identified[n:n+1], s.segments[identified[n]].Last
		for n++; n < len(identified) && columns.HourOf(s.segments[identified[n]].First) <= columns.HourOf(last); n++ {
			group, last = append(group, identified[n]), max(last, s.segments[identified[n]].Last)
		}
		if slices.ContainsFunc(group, func(i int) bool {
			return s.segments[i].Lease == "" || s.segments[i].Lease != s.segments[group[0]].Lease
		}) {
			groups = append(groups, group)
		}
	}
	return groups
}

func (d *doubles) find(ctx context.Context, group []int, contents []*Contents, start, end int64) error {
	var cuts []*cut
	for _, i := range group {
		if k := identifiedCut(&d.scan.segments[i], contents[i], d.scan.deletes, start, end); k != nil {
			k.ordinal, d.cuts[i] = i, k
			cuts = append(cuts, k)
		}
	}
	err := d.scan.share(ctx, cuts, func(ctx context.Context, next func() *cut) (func() error, error) {
		for k := next(); k != nil; k = next() {
			if err := d.read(ctx, k); err != nil {
				return nil, err
			}
		}
		return func() error { return nil }, nil
	})
	if err != nil {
		return err
	}
	return d.settle(ctx)
}

// identifiedCut is all of a segment that is answered, if rows of it have an identity.
func identifiedCut(s *Segment, c *Contents, deletes []Delete, start, end int64) *cut {
	if c == nil || !slices.ContainsFunc(c.Origins, func(o columns.Origin) bool { return o.Identity != "" }) {
		return nil
	}
	k := &cut{segment: s, contents: c, start: start, end: end}
	for i := range c.streams {
		k.streams = append(k.streams, uint32(i))
	}
	for i := range c.RowGroups {
		k.groups = append(k.groups, i)
	}
	if !k.applyDeletes(deletes) {
		return nil
	}
	return k
}

// read claims the identities of one segment's rows.
func (d *doubles) read(ctx context.Context, k *cut) error {
	file, err := d.scan.scanner.cache.File(ctx, k.segment.File, &d.scan.Statistics.Cache)
	if err != nil {
		return err
	}
	defer file.Release()
	reader, err := d.scan.openDirect(k, file)
	if err != nil {
		return err
	}
	defer reader.close()
	p := identityProjection(k)
	return reader.each(ctx, p, unordered, anyRow, func(r *row) error {
		id, ok := columns.IdentityOf(&k.contents.Origins[r.Origin], &r.LogRow)
		if !ok {
			return nil
		}
		return d.claim(id, claim{k.ordinal, r.number, int64(r.Source)})
	})
}

// identityProjection is what tells identities.
func identityProjection(k *cut) *projection {
	p := &projection{}
	p.time()
	p.stream()
	p.addOrigin()
	p.source()
	for i := range k.contents.attributes {
		a := &k.contents.attributes[i]
		if slices.ContainsFunc(k.contents.Origins, func(o columns.Origin) bool { return o.Identity == a.Name }) {
			p.attribute(a)
		}
	}
	return p
}

// claim notes a row's identity.
func (d *doubles) claim(id columns.Identity, c claim) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, there := d.first[id]
	switch {
	case !there:
		d.first[id] = c
		return d.take(claimSize)
	case c.source > known.source:
		d.lose(c)
	case c.source < known.source:
		d.lose(known)
		for _, tied := range d.ties[id] {
			d.lose(tied)
		}
		delete(d.ties, id)
		d.first[id] = c
	default:
		d.ties[id] = append(d.ties[id], c)
		return d.take(claimSize)
	}
	return nil
}

// claimSize is what a claim holds of memory, about.
const claimSize = 96

func (d *doubles) take(bytes int) error {
	d.held += bytes
	if err := d.scan.memory.take(bytes); err != nil {
		return fault.New(fault.Exhausted, "leaving out the doubles of identified rows holds more than %d bytes in a worker: ask for fewer hours at once, or again once these are compacted, "+
			"or raise scan_memory", d.scan.memory.limit)
	}
	return nil
}

func (d *doubles) lose(c claim) {
	if d.lost[c.segment] == nil {
		d.lost[c.segment] = make(rowSet, d.cuts[c.segment].contents.Rows/64+1)
	}
	d.lost[c.segment].add(c.row)
}

// settle decides between rows of one source by their hashes.
func (d *doubles) settle(ctx context.Context) error {
	wanted := map[int]map[int64]uint64{}
	want := func(c claim) {
		if wanted[c.segment] == nil {
			wanted[c.segment] = map[int64]uint64{}
		}
		wanted[c.segment][c.row] = 0
	}
	for id, tied := range d.ties {
		want(d.first[id])
		for _, c := range tied {
			want(c)
		}
	}
	for segment, rows := range wanted {
		if err := d.hash(ctx, d.cuts[segment], rows); err != nil {
			return err
		}
	}
	for id, tied := range d.ties {
		tied = append(tied, d.first[id])
		best := slices.MinFunc(tied, func(a, b claim) int {
			return cmp.Or(cmp.Compare(wanted[a.segment][a.row], wanted[b.segment][b.row]), cmp.Compare(a.segment, b.segment), cmp.Compare(a.row, b.row))
		})
		for _, c := range tied {
			if c != best {
				d.lose(c)
			}
		}
	}
	return nil
}

// hash fills in the hashes of some rows of a segment.
func (d *doubles) hash(ctx context.Context, k *cut, rows map[int64]uint64) error {
	pinned, err := d.scan.scanner.cache.File(ctx, k.segment.File, &d.scan.Statistics.Cache)
	if err != nil {
		return err
	}
	defer pinned.Release()
	file, err := os.Open(pinned.Path)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	defer func() { _ = file.Close() }()
	reader, err := segfile.OpenLogs(file, k.segment.File.Bytes)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	for number := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		l := columns.NewLogs()
		switch err := reader.Next(l); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fault.Wrap(fault.Internal, err)
		}
		for i := range l.Len() {
			if _, wanted := rows[number]; wanted {
				rows[number] = l.RowHash(i)
			}
			number++
		}
	}
}
