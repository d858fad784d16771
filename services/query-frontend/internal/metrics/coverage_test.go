// SPDX-License-Identifier: AGPL-3.0-only

package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// day is what the tests of rollups look at: a day whose samples come every half minute, for five series of a counter.
var day = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func counters() []prom.Series {
	var out []prom.Series
	for i := range 5 {
		one := prom.Series{Labels: labels.FromStrings(model.MetricNameLabel, "c_total", "i", fmt.Sprint(i), "odd", fmt.Sprint(i%2))}
		for t := day.Add(time.Duration(i) * time.Second); t.Before(day.Add(24 * time.Hour)); t = t.Add(30 * time.Second) {
			one.Times, one.Values = append(one.Times, t.UnixMilli()), append(one.Values, float64(len(one.Times)*(i+1)%1000))
		}
		out = append(out, one)
	}
	return out
}

// tiered is a lake with rollups.
type tiered struct {
	store   *workertest.Store
	worker  *workertest.Worker
	session *metrics.Session
	series  []prom.Series
	next    lake.SegmentID
}

func newTiered() *tiered {
	l := &tiered{store: workertest.NewStore(), series: counters()}
	l.worker = &workertest.Worker{Store: l.store}
	workers := []fan.Worker{{Name: "a", Client: l.worker}}
	l.session = &metrics.Session{
		Organization: "acme", Fan: fan.New(func() []fan.Worker { return workers }, fan.Options{}), Tally: fan.NewTally(0), Engine: prom.New(prom.Options{}),
		Lookback: promplan.DefaultLookback,
	}
	return l
}

// level stores segments of a resolution for windows of hours [from, to).
func (l *tiered) level(resolution, length time.Duration, from, to int) metrics.Level {
	level := metrics.Level{Resolution: resolution}
	for at := day.Add(time.Duration(from) * time.Hour); at.Before(day.Add(time.Duration(to) * time.Hour)); at = at.Add(length) {
		w := lake.WindowOf(at, length)
		part := slices.Clone(l.series)
		for i := range part {
			part[i].Trim(w.Start.UnixMilli(), w.End().UnixMilli()-1)
		}
		l.next++
		level.Segments = append(level.Segments, l.store.PutMetrics("acme", l.next, workertest.MetricSegment{Resolution: resolution, Window: w, Series: part}))
	}
	return level
}

// asked are which expressions workers were asked, of which resolution, from hour to hour.
func (l *tiered) asked() []string {
	var out []string
	for _, req := range l.worker.Scans() {
		v := req.GetMetricVector()
		hour := func(ms int64) time.Duration { return time.UnixMilli(ms).Sub(day) }
		out = append(out, fmt.Sprintf("%s of %s, %s to %s", strings.TrimSpace(v.GetExpression()), time.Duration(v.GetResolutionMs())*time.Millisecond, hour(v.GetStartMs()), hour(v.GetEndMs())))
	}
	slices.Sort(out)
	return out
}

func hours(from, to int, text string, step time.Duration) metrictest.Query {
	return metrictest.Query{Text: text, Start: day.Add(time.Duration(from) * time.Hour), End: day.Add(time.Duration(to) * time.Hour), Step: step}
}

