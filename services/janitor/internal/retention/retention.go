// SPDX-License-Identifier: AGPL-3.0-only

// Package retention removes segments that are past their retention from the index, and hands windows of which only some rows are due to
// compaction. What it removes, the sweep deletes after the grace; each run's numbers are kept, so that they show it.
//
// Invariants:
//
//	T1. A segment is removed only when the end of its window is past every policy that may fit some of its rows.
//	T2. No transaction removes more than 1,000 segments.
//	T3. A run counts what is due once, at its beginning, and then goes on, over crashes, until nothing of that is left: as many segments are
//	    removed as were due (others in place of those that compaction replaced meanwhile), and in the end deleted and seen to be gone.
//	T4. Doing it twice, or from two processes at once, removes the same segments once.
//	T5. Rows as they came and the rollups of each resolution go by policies, cutoffs and runs of their own; a commit removes segments of one
//	    of them.
package retention

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Index is what retention needs of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	DueSegments(ctx context.Context, query index.DueQuery) ([]lake.Segment, error)
	StaleWindows(ctx context.Context, query index.StaleQuery) ([]index.WindowDebt, error)
	BeginRetention(ctx context.Context, run index.RetentionRun) (int64, error)
	RetentionRemoved(ctx context.Context, id int64, lease lake.LeaseID, count index.Count, finished bool) error
	RetentionRuns(ctx context.Context, org lake.Organization, pageSize int, pageToken string) ([]index.RetentionRun, string, error)
}

// Deps are what retention works on.
type Deps struct {
	Index      Index
	Config     config.Source
	Checkpoint func(name string)
}

const (
	// batch is how many segments one commit removes.
	batch = 1000
	// windows is how many windows one run hands to compaction for each policy or field rule.
	windows = 1000
	// runs is how many runs are looked through for one that is under way.
	runs = 100
)

// Keeper applies retention and sees to field rules that are due.
type Keeper struct{ deps Deps }

// New returns a keeper.
func New(d Deps) *Keeper { return &Keeper{deps: d} }

// Duty removes the next segments of one signal that are due. While more are, it asks for itself at once.
func (k *Keeper) Duty(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
	var edit lake.Edit
	for _, task := range lease.Tasks {
		if err := k.step(ctx, lease, task.Signal, &edit); err != nil {
			return lake.Edit{}, err
		}
	}
	return edit, nil
}

// More reports whether an edit of Duty leaves work for the next one.
func More(edit lake.Edit) bool {
	return slices.ContainsFunc(edit.Next, func(t lake.Task) bool { return t.Kind == lake.TaskExpire })
}

// resolutions are those whose segments a signal can have, zero for rows as they came.
func resolutions(signal lake.Signal) []time.Duration {
	if signal == lake.SignalSpans {
		return []time.Duration{0}
	}
	return append([]time.Duration{0}, index.Resolutions()...)
}

// step goes on with the first resolution of which something is due. A lease is of one run, so the others are for the next ones.
func (k *Keeper) step(ctx context.Context, lease *lake.Lease, signal lake.Signal, edit *lake.Edit) error {
	for _, resolution := range resolutions(signal) {
		due, err := k.due(ctx, lease.Organization, signal, resolution)
		if err != nil {
			return err
		}
		asked := len(edit.Next)
		if err := k.rewrite(ctx, due, edit); err != nil {
			return err
		}
		run, err := k.run(ctx, due, int64(len(edit.Next)-asked))
		if err != nil {
			return err
		}
		if run != nil {
			return k.remove(ctx, lease, due, run, edit)
		}
	}
	return nil
}

