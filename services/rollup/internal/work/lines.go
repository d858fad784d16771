// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// maxFingerprints is how many fingerprints of a service and level are told apart in one window; the lines of others are counted under an empty one. Some
// producers make a new template of every line.
const maxFingerprints = 5_000

// countLines counts the lines of rows, and makes a rollup on disk of those of each stretch of time. It returns these and the finer rollups.
func (r *run) countLines(ctx context.Context, all []*local) ([]*local, error) {
	byID := map[lake.SegmentID]*local{}
	for _, l := range all {
		byID[l.segment.ID] = l
	}
	var inputs []*local
	for i := range r.sources {
		source := &r.sources[i]
		if source.Resolution > 0 {
			for _, s := range source.Segments {
				inputs = append(inputs, byID[s.ID])
			}
			continue
		}
		made, err := r.countStretch(ctx, source.Window, source.Segments, byID)
		if err != nil {
			return nil, err
		}
		// What is merged from here on is a rollup like others.
		source.Segments, source.Resolution = []lake.Segment{made.segment}, resolutionOf(r.task)
		inputs = append(inputs, made)
	}
	return inputs, nil
}

func (r *run) countStretch(ctx context.Context, stretch lake.Window, segments []lake.Segment, byID map[lake.SegmentID]*local) (*local, error) {
	var account Account
	l, err := newLines(resolutionOf(r.task), &account)
	if err != nil {
		return nil, err
	}
	for _, s := range segments {
		in := byID[s.ID]
		in.rows = 0 // of a segment that lies in several stretches each has all rows
		if err := r.fetch(ctx, []*local{in}, true); err != nil {
			return nil, err
		}
		if err := l.count(ctx, in, stretch); err != nil {
			return nil, r.damaged(s.Key, err)
		}
		r.release(in)
	}
	made, err := r.spill(l, segments)
	if err != nil {
		return nil, err
	}
	if account.In != account.Counted+account.Masked {
		return nil, r.damaged(made.segment.Key, fmt.Errorf("of %d lines %d were counted, and %d are masked", account.In, account.Counted, account.Masked))
	}
	r.account.In += account.Masked
	r.account.Masked += account.Masked
	return made, nil
}

// spill writes counts to disk as a segment.
func (r *run) spill(l *lines, from []lake.Segment) (*local, error) {
	out, err := r.create(lake.Shard{}, []*local{{of: from}})
	if err != nil {
		return nil, err
	}
	if err := l.each(out.writer.AppendRollup); err != nil {
		return nil, err
	}
	written, err := out.writer.Close()
	if err := errors.Join(err, out.parquetTo.Flush(), out.indexTo.Flush()); err != nil {
		return nil, err
	}
	sidecar := make([]byte, out.sidecar.size)
	if _, err := out.sidecar.ReadAt(sidecar, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, scratchError(err)
	}
	r.scratch.discard(out.sidecar)
	r.spilled--
	return &local{
		segment: lake.Segment{
			ID: r.spilled, Resolution: resolutionOf(r.task), Bucket: out.bucket, Key: "counts of lines", Rows: written.Rows,
			AppliedDelete: r.state.Latest, Window: r.task.Window,
		},
		parquet: out.parquet, sidecar: sidecar, of: from,
	}, nil
}

// kind is what lines are counted by.
type kind struct {
	service, level string
	fingerprint    string // empty: of those beyond maxFingerprints
}

// tally is what the lines of one kind came to in one bucket.
type tally struct {
	lines       int64
	bytes       float64
	first, last int64 // ms since 1970
}

// lines counts the lines of a window's segments of rows. It is for one run.
type lines struct {
	width        int64 // of buckets, ns
	account      *Account
	kinds        map[kind]map[int64]tally // by the end of the bucket, ms
	fingerprints map[kind]int             // of service and level
	values       struct{ time, stream, fingerprint, level, body, source *segfile.Vector }
}

func newLines(resolution time.Duration, account *Account) (*lines, error) {
	l := &lines{width: int64(resolution), account: account, kinds: map[kind]map[int64]tally{}, fingerprints: map[kind]int{}}
	for _, v := range []**segfile.Vector{&l.values.time, &l.values.stream, &l.values.fingerprint, &l.values.level, &l.values.body, &l.values.source} {
		made, err := segfile.NewVector()
		if err != nil {
			return nil, err
		}
		*v = made
	}
	return l, nil
}

// count counts the lines of a segment that lie in a stretch of time.
func (c *lines) count(ctx context.Context, l *local, stretch lake.Window) error {
	catalogue, err := segfile.ReadCatalogue(l.parquet, l.parquet.size)
	if err != nil {
		return err
	}
	chunks, err := segfile.ReadChunks(l.parquet, l.parquet.size)
	if err != nil {
		return err
	}
	services := make([]string, len(catalogue.Streams))
	for i := range catalogue.Streams {
		services[i] = labelOf(catalogue.Streams[i].Labels, rollup.ServiceLabel)
	}
	masked := map[int64]bool{}
	for _, source := range l.segment.MaskedSources {
		masked[int64(source)] = true
	}
	for group := range chunks.Groups() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.read(l, chunks, group, len(masked) > 0); err != nil {
			return err
		}
		if err := c.group(chunks.Rows(group), services, masked, stretch); err != nil {
			return err
		}
		l.rows += int64(chunks.Rows(group))
	}
	return nil
}

