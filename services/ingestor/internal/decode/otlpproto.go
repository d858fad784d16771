// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// OTLPProto is one binary LogsData, MetricsData, TracesData or Export*ServiceRequest message of OpenTelemetry's protocol: they are
// alike on the wire. It reads one resource at a time and makes no objects: strings point into the resource's bytes.
//
// Field numbers are those of opentelemetry/proto/logs/v1/logs.proto and common/v1/common.proto.
type OTLPProto struct{}

// Name is "otlp-proto".
func (OTLPProto) Name() string { return "otlp-proto" }

// maxNesting bounds arrays and maps inside each other.
const maxNesting = 64

const resourceField = 1 // of LogsData, MetricsData and TracesData

// Decode reads resource after resource.
func (OTLPProto) Decode(r *Reader, o Options, to Sinks) error {
	if o.Signal == lake.SignalMetrics {
		return decodeProtoMetrics(r, o, to.Metrics)
	}
	d := protoDecoder{maxLine: o.MaxLineBytes, objectTime: o.ObjectTime.UnixNano(), buffer: o.Scratch.take()}
	d.sink, d.announce, d.give = to.Logs, to.Logs.Origin, d.logRecords
	return d.resources(r, o)
}

// resources reads resource after resource of the content.
func (d *protoDecoder) resources(r *Reader, o Options) error {
	defer func() { o.Scratch.give(d.buffer) }()
	for {
		number, wire, err := readTag(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if number != resourceField || wire != protowire.BytesType {
			if err := skipField(r, wire); err != nil {
				return err
			}
			continue
		}
		message, err := d.readMessage(r, o.MaxResourceBytes)
		d.cut = errors.Is(err, ErrTruncated)
		if err != nil && !d.cut {
			return err
		}
		if err := d.resource(message); err != nil {
			return err
		}
		if d.cut {
			return err
		}
	}
}

// readTag reads a field's tag; io.EOF only when there is none.
func readTag(r io.ByteReader) (protowire.Number, protowire.Type, error) {
	tag, err := readVarint(r)
	if err != nil {
		return 0, 0, err
	}
	number, wire := protowire.DecodeTag(tag)
	if number < protowire.MinValidNumber {
		return 0, 0, errProto(errors.New("field number out of range"))
	}
	return number, wire, nil
}

func readVarint(r io.ByteReader) (uint64, error) {
	v, err := binary.ReadUvarint(r)
	switch {
	case err == nil, errors.Is(err, ErrTruncated), errors.Is(err, io.EOF), fault.KindOf(err) == fault.Invalid:
		return v, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return 0, fmt.Errorf("it ends inside an otlp message: %w", ErrTruncated)
	}
	return 0, errProto(err)
}

func skipField(r *Reader, wire protowire.Type) error {
	var n uint64
	var err error
	switch wire {
	case protowire.VarintType:
		_, err = readVarint(r)
	case protowire.Fixed32Type:
		n = 4
	case protowire.Fixed64Type:
		n = 8
	case protowire.BytesType:
		n, err = readVarint(r)
	default:
		return errProto(fmt.Errorf("wire type %d", wire))
	}
	if err == nil && n > 0 {
		_, err = io.CopyN(io.Discard, r, int64(min(n, 1<<62)))
	}
	return cutShort(err)
}

// errEnd is the end of the content where there should be more.
var errEnd = io.ErrUnexpectedEOF

// cutShort makes the end of the content inside a message a truncation.
func cutShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("it ends inside an otlp message: %w", ErrTruncated)
	}
	return err
}

func errProto(err error) error { return fault.New(fault.Invalid, "otlp message is broken: %w", err) }

func errParse(n int) error { return errProto(protowire.ParseError(n)) }

// protoDecoder walks one object's messages. Its buffers are reused from message to message.
type protoDecoder struct {
	sink Sink
	// announce and give are what to do with the origin of a scope, and with its records, which lie in b.
	announce   func(o *columns.Origin)
	give       func(b []byte) error
	maxLine    int
	objectTime int64
	// cut says that the message at hand ends too early: what is whole in it counts. described says that nothing does where the resource is not in
	// it, which may stand at the end; found that it is.
	cut, described, found bool

	buffer  []byte
	row     columns.LogRow
	origin  columns.Origin
	records []span
	// text holds what strings are made of that are not in the message as they are: the JSON of arrays and maps.
	text []byte
}

// span is a part of a message.
type span struct{ from, to int }

