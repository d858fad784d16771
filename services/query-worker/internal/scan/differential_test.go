// SPDX-License-Identifier: AGPL-3.0-only

package scan

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/services/query-worker/internal/plan"
)

// queryMaker makes LogQL.
type queryMaker struct{ rng *rand.Rand }

func (m *queryMaker) selector() string {
	return pick(m.rng, `{service_name="checkout"}`, `{service_name=~".+"}`, `{service_name=~"check.*|front.*"}`, `{service_name!="cart", pod=~"p-[0-4]"}`,
		`{service_name="ad's"}`, `{service_name=~".+", pod=""}`, `{service_name=~".+", status="from-stream"}`, `{service_name="nobody"}`, `{service_name!~"c.*", service_name=~".+"}`)
}

func (m *queryMaker) lineFilter() string {
	return pick(m.rng, `|= "declined"`, `!= "declined"`, "|~ `card_[a-z]+`", "|~ `card_(declined|stolen)|reset by`", "|~ `(user|id)=[u0-9]`", "!~ `(?i)timeout|reset`", "|~ `(?i)timeout`", "|~ `foo.*(bar|baz)`", "!~ `foo.*(bar|baz)`",
		`|= "declined" or "Timeout"`, `!= "declined" or "Timeout"`, "|> `<_>user=<_> took<_>`", "!> `<_>user=<_>`", `|= ip("10.0.1.0/24")`, "|~ `.+`", `|= ""`, "!= ``",
		"|~ `^\\{`", "|~ `é|ü`", `|= "é's 100%"`, `!= "'"`, "|~ `\\d{3}ms`", "|~ `\\bid=[0-9a-f]{8}$`", "|~ `(?s)^.*$`", "|~ `.*`", "!~ `.*`", "|~ `foo|.*`", "|~ `er+or`",
		"|~ `[^a-z]reset`", "|~ `\\x{e9}`", `|= "card_declined" |= "user=u1"`, "|~ `status\":5\\d\\d`", "|~ `(foo|reset) ?b`", "!~ `^$`", "|~ `(?i:RED).*alert`")
}

func (m *queryMaker) labelFilter() string {
	return pick(m.rng, `| severity_text="ERROR"`, `| severity_text!="ERROR"`, fmt.Sprintf("| trace_id=\"%x\"", testTrace(m.rng.IntN(40))), `| trace_id="not-a-trace"`,
		`| detected_level=~"error|warn"`, `| detected_level="own-level"`, `| http_method="it's"`, `| status="500"`, `| status=500`, `| status>=404`, `| status="from-stream"`,
		`| a_b="dot"`, `| a_b="underscore"`, `| a_b!=""`, `| mixed="5"`, `| nested_deep_er="x"`, `| nested_n=7`, `| list=~".*two.*"`, `| raw!=""`, `| rare="r1"`, `| rare_map_k="v"`,
		`| region="eu" or http_method="GET"`, `| region="own"`, `| region=~"e.*"`, `| host_name="h1" and severity_text="INFO"`, `| cached="true"`, `| cached="maybe"`, `| duration="1"`,
		`| duration>1`, `| scope_name="scope"`, `| observed_timestamp!=""`, `| flags="1"`, `| severity_number="17"`, `| span_id=~"0+.*"`, `| dropped_attributes_count="2"`,
		`| status_extracted="200"`, `| pod="p-1"`, `| service_name=~"c.*"`, `| nothing=""`, `| nothing="x"`, `| (status="404" or status="500"), severity_text="ERROR"`)
}

