// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestAnInterruptedQueryLeavesNothingRunning presses Ctrl-C while DuckDB works on a query of many seconds: the command ends, and
// within a second no worker scans any more. It shares the machine with no other test, for the sake of that second.
//
//nolint:paralleltest // see above
func TestAnInterruptedQueryLeavesNothingRunning(t *testing.T) {
	l := newLake(t, lakeOptions{})
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 61, End: end, Lines: 60_000, Objects: 6})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/", len(objects))
	var query strings.Builder
	query.WriteString(everything)
	for i := range 400 { // each is true of every line, and costs a search of it
		fmt.Fprintf(&query, " |~ `[a-z].*([a-z0-9 ]+|x{%d})`", i%50+1)
	}

	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	go func() {
		code, _, _ := l.command(ctx, l.keys["default"], "", "query", "sum(count_over_time("+query.String()+"[1h]))", "--to", end.Format(time.RFC3339))
		ended <- code
	}()
	eventually(t, func() error {
		select {
		case code := <-ended:
			t.Fatalf("the query ended by itself, with exit code %d", code)
		default:
		}
		if l.running() == 0 {
			return errors.New("no scan runs")
		}
		return nil
	})
	interrupted := time.Now()
	interrupt()
	if code := <-ended; code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	eventually(t, func() error {
		if n := l.running(); n > 0 {
			return fmt.Errorf("%d scans run", n)
		}
		return nil
	})
	if took := time.Since(interrupted); took > time.Second {
		t.Errorf("the scans ended %s after the interrupt", took)
	}
}

// running counts the scans under way, by the worker's own gauge.
func (l *lake) running() (n int) {
	l.t.Helper()
	status, body := l.fetch("", "/metrics", nil)
	if status != http.StatusOK {
		l.t.Fatalf("metrics: %d", status)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "worker_scans_running") || strings.HasPrefix(line, "lakerunner_worker_scans_running") {
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n); err != nil {
				l.t.Fatal(err)
			}
			return n
		}
	}
	l.t.Fatal("no gauge of running scans among the metrics")
	return 0
}
