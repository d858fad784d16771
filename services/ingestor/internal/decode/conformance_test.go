// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// conformance is what every decoder is held to: content in its format with three rows.
type conformance struct {
	format  string
	content []byte
	bodies  []string
	// lines says that the rows before a cut at any byte come out.
	lines bool
}

func formats(t testing.TB) []conformance {
	t.Helper()
	ld := generated(2)
	var bodies []string
	for _, r := range reference(t, marshalProto(t, ld)) {
		bodies = append(bodies, r.Body)
	}
	return []conformance{
		{format: "otlp-proto", content: marshalProto(t, ld), bodies: bodies},
		{format: "otlp-json", content: marshalJSON(t, ld), bodies: bodies},
		{format: "json", content: []byte(`{"msg":"a"}` + "\n" + `{"msg":"b"}` + "\n" + `{"msg":"c"}` + "\n"), bodies: []string{"a", "b", "c"}, lines: true},
		{format: "text", content: []byte("line a\nline b\nline c\n"), bodies: []string{"line a", "line b", "line c"}, lines: true},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, f := range formats(t) {
		t.Run(f.format, func(t *testing.T) {
			t.Parallel()
			f.test(t)
		})
	}
}

func (f conformance) test(t *testing.T) {
	check := func(t *testing.T, got decoded, format string) {
		t.Helper()
		if diff := cmp.Diff(f.bodies, got.bodies()); diff != "" || got.Err != nil || got.Format != format || len(got.Rejects) > 0 {
			t.Errorf("format %s, %v, problem %q, rejects %v\n%s", got.Format, got.Err, got.Problem, got.Rejects, diff)
		}
	}
	t.Run("is known by its content", func(t *testing.T) {
		t.Parallel()
		check(t, decodeBytes(f.content), f.format)
	})
	t.Run("may be compressed, twice if need be", func(t *testing.T) {
		t.Parallel()
		check(t, decodeBytes(gz(t, f.content)), f.format+"+gzip")
		check(t, decodeBytes(zst(t, f.content)), f.format+"+zstd")
		check(t, decodeBytes(zst(t, gz(t, f.content))), f.format+"+gzip+zstd")
	})
	t.Run("may be in many gzip members or zstd frames", func(t *testing.T) {
		t.Parallel()
		third := len(f.content) / 3
		parts := [][]byte{f.content[:third], f.content[third : 2*third], f.content[2*third:]}
		var members, frames []byte
		for _, part := range parts {
			members, frames = append(members, gz(t, part)...), append(frames, zst(t, part)...)
		}
		check(t, decodeBytes(members), f.format+"+gzip")
		check(t, decodeBytes(frames), f.format+"+zstd")
	})
	t.Run("ignores garbage after a gzip member, and says so", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes(append(gz(t, f.content), make([]byte, 512)...))
		check(t, got, f.format+"+gzip")
		if got.Problem == "" {
			t.Error("no problem")
		}
	})
	t.Run("gives the rows before the end of truncated gzip, and says so", func(t *testing.T) {
		t.Parallel()
		content := append(gz(t, f.content), gz(t, f.content)[:12]...)
		got := decodeBytes(content)
		if got.Err != nil || got.Problem == "" || len(got.Rows) < len(f.bodies) {
			t.Errorf("%d rows of %d, %v, problem %q", len(got.Rows), len(f.bodies), got.Err, got.Problem)
		}
	})
	t.Run("fails when its gzip is broken", func(t *testing.T) {
		t.Parallel()
		content := gz(t, f.content)
		content[len(content)-5] ^= 1 // the checksum
		if got := decodeBytes(content); fault.KindOf(got.Err) != fault.Invalid {
			t.Errorf("got %v", got.Err)
		}
	})
	t.Run("does not depend on how its bytes arrive", func(t *testing.T) {
		t.Parallel()
		s := &recorder{}
		_, err := decode.Decode(iotest.OneByteReader(bytes.NewReader(f.content)), decode.Options{ObjectTime: objectTime()}, decode.Sinks{Logs: s})
		if diff := cmp.Diff(f.bodies, decoded{Rows: s.rows}.bodies()); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	})
	t.Run("does not take a broken connection for its end", func(t *testing.T) {
		t.Parallel()
		broken := fault.New(fault.Unavailable, "connection reset")
		for _, content := range [][]byte{f.content, gz(t, f.content)} {
			r := io.MultiReader(bytes.NewReader(content[:len(content)-3]), iotest.ErrReader(broken))
			if _, err := decode.Decode(r, decode.Options{}, decode.Sinks{Logs: &recorder{}}); !errors.Is(err, fault.Unavailable) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("ends with the sink's error", func(t *testing.T) {
		t.Parallel()
		stop := errors.New("stop")
		if _, err := decode.Decode(bytes.NewReader(f.content), decode.Options{}, decode.Sinks{Logs: &stopping{err: stop}}); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("uses memory of a decoding before", func(t *testing.T) {
		t.Parallel()
		var scratch decode.Scratch
		for range 3 {
			check(t, decodeBytes(f.content, func(o *decode.Options) { o.Scratch = &scratch }), f.format)
		}
	})
}

type stopping struct {
	recorder
	err error
}

func (s *stopping) Row(*columns.LogRow) error { return s.err }

func TestUnsupported(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"parquet": "PAR1....PAR1", "avro": "Obj\x01abc", "bzip2": "BZh91AY", "zip": "PK\x03\x04x", "arrow": "ARROW1\x00\x00",
	} {
		got := decodeBytes([]byte(content), func(o *decode.Options) { o.Hint = lake.SignalLogs })
		if !decode.IsUnsupported(got.Err) || !strings.Contains(got.Err.Error(), name) {
			t.Errorf("%s: got %v", name, got.Err)
		}
	}
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(i*i*7 + i>>3)
	}
	if got := decodeBytes(noise); fault.KindOf(got.Err) != fault.Invalid {
		t.Errorf("noise: got %v", got.Err)
	}
}

func TestJSONLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		about, content string
		want           []row
	}{
		{
			"takes time, message, level, service, trace and span from their keys, and types from the rest",
			`{"@timestamp":"2026-11-22T10:00:00.123456789Z","message":"hi","level":"WARN","service":"shop","trace_id":"` + strings.Repeat("ab", 16) + `","span_id":"` + strings.Repeat("cd", 8) + `","n":1,"f":1.5,"ok":true,"none":null,"s":"x","big":18446744073709551616,"list":[1,"a"],"map":{"b":1.0,"a":null}}`,
			[]row{{
				Time: time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC).UnixNano(), Severity: "WARN", Body: "hi",
				Trace: strings.Repeat("ab", 16), Span: strings.Repeat("cd", 8), Resource: []columns.Attribute{text("service.name", "shop")},
				Attributes: []columns.Attribute{
					{Name: "n", Value: columns.Value{Kind: columns.KindInt, Num: 1}},
					{Name: "f", Value: columns.Value{Kind: columns.KindDouble, Num: 0x3ff8000000000000}},
					{Name: "ok", Value: columns.Value{Kind: columns.KindBool, Num: 1}},
					text("s", "x"), text("big", "18446744073709551616"),
					{Name: "list", Value: columns.Value{Kind: columns.KindArray, Str: `[1,"a"]`}},
					{Name: "map", Value: columns.Value{Kind: columns.KindMap, Str: `{"a":null,"b":1}`}},
				},
			}},
		},
		{
			"keeps an object without a message as the body", `{"b":1, "a":{"c":"d"}}`,
			[]row{{Time: objectTime().UnixNano(), TimeSource: columns.TimeObject, Body: `{"a":{"c":"d"},"b":1}`, BodyKind: columns.KindMap}},
		},
		{
			"reads a decimal time without losing digits", `{"date":1605571200.123456,"log":"line\n","status":200}`,
			[]row{{Time: 1605571200123456000, Body: "line", Attributes: []columns.Attribute{{Name: "status", Value: columns.Value{Kind: columns.KindInt, Num: 200}}}}},
		},
		{"knows milliseconds", `{"ts":1605571200123,"msg":"x"}`, []row{{Time: 1605571200123000000, Body: "x"}}},
		{"knows microseconds", `{"ts":1605571200123456,"msg":"x"}`, []row{{Time: 1605571200123456000, Body: "x"}}},
		{"knows nanoseconds in quotes", `{"ts":"1605571200123456789","msg":"x"}`, []row{{Time: 1605571200123456789, Body: "x"}}},
		{
			"keeps a time it cannot read as an attribute", `{"time":"yesterday","msg":"x"}`,
			[]row{{Time: objectTime().UnixNano(), TimeSource: columns.TimeObject, Body: "x", Attributes: []columns.Attribute{text("time", "yesterday")}}},
		},
	} {
		t.Run(c.about, func(t *testing.T) {
			t.Parallel()
			got := decodeBytes([]byte(c.content))
			if diff := cmp.Diff(c.want, got.Rows); diff != "" || got.Err != nil || got.Format != "json" {
				t.Errorf("%s %v\n%s", got.Format, got.Err, diff)
			}
		})
	}
}

