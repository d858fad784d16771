// SPDX-License-Identifier: AGPL-3.0-only

package work_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/rollup"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/services/rollup/internal/plan"
)

// line is a log line in brief.
type line struct {
	at             time.Time
	service, level string
	body           string
	identity       string // empty: none
}

const lineTiers = "    rollups: [{signal: logs, resolution: 1m}, {signal: logs, resolution: 1h}]\n"

// lines are n of a service in an hour, some of them exactly on the ends of buckets, or just behind.
func (f *fixture) lines(service, level, body string, hour, n int) []line {
	var all []line
	for i := range n {
		at := f.start.Add(time.Duration(hour)*time.Hour + time.Duration(i)*time.Hour/time.Duration(n)).Truncate(time.Minute)
		all = append(all, line{at: at.Add(time.Duration(i%3) * 300 * time.Microsecond), service: service, level: level, body: fmt.Sprint(body, " ", i)})
	}
	return all
}

func (f *fixture) ingestLines(key string, lines []line) {
	f.t.Helper()
	receipt := f.receive(object{key: key, replace: key != ""}, lake.SignalLogs)
	f.commit(receipt, lake.SignalLogs, len(lines), func(ctx context.Context, lease *lake.Lease, latest lake.DeleteID) []lake.Segment {
		hours := map[lake.Window][]line{}
		for _, l := range lines {
			hour := lake.WindowOf(l.at, time.Hour)
			hours[hour] = append(hours[hour], l)
		}
		var added []lake.Segment
		for window, lines := range hours {
			added = append(added, f.lineSegment(ctx, lease, len(added), receipt, window, lines, latest))
		}
		return added
	})
}

func (f *fixture) lineSegment(
	ctx context.Context, lease *lake.Lease, n int, receipt lake.ReceiptID, window lake.Window, lines []line, latest lake.DeleteID,
) lake.Segment {
	f.t.Helper()
	l := columns.NewLogs()
	order := make([]uint32, len(lines))
	for i, one := range lines {
		var origin columns.Origin
		var attributes []columns.Attribute
		if one.identity != "" {
			origin.Identity = "event.id"
			attributes = append(attributes, columns.Attribute{Name: "event.id", Value: columns.Value{Str: one.identity}})
		}
		l.Append(&columns.LogRow{
			Time: one.at.UnixNano(), Stream: l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: one.service}}), Origin: l.Origin(origin), Body: one.body,
			Source: receipt, DetectedLevel: one.level, Attributes: attributes, Fingerprint: lake.FingerprintOf([]byte(one.body)),
		})
		order[i] = uint32(i)
	}
	l.Sort(order)
	var parquet, sidecar bytes.Buffer
	m := segfile.Meta{Organization: org, Signal: lake.SignalLogs, Window: window, Lease: lease.ID, Sources: []lake.ReceiptID{receipt}, AppliedDelete: latest}
	written, err := segfile.WriteLogs(ctx, &parquet, &sidecar, l, order, m)
	if err != nil {
		f.t.Fatal(err)
	}
	key := lake.SegmentKey(org, lake.SignalLogs, window, lease.ID, n)
	f.store(key, parquet.Bytes())
	f.store(lake.SidecarKey(key), sidecar.Bytes())
	return lake.Segment{
		Organization: org, Signal: lake.SignalLogs, Window: window, Bucket: f.bucket.Name(), Key: key, Bytes: written.Bytes,
		SidecarBytes: written.SidecarBytes, Rows: written.Rows, FirstTime: written.First, LastTime: written.Last, FormatVersion: written.FormatVersion,
		RowHash: written.RowHash, Sources: m.Sources, AppliedDelete: latest, Identified: written.Identified,
	}
}

