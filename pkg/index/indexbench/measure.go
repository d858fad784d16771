// SPDX-License-Identifier: AGPL-3.0-only

package indexbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// seed makes the measured requests the same in every run.
const seed = 20260101

// draw picks an organization as the data does: large ones more often.
func (b *bench) draw(r *rand.Rand) lake.Organization {
	u := r.Float64()
	return organization(int(u * u * float64(b.Organizations)))
}

// timed adds how long f takes to the times.
func timed(times *[]time.Duration, f func() error) error {
	began := time.Now()
	err := f()
	*times = append(*times, time.Since(began))
	return err
}

// sizes asks how large the tables of segments are.
func (b *bench) sizes(ctx context.Context) error {
	const tables = "SELECT relid FROM pg_partition_tree('segments') WHERE isleaf UNION ALL SELECT relid FROM pg_partition_tree('segment_sources') WHERE isleaf " +
		"UNION ALL SELECT 'window_versions'::regclass UNION ALL SELECT 'segment_totals'::regclass"
	return b.sql.QueryRow(ctx, "SELECT sum(pg_table_size(relid)), sum(pg_indexes_size(relid)) FROM ("+tables+") t").
		Scan(&b.report.TableBytes, &b.report.IndexBytes)
}

// lookups asks for ranges that end somewhere in the year: half of them in its last two days, as most queries do.
func (b *bench) lookups(ctx context.Context) error {
	r := rand.New(rand.NewPCG(seed, 1))
	for _, span := range []time.Duration{time.Hour, 24 * time.Hour, 7 * 24 * time.Hour} {
		var times []time.Duration
		var segments int
		for n := range 100 + 3*b.Rounds {
			end := b.end
			if n%2 == 0 {
				end = end.Add(-time.Duration(r.Int64N(int64(b.Days-8))) * 24 * time.Hour)
			}
			query := index.Query{Organization: b.draw(r), Signal: lake.Signal(1 + r.IntN(3)), Start: end.Add(-span), End: end}
			if n == 100 { // the first ones warm connections and caches
				times, segments = nil, 0
			}
			err := timed(&times, func() error {
				answer, err := b.index.Lookup(ctx, query)
				segments += len(answer.Segments)
				return err
			})
			if err != nil {
				return err
			}
		}
		b.report.add(fmt.Sprintf("Lookup of %s", name(span)), times, fmt.Sprintf("%.0f segments on average", float64(segments)/float64(len(times))))
	}
	return nil
}

func name(span time.Duration) string {
	if span > 24*time.Hour {
		return fmt.Sprintf("%d days", span/(24*time.Hour))
	}
	return fmt.Sprintf("%d h", span/time.Hour)
}

// windows reads hours as compaction does, and pages of windows with debt.
func (b *bench) windows(ctx context.Context) error {
	r := rand.New(rand.NewPCG(seed, 2))
	var times []time.Duration
	for range b.Rounds {
		w := lake.WindowOf(b.end.Add(-time.Duration(1+r.IntN(48))*time.Hour), time.Hour)
		org := b.draw(r)
		if err := timed(&times, func() error { _, err := b.index.Window(ctx, org, lake.SignalLogs, w); return err }); err != nil {
			return err
		}
	}
	b.report.add("Window of an hour", times, "with sources")
	return nil
}

// leased receives objects of an organization and claims them.
func (b *bench) leased(ctx context.Context, org lake.Organization, objects int, what string) (*lake.Lease, error) {
	notices := make([]index.Notice, objects)
	for i := range notices {
		notices[i] = index.Notice{
			Object:       lake.Object{Bucket: "raw", Key: fmt.Sprintf("%s/%s/%s/%06d", org, b.run, what, i), Tag: "v1", Size: 1000, LastModified: b.end},
			Organization: org, Collector: "agent", Signal: lake.SignalLogs,
		}
	}
	if _, err := b.index.Receive(ctx, notices); err != nil {
		return nil, err
	}
	for {
		lease, err := b.index.Claim(ctx, index.Batch{Kind: lake.TaskIngest, MaxTasks: max(objects, 1)})
		switch {
		case err != nil:
			return nil, err
		case lease == nil:
			return nil, errors.New("nothing to claim")
		case lease.Organization == org && len(lease.Tasks) == objects:
			return lease, nil
		}
		if err := b.index.Release(ctx, lease, fault.New(fault.Canceled, "not the one")); err != nil {
			return nil, err
		}
	}
}

