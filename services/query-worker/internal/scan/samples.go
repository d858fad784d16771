// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"context"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/grafana/loki/v3/pkg/logql/log"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// windowed is a windowed expression, planned.
type windowed struct {
	plan.Windowed
	// expression says how rows fare that DuckDB lets through.
	expression syntax.SampleExpr
	// whole is the expression with all of its filters.
	whole     syntax.SampleExpr
	selection plan.Selection
	names     plan.Names
	grid      grid
	// grouped is whether rows with equal labels fare equally and can be counted by DuckDB.
	grouped bool
	// readsLines is whether the expression looks at lines.
	readsLines bool
	// fields, if there are any, are all of the line that a count depends on.
	fields plan.Fields
}

// Samples evaluates a sample expression and gives its series, in any order, to emit.
func (s *Scan) Samples(ctx context.Context, q Samples, emit func(arrow.RecordBatch) error) error {
	w, ok, err := s.scanner.planWindowed(q)
	if err != nil {
		return err
	}
	var answer []series
	if ok {
		answer, err = s.windowed(ctx, w)
	} else {
		answer, err = s.evaluate(ctx, q)
	}
	if err != nil {
		return err
	}
	return emitSeries(answer, emit)
}

// planWindowed plans a query; false when its expression is no windowed one.
func (s *Scanner) planWindowed(q Samples) (*windowed, bool, error) {
	known, err := s.windows.get(q.Expression, newWindowed)
	if err != nil || known == nil {
		return nil, false, err
	}
	w := *known
	var ok bool
	w.grid, ok = gridOf(q, w.Range.Left.Interval, w.Range.Left.Offset, !w.Values)
	return &w, ok, nil
}

// newWindowed plans an expression but for its times; nil when it is no windowed one.
func newWindowed(text string) (*windowed, error) {
	expression, err := plan.ParseSample(text)
	if err != nil {
		return nil, err
	}
	window, ok := plan.Window(expression)
	if !ok {
		return nil, nil
	}
	w := &windowed{Windowed: window, expression: expression, whole: expression, readsLines: true}
	w.names = plan.NamesOf(window.Range, window.Grouping)
	if w.Summed && w.names.Errors {
		return nil, nil // the sum has more to do than the extractor did
	}
	w.selection = plan.Select(window.Range.Left.Left)
	if len(w.selection.Lines.Where) == 0 && w.selection.Lines.Exact && !w.Values && !w.Bytes {
		w.fields, _ = plan.FieldsOf(w.selection.Rest)
	}
	if !w.selection.Lines.Exact || !plan.LineFree(w.selection.Rest) {
		return w, nil
	}
	// What DuckDB lets through, the line filters let through.
	w.readsLines, w.grouped = w.Bytes, !w.names.All && !w.Values
	w.expression, err = plan.WithoutLines(expression, w.selection.Rest)
	return w, err
}

// extractor makes an extractor. Making one changes the expression, and its extractors are for one goroutine.
func extractor(expression syntax.SampleExpr) (log.SampleExtractor, error) {
	own, err := syntax.Clone(expression)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	extractors, err := own.Extractors()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if len(extractors) != 1 {
		return nil, fault.New(fault.Internal, "%s has %d extractors", expression, len(extractors))
	}
	return extractors[0], nil
}

func (s *Scan) windowed(ctx context.Context, w *windowed) ([]series, error) {
	cuts, err := s.cuts(ctx, &w.selection, w.grid.lo+1, w.grid.hi()+1)
	if err != nil {
		return nil, err
	}
	all := newTotals(&w.grid, &w.Windowed, &s.memory, s.scanner.options.MaxSeries)
	cuts, err = s.countByCatalogue(w, cuts, all)
	if err != nil {
		return nil, err
	}
	err = s.share(ctx, cuts, func(ctx context.Context, next func() *cut) (func() error, error) {
		own := newTotals(&w.grid, &w.Windowed, &s.memory, s.scanner.options.MaxSeries)
		c, err := newCounter(s, w, own)
		if err != nil {
			return nil, err
		}
		for k := next(); k != nil; k = next() {
			if err := c.cut(ctx, k); err != nil {
				return nil, err
			}
		}
		if err := c.alike.finish(); err != nil {
			return nil, err
		}
		return func() error { return all.merge(own) }, nil
	})
	if err != nil {
		return nil, err
	}
	return all.answer(w.Seconds)
}

