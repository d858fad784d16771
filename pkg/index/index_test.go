// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	if diff := cmp.Diff(map[string]uint64{"claim ok": 1, "receipt not_found": 1}, got); diff != "" {
		l.Error(diff)
	}
}