func TestJSONLinesShapes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		about, content string
		want           []string
	}{
		{"without a line feed between", `{"msg":"a"}{"msg":"b"} {"msg":"c"}`, []string{"a", "b", "c"}},
		{"over many lines", "{\n  \"msg\": \"a\"\n}\n{\n  \"msg\": \"b\"\n}\n", []string{"a", "b"}},
		{"in an array", `[{"msg":"a"},` + "\n" + `{"msg":"b"}]` + "\n" + `{"msg":"c"}`, []string{"a", "b", "c"}},
		{"with lines of text between", `{"msg":"a"}` + "\nplain\n\n" + `{"msg":"b"}`, []string{"a", "plain", "b"}},
		{"with broken ones between, which are text", `{"msg":"a"}` + "\n{\"msg\":\n{\"msg\":\"b\"}\n{broken}\n" + `{"msg":"c"}`, []string{"a", `{"msg":`, "b", "{broken}", "c"}},
		{"with brackets of text between", `{"msg":"a"}` + "\n[info] x\n" + `{"msg":"b"}`, []string{"a", "[info] x", "b"}},
		{"with a last one that is cut, which is text", `{"msg":"a"}` + "\n" + `{"msg":"b`, []string{"a", `{"msg":"b`}},
		{"after a byte order mark", "\xef\xbb\xbf" + `{"msg":"a"}`, []string{"a"}},
	} {
		t.Run("may stand "+c.about, func(t *testing.T) {
			t.Parallel()
			got := decodeBytes([]byte(c.content))
			if diff := cmp.Diff(c.want, got.bodies()); diff != "" || got.Err != nil || got.Format != "json" {
				t.Errorf("%s %v\n%s", got.Format, got.Err, diff)
			}
		})
	}
}

