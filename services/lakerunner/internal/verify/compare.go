// SPDX-License-Identifier: AGPL-3.0-only

package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// report is what a file says: its footer and its rows, in the terms of the index.
type report struct {
	lake.Segment
	problems []string // contradictions within the file
}

func logReport(r segfile.Report) report {
	c := r.Catalogue
	return report{problems: r.Problems, Segment: lake.Segment{
		Organization: c.Organization, Signal: c.Signal, Window: c.Window, Level: c.Level, Lease: c.Lease, Bytes: r.Bytes, SidecarBytes: r.SidecarBytes,
		Rows: r.Rows, FirstTime: r.First, LastTime: r.Last, FormatVersion: c.FormatVersion, RowHash: r.RowHash, Sources: r.Sources,
	}}
}

// metricReport is of points, or of a rollup: of metrics, or of counts of lines.
func metricReport(r metricfile.Report) report {
	m := r.Catalogue.Meta
	out := report{problems: r.Problems, Segment: lake.Segment{
		Organization: m.Organization, Signal: m.Signal, Window: m.Window, Level: m.Level, Lease: m.Lease, Bytes: r.Bytes, SidecarBytes: r.SidecarBytes,
		Rows: r.Rows, FirstTime: r.First, LastTime: r.Last, FormatVersion: r.Catalogue.FormatVersion, RowHash: r.RowHash, Sources: r.Sources,
		Resolution: m.Resolution, Shard: m.Shard,
	}}
	if m.Resolution > 0 {
		// The last bucket may end where the window does, and the index has times within it.
		last := m.Window.End().Add(-1)
		for _, at := range []*time.Time{&out.FirstTime, &out.LastTime} {
			if at.After(last) {
				*at = last
			}
		}
	}
	return out
}

// compare lists where a segment and its row in the index differ.
func compare(s lake.Segment, r report) []string {
	var problems []string
	differ := func(what string, index, file any) {
		if index != file {
			problems = append(problems, fmt.Sprintf("%s: the index says %v, the file %v", what, index, file))
		}
	}
	differ("bytes", s.Bytes, r.Bytes)
	differ("bytes of the sidecar", s.SidecarBytes, r.SidecarBytes)
	differ("rows", s.Rows, r.Rows)
	differ("sum of row hashes", s.RowHash, r.RowHash)
	differ("first time", s.FirstTime.UnixNano(), r.FirstTime.UnixNano())
	differ("last time", s.LastTime.UnixNano(), r.LastTime.UnixNano())
	differ("format version", s.FormatVersion, r.FormatVersion)
	differ("organization", s.Organization, r.Organization)
	differ("signal", s.Signal, r.Signal)
	differ("window", s.Window.Start.Unix(), r.Window.Start.Unix())
	differ("length of the window", s.Window.Length, r.Window.Length)
	differ("level", s.Level, r.Level)
	differ("resolution", s.Resolution, r.Resolution)
	if s.Shard != r.Shard && !(s.Shard.Whole() && r.Shard.Whole()) {
		problems = append(problems, fmt.Sprintf("shard: the index says %v, the file %v", s.Shard, r.Shard))
	}
	differ("lease", s.Lease, r.Lease)
	if !slices.Equal(s.Sources, r.Sources) {
		problems = append(problems, fmt.Sprintf("sources: the index has %d (%v), the rows %d (%v)", len(s.Sources), some(s.Sources), len(r.Sources), some(r.Sources)))
	}
	return problems
}

// some is the beginning of a list.
func some(sources []lake.ReceiptID) []lake.ReceiptID { return sources[:min(len(sources), 10)] }

// window names a window of an organization.
type window struct {
	organization lake.Organization
	signal       lake.Signal
	resolution   time.Duration
	start        int64 // Unix seconds
	length       int64 // nanoseconds
}

// windows reads what the index says of segments with their sources, a window at a time.
type windows struct {
	index Index

	mu    sync.Mutex
	known map[window]map[lake.SegmentID]lake.Segment
}

// maxKnown bounds the windows that are remembered: segments come in the order of their windows.
const maxKnown = 64

// segment returns a segment with its sources; live is false when it is not any more.
func (w *windows) segment(ctx context.Context, s lake.Segment) (found lake.Segment, live bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := windowOf(s)
	if w.known[name] == nil {
		if len(w.known) >= maxKnown {
			clear(w.known)
		}
		if w.known[name], err = w.read(ctx, s); err != nil {
			return found, false, err
		}
	}
	found, live = w.known[name][s.ID]
	return found, live, nil
}

// stillLive asks anew.
func (w *windows) stillLive(ctx context.Context, s lake.Segment) (bool, error) {
	segments, err := w.read(ctx, s)
	_, live := segments[s.ID]
	return live, err
}

func (w *windows) read(ctx context.Context, s lake.Segment) (map[lake.SegmentID]lake.Segment, error) {
	if s.Resolution > 0 {
		return w.readRollups(ctx, s)
	}
	state, err := w.index.Window(ctx, s.Organization, s.Signal, s.Window)
	if err != nil {
		return nil, err
	}
	segments := make(map[lake.SegmentID]lake.Segment, len(state.Segments))
	for _, each := range state.Segments {
		segments[each.ID] = each
	}
	return segments, nil
}

func (w *windows) readRollups(ctx context.Context, s lake.Segment) (map[lake.SegmentID]lake.Segment, error) {
	state, err := w.index.RollupWindow(ctx, s.Organization, s.Signal, s.Window)
	if err != nil {
		return nil, err
	}
	segments := make(map[lake.SegmentID]lake.Segment)
	for _, r := range state.Rollups {
		for _, each := range r.Segments {
			segments[each.ID] = each
		}
	}
	return segments, nil
}

func windowOf(s lake.Segment) window {
	return window{s.Organization, s.Signal, s.Resolution, s.Window.Start.Unix(), int64(s.Window.Length)}
}
