// SPDX-License-Identifier: AGPL-3.0-only

package indexbench_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/index/indexbench"
)

// TestRun measures a small index: the figures mean nothing, but each is there.
func TestRun(t *testing.T) {
	t.Parallel()
	var printed bytes.Buffer
	report, err := indexbench.Run(t.Context(), indexbench.Options{
		Segments: 2_000, Organizations: 120, Days: 40, Pending: 1_000, Rounds: 10, Dir: t.TempDir(), Out: &printed,
	})
	if err != nil {
		t.Fatal(err)
	}
	if report.TableBytes == 0 || report.IndexBytes == 0 || report.RetentionSegments == 0 {
		t.Errorf("nothing was loaded or removed: %+v", report)
	}
	for _, name := range []string{
		"Lookup of 1 h", "Lookup of 7 days", "Window", "Commit of 1000 new", "Commit of 1000 compacted", "Claim of up to 500", "Claim with 120", "Wait of another",
		"Commit that removes", "CompactionDebt", "WindowsWithDebt",
	} {
		if !strings.Contains(printed.String(), "| "+name) {
			t.Errorf("no figure of %q in:\n%s", name, printed.String())
		}
	}
	for _, timing := range report.Timings {
		if timing.Calls == 0 || timing.P50 <= 0 || timing.P99 < timing.P50 || timing.Max < timing.P99 {
			t.Errorf("%+v", timing)
		}
	}
}
