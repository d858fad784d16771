// SPDX-License-Identifier: AGPL-3.0-only

package logs_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/loki/v3/pkg/logproto"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// hours are n segments of ten rows each, one an hour.
func hours(n int) (*workertest.Worker, []lake.Segment) {
	store := workertest.NewStore()
	var segments []lake.Segment
	for i := range n {
		rows := make([]querytest.Row, 10)
		for at := range rows {
			rows[at] = querytest.Row{
				Time:   start.Add(time.Duration(i)*time.Hour + time.Duration(at)*time.Minute),
				Labels: map[string]string{"service_name": "a"}, Line: fmt.Sprintf("hour %d line %d", i, at),
			}
		}
		segments = append(segments, store.Put("acme", lake.SegmentID(i+1), rows))
	}
	return &workertest.Worker{Store: store}, segments
}

func sessionOver(worker *workertest.Worker, segments []lake.Segment, tally *fan.Tally) *logs.Session {
	workers := []fan.Worker{{Name: "w", Client: worker}}
	return &logs.Session{
		Organization: "acme", Tally: tally, Segments: segments,
		Fan: fan.New(func() []fan.Worker { return workers }, fan.Options{Concurrency: 2, BatchSegments: 1}),
	}
}

func selection(direction logproto.Direction, limit int) logs.Selection {
	return logs.Selection{Selector: `{service_name="a"}`, Start: start, End: start.Add(1000 * time.Hour), Limit: limit, Direction: direction}
}

func read(t *testing.T, lines *logs.Lines) []string {
	t.Helper()
	var out []string
	for line := lines.Next(); line != nil; line = lines.Next() {
		out = append(out, line.Line)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNewestLinesReadOnlyTheNewestSegments(t *testing.T) {
	t.Parallel()
	worker, segments := hours(100)
	got := read(t, sessionOver(worker, segments, fan.NewTally(0)).Select(t.Context(), selection(logproto.BACKWARD, 5)))
	want := []string{"hour 99 line 9", "hour 99 line 8", "hour 99 line 7", "hour 99 line 6", "hour 99 line 5"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if scans := len(worker.Scans()); scans > 2 {
		t.Errorf("%d segments were read for 5 lines of the newest", scans)
	}
}

func TestOldestLinesReadOnlyTheOldestSegments(t *testing.T) {
	t.Parallel()
	worker, segments := hours(100)
	got := read(t, sessionOver(worker, segments, fan.NewTally(0)).Select(t.Context(), selection(logproto.FORWARD, 12)))
	if len(got) != 12 || got[0] != "hour 0 line 0" || got[11] != "hour 1 line 1" {
		t.Errorf("lines %v", got)
	}
	if scans := len(worker.Scans()); scans > 2 {
		t.Errorf("%d segments were read", scans)
	}
}

func TestAllLinesComeInOrder(t *testing.T) {
	t.Parallel()
	worker, segments := hours(30)
	got := read(t, sessionOver(worker, segments, fan.NewTally(0)).Select(t.Context(), selection(logproto.BACKWARD, 0)))
	if len(got) != 300 {
		t.Fatalf("%d lines", len(got))
	}
	for i, line := range got {
		if want := fmt.Sprintf("hour %d line %d", 29-i/10, 9-i%10); line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
}

func TestSpentBudgetLeavesAPartialAnswerThatSaysSo(t *testing.T) {
	t.Parallel()
	worker, segments := hours(100)
	s := sessionOver(worker, segments, fan.NewTally(5000)) // a segment has 1000 bytes
	got := read(t, s.Select(t.Context(), selection(logproto.BACKWARD, 0)))
	if len(got) == 0 || len(got) >= 1000 || got[0] != "hour 99 line 9" {
		t.Errorf("%d lines, the first %v", len(got), got[:min(1, len(got))])
	}
	if s.Partial() == "" {
		t.Error("nothing says that the answer is partial")
	}
}

func TestSegmentsOutsideOfTheRangeAreNotAsked(t *testing.T) {
	t.Parallel()
	worker, segments := hours(10)
	asked := selection(logproto.BACKWARD, 0)
	asked.Start, asked.End = start.Add(3*time.Hour), start.Add(4*time.Hour) // the end is not part of it
	got := read(t, sessionOver(worker, segments, fan.NewTally(0)).Select(t.Context(), asked))
	if len(got) != 10 || len(worker.Scans()) != 1 {
		t.Errorf("%d lines of %d scans", len(got), len(worker.Scans()))
	}
}

// TestLinesOfOneTimeKeepTheirOrder asks for lines that all have the same time, of many segments on several workers: an answer
// depends neither on which worker was faster nor, where no limit cuts it, on how many there are.
func TestLinesOfOneTimeKeepTheirOrder(t *testing.T) {
	t.Parallel()
	const each = 5
	store := workertest.NewStore()
	var segments []lake.Segment
	for i := range 24 {
		rows := make([]querytest.Row, each)
		for at := range rows {
			rows[at] = querytest.Row{Time: start, Labels: map[string]string{"service_name": "a"}, Line: fmt.Sprintf("line %d of segment %02d", at, i)}
		}
		segments = append(segments, store.Put("acme", lake.SegmentID(i+1), rows))
	}
	ask := func(workers int, direction logproto.Direction, limit int) []string {
		fleet := make([]fan.Worker, workers)
		for i := range fleet {
			fleet[i] = fan.Worker{Name: fmt.Sprintf("worker-%d", i), Client: &workertest.Worker{Store: store}}
		}
		s := &logs.Session{
			Organization: "acme", Tally: fan.NewTally(0), Segments: segments,
			Fan: fan.New(func() []fan.Worker { return fleet }, fan.Options{Concurrency: 3, BatchSegments: 1}),
		}
		return read(t, s.Select(t.Context(), selection(direction, limit)))
	}
	for _, direction := range []logproto.Direction{logproto.FORWARD, logproto.BACKWARD} {
		for _, limit := range []int{0, 7} {
			want := ask(3, direction, limit)
			for range 20 {
				if diff := cmp.Diff(want, ask(3, direction, limit)); diff != "" {
					t.Fatalf("%s, limit %d: another order: %s", direction, limit, diff)
				}
			}
		}
		all := ask(3, direction, 0)
		if len(all) != each*len(segments) {
			t.Fatalf("%s: %d lines, want %d", direction, len(all), each*len(segments))
		}
		if diff := cmp.Diff(ask(1, direction, 0), all); diff != "" {
			t.Errorf("%s: one worker answers another order than three: %s", direction, diff)
		}
	}
}
