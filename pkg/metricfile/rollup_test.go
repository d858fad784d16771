// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/prometheus/model/histogram"
)

// rolled is a series and its rollup, as a test wants them.
type rolled struct {
	Series
	rollup Rollup
}

// rollups draws rollups of series of every kind, values of one minute each.
func rollups(rng *rand.Rand, series int) []*rolled {
	var all []*rolled
	for _, p := range plots(rng, series, 1) {
		r := &rolled{Series: p.Series}
		n := 1 + rng.IntN(60)
		for i := range n {
			end := testStart.UnixMilli() + int64(i)*60_000
			r.rollup.Ends = append(r.rollup.Ends, end)
			r.rollup.Counts = append(r.rollup.Counts, int64(rng.IntN(7)))
			r.rollup.FirstTimes = append(r.rollup.FirstTimes, end-50_000+rng.Int64N(2))
			r.rollup.LastTimes = append(r.rollup.LastTimes, end)
			r.rollup.StaleTimes = append(r.rollup.StaleTimes, int64(rng.IntN(2))*end)
		}
		if rng.IntN(3) == 0 {
			for range n {
				r.rollup.Sketches = append(r.rollup.Sketches, bytes.Repeat([]byte{7}, rng.IntN(20)))
			}
		}
		if r.Kind == KindHistogram {
			for _, column := range []*[]*histogram.FloatHistogram{&r.rollup.First, &r.rollup.Last, &r.rollup.Increase, &r.rollup.Sum} {
				for range n {
					h := drawHistogram(rng, false)
					if rng.IntN(5) == 0 {
						h = nil
					}
					*column = append(*column, h)
				}
			}
		} else {
			for range r.NumTracks() {
				r.rollup.Tracks = append(r.rollup.Tracks, drawTrack(rng, n))
			}
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *rolled) int { return Compare(&a.Series, &b.Series) })
	return all
}

func drawTrack(rng *rand.Rand, n int) Track {
	t := Track{First: drawFloats(rng, n), Last: drawFloats(rng, n), Sum: drawFloats(rng, n)}
	if rng.IntN(2) == 0 {
		t.Increase, t.Min, t.Max = drawFloats(rng, n), drawFloats(rng, n), drawFloats(rng, n)
		return t
	}
	for i := range n { // a counter, mostly
		rise := t.Last[i] - t.First[i]
		if rng.IntN(20) == 0 {
			rise = rng.Float64()
		}
		t.Increase = append(t.Increase, rise)
	}
	t.Min, t.Max = slices.Clone(t.First), slices.Clone(t.Last)
	return t
}

func rollupMeta() Meta {
	m := testMeta()
	m.Resolution, m.Sources = time.Minute, nil
	return m
}

func writeRollups(t testing.TB, all []*rolled, m Meta) *written {
	t.Helper()
	var parquet, sidecar bytes.Buffer
	w, err := WriteRollups(t.Context(), &parquet, &sidecar, func(yield func(*Series, *Rollup) bool) {
		for _, r := range all {
			if !yield(&r.Series, &r.rollup) {
				return
			}
		}
	}, m)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, &written{parquet: parquet.Bytes(), sidecar: sidecar.Bytes(), Written: w})
}

func TestRollupsComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		all := rollups(rand.New(rand.NewPCG(seed, 3)), 40)
		m := rollupMeta()
		m.Shard.Count = 0
		w := writeRollups(t, all, m)
		r := w.open(t)
		var got Rollup
		var hash uint64
		buckets, samples := int64(0), int64(0)
		for i, want := range all {
			if diff := gocmp.Diff(&want.Series, w.catalogue.Series(i), compareLabels(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("row %d: %s", i, diff)
			}
			if err := r.Rollup(i, &got); err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(&want.rollup, &got, compareBits(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("row %d: %s", i, diff)
			}
			checkPartOfRollup(t, r, i, RollupColumns(1<<(i%7)), &want.rollup)
			for k, count := range want.rollup.Counts {
				hash += want.rollup.RowHash(want.Identity(), k)
				samples += count * int64(want.NumTracks())
				buckets++
			}
		}
		if w.Rows != buckets || w.Samples != samples || w.RowHash != hash || w.catalogue.Resolution != time.Minute {
			t.Errorf("written %+v, want %d buckets of %d samples, hash %x", w.Written, buckets, samples, hash)
		}
		if v := verify(t, w); len(v.Problems) > 0 {
			t.Errorf("problems: %q", v.Problems)
		}
	}
}