// committed is the number of segments of a large commit.
const committed = 1000

// ingestCommits adds segments of late data that is spread over some days, two of each object.
func (b *bench) ingestCommits(ctx context.Context) error {
	var times []time.Duration
	for n := range 12 {
		lease, err := b.leased(ctx, organization(100+n), committed/2, fmt.Sprintf("ingest-%d", n))
		if err != nil {
			return err
		}
		edit := lake.Edit{Cost: lake.Cost{Puts: 2 * committed, Gets: committed / 2}}
		for i, r := range lease.Receipts {
			edit.Outcomes = append(edit.Outcomes, lake.Outcome{Receipt: r.ID, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "otlp", RowsIn: 100, RowsOut: 100})
			for half := range 2 {
				w := lake.Window{Start: b.end.Add(-time.Duration(1+(2*i+half)%100) * time.Hour), Length: time.Hour}
				edit.Add = append(edit.Add, segment(lease, 2*i+half, w, 0, r.ID))
			}
		}
		if err := timed(&times, func() error { return b.index.Commit(ctx, lease, edit) }); err != nil {
			return err
		}
	}
	b.report.add(fmt.Sprintf("Commit of %d new segments", committed), times[2:], "500 objects, 100 hours")
	return nil
}

func segment(lease *lake.Lease, n int, w lake.Window, level int, sources ...lake.ReceiptID) lake.Segment {
	return lake.Segment{
		Organization: lease.Organization, Signal: lake.SignalLogs, Window: w, Level: level, Bucket: "lake-bucket",
		Key:   lake.SegmentKey(lease.Organization, lake.SignalLogs, w, lease.ID, n),
		Bytes: 1_000_000, SidecarBytes: 70_000, Rows: 100, FirstTime: w.Start, LastTime: w.End().Add(-1), FormatVersion: 2, RowHash: 42, Sources: sources,
	}
}

// compactionCommits merges what ingestCommits added, hour by hour, a hundred to one, a thousand segments a commit.
func (b *bench) compactionCommits(ctx context.Context) error {
	var times []time.Duration
	for n := range 12 {
		org := organization(100 + n)
		day := lake.Task{Kind: lake.TaskCompact, Organization: org, Signal: lake.SignalLogs, Window: lake.WindowOf(b.end, 24*time.Hour)}
		if err := b.index.Enqueue(ctx, []lake.Task{day}); err != nil {
			return err
		}
		lease, err := b.index.Claim(ctx, index.Batch{Kind: lake.TaskCompact, Work: &day})
		if err != nil {
			return err
		}
		edit := lake.Edit{Rewrite: true}
		for h := 1; h <= 100; h++ {
			state, err := b.index.Window(ctx, org, lake.SignalLogs, lake.Window{Start: b.end.Add(-time.Duration(h) * time.Hour), Length: time.Hour})
			if err != nil {
				return err
			}
			var sources []lake.ReceiptID
			for _, s := range state.Segments {
				if s.Bytes == 1_000_000 && len(edit.Remove) < committed {
					edit.Remove = append(edit.Remove, s.ID)
					sources = append(sources, s.Sources...)
				}
			}
			if len(sources) > 0 {
				edit.Add = append(edit.Add, segment(lease, h, state.Version.Window, 1, sources...))
				edit.Expect = append(edit.Expect, state.Version)
			}
		}
		if err := timed(&times, func() error { return b.index.Commit(ctx, lease, edit) }); err != nil {
			return err
		}
	}
	b.report.add(fmt.Sprintf("Commit of %d compacted segments", committed), times[2:], "into 100")
	return nil
}

