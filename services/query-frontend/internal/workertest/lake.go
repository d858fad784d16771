// SPDX-License-Identifier: AGPL-3.0-only

package workertest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// Lake is a real index over a store in memory.
type Lake struct {
	Index *index.Index
	Store *Store

	mu      sync.Mutex
	objects int
}

// NewLake returns a lake without segments.
func NewLake(ix *index.Index) *Lake { return &Lake{Index: ix, Store: NewStore()} }

// Ingest brings rows as one source object: a segment for each hour, committed as ingest does.
func (l *Lake) Ingest(t testing.TB, organization lake.Organization, rows []querytest.Row) []lake.Segment {
	t.Helper()
	lease := l.claim(t, organization)
	receipt := lease.Receipts[0].ID
	var hours []lake.Window
	byHour := map[lake.Window][]querytest.Row{}
	for _, row := range rows {
		w := lake.WindowOf(row.Time, time.Hour)
		if byHour[w] == nil {
			hours = append(hours, w)
		}
		byHour[w] = append(byHour[w], row)
	}
	edit := lake.Edit{Outcomes: []lake.Outcome{{
		Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "test", RowsIn: int64(len(rows)), RowsOut: int64(len(rows)),
	}}}
	for n, w := range hours {
		segment := l.Store.PutAt(lake.SegmentKey(organization, lake.SignalLogs, w, lease.ID, n), organization, byHour[w])
		segment.Window, segment.Sources, segment.FormatVersion = w, []lake.ReceiptID{receipt}, 1
		edit.Add = append(edit.Add, segment)
	}
	if err := l.Index.Commit(t.Context(), lease, edit); err != nil {
		t.Fatal(err)
	}
	return edit.Add
}

// Pending leaves an object received but not ingested.
func (l *Lake) Pending(t testing.TB, organization lake.Organization) { l.receive(t, organization) }

func (l *Lake) receive(t testing.TB, organization lake.Organization) lake.ReceiptID {
	t.Helper()
	l.mu.Lock()
	l.objects++
	key := fmt.Sprintf("otel-raw/%s/collector/logs_%d", organization, l.objects)
	l.mu.Unlock()
	noticed, err := l.Index.Receive(t.Context(), []index.Notice{{
		Object: lake.Object{Bucket: "lake", Key: key, Tag: "1", Size: 100, LastModified: time.Now()}, Organization: organization, Signal: lake.SignalLogs,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return noticed[0].Receipt.ID
}

func (l *Lake) claim(t testing.TB, organization lake.Organization) *lake.Lease {
	t.Helper()
	lease, err := l.Index.Claim(t.Context(), index.Batch{Kind: lake.TaskIngest, Receipt: l.receive(t, organization)})
	if err != nil || lease == nil {
		t.Fatalf("claim: %v, %v", lease, err)
	}
	return lease
}

// Dial serves the worker on a connection without a network.
func (w *Worker) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(fault.ServerInterceptors()...)
	workerv1.RegisterWorkerServiceServer(server, &served{worker: w})
	go func() { _ = server.Serve(listener) }() // ends with Stop
	options := append(fault.ClientInterceptors(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///worker", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
	})
	return conn
}

// served is the server's end of a Worker.
type served struct {
	workerv1.UnimplementedWorkerServiceServer
	worker *Worker
}

// Scan answers a fragment.
func (s *served) Scan(req *workerv1.ScanRequest, stream grpc.ServerStreamingServer[workerv1.ScanResponse]) error {
	messages, err := s.worker.answer(stream.Context(), req)
	if err != nil {
		return err
	}
	for _, message := range messages {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}
