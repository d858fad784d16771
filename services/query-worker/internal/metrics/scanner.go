// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// Files has segments on local disk, and their catalogues parsed.
type Files interface {
	Parsed(o cache.Object) (*metricfile.Catalogue, bool)
	Sidecar(ctx context.Context, o cache.Object, u *cache.Usage) (*metricfile.Catalogue, error)
	Has(o cache.Object) bool
	File(ctx context.Context, o cache.Object, u *cache.Usage) (*cache.Pinned, error)
	Partial(ctx context.Context, o cache.Object, u *cache.Usage) (*cache.Partial, error)
}

// Options bound scans.
type Options struct {
	// Parallel is how many goroutines one scan works with.
	Parallel int
	// Memory is the most bytes of points that one scan holds.
	Memory int64
	// MaxSeries and MaxSamples are the most of one answer, or evaluation.
	MaxSeries  int
	MaxSamples int64
	// RangedFrom is the size of a file from which it is fetched as it is read, if less than a quarter of it is needed.
	RangedFrom int64
}

// Scanner answers fragments.
type Scanner struct {
	files   Files
	engine  *prom.Engine
	started *prom.Engine // that takes resets from start times
	options Options
}

// New returns a scanner.
func New(f Files, o Options) *Scanner {
	return &Scanner{files: f, engine: prom.New(prom.Options{}), started: prom.New(prom.Options{StartTimestamps: true}), options: o}
}

// Scan is one fragment on its way. It is for one goroutine.
type Scan struct {
	scanner    *Scanner
	life       context.Context //nolint:containedctx // until End
	end        context.CancelFunc
	segments   []Segment // by their first times
	deletes    []Delete
	Statistics *Statistics
	memory     allowance
	open       []openFile // by segment
	series     atomic.Int64
	maxSamples int64
	maxSeries  int64
	starts     bool // of all series, not of deltas alone
}

// Begin prepares a fragment over segments, without the points of deletes that were not applied to them. End ends it.
func (s *Scanner) Begin(ctx context.Context, segments []Segment, budget int64, deletes ...Delete) *Scan {
	segments = slices.Clone(segments)
	slices.SortFunc(segments, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.File.Key, b.File.Key), cmp.Compare(a.File.Bucket, b.File.Bucket))
	})
	statistics := &Statistics{Segments: int64(len(segments))}
	statistics.Cache.Budget = budget
	life, end := context.WithCancel(ctx)
	return &Scan{
		life: life, end: end, scanner: s, segments: segments, deletes: deletes, Statistics: statistics, memory: allowance{limit: s.options.Memory},
		open: make([]openFile, len(segments)), maxSamples: s.options.MaxSamples, maxSeries: int64(s.options.MaxSeries),
	}
}

// End lets the files go.
func (s *Scan) End() {
	s.end()
	for i := range s.open {
		for _, done := range s.open[i].close {
			done()
		}
	}
}

// limitSamples takes over the limit of a request, where it is the lower one.
func (s *Scan) limitSamples(most int64) {
	if most > 0 && (s.maxSamples == 0 || most < s.maxSamples) {
		s.maxSamples = most
	}
}

// fetchesAtOnce is how many sidecars of one scan are fetched at once: they are small, and far away.
const fetchesAtOnce = 16

// catalogues reads the sidecars of all segments that can matter; the others are nil.
func (s *Scan) catalogues(ctx context.Context, start, end int64, shard lake.Shard) ([]*metricfile.Catalogue, error) {
	all := make([]*metricfile.Catalogue, len(s.segments))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchesAtOnce)
	for i := range s.segments {
		segment := &s.segments[i]
		if segment.Last < start || segment.First > end || !segment.Shard.Meets(shard) {
			continue
		}
		if c, ok := s.scanner.files.Parsed(segment.Sidecar); ok {
			all[i] = c
			continue
		}
		g.Go(func() error {
			c, err := s.scanner.files.Sidecar(ctx, segment.Sidecar, &s.Statistics.Cache)
			all[i] = c
			return err
		})
	}
	return all, g.Wait()
}

// share has all processors work on parts of n pieces of work, each in rising order. What begin returns is called with each piece by one goroutine, then done.
func (s *Scan) share(ctx context.Context, n, block int, begin func() (work func(i int) error, done func() error)) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(max(1, s.scanner.options.Parallel), (n+block-1)/block) {
		g.Go(func() error {
			work, done := begin()
			for {
				from := int(next.Add(int64(block))) - block
				if from >= n {
					return done()
				}
				for i := from; i < min(from+block, n); i++ {
					if err := ctx.Err(); err != nil {
						return err
					}
					if err := work(i); err != nil {
						return err
					}
				}
			}
		})
	}
	return g.Wait()
}