func TestTextLines(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for line, want := range map[string]time.Time{
		"2026-11-22T10:00:00Z x":           at,
		"2026-11-22T10:00:00.123456789Z x": at.Add(123456789),
		"2026-11-22 10:00:00,123 INFO x":   at.Add(123 * time.Millisecond),
		"2026/11/22 10:00:00 [error] x":    at,
		"2026-11-22T12:30:00+02:30 x":      at,
		"2026-11-22T05:00:00-0500 x":       at,
		"[2026-11-22 10:00:00.5] x":        at.Add(500 * time.Millisecond),
		"2026-11-22t10:00:00z x":           at,
	} {
		got := decodeBytes([]byte(line + "\n"))
		if len(got.Rows) != 1 || got.Rows[0].Time != want.UnixNano() || got.Rows[0].TimeSource != columns.TimeEvent || got.Rows[0].Body != line {
			t.Errorf("%q: got %+v", line, got.Rows)
		}
	}
	for _, line := range []string{"no time", "2026-13-22T10:00:00Z", "2026-02-30T10:00:00Z", "2026-11-22", "[2026-11-22 10:00:00", "12:00:00 x"} {
		got := decodeBytes([]byte(line))
		if len(got.Rows) != 1 || got.Rows[0].Time != objectTime().UnixNano() || got.Rows[0].TimeSource != columns.TimeObject {
			t.Errorf("%q: got %+v", line, got.Rows)
		}
	}
	t.Run("a line without a time has that of the line before", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes([]byte("2026-11-22T10:00:00Z panic\r\n\r\n\tat main.go:1\n"))
		if len(got.Rows) != 2 || got.Rows[1].Time != at.UnixNano() || got.Rows[1].TimeSource != columns.TimeObject || got.Rows[1].Body != "\tat main.go:1" {
			t.Errorf("got %+v", got.Rows)
		}
	})
}

