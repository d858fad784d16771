// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// benchmarkStore has an hour at 10 s, a tenth of it of classic histograms with 11 bounds: series of 15 labels, of 100 metrics.
func benchmarkStore(series, points int) *Store {
	rng := rand.New(rand.NewPCG(1, 1))
	st := NewStore()
	ids := make([]SeriesID, series)
	for i := range ids {
		pod := i % 128
		ls := []string{"__name__", fmt.Sprintf("some_service_metric_%d_total", i*100/series)}
		for k := range 14 {
			ls = append(ls, fmt.Sprintf("k8s_label_number_%d", k), fmt.Sprintf("value-of-it-%d-%d", k, pod>>(k%8)))
		}
		ls[3] = fmt.Sprint("pod-", i)
		s := &Series{Labels: labels.FromStrings(ls...), Family: Family{Type: model.MetricTypeCounter, Help: "What it is."}}
		if i%10 == 0 {
			s.Kind, s.Bounds = KindClassic, []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
		}
		ids[i] = st.Series(s)
	}
	values, buckets := make([]float64, series), make([][12]uint64, series)
	for p := range points {
		at := Stamp{Time: testStart.UnixNano() + int64(p)*10*int64(time.Second), Start: 1, Source: lake.ReceiptID(1 + p/6)}
		for i, id := range ids {
			if i%10 != 0 {
				values[i] += float64(rng.IntN(1 << (i % 20)))
				st.Float(id, at, values[i])
				continue
			}
			count := uint64(0)
			for k := range buckets[i] {
				buckets[i][k] += uint64(max(0, rng.IntN(20)-10-k))
				count += buckets[i][k]
			}
			values[i] += rng.Float64()
			st.Classic(id, at, count, values[i], buckets[i][:])
		}
	}
	return st
}

func BenchmarkStoreFloat(b *testing.B) {
	const series = 10_000
	st := NewStore()
	i := series << 7
	for b.Loop() {
		if i == series<<7 {
			b.StopTimer()
			st.Reset()
			for k := range series {
				st.Series(float("m", "i", fmt.Sprint(k)))
			}
			i = 0
			b.StartTimer()
		}
		st.Float(SeriesID(i%series), Stamp{Time: int64(i / series), Start: 1, Source: 7}, float64(i))
		i++
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, points := range []int{6, 60, 360} {
		b.Run(fmt.Sprint(points, " points of 2000 series"), func(b *testing.B) {
			st := benchmarkStore(2000, points)
			rows := allRows(st)
			m := testMeta()
			m.Shard, m.Level = lake.Shard{}, 0
			var w Written
			for b.Loop() {
				var err error
				if w, err = Write(b.Context(), io.Discard, io.Discard, st, rows, m); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(w.Samples), "ns/sample")
			b.ReportMetric(float64(w.Bytes+w.SidecarBytes)/float64(w.Samples), "B/sample")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, points := range []int{6, 360} {
		b.Run(fmt.Sprint(points, " points of 2000 series"), func(b *testing.B) {
			st := benchmarkStore(2000, points)
			m := testMeta()
			m.Shard = lake.Shard{}
			w := write(b, st, allRows(st), m)
			var p Points
			for b.Loop() {
				r := w.open(b)
				for i := range w.catalogue.Len() {
					if err := r.Points(i, WantTimes|WantValues, &p); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(w.Samples), "ns/sample")
		})
	}
}

func BenchmarkCatalogue(b *testing.B) {
	st := benchmarkStore(20_000, 1)
	m := testMeta()
	m.Shard = lake.Shard{}
	var parquet, sidecar bytes.Buffer
	if _, err := Write(b.Context(), &parquet, &sidecar, st, allRows(st), m); err != nil {
		b.Fatal(err)
	}
	c, err := ReadCatalogue(sidecar.Bytes())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := ReadCatalogue(sidecar.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(sidecar.Len())/float64(c.Len()), "B/series")
	})
	b.Run("select by two labels", func(b *testing.B) {
		matchers := []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchRegexp, "__name__", "some_service_metric_.*"),
			labels.MustNewMatcher(labels.MatchEqual, "k8s_label_number_3", "value-of-it-3-7"),
		}
		for b.Loop() {
			c.Select(matchers, lake.Shard{})
		}
	})
	b.Run("select a metric", func(b *testing.B) {
		matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "some_service_metric_7_total")}
		for b.Loop() {
			c.Select(matchers, lake.Shard{})
		}
	})
	b.Run("labels", func(b *testing.B) {
		for b.Loop() {
			for i := range c.Len() {
				c.Series(i)
			}
		}
	})
}

// BenchmarkRollup reads a day of buckets of an hour, as a panel over a year does 365 times.
func BenchmarkRollup(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var all []*rolled
	for i := range 1000 {
		r := &rolled{Series: *float(fmt.Sprint("m", i/100), "pod", fmt.Sprint("pod-", i))}
		track, value := Track{}, float64(rng.IntN(1e6))
		for k := range int64(24) {
			end := testStart.UnixMilli() + (k+1)*3600_000
			r.rollup.Ends, r.rollup.Counts = append(r.rollup.Ends, end), append(r.rollup.Counts, 360)
			r.rollup.FirstTimes, r.rollup.LastTimes = append(r.rollup.FirstTimes, end-3590_000), append(r.rollup.LastTimes, end)
			r.rollup.StaleTimes = append(r.rollup.StaleTimes, 0)
			last := value + float64(rng.IntN(1e5))
			track.First, track.Last, track.Increase = append(track.First, value), append(track.Last, last), append(track.Increase, last-value)
			track.Min, track.Max, track.Sum = append(track.Min, value), append(track.Max, last), append(track.Sum, 180*(value+last))
			value = last
		}
		r.rollup.Tracks = []Track{track}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *rolled) int { return Compare(&a.Series, &b.Series) })
	m := rollupMeta()
	m.Window, m.Resolution, m.Shard = lake.WindowOf(testStart.Add(24*time.Hour), 48*time.Hour), time.Hour, lake.Shard{}
	m.Window.Start = testStart.Truncate(24 * time.Hour)
	w := writeRollups(b, all, m)
	for name, want := range map[string]RollupColumns{"whole": WantWholeRollup, "last": WantLast, "increase": WantIncrease} {
		b.Run(name, func(b *testing.B) {
			var p Rollup
			for b.Loop() {
				r := w.open(b)
				for i := range w.catalogue.Len() {
					if err := r.RollupOnly(i, want, &p); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(all)), "ns/series")
			b.ReportMetric(float64(w.Bytes+w.SidecarBytes)/float64(w.Rows), "B/bucket")
		})
	}
}
