// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
)

// maxBackoff is the longest that a task waits for its next attempt.
const maxBackoff = 5 * time.Minute

// accusation says why a lease, or one of its tasks, did not come to its end.
type accusation struct {
	cause string
	// counts: an attempt was spent.
	counts bool
	// guilty: it lies with the tasks, as far as we know.
	guilty bool
	// delays: the next attempt backs off.
	delays bool
}

// accuse reads a cause by its kind.
func accuse(cause error) accusation {
	if cause == nil {
		cause = errors.New("released without a cause")
	}
	text := clean(cause.Error())
	switch kind := kindOf(cause); {
	case kind == fault.Canceled || errors.Is(cause, context.Canceled):
		return accusation{cause: text}
	case kind == fault.Unavailable || kind == fault.Timeout || kind == fault.Conflict:
		return accusation{cause: text, counts: true, delays: true}
	}
	return accusation{cause: text, counts: true, guilty: true, delays: true}
}

// died is said of a lease that expired. There is no further delay: its duration was one.
func died(lease string) accusation {
	return accusation{cause: fmt.Sprintf("the worker of lease %s died", lease), counts: true, guilty: true}
}

// verdict is what becomes of a task that goes back.
type verdict struct {
	task     db.LockLeaseTasksRow
	suspects string
	attempts int32
	failures int32
	buried   bool
	cause    string
	delay    time.Duration
	anew     bool // it was done, and asked for anew meanwhile: it waits for as long as was asked for
}

func (v verdict) state() string {
	if v.buried {
		return "buried"
	}
	return "ready"
}

// judge gives the tasks of a lease back that failed as a whole: whoever is guilty is in one of its halves.
func (a accusation) judge(tasks []db.LockLeaseTasksRow, lease db.LockLeaseRow) []verdict {
	verdicts := make([]verdict, len(tasks))
	for i, t := range tasks {
		v := a.verdict(t)
		if a.guilty {
			v.suspects = fmt.Sprintf("%s/%d", lease.ID, 2*i/len(tasks))
		}
		if a.guilty && len(tasks) == 1 {
			v.convict(lease.MaxAttempts)
		}
		verdicts[i] = v
	}
	return verdicts
}

// judgeAlone gives one task back that its worker accused by itself.
func (a accusation) judgeAlone(t db.LockLeaseTasksRow, lease db.LockLeaseRow) verdict {
	v := a.verdict(t)
	if a.guilty {
		v.convict(lease.MaxAttempts)
	}
	return v
}

func (a accusation) verdict(t db.LockLeaseTasksRow) verdict {
	v := verdict{task: t, suspects: t.Suspects, attempts: t.Attempts, failures: t.Failures, cause: a.cause}
	if a.counts {
		v.attempts++
	}
	if a.delays {
		v.delay = backoff(v.attempts)
	}
	return v
}

// convict counts a failure against a task alone, and buries it when they are too many; one that was asked for anew meanwhile
// gets its attempts anew.
func (v *verdict) convict(maxAttempts int32) {
	v.failures++
	switch {
	case v.failures < maxAttempts:
	case v.task.Again:
		v.attempts, v.failures = 0, 0
	default:
		v.buried = true
	}
}

// backoff doubles with each attempt, from a second, and is spread a little so that those who failed together part.
func backoff(attempts int32) time.Duration {
	d := maxBackoff
	if attempts < 10 {
		d = min(maxBackoff, time.Second<<max(0, attempts-1))
	}
	return d - time.Duration(rand.Int64N(int64(d)/5))
}
