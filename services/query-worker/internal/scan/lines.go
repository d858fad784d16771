// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// line is a line of an answer.
type line struct {
	position
	hash             uint64
	labels, text     string
	metadata, parsed []columns.Label
}

// position is where a line stands in the order of lines.
type position struct {
	time    int64
	ordinal int
	row     int64
}

func (a position) compare(b position) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.row, b.row))
}

// size is what a line holds of memory, about.
func (l *line) size() int {
	const fixed, pair = 160, 32
	size := fixed + len(l.labels) + len(l.text)
	for _, pairs := range [][]columns.Label{l.metadata, l.parsed} {
		for _, p := range pairs {
			size += pair + len(p.Name) + len(p.Value)
		}
	}
	return size
}

// lineQuery is a log selector, planned.
type lineQuery struct {
	expr      syntax.LogSelectorExpr
	selection plan.Selection
}

func newLineQuery(text string) (*lineQuery, error) {
	expr, err := plan.ParseSelector(text)
	if err != nil {
		return nil, err
	}
	return &lineQuery{expr: expr, selection: plan.Select(expr)}, nil
}

// lineScan is a fragment that asks for lines.
type lineScan struct {
	*Scan
	*lineQuery
	query Lines
}

// Lines evaluates a log selector and gives its lines, in order, to emit.
func (s *Scan) Lines(ctx context.Context, q Lines, emit func(arrow.RecordBatch) error) error {
	known, err := s.scanner.lines.get(q.Selector, newLineQuery)
	if err != nil {
		return err
	}
	l := &lineScan{Scan: s, lineQuery: known, query: q}
	cuts, err := s.cuts(ctx, &l.selection, q.Start, q.End)
	if err != nil {
		return err
	}
	l.order(cuts)
	w := newLineWriter(emit)
	defer w.release()
	if q.Limit > 0 {
		return l.limited(ctx, cuts, w)
	}
	return l.all(ctx, cuts, w)
}

// first and last bound the times of a cut's rows.
func (k *cut) first() int64 { return max(k.segment.First, k.start) }
func (k *cut) last() int64  { return min(k.segment.Last, k.end-1) }

// order puts the cuts that can hold the first lines of the answer first.
func (l *lineScan) order(cuts []*cut) {
	slices.SortStableFunc(cuts, func(a, b *cut) int {
		if l.query.Forward {
			return cmp.Compare(a.first(), b.first())
		}
		return cmp.Compare(b.last(), a.last())
	})
}

// limited answers with the first lines in the direction. It ends when no cut can hold one that is before those found.
func (l *lineScan) limited(ctx context.Context, cuts []*cut, w *lineWriter) error {
	found := &best{limit: l.query.Limit, forward: l.query.Forward, memory: &l.memory}
	if err := l.searchAll(ctx, cuts, found); err != nil {
		return err
	}
	return w.write(found.sorted())
}

// all answers with every line. Cuts whose times overlap are held in memory together, and sorted.
func (l *lineScan) all(ctx context.Context, cuts []*cut, w *lineWriter) error {
	for len(cuts) > 0 {
		n := l.overlapping(cuts)
		found := &best{forward: l.query.Forward, memory: &l.memory}
		if err := l.searchAll(ctx, cuts[:n], found); err != nil {
			return err
		}
		lines := found.sorted()
		if err := w.write(lines); err != nil {
			return err
		}
		for _, line := range lines {
			l.memory.give(line.size())
		}
		cuts = cuts[n:]
	}
	return nil
}

// searchAll gives the lines of cuts to found, as long as it wants some.
func (l *lineScan) searchAll(ctx context.Context, cuts []*cut, found *best) error {
	return l.share(ctx, cuts, func(ctx context.Context, next func() *cut) (func() error, error) {
		for k := next(); k != nil; k = next() {
			if !found.wants(k) {
				l.Statistics.Pruned.Add(1)
				continue
			}
			if err := l.search(ctx, k, found); err != nil {
				return nil, err
			}
		}
		return func() error { return nil }, nil
	})
}