// readMessage reads one length-delimited message. If the content ends inside it, what there is of it comes with ErrTruncated.
func (d *protoDecoder) readMessage(r *Reader, limit int) ([]byte, error) {
	size, err := readVarint(r)
	if err != nil {
		return nil, cutShort(err)
	}
	if size > uint64(limit) {
		return nil, fault.New(fault.Invalid, "an otlp resource of %d bytes exceeds the limit of %d", size, limit)
	}
	n := 0
	for n < int(size) {
		// Grow as bytes arrive: a length is a claim, not a reason to allocate.
		if n == cap(d.buffer) {
			d.buffer = append(d.buffer[:n], make([]byte, max(64<<10, min(n, int(size)-n)))...)
		}
		room := d.buffer[n:min(cap(d.buffer), int(size))]
		m, err := io.ReadFull(r, room)
		n += m
		if err != nil {
			return d.buffer[:n], cutShort(err)
		}
	}
	return d.buffer[:n], nil
}

// consumeField splits off the first field of b. For a length-delimited one value is its content. In a message that is cut, done says that
// its last field is not whole; containers then get what there is of it.
func (d *protoDecoder) consumeField(b []byte) (number protowire.Number, wire protowire.Type, value, rest []byte, err error) {
	number, wire, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, 0, nil, nil, errParse(n)
	}
	b = b[n:]
	if wire == protowire.BytesType {
		size, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, 0, nil, nil, errParse(n)
		}
		b = b[n:]
		if size > uint64(len(b)) {
			return number, wire, b, nil, errCut
		}
		return number, wire, b[:size], b[size:], nil
	}
	n = protowire.ConsumeFieldValue(number, wire, b)
	if n < 0 {
		return 0, 0, nil, nil, errParse(n)
	}
	return number, wire, b[:n], b[n:], nil
}

// errCut is a field that is longer than its message.
var errCut = fault.New(fault.Invalid, "otlp message is broken: a field is longer than its message")

// resource gives the records of one ResourceLogs or ResourceMetrics. The resource may stand after the scopes, so it is looked for first.
func (d *protoDecoder) resource(b []byte) error {
	d.origin = columns.Origin{Resource: d.origin.Resource[:0], Scope: d.origin.Scope[:0]}
	d.text, d.found = d.text[:0], false
	if err := d.description(b); err != nil {
		return err
	}
	if d.cut && d.described && !d.found {
		return nil
	}
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil && !(d.cut && errors.Is(err, errCut)) {
			return d.endOfCut(err)
		}
		if number == 2 && wire == protowire.BytesType {
			if err := d.scopeRecords(value); err != nil {
				return err
			}
		}
		b = rest
	}
	return nil
}

// endOfCut makes an error at the end of a cut message its end.
func (d *protoDecoder) endOfCut(err error) error {
	if d.cut {
		return nil
	}
	return err
}

// description reads resource = 1 and schema_url = 3 of a ResourceLogs or ResourceMetrics.
func (d *protoDecoder) description(b []byte) error {
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return d.endOfCut(err)
		}
		b = rest
		if wire != protowire.BytesType {
			continue
		}
		switch number {
		case 1:
			d.found = true
			d.origin.Resource, err = d.attributes(d.origin.Resource, value, 1)
		case 3:
			d.origin.ResourceSchemaURL = text(value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// attributes appends those of a message whose field of that number is a repeated KeyValue.
func (d *protoDecoder) attributes(into []columns.Attribute, b []byte, field protowire.Number) ([]columns.Attribute, error) {
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return into, err
		}
		b = rest
		if number != field || wire != protowire.BytesType {
			continue
		}
		into = append(into, columns.Attribute{})
		if err := d.keyValue(&into[len(into)-1], value); err != nil {
			return into, err
		}
	}
	return into, nil
}

// scopeRecords gives the records of one ScopeLogs or ScopeMetrics: scope = 1, log_records or metrics = 2, schema_url = 3.
func (d *protoDecoder) scopeRecords(b []byte) error {
	scopeText := len(d.text)
	defer func() { d.text = d.text[:scopeText] }()
	d.origin.ScopeName, d.origin.ScopeVersion, d.origin.ScopeSchemaURL = "", "", ""
	d.origin.Scope, d.records = d.origin.Scope[:0], d.records[:0]
	cut, found := false, false
	for rest := b; len(rest) > 0; {
		number, wire, value, next, err := d.consumeField(rest)
		if err != nil {
			if err = d.endOfCut(err); err != nil {
				return err
			}
			cut = true
			break
		}
		rest = next
		if wire != protowire.BytesType {
			continue
		}
		switch number {
		case 1:
			found = true
			err = d.scope(value)
		case 2:
			end := len(b) - len(next)
			d.records = append(d.records, span{from: end - len(value), to: end})
		case 3:
			d.origin.ScopeSchemaURL = text(value)
		}
		if err != nil {
			return err
		}
	}
	if cut && d.described && !found {
		return nil
	}
	d.announce(&d.origin)
	return d.give(b)
}

