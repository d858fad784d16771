// SPDX-License-Identifier: AGPL-3.0-only

package segfile

// A token is a maximal run of letters, digits and bytes beyond ASCII. Which parts of a text are indexed, and how, must be decided by what stands
// in that part alone and next to it, so that a needle which holds the part comes to the same decision. The parts, called units, are always substrings:
//
//   - word: a token without digits. Words go to the dictionary.
//   - single: a token with digits, if it is long enough to be rare.
//   - pair: a short token after a token with digits and a hyphen, with both: "Q7TR-9934".
//   - triple: the three middle groups of a UUID, for all of it.
//   - quad: four numbers joined by dots, the outer ones cut to the digit next to the dot, which a needle always has: an IPv4 address.
//   - part: each substring of partLength bytes of a long token, if a row group has few of them.
//
// Runs of letters in tokens that are no words go to the dictionary, too, if they are not short: a needle may be a piece of one.

// charset is a set of kinds of characters.
type charset uint8

const (
	digits charset = 1 << iota
	hexLetters
	lowerLetters // g-z
	upperLetters
	beyondASCII
	charsets = 1 << iota
)

// charsetOf is 0 for delimiters.
var charsetOf = func() (table [256]charset) {
	for c := range table {
		switch {
		case c >= '0' && c <= '9':
			table[c] = digits
		case c >= 'a' && c <= 'f':
			table[c] = hexLetters
		case c >= 'g' && c <= 'z':
			table[c] = lowerLetters
		case c >= 'A' && c <= 'Z':
			table[c] = upperLetters
		case c >= 0x80:
			table[c] = beyondASCII
		}
	}
	return table
}()

// isBound tells the delimiters that no unit crosses: all but those that units are joined by. How a text between two of them is indexed depends on it alone.
var isBound = func() (table [256]bool) {
	for c := range table {
		table[c] = charsetOf[c] == 0 && c != '-' && c != '.'
	}
	return table
}()

// token is a token of a text, by its place.
type token struct {
	start, end int32
	chars      charset
}

func (t token) len() int           { return int(t.end - t.start) }
func (t token) of(s string) string { return s[t.start:t.end] }
func (t token) hasDigit() bool     { return t.chars&digits != 0 }
func (t token) isHex() bool        { return t.chars&^(digits|hexLetters) == 0 }

// appendTokens appends the tokens of s.
func appendTokens(dst []token, s string) []token {
	for i := 0; i < len(s); {
		chars := charsetOf[s[i]]
		if chars == 0 {
			i++
			continue
		}
		start := i
		for i++; i < len(s); i++ {
			c := charsetOf[s[i]]
			if c == 0 {
				break
			}
			chars |= c
		}
		dst = append(dst, token{start: int32(start), end: int32(i), chars: chars})
	}
	return dst
}

// appendPart appends the tokens of s up to the first bound, and returns that.
func appendPart(dst []token, s string) (tokens []token, end int) {
	for i := 0; i < len(s); {
		chars := charsetOf[s[i]]
		if chars == 0 {
			if isBound[s[i]] {
				return dst, i
			}
			i++
			continue
		}
		start := i
		for i++; i < len(s); i++ {
			c := charsetOf[s[i]]
			if c == 0 {
				break
			}
			chars |= c
		}
		dst = append(dst, token{start: int32(start), end: int32(i), chars: chars})
	}
	return dst, len(s)
}

// joined reports whether only the byte c stands between two tokens.
func joined(s string, a, b token, c byte) bool { return b.start == a.end+1 && s[a.end] == c }

// unit is how a token is indexed.
type unit uint8

const (
	unitNone unit = iota
	unitWord
	unitSingle
	unitPair
)

const (
	// shortToken is the length below which a token after a hyphen is indexed together with what is before the hyphen.
	shortToken = 6
	// Shorter tokens are in every row group.
	minMixed  = 4
	minDigits = 5
	// maxWord is the length from which a word is treated as an id.
	maxWord = 40
)

// unitOf decides how tokens[i] of s is indexed.
func unitOf(s string, tokens []token, i int) unit {
	t := tokens[i]
	if t.len() < shortToken && i > 0 && tokens[i-1].hasDigit() && joined(s, tokens[i-1], t, '-') {
		return unitPair
	}
	switch {
	case !t.hasDigit() && t.len() <= maxWord:
		return unitWord
	case t.chars == digits && (t.len() < minDigits || t.start > 0 && s[t.start-1] == '.'):
		return unitNone
	case t.len() < minMixed || fraction(t.of(s)):
		return unitNone
	}
	return unitSingle
}

// fraction reports whether a token is like "123456Z", the end of a timestamp.
func fraction(s string) bool {
	last := len(s) - 1
	if s[last] != 'Z' {
		return false
	}
	for i := range last {
		if charsetOf[s[i]] != digits {
			return false
		}
	}
	return true
}

// uuidGroups are the lengths of a UUID's groups.
var uuidGroups = [5]int{8, 4, 4, 4, 12}

// isUUID reports whether five tokens are a UUID.
func isUUID(s string, tokens []token) bool {
	for i, n := range uuidGroups {
		t := tokens[i]
		if t.len() != n || !t.isHex() || i > 0 && !joined(s, tokens[i-1], t, '-') {
			return false
		}
	}
	return true
}

// uuidPart reports whether a token that s has all of may be a group of a UUID, as far as s shows what is next to it.
func uuidPart(s string, tokens []token, i int) bool {
	t := tokens[i]
	switch {
	case !t.isHex():
		return false
	case t.len() == 8:
		last := int(t.end) == len(s)-1
		return s[t.end] == '-' && (last || i+1 < len(tokens) && joined(s, t, tokens[i+1], '-') && tokens[i+1].isHex())
	case t.len() == 4 || t.len() == 12:
		return s[t.start-1] == '-' && (t.start == 1 || i > 0 && joined(s, tokens[i-1], t, '-') && tokens[i-1].isHex())
	}
	return false
}

// isQuad reports whether four tokens are numbers joined by dots; the first may have more before its digits, the last more behind them.
func isQuad(s string, t []token) bool {
	return t[1].chars == digits && t[2].chars == digits &&
		joined(s, t[0], t[1], '.') && joined(s, t[1], t[2], '.') && joined(s, t[2], t[3], '.') &&
		charsetOf[s[t[0].end-1]] == digits && charsetOf[s[t[3].start]] == digits
}

// quadOf returns the unit of a quad.
func quadOf(s string, t []token) string { return s[t[0].end-1 : t[3].start+1] }

const (
	// longToken is the length from which a token's parts are indexed.
	longToken  = 33
	partLength = 16
	// minRun is the length from which a run of letters in a token with digits is a word.
	minRun = 5
)

// runsOf calls letters with each run of letters of a token, and returns the longest runs of hexadecimal and of decimal digits.
func runsOf(s string, letters func(run string, chars charset)) (hex, decimal int) {
	h, d, start := 0, 0, 0
	chars := charset(0)
	for i := range len(s) {
		c := charsetOf[s[i]]
		switch c {
		case digits:
			if chars != 0 {
				letters(s[start:i], chars)
			}
			h, d, start, chars = h+1, d+1, i+1, 0
		case hexLetters:
			h, d, chars = h+1, 0, chars|c
		default:
			h, d, chars = 0, 0, chars|c
		}
		hex, decimal = max(hex, h), max(decimal, d)
	}
	if chars != 0 {
		letters(s[start:], chars)
	}
	return hex, decimal
}
