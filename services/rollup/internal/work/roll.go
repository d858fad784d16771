// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// unusable are the finer tiers that lack sketches which a tier has.
func unusable(tiers []config.RollupPolicy, of *config.RollupPolicy) []time.Duration {
	if of == nil || len(of.Sketches) == 0 {
		return nil
	}
	var out []time.Duration
	for _, finer := range config.Tiers() {
		has := slices.IndexFunc(tiers, func(p config.RollupPolicy) bool { return p.Resolution == finer })
		lacks := func(pattern string) bool { return has < 0 || !slices.Contains(tiers[has].Sketches, pattern) }
		if slices.ContainsFunc(of.Sketches, lacks) {
			out = append(out, finer)
		}
	}
	return out
}

// roll makes a rollup.
func (r *run) roll(ctx context.Context) error {
	r.sources = slices.Clone(r.made.Sources)
	all := r.locals(r.made.Sources)
	if r.made.MaySkip {
		needless, err := r.needless(ctx, all)
		if err != nil {
			return err
		}
		if needless {
			r.rolled(true)
			return nil
		}
	}
	inputs := all
	if r.task.Signal == lake.SignalLogs {
		counted, err := r.countLines(ctx, all)
		if err != nil {
			return err
		}
		inputs = counted
	}
	if err := r.shards(ctx, inputs); err != nil {
		return err
	}
	if err := r.check(all); err != nil {
		return err
	}
	r.rolled(false)
	return nil
}

// shards makes the rollup shard by shard.
func (r *run) shards(ctx context.Context, all []*local) error {
	count := plan.Shards(r.made.Sources, r.estimate(), r.config.Target)
	for i := range count { // before anything is uploaded
		if err := r.fits(meeting(all, lake.Shard{Index: i, Count: count})); err != nil {
			return err
		}
	}
	for i := range count {
		if err := r.shard(ctx, lake.Shard{Index: i, Count: count}, all); err != nil {
			return err
		}
	}
	return nil
}

// check compares what was read with what the index says, and what was written with what was read.
func (r *run) check(all []*local) error {
	var read int64
	for _, l := range all {
		read += l.segment.Bytes + l.segment.SidecarBytes
		if l.rows != l.segment.Rows {
			return r.damaged(l.segment.Key, fmt.Errorf("%d rows were read, the index says %d", l.rows, l.segment.Rows))
		}
	}
	if err := r.account.balanced(); err != nil {
		return r.damaged("", err)
	}
	r.edit.Cost.BytesRead += read
	r.deps.Counters.made(r.task, &r.account, read, r.edit.Add)
	return nil
}

// locals are the segments of sources, each once.
func (r *run) locals(sources []plan.Source) []*local {
	var all []*local
	seen := map[lake.SegmentID]bool{}
	for _, source := range sources {
		for _, s := range source.Segments {
			if !seen[s.ID] {
				seen[s.ID] = true
				all = append(all, &local{segment: s})
			}
		}
	}
	return all
}

// estimate is about how many bytes the rollup will have: of rows, as many as they have, since each bucket has several values; of a finer rollup, fewer.
func (r *run) estimate() int64 {
	var bytes int64
	seen := map[lake.SegmentID]bool{}
	for _, source := range r.made.Sources {
		part := 1.0
		if source.Resolution > 0 {
			part = float64(source.Resolution) / float64(resolutionOf(r.task))
		}
		for _, s := range source.Segments {
			if !seen[s.ID] {
				bytes += int64(part * float64(s.Bytes))
			}
			seen[s.ID] = true
		}
	}
	return bytes
}

// tooFine is how many points a bucket must have at least, on the average, for a rollup to be made: with fewer, the points are no finer than the buckets.
const tooFine = 1.1

// needless reports whether the points are no finer than the buckets would be. It reads catalogues one by one.
func (r *run) needless(ctx context.Context, all []*local) (bool, error) {
	type extent struct{ points, first, last int64 }
	series := map[uint64]extent{}
	for _, l := range all {
		if err := r.fetch(ctx, []*local{l}, false); err != nil {
			return false, err
		}
		catalogue, err := metricfile.ReadCatalogue(l.sidecar)
		if err != nil {
			return false, r.damaged(l.segment.Key, err)
		}
		for i := range catalogue.Len() {
			entry := catalogue.Entry(i)
			e, known := series[entry.Hash]
			if !known {
				e.first, e.last = entry.First, entry.Last
			}
			series[entry.Hash] = extent{e.points + entry.Rows, min(e.first, entry.First), max(e.last, entry.Last)}
		}
		r.release(l)
	}
	var points, buckets int64
	for _, e := range series {
		points += e.points
		buckets += min(e.points, (e.last-e.first)/int64(resolutionOf(r.task))+1)
	}
	return points > 0 && float64(points) < tooFine*float64(buckets), nil
}

// shard makes one shard of the rollup.
func (r *run) shard(ctx context.Context, shard lake.Shard, all []*local) error {
	here := meeting(all, shard)
	if len(here) == 0 {
		return nil
	}
	if err := r.fetch(ctx, here, true); err != nil {
		return err
	}
	r.deps.Checkpoint("rollup-fetched")
	out, err := r.create(shard, here)
	if err != nil {
		return err
	}
	m, err := r.merging(shard, here)
	if err != nil {
		return err
	}
	if err := m.run(ctx, func(s *metricfile.Series, made *metricfile.Rollup) error { return r.append(out, s, made) }); err != nil {
		return err
	}
	for _, l := range here {
		later := func(i uint32) bool { return l.segment.Shard.Meets(lake.Shard{Index: i, Count: shard.Count}) }
		if !slices.ContainsFunc(after(shard), later) {
			r.release(l)
		}
	}
	return r.finish(ctx, out)
}

// meeting are the segments that may have series of a shard.
func meeting(all []*local, shard lake.Shard) []*local {
	var here []*local
	for _, l := range all {
		if l.segment.Shard.Meets(shard) {
			here = append(here, l)
		}
	}
	return here
}

// after are the shards that follow.
func after(shard lake.Shard) []uint32 {
	var out []uint32
	for i := shard.Index + 1; i < shard.Count; i++ {
		out = append(out, i)
	}
	return out
}
