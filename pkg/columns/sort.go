// SPDX-License-Identifier: AGPL-3.0-only

package columns

import (
	"cmp"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// ServiceLabel is the stream label that segments are sorted by first.
const ServiceLabel = "service_name"

// Sort puts row numbers into the order of a segment: service_name label, event hour, fingerprint, time, source, and the order of
// appending.
func (l *Logs) Sort(rows []uint32) {
	if len(rows) < 2 {
		return
	}
	groups, of := l.groups(rows)
	starts := orderGroups(groups)
	sorted := make([]timed, len(rows))
	next := slices.Clone(starts)
	for i, row := range rows {
		g := of[i]
		sorted[next[g]] = timed{time: l.Record(int(row)).Time, row: row}
		next[g]++
	}
	for g, start := range starts {
		l.sortByTime(sorted[start:next[g]])
	}
	for i, s := range sorted {
		rows[i] = s.row
	}
}

// group is the part of the sort key that few distinct values have.
type group struct {
	service     uint32 // rank
	hour        int64
	fingerprint lake.Fingerprint
}

func (g group) compare(o group) int {
	return cmp.Or(cmp.Compare(g.service, o.service), cmp.Compare(g.hour, o.hour), cmp.Compare(g.fingerprint, o.fingerprint))
}

type counted struct {
	group
	rows int
}

// groups numbers the groups of rows by first appearance, with their row counts.
func (l *Logs) groups(rows []uint32) (groups []counted, of []uint32) {
	ranks := l.serviceRanks()
	of = make([]uint32, len(rows))
	numbers := map[group]uint32{}
	for i, row := range rows {
		r := l.Record(int(row))
		g := group{service: ranks[r.Stream], hour: HourOf(r.Time), fingerprint: r.Fingerprint}
		n, ok := numbers[g]
		if !ok {
			n = uint32(len(groups))
			numbers[g] = n
			groups = append(groups, counted{group: g})
		}
		groups[n].rows++
		of[i] = n
	}
	return groups, of
}

// serviceRanks gives each stream the rank of its service name.
func (l *Logs) serviceRanks() []uint32 {
	names := make([]string, len(l.streams))
	for i, s := range l.streams {
		names[i] = labelValue(s.labels, ServiceLabel)
	}
	distinct := slices.Clone(names)
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	ranks := make([]uint32, len(names))
	for i, name := range names {
		rank, _ := slices.BinarySearch(distinct, name)
		ranks[i] = uint32(rank)
	}
	return ranks
}

// orderGroups returns for each group, by number, where its rows begin in sorted order.
func orderGroups(groups []counted) []int {
	order := make([]uint32, len(groups))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return groups[a].compare(groups[b].group) })
	starts := make([]int, len(groups))
	at := 0
	for _, g := range order {
		starts[g] = at
		at += groups[g].rows
	}
	return starts
}

type timed struct {
	time int64
	row  uint32
}

func (l *Logs) sortByTime(rows []timed) {
	compare := func(a, b timed) int {
		if a.time != b.time {
			return cmp.Compare(a.time, b.time)
		}
		return cmp.Or(
			cmp.Compare(l.Record(int(a.row)).Source, l.Record(int(b.row)).Source),
			cmp.Compare(a.row, b.row),
		)
	}
	if !slices.IsSortedFunc(rows, compare) {
		slices.SortFunc(rows, compare)
	}
}

// HourOf returns the hour since 1970 that a time in ns lies in; times before 1970 round down.
func HourOf(ns int64) int64 {
	hour := ns / int64(time.Hour)
	if ns%int64(time.Hour) < 0 {
		hour--
	}
	return hour
}

func labelValue(labels []Label, name string) string {
	for _, label := range labels {
		if label.Name == name {
			return label.Value
		}
	}
	return ""
}
