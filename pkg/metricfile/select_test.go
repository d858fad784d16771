// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// TestSelectFindsWhatItsSeriesSay holds Select against matching the labels of every Prometheus series.
func TestSelectFindsWhatItsSeriesSay(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 9))
	m := testMeta()
	m.Shard = lake.Shard{}
	st := NewStore()
	fill(st, plots(rng, 150, 3))
	w := write(t, st, allRows(st), m)
	found, parts := 0, 0
	for range 400 {
		matchers := drawMatchers(rng)
		shard := lake.Shard{Index: uint32(rng.IntN(4)), Count: 4}
		if rng.IntN(2) == 0 {
			shard = lake.Shard{}
		}
		var want []int
		for i := range w.catalogue.Len() {
			s := w.catalogue.Series(i)
			tracks := SelectTracks(s, matchers, nil)
			if shard.Holds(s.Hash()) && len(tracks) > 0 {
				want = append(want, i)
				found++
				if len(tracks) < s.NumTracks() {
					parts++
				}
			}
		}
		if got := w.catalogue.Select(matchers, shard); !slices.Equal(got, want) {
			t.Errorf("%v of shard %v: rows %v, want %v", matchers, shard, got, want)
		}
	}
	if found < 1000 || parts < 100 {
		t.Errorf("%d rows were found, %d with only some of their series: the test does not test much", found, parts)
	}
}

func drawMatchers(rng *rand.Rand) []*labels.Matcher {
	name := fmt.Sprint("metric_", rng.IntN(7))
	some := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "__name__", name+[]string{"", "_bucket", "_sum", "_count"}[rng.IntN(4)]),
		labels.MustNewMatcher(labels.MatchRegexp, "__name__", "metric_[0-3].*"),
		labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*_(bucket|count)"),
		labels.MustNewMatcher(labels.MatchNotEqual, "__name__", name),
		labels.MustNewMatcher(labels.MatchEqual, "le", []string{"", "+Inf", "1", "1000000", "0.005", "7"}[rng.IntN(6)]),
		labels.MustNewMatcher(labels.MatchRegexp, "le", "0.*|1"),
		labels.MustNewMatcher(labels.MatchNotEqual, "le", "+Inf"),
		labels.MustNewMatcher(labels.MatchEqual, "quantile", []string{"", "0.5", "1"}[rng.IntN(3)]),
		labels.MustNewMatcher(labels.MatchRegexp, "quantile", "0.+"),
		labels.MustNewMatcher(labels.MatchEqual, "Zone", fmt.Sprint(rng.IntN(4))),
		labels.MustNewMatcher(labels.MatchNotEqual, "Zone", ""),
		labels.MustNewMatcher(labels.MatchEqual, "only", ""),
		labels.MustNewMatcher(labels.MatchRegexp, "pod", "pod-1.*"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "pod", "pod-.*[02468]"),
		labels.MustNewMatcher(labels.MatchEqual, "absent", ""),
		labels.MustNewMatcher(labels.MatchEqual, "absent", "x"),
	}
	rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	return some[:1+rng.IntN(3)]
}

func TestTracksHaveTheValuesOfTheirSeries(t *testing.T) {
	t.Parallel()
	base := labels.FromStrings("__name__", "h", "a", "b")
	classic := Series{Labels: base, Kind: KindClassic, Bounds: []float64{0.5, 10}}
	summary := Series{Labels: base, Kind: KindSummary, Bounds: []float64{0.99}, NoSum: true}
	p := Points{
		Times: []int64{1, 2}, Values: []float64{1.5, stale}, Counts: []uint64{6, 0}, Buckets: [][]uint64{{1, 0}, {2, 0}, {3, 0}}, Quantiles: [][]float64{{0.25, 0}},
	}
	for _, c := range []struct {
		series *Series
		want   []string
	}{
		{&classic, []string{
			`{__name__="h_bucket", a="b", le="0.5"} [1 NaN]`, `{__name__="h_bucket", a="b", le="10"} [3 NaN]`, `{__name__="h_bucket", a="b", le="+Inf"} [6 NaN]`,
			`{__name__="h_sum", a="b"} [1.5 NaN]`, `{__name__="h_count", a="b"} [6 NaN]`,
		}},
		{&summary, []string{`{__name__="h", a="b", quantile="0.99"} [0.25 NaN]`, `{__name__="h_count", a="b"} [6 NaN]`}},
	} {
		all := p.AllTracks(c.series, [][]float64{{7, 7, 7}})
		var got []string
		for track, ls := range c.series.Tracks() {
			values := p.Track(c.series, track, nil)
			got = append(got, fmt.Sprint(ls, " ", values))
			if fmt.Sprint(all[track]) != fmt.Sprint(values) {
				t.Errorf("track %d is %v among all, %v alone", track, all[track], values)
			}
			if !p.Stale(1) || p.Stale(0) {
				t.Error("the second point is stale, and the first is not")
			}
		}
		if !slices.Equal(got, c.want) || len(got) != c.series.NumTracks() {
			t.Errorf("%s: %q, want %q", c.series.Kind, got, c.want)
		}
	}
}

func TestLabelsOfACatalogueAreThoseOfItsRows(t *testing.T) {
	t.Parallel()
	w, st := someSegment(t, 5, testMeta())
	names, values := map[string]bool{}, map[string]bool{}
	for i := range w.catalogue.Len() {
		w.catalogue.Series(i).Labels.Range(func(l labels.Label) {
			names[l.Name] = true
			if l.Name == "pod" {
				values[l.Value] = true
			}
		})
	}
	if got := w.catalogue.LabelNames(); len(got) != len(names) || !slices.IsSorted(got) {
		t.Errorf("label names %v, want %v", got, names)
	}
	if got := w.catalogue.LabelValues("pod"); len(got) != len(values) || !slices.IsSorted(got) {
		t.Errorf("values of pod %v, want %v", got, values)
	}
	if w.catalogue.LabelValues("absent") != nil || w.catalogue.Bytes() < int64(len(w.sidecar)) || st.Bytes() == 0 {
		t.Error("an absent label has values, or something takes no memory")
	}
	rows := int64(0)
	for _, f := range w.catalogue.Families() {
		rows += f.Rows
	}
	if rows != w.Rows {
		t.Errorf("families have %d points, want %d", rows, w.Rows)
	}
}

// TestACatalogueIsAskedByManyAtOnce is of use with the race detector.
func TestACatalogueIsAskedByManyAtOnce(t *testing.T) {
	t.Parallel()
	w, _ := someSegment(t, 7, testMeta())
	c := w.catalogue
	var want []string
	for i := range c.Len() {
		want = append(want, c.Series(i).Labels.String())
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			var p Points
			r := w.open(t)
			for i := range c.Len() {
				if got := c.Series(i).Labels.String(); got != want[i] || c.Entry(i).Hash != c.Hash(i) {
					t.Errorf("row %d is %s, want %s", i, got, want[i])
				}
				if err := r.Points(i, WantAll, &p); err != nil {
					t.Error(err)
				}
			}
			c.Select([]*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "pod", ".+")}, lake.Shard{})
		})
	}
	group.Wait()
}