// TestMemory measures what decoding takes, so it runs alone.
func TestMemory(t *testing.T) {
	t.Run("a bomb is refused with little memory", func(t *testing.T) {
		for name, bomb := range map[string][]byte{"of zeros": zeros(t, 0, 256<<20), "of lines": zeros(t, '\n', 256<<20)} {
			peak := peakOf(func() {
				if got := decodeBytes(bomb); fault.KindOf(got.Err) != fault.Invalid {
					t.Errorf("%s: got %v after %d rows", name, got.Err, len(got.Rows))
				}
			})
			if peak > 64<<20 {
				t.Errorf("%s: %d bytes of memory", name, peak)
			}
		}
	})
	t.Run("a line of 64 MB is rejected and its neighbours are not", func(t *testing.T) {
		giant := strings.Repeat("x", 64<<20)
		for format, content := range map[string]string{
			"text": "first\n" + giant + "\nlast\n",
			"json": `{"msg":"first"}` + "\n" + `{"msg":"` + giant + `"}` + `{"msg":"last"}`,
		} {
			peak := peakOf(func() {
				got := decodeBytes([]byte(content))
				if len(got.Rows) != 2 || len(got.Rejects) != 1 || got.Rejects[0].Reason != decode.ReasonTooLong || got.Err != nil {
					t.Errorf("%s: %d rows, %d rejects, %v", format, len(got.Rows), len(got.Rejects), got.Err)
				}
			})
			if peak > 3*64<<20 {
				t.Errorf("%s: %d bytes of memory", format, peak)
			}
		}
	})
}

// TestHostileContent is of lessons learned: giants, broken text, NUL bytes and absurd times.
func TestHostileContent(t *testing.T) {
	t.Parallel()
	t.Run("an object beyond the limit is refused", func(t *testing.T) {
		t.Parallel()
		content := gz(t, []byte(strings.Repeat("some line of text\n", 1000)))
		if got := decodeBytes(content, func(o *decode.Options) { o.MaxBytes = 1000 }); fault.KindOf(got.Err) != fault.Invalid {
			t.Errorf("got %v", got.Err)
		}
	})
	t.Run("a body beyond the limit is rejected", func(t *testing.T) {
		t.Parallel()
		ld := generated(1)
		record := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().AppendEmpty()
		record.Body().SetStr(strings.Repeat("x", 100_000))
		for _, content := range [][]byte{marshalProto(t, ld), marshalJSON(t, ld)} {
			got := decodeBytes(content)
			if len(got.Rejects) != 1 || len(got.Rows) != ld.LogRecordCount()-1 || got.Err != nil {
				t.Errorf("%d rows, %d rejects, %v", len(got.Rows), len(got.Rejects), got.Err)
			}
		}
	})
	t.Run("broken text and NUL bytes come out as they are", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes([]byte("broken \xff\xfe text\nnul \x00 byte\nand more text that is good\n"))
		if diff := cmp.Diff([]string{"broken \xff\xfe text", "nul \x00 byte", "and more text that is good"}, got.bodies()); diff != "" || got.Err != nil {
			t.Errorf("%v\n%s", got.Err, diff)
		}
	})
	t.Run("absurd times come out clamped", func(t *testing.T) {
		t.Parallel()
		got := decodeBytes([]byte("1970-01-01T00:00:00Z a\n9999-12-31T23:59:59.999+00:01 b\n0001-01-01T00:00:00Z c\n"))
		want := []int64{0, 1<<63 - 1, -1 << 63}
		for i, r := range got.Rows {
			if r.Time != want[i] {
				t.Errorf("row %d: got %d, want %d", i, r.Time, want[i])
			}
		}
	})
	t.Run("values that never end do not take time without end", func(t *testing.T) {
		t.Parallel()
		began := time.Now()
		decodeBytes([]byte(strings.Repeat(`{"a":[`+"\n", 200_000)))
		decodeBytes([]byte(strings.Repeat(`{"a":`+"\n", 200_000)))
		decodeBytes([]byte(`{"resourceLogs":[` + strings.Repeat(`{"a":[`+"\n", 200_000)))
		if took := time.Since(began); took > time.Minute {
			t.Errorf("took %s", took)
		}
	})
}

// zeros compresses n times one byte.
func zeros(t testing.TB, b byte, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	chunk := bytes.Repeat([]byte{b}, 1<<20)
	for range n / len(chunk) {
		if _, err := z.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// peakOf is how many bytes f allocated.
func peakOf(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
