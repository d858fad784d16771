// SPDX-License-Identifier: AGPL-3.0-only

package mapping

import (
	"errors"
	"strings"
	"unicode"
	"unsafe"

	"github.com/buger/jsonparser"
)

// levelFields returns the names that Loki's distributor looks for a level under, in its order.
func levelFields() []string {
	return []string{
		"level", "LEVEL", "Level", "log.level", "severity", "SEVERITY", "Severity", "SeverityText", "lvl", "LVL", "Lvl",
		"severity_text", "Severity_Text", "SEVERITY_TEXT",
	}
}

const (
	levelUnknown = "unknown"
	// jsonLevelDepth is how many levels of a JSON body are searched.
	jsonLevelDepth = 2
)

// normalizeLevel gives the known spellings of a level their one name; others stay as they are.
func normalizeLevel(s string) string {
	if known := knownLevel(s); known != "" {
		return known
	}
	return s
}

func knownLevel(s string) string {
	switch {
	case equal(s, "trace"), equal(s, "trc"):
		return "trace"
	case equal(s, "debug"), equal(s, "dbg"):
		return "debug"
	case equal(s, "info"), equal(s, "inf"), equal(s, "information"):
		return "info"
	case equal(s, "warn"), equal(s, "wrn"), equal(s, "warning"):
		return "warn"
	case equal(s, "error"), equal(s, "err"):
		return "error"
	case equal(s, "critical"):
		return "critical"
	case equal(s, "fatal"):
		return "fatal"
	}
	return ""
}

func equal(s, word string) bool { return len(s) == len(word) && strings.EqualFold(s, word) }

// levelOfNumber is the level of an OTLP severity number; there are four of each.
func levelOfNumber(n int) string {
	switch {
	case n == 0, n > 24:
		return levelUnknown
	case n <= 4:
		return "trace"
	case n <= 8:
		return "debug"
	case n <= 12:
		return "info"
	case n <= 16:
		return "warn"
	case n <= 20:
		return "error"
	}
	return "fatal"
}

// levelOfLine is the level that a line speaks of: in a field if it is JSON or logfmt, else, or if that says nothing, its first word
// that is a level.
func (m *Mapper) levelOfLine(line string) string {
	field := ""
	switch {
	case isJSON(line):
		field = m.levelInJSON(line)
	case strings.IndexByte(line, '=') >= 0:
		field = m.levelInLogfmt(line)
	}
	if known := knownLevel(field); known != "" {
		return known
	}
	return levelWord(line)
}

func isJSON(line string) bool {
	trimmed := strings.TrimLeftFunc(line, unicode.IsSpace)
	if trimmed == "" || trimmed[0] != '{' {
		return false
	}
	for i := len(line) - 1; i >= 0; i-- {
		if !unicode.IsSpace(rune(line[i])) {
			return line[i] == '}'
		}
	}
	return false
}

var errFound = errors.New("found")

// levelInJSON is the first string under a level's name, in the order of the text.
func (m *Mapper) levelInJSON(line string) string {
	found := ""
	var search func(object []byte, depth int) error
	search = func(object []byte, depth int) error {
		if depth == jsonLevelDepth {
			return nil
		}
		return jsonparser.ObjectEach(object, func(key, value []byte, kind jsonparser.ValueType, _ int) error {
			switch kind {
			case jsonparser.String:
				if _, ok := m.fieldRank[string(key)]; ok {
					found = unsafe.String(unsafe.SliceData(value), len(value))
					return errFound
				}
			case jsonparser.Object:
				return search(value, depth+1)
			}
			return nil
		})
	}
	_ = search(unsafe.Slice(unsafe.StringData(line), len(line)), 0) // broken JSON says nothing of a level
	return found
}

// levelInLogfmt is the value of the name that comes first in the list of names.
func (m *Mapper) levelInLogfmt(line string) string {
	m.logfmt.Reset(unsafe.Slice(unsafe.StringData(line), len(line)))
	best, value := len(m.fields), ""
	for !m.logfmt.EOL() && m.logfmt.ScanKeyval() {
		key := m.logfmt.Key()
		for rank := 0; rank < best; rank++ {
			if strings.EqualFold(unsafe.String(unsafe.SliceData(key), len(key)), m.fields[rank]) {
				best, value = rank, string(m.logfmt.Value())
				break
			}
		}
		if best == 0 {
			break
		}
	}
	return value
}

// levelWord is the level that the first word of the line that is a level's stands for.
func levelWord(line string) string {
	boundary := true
	for i := 0; i < len(line); i++ {
		if boundary {
			if level := levelAt(line[i:]); level != "" {
				return level
			}
		}
		boundary = leftBoundary(line[i])
	}
	return levelUnknown
}

func levelAt(s string) string {
	switch s[0] | 0x20 {
	case 't':
		return wordAt(s, "trace", "trace")
	case 'd':
		return wordAt(s, "debug", "debug")
	case 'f':
		return wordAt(s, "fatal", "fatal")
	case 'c':
		return wordAt(s, "critical", "critical")
	case 'i':
		return wordAt(s, "info", "info")
	case 'e':
		if level := wordAt(s, "error", "error"); level != "" {
			return level
		}
		return wordAt(s, "err", "error")
	case 'w':
		if level := wordAt(s, "warning", "warn"); level != "" {
			return level
		}
		return wordAt(s, "warn", "warn")
	}
	return ""
}

func wordAt(s, word, level string) string {
	if len(s) < len(word) || !strings.EqualFold(s[:len(word)], word) || len(s) > len(word) && !rightBoundary(s[len(word)]) {
		return ""
	}
	return level
}

func leftBoundary(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '[', '(', '{', '"', '=':
		return true
	}
	return false
}

func rightBoundary(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '[', ']', '(', ')', '{', '}', ':', ',', '!', '"', '=':
		return true
	}
	return false
}