func (d *protoDecoder) logRecords(b []byte) error {
	rowText := len(d.text)
	for _, s := range d.records {
		d.text = d.text[:rowText]
		if err := d.logRecord(b[s.from:s.to]); err != nil {
			return err
		}
		if len(d.row.Body) > d.maxLine {
			if err := d.sink.Reject(ReasonTooLong, []byte(d.row.Body[:d.maxLine])); err != nil {
				return err
			}
			continue
		}
		if err := d.sink.Row(&d.row); err != nil {
			return err
		}
	}
	return nil
}

// scope reads an InstrumentationScope: name = 1, version = 2, attributes = 3.
func (d *protoDecoder) scope(b []byte) error {
	for rest := b; len(rest) > 0; {
		number, wire, value, next, err := d.consumeField(rest)
		if err != nil {
			return err
		}
		rest = next
		if wire != protowire.BytesType {
			continue
		}
		switch number {
		case 1:
			d.origin.ScopeName = text(value)
		case 2:
			d.origin.ScopeVersion = text(value)
		}
	}
	var err error
	d.origin.Scope, err = d.attributes(d.origin.Scope, b, 3)
	return err
}

// logRecord reads one LogRecord into d.row.
func (d *protoDecoder) logRecord(b []byte) error {
	r := &d.row
	*r = columns.LogRow{Attributes: r.Attributes[:0]}
	var time, observed uint64
	for len(b) > 0 {
		tag, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return errParse(n)
		}
		b = b[n:]
		number, wire := protowire.DecodeTag(tag)
		switch wire {
		case protowire.Fixed64Type:
			v, n := protowire.ConsumeFixed64(b)
			if n < 0 {
				return errParse(n)
			}
			b = b[n:]
			switch number {
			case 1:
				time = v
			case 11:
				observed = v
			}
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errParse(n)
			}
			b = b[n:]
			switch number {
			case 2:
				r.SeverityNumber = int32(v)
			case 7:
				r.DroppedAttributes = uint32(v)
			}
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errParse(n)
			}
			b = b[n:]
			if err := d.logRecordBytes(number, v); err != nil {
				return err
			}
		default:
			n := protowire.ConsumeFieldValue(number, wire, b)
			if n < 0 {
				return errParse(n)
			}
			if number == 8 && wire == protowire.Fixed32Type {
				r.Flags, _ = protowire.ConsumeFixed32(b)
			}
			b = b[n:]
		}
	}
	setTimes(r, time, observed, d.objectTime)
	return nil
}

func (d *protoDecoder) logRecordBytes(number protowire.Number, v []byte) error {
	r := &d.row
	switch number {
	case 3:
		r.SeverityText = text(v)
	case 5:
		body, err := d.anyValue(v)
		r.Body, r.BodyKind = bodyOf(body)
		return err
	case 6:
		r.Attributes = append(r.Attributes, columns.Attribute{})
		return d.keyValue(&r.Attributes[len(r.Attributes)-1], v)
	case 9:
		if len(v) == len(r.TraceID) {
			copy(r.TraceID[:], v)
		}
	case 10:
		if len(v) == len(r.SpanID) {
			copy(r.SpanID[:], v)
		}
	case 12:
		r.EventName = text(v)
	}
	return nil
}

// bodyOf renders a body as LogQL's line. Its kind stays that of the producer's value.
func bodyOf(v columns.Value) (string, columns.ValueKind) {
	if v.Kind == columns.KindString {
		return v.Str, v.Kind
	}
	return v.Text(), v.Kind
}

// keyValue reads a KeyValue: key = 1, value = 2.
func (d *protoDecoder) keyValue(a *columns.Attribute, b []byte) error {
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return err
		}
		b = rest
		if wire != protowire.BytesType {
			continue
		}
		switch number {
		case 1:
			a.Name = text(value)
		case 2:
			if a.Value, err = d.anyValue(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// anyValue reads an AnyValue; of several fields of its oneof the last stands, and none is an empty string.
func (d *protoDecoder) anyValue(b []byte) (columns.Value, error) {
	var v columns.Value
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return v, err
		}
		b = rest
		if nested(number, wire) {
			if v, err = d.structured(number, value); err != nil {
				return v, err
			}
		} else if s, ok := scalar(number, wire, value); ok {
			v = s
		}
	}
	return v, nil
}

