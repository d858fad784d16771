// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

// metricFixture is a lake of metrics.
type metricFixture struct{ *fixture }

func newMetricFixture(t *testing.T, change ...func(*work.Config)) metricFixture {
	t.Helper()
	f := newFixture(t, "", change...)
	f.signal = lake.SignalMetrics
	return metricFixture{f}
}

// smallShards makes shards of few bytes.
func smallShards(c *work.Config) { c.Policy.Shard = 3_000 }

// fill appends points to a store.
type fill func(st *metricfile.Store, source lake.ReceiptID)

// scrapes are n points, from the beginning of an hour on, of each of some series of every kind.
func (f metricFixture) scrapes(hour, first, n, pods int) fill {
	return func(st *metricfile.Store, source lake.ReceiptID) {
		for i := first; i < first+n; i++ {
			at := metricfile.Stamp{Time: f.start.Add(time.Duration(hour)*time.Hour + time.Duration(i)*10*time.Second).UnixNano(), Source: source}
			for pod := range pods {
				appendAll(st, fmt.Sprint("p", pod), at, i)
			}
		}
	}
}

func appendAll(st *metricfile.Store, pod string, at metricfile.Stamp, i int) {
	row := func(name string, kind metricfile.Kind, bounds ...float64) metricfile.SeriesID {
		return st.Series(&metricfile.Series{Labels: labels.FromStrings("__name__", name, "pod", pod), Kind: kind, Bounds: bounds})
	}
	n := uint64(i)
	at.Start = at.Time - 1
	point := st.Float(row("requests_total", metricfile.KindFloat), at, float64(i))
	st.Exemplar(point, metricfile.Exemplar{Labels: labels.FromStrings("trace_id", fmt.Sprintf("%032x", i)), Value: 1, Time: at.Time})
	st.Classic(row("latency", metricfile.KindClassic, 0.5, 1), at, 3*n, float64(i)/3, []uint64{n, n, n})
	st.Summary(row("rpc", metricfile.KindSummary, 0.9), at, n, math.Pi, []float64{float64(i)})
	st.Histogram(row("native", metricfile.KindHistogram), at, &histogram.FloatHistogram{
		Schema: 2, Count: float64(i), Sum: 1, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []float64{float64(i)},
	})
}

// ingest commits points as ingest does: a segment an hour.
func (f metricFixture) ingest(all ...fill) lake.ReceiptID { return f.put("", false, all...) }

func (f metricFixture) put(key string, replace bool, all ...fill) lake.ReceiptID {
	f.t.Helper()
	return f.commit(key, replace, func(ctx context.Context, lease *lake.Lease, receipt lake.ReceiptID, latest lake.DeleteID) (added []lake.Segment) {
		st := metricfile.NewStore()
		for _, fill := range all {
			fill(st, receipt)
		}
		hours := map[time.Time][]uint32{}
		for row := range st.Len() {
			start := lake.WindowOf(time.Unix(0, st.Time(row)), time.Hour).Start
			hours[start] = append(hours[start], uint32(row))
		}
		for start, rows := range hours {
			added = append(added, f.segment(ctx, st, rows, metricfile.Meta{
				Organization: org, Signal: lake.SignalMetrics, Window: lake.WindowOf(start, time.Hour), Lease: lease.ID, Sources: []lake.ReceiptID{receipt},
				AppliedDelete: latest,
			}, len(added)))
		}
		return added
	})
}

func (f metricFixture) segment(ctx context.Context, st *metricfile.Store, rows []uint32, meta metricfile.Meta, n int) lake.Segment {
	f.t.Helper()
	var parquet, sidecar bytes.Buffer
	w, err := metricfile.Write(ctx, &parquet, &sidecar, st, rows, meta)
	if err != nil {
		f.t.Fatal(err)
	}
	key := lake.SegmentKey(org, lake.SignalMetrics, meta.Window, meta.Lease, n)
	f.store(key, parquet.Bytes())
	f.store(lake.SidecarKey(key), sidecar.Bytes())
	return lake.Segment{
		Organization: org, Signal: lake.SignalMetrics, Window: meta.Window, Bucket: f.bucket.Name(), Key: key, Bytes: w.Bytes, SidecarBytes: w.SidecarBytes,
		Rows: w.Rows, FirstTime: w.First, LastTime: w.Last, FormatVersion: w.FormatVersion, RowHash: w.RowHash, Sources: meta.Sources, AppliedDelete: meta.AppliedDelete,
	}
}

