// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"

	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// TestBadInputs puts what no producer should write between good objects: the receipts say what was wrong, the good rows are all there.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	l := newLake(t, lakeOptions{})
	end := lately()
	good := makeSample(t, sample.Options{Seed: 41, End: end, Lines: 600, Objects: 3})
	l.put(good[0].Key, good[0].Body)
	earlier := makeSample(t, sample.Options{Seed: 42, End: end.Add(-3 * time.Hour), Lines: 300, Objects: 1})[0]
	bad := badObjects(t, earlier.Body, end)
	for name, o := range bad {
		l.put("otel-raw/default/bad/"+name, o.body)
	}
	l.put(good[1].Key, good[1].Body)
	l.put(good[2].Key, good[2].Body)
	receipts := map[string]*lakev1.Receipt{}
	for _, r := range l.awaitReceipts("default", "otel-raw/default/bad/", len(bad)) {
		receipts[strings.TrimPrefix(r.GetObject().GetKey(), "otel-raw/default/bad/")] = r
	}
	l.awaitReceipts("default", "otel-raw/default/shop/", 3)

	for name, o := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receipts[name]
			if r == nil {
				t.Fatal("no receipt")
			}
			said := r.GetReason() != "" || len(r.GetRejected()) > 0
			if said != o.remark || (r.GetState() == lakev1.ReceiptState_RECEIPT_STATE_FAILED) != o.fails {
				t.Errorf("the receipt says: %s, %q, rejected %v, %d rows in, %d out", r.GetState(), r.GetReason(), r.GetRejected(), r.GetRowsIn(), r.GetRowsOut())
			}
			if o.rows >= 0 && r.GetRowsOut() != o.rows {
				t.Errorf("%d rows out, want %d: %v", r.GetRowsOut(), o.rows, r)
			}
		})
	}

	t.Run("the good rows beside them are all there", func(t *testing.T) {
		t.Parallel()
		got := hashOf(l.lines("default", `{k8s_cluster_name="demo"}`, end.Add(-time.Hour), end))
		if want := hashOfSample(good...); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})

	t.Run("of a truncated object the rows before the cut are kept, as many as its receipt says", func(t *testing.T) {
		t.Parallel()
		got := l.lines("default", `{k8s_cluster_name="demo"}`, end.Add(-4*time.Hour), end.Add(-3*time.Hour))
		if want := receipts["truncated-protobuf.gz"].GetRowsOut(); int64(len(got)) != want || want == 0 || want >= 300 {
			t.Errorf("%d rows, the receipt says %d", len(got), want)
		}
	})
}

// badObject is an object and what is to become of it.
type badObject struct {
	body   []byte
	fails  bool  // the receipt is 'failed'
	remark bool  // the receipt has a reason or rejected rows
	rows   int64 // rows out; negative: any
}

func badObjects(t *testing.T, otlp []byte, at time.Time) map[string]badObject {
	t.Helper()
	stamp := at.Add(-30 * time.Minute).Format(time.RFC3339)
	document := func(message string) string { return fmt.Sprintf("{\"time\":%q,\"message\":%q}\n", stamp, message) }
	return map[string]badObject{
		"truncated-protobuf.gz": {body: otlp[:len(otlp)/2], remark: true, rows: -1},
		"truncated-lines.gz":    {body: cut(gzipped(t, strings.Repeat(document("some line"), 20000))), remark: true, rows: -1},
		"bomb.gz":               {body: bomb(t, 600<<20), remark: true, fails: true, rows: 0},
		"long-line.log":         {body: []byte(document("before") + document(strings.Repeat("x", 64<<20)) + document("after")), remark: true, rows: 2},
		"nul-bytes.log":         {body: []byte(document("one") + document("t\x00wo") + document("three")), rows: 3},
		"invalid-utf8.log":      {body: []byte("plain line\nline with \xff\xfe in it\nlast line\n"), remark: true, rows: 3},
		"random.bin":            {body: noise(4096), remark: true, rows: -1, fails: true},
		"absurd-times.binpb.gz": {body: absurdTimes(t, at), remark: true, rows: 1},
	}
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func cut(b []byte) []byte { return b[:len(b)*2/3] }

// bomb is a small object that unpacks to size bytes.
func bomb(t *testing.T, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	block := make([]byte, 1<<20)
	for range size >> 20 {
		if _, err := z.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// noise is no format at all.
func noise(size int) []byte {
	b := make([]byte, size)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// absurdTimes has a row of 1970, one of 2262, and a good one.
func absurdTimes(t *testing.T, at time.Time) []byte {
	t.Helper()
	record := func(ns int64, body string) *logspb.LogRecord {
		return &logspb.LogRecord{TimeUnixNano: uint64(ns), Body: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: body}}}
	}
	body, err := sample.Compress(&logspb.LogsData{ResourceLogs: []*logspb.ResourceLogs{{ScopeLogs: []*logspb.ScopeLogs{{LogRecords: []*logspb.LogRecord{
		record(int64(time.Hour), "from 1970"),
		record(time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), "from 2262"),
		record(at.Add(-time.Minute).UnixNano(), "from now"),
	}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}
