// SPDX-License-Identifier: AGPL-3.0-only

package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
	ingestorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/ingestor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/pipeline"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/server"
)

type fixture struct {
	server *server.Server
	index  *index.Index
	bucket objects.Bucket
	store  *troubled
}

// troubled is a store whose reads fail while it is told to.
type troubled struct {
	objects.Store
	mu   sync.Mutex
	fail error
}

func (s *troubled) trouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *troubled) Bucket(ctx context.Context, name string) (objects.Bucket, error) {
	b, err := s.Store.Bucket(ctx, name)
	return troubledBucket{Bucket: b, store: s}, err
}

type troubledBucket struct {
	objects.Bucket
	store *troubled
}

func (b troubledBucket) Get(ctx context.Context, key, tag string) (io.ReadCloser, objects.Attributes, error) {
	b.store.mu.Lock()
	err := b.store.fail
	b.store.mu.Unlock()
	if err != nil {
		return nil, objects.Attributes{}, err
	}
	return b.Bucket.Get(ctx, key, tag)
}

func setup(t *testing.T) fixture {
	t.Helper()
	source, err := config.Static(fmt.Sprintf(`
organizations: [{id: acme}, {id: other}]
storage_profiles:
  - {name: main, bucket: telemetry, provider: file, directory: %q}
`, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	store := &troubled{Store: config.Buckets(source, nil)}
	bucket, err := store.Bucket(context.Background(), "telemetry")
	if err != nil {
		t.Fatal(err)
	}
	x := indextest.New(t)
	worker := pipeline.New(pipeline.Config{Scratch: t.TempDir()}, pipeline.Deps{Index: x, Objects: store, Config: source})
	return fixture{index: x, bucket: bucket, store: store, server: server.New(server.Deps{
		Index: x, Config: source, Objects: store, Work: worker.Work, Batch: index.Batch{Kind: lake.TaskIngest},
		Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{},
	})}
}

func as(organization lake.Organization, scopes ...config.Scope) context.Context {
	return config.WithIdentity(context.Background(), config.Identity{KeyID: "k", Organization: organization, Scopes: scopes})
}

func acme() context.Context { return as("acme", config.ScopeIngest) }

func (f fixture) put(t *testing.T, key string, content []byte) *lakev1.Object {
	t.Helper()
	if _, err := f.bucket.Put(context.Background(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	return &lakev1.Object{Bucket: "telemetry", Key: key}
}

func content(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s line %d\n", time.Now().UTC().Format(time.RFC3339Nano), i)
	}
	return []byte(b.String())
}

func TestIngestObject(t *testing.T) {
	t.Parallel()
	f := setup(t)
	t.Run("ingests content and answers when its rows are in segments", func(t *testing.T) {
		t.Parallel()
		got, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: &lakev1.Object{Key: "mine.txt"}, Content: content(20)})
		if err != nil {
			t.Fatal(err)
		}
		r := got.GetReceipt()
		if r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_DONE || r.GetRowsOut() != 20 || len(got.GetSegmentKeys()) == 0 || r.GetObject().GetKey() != "logs-raw/acme/upload/mine.txt" {
			t.Errorf("got %v", got)
		}
		for _, key := range got.GetSegmentKeys() {
			if _, err := f.bucket.Head(context.Background(), key); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("does not ingest an object twice", func(t *testing.T) {
		t.Parallel()
		object := f.put(t, "logs-raw/acme/c/twice.txt", content(5))
		first, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: object})
		if err != nil {
			t.Fatal(err)
		}
		second, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: object})
		if err != nil {
			t.Fatal(err)
		}
		if first.GetReceipt().GetReceiptId() != second.GetReceipt().GetReceiptId() || second.GetReceipt().GetRevision() != 1 {
			t.Errorf("%v\n%v", first, second)
		}
	})
	t.Run("says why an object failed", func(t *testing.T) {
		t.Parallel()
		object := f.put(t, "logs-raw/acme/c/broken.gz", []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff})
		got, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: object})
		if err != nil {
			t.Fatal(err)
		}
		if r := got.GetReceipt(); r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_FAILED || r.GetReason() == "" {
			t.Errorf("got %v", r)
		}
	})
	t.Run("denies another organization's objects", func(t *testing.T) {
		t.Parallel()
		object := f.put(t, "logs-raw/other/c/theirs.txt", content(5))
		if _, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: object}); !errors.Is(err, fault.Denied) {
			t.Errorf("got %v", err)
		}
		if _, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: object, Content: content(1)}); !errors.Is(err, fault.Denied) {
			t.Errorf("got %v", err)
		}
		got, err := f.server.IngestObject(as("acme", config.ScopeAdmin), &ingestorv1.IngestObjectRequest{Object: object})
		if err != nil || got.GetReceipt().GetOrganization() != "other" {
			t.Errorf("%v, %v", got, err)
		}
	})
	t.Run("wants a key, an object, and one that is there", func(t *testing.T) {
		t.Parallel()
		if _, err := f.server.IngestObject(context.Background(), &ingestorv1.IngestObjectRequest{Content: content(1)}); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("got %v", err)
		}
		if _, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{}); !errors.Is(err, fault.Invalid) {
			t.Errorf("got %v", err)
		}
		gone := &lakev1.Object{Bucket: "telemetry", Key: "logs-raw/acme/c/gone"}
		if _, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: gone}); !errors.Is(err, fault.NotFound) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPreviewObject(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, request := range map[string]*ingestorv1.PreviewObjectRequest{
		"of content": {Content: content(30), Rows: 3},
		"of object":  {Object: f.put(t, "logs-raw/acme/c/a.txt", content(30)), Rows: 3},
	} {
		got, err := f.server.PreviewObject(acme(), request)
		if err != nil || got.GetFormat() != "text" || got.GetRowsOut() != 30 || len(got.GetFirstRows()) != 3 || got.GetOrganization() != "acme" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	receipts, err := f.server.ListReceipts(acme(), &ingestorv1.ListReceiptsRequest{})
	if err != nil || len(receipts.GetReceipts()) != 0 {
		t.Errorf("a preview left %v, %v", receipts, err)
	}
	broken, err := f.server.PreviewObject(acme(), &ingestorv1.PreviewObjectRequest{Content: []byte("Obj\x01....")})
	if err != nil || !strings.Contains(broken.GetSkipReason(), "avro") {
		t.Errorf("%v, %v", broken, err)
	}
}

func TestReceiptsAndReplay(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ingested, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: f.put(t, "logs-raw/acme/c/a.txt", content(3))})
	if err != nil {
		t.Fatal(err)
	}
	id := ingested.GetReceipt().GetReceiptId()
	t.Run("receipts are the organization's own", func(t *testing.T) {
		list, err := f.server.ListReceipts(acme(), &ingestorv1.ListReceiptsRequest{State: lakev1.ReceiptState_RECEIPT_STATE_DONE})
		if err != nil || len(list.GetReceipts()) != 1 || list.GetReceipts()[0].GetReceiptId() != id {
			t.Errorf("%v, %v", list, err)
		}
		if _, err := f.server.ListReceipts(acme(), &ingestorv1.ListReceiptsRequest{Organization: "other"}); !errors.Is(err, fault.Denied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a replay can be tried first, and makes a new revision", func(t *testing.T) {
		dry, err := f.server.ReplayObjects(acme(), &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{id}, ValidateOnly: true})
		if err != nil || dry.GetObjects() != 1 {
			t.Errorf("%v, %v", dry, err)
		}
		done, err := f.server.ReplayObjects(acme(), &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{id}})
		if err != nil || done.GetObjects() != 1 {
			t.Errorf("%v, %v", done, err)
		}
		again, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: ingested.GetReceipt().GetObject()})
		if err != nil || again.GetReceipt().GetRevision() != 2 || again.GetReceipt().GetRowsOut() != 3 {
			t.Errorf("%v, %v", again, err)
		}
	})
	t.Run("a replay of others' receipts finds none", func(t *testing.T) {
		got, err := f.server.ReplayObjects(as("other", config.ScopeIngest), &ingestorv1.ReplayObjectsRequest{ReceiptIds: []string{id}})
		if err == nil && got.GetObjects() != 0 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("a replay wants to know of what", func(t *testing.T) {
		for _, request := range []*ingestorv1.ReplayObjectsRequest{{}, {ReceiptIds: []string{"x"}}} {
			if _, err := f.server.ReplayObjects(acme(), request); !errors.Is(err, fault.Invalid) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// TestBurialAndReplay follows an object that cannot be read to its grave, and back.
func TestBurialAndReplay(t *testing.T) {
	t.Parallel()
	const maxAttempts = 5 // the index's default
	f := setup(t)
	object := f.put(t, "logs-raw/acme/c/a.txt", content(7))
	try := func(trouble error) *lakev1.Receipt {
		t.Helper()
		f.store.trouble(trouble)
		// A call of its own does not wait for the task's backing off. Its error is the store's; the receipt tells the rest.
		_, err := f.server.IngestObject(acme(), &ingestorv1.IngestObjectRequest{Object: object})
		r := f.receipts(t, lakev1.ReceiptState_RECEIPT_STATE_UNSPECIFIED)[0]
		if pending := r.GetState() == lakev1.ReceiptState_RECEIPT_STATE_PENDING; pending != (err != nil) {
			t.Fatalf("%v, %v", r, err)
		}
		return r
	}
	for range 3 * maxAttempts {
		if r := try(fault.New(fault.Unavailable, "the store is away")); r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_PENDING {
			t.Fatalf("an outage buried it: %v", r)
		}
	}
	for i := range maxAttempts {
		r := try(fault.New(fault.Denied, "the store denies"))
		if buried := r.GetState() == lakev1.ReceiptState_RECEIPT_STATE_FAILED; buried != (i == maxAttempts-1) || !strings.Contains(r.GetReason(), "denies") {
			t.Fatalf("try %d: %v", i, r)
		}
	}
	if failed := f.receipts(t, lakev1.ReceiptState_RECEIPT_STATE_FAILED); len(failed) != 1 {
		t.Fatalf("%d failed receipts are listed", len(failed))
	}
	backlog, err := f.index.Backlog(context.Background())
	if err != nil || len(backlog) != 1 || backlog[0].Buried != 1 || backlog[0].Tasks != 0 {
		t.Errorf("backlog %+v, %v", backlog, err)
	}
	replayed, err := f.server.ReplayObjects(acme(), &ingestorv1.ReplayObjectsRequest{State: lakev1.ReceiptState_RECEIPT_STATE_FAILED})
	if err != nil || replayed.GetObjects() != 1 {
		t.Fatalf("%v, %v", replayed, err)
	}
	if r := try(nil); r.GetState() != lakev1.ReceiptState_RECEIPT_STATE_DONE || r.GetRowsOut() != 7 || r.GetRevision() != 1 {
		t.Errorf("after the replay: %v", r)
	}
}

// receipts lists those of acme in a state.
func (f fixture) receipts(t *testing.T, state lakev1.ReceiptState) []*lakev1.Receipt {
	t.Helper()
	list, err := f.server.ListReceipts(acme(), &ingestorv1.ListReceiptsRequest{State: state})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetReceipts()
}

func TestReceiptsOfNobody(t *testing.T) {
	t.Parallel()
	f := setup(t)
	if _, err := f.index.Receive(context.Background(), []index.Notice{
		{Object: lake.Object{Bucket: "telemetry", Key: "elsewhere/x", Tag: "t", Size: 1}, SkipReason: config.SkipUnclaimed},
		{Object: lake.Object{Bucket: "telemetry", Key: "logs-raw/acme/c/x", Tag: "t", Size: 1}, Organization: "acme"},
	}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ctx   context.Context
		named string
	}{
		"a deployment's admin": {as("", config.ScopeAdmin), ""},
		"an admin who asks":    {as("acme", config.ScopeAdmin), "-"},
	} {
		list, err := f.server.ListReceipts(c.ctx, &ingestorv1.ListReceiptsRequest{Organization: c.named})
		if err != nil || len(list.GetReceipts()) != 1 || list.GetReceipts()[0].GetReason() != config.SkipUnclaimed {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	if _, err := f.server.ListReceipts(acme(), &ingestorv1.ListReceiptsRequest{Organization: "-"}); !errors.Is(err, fault.Invalid) && !errors.Is(err, fault.Denied) {
		t.Errorf("got %v", err)
	}
}
