// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"bytes"
	"cmp"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// segments is a folder of level-0 segments; without one the benchmark makes its own.
var segments = flag.String("segments", "", "folder of segments to merge")

// BenchmarkMerge merges the segments of each hour.
func BenchmarkMerge(b *testing.B) {
	windows := benchSegments(b)
	var in, out, sidecars, rows int64
	before := cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		for start, inputs := range windows {
			o := MergeOptions{
				Meta: Meta{Organization: "bench", Signal: lake.SignalLogs, Window: lake.WindowOf(start, time.Hour), Level: 1, Lease: "lease"},
				Create: func(int) (io.Writer, io.Writer, func() error, error) {
					return io.Discard, io.Discard, func() error { return nil }, nil
				},
			}
			r, err := Merge(b.Context(), inputs, o)
			if err != nil {
				b.Fatal(err)
			}
			for _, i := range inputs {
				in += i.Size
			}
			for _, w := range r.Outputs {
				out, sidecars, rows = out+w.Bytes, sidecars+w.SidecarBytes, rows+w.Rows
			}
		}
	}
	b.ReportMetric(float64(rows)/(cpuTime(b)-before).Seconds(), "rows/CPU-s")
	b.ReportMetric(float64(in)/float64(rows), "bytes-in/row")
	b.ReportMetric(float64(out)/float64(rows), "bytes/row")
	b.ReportMetric(float64(sidecars)/float64(rows), "sidecar-bytes/row")
}

func benchSegments(b *testing.B) map[time.Time][]MergeInput {
	b.Helper()
	windows := map[time.Time][]MergeInput{}
	add := func(name string, file []byte) {
		c, err := ReadCatalogue(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			b.Fatal(err)
		}
		windows[c.Window.Start] = append(windows[c.Window.Start], MergeInput{Name: name, Parquet: bytes.NewReader(file), Size: int64(len(file))})
	}
	if *segments == "" {
		for seed := range uint64(6) {
			w := write(b, benchLogs(rand.New(rand.NewPCG(seed, 1)), 20_000), Meta{Window: lake.WindowOf(testStart, time.Hour)})
			add("own", w.parquet)
		}
		return windows
	}
	names, err := filepath.Glob(filepath.Join(*segments, "*.parquet"))
	if err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(names, func(x, y string) int { return cmp.Compare(x, y) })
	for _, name := range names {
		file, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		add(name, file)
	}
	return windows
}

// benchLogs makes rows like those of a busy shop.
func benchLogs(rng *rand.Rand, n int) *columns.Logs {
	l := columns.NewLogs()
	origin := l.Origin(columns.Origin{})
	var streams []columns.StreamID
	for i := range 20 {
		streams = append(streams, l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: string(rune('a' + i))}}))
	}
	for i := range n {
		l.Append(&columns.LogRow{
			Time: testStart.UnixNano() + int64(i)*int64(time.Hour)/int64(n), Stream: streams[rng.IntN(20)], Origin: origin,
			Fingerprint: lake.Fingerprint(rng.Uint64N(40)), Body: lineLikeReal(rng), Source: lake.ReceiptID(rng.IntN(3)),
			Attributes: []columns.Attribute{
				{Name: "http.method", Value: columns.Value{Str: "GET"}},
				{Name: "http.status", Value: columns.Value{Kind: columns.KindInt, Num: 200}},
			},
		})
	}
	return l
}
