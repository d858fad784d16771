// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// direct reads rows of a segment without DuckDB: a statement costs as much as many pages, and its rows are copied twice on their way to Go. What it lets
// through is a superset, as with SQL: of line filters it knows only the needles, so the pipeline must be given all of the query's stages.
type direct struct {
	scan *Scan
	cut  *cut
	file *os.File
	// chunks are where the columns stand.
	chunks *segfile.Chunks
	*reader
	wanted []bool // by stream
	// order is that of the row groups; skip, if there is one, says of which nothing is wanted any more.
	order []int
	skip  func(group int) bool
	// matchers decide for each of the cut's hidden rows, for which they are given all columns.
	matchers  []*selector.Matcher
	all       *projection
	allValues []values
}

// reader has the vectors of one goroutine, and what they hold of a row group.
type reader struct {
	vectors []*segfile.Vector
	used    int // of the vectors
	loaded  map[string]*segfile.Vector
	rows    []int32
	found   []int32
}

func (s *Scan) openDirect(k *cut, pinned *cache.Pinned) (*direct, error) {
	file, err := os.Open(pinned.Path)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	chunks, err := k.contents.places(file, k.segment.File.Bytes)
	if err != nil {
		file.Close()
		return nil, fault.Wrap(fault.Internal, err)
	}
	d := &direct{scan: s, cut: k, file: file, chunks: chunks, wanted: make([]bool, len(k.contents.streams)), order: k.groups}
	for _, id := range k.streams {
		d.wanted[id] = true
	}
	var ok bool
	if d.reader, ok = s.scanner.readers.Get().(*reader); !ok {
		d.reader = &reader{loaded: map[string]*segfile.Vector{}}
	}
	return d, nil
}

func (d *direct) close() {
	d.forget()
	d.scan.scanner.readers.Put(d.reader)
	d.file.Close()
}

// forget ends the use of the vectors' values.
func (r *reader) forget() {
	clear(r.loaded)
	r.used = 0
}

// column reads a column of a row group, once.
func (d *direct) column(group int, name string) (*segfile.Vector, error) {
	if v := d.loaded[name]; v != nil {
		return v, nil
	}
	key := columnKey{d.cut.segment.File.Key, group, name}
	v := d.scan.scanner.kept.get(key)
	if v == nil {
		var err error
		if v, err = d.next(); err != nil {
			return nil, fault.Wrap(fault.Internal, err)
		}
		if err := v.Read(d.file, d.chunks, group, name); err != nil {
			return nil, fault.Wrap(fault.Internal, err)
		}
		d.scan.scanner.kept.offer(key, v)
	}
	d.loaded[name] = v
	return v, nil
}

// next is a vector of the reader's own that is not in use.
func (r *reader) next() (*segfile.Vector, error) {
	if r.used == len(r.vectors) {
		v, err := segfile.NewVector()
		if err != nil {
			return nil, err
		}
		r.vectors = append(r.vectors, v)
	}
	r.used++
	return r.vectors[r.used-1], nil
}

// delayed is the observed time: how much later it is than the time is in the file.
type delayed struct {
	*segfile.Vector
	time *segfile.Vector
}

// Number implements values.
func (d delayed) Number(i int) int64 {
	if d.IsNull(i) {
		return 0
	}
	return d.time.Number(i) + d.Vector.Number(i)
}

// groups gives each row group that has rows that may matter to a function. The reader's rows are these.
func (d *direct) groups(ctx context.Context, visit func(group int) error) error {
	for _, group := range d.order {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		if d.skip != nil && d.skip(group) {
			continue
		}
		d.forget()
		if err := d.choose(group); err != nil {
			return err
		}
		if len(d.rows) == 0 {
			continue
		}
		if err := visit(group); err != nil {
			return err
		}
	}
	return nil
}

// unordered leaves rows as they stand in the file.
func unordered(*segfile.Vector, []int32) {}

// anyRow wants them all.
func anyRow(int64, int64) bool { return true }

