// SPDX-License-Identifier: AGPL-3.0-only

package queryfrontend_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	queryfrontend "github.com/lakerunner/lakerunner/services/query-frontend"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/workertest"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// process is a frontend in a process of its own, over a real index and workers that hold rows in memory.
type process struct {
	*workertest.Lake
	http string
	conn *grpc.ClientConn
	gate atomic.Pointer[gate]
}

func secretOf(organization lake.Organization) string { return "lr_secret_of_" + string(organization) }

func document() string {
	key := func(id string, organization lake.Organization) string {
		hash := config.Hash(secretOf(organization))
		return fmt.Sprintf("  - {id: %s, organization: %s, scopes: [query], sha256: %s}\n", id, organization, hex.EncodeToString(hash[:]))
	}
	return "organizations:\n  - {id: acme, limits: {max_query_lines: 5000}}\n  - {id: other}\n  - {id: frugal, limits: {max_query_bytes: 2500}}\n" +
		"  - {id: narrow, limits: {max_query_series: 1, max_query_samples: 50}}\napi_keys:\n" +
		key("a", "acme") + key("o", "other") + key("f", "frugal") + key("n", "narrow")
}

func start(t *testing.T) *process {
	t.Helper()
	source, err := config.Static(document())
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Lake: workertest.NewLake(indextest.New(t))}
	var workers []queryfrontend.Worker
	for i := range 2 {
		worker := &workertest.Worker{Store: p.Store, Before: p.pass}
		workers = append(workers, queryfrontend.Worker{Name: fmt.Sprintf("worker-%d", i), Conn: worker.Dial(t)})
	}
	frontend, err := queryfrontend.New(queryfrontend.Config{TailInterval: 10 * time.Millisecond},
		queryfrontend.Deps{Index: p.Index, Config: source, Workers: workers})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan host.Addr, 1), make(chan error, 1)
	go func() {
		ended <- host.Run(ctx, host.Options{
			Config: host.Config{GRPC: host.ListenConfig{Listen: "127.0.0.1:0"}, HTTP: host.ListenConfig{Listen: "127.0.0.1:0"}},
			Source: source, OnReady: func(a host.Addr) { ready <- a },
		}, frontend)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the process ended: %v", err)
		}
	})
	addr := <-ready
	p.http = "http://" + addr.HTTP
	p.conn, err = grpc.NewClient(addr.GRPC, append(fault.ClientInterceptors(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

func as(ctx context.Context, organization lake.Organization) context.Context {
	if organization == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secretOf(organization))
}

// do sends an HTTP request and returns status and body.
func (p *process) do(t *testing.T, organization lake.Organization, method, path, contentType, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if organization != "" {
		req.SetBasicAuth("grafana", secretOf(organization))
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

// marked are rows of one organization: every stream, metadata and line carries its mark.
func marked(mark string, from time.Time, n int) []querytest.Row {
	rows := make([]querytest.Row, n)
	for i := range rows {
		rows[i] = querytest.Row{
			Time:     from.Add(time.Duration(i) * time.Second),
			Labels:   map[string]string{"service_name": mark + "-service"},
			Metadata: map[string]string{"detected_level": mark + "-level", mark + "_only": "1"},
			Line:     fmt.Sprintf("%s-line number %d of a few words", mark, i),
		}
	}
	return rows
}

// door asks for all that there is through one door, as an organization, and returns everything that came back as text.
type door func(t *testing.T, p *process, organization lake.Organization, from, to time.Time) (string, error)

func doors() map[string]door {
	const logs, samples = `{service_name=~".+"}`, `sum by (service_name) (count_over_time({service_name=~".+"}[1h]))`
	all := map[string]door{
		"gRPC QueryLogs": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			stream, err := queryv1.NewQueryServiceClient(p.conn).QueryLogs(as(t.Context(), o), &queryv1.QueryLogsRequest{
				Query: logs, Start: timestamppb.New(from), End: timestamppb.New(to),
			})
			return drain(stream, err)
		},
		"gRPC QuerySamples": func(t *testing.T, p *process, o lake.Organization, _, to time.Time) (string, error) {
			return text(queryv1.NewQueryServiceClient(p.conn).QuerySamples(as(t.Context(), o), &queryv1.QuerySamplesRequest{
				Query: samples, End: timestamppb.New(to),
			}))
		},
		"gRPC QueryArrow": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			stream, err := queryv1.NewQueryServiceClient(p.conn).QueryArrow(as(t.Context(), o), &queryv1.QueryArrowRequest{
				Query: logs, Start: timestamppb.New(from), End: timestamppb.New(to),
			})
			if err != nil {
				return "", err
			}
			var out bytes.Buffer
			for {
				part, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return arrowText(t, &out), nil
				}
				if err != nil {
					return "", err
				}
				out.Write(part.GetArrow())
			}
		},
		"gRPC ListLabels": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			return text(queryv1.NewQueryServiceClient(p.conn).ListLabelValues(as(t.Context(), o), &queryv1.ListLabelValuesRequest{
				Label: "service_name", Start: timestamppb.New(from), End: timestamppb.New(to),
			}))
		},
		"gRPC ListSeries": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			return text(queryv1.NewQueryServiceClient(p.conn).ListSeries(as(t.Context(), o), &queryv1.ListSeriesRequest{
				Start: timestamppb.New(from), End: timestamppb.New(to),
			}))
		},
		"gRPC TailLogs": func(t *testing.T, p *process, o lake.Organization, from, _ time.Time) (string, error) {
			ctx, cancel := context.WithCancel(as(t.Context(), o))
			defer cancel()
			stream, err := queryv1.NewQueryServiceClient(p.conn).TailLogs(ctx, &queryv1.TailLogsRequest{Query: logs, Start: timestamppb.New(from)})
			if err != nil {
				return "", err
			}
			return text(stream.Recv())
		},
		"tail over a websocket": func(t *testing.T, p *process, o lake.Organization, from, _ time.Time) (string, error) {
			conn, err := p.tail(t, o, logs, from)
			if err != nil {
				return "", err
			}
			defer func() { _ = conn.Close() }()
			_, message, err := conn.ReadMessage()
			return string(message), err
		},
		"Arrow over HTTP": func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			body, _ := json.Marshal(map[string]string{"query": logs, "start": from.Format(time.RFC3339Nano), "end": to.Format(time.RFC3339Nano)})
			status, content := p.do(t, o, http.MethodPost, "/api/v1/query/arrow", "application/json", string(body))
			if status != http.StatusOK {
				return "", fmt.Errorf("status %d: %s", status, content)
			}
			return arrowText(t, strings.NewReader(content)), nil
		},
	}
	for name, path := range map[string]string{
		"REST labels": "/api/v1/labels/service_name/values?", "REST series": "/api/v1/series?",
	} {
		all[name] = func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			return p.get(t, o, path+url.Values{"start": {from.Format(time.RFC3339Nano)}, "end": {to.Format(time.RFC3339Nano)}}.Encode())
		}
	}
	for name, path := range map[string]string{"REST logs": "/api/v1/logs:query", "REST samples": "/api/v1/samples:query"} {
		all[name] = func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			question := map[string]string{"query": logs, "start": from.Format(time.RFC3339Nano), "end": to.Format(time.RFC3339Nano)}
			if name == "REST samples" {
				question["query"] = samples
			}
			body, _ := json.Marshal(question)
			status, content := p.do(t, o, http.MethodPost, path, "application/json", string(body))
			if status != http.StatusOK {
				return "", fmt.Errorf("status %d: %s", status, content)
			}
			return content, nil
		}
	}
	for path, query := range map[string]string{
		"query": samples, "query_range": logs, "label/service_name/values": "", "series": "", "index/volume": logs, "index/volume_range": logs,
		"detected_fields": logs, "detected_field/detected_level/values": logs, "patterns": logs,
	} {
		all["Loki "+path] = func(t *testing.T, p *process, o lake.Organization, from, to time.Time) (string, error) {
			return p.get(t, o, "/loki/api/v1/"+path+"?"+url.Values{
				"query": {query}, "start": {fmt.Sprint(from.UnixNano())}, "end": {fmt.Sprint(to.UnixNano())}, "time": {fmt.Sprint(to.UnixNano())},
			}.Encode())
		}
	}
	return all
}

