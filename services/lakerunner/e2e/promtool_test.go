// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// promtool is Prometheus' own command line, asking a lake.
type promtool struct {
	t       *testing.T
	program string
	config  string // of its HTTP client
	server  string
}

// newPromtool builds promtool, or finds it among what was built before.
func newPromtool(t *testing.T, l *lake, organization string) *promtool {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "tool", "-n", "promtool")
	_, here, _, _ := runtime.Caller(0) // the S3 server of the tests changes the working directory
	command.Dir = filepath.Join(filepath.Dir(here), "..", "..", "..", "tools")
	command.Env = append(os.Environ(), "GOWORK=off")
	var failure strings.Builder
	command.Stderr = &failure
	said, err := command.Output()
	if err != nil {
		t.Fatalf("promtool cannot be built: %v: %s\nBuild it with: cd tools && GOWORK=off go tool -n promtool", err, failure.String())
	}
	config := filepath.Join(t.TempDir(), "http.yaml")
	if err := os.WriteFile(config, []byte("basic_auth: {username: lakerunner, password: "+l.keys[organization]+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &promtool{t: t, program: strings.TrimSpace(string(said)), config: config, server: "http://" + l.stack.HTTP + "/prometheus"}
}

// run runs promtool and returns what it writes to either output.
func (p *promtool) run(args ...string) (said, failure string, err error) {
	p.t.Helper()
	command := exec.CommandContext(p.t.Context(), p.program, args...)
	var out, bad bytes.Buffer
	command.Stdout, command.Stderr = &out, &bad
	err = command.Run()
	return out.String(), bad.String(), err
}

// query asks one of its queries, which must succeed.
func (p *promtool) query(kind string, args ...string) string {
	p.t.Helper()
	args = append([]string{"query", kind, "--http.config.file", p.config, "-o", "json"}, args...)
	said, failure, err := p.run(args...)
	if err != nil || failure != "" {
		p.t.Fatalf("promtool %s: %v: %s%s", strings.Join(args, " "), err, said, failure)
	}
	return said
}

// TestPromtool runs promtool's queries against the running system.
func TestPromtool(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	s := newShopMetrics(t, l, "default", 21, end)
	s.put(s.objects, len(s.objects))
	tool := newPromtool(t, l, "default")
	unix := func(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }
	truth := cumulative(t, s.series)

	t.Run("instant and range", func(t *testing.T) {
		t.Parallel()
		p := &promtool{t, tool.program, tool.config, tool.server}
		for _, text := range []string{
			`sum by (service_name) (rate(http_server_requests_total[5m]))`,
			`histogram_quantile(0.9, sum(rate(rpc_server_duration_milliseconds[5m])))`,
			`rpc_server_duration_milliseconds`,
			`3 * 4`,
		} {
			want, err := truth(t.Context(), metrictest.Query{Text: text, Start: end, End: end})
			if err != nil {
				t.Fatal(err)
			}
			got := p.query("instant", "--time", unix(end), p.server, text)
			if text := diff(linesOf(t, want), printed(t, got)); text != "" {
				t.Errorf("%s", text)
			}
			want, err = truth(t.Context(), metrictest.Query{Text: text, Start: s.start, End: end, Step: 5 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			got = p.query("range", "--start", unix(s.start), "--end", unix(end), "--step", "5m", p.server, text)
			if text := diff(linesOf(t, want), printed(t, got)); text != "" {
				t.Errorf("%s", text)
			}
		}
	})

	t.Run("series", func(t *testing.T) {
		t.Parallel()
		p := &promtool{t, tool.program, tool.config, tool.server}
		var got []model.Metric
		unmarshal(t, []byte(p.query("series", "--match", `{__name__=~"up|cart_open"}`, "--match", "stock_level_ratio", "--start", unix(s.start), "--end", unix(end), p.server)), &got)
		chosen := []string{"cart_open", "stock_level_ratio", "up"}
		want := slices.DeleteFunc(slices.Clone(s.series), func(one sample.Series) bool { return !slices.Contains(chosen, one.Labels.Get("__name__")) })
		if len(want) != len(got) {
			t.Fatalf("%d series, want %d", len(got), len(want))
		}
		for i := range want {
			if diff := cmp.Diff(textOf(want[i].Labels.Map()), got[i].String()); diff != "" {
				t.Errorf("series %d (-want +got):\n%s", i, diff)
			}
		}
	})

	t.Run("labels", func(t *testing.T) {
		t.Parallel()
		p := &promtool{t, tool.program, tool.config, tool.server}
		var got []string
		unmarshal(t, []byte(p.query("labels", "--match", "up", "--start", unix(s.start), "--end", unix(end), p.server, "k8s_pod_name")), &got)
		if diff := cmp.Diff(s.distinct("k8s_pod_name"), got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("analyze", func(t *testing.T) {
		t.Parallel()
		p := &promtool{t, tool.program, tool.config, tool.server}
		for _, metric := range []string{"http_server_request_duration_seconds_bucket", "rpc_server_duration_milliseconds"} {
			got := p.query("analyze", "--server", p.server, "--type", "histogram", "--time", unix(end), "--duration", "30m", "--match", metric+`{service_name="checkout"}`)
			if !strings.Contains(got, "checkout") {
				t.Errorf("%s: %s", metric, got)
			}
		}
	})

	t.Run("an error is Prometheus'", func(t *testing.T) {
		t.Parallel()
		p := &promtool{t, tool.program, tool.config, tool.server}
		said, failure, err := p.run("query", "instant", "--http.config.file", p.config, p.server, "sum(")
		if err == nil || !strings.Contains(failure, `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`) {
			t.Errorf("%v: %s%s", err, said, failure)
		}
		_, failure, err = p.run("query", "instant", p.server, "up")
		if err == nil || !strings.Contains(failure, "401") {
			t.Errorf("without a key: %v: %s", err, failure)
		}
	})

	t.Run("health", func(t *testing.T) {
		t.Parallel()
		p := &promtool{t, tool.program, tool.config, tool.server}
		for _, check := range []string{"healthy", "ready"} {
			if said, failure, err := p.run("check", check, "--url", p.server); err != nil {
				t.Errorf("%s: %v: %s%s", check, err, said, failure)
			}
		}
	})
}

// printed reads what promtool prints of a query: its value without the type, which the form of its parts tells.
func printed(t *testing.T, said string) lines {
	t.Helper()
	kind := "scalar"
	var parts []map[string]json.RawMessage
	if json.Unmarshal([]byte(said), &parts) == nil {
		kind = "vector"
		if len(parts) > 0 && (parts[0]["values"] != nil || parts[0]["histograms"] != nil) {
			kind = "matrix"
		}
	}
	return decoded(t, json.RawMessage(fmt.Sprintf(`{"resultType":%q,"result":%s}`, kind, said)))
}
