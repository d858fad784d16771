// SPDX-License-Identifier: AGPL-3.0-only

package lake

import "time"

// Window is a half-open span of event time [Start, Start+Length), aligned to its length in UTC.
type Window struct {
	Start  time.Time
	Length time.Duration
}

// WindowOf returns the aligned window of the given length that holds t. Times before 1970 align downwards.
func WindowOf(t time.Time, length time.Duration) Window {
	ns := t.UnixNano()
	n := int64(length)
	start := ns - ((ns%n)+n)%n
	return Window{Start: time.Unix(0, start).UTC(), Length: length}
}

// End is the first time after the window.
func (w Window) End() time.Time { return w.Start.Add(w.Length) }

// Contains reports whether t lies in the window.
func (w Window) Contains(t time.Time) bool { return !t.Before(w.Start) && t.Before(w.End()) }
