// SPDX-License-Identifier: AGPL-3.0-only

// Package duty runs what the janitor does again and again: a duty is a task of an organization (and signal) that asks for itself anew
// whenever it is done.
//
// Invariants:
//
//	D1. Every duty of every organization runs again within its interval and a minute, whatever process is killed: who is running asks each
//	    minute for all of them, and asking for what waits changes nothing.
//	D2. One duty of one organization and signal is done by one process at a time (it is a lease), and doing it twice is doing it once.
//	D3. What a duty asked of object stores is in its edit's cost.
//
// It does not know what the duties are.
package duty

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/stage"
)

// Duty is one kind of recurring work.
type Duty struct {
	Kind lake.TaskKind
	// Interval is how long after the end of one run the next begins. A run whose edit asks for the duty itself says otherwise.
	Interval time.Duration
	// PerSignal says that each signal has a task of its own.
	PerSignal bool
	// Alone says that one task is enough, whatever organizations there are.
	Alone bool
	Work  stage.Work
}

// Index is what duties need of the index.
type Index interface {
	stage.Claims
	Enqueue(ctx context.Context, tasks []lake.Task) error
}

// Organizations returns those that have duties.
type Organizations func(ctx context.Context) ([]lake.Organization, error)

// Options say how duties are run.
type Options struct {
	Index         Index
	Organizations Organizations
	Log           *slog.Logger
	Meter         metric.Meter
	// Workers is how many organizations each duty is done for at once. Zero: 2.
	Workers int
	// Lease is how long a lease lives without being renewed. Zero: 1 minute.
	Lease time.Duration
	// Every is how often all duties are asked for. Zero: 1 minute.
	Every time.Duration
	// Drain is how long a run under way may take after the process was told to stop. Zero: the stage's default.
	Drain time.Duration
}

// maxAttempts is high since duties fail for what passes; a buried one is asked for again anyway.
const maxAttempts = 50

// signals are those that segments can have.
var signals = []lake.Signal{lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans}

// Runner runs duties.
type Runner struct {
	options Options
	duties  []Duty
}

// New returns a runner.
func New(o Options, duties ...Duty) *Runner {
	o.Workers = cmp.Or(o.Workers, 2)
	o.Lease = cmp.Or(o.Lease, time.Minute)
	o.Every = cmp.Or(o.Every, time.Minute)
	return &Runner{options: o, duties: duties}
}

// Run runs all duties until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	var running sync.WaitGroup
	errs := make(chan error, len(r.duties))
	for _, d := range r.duties {
		running.Go(func() { errs <- stage.Run(ctx, r.options.Index, r.stageOf(d), Costed(d.again())) })
	}
	r.keepAsking(ctx)
	running.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Runner) stageOf(d Duty) stage.Options {
	return stage.Options{
		Batch:   index.Batch{Kind: d.Kind, MaxTasks: 1, Duration: r.options.Lease, MaxAttempts: maxAttempts},
		Workers: r.options.Workers, Drain: r.options.Drain, Log: r.options.Log, Meter: r.options.Meter,
	}
}

func (r *Runner) keepAsking(ctx context.Context) {
	ticker := time.NewTicker(r.options.Every)
	defer ticker.Stop()
	for {
		if err := r.Ask(ctx); err != nil && ctx.Err() == nil {
			r.options.Log.WarnContext(ctx, "duties could not be asked for", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// askAtOnce bounds one call of Enqueue.
const askAtOnce = 500

// Ask asks for every duty of every organization, each to be done an interval from now; those that wait keep their time.
func (r *Runner) Ask(ctx context.Context) error {
	organizations, err := r.options.Organizations(ctx)
	if err != nil {
		return err
	}
	tasks := r.tasks(organizations)
	for len(tasks) > 0 {
		n := min(len(tasks), askAtOnce)
		if err := r.options.Index.Enqueue(ctx, tasks[:n]); err != nil {
			return err
		}
		tasks = tasks[n:]
	}
	return nil
}

func (r *Runner) tasks(organizations []lake.Organization) []lake.Task {
	var tasks []lake.Task
	for _, d := range r.duties {
		for i, organization := range organizations {
			if d.Alone && i > 0 {
				break
			}
			tasks = append(tasks, d.tasks(organization)...)
		}
	}
	return tasks
}

func (d Duty) tasks(organization lake.Organization) []lake.Task {
	of := []lake.Signal{lake.SignalUnknown}
	if d.PerSignal {
		of = signals
	}
	tasks := make([]lake.Task, 0, len(of))
	for _, signal := range of {
		tasks = append(tasks, lake.Task{Kind: d.Kind, Organization: organization, Signal: signal, Delay: d.Interval})
	}
	return tasks
}

// again adds to the edit of each run that the duty is asked for anew, unless the run asked for it.
func (d Duty) again() stage.Work {
	return func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		edit, err := d.Work(ctx, lease)
		if err != nil {
			return edit, err
		}
		for _, task := range lease.Tasks {
			if !asks(edit, task) {
				edit.Next = append(edit.Next, lake.Task{Kind: d.Kind, Organization: task.Organization, Signal: task.Signal, Delay: d.Interval})
			}
		}
		return edit, nil
	}
}

// asks reports whether the edit brings the task back by itself.
func asks(edit lake.Edit, task lake.Task) bool {
	for _, retry := range edit.Retry {
		if retry.Task == task.ID {
			return true
		}
	}
	for _, next := range edit.Next {
		if next.Kind == task.Kind && next.Organization == task.Organization && next.Signal == task.Signal {
			return true
		}
	}
	return false
}

// Costed puts what work asked of object stores into the cost of its edit.
func Costed(work stage.Work) stage.Work {
	return func(ctx context.Context, lease *lake.Lease) (lake.Edit, error) {
		ctx, tally := objects.WithTally(ctx)
		edit, err := work(ctx, lease)
		edit.Cost.Puts += tally.Count(objects.RequestPut)
		edit.Cost.Gets += tally.Count(objects.RequestGet) + tally.Count(objects.RequestHead)
		edit.Cost.Lists += tally.Count(objects.RequestList)
		edit.Cost.Deletes += tally.Count(objects.RequestDelete)
		return edit, err
	}
}

// Now does one task at once, whatever it waits for. It is fault.Unavailable while another does it.
func Now(ctx context.Context, x Index, task lake.Task, o stage.Options, work stage.Work) error {
	if err := x.Enqueue(ctx, []lake.Task{task}); err != nil {
		return err
	}
	o.Batch = index.Batch{Kind: task.Kind, MaxTasks: 1, MaxAttempts: maxAttempts, Duration: time.Minute, Work: &task}
	done, err := stage.One(ctx, x, o, Costed(work))
	if err == nil && !done {
		return fault.New(fault.Unavailable, "another process does that now; ask again")
	}
	return err
}
