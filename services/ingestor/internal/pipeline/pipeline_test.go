// SPDX-License-Identifier: AGPL-3.0-only

package pipeline_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
)

func outcomes(edit lake.Edit) map[lake.ReceiptID]lake.Outcome {
	m := map[lake.ReceiptID]lake.Outcome{}
	for _, o := range edit.Outcomes {
		m[o.Receipt] = o
	}
	return m
}

func lines(prefix string, n int, from time.Time, step time.Duration) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s %s %d\n", from.Add(time.Duration(i)*step).UTC().Format(time.RFC3339Nano), prefix, i)
	}
	return []byte(b.String())
}

func TestWork(t *testing.T) {
	t.Parallel()
	t.Run("writes the rows of every object into segments of one hour", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		otlp := f.put("logs-raw/acme/c/a.binpb.gz", gzipped(otlpLogs(900, benchTime())))
		text := f.put("logs-raw/acme/c/b.txt", lines("text", 300, benchTime(), time.Minute))
		edit := f.work(otlp, text)
		rows := f.rows(edit.Add)
		if len(rows[otlp.ID]) != 900 || len(rows[text.ID]) != 300 {
			t.Errorf("%d and %d rows", len(rows[otlp.ID]), len(rows[text.ID]))
		}
		if len(edit.Add) != 6 { // 300 minutes from half past ten, and an hour that both share
			t.Errorf("%d segments", len(edit.Add))
		}
		for _, s := range edit.Add {
			if s.Rows == 0 || s.Bytes == 0 || s.SidecarBytes == 0 || s.RowHash == 0 || !s.Window.Contains(s.FirstTime) || !s.Window.Contains(s.LastTime) {
				t.Errorf("segment %+v", s)
			}
		}
		want := []lake.ReceiptID{otlp.ID, text.ID}
		if diff := cmp.Diff(want, edit.Add[0].Sources); diff != "" {
			t.Error(diff)
		}
		got := outcomes(edit)[otlp.ID]
		if diff := cmp.Diff(lake.Outcome{
			Receipt: otlp.ID, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "otlp-proto+gzip", RowsIn: 900, RowsOut: 900, Rejected: map[string]int64{},
		}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("gives the same rows when it works twice", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		receipt := f.put("logs-raw/acme/c/a.binpb", otlpLogs(500, benchTime()))
		first, second := f.work(receipt), f.work(receipt)
		if diff := cmp.Diff(f.rows(first.Add), f.rows(second.Add)); diff != "" {
			t.Error(diff)
		}
		if first.Add[0].RowHash != second.Add[0].RowHash || first.Add[0].Key == second.Add[0].Key {
			t.Errorf("%+v\n%+v", first.Add[0], second.Add[0])
		}
	})
	t.Run("writes nothing for no rows", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		edit := f.work(f.put("logs-raw/acme/c/a.txt", []byte("\n\n")))
		if len(edit.Add) != 0 || edit.Outcomes[0].State != lake.ReceiptDone {
			t.Errorf("%+v", edit)
		}
	})
}