// answered are the points of all live segments as queries see them, as text, sorted: without those of masked sources, and of doubles the one that counts.
// It checks each segment against the index, too.
func (f metricFixture) answered() []string {
	f.t.Helper()
	best := map[string]point{}
	exemplars := map[string]bool{}
	for _, s := range f.segments() {
		content, sidecar := f.read(s.Key), f.read(lake.SidecarKey(s.Key))
		report, err := metricfile.Verify(f.t.Context(), bytes.NewReader(content), int64(len(content)), sidecar)
		if err != nil || len(report.Problems) > 0 {
			f.t.Fatalf("%s: %v, %v", s.Key, err, report.Problems)
		}
		c := report.Catalogue
		if c.Rows != s.Rows || c.RowHash != s.RowHash || c.AppliedDelete > s.AppliedDelete || c.Window != s.Window || c.Level != s.Level || c.Shard != s.Shard {
			f.t.Errorf("%s: the file has %+v, the index says %+v", s.Key, c.Meta, s)
		}
		f.points(&s, content, sidecar, best, exemplars)
	}
	var all []string
	for key, p := range best {
		all = append(all, key+p.text)
	}
	for e := range exemplars {
		all = append(all, e)
	}
	slices.Sort(all)
	return all
}

type point struct {
	source lake.ReceiptID
	hash   uint64
	text   string
}

func (f metricFixture) points(s *lake.Segment, content, sidecar []byte, best map[string]point, exemplars map[string]bool) {
	f.t.Helper()
	c, err := metricfile.ReadCatalogue(sidecar)
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := metricfile.Open(bytes.NewReader(content), int64(len(content)), c)
	if err != nil {
		f.t.Fatal(err)
	}
	var p metricfile.Points
	for row := range c.Len() {
		series := c.Series(row)
		if !s.Shard.Holds(series.Hash()) {
			f.t.Errorf("%s is in shard %v", series.Labels, s.Shard)
		}
		if err := r.Points(row, metricfile.WantAll, &p); err != nil {
			f.t.Fatal(err)
		}
		for i, at := range p.Times {
			if slices.Contains(s.MaskedSources, p.Sources[i]) {
				continue
			}
			key := fmt.Sprint(series.Labels, " ", series.Kind, " ", at, " ")
			d := point{p.Sources[i], p.RowHash(series.Identity(), series.Kind, i), pointText(&p, i)}
			if b, ok := best[key]; !ok || d.source < b.source || d.source == b.source && d.hash < b.hash {
				best[key] = d
			}
		}
		for _, e := range p.Exemplars {
			if !slices.Contains(s.MaskedSources, e.Source) {
				exemplars[fmt.Sprint(series.Labels, " ", e.Labels, " ", e.Time, " ", e.Value)] = true
			}
		}
	}
}

func pointText(p *metricfile.Points, i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "since %d", p.Starts[i])
	if len(p.Histograms) > 0 {
		h := p.Histograms[i].Copy()
		h.CounterResetHint = histogram.UnknownCounterReset
		fmt.Fprint(&b, " ", h)
		return b.String()
	}
	fmt.Fprint(&b, " ", p.Values[i])
	for _, bucket := range p.Buckets {
		fmt.Fprint(&b, " ", bucket[i])
	}
	for _, quantile := range p.Quantiles {
		fmt.Fprint(&b, " ", quantile[i])
	}
	return b.String()
}

func (f metricFixture) wantPoints(want []string) {
	f.t.Helper()
	if diff := cmp.Diff(want, f.answered()); diff != "" {
		f.t.Errorf("points (-want +got):\n%s", diff)
	}
}

