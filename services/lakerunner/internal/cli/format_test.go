// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"bytes"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/config/v1"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// TestFormats holds every output format to a golden file.
func TestFormats(t *testing.T) {
	t.Parallel()
	env := func(out io.Writer) Environment {
		return Environment{Stdout: out, Stderr: out, Now: func() time.Time { return noon() }}
	}
	lines := func(format string, all bool) func(io.Writer) error {
		return func(out io.Writer) error {
			return (&linePrinter{out: out, format: format, allLabels: all, zone: time.UTC}).print(exampleLines())
		}
	}
	series := func(format string) func(io.Writer) error {
		return func(out io.Writer) error {
			return (&seriesPrinter{out: out, format: format, zone: time.UTC}).print(exampleSeries())
		}
	}
	cases := map[string]func(io.Writer) error{
		"lines.table":        lines("table", false),
		"lines.labels.table": lines("table", true),
		"lines.json":         lines("json", false),
		"lines.raw":          lines("raw", false),
		"samples.table":      series("table"),
		"samples.json":       series("json"),
		"samples.raw":        series("raw"),
		"series.table":       func(out io.Writer) error { return printSeries(out, "table", exampleSets()) },
		"series.json":        func(out io.Writer) error { return printSeries(out, "json", exampleSets()) },
		"explain.table":      func(out io.Writer) error { return printExplain(out, "table", exampleExplain()) },
		"explain.json":       func(out io.Writer) error { return printExplain(out, "json", exampleExplain()) },
		"preview.table":      func(out io.Writer) error { return printPreview(out, examplePreview(), time.UTC) },
		"receipts.table":     func(out io.Writer) error { return printExampleReceipts(env(out)) },
		"backfills.table":    func(out io.Writer) error { return printBackfills(env(out), "table", exampleBackfills()) },
		"backfills.json":     func(out io.Writer) error { return printBackfills(env(out), "json", exampleBackfills()) },
		"status.table":       func(out io.Writer) error { return printStatus(out, exampleStatus(), noon()) },
		"keys.table":         func(out io.Writer) error { return printKeys(env(out), "table", exampleKeys()) },
		"keys.json":          func(out io.Writer) error { return printKeys(env(out), "json", exampleKeys()) },
		"statistics.txt": func(out io.Writer) error {
			_, err := io.WriteString(out, statisticsLine(exampleStatistics())+"\n"+progressLine(exampleStatistics(), 2500*time.Millisecond)+"\n"+progressLine(nil, time.Second)+"\n")
			return err
		},
	}
	for name, print := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			if err := print(&got); err != nil {
				t.Fatal(err)
			}
			golden(t, name, got.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./internal/cli -rewrite makes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func exampleLines() []*queryv1.LogLine {
	return []*queryv1.LogLine{
		{
			Time: timestamppb.New(noon().Add(123456789)), Line: `order "7" failed: <declined> & kept`,
			Labels: map[string]string{"service_name": "checkout", "k8s_namespace_name": "shop"}, Metadata: map[string]string{"detected_level": "error", "trace_id": "0af7"},
		},
		{Time: timestamppb.New(noon()), Line: "first\n  second", Labels: map[string]string{"service_name": "a-service-with-a-long-name"}, Parsed: map[string]string{"level": "info"}},
		{Time: timestamppb.New(noon()), Line: ""},
	}
}

func exampleSeries() []*queryv1.Series {
	return []*queryv1.Series{
		{Labels: map[string]string{"service_name": "checkout"}, Samples: []*queryv1.Sample{
			{Time: timestamppb.New(noon()), Value: 12}, {Time: timestamppb.New(noon().Add(time.Minute)), Value: 0.1},
		}},
		{Samples: []*queryv1.Sample{{Time: timestamppb.New(noon()), Value: math.NaN()}, {Time: timestamppb.New(noon()), Value: math.Inf(1)}, {Time: timestamppb.New(noon()), Value: 3e21}}},
	}
}

func exampleSets() []*queryv1.LabelSet {
	return []*queryv1.LabelSet{{Labels: map[string]string{"b": "2", "a": "1\n"}}, {Labels: map[string]string{"c": "<3>"}}}
}

func exampleExplain() *queryv1.ExplainResponse {
	return &queryv1.ExplainResponse{
		Segments: 12, Bytes: 5 << 20, Rows: 1234567, ObjectRequests: 24, EstimatedSeconds: 0.25, EstimatedPriceUsd: 0.00001, Plan: "sum by (service_name)\n  count over segments",
		Completeness: &queryv1.Completeness{PendingObjects: 1},
	}
}

func examplePreview() *ingestorv1.PreviewObjectResponse {
	return &ingestorv1.PreviewObjectResponse{
		Format: "ndjson+gzip", Signal: lakev1.Signal_SIGNAL_LOGS, RowsIn: 3, RowsOut: 2, Rejected: map[string]int64{"too_old": 1}, Organization: "default", Problem: "truncated gzip",
		Attributes: []*ingestorv1.Attribute{{Scope: "resource", Name: "service.name", Type: "string", Rows: 2}, {Scope: "log", Name: "status", Type: "int", Rows: 1}},
		FirstRows: []*ingestorv1.PreviewRow{{
			Time: timestamppb.New(noon()), TimeSource: "event", Labels: map[string]string{"service_name": "a"}, Metadata: map[string]string{"status": "200"}, Body: "one\ntwo", Template: "<*>",
		}},
		FirstRejects: []*ingestorv1.RejectedRow{{Reason: "too_old", Row: `{"time":0}`}},
	}
}

func printExampleReceipts(env Environment) error {
	r := &receiptsCommand{client: &client{env: env}}
	t := newTable("ID", "STATE", "UPDATED", "ROWS IN", "ROWS OUT", "FORMAT", "OBJECT", "REMARK")
	r.addRow(t, &lakev1.Receipt{
		ReceiptId: "7", State: lakev1.ReceiptState_RECEIPT_STATE_DONE, UpdatedAt: timestamppb.New(noon()), RowsIn: 10, RowsOut: 8, Format: "otlp-proto+gzip",
		Object: &lakev1.Object{Bucket: "b", Key: "k"}, Rejected: map[string]int64{"too_old": 2},
	})
	r.addRow(t, &lakev1.Receipt{ReceiptId: "8", State: lakev1.ReceiptState_RECEIPT_STATE_FAILED, Object: &lakev1.Object{Bucket: "b", Key: "l"}, Reason: "no known format"})
	t.write(env.Stdout)
	return nil
}

func exampleBackfills() []*notifierv1.Backfill {
	return []*notifierv1.Backfill{{
		BackfillId: "3", Bucket: "b", Prefix: "old/", State: notifierv1.BackfillState_BACKFILL_STATE_RUNNING, ObjectsDone: 12, BytesDone: 2048,
		Estimate: &notifierv1.BackfillEstimate{Objects: 1200, Bytes: 3 << 30}, CreatedAt: timestamppb.New(noon()),
	}}
}

func exampleKeys() []*configv1.APIKey {
	return []*configv1.APIKey{
		{KeyId: "k1", Organization: "default", Scopes: []configv1.Scope{configv1.Scope_SCOPE_QUERY, configv1.Scope_SCOPE_INGEST}, Description: "Grafana", CreatedAt: timestamppb.New(noon())},
		{KeyId: "k2", Scopes: []configv1.Scope{configv1.Scope_SCOPE_ADMIN}},
	}
}

func exampleStatistics() *queryv1.Statistics {
	return &queryv1.Statistics{
		SegmentsConsidered: 40, SegmentsPruned: 10, SegmentsRead: 10, BytesRead: 3 << 30, BytesFetched: 1000, ObjectRequests: 20, CacheHits: 5, RowsScanned: 1000000, RowsReturned: 100,
		Duration: durationpb.New(1234 * time.Millisecond),
	}
}

func exampleStatus() *janitorv1.GetStatusResponse {
	return &janitorv1.GetStatusResponse{Organizations: []*janitorv1.OrganizationStatus{
		{
			Organization: "acme", Segments: &janitorv1.Count{Segments: 1204, Rows: 3_000_000_000, Bytes: 91 << 30}, Debt: &janitorv1.Count{Segments: 31, Rows: 2_000_000, Bytes: 77 << 20},
			IngestLag: durationpb.New(4 * time.Second), Receipts: map[string]int64{"pending": 3}, ComparedObjects: 81_000, KnownObjects: 81_000,
			Removed: &janitorv1.Count{Segments: 400, Rows: 1_000_000, Bytes: 1 << 30}, LastSnapshot: timestamppb.New(noon().Add(-time.Hour)),
			LastRetention: &janitorv1.RetentionRun{
				StartedAt: timestamppb.New(noon().Add(-2 * time.Hour)), Due: &janitorv1.Count{Segments: 24}, Removed: &janitorv1.Count{Segments: 24}, Deleted: &janitorv1.Count{Segments: 24}, Verified: &janitorv1.Count{Segments: 24},
			},
			RawBytes: 500 << 30, Requests: &janitorv1.Requests{Puts: 9000, Gets: 81_000, Lists: 600, Deletes: 12}, DollarsPerMonth: 14.5,
		},
		{
			Organization: "beta", IngestLag: durationpb.New(2 * time.Hour), Receipts: map[string]int64{"pending": 1000, "failed": 2}, Buried: map[string]int64{"ingest": 2, "compact": 1},
			ComparedObjects: 100, KnownObjects: 97, Missing: 1, AbandonedLeases: 4, RecordsToShip: 12, LastSnapshot: timestamppb.New(noon().Add(-72 * time.Hour)), DeletesUnderWay: 1,
		},
	}}
}
