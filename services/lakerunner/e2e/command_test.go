// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/cli"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// command runs a command line against the lake.
func (l *lake) command(ctx context.Context, key string, stdin string, args ...string) (code int, stdout, stderr string) {
	var out, remarks bytes.Buffer
	environment := map[string]string{"LAKERUNNER_ADDRESS": l.stack.GRPC, "LAKERUNNER_API_KEY": key, "LAKERUNNER_DATA": l.work}
	code = cli.Run(ctx, cli.Environment{
		Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &remarks,
		Getenv: func(name string) string { return environment[name] }, Now: time.Now,
	})
	return code, out.String(), remarks.String()
}

// must runs a command that has to succeed, with the organization's key.
func (l *lake) must(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := l.command(t.Context(), l.keys["default"], "", args...)
	if code != 0 {
		t.Fatalf("lakerunner %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	return stdout
}

// TestCommands runs each command against real services.
func TestCommands(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 51, End: end, Lines: 800, Objects: 2})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/default/shop/", len(objects))
	span := []string{"--from", end.Add(-time.Hour).Format(time.RFC3339), "--to", end.Format(time.RFC3339)}
	rows := func(service string) (n int) {
		for _, o := range objects {
			for _, r := range o.Rows {
				if r.Service == service {
					n++
				}
			}
		}
		return n
	}

	t.Run("query prints as many lines as there are, in each format", func(t *testing.T) {
		t.Parallel()
		query := append([]string{"query", `{service_name="gateway"}`, "--limit", "5000", "-o"}, span...)
		for _, format := range []string{"table", "json", "raw"} {
			args := append(append([]string{}, query[:5]...), format)
			got := strings.Count(l.must(t, append(args, span...)...), "\n")
			if want := rows("gateway"); got != want {
				t.Errorf("%s: %d lines, want %d", format, got, want)
			}
		}
	})

	t.Run("query -o arrow writes an Arrow IPC stream", func(t *testing.T) {
		t.Parallel()
		stream := l.must(t, append([]string{"query", `{service_name="gateway"}`, "--limit", "5000", "-o", "arrow"}, span...)...)
		if got := arrowRows(t, stream); got != rows("gateway") {
			t.Errorf("%d rows, want %d", got, rows("gateway"))
		}
	})

	t.Run("query answers a metric query at one time and in steps", func(t *testing.T) {
		t.Parallel()
		query := `sum(count_over_time({service_name="checkout"}[1h]))`
		var document struct{ Samples [][2]string }
		if err := json.Unmarshal([]byte(l.must(t, append([]string{"query", query, "-o", "json"}, span...)...)), &document); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint(rows("checkout")); len(document.Samples) != 1 || document.Samples[0][1] != want {
			t.Errorf("got %v, want one sample of %s", document.Samples, want)
		}
		steps := l.must(t, append([]string{"query", query, "--step", "30m", "-o", "raw"}, span...)...)
		if got := strings.Count(steps, "\n"); got == 0 || got > 3 {
			t.Errorf("got %q", steps)
		}
	})

	t.Run("labels, series and explain know the streams", func(t *testing.T) {
		t.Parallel()
		if names := l.must(t, append([]string{"labels"}, span...)...); !strings.Contains(names, "service_name\n") {
			t.Errorf("labels: %q", names)
		}
		if values := l.must(t, append([]string{"labels", "service_name"}, span...)...); !strings.Contains(values, "checkout\n") {
			t.Errorf("values: %q", values)
		}
		if series := l.must(t, append([]string{"series", `{service_name="checkout"}`}, span...)...); !strings.Contains(series, `service_name="checkout"`) {
			t.Errorf("series: %q", series)
		}
		if plan := l.must(t, append([]string{"explain", `{service_name="checkout"} |= "declined"`}, span...)...); !strings.Contains(plan, "segments") {
			t.Errorf("explain: %q", plan)
		}
	})

	t.Run("preview shows a file and writes nothing; ingest takes it in", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "uploaded.log")
		stamp := end.Add(-30 * time.Minute).Format(time.RFC3339)
		if err := os.WriteFile(file, fmt.Appendf(nil, "{\"time\":%q,\"message\":\"uploaded by hand\"}\n", stamp), 0o600); err != nil {
			t.Fatal(err)
		}
		if shown := l.must(t, "preview", file); !strings.Contains(shown, "uploaded by hand") {
			t.Errorf("preview: %s", shown)
		}
		if answer := l.must(t, "ingest", file); !strings.Contains(answer, "done") || !strings.Contains(answer, "1 rows out") {
			t.Errorf("ingest: %s", answer)
		}
		if found := l.must(t, append([]string{"query", everything + ` |= "uploaded by hand"`, "-o", "raw"}, span...)...); !strings.Contains(found, "uploaded by hand") {
			t.Errorf("query: %q", found)
		}
		if again := l.must(t, "preview", "s3://"+l.bucket.Name()+"/"+objects[0].Key); !strings.Contains(again, "otlp") {
			t.Errorf("preview of an object: %s", again)
		}
	})

	t.Run("receipts lists what was ingested, and counts a replay", func(t *testing.T) {
		t.Parallel()
		list := l.must(t, "receipts", "--state", "done", "--prefix", "otel-raw/default/shop/")
		if strings.Count(list, objects[0].Key) != 1 {
			t.Errorf("receipts: %s", list)
		}
		if count := l.must(t, "receipts", "--replay", "--dry-run", "--state", "done", "--prefix", "otel-raw/default/shop/"); !strings.HasPrefix(count, "2 objects") {
			t.Errorf("replay: %s", count)
		}
	})

	t.Run("an administrator reads the configuration, and makes and revokes keys", func(t *testing.T) { testAdministration(t, l) })
}