// TestBadObjectIsIsolated holds that a bad object's rows are in no segment, and its neighbours' all are, wherever it stands.
func TestBadObjectIsIsolated(t *testing.T) {
	t.Parallel()
	broken := append(otlpLogs(600, benchTime()), 0x0a, 0x02, 0x12, 0x50)
	half := gzipped(lines("half", 5000, benchTime(), time.Millisecond))
	flipped := gzipped(lines("flipped", 5000, benchTime(), time.Millisecond))
	flipped[len(flipped)-6] ^= 1
	traces := ptrace.NewTraces()
	traces.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName("GET /")
	tracesJSON, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
	if err != nil {
		t.Fatal(err)
	}
	for _, memory := range []int64{0, 3 << 20} {
		t.Run(fmt.Sprintf("with %d bytes of memory", memory), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *pipeline.Config, _ *pipeline.Deps) { c.Memory = memory })
			good := func(name string) lake.Receipt {
				return f.put("logs-raw/acme/c/"+name, lines(name, 20_000, benchTime(), time.Second))
			}
			receipts := []lake.Receipt{
				good("first"),
				f.put("logs-raw/acme/c/broken", broken),
				good("second"),
				f.put("logs-raw/acme/c/flipped", flipped),
				f.put("logs-raw/acme/c/half", half[:len(half)-9]),
				f.put("logs-raw/acme/c/traces.json", tracesJSON),
				f.put("logs-raw/acme/c/gone", []byte("x")),
				f.put("logs-raw/acme/c/changed", []byte("x")),
				good("last"),
			}
			if err := f.bucket.Delete(context.Background(), "logs-raw/acme/c/gone"); err != nil {
				t.Fatal(err)
			}
			f.put("logs-raw/acme/c/changed", []byte("changed"))
			edit := f.work(receipts...)
			rows, got := f.rows(edit.Add), outcomes(edit)
			for _, i := range []int{0, 2, 8} {
				if n := len(rows[receipts[i].ID]); n != 20_000 || got[receipts[i].ID].State != lake.ReceiptDone {
					t.Errorf("%s: %d rows, %+v", receipts[i].Object.Key, n, got[receipts[i].ID])
				}
			}
			for i, want := range map[int]lake.ReceiptState{1: lake.ReceiptFailed, 3: lake.ReceiptFailed, 5: lake.ReceiptSkipped, 6: lake.ReceiptFailed, 7: lake.ReceiptSkipped} {
				o := got[receipts[i].ID]
				if len(rows[receipts[i].ID]) != 0 || o.State != want || o.Reason == "" || o.RowsOut != 0 {
					t.Errorf("%s: %d rows, %+v", receipts[i].Object.Key, len(rows[receipts[i].ID]), o)
				}
			}
			if o := got[receipts[5].ID]; o.Reason != "signal not supported by this release: spans" || o.Signal != lake.SignalSpans {
				t.Errorf("%+v", o)
			}
			o := got[receipts[4].ID]
			if o.State != lake.ReceiptDone || !strings.Contains(o.Reason, "truncated") || o.RowsOut < 1000 || int(o.RowsOut) != len(rows[receipts[4].ID]) {
				t.Errorf("half: %d rows, %+v", len(rows[receipts[4].ID]), o)
			}
			if len(got)+len(edit.Retry) != len(receipts) {
				t.Errorf("%d outcomes, %d retries", len(got), len(edit.Retry))
			}
		})
	}
}

func TestRejectedRows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	content := slices.Concat(
		lines("good", 10, benchTime(), time.Second),
		[]byte("nul \x00 and broken \xff text\n1970-01-01T00:00:00Z old\n2300-01-01T00:00:00Z new\n"),
		[]byte(strings.Repeat("x", 70_000)), []byte("\n"),
	)
	receipt := f.put("logs-raw/acme/c/a.txt", content)
	lease := f.lease(receipt)
	edit, err := f.worker.Work(context.Background(), lease)
	if err != nil {
		t.Fatal(err)
	}
	want := lake.Outcome{
		Receipt: receipt.ID, State: lake.ReceiptDone, Signal: lake.SignalLogs, Format: "text", RowsIn: 14, RowsOut: 11,
		Reason:   "invalid UTF-8 replaced in 1 strings; NUL bytes in 1 rows",
		Rejected: map[string]int64{"too_old": 1, "too_new": 1, "line_too_long": 1},
	}
	if diff := cmp.Diff(want, edit.Outcomes[0]); diff != "" {
		t.Error(diff)
	}
	if rows := f.rows(edit.Add)[receipt.ID]; !slices.Contains(rows, "nul \x00 and broken \uFFFD text") {
		t.Errorf("rows %q", rows)
	}
	kept := gunzip(t, f.read(lake.RejectsKey("acme", lease.ID, receipt.ID)))
	if n := bytes.Count(kept, []byte("\n")); n != 3 {
		t.Errorf("%d rejected rows were kept", n)
	}
	t.Run("can be ingested again", func(t *testing.T) {
		t.Parallel()
		again := f.put("logs-raw/acme/c/rejects.ndjson", kept)
		edit := f.work(again)
		if o := edit.Outcomes[0]; o.Format != "otlp-json" || o.Rejected["too_old"] != 1 || o.Rejected["too_new"] != 1 {
			t.Errorf("%+v", o)
		}
	})
}

