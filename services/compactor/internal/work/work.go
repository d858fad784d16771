// SPDX-License-Identifier: AGPL-3.0-only

// Package work does what package plan decides: it fetches segments, merges them, checks that no row was lost, uploads what came out, and says
// in an Edit how the lake is to change.
//
// Invariants, each the name of a test:
//
//   - Every row of the inputs is in an output or counted as one that left; else the task fails and changes nothing.
//   - An input whose file is missing is reported, and does not keep others from being merged.
//   - Scratch files are removed whatever happens; neither they nor the merge's memory exceed Config.
//   - It deletes nothing in the bucket, and puts nothing outside of folders that it declared.
package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// Index is what the work needs of the index.
type Index interface {
	Window(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (index.WindowState, error)
	Declare(ctx context.Context, lease lake.LeaseID, folders []string) error
	MarkMissing(ctx context.Context, segments []lake.SegmentID, missing bool) error
}

// Config bounds one Worker.
type Config struct {
	// Memory is what one merge may hold, in bytes. Zero: 256 MiB.
	Memory int64
	// Scratch is the directory for inputs and outputs of a merge, and ScratchBytes what they may take there. Zero: 4 GiB.
	Scratch      string
	ScratchBytes int64
	// Fetch is how many inputs are fetched at a time. Zero: 4.
	Fetch int
	// Policy is how windows are compacted; an organization's rules come to it.
	Policy plan.Policy
}

// Deps are what a Worker needs.
type Deps struct {
	Index   Index
	Objects objects.Store
	Config  config.Source
	// Counters count what is done; the zero value counts nothing.
	Counters Counters
	// Checkpoint, if not nil, is called by name between any two steps. Tests end the process in it.
	Checkpoint func(name string)
}

// Worker works on leases. It is safe for concurrent use.
type Worker struct {
	config Config
	deps   Deps
}

// spill is how much of the scratch's bytes a merge's inputs may be: outputs and a reserve take the rest.
const spill = 2.2

// New returns a Worker.
func New(c Config, d Deps) *Worker {
	c.Memory = cmp.Or(c.Memory, 256<<20)
	c.ScratchBytes = cmp.Or(c.ScratchBytes, 4<<30)
	c.Fetch = cmp.Or(c.Fetch, 4)
	c.Policy.MergeBytes = min(cmp.Or(c.Policy.MergeBytes, plan.Defaults().MergeBytes), int64(float64(c.ScratchBytes)/spill))
	if d.Checkpoint == nil {
		d.Checkpoint = func(string) {}
	}
	return &Worker{config: c, deps: d}
}

// Report is what became of one window.
type Report struct {
	Plan    plan.Plan
	Account Account
	Added   []lake.Segment
}

// Account tells where the rows of merges went: In = Out + Deduplicated + Masked + Deleted + Expired.
type Account struct{ In, Out, Deduplicated, Masked, Deleted, Expired int64 }

// Work is the stage's function.
func (w *Worker) Work(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	return w.work(ctx, lease, false, nil)
}

// Asked is Work for somebody who asks for a window, whether or not it is due. report is told of what was done before it is committed.
func (w *Worker) Asked(report func(Report)) stage.Work {
	return func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		return w.work(ctx, lease, true, report)
	}
}

// Plan says what would be done to a window.
func (w *Worker) Plan(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window, asked bool) (plan.Plan, plan.State, error) {
	state, err := w.state(ctx, org, signal, window)
	if err != nil {
		return plan.Plan{}, state, err
	}
	state.Asked = asked
	return plan.Make(state, w.merger(org, signal).policy()), state, nil
}