// each gives the rows that may matter, row group by row group, in the order that sort gives them, to a function, which must not keep their strings.
// It asks wants before it reads more of a row than it needs to choose it.
func (d *direct) each(ctx context.Context, p *projection, order func(time *segfile.Vector, rows []int32), wants func(time int64, number int64) bool, visit func(*row) error) error {
	return d.groups(ctx, func(group int) error {
		time, err := d.column(group, "time")
		if err != nil {
			return err
		}
		order(time, d.rows)
		first := d.cut.contents.RowGroups[group].FirstRow
		return d.visit(group, p, d.rows, func(i int32) bool { return wants(time.Number(int(i)), first+int64(i)) }, visit)
	})
}

// visit reads those of a row group's rows that are wanted. The columns are read when the first one is.
func (d *direct) visit(group int, p *projection, rows []int32, wants func(i int32) bool, visit func(*row) error) error {
	var r row
	var from []values
	first := d.cut.contents.RowGroups[group].FirstRow
	for _, i := range rows {
		if !wants(i) {
			continue
		}
		if from == nil {
			from = make([]values, len(p.fields))
			if err := d.fields(group, p, from); err != nil {
				return err
			}
		}
		r.number = first + int64(i)
		if err := p.read(&r, from, int(i)); err != nil {
			return err
		}
		if err := visit(&r); err != nil {
			return err
		}
	}
	return nil
}

func (d *direct) fields(group int, p *projection, into []values) error {
	for i, f := range p.fields {
		v, err := d.column(group, f.column)
		if err != nil {
			return err
		}
		into[i] = v
		if f.column == delayColumn {
			time, err := d.column(group, "time")
			if err != nil {
				return err
			}
			into[i] = delayed{v, time}
		}
	}
	return nil
}

// choose sets the rows to those of a row group that are asked for, as far as columns can tell. Those that are large come last.
func (d *direct) choose(group int) error {
	k := d.cut
	d.rows = d.rows[:0]
	low, high, known := d.chunks.Bounds(group, "stream")
	if known && !slices.ContainsFunc(k.streams, func(id uint32) bool { return int64(id) >= low && int64(id) <= high }) {
		return nil
	}
	for i := range d.chunks.Rows(group) {
		d.rows = append(d.rows, int32(i))
	}
	for _, keep := range []func(int) error{d.keepStreams, d.keepTimes, d.keepLabels, d.dropMasked, d.dropLost, d.keepTrace, d.keepTexts, d.dropHidden} {
		if err := keep(group); err != nil || len(d.rows) == 0 {
			return err
		}
	}
	return nil
}

func (d *direct) keepStreams(group int) error {
	if len(d.cut.streams) == len(d.wanted) {
		return nil
	}
	return d.keep(group, "stream", func(v int64) bool { return v >= 0 && int(v) < len(d.wanted) && d.wanted[v] })
}

func (d *direct) keepTimes(group int) error {
	k := d.cut
	if g := k.contents.RowGroups[group]; g.First >= k.start && g.Last < k.end {
		return nil
	}
	return d.keep(group, "time", func(v int64) bool { return v >= k.start && v < k.end })
}

func (d *direct) keepLabels(group int) error {
	for _, test := range d.cut.tests {
		ok, err := test(d, group)
		if err != nil {
			return err
		}
		d.rows = slices.DeleteFunc(d.rows, func(i int32) bool { return !ok(i) })
	}
	return nil
}

func (d *direct) dropMasked(group int) error {
	if len(d.cut.segment.Masked) == 0 {
		return nil
	}
	return d.keep(group, "source", func(v int64) bool { return !slices.Contains(d.cut.segment.Masked, v) })
}

func (d *direct) dropLost(group int) error {
	if d.cut.lost == nil {
		return nil
	}
	first := d.cut.contents.RowGroups[group].FirstRow
	d.rows = slices.DeleteFunc(d.rows, func(i int32) bool { return d.cut.lost.has(first + int64(i)) })
	return nil
}

func (d *direct) keep(group int, column string, ok func(int64) bool) error {
	v, err := d.column(group, column)
	if err != nil {
		return err
	}
	d.rows = slices.DeleteFunc(d.rows, func(i int32) bool { return !ok(v.Number(int(i))) })
	return nil
}

func (d *direct) keepTrace(group int) error {
	if d.cut.trace == nil {
		return nil
	}
	ids, err := d.column(group, "trace_id")
	if err != nil {
		return err
	}
	d.found = ids.Containing(string(d.cut.trace[:]), d.found[:0])
	d.rows = intersected(d.rows, d.found)
	return nil
}

