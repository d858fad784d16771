// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// A redacted copy is typed JSON lines: an OTLP document a row, which every reader of OTLP takes, LakeRunner's ingest among them. Values
// keep their types; a structured value comes back from its canonical JSON.

type (
	document struct {
		ResourceLogs []resourceLogs `json:"resourceLogs"`
	}
	resourceLogs struct {
		Resource  attributeSet `json:"resource"`
		ScopeLogs []scopeLogs  `json:"scopeLogs"`
		SchemaURL string       `json:"schemaUrl,omitempty"`
	}
	attributeSet struct {
		Attributes []keyValue `json:"attributes,omitempty"`
	}
	scopeLogs struct {
		Scope      scope       `json:"scope"`
		LogRecords []logRecord `json:"logRecords"`
		SchemaURL  string      `json:"schemaUrl,omitempty"`
	}
	scope struct {
		Name       string     `json:"name,omitempty"`
		Version    string     `json:"version,omitempty"`
		Attributes []keyValue `json:"attributes,omitempty"`
	}
	logRecord struct {
		Time         string     `json:"timeUnixNano,omitempty"`
		ObservedTime string     `json:"observedTimeUnixNano,omitempty"`
		Severity     int32      `json:"severityNumber,omitempty"`
		SeverityText string     `json:"severityText,omitempty"`
		Flags        uint32     `json:"flags,omitempty"`
		Dropped      uint32     `json:"droppedAttributesCount,omitempty"`
		EventName    string     `json:"eventName,omitempty"`
		TraceID      string     `json:"traceId,omitempty"`
		SpanID       string     `json:"spanId,omitempty"`
		Body         anyValue   `json:"body"`
		Attributes   []keyValue `json:"attributes,omitempty"`
	}
	keyValue struct {
		Key   string   `json:"key"`
		Value anyValue `json:"value"`
	}
	anyValue struct {
		String *string    `json:"stringValue,omitempty"`
		Int    *string    `json:"intValue,omitempty"`
		Double any        `json:"doubleValue,omitempty"` // a number, or "NaN", "Infinity", "-Infinity"
		Bool   *bool      `json:"boolValue,omitempty"`
		Bytes  *string    `json:"bytesValue,omitempty"`
		Array  *valueList `json:"arrayValue,omitempty"`
		Map    *keyValues `json:"kvlistValue,omitempty"`
	}
	valueList struct {
		Values []anyValue `json:"values"`
	}
	keyValues struct {
		Values []keyValue `json:"values"`
	}
)

// appendRow appends a row as a line.
func appendRow(b []byte, o columns.Origin, r *columns.LogRow) ([]byte, error) {
	line, err := json.Marshal(document{ResourceLogs: []resourceLogs{{
		Resource:  attributeSet{keyValuesOf(o.Resource)},
		SchemaURL: o.ResourceSchemaURL,
		ScopeLogs: []scopeLogs{{
			Scope:      scope{o.ScopeName, o.ScopeVersion, keyValuesOf(o.Scope)},
			SchemaURL:  o.ScopeSchemaURL,
			LogRecords: []logRecord{recordOf(r)},
		}},
	}}})
	if err != nil {
		return b, err
	}
	return append(append(b, line...), '\n'), nil
}

func recordOf(r *columns.LogRow) logRecord {
	out := logRecord{
		Severity: r.SeverityNumber, SeverityText: r.SeverityText, Flags: r.Flags, Dropped: r.DroppedAttributes, EventName: r.EventName,
		Body: bodyOf(r), Attributes: keyValuesOf(r.Attributes),
	}
	// A row whose time is its observed time, or else its object's, had none of its own; the object's would be lost with the object.
	if r.TimeSource != columns.TimeObserved {
		out.Time = strconv.FormatInt(r.Time, 10)
	}
	if r.ObservedTime != 0 {
		out.ObservedTime = strconv.FormatInt(r.ObservedTime, 10)
	}
	if r.TraceID != [16]byte{} {
		out.TraceID = hex.EncodeToString(r.TraceID[:])
	}
	if r.SpanID != [8]byte{} {
		out.SpanID = hex.EncodeToString(r.SpanID[:])
	}
	return out
}

// bodyOf gives the body, which a row has as text, its kind back.
func bodyOf(r *columns.LogRow) anyValue {
	switch r.BodyKind {
	case columns.KindArray, columns.KindMap:
		return structured(r.Body)
	case columns.KindInt:
		return anyValue{Int: &r.Body}
	case columns.KindDouble:
		return anyValue{Double: r.Body}
	case columns.KindBool:
		b := r.Body == "true"
		return anyValue{Bool: &b}
	case columns.KindBytes:
		return anyValue{Bytes: &r.Body}
	}
	return anyValue{String: &r.Body}
}

func keyValuesOf(attributes []columns.Attribute) []keyValue {
	out := make([]keyValue, len(attributes))
	for i, a := range attributes {
		out[i] = keyValue{a.Name, valueOf(a.Value)}
	}
	return out
}

func valueOf(v columns.Value) anyValue {
	switch v.Kind {
	case columns.KindArray, columns.KindMap:
		return structured(v.Str)
	case columns.KindInt:
		text := strconv.FormatInt(int64(v.Num), 10)
		return anyValue{Int: &text}
	case columns.KindDouble:
		return anyValue{Double: doubleOf(math.Float64frombits(v.Num))}
	case columns.KindBool:
		b := v.Num != 0
		return anyValue{Bool: &b}
	case columns.KindBytes:
		text := base64.StdEncoding.EncodeToString([]byte(v.Str))
		return anyValue{Bytes: &text}
	}
	return anyValue{String: &v.Str}
}

// doubleOf is what JSON can hold of a double.
func doubleOf(f float64) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return f
}

// structured reads canonical JSON. Text that is none is kept as text rather than lost.
func structured(canonical string) anyValue {
	d := json.NewDecoder(bytes.NewReader([]byte(canonical)))
	d.UseNumber()
	v, err := readValue(d)
	if err != nil {
		return anyValue{String: &canonical}
	}
	return v
}

func readValue(d *json.Decoder) (anyValue, error) {
	token, err := d.Token()
	if err != nil {
		return anyValue{}, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '[' {
			return readArray(d)
		}
		return readMap(d)
	case string:
		return anyValue{String: &t}, nil
	case bool:
		return anyValue{Bool: &t}, nil
	case json.Number:
		text := t.String()
		if _, err := t.Int64(); err == nil {
			return anyValue{Int: &text}, nil
		}
		return anyValue{Double: t}, nil
	}
	return anyValue{}, nil // null
}

func readArray(d *json.Decoder) (anyValue, error) {
	list := &valueList{Values: []anyValue{}}
	for d.More() {
		v, err := readValue(d)
		if err != nil {
			return anyValue{}, err
		}
		list.Values = append(list.Values, v)
	}
	_, err := d.Token()
	return anyValue{Array: list}, err
}

func readMap(d *json.Decoder) (anyValue, error) {
	list := &keyValues{Values: []keyValue{}}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return anyValue{}, err
		}
		v, err := readValue(d)
		if err != nil {
			return anyValue{}, err
		}
		key, _ := name.(string) // names of members are strings
		list.Values = append(list.Values, keyValue{key, v})
	}
	_, err := d.Token()
	return anyValue{Map: list}, err
}
