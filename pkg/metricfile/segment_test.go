// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

var (
	testStart = time.Date(2026, 11, 22, 15, 0, 0, 0, time.UTC)
	stale     = math.Float64frombits(value.StaleNaN)
)

func testMeta() Meta {
	return Meta{
		Organization: "acme", Signal: lake.SignalMetrics, Window: lake.WindowOf(testStart, time.Hour), Level: 1, Lease: "01hzy", Sources: []lake.ReceiptID{1, 2, 3},
		Inputs: []string{"db/acme/metrics/a.parquet"}, AppliedDelete: 7, Rules: []string{"drop:password"}, Shard: lake.Shard{Index: 1, Count: 4},
	}
}

// written is a segment in memory.
type written struct {
	parquet, sidecar []byte
	Written
	catalogue *Catalogue
}

func write(t testing.TB, st *Store, rows []uint32, m Meta) *written {
	t.Helper()
	var parquet, sidecar bytes.Buffer
	w, err := Write(t.Context(), &parquet, &sidecar, st, rows, m)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, &written{parquet: parquet.Bytes(), sidecar: sidecar.Bytes(), Written: w})
}

func read(t testing.TB, w *written) *written {
	t.Helper()
	c, err := ReadCatalogue(w.sidecar)
	if err != nil {
		t.Fatal(err)
	}
	w.catalogue = c
	return w
}

func (w *written) open(t testing.TB) *Reader {
	t.Helper()
	r, err := Open(bytes.NewReader(w.parquet), int64(len(w.parquet)), w.catalogue)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func allRows(st *Store) []uint32 {
	rows := make([]uint32, st.Len())
	for i := range rows {
		rows[i] = uint32(i)
	}
	return rows
}

// plot is a series and its points, as a test wants them.
type plot struct {
	Series
	points Points
}

// fill appends the points of plots to a store, in turns.
func fill(st *Store, plots []*plot) {
	for i, more := 0, true; more; i++ {
		more = false
		for _, p := range plots {
			if i < p.points.Len() {
				more = true
				p.append(st, i)
			}
		}
	}
}

func (p *plot) append(st *Store, i int) {
	id, at := st.Series(&p.Series), p.points.stamp(i)
	row := uint32(0)
	switch p.Kind {
	case KindFloat:
		row = st.Float(id, at, p.points.Values[i])
	case KindClassic:
		var buckets []uint64
		for _, b := range p.points.Buckets {
			buckets = append(buckets, b[i])
		}
		row = st.Classic(id, at, p.points.Counts[i], p.points.Values[i], buckets)
	case KindSummary:
		var quantiles []float64
		for _, q := range p.points.Quantiles {
			quantiles = append(quantiles, q[i])
		}
		row = st.Summary(id, at, p.points.Counts[i], p.points.Values[i], quantiles)
	case KindHistogram:
		row = st.Histogram(id, at, p.points.Histograms[i].Copy())
	}
	for _, e := range p.points.Exemplars {
		if e.Source == at.Source && e.Time == at.Time {
			st.Exemplar(row, e)
		}
	}
}

// plots are series of every kind, with all that values can be.
func plots(rng *rand.Rand, series, most int) []*plot {
	var all []*plot
	for i := range series {
		p := &plot{Series: Series{
			Labels: labels.FromStrings("__name__", fmt.Sprintf("metric_%d", rng.IntN(7)), "Zone", fmt.Sprint(i%3), "pod", fmt.Sprint("pod-", i), "ünï cödé", "🦊"),
			Kind:   Kind(i % 4), Delta: rng.IntN(5) == 0,
			Family: Family{Type: model.MetricTypeCounter, Unit: "s", Help: fmt.Sprint("help ", i%2)},
		}}
		if i%5 == 0 {
			p.Labels = labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i%7), "only", fmt.Sprint(i))
		}
		p.draw(rng, 1+rng.IntN(most))
		all = append(all, p)
	}
	return all
}

