// SPDX-License-Identifier: AGPL-3.0-only

// Package work does what package plan decides: it reads the points of a window, or finer rollups of it, makes buckets of them, checks that every point is
// accounted for, uploads what came out, and says in an Edit how the lake is to change.
//
// Invariants, each the name of a test:
//
//   - W1. Every point that was read is counted in one bucket, or as a stale marker, a double, masked or deleted; else the task fails and changes nothing.
//   - W2. What was read is what the index says of the segments; a segment whose file is missing fails the task, for a rollup without it would be a lie.
//   - W3. A rollup is of one content version of its window: the commit fails if that has changed meanwhile.
//   - W4. Series are read one by one in the order of rows, a shard at a time: memory is that of catalogues and of one series' points.
//   - W5. Scratch files are removed whatever happens. Nothing in the bucket is deleted or overwritten, nothing is put outside of folders that were declared.
package work

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// Index is what the work needs of the index.
type Index interface {
	RollupWindow(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (index.RollupState, error)
	Declare(ctx context.Context, lease lake.LeaseID, folders []string) error
	MarkMissing(ctx context.Context, segments []lake.SegmentID, missing bool) error
}

// Config bounds one Worker.
type Config struct {
	// Memory is what catalogues of one rollup's inputs may take, in bytes. Zero: 512 MiB.
	Memory int64
	// Scratch is the directory for inputs and outputs, and ScratchBytes what they may take there. Zero: 4 GiB.
	Scratch      string
	ScratchBytes int64
	// Fetch is how many inputs are fetched at a time. Zero: 4.
	Fetch int
	// Target is the size of segments that is aimed at. Zero: 64 MiB.
	Target int64
	// Settle is how long after its last change a window is rolled up again. Zero: 1 minute.
	Settle time.Duration
	// MaxInputs is how many segments of rows one rollup may read. Zero: 256.
	MaxInputs int
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

// New returns a Worker.
func New(c Config, d Deps) *Worker {
	c.Memory = cmp.Or(c.Memory, 512<<20)
	c.ScratchBytes = cmp.Or(c.ScratchBytes, 4<<30)
	c.Fetch = cmp.Or(c.Fetch, 4)
	c.Target = cmp.Or(c.Target, 64<<20)
	c.Settle = cmp.Or(c.Settle, time.Minute)
	c.MaxInputs = cmp.Or(c.MaxInputs, 256)
	if d.Checkpoint == nil {
		d.Checkpoint = func(string) {}
	}
	return &Worker{config: c, deps: d}
}

// Report is what became of one window.
type Report struct {
	Plan    plan.Plan
	Skipped bool
	Account Account
	Added   []lake.Segment
}

// Work is the stage's function.
func (w *Worker) Work(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	return w.work(ctx, lease, false, nil)
}

// Asked is Work for somebody who asks for a rollup, whether or not it is due. report is told of what was done before it is committed.
func (w *Worker) Asked(report func(Report)) stage.Work {
	return func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		return w.work(ctx, lease, true, report)
	}
}

// Plan says what would be done about a rollup.
func (w *Worker) Plan(ctx context.Context, task lake.Task, asked bool) (plan.Plan, plan.State, error) {
	state, err := w.state(ctx, task, asked)
	if err != nil {
		return plan.Plan{}, state, err
	}
	return plan.Make(state, w.policy(task)), state, nil
}

func (w *Worker) state(ctx context.Context, task lake.Task, asked bool) (plan.State, error) {
	s, err := w.deps.Index.RollupWindow(ctx, task.Organization, task.Signal, task.Window)
	return plan.State{RollupState: s, Resolution: resolutionOf(task), Asked: asked}, err
}

func resolutionOf(task lake.Task) time.Duration { return time.Duration(task.Tier) * time.Second }

// policy is what the organization has of a tier.
func (w *Worker) policy(task lake.Task) plan.Policy {
	p := plan.Policy{Settle: w.config.Settle, MaxInputs: w.config.MaxInputs}
	organization, known := w.deps.Config.Current().Organization(task.Organization)
	if !known {
		return p
	}
	resolution := resolutionOf(task)
	p.RawKeep, p.TierKeep = organization.RawRetention(task.Signal), organization.TierRetention(task.Signal, resolution)
	for _, tier := range organization.RollupsOf(task.Signal) {
		switch {
		case tier.Resolution == resolution:
			p.Tier = &tier
		case tier.Resolution > resolution:
			p.Coarser = append(p.Coarser, tier)
		}
	}
	p.Unusable = unusable(organization.RollupsOf(task.Signal), p.Tier)
	return p
}

func (w *Worker) work(ctx context.Context, lease *lake.Lease, asked bool, report func(Report)) (lake.Edit, error) {
	if len(lease.Tasks) != 1 {
		return lake.Edit{}, fault.New(fault.Internal, "lease %s has %d tasks", lease.ID, len(lease.Tasks))
	}
	task := lease.Tasks[0]
	task.Organization = lease.Organization
	if err := Valid(task); err != nil {
		return lake.Edit{}, err
	}
	directory, err := os.MkdirTemp(w.config.Scratch, prefix)
	if err != nil {
		return lake.Edit{}, scratchError(err)
	}
	defer os.RemoveAll(directory)
	ctx, tally := objects.WithTally(ctx)
	r := &run{
		Worker: w, lease: lease, task: task, scratch: &scratch{directory: directory, limit: w.config.ScratchBytes},
		declared: map[string]bool{}, choosers: map[lake.DeleteID]chooser{},
	}
	defer r.scratch.clear()
	r.edit.Rewrite = true
	if err := r.work(ctx, asked); err != nil {
		return lake.Edit{}, err
	}
	r.edit.Cost.Puts, r.edit.Cost.Gets = tally.Count(objects.RequestPut), tally.Count(objects.RequestGet)
	if report != nil {
		report(Report{Plan: r.made, Skipped: r.skipped, Account: r.account, Added: r.edit.Add})
	}
	return r.edit, nil
}

// Valid refuses tasks that no rollup can have.
func Valid(task lake.Task) error {
	resolution := resolutionOf(task)
	for _, tier := range config.Tiers() {
		if tier == resolution && task.Window == lake.WindowOf(task.Window.Start, config.RollupWindow(tier)) {
			return nil
		}
	}
	return fault.New(fault.Invalid, "a rollup to %s of %s at %s: there is none", resolution, task.Window.Length, task.Window.Start)
}

// run is the work on one lease.
type run struct {
	*Worker
	lease   *lake.Lease
	task    lake.Task
	scratch *scratch
	state   plan.State
	policy  plan.Policy
	made    plan.Plan
	skipped bool
	// sources are those of the plan, where lines were counted: what that came to.
	sources []plan.Source
	// declared are the folders that the index knows of.
	declared map[string]bool
	// choosers of deletes, parsed once.
	choosers map[lake.DeleteID]chooser
	// files numbers the lease's files, spilled what is written to disk alone, downwards.
	files   int
	spilled lake.SegmentID
	account Account
	edit    lake.Edit
}

func (r *run) work(ctx context.Context, asked bool) error {
	state, err := r.Worker.state(ctx, r.task, asked)
	if err != nil {
		return err
	}
	r.state, r.policy = state, r.Worker.policy(r.task)
	r.deps.Checkpoint("rollup-window-read")
	r.made = plan.Make(r.state, r.policy)
	err = r.do(ctx)
	if errors.Is(err, errCrowded) {
		r.made = plan.Plan{Action: plan.Wait, Reason: err.Error(), Again: state.At.Add(10 * r.config.Settle), Remove: r.made.Remove}
		err = nil
	}
	r.deps.Counters.worked(r.made.Action, r.skipped, r.task)
	if err != nil {
		return err
	}
	r.next()
	return nil
}

// do does what was decided.
func (r *run) do(ctx context.Context) error {
	switch r.made.Action {
	case plan.Roll, plan.Erase:
	case plan.Drop:
		r.remove()
		return nil
	default:
		return nil
	}
	if spared, err := r.spared(ctx); err != nil || spared {
		return err
	}
	if r.made.Action == plan.Erase {
		return r.erase(ctx)
	}
	return r.roll(ctx)
}

func (r *run) remove() {
	for _, s := range r.made.Remove {
		r.edit.Remove = append(r.edit.Remove, s.ID)
	}
}

// rolled makes the rollup current.
func (r *run) rolled(skipped bool) {
	r.remove()
	r.skipped = skipped
	r.edit.Rolled = []lake.Rolled{{
		Signal: r.task.Signal, Window: r.task.Window, Resolution: resolutionOf(r.task), Version: r.state.Version.Version, AppliedDelete: r.state.Latest,
		Skipped: skipped, OfItself: r.made.Action == plan.Erase,
	}}
}

// next asks for the window's next look, and for coarser rollups.
func (r *run) next() {
	const longest = 30 * 24 * time.Hour
	if !r.made.Again.IsZero() {
		task := plan.TaskOf(r.lease.Organization, r.task.Signal, r.task.Window, resolutionOf(r.task))
		task.Delay = min(max(r.made.Again.Sub(r.state.At), 0), longest)
		r.edit.Next = append(r.edit.Next, task)
	}
	if r.made.Action != plan.Roll && r.made.Action != plan.Erase {
		return
	}
	for _, task := range r.made.Next {
		task.Organization, task.Delay = r.lease.Organization, min(task.Delay, longest)
		r.edit.Next = append(r.edit.Next, task)
	}
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
