// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// jsonStatus is what a piece of text is as JSON.
type jsonStatus uint8

const (
	jsonMore    jsonStatus = iota // as far as seen; there must be more
	jsonWhole                     // a whole value
	jsonBad                       // not JSON
	jsonCut                       // the content ends inside it
	jsonTooLong                   // longer than the limit
)

// validator finds the end of a JSON value, piece by piece. It is strict, so that broken text is seen where it breaks and does not swallow
// what follows; except that strings may hold control characters other than a line feed, which producers do write.
type validator struct {
	state   validatorState
	stack   [maxNesting + 2]byte // what is open: '{' or '['
	depth   int
	literal string // what must follow of true, false or null
	hex     int    // digits to come of \u
}

type validatorState uint8

const (
	beforeValue validatorState = iota
	beforeFirstElement
	beforeFirstKey
	beforeKey
	afterKey
	afterValue
	inKey
	inString
	inKeyEscape
	inStringEscape
	inLiteral
	afterMinus
	afterZero
	inInteger
	afterPoint
	inFraction
	afterE
	afterESign
	inExponent
	atEnd
	broken
)

// scan goes on with b. It returns how much of it belongs to the value.
func (v *validator) scan(b []byte) (int, jsonStatus) {
	for i := 0; i < len(b); {
		if v.state == inString || v.state == inKey {
			i += plainLength(b[i:])
			if i == len(b) {
				break
			}
		}
		used := v.step(b[i])
		switch v.state {
		case broken:
			return i, jsonBad
		case atEnd:
			return i + used, jsonWhole
		}
		i += used
	}
	return len(b), jsonMore
}

// complete reports whether what was seen is whole if nothing follows, which only a number at the top can be.
func (v *validator) complete() bool {
	return v.depth == 0 && (v.state == afterZero || v.state == inInteger || v.state == inFraction || v.state == inExponent)
}

// plainLength is how many bytes of a string's inside need no attention.
func plainLength(b []byte) int {
	for i, c := range b {
		if c == '"' || c == '\\' || c == '\n' {
			return i
		}
	}
	return len(b)
}

// step takes one byte; it uses none when the byte only ends a number.
func (v *validator) step(c byte) int {
	switch v.state {
	case inKey, inString:
		v.inQuotes(c)
	case inKeyEscape, inStringEscape:
		v.escape(c)
	case inLiteral:
		v.inLiteral(c)
	case afterMinus, afterZero, inInteger, afterPoint, inFraction, afterE, afterESign, inExponent:
		return v.number(c)
	default:
		if !space(c) {
			v.token(c)
		}
	}
	return 1
}

func (v *validator) token(c byte) {
	switch v.state {
	case beforeFirstElement:
		if c == ']' {
			v.close(c)
			return
		}
		v.value(c)
	case beforeValue:
		v.value(c)
	case beforeFirstKey, beforeKey:
		switch {
		case c == '"':
			v.state = inKey
		case c == '}' && v.state == beforeFirstKey:
			v.close(c)
		default:
			v.state = broken
		}
	case afterKey:
		v.state = beforeValue
		if c != ':' {
			v.state = broken
		}
	case afterValue:
		v.separator(c)
	default:
		v.state = broken
	}
}

func (v *validator) separator(c byte) {
	open := v.stack[v.depth-1]
	switch {
	case c == ',' && open == '{':
		v.state = beforeKey
	case c == ',':
		v.state = beforeValue
	case c == '}' || c == ']':
		v.close(c)
	default:
		v.state = broken
	}
}

func (v *validator) close(c byte) {
	v.depth--
	if open := v.stack[v.depth]; open == '{' && c != '}' || open == '[' && c != ']' {
		v.state = broken
		return
	}
	v.endValue()
}

func (v *validator) endValue() {
	v.state = afterValue
	if v.depth == 0 {
		v.state = atEnd
	}
}

func (v *validator) value(c byte) {
	switch {
	case c == '{' || c == '[':
		v.open(c)
	case c == '"':
		v.state = inString
	case c == '-':
		v.state = afterMinus
	case c == '0':
		v.state = afterZero
	case c >= '1' && c <= '9':
		v.state = inInteger
	case c == 't':
		v.state, v.literal = inLiteral, "rue"
	case c == 'f':
		v.state, v.literal = inLiteral, "alse"
	case c == 'n':
		v.state, v.literal = inLiteral, "ull"
	default:
		v.state = broken
	}
}

