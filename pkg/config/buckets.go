// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"context"
	"sync"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// Buckets returns the store of the buckets that storage profiles name. Each is opened once and wrapped by wrap (nil: bare); one
// whose profile comes to reach it in another way is opened anew.
func Buckets(source Source, wrap func(objects.Bucket) objects.Bucket) objects.Store {
	if wrap == nil {
		wrap = func(b objects.Bucket) objects.Bucket { return b }
	}
	return &buckets{source: source, wrap: wrap, open: map[string]opened{}}
}

type buckets struct {
	source Source
	wrap   func(objects.Bucket) objects.Bucket

	mu   sync.Mutex
	open map[string]opened // by name
}

type opened struct {
	location string // LocationKey
	bucket   objects.Bucket
}

func (b *buckets) Bucket(ctx context.Context, name string) (objects.Bucket, error) {
	profile, ok := b.source.Current().Profile(name)
	if !ok {
		return nil, fault.New(fault.NotFound, "no storage profile names bucket %q: add one, or set S3_BUCKET", name)
	}
	location := LocationKey(profile.Location)
	// objects.Open asks nobody over the network, so the lock is held for no longer than it takes to read local settings.
	b.mu.Lock()
	defer b.mu.Unlock()
	if cached, ok := b.open[name]; ok && cached.location == location {
		return cached.bucket, nil
	}
	opening := profile.Location
	opening.Prices = profile.Prices.Requests
	bucket, err := objects.Open(ctx, opening)
	if err != nil {
		return nil, err
	}
	bucket = b.wrap(bucket)
	b.open[name] = opened{location: location, bucket: bucket}
	return bucket, nil
}
