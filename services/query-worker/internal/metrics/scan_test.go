// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/selector"
)

var hour = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// at is a stamp some seconds after the hour.
func at(seconds int, source lake.ReceiptID) metricfile.Stamp {
	return metricfile.Stamp{Time: hour.Add(time.Duration(seconds) * time.Second).UnixNano(), Source: source}
}

func float(name string, pairs ...string) *metricfile.Series {
	return &metricfile.Series{Labels: labels.FromStrings(append([]string{"__name__", name}, pairs...)...), Kind: metricfile.KindFloat}
}

// samplesOf asks for samples and returns them sorted, as text.
func samplesOf(t *testing.T, s *Scan, q Samples) (string, error) {
	t.Helper()
	if q.End == 0 {
		q.End = math.MaxInt64
	}
	var series []prom.Series
	err := s.Samples(t.Context(), q, func(b arrow.RecordBatch) (err error) {
		series, err = prom.DecodeSeries(series, b)
		return err
	})
	var lines []string
	for _, one := range prom.Sorted(series) {
		var b strings.Builder
		fmt.Fprint(&b, one.Labels)
		if one.Delta {
			fmt.Fprint(&b, " delta")
		}
		for i, ms := range one.Times {
			fmt.Fprintf(&b, " %g@%g", one.Values[i], float64(ms-hour.UnixMilli())/1000)
			if one.Starts != nil {
				fmt.Fprintf(&b, "(%g)", float64(one.Starts[i]-hour.UnixMilli())/1000)
			}
		}
		for i, ms := range one.HistogramTimes {
			fmt.Fprintf(&b, " %s@%g", one.Histograms[i], float64(ms-hour.UnixMilli())/1000)
		}
		lines = append(lines, b.String())
	}
	return strings.Join(lines, "\n"), err
}

func wantSamples(t *testing.T, s *Scan, q Samples, want ...string) {
	t.Helper()
	got, err := samplesOf(t, s, q)
	if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
}

func TestPointsOfOneTime(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	x := float("x")
	one, other := metricfile.NewStore(), metricfile.NewStore()
	put := func(st *metricfile.Store, v float64, stamp metricfile.Stamp, after time.Duration) {
		stamp.Time += after.Nanoseconds()
		st.Float(st.Series(x), stamp, v)
	}
	put(one, 1, at(0, 2), 0)
	put(other, 2, at(0, 1), 0) // of the lower source
	put(one, 3, at(10, 1), 0)
	put(one, 4, at(10, 2), 0) // in one segment
	put(one, 5, at(20, 1), 0)
	put(other, 6, at(20, 1), 100*time.Microsecond) // later within the millisecond
	put(other, 7, at(30, 1), 0)
	put(one, 7, at(30, 1), 0) // the same twice
	put(one, 8, at(40, 1), 999*time.Microsecond)
	l.write(t, one, 1)
	l.write(t, other, 1)
	wantSamples(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("__name__", "x")}}, `{__name__="x"} 2@0 3@10 6@20 7@30 8@40`)
}

func TestPointsOfOneTimeAndSourceAreDecidedByTheirHash(t *testing.T) {
	t.Parallel()
	var answers []string
	for _, order := range [][]float64{{1, 2}, {2, 1}} {
		l := newLab(t, Options{})
		for _, v := range order {
			st := metricfile.NewStore()
			st.Float(st.Series(float("x")), at(0, 1), v)
			l.write(t, st, 1)
		}
		got, err := samplesOf(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("__name__", "x")}})
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, got)
	}
	if answers[0] != answers[1] || !strings.HasSuffix(answers[0], "@0") {
		t.Fatal(answers)
	}
}

