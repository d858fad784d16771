// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// TextLines is plain text, a row a line. Empty lines are none. A line that begins with a time has it; a line without one, such as
// those of a stack trace, has the time of the line before it, else the object's, and is marked as without one of its own.
type TextLines struct{}

// Name is "text".
func (TextLines) Name() string { return "text" }

// Sniff accepts what is mostly text: some broken bytes are a producer's mistake, many are another kind of content.
func (TextLines) Sniff(head Head) (lake.Signal, bool) {
	return lake.SignalLogs, mostlyText(head.Bytes)
}

func mostlyText(b []byte) bool {
	b = b[:min(len(b), 4096)]
	broken := 0
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		control := r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != 0x1b && r != 0
		if r == utf8.RuneError && size == 1 || control {
			broken++
		}
		i += size
	}
	return broken*10 <= len(b)
}

// Decode reads line after line.
func (TextLines) Decode(r *Reader, o Options, to Sinks) error {
	l := newLines(r, o, to.Logs)
	defer l.close(o)
	to.Logs.Origin(&columns.Origin{})
	for {
		done, err := l.line()
		if done || err != nil {
			return err
		}
	}
}

// lines gives lines of text as rows.
type lines struct {
	w        window
	sink     Sink
	limit    int
	row      columns.LogRow
	lastTime int64
}

func newLines(r *Reader, o Options, sink Sink) *lines {
	l := &lines{w: newWindow(r, o.Scratch.take()), sink: sink, limit: o.MaxLineBytes, lastTime: o.ObjectTime.UnixNano()}
	l.w.skipBOM()
	return l
}

func (l *lines) close(o Options) { o.Scratch.give(l.w.buf) }

// line gives the next line; done says that there was none.
func (l *lines) line() (done bool, err error) {
	line, n, more := l.w.line(l.limit)
	if n == 0 {
		return true, l.w.ended()
	}
	if more {
		err = l.sink.Reject(ReasonTooLong, line)
		l.w.skipLine()
		return false, err
	}
	err = l.give(line)
	l.w.consume(n)
	return false, err
}

func (l *lines) give(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	r := &l.row
	*r = columns.LogRow{Attributes: r.Attributes[:0], Body: text(line), Time: l.lastTime, TimeSource: columns.TimeObject}
	if ns, n := leadingTime(r.Body); n > 0 {
		r.Time, r.TimeSource = ns, columns.TimeEvent
		l.lastTime = ns
	}
	return l.sink.Row(r)
}