// TestHostileObjects holds that the receipt says what was wrong, and that the neighbour's rows are all there.
func TestHostileObjects(t *testing.T) {
	t.Parallel()
	good := lines("good", 100, benchTime(), time.Second)
	for name, c := range map[string]struct {
		content []byte
		state   lake.ReceiptState
		reason  string
		out     int64
		reject  map[string]int64
	}{
		"a bomb of 1000:1":           {gzipped(make([]byte, 256<<20)), lake.ReceiptFailed, "decompress", 0, nil},
		"a line of 64 MB":            {slices.Concat(good, bytes.Repeat([]byte("x"), 64<<20), []byte("\n"), good), lake.ReceiptDone, "", 200, map[string]int64{"line_too_long": 1}},
		"nothing but broken text":    {bytes.Repeat([]byte("\xff\xfe\n"), 50), lake.ReceiptFailed, "no known format", 0, nil},
		"a gzip header and no more":  {gzipped(good)[:12], lake.ReceiptFailed, "truncated", 0, nil},
		"times of 1970 and of 2262":  {[]byte("1970-01-01T00:00:00Z a\n2262-04-11T23:47:16Z b\n"), lake.ReceiptDone, "", 0, map[string]int64{"too_old": 1, "too_new": 1}},
		"a year that no int64 holds": {[]byte(`{"timestamp":"9999-12-31T23:59:59Z","message":"far"}` + "\n"), lake.ReceiptDone, "", 0, map[string]int64{"too_new": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			hostile, neighbour := f.put("logs-raw/acme/c/hostile", c.content), f.put("logs-raw/acme/c/neighbour", good)
			edit := f.work(hostile, neighbour)
			got := outcomes(edit)
			if o := got[neighbour.ID]; o.State != lake.ReceiptDone || o.RowsOut != 100 || len(f.rows(edit.Add)[neighbour.ID]) != 100 {
				t.Errorf("the neighbour: %+v", o)
			}
			o := got[hostile.ID]
			if o.State != c.state || o.RowsOut != c.out || !strings.Contains(o.Reason, c.reason) || o.State == lake.ReceiptFailed && o.Reason == "" {
				t.Errorf("%+v", o)
			}
			for reason, n := range c.reject {
				if o.Rejected[reason] != n {
					t.Errorf("rejected %v, want %v", o.Rejected, c.reject)
				}
			}
		})
	}
}

func gunzip(t testing.TB, content []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var b strings.Builder
	for i := range 6000 {
		fmt.Fprintf(&b, "{\"time\":%q,\"service\":\"s%d\",\"msg\":\"x\"}\n", benchTime().Format(time.RFC3339), i)
	}
	o := f.work(f.put("logs-raw/acme/c/a.json", []byte(b.String()))).Outcomes[0]
	if o.RowsOut != 5000 || o.Rejected["too_many_streams"] != 1000 {
		t.Errorf("%+v", o)
	}
}

// brokenStore fails what it is told to.
type brokenStore struct {
	objects.Store
	open, get, put error
}

func (s brokenStore) Bucket(ctx context.Context, name string) (objects.Bucket, error) {
	b, err := s.Store.Bucket(ctx, name)
	return brokenBucket{Bucket: b, open: s.open, get: s.get, put: s.put}, err
}

type brokenBucket struct {
	objects.Bucket
	open, get, put error
}

func (b brokenBucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, objects.Attributes, error) {
	if b.open != nil {
		return nil, objects.Attributes{}, b.open
	}
	r, a, err := b.Bucket.Get(ctx, key, tag)
	if err == nil && b.get != nil {
		r = io.NopCloser(io.MultiReader(io.LimitReader(r, a.Size/2), errReader{b.get}))
	}
	return r, a, err
}

