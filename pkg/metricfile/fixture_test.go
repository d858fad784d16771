// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// rewrite makes the fixtures of the present format version; those of earlier ones are never written again.
var rewrite = flag.Bool("rewrite", false, "write the fixtures of the present format version")

// TestFixtures reads segments of every format version there ever was.
func TestFixtures(t *testing.T) {
	t.Parallel()
	if *rewrite {
		st := NewStore()
		fill(st, fixturePlots())
		save(t, fixtureName(FormatVersion, "points"), write(t, st, allRows(st), fixtureMeta()))
		save(t, fixtureName(FormatVersion, "rollups"), writeRollups(t, []*rolled{fixtureRollup()}, fixtureRollupMeta()))
	}
	for version := 1; version <= FormatVersion; version++ {
		points := load(t, fixtureName(version, "points"))
		checkRows(t, points, fixturePlots())
		if diff := gocmp.Diff(fixtureMeta(), points.catalogue.Meta); diff != "" || points.catalogue.FormatVersion != version {
			t.Errorf("version %d: %s", points.catalogue.FormatVersion, diff)
		}
		checkFixture(t, points, fixturePointsHash)

		rollups := load(t, fixtureName(version, "rollups"))
		var got Rollup
		if err := rollups.open(t).Rollup(0, &got); err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(&fixtureRollup().rollup, &got, compareBits(), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
		checkFixture(t, rollups, fixtureRollupsHash)
	}
}

// Row hashes are stored in databases: these may never change.
const (
	fixturePointsHash  = 0x4a7cc2058cfa909a
	fixtureRollupsHash = 0x1a6bf58dd3764e9
)

func checkFixture(t *testing.T, w *written, hash uint64) {
	t.Helper()
	r := verify(t, w)
	if len(r.Problems) > 0 || r.RowHash != hash || w.catalogue.RowHash != hash {
		t.Errorf("hash %#x, in the catalogue %#x, want %#x; problems %q", r.RowHash, w.catalogue.RowHash, hash, r.Problems)
	}
	_, sidecar, err := RebuildCatalogue(t.Context(), bytes.NewReader(w.parquet), int64(len(w.parquet)))
	if err != nil || len(sidecar) == 0 {
		t.Errorf("rebuilding the sidecar: %v", err)
	}
}

func fixtureName(version int, what string) string {
	return filepath.Join("testdata", fmt.Sprintf("v%d-%s.parquet", version, what))
}

func save(t *testing.T, name string, w *written) {
	t.Helper()
	for suffix, b := range map[string][]byte{"": w.parquet, lake.SidecarSuffix: w.sidecar} {
		if err := os.WriteFile(name+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func load(t *testing.T, name string) *written {
	t.Helper()
	var w written
	var err error
	if w.parquet, err = os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	if w.sidecar, err = os.ReadFile(name + lake.SidecarSuffix); err != nil {
		t.Fatal(err)
	}
	return read(t, &w)
}

// fixtureMeta, and all that follows, never changes.
func fixtureMeta() Meta {
	return Meta{
		Organization: "acme", Signal: lake.SignalMetrics, Window: lake.WindowOf(time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC), time.Hour), Level: 1, Lease: "01hzy",
		Sources: []lake.ReceiptID{11, 12}, Inputs: []string{"db/acme/metrics/a.parquet"}, AppliedDelete: 7, Rules: []string{"drop:password"},
	}
}

func fixtureRollupMeta() Meta {
	m := fixtureMeta()
	m.Resolution, m.Sources, m.Shard = time.Minute, nil, lake.Shard{Index: 0, Count: 2}
	return m
}

func fixturePlots() []*plot {
	start := fixtureMeta().Window.Start.UnixNano()
	var times, starts []int64
	var sources []lake.ReceiptID
	for i := range int64(40) {
		times, starts, sources = append(times, start+i*10e9+i%3), append(starts, start-3600e9), append(sources, lake.ReceiptID(11+i/20))
	}
	series := func(name string, kind Kind, family model.MetricType) Series {
		return Series{
			Labels: labels.FromStrings("Zone", "a", "__name__", name, "pod", "pod-1", "ünï cödé", "🦊"), Kind: kind,
			Family: Family{Type: family, Unit: "s", Help: "What it is."},
		}
	}
	points := func() Points { return Points{Times: times, Starts: starts, Sources: sources} }
	counter := &plot{Series: series("requests_total", KindFloat, model.MetricTypeCounter), points: points()}
	gauge := &plot{Series: series("temperature", KindFloat, model.MetricTypeGauge), points: points()}
	odd := &plot{Series: series("temperature", KindFloat, model.MetricTypeGauge), points: points()}
	odd.Labels, odd.points.Starts = labels.FromStrings("__name__", "temperature"), make([]int64, 40)
	sum := &plot{Series: series("seconds_total", KindFloat, model.MetricTypeCounter), points: points()}
	sum.Delta = true
	classic := &plot{Series: series("latency", KindClassic, model.MetricTypeHistogram), points: points()}
	classic.Bounds, classic.points.Buckets = []float64{0.1, 1}, make([][]uint64, 3)
	summary := &plot{Series: series("pauses", KindSummary, model.MetricTypeSummary), points: points()}
	summary.Bounds, summary.NoSum, summary.points.Quantiles = []float64{0.5, 0.99}, true, make([][]float64, 2)
	native := &plot{Series: series("native", KindHistogram, model.MetricTypeHistogram), points: points()}
	custom := &plot{Series: series("native_custom", KindHistogram, model.MetricTypeGaugeHistogram), points: points()}
	oddValues := []float64{stale, math.Copysign(0, -1), math.Inf(1), math.Float64frombits(0x7ff8000000000123), math.MaxFloat64, 5e-324, 1e15 + 0.5}
	for i := range 40 {
		n := float64(i)
		counter.points.Values = append(counter.points.Values, float64(i%25*17))
		gauge.points.Values = append(gauge.points.Values, 20+float64(i*i%7)/10)
		odd.points.Values = append(odd.points.Values, oddValues[i%len(oddValues)])
		sum.points.Values = append(sum.points.Values, n/3)
		classic.points.Values = append(classic.points.Values, n*1.25)
		classic.points.Counts = append(classic.points.Counts, uint64(6*i+3))
		for b := range classic.points.Buckets {
			classic.points.Buckets[b] = append(classic.points.Buckets[b], uint64(i*(b+1)+1))
		}
		summary.points.Values = append(summary.points.Values, 0)
		summary.points.Counts = append(summary.points.Counts, uint64(i))
		for q := range summary.points.Quantiles {
			summary.points.Quantiles[q] = append(summary.points.Quantiles[q], math.Sqrt(n)*float64(q+1))
		}
		native.points.Histograms = append(native.points.Histograms, fixtureHistogram(n))
		custom.points.Histograms = append(custom.points.Histograms, &histogram.FloatHistogram{
			CounterResetHint: histogram.GaugeType, Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1, 5}, Count: 6, Sum: n,
			PositiveSpans: []histogram.Span{{Length: 1}, {Offset: 1, Length: 1}}, PositiveBuckets: []float64{2, 4},
		})
	}
	classic.points.Values[39], classic.points.Counts[39] = stale, 0
	classic.points.Exemplars = []Exemplar{
		{Labels: labels.FromStrings("span_id", "xyz", "trace_id", "0123456789abcdef0123456789abcdef"), Value: 0.25, Time: times[3], Source: 11, Track: 1},
		{Labels: labels.EmptyLabels(), Value: 2, Time: times[30], Source: 12, Track: 2},
	}
	return []*plot{counter, gauge, odd, sum, classic, summary, native, custom}
}

func fixtureHistogram(n float64) *histogram.FloatHistogram {
	switch {
	case n == 20:
		return &histogram.FloatHistogram{Sum: stale}
	case n > 30: // more buckets
		return &histogram.FloatHistogram{
			Schema: 3, ZeroThreshold: 0.001, ZeroCount: 1, Count: 3*n + 2, Sum: n / 3, PositiveSpans: []histogram.Span{{Offset: -4, Length: 3}, {Offset: 2, Length: 1}},
			PositiveBuckets: []float64{n, n, n, 1},
		}
	}
	return &histogram.FloatHistogram{
		Schema: 3, ZeroThreshold: 0.001, ZeroCount: 0.5, Count: 2*n + 0.5, Sum: n / 3, PositiveSpans: []histogram.Span{{Offset: -3, Length: 1}},
		NegativeSpans: []histogram.Span{{Offset: 1, Length: 1}}, PositiveBuckets: []float64{n}, NegativeBuckets: []float64{n},
	}
}

func fixtureRollup() *rolled {
	start := fixtureMeta().Window.Start.UnixMilli()
	r := &rolled{Series: fixturePlots()[4].Series}
	r.Labels = labels.FromStrings("__name__", "latency", "pod", "pod-4")
	r.rollup.Tracks = make([]Track, r.NumTracks())
	for i := range int64(61) {
		end := start + i*60_000
		r.rollup.Ends, r.rollup.Counts = append(r.rollup.Ends, end), append(r.rollup.Counts, 6-i%2)
		r.rollup.FirstTimes, r.rollup.LastTimes = append(r.rollup.FirstTimes, end-50_000), append(r.rollup.LastTimes, end-i%2)
		r.rollup.StaleTimes, r.rollup.Sketches = append(r.rollup.StaleTimes, i/60*end), append(r.rollup.Sketches, []byte(fmt.Sprint("sketch ", i)))
		for k := range r.rollup.Tracks {
			t, first := &r.rollup.Tracks[k], float64(i%30)*float64(k+1)/3
			last := first + float64(k)
			t.First, t.Last, t.Increase = append(t.First, first), append(t.Last, last), append(t.Increase, last-first)
			t.Min, t.Max, t.Sum = append(t.Min, first), append(t.Max, last), append(t.Sum, 6*last)
		}
	}
	return r
}
