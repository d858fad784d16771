// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
	"github.com/lakerunner/lakerunner/services/rollup/internal/work"
)

const allTiers = "    rollups: [{resolution: 10s}, {resolution: 1m}, {resolution: 5m}, {resolution: 20m}, {resolution: 1h}]\n"

func (f *fixture) wantTier(resolution time.Duration) {
	f.t.Helper()
	bits := cmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })
	if diff := cmp.Diff(f.want(resolution), f.rolled(lake.SignalMetrics, resolution), bits, cmpopts.EquateEmpty()); diff != "" {
		f.t.Errorf("rollups to %s (-want +got):\n%s", resolution, diff)
	}
}

func (f *fixture) wantUncovered(resolution time.Duration, hours ...int) {
	f.t.Helper()
	var want, got []string
	for _, h := range hours {
		want = append(want, f.hour(h).Start.Format("15h"))
	}
	for _, w := range f.answer(lake.SignalMetrics, resolution).Uncovered {
		got = append(got, w.Start.Format("15h"))
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		f.t.Errorf("uncovered at %s (-want +got):\n%s", resolution, diff)
	}
}

func TestW1EachTierIsMadeOfTheFinerOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	for hour := range 3 {
		f.ingest(f.points("up/a", hour, 700), f.points("up/b", hour, 350))
		f.ingest(f.points("load/a", hour, 360))
	}
	for _, c := range []struct {
		resolution, of time.Duration
		hours          int
	}{
		{10 * time.Second, 0, 3}, {time.Minute, 10 * time.Second, 3}, {5 * time.Minute, time.Minute, 1}, {20 * time.Minute, 5 * time.Minute, 1}, {time.Hour, 20 * time.Minute, 1},
	} {
		f.wantUncovered(c.resolution, 0, 1, 2)
		for hour := range c.hours {
			report := f.roll(hour, c.resolution)
			for _, source := range report.Plan.Sources {
				if source.Resolution != c.of {
					t.Errorf("%s is made of %s, want %s", c.resolution, source.Resolution, c.of)
				}
			}
			if a := report.Account; a.In == 0 || a.In != a.Counted+a.Stale || a.Written != a.Counted || c.of == 0 && a.Stale != 3 || a.Series != 3 {
				t.Errorf("%s: %+v", c.resolution, a)
			}
		}
		f.wantTier(c.resolution)
		f.wantUncovered(c.resolution)
	}
}

func TestW1PointsOfSeveralSegmentsAreMerged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	even, odd := f.points("up/a", 0, 400), f.points("up/a", 0, 400)
	for i := range even {
		odd[i].at = odd[i].at.Add(4 * time.Second)
	}
	f.ingest(even)
	f.ingest(odd, f.points("up/b", 0, 400))
	f.ingest(even[:40]) // once more: the lower source wins
	if report := f.roll(0, time.Minute); report.Account.Deduplicated != 40 || report.Account.In != 1240 {
		t.Errorf("%+v", report.Account)
	}
	f.wantTier(time.Minute)
}

func TestW4ShardsStayShards(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers, func(c *work.Config) { c.Target = 1 })
	var points [][]point
	for _, pod := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		points = append(points, f.points("up/"+pod, 0, 400))
	}
	f.put(object{points: slices.Concat(points...), shards: 4})
	f.ingest(f.points("up/i", 0, 400)) // whole
	report := f.roll(0, time.Minute)
	if len(report.Added) != 4 || report.Added[3].Shard != (lake.Shard{Index: 3, Count: 4}) {
		t.Errorf("%+v", report.Added)
	}
	f.wantTier(time.Minute)
	if report := f.roll(0, time.Hour); len(report.Added) != 4 {
		t.Errorf("%+v", report.Added)
	}
	f.wantTier(time.Hour)
}

