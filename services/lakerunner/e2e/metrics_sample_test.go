// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
	"github.com/lakerunner/lakerunner/services/query-frontend/metrictest"
)

// shop is the telemetry of the sample shop, as it was put into a lake for one organization.
type shop struct {
	lake         *lake
	organization string
	start, end   time.Time
	objects      []sample.MetricObject
	series       []sample.Series
	rounds       int // of asking
}

func newShopMetrics(t testing.TB, l *lake, organization string, seed uint64, end time.Time) *shop {
	t.Helper()
	s := &shop{lake: l, organization: organization, end: end, start: end.Add(-time.Hour)}
	var err error
	s.objects, s.series, err = sample.MetricObjects(sample.MetricOptions{Seed: seed, Organization: organization, End: end})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put puts objects, and waits until they are ingested.
func (s *shop) put(objects []sample.MetricObject, altogether int) {
	for _, o := range objects {
		s.lake.put(o.Key, o.Body)
	}
	s.lake.awaitDone(s.organization, "otel-raw/"+s.organization+"/", altogether)
}

// without are the series without the samples of a time, [from, to).
func (s *shop) without(from, to time.Time) []sample.Series {
	var out []sample.Series
	for _, one := range s.series {
		one.Samples = slices.DeleteFunc(slices.Clone(one.Samples), func(p sample.Sample) bool {
			return p.Time >= from.UnixMilli() && p.Time < to.UnixMilli()
		})
		if len(one.Samples) > 0 {
			out = append(out, one)
		}
	}
	return out
}

// asSeries translates series that are to be chosen.
func asSeries(all []sample.Series, choose func(sample.Series) bool) []prom.Series {
	var out []prom.Series
	for _, s := range all {
		if !choose(s) {
			continue
		}
		one := prom.Series{Labels: s.Labels, Delta: s.Delta}
		for _, p := range s.Samples {
			if p.Histogram != nil {
				one.HistogramTimes, one.Histograms = append(one.HistogramTimes, p.Time), append(one.Histograms, p.Histogram)
				one.HistogramStarts = append(one.HistogramStarts, p.Start)
				continue
			}
			one.Times, one.Values, one.Starts = append(one.Times, p.Time), append(one.Values, p.Value), append(one.Starts, p.Start)
		}
		out = append(out, one)
	}
	return out
}

// cumulative evaluates over the series that Prometheus can store, by Prometheus.
func cumulative(t testing.TB, all []sample.Series) evaluator {
	t.Helper()
	return prometheus(tsdb(t, asSeries(all, func(s sample.Series) bool { return !s.Delta })))
}

// deltas evaluates over all series in memory.
func deltas(all []sample.Series) evaluator {
	memory := &promtest.Memory{}
	memory.Add(asSeries(all, func(sample.Series) bool { return true })...)
	engine := prom.New(prom.Options{})
	return func(ctx context.Context, q metrictest.Query) (parser.Value, error) {
		expr, err := prom.Parse(q.Text)
		if err != nil {
			return nil, err
		}
		result, err := engine.Evaluate(ctx, memory, prom.Request{Expr: expr, Start: q.Start, End: q.End, Step: q.Step})
		return result.Value, err
	}
}

// asked asks each text in one of three ways, each time in another: at the end, over the hour by the minute, and off the beat.
func (s *shop) asked(texts ...string) []metrictest.Query {
	out := make([]metrictest.Query, 0, len(texts))
	for i, text := range texts {
		ways := []metrictest.Query{
			{Text: text, Start: s.end, End: s.end},
			{Text: text, Start: s.start, End: s.end, Step: time.Minute},
			{Text: text, Start: s.start.Add(7 * time.Second), End: s.end.Add(3 * time.Minute), Step: 77 * time.Second},
		}
		if os.Getenv("LAKERUNNER_TORTURE") != "" {
			out = append(out, ways...)
			continue
		}
		out = append(out, ways[(i+s.rounds)%len(ways)])
	}
	s.rounds++
	return out
}

// dashboard are queries over the shop's metrics but its deltas.
func dashboard() []string {
	return []string{
		`sum by (service_name) (rate(http_server_requests_total[5m]))`,
		`sum by (http_response_status_code) (increase(http_server_requests_total[10m]))`,
		`histogram_quantile(0.95, sum by (le, service_name) (rate(http_server_request_duration_seconds_bucket[5m])))`,
		`sum(rate(http_server_request_duration_seconds_sum[2m])) / sum(rate(http_server_request_duration_seconds_count[2m]))`,
		`sum(rate(http_server_request_duration_seconds_bucket{le="0.1"}[5m])) / ignoring(le) sum(rate(http_server_request_duration_seconds_bucket{le="+Inf"}[5m]))`,
		`topk(3, process_memory_usage_bytes > 2e6)`,
		`histogram_quantile(0.9, sum by (service_name) (rate(rpc_server_duration_milliseconds[5m])))`,
		`histogram_avg(rpc_server_duration_milliseconds)`,
		`avg_over_time(stock_level_ratio[10m])`,
		`max by (k8s_pod_name) (max_over_time(cart_open[5m]))`,
		`min_over_time(cart_open[3m]) - last_over_time(cart_open[3m])`,
		`db_query_duration_seconds{quantile="0.9"}`,
		`rate(db_query_duration_seconds_count[5m])`,
		`count by (service_name) (up)`,
		`count_over_time(up[1m])`,
		`sum by (job) (process_cpu_time_seconds_total) * on (job) group_left (host_arch) max by (job, host_arch) (target_info)`,
		`resets(http_server_requests_total{service_name="cart"}[1h])`,
		`changes(up[20m])`,
		`quantile_over_time(0.5, cart_open[10m])`,
		`stddev(process_memory_usage_bytes)`,
		`max_over_time(sum(rate(http_server_requests_total[1m]))[10m:1m])`,
		`process_memory_usage_bytes offset 10m > process_memory_usage_bytes`,
		`sum(process_memory_usage_bytes @ end())`,
		`absent(up{service_name="nothing"})`,
		`sort_desc(sum by (service_name) (process_memory_usage_bytes))`,
		`label_replace(up{service_name="gateway"}, "pod", "$1", "k8s_pod_name", "gateway-(.*)")`,
		`count_values("size", round(cart_open, 5))`,
		`info(up{service_name="gateway"})`,
	}
}

// businesses are queries over the shop's deltas.
func businesses() []string {
	return []string{
		`sum by (currency) (increase(shop_orders_total[5m]))`,
		`rate(shop_orders_total{currency="EUR"}[1m])`,
		`irate(shop_orders_total[5m])`,
		`sum_over_time(shop_orders_total[10m])`,
		`histogram_quantile(0.5, sum by (le) (rate(shop_order_items_bucket[10m])))`,
		`sum(increase(shop_order_items_sum[5m])) / sum(increase(shop_order_items_count[5m]))`,
		`sum(rate(shop_orders_total[5m])) / sum(rate(http_server_requests_total{service_name="checkout"}[5m]))`,
	}
}

// TestMetricsOfTheShop follows OTLP objects from the bucket to answers: fresh, compacted, rolled up, with a late object, for two organizations.
func TestMetricsOfTheShop(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{organizations: []string{"default", "other"}, settings: "    rollups: [{resolution: 1m, after: 20h}]\n"})
	end := lately().Add(20 * time.Minute)
	s, other := newShopMetrics(t, l, "default", 7, end), newShopMetrics(t, l, "other", 8, end)
	const late = 5 // of twelve objects
	s.put(slices.Concat(s.objects[:late], s.objects[late+1:]), len(s.objects)-1)
	other.put(other.objects, len(other.objects))
	from := s.start.Add(late * time.Hour / time.Duration(len(s.objects)))
	known := s.without(from, from.Add(time.Hour/time.Duration(len(s.objects))))

	hold := func(of *shop, series []sample.Series) (rolled int) {
		t.Helper()
		_, rolled = l.holds(t, of.organization, cumulative(t, series), of.asked(dashboard()...))
		_, more := l.holds(t, of.organization, deltas(series), of.asked(businesses()...))
		return rolled + more
	}
	if rolled := hold(s, known); rolled > 0 {
		t.Errorf("%d answers are of rollups that nobody made", rolled)
	}
	if l.compactMetrics(t, "default", s.start, end) == 0 {
		t.Error("nothing was compacted")
	}
	hold(s, known)
	hold(other, other.series)

	points := sample.Points(s.objects) - s.objects[late].Points
	if counted := l.rollUp(t, "default", time.Minute, s.start, end); counted+staleOf(known) != int64(points) {
		t.Errorf("rollups count %d points, and %d are stale markers; want %d", counted, staleOf(known), points)
	}
	if rolled := hold(s, known); rolled < 3 {
		t.Errorf("only %d answers are of rollups", rolled)
	}
	s.put(s.objects[late:late+1], len(s.objects))
	hold(s, s.series)
	l.rollUp(t, "default", time.Minute, s.start, end)
	if rolled := hold(s, s.series); rolled < 3 {
		t.Errorf("only %d answers are of rollups made anew", rolled)
	}
	t.Run("catalogues", func(t *testing.T) { testMetricCatalogues(t, s) })
	t.Run("organizations are apart", func(t *testing.T) { testMetricIsolation(t, s, other) })
	t.Run("completeness", func(t *testing.T) { testMetricCompleteness(t, s) })
}