func labelOf(labels []columns.Label, name string) string {
	for _, l := range labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

func (c *lines) read(l *local, chunks *segfile.Chunks, group int, sources bool) error {
	for _, column := range []struct {
		into   *segfile.Vector
		name   string
		wanted bool
	}{
		{c.values.time, "time", true},
		{c.values.stream, "stream", true},
		{c.values.fingerprint, "fingerprint", true},
		{c.values.level, "detected_level", true},
		{c.values.body, "body", true},
		{c.values.source, "source", sources},
	} {
		if !column.wanted {
			continue
		}
		if err := column.into.Read(l.parquet, chunks, group, column.name); err != nil {
			return err
		}
	}
	return nil
}

// group counts the rows of a row group. Rows of one kind mostly follow one another.
func (c *lines) group(rows int, services []string, masked map[int64]bool, stretch lake.Window) error {
	var of kind
	var into map[int64]tally
	stream, fingerprint := int64(-1), int64(0)
	from, to := stretch.Start.UnixNano(), stretch.End().UnixNano()
	for row := range rows {
		ns := c.values.time.Number(row)
		if ns < from || ns >= to {
			continue
		}
		c.account.In++
		if len(masked) > 0 && masked[c.values.source.Number(row)] {
			c.account.Masked++
			continue
		}
		s, f, level := c.values.stream.Number(row), c.values.fingerprint.Number(row), c.values.level.Text(row)
		if s < 0 || s >= int64(len(services)) {
			return fmt.Errorf("row of stream %d of %d", s, len(services))
		}
		if into == nil || s != stream || f != fingerprint || level != of.level {
			stream, fingerprint = s, f
			of = kind{services[s], strings.Clone(level), rollup.Fingerprint(f)}
			into = c.bucketsOf(of)
		}
		c.add(into, ns, len(c.values.body.Text(row)))
	}
	return nil
}

// bucketsOf are the tallies of a kind, or of all that have no fingerprint of their own.
func (c *lines) bucketsOf(k kind) map[int64]tally {
	if known := c.kinds[k]; known != nil {
		return known
	}
	family := kind{service: k.service, level: k.level}
	if c.fingerprints[family]++; c.fingerprints[family] > maxFingerprints {
		k = family
		if known := c.kinds[k]; known != nil {
			return known
		}
	}
	made := map[int64]tally{}
	c.kinds[k] = made
	return made
}

func (c *lines) add(into map[int64]tally, ns int64, bytes int) {
	end := ns / c.width * c.width
	if end < ns {
		end += c.width
	}
	// Rounded up, so that a line lies in the bucket that its time says.
	ms := -rollup.Milliseconds(-ns)
	t, known := into[end/int64(time.Millisecond)]
	if !known {
		t = tally{first: math.MaxInt64, last: math.MinInt64}
	}
	t.lines++
	t.bytes += float64(bytes)
	t.first, t.last = min(t.first, ms), max(t.last, ms)
	into[end/int64(time.Millisecond)] = t
	c.account.Counted++
}

// each yields a rollup for each kind, in the order of rows.
func (c *lines) each(yield func(*metricfile.Series, *metricfile.Rollup) error) error {
	type counted struct {
		series *metricfile.Series
		of     kind
	}
	var all []counted
	for k := range c.kinds {
		all = append(all, counted{rollup.Lines(k.service, k.level, k.fingerprint), k})
	}
	slices.SortFunc(all, func(a, b counted) int { return metricfile.Compare(a.series, b.series) })
	for _, one := range all {
		if err := yield(one.series, rollupOf(c.kinds[one.of])); err != nil {
			return err
		}
	}
	return nil
}

func rollupOf(tallies map[int64]tally) *metricfile.Rollup {
	r := &metricfile.Rollup{Tracks: make([]metricfile.Track, 1)}
	t := &r.Tracks[0]
	for _, end := range slices.Sorted(maps.Keys(tallies)) {
		one := tallies[end]
		r.Ends, r.Counts = append(r.Ends, end), append(r.Counts, one.lines)
		r.FirstTimes, r.LastTimes, r.StaleTimes = append(r.FirstTimes, one.first), append(r.LastTimes, one.last), append(r.StaleTimes, 0)
		t.Sum, t.Increase = append(t.Sum, one.bytes), append(t.Increase, one.bytes)
		t.First, t.Last, t.Min, t.Max = append(t.First, 0), append(t.Last, 0), append(t.Min, 0), append(t.Max, 0)
	}
	return r
}
