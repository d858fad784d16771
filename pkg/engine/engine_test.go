// SPDX-License-Identifier: AGPL-3.0-only

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/engine"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
)

func open(t *testing.T, c engine.Config) *engine.Engine {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Threads == 0 {
		c.Threads = 2
	}
	e, err := engine.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// rows runs a query and returns the values as text, one slice a row.
func rows(e *engine.Engine, ctx context.Context, sql string, args ...any) ([][]string, error) {
	s, err := e.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var all [][]string
	for {
		batch, err := s.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, texts(batch)...)
		batch.Release()
	}
}

func texts(batch arrow.RecordBatch) [][]string {
	all := make([][]string, batch.NumRows())
	for i := range all {
		for _, column := range batch.Columns() {
			value := column.ValueStr(i)
			if b, ok := column.(*array.Binary); ok && !column.IsNull(i) {
				value = fmt.Sprintf("%x", b.Value(i))
			}
			all[i] = append(all[i], value)
		}
	}
	return all
}

func TestQuery(t *testing.T) {
	t.Parallel()

	t.Run("binds parameters of all types", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		got, err := rows(e, t.Context(),
			"SELECT $1, $2, $3, $4, $5, $6, $7, 3 IN (SELECT unnest($8)), list_contains($9, ''), epoch_us($10)",
			nil, true, 7, int64(math.MinInt64), 0.5, "it's\x00é", []byte{0, 255}, []int64{1, 3}, []string{"a", ""}, time.UnixMicro(1234567))
		if err != nil {
			t.Fatal(err)
		}
		want := [][]string{{"(null)", "true", "7", "-9223372036854775808", "0.5", "it's\x00é", "00ff", "true", "true", "1234567"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("streams: the first batch comes although the last never would", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		s, err := e.Query(t.Context(), "SELECT i AS n, 'row ' || i AS s FROM range(1000000000000) t(i)")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 3 {
			batch, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if batch.NumRows() != 8*2048 || batch.ColumnName(1) != "s" {
				t.Errorf("got %d rows of %v", batch.NumRows(), s.Schema())
			}
			batch.Release()
		}
	})

	t.Run("answers nothing with a schema", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		s, err := e.Query(t.Context(), "SELECT 1 AS a WHERE false")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
		if got := s.Schema().Field(0).Name; got != "a" {
			t.Errorf("got %s", got)
		}
	})

	t.Run("says what kind an error is of", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		for sql, want := range map[string]fault.Kind{
			"SELEC 1":              fault.Invalid,
			"SELECT nothing":       fault.Invalid,
			"SELECT * FROM table1": fault.Invalid,
			"SELECT ('x' || i)::INT FROM range(9) t(i)": fault.Invalid,
		} {
			if _, err := rows(e, t.Context(), sql); fault.KindOf(err) != want {
				t.Errorf("%s: got %v", sql, err)
			}
		}
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	const endless = "SELECT sum(a.i * b.i) FROM range(100000000000) a(i), range(100000000000) b(i)"

	t.Run("stops a query that has not answered yet", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan struct{})
		go func() {
			<-started
			cancel()
		}()
		close(started)
		if _, err := rows(e, ctx, endless); fault.KindOf(err) != fault.Canceled {
			t.Errorf("got %v", err)
		}
	})

	t.Run("stops at a deadline", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := rows(e, ctx, endless); fault.KindOf(err) != fault.Timeout {
			t.Errorf("got %v", err)
		}
	})

	t.Run("stops a stream in the middle, and the engine goes on", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		s, err := e.Query(ctx, "SELECT i FROM range(1000000000000) t(i)")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		batch, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		batch.Release()
		cancel()
		for err == nil {
			_, err = s.Next()
		}
		if fault.KindOf(err) != fault.Canceled {
			t.Errorf("got %v", err)
		}
		if got, err := rows(e, t.Context(), "SELECT 1"); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	// Needs more than the memory, and does not compress.
	const large = "SELECT count(DISTINCT h), max(len(l)) FROM (SELECT md5(i::VARCHAR) || md5((-i)::VARCHAR) AS h, list(i) AS l FROM range(%d) t(i) GROUP BY 1)"

	t.Run("spills what does not fit in memory", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{MemoryLimit: 128 << 20})
		got, err := rows(e, t.Context(), fmt.Sprintf(large, 1_000_000))
		if err != nil || got[0][0] != "1000000" {
			t.Errorf("got %v, %v", got, err)
		}
	})

	t.Run("fails as exhausted beyond its limits, and goes on", func(t *testing.T) {
		t.Parallel()
		e := open(t, engine.Config{MemoryLimit: 64 << 20, MaxSpill: 4 << 20})
		if _, err := rows(e, t.Context(), fmt.Sprintf(large, 1_000_000)); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("got %v", err)
		}
		if _, err := rows(e, t.Context(), "SELECT 1"); err != nil {
			t.Error(err)
		}
	})

	t.Run("reads no file outside its directory, and cannot be talked into it", func(t *testing.T) {
		t.Parallel()
		outside := filepath.Join(t.TempDir(), "x.csv")
		if err := os.WriteFile(outside, []byte("a\n1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		e := open(t, engine.Config{Dir: dir})
		for _, sql := range []string{
			"SELECT * FROM read_csv('" + outside + "')",
			"SELECT * FROM read_text('" + filepath.Join(dir, "..", "..", "x") + "')",
			"SELECT * FROM read_text('/etc/passwd')",
			"COPY (SELECT 1) TO '" + outside + "'",
			"ATTACH '" + outside + ".db' AS d",
			"SET enable_external_access = true",
			"SET memory_limit = '100GB'",
			"SET allowed_directories = ['/']",
			"INSTALL httpfs",
			"LOAD httpfs",
		} {
			if got, err := rows(e, t.Context(), sql); err == nil {
				t.Errorf("%s: answered %v", sql, got)
			}
		}
		inside := filepath.Join(dir, "y.csv")
		if err := os.WriteFile(inside, []byte("a\n1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := rows(e, t.Context(), "SELECT a FROM read_csv($1)", inside); err != nil || got[0][0] != "1" {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

var start = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC).UnixNano()

// segment writes rows as a segment file below dir.
func segment(t *testing.T, path string, l *columns.Logs) *segfile.Sidecar {
	t.Helper()
	order := make([]uint32, l.Len())
	for i := range order {
		order[i] = uint32(i)
	}
	l.Sort(order)
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var sidecar strings.Builder
	m := segfile.Meta{Organization: "acme", Signal: lake.SignalLogs, Window: lake.WindowOf(time.Unix(0, start), time.Hour)}
	if _, err := segfile.WriteLogs(t.Context(), file, &sidecar, l, order, m); err != nil {
		t.Fatal(err)
	}
	s, err := segfile.OpenSidecar([]byte(sidecar.String()))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mixed makes rows in which each of the attributes is dense if the step is small, and sparse if it is large.
func mixed(n, step int) *columns.Logs {
	l := columns.NewLogs()
	stream := l.Stream([]columns.Label{{Name: columns.ServiceLabel, Value: fmt.Sprint("s", step)}})
	for i := range n {
		row := columns.LogRow{
			Time: start + int64(i), Stream: stream, Origin: l.Origin(columns.Origin{}), Source: 3, Fingerprint: lake.Fingerprint(1<<63) + lake.Fingerprint(i%3),
			Body: fmt.Sprint("line\x00 ünïcödé 🦊 ", i%5), SeverityText: "INFO", SeverityNumber: 9, Flags: math.MaxUint32,
		}
		if i%2 == 0 {
			row.TraceID, row.SpanID = [16]byte{0, 255, byte(i)}, [8]byte{255, 0, byte(i)}
			row.ObservedTime = row.Time + int64(i)*1000 - 5
		}
		if i%step == 0 {
			row.Attributes = []columns.Attribute{
				{Name: "user~Id/\"x.y'", Value: columns.Value{Str: fmt.Sprint("ü\"\n", i)}},
				{Name: "n", Value: columns.Value{Kind: columns.KindInt, Num: uint64(-i)}},
				{Name: "n", Value: columns.Value{Str: "text"}},
				{Name: "d", Value: columns.Value{Kind: columns.KindDouble, Num: math.Float64bits([]float64{1.5, math.Inf(-1), math.NaN(), -0.25}[i/step%4])}},
				{Name: "b", Value: columns.Value{Kind: columns.KindBool, Num: uint64(i / step % 2)}},
				{Name: "y", Value: columns.Value{Kind: columns.KindBytes, Str: string([]byte{0xff, byte(i)})}},
				{Name: "a", Value: columns.Value{Kind: columns.KindArray, Str: fmt.Sprintf(`["x",%d]`, i)}},
				{Name: "m", Value: columns.Value{Kind: columns.KindMap, Str: `{"x":"y"}`}},
			}
		}
		l.Append(&row)
	}
	return l
}

func TestSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, engine.Config{Dir: dir})
	keys := []columns.Key{
		{Name: "user~Id/\"x.y'"},
		{Name: "n", Kind: columns.KindInt},
		{Name: "n"},
		{Name: "d", Kind: columns.KindDouble},
		{Name: "b", Kind: columns.KindBool},
		{Name: "y", Kind: columns.KindBytes},
		{Name: "a", Kind: columns.KindArray},
		{Name: "m", Kind: columns.KindMap},
		{Name: "nowhere"},
	}
	fixed := []string{"row", "time", "fingerprint", "severity_number", "severity_text", "trace_id", "span_id", "flags", "body", "source", "event_name", segfile.ObservedTimeSQL}

	var statements []string
	var want [][]string
	for i, step := range []int{1, 50, 100_000} {
		path := filepath.Join(dir, fmt.Sprintf("it's %d.parquet", i))
		l := mixed(20_000, step)
		c := segment(t, path, l).Catalogue()
		statements = append(statements, c.SelectSQL(path, fixed, keys, fmt.Sprint(i, " AS segment")))
		want = append(want, wanted(t, path, keys, i)...)
	}
	got, err := rows(e, t.Context(), "SELECT * FROM ("+strings.Join(statements, " UNION ALL ")+") ORDER BY segment, row")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("want %d rows, got %d", len(want), len(got))
	}
	for i := range want {
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Fatalf("row %d:\n%s", i, diff)
		}
	}
}

// wanted reads a segment's rows without DuckDB.
func wanted(t *testing.T, path string, keys []columns.Key, segment int) [][]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := segfile.OpenLogs(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	l := columns.NewLogs()
	for err == nil {
		err = r.Next(l)
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	var all [][]string
	var row columns.LogRow
	for i := range l.Len() {
		l.Row(i, &row)
		texts := []string{
			fmt.Sprint(i), fmt.Sprint(row.Time), fmt.Sprint(int64(row.Fingerprint)), fmt.Sprint(row.SeverityNumber), row.SeverityText, "(null)", "(null)",
			fmt.Sprint(int32(row.Flags)), row.Body, fmt.Sprint(row.Source), row.EventName, fmt.Sprint(row.ObservedTime),
		}
		if row.TraceID != [16]byte{} {
			texts[5], texts[6] = fmt.Sprintf("%x", row.TraceID), fmt.Sprintf("%x", row.SpanID)
		}
		for _, key := range keys {
			texts = append(texts, valueText(row.Attributes, key))
		}
		all = append(all, append(texts, fmt.Sprint(segment)))
	}
	return all
}

func valueText(attributes []columns.Attribute, key columns.Key) string {
	for _, a := range attributes {
		if a.Name != key.Name || a.Value.Kind != key.Kind {
			continue
		}
		switch key.Kind {
		case columns.KindInt:
			return fmt.Sprint(int64(a.Value.Num))
		case columns.KindDouble:
			return fmt.Sprint(math.Float64frombits(a.Value.Num))
		case columns.KindBool:
			return fmt.Sprint(a.Value.Num != 0)
		case columns.KindBytes:
			return fmt.Sprintf("%x", a.Value.Str)
		}
		return a.Value.Str
	}
	return "(null)"
}

func TestPruning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := open(t, engine.Config{Dir: dir, Threads: 1})
	path := filepath.Join(dir, "p.parquet")
	c := segment(t, path, mixed(100_000, 10)).Catalogue()
	for condition, want := range map[string]string{
		segfile.RowRange{First: 20_000, Last: 20_001}.SQL():  "2",
		"time < " + fmt.Sprint(start+10):                     "10",
		"row = 5":                                            "1",
		"row BETWEEN 0 AND 1 OR row BETWEEN 90000 AND 90001": "4",
	} {
		sql := c.SelectSQL(path, []string{"body"}, nil) + " WHERE " + condition
		got, err := rows(e, t.Context(), "SELECT count(*), min(body) FROM ("+sql+")")
		if err != nil || got[0][0] != want {
			t.Errorf("%s: got %v, %v", condition, got, err)
		}
	}
}

func TestACancelledQueryNeverLooksShort(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Config{})
	const rows = 300_000
	for n := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := e.Query(ctx, "SELECT i, md5(i::VARCHAR) AS m FROM range(300000) t(i)")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer cancel()
			for range n * 1000 {
				runtime.Gosched()
			}
		}()
		var got int64
		for {
			batch, err := s.Next()
			if err == nil {
				got += batch.NumRows()
				batch.Release()
				continue
			}
			if errors.Is(err, io.EOF) && got != rows {
				t.Errorf("a cancelled query ended without an error after %d of %d rows", got, rows)
			}
			break
		}
		s.Close()
		cancel()
	}
}
