// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// Batches is the answer of one statement; package engine has them.
type Batches interface {
	Next() (arrow.RecordBatch, error)
	Close()
}

// Engine runs SQL over local files.
type Engine interface {
	Query(ctx context.Context, sql string) (Batches, error)
}

// Files has segments on local disk, and their sidecars parsed.
type Files interface {
	Parsed(o cache.Object) (*Contents, bool)
	Sidecar(ctx context.Context, o cache.Object, u *cache.Usage) (*Contents, error)
	Has(o cache.Object) bool
	File(ctx context.Context, o cache.Object, u *cache.Usage) (*cache.Pinned, error)
	Rows(ctx context.Context, o cache.Object, rows []cache.Rows, u *cache.Usage) (*cache.Pinned, error)
}

// Options bound scans.
type Options struct {
	// Parallel is how many segments of one scan are worked on at once.
	Parallel int
	// Memory is the most bytes of lines or samples that one scan holds.
	Memory int64
	// MaxSeries is the most series of one answer.
	MaxSeries int
	// RangedFrom is the size of a file from which parts of it are fetched, if less than a quarter of its rows is needed.
	RangedFrom int64
	// DirectRows is how many rows the token filter may leave of a segment for Go to read them, and then a quarter of a large segment; else DuckDB does.
	// Segments of a few rows are always read so. Zero: 131,072; less: always DuckDB.
	DirectRows int64
	// ColumnMemory is the most bytes of columns that are kept in memory between scans. Zero: none are.
	ColumnMemory int64
}

// Scanner answers fragments.
type Scanner struct {
	cache   Files
	engine  Engine
	options Options
	readers sync.Pool // of *reader
	kept    *kept
	windows texts[*windowed]
	lines   texts[*lineQuery]
	lost    texts[map[int]rowSet]
	deletes texts[*selector.Selector]
}

// maxDeletes is how many selectors of deletes are kept parsed.
const maxDeletes = 4096

// maxLost is for how many groups of segments it is remembered which rows are doubles of others: a bit for each of their rows.
const maxLost = 32

// New returns a scanner.
func New(c Files, e Engine, o Options) *Scanner {
	if o.DirectRows == 0 {
		o.DirectRows = 1 << 17
	}
	return &Scanner{cache: c, engine: e, options: o, kept: newKept(o.ColumnMemory), lost: texts[map[int]rowSet]{most: maxLost}, deletes: texts[*selector.Selector]{most: maxDeletes}}
}

// Selector parses the selector of a delete.
func (s *Scanner) Selector(text string) (*selector.Selector, error) {
	return s.deletes.get(text, selector.Parse)
}

// Scan is one fragment on its way. It is for one goroutine.
type Scan struct {
	scanner    *Scanner
	segments   []Segment // in the order of their keys
	deletes    []Delete
	Statistics *Statistics
	memory     allowance
}

// Begin prepares a fragment over segments, without the rows of deletes that were not applied to them.
func (s *Scanner) Begin(segments []Segment, budget int64, deletes ...Delete) *Scan {
	segments = slices.Clone(segments)
	slices.SortFunc(segments, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.File.Key, b.File.Key), cmp.Compare(a.File.Bucket, b.File.Bucket))
	})
	statistics := &Statistics{Segments: int64(len(segments))}
	statistics.Cache.Budget = budget
	return &Scan{scanner: s, segments: segments, deletes: deletes, Statistics: statistics, memory: allowance{limit: s.options.Memory}}
}

// group returns an error group for work on segments.
func (s *Scan) group(ctx context.Context) (*errgroup.Group, context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, s.scanner.options.Parallel))
	return g, ctx
}

// fetchesAtOnce is how many sidecars of one scan are fetched at once: they are small, and far away.
const fetchesAtOnce = 16

// contents reads the sidecars of all segments that can matter by time; the others are nil.
func (s *Scan) contents(ctx context.Context, start, end int64) ([]*Contents, error) {
	all := make([]*Contents, len(s.segments))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchesAtOnce)
	for i := range s.segments {
		segment := &s.segments[i]
		if segment.Last < start || segment.First >= end {
			continue
		}
		if c, ok := s.scanner.cache.Parsed(segment.Sidecar); ok {
			all[i] = c
			continue
		}
		g.Go(func() error {
			c, err := s.scanner.cache.Sidecar(ctx, segment.Sidecar, &s.Statistics.Cache)
			all[i] = c
			return err
		})
	}
	return all, g.Wait()
}

// cuts plans all segments for a selection.
func (s *Scan) cuts(ctx context.Context, sel *plan.Selection, start, end int64) ([]*cut, error) {
	contents, err := s.contents(ctx, start, end)
	if err != nil {
		return nil, err
	}
	var cuts []*cut
	for i, c := range contents {
		var k *cut
		if c != nil {
			k = cutOf(&s.segments[i], c, sel, s.deletes, start, end)
		}
		if k == nil {
			s.Statistics.Pruned.Add(1)
			continue
		}
		k.ordinal = i
		cuts = append(cuts, k)
	}
	if !slices.ContainsFunc(cuts, func(k *cut) bool { return k.segment.Identified }) {
		return cuts, nil
	}
	lost, err := s.lost(ctx, start, end)
	if err != nil {
		return nil, err
	}
	for _, k := range cuts {
		if rows := lost[k.ordinal]; rows != nil {
			k.lost, k.chosen = rows, true
		}
	}
	return cuts, nil
}

// open makes the rows of a cut readable.
func (s *Scan) open(ctx context.Context, k *cut) (*cache.Pinned, error) {
	file, usage := k.segment.File, &s.Statistics.Cache
	s.Statistics.Read.Add(1)
	s.Statistics.Rows.Add(k.rows())
	if k.spans != nil && file.Bytes >= s.scanner.options.RangedFrom && k.rows()*4 <= k.contents.Rows && !s.scanner.cache.Has(file) {
		s.Statistics.BytesRead.Add(file.Bytes * k.rows() / max(1, k.contents.Rows))
		return s.scanner.cache.Rows(ctx, file, k.spans, usage)
	}
	s.Statistics.BytesRead.Add(file.Bytes)
	return s.scanner.cache.File(ctx, file, usage)
}

// looked counts bodies that were looked at.
func (s *Scan) looked(k *cut) {
	s.Statistics.LineBytes.Add(k.contents.BodyBytes * k.rows() / max(1, k.contents.Rows))
}

// query runs a statement and gives its batches to a function, which must not keep them.
func (s *Scan) query(ctx context.Context, sql string, each func(arrow.RecordBatch) error) error {
	batches, err := s.scanner.engine.Query(ctx, sql)
	if err != nil {
		return statementFault(err)
	}
	defer batches.Close()
	for {
		batch, err := batches.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return statementFault(err)
		}
		err = each(batch)
		batch.Release()
		if err != nil {
			return err
		}
	}
}

// statementFault is an error of a statement that this package wrote: that DuckDB finds it wrong is nobody's fault but ours.
func statementFault(err error) error {
	if fault.KindOf(err) == fault.Invalid {
		return fault.Wrap(fault.Internal, err)
	}
	return err
}

// rows runs a statement and gives its rows to a function, which must not keep their strings.
func (s *Scan) rows(ctx context.Context, sql string, p *projection, each func(*row) error) error {
	var r row
	return s.query(ctx, sql, func(batch arrow.RecordBatch) error {
		from := valuesOf(batch)
		for i := range int(batch.NumRows()) {
			if err := p.read(&r, from, i); err != nil {
				return err
			}
			if err := each(&r); err != nil {
				return err
			}
		}
		return nil
	})
}
