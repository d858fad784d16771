// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"fmt"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// rules are what an organization's retention and its deletes do to rows of a signal, whose selectors are S.
type rules[S any] struct {
	planned plan.Policy
	parse   func(text string) (S, error)
	// retention is in the order in which policies are tried.
	retention []retention[S]
	// selectors of deletes, parsed once.
	selectors map[lake.DeleteID]S
}

// retention is one policy.
type retention[S any] struct {
	// rule is its name in segments that it was applied to; empty: whole segments are removed by it, which is not compaction's business.
	rule     string
	selector S
	all      bool // there is no selector: all rows
}

func newRules[S any](policy plan.Policy, parse func(text string) (S, error)) rules[S] {
	policy.Rules = nil
	return rules[S]{planned: policy, parse: parse, selectors: map[lake.DeleteID]S{}}
}

func (r *rules[S]) policy() plan.Policy { return r.planned }

// retain makes rules of retention policies. A segment remembers which policies it was rewritten for by a name that stands for the policy and all
// that come before it: when one of them changes, it has another name.
func (r *rules[S]) retain(policies []config.RetentionPolicy) {
	names := config.RetentionRules(policies)
	longest := int64(0) // of the selectors so far
	for i, p := range policies {
		made := retention[S]{all: p.Selector == ""}
		if p.Selector != "" {
			parsed, err := r.parse(p.Selector)
			if err != nil {
				// The configuration was checked, but the parser refuses it: whom it would keep is not known, so nobody's rows leave.
				r.retention = append(r.retention, retention[S]{all: true})
				return
			}
			made.selector = parsed
		}
		if p.Selector != "" || int64(p.Keep) < longest {
			made.rule = names[i]
			r.planned.Rules = append(r.planned.Rules, plan.Rule{Name: made.rule, After: p.Keep, Expires: true})
		}
		longest = max(longest, int64(p.Keep))
		r.retention = append(r.retention, made)
	}
}

// decides returns the first policy whose selector fits, or that has none; nil: there is none, and rows are kept for ever.
func (r *rules[S]) decides(fits func(S) bool) *retention[S] {
	for i := range r.retention {
		if p := &r.retention[i]; p.all || fits(p.selector) {
			return p
		}
	}
	return nil
}

// expiring are the names of the retention rules that are due for a segment.
func (r *rules[S]) expiring(s *lake.Segment, state plan.State) map[string]bool {
	due := map[string]bool{}
	for _, rule := range r.planned.Due(s, state) {
		if rule.Expires {
			due[rule.Name] = true
		}
	}
	return due
}

// selector parses a delete's, which was parsed when the delete was made.
func (r *rules[S]) selector(d lake.Delete) S {
	if known, ok := r.selectors[d.ID]; ok {
		return known
	}
	parsed, err := r.parse(d.Selector)
	if err != nil {
		panic(fmt.Sprintf("delete %d: %v", d.ID, err)) // its rows must not be said to be gone
	}
	r.selectors[d.ID] = parsed
	return parsed
}

// needless reports whether neither deletes nor rules find anything in a segment, and marks it then.
func (r *run) needless(ctx context.Context, s lake.Segment) (bool, error) {
	sidecar, err := r.sidecar(ctx, &s)
	if err != nil {
		return false, nil //nolint:nilerr // whatever it is, a rewrite finds it, too, and tells of it
	}
	r.edit.Cost.BytesRead += int64(len(sidecar))
	if finds, err := r.merger.finds(sidecar, &s, r.state); err != nil || finds {
		return false, nil //nolint:nilerr // the same
	}
	mark := lake.Mark{Segment: s.ID, AppliedDelete: r.state.Latest}
	policy := r.merger.policy()
	for _, rule := range policy.Due(&s, r.state) {
		mark.Rules = append(mark.Rules, rule.Name)
	}
	r.edit.Marks = append(r.edit.Marks, mark)
	r.deps.Counters.mark()
	return true, nil
}
