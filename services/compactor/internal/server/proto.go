// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
	"github.com/lakerunner/lakerunner/services/compactor/internal/work"
)

// signalOf reads a request's signal; logs, if it has none.
func signalOf(s lakev1.Signal) (lake.Signal, error) {
	if s == lakev1.Signal_SIGNAL_UNSPECIFIED {
		return lake.SignalLogs, nil
	}
	signal, err := lakeproto.Signal(s)
	if err == nil && !slices.Contains(work.Signals(), signal) {
		return signal, fault.New(fault.Unsupported, "compaction of %s: this release compacts logs and metrics", signal)
	}
	return signal, err
}

// windowsOf are the windows to be looked at of segments: hours, the newest first, then days.
func windowsOf(segments []lake.Segment) []lake.Window {
	var hours, days []lake.Window
	for _, s := range segments {
		if s.Window.Length <= time.Hour {
			hours = append(hours, lake.WindowOf(s.Window.Start, time.Hour))
		}
		days = append(days, lake.WindowOf(s.Window.Start, day))
	}
	return append(newestFirst(hours), newestFirst(days)...)
}

func newestFirst(windows []lake.Window) []lake.Window {
	slices.SortFunc(windows, func(a, b lake.Window) int { return b.Start.Compare(a.Start) })
	return slices.CompactFunc(windows, func(a, b lake.Window) bool { return a.Start.Equal(b.Start) })
}

func windowProto(made plan.Plan, state plan.State) *compactorv1.WindowPlan {
	w := &compactorv1.WindowPlan{
		Start: lakeproto.Time(state.Window.Start), LengthSeconds: int64(state.Window.Length / time.Second), Segments: int64(len(state.Segments)),
		AgainAt: lakeproto.Time(made.Again), Reason: made.Reason,
	}
	for i := range state.Segments {
		w.Bytes += state.Segments[i].Bytes + state.Segments[i].SidecarBytes
		w.Rows += state.Segments[i].Rows
	}
	for i := range made.Merges {
		w.Merges = append(w.Merges, mergeProto(&made.Merges[i]))
	}
	return w
}

func mergeProto(m *plan.Merge) *compactorv1.Merge {
	merge := &compactorv1.Merge{Bytes: m.Bytes(), Level: int32(m.Level), Reason: string(m.Reason)} //nolint:gosec // levels are few
	for i := range m.Inputs {
		merge.Inputs = append(merge.Inputs, m.Inputs[i].Key)
	}
	return merge
}

// fill says what was done.
func fill(response *compactorv1.CompactWindowResponse, report work.Report) {
	a := report.Account
	if a.In > 0 {
		response.Conservation = &compactorv1.Conservation{
			RowsIn: a.In, RowsOut: a.Out, Deduplicated: a.Deduplicated, Masked: a.Masked, Deleted: a.Deleted, Expired: a.Expired,
		}
	}
	for i := range report.Added {
		response.SegmentKeys = append(response.SegmentKeys, report.Added[i].Key)
		response.Bytes += report.Added[i].Bytes + report.Added[i].SidecarBytes
	}
}

func statusProto(d index.Debt, backlog []index.Backlog) *compactorv1.CompactionStatus {
	status := &compactorv1.CompactionStatus{
		Organization: string(d.Organization), Signal: lakeproto.SignalProto(d.Signal), Segments: d.Segments, Bytes: d.Bytes, Rows: d.Rows,
		DebtSegments: d.DebtSegments, DebtBytes: d.DebtBytes, DebtWindows: d.DebtWindows, OldestDebt: lakeproto.Time(d.OldestDebt),
	}
	for _, b := range backlog {
		if b.Kind == lake.TaskCompact && b.Organization == d.Organization && b.Signal == d.Signal {
			status.Tasks, status.Buried = b.Tasks, b.Buried
		}
	}
	return status
}
