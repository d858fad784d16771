// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// rolled makes rollups of all segments of a world, a segment each.
func (w *world) rolled(t testing.TB, resolution time.Duration) *lab {
	t.Helper()
	l := newLab(t, Options{})
	for i := range w.segments {
		content, err := os.ReadFile(filepath.Join(w.dir, w.segments[i].File.Key))
		if err != nil {
			t.Fatal(err)
		}
		sidecar, err := os.ReadFile(filepath.Join(w.dir, w.segments[i].Sidecar.Key))
		if err != nil {
			t.Fatal(err)
		}
		c, err := metricfile.ReadCatalogue(sidecar)
		if err != nil {
			t.Fatal(err)
		}
		r, err := metricfile.Open(bytes.NewReader(content), int64(len(content)), c)
		if err != nil {
			t.Fatal(err)
		}
		var points metricfile.Points
		var aggregator rollup.Aggregator
		rows := func(yield func(*metricfile.Series, *metricfile.Rollup) bool) {
			for ordinal := range c.Len() {
				if err := r.Points(ordinal, metricfile.WantAll, &points); err != nil {
					t.Fatal(err)
				}
				made, err := aggregator.Aggregate(c.Series(ordinal), &points, rollup.Options{Resolution: resolution})
				if err != nil {
					t.Fatal(err)
				}
				if !yield(c.Series(ordinal), made) {
					return
				}
			}
		}
		m := c.Meta
		m.Resolution = resolution
		var file, side bytes.Buffer
		written, err := metricfile.WriteRollups(t.Context(), &file, &side, rows, m)
		if err != nil {
			t.Fatal(err)
		}
		l.put(t, &file, &side, written, m)
	}
	return l
}

func TestRollupsEqualTheEngineOverSamples(t *testing.T) {
	t.Parallel()
	const minute = 60_000
	expressions := 150
	if os.Getenv("LAKERUNNER_TORTURE") != "" {
		expressions = 3000
	}
	w := newWorld(t, 3, false)
	l := w.rolled(t, time.Minute)
	pick := func(of ...string) string { return of[w.r.IntN(len(of))] }
	answered := 0
	for range expressions {
		selector := pick("requests_total", "temperature", "bytes_total", "latency_seconds_bucket", "latency_seconds_sum", "delta_seconds_count", "rpc_seconds", "mixed", `requests_total{job="db"}`)
		inner, offset := selector, pick("", "", " offset 7m", " offset -3m")
		if function := pick("", "rate", "increase", "delta", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time",
			"first_over_time", "present_over_time", "timestamp"); function == "timestamp" {
			inner = fmt.Sprintf("timestamp(%s%s)", selector, offset)
		} else if function != "" {
			inner = fmt.Sprintf("%s(%s[%s]%s)", function, selector, pick("1m", "5m", "23m"), offset)
		} else {
			inner += offset
		}
		text := pick(inner, "sum by (job) ("+inner+")", "max without (instance) ("+inner+")", "topk by (job) (1000, "+inner+")", "avg("+inner+")", "count by (le, job) ("+inner+")")
		start := (worldStart/minute + w.r.Int64N(worldMinutes)) * minute
		step := int64(minute) * w.r.Int64N(4)
		q := vectorOf(t, text, start, start+step*w.r.Int64N(20), step)
		q.Resolution = minute
		s := l.scan(t)
		got, remarks, err := s.evaluate(t.Context(), q)
		if errors.Is(err, rollup.ErrInexact) {
			continue
		}
		answered++
		r, wantErr := prom.New(prom.Options{}).Evaluate(t.Context(), w.memory, prom.Request{
			Expr: q.Expr, Start: time.UnixMilli(q.Start), End: time.UnixMilli(q.End), Step: time.Duration(step) * time.Millisecond,
		})
		if err != nil || wantErr != nil {
			t.Fatalf("%s: %v, %v", text, err, wantErr)
		}
		want, err := seriesOf(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := differ(want, got); diff != "" {
			t.Fatalf("%s from %d step %d: %s", text, start-worldStart, step, diff)
		}
		if fmt.Sprint(prom.Annotations(remarks)) != fmt.Sprint(prom.Annotations(r.Annotations)) {
			t.Fatalf("%s: remarks %v, want %v", text, prom.Annotations(remarks), prom.Annotations(r.Annotations))
		}
	}
	if t.Logf("%d of %d expressions were answered by rollups", answered, expressions); answered < expressions/2 {
		t.Fatal("too few")
	}
}

func TestRollupsRefuseWhatTheyDoNotHave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, false)
	l := w.rolled(t, time.Minute)
	start := worldStart + 60*60_000
	for text, want := range map[string]string{
		`irate(requests_total[5m])`:               "cannot be answered from rollups",
		`rate(requests_total[90s])`:               "no multiple",
		`rate(requests_total[5m] offset 10s)`:     "do not fall on",
		`rate(requests_total[5m]) * 2`:            "cannot be answered from rollups",
		`rate(requests_total[5m] @ 60)`:           "cannot be answered from rollups",
		`sum(max_over_time(requests_total[5m:]))`: "cannot be answered from rollups",
	} {
		q := vectorOf(t, text, start, start, 0)
		q.Resolution = 60_000
		if _, _, err := l.scan(t).evaluate(t.Context(), q); !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	q := vectorOf(t, `rate(requests_total[5m])`, start, start, 0)
	q.Resolution = 60_000
	if _, _, err := w.scan(t).evaluate(t.Context(), q); !errors.Is(err, fault.Invalid) {
		t.Errorf("points were taken for rollups: %v", err)
	}
	s := l.scan(t)
	for i := range s.segments {
		s.segments[i].Masked = append(s.segments[i].Masked, 1)
	}
	if _, _, err := s.evaluate(t.Context(), q); !errors.Is(err, rollup.ErrInexact) {
		t.Errorf("masked rollups: %v", err)
	}
}
