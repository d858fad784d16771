// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// parseTime reads a time as producers write it in a field of its own: RFC 3339 and its relatives, or a number of seconds, ms, µs or ns
// since 1970, told apart by their size. A time without a zone is UTC.
func parseTime(s string) (ns int64, ok bool) {
	if ns, ok := parseEpoch(s); ok {
		return ns, true
	}
	if ns, n := leadingTime(s); n > 0 && strings.TrimSpace(s[n:]) == "" {
		return ns, true
	}
	for _, layout := range []string{
		time.RFC1123, time.RFC1123Z, time.RFC850, time.ANSIC, time.UnixDate, time.RubyDate, "02/Jan/2006:15:04:05 -0700", time.DateOnly,
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return nanos(t), true
		}
	}
	return 0, false
}

// nanos is a time in ns since 1970, clamped to what an int64 holds.
func nanos(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1678:
		return math.MinInt64
	case year > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// parseEpoch reads a decimal number without going through a float, which would lose digits of it.
func parseEpoch(s string) (int64, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(whole) < 9 || len(whole) > 19 {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 || !digits(fraction) {
		return 0, false
	}
	scale := int64(time.Second)
	for bound := int64(1e11); scale > 1 && n >= bound; bound *= 1000 {
		scale /= 1000
	}
	if n > math.MaxInt64/scale {
		return math.MaxInt64, true
	}
	return n*scale + fractionOf(fraction, scale), true
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// fractionOf is 0.{s} of unit.
func fractionOf(s string, unit int64) int64 {
	var ns int64
	for i := 0; i < len(s) && unit > 1; i++ {
		unit /= 10
		ns += int64(s[i]-'0') * unit
	}
	return ns
}

// leadingTime reads the time that a line begins with and returns how long its text is; 0 when the line begins with none. It knows
// 2006-01-02T15:04:05 with '-' or '/' between the date's parts, 'T' or a space before the hour, an optional fraction after '.' or ','
// and an optional zone (Z, ±hh:mm, ±hhmm); the same in brackets.
func leadingTime(line string) (ns int64, n int) {
	if strings.HasPrefix(line, "[") {
		ns, n := leadingTime(line[1:min(len(line), 64)])
		if n > 0 && strings.HasPrefix(line[1+n:], "]") {
			return ns, n + 2
		}
		return 0, 0
	}
	date, ok := dateAndClock(line)
	if !ok {
		return 0, 0
	}
	n = len("2006-01-02T15:04:05")
	ns = nanos(date)
	rest := line[n:]
	if len(rest) > 1 && (rest[0] == '.' || rest[0] == ',') {
		d := 1
		for d < len(rest) && rest[d] >= '0' && rest[d] <= '9' {
			d++
		}
		if d > 1 && ns != math.MaxInt64 && ns != math.MinInt64 {
			ns += fractionOf(rest[1:d], int64(time.Second))
			n, rest = n+d, rest[d:]
		}
	}
	offset, length := zone(rest)
	if ns != math.MaxInt64 && ns != math.MinInt64 {
		ns -= offset
	}
	return ns, n + length
}

func dateAndClock(s string) (time.Time, bool) {
	if len(s) < 19 || s[4] != '-' && s[4] != '/' || s[7] != s[4] || s[10] != 'T' && s[10] != ' ' && s[10] != 't' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	year, ok1 := number(s[0:4])
	month, ok2 := number(s[5:7])
	day, ok3 := number(s[8:10])
	hour, ok4 := number(s[11:13])
	minute, ok5 := number(s[14:16])
	second, ok6 := number(s[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || hour > 23 || minute > 59 || second > 60 {
		return time.Time{}, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	return t, month >= 1 && month <= 12 && day >= 1 && (second == 60 || t.Day() == day)
}

func number(s string) (int, bool) {
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// zone reads a zone's offset in ns, and how long its text is.
func zone(s string) (offset int64, n int) {
	if s == "" {
		return 0, 0
	}
	if s[0] == 'Z' || s[0] == 'z' {
		return 0, 1
	}
	sign := int64(1)
	switch s[0] {
	case '-':
		sign = -1
	case '+':
	default:
		return 0, 0
	}
	for _, length := range []int{6, 5} {
		if len(s) < length || length == 6 && s[3] != ':' {
			continue
		}
		hours, ok1 := number(s[1:3])
		minutes, ok2 := number(s[length-2 : length])
		if ok1 && ok2 && hours < 24 && minutes < 60 {
			return sign * (int64(hours)*int64(time.Hour) + int64(minutes)*int64(time.Minute)), length
		}
	}
	return 0, 0
}
