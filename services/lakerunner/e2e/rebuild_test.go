// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	nouns "github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	compactorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/compactor/v1"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

// recovery is a lake with a past: ingest, compaction, a replay, a delete, and files of attempts that died.
type recovery struct {
	*lake
	options    lakeOptions
	start, end time.Time
	objects    int
}

// deletedLine is in lines that the past's delete took.
const deletedLine = "declined"

func newRecovery(t *testing.T) *recovery {
	t.Helper()
	r := &recovery{end: lately()}
	r.lake, r.start = newLake(t, r.options), r.end.Add(-2*time.Hour)
	return r
}

// ingest brings objects of a collector.
func (r *recovery) ingest(seed uint64, collector string, objects int) {
	r.t.Helper()
	for _, o := range makeSample(r.t, sample.Options{Seed: seed, Collector: collector, End: r.end, Length: 2 * time.Hour, Lines: 300 * objects, Objects: objects}) {
		r.put(o.Key, o.Body)
	}
	r.objects += objects
	r.awaitReceipts("default", "otel-raw/", r.objects)
}

func (r *recovery) admin() context.Context { return withKey(r.t.Context(), r.adminKey) }

// compact compacts every hour of the past.
func (r *recovery) compact() {
	r.t.Helper()
	service := compactorv1.NewCompactorServiceClient(r.conn)
	for hour := r.start.Truncate(time.Hour); hour.Before(r.end); hour = hour.Add(time.Hour) {
		eventually(r.t, func() error {
			_, err := service.CompactWindow(r.admin(), &compactorv1.CompactWindowRequest{Organization: "default", Start: timestamppb.New(hour)})
			return err
		})
	}
}

// ship brings all records into the bucket.
func (r *recovery) ship(snapshot bool) {
	r.t.Helper()
	eventually(r.t, func() error {
		_, err := r.janitor().ShipRecords(r.admin(), &janitorv1.ShipRecordsRequest{Organization: "default", Snapshot: snapshot})
		return err
	})
}

func (r *recovery) janitor() janitorv1.JanitorServiceClient {
	return janitorv1.NewJanitorServiceClient(r.conn)
}

