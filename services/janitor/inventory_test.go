// SPDX-License-Identifier: AGPL-3.0-only

package janitor_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/janitor"
)

const csvSchema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"

// inventoryRow is a row of an S3 Inventory in Parquet.
type inventoryRow struct {
	Bucket         string    `parquet:"bucket"`
	Key            string    `parquet:"key"`
	Size           *int64    `parquet:"size"`
	LastModified   time.Time `parquet:"last_modified_date,timestamp(millisecond)"`
	Tag            *string   `parquet:"e_tag"`
	IsLatest       *bool     `parquet:"is_latest"`
	IsDeleteMarker *bool     `parquet:"is_delete_marker"`
}

// upload puts a file of an inventory.
func (l *lab) upload(key string, content []byte) {
	l.Helper()
	if _, err := l.bucket.Put(l.Context(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) manifest(format, schema, data string) {
	l.Helper()
	l.upload("db/inventory/manifest.json", fmt.Appendf(nil, `{"sourceBucket":%q,"fileFormat":%q,"fileSchema":%q,"files":[{"key":%q,"size":1}]}`,
		l.bucket.Name(), format, schema, data))
}

func csvInventory(t *testing.T, objects []lake.Object) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	for _, o := range objects {
		fmt.Fprintf(w, "%q,%q,\"v1\",\"true\",\"false\",%q,%q,%q\n", o.Bucket, url.QueryEscape(o.Key), fmt.Sprint(o.Size), o.LastModified.UTC().Format("2006-01-02T15:04:05.000Z"), o.Tag)
	}
	fmt.Fprintf(w, "%q,\"logs-raw/acme/deleted.log\",\"v2\",\"true\",\"true\",\"0\",\"2026-01-01T00:00:00.000Z\",\"x\"\n", objects[0].Bucket)
	fmt.Fprintf(w, "%q,\"logs-raw/acme/older.log\",\"v1\",\"false\",\"false\",\"5\",\"2026-01-01T00:00:00.000Z\",\"x\"\n", objects[0].Bucket)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func parquetInventory(t *testing.T, objects []lake.Object) []byte {
	t.Helper()
	latest, marker := true, true
	var rows []inventoryRow
	for _, o := range objects {
		rows = append(rows, inventoryRow{Bucket: o.Bucket, Key: o.Key, Size: &o.Size, LastModified: o.LastModified, Tag: &o.Tag, IsLatest: &latest})
	}
	rows = append(rows, inventoryRow{Bucket: objects[0].Bucket, Key: "logs-raw/acme/deleted.log", LastModified: time.Unix(1, 0), IsLatest: &latest, IsDeleteMarker: &marker})
	var out bytes.Buffer
	if err := parquet.Write(&out, rows); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestInventory(t *testing.T) {
	t.Parallel()
	for format, content := range map[string]func(*testing.T, []lake.Object) []byte{"CSV": csvInventory, "Parquet": parquetInventory} {
		t.Run("R1: an inventory in "+format+" is compared as a listing is", func(t *testing.T) {
			t.Parallel()
			l := setup(t, settings{config: janitor.Config{Settle: time.Millisecond}})
			known, lost := l.object("logs-raw/acme/known.log"), l.object("logs-raw/acme/a lost+one.log")
			known.LastModified, lost.LastModified = known.LastModified.Add(-day), lost.LastModified.Add(-day)
			l.receive(known)
			l.upload("db/inventory/data", content(t, []lake.Object{known, lost}))
			l.manifest(format, csvSchema, "db/inventory/data")
			request := &janitorv1.ReconcileObjectsRequest{Bucket: l.bucket.Name(), Inventory: "db/inventory/manifest.json"}
			got := must(l, l.api.ReconcileObjects)(request)
			if got.GetObjects() != 2 || got.GetMissed() != 1 || got.GetFirstMissed()[0].GetKey() != lost.Key {
				t.Fatalf("got %v", got)
			}
			receipts, _, err := l.index.Receipts(t.Context(), index.ReceiptQuery{Organization: acme})
			if err != nil || len(receipts) != 2 {
				t.Errorf("receipts %v, %v", receipts, err)
			}
			if again := must(l, l.api.ReconcileObjects)(request); again.GetMissed() != 0 {
				t.Errorf("again: %v", again)
			}
		})
	}
	t.Run("what is no inventory is refused", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{})
		l.manifest("ORC", csvSchema, "db/inventory/data")
		request := &janitorv1.ReconcileObjectsRequest{Bucket: l.bucket.Name(), Inventory: "db/inventory/manifest.json"}
		if _, err := l.api.ReconcileObjects(l.ctx, request); !errors.Is(err, fault.Unsupported) {
			t.Errorf("ORC: %v", err)
		}
		l.upload("db/inventory/manifest.json", []byte("{}"))
		if _, err := l.api.ReconcileObjects(l.ctx, request); !errors.Is(err, fault.Invalid) {
			t.Errorf("empty: %v", err)
		}
		l.manifest("CSV", "Bucket, Key", "db/inventory/data")
		if _, err := l.api.ReconcileObjects(l.ctx, request); !errors.Is(err, fault.Invalid) {
			t.Errorf("fields: %v", err)
		}
	})
}