// staleOf counts the points that are stale markers; one of a histogram or summary is of all of its series.
func staleOf(series []sample.Series) (n int64) {
	for _, s := range series {
		name := s.Labels.Get(model.MetricNameLabel)
		part := strings.HasSuffix(name, "_sum") || s.Labels.Get("quantile") != "" || s.Labels.Get("le") != "" // _count stands for the point
		for _, p := range s.Samples {
			stale := value.IsStaleNaN(p.Value)
			if p.Histogram != nil {
				stale = value.IsStaleNaN(p.Histogram.Sum)
			}
			if stale && !part {
				n++
			}
		}
	}
	return n
}

// dataOf reads the data of an answer that is not a query's.
func dataOf[T any](t testing.TB, s *shop, path string, params url.Values) T {
	t.Helper()
	var out T
	got := s.lake.promAPI(t, s.organization, path, params)
	if got.Status != "success" {
		t.Fatalf("%s: %s: %s", path, got.ErrorType, got.Error)
	}
	unmarshal(t, got.Data, &out)
	return out
}

func (s *shop) times(pairs ...string) url.Values {
	v := url.Values{"start": {strconv.FormatInt(s.start.Unix(), 10)}, "end": {strconv.FormatInt(s.end.Unix(), 10)}}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v
}

// distinct are the names of labels of series, or the values of one, sorted.
func (s *shop) distinct(name string) []string {
	var out []string
	for _, one := range s.series {
		if name != "" {
			if v := one.Labels.Get(name); v != "" {
				out = append(out, v)
			}
			continue
		}
		one.Labels.Range(func(l labels.Label) { out = append(out, l.Name) })
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func testMetricCatalogues(t *testing.T, s *shop) {
	same := func(what string, want, got any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%.3000s", what, diff)
		}
	}
	same("labels", s.distinct(""), dataOf[[]string](t, s, "labels", s.times()))
	for _, name := range []string{model.MetricNameLabel, "service_name", "le", "k8s_pod_name"} {
		status, body := s.lake.fetch(s.lake.keys[s.organization], "/prometheus/api/v1/label/"+name+"/values", s.times())
		var got answer
		unmarshal(t, body, &got)
		var values []string
		unmarshal(t, got.Data, &values)
		if status != 200 {
			t.Errorf("status %d", status)
		}
		same("values of "+name, s.distinct(name), values)
	}
	var want []map[string]string
	for _, one := range s.series {
		if one.Labels.Get("service_name") == "cart" && one.Labels.Get(model.MetricNameLabel) != "target_info" {
			want = append(want, one.Labels.Map())
		}
	}
	same("series", want, dataOf[[]map[string]string](t, s, "series", s.times("match[]", `{service_name="cart"}`)))

	exemplars := 0
	for _, one := range s.series {
		exemplars += len(one.Exemplars)
	}
	found := 0
	for _, one := range dataOf[[]struct{ Exemplars []any }](t, s, "query_exemplars", s.times("query", `http_server_request_duration_seconds_bucket`)) {
		found += len(one.Exemplars)
	}
	if exemplars == 0 || found == 0 || found > exemplars {
		t.Errorf("%d exemplars of %d", found, exemplars)
	}
	same("Grafana's probe for exemplars", []any{}, dataOf[[]any](t, s, "query_exemplars", url.Values{
		"query": {"test"}, "start": {strconv.FormatInt(s.start.UnixMilli(), 10)}, "end": {strconv.FormatInt(s.end.UnixMilli(), 10)},
	}))

	status, body := s.lake.fetch(s.lake.keys[s.organization], "/prometheus/api/v1/metadata", s.times("metric", "http_server_request_duration_seconds"))
	var metadata struct{ Data json.RawMessage }
	unmarshal(t, body, &metadata)
	if want := `{"http_server_request_duration_seconds":[{"type":"histogram","help":"How long requests took.","unit":"seconds"}]}`; status != 200 || string(metadata.Data) != want {
		t.Errorf("metadata: %d: %s, want %s", status, metadata.Data, want)
	}
	status, body = s.lake.fetch(s.lake.keys[s.organization], "/prometheus/api/v1/cardinality", s.times())
	var cardinality struct {
		Data struct{ Series, NewSeries, VanishedSeries, Samples, Bytes int }
	}
	unmarshal(t, body, &cardinality)
	if d := cardinality.Data; status != 200 || d.Series != len(s.series) || d.NewSeries != len(s.series) || d.VanishedSeries != 0 || d.Samples == 0 || d.Bytes == 0 {
		t.Errorf("cardinality: %d: %+v of %d series", status, d, len(s.series))
	}
}

func testMetricIsolation(t *testing.T, s, other *shop) {
	for _, of := range []*shop{s, other} {
		pods := dataOf[[]map[string]string](t, of, "series", of.times("match[]", "up"))
		var got []string
		for _, one := range pods {
			got = append(got, one["k8s_pod_name"])
		}
		slices.Sort(got)
		if diff := cmp.Diff(of.distinct("k8s_pod_name"), got); diff != "" {
			t.Errorf("pods of %s (-want +got):\n%s", of.organization, diff)
		}
	}
	pod := s.distinct("k8s_pod_name")[0]
	for of, want := range map[*shop]int{s: 1, other: 0} {
		query := metrictest.Query{Text: fmt.Sprintf(`count_over_time(up{k8s_pod_name=%q}[1h])`, pod), Start: s.end, End: s.end}
		path, params := form(query)
		if got := len(decoded(t, of.lake.promAPI(t, of.organization, path, params).Data)); got != want {
			t.Errorf("%s has %d pods %s, want %d", of.organization, got, pod, want)
		}
	}
}

func testMetricCompleteness(t *testing.T, s *shop) {
	header := func() string {
		return s.lake.promAPI(t, s.organization, "query", url.Values{"query": {"up"}, "time": {strconv.FormatInt(s.end.Unix(), 10)}}).header.Get("X-Lakerunner-Completeness")
	}
	if got := header(); got != "pending=0, failed=0" {
		t.Errorf("completeness %q", got)
	}
	s.lake.put("otel-raw/default/shop/metrics_broken.binpb.gz", noise(4096))
	for _, r := range s.lake.awaitReceipts(s.organization, "otel-raw/default/shop/metrics_broken", 1) {
		if r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_FAILED {
			t.Errorf("receipt %v", r)
		}
	}
	if got := header(); got != "pending=0, failed=1" {
		t.Errorf("completeness %q", got)
	}
}
