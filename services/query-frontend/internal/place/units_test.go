// SPDX-License-Identifier: AGPL-3.0-only

package place_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
)

var ten = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func segment(id lake.SegmentID, first, last int, lease lake.LeaseID, identified bool) lake.Segment {
	return lake.Segment{
		ID: id, Key: fmt.Sprintf("db/acme/logs/2026-11-22/%s/%06d.parquet", lease, id), Lease: lease, Identified: identified, Level: 1,
		FirstTime: ten.Add(time.Duration(first) * time.Minute), LastTime: ten.Add(time.Duration(last) * time.Minute),
	}
}

func ids(segments []lake.Segment) (out []lake.SegmentID) {
	for _, s := range segments {
		out = append(out, s.ID)
	}
	return out
}

func TestUnitsKeepPossibleDoublesTogether(t *testing.T) {
	t.Parallel()
	units := place.Units([]lake.Segment{
		segment(1, 0, 10, "a", true), segment(2, 0, 59, "a", false), segment(3, 50, 55, "b", true), // one hour
		segment(4, 60, 70, "a", true), segment(5, 80, 90, "a", true), // one lease
		segment(6, 180, 300, "a", true), segment(7, 290, 310, "b", true), segment(8, 340, 350, "b", true), // a chain of hours
	})
	var got [][]lake.SegmentID
	for _, u := range units {
		got = append(got, ids(u.Segments))
	}
	if diff := cmp.Diff([][]lake.SegmentID{{2}, {1, 3}, {4}, {5}, {6, 7, 8}}, got); diff != "" {
		t.Error(diff)
	}
	if key := units[1].Key; key != "db/acme/logs/2026-11-22/1795341600" {
		t.Errorf("the hour is placed by %q", key)
	}
}

func TestWhatIngestWroteMayHaveDoublesInItself(t *testing.T) {
	t.Parallel()
	one, other := segment(1, 0, 10, "a", true), segment(2, 20, 30, "a", true)
	one.Level, other.Level = 0, 0
	if units := place.Units([]lake.Segment{one, other}); len(units) != 1 || len(units[0].Segments) != 2 {
		t.Errorf("%d units of two segments of an ingest's lease", len(units))
	}
}

func TestWithinKeepsWhatDecidesOnDoubles(t *testing.T) {
	t.Parallel()
	all := []lake.Segment{
		segment(1, 0, 10, "a", true), segment(2, 0, 10, "a", false), segment(3, 20, 30, "b", true), // only 3 is inside
		segment(4, 70, 80, "c", true), // another hour
	}
	got := ids(place.Within(all, ten.Add(20*time.Minute), ten.Add(40*time.Minute)))
	if diff := cmp.Diff([]lake.SegmentID{1, 3}, got); diff != "" {
		t.Error(diff)
	}
	if got := place.Within(all, ten.Add(40*time.Minute), ten.Add(50*time.Minute)); len(got) != 0 {
		t.Errorf("%v hold nothing of the range", ids(got))
	}
}