func (b brokenBucket) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) (objects.Attributes, error) {
	if b.put != nil {
		return objects.Attributes{}, b.put
	}
	return b.Bucket.Put(ctx, key, body, size)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestStoreTrouble(t *testing.T) {
	t.Parallel()
	unavailable := fault.New(fault.Unavailable, "slow down")
	for name, c := range map[string]struct {
		err       error
		blameless bool
	}{
		"of a store that is away":            {unavailable, true},
		"of a store that is slow":            {fault.New(fault.Timeout, "no answer"), true},
		"of one whose calls have a deadline": {context.DeadlineExceeded, true},
		"of a store that denies":             {fault.New(fault.Denied, "no permission"), false},
		"of unknown cause":                   {errors.New("odd"), false},
	} {
		t.Run(fmt.Sprintf("%s counts towards burial: %t", name, !c.blameless), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(_ *pipeline.Config, d *pipeline.Deps) { d.Objects = brokenStore{Store: d.Objects, open: c.err} })
			receipt := f.put("logs-raw/acme/c/small", lines("x", 10, benchTime(), time.Second))
			edit := f.work(receipt)
			if len(edit.Retry) != 1 || edit.Retry[0].Blameless != c.blameless {
				t.Errorf("%+v", edit)
			}
		})
	}
	t.Run("while reading is a retry, for small and large objects", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, func(_ *pipeline.Config, d *pipeline.Deps) {
			d.Objects = brokenStore{Store: d.Objects, get: unavailable}
		})
		small := f.put("logs-raw/acme/c/small", lines("x", 10, benchTime(), time.Second))
		large := f.put("logs-raw/acme/c/large", bytes.Repeat([]byte("2026-11-22T10:00:00Z some text\n"), 300_000))
		edit := f.work(small, large)
		if len(edit.Retry) != 2 || len(edit.Outcomes) != 0 || len(edit.Add) != 0 || !strings.Contains(edit.Retry[1].Cause, "slow down") ||
			!edit.Retry[0].Blameless || !edit.Retry[1].Blameless {
			t.Errorf("%+v", edit)
		}
	})
	t.Run("while writing fails the lease", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, func(_ *pipeline.Config, d *pipeline.Deps) {
			d.Objects = brokenStore{Store: d.Objects, put: unavailable}
		})
		receipt := f.put("logs-raw/acme/c/small", lines("x", 10, benchTime(), time.Second))
		if _, err := f.worker.Work(context.Background(), f.lease(receipt)); !errors.Is(err, fault.Unavailable) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("of a lease that was lost ends the work", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		receipt := f.put("logs-raw/acme/c/small", lines("x", 10, benchTime(), time.Second))
		if _, err := f.worker.Work(ctx, f.lease(receipt)); err == nil {
			t.Error("no error")
		}
	})
}

func TestCheckpoints(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var names []string
	f := newFixture(t, func(_ *pipeline.Config, d *pipeline.Deps) {
		d.Checkpoint = func(name string) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, name)
		}
	})
	f.work(f.put("logs-raw/acme/c/a", lines("x", 2, benchTime(), time.Hour)))
	slices.Sort(names)
	want := []string{"declared", "decoded", "deletes-read", "fetched", "uploaded-0", "uploaded-1", "written-0", "written-1"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestConcurrentLeases(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var receipts []lake.Receipt
	for i := range 6 {
		receipts = append(receipts, f.put(fmt.Sprint("logs-raw/acme/c/", i), otlpLogs(3000, benchTime())))
	}
	var leases []*lake.Lease
	for _, r := range receipts {
		leases = append(leases, f.lease(r))
	}
	var wg sync.WaitGroup
	for _, lease := range leases {
		wg.Go(func() {
			edit, err := f.worker.Work(context.Background(), lease)
			if err != nil || edit.Outcomes[0].RowsOut != 3000 {
				t.Errorf("%v, %+v", err, edit)
			}
		})
	}
	wg.Wait()
}

func TestLook(t *testing.T) {
	t.Parallel()
	preview, err := pipeline.Look(bytes.NewReader(gzipped(otlpLogs(90, benchTime()))), pipeline.PreviewOptions{
		Now: benchTime(), Rows: 2, Labels: []string{"service.name"}, Limits: previewLimits(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if preview.In != 90 || preview.Out != 90 || len(preview.Rows) != 2 || preview.Format != "otlp-proto+gzip" {
		t.Errorf("%+v", preview)
	}
	row := preview.Rows[0]
	if row.Template != "order <*> accepted in <*> ms" || row.Labels[0].Value != "checkout" || len(row.Metadata) == 0 {
		t.Errorf("%+v", row)
	}
	want := pipeline.PreviewAttribute{Scope: "resource", Name: "host.name", Rows: 90}
	if !slices.Contains(preview.Attributes, want) {
		t.Errorf("%+v", preview.Attributes)
	}
}
