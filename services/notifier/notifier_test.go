// SPDX-License-Identifier: AGPL-3.0-only

package notifier_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/host"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/local/s3/s3test"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/notifier"
	"github.com/lakerunner/lakerunner/services/notifier/internal/backfill"
	"github.com/lakerunner/lakerunner/services/notifier/internal/door/listing"
	"github.com/lakerunner/lakerunner/services/notifier/internal/door/webhook"
)

const (
	token    = "secret-of-the-source"
	patience = 30 * time.Second
)

// world is a notifier on a real database and a real S3 server.
type world struct {
	t       *testing.T
	index   *index.Index
	bucket  *s3test.Bucket
	source  config.Source
	service *notifier.Service
	metrics sdk.Reader
	http    *httptest.Server
	api     notifierv1.NotifierServiceServer
}

type settings struct {
	onRewrite string
	config    notifier.Config
}

func setup(t *testing.T, s settings) *world {
	t.Helper()
	w := &world{t: t, index: indextest.New(t), bucket: s3test.New(t)}
	l := w.bucket.Location
	document := fmt.Sprintf("organizations: [{id: acme}, {id: other}]\nstorage_profiles:\n"+
		"  - {name: test, bucket: %s, organization: acme, endpoint: %q, region: %q, access_key: %q, secret_key: %q, path_style: true, on_rewrite: %s}\n",
		l.Name, l.Endpoint, l.Region, l.AccessKey, l.SecretKey, orAppend(s.onRewrite))
	var err error
	if w.source, err = config.Static(document); err != nil {
		t.Fatal(err)
	}
	w.start(s)
	return w
}

func orAppend(onRewrite string) string {
	if onRewrite == "" {
		return "append"
	}
	return onRewrite
}

