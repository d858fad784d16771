// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// maxProblems bounds what a Report lists.
const maxProblems = 20

// Report is what Verify found in a segment.
type Report struct {
	Catalogue *Catalogue
	// Written is of the rows that were read, not of what the catalogue says.
	Written
	// Sources of the rows, sorted.
	Sources []lake.ReceiptID
	// Problems are contradictions between rows, catalogue and sidecar, the first few of them; none: the segment is sound.
	Problems []string
}

// Verify reads every row of a segment and compares the rows with what catalogue and sidecar say of them: counts, hashes, order, row groups, window,
// sources, streams, attributes, and that the token filter has every token. No sidecar (nil) is not looked at. An error means that the segment could
// not be read.
func Verify(ctx context.Context, parquet io.ReaderAt, size int64, sidecar []byte) (Report, error) {
	r, err := OpenLogs(parquet, size)
	if err != nil {
		return Report{}, err
	}
	v := &verifier{
		report:  Report{Catalogue: r.Catalogue()},
		sources: map[lake.ReceiptID]struct{}{}, attributes: map[columns.Key]int64{},
	}
	for _, s := range v.report.Catalogue.Streams {
		v.seen.Streams = append(v.seen.Streams, StreamEntry{Labels: s.Labels, First: math.MaxInt64, Last: math.MinInt64})
		v.services = append(v.services, labelOf(s.Labels, columns.ServiceLabel))
	}
	if sidecar != nil {
		v.openSidecar(sidecar)
	}
	l := columns.NewLogs()
	for {
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
		l.Reset()
		err := r.Next(l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Report{}, fmt.Errorf("row group %d: %w", v.group, err)
		}
		v.addGroup(l)
	}
	v.compare()
	v.report.Bytes, v.report.SidecarBytes = size, int64(len(sidecar))
	return v.report, nil
}

type verifier struct {
	report     Report
	filter     *filter
	builder    filterBuilder
	seen       Catalogue
	group      int
	sources    map[lake.ReceiptID]struct{}
	services   []string // of streams
	attributes map[columns.Key]int64
	last       sortKey
}

// sortKey is what rows are sorted by, but for the order of appending.
type sortKey struct {
	service     string
	hour        int64
	fingerprint lake.Fingerprint
	time        int64
	source      lake.ReceiptID
}

func (v *verifier) problem(format string, args ...any) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
	}
}

func (v *verifier) openSidecar(b []byte) {
	s, err := OpenSidecar(b)
	if err != nil {
		v.problem("sidecar: %v", err)
		return
	}
	c := v.report.Catalogue
	if s.catalogue.RowHash != c.RowHash || s.catalogue.Rows != c.Rows || s.catalogue.Lease != c.Lease || len(s.catalogue.RowGroups) != len(c.RowGroups) {
		v.problem("the sidecar is another segment's: it has %d rows of hash %x, the file's catalogue %d of %x", s.catalogue.Rows, s.catalogue.RowHash, c.Rows, c.RowHash)
		return
	}
	v.filter = s.filter
}