// wantShards wants the segments of a window to be one of each shard of a count.
func (f metricFixture) wantShards(w lake.Window, least uint32) {
	f.t.Helper()
	seen := map[uint32]bool{}
	count := uint32(0)
	for _, s := range f.segments() {
		if s.Window != w {
			continue
		}
		if seen[s.Shard.Index] || len(seen) > 0 && s.Shard.Count != count || s.Level < 2 {
			f.t.Errorf("a segment of level %d and shard %v beside others of %d", s.Level, s.Shard, count)
		}
		seen[s.Shard.Index], count = true, s.Shard.Count
	}
	if len(seen) == 0 || count < least {
		f.t.Errorf("%d segments of %d shards, want %d shards", len(seen), count, least)
	}
}

func TestI10EveryPointIsKept(t *testing.T) {
	t.Parallel()
	f := metricFixture{newFixtureOn(t, s3test.New(t), "", smallShards)}
	f.signal = lake.SignalMetrics
	rng := rand.New(rand.NewPCG(1, 3))
	for i := range 10 {
		var all []fill
		for hour := range 3 {
			all = append(all, f.scrapes(hour, 10*i+rng.IntN(3), 10, 1+3*hour)) // some are there twice
		}
		f.ingest(all...)
	}
	want := f.answered()
	deduplicated := int64(0)
	for hour := range 3 {
		a := f.compact(f.hour(hour)).Account
		if a.In == 0 || a.In != a.Out+a.Deduplicated {
			t.Errorf("hour %d: %+v", hour, a)
		}
		deduplicated += a.Deduplicated
		f.wantShards(f.hour(hour), []uint32{0, 2, 4}[hour])
	}
	f.wantPoints(want)
	if deduplicated == 0 {
		t.Error("no point was there twice")
	}
	f.compact(f.day())
	f.wantPoints(want)
	f.wantShards(f.day(), 8)
	if report := f.compact(f.day()); len(report.Added) != 0 {
		t.Errorf("a second time added %v", report.Added)
	}
}

func TestI16AWindowThatGrowsHasMoreShards(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t, smallShards)
	f.ingest(f.scrapes(0, 0, 10, 1))
	f.due(f.hour(0))
	few := f.segments()
	for i := range 6 {
		f.ingest(f.scrapes(0, 10+20*i, 20, 10))
	}
	want := f.answered()
	f.compact(f.hour(0))
	f.wantPoints(want)
	f.wantShards(f.hour(0), 4)
	if len(few) != 1 || !few[0].Shard.Whole() {
		t.Errorf("%+v", few)
	}
	// Small as they are, there is nothing to be done with one of each: nobody looks at the window again.
	if windows, err := f.index.WindowsWithDebt(t.Context(), index.WindowCursor{}, 0); err != nil || len(windows) != 0 {
		t.Errorf("a settled window has debt: %+v, %v", windows, err)
	}
}

// TestMetricsCrashAtCheckpoints ends the work while some shards are uploaded and others are not.
func TestMetricsCrashAtCheckpoints(t *testing.T) {
	t.Parallel()
	names := []string{"segment-uploaded", "before-commit", "after-commit"}
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		names = append(names, "window-read", "fetched", "merged", "declared", "sidecar-uploaded")
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newMetricFixture(t, smallShards)
			for i := range 3 {
				f.ingest(f.scrapes(0, 20*i, 20, 8))
			}
			want := f.answered()
			claims := &dying{fixture: f.fixture, crashAt: name}
			times := 0
			f.at = func(at string) {
				if times++; at == name && times > 8 || at == name && at != "segment-uploaded" && at != "sidecar-uploaded" {
					claims.dead = true
					panic(errCrash)
				}
			}
			if err := f.try(claimsOf(claims), f.hour(0), f.worker.Asked(nil)); err == nil || !claims.dead {
				t.Fatalf("it did not crash: %v", err)
			}
			f.at = func(string) {}
			f.wantPoints(want)
			if err := f.try(f.index, f.hour(0), f.worker.Asked(nil)); err != nil { // once the lease has expired
				t.Fatal(err)
			}
			f.wantPoints(want)
			f.wantShards(f.hour(0), 2)
		})
	}
}