func (v *validator) open(c byte) {
	if v.depth == len(v.stack) {
		v.state = broken
		return
	}
	v.stack[v.depth] = c
	v.depth++
	v.state = beforeFirstElement
	if c == '{' {
		v.state = beforeFirstKey
	}
}

func (v *validator) inQuotes(c byte) {
	switch {
	case c == '\n':
		v.state = broken
	case c == '\\' && v.state == inKey:
		v.state = inKeyEscape
	case c == '\\':
		v.state = inStringEscape
	case c == '"' && v.state == inKey:
		v.state = afterKey
	case c == '"':
		v.endValue()
	}
}

func (v *validator) escape(c byte) {
	back := inString
	if v.state == inKeyEscape {
		back = inKey
	}
	switch {
	case v.hex > 0 && isHex(c):
		v.hex--
		if v.hex == 0 {
			v.state = back
		}
	case v.hex > 0:
		v.state = broken
	case c == 'u':
		v.hex = 4
	case bytes.IndexByte([]byte(`"\/bfnrt`), c) >= 0:
		v.state = back
	default:
		v.state = broken
	}
}

func (v *validator) inLiteral(c byte) {
	if c != v.literal[0] {
		v.state = broken
		return
	}
	v.literal = v.literal[1:]
	if v.literal == "" {
		v.endValue()
	}
}

func (v *validator) number(c byte) int {
	digit := c >= '0' && c <= '9'
	switch {
	case digit && v.state == afterMinus && c == '0':
		v.state = afterZero
	case digit && (v.state == afterMinus || v.state == inInteger):
		v.state = inInteger
	case digit && (v.state == afterPoint || v.state == inFraction):
		v.state = inFraction
	case digit && v.state != afterZero:
		v.state = inExponent
	case c == '.' && (v.state == afterZero || v.state == inInteger):
		v.state = afterPoint
	case (c == 'e' || c == 'E') && (v.state == afterZero || v.state == inInteger || v.state == inFraction):
		v.state = afterE
	case (c == '+' || c == '-') && v.state == afterE:
		v.state = afterESign
	case v.state == afterZero || v.state == inInteger || v.state == inFraction || v.state == inExponent:
		v.endValue()
		return 0
	default:
		v.state = broken
	}
	return 1
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// cursor walks JSON in memory. The text is valid, or the beginning of valid text: at the end of the latter it stops, and is cut.
type cursor struct {
	b   []byte
	i   int
	cut bool
	// unescaped holds strings that had escapes.
	unescaped []byte
}

// kind is the first byte of the next value or closing bracket; 0 at the end.
func (c *cursor) kind() byte {
	for c.i < len(c.b) && (space(c.b[c.i]) || c.b[c.i] == ',' || c.b[c.i] == ':') {
		c.i++
	}
	if c.i == len(c.b) {
		c.cut = true
		return 0
	}
	return c.b[c.i]
}

// open enters an array or object; false, with the value passed over, if the next value is something else.
func (c *cursor) open(bracket byte) bool {
	if c.kind() != bracket {
		c.skip()
		return false
	}
	c.i++
	return true
}

// next reports whether another element or key stands before the end of the array or object that was opened.
func (c *cursor) next() bool {
	switch c.kind() {
	case 0:
		return false
	case '}', ']':
		c.i++
		return false
	}
	return true
}

// skip passes over a value.
func (c *cursor) skip() {
	depth := 0
	for {
		switch k := c.kind(); k {
		case 0:
			return
		case '{', '[':
			depth++
			c.i++
		case '}', ']':
			depth--
			c.i++
		case '"':
			c.skipString()
		default:
			c.skipPlain()
		}
		if depth <= 0 {
			return
		}
	}
}

func (c *cursor) skipString() {
	c.i++
	for c.i < len(c.b) {
		c.i += plainLength(c.b[c.i:])
		switch {
		case c.i >= len(c.b):
		case c.b[c.i] == '\\':
			c.i += 2
			continue
		case c.b[c.i] == '"':
			c.i++
			return
		default:
			c.i++
			continue
		}
	}
	c.i, c.cut = len(c.b), true
}

// skipPlain passes over a number or literal. One that reaches the end of the text may go on after it.
func (c *cursor) skipPlain() {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return
		}
		c.i++
	}
	c.cut = true
}

