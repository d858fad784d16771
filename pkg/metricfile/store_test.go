// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func float(name string, more ...string) *Series {
	return &Series{Labels: labels.FromStrings(append([]string{"__name__", name}, more...)...)}
}

func TestEachIdentityIsASeriesOfItsOwn(t *testing.T) {
	t.Parallel()
	ls := labels.FromStrings("__name__", "x", "a", "b")
	all := []*Series{
		{Labels: ls},
		{Labels: ls, Delta: true},
		{Labels: ls, Kind: KindHistogram},
		{Labels: ls, Kind: KindClassic},
		{Labels: ls, Kind: KindClassic, NoSum: true},
		{Labels: ls, Kind: KindClassic, Bounds: []float64{1}},
		{Labels: ls, Kind: KindClassic, Bounds: []float64{1, 2}},
		{Labels: ls, Kind: KindSummary, Bounds: []float64{1}},
		{Labels: labels.FromStrings("__name__", "x", "a", "c")},
	}
	st := NewStore()
	for i, s := range all {
		if id := st.Series(s); id != SeriesID(i) {
			t.Errorf("series %d is number %d", i, id)
		}
	}
	for i, s := range all {
		c := s.Clone()
		c.Family = Family{Help: "said otherwise"}
		if id := st.Series(c); id != SeriesID(i) {
			t.Errorf("series %d asked for again is number %d", i, id)
		}
		for k, o := range all {
			if (i == k) != s.Equal(o) || (i == k) != (Compare(s, o) == 0) || Compare(s, o) != -Compare(o, s) || (i == k) != (s.Identity() == o.Identity()) {
				t.Errorf("series %d and %d: equal %v, compared %d, identities %x and %x", i, k, s.Equal(o), Compare(s, o), s.Identity(), o.Identity())
			}
		}
	}
}

// TestHashesAreFrozen: shards and row hashes are stored.
func TestHashesAreFrozen(t *testing.T) {
	t.Parallel()
	s := Series{Labels: labels.FromStrings("__name__", "x", "a", "b"), Kind: KindClassic, Bounds: []float64{1}}
	p := Points{Times: []int64{1}, Starts: []int64{2}, Sources: []lake.ReceiptID{3}, Values: []float64{4}, Counts: []uint64{5}, Buckets: [][]uint64{{6}, {7}}}
	got := []uint64{s.Hash(), s.Identity(), p.RowHash(s.Identity(), s.Kind, 0)}
	if want := []uint64{0xdc5dc957923f8f72, 0xbd8274b8fa2fab55, 0x972aff870ed19d19}; !slices.Equal(got, want) {
		t.Errorf("hashes %#x, want %#x", got, want)
	}
}

func TestPointsAreWrittenInOrderHoweverTheyCame(t *testing.T) {
	t.Parallel()
	st := NewStore()
	a, b := st.Series(float("m", "s", "a")), st.Series(float("m", "s", "b"))
	at := func(seconds int, source lake.ReceiptID) Stamp {
		return Stamp{Time: testStart.UnixNano() + int64(seconds)*int64(time.Second), Source: source}
	}
	st.Float(b, at(3, 1), 30)
	st.Float(a, at(2, 2), 22)
	st.Float(a, at(2, 1), 21) // the same time, of a lower source
	left := st.Float(a, at(1, 3), 13)
	st.Float(a, at(1, 1), 11)
	rows := slices.DeleteFunc(allRows(st), func(row uint32) bool { return row == left })
	slices.Reverse(rows)
	m := testMeta()
	m.Shard = lake.Shard{}
	w := write(t, st, rows, m)
	var p Points
	found := map[string][]float64{}
	for i := range w.catalogue.Len() {
		if err := w.open(t).Points(i, WantValues, &p); err != nil {
			t.Fatal(err)
		}
		found[w.catalogue.Value(i, "s")] = slices.Clone(p.Values)
	}
	if !slices.Equal(found["a"], []float64{11, 21, 22}) || !slices.Equal(found["b"], []float64{30}) || len(p.Times) > 0 {
		t.Errorf("points %v, times %v", found, p.Times)
	}
	if w.Rows != 4 || w.RowHash == 0 {
		t.Errorf("written %+v", w.Written)
	}
}

func TestAResetStoreIsAsNew(t *testing.T) {
	t.Parallel()
	st := NewStore()
	fill(st, plots(rand.New(rand.NewPCG(1, 1)), 50, 300))
	if st.Bytes() == 0 || st.Len() == 0 {
		t.Fatal("nothing in the store")
	}
	st.Reset()
	if st.Len() != 0 || st.Bytes() != 0 {
		t.Errorf("%d points, %d bytes", st.Len(), st.Bytes())
	}
	all := plots(rand.New(rand.NewPCG(2, 2)), 20, 50)
	fill(st, all)
	fresh := NewStore()
	fill(fresh, all)
	a, b := write(t, st, allRows(st), testMeta()), write(t, fresh, allRows(fresh), testMeta())
	if !bytes.Equal(a.parquet, b.parquet) || !bytes.Equal(a.sidecar, b.sidecar) {
		t.Error("a store that was used makes other files than a fresh one")
	}
}