// draw makes n points.
func (p *plot) draw(rng *rand.Rand, n int) {
	regular, startsKnown := rng.IntN(2) == 0, rng.IntN(2) == 0
	at := testStart.UnixNano()
	for i := range n {
		p.points.Times = append(p.points.Times, at)
		at += 1e9
		if !regular {
			at += rng.Int64N(3e9)
		}
		start := int64(0)
		if startsKnown {
			start = testStart.UnixNano() - int64(rng.IntN(2))
		}
		p.points.Starts = append(p.points.Starts, start)
		p.points.Sources = append(p.points.Sources, lake.ReceiptID(1+i/6))
	}
	switch p.Kind {
	case KindFloat:
		p.points.Values = drawFloats(rng, n)
	case KindClassic:
		p.NoSum = rng.IntN(4) == 0
		p.Bounds = []float64{-1, 0.005, 1, 1e6}[:rng.IntN(5)]
		p.drawClassic(rng, n)
	case KindSummary:
		p.Bounds = []float64{0, 0.5, 0.99}[:rng.IntN(4)]
		p.points.Values, p.points.Counts = drawFloats(rng, n), drawCounts(rng, n)
		for range p.Bounds {
			p.points.Quantiles = append(p.points.Quantiles, drawFloats(rng, n))
		}
	case KindHistogram:
		p.drawHistograms(rng, n)
	}
	p.drawExemplars(rng)
}

func drawFloats(rng *rand.Rand, n int) []float64 {
	values := make([]float64, n)
	how, sum := rng.IntN(5), 0.0
	for i := range values {
		switch how {
		case 0:
			sum += float64(rng.IntN(10))
			values[i] = sum
		case 1:
			values[i] = float64(rng.IntN(1000)) / 100
		case 2:
			sum += rng.Float64()
			values[i] = sum
		case 3:
			values[i] = 1
		default:
			values[i] = math.Float64frombits(rng.Uint64())
		}
		switch rng.IntN(40) {
		case 0:
			values[i] = stale
		case 1:
			values[i] = math.Copysign(0, -1)
		case 2:
			values[i] = math.Float64frombits(0x7ff8000000000123)
		case 3:
			sum = 0 // a reset
		}
	}
	return values
}

func drawCounts(rng *rand.Rand, n int) []uint64 {
	counts := make([]uint64, n)
	sum := uint64(rng.Uint32())
	for i := range counts {
		sum += uint64(rng.IntN(100))
		counts[i] = sum
	}
	return counts
}

func (p *plot) drawClassic(rng *rand.Rand, n int) {
	p.points.Values, p.points.Counts = drawFloats(rng, n), make([]uint64, n)
	for range len(p.Bounds) + 1 {
		bucket := drawCounts(rng, n)
		p.points.Buckets = append(p.points.Buckets, bucket)
		for i, v := range bucket {
			p.points.Counts[i] += v
		}
	}
	if rng.IntN(3) == 0 {
		p.points.Counts[rng.IntN(n)]++ // does not add up
	}
}

func (p *plot) drawHistograms(rng *rand.Rand, n int) {
	custom, gauge := rng.IntN(4) == 0, rng.IntN(4) == 0
	h := drawHistogram(rng, custom)
	for i := range n {
		switch rng.IntN(20) {
		case 0:
			h = drawHistogram(rng, custom) // another layout, and mostly a reset
		case 1:
			p.points.Histograms = append(p.points.Histograms, &histogram.FloatHistogram{Sum: stale})
			continue
		}
		h = h.Copy()
		if gauge {
			h.CounterResetHint = histogram.GaugeType
		}
		for k := range h.PositiveBuckets {
			more := float64(rng.IntN(3))
			h.PositiveBuckets[k] += more
			h.Count += more
		}
		h.Sum += rng.Float64()
		if i%7 == 0 {
			h.Count += 0.5 // a float histogram, whose count is not the sum of its buckets
		}
		p.points.Histograms = append(p.points.Histograms, h)
	}
}

