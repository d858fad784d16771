// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// CSV is a table of metrics as text: a header and a row a line, with a comma, semicolon, tab or bar between the values. Which columns are what the
// storage profile's organization says for the object's key; else the header says it, if it has columns for metric, value and time as everybody calls
// them. Values may be quoted, but a row is one line.
type CSV struct{ Table *Table }

// Name is "csv".
func (CSV) Name() string { return "csv" }

// Sniff accepts text of which a mapping is known, and text whose header is one that needs none.
func (c CSV) Sniff(head Head) (lake.Signal, bool) {
	header, _, whole := bytes.Cut(trimBOM(head.Bytes), []byte("\n"))
	if !mostlyText(head.Bytes) || !whole && !head.Whole {
		return 0, false
	}
	if c.Table != nil {
		return lake.SignalMetrics, true
	}
	if head.Hint == lake.SignalLogs || head.Hint == lake.SignalSpans || !utf8.Valid(header) {
		return 0, false
	}
	names := headerOf(header)
	return lake.SignalMetrics, len(names) >= 3 && knownTable(names) != nil
}

// headerOf are the names of columns.
func headerOf(line []byte) []string {
	line = bytes.TrimSuffix(line, []byte("\r"))
	var names []string
	for _, c := range splitCells(nil, line, delimiterOf(line), new([]byte)) {
		names = append(names, strings.Clone(strings.TrimSpace(c.text)))
	}
	return names
}

// delimiterOf is what most often stands in a header of those that may stand between values.
func delimiterOf(header []byte) byte {
	best, most := byte(','), 0
	for _, c := range []byte(",;\t|") {
		if n := bytes.Count(header, []byte{c}); n > most {
			best, most = c, n
		}
	}
	return best
}

// Decode reads row after row.
func (c CSV) Decode(r *Reader, o Options, to Sinks) error {
	w := newWindow(r, o.Scratch.take())
	defer func() { o.Scratch.give(w.buf) }()
	w.skipBOM()
	header, n, more := w.line(o.MaxLineBytes)
	if n == 0 {
		return w.ended()
	}
	if more {
		return fault.New(fault.Invalid, "the header has more than %d bytes", o.MaxLineBytes)
	}
	delimiter, names := delimiterOf(header), headerOf(header)
	w.consume(n)
	table := c.Table
	if table == nil {
		table = knownTable(names)
	}
	if table == nil {
		return fault.New(fault.Invalid, "the table has no columns for a metric's name, value and time")
	}
	rows, err := newTableRows(to.Metrics, table, names)
	if err != nil {
		return err
	}
	return csvRows(&w, rows, delimiter, o.MaxLineBytes)
}

func csvRows(w *window, rows *tableRows, delimiter byte, limit int) error {
	var cells []cell
	var unquoted []byte
	for {
		line, n, more := w.line(limit)
		if n == 0 {
			return w.ended()
		}
		if more {
			if err := rows.to.Reject(ReasonTooLong, line); err != nil {
				return err
			}
			w.skipLine()
			continue
		}
		if len(bytes.TrimSpace(line)) > 0 {
			unquoted = unquoted[:0]
			cells = splitCells(cells[:0], line, delimiter, &unquoted)
			if err := rows.row(cells, line); err != nil {
				return err
			}
		}
		w.consume(n)
	}
}

// splitCells splits a line. What is quoted is written to *unquoted without its quotes.
func splitCells(cells []cell, line []byte, delimiter byte, unquoted *[]byte) []cell {
	for {
		var value []byte
		rest := bytes.TrimLeft(line, " ")
		if len(rest) > 0 && rest[0] == '"' {
			from := len(*unquoted)
			rest = unquoteCell(rest[1:], unquoted)
			value = (*unquoted)[from:]
			if at := bytes.IndexByte(rest, delimiter); at >= 0 {
				rest = rest[at:]
			} else {
				rest = nil
			}
			line = rest
		} else if at := bytes.IndexByte(line, delimiter); at >= 0 {
			value, line = line[:at], line[at:]
		} else {
			value, line = line, nil
		}
		c := cell{kind: cellText, text: strings.TrimSpace(text(value))}
		if c.text == "" {
			c.kind = cellNone
		}
		cells = append(cells, c)
		if len(line) == 0 {
			return cells
		}
		line = line[1:]
	}
}

// unquoteCell reads through the closing quote, where two quotes stand for one, and returns what follows.
func unquoteCell(b []byte, into *[]byte) (rest []byte) {
	for {
		at := bytes.IndexByte(b, '"')
		if at < 0 {
			*into = append(*into, b...)
			return nil
		}
		*into = append(*into, b[:at]...)
		b = b[at+1:]
		if len(b) == 0 || b[0] != '"' {
			return b
		}
		*into = append(*into, '"')
		b = b[1:]
	}
}
