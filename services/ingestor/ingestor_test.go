// SPDX-License-Identifier: AGPL-3.0-only

package ingestor_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor"
)

func TestServiceIngestsWhatIsNoticed(t *testing.T) {
	t.Parallel()
	source, err := config.Static(fmt.Sprintf("storage_profiles:\n  - {name: main, bucket: telemetry, provider: file, directory: %q}\n", t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	store := config.Buckets(source, nil)
	x := indextest.New(t)
	var mu sync.Mutex
	var names []string
	service, err := ingestor.New(ingestor.Config{}, ingestor.Deps{
		Index: x, Config: source, Objects: store, Scratch: t.TempDir(),
		Checkpoint: func(name string) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, name)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})

	bucket, err := store.Bucket(ctx, "telemetry")
	if err != nil {
		t.Fatal(err)
	}
	var notices []index.Notice
	for i := range 5 {
		content := strings.Repeat(time.Now().UTC().Format(time.RFC3339)+" a line\n", 10)
		a, err := bucket.Put(ctx, fmt.Sprint("logs-raw/acme/c/", i), strings.NewReader(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		notices = append(notices, index.Notice{
			Object:       lake.Object{Bucket: "telemetry", Key: a.Key, Tag: a.Tag, Size: a.Size, LastModified: a.LastModified},
			Organization: "acme", Signal: lake.SignalLogs,
		})
	}
	noticed, err := x.Receive(ctx, notices)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range noticed {
		if r := final(t, x, n.Receipt.ID); r.State != lake.ReceiptDone || r.RowsOut != 10 || r.Format != "text" {
			t.Errorf("%+v", r)
		}
	}
	if err := service.Ready(ctx); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"claimed", "fetched", "decoded", "written-0", "uploaded-0", "before-commit", "after-commit"} {
		if !slices.Contains(names, name) {
			t.Errorf("no checkpoint %s in %v", name, names)
		}
	}
}

// final waits until a receipt is no longer pending.
func final(t *testing.T, x *index.Index, id lake.ReceiptID) lake.Receipt {
	t.Helper()
	deadline, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		r, err := x.Receipt(deadline, id)
		if err != nil {
			t.Fatal(err)
		}
		if r.State != lake.ReceiptPending {
			return r
		}
		select {
		case <-ticker.C:
		case <-deadline.Done():
			t.Fatalf("receipt %d is still pending", id)
		}
	}
}