// expect asks, and compares with what samples alone answer.
func (l *tiered) expect(t *testing.T, q metrictest.Query, asked ...string) metrics.Result {
	t.Helper()
	got, err := ask(t.Context(), l.session, q, promplan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asked, l.asked()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	alone := newTiered()
	alone.session.Samples = alone.level(0, time.Hour, 0, 24)
	want, err := ask(t.Context(), alone.session, q, promplan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := metrictest.Diff(want.Value, got.Value); diff != "" || metrictest.Size(want.Value) == 0 {
		t.Errorf("%d samples\n%s", metrictest.Size(want.Value), diff)
	}
	return got
}

func TestTheCoarsestResolutionThatIsThereAnswers(t *testing.T) {
	t.Parallel()
	l := newTiered()
	l.session.Samples = l.level(0, time.Hour, 0, 24)
	l.session.Rollups = []metrics.Level{l.level(time.Hour, time.Hour, 0, 12), l.level(5*time.Minute, time.Hour, 0, 20)}
	// A sample at twelve on the dot is in the window that ends there, and in the hour that begins there.
	got := l.expect(t, hours(2, 24, "sum by (odd) (rate(c_total[2h]))", time.Hour),
		"sum by (odd) (rate(c_total[2h])) of 0s, 20h0m0s to 24h0m0s",
		"sum by (odd) (rate(c_total[2h])) of 1h0m0s, 2h0m0s to 11h0m0s",
		"sum by (odd) (rate(c_total[2h])) of 5m0s, 12h0m0s to 19h0m0s")
	if got.Resolution != time.Hour || got.Bound <= 0 || got.Bound > 1e-12 {
		t.Errorf("resolution %s, bound %g", got.Resolution, got.Bound)
	}
}

func TestHoursWithoutACurrentRollupAreReadFromSamples(t *testing.T) {
	t.Parallel()
	l := newTiered()
	l.session.Samples = l.level(0, time.Hour, 0, 24)
	level := l.level(time.Hour, time.Hour, 0, 24)
	level.Uncovered = []lake.Window{lake.WindowOf(day.Add(5*time.Hour), time.Hour)}
	l.session.Rollups = []metrics.Level{level}
	l.expect(t, hours(1, 10, "max_over_time(c_total[1h])", time.Hour),
		"max_over_time(c_total[1h]) of 0s, 5h0m0s to 6h0m0s",
		"max_over_time(c_total[1h]) of 1h0m0s, 1h0m0s to 4h0m0s",
		"max_over_time(c_total[1h]) of 1h0m0s, 7h0m0s to 10h0m0s")
}

func TestWhatRollupsCannotTellIsReadFromSamples(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"irate(c_total[1h])", "rate(c_total[90m])", "sum(rate(c_total[1h]) * 2)", "rate(c_total[1h] offset 1m)"} {
		l := newTiered()
		l.session.Samples = l.level(0, time.Hour, 0, 24)
		l.session.Rollups = []metrics.Level{l.level(time.Hour, time.Hour, 0, 24)}
		if got := l.expect(t, hours(2, 10, text, time.Hour), text+" of 0s, 2h0m0s to 10h0m0s"); got.Resolution != 0 {
			t.Errorf("%s was answered from %s", text, got.Resolution)
		}
	}
}

func TestAnInexactRollupGivesWayToTheNext(t *testing.T) {
	t.Parallel()
	l := newTiered()
	l.session.Samples = l.level(0, time.Hour, 0, 24)
	l.session.Rollups = []metrics.Level{l.level(time.Hour, time.Hour, 0, 24)}
	l.worker.Inexact = true
	const text = "rate(c_total[1h])"
	if got := l.expect(t, hours(2, 10, text, time.Hour), text+" of 0s, 2h0m0s to 10h0m0s", text+" of 1h0m0s, 2h0m0s to 10h0m0s"); got.Resolution != 0 {
		t.Errorf("it says that %s answered", got.Resolution)
	}
}

func TestSamplesThatAreGoneAreAnErrorUnlessRollupsAnswer(t *testing.T) {
	t.Parallel()
	setup := func() *tiered {
		l := newTiered()
		l.session.Samples = l.level(0, time.Hour, 12, 24)
		l.session.Rollups = []metrics.Level{l.level(time.Hour, time.Hour, 0, 24)}
		l.session.Gone = day.Add(12 * time.Hour)
		return l
	}
	setup().expect(t, hours(1, 20, "sum(increase(c_total[1h]))", time.Hour), "sum(increase(c_total[1h])) of 1h0m0s, 1h0m0s to 20h0m0s")
	for _, text := range []string{"irate(c_total[1h])", "rate(c_total[5m])", "max_over_time(c_total[1h]) / on () group_left () vector(1) + on () info(c_total)"} {
		_, err := ask(t.Context(), setup().session, hours(6, 20, text, 20*time.Minute), promplan.Options{})
		if !errors.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "samples are kept since 2026-11-22T12:00:00Z only") {
			t.Errorf("%s: %v", text, err)
		}
	}
	l := setup()
	if _, err := ask(t.Context(), l.session, hours(13, 20, "irate(c_total[1h])", 20*time.Minute), promplan.Options{}); err != nil {
		t.Errorf("what is kept: %v", err)
	}
	// Of a time of which nothing is kept there is nothing to tell.
	if _, err := ask(t.Context(), l.session, hours(-40, -30, "irate(c_total[1h])", time.Hour), promplan.Options{}); err != nil {
		t.Errorf("what nobody knows of: %v", err)
	}
}

func TestLimitsAreNamed(t *testing.T) {
	t.Parallel()
	for limit, set := range map[string]metrics.Limits{"max_query_series": {Series: 4}, "max_query_samples": {Samples: 50}} {
		for _, text := range []string{"c_total", "c_total + c_total", "c_total{i=\"0\"} or c_total"} {
			l := newTiered()
			l.session.Samples, l.session.Limits = l.level(0, time.Hour, 0, 24), set
			_, err := ask(t.Context(), l.session, hours(1, 20, text, time.Hour), promplan.Options{})
			if !errors.Is(err, fault.Exhausted) || limit == "max_query_series" && !strings.Contains(err.Error(), limit) {
				t.Errorf("%s, %s: %v", limit, text, err)
			}
		}
	}
}

func TestWhatIsTooMuchForAWorkerAtOnceIsAskedInParts(t *testing.T) {
	t.Parallel()
	setup := func(enough uint32) *tiered {
		l := newTiered()
		l.session.Samples = l.level(0, time.Hour, 0, 24)
		l.worker.Before = func(_ context.Context, req *workertest.Request) error {
			if req.GetMetricVector().GetShard().GetCount() < enough {
				return fault.New(fault.Exhausted, "too many series")
			}
			return nil
		}
		return l
	}
	whole := setup(0)
	for _, text := range []string{"sum by (odd) (c_total)", "avg(rate(c_total[5m]))", "topk(2, c_total)"} {
		q := hours(1, 20, text, time.Hour)
		want, err := ask(t.Context(), whole.session, q, promplan.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(t.Context(), setup(64).session, q, promplan.Options{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := metrictest.Diff(want.Value, got.Value); diff != "" || metrictest.Size(got.Value) == 0 {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for text, enough := range map[string]uint32{"c_total": 2, "sum(c_total)": 1000} {
		if _, err := ask(t.Context(), setup(enough).session, hours(1, 20, text, time.Hour), promplan.Options{}); !errors.Is(err, fault.Exhausted) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCancellationEndsAQuery(t *testing.T) {
	t.Parallel()
	l := newTiered()
	l.session.Samples = l.level(0, time.Hour, 0, 24)
	began := make(chan struct{}, 10)
	l.worker.Before = func(ctx context.Context, _ *workertest.Request) error {
		began <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	for _, text := range []string{"c_total", "c_total / c_total offset 1h"} {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := ask(ctx, l.session, hours(1, 20, text, time.Hour), promplan.Options{})
			failed <- err
		}()
		<-began
		cancel()
		if err := <-failed; !errors.Is(err, fault.Canceled) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
