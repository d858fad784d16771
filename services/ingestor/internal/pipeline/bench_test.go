// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/mapping"
)

// corpus returns gzipped OTLP objects: those of the directory that LAKERUNNER_BENCH_CORPUS names, at most `most`, else ones made here.
func corpus(b *testing.B, most int) [][]byte {
	b.Helper()
	directory := os.Getenv("LAKERUNNER_BENCH_CORPUS")
	if directory == "" {
		return [][]byte{gzipped(otlpLogs(20_000, benchTime()))}
	}
	paths, err := filepath.Glob(filepath.Join(directory, "*.binpb.gz"))
	if err != nil || len(paths) == 0 {
		b.Fatalf("no *.binpb.gz in %s: %v", directory, err)
	}
	var contents [][]byte
	for _, path := range paths[:min(most, len(paths))] {
		content, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		contents = append(contents, content)
	}
	return contents
}

func benchTime() time.Time { return time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC) }

// perCPU reports rows per second of CPU time, garbage collection included.
func perCPU(b *testing.B, work func() int) {
	b.Helper()
	b.ReportAllocs()
	before, rows := cpuTime(b), 0
	for b.Loop() {
		rows += work()
	}
	took := cpuTime(b) - before
	b.ReportMetric(float64(rows)/took.Seconds(), "rows/cpu-s")
	b.ReportMetric(float64(took.Nanoseconds())/float64(rows), "cpu-ns/row")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// counting counts rows and does nothing with them.
type counting struct{ rows int }

func (c *counting) Origin(*columns.Origin)      {}
func (c *counting) Row(*columns.LogRow) error   { c.rows++; return nil }
func (c *counting) Reject(string, []byte) error { return nil }

// appending maps rows and appends them.
type appending struct {
	mapper *mapping.Mapper
	logs   *columns.Logs
}

func (a *appending) Origin(o *columns.Origin) { a.mapper.Origin(o) }
func (a *appending) Row(r *columns.LogRow) error {
	a.mapper.Row(r, 1024)
	a.logs.Append(r)
	return nil
}
func (a *appending) Reject(string, []byte) error { return nil }

// BenchmarkGunzip is the floor: reading the compressed content.
func BenchmarkGunzip(b *testing.B) {
	contents := corpus(b, 10)
	rows := 0
	for _, content := range contents {
		rows += decoded(b, content)
	}
	perCPU(b, func() int {
		for _, content := range contents {
			z, err := gzip.NewReader(bytes.NewReader(content))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, z); err != nil {
				b.Fatal(err)
			}
		}
		return rows
	})
}

func decoded(b *testing.B, content []byte) int {
	b.Helper()
	c := &counting{}
	if _, err := decode.Decode(bytes.NewReader(content), decode.Options{}, decode.Sinks{Logs: c}); err != nil {
		b.Fatal(err)
	}
	return c.rows
}

// BenchmarkDecode is gunzip and decoding.
func BenchmarkDecode(b *testing.B) {
	contents := corpus(b, 10)
	perCPU(b, func() int {
		rows := 0
		for _, content := range contents {
			rows += decoded(b, content)
		}
		return rows
	})
}

// BenchmarkAppend is gunzip, decoding, mapping and appending.
func BenchmarkAppend(b *testing.B) {
	contents := corpus(b, 10)
	logs := columns.NewLogs()
	a := &appending{logs: logs, mapper: mapping.New(logs)}
	a.mapper.SetLabels(config.DefaultStreamLabels())
	var scratch decode.Scratch
	perCPU(b, func() int {
		logs.Reset()
		a.mapper.Reset()
		for _, content := range contents {
			if _, err := decode.Decode(bytes.NewReader(content), decode.Options{Scratch: &scratch}, decode.Sinks{Logs: a}); err != nil {
				b.Fatal(err)
			}
		}
		return logs.Len()
	})
}

// BenchmarkWork is the whole of a lease, from objects in a directory to segments in it.
func BenchmarkWork(b *testing.B) {
	contents := corpus(b, 40)
	f := newFixture(b)
	var receipts []lake.Receipt
	for i, content := range contents {
		receipts = append(receipts, f.put(fmt.Sprintf("logs-raw/acme/%04d.binpb.gz", i), content))
	}
	perCPU(b, func() int {
		edit, err := f.worker.Work(context.Background(), f.lease(receipts...))
		if err != nil {
			b.Fatal(err)
		}
		rows := int64(0)
		for _, s := range edit.Add {
			rows += s.Rows
		}
		return int(rows)
	})
}
