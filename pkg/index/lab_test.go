// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const acme = lake.Organization("acme")

// hour is the window that the tests' segments lie in.
var hour = lake.Window{Start: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Length: time.Hour}

// lab is one test's index, with a way around it.
type lab struct {
	*testing.T
	*index.Index
	sql *pgxpool.Pool
}

func setup(t *testing.T) *lab {
	t.Helper()
	t.Parallel()
	url := indextest.URL(t)
	x, err := index.Open(t.Context(), index.Config{URL: url, MaxConns: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return &lab{T: t, Index: x, sql: pool}
}

func (l *lab) exec(sql string, args ...any) {
	l.Helper()
	if _, err := l.sql.Exec(l.Context(), sql, args...); err != nil {
		l.Fatal(err)
	}
}

// number reads one number.
func (l *lab) number(sql string, args ...any) int {
	l.Helper()
	var n int
	if err := l.sql.QueryRow(l.Context(), sql, args...).Scan(&n); err != nil {
		l.Fatal(err)
	}
	return n
}

// expire moves the database's clock past a lease, as far as the lease can see.
func (l *lab) expire(lease *lake.Lease) {
	l.Helper()
	l.exec("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second' WHERE id = $1", lease.ID)
}

// hurry ends all backing off.
func (l *lab) hurry() {
	l.Helper()
	l.exec("UPDATE tasks SET not_before = created_at WHERE not_before > clock_timestamp()")
}

func notice(org lake.Organization, key, tag string) index.Notice {
	return index.Notice{
		Object:       lake.Object{Bucket: "b", Key: key, Tag: tag, Size: 100},
		Organization: org,
		Collector:    "agent",
		Signal:       lake.SignalLogs,
	}
}

func notices(org lake.Organization, n int) []index.Notice {
	out := make([]index.Notice, n)
	for i := range out {
		out[i] = notice(org, fmt.Sprintf("%s/%06d", org, i), "v1")
	}
	return out
}

func (l *lab) receive(notices ...index.Notice) []lake.Receipt {
	l.Helper()
	noticed, err := l.Receive(l.Context(), notices)
	if err != nil {
		l.Fatal(err)
	}
	receipts := make([]lake.Receipt, len(noticed))
	for i, n := range noticed {
		receipts[i] = n.Receipt
	}
	return receipts
}

var ingest = index.Batch{Kind: lake.TaskIngest, MaxAttempts: 3}

// claim claims, and there must be something.
func (l *lab) claim(batch index.Batch) *lake.Lease {
	l.Helper()
	lease, err := l.Claim(l.Context(), batch)
	if err != nil {
		l.Fatal(err)
	}
	if lease == nil {
		l.Fatal("nothing was claimed")
	}
	return lease
}

func (l *lab) claimNothing(batch index.Batch) {
	l.Helper()
	lease, err := l.Claim(l.Context(), batch)
	if err != nil {
		l.Fatal(err)
	}
	if lease != nil {
		l.Fatalf("claimed %d tasks of %s, want none", len(lease.Tasks), lease.Organization)
	}
}

// claimReceipt claims one receipt's task.
func (l *lab) claimReceipt(id lake.ReceiptID) *lake.Lease {
	l.Helper()
	batch := ingest
	batch.Receipt = id
	return l.claim(batch)
}

// segment is the n-th of a lease, one row a source.
func segment(lease *lake.Lease, n int, w lake.Window, sources ...lake.ReceiptID) lake.Segment {
	return lake.Segment{
		Organization:  lease.Organization,
		Signal:        lake.SignalLogs,
		Window:        w,
		Bucket:        "b",
		Key:           lake.SegmentKey(lease.Organization, lake.SignalLogs, w, lease.ID, n),
		Bytes:         1000,
		SidecarBytes:  100,
		Rows:          int64(len(sources)),
		FirstTime:     w.Start,
		LastTime:      w.Start.Add(time.Minute),
		FormatVersion: 1,
		RowHash:       1 << 63,
		Sources:       sources,
	}
}

func done(id lake.ReceiptID) lake.Outcome {
	return lake.Outcome{Receipt: id, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "otlp", RowsIn: 1, RowsOut: 1}
}

// whole is the edit that finishes all receipts of a lease with one row each, in one segment.
func whole(lease *lake.Lease) lake.Edit {
	var edit lake.Edit
	var sources []lake.ReceiptID
	for _, r := range lease.Receipts {
		edit.Outcomes = append(edit.Outcomes, done(r.ID))
		sources = append(sources, r.ID)
	}
	edit.Add = []lake.Segment{segment(lease, 0, hour, sources...)}
	return edit
}

func (l *lab) commit(lease *lake.Lease, edit lake.Edit) {
	l.Helper()
	if err := l.Commit(l.Context(), lease, edit); err != nil {
		l.Fatal(err)
	}
}

// ingestAll claims and commits until nothing is left.
func (l *lab) ingestAll() {
	l.Helper()
	for {
		lease, err := l.Claim(l.Context(), ingest)
		if err != nil {
			l.Fatal(err)
		}
		if lease == nil {
			return
		}
		l.commit(lease, whole(lease))
	}
}

func (l *lab) lookup(org lake.Organization) index.Answer {
	l.Helper()
	answer, err := l.Lookup(l.Context(), index.Query{Organization: org, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()})
	if err != nil {
		l.Fatal(err)
	}
	return answer
}

// visible lists the sources whose rows a query would answer, each as often as it would.
func (l *lab) visible(org lake.Organization) []lake.ReceiptID {
	l.Helper()
	sources := []lake.ReceiptID{}
	for _, s := range l.lookup(org).Segments {
		rows, err := l.sql.Query(l.Context(), "SELECT receipt FROM segment_sources WHERE segment = $1", s.ID)
		if err != nil {
			l.Fatal(err)
		}
		for rows.Next() {
			var id lake.ReceiptID
			if err := rows.Scan(&id); err != nil {
				l.Fatal(err)
			}
			if !slices.Contains(s.MaskedSources, id) {
				sources = append(sources, id)
			}
		}
		if err := rows.Err(); err != nil {
			l.Fatal(err)
		}
	}
	slices.Sort(sources)
	return sources
}

func (l *lab) wantVisible(org lake.Organization, want ...lake.ReceiptID) {
	l.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(append([]lake.ReceiptID{}, want...), l.visible(org)); diff != "" {
		l.Errorf("visible sources (-want +got):\n%s", diff)
	}
}

func (l *lab) wantState(id lake.ReceiptID, want lake.ReceiptState) lake.Receipt {
	l.Helper()
	got, err := l.Receipt(l.Context(), id)
	if err != nil {
		l.Fatal(err)
	}
	if got.State != want {
		l.Errorf("receipt %d is %s (%s), want %s", id, got.State, got.Reason, want)
	}
	return got
}

func (l *lab) wantFault(err error, want fault.Kind) {
	l.Helper()
	if !errors.Is(err, want) {
		l.Errorf("got error %v of kind %s, want %s", err, fault.KindOf(err), want)
	}
}

// together runs f n times at once.
func (l *lab) together(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	all.Wait()
	return errs
}

func (l *lab) wantNone(errs []error) {
	l.Helper()
	for i, err := range errs {
		if err != nil {
			l.Errorf("%d: %v", i, err)
		}
	}
}

// succeeded counts the successes; every failure must be a conflict.
func (l *lab) succeeded(errs []error) int {
	l.Helper()
	n := 0
	for _, err := range errs {
		if err == nil {
			n++
			continue
		}
		l.wantFault(err, fault.Conflict)
	}
	return n
}

// window is a task of another kind, on a window.
func window(w lake.Window) lake.Task {
	return lake.Task{Kind: "compact", Organization: acme, Signal: lake.SignalLogs, Window: w, Bytes: 1}
}

var compact = index.Batch{Kind: "compact", MaxTasks: 1, MaxAttempts: 3}

// claimWindow leases work on the hour.
func (l *lab) claimWindow(w lake.Window) *lake.Lease {
	l.Helper()
	if err := l.Enqueue(l.Context(), []lake.Task{window(w)}); err != nil {
		l.Fatal(err)
	}
	return l.claim(compact)
}