func testAdministration(t *testing.T, l *lake) {
	t.Helper()
	t.Parallel()
	admin := func(args ...string) string {
		code, stdout, stderr := l.command(t.Context(), l.adminKey, "", args...)
		if code != 0 {
			t.Fatalf("lakerunner %s: %s", strings.Join(args, " "), stderr)
		}
		return stdout
	}
	testConfigApply(t, l, admin)
	if document := admin("config", "get"); !strings.Contains(document, "default") || strings.Contains(document, l.bucket.Location.SecretKey) {
		t.Errorf("configuration: %s", document)
	}
	secret := strings.TrimSpace(admin("apikey", "create", "--organization", "default", "--scope", "query", "--description", "made in a test"))
	eventually(t, func() error {
		if code, _, stderr := l.command(t.Context(), secret, "", "labels", "--since", "7d"); code != 0 {
			return fmt.Errorf("the new key: %s", stderr)
		}
		return nil
	})
	var id string
	for line := range strings.Lines(admin("apikey", "list")) {
		if strings.Contains(line, "made in a test") {
			id = strings.Fields(line)[0]
		}
	}
	admin("apikey", "delete", id)
	eventually(t, func() error {
		if code, _, _ := l.command(t.Context(), secret, "", "labels", "--since", "7d"); code == 0 {
			return fmt.Errorf("the revoked key still opens")
		}
		return nil
	})
}

