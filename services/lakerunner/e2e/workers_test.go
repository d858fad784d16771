// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// TestAWorkerDiesMidQuery kills one of two workers while it answers: the answer is complete all the same.
func TestAWorkerDiesMidQuery(t *testing.T) {
	t.Parallel()
	end := lately()
	start := end.Add(-6 * time.Hour)
	objects := makeSample(t, sample.Options{Seed: 21, End: end, Length: 6 * time.Hour, Lines: 9000, Objects: 12})

	for name, arm := range map[string]func(*proxy, func()){
		"when it has heard the question": func(p *proxy, f func()) { p.onRequest.Store(&f) },
		"when it begins to answer":       func(p *proxy, f func()) { p.onResponse.Store(&f) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLake(t, lakeOptions{roles: stack.Roles{Notifier: true, Ingestor: true}})
			first, second := l.startChild(roleWorker, childOptions{}), l.startChild(roleWorker, childOptions{})
			doomed, other := startProxy(t, first.ready()), startProxy(t, second.ready())
			for _, o := range objects {
				l.put(o.Key, o.Body)
			}
			l.awaitReceipts("default", "otel-raw/", len(objects))
			asked := l.frontend(t, doomed.address(), other.address())

			want := hashOfSample(objects...)
			if got := hashOf(asked.lines("default", everything, start, end)); got != want {
				t.Fatalf("with two workers: got %+v, want %+v", got, want)
			}
			arm(doomed, first.kill)
			if got := hashOf(asked.lines("default", everything, start, end)); got != want {
				t.Errorf("with a dying worker: got %+v, want %+v", got, want)
			}
			select {
			case <-first.exited:
			default:
				t.Error("the worker was not asked, so it did not die")
			}
			if got := asked.count("default", "sum(count_over_time("+everything+"[7h]))", end); got != int64(want.rows) {
				t.Errorf("with one worker left: counted %d, want %d", got, want.rows)
			}
		})
	}
}

// frontend starts a frontend of its own over the lake, with these workers.
func (l *lake) frontend(t testing.TB, workers ...string) *lake {
	t.Helper()
	f := *l
	f.t, f.work = t, t.TempDir()
	f.start(lakeOptions{roles: stack.Roles{Frontend: true}, workers: workers, deaf: true})
	return &f
}
