// SPDX-License-Identifier: AGPL-3.0-only

package metrictest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Query is a PromQL query and when it is asked.
type Query struct {
	Text       string
	Start, End time.Time
	Step       time.Duration // zero: at End
}

// String says all of it.
func (q Query) String() string {
	if q.Step == 0 {
		return fmt.Sprintf("%s at %d", q.Text, q.End.UnixMilli())
	}
	return fmt.Sprintf("%s from %d to %d every %s", q.Text, q.Start.UnixMilli(), q.End.UnixMilli(), q.Step)
}

// writer writes expressions.
type writer struct {
	random     *rand.Rand
	start, end time.Time
	deltas     bool
}

// Queries returns n queries over what Series makes between start and end. Their answers do not depend on the order of series where Prometheus' do.
func Queries(seed uint64, n int, start, end time.Time, deltas bool) []Query {
	w := &writer{random: rand.New(rand.NewPCG(seed, 2)), start: start, end: end, deltas: deltas}
	out := make([]Query, n)
	for i := range out {
		out[i] = w.query()
	}
	return out
}

func (w *writer) query() Query {
	q := Query{Text: w.vector(1 + w.random.IntN(3)), End: w.time()}
	if w.random.IntN(12) == 0 {
		q.Text = w.scalar(2)
	}
	if w.random.IntN(4) == 0 {
		q.Start = q.End
		if w.random.IntN(8) == 0 {
			q.Text = w.selector(w.metric()) + pick(w, "[7m]", "[10m:1m]", "[5m] offset 3m")
		}
		return q
	}
	q.Step = time.Duration(pick(w, 15, 60, 60, 77, 300, 600)) * time.Second
	q.Start = q.End.Add(-time.Duration(w.random.IntN(60)) * q.Step)
	if w.random.IntN(3) > 0 {
		q.Start = q.Start.Truncate(q.Step)
	}
	return q
}

func (w *writer) time() time.Time {
	return w.start.Add(time.Duration(w.random.Int64N(int64(w.end.Sub(w.start)) + int64(10*time.Minute)))).Truncate(time.Millisecond)
}

func pick[T any](w *writer, from ...T) T { return from[w.random.IntN(len(from))] }

func (w *writer) metric() string {
	return pick(w, "http_requests_total", "http_requests_total", "errors_total", "temperature", "weight", "up", "build_info", "sparse", "latency_bucket", "latency_sum", "duration",
		"size_custom", "load_gauge", "changed", "nothing")
}

func (w *writer) counter() string {
	if w.deltas && w.random.IntN(2) == 0 {
		return "hits_total"
	}
	return pick(w, "http_requests_total", "http_requests_total", "errors_total", "latency_bucket", "latency_count", "duration", "size_custom", "changed")
}

func (w *writer) selector(metric string) string {
	var matchers []string
	for _, m := range []string{`job="job-1"`, `job=~"job-[01]"`, `instance!="host-2"`, `code="500"`, `code!~"2.."`, `job=~".+"`, `room=""`} {
		if w.random.IntN(9) == 0 {
			matchers = append(matchers, m)
		}
	}
	if w.random.IntN(15) == 0 {
		return `{__name__=~"` + pick(w, "errors_total|up", "latency_.+", "http_.+") + `"` + strings.Join(append([]string{""}, matchers...), ",") + "}"
	}
	if len(matchers) == 0 {
		return metric
	}
	return metric + "{" + strings.Join(matchers, ",") + "}"
}

// moved adds offsets and fixed times.
func (w *writer) moved() string {
	switch w.random.IntN(16) {
	case 0:
		return " offset " + pick(w, "1m", "7m13s", "30m")
	case 1:
		return " offset -2m"
	case 2:
		return fmt.Sprintf(" @ %d", w.time().Unix())
	case 3:
		return " @ " + pick(w, "start()", "end()")
	case 4:
		return fmt.Sprintf(" @ %d offset 5m", w.time().Unix())
	}
	return ""
}

func (w *writer) window() string {
	return "[" + pick(w, "1m", "2m30s", "5m", "5m", "10m", "1h") + "]"
}

// series is a vector made of one selector.
func (w *writer) series() string {
	switch w.random.IntN(10) {
	case 0, 1, 2, 3:
		return pick(w, "rate", "rate", "increase", "irate", "delta", "resets") + "(" + w.selector(w.counter()) + w.window() + w.moved() + ")"
	case 4, 5:
		f := pick(w, "avg_over_time", "sum_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time", "first_over_time", "present_over_time",
			"stddev_over_time", "changes", "idelta", "deriv", "mad_over_time")
		return f + "(" + w.selector(w.metric()) + w.window() + w.moved() + ")"
	case 6:
		return fmt.Sprintf("quantile_over_time(0.%d, %s%s)", w.random.IntN(10), w.selector("temperature"), w.window())
	}
	return w.selector(w.metric()) + w.moved()
}