func drawHistogram(rng *rand.Rand, custom bool) *histogram.FloatHistogram {
	if custom {
		return &histogram.FloatHistogram{
			Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1, 2, float64(3 + rng.IntN(2))}, Count: 3, Sum: 4,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}, {Offset: 1, Length: 1}}, PositiveBuckets: []float64{1, 2},
		}
	}
	h := &histogram.FloatHistogram{Schema: int32(rng.IntN(13) - 4), ZeroThreshold: 0.001, ZeroCount: float64(rng.IntN(3)), Sum: rng.NormFloat64()}
	h.Count = h.ZeroCount
	draw := func() (spans []histogram.Span, buckets []float64) {
		for range rng.IntN(3) {
			s := histogram.Span{Offset: int32(rng.IntN(5)), Length: uint32(1 + rng.IntN(4))}
			if len(spans) == 0 {
				s.Offset -= 10
			}
			spans = append(spans, s)
			for range s.Length {
				n := float64(rng.IntN(5))
				buckets = append(buckets, n)
				h.Count += n
			}
		}
		return spans, buckets
	}
	h.PositiveSpans, h.PositiveBuckets = draw()
	h.NegativeSpans, h.NegativeBuckets = draw()
	return h
}

func (p *plot) drawExemplars(rng *rand.Rand) {
	for i := range p.points.Times {
		if rng.IntN(10) == 0 {
			e := Exemplar{
				Labels: labels.FromStrings("trace_id", fmt.Sprintf("%032x", rng.Uint64()), "odd", "xyz"), Value: rng.NormFloat64(),
				Time: p.points.Times[i], Source: p.points.Sources[i], Track: rng.IntN(p.NumTracks()),
			}
			p.points.Exemplars = append(p.points.Exemplars, e)
		}
	}
}

func TestPointsComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			all := plots(rng, []int{1, 3, 40, 200}[seed%4], []int{1, 6, 60}[seed%3])
			st := NewStore()
			fill(st, all)
			w := write(t, st, allRows(st), testMeta())
			checkRows(t, w, all)
			checkTotals(t, w, st)
		})
	}
}

// checkRows reads all rows, and holds them against plots.
func checkRows(t *testing.T, w *written, all []*plot) {
	t.Helper()
	slices.SortFunc(all, func(a, b *plot) int { return Compare(&a.Series, &b.Series) })
	if w.catalogue.Len() != len(all) {
		t.Fatalf("%d rows, want %d", w.catalogue.Len(), len(all))
	}
	r := w.open(t)
	var p Points
	for i, want := range all {
		if diff := gocmp.Diff(&want.Series, w.catalogue.Series(i), compareLabels(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("row %d: %s", i, diff)
		}
		for k, other := range all {
			if w.catalogue.Is(i, &other.Series) != (k == i) {
				t.Fatalf("row %d is that of %s: %t", i, other.Labels, k != i)
			}
		}
		if err := r.Points(i, WantAll, &p); err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		if diff := diffPoints(&want.points, &p, want.Delta); diff != "" {
			t.Errorf("row %d: %s", i, diff)
		}
		checkEntry(t, w.catalogue, i, want)
	}
}

func compareLabels() gocmp.Option { return gocmp.Comparer(labels.Equal) }

// diffPoints compares bits.
func diffPoints(want, got *Points, delta bool) string {
	w := *want
	w.Histograms = nil
	for _, h := range want.Histograms {
		w.Histograms = append(w.Histograms, h.Copy())
	}
	if !delta {
		deriveHints(w.Histograms)
	}
	if !slices.ContainsFunc(w.Starts, func(s int64) bool { return s != 0 }) {
		w.Starts = nil
	}
	w.Exemplars = SortExemplars(slices.Clone(w.Exemplars))
	return gocmp.Diff(&w, got, compareLabels(), compareBits(), cmpopts.EquateEmpty())
}

func compareBits() gocmp.Option {
	return gocmp.Comparer(func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) })
}

