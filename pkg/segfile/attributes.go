// SPDX-License-Identifier: AGPL-3.0-only

package segfile

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// The column `attributes` holds those of a row that have no column, as one JSON object: {"name":{"k":value},...}, where k is the kind's
// letter; a name with values of two kinds has both: {"name":{"s":"1","i":1}}. Strings, arrays and maps (as JSON text) and bytes (base64)
// are JSON strings; integers and finite doubles are numbers, other doubles the strings "Infinity", "-Infinity" and "NaN", with ":" and its bits in
// hexadecimal if it is not the usual NaN.

// appendTagged appends `"k":value`.
func appendTagged(dst []byte, v columns.Value) []byte {
	dst = append(dst, '"', kindLetters[v.Kind], '"', ':')
	switch v.Kind {
	case columns.KindInt:
		dst = strconv.AppendInt(dst, int64(v.Num), 10)
	case columns.KindDouble:
		dst = appendDouble(dst, v.Num)
	case columns.KindBool:
		dst = strconv.AppendBool(dst, v.Num != 0)
	case columns.KindBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, []byte(v.Str))
		dst = append(dst, '"')
	default:
		dst = appendJSONString(dst, v.Str)
	}
	return dst
}

// usualNaN is the bits of the NaN that ParseFloat makes.
const usualNaN = 0x7ff8000000000001

func appendDouble(dst []byte, bits uint64) []byte {
	f := math.Float64frombits(bits)
	switch {
	case bits == usualNaN:
		return append(dst, `"NaN"`...)
	case math.IsNaN(f):
		return fmt.Appendf(dst, `"NaN:%016x"`, bits)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		from = i + 1
	}
	return append(append(dst, s[from:]...), '"')
}

// DecodeAttributes appends the attributes in a value of the column `attributes`. Their strings are their own.
func DecodeAttributes(dst []columns.Attribute, text string) ([]columns.Attribute, error) {
	p := attributeParser{rest: text}
	if text == "" {
		return dst, nil
	}
	p.expect('{')
	for p.err == nil && !p.skip('}') {
		name := p.string()
		p.expect(':')
		p.expect('{')
		for p.err == nil && !p.skip('}') {
			dst = append(dst, columns.Attribute{Name: name, Value: p.tagged()})
			p.skip(',')
		}
		p.skip(',')
	}
	if p.err == nil && p.rest != "" {
		p.fail()
	}
	return dst, p.err
}

// attributeParser reads exactly what the writer writes.
type attributeParser struct {
	rest string
	err  error
}

func (p *attributeParser) fail() {
	if p.err == nil {
		p.err = fmt.Errorf("damaged attributes at %.20q", p.rest)
	}
	p.rest = ""
}

func (p *attributeParser) skip(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

func (p *attributeParser) expect(c byte) {
	if !p.skip(c) {
		p.fail()
	}
}

func (p *attributeParser) tagged() columns.Value {
	kind := kindOf(p.string())
	p.expect(':')
	v := columns.Value{Kind: kind}
	switch kind {
	case columns.KindInt:
		n, err := strconv.ParseInt(p.bare(), 10, 64)
		p.check(err)
		v.Num = uint64(n)
	case columns.KindDouble:
		v.Num = p.double()
	case columns.KindBool:
		b, err := strconv.ParseBool(p.bare())
		p.check(err)
		if b {
			v.Num = 1
		}
	case columns.KindBytes:
		raw, err := base64.StdEncoding.DecodeString(p.string())
		p.check(err)
		v.Str = string(raw)
	case columns.KindString, columns.KindArray, columns.KindMap:
		v.Str = p.string()
	default:
		p.fail()
	}
	return v
}

func kindOf(tag string) columns.ValueKind {
	for i := range len(kindLetters) {
		if tag == kindLetters[i:i+1] {
			return columns.ValueKind(i)
		}
	}
	return columns.ValueKind(len(kindLetters))
}

func (p *attributeParser) check(err error) {
	if err != nil {
		p.fail()
	}
}

func (p *attributeParser) double() uint64 {
	if p.rest != "" && p.rest[0] == '"' {
		return p.special(p.string())
	}
	f, err := strconv.ParseFloat(p.bare(), 64)
	p.check(err)
	return math.Float64bits(f)
}

// special reads a double that is not finite.
func (p *attributeParser) special(text string) uint64 {
	if hex, ok := strings.CutPrefix(text, "NaN:"); ok {
		bits, err := strconv.ParseUint(hex, 16, 64)
		p.check(err)
		return bits
	}
	f, err := strconv.ParseFloat(text, 64)
	p.check(err)
	return math.Float64bits(f)
}

// bare reads a number, true or false: all up to what ends the value.
func (p *attributeParser) bare() string {
	for i := range len(p.rest) {
		if p.rest[i] == '}' || p.rest[i] == ',' {
			word := p.rest[:i]
			p.rest = p.rest[i:]
			return word
		}
	}
	p.fail()
	return ""
}

func (p *attributeParser) string() string {
	if p.rest == "" || p.rest[0] != '"' {
		p.fail()
		return ""
	}
	escaped := false
	for i := 1; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			quoted := p.rest[:i+1]
			p.rest = p.rest[i+1:]
			return p.unquote(quoted, escaped)
		}
	}
	p.fail()
	return ""
}

func (p *attributeParser) unquote(quoted string, escaped bool) string {
	if !escaped {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	p.check(json.Unmarshal([]byte(quoted), &s))
	return s
}

// validText reports whether a string can stand in a column of text: one that is not UTF-8 makes the whole file unreadable.
func validText(s string) bool { return utf8.ValidString(s) }

// sortAttributes orders attributes by name and kind, as a segment has them.
func sortAttributes(attributes []columns.Attribute) {
	slices.SortFunc(attributes, func(a, b columns.Attribute) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value.Kind, b.Value.Kind))
	})
}
