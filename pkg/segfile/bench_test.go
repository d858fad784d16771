// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// BenchmarkWriteLogs sorts and writes an hour of 100,000 rows like those of a busy shop.
func BenchmarkWriteLogs(b *testing.B) {
	const n = 100_000
	l := columns.NewLogs()
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]columns.LogRow, n)
	for i := range rows {
		rows[i] = columns.LogRow{
			Time:        testStart.UnixNano() + int64(i)*int64(time.Hour)/n,
			Stream:      columns.StreamID(rng.IntN(20)),
			Fingerprint: lake.Fingerprint(rng.Uint64N(40)),
			Body:        lineLikeReal(rng),
			Attributes:  []columns.Attribute{{Name: "http.method", Value: columns.Value{Str: "GET"}}, {Name: "http.status", Value: columns.Value{Kind: columns.KindInt, Num: 200}}},
		}
	}
	order := make([]uint32, n)
	var w Written
	before := cpuTime(b)
	for b.Loop() {
		l.Reset()
		for i := range 20 {
			l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: fmt.Sprint("service-", i)}})
		}
		l.Origin(columns.Origin{})
		for i := range rows {
			l.Append(&rows[i])
			order[i] = uint32(i)
		}
		l.Sort(order)
		var err error
		if w, err = WriteLogs(b.Context(), io.Discard, io.Discard, l, order, Meta{Window: testMeta().Window}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(n*float64(b.N)/(cpuTime(b)-before).Seconds(), "rows/CPU-s")
	b.ReportMetric(float64(w.Bytes)/n, "bytes/row")
	b.ReportMetric(float64(w.SidecarBytes)/n, "sidecar-bytes/row")
}

// cpuTime is what the process has used of the CPU.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