// start makes a service; a second call is that of a process that was started again.
func (w *world) start(s settings) {
	w.t.Helper()
	s.config.Webhook.Tokens = []string{"s3=" + token, "minio=another"}
	var err error
	w.metrics = sdk.NewManualReader()
	w.service, err = notifier.New(s.config, notifier.Deps{
		Meter: sdk.NewMeterProvider(sdk.WithReader(w.metrics)).Meter("test"),
		Index: w.index, Config: w.source, Objects: config.Buckets(w.source, nil), Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	mux := host.NewMux(w.source, nil)
	w.service.RegisterHTTP(mux)
	w.http = httptest.NewServer(mux)
	w.t.Cleanup(w.http.Close)
	var registrar registrar
	w.service.RegisterGRPC(&registrar)
	w.api = registrar.service
}

// run runs the service's loops until the answer is called.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.service.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

// registrar catches the service that is registered.
type registrar struct {
	service notifierv1.NotifierServiceServer
}

func (r *registrar) RegisterService(_ *grpc.ServiceDesc, impl any) {
	r.service, _ = impl.(notifierv1.NotifierServiceServer)
}

func (w *world) put(key, content string) {
	w.t.Helper()
	if _, err := w.bucket.Put(w.t.Context(), key, strings.NewReader(content), int64(len(content))); err != nil {
		w.t.Fatal(err)
	}
}

// post sends a message to the webhook and returns the status.
func (w *world) post(path, body string, header http.Header) int {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.http.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode
}

func (w *world) notify(body string) int {
	w.t.Helper()
	return w.post("/webhook/s3", body, http.Header{"Authorization": {"Bearer " + token}})
}

// listen sends the bucket's events to the webhook.
func (w *world) listen() {
	w.bucket.OnEvent(w.t, func(ctx context.Context, event []byte) error {
		if status := w.notify(string(event)); status != http.StatusOK {
			return fmt.Errorf("status %d", status)
		}
		return ctx.Err()
	})
}

// receipts returns all receipts as lines "state revision key reason", sorted.
func (w *world) receipts() []string {
	w.t.Helper()
	var lines []string
	for _, organization := range []lake.Organization{"acme", "other", "nobody", ""} {
		for page := ""; ; {
			all, next, err := w.index.Receipts(w.t.Context(), index.ReceiptQuery{Organization: organization, PageSize: 1000, PageToken: page})
			if err != nil {
				w.t.Fatal(err)
			}
			for _, r := range all {
				line := strings.TrimSpace(fmt.Sprintf("%s %d %s:%s %s", r.State, r.Revision, r.Organization, r.Object.Key, r.Reason))
				lines = append(lines, line)
			}
			if page = next; page == "" {
				break
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// tasks claims all ingest tasks and returns their objects' keys, in the order of the tasks.
func (w *world) tasks() []lake.Receipt {
	w.t.Helper()
	var all []lake.Receipt
	for {
		lease, err := w.index.Claim(w.t.Context(), index.Batch{Kind: lake.TaskIngest, MaxTasks: 5000})
		if err != nil {
			w.t.Fatal(err)
		}
		if lease == nil {
			return all
		}
		all = append(all, lease.Receipts...)
	}
}

// until polls for a condition.
func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (w *world) want(lines ...string) {
	w.t.Helper()
	slices.Sort(lines)
	if diff := cmp.Diff(lines, w.receipts()); diff != "" {
		w.t.Error(diff)
	}
}

// counted returns a counter's values by one of its labels.
func (w *world) counted(name, label string) map[string]int64 {
	w.t.Helper()
	var all metricdata.ResourceMetrics
	if err := w.metrics.Collect(w.t.Context(), &all); err != nil {
		w.t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			if m.Name != name || !ok {
				continue
			}
			for _, p := range sum.DataPoints {
				value, _ := p.Attributes.Value(attribute.Key(label))
				counts[value.AsString()] += p.Value
			}
		}
	}
	return counts
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	t.Run("an object that is put has a receipt and a task", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		w.listen()
		key := "otel-raw/other/c1/year=2026/a b+c%/logs_1.json.gz"
		w.put(key, "content")
		w.until("the receipt", func() bool { return len(w.receipts()) > 0 })
		w.want("pending 1 other:" + key)
		got := w.tasks()
		head, err := w.bucket.Head(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Object.Tag != head.Tag || got[0].Object.Size != 7 || got[0].Signal != lake.SignalLogs || got[0].Collector != "c1" {
			t.Errorf("got %+v, head %+v", got, head)
		}
	})
	t.Run("duplicates vanish, and a rewrite is the next revision", func(t *testing.T) {
		t.Parallel()
		for _, onRewrite := range []string{"append", "replace"} {
			w := setup(t, settings{onRewrite: onRewrite})
			body := record("k", w.bucket.Name(), `"size":3,"eTag":"one"`)
			for range 3 {
				if status := w.notify(body); status != http.StatusOK {
					t.Fatalf("status %d", status)
				}
			}
			if status := w.notify(record("k", w.bucket.Name(), `"size":3,"eTag":"two"`)); status != http.StatusOK {
				t.Fatalf("status %d", status)
			}
			w.want("pending 1 acme:k", "pending 2 acme:k")
			if got := w.tasks(); len(got) != 2 {
				t.Errorf("%d tasks", len(got))
			}
		}
	})
	t.Run("a bare record is looked up, and says the same as a whole one", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		w.put("logs_1.json", "content")
		w.put("empty.json", "")
		for _, key := range []string{"logs_1.json", "empty.json", "gone.json"} {
			if status := w.notify(record(key, w.bucket.Name(), `"size":7`)); status != http.StatusOK {
				t.Fatalf("status %d", status)
			}
		}
		head, err := w.bucket.Head(t.Context(), "logs_1.json")
		if err != nil {
			t.Fatal(err)
		}
		w.notify(record("logs_1.json", w.bucket.Name(), fmt.Sprintf(`"size":7,"eTag":%q`, head.Tag)))
		w.want("pending 1 acme:logs_1.json", "skipped 1 acme:empty.json empty object")
	})
	t.Run("what is not to be ingested is skipped with its reason", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		name := w.bucket.Name()
		for _, body := range []string{
			record("folder/", name, `"size":0,"eTag":"x"`),
			record("empty", name, `"size":0,"eTag":"x"`),
			record("otel-raw/nobody/c/k", name, `"size":1,"eTag":"x"`),
			record("k", "not-ours", `"size":1,"eTag":"x"`),
			record("db/acme/logs/2026-11-22/lease/000000.parquet", name, `"size":1,"eTag":"x"`),
		} {
			if status := w.notify(body); status != http.StatusOK {
				t.Errorf("%s: status %d", body, status)
			}
		}
		w.want(
			`skipped 1 :folder/ directory marker`,
			`skipped 1 acme:empty empty object`,
			`skipped 1 :otel-raw/nobody/c/k organization "nobody" is not configured`,
			`skipped 1 :k no storage profile names the bucket`,
			`skipped 1 :db/acme/logs/2026-11-22/lease/000000.parquet written by LakeRunner itself`,
		)
	})
	t.Run("what came before its organization was configured is ingested afterwards", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		late := record("otel-raw/late/c/logs_1", w.bucket.Name(), `"size":1,"eTag":"x"`)
		if status := w.notify(late); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		w.want(`skipped 1 :otel-raw/late/c/logs_1 organization "late" is not configured`)
		known, err := w.index.Known(t.Context(), w.bucket.Name(), []lake.Object{{Bucket: w.bucket.Name(), Key: "otel-raw/late/c/logs_1", Tag: "x"}})
		if err != nil || known[0] {
			t.Errorf("listing and backfill would pass it over: %v, %v", known, err)
		}
		if w.source, err = config.Static("organizations: [{id: late}]\nstorage_profiles: [{name: test, bucket: " + w.bucket.Name() + "}]\n"); err != nil {
			t.Fatal(err)
		}
		w.start(settings{})
		if status := w.notify(late); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		if tasks := w.tasks(); len(tasks) != 1 || tasks[0].Organization != "late" || tasks[0].Signal != lake.SignalLogs || tasks[0].Collector != "c" {
			t.Errorf("got %+v", tasks)
		}
	})
	t.Run("deletes, tests and unknown events leave nothing", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		for _, body := range []string{
			`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}`,
			strings.Replace(record("k", w.bucket.Name(), `"size":1,"eTag":"x"`), "ObjectCreated:Put", "ObjectRemoved:Delete", 1),
			strings.Replace(record("k", w.bucket.Name(), `"size":1,"eTag":"x"`), "ObjectCreated:Put", "ObjectTagging:Put", 1),
			"",
		} {
			if status := w.notify(body); status != http.StatusOK {
				t.Errorf("%q: status %d", body, status)
			}
		}
		w.want()
		if diff := cmp.Diff(map[string]int64{"deleted": 1, "test": 2, "unknown": 1}, w.counted("lakerunner.notifier.events", "kind")); diff != "" {
			t.Error("they are counted:", diff)
		}
	})
	t.Run("only the source's own token opens it", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		body := record("k", w.bucket.Name(), `"size":1,"eTag":"x"`)
		for _, refused := range []struct {
			path   string
			header http.Header
		}{
			{"/webhook/s3", nil},
			{"/webhook/s3", http.Header{"Authorization": {"Bearer another"}}},
			{"/webhook/s3?token=", nil},
			{"/webhook/unknown?token=" + token, nil},
			{"/webhook/unknown?token=", nil},
			{"/webhook/s3?token=wrong", nil},
		} {
			if status := w.post(refused.path, body, refused.header); status != http.StatusUnauthorized {
				t.Errorf("%s %v: status %d", refused.path, refused.header, status)
			}
		}
		w.want()
		for _, admitted := range []struct {
			path   string
			header http.Header
		}{
			{"/webhook/s3?token=" + token, nil},
			{"/webhook/s3", http.Header{"Authorization": {token}}},
			{"/webhook/s3", http.Header{"Authorization": {"bearer " + token}}},
			{"/webhook/s3", http.Header{"X-Lakerunner-Token": {token}}},
			{"/webhook/minio", http.Header{"Authorization": {"Bearer another"}}},
		} {
			if status := w.post(admitted.path, body, admitted.header); status != http.StatusOK {
				t.Errorf("%s %v: status %d", admitted.path, admitted.header, status)
			}
		}
		w.want("pending 1 acme:k")
	})
	t.Run("nonsense is refused, too much as well", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: notifier.Config{Webhook: webhook.Config{MaxBody: 1000}}})
		for _, body := range []string{"no", "{}", record(strings.Repeat("k", 1000), w.bucket.Name(), `"size":1`)} {
			if status := w.notify(body); status != http.StatusBadRequest {
				t.Errorf("status %d", status)
			}
		}
	})
	t.Run("the sender is told to come again while the database is away", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		w.index.Close()
		if status := w.notify(record("k", w.bucket.Name(), `"size":1,"eTag":"x"`)); status != http.StatusServiceUnavailable {
			t.Errorf("status %d", status)
		}
		if err := w.service.Ready(t.Context()); err == nil {
			t.Error("it is ready all the same")
		}
	})
	t.Run("many senders at once get a receipt for each object", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		const senders, messages = 16, 20
		failures := make(chan int, senders*messages)
		done := make(chan struct{}, senders)
		for s := range senders {
			go func() {
				defer func() { done <- struct{}{} }()
				for m := range messages {
					// Each object is told of by two senders.
					status := w.notify(record(fmt.Sprintf("%d-%d", s/2, m), w.bucket.Name(), `"size":1,"eTag":"x"`))
					if status != http.StatusOK {
						failures <- status
					}
				}
			}()
		}
		for range senders {
			<-done
		}
		if len(failures) > 0 {
			t.Errorf("status %d", <-failures)
		}
		if got := len(w.receipts()); got != senders/2*messages {
			t.Errorf("%d receipts", got)
		}
	})
}

