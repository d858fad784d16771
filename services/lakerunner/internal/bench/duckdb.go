// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/engine"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

// floor is DuckDB on the same files, with nothing around it.
type floor struct {
	config   engine.Config
	engine   *engine.Engine
	files    string // the table function that reads all segments
	services string // rows (file, stream, service) as SQL values; empty: there are no log streams
}

func openFloor(ctx context.Context, w workplace) (*floor, error) {
	pattern := filepath.Join(w.bucket(), "db", organization, w.Signal.String(), "*", "*", "*.parquet")
	services := ""
	if w.Signal == lake.SignalLogs {
		var err error
		if services, err = servicesOf(pattern); err != nil {
			return nil, err
		}
	}
	f := &floor{
		config:   engine.Config{Dir: w.bucket(), MemoryLimit: 4 << 30},
		files:    "read_parquet(" + literal(pattern) + ", filename = true)",
		services: services,
	}
	return f, f.reopen(ctx)
}

// servicesOf reads the catalogues: streams are numbered in each file by itself.
func servicesOf(pattern string) (string, error) {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	var rows []string
	for _, path := range paths {
		catalogue, err := readCatalogue(path)
		if err != nil {
			return "", fmt.Errorf("read the catalogue of %s: %w", path, err)
		}
		for stream, entry := range catalogue.Streams {
			for _, label := range entry.Labels {
				if label.Name == "service_name" {
					rows = append(rows, fmt.Sprintf("(%s, %d, %s)", literal(path), stream, literal(label.Value)))
				}
			}
		}
	}
	return strings.Join(rows, ", "), nil
}

func readCatalogue(path string) (*segfile.Catalogue, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return segfile.ReadCatalogue(file, info.Size())
}

// reopen starts DuckDB anew, with the streams in a table.
func (f *floor) reopen(ctx context.Context) (err error) {
	f.close()
	if f.engine, err = engine.Open(ctx, f.config); err != nil {
		return err
	}
	if f.services == "" {
		return nil
	}
	return f.run(ctx, "CREATE TABLE services AS SELECT * FROM (VALUES "+f.services+") t(file, stream, service)")
}

func (f *floor) close() {
	if f.engine != nil {
		f.engine.Close()
		f.engine = nil
	}
}

func (f *floor) measure(ctx context.Context, q *queryFigures) error {
	sql := strings.NewReplacer("{files}", f.files, "{services}", "services").Replace(q.query.floor)
	if err := f.reopen(ctx); err != nil {
		return err
	}
	dropPageCache()
	var err error
	if q.floorCold, err = f.timed(ctx, sql); err != nil {
		return err
	}
	var warm []time.Duration
	for range warmRuns {
		took, err := f.timed(ctx, sql)
		if err != nil {
			return err
		}
		warm = append(warm, took)
	}
	q.floorWarm = median(warm)
	return nil
}

func (f *floor) timed(ctx context.Context, sql string) (time.Duration, error) {
	started := time.Now()
	err := f.run(ctx, sql)
	return time.Since(started), err
}

// run reads a whole result.
func (f *floor) run(ctx context.Context, sql string) error {
	stream, err := f.engine.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		batch, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		batch.Release()
	}
}
