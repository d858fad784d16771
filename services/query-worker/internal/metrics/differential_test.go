// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/vector"
)

// world is random points, in segments and, as Prometheus would have them, in memory.
type world struct {
	*lab
	r      *rand.Rand
	memory *promtest.Memory
	stores []*metricfile.Store
	// doubles says that points may be there twice, and of neighbouring series in different segments.
	doubles bool
}

var worldStart = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC).UnixMilli()

const worldMinutes = 150

func newWorld(t testing.TB, seed uint64, doubles bool) *world {
	w := &world{lab: newLab(t, Options{}), r: rand.New(rand.NewPCG(seed, 7)), memory: &promtest.Memory{}, doubles: doubles}
	for range 3 {
		w.stores = append(w.stores, metricfile.NewStore())
	}
	for i := range 6 {
		w.floats("requests_total", i, counter(w.r))
		w.floats("temperature", i, gauge(w.r))
		w.deltas("bytes_total", i)
	}
	for i := range 4 {
		w.classic("latency_seconds", i, []float64{0.005, 0.1, 1, 10}, false)
		w.classic("delta_seconds", i, []float64{0.5, 2.5}, true)
		w.summary("rpc_seconds", i)
	}
	w.classic("latency_seconds", 3, []float64{0.005, 0.25, 1}, false) // its bounds change
	w.mixed()
	for i, st := range w.stores {
		if st.Len() > 0 {
			w.write(t, st, []uint32{1, 1, 4}[i])
		}
	}
	return w
}

func labelsOf(name string, i int) labels.Labels {
	return labels.FromStrings("__name__", name, "instance", strconv.Itoa(i), "job", []string{"api", "db"}[i%2], "zone", []string{"a", "b", "c"}[i%3])
}

// times are when a series has points: with gaps, jitter, and an end.
func (w *world) times() []int64 {
	step := []int64{10_000, 15_000, 60_000, 7_001}[w.r.IntN(4)]
	jitter := w.r.Int64N(3) * 300
	var all []int64
	for t := worldStart + w.r.Int64N(20*60_000); t < worldStart+worldMinutes*60_000; t += step {
		if w.r.IntN(400) == 0 {
			t += w.r.Int64N(15 * 60_000)
		}
		all = append(all, t+jitter*w.r.Int64N(2))
	}
	return all
}

// stamp puts a point in one of the stores: a source writes its points for a while, then another does.
func (w *world) stamp(t int64) (metricfile.Stamp, *metricfile.Store) {
	n := int(t/(37*60_000)) % len(w.stores)
	if !w.doubles {
		n = 0
	}
	return metricfile.Stamp{Time: t*1_000_000 + 123_456, Source: lake.ReceiptID(n + 1)}, w.stores[n]
}

func counter(r *rand.Rand) func() float64 {
	v := 0.
	return func() float64 {
		if v += float64(r.IntN(50)) / 4; r.IntN(150) == 0 {
			v = float64(r.IntN(3))
		}
		return v
	}
}

func gauge(r *rand.Rand) func() float64 {
	return func() float64 {
		switch r.IntN(300) {
		case 0:
			return math.NaN()
		case 1:
			return math.Inf(1 - 2*r.IntN(2))
		case 2:
			return 1e300
		}
		return r.NormFloat64() * 100
	}
}

var staleNaN = math.Float64frombits(value.StaleNaN)

func (w *world) floats(name string, i int, next func() float64) {
	s := &metricfile.Series{Labels: labelsOf(name, i), Kind: metricfile.KindFloat}
	line := prom.Series{Labels: s.Labels}
	for _, t := range w.times() {
		v := next()
		if w.r.IntN(120) == 0 {
			v = staleNaN
		}
		at, st := w.stamp(t)
		st.Float(st.Series(s), at, v)
		w.double(st, s, at, v)
		line.Times, line.Values = append(line.Times, t), append(line.Values, v)
	}
	w.memory.Add(line)
}

