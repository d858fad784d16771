// SPDX-License-Identifier: AGPL-3.0-only

package querytest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
)

// Query is one query with its times.
type Query struct {
	Text       string
	Start, End time.Time
	Step       time.Duration // zero with Start = End: an instant metric query
	Interval   time.Duration
	Limit      int // of lines
	Direction  logproto.Direction
}

// String names the query in a test's failure.
func (q Query) String() string {
	return fmt.Sprintf("%s  (start %d, end %d, step %s, interval %s, limit %d, %s)",
		q.Text, q.Start.UnixNano(), q.End.UnixNano(), q.Step, q.Interval, q.Limit, q.Direction)
}

// Logs reports whether the query asks for lines.
func (q Query) Logs() bool {
	expr, err := syntax.ParseExpr(q.Text)
	if err != nil {
		return false
	}
	_, samples := expr.(syntax.SampleExpr)
	return !samples
}

// Queries makes n queries that parse, over parts of the range from start to end.
func Queries(seed uint64, n int, start, end time.Time) []Query {
	g := &generator{rand.New(rand.NewPCG(seed, 3))}
	queries := make([]Query, 0, n)
	for len(queries) < n {
		q := g.query(start, end)
		if _, err := syntax.ParseExpr(q.Text); err == nil {
			queries = append(queries, q)
		}
	}
	return queries
}

func (g *generator) query(start, end time.Time) Query {
	length := end.Sub(start)
	from := start.Add(time.Duration(g.Int64N(int64(length) / 2)))
	to := from.Add(time.Duration(g.Int64N(int64(length)/2)) + length/20)
	q := Query{Start: from, End: to, Direction: pick(g, logproto.FORWARD, logproto.BACKWARD), Limit: pick(g, 1, 10, 100, 5000)}
	switch g.IntN(5) {
	case 0, 1:
		q.Text = g.selector(true)
		if g.IntN(6) == 0 {
			q.Interval = pick(g, time.Second, 20*time.Second, 3*time.Minute)
		}
	case 2:
		q.Text = g.metric(2)
		q.Start = q.End
	default:
		q.Text = g.metric(2)
		q.Step = pick(g, 10*time.Second, 37*time.Second, time.Minute, 5*time.Minute, length/7+time.Microsecond)
	}
	return q
}

func (g *generator) matchers() string {
	return pick(g,
		`{service_name="checkout"}`, `{service_name="frontend"}`, `{service_name="payment"}`, `{service_name="search"}`,
		`{service_name=~"check.*|front.*"}`, `{service_name=~".+"}`, `{env="prod"}`, `{env!="dev", service_name!="search"}`,
		`{env=~".+", k8s_pod_name=""}`, `{k8s_pod_name=~".*-[01]"}`, `{service_name="nothing-is-called-so"}`)
}

func (g *generator) selector(lines bool) string {
	stages := []string{g.matchers()}
	for g.IntN(3) == 0 {
		stages = append(stages, g.lineFilter())
	}
	if g.IntN(5) == 0 {
		stages = append(stages, g.labelFilter())
	}
	if g.IntN(8) == 0 {
		stages = append(stages, `| decolorize`)
	}
	if g.IntN(3) > 0 {
		stages = append(stages, g.parsed(lines)...)
	}
	return strings.Join(stages, " ")
}

func (g *generator) lineFilter() string {
	return pick(g,
		`|= "declined"`, `|= "user"`, `!= "GC"`, `|~ "time.*30s"`, `!~ "[Cc]ache"`, `|= "10.0" or "192.168"`, `|= "u1"`,
		`|~ "(?i)WARN"`, `|= ip("10.0.0.0/15")`, `!= ip("192.168.1.0-192.168.2.255")`, "|> `<_> - <_> [ERROR] <_>`", "!> `<_>declined<_>`",
		`|= "ï"`, `|= ""`, `|~ "\\d{3}"`, `|= "\"status\":500"`)
}

func (g *generator) labelFilter() string {
	return pick(g,
		`| detected_level="error"`, `| detected_level=~"warn|error"`, `| trace_id="00000000000000000000000000000003"`, `| host_name!=""`,
		`| weight > 1`, `| weight <= 2.5 or detected_level="debug"`, `| env="prod"`, `| env_extracted="shadowed"`, `| host_name=~"a.*", detected_level!="info"`)
}

func (g *generator) parsed(lines bool) []string {
	// Parsers that make empty labels are for lines alone: Loki answers series twice that differ by such a label, in an order
	// that depends on what it read first.
	if lines && g.IntN(6) == 0 {
		return []string{pick(g, `| logfmt --keep-empty`, `| json status="status", method="http.method", first="tags[0]"`)}
	}
	stages := []string{pick(g, `| json`, `| json`, `| logfmt`, `| logfmt`, `| logfmt --strict`, `| unpack`,
		`| json status="status", user="user"`, `| logfmt status="status", where="path"`,
		"| pattern `<addr> - <user> [<level>] \"<method> <path>\" <status> <took> <_>`",
		"| regexp `(?P<addr>\\d+\\.\\d+\\.\\d+\\.\\d+) - (?P<user>\\w+)`")}
	for range g.IntN(3) {
		stages = append(stages, g.parsedStage())
	}
	if g.IntN(3) == 0 {
		stages = append(stages, pick(g, `| __error__=""`, `| drop __error__, __error_details__`, `| drop __error__`))
	}
	if lines && g.IntN(3) == 0 {
		stages = append(stages, g.format())
	}
	return stages
}

