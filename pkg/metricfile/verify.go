// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// maxProblems bounds what a Report lists.
const maxProblems = 20

// Report is what Verify found in a segment.
type Report struct {
	Catalogue *Catalogue // as the Parquet file alone has it
	// Written is of the rows that were read, not of what the catalogue says.
	Written
	// Sources of the points, sorted. Rollups have none.
	Sources []lake.ReceiptID
	// Problems are contradictions between rows, catalogue and sidecar, the first few of them; none: the segment is sound.
	Problems []string
}

// Verify reads every point of a segment and compares them with what catalogue and sidecar say: counts, hashes, order, window, shard, sources, labels. No
// sidecar (nil) is not looked at. An error means that the segment could not be read.
func Verify(ctx context.Context, parquet io.ReaderAt, size int64, sidecar []byte) (Report, error) {
	c, _, err := RebuildCatalogue(ctx, parquet, size)
	if err != nil {
		return Report{}, err
	}
	r, err := Open(parquet, size, c)
	if err != nil {
		return Report{}, err
	}
	v := &verifier{
		report: Report{Catalogue: c}, sources: map[lake.ReceiptID]struct{}{},
		seen: totals{Meta: c.Meta, formatVersion: c.FormatVersion, first: math.MaxInt64, last: math.MinInt64},
	}
	for ordinal := range c.Len() {
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
		if err := v.row(r, ordinal); err != nil {
			return Report{}, fmt.Errorf("row %d, %s: %w", ordinal, c.Series(ordinal).Labels, err)
		}
	}
	v.compare()
	if sidecar != nil {
		v.compareSidecar(sidecar)
	}
	v.report.Bytes, v.report.SidecarBytes = size, int64(len(sidecar))
	return v.report, nil
}

type verifier struct {
	report  Report
	seen    totals
	sources map[lake.ReceiptID]struct{}
	last    *Series
	points  Points
	rollup  Rollup
}

func (v *verifier) problem(format string, args ...any) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
	}
}

func (v *verifier) row(r *Reader, ordinal int) error {
	c := v.report.Catalogue
	s, entry := c.Series(ordinal), c.Entry(ordinal)
	if v.last != nil && Compare(v.last, s) >= 0 {
		v.problem("row %d is out of order: %s after %s", ordinal, s.Labels, v.last.Labels)
	}
	v.last = s
	hash := s.Hash()
	if entry.Hash != hash {
		v.problem("row %d has hash %x, that of its labels is %x", ordinal, entry.Hash, hash)
	}
	if !c.Shard.Holds(hash) {
		v.problem("row %d is not of shard %d of %d", ordinal, c.Shard.Index, c.Shard.Count)
	}
	found := rowEntry{hash: hash}
	var err error
	if c.Resolution > 0 {
		err = v.readRollup(r, ordinal, s, &found)
	} else {
		err = v.readPoints(r, ordinal, s, &found)
	}
	if err != nil {
		return err
	}
	samples := found.counted * int64(s.NumTracks())
	want := SeriesEntry{Hash: hash, Kind: s.Kind, Rows: found.rows, Samples: samples, Exemplars: found.exemplars, First: found.first, Last: found.last}
	if entry.Hash, entry.Bytes = hash, 0; entry != want {
		v.problem("row %d is %+v, the catalogue has %+v", ordinal, want, entry)
	}
	t := &v.seen
	t.series++
	t.rows += found.rows
	t.samples += samples
	t.exemplars += found.exemplars
	t.first, t.last = min(t.first, found.first), max(t.last, found.last)
	return nil
}

func (v *verifier) readPoints(r *Reader, ordinal int, s *Series, found *rowEntry) error {
	p := &v.points
	if err := r.Points(ordinal, WantAll, p); err != nil {
		return err
	}
	n := p.Len()
	found.rows, found.counted, found.exemplars = int64(n), int64(n), int64(len(p.Exemplars))
	if n == 0 {
		v.problem("row %d has no points", ordinal)
		return nil
	}
	found.first, found.last = p.Times[0], p.Times[n-1]
	if err := checkPoints(s, p, v.seen.Window); err != nil {
		v.problem("row %d: %v", ordinal, err)
		return nil
	}
	identity := s.identity(found.hash)
	v.seen.rowHash += p.hashes(identity, s.Kind)
	for i := range p.Exemplars {
		v.seen.exemplarHash += p.Exemplars[i].hash(identity)
	}
	before := lake.ReceiptID(-1)
	for _, source := range p.Sources {
		if source != before {
			v.sources[source] = struct{}{}
			before = source
		}
	}
	return nil
}

