// SPDX-License-Identifier: AGPL-3.0-only

package prom_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/prom"
)

// bits makes values comparable: NaNs by their bits.
func bits(values []float64) []string {
	var texts []string
	for _, v := range values {
		texts = append(texts, fmt.Sprintf("%016x", math.Float64bits(v)))
	}
	return texts
}

// flat is a series as text, by bits.
func flat(s *prom.Series) string {
	var b strings.Builder
	fmt.Fprintln(&b, s.Labels, s.Delta, s.Times, bits(s.Values), s.Starts, s.HistogramTimes, s.HistogramStarts)
	for _, h := range s.Histograms {
		fmt.Fprintln(&b, h.CounterResetHint, h.Schema, bits([]float64{h.ZeroThreshold, h.ZeroCount, h.Count, h.Sum}),
			h.PositiveSpans, bits(h.PositiveBuckets), h.NegativeSpans, bits(h.NegativeBuckets), bits(h.CustomValues))
	}
	return b.String()
}

func roundTrip(t *testing.T, series []prom.Series) (back []prom.Series, batches int) {
	t.Helper()
	err := prom.EncodeSeries(series, func(batch arrow.RecordBatch) (err error) {
		batches++
		back, err = prom.DecodeSeries(back, batch)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return back, batches
}

func TestSeriesComeBackBitByBit(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	odd := []float64{0, math.Copysign(0, -1), math.Inf(1), math.NaN(), math.Float64frombits(value.StaleNaN), math.Float64frombits(0xfff8000000000123), 1e300}
	var series []prom.Series
	for i := range 40 {
		s := prom.Series{Labels: labels.FromStrings("__name__", "x", "utf8.name", "ä", "n", fmt.Sprint(i)), Delta: i%3 == 0}
		for n := range r.IntN(300) {
			s.Times, s.Values = append(s.Times, int64(n)*15_000+int64(i%2)*int64(r.IntN(100))), append(s.Values, odd[r.IntN(len(odd))])
			if i%5 == 0 {
				s.Starts = append(s.Starts, int64(r.IntN(2)))
			}
		}
		for n := range r.IntN(20) {
			s.HistogramTimes = append(s.HistogramTimes, int64(n)*1000)
			h := &histogram.FloatHistogram{
				CounterResetHint: histogram.CounterResetHint(r.IntN(4)), Schema: int32(r.IntN(12) - 4), ZeroThreshold: 0.001, ZeroCount: 3,
				Count: odd[r.IntN(len(odd))], Sum: odd[r.IntN(len(odd))],
				PositiveSpans: []histogram.Span{{Offset: -3, Length: 2}, {Offset: 5, Length: 1}}, PositiveBuckets: []float64{1, 2.5, 3},
			}
			if n%2 == 0 {
				h.Schema, h.CustomValues, h.NegativeSpans, h.NegativeBuckets = -53, []float64{0.1, 1, 10}, []histogram.Span{{Length: 1}}, []float64{7}
			}
			s.Histograms = append(s.Histograms, h)
			if i%4 == 0 {
				s.HistogramStarts = append(s.HistogramStarts, int64(n))
			}
		}
		series = append(series, s)
	}
	back, _ := roundTrip(t, series)
	if len(back) != len(series) {
		t.Fatalf("%d series of %d", len(back), len(series))
	}
	for i := range series {
		if diff := cmp.Diff(flat(&series[i]), flat(&back[i])); diff != "" {
			t.Fatalf("series %d: %s", i, diff)
		}
	}
}

func TestLongSeriesTakeSeveralRowsAndCountAsOne(t *testing.T) {
	t.Parallel()
	s := prom.Series{Labels: labels.FromStrings("__name__", "long")}
	for i := range 300_000 {
		s.Times, s.Values, s.Starts = append(s.Times, int64(i)*1000+int64(i%7)), append(s.Values, float64(i)), append(s.Starts, int64(i))
	}
	for i := range 30_000 {
		s.HistogramTimes = append(s.HistogramTimes, int64(i))
		s.Histograms = append(s.Histograms, &histogram.FloatHistogram{Count: float64(i), PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, 2}})
	}
	back, batches := roundTrip(t, []prom.Series{s, {Labels: labels.FromStrings("__name__", "short"), Times: []int64{1}, Values: []float64{2}}})
	if batches < 5 || len(back) != 2 {
		t.Fatalf("%d series in %d batches", len(back), batches)
	}
	if flat(&back[0]) != flat(&s) {
		t.Fatal("the long series is another")
	}
}

func TestCatalogueComesBack(t *testing.T) {
	t.Parallel()
	entries := []prom.Entry{{labels.FromStrings("__name__", "x"), 1, 2, 3, 4}, {labels.FromStrings("__name__", "y", "a", "b"), 5, 6, 7, 8}}
	metrics := []prom.Metric{{"x", "counter", "bytes", "What it is.", 1, 2, 3}, {Name: "y"}}
	exemplars := []prom.Exemplar{{labels.FromStrings("__name__", "x"), labels.FromStrings("trace_id", "1"), 0.5, 7}}
	var e []prom.Entry
	var m []prom.Metric
	var x []prom.Exemplar
	for _, err := range []error{
		prom.EncodeEntries(entries, func(b arrow.RecordBatch) (err error) { e, err = prom.DecodeEntries(e, b); return err }),
		prom.EncodeMetrics(metrics, func(b arrow.RecordBatch) (err error) { m, err = prom.DecodeMetrics(m, b); return err }),
		prom.EncodeExemplars(exemplars, func(b arrow.RecordBatch) (err error) { x, err = prom.DecodeExemplars(x, b); return err }),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(fmt.Sprint(entries, metrics, exemplars), fmt.Sprint(e, m, x)); diff != "" {
		t.Fatal(diff)
	}
	if _, err := prom.DecodeSeries(nil, batchOf(t, entries)); err == nil {
		t.Fatal("entries were taken for series")
	}
}

func batchOf(t *testing.T, entries []prom.Entry) (batch arrow.RecordBatch) {
	t.Helper()
	err := prom.EncodeEntries(entries, func(b arrow.RecordBatch) error {
		b.Retain()
		batch = b
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(batch.Release)
	return batch
}