// keepTexts keeps the rows with the needles.
func (d *direct) keepTexts(group int) error {
	texts := d.cut.searched()
	if len(texts) == 0 {
		return nil
	}
	body, err := d.column(group, plan.Body)
	if err != nil {
		return err
	}
	d.found = d.found[:0]
	for _, text := range texts {
		d.found = body.Containing(text, d.found)
	}
	if len(texts) > 1 {
		slices.Sort(d.found)
	}
	d.rows = intersected(d.rows, d.found)
	d.rows = slices.DeleteFunc(d.rows, func(i int32) bool {
		text := body.Text(int(i))
		return slices.ContainsFunc(d.cut.needles, func(n string) bool { return !strings.Contains(text, n) })
	})
	return nil
}

// intersected keeps of ascending rows those that are among others.
func intersected(rows, others []int32) []int32 {
	kept := rows[:0]
	for _, i := range rows {
		for len(others) > 0 && others[0] < i {
			others = others[1:]
		}
		if len(others) > 0 && others[0] == i {
			kept = append(kept, i)
		}
	}
	return kept
}

// searched are texts of which every row's body has one; none if no such texts are known. A search for what begins with a space would stop at every
// word.
func (k *cut) searched() []string {
	needle := longest(k.needles)
	if len(needle) < fewBytes && len(k.either) > 0 {
		var texts []string
		for _, text := range k.either[0] {
			texts = append(texts, cmp.Or(strings.TrimSpace(text), text))
		}
		return texts
	}
	if needle == "" {
		return nil
	}
	return []string{cmp.Or(strings.TrimSpace(needle), needle)}
}

// fewBytes is the length below which a needle is likely to be in many rows.
const fewBytes = 4

func longest(texts []string) string {
	var best string
	for _, text := range texts {
		if len(text) > len(best) {
			best = text
		}
	}
	return best
}

// pruned reports whether the token filter has left so little, or there is so little, that it is better read directly, or whether it has to be.
func (s *Scan) pruned(k *cut) bool {
	most, rows := s.scanner.options.DirectRows, k.rows()
	if k.chosen {
		return true
	}
	if most > 0 && rows <= min(most, tinyRows) {
		return true
	}
	return most > 0 && (len(k.searched()) > 0 || k.trace != nil) && rows <= max(most, k.contents.Rows/4)
}

// byDirect reports whether a cut is read without DuckDB: unless regular expressions have to look at many lines, at which it is better.
func (s *Scan) byDirect(k *cut) bool {
	if s.scanner.options.DirectRows <= 0 {
		return k.chosen
	}
	return !k.filtered || len(k.searched()) > 0 || s.pruned(k)
}

// tinyRows cost the pipeline less than a statement costs DuckDB, whatever is asked of them.
const tinyRows = 1000

// tally counts the rows of a cut by stream and bucket.
func (d *direct) tally(ctx context.Context, g *grid, count func(stream int, bucket, rows int64) error) error {
	var counts []int64
	return d.groups(ctx, func(group int) error {
		times, err := d.column(group, "time")
		if err != nil {
			return err
		}
		streams, err := d.column(group, "stream")
		if err != nil {
			return err
		}
		of := d.cut.contents.RowGroups[group]
		first := (max(of.First, g.lo+1) - g.lo - 1) / g.width
		n := (min(of.Last, g.hi())-g.lo-1)/g.width - first + 1
		if n <= 0 {
			return nil
		}
		counts = slices.Grow(counts[:0], int(n)*len(d.wanted))[:int(n)*len(d.wanted)]
		clear(counts)
		var bucket, from, to int64 // which bucket times after from and up to to are in
		for _, i := range d.rows {
			if time := times.Number(int(i)); time <= from || time > to {
				found, ok := g.bucket(time)
				if !ok {
					continue
				}
				bucket, from = found, g.lo+found*g.width
				to = from + g.covered
			}
			at := streams.Number(int(i))*n + bucket - first
			if at < 0 || at >= int64(len(counts)) {
				return fault.New(fault.Internal, "segment %s has a row that its catalogue does not know", d.cut.segment.File.Key)
			}
			counts[at]++
		}
		for i, rows := range counts {
			if rows == 0 {
				continue
			}
			if err := count(i/int(n), first+int64(i)%n, rows); err != nil {
				return err
			}
		}
		return nil
	})
}
