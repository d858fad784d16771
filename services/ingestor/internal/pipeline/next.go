// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// hotDelay is how long compaction of an hour that is being written waits for more, coldDelay that of one long past: the hot ones go first.
	hotDelay  = 10 * time.Second
	coldDelay = time.Minute
	// settling is how long after its end an hour is still hot.
	settling = 15 * time.Minute
)

// part is a window of a signal.
type part struct {
	signal lake.Signal
	window lake.Window
}

func (p part) compare(o part) int {
	return cmp.Or(cmp.Compare(p.signal, o.signal), o.window.Start.Compare(p.window.Start))
}

// next asks for what follows the segments that were added: a look at each window by compaction, and the rollups of it.
func next(lease *lake.Lease, added []lake.Segment, finest map[lake.Signal]config.RollupPolicy) []lake.Task {
	bytes := map[part]int64{}
	for _, s := range added {
		bytes[part{s.Signal, s.Window}] += s.Bytes
	}
	var tasks []lake.Task
	for _, p := range slices.SortedFunc(maps.Keys(bytes), part.compare) {
		task := lake.Task{
			Kind: lake.TaskCompact, Organization: lease.Organization, Signal: p.signal, Window: p.window, Bytes: bytes[p], Delay: hotDelay,
		}
		if lease.ClaimedAt.After(p.window.End().Add(settling)) {
			task.Delay = coldDelay
		}
		tasks = append(tasks, task)
	}
	return append(tasks, rollupTasks(lease, bytes, finest)...)
}

// rollupTasks ask for the finest tier of rollups of each window; the coarser ones follow from it.
func rollupTasks(lease *lake.Lease, bytes map[part]int64, finest map[lake.Signal]config.RollupPolicy) []lake.Task {
	weights := map[part]int64{}
	for p, n := range bytes {
		if tier, ok := finest[p.signal]; ok {
			weights[part{p.signal, lake.WindowOf(p.window.Start, config.RollupWindow(tier.Resolution))}] += n
		}
	}
	var tasks []lake.Task
	for _, p := range slices.SortedFunc(maps.Keys(weights), part.compare) {
		tier := finest[p.signal]
		tasks = append(tasks, lake.Task{
			Kind: lake.TaskRollup, Organization: lease.Organization, Signal: p.signal, Window: p.window, Tier: int(tier.Resolution / time.Second),
			Bytes: weights[p], Delay: max(p.window.End().Add(tier.After).Sub(lease.ClaimedAt), 0),
		})
	}
	return tasks
}