// claims takes batches of the organization with pending objects, and finds the fair order while many others have one each.
func (b *bench) claims(ctx context.Context) error {
	claim := func(what string, batch index.Batch) error {
		var times []time.Duration
		var tasks int
		for range b.Rounds {
			var lease *lake.Lease
			err := timed(&times, func() (err error) { lease, err = b.index.Claim(ctx, batch); return err })
			if err != nil || lease == nil {
				return errors.Join(err, errors.New("nothing was claimed"))
			}
			tasks += len(lease.Tasks)
			if err := b.index.Release(ctx, lease, fault.New(fault.Canceled, "measured")); err != nil {
				return err
			}
		}
		b.report.add(what, times, fmt.Sprintf("%.0f tasks on average", float64(tasks)/float64(b.Rounds)))
		return nil
	}
	for _, n := range []int{1, 50, 500} {
		batch := index.Batch{Kind: lake.TaskIngest, MaxTasks: n, Duration: 10 * time.Minute}
		if err := claim(fmt.Sprintf("Claim of up to %d of %d pending", n, b.Pending), batch); err != nil {
			return err
		}
	}
	waiting := index.Batch{Kind: lake.TaskIngest, MaxTasks: 500, MinBytes: 8 << 20, MaxWait: time.Second, Duration: 10 * time.Minute}
	if err := claim("Claim that waits for 8 MiB", waiting); err != nil {
		return err
	}
	return b.crowd(ctx)
}

// crowd claims while every organization has objects.
func (b *bench) crowd(ctx context.Context) error {
	var notices []index.Notice
	for rank := 1; rank < b.Organizations; rank++ {
		notices = append(notices, index.Notice{
			Object:       lake.Object{Bucket: "raw", Key: fmt.Sprintf("%s/%s/crowd", organization(rank), b.run), Tag: "v1", Size: 1000, LastModified: b.end},
			Organization: organization(rank), Collector: "agent", Signal: lake.SignalLogs,
		})
	}
	if _, err := b.index.Receive(ctx, notices); err != nil {
		return err
	}
	var times []time.Duration
	for range notices {
		var lease *lake.Lease
		batch := index.Batch{Kind: lake.TaskIngest, MaxTasks: 50, Duration: 10 * time.Minute}
		if err := timed(&times, func() (err error) { lease, err = b.index.Claim(ctx, batch); return err }); err != nil || lease == nil {
			return errors.Join(err, errors.New("nothing was claimed"))
		}
		if err := b.finish(ctx, lease); err != nil {
			return err
		}
	}
	b.report.add(fmt.Sprintf("Claim with %d organizations waiting", b.Organizations), times, "one object each but the first")
	return nil
}

// finish commits a lease of ingest with one segment.
func (b *bench) finish(ctx context.Context, lease *lake.Lease) error {
	var edit lake.Edit
	var sources []lake.ReceiptID
	for _, r := range lease.Receipts {
		edit.Outcomes = append(edit.Outcomes, lake.Outcome{Receipt: r.ID, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "otlp", RowsIn: 1, RowsOut: 1})
		sources = append(sources, r.ID)
	}
	edit.Add = []lake.Segment{segment(lease, 0, lake.Window{Start: b.end.Add(-time.Hour), Length: time.Hour}, 0, sources...)}
	return b.index.Commit(ctx, lease, edit)
}

