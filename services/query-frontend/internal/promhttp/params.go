// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/prom"
)

func invalid(parameter string, err error) error {
	return fault.New(fault.Invalid, "invalid parameter %q: %w", parameter, err)
}

// form reads parameters. The first that is wrong is its error.
type form struct {
	request *http.Request
	err     error
}

func (f *form) fail(parameter string, err error) {
	if f.err == nil {
		f.err = invalid(parameter, err)
	}
}

// timeOf reads a time; without one it is the default.
func (f *form) timeOf(parameter string, otherwise time.Time) time.Time {
	text := f.request.FormValue(parameter)
	if text == "" {
		return otherwise
	}
	t, err := parseTime(text)
	if err != nil {
		f.fail(parameter, err)
	}
	return t
}

// mustTime is timeOf where there is no default.
func (f *form) mustTime(parameter string) time.Time {
	t, err := parseTime(f.request.FormValue(parameter))
	if err != nil {
		f.fail(parameter, err)
	}
	return t
}

// duration reads a duration; without one it is zero.
func (f *form) duration(parameter string) time.Duration {
	text := f.request.FormValue(parameter)
	if text == "" {
		return 0
	}
	d, err := parseDuration(text)
	if err != nil {
		f.fail(parameter, err)
	}
	return d
}

func (f *form) limit() int {
	text := f.request.FormValue("limit")
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err == nil && n < 0 {
		err = fmt.Errorf("limit must be non-negative")
	}
	if err != nil {
		f.fail("limit", err)
	}
	return n
}

// matchers reads the selectors of match[].
func (f *form) matchers() [][]*labels.Matcher {
	var sets [][]*labels.Matcher
	for _, text := range f.request.Form["match[]"] {
		set, err := prom.ParseSelector(text)
		if err != nil {
			f.fail("match[]", err)
			return nil
		}
		if !narrow(set) {
			f.fail("match[]", fmt.Errorf("match[] must contain at least one non-empty matcher"))
			return nil
		}
		sets = append(sets, set)
	}
	return sets
}

// narrow reports whether a selector asks for some label.
func narrow(set []*labels.Matcher) bool {
	for _, m := range set {
		if !m.Matches("") {
			return true
		}
	}
	return false
}

// Times that segments can have; farther ones are as good as these.
var (
	firstTime = time.Date(1700, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// catalogueSpan is how far back a catalogue is asked for where nobody says.
const catalogueSpan = 24 * time.Hour

// span reads the range of a question to the catalogues, without end until now, without start of the day before.
func (f *form) span() (start, end time.Time) {
	end = within(f.timeOf("end", time.Now()))
	start = within(f.timeOf("start", end.Add(-catalogueSpan)))
	if f.err == nil && end.Before(start) {
		f.err = fault.New(fault.Invalid, "end timestamp must not be before start timestamp")
	}
	return start, end
}

func within(t time.Time) time.Time {
	switch {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	}
	return t
}

// at checks a time of evaluation: it is in the answer, so it cannot be moved.
func (f *form) at(parameter string, t time.Time) time.Time {
	if f.err == nil && !within(t).Equal(t) {
		f.fail(parameter, fmt.Errorf("time %s is out of range: want seconds since 1970, or RFC 3339", t.UTC().Format(time.RFC3339)))
	}
	return t
}

// parseTime reads seconds since 1970, with three decimals at most, or RFC 3339.
func parseTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		whole, rest := math.Modf(seconds)
		if math.IsNaN(seconds) || math.Abs(whole) > math.MaxInt64/2 {
			return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
		}
		return time.UnixMilli(int64(whole)*1000 + int64(math.Round(rest*1000))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", text)
}

// parseDuration reads seconds, or a duration such as 1h30m.
func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		ns := seconds * float64(time.Second)
		if math.IsNaN(ns) || math.Abs(ns) >= math.MaxInt64 {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", text)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", text)
}
