// SPDX-License-Identifier: AGPL-3.0-only

// Package upkeep keeps the index's database in shape: partitions are there before they are needed, empty old ones go, history is trimmed in
// small batches, and the space that tables take is measured.
package upkeep

import (
	"cmp"
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Index is what upkeep needs of the index.
type Index interface {
	Now(ctx context.Context) (time.Time, error)
	MakePartitions(ctx context.Context, ahead int, dryRun bool) ([]string, error)
	DropPartitions(ctx context.Context, before time.Time, dryRun bool) ([]string, error)
	Trim(ctx context.Context, options index.TrimOptions) (map[string]int64, error)
	TableSizes(ctx context.Context) ([]index.TableSize, error)
}

// Deps are what upkeep works on.
type Deps struct {
	Index Index
	Meter metric.Meter
	// History is how long ended leases, shipped records and other accounts are kept. Zero: 30 days.
	History    time.Duration
	Checkpoint func(name string)
}

const (
	// ahead is how many months of partitions there are in advance.
	ahead = 3
	// emptyFor is how old a month must be for its empty partition to go: late data makes it anew.
	emptyFor = 60 * 24 * time.Hour
	batch    = 1000
)

// Keeper keeps the database in shape.
type Keeper struct {
	deps Deps

	mu     sync.Mutex
	tables []index.TableSize // as last measured
}

// New returns a keeper and registers its metrics.
func New(d Deps) (*Keeper, error) {
	d.History = cmp.Or(d.History, 30*24*time.Hour)
	k := &Keeper{deps: d}
	return k, k.register()
}

// Result says what was, or would be, done.
type Result struct {
	Made, Dropped []string
	Trimmed       map[string]int64
	Tables        []index.TableSize
}

// Duty does all of it.
func (k *Keeper) Duty(ctx context.Context, _ *lake.Lease) (lake.Edit, error) {
	_, err := k.Run(ctx, false)
	return lake.Edit{}, err
}

// Run does all of it. A dry run says only what it would do.
func (k *Keeper) Run(ctx context.Context, dryRun bool) (result Result, err error) {
	now, err := k.deps.Index.Now(ctx)
	if err != nil {
		return result, err
	}
	if result.Made, err = k.deps.Index.MakePartitions(ctx, ahead, dryRun); err != nil {
		return result, err
	}
	k.deps.Checkpoint("upkeep-made")
	if result.Dropped, err = k.deps.Index.DropPartitions(ctx, now.Add(-emptyFor), dryRun); err != nil {
		return result, err
	}
	k.deps.Checkpoint("upkeep-dropped")
	if result.Trimmed, err = k.deps.Index.Trim(ctx, index.TrimOptions{History: k.deps.History, Batch: batch, DryRun: dryRun}); err != nil {
		return result, err
	}
	result.Tables, err = k.deps.Index.TableSizes(ctx)
	if err == nil {
		k.mu.Lock()
		k.tables = result.Tables
		k.mu.Unlock()
	}
	return result, err
}

func (k *Keeper) register() error {
	var failed error
	gauge := func(name, unit, about string) metric.Int64ObservableGauge {
		g, err := k.deps.Meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(about))
		failed = cmp.Or(failed, err)
		return g
	}
	bytes := gauge("lakerunner.janitor.table_bytes", "By", "Space that a table of the index takes.")
	indexes := gauge("lakerunner.janitor.table_index_bytes", "By", "Space that a table's indexes take.")
	dead := gauge("lakerunner.janitor.table_dead_rows", "{row}", "Rows of a table that are dead and not vacuumed.")
	if failed != nil {
		return failed
	}
	_, err := k.deps.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, t := range k.tables {
			label := metric.WithAttributes(attribute.String("table", t.Table))
			o.ObserveInt64(bytes, t.Bytes, label)
			o.ObserveInt64(indexes, t.IndexBytes, label)
			o.ObserveInt64(dead, t.DeadRows, label)
		}
		return nil
	}, bytes, indexes, dead)
	return err
}