func TestW3LateDataRollsItsWindowUpOnceMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400), f.points("up/a", 1, 400))
	f.roll(0, time.Minute)
	f.roll(1, time.Minute)
	f.roll(0, time.Hour)
	late := f.points("up/late", 1, 300)
	f.ingest(late)
	f.wantUncovered(time.Minute, 1)
	f.wantUncovered(time.Hour, 0, 1)
	if got := f.due(0, time.Minute); len(got.Added) != 0 {
		t.Errorf("the hour that did not change: %+v", got)
	}
	if got := f.due(1, time.Minute); len(got.Added) != 1 {
		t.Errorf("the hour that changed: %+v", got)
	}
	if got := f.due(1, time.Minute); len(got.Added) != 0 {
		t.Errorf("once more: %+v", got)
	}
	if got := f.due(1, time.Hour); len(got.Added) != 1 {
		t.Errorf("its day: %+v", got)
	}
	for _, resolution := range []time.Duration{time.Minute, time.Hour} {
		f.wantTier(resolution)
		f.wantUncovered(resolution)
	}
}

func TestW3ARollupIsOfOneVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400))
	f.at = func(name string) {
		if name == "rollup-fetched" {
			f.at = func(string) {}
			f.ingest(f.points("up/b", 0, 400))
		}
	}
	err := f.try(f.index, f.task(lake.SignalMetrics, 0, time.Minute), f.worker.Work)
	if !errors.Is(err, fault.Conflict) {
		t.Errorf("got %v", err)
	}
	f.wantUncovered(time.Minute, 0)
	if got := f.answer(lake.SignalMetrics, time.Minute).Segments; len(got) != 0 {
		t.Errorf("%+v", got)
	}
	f.roll(0, time.Minute)
	f.wantTier(time.Minute)
}

func TestTwoWorkersMakeOneRollup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400))
	done := make(chan error, 2)
	for range 2 {
		worker := f.newWorker(allTiers)
		go func() { done <- f.try(f.index, f.task(lake.SignalMetrics, 0, time.Minute), worker.Work) }()
	}
	for range 2 {
		if err := <-done; err != nil && !errors.Is(err, fault.Conflict) {
			t.Error(err)
		}
	}
	if got := f.answer(lake.SignalMetrics, time.Minute).Segments; len(got) != 1 {
		t.Errorf("%+v", got)
	}
	f.wantTier(time.Minute)
}

func TestDeletedAndMaskedPointsAreLeftOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.put(object{key: "raw/acme/c/rewritten", points: f.points("up/a", 0, 300), replace: true})
	f.ingest(f.points("up/b", 0, 400), f.points("down/b", 0, 400))
	f.roll(0, time.Minute)
	f.roll(0, time.Hour)
	f.truth = f.truth[300:]
	f.put(object{key: "raw/acme/c/rewritten", points: f.points("up/a", 0, 360), replace: true})
	from, to := f.start.Add(10*time.Minute), f.start.Add(20*time.Minute)
	deleted := f.delete("up/b", from, to)
	f.wantUncovered(time.Minute, 0)
	f.wantUncovered(time.Hour, 0)
	report := f.roll(0, time.Minute)
	if a := report.Account; a.Masked != 300 || a.Deleted != int64(deleted) || deleted == 0 || a.In != a.Counted+a.Stale+a.Masked+a.Deleted {
		t.Errorf("%+v, want %d deleted", a, deleted)
	}
	f.roll(0, time.Hour)
	for _, resolution := range []time.Duration{time.Minute, time.Hour} {
		f.wantTier(resolution)
		f.wantUncovered(resolution)
	}
}

// delete deletes points of a series, and says how many that are.
func (f *fixture) delete(series string, from, to time.Time) int {
	f.t.Helper()
	f.createDelete(lake.SignalMetrics, seriesOf(series).Labels.String(), from, to)
	before := len(f.truth)
	f.truth = slices.DeleteFunc(f.truth, func(p point) bool { return p.series == series && !p.at.Before(from) && p.at.Before(to) })
	return before - len(f.truth)
}

func (f *fixture) createDelete(signal lake.Signal, selector string, from, to time.Time) {
	f.t.Helper()
	if _, err := f.index.CreateDelete(f.t.Context(), lake.Delete{
		Organization: org, Signal: signal, Selector: selector, Start: from, End: to, Sources: lake.SourceLeave, Actor: "test",
	}); err != nil {
		f.t.Fatal(err)
	}
}

// expire removes the rows of an hour as retention does.
func (f *fixture) expire(hour int) {
	f.t.Helper()
	f.expireOf(lake.SignalMetrics, hour)
}

