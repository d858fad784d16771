// SPDX-License-Identifier: AGPL-3.0-only

// Package template finds a log line's message template: the line with what varies masked. Lines of one statement in a program share a
// template, and so a fingerprint, by which segments are sorted: like lines stand together and compress together.
//
// It looks at one line at a time and remembers nothing, so that any number of distinct templates costs no memory and a line's
// fingerprint is the same everywhere and always. That is why it cannot know that a plain word is a name. ADR 0005 has the choice and
// the accuracy. Golden vectors freeze the result: a change of it is a change of the sort order of new segments, no more.
//
// What is masked: words with a digit in them (numbers, ids, addresses, sizes with their units), absolute paths, long words of
// hexadecimal letters, the values of key=value and of JSON's keys, except the values of keys that hold the message itself. Masks that only spaces and commas
// separate are one.
package template

import (
	"strings"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Mask stands for what varies.
const Mask = "<*>"

// maxLine is how much of a line counts.
const maxLine = 2048

// maxKey is the longest key whose value may be a message.
const maxKey = 8

// class is what a byte is for.
type class uint8

const (
	other  class = iota // stands for itself
	letter              // of a word
	digit               // of a word, which it makes variable
	blank
)

// Templater makes templates. It is for one goroutine.
type Templater struct {
	classes  [256]class
	template []byte
	// maskEnd is where the last mask ends in the template if only blanks and commas follow it, else -1.
	maskEnd int
	// word is where the last literal word begins and ends in the template.
	wordFrom, wordTo int
}

// New returns a Templater.
func New() *Templater {
	t := &Templater{}
	for c := range t.classes {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= 0x80, strings.IndexByte("_-./@$%+*~\\#&?", byte(c)) >= 0:
			t.classes[c] = letter
		case c >= '0' && c <= '9':
			t.classes[c] = digit
		case c <= ' ':
			t.classes[c] = blank
		}
	}
	return t
}

// Fingerprint is the hash of the line's template.
func (t *Templater) Fingerprint(line string) lake.Fingerprint {
	return lake.FingerprintOf(t.Template(line))
}

// Template returns the line's template. It is valid until the next call.
func (t *Templater) Template(line string) []byte {
	line = line[:min(len(line), maxLine)]
	t.template, t.maskEnd, t.wordFrom, t.wordTo = t.template[:0], -1, 0, 0
	for i := 0; i < len(line); {
		switch t.classes[line[i]] {
		case blank:
			i = t.blanks(line, i)
		case letter, digit:
			i = t.words(line, i)
		default:
			i = t.mark(line, i)
		}
	}
	return t.template
}

// blanks writes a run of blanks as one space.
func (t *Templater) blanks(line string, i int) int {
	t.template = append(t.template, ' ')
	for i < len(line) && t.classes[line[i]] == blank {
		i++
	}
	return i
}

// words writes a word, or a mask for one that varies.
func (t *Templater) words(line string, i int) int {
	end, varies := t.wordEnd(line, i)
	word := line[i:end]
	switch {
	case path(word):
		t.mask()
		return t.pathEnd(line, end)
	case varies, hexWord(word), t.dateWord(line, word, end):
		t.mask()
		return end
	}
	if t.maskEnd >= 0 && t.maskEnd == len(t.template)-1 && sizeUnit(word) {
		t.template = t.template[:t.maskEnd]
		return end
	}
	t.wordFrom = len(t.template)
	t.template = append(t.template, word...)
	t.wordTo = len(t.template)
	t.maskEnd = -1
	return end
}

// wordEnd finds a word's end and whether it has a digit. A colon between digits is part of a word: times, and addresses with ports.
func (t *Templater) wordEnd(line string, i int) (end int, varies bool) {
	for ; i < len(line); i++ {
		switch t.classes[line[i]] {
		case letter:
		case digit:
			varies = true
		default:
			if line[i] != ':' || !varies || i+1 == len(line) || t.classes[line[i+1]] != digit {
				return i, varies
			}
		}
	}
	return i, varies
}