// testConfigApply checks a document, applies it, and applies it once more.
func testConfigApply(t *testing.T, l *lake, admin func(...string) string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "second.yaml")
	const document = "organizations:\n  - id: second\n    name: Second organization\n"
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	if changes := admin("config", "apply", file, "--dry-run"); !strings.Contains(changes, "second") {
		t.Errorf("a dry run says %q", changes)
	}
	if in := admin("config", "get"); strings.Contains(in, "Second organization") {
		t.Errorf("a dry run changed the configuration: %s", in)
	}
	if changes := admin("config", "apply", file); !strings.Contains(changes, "second") {
		t.Errorf("applying it says %q", changes)
	}
	eventually(t, func() error {
		if in := admin("config", "get"); !strings.Contains(in, "Second organization") {
			return fmt.Errorf("the configuration in force: %s", in)
		}
		return nil
	})
	code, changes, stderr := l.command(t.Context(), l.adminKey, document, "config", "apply", "-f", "-")
	if code != 0 || changes != "no change\n" {
		t.Errorf("from standard input, once more: exit code %d: %q %s", code, changes, stderr)
	}
	code, _, stderr = l.command(t.Context(), l.adminKey, "organizations:\n  - id: third\n    nonsense: 1\n", "config", "apply", "-")
	if code != 1 || !strings.Contains(stderr, "document:3") || !strings.Contains(stderr, "nonsense") {
		t.Errorf("a wrong document: exit code %d: %s", code, stderr)
	}
}

// TestMetricCommands runs the commands that ask for metrics against real services.
func TestMetricCommands(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	s := newShopMetrics(t, l, "default", 61, end)
	s.put(s.objects, len(s.objects))
	truth := cumulative(t, s.series)
	span := []string{"--from", s.start.Format(time.RFC3339), "--to", end.Format(time.RFC3339)}
	requests := `sum by (service_name) (rate(http_server_requests_total[5m]))`
	ask := func(t *testing.T, args ...string) string {
		t.Helper()
		return l.must(t, slices.Concat([]string{args[0]}, args[1:], span)...)
	}

	t.Run("query --promql prints what Prometheus answers", func(t *testing.T) {
		t.Parallel()
		for _, way := range []struct {
			step time.Duration
			args []string
		}{{0, []string{"--instant"}}, {10 * time.Minute, []string{"--step", "10m"}}} {
			start, last := s.start, end
			if way.step > 0 {
				start, last = start.Truncate(way.step), last.Truncate(way.step)
			}
			want, err := truth(t.Context(), metrictest.Query{Text: requests, Start: start, End: last, Step: way.step})
			if err != nil {
				t.Fatal(err)
			}
			got := documents(t, ask(t, append([]string{"query", "--promql", requests, "-o", "json"}, way.args...)...))
			if text := diff(linesOf(t, want), got); text != "" {
				t.Errorf("%v:\n%s", way.args, text)
			}
		}
	})
	t.Run("query --promql draws a chart that fits", func(t *testing.T) {
		t.Parallel()
		chart := ask(t, "query", "--promql", "process_memory_usage_bytes", "--width", "80")
		for line := range strings.Lines(chart) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		if strings.Count(chart, "  last ") != 8 || !strings.Contains(chart, "┤") {
			t.Errorf("drawn:\n%s", chart)
		}
		_, drawn, remarks := l.command(t.Context(), l.keys["default"], "", append([]string{"query", "--promql", "no_such_metric"}, span...)...)
		if drawn != "" || !strings.Contains(remarks, "no samples") {
			t.Errorf("of nothing: %s%s", drawn, remarks)
		}
	})
	t.Run("metrics lists names with type, unit, help and series", func(t *testing.T) {
		t.Parallel()
		var carts struct{ Name, Type, Unit, Help, Series, Samples string }
		unmarshal(t, []byte(ask(t, "metrics", "cart_*", "-o", "json")), &carts)
		if carts.Name != "cart_open" || carts.Type != "gauge" || carts.Help != "Carts with something in them." ||
			carts.Series != fmt.Sprint(s.count("cart_open", s.start, end)) {
			t.Errorf("got %+v", carts)
		}
		names := strings.Split(strings.TrimSpace(ask(t, "metrics")), "\n")
		if len(names) != 13 || !strings.HasPrefix(names[0], "NAME") ||
			!strings.HasPrefix(names[3], "http_server_request_duration_seconds  histogram  seconds") {
			t.Errorf("got\n%s", strings.Join(names, "\n"))
		}
		if one := ask(t, "metrics", `{service_name="cart"}`); strings.Contains(one, "db_query") || !strings.Contains(one, "up ") {
			t.Errorf("of a service:\n%s", one)
		}
	})
	t.Run("cardinality counts series by metric and label", func(t *testing.T) {
		t.Parallel()
		all := cardinalityOf(t, ask(t, "cardinality", "--limit", "1000", "-o", "json"))
		if want := fmt.Sprint(s.count("", s.start, end)); all.Series != want || all.New != want || all.Vanished != "0" || all.Bytes == "0" {
			t.Errorf("%+v, want %s series, all new", all, want)
		}
		for _, m := range all.Metrics {
			if want := fmt.Sprint(s.count(m.Metric.Name, s.start, end)); m.Metric.Series != want || m.Metric.Bytes == "0" {
				t.Errorf("%s: %+v, want %s series", m.Metric.Name, m, want)
			}
		}
		if names := len(s.distinct("__name__")); len(all.Metrics) != names {
			t.Errorf("%d metrics, want %d", len(all.Metrics), names)
		}
		for _, label := range all.Labels {
			if want := fmt.Sprint(len(s.distinct(label.Name))); label.Values != want {
				t.Errorf("%s: %s values, want %s", label.Name, label.Values, want)
			}
		}
		if table := ask(t, "cardinality", "--limit", "3", "up"); !strings.Contains(table, "\nup ") || !strings.Contains(table, "\nLABEL ") {
			t.Errorf("printed\n%s", table)
		}
	})
	t.Run("cardinality says what vanished", func(t *testing.T) {
		t.Parallel()
		from, to := end.Add(time.Minute), end.Add(41*time.Minute)
		gone := cardinalityOf(t, l.must(t, "cardinality", "-o", "json", "--from", from.Format(time.RFC3339), "--to", to.Format(time.RFC3339)))
		if want := fmt.Sprint(s.count("", from.Add(-40*time.Minute), end)); gone.Series != "0" || gone.New != "0" || gone.Vanished != want {
			t.Errorf("%+v, want %s that vanished", gone, want)
		}
	})
}