// remove takes the next segments of a run. When there are none left the run is over.
func (k *Keeper) remove(ctx context.Context, lease *lake.Lease, due due, run *index.RetentionRun, edit *lake.Edit) error {
	k.deps.Checkpoint("retention-begun")
	var segments []lake.Segment
	if cutoff := due.until(run.Cutoff); !cutoff.IsZero() {
		var err error
		if segments, err = k.deps.Index.DueSegments(ctx, due.query(cutoff)); err != nil {
			return err
		}
	}
	for _, s := range segments {
		edit.Remove = append(edit.Remove, s.ID)
	}
	if err := k.deps.Index.RetentionRemoved(ctx, run.ID, lease.ID, index.Count{}, len(segments) == 0); err != nil {
		return err
	}
	k.deps.Checkpoint("retention-counted")
	edit.Next = append(edit.Next, lake.Task{Kind: lake.TaskExpire, Organization: due.organization, Signal: due.signal})
	return nil
}

// due is what the policies of one signal say now, of its rows as they came (zero) or of its rollups of a resolution.
type due struct {
	organization lake.Organization
	signal       lake.Signal
	resolution   time.Duration
	now          time.Time
	plan         Plan
	fields       []config.FieldRule
}

func (k *Keeper) due(ctx context.Context, org lake.Organization, signal lake.Signal, resolution time.Duration) (due, error) {
	now, err := k.deps.Index.Now(ctx)
	d := due{organization: org, signal: signal, resolution: resolution, now: now}
	if organization, ok := k.deps.Config.Current().Organization(org); ok {
		d.plan = planOf(organization, signal, resolution)
		if resolution == 0 {
			d.fields = organization.FieldsOf(signal)
		}
	}
	return d, err
}

// query asks for the first of the segments that are due before a time.
func (d due) query(before time.Time) index.DueQuery {
	return index.DueQuery{Organization: d.organization, Signal: d.signal, Resolution: d.resolution, Before: before, Limit: batch}
}

// cutoff is the time before which whole segments are due; zero: none are.
func (d due) cutoff() time.Time {
	if d.plan.Whole == 0 {
		return time.Time{}
	}
	return d.now.Add(-d.plan.Whole)
}

// until is a run's cutoff, unless the policies keep rows longer by now.
func (d due) until(cutoff time.Time) time.Time {
	if own := d.cutoff(); own.Before(cutoff) {
		return own
	}
	return cutoff
}

// run returns the run that is under way, or begins one; nil: nothing is due.
func (k *Keeper) run(ctx context.Context, d due, rewrites int64) (*index.RetentionRun, error) {
	known, _, err := k.deps.Index.RetentionRuns(ctx, d.organization, runs, "")
	if err != nil {
		return nil, err
	}
	for _, run := range known {
		if run.Signal == d.signal && run.Resolution == d.resolution && run.FinishedAt.IsZero() {
			return &run, nil
		}
	}
	count, err := k.count(ctx, d)
	if err != nil || count.Segments == 0 {
		return nil, err
	}
	run := index.RetentionRun{
		Organization: d.organization, Signal: d.signal, Resolution: d.resolution, Cutoff: d.cutoff(), Due: count, WindowsToRewrite: rewrites,
	}
	run.ID, err = k.deps.Index.BeginRetention(ctx, run)
	return &run, err
}

// count counts the segments that are due, in pages: no statement is long.
func (k *Keeper) count(ctx context.Context, d due) (index.Count, error) {
	var count index.Count
	query := d.query(d.cutoff())
	if query.Before.IsZero() {
		return count, nil
	}
	for {
		segments, err := k.deps.Index.DueSegments(ctx, query)
		if err != nil {
			return count, err
		}
		for _, s := range segments {
			count.Segments++
			count.Rows += s.Rows
			count.Bytes += s.Bytes + s.SidecarBytes
		}
		if len(segments) < batch {
			return count, nil
		}
		query.After = &segments[len(segments)-1]
	}
}

