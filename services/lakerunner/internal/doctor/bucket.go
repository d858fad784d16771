// SPDX-License-Identifier: AGPL-3.0-only

package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

// otherKeys are the parts of a configuration file that services read.
func otherKeys() []string {
	return append(host.Sections(), "log", "grpc", "http", "tls", "client", "telemetry", "lrdb", "configdb", "shutdown", "runtime", "internal_token")
}

// checkBuckets checks each bucket once, however many profiles it has.
func (r *report) checkBuckets(ctx context.Context, source config.Source, idx *index.Index) {
	store := config.Buckets(source, nil)
	seen := map[string]bool{}
	for _, profile := range source.Current().Profiles() {
		name := profile.Bucket()
		if seen[name] {
			continue
		}
		seen[name] = true
		bucket, err := store.Bucket(ctx, name)
		if err != nil {
			r.add("bucket "+name, Bad, "mend the storage profile "+profile.Name, "%v", err)
			continue
		}
		usable := false
		bounded(ctx, checkPatience, func(ctx context.Context) { usable = r.checkBucket(ctx, bucket) })
		if usable {
			bounded(ctx, eventPatience, func(ctx context.Context) { r.checkEvents(ctx, bucket, source, idx) })
		}
	}
}

// checkBucket writes, reads, lists and deletes a small object of our own.
func (r *report) checkBucket(ctx context.Context, bucket objects.Bucket) bool {
	key, content := lake.Prefix+"doctor/"+rand.Text(), []byte("written by lakerunner doctor; may be deleted")
	before := time.Now()
	if _, err := bucket.Put(ctx, key, bytes.NewReader(content), int64(len(content))); err != nil {
		r.addDenied(bucket, "write", "s3:PutObject", err)
		return false
	}
	after := time.Now()
	defer func() {
		if err := bucket.Delete(context.WithoutCancel(ctx), key); err != nil {
			r.addDenied(bucket, "delete", "s3:DeleteObject", err)
		}
	}()
	if err := readBack(ctx, bucket, key, content); err != nil {
		r.addDenied(bucket, "read", "s3:GetObject", err)
		return false
	}
	if err := findInList(ctx, bucket, key); err != nil {
		r.addDenied(bucket, "list", "s3:ListBucket", err)
		return false
	}
	r.add("bucket "+bucket.Name(), Good, "", "can be written, read and listed")
	if attributes, err := bucket.Head(ctx, key); err == nil {
		r.addDrift("clock of the bucket", attributes.LastModified, before, after, time.Second)
	}
	return true
}

func (r *report) addDenied(bucket objects.Bucket, verb, right string, err error) {
	remedy := "check the storage profile's endpoint, region and keys"
	switch {
	case errors.Is(err, fault.Denied):
		remedy = "give the keys or the role the right " + right + " on this bucket"
	case errors.Is(err, fault.NotFound):
		remedy = "make the bucket, or mend its name in the storage profile"
	}
	r.add("bucket "+bucket.Name(), Bad, remedy, "cannot %s: %v", verb, err)
}

func readBack(ctx context.Context, bucket objects.Bucket, key string, want []byte) error {
	body, _, err := bucket.Get(ctx, key, "")
	if err != nil {
		return err
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("other bytes came back than were written")
	}
	return nil
}

func findInList(ctx context.Context, bucket objects.Bucket, key string) error {
	for attributes, err := range bucket.List(ctx, key, "") {
		if err != nil {
			return err
		}
		if attributes.Key == key {
			return nil
		}
	}
	return errors.New("an object that was written is not listed")
}

// checkEvents puts an empty object where telemetry is expected, and waits for its receipt: 'skipped', because it is empty. What has
// come by then came by an event; reconciliation by listing takes longer.
func (r *report) checkEvents(ctx context.Context, bucket objects.Bucket, source config.Source, idx *index.Index) {
	const check = "events"
	if idx == nil {
		r.add(check, Skipped, "see the check of PostgreSQL", "receipts cannot be seen")
		return
	}
	key, organization := telemetryKey(source.Current(), bucket.Name())
	if key == "" {
		r.add(check, Skipped, "", "no key could be made up that the storage profiles of %s claim", bucket.Name())
		return
	}
	if _, err := bucket.Put(ctx, key, strings.NewReader(""), 0); err != nil {
		r.addDenied(bucket, "write", "s3:PutObject", err)
		return
	}
	defer func() { _ = bucket.Delete(context.WithoutCancel(ctx), key) }()
	took, err := timed(func() error { return awaitReceipt(ctx, idx, organization, bucket.Name(), key) })
	if err != nil {
		r.add(check, Warning, "send the bucket's events (ObjectCreated) to the notifier's webhook; until then objects are found by listing, later", "an object put into %s was not heard of: %v", bucket.Name(), err)
		return
	}
	r.add(check, Good, "", "an object put into %s was heard of after %s", bucket.Name(), took.Round(time.Millisecond))
}

// telemetryKey makes up a key that is claimed for an organization.
func telemetryKey(snapshot *config.Snapshot, bucket string) (string, lake.Organization) {
	organizations := []lake.Organization{"default"}
	for _, o := range snapshot.Organizations() {
		organizations = append(organizations, o.ID)
	}
	for _, organization := range organizations {
		key := fmt.Sprintf("otel-raw/%s/doctor/logs_%s.binpb", organization, rand.Text())
		if resolved := snapshot.Resolve(bucket, key); resolved.SkipReason == "" {
			return key, resolved.Organization
		}
	}
	return "", ""
}

func awaitReceipt(ctx context.Context, idx *index.Index, organization lake.Organization, bucket, key string) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		receipts, _, err := idx.Receipts(ctx, index.ReceiptQuery{Organization: organization, Bucket: bucket, KeyPrefix: key, PageSize: 1})
		if err == nil && len(receipts) > 0 {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(errors.New("no receipt came"), err)
		}
	}
}
