// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// OTLPJSON is OTLP's JSON: one document, or many one after the other with or without a line feed between them. It reads one resource at
// a time, and is generous where producers are known to differ: names in snake_case, ids in base64, 64-bit numbers with or without
// quotes, names of enum values.
type OTLPJSON struct{}

// Name is "otlp-json".
func (OTLPJSON) Name() string { return "otlp-json" }

// Sniff looks for the key that every OTLP document has, before any other array or object ends.
func (OTLPJSON) Sniff(head Head) (lake.Signal, bool) {
	b := trimBOM(head.Bytes)
	var v validator
	valid, _ := v.scan(b)
	c := cursor{b: b[:valid]}
	if c.kind() != '{' {
		return 0, false
	}
	c.open('{')
	for c.next() {
		if c.kind() != '"' {
			return 0, false
		}
		if signal, ok := documentSignal(c.str()); ok {
			return signal, c.kind() == '['
		}
		c.skip()
	}
	return 0, false
}

func trimBOM(b []byte) []byte {
	if len(b) >= 3 && b[0] == 0xef && b[1] == 0xbb && b[2] == 0xbf {
		return b[3:]
	}
	return b
}

func documentSignal(key string) (lake.Signal, bool) {
	switch key {
	case "resourceLogs", "resource_logs":
		return lake.SignalLogs, true
	case "resourceMetrics", "resource_metrics":
		return lake.SignalMetrics, true
	case "resourceSpans", "resource_spans":
		return lake.SignalSpans, true
	}
	return 0, false
}

// Decode reads document after document. A document that is not JSON is rejected through the end of its line.
func (OTLPJSON) Decode(r *Reader, o Options, to Sinks) error {
	if o.Signal == lake.SignalMetrics {
		return decodeJSONMetrics(r, o, to.Metrics)
	}
	d := newJSONDecoder(r, o)
	d.signal, d.sink, d.announce, d.reject, d.give = lake.SignalLogs, to.Logs, to.Logs.Origin, to.Logs.Reject, d.records
	return d.documents(o)
}

func newJSONDecoder(r *Reader, o Options) *jsonDecoder {
	return &jsonDecoder{
		w: newWindow(r, o.Scratch.take()), maxLine: o.MaxLineBytes, maxResource: o.MaxResourceBytes, objectTime: o.ObjectTime.UnixNano(),
	}
}

// documents reads document after document of the content.
func (d *jsonDecoder) documents(o Options) error {
	defer func() { o.Scratch.give(d.w.buf) }()
	d.w.skipBOM()
	for {
		_, ok := d.w.peek()
		if !ok {
			return d.w.ended()
		}
		whole, err := d.document()
		if err != nil {
			return err
		}
		if whole {
			continue
		}
		line, _, _ := d.w.line(o.MaxLineBytes)
		if err := d.reject(ReasonMalformed, line); err != nil {
			return err
		}
		d.w.skipLine()
	}
}

func (w *window) skipBOM() {
	for w.to-w.from < 3 && w.fill() {
		continue
	}
	w.consume(len(w.unread()) - len(trimBOM(w.unread())))
}

type jsonDecoder struct {
	w    window
	sink Sink
	// signal is that of the arrays to read; announce, reject and give are what to do with the origin of a scope, with what is not JSON, and
	// with the array of a scope's records, at which the cursor stands.
	signal   lake.Signal
	announce func(o *columns.Origin)
	reject   func(reason string, raw []byte) error
	give     func() error
	// described says that nothing counts of what is cut before its resource or scope, which may stand at the end.
	described            bool
	maxLine, maxResource int
	objectTime           int64
	cursor               cursor
	text                 []byte
	row                  columns.LogRow
	origin               columns.Origin
}

// document reads one {"resourceLogs":[...]}; false if it is not JSON from where the window stands.
func (d *jsonDecoder) document() (whole bool, err error) {
	if !d.punctuation('{') {
		return false, nil
	}
	for first := true; ; first = false {
		c, ok := d.w.peek()
		switch {
		case !ok:
			return true, d.end()
		case c == '}':
			d.w.consume(1)
			return true, nil
		case !first && !d.punctuation(','):
			return false, nil
		}
		key, status := d.value()
		if status != jsonWhole {
			return d.broken(status)
		}
		name := cursor{b: key}
		signal, known := documentSignal(name.str())
		if !d.punctuation(':') {
			return false, nil
		}
		if known && signal == d.signal {
			whole, err = d.resources()
		} else {
			whole, err = d.pass()
		}
		if !whole || err != nil {
			return whole, err
		}
	}
}