func TestExemplarsGoWithTheirPointsOnce(t *testing.T) {
	t.Parallel()
	st := NewStore()
	id := st.Series(float("m"))
	ls := labels.FromStrings("trace_id", "00ff")
	for i := range 3 { // a cumulative point repeats its exemplars
		row := st.Float(id, Stamp{Time: testStart.UnixNano() + int64(i), Source: lake.ReceiptID(9 - i)}, 1)
		st.Exemplar(row, Exemplar{Labels: ls, Value: 7, Time: 5})
		st.Exemplar(row, Exemplar{Labels: ls, Value: 7, Time: int64(100 + i)})
	}
	m := testMeta()
	m.Shard = lake.Shard{}
	w := write(t, st, []uint32{0, 1}, m)
	var p Points
	if err := w.open(t).Points(0, WantExemplars, &p); err != nil {
		t.Fatal(err)
	}
	var got []lake.ReceiptID
	for _, e := range p.Exemplars {
		got = append(got, e.Source)
		if !labels.Equal(e.Labels, ls) || e.Value != 7 {
			t.Errorf("exemplar %+v", e)
		}
	}
	if !slices.Equal(got, []lake.ReceiptID{8, 9, 8}) || w.Exemplars != 3 {
		t.Errorf("exemplars %+v of %d, want three of sources 8, 9, 8", p.Exemplars, w.Exemplars)
	}
}

func TestWhatCannotBeReadIsNotWritten(t *testing.T) {
	t.Parallel()
	inside := Stamp{Time: testStart.UnixNano(), Source: 1}
	for name, c := range map[string]struct {
		fill func(st *Store)
		kind fault.Kind
	}{
		"no rows":           {func(*Store) {}, fault.Internal},
		"a name not UTF-8":  {func(st *Store) { st.Float(st.Series(float("\xff")), inside, 1) }, fault.Invalid},
		"a label not UTF-8": {func(st *Store) { st.Float(st.Series(float("m", "\xff", "x")), inside, 1) }, fault.Invalid},
		"a value not UTF-8": {func(st *Store) { st.Float(st.Series(float("m", "x", "\xff")), inside, 1) }, fault.Invalid},
		"a help not UTF-8":  {func(st *Store) { s := float("m"); s.Family.Help = "\xff"; st.Float(st.Series(s), inside, 1) }, fault.Invalid},
		"before the window": {func(st *Store) { st.Float(st.Series(float("m")), Stamp{Time: inside.Time - 1}, 1) }, fault.Internal},
		"behind the window": {func(st *Store) { st.Float(st.Series(float("m")), Stamp{Time: inside.Time + int64(time.Hour)}, 1) }, fault.Internal},
	} {
		st := NewStore()
		c.fill(st)
		_, err := Write(t.Context(), &bytes.Buffer{}, &bytes.Buffer{}, st, allRows(st), testMeta())
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: %v, want an error of kind %s", name, err, c.kind)
		}
	}
}

func TestAWriterRefusesWhatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	point := func(times ...int64) *Points {
		p := &Points{}
		for _, at := range times {
			p.Times, p.Values = append(p.Times, testStart.UnixNano()+at), append(p.Values, 1)
		}
		return p
	}
	a, b := float("a"), float("b")
	for name, rows := range map[string][]struct {
		s *Series
		p *Points
	}{
		"names":         {{b, point(1)}, {a, point(1)}},
		"a row twice":   {{a, point(1)}, {a, point(2)}},
		"times":         {{a, point(2, 1)}},
		"other columns": {{&Series{Labels: a.Labels, Kind: KindSummary}, point(1)}},
	} {
		w, err := NewWriter(&bytes.Buffer{}, &bytes.Buffer{}, testMeta())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			err = errors.Join(err, w.AppendPoints(row.s, row.p))
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestRowGroupsEndWhereTheyAreFull writes vectors of times that no two rows share, so that dictionaries fill.
func TestRowGroupsEndWhereTheyAreFull(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	st := NewStore()
	const series, points = 3000, 360
	for i := range series {
		id := st.Series(float("m", "i", string(rune('a'+i%26)), "n", string(rune('a'+i/26%26))+string(rune('a'+i/676))))
		at := testStart.UnixNano()
		for range points {
			at += 1 + rng.Int64N(int64(9*time.Second))
			st.Float(id, Stamp{Time: at, Source: 1}, float64(i))
		}
	}
	m := testMeta()
	m.Shard = lake.Shard{}
	w := write(t, st, allRows(st), m)
	if len(w.catalogue.groups) < 2 {
		t.Fatalf("%d row groups", len(w.catalogue.groups))
	}
	for _, g := range w.catalogue.groups {
		if g.shared[sharedTimes].size > maxDictionaryBytes+4096 {
			t.Errorf("a dictionary of %d bytes", g.shared[sharedTimes].size)
		}
	}
	if r := verify(t, w); len(r.Problems) > 0 || r.Rows != series*points {
		t.Errorf("%d points, problems %q", r.Rows, r.Problems)
	}
	checkScattered(t, w)
}

// checkScattered reads rows in any order.
func checkScattered(t *testing.T, w *written) {
	t.Helper()
	r := w.open(t)
	var p Points
	for _, i := range rand.New(rand.NewPCG(2, 2)).Perm(w.catalogue.Len())[:200] {
		if err := r.Points(i, WantTimes|WantValues, &p); err != nil {
			t.Fatal(err)
		}
		if e := w.catalogue.Entry(i); p.Times[0] != e.First || p.Times[len(p.Times)-1] != e.Last || int64(p.Len()) != e.Rows {
			t.Fatalf("row %d: %d points from %d to %d, the catalogue has %+v", i, p.Len(), p.Times[0], p.Times[len(p.Times)-1], e)
		}
	}
}
