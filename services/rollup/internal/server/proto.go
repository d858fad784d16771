// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
	"github.com/lakerunner/lakerunner/services/rollup/internal/debt"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
	"github.com/lakerunner/lakerunner/services/rollup/internal/work"
)

// signalOf reads a request's signal; metrics, if it has none.
func signalOf(s lakev1.Signal) (lake.Signal, error) {
	if s == lakev1.Signal_SIGNAL_UNSPECIFIED {
		return lake.SignalMetrics, nil
	}
	signal, err := lakeproto.Signal(s)
	if err == nil && signal != lake.SignalMetrics && signal != lake.SignalLogs {
		return signal, fault.New(fault.Unsupported, "rollups of %s: there are those of metrics and logs", signal)
	}
	return signal, err
}

func planProto(made plan.Plan, state plan.State, skipped bool) *rollupv1.RollupPlan {
	w := state.Version.Window
	p := &rollupv1.RollupPlan{
		Start: lakeproto.Time(w.Start), LengthSeconds: int64(w.Length / time.Second), ResolutionSeconds: int64(state.Resolution / time.Second),
		Action: actionProto(made.Action), Reason: made.Reason, AgainAt: lakeproto.Time(made.Again), Segments: int64(len(made.Remove)), Version: state.Version.Version,
	}
	if skipped {
		p.Action, p.Reason = rollupv1.RollupAction_ROLLUP_ACTION_SKIP, "the rows are no finer than it"
	}
	for i := range made.Remove {
		p.Bytes += made.Remove[i].Bytes + made.Remove[i].SidecarBytes
	}
	for _, s := range made.Sources {
		source := &rollupv1.RollupSource{
			Start: lakeproto.Time(s.Window.Start), LengthSeconds: int64(s.Window.Length / time.Second), ResolutionSeconds: int64(s.Resolution / time.Second),
			Segments: int64(len(s.Segments)),
		}
		for i := range s.Segments {
			source.Bytes += s.Segments[i].Bytes + s.Segments[i].SidecarBytes
		}
		p.Sources = append(p.Sources, source)
	}
	return p
}

func actionProto(a plan.Action) rollupv1.RollupAction {
	switch a {
	case plan.Roll, plan.Erase, plan.Drop: // the reason says of what
		return rollupv1.RollupAction_ROLLUP_ACTION_ROLL
	case plan.Wait:
		return rollupv1.RollupAction_ROLLUP_ACTION_WAIT
	case plan.Refuse:
		return rollupv1.RollupAction_ROLLUP_ACTION_REFUSE
	}
	return rollupv1.RollupAction_ROLLUP_ACTION_NONE
}

// fill says what was done.
func fill(response *rollupv1.RollupWindowResponse, report work.Report) {
	a := report.Account
	if a.In > 0 {
		response.Account = &rollupv1.RollupAccount{
			PointsIn: a.In, Counted: a.Counted, Stale: a.Stale, Deduplicated: a.Deduplicated, Masked: a.Masked, Deleted: a.Deleted, Buckets: a.Buckets, Series: a.Series,
		}
	}
	for i := range report.Added {
		response.SegmentKeys = append(response.SegmentKeys, report.Added[i].Key)
		response.Bytes += report.Added[i].Bytes + report.Added[i].SidecarBytes
	}
}

func statusProto(d debt.Tier, backlog []index.Backlog) *rollupv1.RollupStatus {
	status := &rollupv1.RollupStatus{
		Organization: string(d.Organization), Signal: lakeproto.SignalProto(d.Signal), ResolutionSeconds: int64(d.Resolution / time.Second),
		DebtWindows: d.Count, LagSeconds: int64(d.Lag / time.Second),
	}
	if len(d.Windows) > 0 {
		status.OldestDebt = lakeproto.Time(d.Windows[0].Start)
	}
	for _, b := range backlog {
		if b.Kind == lake.TaskRollup && b.Organization == d.Organization && b.Signal == d.Signal {
			status.Tasks, status.Buried = b.Tasks, b.Buried
		}
	}
	return status
}
