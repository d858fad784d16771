// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// hide masks sources, makes deletes that were applied to some segments, and takes away from the rows in memory what must not be answered.
func (f *fixture) hide(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 4))
	m := &queryMaker{rng}
	for n := range 4 {
		text := m.selector()
		if rng.IntN(3) > 0 {
			text += " " + m.pipeline()
		}
		parsed, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		start := began.Add(time.Duration(rng.IntN(testHours*3600)-1800) * time.Second)
		d := Delete{Number: int64(n + 1), Selector: parsed, Start: start.UnixNano(), End: start.Add(time.Duration(rng.IntN(2*3600)) * time.Second).UnixNano()}
		if rng.IntN(3) == 0 {
			d.Start, d.End = 0, 1<<62
		}
		f.deletes = append(f.deletes, d)
	}
	for i := range f.segments {
		s := &f.segments[i]
		s.Applied, s.Identified, s.Lease = int64(rng.IntN(5)), rng.IntN(4) > 0, pick(rng, "", "lease0", "lease1", "lease2")
		if rng.IntN(3) == 0 {
			s.Masked = []int64{int64(1 + rng.IntN(3)), 99}
		}
	}
	f.rows = f.surviving(t)
}

// surviving are the rows that are answered.
func (f *fixture) surviving(t *testing.T) []memoryRow {
	t.Helper()
	segments := map[string]*Segment{}
	for i := range f.segments {
		segments[f.segments[i].File.Key] = &f.segments[i]
	}
	rows := slices.DeleteFunc(slices.Clone(f.rows), func(r memoryRow) bool {
		s := segments[r.key]
		return slices.Contains(s.Masked, r.source) || slices.ContainsFunc(f.deletes, func(d Delete) bool { return d.Number > s.Applied && d.reaches(t, &r) })
	})
	leases := map[int64]map[string]bool{} // of identified segments, by hour
	for _, s := range f.segments {
		hour := columns.HourOf(s.First)
		if leases[hour] == nil {
			leases[hour] = map[string]bool{}
		}
		if s.Identified {
			leases[hour][s.Lease] = true
		}
	}
	contested := func(r *memoryRow) bool {
		return r.identity != columns.Identity{} && segments[r.key].Identified && (len(leases[columns.HourOf(r.time)]) > 1 || leases[columns.HourOf(r.time)][""])
	}
	best := map[columns.Identity]int{}
	for i := range rows {
		r := &rows[i]
		if !contested(r) {
			continue
		}
		if b, ok := best[r.identity]; !ok || cmp.Or(cmp.Compare(r.source, rows[b].source), cmp.Compare(r.hash, rows[b].hash)) < 0 {
			best[r.identity] = i
		}
	}
	var kept []memoryRow
	for i := range rows {
		if !contested(&rows[i]) || best[rows[i].identity] == i {
			kept = append(kept, rows[i])
		}
	}
	return kept
}

func (d *Delete) reaches(t *testing.T, r *memoryRow) bool {
	t.Helper()
	if r.time < d.Start || r.time >= d.End {
		return false
	}
	expr, err := plan.ParseSelector(d.Selector.String())
	if err != nil {
		t.Fatal(err)
	}
	pipeline, err := expr.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	if !matchesAll(expr.Matchers(), r.stream) {
		return false
	}
	_, _, ok := pipeline.ForStream(r.stream).ProcessString(r.time, r.line, r.metadata)
	return ok
}

// TestHiddenRows holds the answers over masked, deleted and doubled rows to Loki's over those that survive.
func TestHiddenRows(t *testing.T) {
	t.Parallel()
	first := seeds(t)
	for seed := first; seed < first+8; seed++ {
		t.Run(fmt.Sprintf("are in no answer (seed %d)", seed), func(t *testing.T) {
			t.Parallel()
			f := setupOf(t, seed, shape{rows: 1200, pieces: 3, identified: true})
			all := len(f.rows)
			f.hide(t, seed)
			t.Logf("%d of %d rows survive", len(f.rows), all)
			f.checkStreams(t, began.UnixNano(), began.Add(testHours*time.Hour).UnixNano())
			f.checkStreams(t, began.Add(20*time.Minute).UnixNano(), began.Add(100*time.Minute).UnixNano())
			f.compareSamples(t, seed, 40)
			f.compareLines(t, seed, 40)
		})
	}
}

// TestSeveralRowGroups holds the answers over large segments to Loki's.
func TestSeveralRowGroups(t *testing.T) {
	t.Parallel()
	seed := seeds(t)
	f := setupOf(t, seed, shape{rows: 600, pieces: 1, padding: 40 << 10, identified: true})
	for i := range f.segments {
		contents, err := f.scanner.cache.Sidecar(t.Context(), f.segments[i].Sidecar, &cache.Usage{})
		if err != nil {
			t.Fatal(err)
		}
		if len(contents.RowGroups) < 3 {
			t.Fatalf("segment %d has %d row groups", i, len(contents.RowGroups))
		}
	}
	t.Run("with all of their rows", func(t *testing.T) {
		whole := *f
		whole.compareLines(t, seed, 120)
		whole.compareSamples(t, seed, 30)
	})
	t.Run("with rows that are not answered", func(t *testing.T) {
		f.hide(t, seed)
		f.compareLines(t, seed, 40)
		f.compareSamples(t, seed, 20)
	})
}