func labelOf(labels []columns.Label, name string) string {
	for _, l := range labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

func (v *verifier) addGroup(l *columns.Logs) {
	if l.Streams() != len(v.seen.Streams) {
		v.problem("the catalogue has %d streams, %d of them distinct", len(v.seen.Streams), l.Streams())
		return
	}
	g := RowGroup{FirstRow: v.seen.Rows, First: math.MaxInt64, Last: math.MinInt64}
	counts := make([]int64, l.Keys())
	for i := range l.Len() {
		r := l.Record(i)
		g.Rows++
		g.First, g.Last = min(g.First, r.Time), max(g.Last, r.Time)
		v.addRow(l, i, r)
		for _, e := range l.Entries(r) {
			counts[e.Key]++
		}
	}
	for id, n := range counts {
		key := l.Key(columns.KeyID(id))
		key.Name = strings.Clone(key.Name) // the next row group takes its place
		v.attributes[key] += n
	}
	if columns.HourOf(g.First) != columns.HourOf(g.Last) {
		v.problem("row group %d has rows of two hours", v.group)
	}
	v.seen.RowGroups = append(v.seen.RowGroups, g)
	if v.filter != nil && v.group < len(v.filter.groups) {
		v.checkFilter(l)
	}
	v.group++
}

func (v *verifier) addRow(l *columns.Logs, i int, r *columns.Record) {
	n := v.seen.Rows
	v.seen.Rows++
	v.seen.RowHash += l.RowHash(i)
	v.seen.BodyBytes += int64(r.Body.Len())
	v.sources[r.Source] = struct{}{}
	v.seen.Identified = v.seen.Identified || l.HasIdentity(i)
	s := &v.seen.Streams[r.Stream]
	s.Rows++
	s.Bytes += int64(r.Body.Len())
	s.First, s.Last = min(s.First, r.Time), max(s.Last, r.Time)
	if w := v.report.Catalogue.Window; w.Length > 0 && (r.Time < w.Start.UnixNano() || r.Time >= w.End().UnixNano()) {
		v.problem("row %d at %d ns is outside the window", n, r.Time)
	}
	key := sortKey{service: v.services[r.Stream], hour: columns.HourOf(r.Time), fingerprint: r.Fingerprint, time: r.Time, source: r.Source}
	if n > 0 && v.last.compare(key) > 0 {
		v.problem("row %d is out of order", n)
	}
	v.last = key
}

func (k sortKey) compare(o sortKey) int {
	if k.time == o.time && k == o {
		return 0
	}
	return cmp.Or(cmp.Compare(k.service, o.service), cmp.Compare(k.hour, o.hour), cmp.Compare(k.fingerprint, o.fingerprint),
		cmp.Compare(k.time, o.time), cmp.Compare(k.source, o.source))
}

// checkFilter indexes the row group's rows anew and looks everything up.
func (v *verifier) checkFilter(l *columns.Logs) {
	f := &v.builder
	f.begin()
	g := &f.groups[len(f.groups)-1]
	var id [32]byte
	for i := range l.Len() {
		r := l.Record(i)
		f.addBody(g, l.Text(r.Body))
		if r.TraceID != [16]byte{} {
			hex.Encode(id[:], r.TraceID[:])
			f.units.add(xxhash.Sum64(id[:]))
		}
	}
	f.addParts(g)
	built := &v.filter.groups[v.group]
	for _, hash := range f.units.appendAll(nil) {
		if !built.holds(hash) {
			v.problem("row group %d has a token that its filter has not", v.group)
			break
		}
	}
	if !built.covers(g) {
		v.problem("row group %d has longer tokens than its filter says", v.group)
	}
}

// covers reports whether what g says of long tokens is true of all that o has.
func (g *builtGroup) covers(o *builtGroup) bool {
	covered := (g.uuids || !o.uuids) && (!g.parts || o.parts)
	for _, pair := range [][2]*longest{{&g.longest, &o.longest}, {&g.long, &o.long}} {
		mine, others := pair[0].tables(), pair[1].tables()
		for t := range mine {
			for c := range mine[t] {
				covered = covered && mine[t][c] >= others[t][c]
			}
		}
	}
	return covered
}

// compare sets what was read against what the catalogue says.
func (v *verifier) compare() {
	c, seen, w := v.report.Catalogue, &v.seen, &v.report.Written
	w.Rows, w.RowHash, w.FormatVersion, w.Identified = seen.Rows, seen.RowHash, c.FormatVersion, seen.Identified
	v.report.Sources = slices.Sorted(maps.Keys(v.sources))
	for i, g := range seen.RowGroups {
		if first := time.Unix(0, g.First).UTC(); i == 0 || first.Before(w.First) {
			w.First = first
		}
		if last := time.Unix(0, g.Last).UTC(); i == 0 || last.After(w.Last) {
			w.Last = last
		}
	}
	v.differs("rows", seen.Rows, c.Rows)
	v.differs("bytes of bodies", seen.BodyBytes, c.BodyBytes)
	v.differs("row hash", int64(seen.RowHash), int64(c.RowHash))
	v.differs("row groups", int64(len(seen.RowGroups)), int64(len(c.RowGroups)))
	for i := range min(len(seen.RowGroups), len(c.RowGroups)) {
		if seen.RowGroups[i] != c.RowGroups[i] {
			v.problem("row group %d is %+v, the catalogue has %+v", i, seen.RowGroups[i], c.RowGroups[i])
		}
	}
	for i := range seen.Streams {
		if s := &seen.Streams[i]; s.Rows != c.Streams[i].Rows || s.Bytes != c.Streams[i].Bytes || s.First != c.Streams[i].First || s.Last != c.Streams[i].Last {
			v.problem("stream %d has %d rows and %d bytes from %d to %d, the catalogue says %d, %d, %d, %d", i, s.Rows, s.Bytes, s.First, s.Last,
				c.Streams[i].Rows, c.Streams[i].Bytes, c.Streams[i].First, c.Streams[i].Last)
		}
	}
	for _, source := range v.report.Sources {
		if len(c.Sources) > 0 && !slices.Contains(c.Sources, source) {
			v.problem("rows are of source %d, which the catalogue has not", source)
		}
	}
	if c.FormatVersion > 1 && c.Identified != seen.Identified {
		v.problem("that rows have an identity is %v, the catalogue says %v", seen.Identified, c.Identified)
	}
	v.compareAttributes(c)
	v.compareWords()
}

func (v *verifier) differs(what string, read, catalogue int64) {
	if read != catalogue {
		v.problem("%s: %d were read, the catalogue has %d", what, read, catalogue)
	}
}

func (v *verifier) compareAttributes(c *Catalogue) {
	for _, a := range c.Attributes {
		key := columns.Key{Name: a.Name, Kind: a.Kind}
		if v.attributes[key] != a.Rows {
			v.problem("attribute %q of kind %d is in %d rows, the catalogue says %d", a.Name, a.Kind, v.attributes[key], a.Rows)
		}
		delete(v.attributes, key)
	}
	for key, n := range v.attributes {
		if n > 0 {
			v.problem("attribute %q of kind %d is in %d rows, and not in the catalogue", key.Name, key.Kind, n)
		}
	}
}

// compareWords looks every word up.
func (v *verifier) compareWords() {
	if v.filter == nil || len(v.builder.groups) != len(v.filter.groups) {
		return
	}
	for word, id := range v.builder.words {
		held := v.filter.wordGroups(word)
		for _, g := range v.builder.holders[id] {
			if !held.Has(int(g)) {
				v.problem("row group %d has the word %q, which its filter has not", g, word)
			}
		}
	}
}
