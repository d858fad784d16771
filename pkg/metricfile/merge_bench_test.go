// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// scraped are segments of the same series, each of some scrapes in a row.
func scraped(b *testing.B, segments, series, scrapes int) (inputs []MergeInput, samples int64) {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	values := make([]float64, series)
	at := testStart.UnixNano()
	all := make([]Series, series)
	for i := range all {
		all[i] = Series{Labels: labels.FromStrings("__name__", fmt.Sprint("metric_", i%200), "job", "api", "pod", fmt.Sprint("pod-", i/200), "zone", "eu-1",
			"path", fmt.Sprint("/v1/", i%7), "method", "GET", "code", "200", "instance", fmt.Sprint("10.0.0.", i/200, ":9090"))}
	}
	for n := range segments {
		st := NewStore()
		for range scrapes {
			at += 3600e9 / int64(segments*scrapes+1)
			for i := range all {
				if i%2 == 0 {
					values[i] += float64(rng.IntN(100)) // a counter
				} else {
					values[i] = float64(rng.IntN(100000)) / 1000 // a gauge
				}
				st.Float(st.Series(&all[i]), Stamp{Time: at + int64(i/200)*1e6, Source: lake.ReceiptID(n + 1)}, values[i])
			}
		}
		w := write(b, st, allRows(st), Meta{Window: lake.WindowOf(testStart, 3600e9)})
		inputs = append(inputs, inputOf(w))
		samples += w.Samples
	}
	return inputs, samples
}

// cpuSeconds is what the process has used, of all its threads.
func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

func BenchmarkMerge(b *testing.B) {
	for _, c := range []struct {
		name                      string
		segments, series, scrapes int
		shards                    uint32
	}{
		{"16 segments of 4 scrapes", 16, 10_000, 4, 1},
		{"16 segments of 4 scrapes into 8 shards", 16, 10_000, 4, 8},
		{"4 segments of 60 scrapes", 4, 5_000, 60, 1},
		{"2 segments of 240 scrapes", 2, 2_000, 240, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			inputs, samples := scraped(b, c.segments, c.series, c.scrapes)
			var bytes, sidecars int64
			b.ResetTimer()
			b.ReportAllocs()
			before := cpuSeconds(b)
			for b.Loop() {
				begun := 0
				result, err := Merge(b.Context(), inputs, MergeOptions{Meta: Meta{Window: lake.WindowOf(testStart, 3600e9), Level: 2}, Shards: c.shards, Create: discard(&begun)})
				if err != nil {
					b.Fatal(err)
				}
				bytes, sidecars = 0, 0
				for _, o := range result.Outputs {
					bytes += o.Bytes
					sidecars += o.SidecarBytes
				}
			}
			b.ReportMetric(float64(samples)*float64(b.N)/(cpuSeconds(b)-before)/1e6, "Msamples/CPUs")
			b.ReportMetric(float64(bytes)/float64(samples), "B/sample")
			b.ReportMetric(float64(sidecars)/float64(samples), "sidecarB/sample")
		})
	}
}
