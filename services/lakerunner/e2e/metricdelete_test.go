// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

const podLabel = "k8s_pod_name"

// TestDeleteOfMetrics takes points of one pod out of raw samples and rollups, and holds all answers against an engine that never had them.
func TestDeleteOfMetrics(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{
		settings: "    limits: {query_timeout: 5s}\n    rollups: [{resolution: 10s, after: 20h}, {resolution: 1m, after: 20h}]\n",
		tune: func(s *stack.ServiceSettings) {
			hasty(s)
			s.Rollup.Settle = time.Millisecond
		},
	})
	end := lately().Add(20 * time.Minute)
	s := newShopMetrics(t, l, "default", 17, end)
	s.put(s.objects, len(s.objects))
	if l.compactMetrics(t, "default", s.start, end) == 0 {
		t.Error("nothing was compacted")
	}
	l.rollUp(t, "default", 10*time.Second, s.start, end)
	l.rollUp(t, "default", time.Minute, s.start, end)

	pod := podOfShop(t, s, "cart")
	from, to := s.start.Add(30*time.Minute), s.start.Add(50*time.Minute) // over the turn of an hour
	left, deleted := s.withoutPod(pod, from, to)
	texts := append([]string{
		fmt.Sprintf(`count_over_time({__name__=~".+",%s=%q}[1m])`, podLabel, pod),
		fmt.Sprintf(`sum_over_time(process_memory_usage_bytes{%s=%q}[5m])`, podLabel, pod),
	}, dashboard()...)
	truth := cumulative(t, left)
	hold := func(what string) (rolled int) {
		t.Helper()
		_, rolled = l.holds(t, "default", truth, s.asked(texts...))
		_, more := l.holds(t, "default", deltas(left), s.asked(businesses()...))
		if t.Failed() {
			t.Fatal(what)
		}
		return rolled + more
	}

	arguments := []string{
		"delete", "create", "--signal", "metrics", fmt.Sprintf("{%s=%q}", podLabel, pod), "--organization", "default", "--from", from.Format(time.RFC3339),
		"--to", to.Format(time.RFC3339), "--reason", "a test", "--sources",
	}
	if code, _, stderr := l.command(t.Context(), l.adminKey, "", append(arguments, "redact", "--dry-run")...); code == 0 || !strings.Contains(stderr, "cannot be redacted") {
		t.Errorf("to redact: exit code %d: %s", code, stderr)
	}
	code, planned, stderr := l.command(t.Context(), l.adminKey, "", append(arguments, "erase", "--dry-run")...)
	if code != 0 || !strings.Contains(planned, " series;") {
		t.Errorf("dry run: exit code %d: %s%s", code, planned, stderr)
	}
	if code, stdout, stderr := l.command(t.Context(), l.adminKey, "y\n", append(arguments, "erase")...); code != 0 || !strings.Contains(stdout, "delete 1 is made") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	hold("at once")

	admin := withKey(t.Context(), l.adminKey)
	certificate := l.awaitCertificate(admin, janitorv1.NewJanitorServiceClient(l.conn), "1")
	if rolled := hold("at the end"); rolled < 3 {
		t.Errorf("only %d answers are of rollups made anew", rolled)
	}
	var points int64
	for _, o := range certificate.GetObjects() {
		points += o.GetRows()
		if o.GetAction() != "erased" {
			t.Errorf("%s was %q", o.GetObject().GetKey(), o.GetAction())
		}
		l.wantGone(o.GetObject().GetKey())
	}
	if points != deleted || deleted == 0 {
		t.Errorf("the certificate has %d points, want %d", points, deleted)
	}
	for _, g := range certificate.GetSegments() {
		l.wantGone(g.GetKey())
	}
	if len(certificate.GetSegments()) < 6 { // of two hours: raw, and both tiers
		t.Errorf("the certificate has segments %v", certificate.GetSegments())
	}
	if code, stdout, _ := l.command(t.Context(), l.adminKey, "", "rollup", "status", "--organization", "default"); code != 0 || !strings.Contains(stdout, "LAG") || !strings.Contains(stdout, "10s") {
		t.Errorf("rollup status: exit code %d: %s", code, stdout)
	}
	for _, args := range [][]string{{"audit", "verify"}, {"delete", "certificate", "1"}} {
		if code, stdout, stderr := l.command(t.Context(), l.adminKey, "", args...); code != 0 || stdout == "" {
			t.Errorf("%v: exit code %d: %s%s", args, code, stdout, stderr)
		}
	}
}

// podOfShop is one of a service.
func podOfShop(t testing.TB, s *shop, service string) string {
	t.Helper()
	for _, one := range s.series {
		if pod := one.Labels.Get(podLabel); pod != "" && one.Labels.Get("service_name") == service {
			return pod
		}
	}
	t.Fatalf("the shop has no pod of %s", service)
	return ""
}

// withoutPod are the series without the samples of a pod in [from, to), and how many points these are.
func (s *shop) withoutPod(pod string, from, to time.Time) (left []sample.Series, points int64) {
	gone := func(p sample.Sample) bool { return p.Time >= from.UnixMilli() && p.Time < to.UnixMilli() }
	var deleted []sample.Series
	for _, one := range s.series {
		if one.Labels.Get(podLabel) != pod {
			left = append(left, one)
			continue
		}
		out := one
		out.Samples = slices.DeleteFunc(slices.Clone(one.Samples), func(p sample.Sample) bool { return !gone(p) })
		deleted = append(deleted, out)
		one.Samples = slices.DeleteFunc(slices.Clone(one.Samples), gone)
		if len(one.Samples) > 0 {
			left = append(left, one)
		}
	}
	return left, pointsOf(deleted)
}

// pointsOf counts the points of series: those of a histogram or summary are one.
func pointsOf(series []sample.Series) (n int64) {
	for _, s := range series {
		name := s.Labels.Get("__name__")
		if !strings.HasSuffix(name, "_sum") && s.Labels.Get("quantile") == "" && s.Labels.Get("le") == "" {
			n += int64(len(s.Samples))
		}
	}
	return n
}
