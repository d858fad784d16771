// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// node is a value inside an array or a map, or the whole of one.
type node struct {
	name     string // in a map
	kind     columns.ValueKind
	null     bool
	value    columns.Value
	children []node
}

// appendJSON writes canonical JSON, which is what OTLP's own library makes of arrays and maps: the keys of a map in order and once, of
// repeated ones the last; bytes in base64; no space. It differs in one point: NaN and the infinities, which JSON has not and that
// library makes nothing of, are written as strings.
func (n *node) appendJSON(b []byte) []byte {
	switch {
	case n.null:
		return append(b, "null"...)
	case n.kind == columns.KindArray:
		b = append(b, '[')
		for i := range n.children {
			if i > 0 {
				b = append(b, ',')
			}
			b = n.children[i].appendJSON(b)
		}
		return append(b, ']')
	case n.kind == columns.KindMap:
		return n.appendMap(b)
	}
	return appendScalar(b, n.value)
}

func (n *node) appendMap(b []byte) []byte {
	children := slices.Clone(n.children)
	slices.SortStableFunc(children, func(x, y node) int { return strings.Compare(x.name, y.name) })
	b = append(b, '{')
	first := true
	for i := range children {
		if i+1 < len(children) && children[i+1].name == children[i].name {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendQuoted(b, children[i].name), ':')
		b = children[i].appendJSON(b)
	}
	return append(b, '}')
}

func appendScalar(b []byte, v columns.Value) []byte {
	switch v.Kind {
	case columns.KindInt:
		return strconv.AppendInt(b, int64(v.Num), 10)
	case columns.KindBool:
		return strconv.AppendBool(b, v.Num != 0)
	case columns.KindDouble:
		f := math.Float64frombits(v.Num)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(columns.AppendDouble(append(b, '"'), f), '"')
		}
		return columns.AppendDouble(b, f)
	case columns.KindBytes:
		if v.Str == "" {
			return append(b, "null"...) // as that library has it
		}
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, []byte(v.Str))
		return append(b, '"')
	}
	return appendQuoted(b, v.Str)
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes a JSON string as encoding/json does without its escapes for HTML.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = appendEscape(append(b, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(append(b, s[start:]...), '"')
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\f':
		return append(b, `\f`...)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