// TestMetricsLostLeases has other workers do the work while a first and a second one still think that they have the lease.
func TestMetricsLostLeases(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t, smallShards)
	for i := range 3 {
		f.ingest(f.scrapes(0, 20*i, 20, 5))
	}
	want := f.answered()
	slow := &deaf{fixture: f.fixture}
	lapsed := 0
	f.at = func(at string) {
		if at != "segment-uploaded" || lapsed == 2 {
			return
		}
		if lapsed++; lapsed == 1 {
			if err := f.try(claimsOf(slow), f.hour(0), f.worker.Asked(nil)); !errors.Is(err, fault.Conflict) {
				t.Errorf("the second one: got %v", err)
			}
			return
		}
		f.compactByAnother()
	}
	if err := f.try(claimsOf(slow), f.hour(0), f.worker.Asked(nil)); !errors.Is(err, fault.Conflict) {
		t.Errorf("the first one: got %v", err)
	}
	if lapsed != 2 {
		t.Errorf("%d leases lapsed", lapsed)
	}
	f.wantPoints(want)
	f.wantShards(f.hour(0), 2)
}

func TestMetricsWhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t)
	f.put("raw/acme/c/k", false, f.scrapes(0, 0, 20, 2))
	f.ingest(f.scrapes(0, 20, 20, 2))
	var d lake.Delete
	f.at = func(at string) {
		if at != "merged" {
			return
		}
		f.at = func(string) {}
		f.put("raw/acme/c/k", true, f.scrapes(0, 0, 5, 1))
		f.ingest(f.scrapes(0, 40, 5, 1))
		d = f.deletePoints(`latency_bucket{pod="p0",le="0.5"}`)
	}
	f.compact(f.hour(0))
	want := f.answered()
	if len(want) != 4*(2*20+5+5)+2*20+5+5 { // and exemplars
		t.Errorf("%d points and exemplars", len(want))
	}
	f.due(f.hour(0)) // the delete goes first
	report := f.compact(f.hour(0))
	f.wantPoints(withoutLatency(want, "p0", d.End))
	if segments := f.segments(); len(segments) != 1 || len(segments[0].MaskedSources) > 0 || len(f.answer().Deletes) > 0 {
		t.Errorf("%+v, %+v", report.Account, segments)
	}
}

// withoutLatency are the lines but for those of the latencies of a pod before a time.
func withoutLatency(lines []string, pod string, end time.Time) []string {
	return slices.DeleteFunc(lines, func(line string) bool {
		var at int64
		_, after, _ := strings.Cut(line, " classic ")
		_, err := fmt.Sscan(after, &at)
		return err == nil && strings.Contains(line, fmt.Sprintf("\"latency\", pod=%q", pod)) && at < end.UnixNano()
	})
}