func (m *queryMaker) stage() string {
	return pick(m.rng, "| json", "| logfmt", `| json status="status", customer_id="customer_id"`, "| json customer_id=`customer_id`", "| drop __error__", "| drop pod, status",
		"| keep service_name, status", "| decolorize", "| unpack", "| line_format `{{.service_name}} {{.severity_text}} {{__line__}}`", "| label_format where=host_name",
		"| label_format both=`{{.status}}-{{.http_method}}`", "| pattern `<verb> /api/<n> from <_>`", "| regexp `user=(?P<user>\\w+)`", `| logfmt user, took`, "| json | __error__=`` or status=~`.*`", "| json | __error__!=`` or pod!=``",
		`| json | status=500`, `| json | status="500"`, `| logfmt | took>100ms`, `| drop severity_text="ERROR"`)
}

// pipeline returns zero to four stages that Loki can parse: `| drop pod` before `!= "a" or "b"` reads as a matcher of drop, and then the `or` is an error.
func (m *queryMaker) pipeline() string {
	for {
		stages := m.stages()
		if _, err := plan.ParseSelector("{service_name=`x`} " + stages); err == nil {
			return stages
		}
	}
}

func (m *queryMaker) stages() string {
	var parts []string
	for range m.rng.IntN(5) {
		switch m.rng.IntN(3) {
		case 0:
			parts = append(parts, m.lineFilter())
		case 1:
			parts = append(parts, m.labelFilter())
		case 2:
			parts = append(parts, m.stage())
		}
	}
	return strings.Join(parts, " ")
}

func (m *queryMaker) grouping() string {
	return pick(m.rng, "", "by (service_name)", "by (service_name, pod)", "by (detected_level)", "by (level, detected_level)", "by (severity_text, status)", "by (http_method)",
		"by (status)", "by (region)", "by (rare)", "by (a_b, mixed)", "by (nested_n)", "without (trace_id, span_id, observed_timestamp)", "without (pod)", "by (customer_id)", "by (host_name)",
		"by (nothing)", "by (status_extracted)")
}

// samples makes a metric query. Most are of the kinds that are counted by DuckDB or by windows.
func (m *queryMaker) samples() Samples {
	interval := pick(m.rng, "1m", "5m", "90s", "1h", "3h", "7m", "10s")
	pipeline := m.pipeline()
	if m.rng.IntN(3) == 0 {
		pipeline = pick(m.rng, "", m.lineFilter(), m.labelFilter(), m.lineFilter()+" "+m.labelFilter())
	}
	offset := pick(m.rng, "", "", "", " offset 10m", " offset -7m")
	var expr string
	switch m.rng.IntN(8) {
	case 0:
		unwrap := pick(m.rng, "| unwrap duration", "| unwrap status", "| json | unwrap status", "| logfmt | unwrap duration(took)", "| json | unwrap bytes(size)", "| unwrap nothing",
			"| json | unwrap status | __error__=``", "| logfmt | unwrap duration(took) | __error__!=`x`")
		op := pick(m.rng, "sum_over_time", "min_over_time", "max_over_time", "rate", "avg_over_time", "last_over_time", "stddev_over_time")
		inner := fmt.Sprintf("(%s %s %s [%s]%s)", m.selector(), pipeline, unwrap, interval, offset)
		expr = pick(m.rng, op+inner, "sum by (service_name)("+op+inner+")", "max by (service_name) ("+op+inner+")", "min(min_over_time"+inner+")", "max_over_time"+inner+" by (service_name)")
	default:
		op := pick(m.rng, "count_over_time", "count_over_time", "rate", "bytes_over_time", "bytes_rate")
		inner := fmt.Sprintf("%s(%s %s [%s]%s)", op, m.selector(), pipeline, interval, offset)
		expr = "sum " + m.grouping() + " (" + inner + ")"
		switch m.rng.IntN(12) {
		case 0:
			expr = inner
		case 1:
			expr = "count(" + expr + ")"
		case 2:
			expr = "max by (service_name) (" + inner + ")"
		case 3:
			expr = expr + " * 2"
		}
	}
	q := Samples{Expression: expr, Start: began.UnixNano(), End: began.Add(testHours * time.Hour).UnixNano()}
	q.Step = pick(m.rng, 0, 0, time.Minute, 5*time.Minute, time.Hour, 7*time.Minute, 45*time.Second)
	if m.rng.IntN(3) == 0 {
		q.Start += int64(m.rng.IntN(5400)) * int64(time.Second)
		q.End -= int64(m.rng.IntN(5000)) * int64(time.Second)
	}
	return q
}

