// SPDX-License-Identifier: AGPL-3.0-only

package place

import (
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Unit is what one worker has to read together: a segment, or identified segments of one stretch of hours that were added by several leases, whose
// rows may be doubles of one another.
type Unit struct {
	// Key places the unit.
	Key      string
	Segments []lake.Segment
	// First and Last are the earliest and the latest time of its rows, both inclusive.
	First, Last time.Time
	// Bytes of its segments.
	Bytes int64
}

func (u *Unit) add(s lake.Segment) {
	if len(u.Segments) == 0 || s.FirstTime.Before(u.First) {
		u.First = s.FirstTime
	}
	if len(u.Segments) == 0 || s.LastTime.After(u.Last) {
		u.Last = s.LastTime
	}
	u.Segments, u.Bytes = append(u.Segments, s), u.Bytes+s.Bytes
}

// Units groups segments. Single ones stand first, in their order.
func Units(segments []lake.Segment) []Unit {
	units := make([]Unit, 0, len(segments))
	var identified []lake.Segment
	for _, s := range segments {
		if s.Identified {
			identified = append(identified, s)
			continue
		}
		units = appendSingle(units, s)
	}
	if len(identified) == 0 {
		return units
	}
	slices.SortStableFunc(identified, func(a, b lake.Segment) int { return a.FirstTime.Compare(b.FirstTime) })
	for len(identified) > 0 {
		group := Unit{}
		for len(identified) > 0 && (len(group.Segments) == 0 || !hour(identified[0].FirstTime).After(group.Last)) {
			group.add(identified[0])
			identified = identified[1:]
		}
		units = appendGroup(units, group)
	}
	return units
}

func appendSingle(units []Unit, s lake.Segment) []Unit {
	unit := Unit{Key: s.Key}
	unit.add(s)
	return append(units, unit)
}

// appendGroup appends a group as one unit, or, if one lease merged all of it, one by one. What ingest wrote has doubles in itself. The key is of the hour, so that the hour stays with its worker
// as more of it arrives.
func appendGroup(units []Unit, group Unit) []Unit {
	if !slices.ContainsFunc(group.Segments, func(s lake.Segment) bool { return s.Level == 0 || s.Lease != group.Segments[0].Lease }) {
		for _, s := range group.Segments {
			units = appendSingle(units, s)
		}
		return units
	}
	group.Key = fmt.Sprintf("%s/%d", path.Dir(path.Dir(group.Segments[0].Key)), hour(group.First).Unix())
	return append(units, group)
}

func hour(t time.Time) time.Time { return t.UTC().Truncate(time.Hour) }

// Hours widens a range to whole hours: what identifies rows counts within one.
func Hours(from, to time.Time) (time.Time, time.Time) {
	end := hour(to)
	if end.Before(to) {
		end = end.Add(time.Hour)
	}
	return hour(from), end
}

// Within returns the segments that may hold rows of [from, to), or decide which of them are answered.
func Within(segments []lake.Segment, from, to time.Time) []lake.Segment {
	holds := func(s *lake.Segment, from, to time.Time) bool {
		return !s.LastTime.Before(from) && s.FirstTime.Before(to)
	}
	first, last := Hours(from, to)
	var within []lake.Segment
	beside := false
	for i := range segments {
		s := &segments[i]
		switch inside := holds(s, from, to); {
		case inside:
		case s.Identified && holds(s, first, last):
			beside = true
		default:
			continue
		}
		within = append(within, *s)
	}
	if !beside {
		return within
	}
	var needed []lake.Segment
	for _, unit := range Units(within) {
		if slices.ContainsFunc(unit.Segments, func(s lake.Segment) bool { return holds(&s, from, to) }) {
			needed = append(needed, unit.Segments...)
		}
	}
	return needed
}
