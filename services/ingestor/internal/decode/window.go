// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"errors"
	"io"
)

const windowStep = 64 << 10

// window is the part of the content that is in memory: what was read and not consumed yet.
type window struct {
	r        io.Reader
	buf      []byte
	from, to int
	err      error // of the reader, after what is in the window
}

func newWindow(r io.Reader, buffer []byte) window {
	return window{r: r, buf: buffer[:cap(buffer)]}
}

// unread is what is in the window. It is valid until fill or discard.
func (w *window) unread() []byte { return w.buf[w.from:w.to] }

func (w *window) consume(n int) { w.from += n }

// fill reads more. False: there is no more, and w.err says why.
func (w *window) fill() bool {
	if w.err != nil {
		return false
	}
	if w.from > 0 && (w.from == w.to || w.to == len(w.buf)) {
		w.to = copy(w.buf, w.buf[w.from:w.to])
		w.from = 0
	}
	if w.to == len(w.buf) {
		w.buf = append(w.buf, make([]byte, max(windowStep, len(w.buf)))...)
	}
	n, err := io.ReadAtLeast(w.r, w.buf[w.to:], 1)
	w.to += n
	if n == 0 {
		w.err = err
	}
	return n > 0
}

// ended is the reader's error, nil when the content ended as it should.
func (w *window) ended() error {
	if w.err == io.EOF || errors.Is(w.err, io.ErrUnexpectedEOF) && !errors.Is(w.err, ErrTruncated) {
		return nil
	}
	return w.err
}

// line returns the next line without its end, and how many bytes to consume for it. A line longer than limit is cut there; more says
// so, and skipLine passes over the rest. At the end of the content n is 0.
func (w *window) line(limit int) (line []byte, n int, more bool) {
	searched := 0
	for {
		b := w.unread()
		if i := bytes.IndexByte(b[searched:], '\n'); i >= 0 && searched+i <= limit {
			end := searched + i
			return bytes.TrimSuffix(b[:end], []byte{'\r'}), end + 1, false
		}
		if len(b) > limit {
			return b[:limit], limit, true
		}
		searched = len(b)
		if !w.fill() {
			b = w.unread()
			return bytes.TrimSuffix(b, []byte{'\r'}), len(b), false
		}
	}
}

// skipLine consumes through the end of the line.
func (w *window) skipLine() {
	for {
		if i := bytes.IndexByte(w.unread(), '\n'); i >= 0 {
			w.consume(i + 1)
			return
		}
		w.consume(w.to - w.from)
		if !w.fill() {
			return
		}
	}
}

// peek returns the next byte that is no white space, consuming what stands before it; false at the end.
func (w *window) peek() (byte, bool) {
	for {
		for w.from < w.to {
			if c := w.buf[w.from]; !space(c) {
				return c, true
			}
			w.from++
		}
		if !w.fill() {
			return 0, false
		}
	}
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// value returns the next JSON value and how many bytes to consume for it. Of a value longer than limit the beginning is returned, and
// all of it is consumed already.
func (w *window) value(limit int) (value []byte, n int, status jsonStatus) {
	if _, ok := w.peek(); !ok {
		return nil, 0, jsonCut
	}
	var v validator
	seen := 0
	for {
		b := w.unread()
		used, status := v.scan(b[seen:])
		seen += used
		switch {
		case seen > limit:
			return w.skipValue(&v, limit, seen, status), 0, jsonTooLong
		case status != jsonMore:
			return b[:seen], seen, status
		}
		if !w.fill() {
			if v.complete() {
				return w.unread(), seen, jsonWhole
			}
			return w.unread(), seen, jsonCut
		}
	}
}

// skipValue consumes a value to its end without keeping it, and returns its beginning.
func (w *window) skipValue(v *validator, limit, seen int, status jsonStatus) []byte {
	beginning := bytes.Clone(w.unread()[:limit])
	w.consume(seen)
	for status == jsonMore && w.fill() {
		var used int
		used, status = v.scan(w.unread())
		w.consume(used)
	}
	if status == jsonBad {
		w.skipLine()
	}
	return beginning
}
