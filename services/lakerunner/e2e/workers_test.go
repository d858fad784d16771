// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// TestAWorkerDiesMidQuery kills one of two workers while it answers, the first that is asked: which segment is whose depends on random names, and one
// worker may have none. The answer is complete all the same.
func TestAWorkerDiesMidQuery(t *testing.T) {
	t.Parallel()
	end := lately()
	start := end.Add(-6 * time.Hour)
	objects := makeSample(t, sample.Options{Seed: 21, End: end, Length: 6 * time.Hour, Lines: 9000, Objects: 12})

	for name, arm := range map[string]func(*proxy, func() bool){
		"when it has heard the question": func(p *proxy, f func() bool) { p.onRequest.Store(&f) },
		"when it begins to answer":       func(p *proxy, f func() bool) { p.onResponse.Store(&f) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLake(t, lakeOptions{roles: stack.Roles{Notifier: true, Ingestor: true}})
			workers := []*child{l.startChild(roleWorker, childOptions{}), l.startChild(roleWorker, childOptions{})}
			proxies := []*proxy{startProxy(t, workers[0].ready()), startProxy(t, workers[1].ready())}
			for _, o := range objects {
				l.put(o.Key, o.Body)
			}
			l.awaitReceipts("default", "otel-raw/", len(objects))
			asked := l.frontend(t, proxies[0].address(), proxies[1].address())

			want := hashOfSample(objects...)
			if got := hashOf(asked.lines("default", everything, start, end)); got != want {
				t.Fatalf("with two workers: got %+v, want %+v", got, want)
			}
			var died atomic.Bool
			for i, worker := range workers {
				arm(proxies[i], func() bool {
					if !died.CompareAndSwap(false, true) {
						return false
					}
					worker.kill()
					return true
				})
			}
			if got := hashOf(asked.lines("default", everything, start, end)); got != want {
				t.Errorf("with a dying worker: got %+v, want %+v", got, want)
			}
			if !died.Load() {
				t.Error("no worker was asked, so none died")
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