var seedFlag = flag.Uint64("seed", 1, "seed of the generated queries; 0: another one each time")

func seeds(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return seed
}

const differentialQueries = 400

func TestSamplesEqualLokis(t *testing.T) {
	t.Parallel()
	seed := seeds(t)
	f := setup(t, seed, 3000)
	ways := f.compareSamples(t, seed, differentialQueries)
	t.Logf("ways: %v", ways)
	for _, way := range []string{"grouped", "windowed", "engine"} {
		if ways[way] == 0 {
			t.Errorf("no query went the way %s: %v", way, ways)
		}
	}
}

// bothScanners are one that reads directly and one that has DuckDB read.
func (f *fixture) bothScanners(t *testing.T) []*Scanner {
	t.Helper()
	return []*Scanner{f.scanner, openScanner(t, f.dir, Options{Parallel: 2, Memory: 1 << 30, MaxSeries: 100_000, RangedFrom: 1, DirectRows: -1})}
}

// compareSamples holds random metric queries to Loki's answers, and says which ways they went.
func (f *fixture) compareSamples(t *testing.T, seed uint64, queries int) map[string]int {
	t.Helper()
	scanners := f.bothScanners(t)
	m := &queryMaker{rand.New(rand.NewPCG(seed, 2))}
	ways := map[string]int{}
	for range queries {
		f.scanner = pick(m.rng, scanners...)
		q := m.samples()
		want, wantErr := reference{f.rows}.samples(t.Context(), q)
		got, err := f.samples(t.Context(), q)
		ways[f.way(t, q)]++
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("seed %d: %+v: error %v, want %v", seed, q, err, wantErr)
		}
		if diff := want.diff(got); wantErr == nil && diff != "" {
			t.Fatalf("seed %d: %+v: %s", seed, q, diff)
		}
		all, err := f.begin().evaluate(t.Context(), q)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("seed %d: by the engine: %+v: error %v, want %v", seed, q, err, wantErr)
		}
		if diff := want.diff(answerOf(all)); wantErr == nil && diff != "" {
			t.Fatalf("seed %d: by the engine: %+v: %s", seed, q, diff)
		}
	}
	return ways
}

func (f *fixture) way(t *testing.T, q Samples) string {
	t.Helper()
	w, ok, err := f.scanner.planWindowed(q)
	switch {
	case err != nil:
		return "error"
	case !ok:
		return "engine"
	case w.grouped:
		return "grouped"
	}
	return "windowed"
}

// textLine is a line in a form that can be compared.
type textLine struct {
	time int64
	text string
}

func (m reference) lines(t *testing.T, q Lines) []textLine {
	t.Helper()
	expr, err := plan.ParseSelector(q.Selector)
	if err != nil {
		t.Fatal(err)
	}
	pipeline, err := expr.Pipeline()
	if err != nil {
		t.Fatal(err)
	}
	var all []textLine
	for _, r := range m.rows {
		if r.time < q.Start || r.time >= q.End || !matchesAll(expr.Matchers(), r.stream) {
			continue
		}
		line, result, ok := pipeline.ForStream(r.stream).ProcessString(r.time, r.line, r.metadata)
		if !ok {
			continue
		}
		all = append(all, textLine{r.time, fmt.Sprintf("%d %s %q %s", labels.StableHash(r.stream), result.String(), line, besides(result.StructuredMetadata(), result.Parsed()))})
	}
	slices.SortStableFunc(all, func(a, b textLine) int {
		if q.Forward {
			return cmp.Compare(a.time, b.time)
		}
		return cmp.Compare(b.time, a.time)
	})
	return all
}

