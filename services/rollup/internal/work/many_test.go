// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"context"
	"fmt"
	"os"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/rollup/internal/work"
)

// watch samples the heap until the function that it returns is called, which tells the most there was.
func watch() (most func() uint64) {
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	highest := uint64(0)
	wait.Go(func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			metrics.Read(sample)
			highest = max(highest, sample[0].Value.Uint64())
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	})
	return func() uint64 {
		stop()
		wait.Wait()
		return highest
	}
}

// TestW4MemoryIsOneShards rolls up an hour of many series in eight shards: a million of them under LAKERUNNER_TORTURE=1.
func TestW4MemoryIsOneShards(t *testing.T) { //nolint:paralleltest // it measures the process's memory
	series, limit := 8_000, uint64(200<<20)
	if os.Getenv("LAKERUNNER_TORTURE") == "1" {
		series, limit = 1_000_000, 1<<30
	}
	f := newFixture(t, allTiers, func(c *work.Config) { c.Target = 1 })
	const batch = 125_000
	for from := 0; from < series; from += batch {
		var points []point
		for i := from; i < min(from+batch, series); i++ {
			name := fmt.Sprintf("up/pod-%d-of-a-deployment", i)
			points = append(points, point{series: name, at: f.hour(0).Start.Add(time.Second)}, point{series: name, at: f.hour(0).Start.Add(time.Minute + time.Duration(i)), value: 1})
		}
		f.put(object{points: points, shards: 8})
		f.truth = nil
	}
	most := watch()
	began := time.Now()
	report := f.roll(0, time.Minute)
	took, bytes := time.Since(began), most()
	t.Logf("%d series, %d points: %.1f s, at most %d MiB of heap", report.Account.Series, report.Account.In, took.Seconds(), bytes>>20)
	if report.Account.In != int64(2*series) || report.Account.Series != int64(series) || len(report.Added) != 8 || report.Added[7].Shard != (lake.Shard{Index: 7, Count: 8}) {
		t.Errorf("%+v", report.Account)
	}
	if bytes > limit {
		t.Errorf("it held %d MiB", bytes>>20)
	}
}
