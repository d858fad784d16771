// SPDX-License-Identifier: AGPL-3.0-only

package metrics_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/metrics"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// BenchmarkJoin is a join of 9,600 buckets with 800 pods over six hours, less the evaluation of its leaves: what the frontend does with them.
func BenchmarkJoin(b *testing.B) {
	const steps = 355
	begin := day.UnixMilli()
	var buckets, pods []prom.Series
	flat := func(l labels.Labels, value float64) prom.Series {
		one := prom.Series{Labels: l}
		for i := range steps {
			one.Times, one.Values = append(one.Times, begin+int64(i)*60_000), append(one.Values, value)
		}
		return one
	}
	for pod := range 800 {
		name := fmt.Sprintf("checkout-%d", pod)
		pods = append(pods, flat(labels.FromStrings(model.MetricNameLabel, "kube_pod_info", "k8s_pod_name", name, "node", fmt.Sprint("node-", pod%40)), 1))
		for le := range 12 {
			buckets = append(buckets, flat(labels.FromStrings("k8s_pod_name", name, "k8s_namespace_name", "default", "service_name", "checkout", "http_request_method", "GET",
				"http_route", "/cart/checkout", "instance", fmt.Sprint("10.0.0.", pod), "job", "default/checkout", "le", fmt.Sprint(le)), float64(le)))
		}
	}
	canned := map[string][]*workerv1.ScanResponse{"rate": workertest.Canned(prom.Sorted(buckets)), "kube": workertest.Canned(prom.Sorted(pods))}
	client := workertest.Answering(func(req *workerv1.ScanRequest) []*workerv1.ScanResponse {
		return canned[strings.TrimSpace(req.GetMetricVector().GetExpression())[:4]]
	})
	workers := []fan.Worker{{Name: "a", Client: client}}
	asking := fan.New(func() []fan.Worker { return workers }, fan.Options{})
	q := metrictest.Query{
		Text:  "sum by (node, le) (rate(b_bucket[5m]) * on (k8s_pod_name) group_left (node) kube_pod_info)",
		Start: day, End: day.Add((steps - 1) * time.Minute), Step: time.Minute,
	}
	segments := []lake.Segment{{Organization: "acme", Signal: lake.SignalMetrics, Key: "k", FirstTime: day, LastTime: day.Add(24 * time.Hour)}}
	b.ReportAllocs()
	for b.Loop() {
		s := &metrics.Session{
			Organization: "acme", Fan: asking, Tally: fan.NewTally(0), Engine: prom.New(prom.Options{}), Lookback: promplan.DefaultLookback,
			Samples: metrics.Level{Segments: segments},
		}
		got, err := ask(context.Background(), s, q, promplan.Options{})
		if err != nil || metrictest.Size(got.Value) != 40*12*steps {
			b.Fatalf("%d samples, %v", metrictest.Size(got.Value), err)
		}
	}
}
