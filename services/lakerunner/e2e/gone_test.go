// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// TestWhenSamplesAreGoneATierAnswersOrRefuses has retention remove samples and keep rollups of them: what these can answer is answered as samples would have, and
// all else is an error that says since when samples are kept. Nothing is answered emptier than it should be.
func TestWhenSamplesAreGoneATierAnswersOrRefuses(t *testing.T) {
	t.Parallel()
	const long, short = "keep: 9000h", "keep: 3h"
	l := newLake(t, lakeOptions{
		settings: "    rollups: [{resolution: 1m, after: 1h}]\n    retention: [{signal: metrics, resolution: raw, " + long + "}, {signal: metrics, keep: 9000h}]\n",
	})
	end := lately().Truncate(time.Hour).Add(-5 * time.Hour)
	start := end.Add(-time.Hour)
	series := hurried(metrictest.Series(9, start, end, false), start, 1)
	l.put("otel-raw/default/prometheus/metrics_0", remoteWrite(t, series))
	l.awaitDone("default", "otel-raw/", 1)
	if l.rollUp(t, "default", time.Minute, start, end) == 0 {
		t.Fatal("nothing was rolled up")
	}
	l.changeConfig(t, long, short)
	janitor := janitorv1.NewJanitorServiceClient(l.conn)
	eventually(t, func() error {
		request := &janitorv1.RunRetentionRequest{Organization: "default", Signal: lakev1.Signal_SIGNAL_METRICS}
		done, err := janitor.RunRetention(withKey(t.Context(), l.adminKey), request)
		if err != nil {
			return err
		}
		path, params := form(metrictest.Query{Text: "irate(weight[2m])", Start: end, End: end})
		if a := l.promAPI(t, "default", path, params); a.Status == "success" {
			return fmt.Errorf("samples are there: %s, %v", a.Data, done)
		}
		return nil
	})

	d := tierQueries{resolution: time.Minute, start: start, end: end}
	truth := prometheus(tsdb(t, series))
	var answered []metrictest.Query
	refused := d.mayNot()
	for _, q := range d.may() {
		if !oftenInexact(q) {
			answered = append(answered, q)
		} else if q.Step > 0 { // over all the time there are NaNs
			refused = append(refused, q)
		}
	}
	_, rolled := l.holds(t, "default", truth, answered)
	if rolled != len(answered) {
		t.Errorf("%d of %d queries were answered from rollups", rolled, len(answered))
	}
	for _, q := range refused {
		path, params := form(q)
		if a := l.promAPI(t, "default", path, params); a.Status != "error" || a.ErrorType != "execution" || !strings.Contains(a.Error, "samples are kept since") {
			t.Errorf("%s: %s %s %q", q, a.Status, a.ErrorType, a.Error)
		}
	}
}

// changeConfig replaces a text of the configuration, which the services read again.
func (l *lake) changeConfig(t *testing.T, from, to string) {
	t.Helper()
	before, err := os.ReadFile(l.configPath())
	if err != nil || !strings.Contains(string(before), from) {
		t.Fatalf("%q is not in the configuration: %v", from, err)
	}
	if err := os.WriteFile(l.configPath(), []byte(strings.Replace(string(before), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}