func TestNotifyObjects(t *testing.T) {
	t.Parallel()
	ask := func(w *world, organization lake.Organization, objects ...*lakev1.Object) (*notifierv1.NotifyObjectsResponse, error) {
		ctx := config.WithIdentity(w.t.Context(), config.Identity{Organization: organization, Scopes: []config.Scope{config.ScopeIngest}})
		return w.api.NotifyObjects(ctx, &notifierv1.NotifyObjectsRequest{Objects: objects})
	}
	t.Run("answers in the order of the objects", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		w.put("known", "content")
		name := w.bucket.Name()
		answer, err := ask(
			w, "acme",
			&lakev1.Object{Bucket: name, Key: "told", Tag: "x", Size: 5},
			&lakev1.Object{Bucket: name, Key: "known"},
			&lakev1.Object{Bucket: name, Key: "folder/"},
			&lakev1.Object{Bucket: name, Key: "told", Tag: "x", Size: 5},
			&lakev1.Object{Bucket: name, Key: "db/acme/x", Tag: "x", Size: 5},
		)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range answer.GetResults() {
			got = append(got, fmt.Sprint(r.GetReceipt().GetObject().GetKey(), " ", r.GetReceipt().GetState(), " ", r.GetDuplicate()))
		}
		want := []string{
			"told RECEIPT_STATE_PENDING false", "known RECEIPT_STATE_PENDING false", "folder/ RECEIPT_STATE_SKIPPED false",
			"told RECEIPT_STATE_PENDING true", "db/acme/x RECEIPT_STATE_SKIPPED false",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if size := answer.GetResults()[1].GetReceipt().GetObject().GetSize(); size != 7 {
			t.Errorf("the object that was looked up has %d bytes", size)
		}
	})
	t.Run("says what is wrong", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{})
		name := w.bucket.Name()
		for _, test := range []struct {
			object *lakev1.Object
			want   fault.Kind
		}{
			{&lakev1.Object{Bucket: name, Key: "missing"}, fault.NotFound},
			{&lakev1.Object{Bucket: name}, fault.Invalid},
			{&lakev1.Object{Key: "k"}, fault.Invalid},
			{&lakev1.Object{Bucket: name, Key: "k\x00", Tag: "x", Size: 1}, fault.Invalid},
			{&lakev1.Object{Bucket: name, Key: "k", Tag: "x", Size: -1}, fault.Invalid},
			{&lakev1.Object{Bucket: name, Key: "otel-raw/other/c/k", Tag: "x", Size: 1}, fault.Denied},
		} {
			if _, err := ask(w, "acme", test.object); !errors.Is(err, test.want) {
				t.Errorf("%v: got %v, want %s", test.object, err, test.want)
			}
		}
		if _, err := ask(w, "acme", make([]*lakev1.Object, 1001)...); !errors.Is(err, fault.Invalid) {
			t.Errorf("too many: got %v", err)
		}
		if _, err := ask(w, "", &lakev1.Object{Bucket: name, Key: "otel-raw/other/c/k", Tag: "x", Size: 1}); err != nil {
			t.Errorf("an administrator: %v", err)
		}
		w.want("pending 1 other:otel-raw/other/c/k")
	})
}