// raw returns a value as it is written; false if the text ends inside it.
func (c *cursor) raw() ([]byte, bool) {
	c.kind()
	from := c.i
	c.skip()
	return c.b[from:c.i], !c.cut
}

// str returns a string, or the text of a value that is none.
func (c *cursor) str() string {
	quoted := c.kind() == '"'
	raw, ok := c.raw()
	if !ok {
		return ""
	}
	if !quoted {
		return text(raw)
	}
	return c.unquote(raw[1 : len(raw)-1])
}

func (c *cursor) unquote(raw []byte) string {
	at := bytes.IndexByte(raw, '\\')
	if at < 0 {
		return text(raw)
	}
	from := len(c.unescaped)
	for at >= 0 {
		c.unescaped = append(c.unescaped, raw[:at]...)
		raw = c.unescape(raw[at+1:])
		at = bytes.IndexByte(raw, '\\')
	}
	c.unescaped = append(c.unescaped, raw...)
	return text(c.unescaped[from:])
}

// unescape writes what an escape means; b is what follows its backslash.
func (c *cursor) unescape(b []byte) []byte {
	switch b[0] {
	case 'b':
		c.unescaped = append(c.unescaped, '\b')
	case 'f':
		c.unescaped = append(c.unescaped, '\f')
	case 'n':
		c.unescaped = append(c.unescaped, '\n')
	case 'r':
		c.unescaped = append(c.unescaped, '\r')
	case 't':
		c.unescaped = append(c.unescaped, '\t')
	case 'u':
		return c.unescapeUnicode(b[1:])
	default:
		c.unescaped = append(c.unescaped, b[0])
	}
	return b[1:]
}

func (c *cursor) unescapeUnicode(b []byte) []byte {
	r := hexRune(b[:4])
	b = b[4:]
	if utf16.IsSurrogate(r) {
		low := rune(utf8.RuneError)
		if len(b) >= 6 && b[0] == '\\' && b[1] == 'u' {
			low = hexRune(b[2:6])
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			r, b = pair, b[6:]
		} else {
			r = utf8.RuneError
		}
	}
	c.unescaped = utf8.AppendRune(c.unescaped, r)
	return b
}

func hexRune(b []byte) rune {
	n, _ := strconv.ParseUint(string(b), 16, 32)
	return rune(n)
}

// value returns any value: a string, number or bool as it is, an array or map as canonical JSON appended to *out. ok is false for null.
func (c *cursor) value(out *[]byte) (v columns.Value, ok bool) {
	switch k := c.kind(); k {
	case '{', '[':
		n := c.node()
		from := len(*out)
		*out = n.appendJSON(*out)
		return columns.Value{Kind: n.kind, Str: text((*out)[from:])}, true
	case '"':
		return columns.Value{Str: c.str()}, true
	}
	return plainValue(c.str())
}

// node returns any value as a tree. The validator has bounded its depth.
func (c *cursor) node() node {
	switch c.kind() {
	case '{':
		return c.mapNode()
	case '[':
		return c.arrayNode()
	case '"':
		return node{value: columns.Value{Str: c.str()}}
	}
	v, ok := plainValue(c.str())
	return node{kind: v.Kind, value: v, null: !ok}
}

func (c *cursor) mapNode() node {
	n := node{kind: columns.KindMap}
	c.open('{')
	for c.next() {
		name := c.str()
		child := c.node()
		child.name = name
		n.children = append(n.children, child)
	}
	return n
}

func (c *cursor) arrayNode() node {
	n := node{kind: columns.KindArray}
	c.open('[')
	for c.next() {
		n.children = append(n.children, c.node())
	}
	return n
}

// plainValue is the value of a number or literal; false for null. An integer beyond 64 bits stays text, so that no digit is lost.
func plainValue(s string) (columns.Value, bool) {
	switch s {
	case "null", "":
		return columns.Value{}, false
	case "true":
		return columns.Value{Kind: columns.KindBool, Num: 1}, true
	case "false":
		return columns.Value{Kind: columns.KindBool}, true
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return columns.Value{Kind: columns.KindInt, Num: uint64(n)}, true
	}
	if !bytes.ContainsAny([]byte(s), ".eE") {
		return columns.Value{Str: s}, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return columns.Value{Str: s}, true
	}
	return columns.Value{Kind: columns.KindDouble, Num: math.Float64bits(f)}, true
}
