// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// chooser says which series of a rollup a delete of data reaches.
type chooser struct {
	chooses func(*metricfile.Series) bool
	// unsure says that the delete looks at what is not in the rollup: it may have chosen some of what any series counts.
	unsure bool
}

// chooserOf reads the selector of a delete. Counts of lines know the service alone of what a stream's labels say.
func chooserOf(d lake.Delete) (chooser, error) {
	if d.Signal == lake.SignalMetrics {
		parsed, err := selector.ParseSeries(d.Selector)
		if err != nil {
			return chooser{}, err
		}
		return chooser{chooses: parsed.Matches}, nil
	}
	parsed, err := selector.Parse(d.Selector)
	if err != nil {
		return chooser{}, err
	}
	if !parsed.Decides(rollup.ServiceLabel) {
		return chooser{chooses: func(*metricfile.Series) bool { return false }, unsure: true}, nil
	}
	return chooser{chooses: func(s *metricfile.Series) bool {
		return parsed.Stream([]columns.Label{{Name: rollup.ServiceLabel, Value: s.Labels.Get(rollup.ServiceLabel)}})
	}}, nil
}

// spared marks the rollup that there is, instead of making it anew, where it lacks nothing but deletes and these choose none of its series. Of lines whose rows are
// gone, what a delete looked at is gone as well: their counts stay.
func (r *run) spared(ctx context.Context) (bool, error) {
	if !r.made.Held {
		return false, nil
	}
	var marks []lake.Mark
	for _, s := range r.made.Remove {
		reached, err := r.reached(ctx, s)
		if err != nil || reached {
			return false, err
		}
		marks = append(marks, lake.Mark{Segment: s.ID, AppliedDelete: r.state.Latest})
	}
	r.edit.Marks = marks
	r.made = plan.Plan{Action: plan.None, Reason: "deletes have nothing to change in it"}
	return true, nil
}

// reached reports whether deletes may have chosen something in a segment of the rollup. It reads the catalogue alone.
func (r *run) reached(ctx context.Context, s lake.Segment) (bool, error) {
	l := &local{segment: s}
	if err := r.fetch(ctx, []*local{l}, false); err != nil {
		return false, err
	}
	r.edit.Cost.BytesRead += s.SidecarBytes
	catalogue, err := metricfile.ReadCatalogue(l.sidecar)
	if err != nil {
		return false, r.damaged(s.Key, err)
	}
	deletes, err := r.deletions(&s)
	if err != nil {
		return false, err
	}
	for _, d := range deletes {
		if d.unsure && r.made.Action != plan.Erase {
			return true, nil
		}
		for i := range catalogue.Len() {
			if d.chooses(catalogue.Series(i)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// erase makes the rollup of itself without what deletes chose: whole buckets, with those at the edges of a delete that have other points as well.
func (r *run) erase(ctx context.Context) error {
	var all []*local
	for _, s := range r.made.Remove {
		l := &local{segment: s}
		if err := r.eraseFrom(ctx, l); err != nil {
			return err
		}
		all = append(all, l)
	}
	if err := r.check(all); err != nil {
		return err
	}
	r.rolled(false)
	return nil
}

func (r *run) eraseFrom(ctx context.Context, l *local) error {
	defer r.release(l)
	if err := r.fetch(ctx, []*local{l}, true); err != nil {
		return err
	}
	r.deps.Checkpoint("rollup-fetched")
	c, err := r.cursor(lake.Shard{}, l)
	if err != nil {
		return r.damaged(l.segment.Key, err)
	}
	out, err := r.create(l.segment.Shard, []*local{l})
	if err != nil {
		return err
	}
	for ; c.next(); c.ordinals = c.ordinals[1:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.reader.Rollup(c.ordinals[0], &c.buckets); err != nil {
			return r.damaged(l.segment.Key, fmt.Errorf("read %s: %w", c.series.Labels, err))
		}
		l.rows += int64(c.buckets.Len())
		kept := c.kept(resolutionOf(r.task).Milliseconds())
		in, counted := counted(&c.buckets), counted(kept)
		r.account.In += in
		r.account.Counted += counted
		r.account.Deleted += in - counted
		if err := r.append(out, c.series, kept); err != nil {
			return err
		}
	}
	return r.finish(ctx, out)
}

// kept are the buckets of a row that deletes do not reach.
func (c *cursor) kept(width int64) *metricfile.Rollup {
	c.hide()
	if len(c.hiding) == 0 {
		return &c.buckets
	}
	kept := &metricfile.Rollup{Tracks: make([]metricfile.Track, len(c.buckets.Tracks))}
	for i := range c.buckets.Ends {
		if !c.reaches(i, width) {
			takeBucket(kept, &c.buckets, i)
		}
	}
	return kept
}

// reaches reports whether a delete that chooses the row may have chosen points of a bucket.
func (c *cursor) reaches(i int, width int64) bool {
	const ms = 1_000_000
	first, last := c.buckets.Ends[i]-width, c.buckets.Ends[i]
	if c.buckets.Counts[i] > 0 {
		first, last = c.buckets.FirstTimes[i], c.buckets.LastTimes[i]
	}
	for _, d := range c.hiding {
		if first*ms < d.end && (last+1)*ms > d.start {
			return true
		}
	}
	return false
}

// takeBucket adds one bucket of another rollup of the series.
func takeBucket(to, from *metricfile.Rollup, i int) {
	to.Ends, to.Counts = append(to.Ends, from.Ends[i]), append(to.Counts, from.Counts[i])
	to.FirstTimes, to.LastTimes = takeAt(to.FirstTimes, from.FirstTimes, i), takeAt(to.LastTimes, from.LastTimes, i)
	to.StaleTimes, to.Sketches = takeAt(to.StaleTimes, from.StaleTimes, i), takeAt(to.Sketches, from.Sketches, i)
	for n := range from.Tracks {
		t, f := &to.Tracks[n], &from.Tracks[n]
		for _, column := range [][2]*[]float64{
			{&t.First, &f.First}, {&t.Last, &f.Last}, {&t.Increase, &f.Increase}, {&t.Sum, &f.Sum}, {&t.Min, &f.Min}, {&t.Max, &f.Max},
		} {
			*column[0] = takeAt(*column[0], *column[1], i)
		}
	}
	for _, column := range [][2]*[]*histogram.FloatHistogram{
		{&to.First, &from.First}, {&to.Last, &from.Last}, {&to.Increase, &from.Increase}, {&to.Sum, &from.Sum},
	} {
		*column[0] = takeAt(*column[0], *column[1], i)
	}
}
