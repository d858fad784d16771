// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"testing"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// fuzzed decodes content in every way it may come, and checks what holds for any content.
func fuzzed(t *testing.T, content []byte) {
	t.Helper()
	small := func(o *decode.Options) {
		o.MaxLineBytes, o.MaxResourceBytes, o.MaxBytes, o.Hint = 4096, 1<<16, 1<<20, lake.SignalLogs
	}
	first := decodeBytes(content, small)
	for _, r := range first.Rows {
		if len(r.Body) > 4096 {
			t.Errorf("a body of %d bytes", len(r.Body))
		}
	}
	again := decodeBytes(content, small)
	if len(again.Rows) != len(first.Rows) || len(again.Rejects) != len(first.Rejects) || (again.Err == nil) != (first.Err == nil) {
		t.Errorf("%d rows, %d rejects, %v; then %d, %d, %v",
			len(first.Rows), len(first.Rejects), first.Err, len(again.Rows), len(again.Rejects), again.Err)
	}
}

func FuzzContent(f *testing.F) {
	for _, c := range formats(f) {
		f.Add(c.content)
		f.Add(gz(f, c.content))
		f.Add(zst(f, c.content))
		f.Add(gz(f, c.content)[:20])
	}
	f.Fuzz(fuzzed)
}

func FuzzOTLPProto(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(marshalProto(f, generated(seed)))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := &recorder{}
		_ = decode.OTLPProto{}.Decode(reader(t, content), small(), decode.Sinks{Logs: s}) // any error will do; a panic will not
	})
}

func FuzzOTLPJSON(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(marshalJSON(f, generated(seed)))
	}
	f.Add([]byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"\u00`))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := &recorder{}
		_ = decode.OTLPJSON{}.Decode(reader(t, content), small(), decode.Sinks{Logs: s})
	})
}

func FuzzJSONLines(f *testing.F) {
	for _, seed := range []string{
		`{"time":1.5,"msg":"x\ud800","a":{"b":[1,{}]}}`, `[{"a":1},{"b":`, "{\n\"a\"\n:1}x", `{"":""}{"time":"2026-11-22T10:00:00Z"}`, "{}\n[\n", `{"a":"\`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := &recorder{}
		_ = decode.JSONLines{}.Decode(reader(t, content), small(), decode.Sinks{Logs: s})
	})
}

func FuzzTextLines(f *testing.F) {
	for _, seed := range []string{"2026-11-22T10:00:00.5+01:00 x\n", "[2026/11/22 10:00:00]\r\n", "\n\n\x00", "2026-11-22 10:00:00,", "9999-12-31T23:59:60Z"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		s := &recorder{}
		_ = decode.TextLines{}.Decode(reader(t, content), small(), decode.Sinks{Logs: s})
	})
}

func small() decode.Options {
	return decode.Options{ObjectTime: objectTime(), MaxLineBytes: 4096, MaxResourceBytes: 1 << 16}
}

func reader(t testing.TB, content []byte) *decode.Reader {
	t.Helper()
	r, err := decode.NewReader(bytes.NewReader(content))
	if err != nil {
		r, err = decode.NewReader(bytes.NewReader(nil)) // broken compression is not this decoder's
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}