func (p *process) get(t *testing.T, o lake.Organization, path string) (string, error) {
	t.Helper()
	status, content := p.do(t, o, http.MethodGet, path, "", "")
	if status != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", status, content)
	}
	return content, nil
}

func (p *process) tail(t *testing.T, o lake.Organization, query string, from time.Time) (*websocket.Conn, error) {
	t.Helper()
	header := http.Header{}
	if o != "" {
		header.Set("Authorization", "Bearer "+secretOf(o))
	}
	address := strings.Replace(p.http, "http", "ws", 1) + "/loki/api/v1/tail?" + url.Values{"query": {query}, "start": {fmt.Sprint(from.UnixNano())}}.Encode()
	conn, response, err := websocket.DefaultDialer.DialContext(t.Context(), address, header)
	if response != nil {
		_ = response.Body.Close()
	}
	return conn, err
}

func text[T fmt.Stringer](message T, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return message.String(), nil
}

func drain(stream grpc.ServerStreamingClient[queryv1.QueryLogsResponse], err error) (string, error) {
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out.String(), nil
		}
		if err != nil {
			return "", err
		}
		out.WriteString(message.String())
	}
}

func arrowText(t *testing.T, r io.Reader) string {
	t.Helper()
	reader, err := ipc.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	var out strings.Builder
	for reader.Next() {
		content, err := reader.RecordBatch().MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		out.Write(content)
	}
	return out.String()
}

