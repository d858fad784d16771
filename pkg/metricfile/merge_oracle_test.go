// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// atom is one point of an input.
type atom struct {
	series *Series
	input  int
	at     Stamp
	plot   *plot
	point  int // of the plot
}

// trial is what is merged, and how.
type trial struct {
	t        *testing.T
	atoms    []atom
	inputs   []*written
	families []Family // of inputs
	unknown  bool     // some of them have none
	masked   [][]lake.ReceiptID
	drop     [][]DropRule
}

// drawTrial deals the points of series to inputs, some of them to several, with other sources, values or starts.
func drawTrial(t *testing.T, rng *rand.Rand) *trial {
	inputs := 1 + rng.IntN(6)
	tr := &trial{t: t, unknown: rng.IntN(4) == 0, masked: make([][]lake.ReceiptID, inputs), drop: make([][]DropRule, inputs)}
	for i := range inputs {
		f := Family{Type: model.MetricTypeGauge, Help: fmt.Sprint("by input ", rng.IntN(inputs))}
		if tr.unknown && rng.IntN(2) == 0 {
			f = Family{}
		}
		tr.families = append(tr.families, f)
		if rng.IntN(3) == 0 {
			tr.masked[i] = []lake.ReceiptID{lake.ReceiptID(1 + rng.IntN(4)), 99}
		}
		for range rng.IntN(3) {
			tr.drop[i] = append(tr.drop[i], drawRule(rng))
		}
	}
	mode := rng.IntN(3)
	all := plots(rng, 1+rng.IntN(40), 1+rng.IntN(40))
	for n, p := range all {
		if n > 0 && rng.IntN(4) == 0 {
			p.Labels = all[n-1].Labels // of another kind
		}
		for i := range p.points.Times {
			a := atom{series: &p.Series, at: p.points.stamp(i), plot: p, point: i}
			a.input = i * inputs / p.points.Len() // one after the other
			if mode > 0 {
				a.input = rng.IntN(inputs)
			}
			tr.atoms = append(tr.atoms, a)
			for mode == 2 && rng.IntN(3) == 0 { // doubles
				a.input, a.at.Source = rng.IntN(inputs), lake.ReceiptID(1+rng.IntN(4))
				a.point = rng.IntN(i + 1) // another value, at the same time
				tr.atoms = append(tr.atoms, a)
			}
		}
	}
	tr.write()
	return tr
}

func drawRule(rng *rand.Rand) DropRule {
	start := testStart.UnixNano() + rng.Int64N(60e9)
	r := DropRule{Reason: ReasonDeleted, Delete: lake.DeleteID(1 + rng.IntN(3)), Start: start, End: start + rng.Int64N(60e9)}
	if rng.IntN(3) == 0 {
		r = DropRule{Reason: ReasonExpired, Start: math.MinInt64, End: math.MaxInt64}
	}
	digit := fmt.Sprint(rng.IntN(10))
	r.Series = func(s *Series) bool { return strings.HasSuffix(s.Labels.Get("pod"), digit) }
	return r
}

// write makes the inputs, without those that have no points.
func (tr *trial) write() {
	stores := make([]*Store, len(tr.families))
	for i := range stores {
		stores[i] = NewStore()
	}
	for _, a := range tr.atoms {
		st := stores[a.input]
		s := *a.series
		s.Family = tr.families[a.input]
		one := plot{Series: s, points: a.points()}
		one.append(st, 0)
	}
	tr.inputs = make([]*written, len(stores))
	for i, st := range stores {
		if st.Len() > 0 {
			tr.inputs[i] = write(tr.t, st, allRows(st), Meta{Window: lake.WindowOf(testStart, 3600e9)})
		}
	}
}

