// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestChecks(t *testing.T) {
	t.Parallel()
	decode := func(t *testing.T, body string) *answer {
		t.Helper()
		var a answer
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatal(err)
		}
		return &a
	}
	const streams = `{"data":{"resultType":"streams","result":[{"values":[["1","a"],["2","b"]]},{"values":[["3","c"]]}]}}`
	const vector = `{"data":{"resultType":"vector","result":[{"metric":{"f":"x"},"value":[1,"5"]},{"metric":{"f":"y"},"value":[1,"3"]}]}}`
	const matrix = `{"data":{"resultType":"matrix","result":[{"values":[[1,"5"],[2,"6"]]}]}}`
	const refused = `{"status":"error","error":"limit max_query_series; aggregate"}`
	cases := map[string]struct {
		body  string
		check func(*answer) error
		right bool
	}{
		"as many lines":             {streams, wantLines(3), true},
		"too few lines":             {streams, wantLines(4), false},
		"lines where a count is":    {streams, wantValue(3), false},
		"the count":                 {vector, wantValue(8), true},
		"another count":             {vector, wantValue(9), false},
		"the total":                 {matrix, wantTotal(11), true},
		"another total":             {matrix, wantTotal(12), false},
		"the top":                   {vector, wantTop("f", []topEntry{{"x", 5}, {"y", 3}}), true},
		"a top with another count":  {vector, wantTop("f", []topEntry{{"x", 5}, {"y", 4}}), false},
		"a top with another value":  {vector, wantTop("f", []topEntry{{"z", 5}, {"y", 3}}), false},
		"as many series":            {vector, wantCount("vector", 2), true},
		"fewer series":              {vector, wantCount("vector", 3), false},
		"the sum":                   {vector, wantTotalOf(8), true},
		"another sum":               {vector, wantTotalOf(8.01), false},
		"a refusal":                 {refused, wantRefusal("max_query_series"), true},
		"another refusal":           {refused, wantRefusal("max_query_bytes"), false},
		"no refusal":                {vector, wantRefusal("max_query_series"), false},
		"a tie at the end may vary": {vector, wantTop("f", []topEntry{{"x", 5}, {"w", 3}}), true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := c.check(decode(t, c.body)); (err == nil) != c.right {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := &result{
		command: "make bench CORPUS=dir", at: time.Unix(1_790_000_000, 0), truth: &truth{Lines: 100},
		ingest: ingestFigures{
			Rows: 100, Objects: 1, CPU: time.Second, Wall: time.Second, PeakRSS: 5e8, Stored: storedFigures{Segments: 2, Rows: 100, Bytes: 180, Sidecars: 20}, OTLP: 1000, DecodeCPU: time.Second / 4,
		},
		compaction: compactionFigures{CPU: time.Second, After: storedFigures{Segments: 1, Rows: 100, Bytes: 150, Sidecars: 10}},
	}
	for _, q := range queries(&truth{Lines: 100, Start: time.Unix(0, 0), End: time.Unix(86400, 0), Top: []topEntry{{"a", 1}}}) {
		r.queries = append(r.queries, queryFigures{query: q, cold: time.Second, warm: time.Millisecond})
	}
	r.queries[1].problem = errors.New("count: got 1, want 2")
	var out bytes.Buffer
	r.write(&out)
	for _, want := range []string{"| 100 ", "0.200", "| L2b regex, all services, count", "WRONG", "could not be dropped"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	if got := r.failures(); len(got) != 1 || !strings.HasPrefix(got[0], "L2: ") {
		t.Errorf("failures: %v", got)
	}
	if got := median([]time.Duration{5, 1, 4, 2, 3}); got != 3 {
		t.Errorf("median: %d", got)
	}
}

func TestMadeUpCounters(t *testing.T) {
	t.Parallel()
	m := madeUp{series: 3, instances: 2, start: time.Unix(1_790_000_000, 0), interval: time.Minute, samples: 20_000}
	for n := range m.series {
		resets := 0
		for i := 1; i < m.samples; i++ {
			if m.value(n, i) < m.value(n, i-1) {
				resets++
			}
		}
		if resets < 3 || resets > 4 {
			t.Errorf("series %d begins anew %d times", n, resets)
		}
	}
	if a, b, c := m.labels(0), m.labels(1), m.labels(2); a.Get("job") != b.Get("job") || b.Get("job") == c.Get("job") || a.Hash() == b.Hash() {
		t.Error(a, b, c)
	}
}
