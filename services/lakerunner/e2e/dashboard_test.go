// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// onUse are metrics that a process exports only once that has happened which they count.
var onUse = []string{
	"lakerunner_ingest_rejected_rows_total", // a row was rejected
}

// TestMonitoring holds the dashboard and the alerts against what a lake exports that has ingested, answered and looked after itself.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{tune: hasty})
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 17, End: end, Length: time.Hour, Lines: 200, Objects: 2})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/", len(objects))
	l.lines("default", `{service_name=~".+"}`, end.Add(-time.Hour), end)

	_, here, _, _ := runtime.Caller(0) // the S3 server of the tests changes the working directory
	deploy := filepath.Join(filepath.Dir(here), "..", "..", "..", "deploy")
	named := slices.Concat(metricsIn(t, filepath.Join(deploy, "grafana", "dashboards", "lakerunner.json")),
		metricsIn(t, filepath.Join(deploy, "prometheus", "alerts.yaml")))
	// The janitor reads its status at most every half minute, and the first reading may have been before any organization had a segment.
	eventually(t, func() error {
		exported := l.exported()
		for _, metric := range named {
			if !slices.Contains(exported, metric) && !slices.Contains(onUse, metric) {
				return fmt.Errorf("%s is shown or alerted on, but nobody exports it", metric)
			}
		}
		return nil
	})
}

var metricName = regexp.MustCompile(`\b(lakerunner|process|worker)_[a-zA-Z0-9_]+`)

// metricsIn returns the metrics that a file names, each once.
func metricsIn(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	names := metricName.FindAllString(string(text), -1)
	if len(names) == 0 {
		t.Fatalf("%s names no metric", file)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// exported returns the names of the metrics that the lake exports.
func (l *lake) exported() []string {
	l.t.Helper()
	status, body := l.fetch("", "/metrics", nil)
	if status != http.StatusOK {
		l.t.Fatalf("metrics: %d", status)
	}
	var names []string
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "#") {
			names = append(names, line[:max(0, strings.IndexAny(line, "{ "))])
		}
	}
	return names
}