// points are the atom's one, with its stamp.
func (a *atom) points() Points {
	p, i := &a.plot.points, a.point
	one := Points{Times: []int64{a.at.Time}, Starts: []int64{a.at.Start}, Sources: []lake.ReceiptID{a.at.Source}}
	if len(p.Values) > 0 {
		one.Values = p.Values[i : i+1]
	}
	if len(p.Counts) > 0 {
		one.Counts = p.Counts[i : i+1]
	}
	for _, b := range p.Buckets {
		one.Buckets = append(one.Buckets, b[i:i+1])
	}
	for _, q := range p.Quantiles {
		one.Quantiles = append(one.Quantiles, q[i:i+1])
	}
	if len(p.Histograms) > 0 {
		one.Histograms = p.Histograms[i : i+1]
	}
	for _, e := range p.Exemplars {
		if e.Time == a.at.Time {
			e.Source = a.at.Source
			one.Exemplars = append(one.Exemplars, e)
		}
	}
	return one
}

// expected is what a naive merge makes.
type expected struct {
	lines  []string
	result MergeResult // without outputs
}

func (tr *trial) naive() expected {
	type key struct {
		series string
		at     int64
	}
	var e expected
	series := map[string]*Series{}
	kept := map[key]atom{}
	families := map[string]family{}
	deleted := map[DeletedRows]int64{}
	for _, a := range tr.atoms {
		name, hash := nameOf(a.series), a.hash()
		series[name] = a.series
		e.result.RowsIn++
		e.result.HashIn += hash
		if reason, id := tr.leaves(&a); reason != "" {
			e.result.HashLeft += hash
			switch reason {
			case "masked":
				e.result.Masked++
			case "expired":
				e.result.Expired++
			case "deleted":
				e.result.Deleted++
				deleted[DeletedRows{Delete: id, Source: a.at.Source, Input: a.input}]++
			}
			continue
		}
		if f := (family{tr.families[a.input], a.at.Time}); f.beats(families[name]) {
			families[name] = f
		}
		k := key{name, a.at.Time}
		best, double := kept[k]
		if !double {
			kept[k] = a
			continue
		}
		lost := a
		if a.at.Source < best.at.Source || a.at.Source == best.at.Source && hash < best.hash() {
			kept[k], lost = a, best
		}
		e.result.Deduplicated++
		e.result.HashLeft += lost.hash()
	}
	e.result.RowsOut = int64(len(kept))
	for k, a := range kept {
		p := a.points()
		e.lines = append(e.lines, lineOf(k.series, &p, 0))
		delete(series, k.series)
	}
	exemplars := tr.exemplars()
	for name, f := range families {
		e.lines = append(e.lines, fmt.Sprintf("%s is %+v", name, f.Family))
		for _, x := range SortExemplars(exemplars[name]) {
			e.lines = append(e.lines, fmt.Sprintf("%s at %d: exemplar %v", name, x.Time, x))
		}
	}
	for d, n := range deleted {
		d.Rows = n
		e.result.DeletedBy = append(e.result.DeletedBy, d)
	}
	slices.SortFunc(e.result.DeletedBy, compareDeletedRows)
	slices.Sort(e.lines)
	return e
}

// exemplars are those that stay, by series. An input has one of those that differ in their sources alone.
func (tr *trial) exemplars() map[string][]Exemplar {
	type key struct {
		series string
		input  int
	}
	written := map[key][]Exemplar{}
	atoms := map[key]atom{}
	for _, a := range tr.atoms {
		k := key{nameOf(a.series), a.input}
		written[k] = append(written[k], a.points().Exemplars...)
		atoms[k] = a
	}
	kept := map[string][]Exemplar{}
	for k, all := range written {
		for _, x := range SortExemplars(all) {
			a := atoms[k]
			a.at = Stamp{Time: x.Time, Source: x.Source}
			if reason, _ := tr.leaves(&a); reason == "" {
				kept[k.series] = append(kept[k.series], x)
			}
		}
	}
	return kept
}

// family is one that was seen at a time.
type family struct {
	Family
	at int64
}

func (f family) beats(o family) bool {
	if f.Family == (Family{}) || o.Family == (Family{}) {
		return o.Family == (Family{})
	}
	return f.at > o.at || f.at == o.at && compareFamilies(f.Family, o.Family) > 0
}