// overlapping is how many of the ordered cuts share times with the first one, or with one that does.
func (l *lineScan) overlapping(cuts []*cut) int {
	first, last := cuts[0].first(), cuts[0].last()
	for n, k := range cuts {
		if l.query.Forward && k.first() > last || !l.query.Forward && k.last() < first {
			return n
		}
		first, last = min(first, k.first()), max(last, k.last())
	}
	return len(cuts)
}

// search gives the lines of one cut to found. When DuckDB's rows are the pipeline's, the first ones in the direction are all it takes. Else a page of
// them may do, and if it does not the rest is read without an order, which costs DuckDB a sort of whole rows.
func (l *lineScan) search(ctx context.Context, k *cut, found *best) error {
	file, err := l.open(ctx, k)
	if err != nil {
		return err
	}
	defer file.Release()
	l.looked(k)
	p, err := l.newPages(k, file, found)
	if err != nil {
		return err
	}
	if l.byDirect(k) {
		return p.direct(ctx)
	}
	if l.query.Limit > 0 {
		size := l.query.Limit
		if !l.selection.Decided() {
			size = max(2*size, leastPage)
		}
		rows, err := p.first(ctx, size)
		if err != nil || rows < size || !found.wantsAt(p.at.time) {
			return err
		}
	}
	_, err = p.read(ctx, p.conditions(), "")
	return err
}

// direct gives rows to the pipeline without DuckDB.
func (p *pages) direct(ctx context.Context) error {
	d, err := p.scan.openDirect(p.cut, p.file)
	if err != nil {
		return err
	}
	defer d.close()
	p.hasten(d)
	if p.found.limit > 0 && len(p.cut.searched()) == 0 {
		return p.newest(ctx, d)
	}
	// The first in the direction first, so that the others are known not to be wanted.
	order := func(time *segfile.Vector, rows []int32) {
		slices.SortFunc(rows, func(a, b int32) int {
			c := cmp.Or(cmp.Compare(time.Number(int(a)), time.Number(int(b))), cmp.Compare(a, b))
			if p.scan.query.Forward {
				return c
			}
			return -c
		})
	}
	wants := func(time, number int64) bool { return p.found.wantsPosition(p.position(time, number)) }
	return d.each(ctx, &p.projection, order, wants, func(r *row) error { return p.row(r, p.position(r.Time, r.number)) })
}

// hasten puts the row groups that can hold the first lines first, and leaves out those that can hold none that is wanted any more.
func (p *pages) hasten(d *direct) {
	d.order = slices.Clone(d.order)
	slices.SortStableFunc(d.order, func(a, b int) int {
		if p.scan.query.Forward {
			return cmp.Compare(p.nearest(a), p.nearest(b))
		}
		return cmp.Compare(p.nearest(b), p.nearest(a))
	})
	d.skip = func(group int) bool { return !p.found.wantsAt(p.nearest(group)) }
}

// nearest is the first time in the direction that a row of a row group may have.
func (p *pages) nearest(group int) int64 {
	g := p.cut.contents.RowGroups[group]
	if p.scan.query.Forward {
		return max(g.First, p.cut.start)
	}
	return min(g.Last, p.cut.end-1)
}

// leastPage is the size of the page of rows in order that may hold all the lines that are wanted.
const leastPage = 512

// pages reads the rows of one cut in the direction, and runs the pipeline on them.
type pages struct {
	scan       *lineScan
	cut        *cut
	file       *cache.Pinned
	found      *best
	projection projection
	structured *structuredOf
	ordering   string
	pipeline   log.Pipeline
	streams    []log.StreamPipeline
	at         position // of the last row read
	begun      bool
}