func (r *recovery) delete() string {
	r.t.Helper()
	answer, err := r.janitor().DeleteData(r.admin(), &janitorv1.DeleteDataRequest{
		Organization: "default", Selector: `{service_name="checkout"} |= "` + deletedLine + `"`, Reason: "a test",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetDelete().GetDeleteId()
}

// litter leaves what dead attempts leave: files below leases that nobody committed, some of them true copies of live ones.
func (r *recovery) litter() {
	r.t.Helper()
	for a, err := range r.bucket.List(r.t.Context(), nouns.Prefix+"default/logs/", "") {
		if err != nil {
			r.t.Fatal(err)
		}
		parts := strings.Split(a.Key, "/")
		parts[4] = "00000000-dead-dead-dead-000000000000"
		r.copyObject(r.bucket, a.Key, r.bucket, strings.Join(parts, "/"))
	}
	r.put(nouns.Prefix+"default/snapshots/29990101T000000.000000Z/segments-000000.ndjson.gz", []byte("of a snapshot that nobody finished"))
}

func (r *recovery) copyObject(from *s3test.Bucket, key string, to *s3test.Bucket, as string) {
	r.t.Helper()
	body, _, err := from.Get(r.t.Context(), key, "")
	if err != nil {
		r.t.Fatal(err)
	}
	content, err := io.ReadAll(body)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = body.Close()
	if _, err := to.Put(r.t.Context(), as, bytes.NewReader(content), int64(len(content))); err != nil {
		r.t.Fatal(err)
	}
}

// past makes the lake's history; between is called in the middle of it, where a snapshot was written and all records are in the bucket.
func (r *recovery) past(between func()) {
	r.t.Helper()
	r.ingest(81, "one", 6)
	r.compact()
	r.ship(true)
	between()
	r.ingest(82, "two", 4)
	r.replay("default", r.receipts("default", "otel-raw/default/one/")[0].GetReceiptId())
	r.objects++
	r.awaitReceipts("default", "otel-raw/", r.objects)
	r.delete()
	r.compact()
	r.ingest(83, "three", 2)
	r.litter()
}

// answers asks the standing queries: the same lake gives the same text.
func (r *recovery) answers() map[string]string {
	r.t.Helper()
	answers := map[string]string{}
	for _, query := range []string{
		everything, `{service_name="checkout"}`, `{service_name="checkout"} |= "` + deletedLine + `"`, `{service_name=~".+"} |~ "(?i)error|timeout"`,
		`{service_name=~".+"} | detected_level="error"`, `{service_name=~".+", service_name!="gateway"} != "GET"`,
	} {
		got := hashOf(r.lines("default", query, r.start, r.end))
		answers[query] = fmt.Sprintf("%d lines, %x", got.rows, got.sum)
	}
	for _, query := range []string{
		`sum by (service_name) (count_over_time({service_name=~".+"}[5m]))`, `sum(rate({service_name="checkout"} |= "card" [10m]))`,
		`sum by (detected_level) (bytes_over_time({service_name=~".+"}[15m]))`, `topk(2, sum by (service_name) (count_over_time({service_name=~".+"}[1h])))`,
	} {
		answers[query] = r.result("/loki/api/v1/query_range", url.Values{"query": {query}, "step": {"300"}})
	}
	for _, path := range []string{"/loki/api/v1/labels", "/loki/api/v1/label/service_name/values", "/loki/api/v1/series"} {
		answers[path] = r.result(path, url.Values{"match[]": {everything}})
	}
	return answers
}

// result is the answer of the Loki API with its parts in the order of their text.
func (r *recovery) result(path string, params url.Values) string {
	r.t.Helper()
	params.Set("start", nanos(r.start))
	params.Set("end", nanos(r.end))
	status, body := r.fetch(r.keys["default"], path, params)
	if status != http.StatusOK {
		r.t.Fatalf("%s: %d: %s", path, status, body)
	}
	var answer struct{ Data json.RawMessage }
	if err := json.Unmarshal(body, &answer); err != nil {
		r.t.Fatalf("%s: %v: %s", path, err, body)
	}
	var result struct{ Result []json.RawMessage }
	parts := &result.Result
	if !bytes.HasPrefix(answer.Data, []byte("{")) {
		parts = new([]json.RawMessage)
		if err := json.Unmarshal(answer.Data, parts); err != nil {
			r.t.Fatalf("%s: %v: %s", path, err, body)
		}
	} else if err := json.Unmarshal(answer.Data, &result); err != nil {
		r.t.Fatalf("%s: %v: %s", path, err, body)
	}
	var texts []string
	for _, p := range *parts {
		var canonical any
		if err := json.Unmarshal(p, &canonical); err != nil {
			r.t.Fatal(err)
		}
		text, _ := json.Marshal(canonical)
		texts = append(texts, string(text))
	}
	slices.Sort(texts)
	return strings.Join(texts, "\n")
}

func (r *recovery) wantAnswers(want map[string]string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.answers()); diff != "" {
		r.t.Errorf("answers before and after (-want +got):\n%s", diff)
	}
}

// rebuild runs the command on a database, with the services stopped, and starts them on it.
func (r *recovery) rebuild(database string, args ...string) string {
	r.t.Helper()
	code, stdout, stderr := r.command(r.t.Context(), r.adminKey, "", append([]string{"rebuild-index", "--database", database, "--config", r.configPath()}, args...)...)
	if code != 0 {
		r.t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	r.database = database
	r.lake.start(r.options)
	r.awaitReceipts("default", "otel-raw/", r.objects)
	return stdout
}

// verify reads every segment.
func (r *recovery) verify() {
	r.t.Helper()
	code, stdout, stderr := r.command(r.t.Context(), r.adminKey, "", "verify", "--database", r.database, "--config", r.configPath())
	if code != 0 || !strings.Contains(stdout, "problems: 0") {
		r.t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// TestRebuild drops the database under live data, and makes the index again from the bucket alone.
func TestRebuild(t *testing.T) {
	t.Parallel()
	r := newRecovery(t)
	r.past(func() {})
	r.verify()
	r.ship(false)
	want := r.answers()

	// What comes now is in no record: its object is ingested again.
	r.bucket.OnEvent(t, func(context.Context, []byte) error { return nil })
	r.lake.stop()
	late := makeSample(t, sample.Options{Seed: 84, Collector: "late", End: r.end.Add(-3 * time.Hour), Lines: 100, Objects: 1})[0]
	r.put(late.Key, late.Body)
	r.objects++

	r.rebuild(indextest.URL(t), "--reconcile")
	r.wantAnswers(want)
	r.verify()
	if got, want := hashOf(r.lines("default", everything, r.end.Add(-4*time.Hour), r.end.Add(-3*time.Hour))), hashOfSample(late); got != want {
		t.Errorf("the object that no record names: got %+v, want %+v", got, want)
	}

	t.Run("what was deleted stays deleted when its objects come again", func(t *testing.T) {
		for _, receipt := range r.receipts("default", "otel-raw/default/two/") {
			r.replay("default", receipt.GetReceiptId())
			r.objects++
		}
		r.awaitReceipts("default", "otel-raw/", r.objects)
		r.wantAnswers(want)
	})

	t.Run("the lake goes on living", func(t *testing.T) {
		r.compact()
		r.wantAnswers(want)
		r.ship(true)
		r.verify()
	})
}

// TestRestoredBackup goes on with a database of before, to which the bucket tells what has happened since.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	r := newRecovery(t)
	var backup string
	r.past(func() {
		r.lake.stop()
		backup = r.copyDatabase()
		r.lake.start(r.options)
	})
	r.ship(false)
	want := r.answers()
	r.lake.stop()
	r.rebuild(backup)
	r.wantAnswers(want)
	r.verify()
	r.compact()
	r.wantAnswers(want)
}

// copyDatabase copies the database, which nobody may be connected to, as a backup would.
func (r *recovery) copyDatabase() string {
	r.t.Helper()
	u, err := url.Parse(r.database)
	if err != nil {
		r.t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	exec := func(sql string) {
		r.t.Helper()
		admin := *u
		admin.Path = "/postgres"
		conn, err := pgx.Connect(context.Background(), admin.String())
		if err != nil {
			r.t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			r.t.Fatal(err)
		}
	}
	exec("CREATE DATABASE " + name + "_backup TEMPLATE " + name)
	r.t.Cleanup(func() { exec("DROP DATABASE " + name + "_backup WITH (FORCE)") })
	u.Path += "_backup"
	return u.String()
}

// TestMovedLake copies a lake into another bucket, and goes on there.
func TestMovedLake(t *testing.T) {
	t.Parallel()
	r := newRecovery(t)
	r.past(func() {})
	r.ship(true)
	want := r.answers()
	r.lake.stop()
	old, moved := r.bucket, s3test.New(t)
	for a, err := range old.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		r.copyObject(old, a.Key, moved, a.Key)
	}
	r.bucket = moved
	r.writeConfig(lakeOptions{organizations: []string{"default"}})
	var gone []string
	for a, err := range old.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		gone = append(gone, a.Key)
	}
	if err := old.Delete(t.Context(), gone...); err != nil {
		t.Fatal(err)
	}
	r.rebuild(indextest.URL(t), "--reconcile", "--bucket", old.Name()+"="+moved.Name())
	r.wantAnswers(want)
	r.verify()
	r.ingest(85, "four", 1)
	r.compact()
	r.verify()
}
