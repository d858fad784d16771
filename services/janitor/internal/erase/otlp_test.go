// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// TestAppendRow writes a row with a value of every kind.
func TestAppendRow(t *testing.T) {
	t.Parallel()
	origin := columns.Origin{
		Resource:  []columns.Attribute{{Name: "service.name", Value: columns.Value{Str: "checkout"}}},
		ScopeName: "log", ScopeVersion: "1", ResourceSchemaURL: "r", ScopeSchemaURL: "s",
		Scope: []columns.Attribute{{Name: "n", Value: columns.Value{Kind: columns.KindInt, Num: math.MaxUint64}}},
	}
	row := columns.LogRow{
		Time: 1_700_000_000_000_000_001, ObservedTime: 2, SeverityNumber: 9, SeverityText: "INFO", Flags: 1, DroppedAttributes: 3, EventName: "e",
		TraceID: [16]byte{15: 1}, SpanID: [8]byte{7: 2}, Body: "it's \"so\"",
		Attributes: []columns.Attribute{
			{Name: "b", Value: columns.Value{Kind: columns.KindBool, Num: 1}},
			{Name: "bytes", Value: columns.Value{Kind: columns.KindBytes, Str: "\x00\xff"}},
			{Name: "d", Value: columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(1.5)}},
			{Name: "inf", Value: columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(math.Inf(-1))}},
			{Name: "m", Value: columns.Value{Kind: columns.KindMap, Str: `{"a":[1,2.5,"x",true,null],"e":{}}`}},
			{Name: "n", Value: columns.Value{Kind: columns.KindArray, Str: `not JSON`}},
		},
	}
	got, err := appendRow(nil, origin, &row)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}}]},` +
		`"scopeLogs":[{"scope":{"name":"log","version":"1","attributes":[{"key":"n","value":{"intValue":"-1"}}]},` +
		`"logRecords":[{"timeUnixNano":"1700000000000000001","observedTimeUnixNano":"2","severityNumber":9,"severityText":"INFO","flags":1,` +
		`"droppedAttributesCount":3,"eventName":"e","traceId":"00000000000000000000000000000001","spanId":"0000000000000002",` +
		`"body":{"stringValue":"it's \"so\""},"attributes":[{"key":"b","value":{"boolValue":true}},{"key":"bytes","value":{"bytesValue":"AP8="}},` +
		`{"key":"d","value":{"doubleValue":1.5}},{"key":"inf","value":{"doubleValue":"-Infinity"}},` +
		`{"key":"m","value":{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":2.5},` +
		`{"stringValue":"x"},{"boolValue":true},{}]}}},{"key":"e","value":{"kvlistValue":{"values":[]}}}]}}},` +
		`{"key":"n","value":{"stringValue":"not JSON"}}]}],"schemaUrl":"s"}],"schemaUrl":"r"}]}` + "\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// TestBodies gives bodies their kinds back.
func TestBodies(t *testing.T) {
	t.Parallel()
	for want, row := range map[string]columns.LogRow{
		`{"intValue":"7"}`:                                {Body: "7", BodyKind: columns.KindInt},
		`{"doubleValue":"1.5"}`:                           {Body: "1.5", BodyKind: columns.KindDouble},
		`{"boolValue":false}`:                             {Body: "false", BodyKind: columns.KindBool},
		`{"bytesValue":"AA=="}`:                           {Body: "AA==", BodyKind: columns.KindBytes},
		`{"stringValue":"text"}`:                          {Body: "text"},
		`{"arrayValue":{"values":[{"stringValue":"a"}]}}`: {Body: `["a"]`, BodyKind: columns.KindArray},
	} {
		row.TimeSource = columns.TimeObserved
		got, err := appendRow(nil, columns.Origin{}, &row)
		if err != nil {
			t.Fatal(err)
		}
		document := `{"resourceLogs":[{"resource":{},"scopeLogs":[{"scope":{},"logRecords":[{"body":` + want + `}]}]}]}` + "\n"
		if diff := cmp.Diff(document, string(got)); diff != "" {
			t.Error(diff)
		}
	}
}