// double sometimes writes a point again, from a later source, with another value that does not count.
func (w *world) double(st *metricfile.Store, s *metricfile.Series, at metricfile.Stamp, v float64) {
	if w.r.IntN(50) > 0 || !w.doubles {
		return
	}
	at.Source += 3
	if w.r.IntN(2) == 0 {
		st = w.stores[w.r.IntN(len(w.stores))]
	}
	st.Float(st.Series(s), at, v+1)
}

func (w *world) deltas(name string, i int) {
	s := &metricfile.Series{Labels: labelsOf(name, i), Kind: metricfile.KindFloat, Delta: true}
	cumulative := &metricfile.Series{Labels: s.Labels, Kind: metricfile.KindFloat}
	line, before := prom.Series{Labels: s.Labels, Delta: true}, prom.Series{Labels: s.Labels}
	changes := worldStart
	if i == 5 {
		changes += 70 * 60_000 // until then it is cumulative
	}
	last, total := int64(0), 0.
	for _, t := range w.times() {
		v := float64(w.r.IntN(100))
		at, st := w.stamp(t)
		if t < changes {
			total += v
			st.Float(st.Series(cumulative), at, total)
			before.Times, before.Values = append(before.Times, t), append(before.Values, total)
			continue
		}
		if last != 0 && i%2 == 0 {
			at.Start = last * 1_000_000
		}
		st.Float(st.Series(s), at, v)
		line.Times, line.Values, line.Starts = append(line.Times, t), append(line.Values, v), append(line.Starts, at.Start/1_000_000)
		last = t
	}
	w.memory.Add(line)
	if before.Len() > 0 {
		w.memory.Add(before)
	}
}

func (w *world) classic(name string, i int, bounds []float64, delta bool) {
	s := &metricfile.Series{Labels: labelsOf(name, i), Kind: metricfile.KindClassic, Bounds: bounds, Delta: delta}
	lines := newLines(s.Labels, delta)
	buckets, sum := make([]uint64, len(bounds)+1), 0.
	times := w.times()
	if i == 3 && name == "latency_seconds" { // one layout before the other
		half := worldStart + 75*60_000
		times = slices.DeleteFunc(times, func(t int64) bool { return (t < half) != (len(bounds) == 4) })
	}
	for _, t := range times {
		if delta || w.r.IntN(200) == 0 {
			clear(buckets)
			sum = 0
		}
		count := uint64(0)
		for b := range buckets {
			buckets[b] += uint64(w.r.IntN(20))
			count += buckets[b]
		}
		sum += float64(w.r.IntN(100)) / 8
		at, st := w.stamp(t)
		stale := w.r.IntN(100) == 0
		stored := sum
		if stale {
			stored = staleNaN
		}
		st.Classic(st.Series(s), at, count, stored, buckets)
		below := uint64(0)
		for b, bound := range bounds {
			below += buckets[b]
			lines.add("_bucket", "le", strconv.FormatFloat(bound, 'f', -1, 64), t, orStale(stale, float64(below)))
		}
		lines.add("_bucket", "le", "+Inf", t, orStale(stale, float64(count)))
		lines.add("_sum", "", "", t, orStale(stale, sum))
		lines.add("_count", "", "", t, orStale(stale, float64(count)))
	}
	w.memory.Add(lines.all()...)
}

func (w *world) summary(name string, i int) {
	s := &metricfile.Series{Labels: labelsOf(name, i), Kind: metricfile.KindSummary, Bounds: []float64{0.5, 0.99}}
	lines := newLines(s.Labels, false)
	count, sum := uint64(0), 0.
	for _, t := range w.times() {
		count += uint64(w.r.IntN(9))
		sum += w.r.Float64()
		quantiles := []float64{w.r.Float64(), w.r.Float64() * 10}
		at, st := w.stamp(t)
		stale := w.r.IntN(90) == 0
		st.Summary(st.Series(s), at, count, orStale(stale, sum), quantiles)
		for q, text := range []string{"0.5", "0.99"} {
			lines.add("", "quantile", text, t, orStale(stale, quantiles[q]))
		}
		lines.add("_sum", "", "", t, orStale(stale, sum))
		lines.add("_count", "", "", t, orStale(stale, float64(count)))
	}
	w.memory.Add(lines.all()...)
}