func TestHiddenPoints(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	st := metricfile.NewStore()
	for i := range 6 {
		st.Float(st.Series(float("x", "job", "a")), at(10*i, lake.ReceiptID(1+i%2)), float64(i))
		st.Float(st.Series(float("x", "job", "b")), at(10*i, 1), float64(i))
	}
	l.write(t, st, 1)
	q := Samples{Matchers: []*labels.Matcher{matcher("__name__", "x")}}
	parsed, err := selector.ParseSeries(`x{job="a"}`)
	if err != nil {
		t.Fatal(err)
	}
	some := Delete{Number: 5, Selector: parsed, Start: at(10, 0).Time, End: at(30, 0).Time}
	all := Delete{Number: 5, Selector: parsed, Start: 0, End: math.MaxInt64}
	b := `{__name__="x", job="b"} 0@0 1@10 2@20 3@30 4@40 5@50`
	t.Run("of deletes", func(t *testing.T) {
		t.Parallel()
		wantSamples(t, l.scan(t, some), q, `{__name__="x", job="a"} 0@0 3@30 4@40 5@50`, b)
		wantSamples(t, l.scan(t, all), q, b)
	})
	t.Run("of deletes that were applied", func(t *testing.T) {
		t.Parallel()
		s := l.scan(t, all)
		s.segments[0].Applied = 5
		wantSamples(t, s, q, `{__name__="x", job="a"} 0@0 1@10 2@20 3@30 4@40 5@50`, b)
	})
	t.Run("of masked sources", func(t *testing.T) {
		t.Parallel()
		s := l.scan(t)
		s.segments[0].Masked = []lake.ReceiptID{1}
		wantSamples(t, s, q, `{__name__="x", job="a"} 1@10 3@30 5@50`)
	})
	t.Run("in evaluations", func(t *testing.T) {
		t.Parallel()
		for text, want := range map[string]float64{`sum(sum_over_time(x[1m]))`: 27, `count(x)`: 2, `sum(rate(x[1m])) - sum(rate(x[1m]))`: 0} {
			s := l.scan(t, some)
			if got := value1(t, s, text, hour.UnixMilli()+50_000); got != want {
				t.Errorf("%s: got %v, want %v", text, got, want)
			}
		}
	})
}

// value1 evaluates an expression that gives one value.
func value1(t *testing.T, s *Scan, text string, at int64) float64 {
	t.Helper()
	series, _, err := s.evaluate(t.Context(), vectorOf(t, text, at, at, 0))
	if err != nil || len(series) != 1 || len(series[0].Values) != 1 {
		t.Fatalf("%s: %v, %v", text, series, err)
	}
	return series[0].Values[0]
}

func vectorOf(t testing.TB, text string, start, end, step int64) *Vector {
	t.Helper()
	expr, err := prom.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return &Vector{Text: text, Expr: expr, Start: start, End: end, Step: step, Lookback: 300_000}
}

func TestSeriesOfHistogramsAndSummaries(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	st := metricfile.NewStore()
	h := &metricfile.Series{Labels: labels.FromStrings("__name__", "h"), Kind: metricfile.KindClassic, Bounds: []float64{0.005, 10}}
	bare := &metricfile.Series{Labels: labels.FromStrings("__name__", "bare"), Kind: metricfile.KindClassic, NoSum: true}
	s := &metricfile.Series{Labels: labels.FromStrings("__name__", "s"), Kind: metricfile.KindSummary, Bounds: []float64{0.99}}
	stamp := at(0, 1)
	st.Classic(st.Series(h), stamp, 6, 7.5, []uint64{1, 2, 3})
	st.Classic(st.Series(bare), stamp, 4, 0, []uint64{4})
	st.Summary(st.Series(s), stamp, 3, 1.5, []float64{0.25})
	st.Classic(st.Series(h), at(10, 1), 0, staleNaN, []uint64{0, 0, 0})
	l.write(t, st, 1)
	wantSamples(t, l.scan(t), Samples{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")}},
		`{__name__="bare_bucket", le="+Inf"} 4@0`, `{__name__="bare_count"} 4@0`,
		`{__name__="h_bucket", le="+Inf"} 6@0 NaN@10`, `{__name__="h_bucket", le="0.005"} 1@0 NaN@10`, `{__name__="h_bucket", le="10"} 3@0 NaN@10`,
		`{__name__="h_count"} 6@0 NaN@10`, `{__name__="h_sum"} 7.5@0 NaN@10`,
		`{__name__="s", quantile="0.99"} 0.25@0`, `{__name__="s_count"} 3@0`, `{__name__="s_sum"} 1.5@0`)
	wantSamples(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("__name__", "h_bucket"), matcher("le", "10")}}, `{__name__="h_bucket", le="10"} 3@0 NaN@10`)
	wantSamples(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("__name__", "h")}}, ``)
}