func TestDeletes(t *testing.T) {
	t.Parallel()
	end := began.Add(testHours * time.Hour)
	parse := func(text string) *selector.Selector {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	count := Samples{Expression: `sum by (service_name) (count_over_time({service_name=~".+"}[3h]))`, End: end.UnixNano()}
	t.Run("of whole streams cost no reading", func(t *testing.T) {
		t.Parallel()
		f := setup(t, 20, 900)
		f.deletes = []Delete{{Number: 1, Selector: parse(`{service_name="cart"}`), Start: 0, End: 1 << 62}}
		s := f.begin()
		if err := s.Samples(t.Context(), count, keep(new([]arrow.RecordBatch))); err != nil {
			t.Fatal(err)
		}
		if s.Statistics.Read.Load() != 0 {
			t.Fatalf("%d segments were read", s.Statistics.Read.Load())
		}
	})
	t.Run("with a pipeline cost nothing where their streams are not", func(t *testing.T) {
		t.Parallel()
		f := setup(t, 21, 900)
		f.deletes = []Delete{{Number: 1, Selector: parse(`{service_name="nobody"} |= "x"`), Start: 0, End: 1 << 62}}
		s := f.begin()
		if err := s.Samples(t.Context(), count, keep(new([]arrow.RecordBatch))); err != nil {
			t.Fatal(err)
		}
		if s.Statistics.Read.Load() != 0 {
			t.Fatalf("%d segments were read", s.Statistics.Read.Load())
		}
	})
	t.Run("that were applied mask nothing", func(t *testing.T) {
		t.Parallel()
		f := setup(t, 22, 900)
		f.deletes = []Delete{{Number: 3, Selector: parse(`{service_name=~".+"}`), Start: 0, End: 1 << 62}}
		for i := range f.segments {
			f.segments[i].Applied = 3
		}
		got, err := f.samples(t.Context(), Samples{Expression: `sum(count_over_time({service_name=~".+"}[3h]))`, End: end.UnixNano()})
		if err != nil || got["{}"][end.UnixMilli()] != 900 {
			t.Fatalf("%v, %v", got, err)
		}
	})
}

func TestDoublesAreBounded(t *testing.T) {
	t.Parallel()
	f := setupOf(t, 23, shape{rows: 1200, pieces: 3, identified: true})
	for i := range f.segments {
		f.segments[i].Identified, f.segments[i].Lease = true, fmt.Sprint(i)
	}
	f.scanner.options.Memory = 2000
	_, err := f.samples(t.Context(), Samples{Expression: `sum(count_over_time({service_name=~".+"}[3h]))`, End: began.Add(testHours * time.Hour).UnixNano()})
	if !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "ask for fewer hours") {
		t.Fatalf("got %v", err)
	}
}

func TestHours(t *testing.T) {
	t.Parallel()
	hour := int64(time.Hour)
	for _, c := range [][4]int64{
		{1, 2, 0, hour},
		{0, hour, 0, hour},
		{hour - 1, hour + 1, 0, 2 * hour},
		{-1, 0, -hour, 0},
		{math.MinInt64, 1, math.MinInt64, hour},
		{0, math.MaxInt64, 0, math.MaxInt64 / hour * hour},
	} {
		if first, last := hours(c[0], c[1]); first != c[2] || last != c[3] {
			t.Errorf("hours of %d to %d: %d to %d, want %d to %d", c[0], c[1], first, last, c[2], c[3])
		}
	}
}

func TestRivals(t *testing.T) {
	t.Parallel()
	at := func(minute int) int64 { return began.Add(time.Duration(minute) * time.Minute).UnixNano() }
	segment := func(first, last int, lease string, identified bool) Segment {
		return Segment{First: at(first), Last: at(last), Lease: lease, Identified: identified}
	}
	s := &Scan{segments: []Segment{
		0: segment(0, 10, "a", true), 1: segment(50, 59, "b", true), // one hour, apart
		2: segment(60, 70, "a", true), 3: segment(80, 90, "a", true), // one lease
		4: segment(120, 130, "a", true), 5: segment(125, 130, "b", false), // one is not identified
		9: segment(400, 410, "", true),                                                                    // of no lease
		6: segment(180, 300, "a", true), 7: segment(290, 310, "b", true), 8: segment(340, 350, "b", true), // a chain
	}}
	got := s.rivals(at(0), at(420))
	if want := [][]int{{0, 1}, {6, 7, 8}, {9}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("got %v, want %v", got, want)
	}
}