// TestNoDoorShowsAnotherOrganizationsRows asks through every door as two organizations, as nobody, and as one that names the other.
func TestNoDoorShowsAnotherOrganizationsRows(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.Ingest(t, "acme", marked("alpha", from, 20))
	p.Ingest(t, "other", marked("omega", from, 20))
	to := from.Add(time.Minute)
	for name, ask := range doors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for organization, marks := range map[lake.Organization][2]string{"acme": {"alpha", "omega"}, "other": {"omega", "alpha"}} {
				got, err := ask(t, p, organization, from, to)
				if err != nil {
					t.Fatalf("%s: %v", organization, err)
				}
				if !strings.Contains(got, marks[0]) {
					t.Errorf("%s does not see its own rows: %.300s", organization, got)
				}
				if strings.Contains(got, marks[1]) {
					t.Errorf("%s sees another's rows: %.300s", organization, got)
				}
			}
			if got, err := ask(t, p, "", from, to); err == nil {
				t.Errorf("nobody was answered: %.300s", got)
			}
		})
	}
}

func TestQueryLogsStreamsLinesAndThenItsFigures(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.Ingest(t, "acme", marked("alpha", from, 400))
	p.Pending(t, "acme")
	stream, err := queryv1.NewQueryServiceClient(p.conn).QueryLogs(as(t.Context(), "acme"), &queryv1.QueryLogsRequest{
		Query: `{service_name="alpha-service"}`, Start: timestamppb.New(from), End: timestamppb.New(from.Add(time.Hour)), Limit: 300,
		Direction: queryv1.Direction_DIRECTION_FORWARD,
	})
	if err != nil {
		t.Fatal(err)
	}
	var lines []*queryv1.LogLine
	var last *queryv1.QueryLogsResponse
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		lines, last = append(lines, message.GetLines()...), message
	}
	if len(lines) != 300 || !lines[0].GetTime().AsTime().Equal(from) || lines[299].GetLine() != "alpha-line number 299 of a few words" {
		t.Fatalf("%d lines, the first %v", len(lines), lines[0])
	}
	if got := lines[0].GetMetadata()["detected_level"]; got != "alpha-level" {
		t.Errorf("metadata %v", lines[0].GetMetadata())
	}
	s := last.GetStatistics()
	if len(last.GetLines()) != 0 || s.GetRowsReturned() != 300 || s.GetSegmentsConsidered() == 0 || s.GetCompleteness().GetPendingObjects() != 1 {
		t.Errorf("the last message is %v", last)
	}
}

