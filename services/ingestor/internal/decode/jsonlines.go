// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// JSONLines is JSON objects of any shape, a row each: one a line, one after the other without a line feed, over many lines, or the elements
// of arrays. Lines between them that are no JSON are rows of text, as containers mix them.
//
// Of an object's own keys, those that producers use for time, message, level, service, trace and span are recognised (see roles); all
// others are attributes with their types. An object without a message is the body itself.
type JSONLines struct{}

// Name is "json".
func (JSONLines) Name() string { return "json" }

// Sniff accepts content that begins with a JSON object, or with an array of them.
func (JSONLines) Sniff(head Head) (lake.Signal, bool) {
	b := bytes.TrimLeft(trimBOM(head.Bytes), " \t\r\n")
	if len(b) > 0 && b[0] == '[' {
		b = bytes.TrimLeft(b[1:], " \t\r\n")
	}
	if len(b) == 0 || b[0] != '{' {
		return 0, false
	}
	var v validator
	_, status := v.scan(b)
	return lake.SignalLogs, status == jsonWhole || status == jsonMore
}

// Decode reads value after value.
func (JSONLines) Decode(r *Reader, o Options, to Sinks) error {
	d := objects{lines: newLines(r, o, to.Logs), objectTime: o.ObjectTime.UnixNano()}
	defer d.close(o)
	for {
		done, err := d.next()
		if done || err != nil {
			return err
		}
	}
}

// objects gives JSON objects as rows.
type objects struct {
	*lines
	cursor     cursor
	text       []byte
	fields     columns.LogRow
	origin     columns.Origin
	service    string
	announced  bool
	objectTime int64
	// array says that the window stands inside an array of objects.
	array bool
}

// next gives the next object, or the next line if it is none.
func (d *objects) next() (done bool, err error) {
	c, ok := d.w.peek()
	switch {
	case !ok:
		return true, d.w.ended()
	case c == '[' && !d.array, c == ',' && d.array, c == ']' && d.array:
		if d.bracket(c) {
			return false, nil
		}
	case c == '{':
		value, n, status := d.w.value(d.limit)
		switch status {
		case jsonWhole:
			err = d.object(value)
			d.w.consume(n)
			return false, err
		case jsonTooLong:
			return false, d.sink.Reject(ReasonTooLong, value)
		}
	}
	d.announce("")
	return d.line()
}

// bracket enters, goes on in or leaves an array of objects; false if the bracket begins something else, a line of text in brackets for example.
func (d *objects) bracket(c byte) bool {
	if c == '[' && !d.arrayOfObjects() {
		return false
	}
	d.w.consume(1)
	d.array = c != ']'
	return true
}

func (d *objects) arrayOfObjects() bool {
	for len(d.w.unread()) < 64 && d.w.fill() {
		continue
	}
	b := bytes.TrimLeft(d.w.unread()[1:], " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == ']')
}

// announce gives the origin of the rows that follow when it changes.
func (d *objects) announce(service string) {
	if d.announced && service == d.service {
		return
	}
	d.announced, d.service = true, strings.Clone(service)
	d.origin.Resource = d.origin.Resource[:0]
	if service != "" {
		d.origin.Resource = append(d.origin.Resource, columns.Attribute{Name: "service.name", Value: columns.Value{Str: d.service}})
	}
	d.sink.Origin(&d.origin)
}

// role is what a key of an object is for.
type role uint8

const (
	roleAttribute role = iota
	roleTime
	roleMessage
	roleLevel
	roleService
	roleTrace
	roleSpan
)

// roleOf recognises a key. Of several keys of one role the first that fits is taken, the others are attributes.
func roleOf(key string) role {
	switch key {
	case "timestamp", "time", "@timestamp", "ts", "date", "datetime", "eventTime", "Timestamp", "Time":
		return roleTime
	case "message", "msg", "log", "body", "Message", "MESSAGE", "@message":
		return roleMessage
	case "level", "severity", "status", "lvl", "log.level", "loglevel", "severity_text", "severityText", "Level", "LEVEL", "Severity", "SEVERITY":
		return roleLevel
	case "service", "service.name", "service_name", "serviceName":
		return roleService
	case "trace_id", "traceId", "traceID", "trace.id", "TraceId":
		return roleTrace
	case "span_id", "spanId", "spanID", "span.id", "SpanId":
		return roleSpan
	}
	return roleAttribute
}

// object gives one object as a row.
func (d *objects) object(value []byte) error {
	d.cursor = cursor{b: value, unescaped: d.cursor.unescaped[:0]}
	d.text = d.text[:0]
	f := &d.fields
	*f = columns.LogRow{Attributes: f.Attributes[:0], Time: d.objectTime, TimeSource: columns.TimeObject}
	var taken [roleSpan + 1]bool
	service := ""
	c := &d.cursor
	c.open('{')
	for c.next() {
		key := c.str()
		v, ok := c.value(&d.text)
		if !ok {
			continue
		}
		role := roleOf(key)
		if role != roleAttribute && !taken[role] && d.take(role, v) {
			taken[role] = true
			if role == roleService {
				service = v.Str
			}
			continue
		}
		f.Attributes = append(f.Attributes, columns.Attribute{Name: key, Value: v})
	}
	if !taken[roleMessage] {
		if err := d.wholeBody(value); err != nil {
			return err
		}
	}
	d.announce(service)
	return d.sink.Row(f)
}

// wholeBody makes the object itself the body: nothing of it is an attribute as well.
func (d *objects) wholeBody(value []byte) error {
	whole := cursor{b: value}
	tree := whole.node()
	from := len(d.text)
	d.text = tree.appendJSON(d.text)
	d.fields.Body, d.fields.BodyKind = text(d.text[from:]), columns.KindMap
	d.fields.Attributes = d.fields.Attributes[:0]
	return nil
}

// take puts a value where its role says; false if the value does not fit there.
func (d *objects) take(role role, v columns.Value) bool {
	f := &d.fields
	switch role {
	case roleTime:
		ns, ok := parseTime(v.Text())
		if ok {
			f.Time, f.TimeSource = ns, columns.TimeEvent
		}
		return ok
	case roleMessage:
		f.Body, f.BodyKind = bodyOf(v)
		f.Body = strings.TrimRight(f.Body, "\r\n")
		return true
	case roleLevel:
		return d.takeLevel(v)
	case roleService:
		return v.Kind == columns.KindString && v.Str != ""
	case roleTrace:
		setID(f.TraceID[:], v.Str)
		return v.Kind == columns.KindString && f.TraceID != [16]byte{}
	case roleSpan:
		setID(f.SpanID[:], v.Str)
		return v.Kind == columns.KindString && f.SpanID != [8]byte{}
	}
	return false
}

// takeLevel accepts the words that are levels. Others, and numbers, are somebody's code or state, an HTTP status for example.
func (d *objects) takeLevel(v columns.Value) bool {
	if v.Kind != columns.KindString || !levelWord(v.Str) {
		return false
	}
	d.fields.SeverityText = v.Str
	return true
}

func levelWord(s string) bool {
	switch strings.ToLower(s) {
	case "trace", "trc", "verbose", "debug", "dbg", "info", "inf", "information", "informational", "notice", "warn", "wrn", "warning",
		"error", "err", "severe", "critical", "crit", "alert", "fatal", "panic", "emergency", "emerg":
		return true
	}
	return false
}
