// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"fmt"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// otlpMetrics makes points of every kind, of so many series, a second apart: a counter and every tenth series a histogram.
func otlpMetrics(t testing.TB, series, points int, from time.Time) []byte {
	t.Helper()
	m := pmetric.NewMetrics()
	for pod := range max(series/50, 1) {
		resource := m.ResourceMetrics().AppendEmpty()
		attributes := resource.Resource().Attributes()
		attributes.PutStr("service.name", "checkout")
		attributes.PutStr("service.instance.id", fmt.Sprint("pod-", pod))
		attributes.PutStr("k8s.pod.name", fmt.Sprint("checkout-", pod))
		attributes.PutStr("host.arch", "arm64")
		scope := resource.ScopeMetrics().AppendEmpty()
		counter := scope.Metrics().AppendEmpty()
		counter.SetName("http.requests")
		sum := counter.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		durations := scope.Metrics().AppendEmpty()
		durations.SetName("http.duration")
		durations.SetUnit("s")
		histogram := durations.SetEmptyHistogram()
		histogram.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for i := range min(series, 50) {
			for k := range points {
				at := pcommon.NewTimestampFromTime(from.Add(time.Duration(k) * time.Second))
				if i%10 == 9 {
					p := histogram.DataPoints().AppendEmpty()
					p.SetTimestamp(at)
					p.Attributes().PutStr("route", fmt.Sprint("/r", i))
					p.ExplicitBounds().FromRaw([]float64{0.1, 0.5, 1, 5})
					p.BucketCounts().FromRaw([]uint64{uint64(k), uint64(k), 1, 1, 0})
					p.SetCount(uint64(2*k + 2))
					p.SetSum(float64(k) / 4)
					continue
				}
				p := sum.DataPoints().AppendEmpty()
				p.SetStartTimestamp(pcommon.NewTimestampFromTime(from.Add(-time.Hour)))
				p.SetTimestamp(at)
				p.Attributes().PutStr("code", fmt.Sprint(200+i))
				p.SetIntValue(int64(k * i))
			}
		}
	}
	b, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
