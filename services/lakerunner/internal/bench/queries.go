// SPDX-License-Identifier: AGPL-3.0-only

package bench

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// query is one query of the benchmark, in LogQL and as plain SQL over the same files.
type query struct {
	name, what string
	path       string
	params     url.Values
	check      func(*answer) error
	// floor is the SQL that answers the same from the files alone; {files} stands for the table, {services} for streams by service.
	floor string
	// cold and warm are the aim, in seconds.
	cold, warm float64
}

// everything selects all streams.
const everything = `{service_name=~".+"}`

// queries returns L1 to L7.
func queries(t *truth) []query {
	span := strconv.FormatInt(int64(t.End.Sub(t.Start)/time.Second), 10) + "s"
	service := fmt.Sprintf("{service_name=%q}", t.RegexService)
	return []query{
		{
			name: "L1", what: "a rare token, whole range", cold: 0.05, warm: 0.008,
			path: rangePath, params: logRange(fmt.Sprintf("%s |= %q", everything, t.Needle), t.Start, t.End),
			check: wantLines(t.NeedleCount),
			floor: fmt.Sprintf("SELECT time, body FROM {files} WHERE contains(body, %s) ORDER BY time DESC LIMIT 100", literal(t.Needle)),
		},
		{
			name: "L2", what: "regex, one service, count", cold: 0.04, warm: 0.02,
			path: instantPath, params: instant(fmt.Sprintf("sum(count_over_time(%s |~ `%s` [%s]))", service, t.Regex, span), t.End),
			check: wantValue(t.RegexCount),
			floor: fmt.Sprintf("SELECT count(*) FROM {files} f JOIN {services} s ON s.file = f.filename AND s.stream = f.stream WHERE s.service = %s AND regexp_matches(body, %s)", literal(t.RegexService), literal(t.Regex)),
		},
		{
			name: "L2b", what: "regex, all services, count", cold: 0.1, warm: 0.04,
			path: instantPath, params: instant(fmt.Sprintf("sum(count_over_time(%s |~ `%s` [%s]))", everything, t.Regex, span), t.End),
			check: wantValue(t.RegexCount),
			floor: fmt.Sprintf("SELECT count(*) FROM {files} WHERE regexp_matches(body, %s)", literal(t.Regex)),
		},
		{
			name: "L3", what: "service and level, last hour, newest 100", cold: 0.02, warm: 0.01,
			path: rangePath, params: logRange(fmt.Sprintf("{service_name=%q} | severity_text=%q", t.LevelService, t.LevelLevel), t.End.Add(-time.Hour), t.End),
			check: wantLines(min(100, t.LevelLastHour)),
			floor: fmt.Sprintf("SELECT time, body FROM {files} f JOIN {services} s ON s.file = f.filename AND s.stream = f.stream WHERE s.service = %s AND severity_text = %s AND time >= %d ORDER BY time DESC LIMIT 100",
				literal(t.LevelService), literal(t.LevelLevel), t.End.Add(-time.Hour).UnixNano()),
		},
		{
			name: "L4", what: "lines per service and minute", cold: 0.08, warm: 0.05,
			path: rangePath, params: steps("sum by (service_name)(count_over_time("+everything+"[1m]))", t.Start.Add(time.Minute), t.End),
			check: wantTotal(t.Lines),
			floor: "SELECT s.service, f.time // 60000000000 AS minute, count(*) FROM {files} f JOIN {services} s ON s.file = f.filename AND s.stream = f.stream GROUP BY ALL",
		},
		{
			name: "L5", what: "top 10 of a JSON field", cold: 0.12, warm: 0.10,
			path: instantPath, params: instant(fmt.Sprintf("topk(10, sum by (%[1]s)(count_over_time({service_name=%[2]q} | json %[1]s=%[1]q [%[3]s])))", t.TopField, t.TopService, span), t.End),
			check: wantTop(t.TopField, t.Top),
			floor: fmt.Sprintf("SELECT json_extract_string(body, '$.%s') AS v, count(*) AS n FROM {files} f JOIN {services} s ON s.file = f.filename AND s.stream = f.stream WHERE s.service = %s GROUP BY v ORDER BY n DESC LIMIT 10", t.TopField, literal(t.TopService)),
		},
		{
			name: "L6", what: "a trace id, whole range", cold: 0.04, warm: 0.005,
			path: rangePath, params: logRange(fmt.Sprintf("%s | trace_id=%q", everything, t.TraceID), t.Start, t.End),
			check: wantLines(t.TraceLines),
			floor: fmt.Sprintf("SELECT time, body FROM {files} WHERE trace_id = from_hex(%s)", literal(t.TraceID)),
		},
		{
			name: "L7", what: "count of everything", cold: 0.003, warm: 0.001,
			path: instantPath, params: instant(fmt.Sprintf("sum(count_over_time(%s[%s]))", everything, span), t.End),
			check: wantValue(t.Lines),
			floor: "SELECT count(*) FROM {files}",
		},
	}
}

const (
	rangePath   = "/loki/api/v1/query_range"
	instantPath = "/loki/api/v1/query"
)

func logRange(q string, start, end time.Time) url.Values {
	return url.Values{"query": {q}, "start": {nanos(start)}, "end": {nanos(end)}, "limit": {"100"}, "direction": {"backward"}}
}

func steps(q string, start, end time.Time) url.Values {
	return url.Values{"query": {q}, "start": {nanos(start)}, "end": {nanos(end)}, "step": {"60"}}
}

func instant(q string, at time.Time) url.Values {
	return url.Values{"query": {q}, "time": {nanos(at)}}
}

func nanos(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

// literal quotes a value for SQL.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
