// SPDX-License-Identifier: AGPL-3.0-only

package promplan_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

var rewrite = flag.Bool("rewrite", false, "write what the planner answers into testdata")

// start is when queries begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// tiers are all resolutions there are.
var tiers = []time.Duration{time.Hour, 20 * time.Minute, 5 * time.Minute, time.Minute, 10 * time.Second}

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

// checkFile reads blocks of a query, a line "----" and the plan, with an empty line after each. A first line that begins with # has options.
func checkFile(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(string(content)), "\n\n") {
		query, _, _ := strings.Cut(block, "\n----")
		got.WriteString(query + "\n----\n" + answer(t, query) + "\n")
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

func answer(t *testing.T, block string) string {
	t.Helper()
	start := time.Unix(1_799_999_640, 0) // a multiple of two minutes, not of five
	o := promplan.Options{Start: start, End: start.Add(time.Hour), Step: time.Minute}
	showTiers := false
	query := block
	if header, rest, ok := strings.Cut(block, "\n"); ok && strings.HasPrefix(header, "#") {
		query = rest
		for _, word := range strings.Fields(header[1:]) {
			name, value, _ := strings.Cut(word, "=")
			length, _ := time.ParseDuration(value)
			switch name {
			case "instant":
				o.Step = 0
			case "step":
				o.Step = length
			case "start":
				o.Start = start.Truncate(time.Hour).Add(length)
				o.End = o.Start.Add(6 * time.Hour)
			case "simple":
				o.Simple = true
			case "delayed":
				o.DelayedNames = true
			case "starts":
				o.StartTimestamps = true
			case "tiers":
				showTiers = true
			default:
				t.Fatalf("option %s", word)
			}
		}
	}
	q, err := promplan.Parse(query, o)
	if err != nil {
		return "error: " + strings.TrimSpace(err.Error()) + "\n"
	}
	if !showTiers {
		return q.String()
	}
	var out strings.Builder
	for _, leaf := range q.Leaves {
		fmt.Fprintf(&out, "%s\n", leaf.Expr)
		for _, tier := range tiers {
			ok, bound, reason := leaf.Answers(tier)
			switch {
			case ok && bound > 0:
				reason = fmt.Sprintf("within %.2g", bound)
			case ok:
				reason = "exact"
			}
			fmt.Fprintf(&out, "  %s: %s\n", tier, reason)
		}
	}
	return out.String()
}

func TestRemarksStandWhereTheyDoInTheQuery(t *testing.T) {
	t.Parallel()
	for query, part := range map[string]string{
		`1 + sum(rate(up[5m]))`:                 `up[5m]`,
		`1 + sum(rate(up[5m] @ 60))`:            `up[5m] @ 60`,
		`1 + sum(rate(up{job = "a"}[5m] @ 60))`: `up{job = "a"}[5m] @ 60`,
		`avg(rate(up[5m]))`:                     `rate(up[5m])`,
	} {
		q, err := promplan.Parse(query, promplan.Options{Start: start, End: start.Add(time.Hour), Step: time.Minute})
		if err != nil || len(q.Leaves) != 1 {
			t.Fatalf("%s: %d leaves, %v", query, len(q.Leaves), err)
		}
		leaf := q.Leaves[0]
		for _, text := range append([]string{leaf.Whole}, leaf.Parts...) {
			from, to := strings.Index(text, "up"), strings.LastIndex(text, "]")+1
			if strings.HasPrefix(part, "rate") {
				from, to = from-len("rate("), to+1
			} else if at := strings.Index(text, "@"); at >= 0 {
				to = strings.Index(text, "))")
			}
			if gotFrom, gotTo := leaf.Remarked(text, from, to); query[gotFrom:gotTo] != part {
				t.Errorf("%s of %s: %q, want %q", text[from:to], query, query[gotFrom:gotTo], part)
			}
		}
	}
}

func TestWhatOnlyTheEngineSaysIsLeftToIt(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		`deriv(up[5m] smoothed)`, `max_over_time((up[5m] anchored))`, `histogram_count(sum(took))`, `histogram_avg(took + took)`, `histogram_sum(avg(last_over_time(took[5m])))`,
	} {
		q, err := promplan.Parse(query, promplan.Options{Start: start, End: start})
		if err != nil || len(q.Leaves) != 0 || len(q.Samples) == 0 {
			t.Errorf("%s: %d leaves, %d selectors, %v", query, len(q.Leaves), len(q.Samples), err)
		}
	}
	if q, err := promplan.Parse(`histogram_count(sum(rate(took[5m])))`, promplan.Options{Start: start, End: start}); err != nil || len(q.Leaves) != 1 {
		t.Errorf("rates have no resets: %v, %v", q, err)
	}
}
