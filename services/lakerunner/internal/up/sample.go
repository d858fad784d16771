// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/objects"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

const (
	sampleSeed     = 20260301
	trickleEvery   = 2 * time.Second
	tricklePerTick = 40
	metricsEvery   = 10 * time.Second
)

// loadSample puts the sample into the bucket and waits until all of it can be queried. An interrupted load is repeated with the
// same objects, of which each is ingested once.
func (u *running) loadSample(ctx context.Context) error {
	if u.settings.SampleEnd.IsZero() {
		u.settings.SampleEnd = u.options.Now().UTC().Truncate(time.Second)
		if err := u.settings.save(u.options.Data); err != nil {
			return err
		}
	}
	made, err := sample.Objects(sample.Options{Seed: sampleSeed, Organization: Organization, End: u.settings.SampleEnd})
	if err != nil {
		return err
	}
	metrics, series, err := sample.MetricObjects(sample.MetricOptions{Seed: sampleSeed, Organization: Organization, End: u.settings.SampleEnd})
	if err != nil {
		return err
	}
	u.options.say("loading sample telemetry: %d rows of logs, %d points of metrics", sample.Rows(made), sample.Points(metrics))
	for _, o := range metrics {
		if err := u.put(ctx, o.Key, o.Body); err != nil {
			return err
		}
	}
	for _, o := range made {
		if err := u.put(ctx, o.Key, o.Body); err != nil {
			return err
		}
	}
	if err := await(ctx, "rows", int64(sample.Rows(made)), u.count); err != nil {
		return err
	}
	if err := await(ctx, "samples of "+countedMetric, samplesOf(countedMetric, series), u.countMetric); err != nil {
		return err
	}
	u.settings.SampleLoaded = true
	return u.settings.save(u.options.Data)
}

// samplesOf counts the samples of a metric that are no stale markers.
func samplesOf(name string, series []sample.Series) (n int64) {
	for _, s := range series {
		if s.Labels.Get(model.MetricNameLabel) != name {
			continue
		}
		for _, p := range s.Samples {
			if !value.IsStaleNaN(p.Value) {
				n++
			}
		}
	}
	return n
}

// put writes an object, as a collector would. Only for a bucket that is not ours, whose events may go elsewhere, the notifier is told.
func (u *running) put(ctx context.Context, key string, body []byte) error {
	written, err := u.bucket.Put(ctx, key, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return fmt.Errorf("put the sample: %w", err)
	}
	if u.foundation.bucket.embedded {
		return nil
	}
	return u.notify(ctx, written)
}

func (u *running) notify(ctx context.Context, written objects.Attributes) error {
	_, err := u.notifier.NotifyObjects(ctx, &notifierv1.NotifyObjectsRequest{Objects: []*lakev1.Object{{
		Bucket: u.foundation.bucket.Name, Key: written.Key, Tag: written.Tag, Size: written.Size,
	}}})
	if err != nil {
		return fmt.Errorf("announce %s: %w", path.Base(written.Key), err)
	}
	return nil
}

// trickle goes on shopping until ctx ends, with the pods of the sample: their metrics count from now on.
func (u *running) trickle(ctx context.Context) error {
	metrics := sample.NewMetrics(sample.MetricOptions{
		Seed: sampleSeed, Organization: Organization, Collector: "trickle", End: u.options.Now(), Length: time.Nanosecond, Step: metricsEvery,
		Endless: true,
	})
	ticker := time.NewTicker(trickleEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if err := u.trickleTo(ctx, metrics, now); err != nil {
				return err
			}
		}
	}
}

// trickleTo puts what the shop did until a time.
func (u *running) trickleTo(ctx context.Context, metrics *sample.Metrics, now time.Time) error {
	made, err := sample.Objects(sample.Options{
		Seed: uint64(now.UnixNano()), Organization: Organization, Collector: "trickle", End: now, Length: trickleEvery, Lines: tricklePerTick, Objects: 1,
	})
	if err != nil {
		return err
	}
	measured, err := metrics.Object(now)
	if err != nil {
		return err
	}
	if err := u.put(ctx, made[0].Key, made[0].Body); err != nil && ctx.Err() == nil {
		u.options.Log.Warn("sample object lost", "error", err)
	}
	if measured.Points == 0 {
		return nil
	}
	if err := u.put(ctx, measured.Key, measured.Body); err != nil && ctx.Err() == nil {
		u.options.Log.Warn("sample object lost", "error", err)
	}
	return nil
}
