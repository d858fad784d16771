// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// cut is the part of a segment that a query has to look at.
type cut struct {
	segment  *Segment
	contents *Contents
	ordinal  int // place of the segment by key
	// start is inclusive, end is not.
	start, end int64
	streams    []uint32 // that match, ascending
	where      []string
	// spans are the rows to look at; nil: all.
	spans []cache.Rows
	// groups are the row groups to look at.
	groups []int
	// needles are texts that every row's body has, and trace is the trace id that every row has, if there are such.
	needles []string
	trace   *[16]byte
	// either are texts of which every row's body has one, each time.
	either []plan.Either
	// lines is whether the body has to be looked at, and filtered whether where has conditions on it.
	lines, filtered bool
	// tests are the conditions on structured metadata, for reading without DuckDB.
	tests []rowTest
	// hidden are rows that deletes keep from being answered, and lost those that are doubles of others.
	hidden []hidden
	lost   rowSet
	// chosen is whether rows have to be chosen one by one, which SQL and the catalogue cannot.
	chosen bool
}

// cutOf plans a segment; nil when no row of it can matter.
func cutOf(s *Segment, c *Contents, sel *plan.Selection, deletes []Delete, start, end int64) *cut {
	if s.Last < start || s.First >= end || sel.Lines.None {
		return nil
	}
	k := &cut{segment: s, contents: c, start: start, end: end, lines: len(sel.Lines.Where) > 0 || !sel.Lines.Exact, filtered: len(sel.Lines.Where) > 0}
	if !k.chooseStreams(sel) || !k.applyDeletes(deletes) || !k.chooseLabels(sel.Labels) || !k.chooseRows(sel) {
		return nil
	}
	k.where = append(k.where, sel.Lines.Where...)
	k.excludeMasked()
	k.excludeHidden()
	return k
}

func (k *cut) chooseStreams(sel *plan.Selection) bool {
	for i := range k.contents.streams {
		s := &k.contents.streams[i]
		if s.Last >= k.start && s.First < k.end && sel.Matches(s.labels) {
			k.streams = append(k.streams, uint32(i))
		}
	}
	return len(k.streams) > 0
}

// streamCondition asks for some of the segment's streams; empty when it asks for all.
func (k *cut) streamCondition(ids []uint32) string {
	if len(ids) == len(k.contents.streams) {
		return ""
	}
	return idCondition("stream", ids)
}

// idCondition asks for ascending numbers, as a range where they are one: DuckDB prunes by ranges.
func idCondition(column string, ids []uint32) string {
	first, last := ids[0], ids[len(ids)-1]
	span := fmt.Sprintf("%s BETWEEN %d AND %d", column, first, last)
	if int(last-first)+1 == len(ids) {
		return span
	}
	return span + " AND " + column + " IN (" + joinNumbers(ids) + ")"
}

func joinNumbers[T uint32 | int64](ids []T) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(int64(id), 10))
	}
	return b.String()
}

// chooseRows asks the token filter and the row groups' times which rows can matter.
func (k *cut) chooseRows(sel *plan.Selection) bool {
	k.needles, k.either, k.trace = sel.Lines.Needles, sel.Lines.Either, k.traceID(sel.Labels)
	sidecar := k.contents.sidecar
	candidates := sidecar.Candidates(k.needles, k.trace)
	for _, texts := range k.either {
		candidates.Intersect(sidecar.CandidatesOfAny(texts))
	}
	groups := k.contents.RowGroups
	all := true
	for i, g := range groups {
		if !candidates.Has(i) || g.Last < k.start || g.First >= k.end {
			all = false
			continue
		}
		k.groups = append(k.groups, i)
		last := len(k.spans) - 1
		if last >= 0 && k.spans[last].Last+1 == g.FirstRow {
			k.spans[last].Last += g.Rows
			continue
		}
		k.spans = append(k.spans, cache.Rows{First: g.FirstRow, Last: g.FirstRow + g.Rows - 1})
	}
	if all {
		k.spans = nil
		return true
	}
	k.spans = fewer(k.spans, maxSpans)
	return len(k.spans) > 0
}

// maxSpans is how many spans of rows one statement names.
const maxSpans = 6

