// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"time"

	"github.com/lakerunner/lakerunner/pkg/local/postgres"
	"github.com/lakerunner/lakerunner/pkg/local/s3"
)

// stopPatience is how long each part may take to stop.
const stopPatience = 30 * time.Second

// foundation is what LakeRunner stands on: a database and a bucket, of this process or of somebody else.
type foundation struct {
	database string // URL of the index and of configdb
	bucket   bucket
	stops    []func(context.Context) error // in the order of starting
}

// stop ends what was started, in reverse order.
func (f *foundation) stop(ctx context.Context) error {
	var err error
	for i := len(f.stops) - 1; i >= 0; i-- {
		bounded, cancel := context.WithTimeout(ctx, stopPatience)
		err = errors.Join(err, f.stops[i](bounded))
		cancel()
	}
	f.stops = nil
	return err
}

// startDatabase uses LRDB_URL, or starts a local PostgreSQL.
func (f *foundation) startDatabase(ctx context.Context, o Options) error {
	if f.database = o.Getenv("LRDB_URL"); f.database != "" {
		return nil
	}
	if o.Postgres != 0 {
		if err := checkPort("--postgres-port", "PostgreSQL", postgresAddress(o.Postgres)); err != nil {
			return err
		}
	}
	o.say("starting PostgreSQL in %s", filepath.Join(o.Data, "postgres"))
	server, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(o.Data, "postgres"), Port: o.Postgres, Log: o.Log})
	if err != nil {
		return err
	}
	f.stops = append(f.stops, server.Stop)
	if err := server.CreateDatabase(ctx, "lakerunner"); err != nil {
		return err
	}
	f.database = server.URL("lakerunner")
	return nil
}

// startBucket uses S3_BUCKET, or serves one from the data directory.
func (f *foundation) startBucket(ctx context.Context, o Options, s settings) error {
	if name := o.Getenv("S3_BUCKET"); name != "" {
		f.bucket = bucket{
			Name: name, Provider: o.Getenv("S3_PROVIDER"), Endpoint: o.Getenv("S3_ENDPOINT"), Region: firstOf(o.Getenv("AWS_REGION"), o.Getenv("AWS_DEFAULT_REGION")),
			AccessKey: firstOf(o.Getenv("AWS_ACCESS_KEY_ID"), o.Getenv("AWS_ACCESS_KEY")), SecretKey: firstOf(o.Getenv("AWS_SECRET_ACCESS_KEY"), o.Getenv("AWS_SECRET_KEY")),
			PathStyle: o.Getenv("S3_ENDPOINT") != "",
		}
		return nil
	}
	if err := checkPort("--s3", "the S3 server", o.S3); err != nil {
		return err
	}
	o.say("starting the S3 server")
	server, err := s3.Start(ctx, s3.Options{
		Dir: filepath.Join(o.Data, "s3"), Listen: o.S3, AccessKey: s.S3AccessKey, SecretKey: s.S3SecretKey, WebhookURL: webhookURL(o, s),
	})
	if err != nil {
		return err
	}
	f.stops = append(f.stops, server.Stop)
	f.bucket = bucket{
		Name: localBucket, Endpoint: server.Endpoint(), Region: server.Region(), AccessKey: server.AccessKey(), SecretKey: server.SecretKey(), PathStyle: true, embedded: true,
	}
	return server.CreateBucket(ctx, localBucket)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// withoutPassword makes a database's URL fit to be shown.
func withoutPassword(database string) string {
	u, err := url.Parse(database)
	if err != nil || u.Host == "" {
		return "as LRDB_URL says"
	}
	return u.Redacted()
}
