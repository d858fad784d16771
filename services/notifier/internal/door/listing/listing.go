// SPDX-License-Identifier: AGPL-3.0-only

// Package listing is the door that needs no sender: it lists the buckets of the storage profiles and takes in what has no receipt.
// So an event that was lost makes an object late, and not lost.
//
// Where keys have time in them (package layout), only the last stretch is listed again and again: an hour each round, a day each
// hour, two days at the start. Where they have none, the keys are walked round and round. Either costs a bounded number of LIST
// requests a round, and goes on in the next round where that is not enough. Objects of the last seconds are left alone: their
// events are on the way.
package listing

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

// Name is the door's, in metrics.
const Name = "listing"

// Config is what users set.
type Config struct {
	// Off shuts the door: nothing is listed.
	Off bool `yaml:"off"`
	// Interval is how often each bucket is listed. Zero: one minute.
	Interval time.Duration `yaml:"interval"`
	// Lookback is the stretch of time that each round lists. Zero: one hour.
	Lookback time.Duration `yaml:"lookback"`
	// DeepInterval is how often DeepLookback is listed instead. Zero: one hour, and 26 hours.
	DeepInterval time.Duration `yaml:"deep_interval"`
	DeepLookback time.Duration `yaml:"deep_lookback"`
	// StartLookback is what the first round lists: what came while nobody listened. Zero: 48 hours.
	StartLookback time.Duration `yaml:"start_lookback"`
	// Requests bounds the LIST requests of one round in one bucket. Zero: 60, which S3 charges 0.43 US dollars a day.
	Requests int64 `yaml:"requests"`
	// Settle is how old an object must be. Zero: 30 seconds; negative: none is too young.
	Settle time.Duration `yaml:"settle"`
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.Interval, time.Minute},
		{&c.Lookback, time.Hour},
		{&c.DeepInterval, time.Hour},
		{&c.DeepLookback, 26 * time.Hour},
		{&c.StartLookback, 48 * time.Hour},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if c.Requests <= 0 {
		c.Requests = 60
	}
	if c.Settle == 0 {
		c.Settle = 30 * time.Second
	}
	return c
}

// Index is what the door needs of the index.
type Index interface {
	Known(ctx context.Context, bucket string, objects []lake.Object) ([]bool, error)
}

// Intake is what stands behind the door.
type Intake interface {
	Take(ctx context.Context, door string, notices []intake.Notice) ([]intake.Taken, error)
}

// Options are what a Door is made of.
type Options struct {
	Config  Config
	Index   Index
	Intake  Intake
	Source  config.Source
	Objects objects.Store
	Log     *slog.Logger
	Meter   metric.Meter
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Door lists.
type Door struct {
	options Options
	buckets map[string]*reconciler
	missed  metric.Int64Counter
	rounds  metric.Int64Counter
}

// New makes the door.
func New(o Options) *Door {
	o.Config = o.Config.withDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	// The names are constant and valid; creating the instruments cannot fail.
	missed, _ := o.Meter.Int64Counter("lakerunner.notifier.listing.missed", metric.WithDescription("Objects without a receipt that listing found."))
	rounds, _ := o.Meter.Int64Counter("lakerunner.notifier.listing.rounds", metric.WithDescription("Rounds of listing, one a bucket."))
	return &Door{options: o, buckets: map[string]*reconciler{}, missed: missed, rounds: rounds}
}

// Name is the door's.
func (d *Door) Name() string { return Name }

// Run lists until ctx ends.
func (d *Door) Run(ctx context.Context) error {
	if d.options.Config.Off {
		return nil
	}
	tick := time.NewTicker(d.options.Config.Interval)
	defer tick.Stop()
	for {
		d.Round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Round lists each bucket once. A bucket that cannot be listed does not keep the others from it.
func (d *Door) Round(ctx context.Context) {
	scopes := scopesOf(d.options.Source.Current())
	for name := range d.buckets {
		if _, still := scopes[name]; !still {
			delete(d.buckets, name)
		}
	}
	for name, prefixes := range scopes {
		if ctx.Err() != nil {
			return
		}
		err := d.bucket(name).round(ctx, prefixes)
		d.rounds.Add(ctx, 1)
		if err != nil && ctx.Err() == nil {
			d.options.Log.WarnContext(ctx, "listing stopped, and goes on in the next round", "bucket", name, "error", err)
		}
	}
}

func (d *Door) bucket(name string) *reconciler {
	r, ok := d.buckets[name]
	if !ok {
		r = &reconciler{door: d, bucket: name, walks: map[string]string{}, families: map[familyID]*family{}}
		d.buckets[name] = r
	}
	return r
}

// scopesOf returns what is to be listed: by bucket the fixed beginnings of its profiles' prefixes, none inside another.
func scopesOf(snapshot *config.Snapshot) map[string][]string {
	scopes := map[string][]string{}
	for _, p := range snapshot.Profiles() {
		fixed, _, _ := strings.Cut(p.Prefix, "{")
		fixed, _, _ = strings.Cut(fixed, "*")
		scopes[p.Bucket()] = append(scopes[p.Bucket()], fixed)
	}
	for bucket, prefixes := range scopes {
		slices.Sort(prefixes)
		var outer []string
		for _, p := range prefixes {
			if len(outer) == 0 || !strings.HasPrefix(p, outer[len(outer)-1]) {
				outer = append(outer, p)
			}
		}
		scopes[bucket] = outer
	}
	return scopes
}