func (w *writer) grouping() string {
	switch w.random.IntN(5) {
	case 0:
		return ""
	case 1:
		return " without (" + pick(w, "instance", "job, code", "le") + ")"
	}
	return " by (" + pick(w, "job", "instance", "job, le", "code", "le", "job, instance", "nothing") + ")"
}

func (w *writer) aggregate(depth int) string {
	switch w.random.IntN(12) {
	case 0:
		return "quantile" + w.grouping() + "(0.3, " + w.vector(depth-1) + ")"
	case 1:
		// No two of them are equal.
		return pick(w, "topk", "bottomk") + w.grouping() + fmt.Sprintf("(%d, weight%s)", 1+w.random.IntN(4), w.moved())
	case 2:
		return `count_values` + w.grouping() + `("v", ` + pick(w, "up", "build_info", "latency_bucket") + ")"
	case 3:
		return "topk" + w.grouping() + "(3, avg_over_time(weight" + w.window() + "))"
	case 4:
		// Over other things it shows in which order values are added up.
		return pick(w, "stddev", "stdvar") + w.grouping() + "(" + pick(w, "weight", "rate(http_requests_total[5m])", "avg_over_time(weight[10m])") + ")"
	}
	return pick(w, "sum", "sum", "sum", "avg", "min", "max", "count", "group", "avg") + w.grouping() + "(" + w.vector(depth-1) + ")"
}

func (w *writer) vector(depth int) string {
	if depth <= 0 {
		return w.series()
	}
	switch w.random.IntN(17) {
	case 0, 1, 2, 3:
		return w.aggregate(depth)
	case 4:
		return pick(w, "abs", "ceil", "round", "sqrt", "sgn", "-", "exp", "histogram_count", "histogram_sum", "histogram_avg", "timestamp", "hour") + "(" + w.vector(depth-1) + ")"
	case 5:
		return fmt.Sprintf("clamp_max(%s, %s)", w.vector(depth-1), w.scalar(depth-1))
	case 6:
		return "(" + w.vector(depth-1) + pick(w, " + ", " * ", " / ", " - ", " > ", " <= bool ", " % ") + w.scalar(depth-1) + ")"
	case 7:
		return "(" + w.vector(depth-1) + pick(w, " + ", " / ", " and ", " or ", " unless ", " > ", " == bool ") + w.vector(depth-1) + ")"
	case 8:
		return "(" + w.series() + pick(w, " * ", " / ", " and ", " unless ") + "on (job, instance) " + "up" + ")"
	case 9:
		return w.series() + " * on (job, instance) group_left (version) build_info"
	case 10:
		return fmt.Sprintf("histogram_quantile(0.%d, %s)", 1+w.random.IntN(9), pick(w,
			"sum by (le) (rate(latency_bucket[5m]))", "rate(latency_bucket[10m])", "sum by (le, job) (increase(latency_bucket[5m] offset 1m))",
			"rate(duration[5m])", "sum by (job) (rate(duration[10m]))", "sum(rate(size_custom[10m]))", w.vector(depth-1)))
	case 11:
		return pick(w, "max_over_time", "avg_over_time", "sum_over_time", "last_over_time", "count_over_time", "absent_over_time") +
			"((" + w.vector(depth-1) + ")" + pick(w, "[10m:1m]", "[5m:]", "[1h:7m]", "[10m:30s] offset 2m", "[20m:1m] @ end()") + ")"
	case 12:
		return `label_replace(` + w.vector(depth-1) + `, "` + pick(w, "job", "new") + `", "x-$1", "` + pick(w, "job", "instance") + `", "(.*)")`
	case 13:
		return "absent(" + pick(w, w.selector("nothing"), w.selector("build_info"), w.vector(depth-1)) + ")"
	case 15:
		// Of sums it would show in which order they are added up, as a counter reset.
		return pick(w, "rate", "increase", "resets") + "(" + w.selector(w.counter()) + pick(w, "[10m:1m]", "[5m:]", "[1h:7m]", "[10m:30s] offset 2m", "[20m:1m] @ end()") + ")"
	case 14:
		return pick(w, "absent_over_time", "present_over_time") + "(" + w.selector(pick(w, "nothing", "sparse", "build_info")) + w.window() + w.moved() + ")"
	}
	return w.series()
}

func (w *writer) scalar(depth int) string {
	switch w.random.IntN(8) {
	case 0:
		if depth > 0 {
			return "scalar(" + w.vector(depth-1) + ")"
		}
	case 1:
		return "time() / 1e9"
	case 2:
		return "(1 + 2 ^ 3)"
	case 3:
		return pick(w, "step()", "pi()", "(end() - start())")
	}
	return pick(w, "2", "0.5", "-1", "100")
}