func (g *generator) parsedStage() string {
	return pick(g,
		`| status >= 400`, `| status = 200`, `| status != "404"`, `| duration > 10ms`, `| size > 1234B`, `| size <= 10KB or status = 500`,
		`| user=~"u[1-4]"`, `| level="error"`, `| level=~"(?i)warn|error"`, `| took < 100`, `| http_method="GET" and status != 500`,
		`| drop trace_id, user`, `| drop detected_level="info"`, `| keep status, user, level, took`, `| keep service_name, status=~"2.."`,
		`| addr=ip("10.0.0.0/8")`, `| label_format user2=user, kind="{{.status}}-{{.env}}"`, `|= "u"`, `!= "/healthz"`,
		`| line_format "{{.status}} {{.user}}"`)
}

func (g *generator) format() string {
	return pick(g,
		`| line_format "{{.service_name}}: {{.status | default \"none\"}} {{__line__ | trunc 20}}"`,
		`| line_format "{{.msg | ToUpper}}"`,
		`| line_format "{{.user}}" |= "u1"`,
		`| label_format level=detected_level`,
		`| label_format when="{{ __timestamp__ | unixEpoch }}"`)
}

// metric makes a metric expression, nested at most depth deep.
func (g *generator) metric(depth int) string {
	if depth == 0 {
		return g.rangeAggregation()
	}
	switch g.IntN(10) {
	case 0, 1, 2, 3:
		return fmt.Sprintf("%s%s(%s)", pick(g, "sum", "sum", "sum", "min", "max", "avg", "count", "stddev", "stdvar"), g.grouping(), g.metric(depth-1))
	case 4:
		return fmt.Sprintf("%s%s(%d, %s)", pick(g, "topk", "bottomk"), pick(g, "", " by (service_name)"), 1000, g.metric(depth-1))
	case 5:
		return fmt.Sprintf("%s(%s)", pick(g, "sort", "sort_desc"), g.metric(depth-1))
	case 6, 7:
		return g.binary(depth)
	case 8:
		return fmt.Sprintf(`label_replace(%s, "copy", "$1-x", "service_name", "(.).*")`, g.metric(depth-1))
	}
	return g.rangeAggregation()
}

func (g *generator) binary(depth int) string {
	if g.IntN(2) == 0 {
		return fmt.Sprintf("(%s) %s %s", g.metric(depth-1), pick(g, "+", "-", "*", "/", "%", "^", ">", ">= bool", "==", "!="), pick(g, "2", "0.5", "10"))
	}
	if g.IntN(3) == 0 {
		return fmt.Sprintf("(%s) %s (%s)", g.metric(depth-1), pick(g, "or", "and", "unless"), g.metric(depth-1))
	}
	left := fmt.Sprintf("sum by (service_name)(%s)", g.rangeAggregation())
	right := fmt.Sprintf("sum by (service_name)(%s)", g.rangeAggregation())
	if g.IntN(3) == 0 {
		left = fmt.Sprintf("sum by (service_name, env)(%s)", g.rangeAggregation())
		return fmt.Sprintf("%s %s on (service_name) group_left () %s", left, pick(g, "/", "*", "-"), right)
	}
	return fmt.Sprintf("%s %s %s %s", left, pick(g, "/", "+", "-", ">", "<= bool"), pick(g, "", "on (service_name)", "ignoring (env)"), right)
}

func (g *generator) grouping() string {
	return pick(g, "", " by (service_name)", " by (service_name, env)", " by (detected_level)", " by (status)", " by (user, level)",
		" without (trace_id)", " without (trace_id, took, msg, user, path, duration, size)", " by (nothing)")
}

func (g *generator) rangeAggregation() string {
	window := pick(g, "[1m]", "[30s]", "[5m]", "[10m]", "[7s]")
	offset := pick(g, "", "", "", " offset 3m", " offset 90s", " offset -2m")
	if g.IntN(2) == 0 {
		return fmt.Sprintf("%s(%s%s%s)", pick(g, "count_over_time", "rate", "bytes_over_time", "bytes_rate", "absent_over_time"), g.selector(false), window, offset)
	}
	selector := strings.Join(append([]string{g.matchers()}, g.parsed(false)...), " ")
	unwrap := pick(g, "| unwrap took", "| unwrap took", "| unwrap status", "| unwrap duration(duration)", "| unwrap bytes(size)", "| unwrap weight")
	if g.IntN(4) > 0 {
		unwrap += ` | __error__=""`
	}
	switch g.IntN(3) {
	case 0:
		return fmt.Sprintf("quantile_over_time(%s, %s %s%s%s)%s", pick(g, "0.5", "0.99", "0", "1"), selector, unwrap, window, offset, g.grouping())
	case 1:
		return fmt.Sprintf("%s(%s %s%s%s)", pick(g, "sum_over_time", "rate", "rate_counter", "absent_over_time"), selector, unwrap, window, offset)
	}
	return fmt.Sprintf("%s(%s %s%s%s)%s",
		pick(g, "min_over_time", "max_over_time", "avg_over_time", "stddev_over_time", "stdvar_over_time", "first_over_time", "last_over_time"),
		selector, unwrap, window, offset, g.grouping())
}