// figures asks through each gRPC method that answers at once, and returns the statistics that came with the answer.
func figures(t *testing.T, p *process, organization lake.Organization, from, to time.Time) map[string]*queryv1.Statistics {
	t.Helper()
	ctx, client := as(t.Context(), organization), queryv1.NewQueryServiceClient(p.conn)
	start, end := timestamppb.New(from), timestamppb.New(to)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const logs, samples = `{service_name=~".+"}`, `count_over_time({service_name=~".+"}[1h])`
	got := map[string]*queryv1.Statistics{}
	labels, err := client.ListLabels(ctx, &queryv1.ListLabelsRequest{Start: start, End: end})
	must(err)
	got["ListLabels"] = labels.GetStatistics()
	values, err := client.ListLabelValues(ctx, &queryv1.ListLabelValuesRequest{Label: "service_name", Start: start, End: end})
	must(err)
	got["ListLabelValues"] = values.GetStatistics()
	series, err := client.ListSeries(ctx, &queryv1.ListSeriesRequest{Start: start, End: end})
	must(err)
	got["ListSeries"] = series.GetStatistics()
	value, err := client.QuerySamples(ctx, &queryv1.QuerySamplesRequest{Query: samples, End: end})
	must(err)
	got["QuerySamples"] = value.GetStatistics()
	lines, err := client.QueryLogs(ctx, &queryv1.QueryLogsRequest{Query: logs, Start: start, End: end, Limit: 1000})
	must(err)
	for part, err := lines.Recv(); !errors.Is(err, io.EOF); part, err = lines.Recv() {
		must(err)
		got["QueryLogs"] = part.GetStatistics()
	}
	for name, query := range map[string]string{"QueryArrow of lines": logs, "QueryArrow of samples": samples} {
		parts, err := client.QueryArrow(ctx, &queryv1.QueryArrowRequest{Query: query, Start: start, End: end, Limit: 1000})
		must(err)
		for part, err := parts.Recv(); !errors.Is(err, io.EOF); part, err = parts.Recv() {
			must(err)
			got[name] = part.GetStatistics()
		}
	}
	return got
}

