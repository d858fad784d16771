// SPDX-License-Identifier: AGPL-3.0-only

package retention

import (
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Plan says what of one signal's rows, or of its rollups of one resolution, goes when. It is made of the organization's policies alone.
type Plan struct {
	// Whole is how old the end of a segment's window must be for the segment to go as a whole: no policy keeps any of its rows longer.
	// Zero: no segment goes as a whole.
	Whole time.Duration
	// Keep is what the policy without a selector says.
	Keep time.Duration
	// Partial are the policies whose rows leave by compaction, since other rows of the same segments may stay.
	Partial []Rule
}

// planOf makes the plan of a resolution. Of rollups the policies without a selector say all.
func planOf(organization *config.Organization, signal lake.Signal, resolution time.Duration) Plan {
	if resolution == 0 {
		return PlanOf(organization.RetentionOf(signal))
	}
	keep := organization.TierRetention(signal, resolution)
	return Plan{Whole: keep, Keep: keep}
}

// Rule is a policy that compaction applies to segments, which remember it by its name.
type Rule struct {
	Name string
	Keep time.Duration
}

// PlanOf makes the plan of the policies of one signal, in their order. Policies behind one that fits all rows decide nothing.
func PlanOf(policies []config.RetentionPolicy) Plan {
	var p Plan
	names := config.RetentionRules(policies)
	longest := time.Duration(0)
	for i, policy := range policies {
		if !policy.Covers(0) {
			continue // it is of rollups, which are segments of their own
		}
		longest = max(longest, policy.Keep)
		if policy.Selector != "" {
			p.Partial = append(p.Partial, Rule{names[i], policy.Keep})
			continue
		}
		p.Whole, p.Keep = longest, policy.Keep
		if policy.Keep < longest {
			p.Partial = append(p.Partial, Rule{names[i], policy.Keep})
		}
		break
	}
	// Rows of the longest policies leave with their segments.
	p.Partial = slices.DeleteFunc(p.Partial, func(r Rule) bool { return p.Whole > 0 && r.Keep >= p.Whole })
	return p
}
