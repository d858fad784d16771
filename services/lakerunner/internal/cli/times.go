// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"
)

// span holds the flags that choose a range of time.
type span struct {
	since, from, to string
}

func (s *span) addFlags(flags *pflag.FlagSet, since string) {
	flags.StringVar(&s.since, "since", since, "range back from --to, such as 30m, 6h, 7d")
	flags.StringVar(&s.from, "from", "", "start, inclusive: RFC 3339, 2006-01-02, Unix seconds, or now-1h; instead of --since")
	flags.StringVar(&s.to, "to", "", "end, exclusive: as --from; default now")
}

// resolve returns start and end.
func (s *span) resolve(now time.Time) (start, end time.Time, err error) {
	end = now
	if s.to != "" {
		if end, err = parseTime(s.to, now); err != nil {
			return start, end, usage("--to: %w", err)
		}
	}
	if s.from != "" {
		if start, err = parseTime(s.from, now); err != nil {
			return start, end, usage("--from: %w", err)
		}
	} else {
		length, err := parseLength(s.since)
		if err != nil {
			return start, end, usage("--since: %w", err)
		}
		start = end.Add(-length)
	}
	if !start.Before(end) {
		return start, end, usage("the range is empty: from %s to %s", start.Format(time.RFC3339), end.Format(time.RFC3339))
	}
	return start, end, nil
}

// parseTime reads a point in time. Times without a zone are local.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if back, ok := strings.CutPrefix(s, "now-"); ok {
		length, err := parseLength(back)
		return now.Add(-length), err
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return unixTime(seconds, s), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("%q is no time: want 2006-01-02T15:04:05Z, 2006-01-02, Unix seconds, or now-1h", s)
}

// unixTime reads seconds, and nanoseconds when the number has as many digits as nanoseconds have today.
func unixTime(seconds float64, s string) time.Time {
	if ns, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) >= 16 {
		return time.Unix(0, ns)
	}
	whole := int64(seconds)
	return time.Unix(whole, int64((seconds-float64(whole))*1e9))
}

// parseLength reads a duration, days and weeks included.
func parseLength(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	d, err := model.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, usage("%q is no duration: want 90s, 30m, 6h, 7d", s)
	}
	return time.Duration(d), nil
}