// fewer closes the smallest gaps until at most n spans are left.
func fewer(spans []cache.Rows, n int) []cache.Rows {
	for len(spans) > n {
		narrowest := 1
		for i := 2; i < len(spans); i++ {
			if spans[i].First-spans[i-1].Last < spans[narrowest].First-spans[narrowest-1].Last {
				narrowest = i
			}
		}
		spans[narrowest-1].Last = spans[narrowest].Last
		spans = slices.Delete(spans, narrowest, narrowest+1)
	}
	return spans
}

// traceID is the trace id that all rows must have, if one is asked for and nothing but the field can show it.
func (k *cut) traceID(conditions []plan.Condition) *[16]byte {
	for _, c := range conditions {
		if c.All != nil {
			if id := k.traceID(c.All); id != nil {
				return id
			}
		}
		if c.Text == nil || c.Text.Name != columns.MetadataTraceID || c.Text.Equal == "" || k.showsElsewhere(columns.MetadataTraceID) {
			continue
		}
		if raw, ok := parseID(c.Text.Equal, 16); ok {
			id := [16]byte(raw)
			return &id
		}
	}
	return nil
}

// showsElsewhere reports whether a name may be shown of a stream, origin or attribute.
func (k *cut) showsElsewhere(name string) bool {
	if k.contents.originHas[name] {
		return true
	}
	for i := range k.contents.attributes {
		if k.contents.attributes[i].mayShow(name) {
			return true
		}
	}
	return slices.ContainsFunc(k.streams, func(id uint32) bool { return k.contents.streams[id].labels.Has(name) })
}

func (k *cut) excludeMasked() {
	if len(k.segment.Masked) > 0 {
		k.where = append(k.where, "source NOT IN ("+joinNumbers(k.segment.Masked)+")")
	}
}

// rows is how many rows the statement will look at, at most.
func (k *cut) rows() int64 {
	if k.spans == nil {
		return k.contents.Rows
	}
	var n int64
	for _, s := range k.spans {
		n += s.Last - s.First + 1
	}
	return n
}

// conditions are all of the statement's conditions, for some of the streams and a narrower time.
func (k *cut) conditions(streams []uint32, start, end int64) []string {
	where := slices.Clone(k.where)
	if sql := k.streamCondition(streams); sql != "" {
		where = append(where, sql)
	}
	if start = max(start, k.start); start > k.segment.First {
		where = append(where, fmt.Sprintf("time >= %d", start))
	}
	if end = min(end, k.end); end <= k.segment.Last {
		where = append(where, fmt.Sprintf("time < %d", end))
	}
	return where
}

// from writes the table of a statement. The rows of a whole file are given as a range and its gaps, by which DuckDB skips row groups. Of a sparse one
// what was not fetched must not be touched, so each span is a scan of its own, pruned by a plain range.
func (k *cut) from(file *cache.Pinned, columns, where []string) string {
	quoted, _ := plan.Quote(file.Path)
	selected := "SELECT " + strings.Join(columns, ", ") + " FROM read_parquet(" + quoted + ")"
	switch {
	case k.spans == nil:
		return selected + whereClause(where)
	case !file.Sparse:
		return selected + whereClause(append(rowConditions(k.spans), where...))
	}
	var branches []string
	for i := range k.spans {
		branches = append(branches, selected+whereClause(append(rowConditions(k.spans[i:i+1]), where...)))
	}
	if len(branches) == 1 {
		return branches[0]
	}
	return "SELECT * FROM (" + strings.Join(branches, " UNION ALL ") + ")"
}

// rowConditions ask for the rows of spans.
func rowConditions(spans []cache.Rows) []string {
	all := []string{fmt.Sprintf("row BETWEEN %d AND %d", spans[0].First, spans[len(spans)-1].Last)}
	for i := 1; i < len(spans); i++ {
		all = append(all, fmt.Sprintf("(row <= %d OR row >= %d)", spans[i-1].Last, spans[i].First))
	}
	return all
}

func whereClause(where []string) string {
	if len(where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(where, " AND ")
}

func join(parts []string) string { return strings.Join(parts, ", ") }