// path reports whether a word is an absolute path, or what follows the scheme of a URL.
func path(word string) bool { return len(word) > 1 && word[0] == '/' }

// pathEnd finds the end of a path or URL with its query.
func (t *Templater) pathEnd(line string, i int) int {
	for i < len(line) {
		switch c := line[i]; {
		case t.classes[c] == blank, c == '"', c == '\'', c == ')', c == ']', c == '}', c == '>':
			return i
		case (c == ',' || c == ';' || c == ':') && (i+1 == len(line) || t.classes[line[i+1]] == blank):
			return i
		}
		i++
	}
	return i
}

// sizeUnit reports whether a word is a unit that a program chooses by the size of the number before it.
func sizeUnit(word string) bool {
	switch word {
	case "B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB":
		return true
	}
	return false
}

// hexWord reports whether a word is likely a number in hexadecimal that happens to have no digit.
func hexWord(word string) bool {
	if len(word) < 8 {
		return false
	}
	for i := 0; i < len(word); i++ {
		if c := word[i] | 0x20; c < 'a' || c > 'f' {
			return false
		}
	}
	return true
}

// dateWord reports whether a word is the name of a month or day before a number.
func (t *Templater) dateWord(line, word string, end int) bool {
	if len(word) != 3 || end+1 >= len(line) || line[end] != ' ' || t.classes[line[end+1]] != digit && line[end+1] != ' ' {
		return false
	}
	switch word {
	case "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
		"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
		return true
	}
	return false
}

// mark writes a byte that is no word's, and masks the value that it may begin.
func (t *Templater) mark(line string, i int) int {
	c := line[i]
	t.template = append(t.template, c)
	if c != ',' {
		t.maskEnd = -1
	}
	i++
	switch {
	case c == '=' && t.wordTo == len(t.template)-1:
		return t.value(line, i, t.template[t.wordFrom:t.wordTo])
	case c == ':' && t.wordTo == len(t.template)-2 && t.wordTo > 0 && t.template[t.wordTo] == '"':
		for i < len(line) && line[i] == ' ' {
			i++
		}
		return t.value(line, i, t.template[t.wordFrom:t.wordTo])
	}
	return i
}

// value masks the value of a key, unless the key holds the message, or the value is an object or array, whose own parts are looked at.
func (t *Templater) value(line string, i int, key []byte) int {
	if i == len(line) || messageKey(key) {
		return i
	}
	switch c := line[i]; {
	case c == '"' || c == '\'':
		t.mask()
		return quotedEnd(line, i)
	case t.classes[c] == letter || t.classes[c] == digit:
		t.mask()
		return t.plainEnd(line, i)
	}
	return i
}

// messageKey reports whether the values of a key are messages or few.
func messageKey(key []byte) bool {
	if len(key) > maxKey {
		return false
	}
	switch string(key) {
	case "msg", "message", "log", "event", "error", "err", "body", "level", "severity", "lvl", "logger":
		return true
	}
	return false
}

// quotedEnd finds the end of a quoted value, quotes doubled by a backslash passed over. Without a closing quote it is the line's.
func quotedEnd(line string, i int) int {
	quote := line[i]
	for i++; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case quote:
			return i + 1
		}
	}
	return len(line)
}

func (t *Templater) plainEnd(line string, i int) int {
	for i < len(line) {
		switch c := line[i]; {
		case t.classes[c] == blank, c == ',', c == ';', c == ')', c == ']', c == '}', c == '"', c == '&', c == '|':
			return i
		}
		i++
	}
	return i
}

func (t *Templater) mask() {
	if t.maskEnd >= 0 {
		t.template = t.template[:t.maskEnd]
		return
	}
	t.template = append(t.template, Mask...)
	t.maskEnd = len(t.template)
}
