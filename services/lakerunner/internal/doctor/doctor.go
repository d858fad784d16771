// SPDX-License-Identifier: AGPL-3.0-only

// Package doctor looks for what keeps a LakeRunner from working, and says what to do about it.
//
// Every check stands for itself: one that fails does not stop the next, unless there is nothing left to ask. What a check writes
// it takes away again. Nothing that exists is changed.
package doctor

import (
	"context"
	"fmt"
	"io"
	"time"
)

// State is how a check ended.
type State string

// The states of a check.
const (
	Good    State = "ok"
	Warning State = "warning"
	Bad     State = "failed"
	Skipped State = "skipped"
)

// Result is what a check found.
type Result struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

// report collects results and shows them as they come.
type report struct {
	show    func(Result)
	results []Result
}

func (r *report) add(check string, state State, remedy, format string, args ...any) {
	result := Result{Check: check, State: state, Found: fmt.Sprintf(format, args...), Remedy: remedy}
	r.results = append(r.results, result)
	r.show(result)
}

// timed runs a step and returns how long it took.
func timed(step func() error) (time.Duration, error) {
	started := time.Now()
	err := step()
	return time.Since(started), err
}

// Print shows a result as text.
func Print(out io.Writer, r Result) {
	fmt.Fprintf(out, "%-8s %-22s %s\n", r.State, r.Check, r.Found)
	if r.Remedy != "" && r.State != Good {
		fmt.Fprintf(out, "%-8s %-22s -> %s\n", "", "", r.Remedy)
	}
}

// bounded gives one check a deadline.
func bounded(ctx context.Context, limit time.Duration, check func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	check(ctx)
}
