// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	rollupv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/rollup/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// counting is a stretch of lines that have rollups.
type counting struct {
	*lake
	start, end time.Time
}

// rollUpLines makes the rollups of all hours, and returns how many lines they count.
func (c *counting) rollUpLines() (counted int64) {
	c.t.Helper()
	for hour := c.start.Truncate(time.Hour); hour.Before(c.end); hour = hour.Add(time.Hour) {
		eventually(c.t, func() error {
			done, err := rollupv1.NewRollupServiceClient(c.conn).RollupWindow(withKey(c.t.Context(), c.adminKey), &rollupv1.RollupWindowRequest{
				Organization: "default", Signal: lakev1.Signal_SIGNAL_LOGS, Start: timestamppb.New(hour), ResolutionSeconds: 60,
			})
			counted += done.GetAccount().GetCounted()
			return err
		})
	}
	return counted
}

func (c *counting) compactLines() (made int) {
	c.t.Helper()
	for hour := c.start.Truncate(time.Hour); hour.Before(c.end); hour = hour.Add(time.Hour) {
		eventually(c.t, func() error {
			done, err := compactorv1.NewCompactorServiceClient(c.conn).CompactWindow(withKey(c.t.Context(), c.adminKey), &compactorv1.CompactWindowRequest{
				Organization: "default", Signal: lakev1.Signal_SIGNAL_LOGS, Start: timestamppb.New(hour),
			})
			made += len(done.GetSegmentKeys())
			return err
		})
	}
	return made
}

// hold asks queries, which each have a %s where a filter that lets all lines through makes them read rows, and expects the same answers either way.
// It returns how many of the answers are of rollups, and how many rows of segments were looked at for these.
func (c *counting) hold(what string) (rolled int, rows int64) {
	c.t.Helper()
	for _, text := range []string{
		`sum by (service_name) (count_over_time({service_name=~".+"}%s[10m]))`,
		`sum by (detected_level) (count_over_time({service_name=~".+"}%s | drop __error__[20m]))`,
		`sum by (service_name, detected_level) (rate({service_name=~".+", service_name!="cart"}%s[1h] offset 5m))`,
		`sum(bytes_over_time({service_name="checkout"}%s | detected_level=~"info|error"[10m]))`,
		`sum(count_over_time({service_name=~".+"}%s[3h]))`,
	} {
		request := &queryv1.QuerySamplesRequest{Start: timestamppb.New(c.start), End: timestamppb.New(c.end), Step: durationpb.New(10 * time.Minute)}
		ask := func(filter string) *queryv1.QuerySamplesResponse {
			request.Query = fmt.Sprintf(text, filter)
			got, err := c.query.QuerySamples(c.as("default"), request)
			if err != nil {
				c.t.Fatalf("%s: %s: %v", what, request.GetQuery(), err)
			}
			return got
		}
		want, got := ask(` |= ""`), ask("")
		if want.GetStatistics().GetResolution() != nil || len(want.GetSeries()) == 0 {
			c.t.Fatalf("%s: %d series of rows, resolution %s", text, len(want.GetSeries()), want.GetStatistics().GetResolution())
		}
		if diff := cmp.Diff(want.GetSeries(), got.GetSeries(), protocmp.Transform()); diff != "" {
			c.t.Fatalf("%s: %s (-rows +rollups):\n%.3000s", what, text, diff)
		}
		if got.GetStatistics().GetResolution() != nil {
			rolled++
		}
		rows += got.GetStatistics().GetRowsScanned()
	}
	return rolled, rows
}

// TestLinesAreCountedByRollups holds counts of rollups to those of rows, through compaction, late objects and deletes.
func TestLinesAreCountedByRollups(t *testing.T) {
	t.Parallel()
	end := lately()
	c := &counting{start: end.Add(-3 * time.Hour), end: end, lake: newLake(t, lakeOptions{
		settings: "    limits: {query_timeout: 5s}\n    rollups: [{signal: logs, resolution: 1m, after: 20h}]\n",
		tune:     func(s *stack.ServiceSettings) { hasty(s); s.Rollup.Settle = time.Millisecond },
	})}
	objects := makeSample(t, sample.Options{Seed: 31, End: end, Length: 3 * time.Hour, Lines: 3000, Objects: 6})
	for _, o := range objects {
		c.put(o.Key, o.Body)
	}
	c.awaitReceipts("default", "otel-raw/", len(objects))
	if rolled, _ := c.hold("without rollups"); rolled != 0 {
		t.Errorf("%d answers are of rollups that are not there", rolled)
	}
	if counted := c.rollUpLines(); counted != int64(sample.Rows(objects)) {
		t.Errorf("rollups count %d lines of %d", counted, sample.Rows(objects))
	}
	rolled, rows := c.hold("with rollups")
	if rolled != 5 {
		t.Errorf("%d answers are of rollups", rolled)
	}
	t.Logf("%d rows and buckets read with rollups", rows)
	c.compactLines()
	if rolled, _ := c.hold("after compaction"); rolled != 5 {
		t.Errorf("%d answers are of rollups: compaction changes no row", rolled)
	}

	later := makeSample(t, sample.Options{Seed: 32, Collector: "later", End: end.Add(-time.Hour), Length: 10 * time.Minute, Lines: 300, Objects: 1})[0]
	c.put(later.Key, later.Body)
	c.awaitReceipts("default", "otel-raw/", len(objects)+1)
	if rolled, _ := c.hold("with a late object"); rolled < 3 {
		t.Errorf("%d answers are of rollups: the other hours have not changed", rolled)
	}
	c.rollUpLines()
	if rolled, _ := c.hold("rolled up again"); rolled != 5 {
		t.Errorf("%d answers are of rollups", rolled)
	}

	arguments := []string{"delete", "create", `{service_name="checkout"} |= "` + deletedLine + `"`, "--organization", "default", "--sources", "leave", "--reason", "a test"}
	if code, stdout, stderr := c.command(t.Context(), c.adminKey, "y\n", arguments...); code != 0 || !strings.Contains(stdout, "delete 1 is made") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	c.hold("with a delete")
	eventually(t, func() error {
		c.compactLines()
		c.rollUpLines()
		if rolled, _ := c.hold("after the delete"); rolled < 5 {
			return fmt.Errorf("%d answers are of rollups", rolled)
		}
		return nil
	})
}