func (a *atom) hash() uint64 {
	p := a.points()
	return p.RowHash(a.series.Identity(), a.series.Kind, 0)
}

func (tr *trial) leaves(a *atom) (reason string, id lake.DeleteID) {
	if slices.Contains(tr.masked[a.input], a.at.Source) {
		return "masked", 0
	}
	for _, r := range tr.drop[a.input] {
		if a.at.Time >= r.Start && a.at.Time < r.End && r.Series(a.series) {
			if r.Reason == ReasonExpired {
				return "expired", 0
			}
			return "deleted", r.Delete
		}
	}
	return "", 0
}

func nameOf(s *Series) string {
	return fmt.Sprintf("%s %s delta=%t nosum=%t %v", s.Labels, s.Kind, s.Delta, s.NoSum, s.Bounds)
}

// lineOf writes a point, bit by bit.
func lineOf(name string, p *Points, i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %d: %+v", name, p.Times[i], p.stamp(i))
	if len(p.Values) > 0 {
		fmt.Fprintf(&b, " %x", math.Float64bits(p.Values[i]))
	}
	if len(p.Counts) > 0 {
		fmt.Fprintf(&b, " of %d", p.Counts[i])
	}
	for _, bucket := range p.Buckets {
		fmt.Fprintf(&b, " %d", bucket[i])
	}
	for _, q := range p.Quantiles {
		fmt.Fprintf(&b, " %x", math.Float64bits(q[i]))
	}
	if len(p.Histograms) > 0 {
		h := p.Histograms[i].Copy()
		if h.CounterResetHint != histogram.GaugeType {
			h.CounterResetHint = histogram.UnknownCounterReset
		}
		fmt.Fprintf(&b, " %x %+v", math.Float64bits(h.Sum), h)
	}
	return b.String()
}

// linesOf are the lines of outputs, sorted. It looks at their shards, too.
func linesOf(t *testing.T, outputs []*written) []string {
	t.Helper()
	var lines []string
	var p Points
	for _, w := range outputs {
		if w == nil {
			continue
		}
		r := w.open(t)
		for i := range w.catalogue.Len() {
			s := w.catalogue.Series(i)
			if !w.catalogue.Shard.Holds(s.Hash()) {
				t.Errorf("%s is not of shard %v", s.Labels, w.catalogue.Shard)
			}
			if err := r.Points(i, WantAll, &p); err != nil {
				t.Fatal(err)
			}
			name := nameOf(s)
			for k := range p.Times {
				lines = append(lines, lineOf(name, &p, k))
			}
			for _, x := range p.Exemplars {
				lines = append(lines, fmt.Sprintf("%s at %d: exemplar %v", name, x.Time, x))
			}
			lines = append(lines, fmt.Sprintf("%s is %+v", name, s.Family))
		}
	}
	slices.Sort(lines)
	return lines
}

// mergeOf merges inputs, and holds the outputs against what the merge says of them.
func mergeOf(t *testing.T, inputs []MergeInput, shards uint32, memory ...int64) (MergeResult, []*written) {
	t.Helper()
	outputs := make([]*written, max(1, shards))
	files := map[int][2]*bytes.Buffer{}
	done := map[int]bool{}
	options := MergeOptions{
		Meta: Meta{Window: lake.WindowOf(testStart, 3600e9), Level: 1, Lease: "l"}, Shards: shards,
		Create: func(shard int) (io.Writer, io.Writer, func() error, error) {
			files[shard] = [2]*bytes.Buffer{{}, {}}
			return files[shard][0], files[shard][1], func() error { done[shard] = true; return nil }, nil
		},
	}
	if len(memory) > 0 {
		options.Memory = memory[0]
	}
	result, err := Merge(t.Context(), inputs, options)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Outputs) != len(files) || len(done) != len(files) {
		t.Errorf("%d outputs, %d were begun, %d are done", len(result.Outputs), len(files), len(done))
	}
	for _, o := range result.Outputs {
		f := files[int(o.Shard.Index)]
		w := read(t, &written{parquet: f[0].Bytes(), sidecar: f[1].Bytes(), Written: o.Written})
		if want := sourcesOf(t, w); !slices.Equal(o.Sources, want) || !slices.Equal(w.catalogue.Sources, want) {
			t.Errorf("sources %v, the catalogue has %v, the points have %v", o.Sources, w.catalogue.Sources, want)
		}
		if w.catalogue.Shard != o.Shard || o.Shard.Count != shards && shards > 1 {
			t.Errorf("shard %v, the catalogue has %v", o.Shard, w.catalogue.Shard)
		}
		outputs[o.Shard.Index] = w
	}
	return result, outputs
}