func checkEntry(t *testing.T, c *Catalogue, i int, want *plot) {
	t.Helper()
	n := want.points.Len()
	got := c.Entry(i)
	entry := SeriesEntry{
		Hash: want.Hash(), Kind: want.Kind, Rows: int64(n), Samples: int64(n * len(want.Tracks())), Exemplars: int64(len(want.points.Exemplars)),
		First: want.points.Times[0], Last: want.points.Times[n-1], Bytes: got.Bytes,
	}
	if got != entry || got.Bytes == 0 || c.Hash(i) != want.Hash() {
		t.Errorf("row %d: entry %+v, want %+v", i, got, entry)
	}
	want.Labels.Range(func(l labels.Label) {
		if got := c.Value(i, l.Name); got != l.Value {
			t.Errorf("row %d: label %s is %q, want %q", i, l.Name, got, l.Value)
		}
	})
	if got := c.Value(i, "absent"); got != "" {
		t.Errorf("row %d: an absent label is %q", i, got)
	}
}

// checkTotals holds what Write, catalogue and store say against each other.
func checkTotals(t *testing.T, w *written, st *Store) {
	t.Helper()
	var hash uint64
	samples, first, last := int64(0), int64(math.MaxInt64), int64(math.MinInt64)
	for row := range st.Len() {
		hash += st.RowHash(row)
		samples += int64(st.SeriesOf(row).NumTracks())
		first, last = min(first, st.Time(row)), max(last, st.Time(row))
	}
	c := w.catalogue
	if w.RowHash != hash || c.RowHash != hash || w.Rows != int64(st.Len()) || c.Rows != w.Rows || w.Samples != samples || c.Samples != samples {
		t.Errorf("written %+v, catalogue has %d rows, %d samples, hash %x; want %d, %d, %x", w.Written, c.Rows, c.Samples, c.RowHash, st.Len(), samples, hash)
	}
	if c.First != first || c.Last != last || w.First.UnixNano() != first || w.Last.UnixNano() != last || w.Exemplars != c.Exemplars {
		t.Errorf("from %d to %d, %d exemplars, written %+v; want from %d to %d", c.First, c.Last, c.Exemplars, w.Written, first, last)
	}
	if w.Bytes != int64(len(w.parquet)) || w.SidecarBytes != int64(len(w.sidecar)) || w.FormatVersion != FormatVersion || w.Series != int64(c.Len()) {
		t.Errorf("written %+v, the files have %d and %d bytes", w.Written, len(w.parquet), len(w.sidecar))
	}
	if diff := gocmp.Diff(testMeta(), c.Meta); diff != "" {
		t.Error(diff)
	}
	if !slices.IsSortedFunc(c.Families(), func(a, b MetricFamily) int { return cmp.Compare(a.Name, b.Name) }) || !slices.IsSorted(c.Names()) {
		t.Errorf("families %v, names %v", c.Families(), c.Names())
	}
}

// TestHistogramsOfManyShapes would take a gigabyte, and minutes, if all shapes of a series had their buckets in one table.
func TestHistogramsOfManyShapes(t *testing.T) {
	t.Parallel()
	p := plot{Series: Series{Labels: labels.FromStrings(model.MetricNameLabel, "sliding"), Kind: KindHistogram}}
	const n = 12_000
	for i := range n {
		h := &histogram.FloatHistogram{
			Count: 3, Sum: float64(i), CounterResetHint: histogram.GaugeType,
			PositiveSpans: []histogram.Span{{Offset: int32(i * 7919 % n), Length: 2}}, PositiveBuckets: []float64{1, 2},
		}
		if i%1000 == 0 {
			h = &histogram.FloatHistogram{Sum: stale}
		}
		p.points.Times, p.points.Sources = append(p.points.Times, testMeta().Window.Start.UnixNano()+int64(i)*int64(time.Millisecond)), append(p.points.Sources, 1)
		p.points.Histograms = append(p.points.Histograms, h)
	}
	st := NewStore()
	fill(st, []*plot{&p})
	checkRows(t, write(t, st, allRows(st), testMeta()), []*plot{&p})
}
