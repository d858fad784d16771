package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

func corpusLab(t testing.TB, dir string) *lab {
	l := &lab{dir: dir}
	bucket, err := objects.Open(t.Context(), objects.Location{Provider: "file", Name: "lake", Directory: l.dir})
	if err != nil {
		t.Fatal(err)
	}
	parse := func(b []byte) (any, error) { return metricfile.ReadCatalogue(b) }
	c, err := cache.Open(cache.Options[any]{Dir: t.TempDir(), Bytes: 10 << 30, ParsedBytes: 1 << 30, Parse: parse}, directoryStore{bucket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l.scanner = New(cache.Of[*metricfile.Catalogue]{Cache: c}, Options{Parallel: 2, MaxSeries: 200000})
	b, err := os.ReadFile(dir + "/segments.json")
	if err != nil {
		t.Fatal(err)
	}
	var segs []struct {
		Key            string
		Bytes, Sidecar int64
		First, Last    int64
		Shard          lake.Shard
	}
	if err := json.Unmarshal(b, &segs); err != nil {
		t.Fatal(err)
	}
	for _, s := range segs {
		l.segments = append(l.segments, Segment{
			File: cache.Object{Bucket: "lake", Key: s.Key, Bytes: s.Bytes}, Sidecar: cache.Object{Bucket: "lake", Key: lake.SidecarKey(s.Key), Bytes: s.Sidecar},
			First: s.First, Last: s.Last, Shard: s.Shard,
		})
	}
	return l
}

var corpusQueries = []struct {
	name, text string
	instant    bool
}{
	{"M1", `up`, true},
	{"M2", `sum by (service_name)(rate(http_requests_total[5m]))`, false},
	{"M3", `sum by (le)(rate(http_server_request_duration_seconds_bucket[5m]))`, false},
	{"M3b", `sum by (le)(rate(http_server_request_duration_seconds_bucket{service_name="checkout"}[5m]))`, false},
	{"M4", `sum by (k8s_pod_name)(rate(http_requests_total[5m]))`, false},
	{"M5", `rate(http_server_request_duration_seconds_bucket[5m])`, false},
	{"M6", `count({__name__=~".+"})`, true},
}

func BenchmarkCorpus(b *testing.B) {
	l := corpusLab(b, os.Getenv("WK_LAKE"))
	start := time.Date(2026, 11, 22, 10, 5, 0, 0, time.UTC).UnixMilli()
	end := time.Date(2026, 11, 22, 15, 59, 50, 0, time.UTC).UnixMilli()
	for _, q := range corpusQueries {
		expr, err := prom.Parse(q.text)
		if err != nil {
			b.Fatal(err)
		}
		v := Vector{Text: q.text, Expr: expr, Start: start, End: end, Step: 60_000, Lookback: 300_000}
		if q.instant {
			v.Start, v.Step = end, 0
		}
		b.Run(q.name, func(b *testing.B) {
			cpu0 := cpu()
			defer func() { b.ReportMetric(float64(cpu()-cpu0)/1e6/float64(b.N), "cpu-ms/op") }()
			for b.Loop() {
				s := l.scanner.Begin(b.Context(), l.segments, 0)
				n, samples := 0, 0
				if _, err := s.Vector(b.Context(), v, func(batch arrow.RecordBatch) error {
					n += int(batch.NumRows())
					return nil
				}); err != nil {
					b.Fatal(err)
				}
				s.End()
				samples = int(s.Statistics.Samples.Load())
				b.ReportMetric(float64(n), "series")
				b.ReportMetric(float64(samples), "samples")
			}
		})
	}
	_ = fmt.Sprint
}

func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
