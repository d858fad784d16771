// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// maxDeletes is how many deletes of an organization one run of the duty looks after.
	maxDeletes = 1000
	// maxWindows is how many windows one run hands to compaction.
	maxWindows  = 2000
	segmentPage = 1000
	// blindness is how long a transaction that makes a delete may take until others see it: leases that were claimed no later than that
	// after its time may have been working without it. Those that are claimed after we saw it have seen it, however soon that is.
	blindness = 2 * time.Minute
	// day is the length of a window of tier 1.
	day = 24 * time.Hour
)

// Duty takes each delete of the lease's organization a step further, and hands windows to compaction and rollup. What goes wrong with one delete
// does not keep the others waiting: the task comes again, with the cause.
func (e *Eraser) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	var edit lake.Edit
	windows, err := e.Run(ctx, lease.Organization)
	edit.Next = windows
	switch {
	case err == nil || len(lease.Tasks) == 0:
	case ctx.Err() != nil:
		return lake.Edit{}, err
	default:
		edit.Retry = []lake.Retry{{Task: lease.Tasks[0].ID, Cause: err.Error(), Blameless: passes(err)}}
		return edit, nil
	}
	edit.Next = append(edit.Next, lake.Task{Kind: lake.TaskErase, Organization: lease.Organization, Delay: e.deps.Every})
	return edit, err
}

// passes reports whether an error's cause lies outside and passes by itself.
func passes(err error) bool {
	return errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout) || errors.Is(err, fault.Conflict)
}

// Run takes each delete of an organization that is not done a step further. The tasks are the compactions and rollups that it waits for.
func (e *Eraser) Run(ctx context.Context, org lake.Organization) ([]lake.Task, error) {
	deletes, _, err := e.deps.Index.Deletes(ctx, index.DeleteQuery{
		Organization: org, States: []lake.DeleteState{lake.DeleteRewriting, lake.DeleteSweeping}, Limit: maxDeletes,
	})
	if err != nil {
		return nil, err
	}
	var all []error
	windows := newWindows()
	files := newKept(e.deps.Objects, org)
	for _, d := range deletes {
		if err := e.advance(ctx, d, windows, files); err != nil {
			all = append(all, fmt.Errorf("delete %d: %w", d.ID, err))
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return windows.tasks, errors.Join(all...)
}

func (e *Eraser) advance(ctx context.Context, d lake.Delete, windows *windows, files *kept) error {
	free, err := e.rewrite(ctx, d, windows)
	if err != nil || !free {
		return err
	}
	if d.State == lake.DeleteRewriting {
		if err := e.deps.Index.AdvanceDelete(ctx, d.ID, lake.DeleteRewriting, lake.DeleteSweeping); err != nil {
			return err
		}
		if d, err = e.deps.Index.Delete(ctx, d.ID); err != nil {
			return err
		}
	}
	treated, err := e.treatSources(ctx, d, files)
	if err != nil || !treated {
		return err
	}
	return e.certify(ctx, d)
}

// rewrite hands the windows to compaction whose segments may hold rows of a delete, and rollups of them to whoever makes these, and reports whether there are none, and none can come.
//
// None can come once nobody works who may not have seen the delete. Ingest and compaction read the deletes after their claim, so only a
// lease that was claimed before the delete could be seen may add a segment without it; a rollup from before it is refused. The leases are asked for first: what one of them
// added before it ended is found by the look at the segments that follows.
func (e *Eraser) rewrite(ctx context.Context, d lake.Delete, windows *windows) (free bool, err error) {
	kinds := []lake.TaskKind{lake.TaskIngest, lake.TaskCompact}
	unseeing, err := e.deps.Index.LeasesBefore(ctx, d.Organization, kinds, d.CreatedAt.Add(blindness))
	if err != nil {
		return false, err
	}
	found := false
	for after := lake.SegmentID(0); !windows.full(); {
		segments, err := e.deps.Index.SegmentsUnderDelete(ctx, d.ID, after, segmentPage)
		if err != nil {
			return false, err
		}
		for _, s := range segments {
			windows.add(s)
			after = s.ID
		}
		found = found || len(segments) > 0
		if len(segments) < segmentPage {
			return !found && unseeing == 0, nil
		}
	}
	return false, nil
}

// windows are those to be compacted, once each.
type windows struct {
	tasks []lake.Task
	at    map[lake.Task]int // by the task without its bytes
}

func newWindows() *windows { return &windows{at: map[lake.Task]int{}} }

func (w *windows) full() bool { return len(w.tasks) >= maxWindows }

func (w *windows) add(s lake.Segment) {
	task := lake.Task{Kind: lake.TaskCompact, Organization: s.Organization, Signal: s.Signal, Window: s.Window}
	switch {
	case s.Resolution > 0:
		task.Kind, task.Tier = lake.TaskRollup, int(s.Resolution/time.Second)
	case s.Window.Length >= day:
		task.Tier = 1
	}
	task.Window.Start = task.Window.Start.UTC()
	i, known := w.at[task]
	if !known {
		i = len(w.tasks)
		w.at[task] = i
		w.tasks = append(w.tasks, task)
	}
	w.tasks[i].Bytes += s.Bytes
}