// punctuation consumes c if it comes next.
func (d *jsonDecoder) punctuation(c byte) bool {
	if got, ok := d.w.peek(); !ok || got != c {
		return false
	}
	d.w.consume(1)
	return true
}

// value consumes the next value if it is whole. The result is valid until the window is read again.
func (d *jsonDecoder) value() ([]byte, jsonStatus) {
	value, n, status := d.w.value(d.maxResource)
	if status == jsonWhole {
		d.w.consume(n)
	}
	return value, status
}

func (d *jsonDecoder) pass() (bool, error) {
	if _, status := d.value(); status != jsonWhole {
		return d.broken(status)
	}
	return true, nil
}

func (d *jsonDecoder) broken(status jsonStatus) (bool, error) {
	switch status {
	case jsonCut:
		return true, d.end()
	case jsonTooLong:
		return true, fault.New(fault.Invalid, "an otlp resource exceeds the limit of %d bytes", d.maxResource)
	}
	return false, nil
}

// end is what the end of the content inside a document is.
func (d *jsonDecoder) end() error {
	if err := d.w.ended(); err != nil {
		return err
	}
	return cutShort(errEnd)
}

// resources reads the array of ResourceLogs or ResourceMetrics element by element.
func (d *jsonDecoder) resources() (bool, error) {
	if !d.punctuation('[') {
		return d.pass()
	}
	for first := true; ; first = false {
		c, ok := d.w.peek()
		switch {
		case !ok:
			return true, d.end()
		case c == ']':
			d.w.consume(1)
			return true, nil
		case !first && !d.punctuation(','):
			return false, nil
		}
		resource, status := d.value()
		if status == jsonWhole || status == jsonCut {
			if err := d.resourceRecords(resource); err != nil {
				return true, err
			}
		}
		if status != jsonWhole {
			return d.broken(status)
		}
	}
}

// resourceRecords gives the records of one ResourceLogs or ResourceMetrics. What describes the resource may stand after the scopes, so it is read
// first.
func (d *jsonDecoder) resourceRecords(b []byte) error {
	d.cursor = cursor{b: b, unescaped: d.cursor.unescaped[:0]}
	d.text = d.text[:0]
	d.origin = columns.Origin{Resource: d.origin.Resource[:0], Scope: d.origin.Scope[:0]}
	c := &d.cursor
	var scopes []int
	found := false
	c.open('{')
	for c.next() {
		switch key := c.str(); key {
		case "resource":
			found = true
			d.resource()
		case "schemaUrl", "schema_url":
			d.origin.ResourceSchemaURL = c.str()
		case "scopeLogs", "scope_logs", "scopeMetrics", "scope_metrics":
			c.kind()
			scopes = append(scopes, c.i)
			c.skip()
		default:
			c.skip()
		}
	}
	if c.cut && d.described && !found {
		return nil
	}
	for _, at := range scopes {
		c.i, c.cut = at, false
		if err := d.scopes(); err != nil {
			return err
		}
	}
	return nil
}

func (d *jsonDecoder) resource() {
	c := &d.cursor
	if !c.open('{') {
		return
	}
	for c.next() {
		if c.str() == "attributes" {
			d.origin.Resource = d.attributes(d.origin.Resource)
		} else {
			c.skip()
		}
	}
}

func (d *jsonDecoder) scopes() error {
	c := &d.cursor
	if !c.open('[') {
		return nil
	}
	for c.next() {
		if err := d.scopeRecords(); err != nil {
			return err
		}
	}
	return nil
}

