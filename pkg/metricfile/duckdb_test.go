// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/lakerunner/lakerunner/pkg/engine"
)

// TestDuckDBReadsWhatIsNotBytes: the Parquet file stands for itself.
func TestDuckDBReadsWhatIsNotBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := testMeta()
	w, _ := someSegment(t, 8, m)
	name := filepath.Join(dir, "points.parquet")
	if err := os.WriteFile(name, w.parquet, 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Config{Dir: dir, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	got := values(t, e, `SELECT name, hash, to_json(labels), kind, delta, no_sum, bounds::VARCHAR, type, unit, help, rows, samples, exemplar_count, first, last,
		"values" IS NULL, counts IS NULL, octet_length(times) > 0 FROM read_parquet(`+engine.Quote(name)+`)`)
	if len(got) != w.catalogue.Len() {
		t.Fatalf("%d rows, want %d", len(got), w.catalogue.Len())
	}
	for i, row := range got {
		s, entry := w.catalogue.Series(i), w.catalogue.Entry(i)
		want := []any{
			s.Name(), s.Hash(), row[2], s.Kind, s.Delta, s.NoSum, row[6], s.Family.Type, s.Family.Unit, s.Family.Help, entry.Rows, entry.Samples, entry.Exemplars,
			entry.First, entry.Last, s.Kind == KindHistogram, s.Kind == KindFloat || s.Kind == KindHistogram, true,
		}
		for k := range want {
			if fmt.Sprint(want[k]) != row[k] {
				t.Errorf("row %d: column %d is %s, want %v", i, k, row[k], want[k])
			}
		}
	}
	pods := values(t, e, `SELECT count(*), count(DISTINCT labels['pod']), sum(len(bounds)) FROM read_parquet(`+engine.Quote(name)+`) WHERE name >= 'metric_3'`)
	bounds, rows, distinct := 0, 0, map[string]bool{}
	for i := range w.catalogue.Len() {
		if s := w.catalogue.Series(i); s.Name() >= "metric_3" {
			rows++
			bounds += len(s.Bounds)
			if s.Labels.Has("pod") {
				distinct[s.Labels.Get("pod")] = true
			}
		}
	}
	if want := fmt.Sprint([]string{fmt.Sprint(rows), fmt.Sprint(len(distinct)), fmt.Sprint(bounds)}); fmt.Sprint(pods[0]) != want {
		t.Errorf("rows, pods and bounds are %v, want %s", pods[0], want)
	}
	about := values(t, e, `SELECT decode(value) FROM parquet_kv_metadata(`+engine.Quote(name)+`) WHERE decode(key) = 'lakerunner.metrics'`)
	if total, err := unmarshalTotals([]byte(about[0][0])); err != nil || total.Lease != m.Lease || total.rows != w.Rows {
		t.Errorf("the footer has %s: %v", about[0][0], err)
	}
}

// values runs a query, and returns what it answers as text.
func values(t *testing.T, e *engine.Engine, sql string) [][]string {
	t.Helper()
	s, err := e.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all [][]string
	for {
		batch, err := s.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, texted(batch)...)
		batch.Release()
	}
}

func texted(batch arrow.RecordBatch) [][]string {
	rows := make([][]string, batch.NumRows())
	for i := range rows {
		for _, column := range batch.Columns() {
			rows[i] = append(rows[i], column.ValueStr(i))
		}
	}
	return rows
}
