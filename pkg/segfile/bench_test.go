// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"fmt"
	"io"
	"math/rand/v2"
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
		service := fmt.Sprint("service-", rng.IntN(20))
		rows[i] = columns.LogRow{
			Time:        testStart.UnixNano() + int64(i)*int64(time.Hour)/n,
			Stream:      l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: service}, {Name: "k8s_pod_name", Value: fmt.Sprint(service, "-", rng.IntN(5))}}),
			Origin:      l.Origin(columns.Origin{Resource: []columns.Attribute{{Name: "service.name", Value: columns.Value{Str: service}}}}),
			Fingerprint: lake.Fingerprint(rng.Uint64N(40)),
			Body:        lineLikeReal(rng),
			Attributes:  []columns.Attribute{{Name: "http.method", Value: columns.Value{Str: "GET"}}, {Name: "http.status", Value: columns.Value{Kind: columns.KindInt, Num: 200}}},
		}
	}
	order := make([]uint32, n)
	var w Written
	b.ResetTimer()
	for b.Loop() {
		l.Reset()
		for i := range rows {
			service := fmt.Sprint("service-", i%20)
			rows[i].Stream = l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: service}})
			rows[i].Origin = l.Origin(columns.Origin{Resource: []columns.Attribute{{Name: "service.name", Value: columns.Value{Str: service}}}})
			l.Append(&rows[i])
			order[i] = uint32(i)
		}
		l.Sort(order)
		var err error
		if w, err = WriteLogs(b.Context(), io.Discard, io.Discard, l, order, Meta{Window: testMeta().Window}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(w.Bytes)/n, "bytes/row")
	b.ReportMetric(float64(w.SidecarBytes)/n, "sidecar-bytes/row")
}