// checkPartOfRollup reads one column.
func checkPartOfRollup(t *testing.T, r *Reader, ordinal int, column RollupColumns, whole *Rollup) {
	t.Helper()
	only := func(c RollupColumns, values []float64) []float64 {
		if column == c {
			return values
		}
		return nil
	}
	want := *whole
	want.Tracks = nil
	for _, k := range whole.Tracks {
		want.Tracks = append(want.Tracks, Track{
			First: only(WantFirst, k.First), Last: only(WantLast, k.Last), Increase: only(WantIncrease, k.Increase), Sum: only(WantSum, k.Sum),
			Min: only(WantMin, k.Min), Max: only(WantMax, k.Max),
		})
	}
	for c, values := range map[RollupColumns]*[]*histogram.FloatHistogram{
		WantFirst: &want.First, WantLast: &want.Last, WantIncrease: &want.Increase, WantSum: &want.Sum,
	} {
		if column != c {
			*values = nil
		}
	}
	if column != WantSketches {
		want.Sketches = nil
	}
	var got Rollup
	if err := r.RollupOnly(ordinal, column, &got); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(&want, &got, compareBits(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("row %d, column %b: %s", ordinal, column, diff)
	}
}

// TestARolledUpCounterStoresLittleTwice holds what is derived against what it takes.
func TestARolledUpCounterStoresLittleTwice(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	all := rollups(rng, 1)
	r := all[0]
	r.Kind, r.Bounds, r.NoSum = KindFloat, nil, false
	r.rollup = Rollup{}
	track := Track{}
	value := 1e6
	for i := range 60 {
		end := testStart.UnixMilli() + int64(i+1)*60_000
		r.rollup.Ends, r.rollup.Counts = append(r.rollup.Ends, end), append(r.rollup.Counts, 6)
		r.rollup.FirstTimes, r.rollup.LastTimes = append(r.rollup.FirstTimes, end-50_000), append(r.rollup.LastTimes, end)
		r.rollup.StaleTimes = append(r.rollup.StaleTimes, 0)
		last := value + float64(rng.IntN(1000))
		if i == 30 {
			value, last = 0, 100 // a reset between buckets
		}
		track.First, track.Last, track.Increase = append(track.First, value), append(track.Last, last), append(track.Increase, last-value)
		track.Min, track.Max, track.Sum = append(track.Min, value), append(track.Max, last), append(track.Sum, 3*(value+last))
		value = last
	}
	r.rollup.Tracks = []Track{track}
	w := writeRollups(t, all, rollupMeta())
	sizes := w.catalogue.block(0).sizes
	for column, most := range map[int]int64{ownIncrease: 5, ownMin: 5, ownMax: 5} {
		if got := sizes[column][0]; got > most {
			t.Errorf("%s takes %d bytes, want at most %d", w.catalogue.layout.own[column], got, most)
		}
	}
}

func TestARollupThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	good := rollups(rand.New(rand.NewPCG(6, 6)), 1)[0]
	try := func(m Meta, s *Series, r *Rollup) error {
		w, err := NewWriter(&bytes.Buffer{}, &bytes.Buffer{}, m)
		if err != nil {
			t.Fatal(err)
		}
		return w.AppendRollup(s, r)
	}
	if err := try(rollupMeta(), &good.Series, &good.rollup); err != nil {
		t.Fatal(err)
	}
	late := good.rollup
	late.Ends = slices.Clone(late.Ends)
	late.Ends[len(late.Ends)-1] += time.Hour.Milliseconds() * 2
	few := good.rollup
	few.Counts = few.Counts[1:]
	for name, r := range map[string]*Rollup{"of another window": &late, "with a column that is too short": &few} {
		if err := try(rollupMeta(), &good.Series, r); err == nil {
			t.Errorf("a rollup %s was written", name)
		}
	}
	if err := try(testMeta(), &good.Series, &good.rollup); err == nil {
		t.Error("a rollup was written to a segment of points")
	}
}