func (f *fixture) expireOf(signal lake.Signal, hour int) {
	f.t.Helper()
	task := lake.Task{Kind: lake.TaskExpire, Organization: org, Signal: signal}
	if err := f.index.Enqueue(f.t.Context(), []lake.Task{task}); err != nil {
		f.t.Fatal(err)
	}
	did, err := stage.One(f.t.Context(), f.index, stage.Options{Batch: index.Batch{Kind: lake.TaskExpire, Work: &task}}, func(context.Context, *lake.Lease) (lake.Edit, error) {
		var edit lake.Edit
		for _, s := range f.answer(signal, 0).Segments {
			if s.Window == f.hour(hour) {
				edit.Remove = append(edit.Remove, s.ID)
			}
		}
		return edit, nil
	})
	if err != nil || !did {
		f.t.Fatal(did, err)
	}
}

func TestRollupsOutliveTheirRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400), f.points("up/a", 1, 400))
	f.roll(0, time.Minute)
	f.roll(1, time.Minute)
	f.expire(0)
	f.wantUncovered(time.Minute)
	f.roll(0, time.Hour) // of the minutes
	f.wantTier(time.Hour)
	f.wantTier(time.Minute)
	report := f.roll(0, 10*time.Second)
	if report.Plan.Action != plan.Refuse || len(report.Added) != 0 {
		t.Errorf("a finer tier of rows that are gone: %+v", report.Plan)
	}
}

func TestDeletesReachRollupsWhoseRowsAreGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400), f.points("up/b", 0, 400), f.points("up/a", 1, 400))
	f.roll(0, time.Minute)
	f.roll(1, time.Minute)
	f.roll(0, time.Hour)
	f.expire(0)
	f.expire(1)
	deleted := f.delete("up/b", f.start.Add(10*time.Minute), f.start.Add(20*time.Minute))
	f.wantUncovered(time.Minute, 0)
	f.wantUncovered(time.Hour, 0, 1)

	if report := f.roll(0, time.Hour); report.Plan.Action != plan.Wait {
		t.Errorf("the coarser before the finer: %+v", report.Plan)
	}
	report := f.roll(0, time.Minute)
	if a := report.Account; report.Plan.Action != plan.Erase || a.Deleted != int64(deleted) || deleted == 0 || a.In != a.Counted+a.Deleted {
		t.Errorf("%s: %+v, want %d deleted", report.Plan.Action, a, deleted)
	}
	if report := f.roll(0, time.Hour); report.Plan.Action != plan.Roll {
		t.Errorf("of the minutes: %+v", report.Plan)
	}
	for _, resolution := range []time.Duration{time.Minute, time.Hour} {
		f.wantTier(resolution)
		f.wantUncovered(resolution)
	}

	// A delete that chooses none of its series leaves a rollup as it is.
	before := f.answer(lake.SignalMetrics, time.Minute).Segments
	f.delete("up/c", f.start, f.start.Add(time.Hour))
	f.wantUncovered(time.Minute, 0)
	if report := f.due(0, time.Minute); len(report.Added) != 0 {
		t.Errorf("%+v", report)
	}
	f.wantTier(time.Minute)
	f.wantUncovered(time.Minute)
	if after := f.answer(lake.SignalMetrics, time.Minute).Segments; after[0].ID != before[0].ID || after[0].AppliedDelete == before[0].AppliedDelete {
		t.Errorf("got %+v, had %+v", after, before)
	}
}

func TestADeletedRollupThatLacksRowsGoes(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400), f.points("up/b", 0, 400))
	f.roll(0, time.Minute)
	f.ingest(f.points("up/late", 0, 400))
	f.expire(0)
	if report := f.roll(0, time.Minute); report.Plan.Action != plan.Refuse {
		t.Errorf("without a delete: %+v", report.Plan)
	}
	f.delete("up/b", f.start, f.start.Add(time.Hour))
	if report := f.roll(0, time.Minute); report.Plan.Action != plan.Drop {
		t.Errorf("with a delete: %+v", report.Plan)
	}
	state, err := f.index.RollupWindow(t.Context(), org, lake.SignalMetrics, f.hour(0))
	if err != nil || state.Rollups[0].Standing != index.RollupDropped || len(state.Rollups[0].Segments) != 0 {
		t.Errorf("%+v, %v", state.Rollups, err)
	}
}

