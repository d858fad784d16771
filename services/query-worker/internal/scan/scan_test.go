// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

func everything() Lines {
	return Lines{Selector: `{service_name=~".+"}`, Start: began.UnixNano(), End: began.Add(testHours * time.Hour).UnixNano()}
}

// counted is a query of each kind of answer, all of which count every row once.
func counted() map[string]string {
	return map[string]string{
		"catalogue":     `sum(count_over_time({service_name=~".+"}[3h]))`,
		"SQL":           `sum(count_over_time({service_name=~".+"} != "not in any line" [3h]))`,
		"SQL by column": `sum(sum by (detected_level) (count_over_time({service_name=~".+"}[3h])))`,
		"rows":          `sum(count_over_time({service_name=~".+"} | json | __error__="" or __error__!="" [3h]))`,
		"engine":        `sum(max_over_time({service_name=~".+"} | label_format one="1" | unwrap one [3h]))`,
	}
}

func TestMaskedSources(t *testing.T) {
	t.Parallel()
	f := setup(t, 7, 1500)
	for i := range f.segments {
		f.segments[i].Masked = []int64{2, 99}
	}
	f.rows = slices.DeleteFunc(f.rows, func(r memoryRow) bool { return r.source == 2 })
	t.Run("are in no lines", func(t *testing.T) {
		t.Parallel()
		var batches []arrow.RecordBatch
		if err := f.begin().Lines(t.Context(), everything(), keep(&batches)); err != nil {
			t.Fatal(err)
		}
		if diff := sameLines(reference{f.rows}.lines(t, everything()), collectLines(batches), 0); diff != "" {
			t.Fatal(diff)
		}
	})
	for name, expression := range counted() {
		t.Run("are in no count by "+name, func(t *testing.T) {
			t.Parallel()
			q := Samples{Expression: expression, End: began.Add(testHours * time.Hour).UnixNano()}
			want, err := reference{f.rows}.samples(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.samples(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := want.diff(got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	t.Run("are in no streams", func(t *testing.T) {
		t.Parallel()
		f.checkStreams(t, began.UnixNano(), began.Add(testHours*time.Hour).UnixNano())
	})
}

// checkStreams compares the catalogue's answer with the rows in memory.
func (f *fixture) checkStreams(t *testing.T, start, end int64) {
	t.Helper()
	want := map[string]streamTotal{}
	for _, r := range f.rows {
		if r.time < start || r.time >= end {
			continue
		}
		s, ok := want[r.stream.String()]
		if !ok {
			s = streamTotal{text: r.stream.String(), first: r.time, last: r.time}
		}
		s.rows, s.bytes = s.rows+1, s.bytes+int64(len(r.line))
		s.first, s.last = min(s.first, r.time), max(s.last, r.time)
		want[s.text] = s
	}
	var batches []arrow.RecordBatch
	err := f.begin().Streams(t.Context(), Streams{Selector: `{service_name=~".+"}`, Start: start, End: end}, keep(&batches))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, b := range batches {
		for i := range int(b.NumRows()) {
			at := func(c int) int64 { return b.Column(c).(*array.Int64).Value(i) }
			s := streamTotal{b.Column(0).(*array.String).Value(i), at(1), at(2), at(3), at(4)}
			if s != want[s.text] {
				t.Errorf("got %+v, want %+v", s, want[s.text])
			}
			got++
		}
	}
	if got != len(want) {
		t.Errorf("%d streams, want %d", got, len(want))
	}
}

func TestCatalogue(t *testing.T) {
	t.Parallel()
	f := setup(t, 8, 1500)
	t.Run("streams of whole segments cost no reading", func(t *testing.T) {
		t.Parallel()
		f.checkStreams(t, began.UnixNano(), began.Add(testHours*time.Hour).UnixNano())
		s := f.begin()
		if err := s.Streams(t.Context(), Streams{Start: 0, End: 1 << 62}, func(arrow.RecordBatch) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if s.Statistics.Read.Load() != 0 {
			t.Fatalf("%d segments were read", s.Statistics.Read.Load())
		}
	})
	t.Run("streams that the range cuts are counted", func(t *testing.T) {
		t.Parallel()
		f.checkStreams(t, began.Add(20*time.Minute).UnixNano(), began.Add(100*time.Minute).UnixNano())
	})
	t.Run("counting everything costs no reading", func(t *testing.T) {
		t.Parallel()
		s := f.begin()
		q := Samples{Expression: `sum(count_over_time({service_name=~".+"}[24h]))`, End: began.Add(5 * time.Hour).UnixNano()}
		var batches []arrow.RecordBatch
		if err := s.Samples(t.Context(), q, keep(&batches)); err != nil {
			t.Fatal(err)
		}
		if got := collectSamples(batches)["{}"][q.End/1e6]; got != 1500 || s.Statistics.Read.Load() != 0 {
			t.Fatalf("counted %v, read %d segments", got, s.Statistics.Read.Load())
		}
	})
	t.Run("fields have their names and types", func(t *testing.T) {
		t.Parallel()
		var batches []arrow.RecordBatch
		if err := f.begin().Fields(t.Context(), Streams{Start: 0, End: 1 << 62}, keep(&batches)); err != nil {
			t.Fatal(err)
		}
		kinds := map[string][]string{}
		for _, b := range batches {
			for i := range int(b.NumRows()) {
				name := b.Column(0).(*array.String).Value(i)
				kinds[name] = append(kinds[name], b.Column(1).(*array.String).Value(i))
			}
		}
		for name, want := range map[string]string{"http_method": "string", "status": "int", "duration": "float", "cached": "boolean", "mixed": "int string", "host_name": "string"} {
			if got := strings.Join(kinds[name], " "); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
}

func TestMissingSegment(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"", ".idx"} {
		t.Run("is an error that names it: "+suffix, func(t *testing.T) {
			t.Parallel()
			f := setup(t, 9, 300)
			key := f.segments[1].File.Key + suffix
			if err := os.Remove(filepath.Join(f.dir, key)); err != nil {
				t.Fatal(err)
			}
			err := f.begin().Lines(t.Context(), everything(), func(arrow.RecordBatch) error { return nil })
			if !errors.Is(err, fault.MissingSegment) || !strings.Contains(err.Error(), key) {
				t.Fatalf("got %v", err)
			}
			for name, expression := range counted() {
				if suffix == "" && name == "catalogue" {
					continue // which does not read the file
				}
				_, err := f.samples(t.Context(), Samples{Expression: expression, End: began.Add(testHours * time.Hour).UnixNano()})
				if !errors.Is(err, fault.MissingSegment) {
					t.Fatalf("%s: got %v", name, err)
				}
			}
		})
	}
}

func TestTwoScansShareDownloads(t *testing.T) {
	t.Parallel()
	f := setup(t, 10, 600)
	scans := make([]*Scan, 4)
	var all sync.WaitGroup
	for i := range scans {
		scans[i] = f.begin()
		all.Go(func() {
			if err := scans[i].Lines(t.Context(), everything(), func(arrow.RecordBatch) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var requests, bytes, size int64
	for _, s := range scans {
		requests, bytes = requests+s.Statistics.Cache.Requests(), bytes+s.Statistics.Cache.Bytes()
	}
	for _, s := range f.segments {
		size += s.File.Bytes + s.Sidecar.Bytes
	}
	if want := int64(2 * len(f.segments)); requests != want || bytes != size {
		t.Fatalf("%d requests for %d bytes, want %d for %d", requests, bytes, want, size)
	}
}

func TestFetchBudget(t *testing.T) {
	t.Parallel()
	f := setup(t, 11, 300)
	err := f.scanner.Begin(f.segments, 100).Lines(t.Context(), everything(), func(arrow.RecordBatch) error { return nil })
	if !errors.Is(err, fault.Exhausted) {
		t.Fatalf("got %v", err)
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	f := setup(t, 12, 3000)
	f.scanner.options.Memory = 50_000
	if err := f.begin().Lines(t.Context(), everything(), func(arrow.RecordBatch) error { return nil }); !errors.Is(err, fault.Exhausted) {
		t.Fatalf("lines: got %v", err)
	}
	q := Samples{Expression: `count_over_time({service_name=~".+"}[3h])`, End: began.Add(testHours * time.Hour).UnixNano()}
	if _, err := f.samples(t.Context(), q); !errors.Is(err, fault.Exhausted) {
		t.Fatalf("samples: got %v", err)
	}
}

func TestSeriesLimit(t *testing.T) {
	t.Parallel()
	f := setup(t, 13, 300)
	f.scanner.options.MaxSeries = 3
	q := Samples{Expression: `sum by (pod) (count_over_time({service_name=~".+"}[3h]))`, End: began.Add(testHours * time.Hour).UnixNano()}
	if _, err := f.samples(t.Context(), q); !errors.Is(err, fault.Exhausted) {
		t.Fatalf("got %v", err)
	}
}

// held is an engine whose statements end only with their context.
type held struct{ began chan struct{} }

func (h held) Query(ctx context.Context, _ string) (Batches, error) {
	h.began <- struct{}{}
	<-ctx.Done()
	return nil, fault.Wrap(fault.Canceled, ctx.Err())
}

func TestCancel(t *testing.T) {
	t.Parallel()
	f := setup(t, 14, 600)
	f.scanner.options.DirectRows = -1
	real := f.scanner.engine
	h := held{make(chan struct{}, 100)}
	f.scanner.engine = h
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- f.begin().Lines(ctx, everything(), func(arrow.RecordBatch) error { return nil })
	}()
	<-h.began
	cancel()
	if err := <-done; !errors.Is(err, fault.Canceled) {
		t.Fatalf("got %v", err)
	}
	f.scanner.engine = real
	if s := f.scanner.cache.(*cache.Cache[*Contents]).State(); s.Pinned != 0 {
		t.Fatalf("%d files are still pinned", s.Pinned)
	}
}

// A statement that would take hours ends soon after its context.
func TestCancelReachesDuckDB(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, 30)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := f.begin().query(ctx, "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range * b.range % 7 = 8",
		func(arrow.RecordBatch) error { return nil })
	if !errors.Is(err, fault.Timeout) && !errors.Is(err, fault.Canceled) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Fatalf("it took %s", took)
	}
}

func TestRangedReads(t *testing.T) {
	t.Parallel()
	f := setup(t, 16, 60_000) // enough for segments of several row groups
	whole := &cut{segment: &f.segments[0], contents: &Contents{}}
	contents, err := f.scanner.cache.Sidecar(t.Context(), f.segments[0].Sidecar, &cache.Usage{})
	if err != nil {
		t.Fatal(err)
	}
	whole.contents = contents
	part := *whole
	part.spans = []cache.Rows{{First: 0, Last: contents.Rows/4 - 1}}
	s := f.begin()
	p, err := s.open(t.Context(), &part)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	if !p.Sparse {
		t.Fatalf("%s is the whole file", p.Path)
	}
	rows := 0
	sql := part.from(p, []string{"row", "body"}, nil)
	if err := s.query(t.Context(), sql, func(b arrow.RecordBatch) error { rows += int(b.NumRows()); return nil }); err != nil {
		t.Fatal(err)
	}
	if int64(rows) != contents.Rows/4 {
		t.Fatalf("%d rows, want %d", rows, contents.Rows/4)
	}
	if q, err := s.open(t.Context(), whole); err != nil || q.Sparse {
		t.Fatalf("%v, %v", q, err)
	} else {
		q.Release()
	}
}

func TestFewer(t *testing.T) {
	t.Parallel()
	spans := []cache.Rows{{First: 0, Last: 9}, {First: 12, Last: 20}, {First: 100, Last: 110}, {First: 111, Last: 120}}
	got := fewer(spans, 2)
	if want := []cache.Rows{{First: 0, Last: 20}, {First: 100, Last: 120}}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestGrid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ interval, step time.Duration }{
		{time.Minute, time.Minute}, {5 * time.Minute, time.Minute}, {time.Minute, 5 * time.Minute}, {90 * time.Second, time.Minute}, {7 * time.Second, 0},
	} {
		t.Run(fmt.Sprintf("windows of %s every %s are made of buckets", c.interval, c.step), func(t *testing.T) {
			t.Parallel()
			q := Samples{Start: began.UnixNano(), End: began.Add(20 * time.Minute).UnixNano(), Step: c.step}
			g, ok := gridOf(q, c.interval, 3*time.Second, true)
			if !ok {
				t.Fatal("no grid")
			}
			for at := g.lo - int64(time.Second); at <= g.hi()+int64(time.Second); at += int64(500 * time.Millisecond) {
				bucket, in := g.bucket(at)
				wanted := false
				for step := range g.steps {
					end := g.first + step*g.step
					window := at > end-int64(c.interval) && at <= end
					covered := in && bucket >= step*g.stride && bucket < step*g.stride+g.span
					if window != covered {
						t.Fatalf("time %d: in the window of step %d: %v, in its buckets: %v", at, step, window, covered)
					}
					wanted = wanted || window
				}
				if in && !wanted {
					t.Fatalf("time %d is in bucket %d and in no window", at, bucket)
				}
			}
		})
	}
}