func TestStartsOfDeltasAndWhereAskedFor(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	st := metricfile.NewStore()
	delta := float("d")
	delta.Delta = true
	stamp := at(20, 1)
	stamp.Start = at(10, 1).Time
	st.Float(st.Series(delta), stamp, 1)
	st.Float(st.Series(float("c")), stamp, 2)
	l.write(t, st, 1)
	q := Samples{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", "c|d")}}
	wantSamples(t, l.scan(t), q, `{__name__="c"} 2@20`, `{__name__="d"} delta 1@20(10)`)
	q.Starts = true
	wantSamples(t, l.scan(t), q, `{__name__="c"} 2@20(10)`, `{__name__="d"} delta 1@20(10)`)
}

func TestShardsPartAllSeries(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	st := metricfile.NewStore()
	for i := range 50 {
		st.Float(st.Series(float("x", "i", fmt.Sprint(i))), at(0, 1), float64(i))
		st.Float(st.Series(float("x", "i", fmt.Sprint(i))), at(3600, 1), float64(i))
	}
	l.write(t, st, 4)
	whole, err := samplesOf(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("__name__", "x")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []uint32{2, 4, 8} {
		var parts []string
		for index := range count {
			got, err := samplesOf(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("__name__", "x")}, Shard: lake.Shard{Index: index, Count: count}})
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, strings.Split(got, "\n")...)
		}
		want := strings.Split(whole, "\n")
		slices.Sort(parts)
		slices.Sort(want)
		if diff := cmp.Diff(want, parts); diff != "" || len(want) != 50 {
			t.Fatal(count, diff)
		}
	}
}

// manySeries has a sample of each of n series every ten seconds of an hour.
func manySeries(t testing.TB, o Options, n int) *lab {
	t.Helper()
	l := newLab(t, o)
	st := metricfile.NewStore()
	for i := range n {
		id := st.Series(float("x_total", "i", fmt.Sprint(i)))
		for k := range 360 {
			st.Float(id, at(10*k, 1), float64(k*i))
		}
	}
	l.write(t, st, 1)
	return l
}

func TestLimits(t *testing.T) {
	t.Parallel()
	l := manySeries(t, Options{MaxSeries: 150, MaxSamples: 40_000, Memory: 1 << 18}, 200)
	start, end := hour.UnixMilli(), hour.Add(time.Hour).UnixMilli()
	few := `x_total{i=~"1."}`
	for name, c := range map[string]struct {
		text, want string
		samples    int64
	}{
		"series":            {`x_total`, "max_query_series", 0},
		"series, by engine": {`x_total + 1`, "max_query_series", 0},
		"samples":           {`sum(rate(x_total{i=~"1.*"}[1m]))`, "max_query_series", 0},
		"a few samples":     {`sum(rate(` + few + `[1m]))`, "max_query_samples", 100},
		"held by engine":    {`abs(` + few + `)`, "too many samples", 100},
		"memory":            {`rate(x_total{i=~"1.?.?"}[1m]) * 2`, "scan_memory", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := vectorOf(t, c.text, start, end, 1000)
			q.MaxSamples = c.samples
			s := l.scan(t)
			if name == "samples" || name == "memory" {
				s.maxSeries = 1000
			}
			if name == "samples" {
				c.want = "max_query_samples"
				s.maxSamples = 30_000
			}
			if name == "memory" {
				s.maxSamples = 0
			}
			_, err := s.Vector(t.Context(), *q, func(arrow.RecordBatch) error { return nil })
			if !errors.Is(err, fault.Exhausted) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
	if _, err := samplesOf(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("i", "7")}, MaxSamples: 359}); !errors.Is(err, fault.Exhausted) {
		t.Fatalf("got %v", err)
	}
	if _, err := samplesOf(t, l.scan(t), Samples{Matchers: []*labels.Matcher{matcher("i", "7")}, MaxSamples: 360}); err != nil {
		t.Fatal(err)
	}
}

