// SPDX-License-Identifier: AGPL-3.0-only

package queryfrontend_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

// markedSeries are series of one organization: every name, label and value carries its mark.
func markedSeries(mark string, from time.Time, n int) []prom.Series {
	var out []prom.Series
	for _, instance := range []string{"a", "b", "c"} {
		one := prom.Series{Labels: labels.FromStrings(model.MetricNameLabel, mark+"_metric", "instance", mark+"-"+instance, mark+"_only", "1")}
		for i := range n {
			one.Times = append(one.Times, from.Add(time.Duration(i)*time.Second).UnixMilli())
			one.Values = append(one.Values, float64(i))
		}
		out = append(out, one)
	}
	return out
}

const allMetrics = `{__name__=~".+_metric"}`

// metricDoors ask for all metrics that there are.
func metricDoors() map[string]door {
	bounds := func(from, to time.Time) (*timestamppb.Timestamp, *timestamppb.Timestamp) {
		return timestamppb.New(from), timestamppb.New(to)
	}
	client := func(p *process) queryv1.QueryServiceClient { return queryv1.NewQueryServiceClient(p.conn) }
	all := map[string]door{
		"gRPC QueryMetrics": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			got, err := p.metrics(as(t.Context(), o), &queryv1.QueryMetricsRequest{Query: allMetrics, Start: start, End: end, Step: durationpb.New(time.Second)})
			return fmt.Sprint(got), err
		},
		"gRPC QueryMetrics by samples": func(t *testing.T, p *process, o lake.Organization, _, to time.Time) (string, error) {
			got, err := p.metrics(as(t.Context(), o), &queryv1.QueryMetricsRequest{Query: allMetrics + "[10m]", End: timestamppb.New(to)})
			return fmt.Sprint(got), err
		},
		"gRPC ListMetrics": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			return text(client(p).ListMetrics(as(t.Context(), o), &queryv1.ListMetricsRequest{Start: start, End: end}))
		},
		"gRPC ListMetricSeries": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			return text(client(p).ListMetricSeries(as(t.Context(), o), &queryv1.ListMetricSeriesRequest{Start: start, End: end}))
		},
		"gRPC ListMetricLabels": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			return text(client(p).ListMetricLabels(as(t.Context(), o), &queryv1.ListMetricLabelsRequest{Start: start, End: end}))
		},
		"gRPC ListMetricLabelValues": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			return text(client(p).ListMetricLabelValues(as(t.Context(), o), &queryv1.ListMetricLabelValuesRequest{Label: "__name__", Start: start, End: end}))
		},
		"gRPC ListExemplars": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			return text(client(p).ListExemplars(as(t.Context(), o), &queryv1.ListExemplarsRequest{Query: allMetrics, Start: start, End: end}))
		},
		"gRPC GetCardinality": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			start, end := bounds(from, to)
			return text(client(p).GetCardinality(as(t.Context(), o), &queryv1.GetCardinalityRequest{Start: start, End: end}))
		},
		"REST query": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			body, _ := json.Marshal(map[string]string{"query": allMetrics, "start": from.Format(time.RFC3339Nano), "end": to.Format(time.RFC3339Nano), "step": "1s"})
			status, content := p.do(t, o, http.MethodPost, "/api/v1/metrics:query", "application/json", string(body))
			if status != http.StatusOK {
				return "", fmt.Errorf("status %d: %s", status, content)
			}
			return content, nil
		},
	}
	for _, path := range []string{"metrics", "metrics/series", "metrics/labels", "metrics/labels/instance/values", "metrics/cardinality"} {
		all["REST "+path] = func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			return p.get(t, o, "/api/v1/"+path+"?"+url.Values{"start": {from.Format(time.RFC3339Nano)}, "end": {to.Format(time.RFC3339Nano)}}.Encode())
		}
	}
	for path, question := range map[string]url.Values{
		"query_range": {"query": {allMetrics}, "step": {"1"}}, "labels": {}, "label/instance/values": {}, "series": {"match[]": {allMetrics}}, "metadata": {},
		"query_exemplars": {"query": {allMetrics}},
	} {
		all["Prometheus "+path] = func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			question := url.Values{"start": {from.Format(time.RFC3339Nano)}, "end": {to.Format(time.RFC3339Nano)}, "query": question["query"], "step": question["step"], "match[]": question["match[]"]}
			return p.get(t, o, "/prometheus/api/v1/"+path+"?"+question.Encode())
		}
	}
	return all
}

