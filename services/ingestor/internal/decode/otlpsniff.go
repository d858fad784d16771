// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Sniff follows the first resource down to its first record, whose fields tell the signal. Text is excluded first: it never has the
// control bytes that tags and lengths of a message are.
func (OTLPProto) Sniff(head Head) (lake.Signal, bool) {
	if printable(head.Bytes) {
		return 0, false
	}
	number, wire, resource, ok := firstField(head.Bytes)
	if !ok || number != resourceField || wire != protowire.BytesType {
		return 0, false
	}
	record, ok := firstRecord(resource)
	if !ok {
		return 0, false
	}
	if len(record) == 0 {
		return orLogs(head.Hint), true
	}
	return recordSignal(record, head.Hint)
}

// firstField splits off the first field of what may be the beginning of a message.
func firstField(b []byte) (number protowire.Number, wire protowire.Type, value []byte, ok bool) {
	d := protoDecoder{}
	number, wire, value, _, err := d.consumeField(b)
	return number, wire, value, err == nil || err == errCut
}

// firstRecord returns the first log record, metric or span of a resource: field 2 of field 2 of it. ok says that all before it was as a
// resource is; it may have none.
func firstRecord(resource []byte) (record []byte, ok bool) {
	scope, ok := findField(resource, 2, 1, 2, 3)
	if !ok || scope == nil {
		return nil, ok
	}
	return findField(scope, 2, 1, 2, 3)
}

// findField returns the first field of a number. ok says that the fields up to it were messages or strings of the allowed numbers. Resource
// has also schema_url, all of them are length-delimited; deprecated 1000 is passed over.
func findField(b []byte, want protowire.Number, allowed ...protowire.Number) (value []byte, ok bool) {
	d := protoDecoder{}
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil && !errors.Is(err, errCut) {
			return nil, false
		}
		if wire != protowire.BytesType || !oneOf(number, allowed) {
			return nil, false
		}
		if number == want {
			return value, true
		}
		b = rest
	}
	return nil, true
}

func oneOf(n protowire.Number, allowed []protowire.Number) bool {
	for _, a := range allowed {
		if n == a || n == 1000 {
			return true
		}
	}
	return false
}

// recordShape is which fields a record of a signal has, by wire type.
type recordShape struct {
	signal lake.Signal
	wires  map[protowire.Number]protowire.Type
}

const (
	varint  = protowire.VarintType
	fixed32 = protowire.Fixed32Type
	fixed64 = protowire.Fixed64Type
	bytes_  = protowire.BytesType
)

// recordShapes of LogRecord, Span and Metric.
func recordShapes() []recordShape {
	return []recordShape{
		{lake.SignalLogs, map[protowire.Number]protowire.Type{
			1: fixed64, 2: varint, 3: bytes_, 5: bytes_, 6: bytes_, 7: varint, 8: fixed32, 9: bytes_, 10: bytes_, 11: fixed64, 12: bytes_,
		}},
		{lake.SignalSpans, map[protowire.Number]protowire.Type{
			1: bytes_, 2: bytes_, 3: bytes_, 4: bytes_, 5: bytes_, 6: varint, 7: fixed64, 8: fixed64, 9: bytes_, 10: varint, 11: bytes_,
			12: varint, 13: bytes_, 14: varint, 15: bytes_, 16: fixed32,
		}},
		{lake.SignalMetrics, map[protowire.Number]protowire.Type{
			1: bytes_, 2: bytes_, 3: bytes_, 5: bytes_, 7: bytes_, 9: bytes_, 10: bytes_, 11: bytes_, 12: bytes_,
		}},
	}
}

// recordSignal is the signal whose records have the fields of this one; the hint decides where several do.
func recordSignal(record []byte, hint lake.Signal) (lake.Signal, bool) {
	var found lake.Signal
	for _, shape := range recordShapes() {
		if !shape.fits(record) {
			continue
		}
		if shape.signal == hint {
			return hint, true
		}
		if found == lake.SignalUnknown {
			found = shape.signal
		}
	}
	return found, found != lake.SignalUnknown
}

func (s recordShape) fits(record []byte) bool {
	d := protoDecoder{}
	ids := 0
	for len(record) > 0 {
		number, wire, value, rest, err := d.consumeField(record)
		if err != nil {
			return err == errCut && s.wires[number] == wire
		}
		if want, ok := s.wires[number]; ok && want != wire || !ok && number < 17 {
			return false
		}
		if s.signal == lake.SignalSpans && (number == 1 || number == 2) {
			if number == 1 && len(value) != 16 || number == 2 && len(value) != 8 {
				return false
			}
			ids++
		}
		record = rest
	}
	return s.signal != lake.SignalSpans || ids == 2 // a metric may have a name as long as a trace's id
}

func orLogs(hint lake.Signal) lake.Signal {
	if hint == lake.SignalUnknown {
		return lake.SignalLogs
	}
	return hint
}

// printable reports whether b has no control bytes but those of text.
func printable(b []byte) bool {
	for _, c := range b[:min(len(b), 4096)] {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}
