// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	logscollector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
)

const bucketName = "telemetry"

// fixture is a bucket and a worker on it.
type fixture struct {
	t        testing.TB
	bucket   objects.Bucket
	worker   *pipeline.Worker
	accounts *accounts
	receipts lake.ReceiptID
	leases   int
}

func newFixture(t testing.TB, change ...func(*pipeline.Config, *pipeline.Deps)) *fixture {
	t.Helper()
	source, err := config.Static(fmt.Sprintf(`
organizations:
  - id: acme
    limits: {accept_past: 240h, accept_future: 48h, max_line_bytes: 65536, max_streams: 5000}
storage_profiles:
  - {name: main, bucket: %s, provider: file, directory: %q, row_identity: event.id}
`, bucketName, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	store := config.Buckets(source, nil)
	bucket, err := store.Bucket(context.Background(), bucketName)
	if err != nil {
		t.Fatal(err)
	}
	accounts := &accounts{}
	c, d := pipeline.Config{Scratch: t.TempDir()}, pipeline.Deps{Index: accounts, Objects: store, Config: source}
	for _, f := range change {
		f(&c, &d)
	}
	return &fixture{t: t, bucket: bucket, worker: pipeline.New(c, d), accounts: accounts}
}

// accounts is the index's side of leases that were never claimed.
type accounts struct {
	mu      sync.Mutex
	deletes []lake.Delete
	folders []string
	denied  error
}

func (a *accounts) Deletes(_ context.Context, q index.DeleteQuery) (deletes []lake.Delete, latest lake.DeleteID, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.deletes {
		latest = max(latest, d.ID)
		if (q.Signal == lake.SignalUnknown || d.Signal == q.Signal) && d.ID > q.After {
			deletes = append(deletes, d)
		}
	}
	return deletes, latest, nil
}

func (a *accounts) Declare(_ context.Context, _ lake.LeaseID, folders []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.folders = append(a.folders, folders...)
	return a.denied
}

// put stores an object and returns its receipt.
func (f *fixture) put(key string, content []byte) lake.Receipt {
	f.t.Helper()
	a, err := f.bucket.Put(context.Background(), key, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.receipts++
	return lake.Receipt{
		ID: f.receipts, Organization: "acme", CreatedAt: benchTime(), ReceivedAt: benchTime(),
		Object: lake.Object{Bucket: bucketName, Key: key, Tag: a.Tag, Size: a.Size, LastModified: a.LastModified},
	}
}

func (f *fixture) lease(receipts ...lake.Receipt) *lake.Lease {
	f.leases++
	l := &lake.Lease{
		ID: lake.LeaseID(fmt.Sprintf("lease%d", f.leases)), Kind: lake.TaskIngest, Organization: "acme", ClaimedAt: benchTime().Add(time.Hour),
		Duration: time.Minute,
	}
	for i, r := range receipts {
		l.Receipts = append(l.Receipts, r)
		l.Tasks = append(l.Tasks, lake.Task{ID: lake.TaskID(i + 1), Kind: lake.TaskIngest, Organization: "acme", Receipt: r.ID, Bytes: r.Object.Size})
	}
	return l
}

func (f *fixture) work(receipts ...lake.Receipt) lake.Edit {
	f.t.Helper()
	edit, err := f.worker.Work(context.Background(), f.lease(receipts...))
	if err != nil {
		f.t.Fatal(err)
	}
	return edit
}

func (f *fixture) read(key string) []byte {
	f.t.Helper()
	r, _, err := f.bucket.Get(context.Background(), key, "")
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// rows reads the rows of segments back: bodies by source.
func (f *fixture) rows(segments []lake.Segment) map[lake.ReceiptID][]string {
	f.t.Helper()
	bodies := map[lake.ReceiptID][]string{}
	for _, s := range segments {
		content := f.read(s.Key)
		if _, err := segfile.OpenSidecar(f.read(lake.SidecarKey(s.Key))); err != nil {
			f.t.Fatal(err)
		}
		l := readSegment(f.t, content)
		for i := range l.Len() {
			var row columns.LogRow
			l.Row(i, &row)
			if !s.Window.Contains(time.Unix(0, row.Time)) {
				f.t.Errorf("a row of %s in the segment of %s", time.Unix(0, row.Time), s.Window.Start)
			}
			bodies[row.Source] = append(bodies[row.Source], row.Body)
		}
	}
	return bodies
}

func readSegment(t testing.TB, content []byte) *columns.Logs {
	t.Helper()
	r, err := segfile.OpenLogs(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	l := columns.NewLogs()
	for {
		err := r.Next(l)
		if errors.Is(err, io.EOF) {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

func text(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: s}}
}

// otlpLogs makes n records from a time on, of three services.
func otlpLogs(n int, from time.Time) []byte {
	request := &logscollector.ExportLogsServiceRequest{}
	for _, service := range []string{"checkout", "cart", "frontend"} {
		request.ResourceLogs = append(request.ResourceLogs, &logs.ResourceLogs{
			Resource:  &resource.Resource{Attributes: []*common.KeyValue{{Key: "service.name", Value: text(service)}, {Key: "host.name", Value: text("h1")}}},
			ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "lib"}}},
		})
	}
	for i := range n {
		at := uint64(from.Add(time.Duration(i) * time.Millisecond).UnixNano())
		scope := request.ResourceLogs[i%3].ScopeLogs[0]
		scope.LogRecords = append(scope.LogRecords, &logs.LogRecord{
			TimeUnixNano: at, ObservedTimeUnixNano: at + 1, SeverityNumber: 9, SeverityText: "INFO",
			Body:       text(fmt.Sprintf("order %08x accepted in %d ms", i*7919, i%500)),
			TraceId:    bytes.Repeat([]byte{byte(i), 1}, 8),
			Attributes: []*common.KeyValue{{Key: "user.id", Value: text(fmt.Sprint("u", i%100))}, {Key: "size", Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(i)}}}},
		})
	}
	b, err := proto.Marshal(request)
	if err != nil {
		panic(err)
	}
	return b
}

func previewLimits() config.Limits { return config.DefaultLimits() }
