// SPDX-License-Identifier: AGPL-3.0-only

package duty_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/stage"
	"github.com/lakerunner/lakerunner/services/janitor/internal/duty"
)

func organizations(ids ...lake.Organization) duty.Organizations {
	return func(context.Context) ([]lake.Organization, error) { return ids, nil }
}

func runner(x duty.Index, of duty.Organizations, every time.Duration, duties ...duty.Duty) *duty.Runner {
	return duty.New(duty.Options{Index: x, Organizations: of, Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{}, Every: every}, duties...)
}

func TestDuties(t *testing.T) {
	t.Parallel()

	t.Run("D1: every organization has every duty again and again", func(t *testing.T) {
		t.Parallel()
		x := indextest.New(t)
		ctx, stop := context.WithCancel(t.Context())
		seen := make(chan lake.Organization, 1000)
		r := runner(x, organizations("acme", "globex"), 20*time.Millisecond, duty.Duty{
			Kind: lake.TaskSweep, Interval: 10 * time.Millisecond,
			Work: func(_ context.Context, lease *lake.Lease) (lake.Edit, error) {
				seen <- lease.Organization
				return lake.Edit{}, nil
			},
		})
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		count := map[lake.Organization]int{}
		for count["acme"] < 3 || count["globex"] < 3 {
			select {
			case org := <-seen:
				count[org]++
			case <-time.After(time.Minute):
				t.Fatalf("seen: %v", count)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	t.Run("asking for what waits changes nothing", func(t *testing.T) {
		t.Parallel()
		x := indextest.New(t)
		r := runner(x, organizations("acme"), time.Minute,
			duty.Duty{Kind: lake.TaskExpire, Interval: time.Hour, PerSignal: true}, duty.Duty{Kind: lake.TaskUpkeep, Interval: time.Hour, Alone: true})
		for range 3 {
			if err := r.Ask(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		backlog, err := x.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		tasks := map[lake.TaskKind]int64{}
		for _, b := range backlog {
			tasks[b.Kind] += b.Tasks
		}
		if tasks[lake.TaskExpire] != 3 || tasks[lake.TaskUpkeep] != 1 {
			t.Errorf("got %v", tasks)
		}
		if lease, err := x.Claim(t.Context(), index.Batch{Kind: lake.TaskExpire}); err != nil || lease != nil {
			t.Errorf("a task can be claimed before its interval: %v, %v", lease, err)
		}
	})

	t.Run("one duty of all organizations is asked for once", func(t *testing.T) {
		t.Parallel()
		x := indextest.New(t)
		r := runner(x, organizations("acme", "globex"), time.Minute, duty.Duty{Kind: lake.TaskUpkeep, Interval: time.Hour, Alone: true})
		if err := r.Ask(t.Context()); err != nil {
			t.Fatal(err)
		}
		backlog, err := x.Backlog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(backlog, func(b index.Backlog) bool { return b.Kind == lake.TaskUpkeep })
		if i < 0 || backlog[i].Tasks != 1 {
			t.Errorf("got %+v", backlog)
		}
	})

	t.Run("D2: a duty that is asked for now runs at once, and not beside another", func(t *testing.T) {
		t.Parallel()
		x := indextest.New(t)
		task := lake.Task{Kind: lake.TaskSweep, Organization: "acme", Delay: time.Hour}
		ran := 0
		var inner error
		err := duty.Now(t.Context(), x, task, stage.Options{}, func(ctx context.Context, _ *lake.Lease) (lake.Edit, error) {
			ran++
			inner = duty.Now(ctx, x, task, stage.Options{}, func(context.Context, *lake.Lease) (lake.Edit, error) {
				ran++
				return lake.Edit{}, nil
			})
			return lake.Edit{}, nil
		})
		if err != nil || ran != 1 || fault.KindOf(inner) != fault.Unavailable {
			t.Errorf("ran %d times, %v, %v", ran, err, inner)
		}
	})
}