func TestTiersNoCoarserThanTheirRowsAreSkipped(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	for part := range 6 { // as ingest makes them: a segment holds few points of each series
		f.ingest(f.points("up/a", 0, 60)[part*10:part*10+10], f.points("up/b", 0, 60)[part*10:part*10+10])
	}
	for _, c := range []struct {
		resolution time.Duration
		skipped    bool
	}{{10 * time.Second, true}, {time.Minute, true}, {5 * time.Minute, false}} {
		if got := f.due(0, c.resolution); got.Skipped != c.skipped || len(got.Added) > 0 == c.skipped {
			t.Errorf("%s: %+v", c.resolution, got)
		}
	}
	f.wantUncovered(time.Minute, 0)
	f.wantTier(5 * time.Minute)
	f = newFixture(t, "    retention: [{signal: metrics, resolution: raw, keep: 10000d}, {signal: metrics, keep: 20000d}]\n"+allTiers)
	f.ingest(f.points("up/a", 0, 60))
	if got := f.due(0, time.Minute); got.Skipped {
		t.Error("a tier that is kept longer than its rows must not be skipped")
	}
}

func TestW2AMissingFileFailsTheRollup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400))
	if err := f.bucket.Delete(t.Context(), f.answer(lake.SignalMetrics, 0).Segments[0].Key); err != nil {
		t.Fatal(err)
	}
	err := f.try(f.index, f.task(lake.SignalMetrics, 0, time.Minute), f.worker.Work)
	if !errors.Is(err, fault.MissingSegment) || f.count("lakerunner.rollup.missing_inputs") != 1 {
		t.Errorf("got %v", err)
	}
	f.wantUncovered(time.Minute, 0)
	f.scratchIsEmpty()
}

func TestW2ADamagedFileFailsTheRollup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers)
	f.ingest(f.points("up/a", 0, 400))
	s := f.answer(lake.SignalMetrics, 0).Segments[0]
	content := f.read(s.Key)
	for i := 20; i < len(content)/2; i++ {
		content[i] ^= 0x55
	}
	f.store(s.Key, content)
	err := f.try(f.index, f.task(lake.SignalMetrics, 0, time.Minute), f.worker.Work)
	if !errors.Is(err, fault.Internal) {
		t.Errorf("got %v", err)
	}
	f.wantUncovered(time.Minute, 0)
	f.scratchIsEmpty()
}

func TestW4AWindowOfTooManyCataloguesWaitsForCompaction(t *testing.T) {
	t.Parallel()
	f := newFixture(t, allTiers, func(c *work.Config) { c.Memory = 1000 })
	f.ingest(f.points("up/a", 0, 400))
	f.ingest(f.points("up/b", 0, 400))
	if report := f.roll(0, time.Minute); report.Plan.Action != plan.Wait || report.Plan.Again.IsZero() || len(report.Added) > 0 {
		t.Errorf("%+v", report)
	}
	f.wantUncovered(time.Minute, 0)
}

func TestSketchesOfTheMetricsThatWantThem(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "    rollups: [{resolution: 10s}, {resolution: 1m, sketches: [load]}, {resolution: 1h, sketches: [load]}]\n")
	f.ingest(f.points("load/a", 0, 800), f.points("up/a", 0, 800))
	f.roll(0, 10*time.Second)
	for _, c := range []struct{ resolution, of time.Duration }{{time.Minute, 0}, {time.Hour, time.Minute}} {
		if report := f.roll(0, c.resolution); report.Plan.Sources[0].Resolution != c.of {
			t.Errorf("%s is made of %s: it lacks sketches", c.resolution, report.Plan.Sources[0].Resolution)
		}
		for name, r := range f.rolled(lake.SignalMetrics, c.resolution) {
			wanted := strings.Contains(name, `"load"`)
			for i := range r.Ends {
				if has := i < len(r.Sketches) && len(r.Sketches[i]) > 0; has != (wanted && r.Counts[i] > 0) {
					t.Errorf("%s at %s, bucket %d: sketch %t", name, c.resolution, i, has)
				}
			}
		}
	}
}