// rewrite asks for the compaction of windows from which some rows are due, or to which a field rule is.
func (k *Keeper) rewrite(ctx context.Context, d due, edit *lake.Edit) error {
	asked := map[lake.Window]bool{}
	ask := func(rule string, before time.Time) error {
		found, err := k.deps.Index.StaleWindows(ctx, index.StaleQuery{
			Organization: d.organization, Signal: d.signal, Before: before, MissingRule: rule, Limit: windows,
		})
		for _, w := range found {
			// What goes as a whole is not worth being written once more.
			if !asked[w.Window] && w.Window.End().After(d.cutoff()) {
				asked[w.Window] = true
				edit.Next = append(edit.Next, Compaction(d.organization, d.signal, w.Window))
			}
		}
		return err
	}
	for _, rule := range d.plan.Partial {
		if err := ask(rule.Name, d.now.Add(-rule.Keep)); err != nil {
			return err
		}
	}
	for _, rule := range d.fields {
		if err := ask(rule.ID(), d.now.Add(-rule.After)); err != nil {
			return err
		}
	}
	return nil
}

// Compaction is the task of compacting a window of segments.
func Compaction(org lake.Organization, signal lake.Signal, w lake.Window) lake.Task {
	tier := 0
	if w.Length > time.Hour {
		tier = 1
	}
	return lake.Task{Kind: lake.TaskCompact, Organization: org, Signal: signal, Window: w, Tier: tier}
}

// Would says what runs would find due, and changes nothing.
func (k *Keeper) Would(ctx context.Context, org lake.Organization, signals []lake.Signal) ([]index.RetentionRun, error) {
	var out []index.RetentionRun
	for _, signal := range signals {
		for _, resolution := range resolutions(signal) {
			run, err := k.would(ctx, org, signal, resolution)
			if err != nil {
				return nil, err
			}
			if run.Due.Segments > 0 || run.WindowsToRewrite > 0 {
				out = append(out, run)
			}
		}
	}
	return out, nil
}

func (k *Keeper) would(ctx context.Context, org lake.Organization, signal lake.Signal, resolution time.Duration) (index.RetentionRun, error) {
	d, err := k.due(ctx, org, signal, resolution)
	if err != nil {
		return index.RetentionRun{}, err
	}
	var edit lake.Edit
	if err := k.rewrite(ctx, d, &edit); err != nil {
		return index.RetentionRun{}, err
	}
	count, err := k.count(ctx, d)
	return index.RetentionRun{
		Organization: org, Signal: signal, Resolution: resolution, Cutoff: d.cutoff(), Due: count, WindowsToRewrite: int64(len(edit.Next)),
	}, err
}

// Fields says how many segments, bytes and windows lack field rules that are due.
type Fields struct{ Segments, Bytes, Windows int64 }

// ApplyFields hands the windows that lack field rules to compaction; a dry run only counts them, up to 1,000 for each rule.
func (k *Keeper) ApplyFields(ctx context.Context, org lake.Organization, signals []lake.Signal, enqueue func([]lake.Task) error) (Fields, error) {
	var total Fields
	for _, signal := range signals {
		d, err := k.due(ctx, org, signal, 0)
		if err != nil {
			return total, err
		}
		tasks, err := k.lacking(ctx, d, &total)
		if err == nil && enqueue != nil {
			err = enqueue(tasks)
		}
		if err != nil {
			return total, fmt.Errorf("field rules of %s: %w", signal, err)
		}
	}
	return total, nil
}

func (k *Keeper) lacking(ctx context.Context, d due, total *Fields) ([]lake.Task, error) {
	var tasks []lake.Task
	asked := map[lake.Window]bool{}
	for _, rule := range d.fields {
		found, err := k.deps.Index.StaleWindows(ctx, index.StaleQuery{
			Organization: d.organization, Signal: d.signal, Before: d.now.Add(-rule.After), MissingRule: rule.ID(), Limit: windows,
		})
		if err != nil {
			return nil, err
		}
		for _, w := range found {
			if asked[w.Window] {
				continue
			}
			asked[w.Window] = true
			total.Segments, total.Bytes, total.Windows = total.Segments+w.Segments, total.Bytes+w.Bytes, total.Windows+1
			tasks = append(tasks, Compaction(d.organization, d.signal, w.Window))
		}
	}
	return tasks, nil
}