// count counts the series of a metric, or of all, that have a sample in a time.
func (s *shop) count(name string, start, end time.Time) (n int) {
	for _, one := range s.series {
		first, last := one.Samples[0].Time, one.Samples[len(one.Samples)-1].Time
		if (name == "" || one.Labels.Get("__name__") == name) && first <= end.UnixMilli() && last >= start.UnixMilli() {
			n++
		}
	}
	return n
}

type cardinality struct {
	Series, Bytes string
	New           string `json:"new_series"`
	Vanished      string `json:"vanished_series"`
	Metrics       []struct {
		Metric struct{ Name, Series, Bytes string }
	}
	Labels []struct{ Name, Series, Values string }
}

func cardinalityOf(t *testing.T, said string) (c cardinality) {
	t.Helper()
	unmarshal(t, []byte(said), &c)
	return c
}

// documents reads the series that a command prints as JSON.
func documents(t *testing.T, said string) lines {
	t.Helper()
	out := lines{}
	for text := range strings.Lines(said) {
		var document struct {
			Labels  map[string]string
			Samples [][2]string
		}
		unmarshal(t, []byte(text), &document)
		one := &line{}
		for _, sample := range document.Samples {
			at, err := time.Parse(time.RFC3339Nano, sample[0])
			if err != nil {
				t.Fatal(err)
			}
			v, err := strconv.ParseFloat(sample[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			one.values = append(one.values, model.SamplePair{Timestamp: model.TimeFromUnixNano(at.UnixNano()), Value: model.SampleValue(v)})
		}
		out[textOf(document.Labels)] = one
	}
	return out
}

// TestTailCommand follows a query until it is interrupted, which is a good end.
func TestTailCommand(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	reader, writer := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		environment := map[string]string{"LAKERUNNER_ADDRESS": l.stack.GRPC, "LAKERUNNER_API_KEY": l.keys["default"]}
		ended <- cli.Run(ctx, cli.Environment{
			Args: []string{"query", everything + ` |= "followed"`, "--tail", "-o", "raw"}, Stdout: writer, Stderr: io.Discard,
			Getenv: func(name string) string { return environment[name] }, Now: time.Now,
		})
		_ = writer.Close()
	}()
	shown := make(chan string, 1000)
	go func() {
		defer close(shown)
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			shown <- lines.Text()
		}
	}()
	put := 0
	var first string
	eventually(t, func() error { // rows from before the tail began are not followed, so they go on coming
		put++
		body := fmt.Sprintf("{\"time\":%q,\"message\":\"followed %d\"}\n", time.Now().UTC().Format(time.RFC3339Nano), put)
		l.put(fmt.Sprintf("logs-raw/default/tail-%d.ndjson", put), []byte(body))
		select {
		case first = <-shown:
			return nil
		default:
			return errors.New("no line was shown")
		}
	})
	if !strings.HasPrefix(first, "followed ") {
		t.Errorf("shown: %q", first)
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestMigrateCommand makes the schema of a fresh database, and finds it made.
func TestMigrateCommand(t *testing.T) {
	t.Parallel()
	l := &lake{t: t, stack: &stack.Stack{}}
	database := indextest.URL(t)
	for range 2 {
		code, stdout, stderr := l.command(t.Context(), "", "", "migrate", "--database", database, "--config-database", database)
		if code != 0 || strings.Count(stdout, "is up to date") != 2 {
			t.Errorf("exit code %d: %s%s", code, stdout, stderr)
		}
	}
}

// TestBackfillCommandPausesAndResumes pauses a slow backfill: it hands on nothing more until it is resumed.
func TestBackfillCommandPausesAndResumes(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{deaf: true})
	objects := makeSample(t, sample.Options{Seed: 53, End: lately(), Lines: 80, Objects: 8})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	backfill := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := l.command(t.Context(), l.adminKey, "", append([]string{"backfill"}, args...)...)
		if code != 0 {
			t.Fatalf("backfill %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
		}
		return stdout
	}
	backfill("s3://"+l.bucket.Name()+"/otel-raw/default/", "--yes", "--rate", "2")
	if shown := backfill("pause", "1"); !strings.Contains(shown, "paused") {
		t.Fatalf("pause: %s", shown)
	}
	if shown := backfill("show", "1"); !strings.Contains(shown, "paused") {
		t.Errorf("show: %s", shown)
	}
	if n := len(l.receipts("default", "otel-raw/default/")); n >= len(objects) {
		t.Errorf("%d of %d objects were handed on before the pause", n, len(objects))
	}
	if shown := backfill("resume", "1"); !strings.Contains(shown, "running") {
		t.Errorf("resume: %s", shown)
	}
	l.awaitReceipts("default", "otel-raw/default/", len(objects))
	eventually(t, func() error {
		if shown := backfill("show", "1"); !strings.Contains(shown, "done") || !strings.Contains(shown, "8 of 8") {
			return errors.New(shown)
		}
		return nil
	})
}

// TestBackfillCommand ingests what stood in the bucket before anybody listened.
func TestBackfillCommand(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{deaf: true})
	end := lately()
	objects := makeSample(t, sample.Options{Seed: 52, End: end, Lines: 400, Objects: 5})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	source := "s3://" + l.bucket.Name() + "/otel-raw/default/"
	if code, stdout, _ := l.command(t.Context(), l.adminKey, "n\n", "backfill", source); code != 0 || !strings.Contains(stdout, "objects   5") || strings.Contains(stdout, "running") {
		t.Fatalf("exit code %d: %s", code, stdout)
	}
	code, stdout, stderr := l.command(t.Context(), l.adminKey, "", "backfill", source, "--yes")
	if code != 0 || !strings.Contains(stdout, "is running") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	l.awaitReceipts("default", "otel-raw/default/", len(objects))
	if got, want := hashOf(l.lines("default", everything, end.Add(-time.Hour), end)), hashOfSample(objects...); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	eventually(t, func() error {
		if _, list, _ := l.command(t.Context(), l.adminKey, "", "backfill", "list"); !strings.Contains(list, "done") {
			return fmt.Errorf("the backfill is not done: %s", list)
		}
		return nil
	})
}