func TestEveryAnswerSaysHowCompleteItIs(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.Ingest(t, "acme", marked("alpha", from, 20))
	p.Pending(t, "acme")
	for name, s := range figures(t, p, "acme", from, from.Add(time.Minute)) {
		if s.GetCompleteness().GetPendingObjects() != 1 || s.GetSegmentsConsidered() != 1 || s.GetPartial() {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func TestLinesThatALimitCutAreToldToBePartial(t *testing.T) {
	t.Parallel()
	p := start(t)
	now := time.Now().Truncate(time.Hour)
	for hour := range 30 { // of 1000 bytes each, where 2500 may be read
		p.Ingest(t, "frugal", marked("alpha", now.Add(-time.Duration(hour+1)*time.Hour), 10))
	}
	ctx, client := as(t.Context(), "frugal"), queryv1.NewQueryServiceClient(p.conn)
	from, to := timestamppb.New(now.Add(-40*time.Hour)), timestamppb.New(now)
	const logs = `{service_name=~".+"}`
	check := func(door string, partial bool, reason string) {
		t.Helper()
		if !partial || !strings.Contains(reason, "limit of 2500 bytes") {
			t.Errorf("%s: partial %v, reason %q", door, partial, reason)
		}
	}
	lines, err := client.QueryLogs(ctx, &queryv1.QueryLogsRequest{Query: logs, Start: from, End: to, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var last *queryv1.QueryLogsResponse
	for part, err := lines.Recv(); !errors.Is(err, io.EOF); part, err = lines.Recv() {
		if err != nil {
			t.Fatal(err)
		}
		last = part
	}
	check("QueryLogs", last.GetStatistics().GetPartial(), last.GetStatistics().GetPartialReason())

	parts, err := client.QueryArrow(ctx, &queryv1.QueryArrowRequest{Query: logs, Start: from, End: to, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var end *queryv1.QueryArrowResponse
	for part, err := parts.Recv(); !errors.Is(err, io.EOF); part, err = parts.Recv() {
		if err != nil {
			t.Fatal(err)
		}
		end = part
	}
	check("QueryArrow", end.GetStatistics().GetPartial(), end.GetStatistics().GetPartialReason())

	body, _ := json.Marshal(map[string]any{"query": logs, "start": from.AsTime(), "end": to.AsTime(), "limit": 1000})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.http+"/api/v1/query/arrow", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("grafana", secretOf("frugal"))
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	reason := response.Trailer.Get("X-Lakerunner-Partial")
	check("Arrow over HTTP", reason != "", reason)

	status, content := p.do(t, "frugal", http.MethodGet, "/loki/api/v1/query_range?"+url.Values{
		"query": {logs}, "start": {fmt.Sprint(now.Add(-40 * time.Hour).UnixNano())}, "end": {fmt.Sprint(now.UnixNano())}, "limit": {"1000"},
	}.Encode(), "", "")
	check("Loki", status == http.StatusOK, content)
}

func TestExplainReadsNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	segments := p.Ingest(t, "acme", marked("alpha", from, 10))
	for _, s := range segments {
		p.Store.Remove(s.Key) // a read would fail
	}
	got, err := queryv1.NewQueryServiceClient(p.conn).Explain(as(t.Context(), "acme"), &queryv1.ExplainRequest{
		Query: `topk(3, sum by (service_name) (rate({service_name=~".+"}[5m])))`, Start: timestamppb.New(from), End: timestamppb.New(from.Add(time.Minute)),
		Step: durationpb.New(time.Minute),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetSegments() != int64(len(segments)) || got.GetRows() != 10 || got.GetObjectRequests() == 0 || got.GetEstimatedSeconds() <= 0 ||
		!strings.Contains(got.GetPlan(), "workers: sum by (service_name)(count_over_time") {
		t.Errorf("explanation %v", got)
	}
}

func TestMissingSegmentIsToldToTheUser(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	segments := p.Ingest(t, "acme", marked("alpha", from, 10))
	p.Store.Remove(segments[0].Key)
	client := queryv1.NewQueryServiceClient(p.conn)
	answers := map[string]func() error{
		"samples": func() error {
			_, err := client.QuerySamples(as(t.Context(), "acme"), &queryv1.QuerySamplesRequest{
				Query: `count_over_time({service_name=~".+"}[1h])`, End: timestamppb.New(from.Add(time.Minute)),
			})
			return err
		},
		"lines": func() error {
			_, err := drain(client.QueryLogs(as(t.Context(), "acme"), &queryv1.QueryLogsRequest{
				Query: `{service_name=~".+"}`, Start: timestamppb.New(from), End: timestamppb.New(from.Add(time.Minute)),
			}))
			return err
		},
		"series": func() error {
			_, err := client.ListSeries(as(t.Context(), "acme"), &queryv1.ListSeriesRequest{Start: timestamppb.New(from), End: timestamppb.New(from.Add(time.Minute))})
			return err
		},
	}
	for name, ask := range answers {
		if err := ask(); !errors.Is(err, fault.MissingSegment) || !strings.Contains(err.Error(), segments[0].Key) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestQueryEndsWellOverSegmentsThatWereReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	p.Ingest(t, "acme", marked("alpha", from, 10))
	p.Ingest(t, "acme", marked("beta", from, 7))
	began, goOn := p.hold()
	type result struct {
		count float64
		err   error
	}
	done := make(chan result, 1)
	go func() {
		got, err := queryv1.NewQueryServiceClient(p.conn).QuerySamples(as(t.Context(), "acme"), &queryv1.QuerySamplesRequest{
			Query: `sum(count_over_time({service_name=~".+"}[1h]))`, End: timestamppb.New(from.Add(time.Minute)),
		})
		if err != nil || len(got.GetSeries()) != 1 {
			done <- result{err: errors.Join(err, fmt.Errorf("%d series", len(got.GetSeries())))}
			return
		}
		done <- result{count: got.GetSeries()[0].GetSamples()[0].GetValue()}
	}()
	<-began
	p.Merge(t, "acme")
	goOn()
	if got := <-done; got.err != nil || got.count != 17 {
		t.Errorf("counted %v, error %v", got.count, got.err)
	}
}

// What ingest commits is merged away before the tail looks again.
func TestTailMissesNothingThatWasMergedMeanwhile(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	rows := marked("alpha", from, 30)
	p.Ingest(t, "acme", rows[:5])
	p.Merge(t, "acme")
	tail := p.follow(t, "acme", `{service_name="alpha-service"} |= "line"`, from)
	tail.read(t, 5)
	began, goOn := p.hold()
	p.Ingest(t, "acme", rows[5:10])
	<-began // the tail is busy with these
	p.Ingest(t, "acme", rows[10:20])
	p.Merge(t, "acme")
	goOn()
	tail.read(t, 20)
	p.Ingest(t, "acme", rows[20:])
	tail.read(t, 30)
	for i, line := range tail.lines {
		if line != rows[i].Line {
			t.Errorf("line %d is %q, want %q", i, line, rows[i].Line)
		}
	}
}

func TestTailAnswersEachRowOnceInOrder(t *testing.T) {
	t.Parallel()
	p := start(t)
	from := time.Now().Add(-10 * time.Minute).Truncate(time.Second)
	rows := marked("alpha", from, 30)
	p.Ingest(t, "acme", rows[:10])
	tail := p.follow(t, "acme", `{service_name="alpha-service"} |= "line"`, from)
	tail.read(t, 10)
	p.Ingest(t, "acme", rows[10:15])
	tail.read(t, 15)
	p.Ingest(t, "other", marked("omega", from, 5))
	p.Ingest(t, "acme", rows[20:])
	tail.read(t, 25)
	p.Ingest(t, "acme", rows[15:20]) // older rows that come late
	tail.read(t, 30)
	for i, n := range []int{0, 9, 10, 14, 20, 29, 15, 19} {
		at := []int{0, 9, 10, 14, 15, 24, 25, 29}[i]
		if want := rows[n].Line; tail.lines[at] != want {
			t.Errorf("line %d is %q, want %q", at, tail.lines[at], want)
		}
	}
}

// following is a tail and the lines that it has answered.
type following struct {
	conn  *websocket.Conn
	lines []string
}

func (p *process) follow(t *testing.T, o lake.Organization, query string, from time.Time) *following {
	t.Helper()
	conn, err := p.tail(t, o, query, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &following{conn: conn}
}

// read waits until there are so many lines.
func (f *following) read(t *testing.T, until int) {
	t.Helper()
	for len(f.lines) < until {
		if err := f.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		var message struct {
			Streams []struct {
				Values [][]any `json:"values"`
			} `json:"streams"`
		}
		if err := f.conn.ReadJSON(&message); err != nil {
			t.Fatalf("after %d lines: %v", len(f.lines), err)
		}
		for _, stream := range message.Streams {
			for _, value := range stream.Values {
				f.lines = append(f.lines, value[1].(string))
			}
		}
	}
}

// pass lets scans through, unless they are held.
func (p *process) pass(ctx context.Context, _ *workerv1.ScanRequest) error {
	gate := p.gate.Load()
	if gate == nil {
		return nil
	}
	select {
	case gate.began <- struct{}{}:
	default:
	}
	select {
	case <-gate.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gate holds scans.
type gate struct{ began, open chan struct{} }

// hold keeps scans waiting from now on: began tells of the first one, goOn lets them go.
func (p *process) hold() (began <-chan struct{}, goOn func()) {
	g := &gate{began: make(chan struct{}, 1), open: make(chan struct{})}
	p.gate.Store(g)
	return g.began, func() { p.gate.Store(nil); close(g.open) }
}
