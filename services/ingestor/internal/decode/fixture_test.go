// SPDX-License-Identifier: AGPL-3.0-only

package decode_test

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
)

// row is what a decoder said of a row, on its own.
type row struct {
	Time       int64
	TimeSource columns.TimeSource
	Observed   int64
	Number     int32
	Severity   string
	Trace      string
	Span       string
	Flags      uint32
	Dropped    uint32
	Body       string
	BodyKind   columns.ValueKind
	Event      string
	Attributes []columns.Attribute
	Resource   []columns.Attribute
	Scope      []columns.Attribute
	// Names are scope name, scope version, schema URL of resource and scope.
	Names [4]string
}

type reject struct{ Reason, Raw string }

// recorder keeps what it is given.
type recorder struct {
	origin  row
	rows    []row
	rejects []reject
}

func (s *recorder) Origin(o *columns.Origin) {
	s.origin = row{
		Resource: clone(o.Resource), Scope: clone(o.Scope),
		Names: [4]string{strings.Clone(o.ScopeName), strings.Clone(o.ScopeVersion), strings.Clone(o.ResourceSchemaURL), strings.Clone(o.ScopeSchemaURL)},
	}
}

func (s *recorder) Row(r *columns.LogRow) error {
	out := s.origin
	out.Time, out.TimeSource, out.Observed = r.Time, r.TimeSource, r.ObservedTime
	out.Number, out.Severity, out.Flags, out.Dropped = r.SeverityNumber, strings.Clone(r.SeverityText), r.Flags, r.DroppedAttributes
	out.Body, out.BodyKind, out.Event = strings.Clone(r.Body), r.BodyKind, strings.Clone(r.EventName)
	out.Attributes = clone(r.Attributes)
	if r.TraceID != [16]byte{} {
		out.Trace = hex.EncodeToString(r.TraceID[:])
	}
	if r.SpanID != [8]byte{} {
		out.Span = hex.EncodeToString(r.SpanID[:])
	}
	s.rows = append(s.rows, out)
	return nil
}

func (s *recorder) Reject(reason string, raw []byte) error {
	s.rejects = append(s.rejects, reject{Reason: reason, Raw: string(raw)})
	return nil
}

func clone(attributes []columns.Attribute) []columns.Attribute {
	attributes = slices.Clone(attributes)
	for i := range attributes {
		attributes[i].Name = strings.Clone(attributes[i].Name)
		attributes[i].Value.Str = strings.Clone(attributes[i].Value.Str)
	}
	if len(attributes) == 0 {
		return nil
	}
	return attributes
}

// decoded is all that came of a content.
type decoded struct {
	decode.Result
	Rows    []row
	Rejects []reject
	Err     error
}

func objectTime() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func decodeBytes(content []byte, change ...func(*decode.Options)) decoded {
	o := decode.Options{ObjectTime: objectTime(), MaxLineBytes: 64 << 10}
	for _, f := range change {
		f(&o)
	}
	s := &recorder{}
	result, err := decode.Decode(bytes.NewReader(content), o, decode.Sinks{Logs: s})
	return decoded{Result: result, Rows: s.rows, Rejects: s.rejects, Err: err}
}

func (d decoded) bodies() []string {
	var bodies []string
	for _, r := range d.Rows {
		bodies = append(bodies, r.Body)
	}
	return bodies
}

func gz(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, content []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(content, nil)
}

func text(name, value string) columns.Attribute {
	return columns.Attribute{Name: name, Value: columns.Value{Str: value}}
}
