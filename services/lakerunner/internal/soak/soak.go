// SPDX-License-Identifier: AGPL-3.0-only

// Package soak runs every service in one process under a steady load of objects and queries, and watches memory, debt, lag, latency and
// disk for as long as it is told.
//
// The load's rows are of the last hours, and kept for three; source objects are deleted after minutes. So everything that happens to a
// segment happens all the time, and the disk has a bound. The load is made in the same process: its memory counts as well. It is
// no benchmark: the load is far below what the machine could do.
package soak

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/local/postgres"
	"github.com/lakerunner/lakerunner/pkg/objects"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// Options say how long and how much.
type Options struct {
	For   time.Duration
	Every time.Duration // between two samples
	Lines int           // rows put each second, in one object
	Out   io.Writer
}

const (
	organization = "soak"
	hours        = 3 // that the rows are spread over
)

// Run soaks, prints a line of figures each time, and at the end a verdict. An unsteady figure is an error.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "lakerunner-soak-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := postgres.Start(ctx, postgres.Options{Dir: filepath.Join(os.TempDir(), "lakerunner-soak-postgres"), NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	database := fmt.Sprintf("soak_%d", time.Now().UnixNano())
	if err := server.CreateDatabase(ctx, database); err != nil {
		return err
	}
	s := &soak{Options: o, dir: dir, key: config.NewSecret(), latency: &latencies{}}
	return s.run(ctx, server.URL(database))
}

// soak is one that is going on.
type soak struct {
	Options
	dir, key string
	index    *index.Index
	bucket   objects.Bucket
	notifier notifierv1.NotifierServiceClient
	query    queryv1.QueryServiceClient
	latency  *latencies
}

func (s *soak) run(ctx context.Context, database string) (err error) {
	if err := s.writeConfig(); err != nil {
		return err
	}
	services, err := stack.Start(ctx, stack.Options{
		Database: database, ConfigFiles: []string{s.config()}, Dir: filepath.Join(s.dir, "work"), HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Tune: hurry,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, services.Stop(context.WithoutCancel(ctx))) }()
	if s.index, err = index.Open(ctx, index.Config{URL: database, MaxConns: 2}); err != nil {
		return err
	}
	defer s.index.Close()
	if s.bucket, err = services.Objects.Bucket(ctx, organization); err != nil {
		return err
	}
	conn, err := grpc.NewClient(services.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	s.notifier, s.query = notifierv1.NewNotifierServiceClient(conn), queryv1.NewQueryServiceClient(conn)
	return s.soak(ctx)
}

// hurry has done within minutes what is done within hours.
func hurry(s *stack.ServiceSettings) {
	s.Compactor.Settle, s.Compactor.ScanInterval, s.Compactor.FreshWait = time.Minute, 10*time.Second, 30*time.Second
	j := &s.Janitor
	j.Grace, j.Retention, j.Sweep, j.Raw = time.Minute, time.Minute, 20*time.Second, 20*time.Second
	j.Reconcile, j.Inspect, j.Upkeep, j.Ship = time.Minute, time.Minute, time.Minute, 20*time.Second
}

// soak runs load, queries and samples side by side.
func (s *soak) soak(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	// What is under way at the end runs out in peace: a query cut short then would look like one that failed.
	over, cancel := context.WithTimeout(ctx, s.For)
	defer cancel()
	samples := &series{}
	group.Go(func() error { return every(ctx, over.Done(), time.Second, s.put) })
	group.Go(func() error { return every(ctx, over.Done(), 500*time.Millisecond, s.askLines) })
	group.Go(func() error { return every(ctx, over.Done(), 2*time.Second, s.askCounts) })
	group.Go(func() error {
		samples.header(s.Out)
		return every(ctx, over.Done(), s.Every, func(ctx context.Context, n int) error {
			sampled, err := s.sample(ctx, time.Duration(n+1)*s.Every)
			if err != nil {
				return err
			}
			samples.add(s.Out, sampled)
			return nil
		})
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return samples.verdict(s.Out)
}

// every calls f at an interval until it is over, or ctx ends; that is no error.
func every(ctx context.Context, over <-chan struct{}, interval time.Duration, f func(ctx context.Context, n int) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-over:
			return nil
		case <-ticker.C:
		}
		if err := f(ctx, n); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// put writes the next object and tells the notifier of it.
func (s *soak) put(ctx context.Context, n int) error {
	made, err := sample.Objects(sample.Options{
		Seed: uint64(n), Organization: organization, End: time.Now().Add(-time.Duration(n%hours) * time.Hour), Length: 10 * time.Second, Lines: s.Lines, Objects: 1,
	})
	if err != nil {
		return err
	}
	o := made[0]
	written, err := s.bucket.Put(ctx, o.Key, bytes.NewReader(o.Body), int64(len(o.Body)))
	if err != nil {
		return err
	}
	_, err = s.notifier.NotifyObjects(s.as(ctx), &notifierv1.NotifyObjectsRequest{
		Objects: []*lakev1.Object{{Bucket: organization, Key: o.Key, Tag: written.Tag, Size: written.Size}},
	})
	return err
}

func (s *soak) as(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.key)
}

func (s *soak) askLines(ctx context.Context, n int) error {
	queries := []string{`{service_name="checkout"} |= "declined"`, `{service_name=~".+"} | detected_level="error"`, `{service_name="gateway"} |= "GET" != "200"`}
	now := time.Now()
	return s.latency.measure(func() error {
		stream, err := s.query.QueryLogs(s.as(ctx), &queryv1.QueryLogsRequest{
			Query: queries[n%len(queries)], Start: timestamppb.New(now.Add(-hours * time.Hour)), End: timestamppb.New(now), Limit: 100,
		})
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
}

func (s *soak) askCounts(ctx context.Context, _ int) error {
	return s.latency.measure(func() error {
		_, err := s.query.QuerySamples(s.as(ctx), &queryv1.QuerySamplesRequest{
			Query: `sum by (service_name) (count_over_time({service_name=~".+"}[1h]))`, End: timestamppb.Now(),
		})
		return err
	})
}

func (s *soak) config() string  { return filepath.Join(s.dir, "lakerunner.yaml") }
func (s *soak) storage() string { return filepath.Join(s.dir, "bucket") }

func (s *soak) writeConfig() error {
	if err := os.MkdirAll(s.storage(), 0o755); err != nil {
		return err
	}
	hash := config.Hash(s.key)
	document := fmt.Sprintf(`organizations:
  - id: %[1]s
    limits: {query_timeout: 30s}
    retention:
      - {signal: logs, keep: 3h}
storage_profiles:
  - name: soak
    bucket: %[1]s
    provider: file
    directory: %[2]q
    raw: {action: expire, after: 2m}
api_keys:
  - id: soak
    organization: %[1]s
    scopes: [query, ingest]
    sha256: %[3]s
`, organization, s.storage(), hex.EncodeToString(hash[:]))
	return os.WriteFile(s.config(), []byte(document), 0o600)
}

// diskBytes are what files below a directory have; those that go meanwhile do not count.
func diskBytes(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += info.Size()
		}
		return nil
	})
	return total, err
}
