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
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// direct reads rows of a segment without DuckDB: a statement costs as much as many pages, and its rows are copied twice on their way to Go. It is for
// cuts of which the token filter left little, and for what Go has to look at row by row anyway. What it lets through is a superset, as with SQL: of the
// conditions on content it knows only the needles and the trace id, so the pipeline must be given all of the query's stages.
type direct struct {
	scan *Scan
	cut  *cut
	file *os.File
	// chunks are where the columns stand.
	chunks *segfile.Chunks
	*reader
	wanted []bool // by stream
}

// reader has the vectors of one goroutine, and what they hold of a row group.
type reader struct {
	vectors []*segfile.Vector
	loaded  map[string]*segfile.Vector
	rows    []int32
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
	d := &direct{scan: s, cut: k, file: file, chunks: chunks, wanted: make([]bool, len(k.contents.streams))}
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
func (r *reader) forget() { clear(r.loaded) }

// column reads a column of a row group, once.
func (d *direct) column(group int, name string) (*segfile.Vector, error) {
	if v := d.loaded[name]; v != nil {
		return v, nil
	}
	if len(d.loaded) == len(d.vectors) {
		v, err := segfile.NewVector()
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err)
		}
		d.vectors = append(d.vectors, v)
	}
	v := d.vectors[len(d.loaded)]
	if err := v.Read(d.file, d.chunks, group, name); err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	d.loaded[name] = v
	return v, nil
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

// each gives the rows that may matter, row group by row group, in the order that sort gives them, to a function, which must not keep their strings.
// It asks wants before it reads more of a row than it needs to choose it.
func (d *direct) each(ctx context.Context, p *projection, order func(time *segfile.Vector, rows []int32), wants func(time int64, number int64) bool, visit func(*row) error) error {
	var r row
	from := make([]values, len(p.fields))
	for _, group := range d.cut.groups {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		d.forget()
		rows, err := d.choose(group)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			continue
		}
		time, err := d.column(group, "time")
		if err != nil {
			return err
		}
		order(time, rows)
		first, read := d.cut.contents.RowGroups[group].FirstRow, false
		for _, i := range rows {
			r.Time, r.number = time.Number(int(i)), first+int64(i)
			if !wants(r.Time, r.number) {
				continue
			}
			if !read {
				if err := d.fields(group, p, from); err != nil {
					return err
				}
				read = true
			}
			if err := p.read(&r, from, int(i)); err != nil {
				return err
			}
			if err := visit(&r); err != nil {
				return err
			}
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
			into[i] = delayed{v, d.loaded["time"]}
		}
	}
	return nil
}

// choose returns the rows of a row group that have the streams, times, sources, the trace id and the needles that are asked for. They are the reader's.
func (d *direct) choose(group int) ([]int32, error) {
	k := d.cut
	low, high, known := d.chunks.Bounds(group, "stream")
	if known && !slices.ContainsFunc(k.streams, func(id uint32) bool { return int64(id) >= low && int64(id) <= high }) {
		return nil, nil
	}
	d.rows = d.rows[:0]
	if err := d.chooseContent(group); err != nil || len(d.rows) == 0 {
		return nil, err
	}
	if len(k.streams) < len(d.wanted) {
		if err := d.keep(group, "stream", func(v int64) bool { return v >= 0 && int(v) < len(d.wanted) && d.wanted[v] }); err != nil {
			return nil, err
		}
	}
	if g := k.contents.RowGroups[group]; g.First < k.start || g.Last >= k.end {
		if err := d.keep(group, "time", func(v int64) bool { return v >= k.start && v < k.end }); err != nil {
			return nil, err
		}
	}
	if len(k.segment.Masked) > 0 {
		if err := d.keep(group, "source", func(v int64) bool { return !slices.Contains(k.segment.Masked, v) }); err != nil {
			return nil, err
		}
	}
	return d.rows, nil
}

func (d *direct) keep(group int, column string, ok func(int64) bool) error {
	v, err := d.column(group, column)
	if err != nil {
		return err
	}
	kept := d.rows[:0]
	for _, i := range d.rows {
		if ok(v.Number(int(i))) {
			kept = append(kept, i)
		}
	}
	d.rows = kept
	return nil
}

// chooseContent sets the rows to those with the trace id and the needles.
func (d *direct) chooseContent(group int) error {
	k := d.cut
	if err := d.chooseText(group); err != nil {
		return err
	}
	if k.trace == nil || len(d.rows) == 0 {
		return nil
	}
	ids, err := d.column(group, "trace_id")
	if err != nil {
		return err
	}
	id := string(k.trace[:])
	d.rows = slices.DeleteFunc(d.rows, func(i int32) bool { return ids.Text(int(i)) != id })
	return nil
}

// chooseText sets the rows to those with the needles.
func (d *direct) chooseText(group int) error {
	texts := d.cut.searched()
	if len(texts) == 0 {
		for i := range d.chunks.Rows(group) {
			d.rows = append(d.rows, int32(i))
		}
		return nil
	}
	body, err := d.column(group, plan.Body)
	if err != nil {
		return err
	}
	for _, text := range texts {
		d.rows = body.Containing(text, d.rows)
	}
	if len(texts) > 1 {
		slices.Sort(d.rows)
		d.rows = slices.Compact(d.rows)
	}
	d.rows = slices.DeleteFunc(d.rows, func(i int32) bool {
		text := body.Text(int(i))
		return slices.ContainsFunc(d.cut.needles, func(n string) bool { return !strings.Contains(text, n) })
	})
	return nil
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

// pruned reports whether the token filter has left so little, or there is so little, that it is better read directly.
func (s *Scan) pruned(k *cut) bool {
	most, rows := s.scanner.options.DirectRows, k.rows()
	if most > 0 && rows <= min(most, tinyRows) {
		return true
	}
	return most > 0 && (len(k.searched()) > 0 || k.trace != nil) && rows <= max(most, k.contents.Rows/4)
}

// tinyRows cost the pipeline less than a statement costs DuckDB, whatever is asked of them.
const tinyRows = 1000

// tally counts the rows of a cut by stream and bucket.
func (d *direct) tally(ctx context.Context, g *grid, count func(stream int, bucket, rows int64) error) error {
	var counts []int64
	for _, group := range d.cut.groups {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Canceled, err)
		}
		d.forget()
		rows, err := d.choose(group)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			continue
		}
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
			continue
		}
		counts = slices.Grow(counts[:0], int(n)*len(d.wanted))[:int(n)*len(d.wanted)]
		clear(counts)
		for _, i := range rows {
			bucket, ok := g.bucket(times.Number(int(i)))
			if !ok {
				continue
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
	}
	return nil
}
