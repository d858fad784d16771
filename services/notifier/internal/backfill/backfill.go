// SPDX-License-Identifier: AGPL-3.0-only

// Package backfill hands over what stands in a bucket already: estimated first, newest first, throttled, in steps that can be paused
// and that survive whoever takes them.
//
// A backfill has two phases. The survey walks the prefix once: it notes the families of keys that have time in them (package
// layout) by their first object alone, and counts the other objects by the day of their last modification. Then the backfill goes
// from the newest day downwards: a family's day is listed by itself; the other objects, whose keys say nothing, are divided into
// few bands of days, and for each the keys are walked once more. So the price is known (a LIST for each thousand keys and each
// family's day, a few times over for keys without time), and memory does not grow with the bucket.
//
// Newest first holds between days and bands; within them it holds for each thousand objects. Objects in a family whose day lies
// more than a week before Scope.After are not looked for: they would have been written more than a week after the time in their keys.
package backfill

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

// Name is what metrics call the door of backfills.
const Name = "backfill"

// Config is what users set.
type Config struct {
	// ObjectsPerSecond is the throttle of a backfill that names none. Zero: 500.
	ObjectsPerSecond int `yaml:"objects_per_second"`
	// MaxBacklog is how many objects may wait for ingest before backfills wait, so that fresh objects do not. Zero: 10,000.
	MaxBacklog int64 `yaml:"max_backlog"`
	// Drivers is how many backfills move at once in this process. Zero: 2.
	Drivers int `yaml:"drivers"`
	// Poll is how often a driver without work looks for some. Zero: 5 seconds.
	Poll time.Duration `yaml:"poll"`
	// EstimateObjects and EstimateTime bound an estimate's listing. Zero: 500,000 and 20 seconds.
	EstimateObjects int64         `yaml:"estimate_objects"`
	EstimateTime    time.Duration `yaml:"estimate_time"`
	// IngestBytesPerSecond is what the ingestors are expected to take, for estimates; more, if more was seen. Zero: 16 MiB.
	IngestBytesPerSecond int64 `yaml:"ingest_bytes_per_second"`
}

func (c Config) withDefaults() Config {
	if c.ObjectsPerSecond <= 0 {
		c.ObjectsPerSecond = 500
	}
	if c.MaxBacklog <= 0 {
		c.MaxBacklog = 10_000
	}
	if c.Drivers <= 0 {
		c.Drivers = 2
	}
	if c.Poll <= 0 {
		c.Poll = 5 * time.Second
	}
	if c.EstimateObjects <= 0 {
		c.EstimateObjects = 500_000
	}
	if c.EstimateTime <= 0 {
		c.EstimateTime = 20 * time.Second
	}
	if c.IngestBytesPerSecond <= 0 {
		c.IngestBytesPerSecond = 16 << 20
	}
	return c
}

// Scope says what a backfill covers.
type Scope struct {
	Bucket string
	Prefix string
	After  time.Time // of the last modification, inclusive; zero: no bound
	Before time.Time // exclusive; zero: no bound
}

// holds reports whether an object is covered.
func (s Scope) holds(a objects.Attributes) bool {
	if lake.OwnKey(a.Key) {
		return false
	}
	return !a.LastModified.Before(s.After) && (s.Before.IsZero() || a.LastModified.Before(s.Before))
}

// Index is what backfills need of the index.
type Index interface {
	Known(ctx context.Context, bucket string, objects []lake.Object) ([]bool, error)
	Receipts(ctx context.Context, query index.ReceiptQuery) ([]lake.Receipt, string, error)
	Backlog(ctx context.Context) ([]index.Backlog, error)
	CreateBackfill(ctx context.Context, backfill index.Backfill) (index.Backfill, error)
	SetBackfillState(ctx context.Context, id index.BackfillID, state index.BackfillState, reason string) (index.Backfill, error)
	ClaimBackfill(ctx context.Context, duration time.Duration) (*index.BackfillLease, error)
	AdvanceBackfill(ctx context.Context, lease *index.BackfillLease, step index.BackfillStep) (index.Backfill, error)
	ReleaseBackfill(ctx context.Context, lease *index.BackfillLease) error
}

// Intake is what stands behind the door.
type Intake interface {
	Take(ctx context.Context, door string, notices []intake.Notice) ([]intake.Taken, error)
}

// Options are what Backfills are made of.
type Options struct {
	Config  Config
	Index   Index
	Intake  Intake
	Source  config.Source
	Objects objects.Store
	Log     *slog.Logger
	Meter   metric.Meter
}

// Backfills estimates, creates and drives backfills.
type Backfills struct {
	options Options
	steps   metric.Int64Counter
}

// New makes Backfills.
func New(o Options) *Backfills {
	o.Config = o.Config.withDefaults()
	// The name is constant and valid; creating the instrument cannot fail.
	steps, _ := o.Meter.Int64Counter("lakerunner.notifier.backfill.steps", metric.WithDescription("Steps of backfills, by phase."))
	return &Backfills{options: o, steps: steps}
}

// Create estimates a backfill and starts it. A throttle of zero is the default one.
func (b *Backfills) Create(ctx context.Context, s Scope, objectsPerSecond int) (index.Backfill, error) {
	estimate, err := b.Estimate(ctx, s, objectsPerSecond)
	if err != nil {
		return index.Backfill{}, fmt.Errorf("estimate the backfill: %w", err)
	}
	return b.options.Index.CreateBackfill(ctx, index.Backfill{
		Bucket:           s.Bucket,
		Prefix:           s.Prefix,
		ModifiedAfter:    s.After,
		ModifiedBefore:   s.Before,
		ObjectsPerSecond: objectsPerSecond,
		Estimate:         estimate,
	})
}

func (b *Backfills) rate(objectsPerSecond int) int {
	if objectsPerSecond > 0 {
		return objectsPerSecond
	}
	return b.options.Config.ObjectsPerSecond
}

func objectOf(bucket string, a objects.Attributes) lake.Object {
	return lake.Object{Bucket: bucket, Key: a.Key, Tag: a.Tag, Size: a.Size, LastModified: a.LastModified}
}
