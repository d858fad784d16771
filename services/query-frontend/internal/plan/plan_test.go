// SPDX-License-Identifier: AGPL-3.0-only

package plan_test

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/loki/v3/pkg/logql/syntax"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/plan"
)

var rewrite = flag.Bool("rewrite", false, "write what the planner answers into testdata")

func TestPlans(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata: %v, %d files", err, len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			checkFile(t, file)
		})
	}
}

// checkFile reads blocks of a query, a line "----" and the plan, with an empty line after each.
func checkFile(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(content)), "\n\n") {
		query, _, _ := strings.Cut(block, "\n----")
		got.WriteString(query + "\n----\n" + answer(query) + "\n")
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(content), got.String()); diff != "" {
		t.Errorf("plans differ (-want +got), run with -rewrite to accept:\n%s", diff)
	}
}

func answer(query string) string {
	q, err := plan.Parse(query)
	if err != nil {
		return "error: " + strings.TrimSpace(err.Error()) + "\n"
	}
	return q.String()
}

func TestPushedTextParsesBackToWhatWasMeant(t *testing.T) {
	t.Parallel()
	q, err := plan.Parse(`sum(count_over_time({a="b"} | json | size > 1234567B or size = 3B [5m]))`)
	if err != nil {
		t.Fatal(err)
	}
	want := `sum(count_over_time({a="b"} | json | ( size>1234567B or size==3B )[5m]))`
	if diff := cmp.Diff(want, q.Leaves[0].Push); diff != "" {
		t.Error(diff)
	}
	if _, err := syntax.ParseSampleExpr(q.Leaves[0].Push); err != nil {
		t.Error(err)
	}
}

func TestSpanCoversEveryLeaf(t *testing.T) {
	t.Parallel()
	q, err := plan.Parse(`rate({a="b"}[5m]) / rate({a="b"}[1m] offset 1h)`)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(100_000, 0)
	from, to := q.Span(start, start.Add(time.Hour))
	if want := start.Add(-time.Hour - time.Minute); !from.Equal(want) {
		t.Errorf("from %v, want %v", from, want)
	}
	if want := start.Add(time.Hour + 1); !to.Equal(want) {
		t.Errorf("to %v, want %v", to, want)
	}
}

func TestMergeTreatsNaNAsLokiDoes(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for name, got := range map[string]float64{
		"max of NaN and 1": plan.MergeMax.Of(nan, 1),
		"max of 1 and NaN": plan.MergeMax.Of(1, nan),
		"min of NaN and 1": plan.MergeMin.Of(nan, 1),
		"min of 1 and NaN": plan.MergeMin.Of(1, nan),
		"min of 1 and 2":   plan.MergeMin.Of(2, 1),
		"max of 0 and 1":   plan.MergeMax.Of(0, 1),
		"sum of 1 and 0":   plan.MergeSum.Of(1, 0),
	} {
		if got != 1 {
			t.Errorf("%s = %v, want 1", name, got)
		}
	}
}