func sourcesOf(t *testing.T, w *written) []lake.ReceiptID {
	t.Helper()
	all := map[lake.ReceiptID]bool{}
	r := w.open(t)
	var p Points
	for i := range w.catalogue.Len() {
		if err := r.Points(i, WantAll, &p); err != nil {
			t.Fatal(err)
		}
		for k := range p.Times {
			all[p.stamp(k).Source] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func inputOf(w *written) MergeInput {
	return MergeInput{Name: "in", Parquet: bytes.NewReader(w.parquet), Size: int64(len(w.parquet)), Sidecar: w.sidecar}
}

// mergeInputs are the trial's, some of them empty.
func (tr *trial) mergeInputs() (inputs []MergeInput, numbers []int) {
	for i, w := range tr.inputs {
		if w == nil {
			continue
		}
		in := inputOf(w)
		in.MaskedSources, in.Drop = tr.masked[i], tr.drop[i]
		inputs = append(inputs, in)
		numbers = append(numbers, i)
	}
	return inputs, numbers
}

func TestMergeDoesWhatANaiveMergeDoes(t *testing.T) {
	t.Parallel()
	seeds := uint64(24)
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		seeds = 300
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 3))
			tr := drawTrial(t, rng)
			want := tr.naive()
			inputs, numbers := tr.mergeInputs()
			shards := uint32(1) << rng.IntN(4)
			result, outputs := mergeOf(t, inputs, shards)
			if diff := gocmp.Diff(want.lines, linesOf(t, outputs)); diff != "" {
				t.Errorf("points (-want +got):\n%s", diff)
			}
			result.Outputs = nil
			for i := range result.DeletedBy {
				result.DeletedBy[i].Input = numbers[result.DeletedBy[i].Input]
			}
			if diff := gocmp.Diff(want.result, result); diff != "" {
				t.Errorf("account (-want +got):\n%s", diff)
			}
			tr.inSteps(rng, inputs, want.lines)
		})
	}
}

// inSteps merges the inputs in a random order, a few at a time, into shards of whatever counts: the points are the same in the end.
func (tr *trial) inSteps(rng *rand.Rand, inputs []MergeInput, want []string) {
	tr.t.Helper()
	for len(inputs) > 1 {
		rng.Shuffle(len(inputs), func(i, j int) { inputs[i], inputs[j] = inputs[j], inputs[i] })
		n := 2 + rng.IntN(len(inputs)-1)
		shards := uint32(1) << rng.IntN(3)
		if n == len(inputs) {
			shards = 1
		}
		_, outputs := mergeOf(tr.t, inputs[:n], shards)
		inputs = inputs[n:]
		for _, w := range outputs {
			if w != nil {
				inputs = append(inputs, inputOf(w))
			}
		}
	}
	_, outputs := mergeOf(tr.t, inputs, 1)
	got := linesOf(tr.t, outputs)
	if tr.unknown { // what is the latest of some is not, beside later points of no family
		isFamily := func(line string) bool { return strings.Contains(line, "] is {") }
		want, got = slices.DeleteFunc(slices.Clone(want), isFamily), slices.DeleteFunc(got, isFamily)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		tr.t.Errorf("points when merged in steps (-want +got):\n%s", diff)
	}
}
