// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"fmt"
	"time"
)

// grid cuts time into buckets out of which every window of a range aggregation is made. Bucket b covers (lo+b*width, lo+(b+1)*width], open to the
// left as Loki's windows are; the window of step k covers buckets k*stride to k*stride+span-1.
type grid struct {
	lo     int64 // ns since 1970
	width  int64 // ns
	stride int64 // buckets a step
	span   int64 // buckets a window
	steps  int64
	// covered is how much of a bucket's beginning belongs to it: all of it, unless there are gaps between windows.
	covered int64
	// first is the first evaluation time without the offset; step and offset are the query's: all ns.
	first, step, offset int64
}

// maxBuckets bounds a grid; beyond it windows are Loki's engine's to evaluate.
const maxBuckets = 200_000

// gridOf returns the grid of a query. False when it would have too many buckets, or, where windows cannot slide, too many in all windows together.
func gridOf(q Samples, interval, offset time.Duration, slides bool) (grid, bool) {
	start, step := q.Start, int64(q.Step)
	if step == 0 {
		start = q.End
	}
	g := grid{first: start - int64(offset), step: step, offset: int64(offset), steps: 1}
	if step > 0 && q.End > start {
		g.steps = (q.End-start)/step + 1
	}
	span := int64(interval)
	switch {
	case g.steps == 1:
		g.width, g.stride, g.span = span, 1, 1
	case span < step:
		g.width, g.stride, g.span = step, 1, 1
	default:
		g.width = divisor(span, step)
		g.stride, g.span = step/g.width, span/g.width
	}
	g.covered = min(span, g.width)
	g.lo = g.first - span
	return g, g.buckets() <= maxBuckets && (slides || g.steps*g.span <= maxBuckets*10)
}

func divisor(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (g *grid) buckets() int64 { return (g.steps-1)*g.stride + g.span }

// hi is the last time, inclusive, that any window covers.
func (g *grid) hi() int64 { return g.first + (g.steps-1)*g.step }

// bucket returns a time's bucket; false when no window covers it.
func (g *grid) bucket(t int64) (int64, bool) {
	since := t - g.lo - 1
	if since < 0 || t > g.hi() || since%g.width >= g.covered {
		return 0, false
	}
	return since / g.width, true
}

// only returns the one bucket that all times from first to last are in; false when there is none.
func (g *grid) only(first, last int64) (int64, bool) {
	a, inA := g.bucket(first)
	b, inB := g.bucket(last)
	return a, inA && inB && a == b
}

// sql writes a time's bucket, and the condition that it has one beside lying between lo and hi.
func (g *grid) sql() (bucket string, where []string) {
	since := fmt.Sprintf("(time - %d)", g.lo+1)
	bucket = "0::BIGINT"
	if g.buckets() > 1 {
		bucket = fmt.Sprintf("%s // %d", since, g.width)
	}
	if g.covered < g.width {
		where = append(where, fmt.Sprintf("%s %% %d < %d", since, g.width, g.covered))
	}
	return bucket, where
}

// milliseconds is the evaluation time of a step, as Loki's engine rounds it.
func (g *grid) milliseconds(step int64) int64 {
	const ms = int64(time.Millisecond)
	return (g.first+step*g.step)/ms + g.offset/ms
}