func TestListing(t *testing.T) {
	t.Parallel()
	t.Run("finds the objects whose events were lost", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: notifier.Config{Listing: listing.Config{Interval: 50 * time.Millisecond, Settle: -1}}})
		now := time.Now().UTC()
		recent := now.Format("otel-raw/acme/c1/year=2006/month=01/day=02/hour=15/minute=04/logs_1.json")
		old := now.AddDate(0, -1, 0).Format("otel-raw/acme/c1/year=2006/month=01/day=02/hour=15/minute=04/logs_1.json")
		for _, key := range []string{recent, old, "plain/logs_1.json", "db/acme/logs/x.parquet"} {
			w.put(key, "content")
		}
		if status := w.notify(record("plain/logs_1.json", w.bucket.Name(), `"size":7`)); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		stop := w.run()
		w.until("the lost object", func() bool { return len(w.receipts()) == 2 })
		later := now.Format("otel-raw/acme/c1/year=2006/month=01/day=02/hour=15/minute=04/logs_2.json")
		w.put(later, "content")
		w.put("plain/logs_2.json", "content")
		w.put("plain/logs_1.json", "rewritten")
		w.until("those put while it runs", func() bool { return len(w.receipts()) == 5 })
		stop()
		// What is a month old belongs to a backfill.
		w.want("pending 1 acme:"+recent, "pending 1 acme:"+later, "pending 1 acme:plain/logs_1.json", "pending 1 acme:plain/logs_2.json", "pending 2 acme:plain/logs_1.json")
	})
}

