// SPDX-License-Identifier: AGPL-3.0-only

package workertest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/querytest"
)

// Lake is a real index over a store in memory.
type Lake struct {
	Index *index.Index
	Store *Store

	mu      sync.Mutex
	objects int
	sources map[string][]lake.ReceiptID // by key of the segment
}

// NewLake returns a lake without segments.
func NewLake(ix *index.Index) *Lake {
	return &Lake{Index: ix, Store: NewStore(), sources: map[string][]lake.ReceiptID{}}
}

// Ingest brings rows as one source object: a segment for each hour, committed as ingest does.
func (l *Lake) Ingest(t testing.TB, organization lake.Organization, rows []querytest.Row) []lake.Segment {
	t.Helper()
	lease := l.claim(t, organization, lake.SignalLogs)
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
		edit.Next = append(edit.Next, lake.Task{Kind: lake.TaskCompact, Organization: organization, Signal: lake.SignalLogs, Window: w})
	}
	if err := l.Index.Commit(t.Context(), lease, edit); err != nil {
		t.Fatal(err)
	}
	l.remember(edit.Add)
	return edit.Add
}

// IngestMetrics brings series as one source object: a segment for each hour.
func (l *Lake) IngestMetrics(t testing.TB, organization lake.Organization, series []prom.Series) []lake.Segment {
	t.Helper()
	lease := l.claim(t, organization, lake.SignalMetrics)
	receipt := lease.Receipts[0].ID
	edit := lake.Edit{Outcomes: []lake.Outcome{{Receipt: receipt, State: lake.ReceiptDone, Signal: lake.SignalMetrics, Format: "test", RowsIn: 1, RowsOut: 1}}}
	for n, w := range hoursOf(series) {
		m := MetricSegment{Window: w}
		for _, one := range series {
			if one.Trim(w.Start.UnixMilli(), w.End().UnixMilli()-1); one.Len() > 0 {
				m.Series = append(m.Series, one)
			}
		}
		segment := l.Store.PutMetricsAt(lake.SegmentKey(organization, lake.SignalMetrics, w, lease.ID, n), organization, m)
		segment.Sources, segment.FormatVersion = []lake.ReceiptID{receipt}, 1
		edit.Add = append(edit.Add, segment)
	}
	if err := l.Index.Commit(t.Context(), lease, edit); err != nil {
		t.Fatal(err)
	}
	return edit.Add
}

func hoursOf(series []prom.Series) []lake.Window {
	found := map[lake.Window]bool{}
	for i := range series {
		for _, times := range [][]int64{series[i].Times, series[i].HistogramTimes} {
			for _, at := range times {
				found[lake.WindowOf(time.UnixMilli(at), time.Hour)] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b lake.Window) int { return a.Start.Compare(b.Start) })
}

func (l *Lake) remember(segments []lake.Segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range segments {
		l.sources[s.Key] = s.Sources
	}
}

func (l *Lake) sourcesOf(key string) []lake.ReceiptID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources[key]
}

// Merge replaces the segments of an organization in hours in which ingest has added some, as compaction does: by one of level 1 for each hour. The old
// ones' objects stay.
func (l *Lake) Merge(t testing.TB, organization lake.Organization) {
	t.Helper()
	for {
		lease, err := l.Index.Claim(t.Context(), index.Batch{Kind: lake.TaskCompact})
		if err != nil {
			t.Fatal(err)
		}
		if lease == nil {
			return
		}
		edit := lake.Edit{Rewrite: true}
		for _, task := range lease.Tasks {
			l.merge(t, lease.ID, task.Window, &edit, organization)
		}
		if err := l.Index.Commit(t.Context(), lease, edit); err != nil {
			t.Fatal(err)
		}
		l.remember(edit.Add)
	}
}

func (l *Lake) merge(t testing.TB, lease lake.LeaseID, w lake.Window, edit *lake.Edit, organization lake.Organization) {
	t.Helper()
	found, err := l.Index.Lookup(t.Context(), index.Query{Organization: organization, Signal: lake.SignalLogs, Start: w.Start, End: w.End()})
	if err != nil {
		t.Fatal(err)
	}
	var rows []querytest.Row
	var sources []lake.ReceiptID
	for _, s := range found.Segments {
		edit.Remove = append(edit.Remove, s.ID)
		rows = append(rows, l.Store.rowsOf(s.Key)...)
		sources = append(sources, l.sourcesOf(s.Key)...)
	}
	sort.SliceStable(rows, func(i, j int) bool { return rows[i].Time.Before(rows[j].Time) })
	slices.Sort(sources)
	segment := l.Store.PutAt(lake.SegmentKey(organization, lake.SignalLogs, w, lease, len(edit.Add)), organization, rows)
	segment.Window, segment.Sources, segment.FormatVersion, segment.Level = w, slices.Compact(sources), 1, 1
	edit.Add = append(edit.Add, segment)
}

// Pending leaves an object received but not ingested.
func (l *Lake) Pending(t testing.TB, organization lake.Organization) {
	l.receive(t, organization, lake.SignalLogs)
}

func (l *Lake) receive(t testing.TB, organization lake.Organization, signal lake.Signal) lake.ReceiptID {
	t.Helper()
	l.mu.Lock()
	l.objects++
	key := fmt.Sprintf("otel-raw/%s/collector/logs_%d", organization, l.objects)
	l.mu.Unlock()
	noticed, err := l.Index.Receive(t.Context(), []index.Notice{{
		Object: lake.Object{Bucket: "lake", Key: key, Tag: "1", Size: 100, LastModified: time.Now()}, Organization: organization, Signal: signal,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return noticed[0].Receipt.ID
}

func (l *Lake) claim(t testing.TB, organization lake.Organization, signal lake.Signal) *lake.Lease {
	t.Helper()
	lease, err := l.Index.Claim(t.Context(), index.Batch{Kind: lake.TaskIngest, Receipt: l.receive(t, organization, signal)})
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
