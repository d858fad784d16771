// SPDX-License-Identifier: AGPL-3.0-only

package sample_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

func TestObjects(t *testing.T) {
	t.Parallel()
	end := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	objectsOf := func(t *testing.T, seed uint64) []sample.Object {
		t.Helper()
		objects, err := sample.Objects(sample.Options{Seed: seed, End: end})
		if err != nil {
			t.Fatal(err)
		}
		return objects
	}

	t.Run("the same seed makes the same bytes", func(t *testing.T) {
		t.Parallel()
		if diff := cmp.Diff(objectsOf(t, 1), objectsOf(t, 1)); diff != "" {
			t.Error(diff)
		}
		if bytes.Equal(objectsOf(t, 1)[0].Body, objectsOf(t, 2)[0].Body) {
			t.Error("two seeds made the same object")
		}
	})

	t.Run("every row is in its object, inside the asked time", func(t *testing.T) {
		t.Parallel()
		for _, o := range objectsOf(t, 3) {
			if got, want := len(linesOf(t, o.Body)), len(o.Rows); got != want {
				t.Errorf("%s holds %d records, want %d", o.Key, got, want)
			}
			for _, row := range o.Rows {
				if row.Time.Before(end.Add(-5*time.Minute)) || !row.Time.Before(end) {
					t.Errorf("row at %v is outside", row.Time)
				}
			}
		}
	})

	t.Run("orders are declined, so the first query has an answer", func(t *testing.T) {
		t.Parallel()
		declined := 0
		for _, o := range objectsOf(t, 4) {
			for _, row := range o.Rows {
				if row.Service == "checkout" && strings.Contains(row.Line, "declined") {
					declined++
				}
			}
		}
		if declined == 0 {
			t.Error("no order was declined")
		}
	})
}

func linesOf(t *testing.T, body []byte) []string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var data logspb.LogsData
	if err := proto.Unmarshal(raw, &data); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range data.GetResourceLogs() {
		for _, s := range r.GetScopeLogs() {
			for _, record := range s.GetLogRecords() {
				lines = append(lines, record.GetBody().GetStringValue())
			}
		}
	}
	return lines
}