// fairness lets two workers ingest the pending objects, and times how long a fresh object of another organization waits for its
// claim. A worker takes as long as an ingestor for a batch.
func (b *bench) fairness(ctx context.Context) error {
	const work = 250 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var claimed sync.Map // of organization: when
	var done atomic.Int64
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- b.toil(ctx, work, &claimed, &done) }()
	}
	var times []time.Duration
	err := func() error {
		for n := range max(b.Rounds/8, 1) {
			org := lake.Organization(fmt.Sprintf("fresh-%d-%s", n, strings.ReplaceAll(b.run, ".", "")))
			notice := index.Notice{
				Object:       lake.Object{Bucket: "raw", Key: string(org), Tag: "v1", Size: 1000, LastModified: b.end},
				Organization: org, Collector: "agent", Signal: lake.SignalLogs,
			}
			began := time.Now()
			if _, err := b.index.Receive(ctx, []index.Notice{notice}); err != nil {
				return err
			}
			at, err := b.await(ctx, org, &claimed)
			if err != nil {
				return err
			}
			times = append(times, at.Sub(began))
		}
		return nil
	}()
	cancel()
	err = errors.Join(err, <-errs, <-errs)
	b.report.add("Wait of another organization's fresh object", times, fmt.Sprintf("2 workers, %s a batch; %d pending objects done meanwhile", work, done.Load()))
	return err
}

// await returns when an organization's object was claimed.
func (b *bench) await(ctx context.Context, org lake.Organization, claimed *sync.Map) (time.Time, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if at, ok := claimed.Load(org); ok {
			return at.(time.Time), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		case <-tick.C:
		}
	}
}

// toil is a worker.
func (b *bench) toil(ctx context.Context, work time.Duration, claimed *sync.Map, done *atomic.Int64) error {
	for ctx.Err() == nil {
		lease, err := b.index.Claim(ctx, index.Batch{Kind: lake.TaskIngest, MaxTasks: 100})
		if errors.Is(err, context.Canceled) || err == nil && lease == nil {
			return nil
		}
		if err != nil {
			return err
		}
		claimed.Store(lease.Organization, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(work):
		}
		if err := b.finish(context.WithoutCancel(ctx), lease); err != nil {
			return err
		}
		done.Add(int64(len(lease.Tasks)))
	}
	return nil
}

// retention removes all but the last thirty days of an organization's logs, the largest one's that still has them, a thousand segments
// a commit.
func (b *bench) retention(ctx context.Context) error {
	for rank := 1; rank < b.Organizations && b.report.RetentionSegments == 0; rank++ {
		if err := b.expire(ctx, organization(rank)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) expire(ctx context.Context, org lake.Organization) error {
	began := time.Now()
	var times []time.Duration
	for {
		due, err := b.index.DueSegments(ctx, index.DueQuery{Organization: org, Signal: lake.SignalLogs, Before: b.end.AddDate(0, 0, -30), Limit: committed})
		if err != nil {
			return err
		}
		if len(due) == 0 {
			break
		}
		b.report.RetentionSegments += len(due)
		task := lake.Task{Kind: lake.TaskExpire, Organization: org, Signal: lake.SignalLogs}
		if err := b.index.Enqueue(ctx, []lake.Task{task}); err != nil {
			return err
		}
		lease, err := b.index.Claim(ctx, index.Batch{Kind: lake.TaskExpire, Work: &task})
		if err != nil || lease == nil {
			return errors.Join(err, errors.New("nothing was claimed"))
		}
		var edit lake.Edit
		for _, s := range due {
			edit.Remove = append(edit.Remove, s.ID)
		}
		if err := timed(&times, func() error { return b.index.Commit(ctx, lease, edit) }); err != nil {
			return err
		}
	}
	b.report.Retention = time.Since(began)
	b.report.add("Commit that removes 1000 segments (retention)", times, fmt.Sprintf("%d segments in %s", b.report.RetentionSegments, b.report.Retention.Round(time.Millisecond)))
	return nil
}

// gauges are read every half minute at most.
func (b *bench) gauges(ctx context.Context) error {
	var debts, pages []time.Duration
	for range 5 {
		if err := timed(&debts, func() error { _, err := b.index.CompactionDebt(ctx, ""); return err }); err != nil {
			return err
		}
		if err := timed(&pages, func() error { _, err := b.index.WindowsWithDebt(ctx, index.WindowCursor{}, 1000); return err }); err != nil {
			return err
		}
	}
	b.report.add("CompactionDebt of all", debts, "for gauges")
	b.report.add("WindowsWithDebt, a page of 1000", pages, "for the compactor")
	return nil
}