func TestCancelledScanEndsSoon(t *testing.T) {
	t.Parallel()
	l := manySeries(t, Options{}, 2000)
	start, end := hour.UnixMilli(), hour.Add(time.Hour).UnixMilli()
	for _, text := range []string{`sum(stddev_over_time(x_total[50m]))`, `sum(quantile_over_time(0.5, x_total[50m]))`} {
		ctx, cancel := context.WithCancel(t.Context())
		s := l.scanner.Begin(ctx, l.segments, 0)
		t.Cleanup(s.End)
		began := time.Now()
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := s.Vector(ctx, *vectorOf(t, text, start, end, 330), func(arrow.RecordBatch) error { return nil })
		if took := time.Since(began); !errors.Is(err, fault.Canceled) && !errors.Is(err, context.Canceled) || took > 5*time.Second {
			t.Fatalf("%s: %v after %s", text, err, took)
		}
	}
}

func TestMissingAndDamagedSegments(t *testing.T) {
	t.Parallel()
	q := Samples{Matchers: []*labels.Matcher{matcher("i", "7")}}
	t.Run("a segment that is gone", func(t *testing.T) {
		t.Parallel()
		l := manySeries(t, Options{}, 10)
		if err := os.Remove(filepath.Join(l.dir, l.segments[0].File.Key)); err != nil {
			t.Fatal(err)
		}
		if _, err := samplesOf(t, l.scan(t), q); !errors.Is(err, fault.MissingSegment) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a sidecar that is gone", func(t *testing.T) {
		t.Parallel()
		l := manySeries(t, Options{}, 10)
		if err := os.Remove(filepath.Join(l.dir, l.segments[0].Sidecar.Key)); err != nil {
			t.Fatal(err)
		}
		if _, err := samplesOf(t, l.scan(t), q); !errors.Is(err, fault.MissingSegment) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a sidecar that is damaged", func(t *testing.T) {
		t.Parallel()
		l := manySeries(t, Options{}, 10)
		path := filepath.Join(l.dir, l.segments[0].Sidecar.Key)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2]++
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := samplesOf(t, l.scan(t), q); !errors.Is(err, fault.Internal) && fault.KindOf(err) != fault.Internal {
			t.Fatalf("got %v", err)
		}
	})
}

func TestLittleOfALargeSegmentIsFetched(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{RangedFrom: 1 << 20})
	st := metricfile.NewStore()
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 2000 {
		id := st.Series(float("x", "i", fmt.Sprint(i)))
		for k := range 100 {
			st.Float(id, at(30*k, 1), r.NormFloat64())
		}
	}
	l.write(t, st, 1)
	size := l.segments[0].File.Bytes
	if size < 1<<20 {
		t.Fatalf("the segment has %d bytes", size)
	}
	s := l.scan(t)
	if got, err := samplesOf(t, s, Samples{Matchers: []*labels.Matcher{matcher("i", "1234")}}); err != nil || strings.Count(got, "@") != 100 {
		t.Fatal(got, err)
	}
	if fetched := s.Statistics.Cache.Bytes(); fetched > size/4 {
		t.Fatalf("%d bytes of %d were fetched", fetched, size)
	}
	whole := l.scan(t)
	if got, err := samplesOf(t, whole, Samples{Matchers: []*labels.Matcher{matcher("__name__", "x")}}); err != nil || strings.Count(got, "@") != 200_000 {
		t.Fatal(err)
	}
}

