// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

const (
	organization = "bench"
	bucketName   = "bench"
	rawPrefix    = "otel-raw/bench/corpus/"
	announced    = 1000 // objects told of at once
)

// fillBucket links the corpus's objects into the bucket, as a collector would have put them there.
func fillBucket(corpus, bucket string) (objects int64, err error) {
	paths, err := corpusObjects(corpus)
	if err != nil {
		return 0, err
	}
	target := filepath.Join(bucket, filepath.FromSlash(rawPrefix))
	if err := os.MkdirAll(target, 0o755); err != nil {
		return 0, fmt.Errorf("make the bucket: %w", err)
	}
	for _, path := range paths {
		if err := linkOrCopy(path, filepath.Join(target, filepath.Base(path))); err != nil {
			return 0, fmt.Errorf("fill the bucket: %w", err)
		}
	}
	return int64(len(paths)), nil
}

func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil || !errors.Is(err, syscall.EXDEV) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// announce writes receipt and task of each object, as the notifier does for events.
func (w workplace) announce(ctx context.Context, services *stack.Stack) error {
	idx, err := index.Open(ctx, index.Config{URL: w.Database})
	if err != nil {
		return err
	}
	defer idx.Close()
	bucket, err := services.Objects.Bucket(ctx, bucketName)
	if err != nil {
		return err
	}
	var notices []index.Notice
	for o, err := range bucket.List(ctx, rawPrefix, "") {
		if err != nil {
			return fmt.Errorf("list the bucket: %w", err)
		}
		notices = append(notices, index.Notice{
			Object:       lake.Object{Bucket: bucketName, Key: o.Key, Tag: o.Tag, Size: o.Size, LastModified: o.LastModified},
			Organization: organization, Collector: "corpus", Signal: w.Signal,
		})
	}
	for batch := range slices.Chunk(notices, announced) {
		if _, err := idx.Receive(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// ingestRole is the main function of the process whose cost is measured: one ingestor, until there is nothing left to do.
func ingestRole(ctx context.Context, w workplace) error {
	services, err := stack.Start(ctx, stack.Options{
		Database: w.Database, ConfigFiles: []string{w.config()}, Dir: filepath.Join(w.Dir, "ingest"), HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0",
		Roles: stack.Roles{Ingestor: true}, Log: logger(),
	})
	if err != nil {
		return err
	}
	if err := w.announce(ctx, services); err != nil {
		return errors.Join(err, services.Stop(ctx))
	}
	return errors.Join(awaitIdle(ctx, w.Database, lake.TaskIngest), services.Stop(ctx))
}

// awaitIdle waits until all tasks of a kind are done; one that could not be is an error.
func awaitIdle(ctx context.Context, database string, kind lake.TaskKind) error {
	idx, err := index.Open(ctx, index.Config{URL: database, MaxConns: 1})
	if err != nil {
		return err
	}
	defer idx.Close()
	return poll(ctx, func() (bool, error) {
		backlog, err := idx.Backlog(ctx)
		if err != nil {
			return false, err
		}
		var waiting int64
		for _, b := range backlog {
			if b.Kind != kind {
				continue
			}
			waiting += b.Tasks
			if b.Buried > 0 {
				return false, fmt.Errorf("%d tasks of kind %s are buried", b.Buried, kind)
			}
		}
		return waiting == 0, nil
	})
}

func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