// TestCommandErrors words what users do wrong.
func TestCommandErrors(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	cases := map[string]struct {
		key  string
		args []string
		code int
		says string
	}{
		"no query":           {args: []string{"query"}, code: 2, says: "the query is missing"},
		"a query in pieces":  {args: []string{"query", "{a=", "b}"}, code: 2, says: "needs quotes"},
		"bad LogQL":          {args: []string{"query", `{service_name=`}, code: 2, says: "LogQL"},
		"unknown flag":       {args: []string{"query", "--nonsense", "{}"}, code: 2, says: "--help"},
		"unknown format":     {args: []string{"query", `{a="b"}`, "-o", "xml"}, code: 2, says: "table, json, raw, arrow or chart"},
		"tail of samples":    {args: []string{"query", `rate({a="b"}[1m])`, "--tail"}, code: 2, says: "metric query"},
		"wrong key":          {key: "lr_wrong", args: []string{"labels"}, code: 1, says: "--api-key"},
		"no right":           {key: l.keys["default"], args: []string{"config", "get"}, code: 1, says: "another scope"},
		"nobody there":       {args: []string{"labels", "--address", "127.0.0.1:1"}, code: 1, says: "lakerunner up"},
		"no such file":       {args: []string{"ingest", "/does/not/exist"}, code: 2, says: "no such file"},
		"replay of nothing":  {args: []string{"receipts", "--replay"}, code: 2, says: "receipt ids"},
		"not an object":      {key: l.keys["default"], args: []string{"ingest", "s3://bucket"}, code: 2, says: "s3://bucket/key"},
		"migrate where":      {args: []string{"migrate"}, code: 2, says: "LRDB_URL"},
		"an empty range":     {args: []string{"query", `{a="b"}`, "--from", "now"}, code: 2, says: "empty"},
		"a step for lines":   {args: []string{"query", `{a="b"}`, "--step", "1m"}, code: 2, says: "log query"},
		"a missing document": {args: []string{"config", "apply"}, code: 2, says: "FILE"},
		"two documents":      {args: []string{"config", "apply", "a", "b"}, code: 2, says: `unexpected argument "b"`},
		"unknown command":    {args: []string{"qery", "{}"}, code: 2, says: "did you mean query?"},
		"unknown subcommand": {args: []string{"config", "set"}, code: 2, says: `unknown command "set"`},
		"two labels":         {args: []string{"labels", "a", "b"}, code: 2, says: `unexpected argument "b"`},
		"nothing to ingest":  {args: []string{"ingest"}, code: 2, says: "the file or object is missing"},
		"no such object":     {args: []string{"ingest", "s3://" + l.bucket.Name() + "/none"}, code: 1, says: "there is no object s3://" + l.bucket.Name() + "/none\n"},
		"an empty answer":    {args: []string{"query", `{a="b"}`}, code: 0, says: "no lines from"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := c.key
			if key == "" {
				key = l.keys["default"]
			}
			code, _, stderr := l.command(t.Context(), key, "", c.args...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %d: %s", code, c.code, stderr)
			}
		})
	}

	t.Run("version and completion need no server", func(t *testing.T) {
		t.Parallel()
		if version := l.must(t, "version"); !strings.HasPrefix(version, "lakerunner ") {
			t.Errorf("got %q", version)
		}
		for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
			if script := l.must(t, "completion", shell); len(script) < 1000 {
				t.Errorf("%s: %q", shell, script)
			}
		}
	})
}

func arrowRows(t *testing.T, stream string) (rows int) {
	t.Helper()
	reader, err := ipc.NewReader(strings.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	for reader.Next() {
		rows += int(reader.RecordBatch().NumRows())
	}
	if err := reader.Err(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return rows
}
