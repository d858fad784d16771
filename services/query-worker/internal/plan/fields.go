// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/grafana/loki/v3/pkg/logql/log/jsonexpr"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
)

// Fields are names of fields at the top of lines of JSON.
type Fields []string

// maxFields is how many fields are looked for at once.
const maxFields = 8

// FieldsOf returns the fields that are all of the line that stages look at. False if they look at more of it.
func FieldsOf(stages syntax.MultiStageExpr) (Fields, bool) {
	if len(stages) == 0 || !LineFree(stages[1:]) {
		return nil, false
	}
	parser, ok := stages[0].(*syntax.JSONExpressionParserExpr)
	if !ok || len(parser.Expressions) > maxFields {
		return nil, false
	}
	var fields Fields
	for _, e := range parser.Expressions {
		path, err := jsonexpr.Parse(e.Expression, false)
		if err != nil || len(path) != 1 {
			return nil, false
		}
		name, ok := path[0].(string)
		if !ok || slices.Contains(fields, name) {
			return nil, false
		}
		fields = append(fields, name)
	}
	return fields, len(fields) > 0
}

// Append appends what a line has of the fields, as it stands there, so that lines of which it appends the same fare equally in Loki's parser. False for
// a line that is not plainly a JSON object up to where all of the fields were found: Loki's parser has its own view of these.
func (f Fields) Append(dst []byte, line string) ([]byte, bool) {
	var found [maxFields]string
	if !f.find(line, found[:len(f)]) {
		return dst, false
	}
	for _, value := range found[:len(f)] {
		dst = append(binary.AppendUvarint(dst, uint64(len(value))), value...)
	}
	return dst, true
}

// find sets the values; a field that is not there has none, and of several of one name the first counts.
func (f Fields) find(line string, found []string) bool {
	if line == "" || line[0] != '{' {
		return false
	}
	i := skipSpace(line, 1)
	if i < len(line) && line[i] == '}' {
		return skipSpace(line, i+1) == len(line)
	}
	for left := len(f); ; {
		end := stringEnd(line, i)
		if end < 0 {
			return false
		}
		key := line[i+1 : end-1]
		if i = skipSpace(line, end); i >= len(line) || line[i] != ':' || strings.IndexByte(key, '\\') >= 0 {
			return false
		}
		i = skipSpace(line, i+1)
		if end = valueEnd(line, i); end < 0 {
			return false
		}
		if at := slices.Index(f, key); at >= 0 && found[at] == "" {
			if found[at] = line[i:end]; line[i] == '{' || line[i] == '[' {
				return false
			}
			if left--; left == 0 {
				return true
			}
		}
		if i = skipSpace(line, end); i >= len(line) {
			return false
		}
		if line[i] == '}' {
			return skipSpace(line, i+1) == len(line)
		}
		if line[i] != ',' {
			return false
		}
		i = skipSpace(line, i+1)
	}
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\n' || s[i] == '\r' || s[i] == '\t') {
		i++
	}
	return i
}

// stringEnd is where a string ends that begins at i; -1 if none does.
func stringEnd(s string, i int) int {
	if i >= len(s) || s[i] != '"' {
		return -1
	}
	for at := i + 1; ; {
		n := strings.IndexByte(s[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		escapes := at
		for escapes > i+1 && s[escapes-1] == '\\' {
			escapes--
		}
		at++
		if (at-1-escapes)%2 == 0 {
			return at
		}
	}
}

// valueEnd is where a value ends that begins at i; -1 if it is odd.
func valueEnd(s string, i int) int {
	if i >= len(s) {
		return -1
	}
	switch s[i] {
	case '"':
		return stringEnd(s, i)
	case '{', '[':
		return nestedEnd(s, i)
	}
	end := i
	for end < len(s) && plainByte(s[end]) {
		end++
	}
	if end == i || end == len(s) || strings.IndexByte(" \n\r\t,}", s[end]) < 0 {
		return -1
	}
	return end
}

func plainByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '+' || c == '.'
}

// maxDepth is how deep values may be nested; what is deeper is odd.
const maxDepth = 32

// nestedEnd is where an object or array ends.
func nestedEnd(s string, i int) int {
	var open [maxDepth]byte
	depth := 0
	for i < len(s) {
		switch c := s[i]; c {
		case '"':
			if i = stringEnd(s, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			if depth == maxDepth {
				return -1
			}
			open[depth] = c + 2 // what closes it
			depth++
		case '}', ']':
			if depth--; open[depth] != c {
				return -1
			}
			if depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}
