// SPDX-License-Identifier: AGPL-3.0-only

package strictyaml

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	longDuration = regexp.MustCompile(`^(\d+)(d|w|y)`)
)

// ParseDuration is time.ParseDuration with days, weeks and years (of 365 days) in front: 30s, 1h30m, 7d, 1y.
func ParseDuration(text string) (time.Duration, error) {
	var total time.Duration
	rest := strings.TrimSpace(text)
	for {
		m := longDuration.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		n, err := strconv.ParseInt(m[1], 10, 64)
		unit := map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour}[m[2]]
		if err != nil || n > int64((math.MaxInt64-total)/unit) {
			return 0, fmt.Errorf("%q is too long: the longest duration is 292y", text)
		}
		total += time.Duration(n) * unit
		rest = rest[len(m[0]):]
	}
	if rest == "" && text != "" {
		return total, nil
	}
	short, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: want one such as 30s, 5m, 1h30m or 7d", text)
	}
	return total + short, nil
}

var size = regexp.MustCompile(`^(-?\d[\d_]*(?:\.\d+)?)\s*([kKMGTP]i?)?B?$`)

// ParseSize reads a whole number with an optional unit: 500, 10k (thousand), 64MiB (2^20), 1GB (10^9).
func ParseSize(text string) (int64, error) {
	m := size.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, fmt.Errorf("%q is not a whole number: want one such as 500, 64MiB or 1GB", text)
	}
	number := strings.ReplaceAll(m[1], "_", "")
	unit := unitOf(m[2])
	if unit == 1 || !strings.Contains(number, ".") {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > math.MaxInt64/unit || n < math.MinInt64/unit {
			return 0, fmt.Errorf("%q is not a whole number of 64 bits", text)
		}
		return n * unit, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.Abs(f)*float64(unit) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return int64(f * float64(unit)), nil
}

func unitOf(name string) int64 {
	if name == "" {
		return 1
	}
	base := int64(1000)
	if strings.HasSuffix(name, "i") {
		base = 1024
	}
	unit := int64(1)
	for range strings.Index("KMGTP", strings.ToUpper(name[:1])) + 1 {
		unit *= base
	}
	return unit
}
