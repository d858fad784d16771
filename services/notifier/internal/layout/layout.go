// SPDX-License-Identifier: AGPL-3.0-only

// Package layout knows how producers put time into keys: year=2026/month=11/day=22/hour=17, dt=20180515/hour=14, 2020/11/17/00 and
// their like. So a listing can begin where news may be, and a backfill can go from the newest day downwards, without reading all keys.
//
// The time in a key is never taken for the time of its rows, and only roughly for the time of its writing: collectors write it in
// their local zone, and deliveries are late.
package layout

import (
	"regexp"
	"strings"
	"time"
)

// behind sorts after every character that a key can go on with.
const behind = "\U0010FFFF"

// form is one way to write a time into a key.
type form struct {
	literal string // what the first part begins with
	expr    *regexp.Regexp
	day     string // how package time writes a day's folder
	hour    string // what follows for an hour's
	last    string // behind the last day of the form
}

// forms by name; no key's part is of two of them.
var forms = map[string]form{
	"hive":   {"year=", regexp.MustCompile(`^year=(\d{4})/month=(\d{2})/day=(\d{2})/(?:hour=(\d{2})/)?`), "year=2006/month=01/day=02/", "hour=15/", "year=" + behind},
	"dt":     {"dt=", regexp.MustCompile(`^dt=(\d{4})(\d{2})(\d{2})/(?:hour=(\d{2})/)?`), "dt=20060102/", "hour=15/", "dt=" + behind},
	"dt-":    {"dt=", regexp.MustCompile(`^dt=(\d{4})-(\d{2})-(\d{2})/(?:hour=(\d{2})/)?`), "dt=2006-01-02/", "hour=15/", "dt=" + behind},
	"date":   {"date=", regexp.MustCompile(`^date=(\d{4})-(\d{2})-(\d{2})/(?:hour=(\d{2})/)?`), "date=2006-01-02/", "hour=15/", "date=" + behind},
	"digits": {"", regexp.MustCompile(`^([12]\d{3})/(\d{2})/(\d{2})/(?:(\d{2})/)?`), "2006/01/02/", "15/", "2999/" + behind},
	"dashes": {"", regexp.MustCompile(`^([12]\d{3})-(\d{2})-(\d{2})/(?:(\d{2})/)?`), "2006-01-02/", "15/", "2999-" + behind},
}

// Family is all keys of one form below one base.
type Family struct {
	Base string `json:"base"` // "" or ends in a slash
	Form string `json:"form"`
}

// Partition is a key's place in its family.
type Partition struct {
	Family
	Start  time.Time // as if it were UTC
	Length time.Duration
}

// Of finds the first time in a key whose parts lie below prefix; a time that begins in the prefix itself is none, since the family
// would reach out of it.
func Of(key, prefix string) (Partition, bool) {
	for at := 0; at < len(key); {
		if at >= len(prefix) {
			if p, ok := timeAt(key, at); ok {
				return p, true
			}
		}
		slash := strings.IndexByte(key[at:], '/')
		if slash < 0 {
			break
		}
		at += slash + 1
	}
	return Partition{}, false
}

// timeAt reads a time at one place of a key.
func timeAt(key string, at int) (Partition, bool) {
	for name, f := range forms {
		m := f.expr.FindStringSubmatch(key[at:])
		if m == nil {
			continue
		}
		day, err := time.Parse("20060102", m[1]+m[2]+m[3])
		if err != nil {
			continue
		}
		p := Partition{Family: Family{Base: key[:at], Form: name}, Start: day, Length: 24 * time.Hour}
		if hour, err := time.Parse("15", m[4]); err == nil {
			p.Start, p.Length = day.Add(time.Duration(hour.Hour())*time.Hour), time.Hour
		}
		return p, true
	}
	return Partition{}, false
}

// Valid reports whether the family's form is known, after it was stored.
func (f Family) Valid() bool {
	_, ok := forms[f.Form]
	return ok
}

// Prefix is what all its keys begin with, and perhaps others.
func (f Family) Prefix() string { return f.Base + forms[f.Form].literal }

// Day is the prefix of a day's keys.
func (f Family) Day(t time.Time) string { return f.Base + t.UTC().Format(forms[f.Form].day) }

// From is where to start after so as to meet the keys of t's hour and all later ones; of t's day, where the family has no hours.
func (f Family) From(t time.Time, hours bool) string {
	if !hours {
		return f.Day(t)
	}
	return f.Day(t) + t.UTC().Format(forms[f.Form].hour)
}

// End is where to start after so as to be behind all its keys.
func (f Family) End() string { return f.Base + forms[f.Form].last }
