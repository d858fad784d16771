// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// maxDelay is the longest that a task may be asked to wait.
const maxDelay = 366 * 24 * time.Hour

// work is what tasks coalesce on.
type work struct {
	kind         lake.TaskKind
	organization lake.Organization
	signal       lake.Signal
	start        int64
	length       time.Duration
	tier         int
	receipt      lake.ReceiptID
}

func workOf(t lake.Task) work {
	return work{t.Kind, t.Organization, t.Signal, startOf(t.Window).UnixNano(), t.Window.Length, t.Tier, t.Receipt}
}

// Enqueue asks for work. Asking again for what is waiting changes nothing; asking for what is being done has it done again.
func (x *Index) Enqueue(ctx context.Context, tasks []lake.Task) (err error) {
	defer x.observe("enqueue", &err)()
	if err := checkTasks(tasks); err != nil || len(tasks) == 0 {
		return err
	}
	err = x.inTx(ctx, func(q *db.Queries) error { return enqueue(ctx, q, tasks) })
	if err != nil {
		return failed("enqueue tasks", err)
	}
	x.bell.announce(ctx, kindsOf(tasks)...)
	return nil
}

func checkTasks(tasks []lake.Task) error {
	for _, t := range tasks {
		if t.Kind == "" || t.Bytes < 0 || t.Window.Length < 0 || t.Signal > lake.SignalSpans {
			return fault.New(fault.Invalid, "task of kind %q, signal %d, %d bytes, window of %s", t.Kind, t.Signal, t.Bytes, t.Window.Length)
		}
		if t.Delay < 0 || t.Delay > maxDelay {
			return fault.New(fault.Invalid, "task of kind %q with a delay of %s", t.Kind, t.Delay)
		}
		if err := t.Organization.Valid(); err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
	}
	return nil
}

func kindsOf(tasks []lake.Task) []lake.TaskKind {
	var kinds []lake.TaskKind
	for _, t := range tasks {
		if !slices.Contains(kinds, t.Kind) {
			kinds = append(kinds, t.Kind)
		}
	}
	return kinds
}

// enqueue writes tasks within a transaction. Doubles within the call coalesce to the heaviest and the earliest.
func enqueue(ctx context.Context, q *db.Queries, tasks []lake.Task) error {
	if len(tasks) == 0 {
		return nil
	}
	wanted := make(map[work]lake.Task, len(tasks))
	groups := make([]group, 0, len(tasks))
	for _, t := range tasks {
		groups = append(groups, group{t.Kind, t.Organization, t.Signal})
		if known, double := wanted[workOf(t)]; double {
			t.Bytes = max(t.Bytes, known.Bytes)
			t.Delay = min(t.Delay, known.Delay)
		}
		wanted[workOf(t)] = t
	}
	var p db.EnqueueTasksParams
	for _, t := range wanted {
		p.Kinds = append(p.Kinds, string(t.Kind))
		p.Organizations = append(p.Organizations, string(t.Organization))
		p.Signals = append(p.Signals, int16(t.Signal))
		p.WindowStarts = append(p.WindowStarts, startOf(t.Window))
		p.WindowLengths = append(p.WindowLengths, int64(t.Window.Length))
		p.Tiers = append(p.Tiers, int32(t.Tier))
		p.Receipts = append(p.Receipts, int64(t.Receipt))
		p.Bytes = append(p.Bytes, t.Bytes)
		p.Delays = append(p.Delays, int64(t.Delay))
	}
	if err := q.EnqueueTasks(ctx, p); err != nil {
		return err
	}
	return openServices(ctx, q, groups)
}
