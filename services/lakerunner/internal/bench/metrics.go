// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"
)

// Endpoints of the Prometheus API.
const (
	promRangePath   = "/prometheus/api/v1/query_range"
	promInstantPath = "/prometheus/api/v1/query"
)

// metricQuery is one of M1 to M6.
type metricQuery struct {
	query
	promql     string
	start, end time.Time
	step       time.Duration // zero: an instant query at end
}

const durations = "http_server_request_duration_seconds"

// metricQueries returns M1 to M6.
func metricQueries(t *truth) []metricQuery {
	instantly := func(name, what, promql, floor string, cold, warm float64) metricQuery {
		at := t.End.Add(-10 * time.Second)
		params := url.Values{"query": {promql}, "time": {unix(at)}}
		return metricQuery{query{name: name, what: what, path: promInstantPath, params: params, floor: floor, cold: cold, warm: warm}, promql, at, at, 0}
	}
	ranged := func(name, what, promql, floor string, cold, warm float64) metricQuery {
		start, end := t.Start.Add(5*time.Minute), t.End.Add(-10*time.Second)
		params := url.Values{"query": {promql}, "start": {unix(start)}, "end": {unix(end)}, "step": {"60"}}
		return metricQuery{query{name: name, what: what, path: promRangePath, params: params, floor: floor, cold: cold, warm: warm}, promql, start, end, time.Minute}
	}
	requests, buckets := scanOf("name = 'http_requests_total'"), scanOf("name = '"+durations+"'")
	return []metricQuery{
		instantly("M1", "instant up", "up", scanOf("name = 'up'"), 0.02, 0.003),
		ranged("M2", "sum of rates by service, 6 h", "sum by (service_name)(rate(http_requests_total[5m]))", requests, 0.06, 0.03),
		ranged("M3", "quantile over 9,600 buckets, 6 h", "histogram_quantile(0.99, sum by (le)(rate("+durations+"_bucket[5m])))", buckets, 0.2, 0.17),
		ranged("M3b", "the same of one service", "histogram_quantile(0.99, sum by (le)(rate("+durations+`_bucket{service_name="checkout"}[5m])))`, buckets, 0.03, 0.012),
		ranged("M4", "top 10 pods, 6 h", "topk(10, sum by (k8s_pod_name)(rate(http_requests_total[5m])))", requests, 0.06, 0.03),
		ranged("M5", "join of high cardinality, 6 h", "sum by (node, le)(rate("+durations+"_bucket[5m]) * on (k8s_pod_name) group_left(node) kube_pod_info)", buckets, 0.3, 0.25),
		instantly("M6", "count of all series", `count({__name__=~".+"})`, scanOf("true"), 0.1, 0.08),
	}
}

// scanOf is SQL that has DuckDB read the columns of some series from the files; that it could make points of them costs more.
func scanOf(condition string) string {
	return "SELECT sum(octet_length(times)), sum(octet_length(values)), sum(octet_length(buckets)) FROM {files} WHERE " + condition
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// measureMetricQueries asks each query with an empty cache, cold and warm, and compares it with Prometheus.
func (r *result) measureMetricQueries(ctx context.Context, o Options, w workplace) error {
	fmt.Fprintln(o.Out, "filling Prometheus, for reference ...")
	prometheus, err := openReference(ctx, o.Corpus, o.Dir)
	if err != nil {
		return err
	}
	asked := metricQueries(r.truth)
	for i := range asked {
		q := &asked[i]
		figures := queryFigures{query: q.query}
		want, took, err := prometheus.ask(ctx, q)
		if err != nil {
			return fmt.Errorf("%s of Prometheus: %w", q.name, err)
		}
		figures.engine, figures.query.check = took, wantSeries(want)
		r.queries = append(r.queries, figures)
	}
	if err := prometheus.close(); err != nil {
		return err
	}
	r.cacheDropped = dropPageCache()
	for i := range r.queries {
		if err := r.queries[i].measure(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", r.queries[i].query.name, err)
		}
	}
	return r.measureFloors(ctx, w)
}

func (r *result) writeMetrics(out io.Writer) {
	f, c, samples := r.ingest, r.compaction, r.truth.Samples
	each := func(s storedFigures) string { return fmt.Sprintf("%.3f", float64(s.Bytes+s.Sidecars)/float64(samples)) }
	writeRows(out, [][]string{
		{"ingest and compaction", "level 0", "compacted, all in", "asked", "aim", "floor"},
		{"samples per CPU-second", fmt.Sprintf("%.0f", f.perCPU(samples)), fmt.Sprintf("%.0f", r.perCPU()), "400,000", "1,000,000", fmt.Sprintf("%.0f (gunzip + OTLP decoding by pdata alone)", f.decodePerCPU(samples))},
		{"samples per CPU-second of compaction alone", "", fmt.Sprintf("%.0f", float64(samples)/c.CPU.Seconds()), "", "", ""},
		{"bytes per sample at rest, sidecars included", each(f.Stored), each(c.After), "", "1.0", ""},
		{"sidecars, share of segment bytes", fmt.Sprintf("%.1f %%", 100*f.Stored.sidecarShare()), fmt.Sprintf("%.1f %%", 100*c.After.sidecarShare()), "", "", ""},
		{"peak RSS of the process, MB", megabytes(f.PeakRSS), megabytes(c.PeakRSS), "", "", ""},
		{"wall clock, s", fmt.Sprintf("%.1f", f.Wall.Seconds()), fmt.Sprintf("%.1f", (f.Wall + c.Wall).Seconds()), "", "", ""},
		{"segments", fmt.Sprintf("%d of %d objects", f.Stored.Segments, f.Objects), fmt.Sprint(c.After.Segments), "", "", ""},
	})
	fmt.Fprintln(out)
	rows := [][]string{{"query, seconds", "empty cache", "cold", "aim", "warm", "aim", "DuckDB alone, cold / warm", "Prometheus' engine, in memory", "answer"}}
	for _, q := range r.queries {
		state := "right"
		if q.problem != nil {
			state = "WRONG"
		}
		rows = append(rows, []string{
			q.query.name + " " + q.query.what, seconds(q.first), seconds(q.cold), fmt.Sprint(q.query.cold), seconds(q.warm), fmt.Sprint(q.query.warm),
			seconds(q.floorCold) + " / " + seconds(q.floorWarm), seconds(q.engine), state,
		})
	}
	writeRows(out, rows)
}
