// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// lines asks a log query, oldest first, page by page until there are no more: all lines of the range.
func (l *lake) lines(organization, query string, start, end time.Time) []*queryv1.LogLine {
	l.t.Helper()
	const page = 5000
	var all []*queryv1.LogLine
	for {
		got := l.page(organization, query, start, end, page)
		if len(got) < page {
			return append(all, got...)
		}
		// The last nanosecond may go on in the next page: it is asked for again as a whole.
		last := got[len(got)-1].GetTime().AsTime()
		for len(got) > 0 && got[len(got)-1].GetTime().AsTime().Equal(last) {
			got = got[:len(got)-1]
		}
		all = append(all, got...)
		start = last
	}
}

func (l *lake) page(organization, query string, start, end time.Time, limit int32) []*queryv1.LogLine {
	l.t.Helper()
	stream, err := l.query.QueryLogs(l.as(organization), &queryv1.QueryLogsRequest{
		Query: query, Start: timestamppb.New(start), End: timestamppb.New(end), Limit: limit, Direction: queryv1.Direction_DIRECTION_FORWARD,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	var all []*queryv1.LogLine
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			l.t.Fatalf("%s: %v", query, err)
		}
		all = append(all, part.GetLines()...)
	}
}

// count asks an instant metric query and adds up its values.
func (l *lake) count(organization, query string, at time.Time) int64 {
	l.t.Helper()
	answer, err := l.query.QuerySamples(l.as(organization), &queryv1.QuerySamplesRequest{Query: query, End: timestamppb.New(at)})
	if err != nil {
		l.t.Fatalf("%s: %v", query, err)
	}
	var sum float64
	for _, s := range answer.GetSeries() {
		for _, v := range s.GetSamples() {
			sum += v.GetValue()
		}
	}
	return int64(sum)
}

// lineHash is an order-independent hash of rows: the sum of the hashes of time, service and line.
type lineHash struct {
	rows int
	sum  uint64
}

func (h *lineHash) add(at time.Time, service, line string) {
	f := fnv.New64a()
	_, _ = io.WriteString(f, at.UTC().Format(time.RFC3339Nano)+"\x00"+service+"\x00"+line)
	h.rows++
	h.sum += f.Sum64()
}

// hashOf hashes what a query answered.
func hashOf(lines []*queryv1.LogLine) (h lineHash) {
	for _, line := range lines {
		h.add(line.GetTime().AsTime(), line.GetLabels()["service_name"], line.GetLine())
	}
	return h
}

// hashOfSample hashes what was put.
func hashOfSample(objects ...sample.Object) (h lineHash) {
	for _, o := range objects {
		for _, r := range o.Rows {
			h.add(r.Time, r.Service, r.Line)
		}
	}
	return h
}

// makeSample makes objects whose rows end at a whole hour of today's acceptance window.
func makeSample(t testing.TB, o sample.Options) []sample.Object {
	t.Helper()
	made, err := sample.Objects(o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// lately is a fixed moment of the test run, inside the acceptance window.
func lately() time.Time { return time.Now().UTC().Add(-time.Hour).Truncate(time.Hour) }

const everything = `{service_name=~".+"}`

// fetch asks the HTTP server with a key, or with none.
func (l *lake) fetch(key, path string, params url.Values) (status int, body []byte) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, "http://"+l.stack.HTTP+path+"?"+params.Encode(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if body, err = io.ReadAll(response.Body); err != nil {
		l.t.Fatal(err)
	}
	return response.StatusCode, body
}