// nested reports whether a field of AnyValue is array_value = 5 or kvlist_value = 6.
func nested(number protowire.Number, wire protowire.Type) bool {
	return wire == protowire.BytesType && (number == 5 || number == 6)
}

// scalar reads the other fields of AnyValue: string_value = 1, bool_value = 2, int_value = 3, double_value = 4, bytes_value = 7.
func scalar(number protowire.Number, wire protowire.Type, value []byte) (columns.Value, bool) {
	switch {
	case number == 1 && wire == protowire.BytesType:
		return columns.Value{Str: text(value)}, true
	case number == 2 && wire == protowire.VarintType:
		n, _ := protowire.ConsumeVarint(value)
		return columns.Value{Kind: columns.KindBool, Num: min(n, 1)}, true
	case number == 3 && wire == protowire.VarintType:
		n, _ := protowire.ConsumeVarint(value)
		return columns.Value{Kind: columns.KindInt, Num: n}, true
	case number == 4 && wire == protowire.Fixed64Type:
		n, _ := protowire.ConsumeFixed64(value)
		return columns.Value{Kind: columns.KindDouble, Num: n}, true
	case number == 7 && wire == protowire.BytesType:
		return columns.Value{Kind: columns.KindBytes, Str: text(value)}, true
	}
	return columns.Value{}, false
}

// structured renders an ArrayValue or KeyValueList as canonical JSON.
func (d *protoDecoder) structured(number protowire.Number, b []byte) (columns.Value, error) {
	tree, kind, err := d.tree(number, b, 0)
	if err != nil {
		return columns.Value{}, err
	}
	from := len(d.text)
	d.text = tree.appendJSON(d.text)
	return columns.Value{Kind: kind, Str: text(d.text[from:])}, nil
}

func (d *protoDecoder) tree(number protowire.Number, b []byte, depth int) (node, columns.ValueKind, error) {
	if depth > maxNesting {
		return node{}, 0, errProto(fmt.Errorf("values are nested more than %d deep", maxNesting))
	}
	if number == 5 {
		n, err := d.arrayTree(b, depth)
		return n, columns.KindArray, err
	}
	n, err := d.mapTree(b, depth)
	return n, columns.KindMap, err
}

func (d *protoDecoder) arrayTree(b []byte, depth int) (node, error) {
	n := node{kind: columns.KindArray}
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return n, err
		}
		b = rest
		if number != 1 || wire != protowire.BytesType {
			continue
		}
		element, err := d.valueTree(value, depth)
		if err != nil {
			return n, err
		}
		n.children = append(n.children, element)
	}
	return n, nil
}

func (d *protoDecoder) mapTree(b []byte, depth int) (node, error) {
	n := node{kind: columns.KindMap}
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return n, err
		}
		b = rest
		if number != 1 || wire != protowire.BytesType {
			continue
		}
		child, err := d.entryTree(value, depth)
		if err != nil {
			return n, err
		}
		n.children = append(n.children, child)
	}
	return n, nil
}

func (d *protoDecoder) entryTree(b []byte, depth int) (node, error) {
	child := node{null: true}
	name := ""
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return child, err
		}
		b = rest
		if wire != protowire.BytesType {
			continue
		}
		switch number {
		case 1:
			name = text(value)
		case 2:
			if child, err = d.valueTree(value, depth); err != nil {
				return child, err
			}
		}
	}
	child.name = name
	return child, nil
}

func (d *protoDecoder) valueTree(b []byte, depth int) (node, error) {
	n := node{null: true}
	for len(b) > 0 {
		number, wire, value, rest, err := d.consumeField(b)
		if err != nil {
			return n, err
		}
		b = rest
		if nested(number, wire) {
			if n, _, err = d.tree(number, value, depth+1); err != nil {
				return n, err
			}
		} else if s, ok := scalar(number, wire, value); ok {
			n = node{kind: s.Kind, value: s}
		}
	}
	return n, nil
}

// text is b as a string, without a copy. It lives as long as the bytes stay as they are.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// setTimes fills a row's times as OTLP defines them: the event's own, else when it was observed, else that of the object.
func setTimes(r *columns.LogRow, event, observed uint64, object int64) {
	r.ObservedTime = signed(observed)
	switch {
	case event != 0:
		r.Time, r.TimeSource = signed(event), columns.TimeEvent
	case observed != 0:
		r.Time, r.TimeSource = r.ObservedTime, columns.TimeObserved
	default:
		r.Time, r.TimeSource = object, columns.TimeObject
	}
}

// signed is a time in ns as a signed number; times after 2262 become the last one there is.
func signed(ns uint64) int64 { return int64(min(ns, math.MaxInt64)) }