// metrics asks, and joins the messages of the answer.
func (p *process) metrics(ctx context.Context, req *queryv1.QueryMetricsRequest) (*queryv1.QueryMetricsResponse, error) {
	stream, err := queryv1.NewQueryServiceClient(p.conn).QueryMetrics(ctx, req)
	if err != nil {
		return nil, err
	}
	var series []*queryv1.Series
	var arrow []byte
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		series, arrow = append(series, message.GetSeries()...), append(arrow, message.GetArrow()...)
		if message.GetStatistics() != nil {
			message.Series, message.Arrow = series, arrow
			_, err = stream.Recv()
			if !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("a message behind the last: %w", err)
			}
			return message, nil
		}
	}
}

// TestNoDoorShowsAnotherOrganizationsMetrics asks through every door as two organizations and as nobody.
func TestNoDoorShowsAnotherOrganizationsMetrics(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "acme", markedSeries("alpha", from, 20))
	p.IngestMetrics(t, "other", markedSeries("omega", from, 20))
	to := from.Add(time.Minute)
	for name, ask := range metricDoors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for organization, marks := range map[lake.Organization][2]string{"acme": {"alpha", "omega"}, "other": {"omega", "alpha"}} {
				got, err := ask(t, p, organization, from, to)
				if err != nil {
					t.Fatalf("%s: %v", organization, err)
				}
				if !strings.Contains(got, marks[0]) {
					t.Errorf("%s does not see its own series: %.300s", organization, got)
				}
				if strings.Contains(got, marks[1]) {
					t.Errorf("%s sees another's series: %.300s", organization, got)
				}
			}
			if got, err := ask(t, p, "", from, to); err == nil {
				t.Errorf("nobody was answered: %.300s", got)
			}
		})
	}
}

func TestQueryMetricsAnswersEveryKindOfValue(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Minute)
	native := &histogram.FloatHistogram{Schema: 1, ZeroThreshold: 0.001, ZeroCount: 1, Count: 4, Sum: 7, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{1, 2}}
	series := append(markedSeries("alpha", from, 120), prom.Series{
		Labels: labels.FromStrings(model.MetricNameLabel, "h"), HistogramTimes: []int64{from.UnixMilli()}, Histograms: []*histogram.FloatHistogram{native},
	})
	p.IngestMetrics(t, "acme", series)
	at, ctx := timestamppb.New(from.Add(time.Minute)), as(t.Context(), "acme")
	sample := func(v float64) []*queryv1.Sample { return []*queryv1.Sample{{Time: at, Value: v}} }
	for query, want := range map[string]*queryv1.QueryMetricsResponse{
		"1 + 1":             {Type: queryv1.ValueType_VALUE_TYPE_SCALAR, Series: []*queryv1.Series{{Samples: sample(2)}}},
		`"text"`:            {Type: queryv1.ValueType_VALUE_TYPE_STRING, Text: "text"},
		"sum(alpha_metric)": {Type: queryv1.ValueType_VALUE_TYPE_VECTOR, Series: []*queryv1.Series{{Samples: sample(180)}}},
		"topk(1, -alpha_metric{instance=\"alpha-a\"} or alpha_metric{instance=\"alpha-b\"})": {
			Type:   queryv1.ValueType_VALUE_TYPE_VECTOR,
			Series: []*queryv1.Series{{Labels: map[string]string{"__name__": "alpha_metric", "instance": "alpha-b", "alpha_only": "1"}, Samples: sample(60)}},
		},
		"h": {Type: queryv1.ValueType_VALUE_TYPE_VECTOR, Series: []*queryv1.Series{{Labels: map[string]string{"__name__": "h"}, Samples: []*queryv1.Sample{{Time: at, Histogram: &queryv1.Histogram{
			Schema: 1, ZeroThreshold: 0.001, ZeroCount: 1, Count: 4, Sum: 7, PositiveSpans: []*queryv1.HistogramSpan{{Length: 2}}, PositiveBuckets: []float64{1, 2},
		}}}}}},
		"alpha_metric[2s]": {Type: queryv1.ValueType_VALUE_TYPE_MATRIX},
	} {
		got, err := p.metrics(ctx, &queryv1.QueryMetricsRequest{Query: query, End: at})
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if query == "alpha_metric[2s]" {
			if len(got.GetSeries()) != 3 || len(got.GetSeries()[0].GetSamples()) != 2 {
				t.Errorf("%s: %v", query, got)
			}
			continue
		}
		want.Statistics, want.SamplesQueryable, want.SamplesPeak = got.GetStatistics(), got.GetSamplesQueryable(), got.GetSamplesPeak()
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&queryv1.Histogram{}, "reset_hint")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestLongAnswersComeInPartsAndAsArrow(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-3 * time.Hour).Truncate(time.Second)
	p.IngestMetrics(t, "acme", markedSeries("alpha", from, 9000))
	req := &queryv1.QueryMetricsRequest{Query: "alpha_metric", Start: timestamppb.New(from), End: timestamppb.New(from.Add(8999 * time.Second)), Step: durationpb.New(time.Second)}
	stream, err := queryv1.NewQueryServiceClient(p.conn).QueryMetrics(as(t.Context(), "acme"), req)
	if err != nil {
		t.Fatal(err)
	}
	messages, samples := 0, map[string]int{}
	for message, err := stream.Recv(); !errors.Is(err, io.EOF); message, err = stream.Recv() {
		if err != nil {
			t.Fatal(err)
		}
		messages++
		for _, s := range message.GetSeries() {
			samples[s.GetLabels()["instance"]] += len(s.GetSamples())
		}
	}
	if diff := cmp.Diff(map[string]int{"alpha-a": 9000, "alpha-b": 9000, "alpha-c": 9000}, samples); diff != "" || messages < 3 {
		t.Errorf("%d messages\n%s", messages, diff)
	}
	req.Arrow = true
	got, err := p.metrics(as(t.Context(), "acme"), req)
	if err != nil {
		t.Fatal(err)
	}
	if content := arrowText(t, bytes.NewReader(got.GetArrow())); !strings.Contains(content, "alpha-c") || len(got.GetSeries()) != 0 {
		t.Errorf("Arrow: %.200s", content)
	}
}