// mixed is a series that is now and then a native histogram.
func (w *world) mixed() {
	s := metricfile.Series{Labels: labelsOf("mixed", 0)}
	native := s
	native.Kind = metricfile.KindHistogram
	line := prom.Series{Labels: s.Labels}
	for n, t := range w.times() {
		at, st := w.stamp(t)
		if n%40 < 30 {
			st.Float(st.Series(&s), at, float64(n))
			line.Times, line.Values = append(line.Times, t), append(line.Values, float64(n))
			continue
		}
		h := &histogram.FloatHistogram{Count: float64(n), Sum: float64(n), PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []float64{1, float64(n - 1)}}
		st.Histogram(st.Series(&native), at, h)
		line.HistogramTimes, line.Histograms = append(line.HistogramTimes, t), append(line.Histograms, h)
	}
	w.memory.Add(line)
}

func orStale(stale bool, v float64) float64 {
	if stale {
		return staleNaN
	}
	return v
}

// lines are the Prometheus series of a histogram or summary.
type lines struct {
	base  labels.Labels
	delta bool
	by    map[string]*prom.Series
}

func newLines(base labels.Labels, delta bool) *lines {
	return &lines{base, delta, map[string]*prom.Series{}}
}

func (l *lines) add(suffix, label, text string, t int64, v float64) {
	s := l.by[suffix+text]
	if s == nil {
		b := labels.NewBuilder(l.base).Set("__name__", l.base.Get("__name__")+suffix)
		if label != "" {
			b.Set(label, text)
		}
		s = &prom.Series{Labels: b.Labels(), Delta: l.delta}
		l.by[suffix+text] = s
	}
	s.Times, s.Values = append(s.Times, t), append(s.Values, v)
}

func (l *lines) all() []prom.Series {
	var all []prom.Series
	for _, s := range l.by {
		all = append(all, *s)
	}
	return all
}

// expression is a random one, mostly of a shape that is evaluated without the engine.
func (w *world) expression() string {
	pick := func(of ...string) string { return of[w.r.IntN(len(of))] }
	selector := pick(
		"requests_total", "requests_total", "temperature", "bytes_total", `bytes_total{instance!="5"}`, "latency_seconds_bucket", "latency_seconds_bucket", `latency_seconds_bucket{le="0.1"}`,
		`latency_seconds_bucket{le=~"1|10|[+]Inf"}`, "latency_seconds_sum", "latency_seconds_count", `latency_seconds_bucket{instance!="3"}`, "delta_seconds_bucket", "delta_seconds_count",
		"rpc_seconds", `rpc_seconds{quantile="0.99"}`, "rpc_seconds_sum", `{__name__=~"requests_total|temperature"}`, `{__name__=~".+",job="api"}`, `{__name__=~".*_seconds_.*"}`, "mixed", "nothing",
		`requests_total{job="db"}`, `{__name__=~"latency_seconds_(sum|count)"}`, `{zone="a",__name__!="mixed"}`,
	)
	if w.r.IntN(4) == 0 {
		selector += pick("", "") // no difference: offsets stand behind a range
	}
	inner, offset := selector, pick("", "", "", " offset 7m", " offset -3m")
	if w.r.IntN(4) > 0 {
		function := pick("rate", "rate", "increase", "irate", "delta", "idelta", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time",
			"last_over_time", "first_over_time", "present_over_time", "stddev_over_time", "stdvar_over_time", "resets", "changes")
		inner = fmt.Sprintf("%s(%s[%s]%s)", function, selector, pick("1m", "5m", "5m", "23m", "13s", "90m"), offset)
	} else {
		inner += offset
	}
	if w.r.IntN(3) == 0 {
		return inner
	}
	op := pick("sum", "sum", "avg", "min", "max", "count", "group")
	by := pick("", "by (job)", "by (le)", "by (zone, job)", "by (__name__)", "without (instance)", "without (le, instance)", "by (nothing)", "by (quantile, job)", "without (instance, zone, job)")
	return fmt.Sprintf("%s %s (%s)", op, by, inner)
}

