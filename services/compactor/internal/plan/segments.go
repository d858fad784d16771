// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

func bytesOf(segments []lake.Segment) (total int64) {
	for i := range segments {
		total += segments[i].Bytes
	}
	return total
}

func levelOf(segments []lake.Segment) (level int) {
	for i := range segments {
		level = max(level, segments[i].Level)
	}
	return level
}

// chunks merges segments, as many and as much at a time as the policy allows. A last one that would be merged with nothing is left.
func (w *planner) chunks(segments []lake.Segment, reason Reason, level int) (left []lake.Segment) {
	for len(segments) > 0 {
		n := w.chunk(segments)
		if settled := segments[0].Level > 0 || reason == ReasonLevel0; n == 1 && settled && w.must(&segments[0]) == "" {
			left = append(left, segments[0])
		} else {
			w.add(segments[:n], reason, level)
		}
		segments = segments[n:]
	}
	return left
}

// chunk is how many of the segments the next merge takes.
func (w *planner) chunk(segments []lake.Segment) int {
	total := int64(0)
	for n := range segments {
		total += segments[n].Bytes
		if n == w.policy.FanIn || n > 0 && total > w.policy.MergeBytes {
			return n
		}
	}
	return len(segments)
}

// add plans a merge.
func (w *planner) add(inputs []lake.Segment, reason Reason, level int) {
	w.addOf(inputs, reason, level, w.shardsOf(inputs))
}

// addOf plans a merge into shards, where segments are of such. A segment that must be rewritten anyhow lends it its reason.
func (w *planner) addOf(inputs []lake.Segment, reason Reason, level int, shards uint32) {
	inputs = slices.Clone(inputs)
	reasons := order()
	for i := range inputs {
		if must := w.must(&inputs[i]); must != "" && slices.Index(reasons, must) < slices.Index(reasons, reason) {
			reason = must
		}
	}
	window := inputs[0].Window
	if w.day() {
		window = w.state.Window
	}
	m := Merge{Inputs: inputs, Window: window, Level: level, Reason: reason, Rules: w.rulesAfter(inputs)}
	if w.policy.Sharded {
		m.Shards = shards
	} else {
		m.Target = w.target(bytesOf(inputs))
	}
	w.plan.Merges = append(w.plan.Merges, m)
}

// target cuts the outputs of a merge so that none is less than the policy's target, and there are fewer than inputs.
func (w *planner) target(total int64) int64 {
	n := total / w.policy.Target
	if n < 2 {
		return w.policy.Most
	}
	return (total + n - 1) / n
}

// alone rewrites a segment by itself if it must be.
func (w *planner) alone(s *lake.Segment) {
	if w.day() && s.Window != w.state.Window {
		return // its hour's task does it
	}
	reason := w.must(s)
	if reason == "" || reason != ReasonDeletes && w.state.Now.Before(w.settledAt([]lake.Segment{*s})) {
		return
	}
	doubtful := len(s.MaskedSources) == 0 && s.FormatVersion >= w.policy.Format
	w.addOf([]lake.Segment{*s}, reason, max(1, s.Level), count(s))
	w.plan.Merges[len(w.plan.Merges)-1].Doubtful = doubtful
}

// must is why a segment has to be rewritten whatever its size; empty: it has not.
func (w *planner) must(s *lake.Segment) Reason {
	if len(Deletes(s, w.state.Deletes)) > 0 {
		return ReasonDeletes
	}
	reason := Reason("")
	for _, rule := range w.policy.Due(s, w.state) {
		if rule.Expires {
			return ReasonExpired
		}
		reason = ReasonRules
	}
	switch {
	case reason != "":
		return reason
	case len(s.MaskedSources) > 0:
		return ReasonMasked
	case s.FormatVersion < w.policy.Format:
		return ReasonFormat
	}
	return ""
}

// Deletes are those of data that were not applied to a segment and may have rows in it.
func Deletes(s *lake.Segment, all []lake.Delete) []lake.Delete {
	var pending []lake.Delete
	for _, d := range all {
		if d.ID > s.AppliedDelete && s.FirstTime.Before(d.End) && !s.LastTime.Before(d.Start) {
			pending = append(pending, d)
		}
	}
	return pending
}

// Due are the rules whose time has come for a segment and that were not applied to it.
func (p Policy) Due(s *lake.Segment, state State) []Rule {
	var due []Rule
	for _, rule := range p.Rules {
		if !slices.Contains(s.Rules, rule.Name) && !s.Window.End().Add(rule.After).After(state.Now) {
			due = append(due, rule)
		}
	}
	return due
}

// after are the names of the rules that a segment has when those that are due were applied.
func (w *planner) after(s *lake.Segment) []string {
	names := slices.Clone(s.Rules)
	for _, rule := range w.policy.Due(s, w.state) {
		names = append(names, rule.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// rulesAfter are the rules that all outputs of a merge have: those that every input has.
func (w *planner) rulesAfter(inputs []lake.Segment) []string {
	common := w.after(&inputs[0])
	for i := range inputs[1:] {
		other := w.after(&inputs[i+1])
		common = slices.DeleteFunc(common, func(name string) bool { return !slices.Contains(other, name) })
	}
	return common
}

// once are the names of the rules that must not be applied twice, of those that a segment will have.
func (w *planner) once(s *lake.Segment) []string {
	return slices.DeleteFunc(w.after(s), func(name string) bool { return !strings.HasPrefix(name, Hashes) })
}

// Hashes begins the names of rules which are not to be applied twice: the hash of a hash is another one.
const Hashes = "hash:"

func size(bytes int64) string {
	switch {
	case bytes >= 10<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	case bytes >= 10<<10:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d bytes", bytes)
}

func (w *planner) reason(plan *Plan) string {
	notes := w.notes
	switch {
	case len(w.state.Segments) == 0:
		return "the window is empty"
	case plan.More:
		notes = append(notes, "more is to be done than one lease does")
	case len(plan.Merges) == 1:
		notes = append(notes, "one merge is due")
	case len(plan.Merges) > 0:
		notes = append(notes, fmt.Sprintf("%d merges are due", len(plan.Merges)))
	case len(notes) > 0:
	case !plan.Again.IsZero():
		notes = append(notes, "the window is not settled yet")
	default:
		notes = append(notes, "the window is as it should be")
	}
	return strings.Join(notes, "; ")
}
