// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// lookupRollups is Lookup of current rollups. Joining rollups to the versions of their windows is done here: a plan that serves all ranges
// takes their number for small.
func (x *Index) lookupRollups(ctx context.Context, query Query) (Answer, error) {
	// Windows are hours and days, so those that reach the range lie within its days.
	first := lake.WindowOf(bounded(query.Start), maxWindow).Start
	last := lake.WindowOf(query.endWindow(), maxWindow).End()
	rows, err := x.queries.LookupRollups(ctx, db.LookupRollupsParams{
		Organization:       string(query.Organization),
		Signal:             int16(query.Signal),
		Place:              placeOf(query.Signal, query.Resolution),
		Resolution:         int64(query.Resolution),
		FirstWindow:        first,
		EndWindow:          last,
		StartTime:          nanoseconds(query.Start),
		EndTime:            nanoseconds(query.End.Add(query.Resolution)), // a segment's times are the ends of its buckets
		StartTimeOfWindows: nanoseconds(first),
		EndTimeOfWindows:   nanoseconds(last),
		MaxSegments:        MaxLookupSegments + 1,
		WrittenAfter:       bounded(query.Start).Add(-clockSkew),
		CompletenessCap:    CompletenessCap,
	})
	if err != nil {
		return Answer{}, failed("look up rollups", err)
	}
	known := rollupsOfAnswer{versions: make(map[int64]int64), current: make(map[span]bool), covered: make(map[int64]bool)}
	converted := make([]db.LookupRow, len(rows))
	for i, r := range rows {
		converted[i] = db.LookupRow(r)
	}
	answer, err := answerOf(query, converted)
	if err != nil {
		return Answer{}, err
	}
	known.read(query, converted)
	answer.Deletes = nil // a rollup that one of them may mask is not current
	answer.Segments = slices.DeleteFunc(answer.Segments, func(s lake.Segment) bool { return !known.current[spanOf(s.Window)] })
	answer.Uncovered = known.uncovered(query)
	return answer, nil
}

// rollupsOfAnswer is what a lookup says of the rollups of a resolution.
type rollupsOfAnswer struct {
	hours    []int64         // that have rows, rising, by the Unix seconds of their start
	versions map[int64]int64 // theirs
	current  map[span]bool   // the windows of current rollups
	covered  map[int64]bool  // the hours of those
}

func (k *rollupsOfAnswer) read(query Query, rows []db.LookupRow) {
	var deletes []lake.Delete
	for _, r := range rows { // in the order of their kinds
		switch r.RowKind {
		case rowOfDelete:
			deletes = append(deletes, deleteOfAnswer(query, r))
		case rowOfDay:
			half := len(r.MaskedSources) / 2
			for i, hour := range r.MaskedSources[:half] {
				k.hours = append(k.hours, hour)
				k.versions[hour] = r.MaskedSources[half+i]
			}
		case rowOfRollup:
			k.judge(r, deletes)
		}
	}
}

// judge finds out whether a rollup is current, whose version, state and applied delete are in the columns of a segment.
func (k *rollupsOfAnswer) judge(r db.LookupRow, deletes []lake.Delete) {
	w := windowOf(r.WindowStart, r.WindowLength)
	var version int64
	for h := lake.WindowOf(w.Start, time.Hour); h.Start.Before(w.End()); h.Start = h.End() {
		version += k.versions[h.Start.Unix()]
	}
	masked := slices.ContainsFunc(deletes, func(d lake.Delete) bool {
		return d.ID > lake.DeleteID(r.AppliedDelete) && d.Start.Before(w.End()) && w.Start.Before(d.End)
	})
	if RollupStanding(r.Key) != RollupRolled || r.ID != version || masked {
		return
	}
	k.current[spanOf(w)] = true
	for h := lake.WindowOf(w.Start, time.Hour); h.Start.Before(w.End()); h.Start = h.End() {
		k.covered[h.Start.Unix()] = true
	}
}

func (k *rollupsOfAnswer) uncovered(query Query) []lake.Window {
	var out []lake.Window
	for _, at := range k.hours {
		h := lake.Window{Start: time.Unix(at, 0).UTC(), Length: time.Hour}
		if !k.covered[at] && h.Start.Before(query.End) && query.Start.Before(h.End()) {
			out = append(out, h)
		}
	}
	return out
}