// share has several goroutines work on cuts. What each returns is done at the end, one after the other.
func (s *Scan) share(ctx context.Context, cuts []*cut, work func(ctx context.Context, next func() *cut) (func() error, error)) error {
	g, ctx := s.group(ctx)
	var mu sync.Mutex
	next := func() *cut {
		mu.Lock()
		defer mu.Unlock()
		if len(cuts) == 0 {
			return nil
		}
		k := cuts[0]
		cuts = cuts[1:]
		return k
	}
	var finish []func() error
	for range min(max(1, s.scanner.options.Parallel), len(cuts)) {
		g.Go(func() error {
			done, err := work(ctx, next)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			finish = append(finish, done)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, f := range finish {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// countByCatalogue counts the streams that lie wholly in one bucket and of which nothing but their labels matters, and takes them off the cuts.
func (s *Scan) countByCatalogue(w *windowed, cuts []*cut, into *totals) ([]*cut, error) {
	if !w.grouped || len(w.selection.Lines.Where) > 0 {
		return cuts, nil
	}
	c, err := newCounter(s, w, into)
	if err != nil {
		return nil, err
	}
	var rest []*cut
	for _, k := range cuts {
		var p projection
		p.structured(k, w.names)
		if p.metadata || !k.whole() {
			rest = append(rest, k)
			continue
		}
		if err := c.streams(k); err != nil {
			return nil, err
		}
		if len(k.streams) > 0 {
			rest = append(rest, k)
		}
	}
	return rest, nil
}

// streams counts what the catalogue can say, and keeps the rest in the cut.
func (c *counter) streams(k *cut) error {
	var uncounted []uint32
	for _, id := range k.streams {
		stream := &k.contents.streams[id]
		bucket, ok := c.w.grid.only(stream.First, stream.Last)
		if !ok {
			uncounted = append(uncounted, id)
			continue
		}
		value := stream.Rows
		if c.w.Bytes {
			value = stream.Bytes
		}
		if err := c.put(stream, bucket, total{rows: stream.Rows, value: float64(value)}); err != nil {
			return err
		}
	}
	k.streams = uncounted
	return nil
}

// count adds rows that have the same labels.
func (w *windowed) count(e log.SampleExtractor, stream, metadata labels.Labels, bucket, rows, bytes int64, into *totals) error {
	samples, ok := e.ForStream(stream).ProcessString(0, "", metadata)
	if !ok {
		return nil
	}
	value := rows
	if w.Bytes {
		value = bytes
	}
	for _, sample := range samples {
		to, err := into.series(sample.Labels)
		if err != nil {
			return err
		}
		if err := into.put(to, bucket, total{rows: rows, value: float64(value)}); err != nil {
			return err
		}
	}
	return nil
}

// counter counts the rows of cuts. It is for one goroutine.
type counter struct {
	scan    *Scan
	w       *windowed
	into    *totals
	extract log.SampleExtractor
	// whole is that of the expression with all of its filters.
	whole log.SampleExtractor
	// byStream are the series of rows of which only the stream matters, by its text.
	byStream map[string][]*totalSeries
	// last are the series that the last line went to.
	last []*totalSeries
	// alike counts lines of which few fields matter.
	alike *alike
}

func newCounter(s *Scan, w *windowed, into *totals) (*counter, error) {
	extract, err := extractor(w.expression)
	if err != nil {
		return nil, err
	}
	whole, err := extractor(w.whole)
	c := &counter{scan: s, w: w, into: into, extract: extract, whole: whole, byStream: map[string][]*totalSeries{}}
	c.alike = &alike{counter: c, classes: map[string]map[string]*variety{}}
	return c, err
}

func (c *counter) cut(ctx context.Context, k *cut) error {
	file, err := c.scan.open(ctx, k)
	if err != nil {
		return err
	}
	defer file.Release()
	if k.lines || c.w.readsLines {
		c.scan.looked(k)
	}
	var p projection
	p.stream()
	p.structured(k, c.w.names)
	switch direct := c.scan.byDirect(k); {
	case direct && c.w.grouped && !p.metadata && !c.w.Bytes && len(c.w.selection.Lines.Where) == 0:
		return c.tally(ctx, k, file)
	case direct && (k.chosen || !c.w.grouped || c.scan.pruned(k)):
		return c.direct(ctx, k, &p, file)
	case c.w.grouped && !p.sparse:
		return c.groups(ctx, k, &p, file)
	}
	return c.rows(ctx, k, &p, file)
}

// groups has DuckDB count.
func (c *counter) groups(ctx context.Context, k *cut, p *projection, file *cache.Pinned) error {
	bucket, covered := c.w.grid.sql()
	p.add(bucket, func(r *row, v values, i int) { r.bucket = v.Number(i) })
	inner, by := p.aliased()
	outer := append(slices.Clone(by), "count(*)")
	p.add("count(*)", func(r *row, v values, i int) { r.count = v.Number(i) })
	if c.w.Bytes {
		inner, outer = append(inner, "strlen(body) AS length"), append(outer, "sum(length)::BIGINT")
		p.add("length", func(r *row, v values, i int) { r.bytes = v.Number(i) })
	}
	where := append(k.conditions(k.streams, k.start, k.end), covered...)
	sql := "SELECT " + join(outer) + " FROM (" + k.from(file, inner, where) + ") GROUP BY " + join(by)
	if !p.metadata {
		return c.streamGroups(ctx, k, p, sql)
	}
	structured := newStructuredOf(k, p)
	return c.scan.rows(ctx, sql, p, func(r *row) error {
		stream := k.contents.streams[r.Stream].labels
		return c.w.count(c.extract, stream, structured.labels(r), r.bucket, r.count, r.bytes, c.into)
	})
}

// streamGroups is for rows of which only the stream matters: what is to be done for one is to be done for all of the stream.
func (c *counter) streamGroups(ctx context.Context, k *cut, p *projection, sql string) error {
	return c.scan.rows(ctx, sql, p, func(r *row) error {
		value := r.count
		if c.w.Bytes {
			value = r.bytes
		}
		return c.put(&k.contents.streams[r.Stream], r.bucket, total{rows: r.count, value: float64(value)})
	})
}

// tally counts rows of which only stream and time matter.
func (c *counter) tally(ctx context.Context, k *cut, file *cache.Pinned) error {
	d, err := c.scan.openDirect(k, file)
	if err != nil {
		return err
	}
	defer d.close()
	return d.tally(ctx, &c.w.grid, func(stream int, bucket, rows int64) error {
		return c.put(&k.contents.streams[stream], bucket, total{rows: rows, value: float64(rows)})
	})
}

// put adds a total to the series of a stream's rows.
func (c *counter) put(of *stream, bucket int64, t total) error {
	series, known := c.byStream[of.text]
	if !known {
		samples, _ := c.extract.ForStream(of.labels).ProcessString(0, "", labels.EmptyLabels())
		for _, sample := range samples {
			s, err := c.into.series(sample.Labels)
			if err != nil {
				return err
			}
			series = append(series, s)
		}
		c.byStream[of.text] = series
	}
	for _, s := range series {
		if err := c.into.put(s, bucket, t); err != nil {
			return err
		}
	}
	return nil
}

// rows has Loki's extractor look at every row that DuckDB lets through.
func (c *counter) rows(ctx context.Context, k *cut, p *projection, file *cache.Pinned) error {
	p.time()
	if c.w.readsLines {
		p.body()
	}
	sql := k.from(file, p.columns(), k.conditions(k.streams, k.start, k.end))
	return c.scan.rows(ctx, sql, p, c.each(k, p, c.extract))
}

// direct has Loki's extractor look at every row, with all of the expression's filters.
func (c *counter) direct(ctx context.Context, k *cut, p *projection, file *cache.Pinned) error {
	d, err := c.scan.openDirect(k, file)
	if err != nil {
		return err
	}
	defer d.close()
	p.time()
	p.body()
	visit := c.each(k, p, c.whole)
	if len(c.w.fields) > 0 && !p.metadata {
		visit = c.alike.visitor(k, visit)
	}
	wants := func(time, _ int64) bool { _, ok := c.w.grid.bucket(time); return ok }
	return d.each(ctx, p, unordered, wants, visit)
}

func (c *counter) each(k *cut, p *projection, extract log.SampleExtractor) func(*row) error {
	structured := newStructuredOf(k, p)
	extractors := make([]log.StreamSampleExtractor, len(k.contents.streams))
	return func(r *row) error {
		bucket, ok := c.w.grid.bucket(r.Time)
		if !ok {
			return nil
		}
		c.last = c.last[:0]
		if extractors[r.Stream] == nil {
			extractors[r.Stream] = extract.ForStream(k.contents.streams[r.Stream].labels)
		}
		samples, ok := extractors[r.Stream].ProcessString(r.Time, r.Body, structured.labels(r))
		if !ok {
			return nil
		}
		return c.samples(samples, bucket)
	}
}

func (c *counter) samples(samples []log.ExtractedSample, bucket int64) error {
	for _, sample := range samples {
		to, err := c.into.series(sample.Labels)
		if err != nil {
			return err
		}
		c.last = append(c.last, to)
		if err := c.into.put(to, bucket, total{rows: 1, value: sample.Value}); err != nil {
			return err
		}
	}
	return nil
}