func (f metricFixture) deletePoints(selector string) lake.Delete {
	f.t.Helper()
	d, err := f.index.CreateDelete(f.t.Context(), lake.Delete{
		Organization: org, Signal: lake.SignalMetrics, Selector: selector, Start: f.start, End: f.start.Add(100 * time.Second), Sources: lake.SourceLeave, Actor: "test",
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return d
}

func TestMetricsDeletes(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t, smallShards)
	source := f.ingest(f.scrapes(0, 0, 40, 6))
	f.compact(f.hour(0))
	want, before := f.answered(), f.segments()
	d := f.deletePoints(`{__name__="latency_count", pod="p3"}`)
	f.due(f.hour(0))
	f.wantPoints(withoutLatency(want, "p3", d.End))
	if marks := f.count("lakerunner.compactor.marks"); len(before) < 2 || marks != int64(len(before)-1) {
		t.Errorf("of %d segments %d were marked", len(before), marks)
	}
	progress, err := f.index.DeleteProgress(t.Context(), d.ID)
	if err != nil || progress.SegmentsLeft != 0 || progress.RowsDeleted != 10 {
		t.Errorf("%+v, %v", progress, err)
	}
	sources, err := f.index.DeleteSources(t.Context(), d.ID, 0, 10)
	if err != nil || len(sources) != 1 || sources[0].Receipt.ID != source || sources[0].Rows != 10 {
		t.Errorf("%+v, %v", sources, err)
	}
}

func TestI11MetricsWithMissingFiles(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t)
	for i := range 4 {
		f.ingest(f.scrapes(0, 5*i, 5, 2))
	}
	segments := f.segments()
	if err := errors.Join(f.bucket.Delete(t.Context(), segments[1].Key), f.bucket.Delete(t.Context(), lake.SidecarKey(segments[2].Key))); err != nil {
		t.Fatal(err)
	}
	report := f.compact(f.hour(0))
	left := f.segments()
	if report.Account.In != 3*5*2*4 || len(left) != 2 || !slices.ContainsFunc(left, func(s lake.Segment) bool { return s.ID == segments[1].ID }) {
		t.Errorf("%+v, %d segments", report.Account, len(left))
	}
	missing, err := f.index.Missing(t.Context(), org, 10)
	if err != nil || len(missing) != 1 || missing[0].ID != segments[1].ID {
		t.Errorf("%+v, %v", missing, err)
	}
}

func TestI10ADifferenceOfPointsIsLoud(t *testing.T) {
	t.Parallel()
	for name, corrupt := range map[string]func(f metricFixture, s lake.Segment){
		"a segment of other points": func(f metricFixture, s lake.Segment) {
			other := f.segments()[1]
			f.store(s.Key, f.read(other.Key))
			f.store(lake.SidecarKey(s.Key), f.read(lake.SidecarKey(other.Key)))
		},
		"the sidecar of another one": func(f metricFixture, s lake.Segment) {
			f.store(lake.SidecarKey(s.Key), f.read(lake.SidecarKey(f.segments()[1].Key)))
		},
		"bytes that are damaged": func(f metricFixture, s lake.Segment) {
			content := f.read(s.Key)
			for i := 100; i < len(content)-1000; i++ {
				content[i] ^= 0x55
			}
			f.store(s.Key, content)
		},
		"half a file": func(f metricFixture, s lake.Segment) {
			content := f.read(s.Key)
			f.store(s.Key, content[:len(content)/2])
		},
	} {
		t.Run(name+" fails the task loudly and changes nothing", func(t *testing.T) {
			t.Parallel()
			f := newMetricFixture(t)
			f.ingest(f.scrapes(0, 0, 20, 2))
			f.ingest(f.scrapes(0, 20, 20, 2))
			before := f.segments()
			corrupt(f, before[0])
			err := f.try(f.index, f.hour(0), f.worker.Asked(nil))
			if !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "conservation") {
				t.Errorf("got %v", err)
			}
			if n := f.count("lakerunner.compactor.conservation_failures"); n != 1 {
				t.Errorf("%d failures were counted", n)
			}
			if diff := cmp.Diff(before, f.segments()); diff != "" {
				t.Error(diff)
			}
			f.scratchIsEmpty()
		})
	}
}

func TestMetricsWithLittleMemoryAreMergedInParts(t *testing.T) {
	t.Parallel()
	f := newMetricFixture(t, func(c *work.Config) { c.Memory = 13 << 20 }) // for an output, and a few inputs
	for i := range 24 {
		f.ingest(f.scrapes(0, 5*i, 5, 2))
	}
	want := f.answered()
	report := f.compact(f.hour(0))
	f.wantPoints(want)
	if n := len(f.segments()); len(report.Plan.Merges) != 1 || n < 2 || n > 8 {
		t.Errorf("%d merges left %d segments", len(report.Plan.Merges), n)
	}
	f.compact(f.hour(0))
	f.wantPoints(want)
	f.wantShards(f.hour(0), 0)
}