func (v *verifier) readRollup(r *Reader, ordinal int, s *Series, found *rowEntry) error {
	p := &v.rollup
	if err := r.Rollup(ordinal, p); err != nil {
		return err
	}
	n := p.Len()
	found.rows = int64(n)
	if n == 0 {
		v.problem("row %d has no buckets", ordinal)
		return nil
	}
	found.first, found.last = p.Ends[0]*msNanos, p.Ends[n-1]*msNanos
	for _, count := range p.Counts {
		found.counted += count
	}
	if err := checkRollup(s, p, &v.seen.Meta); err != nil {
		v.problem("row %d: %v", ordinal, err)
		return nil
	}
	v.seen.rowHash += p.hashes(s.identity(found.hash))
	return nil
}

// compare sets what was read against what the catalogue says.
func (v *verifier) compare() {
	c, t := v.report.Catalogue, &v.seen
	v.report.Written = t.written()
	v.report.Sources = slices.Sorted(maps.Keys(v.sources))
	for _, d := range []struct {
		what            string
		read, catalogue int64
	}{
		{"series", t.series, int64(c.Len())},
		{"points", t.rows, c.Rows},
		{"samples", t.samples, c.Samples},
		{"exemplars", t.exemplars, c.Exemplars},
		{"row hash", int64(t.rowHash), int64(c.RowHash)},
		{"exemplar hash", int64(t.exemplarHash), int64(c.exemplarHash)},
		{"first time", t.first, c.First},
		{"last time", t.last, c.Last},
	} {
		if d.read != d.catalogue {
			v.problem("%s: %d was read, the catalogue has %d", d.what, d.read, d.catalogue)
		}
	}
	for _, source := range v.report.Sources {
		if len(c.Sources) > 0 && !slices.Contains(c.Sources, source) {
			v.problem("points are of source %d, which the catalogue has not", source)
		}
	}
}

// compareSidecar sets the sidecar's catalogue against the file's.
func (v *verifier) compareSidecar(sidecar []byte) {
	s, err := ReadCatalogue(sidecar)
	if err != nil {
		v.problem("sidecar: %v", err)
		return
	}
	c := v.report.Catalogue
	if s.RowHash != c.RowHash || s.Rows != c.Rows || s.Len() != c.Len() || !reflect.DeepEqual(s.Meta, c.Meta) {
		v.problem("the sidecar is another segment's: it has %d points of hash %x, the file %d of %x", s.Rows, s.RowHash, c.Rows, c.RowHash)
		return
	}
	if !slices.Equal(s.groups, c.groups) {
		v.problem("the sidecar has row groups elsewhere than the file")
	}
	for i := range c.Len() {
		a, b := s.Series(i), c.Series(i)
		if !a.Equal(b) || a.Family != b.Family || s.Entry(i) != c.Entry(i) || !s.sameBytes(c, i) {
			v.problem("row %d is %s %+v in the sidecar, %s %+v in the file", i, a.Labels, s.Entry(i), b.Labels, c.Entry(i))
		}
	}
}

// sameBytes reports whether two catalogues find a row's values in the same places.
func (c *Catalogue) sameBytes(o *Catalogue, ordinal int) bool {
	e, b, row := c.at(ordinal)
	oe, ob, orow := o.at(ordinal)
	same := e.group == oe.group
	for i := range c.layout.shared {
		same = same && b.refs[i][row] == ob.refs[i][orow]
	}
	for i := range c.layout.own {
		same = same && b.sizes[i][row] == ob.sizes[i][orow] && e.own[i]+b.offsets[i][row] == oe.own[i]+ob.offsets[i][orow]
	}
	return same
}