// besides is what a line has beside its stream. Which of it is metadata and which was parsed Loki does not say reliably: it remembers its first
// answer for a set of labels, whatever they are from.
func besides(metadata, parsed labels.Labels) string {
	b := labels.NewScratchBuilder(0)
	for _, ls := range []labels.Labels{metadata, parsed} {
		ls.Range(func(l labels.Label) { b.Add(l.Name, l.Value) })
	}
	b.Sort()
	return b.Labels().String()
}

func collectLines(batches []arrow.RecordBatch) []textLine {
	pairs := func(a arrow.Array, i int) labels.Labels {
		m := a.(*array.Map)
		from, to := m.ValueOffsets(i)
		b := labels.NewScratchBuilder(0)
		for at := int(from); at < int(to); at++ {
			b.Add(m.Keys().(*array.String).Value(at), m.Items().(*array.String).Value(at))
		}
		b.Sort()
		return b.Labels()
	}
	var all []textLine
	for _, b := range batches {
		texts := b.Column(1).(*array.Dictionary)
		for i := range int(b.NumRows()) {
			all = append(all, textLine{b.Column(0).(*array.Int64).Value(i), fmt.Sprintf("%d %s %q %s",
				b.Column(2).(*array.Uint64).Value(i), texts.Dictionary().(*array.String).Value(texts.GetValueIndex(i)), b.Column(3).(*array.String).Value(i), besides(pairs(b.Column(4), i), pairs(b.Column(5), i)))})
		}
	}
	return all
}

// sameLines compares, knowing that which of the lines of the last time are in a limited answer is not for LogQL to say.
func sameLines(want, got []textLine, limit int) string {
	n := len(want)
	if limit > 0 {
		n = min(n, limit)
	}
	if len(got) != n {
		return fmt.Sprintf("%d lines, want %d", len(got), n)
	}
	if n == 0 {
		return ""
	}
	edge := want[n-1].time
	left := map[textLine]int{}
	for _, l := range want {
		left[l]++
	}
	for i, l := range got {
		if l.time != want[i].time {
			return fmt.Sprintf("line %d has time %d, want %d", i, l.time, want[i].time)
		}
		if left[l] == 0 {
			return fmt.Sprintf("line %d is not there, or too often: %v", i, l)
		}
		left[l]--
	}
	for l, n := range left {
		if n > 0 && l.time != edge && slices.Contains(want[:len(got)], l) {
			return fmt.Sprintf("missing: %v", l)
		}
	}
	return ""
}

func TestLinesEqualLokis(t *testing.T) {
	t.Parallel()
	seed := seeds(t)
	setup(t, seed, 3000).compareLines(t, seed, differentialQueries)
}

// compareLines holds random log queries to Loki's answers.
func (f *fixture) compareLines(t *testing.T, seed uint64, queries int) {
	t.Helper()
	scanners := f.bothScanners(t)
	m := &queryMaker{rand.New(rand.NewPCG(seed, 3))}
	for range queries {
		f.scanner = pick(m.rng, scanners...)
		q := Lines{Selector: m.selector() + " " + m.pipeline(), Start: began.UnixNano(), End: began.Add(testHours * time.Hour).UnixNano()}
		q.Limit, q.Forward = pick(m.rng, 0, 1, 10, 100, 1000), m.rng.IntN(2) == 0
		if m.rng.IntN(2) == 0 {
			q.Start += int64(m.rng.IntN(5400)) * int64(time.Second)
			q.End -= int64(m.rng.IntN(5400)) * int64(time.Second)
		}
		var batches []arrow.RecordBatch
		if err := f.begin().Lines(t.Context(), q, keep(&batches)); err != nil {
			t.Fatalf("seed %d: %+v: %v", seed, q, err)
		}
		got := collectLines(batches)
		if diff := sameLines(reference{f.rows}.lines(t, q), got, q.Limit); diff != "" {
			t.Fatalf("seed %d: %+v: %s", seed, q, diff)
		}
	}
}