func (d *jsonDecoder) scopeRecords() error {
	c := &d.cursor
	d.origin.ScopeName, d.origin.ScopeVersion, d.origin.ScopeSchemaURL = "", "", ""
	d.origin.Scope = d.origin.Scope[:0]
	if !c.open('{') {
		return nil
	}
	var records []int
	found := false
	for c.next() {
		switch key := c.str(); key {
		case "scope":
			found = true
			d.scope()
		case "schemaUrl", "schema_url":
			d.origin.ScopeSchemaURL = c.str()
		case "logRecords", "log_records", "metrics":
			c.kind()
			records = append(records, c.i)
			c.skip()
		default:
			c.skip()
		}
	}
	if c.cut && d.described && !found {
		return nil
	}
	end, cut := c.i, c.cut
	d.announce(&d.origin)
	for _, at := range records {
		c.i, c.cut = at, false
		if err := d.give(); err != nil {
			return err
		}
	}
	c.i, c.cut = end, cut
	return nil
}

func (d *jsonDecoder) scope() {
	c := &d.cursor
	if !c.open('{') {
		return
	}
	for c.next() {
		switch c.str() {
		case "name":
			d.origin.ScopeName = c.str()
		case "version":
			d.origin.ScopeVersion = c.str()
		case "attributes":
			d.origin.Scope = d.attributes(d.origin.Scope)
		default:
			c.skip()
		}
	}
}

func (d *jsonDecoder) records() error {
	c := &d.cursor
	if !c.open('[') {
		return nil
	}
	unescaped, text := len(c.unescaped), len(d.text)
	for c.next() {
		c.unescaped, d.text = c.unescaped[:unescaped], d.text[:text]
		d.record()
		if c.cut {
			return nil
		}
		if err := d.giveRow(); err != nil {
			return err
		}
	}
	return nil
}

func (d *jsonDecoder) giveRow() error {
	if len(d.row.Body) > d.maxLine {
		return d.sink.Reject(ReasonTooLong, []byte(d.row.Body[:d.maxLine]))
	}
	return d.sink.Row(&d.row)
}

func (d *jsonDecoder) record() {
	c, r := &d.cursor, &d.row
	*r = columns.LogRow{Attributes: r.Attributes[:0]}
	var event, observed uint64
	if c.open('{') {
		for c.next() {
			switch key := c.str(); key {
			case "timeUnixNano", "time_unix_nano":
				event = unsignedOf(c.str())
			case "observedTimeUnixNano", "observed_time_unix_nano":
				observed = unsignedOf(c.str())
			default:
				d.recordField(key)
			}
		}
	}
	setTimes(r, event, observed, d.objectTime)
}

// recordField reads a field of a record other than its times.
func (d *jsonDecoder) recordField(key string) {
	c, r := &d.cursor, &d.row
	switch key {
	case "severityNumber", "severity_number":
		r.SeverityNumber = severityNumber(c.str())
	case "severityText", "severity_text":
		r.SeverityText = c.str()
	case "body":
		r.Body, r.BodyKind = bodyOf(d.anyValue())
	case "attributes":
		r.Attributes = d.attributes(r.Attributes)
	case "droppedAttributesCount", "dropped_attributes_count":
		r.DroppedAttributes = uint32(unsignedOf(c.str()))
	case "flags":
		r.Flags = uint32(unsignedOf(c.str()))
	case "traceId", "trace_id":
		setID(r.TraceID[:], c.str())
	case "spanId", "span_id":
		setID(r.SpanID[:], c.str())
	case "eventName", "event_name":
		r.EventName = c.str()
	default:
		c.skip()
	}
}

// attributes appends those of an array of {"key":..., "value":{...}}.
func (d *jsonDecoder) attributes(into []columns.Attribute) []columns.Attribute {
	c := &d.cursor
	if !c.open('[') {
		return into
	}
	for c.next() {
		var a columns.Attribute
		if c.open('{') {
			for c.next() {
				switch c.str() {
				case "key":
					a.Name = c.str()
				case "value":
					a.Value = d.anyValue()
				default:
					c.skip()
				}
			}
		}
		if c.cut {
			return into
		}
		into = append(into, a)
	}
	return into
}

// anyValue reads an AnyValue.
func (d *jsonDecoder) anyValue() columns.Value {
	n := d.cursor.anyNode()
	if n.null || n.kind != columns.KindArray && n.kind != columns.KindMap {
		return n.value
	}
	from := len(d.text)
	d.text = n.appendJSON(d.text)
	return columns.Value{Kind: n.kind, Str: text(d.text[from:])}
}