// agree compares what a scan says of an expression with what the engine says over the same samples in memory.
func (w *world) agree(t *testing.T, text string, start, end, step int64) (fast bool) {
	t.Helper()
	expr, err := prom.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	request := prom.Request{Expr: expr, Start: time.UnixMilli(start), End: time.UnixMilli(end), Step: time.Duration(step) * time.Millisecond}
	r, wantErr := prom.New(prom.Options{}).Evaluate(t.Context(), w.memory, request)
	var want []prom.Series
	if wantErr == nil {
		if want, err = seriesOf(r); err != nil {
			t.Fatal(err)
		}
	}
	q := Vector{Text: text, Expr: expr, Start: start, End: end, Step: step, Lookback: 5 * 60_000}
	if plan, ok := q.plan(); ok {
		_, _, err := w.scan(t).fast(t.Context(), plan, &q)
		fast = !errors.Is(err, vector.ErrUnsure)
	}
	var got []prom.Series
	remarks, err := w.scan(t).Vector(t.Context(), q, func(b arrow.RecordBatch) (err error) {
		got, err = prom.DecodeSeries(got, b)
		return err
	})
	where := fmt.Sprintf("%s from %d to %d step %d", text, start-worldStart, end-worldStart, step)
	if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
		t.Fatalf("%s: got error %v, want %v", where, err, wantErr)
	}
	if diff := differ(want, got); diff != "" {
		t.Fatalf("%s: %s", where, diff)
	}
	if wantErr == nil && !slices.Equal(remarks, prom.Annotations(r.Annotations)) {
		t.Fatalf("%s: remarks %v, want %v", where, remarks, prom.Annotations(r.Annotations))
	}
	return fast
}

func differ(want, got []prom.Series) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d series, want %d: %v, want %v", len(got), len(want), labelSets(got), labelSets(want))
	}
	for i := range want {
		w, g := &want[i], &got[i]
		if !labels.Equal(w.Labels, g.Labels) || !slices.Equal(w.Times, g.Times) || !slices.Equal(w.HistogramTimes, g.HistogramTimes) {
			return fmt.Sprintf("%s at %v and %v, want %s at %v and %v", g.Labels, g.Times, g.HistogramTimes, w.Labels, w.Times, w.HistogramTimes)
		}
		for n := range w.Values {
			if !near(w.Values[n], g.Values[n]) {
				return fmt.Sprintf("%s at %d: %v, want %v", g.Labels, g.Times[n]-worldStart, g.Values[n], w.Values[n])
			}
		}
		for n := range w.Histograms {
			if !w.Histograms[n].Equals(g.Histograms[n]) {
				return fmt.Sprintf("%s at %d: %s, want %s", g.Labels, g.HistogramTimes[n]-worldStart, g.Histograms[n], w.Histograms[n])
			}
		}
	}
	return ""
}

func labelSets(series []prom.Series) string {
	var all []string
	for i := range series {
		all = append(all, series[i].Labels.String())
	}
	return strings.Join(all, " ")
}

func near(a, b float64) bool {
	if math.IsNaN(a) || math.IsNaN(b) || math.IsInf(a, 0) || math.IsInf(b, 0) {
		return math.IsNaN(a) && math.IsNaN(b) || a == b
	}
	return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b))
}

func TestEvaluationEqualsTheEngines(t *testing.T) {
	t.Parallel()
	worlds, expressions := 3, 300
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		worlds, expressions = 40, 1000
	}
	for seed := range uint64(worlds) {
		t.Run(fmt.Sprint("world ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, true)
			fast := 0
			for range expressions {
				start := worldStart + w.r.Int64N(worldMinutes*60_000)
				step := []int64{0, 60_000, 15_000, 17_003, 300_000}[w.r.IntN(5)]
				end := start + step*w.r.Int64N(40)
				if w.agree(t, w.expression(), start, end, step) {
					fast++
				}
			}
			if t.Logf("%d of %d expressions were evaluated without the engine", fast, expressions); fast < expressions/3 {
				t.Fatal("too few")
			}
		})
	}
}