func TestWarningsAndInfosReachTheAnswer(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "acme", markedSeries("alpha", from, 100))
	got, err := p.metrics(as(t.Context(), "acme"), &queryv1.QueryMetricsRequest{Query: "sum(quantile_over_time(7, alpha_metric[1m])) + \n sum(rate(alpha_metric[1m]))", End: timestamppb.New(from.Add(time.Minute)), Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	warnings, infos := strings.Join(got.GetWarnings(), "\n"), strings.Join(got.GetInfos(), "\n")
	if !strings.Contains(warnings, "quantile value should be between 0 and 1, got 7 (1:24)") || !strings.Contains(infos, `"alpha_metric" (2:11)`) {
		t.Errorf("warnings %s\ninfos %s", warnings, infos)
	}
	got, err = p.metrics(as(t.Context(), "acme"), &queryv1.QueryMetricsRequest{Query: "alpha_metric", End: timestamppb.New(from.Add(time.Minute)), Limit: 2})
	if err != nil || len(got.GetSeries()) != 2 || len(got.GetWarnings()) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMetricQueriesAreChecked(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "frugal", markedSeries("alpha", from, 100))
	end := timestamppb.New(from.Add(time.Minute))
	for text, ask := range map[string]struct {
		req  *queryv1.QueryMetricsRequest
		kind fault.Kind
	}{
		"unclosed left parenthesis":           {&queryv1.QueryMetricsRequest{Query: "sum(", End: end}, fault.Invalid},
		"exceeded maximum resolution":         {&queryv1.QueryMetricsRequest{Query: "x", Start: timestamppb.New(from.Add(-12000 * time.Second)), End: end, Step: durationpb.New(time.Second)}, fault.Invalid},
		"zero or negative query resolution":   {&queryv1.QueryMetricsRequest{Query: "x", End: end, Step: durationpb.New(-time.Second)}, fault.Invalid},
		"must be Scalar or instant Vector":    {&queryv1.QueryMetricsRequest{Query: "x[5m]", End: end, Step: durationpb.New(time.Minute)}, fault.Invalid},
		"max_query_bytes":                     {&queryv1.QueryMetricsRequest{Query: "alpha_metric + alpha_metric offset 1s", End: end}, fault.Exhausted},
		"end timestamp must not be before st": {&queryv1.QueryMetricsRequest{Query: "x", Start: end, End: timestamppb.New(from), Step: durationpb.New(time.Minute)}, fault.Invalid},
	} {
		_, err := p.metrics(as(t.Context(), "frugal"), ask.req)
		if !errors.Is(err, ask.kind) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCancellingAMetricQueryEndsItsScans(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "acme", markedSeries("alpha", from, 100))
	began, goOn := p.hold()
	defer goOn()
	ctx, cancel := context.WithCancel(as(t.Context(), "acme"))
	failed := make(chan error, 1)
	go func() {
		_, err := p.metrics(ctx, &queryv1.QueryMetricsRequest{Query: "alpha_metric / on (instance) alpha_metric", End: timestamppb.New(from.Add(time.Minute))})
		failed <- err
	}()
	<-began
	cancel()
	left := time.Now()
	if err := <-failed; !errors.Is(err, fault.Canceled) {
		t.Error(err)
	}
	if took := time.Since(left); took > time.Second {
		t.Errorf("the query ended %s after its client had left", took)
	}
}

// TestLimitsOfMetricQueriesAreNamed meets each limit of an organization: its error says which it was, and what to narrow.
func TestLimitsOfMetricQueriesAreNamed(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "narrow", markedSeries("alpha", from, 100))
	for limit, ask := range map[string]struct {
		query   string
		kind    fault.Kind
		timeout time.Duration
	}{
		"max_query_series":  {query: "alpha_metric", kind: fault.Exhausted},
		"max_query_samples": {query: "sum(stddev_over_time(alpha_metric[5m]))", kind: fault.Exhausted},
		"query_timeout":     {query: "sum(alpha_metric)", kind: fault.Timeout, timeout: time.Nanosecond},
	} {
		req := &queryv1.QueryMetricsRequest{Query: ask.query, End: timestamppb.New(from.Add(2 * time.Minute))}
		if ask.timeout > 0 {
			req.Timeout = durationpb.New(ask.timeout)
		}
		_, err := p.metrics(as(t.Context(), "narrow"), req)
		if !errors.Is(err, ask.kind) || !strings.Contains(fmt.Sprint(err), limit) {
			t.Errorf("%s: %v", limit, err)
		}
	}
}

func TestCardinalityTellsNewSeriesFromVanishedOnes(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-20 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "acme", markedSeries("early", from, 60))
	p.IngestMetrics(t, "acme", markedSeries("late", from.Add(10*time.Minute), 60))
	stays := prom.Series{Labels: labels.FromStrings(model.MetricNameLabel, "stays", "instance", "early-a")}
	for i := range 20 {
		stays.Times, stays.Values = append(stays.Times, from.Add(time.Duration(i)*time.Minute).UnixMilli()), append(stays.Values, 1)
	}
	p.IngestMetrics(t, "acme", []prom.Series{stays})
	got, err := queryv1.NewQueryServiceClient(p.conn).GetCardinality(as(t.Context(), "acme"), &queryv1.GetCardinalityRequest{
		Start: timestamppb.New(from.Add(10 * time.Minute)), End: timestamppb.New(from.Add(20*time.Minute - time.Second)), Limit: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetSeries() != 4 || got.GetNewSeries() != 3 || got.GetVanishedSeries() != 3 || got.GetSamples() != 190 {
		t.Errorf("%v", got)
	}
	first := got.GetMetrics()[0]
	if len(got.GetMetrics()) != 2 || first.GetMetric().GetName() != "late_metric" || first.GetMetric().GetType() != "gauge" || first.GetNewSeries() != 3 || first.GetMetric().GetSeries() != 3 {
		t.Errorf("metrics %v", got.GetMetrics())
	}
	if l := got.GetLabels(); len(l) != 2 || l[0].GetName() != "instance" || l[0].GetSeries() != 4 || l[0].GetValues() != 4 || len(l[0].GetTop()) != 2 {
		t.Errorf("labels %v", l)
	}
}

func TestExplainSaysWhatWorkersAreAsked(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.IngestMetrics(t, "acme", markedSeries("alpha", from, 100))
	got, err := queryv1.NewQueryServiceClient(p.conn).Explain(as(t.Context(), "acme"), &queryv1.ExplainRequest{
		Query: "sum(rate(alpha_metric[1m])) / scalar(alpha_metric)", End: timestamppb.New(from.Add(time.Minute)), Language: queryv1.QueryLanguage_QUERY_LANGUAGE_PROMQL,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"merged by sum", "workers: sum(rate(alpha_metric[1m]))", "samples: times 1, segments 1, shards 1, slices 1"} {
		if !strings.Contains(got.GetPlan(), want) {
			t.Errorf("the plan lacks %q:\n%s", want, got.GetPlan())
		}
	}
	if got.GetSegments() != 1 || got.GetBytes() == 0 {
		t.Errorf("%d segments, %d bytes", got.GetSegments(), got.GetBytes())
	}
}