func TestBackfill(t *testing.T) {
	t.Parallel()
	quiet := notifier.Config{
		Listing:  listing.Config{Off: true},
		Backfill: backfill.Config{Poll: 10 * time.Millisecond, Drivers: 1},
	}
	day := time.Now().UTC().AddDate(0, 0, -1)
	// fill puts three objects on each of some days, plain ones, and others that are nobody's business.
	fill := func(w *world) (newestFirst []string) {
		for i := range 5 {
			for j := range 3 {
				key := day.AddDate(0, 0, -i).Format("old/year=2006/month=01/day=02/") + fmt.Sprintf("hour=0%d/logs_%d.json", j, j)
				w.put(key, "content")
				newestFirst = append(newestFirst, key)
			}
		}
		w.put("old/plain.json", "content")
		w.put("newer/logs.json", "content")
		w.put("db/acme/x.parquet", "content")
		return newestFirst
	}
	state := func(w *world, id string) *notifierv1.Backfill {
		w.t.Helper()
		answer, err := w.api.GetBackfill(w.t.Context(), &notifierv1.GetBackfillRequest{BackfillId: id})
		if err != nil {
			w.t.Fatal(err)
		}
		return answer.GetBackfill()
	}
	finish := func(w *world, id string) *notifierv1.Backfill {
		w.t.Helper()
		w.until("the end of the backfill", func() bool {
			return state(w, id).GetState() == notifierv1.BackfillState_BACKFILL_STATE_DONE
		})
		return state(w, id)
	}
	t.Run("is estimated first", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: quiet})
		fill(w)
		w.notify(record("old/plain.json", w.bucket.Name(), `"size":7`))
		answer, err := w.api.EstimateBackfill(t.Context(), &notifierv1.EstimateBackfillRequest{Bucket: w.bucket.Name(), Prefix: "old/"})
		if err != nil {
			t.Fatal(err)
		}
		e := answer.GetEstimate()
		if e.GetObjects() != 16 || e.GetBytes() != 16*7 || e.GetKnownObjects() != 1 || e.GetTruncated() || e.GetPriceUsd() <= 0 || e.GetRequests() < 15 || e.GetDuration().AsDuration() <= 0 {
			t.Errorf("got %v", e)
		}
		w.want("pending 1 acme:old/plain.json")
		if _, err := w.api.EstimateBackfill(t.Context(), &notifierv1.EstimateBackfillRequest{Bucket: "not-ours"}); !errors.Is(err, fault.NotFound) {
			t.Errorf("a bucket of no profile: got %v, want not found", err)
		}
	})
	t.Run("an estimate that is cut says so", func(t *testing.T) {
		t.Parallel()
		c := quiet
		c.Backfill.EstimateObjects = 5
		w := setup(t, settings{config: c})
		fill(w)
		answer, err := w.api.EstimateBackfill(t.Context(), &notifierv1.EstimateBackfillRequest{Bucket: w.bucket.Name()})
		if err != nil {
			t.Fatal(err)
		}
		if e := answer.GetEstimate(); !e.GetTruncated() || e.GetObjects() != 5 {
			t.Errorf("got %v", e)
		}
	})
	t.Run("hands over the newest first", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: quiet})
		want := fill(w)
		created, err := w.api.CreateBackfill(t.Context(), &notifierv1.CreateBackfillRequest{Bucket: w.bucket.Name(), Prefix: "old/"})
		if err != nil {
			t.Fatal(err)
		}
		stop := w.run()
		done := finish(w, created.GetBackfill().GetBackfillId())
		stop()
		if done.GetObjectsDone() != 16 || done.GetBytesDone() != 16*7 || done.GetEstimate().GetObjects() != 16 {
			t.Errorf("got %v", done)
		}
		var got []string
		for _, r := range w.tasks() {
			got = append(got, r.Object.Key)
		}
		days := func(keys []string) (days []string) {
			for _, key := range keys {
				if key != "old/plain.json" {
					days = append(days, strings.Split(key, "/hour")[0])
				}
			}
			return days
		}
		if diff := cmp.Diff(days(want), days(got)); diff != "" {
			t.Error(diff)
		}
		if len(got) != 16 {
			t.Errorf("%d tasks", len(got))
		}
	})
	t.Run("heeds the bounds of modification", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: quiet})
		fill(w)
		past := timestamppb.New(time.Now().Add(-time.Hour))
		for _, r := range []*notifierv1.CreateBackfillRequest{{ModifiedBefore: past}, {ModifiedAfter: timestamppb.New(time.Now().Add(time.Hour))}} {
			r.Bucket = w.bucket.Name()
			created, err := w.api.CreateBackfill(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			stop := w.run()
			done := finish(w, created.GetBackfill().GetBackfillId())
			stop()
			if done.GetObjectsDone() != 0 {
				t.Errorf("got %v", done)
			}
		}
		w.want()
	})
	t.Run("is paused, resumed, and goes on after a restart", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: quiet})
		fill(w)
		created, err := w.api.CreateBackfill(t.Context(), &notifierv1.CreateBackfillRequest{Bucket: w.bucket.Name(), Prefix: "old/", ObjectsPerSecond: 4})
		if err != nil {
			t.Fatal(err)
		}
		id := created.GetBackfill().GetBackfillId()
		stop := w.run()
		w.until("its first objects", func() bool { return state(w, id).GetObjectsDone() > 0 })
		if _, err := w.api.PauseBackfill(t.Context(), &notifierv1.PauseBackfillRequest{BackfillId: id}); err != nil {
			t.Fatal(err)
		}
		// The step at hand is finished; the next process does not begin another.
		stop()
		paused := state(w, id)
		if paused.GetState() != notifierv1.BackfillState_BACKFILL_STATE_PAUSED || paused.GetObjectsDone() >= 16 {
			t.Fatalf("got %v", paused)
		}
		w.start(settings{config: quiet})
		stop = w.run()
		lease, err := w.index.ClaimBackfill(t.Context(), time.Minute)
		if err != nil || lease != nil {
			t.Errorf("a paused backfill was claimed: %v, %v", lease, err)
		}
		if _, err := w.api.ResumeBackfill(t.Context(), &notifierv1.ResumeBackfillRequest{BackfillId: id}); err != nil {
			t.Fatal(err)
		}
		w.until("further objects", func() bool { return state(w, id).GetObjectsDone() > paused.GetObjectsDone() })
		stop() // killed in the middle
		w.start(settings{config: quiet})
		stop = w.run()
		done := finish(w, id)
		stop()
		if done.GetObjectsDone() != 16 || len(w.receipts()) != 16 {
			t.Errorf("%d receipts, got %v", len(w.receipts()), done)
		}
		list, err := w.api.ListBackfills(t.Context(), &notifierv1.ListBackfillsRequest{})
		if err != nil || len(list.GetBackfills()) != 1 || list.GetBackfills()[0].GetBackfillId() != id {
			t.Errorf("list: %v, %v", list, err)
		}
	})
	t.Run("waits while the ingestors have enough to do", func(t *testing.T) {
		t.Parallel()
		c := quiet
		c.Backfill.MaxBacklog = 2
		w := setup(t, settings{config: c})
		for i := range 3 {
			w.notify(record(fmt.Sprint("fresh", i), w.bucket.Name(), `"size":1,"eTag":"x"`))
		}
		w.put("old/k", "content")
		created, err := w.api.CreateBackfill(t.Context(), &notifierv1.CreateBackfillRequest{Bucket: w.bucket.Name(), Prefix: "old/"})
		if err != nil {
			t.Fatal(err)
		}
		id := created.GetBackfill().GetBackfillId()
		stop := w.run()
		before := state(w, id).GetUpdatedAt().AsTime()
		w.until("a few waits", func() bool { return state(w, id).GetUpdatedAt().AsTime().Sub(before) > 200*time.Millisecond })
		if n := state(w, id).GetObjectsDone(); n != 0 {
			t.Errorf("%d objects were handed over", n)
		}
		lease, err := w.index.Claim(t.Context(), index.Batch{Kind: lake.TaskIngest})
		if err != nil {
			t.Fatal(err)
		}
		edit := lake.Edit{}
		for _, r := range lease.Receipts {
			edit.Outcomes = append(edit.Outcomes, lake.Outcome{Receipt: r.ID, State: lake.ReceiptSkipped, Reason: "a test"})
		}
		if err := w.index.Commit(t.Context(), lease, edit); err != nil {
			t.Fatal(err)
		}
		finish(w, id)
		stop()
	})
	t.Run("fails visibly when the bucket does", func(t *testing.T) {
		t.Parallel()
		w := setup(t, settings{config: quiet})
		b, err := w.index.CreateBackfill(t.Context(), index.Backfill{Bucket: "of-no-profile"})
		if err != nil {
			t.Fatal(err)
		}
		stop := w.run()
		defer stop()
		id := fmt.Sprint(b.ID)
		w.until("the failure", func() bool { return state(w, id).GetState() == notifierv1.BackfillState_BACKFILL_STATE_FAILED })
		if state(w, id).GetReason() == "" {
			t.Error("no reason")
		}
	})
}

func TestEveryMethodHasAScope(t *testing.T) {
	t.Parallel()
	w := setup(t, settings{})
	for _, m := range notifierv1.NotifierService_ServiceDesc.Methods {
		if w.service.Scope("/"+notifierv1.NotifierService_ServiceDesc.ServiceName+"/"+m.MethodName) == "" {
			t.Errorf("%s has none", m.MethodName)
		}
	}
	if got := w.service.Scope("/lakerunner.notifier.v1.NotifierService/Other"); got != "" {
		t.Errorf("a method that does not exist: %s", got)
	}
}

func record(key, bucket, rest string) string {
	return fmt.Sprintf(`{"Records":[{"eventVersion":"2.1","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q,%s}}}]}`, bucket, key, rest)
}
