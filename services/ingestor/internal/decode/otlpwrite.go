// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// AppendOTLP appends a row as an OTLP JSON document of its own, with a "reason" beside the row, which readers of OTLP pass over. What it
// writes OTLPJSON reads back as the same row; bytes inside arrays and maps come back as their base64 text,
// and times up to 1970, which OTLP has no numbers for, as the first after it.
func AppendOTLP(b []byte, reason string, o *columns.Origin, r *columns.LogRow) []byte {
	b = append(b, `{"reason":`...)
	b = appendQuoted(b, reason)
	b = append(b, `,"resourceLogs":[{"resource":{"attributes":`...)
	b = appendOTLPAttributes(b, o.Resource)
	b = append(b, `},"scopeLogs":[{"scope":{"name":`...)
	b = appendQuoted(b, o.ScopeName)
	b = append(b, `,"version":`...)
	b = appendQuoted(b, o.ScopeVersion)
	b = append(b, `,"attributes":`...)
	b = appendOTLPAttributes(b, o.Scope)
	b = append(b, `},"logRecords":[`...)
	b = appendOTLPRecord(b, r)
	b = append(b, `],"schemaUrl":`...)
	b = appendQuoted(b, o.ScopeSchemaURL)
	b = append(b, `}],"schemaUrl":`...)
	b = appendQuoted(b, o.ResourceSchemaURL)
	return append(b, `}]}`...)
}

// AppendRejected appends what there is of a row that could not be decoded.
func AppendRejected(b []byte, reason string, raw []byte) []byte {
	b = append(b, `{"reason":`...)
	b = appendQuoted(b, reason)
	b = append(b, `,"raw":`...)
	b = appendQuoted(b, text(raw))
	return append(b, '}')
}

func appendOTLPRecord(b []byte, r *columns.LogRow) []byte {
	b = append(b, '{')
	if r.TimeSource == columns.TimeEvent {
		b = appendNumber(b, `"timeUnixNano":`, max(r.Time, 1))
	}
	if r.ObservedTime != 0 {
		b = appendNumber(b, `"observedTimeUnixNano":`, r.ObservedTime)
	}
	b = append(b, `"severityNumber":`...)
	b = strconv.AppendInt(b, int64(r.SeverityNumber), 10)
	b = append(b, `,"severityText":`...)
	b = appendQuoted(b, r.SeverityText)
	b = append(b, `,"flags":`...)
	b = strconv.AppendUint(b, uint64(r.Flags), 10)
	b = append(b, `,"droppedAttributesCount":`...)
	b = strconv.AppendUint(b, uint64(r.DroppedAttributes), 10)
	b = append(b, `,"eventName":`...)
	b = appendQuoted(b, r.EventName)
	if r.TraceID != [16]byte{} {
		b = append(b, `,"traceId":"`...)
		b = append(hex.AppendEncode(b, r.TraceID[:]), '"')
	}
	if r.SpanID != [8]byte{} {
		b = append(b, `,"spanId":"`...)
		b = append(hex.AppendEncode(b, r.SpanID[:]), '"')
	}
	b = append(b, `,"body":`...)
	b = appendOTLPBody(b, r)
	b = append(b, `,"attributes":`...)
	b = appendOTLPAttributes(b, r.Attributes)
	return append(b, '}')
}

func appendNumber(b []byte, key string, n int64) []byte {
	b = append(append(b, key...), '"')
	return append(strconv.AppendInt(b, n, 10), `",`...)
}

// appendOTLPBody writes the body, which the row has as text, with its kind.
func appendOTLPBody(b []byte, r *columns.LogRow) []byte {
	switch r.BodyKind {
	case columns.KindArray, columns.KindMap:
		return appendOTLPJSON(b, r.Body)
	case columns.KindInt:
		return append(append(append(b, `{"intValue":"`...), r.Body...), `"}`...)
	case columns.KindDouble:
		return append(append(append(b, `{"doubleValue":"`...), r.Body...), `"}`...)
	case columns.KindBool:
		return append(append(append(b, `{"boolValue":`...), r.Body...), '}')
	case columns.KindBytes:
		return append(append(append(b, `{"bytesValue":"`...), r.Body...), `"}`...)
	}
	return append(appendQuoted(append(b, `{"stringValue":`...), r.Body), '}')
}

func appendOTLPAttributes(b []byte, attributes []columns.Attribute) []byte {
	b = append(b, '[')
	for i := range attributes {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"key":`...)
		b = appendQuoted(b, attributes[i].Name)
		b = append(b, `,"value":`...)
		b = append(appendOTLPValue(b, attributes[i].Value), '}')
	}
	return append(b, ']')
}

func appendOTLPValue(b []byte, v columns.Value) []byte {
	switch v.Kind {
	case columns.KindArray, columns.KindMap:
		return appendOTLPJSON(b, v.Str)
	case columns.KindInt:
		b = append(b, `{"intValue":"`...)
		return append(strconv.AppendInt(b, int64(v.Num), 10), `"}`...)
	case columns.KindDouble:
		b = append(b, `{"doubleValue":"`...)
		return append(columns.AppendDouble(b, math.Float64frombits(v.Num)), `"}`...)
	case columns.KindBool:
		b = append(b, `{"boolValue":`...)
		return append(strconv.AppendBool(b, v.Num != 0), '}')
	case columns.KindBytes:
		b = append(b, `{"bytesValue":"`...)
		return append(base64.StdEncoding.AppendEncode(b, []byte(v.Str)), `"}`...)
	}
	return append(appendQuoted(append(b, `{"stringValue":`...), v.Str), '}')
}

// appendOTLPJSON writes canonical JSON as an AnyValue.
func appendOTLPJSON(b []byte, canonical string) []byte {
	c := cursor{b: []byte(canonical)}
	tree := c.node()
	return tree.appendOTLP(b)
}

func (n *node) appendOTLP(b []byte) []byte {
	switch {
	case n.null:
		return append(b, "{}"...)
	case n.kind == columns.KindArray:
		b = append(b, `{"arrayValue":{"values":[`...)
		for i := range n.children {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.children[i].appendOTLP(b)
		}
		return append(b, "]}}"...)
	case n.kind == columns.KindMap:
		b = append(b, `{"kvlistValue":{"values":[`...)
		for i := range n.children {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(append(b, `{"key":`...), n.children[i].name), `,"value":`...)
			b = append(n.children[i].appendOTLP(b), '}')
		}
		return append(b, "]}}"...)
	}
	return appendOTLPValue(b, n.value)
}