func (l *lineScan) newPages(k *cut, file *cache.Pinned, found *best) (*pages, error) {
	own, err := syntax.Clone(l.expr) // making a pipeline changes the expression
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	p := &pages{scan: l, cut: k, file: file, found: found, ordering: "time DESC, row DESC"}
	if l.query.Forward {
		p.ordering = "time, row"
	}
	if p.pipeline, err = own.Pipeline(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	p.projection.time()
	p.projection.number()
	p.projection.stream()
	p.projection.body()
	p.projection.structured(k, plan.Names{All: true})
	p.structured = newStructuredOf(k, &p.projection)
	p.streams = make([]log.StreamPipeline, len(k.contents.streams))
	return p, nil
}

// first reads the first rows in the direction, and says how many there were. Where many rows are to be looked at it finds out first which these
// are: DuckDB sorts whole rows at fifty times the cost of their times.
func (p *pages) first(ctx context.Context, size int) (int, error) {
	ending := fmt.Sprintf(" ORDER BY %s LIMIT %d", p.ordering, size)
	if k := p.cut; k.rows() <= fewRows || k.spans != nil && k.rows()*4 <= k.contents.Rows {
		return p.read(ctx, p.conditions(), ending)
	}
	var keys projection
	keys.time()
	keys.number()
	var numbers []int64
	var last position
	err := p.scan.rows(ctx, p.statement(&keys, p.conditions(), ending), &keys, func(r *row) error {
		numbers = append(numbers, r.number)
		last = position{time: r.Time, ordinal: p.cut.ordinal, row: r.number}
		return nil
	})
	if err != nil || len(numbers) == 0 {
		return 0, err
	}
	slices.Sort(numbers)
	_, err = p.read(ctx, []string{"row IN (" + joinNumbers(numbers) + ")"}, "")
	p.at, p.begun = last, true
	return len(numbers), err
}

// fewRows are sorted whole.
const fewRows = 4096

func (p *pages) statement(columns *projection, where []string, ending string) string {
	return p.cut.from(p.file, columns.columns(), where) + ending
}

// read gives rows to the pipeline and says how many there were.
func (p *pages) read(ctx context.Context, where []string, ending string) (int, error) {
	rows, last := 0, p.at
	err := p.scan.rows(ctx, p.statement(&p.projection, where, ending), &p.projection, func(r *row) error {
		rows++
		last = position{time: r.Time, ordinal: p.cut.ordinal, row: r.number}
		return p.row(r, last)
	})
	p.at, p.begun = last, true
	return rows, err
}

// conditions continues behind the last row, and leaves out what comes too late to be wanted.
func (p *pages) conditions() []string {
	start, end := p.cut.start, p.cut.end
	worst, full := p.found.worst()
	switch {
	case full && p.scan.query.Forward:
		end = min(end, worst.time+1)
	case full:
		start = max(start, worst.time)
	}
	where := p.cut.conditions(p.cut.streams, start, end)
	if !p.begun {
		return where
	}
	beyond, strictly := "<=", "<"
	if p.scan.query.Forward {
		beyond, strictly = ">=", ">"
	}
	t := p.at.time
	return append(where, fmt.Sprintf("time %s %d", beyond, t), fmt.Sprintf("(time %s %d OR row %s %d)", strictly, t, strictly, p.at.row))
}

func (p *pages) row(r *row, at position) error {
	if p.streams[r.Stream] == nil {
		p.streams[r.Stream] = p.pipeline.ForStream(p.cut.contents.streams[r.Stream].labels)
	}
	if !p.found.wantsPosition(at) {
		return nil
	}
	text, result, ok := p.streams[r.Stream].ProcessString(r.Time, r.Body, p.structured.labels(r))
	if !ok {
		return nil
	}
	return p.found.add(&line{
		position: at,
		hash:     p.cut.contents.streams[r.Stream].hash,
		labels:   result.String(),
		text:     strings.Clone(text), // it may be the body, which is the batch's
		metadata: pairsOf(result.StructuredMetadata()),
		parsed:   pairsOf(result.Parsed()),
	})
}

func pairsOf(ls labels.Labels) []columns.Label {
	if ls.IsEmpty() {
		return nil
	}
	pairs := make([]columns.Label, 0, ls.Len())
	ls.Range(func(l labels.Label) { pairs = append(pairs, columns.Label{Name: l.Name, Value: l.Value}) })
	return pairs
}
