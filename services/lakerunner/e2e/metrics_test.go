// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// TestEveryMetricAnswerIsPrometheus asks generated queries of the running system, and of Prometheus' engine over its own storage: as ingested, after
// compaction, with rollups, and after a late object.
func TestEveryMetricAnswerIsPrometheus(t *testing.T) {
	t.Parallel()
	const seed, objects = 1, 6
	queries := 60
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		queries = 2000
	}
	l := newLake(t, lakeOptions{settings: "    rollups: [{resolution: 1m, after: 20h}]\n"})
	start := lately().Add(-2 * time.Hour)
	end := start.Add(90 * time.Minute)
	series := metrictest.Series(seed, start, end, false)
	parts := parted(seed, series, start, end, objects)
	for i, part := range parts[1:] {
		l.put(fmt.Sprintf("metrics-raw/default/prometheus/%d", i), remoteWrite(t, part))
	}
	l.awaitDone("default", "metrics-raw/", objects-1)

	var early []prom.Series
	for _, part := range parts[1:] {
		early = append(early, part...)
	}
	before, after := prometheus(tsdb(t, prom.Sorted(early))), prometheus(tsdb(t, series))
	ask := func(truth evaluator, seed uint64) func(t *testing.T) {
		return func(t *testing.T) {
			answered, rolled := l.holds(t, "default", truth, metrictest.Queries(seed, queries, start, end, false))
			t.Logf("%d of %d queries have an answer, %d of rollups", answered, queries, rolled)
			if answered < queries/2 {
				t.Errorf("only %d of %d queries have an answer", answered, queries)
			}
		}
	}

	t.Run("as ingested", ask(before, seed))
	if made := l.compactMetrics(t, "default", start, end); made == 0 {
		t.Error("nothing was compacted")
	}
	t.Run("compacted", ask(before, seed+1))
	if counted := l.rollUp(t, "default", time.Minute, start, end); counted == 0 {
		t.Error("nothing was rolled up")
	}
	t.Run("with rollups", ask(before, seed+2))
	l.put("metrics-raw/default/prometheus/late", remoteWrite(t, parts[0]))
	l.awaitDone("default", "metrics-raw/", objects)
	t.Run("after a late object", ask(after, seed+3))
	l.rollUp(t, "default", time.Minute, start, end)
	t.Run("rolled up again", ask(after, seed+2))
}
