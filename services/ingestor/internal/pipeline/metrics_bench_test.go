// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// metricCorpus returns objects of metrics: those of the directory that LAKERUNNER_BENCH_METRICS names, at most `most`, else ones made here.
func metricCorpus(b *testing.B, most int) [][]byte {
	b.Helper()
	directory := os.Getenv("LAKERUNNER_BENCH_METRICS")
	if directory == "" {
		return [][]byte{gzipped(otlpMetrics(b, 500, 60, benchTime()))}
	}
	paths, err := filepath.Glob(filepath.Join(directory, "*"))
	if err != nil || len(paths) == 0 {
		b.Fatalf("nothing in %s: %v", directory, err)
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

// tally counts samples and does nothing with them.
type tally struct {
	kind    decode.MetricKind
	samples int
}

func (c *tally) Origin(*columns.Origin)       {}
func (c *tally) Metric(m *decode.Metric)      { c.kind = m.Kind }
func (c *tally) Family(string, decode.Family) {}
func (c *tally) Reject(string, []byte) error  { return nil }
func (c *tally) Point(p *decode.Point) error {
	c.samples += samplesOf(c.kind, p)
	return nil
}

// samplesOf is how many samples of Prometheus' a point stands for.
func samplesOf(kind decode.MetricKind, p *decode.Point) int {
	switch kind {
	case decode.MetricHistogram:
		return len(p.Bounds) + 3
	case decode.MetricSummary:
		return len(p.Bounds) + 2
	}
	return 1
}

// storing maps points and stores them.
type storing struct {
	*metricmapping.Mapper
	kind    decode.MetricKind
	samples int
}

func (s *storing) Metric(m *decode.Metric) {
	s.kind = m.Kind
	s.Mapper.Metric(m)
}

func (s *storing) Reject(string, []byte) error { return nil }
func (s *storing) Point(p *decode.Point) error {
	series, _, err := s.Series(p)
	if series == nil {
		return err
	}
	s.Saw(p.Time)
	s.Append(series, p, 1)
	s.samples += samplesOf(s.kind, p)
	return nil
}

// BenchmarkMetricDecode is gunzip and decoding.
func BenchmarkMetricDecode(b *testing.B) {
	contents := metricCorpus(b, 20)
	var scratch decode.Scratch
	perCPU(b, func() int {
		var c tally
		for _, content := range contents {
			if _, err := decode.Decode(bytes.NewReader(content), decode.Options{Scratch: &scratch}, decode.Sinks{Metrics: &c}); err != nil {
				b.Fatal(err)
			}
		}
		return c.samples
	})
}

// BenchmarkMetricStore is gunzip, decoding, mapping and storing.
func BenchmarkMetricStore(b *testing.B) {
	contents := metricCorpus(b, 20)
	store := metricfile.NewStore()
	s := &storing{Mapper: metricmapping.New(store)}
	var scratch decode.Scratch
	perCPU(b, func() int {
		store.Reset()
		s.Reset()
		s.samples = 0
		for _, content := range contents {
			s.Begin()
			if _, err := decode.Decode(bytes.NewReader(content), decode.Options{Scratch: &scratch}, decode.Sinks{Metrics: s}); err != nil {
				b.Fatal(err)
			}
		}
		return s.samples
	})
}

// BenchmarkMetricWork is the whole of a lease, from objects in a directory to segments in it.
func BenchmarkMetricWork(b *testing.B) {
	contents := metricCorpus(b, 60)
	f := newFixture(b)
	var receipts []lake.Receipt
	for i, content := range contents {
		receipts = append(receipts, f.put(fmt.Sprintf("metrics-raw/acme/%04d", i), content))
	}
	var c tally
	for _, content := range contents {
		if _, err := decode.Decode(bytes.NewReader(content), decode.Options{}, decode.Sinks{Metrics: &c}); err != nil {
			b.Fatal(err)
		}
	}
	var bytes, rows int64
	perCPU(b, func() int {
		edit, err := f.worker.Work(context.Background(), f.lease(receipts...))
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range edit.Add {
			bytes += s.Bytes + s.SidecarBytes
			rows += s.Rows
		}
		return c.samples
	})
	b.ReportMetric(float64(bytes)/float64(rows), "bytes/point")
}
