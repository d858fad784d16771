// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/grafana/loki/v3/pkg/logcli/client"
	"github.com/grafana/loki/v3/pkg/logcli/volume"
	"github.com/grafana/loki/v3/pkg/loghttp"
	"github.com/grafana/loki/v3/pkg/logproto"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestLogcli makes every call of logcli's client package.
func TestLogcli(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	start := end.Add(-time.Hour)
	objects := makeSample(t, sample.Options{Seed: 31, End: end, Lines: 2000, Objects: 4})
	for _, o := range objects {
		l.put(o.Key, o.Body)
	}
	l.awaitReceipts("default", "otel-raw/", len(objects))
	logcli := &client.DefaultClient{Address: "http://" + l.stack.HTTP, BearerToken: l.keys["default"]}
	rows := map[string]int{}
	for _, o := range objects {
		for _, r := range o.Rows {
			rows[r.Service]++
		}
	}
	services := make([]string, 0, len(rows))
	for s := range rows {
		services = append(services, s)
	}
	slices.Sort(services)

	t.Run("query", func(t *testing.T) {
		t.Parallel()
		answer, err := logcli.Query(`sum by (service_name) (count_over_time(`+everything+`[1h]))`, 100, end, logproto.BACKWARD, true)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, s := range answer.Data.Result.(loghttp.Vector) {
			got[string(s.Metric["service_name"])] = int(s.Value)
		}
		for service, want := range rows {
			if got[service] != want {
				t.Errorf("%s: %d rows, want %d", service, got[service], want)
			}
		}
	})

	t.Run("query_range of lines", func(t *testing.T) {
		t.Parallel()
		for _, direction := range []logproto.Direction{logproto.FORWARD, logproto.BACKWARD} {
			answer, err := logcli.QueryRange(`{service_name="checkout"}`, 5000, start, end, direction, 0, 0, true)
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for _, s := range answer.Data.Result.(loghttp.Streams) {
				got += len(s.Entries)
			}
			if got != rows["checkout"] {
				t.Errorf("%s: %d lines, want %d", direction, got, rows["checkout"])
			}
		}
	})

	t.Run("query_range of samples", func(t *testing.T) {
		t.Parallel()
		answer, err := logcli.QueryRange(`sum(count_over_time(`+everything+`[1m]))`, 100, start.Add(time.Minute), end, logproto.BACKWARD, time.Minute, 0, true)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, s := range answer.Data.Result.(loghttp.Matrix) {
			for _, v := range s.Values {
				got += int(v.Value)
			}
		}
		if got != sample.Rows(objects) {
			t.Errorf("%d rows, want %d", got, sample.Rows(objects))
		}
	})

	t.Run("labels and their values", func(t *testing.T) {
		t.Parallel()
		names, err := logcli.ListLabelNames(true, start, end)
		if err != nil || !slices.Contains(names.Data, "service_name") {
			t.Errorf("names: %v, %v", names, err)
		}
		values, err := logcli.ListLabelValues("service_name", true, start, end)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(slices.Values(values.Data)); !slices.Equal(got, services) {
			t.Errorf("got %v, want %v", got, services)
		}
	})

	t.Run("series", func(t *testing.T) {
		t.Parallel()
		answer, err := logcli.Series([]string{`{service_name="checkout"}`}, start, end, true)
		if err != nil || len(answer.Data) == 0 {
			t.Fatalf("got %v, %v", answer, err)
		}
		for _, s := range answer.Data {
			if s["service_name"] != "checkout" {
				t.Errorf("got %v", s)
			}
		}
	})

	t.Run("stats", func(t *testing.T) {
		t.Parallel()
		answer, err := logcli.GetStats(everything, start, end, true)
		if err != nil || answer.Entries != uint64(sample.Rows(objects)) || answer.Streams == 0 || answer.Bytes == 0 {
			t.Errorf("got %+v, %v; want %d entries", answer, err, sample.Rows(objects))
		}
	})

	t.Run("volume", func(t *testing.T) {
		t.Parallel()
		query := &volume.Query{QueryString: everything, Start: start, End: end, Limit: 100, Step: time.Minute, Quiet: true, TargetLabels: []string{"service_name"}}
		answer, err := logcli.GetVolume(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(answer.Data.Result.(loghttp.Vector)); got != len(services) {
			t.Errorf("%d volumes, want %d", got, len(services))
		}
		inSteps, err := logcli.GetVolumeRange(query)
		if err != nil || len(inSteps.Data.Result.(loghttp.Matrix)) != len(services) {
			t.Errorf("in steps: %v, %v", inSteps, err)
		}
	})

	t.Run("detected fields and their values", func(t *testing.T) {
		t.Parallel()
		answer, err := logcli.GetDetectedFields(`{service_name="cart"}`, "", 100, 1000, start, end, time.Minute, true)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(answer.Fields, func(f loghttp.DetectedField) bool { return f.Label == "customer" }) {
			t.Errorf("no field customer among %v", answer.Fields)
		}
		values, err := logcli.GetDetectedFields(`{service_name="cart"}`, "customer", 100, 1000, start, end, time.Minute, true)
		if err != nil || len(values.Values) == 0 || !strings.HasPrefix(values.Values[0], "cus_") {
			t.Errorf("values: %v, %v", values, err)
		}
	})

	t.Run("a wrong query is an error", func(t *testing.T) {
		t.Parallel()
		if _, err := logcli.QueryRange(`{service_name=`, 10, start, end, logproto.BACKWARD, 0, 0, true); err == nil {
			t.Error("no error")
		}
	})

	t.Run("tail", func(t *testing.T) { testTail(t, l, logcli) })
}

// testTail follows, puts rows, and sees them come.
func testTail(t *testing.T, l *lake, logcli *client.DefaultClient) {
	t.Helper()
	t.Parallel()
	conn, err := logcli.LiveTailQueryConn(`{service_name="checkout", k8s_cluster_name="demo"}`, 0, 1000, time.Now().Add(-10*time.Minute), true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fresh := makeSample(t, sample.Options{Seed: 32, Collector: "tail", End: time.Now().Add(-time.Second), Length: time.Minute, Lines: 200, Objects: 1})[0]
	want := lineHash{}
	for _, r := range fresh.Rows {
		if r.Service == "checkout" {
			want.add(r.Time, r.Service, r.Line)
		}
	}
	l.put(fresh.Key, fresh.Body)
	if got := readTail(t, conn, want.rows); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// readTail reads so many lines off a tail.
func readTail(t *testing.T, conn *websocket.Conn, rows int) (got lineHash) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for got.rows < rows {
		var message loghttp.TailResponse
		if err := conn.ReadJSON(&message); err != nil {
			t.Fatalf("after %d of %d lines: %v", got.rows, rows, err)
		}
		for _, s := range message.Streams {
			for _, e := range s.Entries {
				got.add(e.Timestamp, s.Labels["service_name"], e.Line)
			}
		}
	}
	return got
}
