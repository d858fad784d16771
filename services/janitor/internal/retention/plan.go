// SPDX-License-Identifier: AGPL-3.0-only

package retention

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
)

// Plan says what of one signal goes when. It is made of the organization's policies alone.
type Plan struct {
	// Whole is how old the end of a segment's window must be for the segment to go as a whole: no policy keeps any of its rows longer.
	// Zero: no segment goes as a whole.
	Whole time.Duration
	// Keep is what the policy without a selector says.
	Keep time.Duration
	// Partial are the policies whose rows leave by compaction, since other rows of the same segments may stay.
	Partial []config.RetentionPolicy
}

// PlanOf makes the plan of the policies of one signal, in their order. Policies behind one that fits all rows decide nothing.
func PlanOf(policies []config.RetentionPolicy) Plan {
	var p Plan
	longest := time.Duration(0)
	for _, policy := range policies {
		if policy.Resolution > 0 {
			continue // it is of rollups, which are segments of their own
		}
		longest = max(longest, policy.Keep)
		if policy.Selector != "" {
			p.Partial = append(p.Partial, policy)
			continue
		}
		p.Whole, p.Keep = longest, policy.Keep
		if policy.Keep < longest {
			p.Partial = append(p.Partial, policy)
		}
		break
	}
	p.Partial = p.sooner()
	return p
}

// sooner leaves out the policies whose rows leave with their segments anyway.
func (p Plan) sooner() []config.RetentionPolicy {
	var out []config.RetentionPolicy
	for _, policy := range p.Partial {
		if p.Whole == 0 || policy.Keep < p.Whole {
			out = append(out, policy)
		}
	}
	return out
}
