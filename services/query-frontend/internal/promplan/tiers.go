// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/rollup"
)

// Answers reports whether rollups of a resolution answer a leaf as samples would at all its times, and how far off their answer may be; reason says why not. Package rollup
// knows which functions that are, and that their windows have to begin and end where buckets do.
func (l *Leaf) Answers(resolution time.Duration) (ok bool, bound float64, reason string) {
	s := l.Shape
	switch {
	case s == nil:
		return false, 0, "it is not a function of one range"
	case s.Extended:
		return false, 0, "it needs samples outside of its range, or start times"
	case l.Sole:
		return false, 0, "it drops the names of several metrics"
	}
	var step time.Duration
	if l.Asked.Len() > 1 {
		step = time.Duration(l.Asked.Step) * time.Millisecond
	}
	return rollup.Exact(s.Function, s.Window, step, s.Offset, time.UnixMilli(l.Asked.Start), resolution)
}