func TestCatalogues(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	st := metricfile.NewStore()
	family := func(s *metricfile.Series, kind model.MetricType, unit, help string) *metricfile.Series {
		s.Family = metricfile.Family{Type: kind, Unit: unit, Help: help}
		return s
	}
	h := family(&metricfile.Series{Labels: labels.FromStrings("__name__", "h"), Kind: metricfile.KindClassic, Bounds: []float64{1}}, "histogram", "seconds", "How long.")
	for i := range 2 {
		for k := range 3 {
			row := st.Float(st.Series(family(float("x", "i", fmt.Sprint(i)), "gauge", "", "What.")), at(3600*k, 1), 1)
			st.Exemplar(row, metricfile.Exemplar{Labels: labels.FromStrings("trace_id", fmt.Sprint(i, k)), Value: 0.5, Time: at(3600*k+1, 1).Time})
		}
	}
	row := st.Classic(st.Series(h), at(0, 1), 3, 1, []uint64{1, 2})
	st.Exemplar(row, metricfile.Exemplar{Labels: labels.FromStrings("trace_id", "h"), Value: 7, Time: at(0, 1).Time, Track: 1})
	l.write(t, st, 2)
	begin, until := hour.UnixMilli(), hour.Add(2*time.Hour).UnixMilli()

	t.Run("series", func(t *testing.T) {
		t.Parallel()
		var entries []prom.Entry
		q := Catalogue{Start: begin, End: until, Selectors: [][]*labels.Matcher{{matcher("__name__", "x")}, {matcher("__name__", "h_bucket")}, {matcher("i", "1")}}}
		if err := l.scan(t).Series(t.Context(), q, func(b arrow.RecordBatch) (err error) { entries, err = prom.DecodeEntries(entries, b); return err }); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprint(e.Labels, e.Samples, e.Bytes > 0, e.First-begin, e.Last-begin))
		}
		want := []string{`{__name__="h_bucket", le="+Inf"} 1 true 0 0`, `{__name__="h_bucket", le="1"} 1 true 0 0`, `{__name__="x", i="0"} 3 true 0 7200000`, `{__name__="x", i="1"} 3 true 0 7200000`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		q.MaxSeries = 3
		if err := l.scan(t).Series(t.Context(), q, nil); !errors.Is(err, fault.Exhausted) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		t.Parallel()
		var metrics []prom.Metric
		if err := l.scan(t).Metrics(t.Context(), Catalogue{Start: begin, End: until}, func(b arrow.RecordBatch) (err error) { metrics, err = prom.DecodeMetrics(metrics, b); return err }); err != nil {
			t.Fatal(err)
		}
		for i := range metrics {
			if metrics[i].Bytes == 0 {
				t.Fatalf("%v has no bytes", metrics[i])
			}
			metrics[i].Bytes = 0
		}
		want := []prom.Metric{{Name: "h", Type: "histogram", Unit: "seconds", Help: "How long.", Series: 4, Samples: 4}, {Name: "x", Type: "gauge", Help: "What.", Series: 2, Samples: 6}}
		if diff := cmp.Diff(want, metrics); diff != "" {
			t.Fatal(diff)
		}
	})
	t.Run("exemplars", func(t *testing.T) {
		t.Parallel()
		var exemplars []prom.Exemplar
		q := Catalogue{Start: begin, End: begin + 3_602_000, Selectors: [][]*labels.Matcher{{matcher("i", "1")}, {matcher("__name__", "h_bucket")}}}
		if err := l.scan(t).Exemplars(t.Context(), q, func(b arrow.RecordBatch) (err error) { exemplars, err = prom.DecodeExemplars(exemplars, b); return err }); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range exemplars {
			got = append(got, fmt.Sprint(e.Series, e.Labels, e.Value, e.Time-begin))
		}
		want := []string{
			`{__name__="h_bucket", le="+Inf"} {trace_id="h"} 7 0`, `{__name__="x", i="1"} {trace_id="1 0"} 0.5 1000`, `{__name__="x", i="1"} {trace_id="1 1"} 0.5 3601000`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestNativeHistogramsKeepTheirHintsAtTheBorderOfSegments(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	st := metricfile.NewStore()
	s := &metricfile.Series{Labels: labels.FromStrings("__name__", "n"), Kind: metricfile.KindHistogram}
	for i, count := range []float64{10, 20, 5, 15} {
		h := &histogram.FloatHistogram{Count: count, Sum: count, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []float64{count}}
		st.Histogram(st.Series(s), at(1200*i, 1), h)
	}
	l.write(t, st, 1)
	var series []prom.Series
	q := Samples{Matchers: []*labels.Matcher{matcher("__name__", "n")}, Start: at(1200, 1).Time / 1e6, End: math.MaxInt64}
	if err := l.scan(t).Samples(t.Context(), q, func(b arrow.RecordBatch) (err error) { series, err = prom.DecodeSeries(series, b); return err }); err != nil {
		t.Fatal(err)
	}
	var hints []histogram.CounterResetHint
	for _, h := range series[0].Histograms {
		hints = append(hints, h.CounterResetHint)
	}
	want := []histogram.CounterResetHint{histogram.NotCounterReset, histogram.UnknownCounterReset, histogram.NotCounterReset}
	if diff := cmp.Diff(want, hints); diff != "" {
		t.Fatal(diff)
	}
}
