// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestOpen(t *testing.T) {
	t.Parallel()

	t.Run("a database that cannot be reached is fault.Unavailable", func(t *testing.T) {
		t.Parallel()
		_, err := index.Open(t.Context(), index.Config{URL: "postgres://nobody:secret@127.0.0.1:1/none?connect_timeout=2"})
		if fault.KindOf(err) != fault.Unavailable {
			t.Errorf("got %v of kind %s", err, fault.KindOf(err))
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is told: %v", err)
		}
	})

	t.Run("what is no URL is fault.Invalid, and is not told", func(t *testing.T) {
		t.Parallel()
		for _, url := range []string{"postgres://u:secret@host:notaport/x", "secret"} {
			_, err := index.Open(t.Context(), index.Config{URL: url})
			if fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v of kind %s", err, fault.KindOf(err))
			}
		}
	})

	t.Run("a database that was not migrated is fault.Unavailable", func(t *testing.T) {
		l := setup(t)
		l.exec("ALTER TABLE receipts RENAME TO gone")
		err := l.Ping(l.Context())
		l.wantFault(err, fault.Unavailable)
	})

	t.Run("the end of a call's context is told as such", func(t *testing.T) {
		l := setup(t)
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		_, err := l.Claim(ctx, ingest)
		l.wantFault(err, fault.Canceled)
	})

	t.Run("migrations that run at once wait for each other", func(t *testing.T) {
		t.Parallel()
		url := indextest.URL(t)
		errs := make(chan error)
		for range 4 {
			go func() { errs <- index.Migrate(t.Context(), url) }()
		}
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestClaimRefusesWhatCannotBe(t *testing.T) {
	l := setup(t)
	for name, batch := range map[string]index.Batch{
		"no kind":          {},
		"too many tasks":   {Kind: "k", MaxTasks: index.MaxBatchTasks + 1},
		"negative bytes":   {Kind: "k", MaxBytes: -1},
		"negative waiting": {Kind: "k", MaxWait: -1},
	} {
		if _, err := l.Claim(l.Context(), batch); fault.KindOf(err) != fault.Invalid {
			l.Errorf("%s: got %v, want fault.Invalid", name, err)
		}
	}
	l.wantFault(l.Enqueue(l.Context(), []lake.Task{{Kind: "", Organization: acme}}), fault.Invalid)
	l.wantFault(l.Enqueue(l.Context(), []lake.Task{{Kind: "k", Organization: "Not valid"}}), fault.Invalid)
}

func TestBacklog(t *testing.T) {
	l := setup(t)
	l.receive(notices(acme, 3)...)
	l.receive(notices("globex", 1)...)
	l.claim(index.Batch{Kind: lake.TaskIngest, MaxTasks: 1})
	got, err := l.Backlog(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for i := range got {
		if got[i].Oldest.IsZero() || time.Since(got[i].Oldest) > time.Minute {
			l.Errorf("oldest %s", got[i].Oldest)
		}
		got[i].Oldest = time.Time{}
	}
	want := []index.Backlog{
		{Kind: lake.TaskIngest, Organization: acme, Signal: lake.SignalLogs, Tasks: 3, Bytes: 300},
		{Kind: lake.TaskIngest, Organization: "globex", Signal: lake.SignalLogs, Tasks: 1, Bytes: 100},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		l.Error(diff)
	}
}

func TestInstrumented(t *testing.T) {
	l := setup(t)
	reader := sdk.NewManualReader()
	x, err := index.Instrumented(l.Index, sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test"))
	if err != nil {
		l.Fatal(err)
	}
	if _, err := x.Claim(l.Context(), ingest); err != nil {
		l.Fatal(err)
	}
	_, err = x.Receipt(l.Context(), 4711)
	l.wantFault(err, fault.NotFound)

	var all metricdata.ResourceMetrics
	if err := reader.Collect(l.Context(), &all); err != nil {
		l.Fatal(err)
	}
	got := map[string]uint64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
			for _, p := range h.DataPoints {
				verb, _ := p.Attributes.Value("verb")
				outcome, _ := p.Attributes.Value("outcome")
				got[verb.AsString()+" "+outcome.AsString()] = p.Count
			}
		}
	}
	if diff := cmp.Diff(map[string]uint64{"claim ok": 1, "receipt not_found": 1, "backlog ok": 1}, got); diff != "" {
		l.Error(diff)
	}
}

func TestBacklogGauges(t *testing.T) {
	l := setup(t)
	l.receive(notices(acme, 3)...)
	l.receive(notices("globex", 2)...)
	batch := index.Batch{Kind: lake.TaskIngest, MaxTasks: 1, MaxAttempts: 1}
	if err := l.Release(l.Context(), l.claim(batch), errors.New("poison")); err != nil {
		l.Fatal(err)
	}
	l.exec("UPDATE tasks SET created_at = created_at - interval '1 hour' WHERE state = 'ready' AND organization = 'globex'")
	reader := sdk.NewManualReader()
	_, err := index.Instrumented(l.Index, sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test"))
	if err != nil {
		l.Fatal(err)
	}
	want := map[string]float64{"backlog_tasks": 4, "backlog_bytes": 400, "buried_tasks": 1, "backlog_oldest": 3600}
	if diff := cmp.Diff(want, l.gauges(reader, "logs")); diff != "" {
		l.Error("all organizations' work is summed up:", diff)
	}
	none := map[string]float64{"backlog_tasks": 0, "backlog_bytes": 0, "buried_tasks": 0, "backlog_oldest": 0}
	if diff := cmp.Diff(none, l.gauges(reader, "unknown")); diff != "" {
		l.Error("a queue without work is told of:", diff)
	}
	l.exec("DELETE FROM tasks")
	if diff := cmp.Diff(want, l.gauges(reader, "logs")); diff != "" {
		l.Error("one reading serves many scrapes:", diff)
	}
}

// gauges collects the backlog's of one signal; ages are rounded to minutes.
func (l *lab) gauges(reader sdk.Reader, signal string) map[string]float64 {
	l.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(l.Context(), &all); err != nil {
		l.Fatal(err)
	}
	got := map[string]float64{}
	of := func(name string, set attribute.Set, v float64) {
		kind, _ := set.Value("kind")
		if s, ok := set.Value("signal"); ok && s.AsString() == signal && kind.AsString() == "ingest" && set.Len() == 2 {
			got[strings.TrimPrefix(name, "lakerunner.index.")] = v
		}
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Gauge[int64]:
			for _, p := range data.DataPoints {
				of(m.Name, p.Attributes, float64(p.Value))
			}
		case metricdata.Gauge[float64]:
			for _, p := range data.DataPoints {
				of(m.Name, p.Attributes, math.Round(p.Value/60)*60)
			}
		}
	}
	return got
}
