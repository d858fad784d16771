// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"go.opentelemetry.io/collector/pdata/plog"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// BenchmarkOTLP compares ways to read OTLP protobuf, uncompressed: ours, OpenTelemetry's collector library, and its generated Go.
// LAKERUNNER_BENCH_CORPUS names a directory of *.binpb.gz to measure on; without it content is generated.
func BenchmarkOTLP(b *testing.B) {
	content := benchContent(b)
	rows := len(decodeBytes(content).Rows)
	b.Run("walk", func(b *testing.B) {
		var scratch decode.Scratch
		perCPU(b, rows, func() error {
			_, err := decode.Decode(bytes.NewReader(content), decode.Options{Scratch: &scratch}, decode.Sinks{Logs: discarding{}})
			return err
		})
	})
	b.Run("pdata", func(b *testing.B) {
		perCPU(b, rows, func() error {
			_, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(content)
			return err
		})
	})
	b.Run("generated", func(b *testing.B) {
		perCPU(b, rows, func() error { return proto.Unmarshal(content, &logs.LogsData{}) })
	})
}

type discarding struct{}

func (discarding) Origin(*columns.Origin)      {}
func (discarding) Row(*columns.LogRow) error   { return nil }
func (discarding) Reject(string, []byte) error { return nil }

func benchContent(b *testing.B) []byte {
	b.Helper()
	directory := os.Getenv("LAKERUNNER_BENCH_CORPUS")
	if directory == "" {
		var content []byte
		for seed := range uint64(2000) {
			content = append(content, marshalProto(b, generated(seed))...)
		}
		return content
	}
	paths, err := filepath.Glob(filepath.Join(directory, "*.binpb.gz"))
	if err != nil || len(paths) == 0 {
		b.Fatalf("no *.binpb.gz in %s: %v", directory, err)
	}
	compressed, err := os.ReadFile(paths[len(paths)/2])
	if err != nil {
		b.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		b.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	return content
}

func perCPU(b *testing.B, rows int, work func() error) {
	b.Helper()
	b.ReportAllocs()
	before, total := cpuNanoseconds(b), 0
	for b.Loop() {
		if err := work(); err != nil {
			b.Fatal(err)
		}
		total += rows
	}
	took := cpuNanoseconds(b) - before
	b.ReportMetric(float64(took)/float64(total), "cpu-ns/row")
}

func cpuNanoseconds(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