// anyNode reads an AnyValue: an object whose only key tells the type.
func (c *cursor) anyNode() node {
	n := node{null: true}
	if !c.open('{') {
		return n
	}
	for c.next() {
		switch c.str() {
		case "stringValue", "string_value":
			n = scalarNode(columns.Value{Str: c.str()})
		case "boolValue", "bool_value":
			v := columns.Value{Kind: columns.KindBool}
			if c.str() == "true" {
				v.Num = 1
			}
			n = scalarNode(v)
		case "intValue", "int_value":
			n = scalarNode(columns.Value{Kind: columns.KindInt, Num: uint64(signedOf(c.str()))})
		case "doubleValue", "double_value":
			n = scalarNode(columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(floatOf(c.str()))})
		case "bytesValue", "bytes_value":
			n = scalarNode(columns.Value{Kind: columns.KindBytes, Str: bytesOf(c.str())})
		case "arrayValue", "array_value":
			n = node{kind: columns.KindArray, children: c.anyNodes((*cursor).anyNode)}
		case "kvlistValue", "kvlist_value":
			n = node{kind: columns.KindMap, children: c.anyNodes((*cursor).entryNode)}
		default:
			c.skip()
		}
	}
	return n
}

func scalarNode(v columns.Value) node { return node{kind: v.Kind, value: v} }

// anyNodes reads {"values":[...]}.
func (c *cursor) anyNodes(read func(*cursor) node) []node {
	var nodes []node
	if !c.open('{') {
		return nil
	}
	for c.next() {
		if c.str() != "values" || !c.open('[') {
			c.skip()
			continue
		}
		for c.next() {
			nodes = append(nodes, read(c))
		}
	}
	return nodes
}

// entryNode reads {"key":..., "value":{...}}.
func (c *cursor) entryNode() node {
	n := node{null: true}
	name := ""
	if !c.open('{') {
		return n
	}
	for c.next() {
		switch c.str() {
		case "key":
			name = c.str()
		case "value":
			n = c.anyNode()
		default:
			c.skip()
		}
	}
	n.name = name
	return n
}

// setID reads an id in hex or base64, told apart by their lengths; anything else is none.
func setID(id []byte, s string) {
	var raw [24]byte
	switch len(s) {
	case hex.EncodedLen(len(id)):
		if _, err := hex.Decode(raw[:], []byte(s)); err != nil {
			return
		}
	case base64.StdEncoding.EncodedLen(len(id)):
		if n, err := base64.StdEncoding.Decode(raw[:], []byte(s)); err != nil || n != len(id) {
			return
		}
	default:
		return
	}
	copy(id, raw[:])
}

// bytesOf decodes base64 of either alphabet, padded or not. Text that is none stays as it is.
func bytesOf(s string) string {
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding} {
		if b, err := e.DecodeString(s); err == nil {
			return string(b)
		}
	}
	return s
}

// unsignedOf reads a 64-bit number that may be written as a float; 0 if it is none.
func unsignedOf(s string) uint64 {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n
	}
	f := floatOf(s)
	if !(f > 0) {
		return 0
	}
	return uint64(min(f, 1<<63))
}

func signedOf(s string) int64 {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f := floatOf(s)
	switch {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt64:
		return math.MaxInt64
	case f <= math.MinInt64:
		return math.MinInt64
	}
	return int64(f)
}

// floatOf reads a number, or the names that OTLP gives to what JSON has no numbers for; 0 if it is none.
func floatOf(s string) float64 {
	switch s {
	case "NaN":
		return math.NaN()
	case "Infinity":
		return math.Inf(1)
	case "-Infinity":
		return math.Inf(-1)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && math.IsInf(f, 0) {
		return f
	}
	if err != nil {
		return 0
	}
	return f
}

// severityNumber reads the number or the name of a value of the enum SeverityNumber, SEVERITY_NUMBER_INFO2 for example.
func severityNumber(s string) int32 {
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return int32(n)
	}
	name, ok := strings.CutPrefix(s, "SEVERITY_NUMBER_")
	if !ok {
		return 0
	}
	for i, level := range []string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"} {
		step, ok := strings.CutPrefix(name, level)
		if !ok {
			continue
		}
		if step == "" {
			return int32(4*i + 1)
		}
		if n, err := strconv.Atoi(step); err == nil && n >= 2 && n <= 4 {
			return int32(4*i + n)
		}
	}
	return 0
}
