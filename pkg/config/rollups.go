// SPDX-License-Identifier: AGPL-3.0-only

package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/internal/strictyaml"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// RollupPolicy says that an organization has a tier of rollups.
type RollupPolicy struct {
	// Signal is metrics, or logs: their rollups count lines.
	Signal     lake.Signal
	Resolution time.Duration
	// After is how long after its end a window is rolled up. Later data rolls it up again at once.
	After time.Duration
	// Sketches are regular expressions of the whole names of metrics whose values have quantile sketches too.
	Sketches []string
}

// Tiers are the resolutions that rollups can have, finest first.
func Tiers() []time.Duration {
	return []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, 20 * time.Minute, time.Hour}
}

// RollupWindow is how long the windows of a tier are: hours for the finer ones, so that a late object has little rolled up again, days
// for those of which an hour would be but a handful of rows.
func RollupWindow(resolution time.Duration) time.Duration {
	if resolution <= time.Minute {
		return time.Hour
	}
	return 24 * time.Hour
}

// DefaultRollups are in force where the configuration says nothing.
func DefaultRollups() []RollupPolicy {
	return []RollupPolicy{
		{Signal: lake.SignalMetrics, Resolution: time.Minute, After: 10 * time.Minute},
		{Signal: lake.SignalMetrics, Resolution: 5 * time.Minute, After: time.Hour},
		{Signal: lake.SignalMetrics, Resolution: time.Hour, After: time.Hour},
		{Signal: lake.SignalLogs, Resolution: time.Minute, After: 10 * time.Minute},
		{Signal: lake.SignalLogs, Resolution: time.Hour, After: time.Hour},
	}
}

// RollupsOf returns the tiers of a signal, finest first.
func (o *Organization) RollupsOf(signal lake.Signal) []RollupPolicy {
	var out []RollupPolicy
	for _, policy := range o.Rollups {
		if policy.Signal == signal {
			out = append(out, policy)
		}
	}
	slices.SortFunc(out, func(a, b RollupPolicy) int { return cmp.Compare(a.Resolution, b.Resolution) })
	return out
}

// Sketched returns what tells whether a metric has sketches, by its name. Nil: none has.
func (p RollupPolicy) Sketched() func(name string) bool {
	if len(p.Sketches) == 0 {
		return nil
	}
	// rollupProblems has compiled each of them.
	return regexp.MustCompile("^(?:" + strings.Join(p.Sketches, "|") + ")$").MatchString
}

// rollupForm is RollupPolicy as written.
type rollupForm struct {
	Signal     string        `yaml:"signal,omitempty"`
	Resolution time.Duration `yaml:"resolution"`
	After      time.Duration `yaml:"after,omitempty"`
	Sketches   list[string]  `yaml:"sketches,omitempty"`
}

// signal is metrics where none is named.
func (f rollupForm) signal() lake.Signal {
	signal, _ := lake.ParseSignal(f.Signal)
	return cmp.Or(signal, lake.SignalMetrics)
}

func rollupProblems(policies []rollupForm, fail failure) {
	seen := map[string]bool{}
	for i, p := range policies {
		id := fmt.Sprint(p.signal(), p.Resolution)
		_, err := lake.ParseSignal(p.Signal)
		switch {
		case err != nil:
			fail("rollups", "rollups[%d]: %v", i, err)
		case p.signal() == lake.SignalSpans:
			fail("rollups", "rollups[%d]: there are rollups of metrics and logs only", i)
		case !slices.Contains(Tiers(), p.Resolution):
			fail("rollups", "rollups[%d]: resolution is %s; want %s", i, p.Resolution, tierNames())
		case p.After < 0:
			fail("rollups", "rollups[%d]: after is negative", i)
		case seen[id]:
			fail("rollups", "rollups[%d]: there is a rollup of %s already; keep one", i, p.Resolution)
		case len(p.Sketches) > 0 && p.signal() != lake.SignalMetrics:
			fail("rollups", "rollups[%d]: sketches are for metrics only", i)
		}
		seen[id] = true
		for _, pattern := range p.Sketches {
			if _, err := regexp.Compile("^(?:" + pattern + ")$"); err != nil || pattern == "" {
				fail("rollups", "rollups[%d]: sketches: %q is no regular expression of names of metrics", i, pattern)
			}
		}
	}
}

func tierNames() string {
	var names []string
	for _, tier := range Tiers() {
		names = append(names, tierName(tier))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// tierName writes 1m where Go writes 1m0s.
func tierName(tier time.Duration) string {
	name := tier.String()
	if tier%time.Minute == 0 {
		name = strings.TrimSuffix(name, "0s")
	}
	if tier%time.Hour == 0 {
		name = strings.TrimSuffix(name, "0m")
	}
	return name
}

// rollups translates what rollupProblems has passed.
func rollups(forms []rollupForm) []RollupPolicy {
	out := []RollupPolicy{}
	for _, f := range forms {
		out = append(out, RollupPolicy{Signal: f.signal(), Resolution: f.Resolution, After: f.After, Sketches: f.Sketches})
	}
	return out
}

// writtenRollups is the inverse of rollups.
func writtenRollups(in []RollupPolicy) list[rollupForm] {
	out := list[rollupForm]{}
	for _, p := range in {
		out = append(out, rollupForm{Signal: p.Signal.String(), Resolution: p.Resolution, After: p.After, Sketches: p.Sketches})
	}
	return out
}

// inTime leaves out of an organization's tiers those that would be made when their rows are gone already. That is an error where they are
// written for this very organization.
func (b *builder) inTime(o *Organization, written *strictyaml.Pos) {
	o.Rollups = slices.DeleteFunc(slices.Clone(o.Rollups), func(p RollupPolicy) bool {
		kept := o.RawRetention(p.Signal)
		late := kept > 0 && p.After+RollupWindow(p.Resolution) > kept
		if late && written != nil {
			b.fail(written.Problem("rollups", "the rollup of %s to %s is made %s after windows of %s, and rows are kept for %s only; keep them longer, or leave it out",
				p.Signal, tierName(p.Resolution), p.After, RollupWindow(p.Resolution), kept))
		}
		return late
	})
}
