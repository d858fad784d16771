// SPDX-License-Identifier: AGPL-3.0-only

package queryworker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	queryworker "github.com/lakerunner/lakerunner/services/query-worker"
)

type store struct{ bucket objects.Bucket }

func (s store) Bucket(context.Context, string) (objects.Bucket, error) { return s.bucket, nil }

var hour = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

const key = "db/acme/logs/2026-11-22/lease/000000.parquet"

// setup runs a worker over a bucket with one segment of n lines, one a second.
func setup(t *testing.T, n int) (workerv1.WorkerServiceClient, *workerv1.Segment) {
	t.Helper()
	dir := t.TempDir()
	segment := writeSegment(t, dir, n)
	return serve(t, dir), segment
}

// serve runs a worker over a bucket in a directory.
func serve(t *testing.T, dir string) workerv1.WorkerServiceClient {
	t.Helper()
	bucket, err := objects.Open(t.Context(), objects.Location{Provider: "file", Name: "lake", Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	worker, err := queryworker.New(t.Context(), queryworker.Config{Dir: t.TempDir()}, queryworker.Deps{Objects: store{bucket}})
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(fault.ServerInterceptors()...)
	worker.RegisterGRPC(server)
	go func() { _ = server.Serve(listener) }()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	t.Cleanup(func() {
		server.Stop()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	options := append(fault.ClientInterceptors(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:///worker", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return workerv1.NewWorkerServiceClient(conn)
}

func writeSegment(t *testing.T, dir string, n int) *workerv1.Segment {
	t.Helper()
	l := columns.NewLogs()
	stream := l.Stream([]columns.Label{{Name: "service_name", Value: "checkout"}})
	origin := l.Origin(columns.Origin{ScopeName: "test"})
	var rows []uint32
	for i := range n {
		l.Append(&columns.LogRow{
			Time: hour.Add(time.Duration(i) * time.Second).UnixNano(), Stream: stream, Origin: origin, Source: 1, DetectedLevel: "info",
			Body: "payment " + string(bytes.Repeat([]byte("declined "), 40)),
		})
		rows = append(rows, uint32(i))
	}
	l.Sort(rows)
	var file, sidecar bytes.Buffer
	written, err := segfile.WriteLogs(t.Context(), &file, &sidecar, l, rows, segfile.Meta{
		Organization: "acme", Signal: lake.SignalLogs, Window: lake.Window{Start: hour, Length: time.Hour}, Lease: "lease", Sources: []lake.ReceiptID{1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{key: file.Bytes(), lake.SidecarKey(key): sidecar.Bytes()} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &workerv1.Segment{
		SegmentId: "1", Bucket: "lake", Key: key, Bytes: written.Bytes, SidecarBytes: written.SidecarBytes, Rows: written.Rows,
		FirstTime: timestamppb.New(written.First), LastTime: timestamppb.New(written.Last),
	}
}

func linesRequest(s *workerv1.Segment) *workerv1.ScanRequest {
	return &workerv1.ScanRequest{
		Organization: "acme", Signal: lakev1.Signal_SIGNAL_LOGS, Segments: []*workerv1.Segment{s},
		Fragment: &workerv1.ScanRequest_LogLines{LogLines: &workerv1.LogLines{
			Selector: `{service_name="checkout"} |= "declined"`, Start: timestamppb.New(hour), End: timestamppb.New(hour.Add(time.Hour)),
		}},
	}
}

// answer reads a scan's stream to its end: rows, messages, statistics.
func answer(t *testing.T, c workerv1.WorkerServiceClient, r *workerv1.ScanRequest) (rows, messages int, s *workerv1.ScanStatistics, err error) {
	t.Helper()
	stream, err := c.Scan(t.Context(), r)
	if err != nil {
		return 0, 0, nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return rows, messages, s, nil
		}
		if err != nil {
			return 0, 0, nil, err
		}
		if s != nil {
			t.Fatal("a message after the statistics")
		}
		s = m.GetStatistics()
		if len(m.GetArrow()) == 0 {
			continue
		}
		messages++
		reader, err := ipc.NewReader(bytes.NewReader(m.GetArrow()))
		if err != nil {
			t.Fatal(err)
		}
		for reader.Next() {
			rows += int(reader.RecordBatch().NumRows())
		}
		reader.Release()
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	client, segment := setup(t, 3600)
	t.Run("streams lines in messages that stand for themselves, then statistics", func(t *testing.T) {
		t.Parallel()
		rows, messages, s, err := answer(t, client, linesRequest(segment))
		if err != nil {
			t.Fatal(err)
		}
		if rows != 3600 || messages < 2 || s.GetSegmentsRead() != 1 || s.GetBytesRead() != segment.GetBytes() {
			t.Fatalf("%d rows in %d messages, %v", rows, messages, s)
		}
	})
	t.Run("evaluates samples", func(t *testing.T) {
		t.Parallel()
		r := linesRequest(segment)
		r.Fragment = &workerv1.ScanRequest_LogSamples{LogSamples: &workerv1.LogSamples{
			Expression: `sum by (detected_level) (count_over_time({service_name="checkout"}[10m]))`,
			Start:      timestamppb.New(hour.Add(10 * time.Minute)), End: timestamppb.New(hour.Add(time.Hour)), Step: durationpb.New(10 * time.Minute),
		}}
		rows, _, _, err := answer(t, client, r)
		if err != nil || rows != 6 {
			t.Fatalf("%d rows, %v", rows, err)
		}
	})
	t.Run("answers from the catalogue", func(t *testing.T) {
		t.Parallel()
		for _, kind := range []workerv1.LogCatalogueKind{workerv1.LogCatalogueKind_LOG_CATALOGUE_KIND_STREAMS, workerv1.LogCatalogueKind_LOG_CATALOGUE_KIND_FIELDS} {
			r := linesRequest(segment)
			r.Fragment = &workerv1.ScanRequest_LogCatalogue{LogCatalogue: &workerv1.LogCatalogue{
				Kind: kind, Start: timestamppb.New(hour), End: timestamppb.New(hour.Add(time.Hour)),
			}}
			if rows, _, s, err := answer(t, client, r); err != nil || rows != 1 || s.GetSegmentsRead() != 0 {
				t.Fatalf("%s: %d rows, %v, %v", kind, rows, s, err)
			}
		}
	})
	t.Run("leaves out the rows of deletes that were not applied", func(t *testing.T) {
		t.Parallel()
		for applied, want := range map[int64]int{6: 3000, 7: 3600} {
			r := linesRequest(proto.CloneOf(segment))
			r.Segments[0].AppliedDelete = applied
			r.Deletes = []*workerv1.Delete{{
				DeleteId: 7, Selector: `{service_name="checkout"} |= "payment"`, Start: timestamppb.New(hour), End: timestamppb.New(hour.Add(10 * time.Minute)),
			}}
			if rows, _, _, err := answer(t, client, r); err != nil || rows != want {
				t.Fatalf("%d rows, want %d: %v", rows, want, err)
			}
		}
	})
	for name, c := range map[string]struct {
		change func(*workerv1.ScanRequest)
		want   fault.Kind
	}{
		"a segment of another organization": {func(r *workerv1.ScanRequest) { r.Organization = "other" }, fault.Denied},
		"a key that climbs out":             {func(r *workerv1.ScanRequest) { r.Segments[0].Key = "db/acme/../other/x.parquet" }, fault.Denied},
		"no organization":                   {func(r *workerv1.ScanRequest) { r.Organization = "" }, fault.Invalid},
		"another signal":                    {func(r *workerv1.ScanRequest) { r.Signal = lakev1.Signal_SIGNAL_SPANS }, fault.Unsupported},
		"a fragment of another signal":      {func(r *workerv1.ScanRequest) { r.Signal = lakev1.Signal_SIGNAL_METRICS }, fault.Invalid},
		"no fragment":                       {func(r *workerv1.ScanRequest) { r.Fragment = nil }, fault.Invalid},
		"LogQL that does not parse":         {func(r *workerv1.ScanRequest) { r.GetLogLines().Selector = "{" }, fault.Invalid},
		"a budget that does not do":         {func(r *workerv1.ScanRequest) { r.MaxBytes = 10; r.Segments[0].Key += "x.parquet" }, fault.Exhausted},
		"a delete that it cannot apply": {func(r *workerv1.ScanRequest) {
			r.Deletes = []*workerv1.Delete{{DeleteId: 1, Selector: "{", Start: timestamppb.New(hour), End: timestamppb.New(hour.Add(time.Hour))}}
		}, fault.Internal},
		"a segment that is gone": {func(r *workerv1.ScanRequest) { r.Segments[0].Key = "db/acme/gone.parquet" }, fault.MissingSegment},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			t.Parallel()
			r := linesRequest(proto.CloneOf(segment))
			c.change(r)
			if _, _, _, err := answer(t, client, r); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestCancelledScanEnds(t *testing.T) {
	t.Parallel()
	client, segment := setup(t, 3600)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client.Scan(ctx, linesRequest(segment))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, fault.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestScopeIsInternal(t *testing.T) {
	t.Parallel()
	var s *queryworker.Service
	if got := s.Scope(workerv1.WorkerService_Scan_FullMethodName); got != config.ScopeInternal {
		t.Fatalf("got %q", got)
	}
	if got := s.Scope("/lakerunner.worker.v1.WorkerService/Other"); got != "" {
		t.Fatalf("got %q", got)
	}
}
