// SPDX-License-Identifier: AGPL-3.0-only

package metricmapping_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metrictest"
)

// taking is a sink that takes every point of a content, and the rejected ones' reasons.
type taking struct {
	*metricmapping.Mapper
	rejected []string
}

func (s *taking) Reject(reason string, _ []byte) error {
	s.rejected = append(s.rejected, reason)
	return nil
}

func (s *taking) Point(p *decode.Point) error {
	series, reason, err := s.Series(p)
	if series == nil {
		s.rejected = append(s.rejected, reason)
		return err
	}
	s.Saw(p.Time)
	s.Append(series, p, 7)
	return nil
}

func samplesOf(t *testing.T, content string) ([]metrictest.Sample, []string) {
	t.Helper()
	store := metricfile.NewStore()
	s := &taking{Mapper: metricmapping.New(store)}
	s.Begin()
	if _, err := decode.Decode(strings.NewReader(content), decode.Options{}, decode.Sinks{Metrics: s}); err != nil {
		t.Fatal(err)
	}
	err := s.Targets(func(series *metricmapping.Series, ns int64) error {
		s.AppendTarget(series, ns, lake.ReceiptID(7))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return metrictest.Store(t, store), s.rejected
}

// TestKindsBecomeSamples has a document with a metric of each kind, as the examples of OpenTelemetry have it, and each sample that comes of it.
func TestKindsBecomeSamples(t *testing.T) {
	t.Parallel()
	const document = `{"resourceMetrics":[{
		"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"bakery"}}]},
		"scopeMetrics":[{
			"scope":{"name":"oven","version":"2.1","attributes":[{"key":"oven.door","value":{"stringValue":"open"}}]},
			"metrics":[
				{"name":"bread.sold","unit":"1","description":"Loaves.","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[
					{"asDouble":7,"startTimeUnixNano":"1795360000000000000","timeUnixNano":"1795360060000000000","attributes":[{"key":"kind","value":{"stringValue":"rye"}}]}]}},
				{"name":"oven.temperature","unit":"Cel","gauge":{"dataPoints":[
					{"asDouble":231.5,"timeUnixNano":"1795360060000000000"},{"timeUnixNano":"1795360120000000000","flags":1}]}},
				{"name":"bake.duration","unit":"min","histogram":{"aggregationTemporality":2,"dataPoints":[
					{"startTimeUnixNano":"1795360000000000000","timeUnixNano":"1795360060000000000","count":"4","sum":95,"bucketCounts":["1","3"],"explicitBounds":[20],"min":12,"max":31}]}},
				{"name":"dough.mass","unit":"g","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
					{"startTimeUnixNano":"1795360000000000000","timeUnixNano":"1795360060000000000","count":"5","sum":14,"scale":0,"zeroCount":"2","positive":{"offset":1,"bucketCounts":["0","3"]},"min":0,"max":6,"zeroThreshold":0}]}},
				{"name":"queue.wait","unit":"s","summary":{"dataPoints":[
					{"timeUnixNano":"1795360060000000000","count":"9","sum":18,"quantileValues":[{"quantile":0.5,"value":1.5},{"quantile":1,"value":6}]}]}},
				{"name":"flour.stock","unit":"kg","sum":{"aggregationTemporality":2,"dataPoints":[{"asInt":"-3","timeUnixNano":"1795360060000000000"}]}},
				{"name":"lost","sum":{"dataPoints":[{"asInt":"1","timeUnixNano":"1795360060000000000"}]}},
				{"name":"coarse","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"scale":-9,"timeUnixNano":"1795360060000000000"}]}}
			]}]}]}`
	const minute, start = 1795360060000000000, 1795360000000000000
	of := func(name string, extra ...string) string {
		return `{__name__="` + name + `", job="bakery", ` + strings.Join(extra, "") + `otel_scope_name="oven", otel_scope_oven_door="open", otel_scope_version="2.1"`
	}
	const service = `, service_name="bakery"}`
	want := []metrictest.Sample{
		{Series: of("bread_sold_total", `kind="rye", `) + service, Time: minute, Start: start, Value: "7", Delta: true},
		{Series: of("oven_temperature_celsius") + service, Time: minute, Value: "231.5"},
		{Series: of("oven_temperature_celsius") + service, Time: minute + 60e9, Value: "stale"},
		{Series: of("bake_duration_minutes_bucket", `le="20", `) + service, Time: minute, Start: start, Value: "1"},
		{Series: of("bake_duration_minutes_bucket", `le="+Inf", `) + service, Time: minute, Start: start, Value: "4"},
		{Series: of("bake_duration_minutes_sum") + service, Time: minute, Start: start, Value: "95"},
		{Series: of("bake_duration_minutes_count") + service, Time: minute, Start: start, Value: "4"},
		{Series: of("dough_mass_grams") + service, Time: minute, Start: start, Value: "schema 0, zero threshold 1e-128, {count:5, sum:14, [-1e-128,1e-128]:2, (4,8]:3}"},
		{Series: of("queue_wait_seconds") + `, quantile="0.5"` + service, Time: minute, Value: "1.5"},
		{Series: of("queue_wait_seconds") + `, quantile="1"` + service, Time: minute, Value: "6"},
		{Series: of("queue_wait_seconds_sum") + service, Time: minute, Value: "18"},
		{Series: of("queue_wait_seconds_count") + service, Time: minute, Value: "9"},
		{Series: of("flour_stock_kg") + service, Time: minute, Value: "-3"},
	}
	got, rejected := samplesOf(t, document)
	if diff := cmp.Diff(metrictest.Sort(want), got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{metricmapping.ReasonTemporality, metricmapping.ReasonHistogram}, rejected); diff != "" {
		t.Error(diff)
	}
}

// TestChangedTemporality holds that a series which begins to tell deltas keeps what it was before.
func TestChangedTemporality(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	for i, temporality := range []string{"2", "2", "1", "1"} {
		b.WriteString(`{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","sum":{"isMonotonic":true,"aggregationTemporality":` + temporality +
			`,"dataPoints":[{"asInt":"5","timeUnixNano":"179536006` + string(rune('0'+i)) + `000000000"}]}}]}]}]}` + "\n")
	}
	got, _ := samplesOf(t, b.String())
	for i, s := range got {
		if s.Series != `{__name__="x_total"}` || s.Delta != (i >= 2) || s.Time != 1795360060000000000+int64(i)*1e9 {
			t.Errorf("%+v", s)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d samples", len(got))
	}
}