func (w *Worker) state(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (plan.State, error) {
	s, err := w.deps.Index.Window(ctx, org, signal, window)
	if err != nil {
		return plan.State{}, err
	}
	return plan.State{Window: window, Segments: s.Segments, Deletes: s.Deletes, Latest: s.Latest, Now: s.At}, nil
}

func (w *Worker) work(ctx context.Context, lease *lake.Lease, asked bool, report func(Report)) (lake.Edit, error) {
	if len(lease.Tasks) != 1 {
		return lake.Edit{}, fault.New(fault.Internal, "lease %s has %d tasks", lease.ID, len(lease.Tasks))
	}
	directory, err := os.MkdirTemp(w.config.Scratch, prefix)
	if err != nil {
		return lake.Edit{}, scratchError(err)
	}
	defer os.RemoveAll(directory)
	ctx, tally := objects.WithTally(ctx)
	r := &run{Worker: w, lease: lease, task: lease.Tasks[0], scratch: &scratch{directory: directory, limit: w.config.ScratchBytes}, declared: map[string]bool{}}
	r.edit.Rewrite = true
	if err := r.work(ctx, asked); err != nil {
		return lake.Edit{}, err
	}
	r.edit.Cost.Puts, r.edit.Cost.Gets = tally.Count(objects.RequestPut), tally.Count(objects.RequestGet)
	if report != nil {
		report(Report{Plan: r.made, Account: r.account, Added: r.edit.Add})
	}
	return r.edit, nil
}

// run is the work on one lease.
type run struct {
	*Worker
	lease   *lake.Lease
	task    lake.Task
	scratch *scratch
	merger  merger
	state   plan.State
	made    plan.Plan
	// declared are the folders that the index knows of.
	declared map[string]bool
	// files numbers the lease's files.
	files   int
	account Account
	// large are segments that have to be rewritten, and take more than there is.
	large []string
	edit  lake.Edit
}

func (r *run) work(ctx context.Context, asked bool) error {
	state, err := r.Worker.state(ctx, r.lease.Organization, r.task.Signal, r.task.Window)
	if err != nil {
		return err
	}
	r.state, r.merger = state, r.Worker.merger(r.lease.Organization, r.task.Signal)
	r.state.Asked = asked
	r.deps.Checkpoint("window-read")
	r.made = plan.Make(r.state, r.merger.policy())
	for i := range r.made.Merges {
		if err := r.merge(ctx, r.made.Merges[i]); err != nil {
			return err
		}
	}
	if len(r.large) > 0 {
		return r.leave()
	}
	r.next()
	return nil
}

// leave has the task fail, and tell of the segments that cannot be rewritten: or else nobody would know why deleted rows, masked as they are, stay in
// files. What was done besides counts.
func (r *run) leave() error {
	err := fault.New(fault.Exhausted, "to rewrite %s takes more memory or scratch than a merge may use: raise memory_bytes or scratch_bytes of the compactor",
		strings.Join(r.large, ", "))
	if len(r.edit.Remove)+len(r.edit.Marks) == 0 {
		return err
	}
	r.edit.Retry = []lake.Retry{{Task: r.task.ID, Cause: err.Error()}}
	return nil
}

// skip leaves segments as they are, that would take too much.
func (r *run) skip(m plan.Merge, segments []lake.Segment) {
	r.deps.Counters.skip(m.Reason)
	if len(segments) == 1 && m.Reason.Must() {
		r.large = append(r.large, fmt.Sprintf("segment %d (%s, %d MiB, for %s)", segments[0].ID, segments[0].Key, segments[0].Bytes>>20, m.Reason))
	}
}

// merge does one merge of the plan, or less where less will do.
func (r *run) merge(ctx context.Context, m plan.Merge) error {
	if m.Doubtful {
		needless, err := r.needless(ctx, m.Inputs[0])
		if err != nil || needless {
			return err
		}
		r.deps.Checkpoint("catalogue-read")
	}
	parts := r.affordable(m.Inputs)
	for _, some := range parts {
		if len(some) == 1 && len(parts) > 1 && !m.Reason.Must() {
			r.skip(m, some)
			continue
		}
		if err := r.mergeSome(ctx, m, some); err != nil {
			return err
		}
	}
	return nil
}

// affordable cuts inputs whose sidecars are read before they are merged, so that those of one part take less than the merge's memory.
func (r *run) affordable(inputs []lake.Segment) (parts [][]lake.Segment) {
	if !r.merger.readsSidecars() {
		return [][]lake.Segment{inputs}
	}
	const each, expansion = 1 << 20, 2
	from, held := 0, int64(0)
	for i := range inputs {
		takes := each + expansion*inputs[i].SidecarBytes
		if i > from && held+takes > r.config.Memory*3/4 {
			parts = append(parts, inputs[from:i])
			from, held = i, 0
		}
		held += takes
	}
	return append(parts, inputs[from:])
}

// mergeSome fetches and merges.
func (r *run) mergeSome(ctx context.Context, m plan.Merge, segments []lake.Segment) error {
	there, err := r.fetch(ctx, segments)
	switch {
	case errors.Is(err, fault.Exhausted):
		r.skip(m, segments)
		return nil
	case err != nil:
		return err
	}
	defer r.scratch.clear()
	if len(there) < len(segments) && (len(there) == 0 || len(there) == 1 && len(segments) > 1) {
		return nil
	}
	r.deps.Checkpoint("fetched")
	return r.mergeFetched(ctx, m, there)
}

// mergeFetched merges what is on disk; in parts, if that takes too much memory or scratch.
func (r *run) mergeFetched(ctx context.Context, m plan.Merge, inputs []input) error {
	err := r.rewrite(ctx, m, inputs)
	if !errors.Is(err, fault.Exhausted) {
		return err
	}
	part := len(inputs) / 2
	if part == 1 && !m.Reason.Must() || part == 0 {
		r.skip(m, segmentsOf(inputs))
		return nil
	}
	for some := range slices.Chunk(inputs, part) {
		if err := r.mergeFetched(ctx, m, some); err != nil {
			return err
		}
		if m.Identified() {
			// Queries believe that what one lease merged has no doubles: the other parts are for another one.
			r.made.Again = r.state.Now
			return nil
		}
	}
	return nil
}

func segmentsOf(inputs []input) []lake.Segment {
	segments := make([]lake.Segment, len(inputs))
	for i, in := range inputs {
		segments[i] = in.segment
	}
	return segments
}

// next asks for the window's next look, and for its day's.
func (r *run) next() {
	if !r.made.Again.IsZero() {
		r.ask(r.task.Window, r.task.Tier, r.made.Again)
	}
	if !r.made.Day.IsZero() {
		r.ask(lake.WindowOf(r.task.Window.Start, 24*time.Hour), tierDay, r.made.Day)
	}
}

// tierDay is the tier of tasks of a day.
const tierDay = 1

func (r *run) ask(window lake.Window, tier int, at time.Time) {
	const longest = 30 * 24 * time.Hour
	r.edit.Next = append(r.edit.Next, lake.Task{
		Kind: lake.TaskCompact, Organization: r.lease.Organization, Signal: r.task.Signal, Window: window, Tier: tier,
		Delay: min(max(at.Sub(r.state.Now), 0), longest),
	})
}

// TaskOf is the task of a window.
func TaskOf(org lake.Organization, signal lake.Signal, window lake.Window) lake.Task {
	task := lake.Task{Kind: lake.TaskCompact, Organization: org, Signal: signal, Window: window}
	if window.Length > time.Hour {
		task.Tier = tierDay
	}
	return task
}

func folderOf(s *lake.Segment, key string) string {
	for i := len(key) - 1; i >= 0; i-- {
		if key[i] == '/' {
			return s.Bucket + "/" + key[:i+1]
		}
	}
	return s.Bucket + "/" + key
}

func scratchError(err error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("scratch directory: %w", err))
}