// wantLines compares a tier with the lines: by service and level, their number and bytes of each bucket.
func (f *fixture) wantLines(resolution time.Duration, lines []line) {
	f.t.Helper()
	type sum struct {
		Lines int64
		Bytes float64
	}
	want, got := map[string]sum{}, map[string]sum{}
	add := func(to map[string]sum, labels string, end int64, lines int64, bytes float64) {
		key := fmt.Sprint(labels, " ", time.UnixMilli(end).UTC().Format(time.RFC3339))
		to[key] = sum{to[key].Lines + lines, to[key].Bytes + bytes}
	}
	for _, l := range lines {
		end := l.at.Truncate(resolution)
		if end.Before(l.at) {
			end = end.Add(resolution)
		}
		series := rollup.Lines(l.service, l.level, rollup.Fingerprint(int64(lake.FingerprintOf([]byte(l.body)))))
		add(want, series.Labels.String(), end.UnixMilli(), 1, float64(len(l.body)))
	}
	for labels, r := range f.rolled(lake.SignalLogs, resolution) {
		for i, end := range r.Ends {
			add(got, labels, end, r.Counts[i], r.Tracks[0].Sum[i])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("lines at %s (-want +got):\n%s", resolution, diff)
	}
}

func TestLinesAreCountedByServiceLevelAndFingerprint(t *testing.T) {
	t.Parallel()
	f := newFixture(t, lineTiers)
	var all []line
	for hour := range 2 {
		checkout := append(f.lines("checkout", "info", "order done", hour, 200), f.lines("checkout", "error", "order failed", hour, 30)...)
		ship := f.lines("ship", "", "GET /x", hour, 100)
		f.ingestLines("", checkout)
		f.ingestLines("", ship)
		all = append(append(all, checkout...), ship...)
	}
	for hour := range 2 {
		report := f.rollOf(lake.SignalLogs, hour, time.Minute)
		if a := report.Account; a.In != 330 || a.Counted != 330 || len(report.Added) != 1 {
			t.Errorf("%+v", a)
		}
	}
	f.wantLines(time.Minute, all)
	report := f.rollOf(lake.SignalLogs, 0, time.Hour)
	if a := report.Account; a.In != 660 || a.Counted != 660 || report.Plan.Sources[0].Resolution != time.Minute {
		t.Errorf("%+v", report)
	}
	f.wantLines(time.Hour, all)
}

func TestLinesOfRowsAndOfFinerRollupsTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t, lineTiers)
	first, second := f.lines("checkout", "info", "order done", 0, 120), f.lines("checkout", "info", "order done", 1, 120)
	f.ingestLines("", first)
	f.ingestLines("raw/acme/c/rewritten", f.lines("checkout", "info", "rewritten", 1, 50))
	f.ingestLines("raw/acme/c/rewritten", second)
	f.rollOf(lake.SignalLogs, 0, time.Minute)
	report := f.rollOf(lake.SignalLogs, 0, time.Hour)
	if a := report.Account; a.In != 290 || a.Counted != 240 || a.Masked != 50 || len(report.Plan.Sources) != 2 {
		t.Errorf("%+v", report)
	}
	f.wantLines(time.Hour, append(first, second...))
}

func TestLinesWaitForCompaction(t *testing.T) {
	t.Parallel()
	f := newFixture(t, lineTiers)
	lines := f.lines("checkout", "info", "order done", 0, 20)
	for i := range lines {
		lines[i].identity = fmt.Sprint(i)
	}
	f.ingestLines("", lines)
	f.rollOf(lake.SignalLogs, 0, time.Minute)
	f.wantLines(time.Minute, lines)
	f.ingestLines("", lines[:5]) // doubles, perhaps: what one lease wrote has none
	if report := f.rollOf(lake.SignalLogs, 0, time.Minute); report.Plan.Action != plan.Wait || report.Plan.Again.IsZero() {
		t.Errorf("%+v", report.Plan)
	}
	f = newFixture(t, lineTiers)
	f.ingestLines("", f.lines("checkout", "info", "order done", 0, 20))
	f.createDelete(lake.SignalLogs, `{service_name="checkout"} |= "done 3"`, f.start, f.start.Add(time.Hour))
	if report := f.rollOf(lake.SignalLogs, 0, time.Minute); report.Plan.Action != plan.Wait {
		t.Errorf("%+v", report.Plan)
	}
}

func TestDeletesReachCountsOfLinesThatAreGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t, lineTiers)
	kept, gone := f.lines("checkout", "info", "order done", 0, 200), f.lines("cart", "info", "item added", 0, 300)
	f.ingestLines("", append(slices.Clone(kept), gone...))
	f.rollOf(lake.SignalLogs, 0, time.Minute)
	f.expireOf(lake.SignalLogs, 0)
	f.createDelete(lake.SignalLogs, `{service_name="checkout"} |= "done 3"`, f.start, f.start.Add(time.Hour))
	if report := f.rollOf(lake.SignalLogs, 0, time.Minute); report.Plan.Action != plan.None {
		t.Errorf("what counts do not tell: %+v", report.Plan)
	}
	f.wantLines(time.Minute, append(slices.Clone(kept), gone...))
	f.createDelete(lake.SignalLogs, `{service_name="cart"}`, f.start, f.start.Add(time.Hour))
	if report := f.rollOf(lake.SignalLogs, 0, time.Minute); report.Plan.Action != plan.Erase || report.Account.Deleted != int64(len(gone)) {
		t.Errorf("a whole service: %+v", report)
	}
	f.wantLines(time.Minute, kept)
}
