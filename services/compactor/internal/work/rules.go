// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// rules are what an organization's configuration and its deletes do to rows of a signal.
type rules struct {
	policy plan.Policy
	fields map[string]config.FieldRule // by name of the rule
	// retention is in the order in which policies are tried.
	retention []retention
	// selectors of deletes, parsed once.
	selectors map[lake.DeleteID]*selector.Selector
}

// retention is one policy.
type retention struct {
	// rule is its name in segments that it was applied to; empty: whole segments are removed by it, which is not compaction's business.
	rule     string
	selector *selector.Selector // nil: all rows
}

// RulesOf returns the rules that the segments of an organization's signal are to have, once their windows are old enough.
func RulesOf(snapshot *config.Snapshot, org lake.Organization, signal lake.Signal) []plan.Rule {
	return rulesOf(snapshot, org, signal, plan.Policy{}).policy.Rules
}

func (w *Worker) rules(org lake.Organization, signal lake.Signal) *rules {
	return rulesOf(w.deps.Config.Current(), org, signal, w.config.Policy)
}

func rulesOf(snapshot *config.Snapshot, org lake.Organization, signal lake.Signal, policy plan.Policy) *rules {
	r := &rules{policy: policy, fields: map[string]config.FieldRule{}, selectors: map[lake.DeleteID]*selector.Selector{}}
	r.policy.Rules = nil
	r.policy.Format = segfile.FormatVersion
	organization, known := snapshot.Organization(org)
	if !known {
		return r
	}
	for _, rule := range organization.FieldsOf(signal) {
		r.fields[rule.ID()] = rule
		r.policy.Rules = append(r.policy.Rules, plan.Rule{Name: rule.ID(), After: rule.After})
	}
	if signal == lake.SignalLogs {
		r.retain(organization.RetentionOf(signal))
	}
	return r
}

// retain makes rules of retention policies. A segment remembers which policies it was rewritten for by a name that stands for the policy and all
// that come before it: when one of them changes, it has another name.
func (r *rules) retain(policies []config.RetentionPolicy) {
	names := config.RetentionRules(policies)
	longest := int64(0) // of the selectors so far
	for i, p := range policies {
		made := retention{}
		if p.Selector != "" {
			parsed, err := selector.Parse(p.Selector)
			if err != nil {
				// The configuration was checked, but Loki refuses it: whom it would keep is not known, so nobody's rows leave.
				r.retention = append(r.retention, retention{})
				return
			}
			made.selector = parsed
		}
		if p.Selector != "" || int64(p.Keep) < longest {
			made.rule = names[i]
			r.policy.Rules = append(r.policy.Rules, plan.Rule{Name: made.rule, After: p.Keep, Expires: true})
		}
		longest = max(longest, int64(p.Keep))
		r.retention = append(r.retention, made)
	}
}

// decides returns the policy that decides about a stream; nil: it is kept for ever.
func (r *rules) decides(labels []columns.Label) *retention {
	for i := range r.retention {
		if p := &r.retention[i]; p.selector == nil || p.selector.Stream(labels) {
			return p
		}
	}
	return nil
}

// expired returns what says whether a stream's rows in a segment are past their retention; nil: there are none.
func (r *rules) expired(s *lake.Segment, state plan.State) func(labels []columns.Label) bool {
	due := map[string]bool{}
	for _, rule := range r.policy.Due(s, state) {
		if rule.Expires {
			due[rule.Name] = true
		}
	}
	if len(due) == 0 {
		return nil
	}
	return func(labels []columns.Label) bool {
		p := r.decides(labels)
		return p != nil && due[p.rule]
	}
}

// drop says which rows of a segment leave.
func (r *rules) drop(s *lake.Segment, state plan.State) []segfile.RowRule {
	var all []segfile.RowRule
	for _, d := range plan.Deletes(s, state.Deletes) {
		all = append(all, r.deleted(d))
	}
	if expired := r.expired(s, state); expired != nil {
		all = append(all, segfile.RowRule{Reason: segfile.ReasonExpired, Start: math.MinInt64, End: math.MaxInt64, Stream: expired})
	}
	return all
}

func (r *rules) deleted(d lake.Delete) segfile.RowRule {
	rule := segfile.RowRule{Reason: segfile.ReasonDeleted, Delete: d.ID, Start: d.Start.UnixNano(), End: d.End.UnixNano()}
	chosen := r.selector(d)
	rule.Stream = chosen.Stream
	if !chosen.Simple() {
		rule.Row = chosen.NewMatcher().Row
	}
	return rule
}

// selector parses a delete's, which was parsed when the delete was made.
func (r *rules) selector(d lake.Delete) *selector.Selector {
	if known, ok := r.selectors[d.ID]; ok {
		return known
	}
	parsed, err := selector.Parse(d.Selector)
	if err != nil {
		panic(fmt.Sprintf("delete %d: %v", d.ID, err)) // its rows must not be said to be gone
	}
	r.selectors[d.ID] = parsed
	return parsed
}

// fieldsOf are the field rules to be applied to a segment.
func (r *rules) fieldsOf(s *lake.Segment, state plan.State) []segfile.FieldRule {
	var all []segfile.FieldRule
	for _, due := range r.policy.Due(s, state) {
		if rule, ok := r.fields[due.Name]; ok {
			all = append(all, segfile.FieldRule{Name: rule.Name, Action: actionOf(rule.Action), Key: rule.Key})
		}
	}
	return all
}

func actionOf(a config.FieldAction) segfile.FieldAction {
	switch a {
	case config.FieldHash:
		return segfile.FieldHash
	case config.FieldMask:
		return segfile.FieldMask
	}
	return segfile.FieldDrop
}

// needless reports whether neither deletes nor rules find anything in a segment, and marks it then.
func (r *run) needless(ctx context.Context, s lake.Segment) (bool, error) {
	c, err := r.catalogue(ctx, &s)
	if err != nil {
		return false, nil //nolint:nilerr // whatever it is, a rewrite finds it, too, and tells of it
	}
	if r.rules.find(c, &s, r.state) {
		return false, nil
	}
	mark := lake.Mark{Segment: s.ID, AppliedDelete: r.state.Latest}
	for _, rule := range r.rules.policy.Due(&s, r.state) {
		mark.Rules = append(mark.Rules, rule.Name)
	}
	r.edit.Marks = append(r.edit.Marks, mark)
	r.deps.Counters.mark()
	return true, nil
}

// find reports whether deletes or rules that are due may find something in a segment with that catalogue.
func (r *rules) find(c *segfile.Catalogue, s *lake.Segment, state plan.State) bool {
	if slices.ContainsFunc(plan.Deletes(s, state.Deletes), func(d lake.Delete) bool { return r.findDeleted(c, d) }) {
		return true
	}
	expired := r.expired(s, state)
	if expired != nil && slices.ContainsFunc(c.Streams, func(e segfile.StreamEntry) bool { return expired(e.Labels) }) {
		return true
	}
	return slices.ContainsFunc(r.fieldsOf(s, state), func(f segfile.FieldRule) bool { return findField(c, f.Name) })
}

func (r *rules) findDeleted(c *segfile.Catalogue, d lake.Delete) bool {
	chosen, start, end := r.selector(d), d.Start.UnixNano(), d.End.UnixNano()
	return slices.ContainsFunc(c.Streams, func(e segfile.StreamEntry) bool {
		return e.First < end && e.Last >= start && chosen.Stream(e.Labels)
	})
}

func findField(c *segfile.Catalogue, field string) bool {
	named := func(name string) func(columns.Attribute) bool {
		return func(a columns.Attribute) bool { return a.Name == name }
	}
	if name, ok := strings.CutPrefix(field, "resource."); ok {
		return slices.ContainsFunc(c.Origins, func(o columns.Origin) bool { return slices.ContainsFunc(o.Resource, named(name)) })
	}
	if name, ok := strings.CutPrefix(field, "scope."); ok {
		return slices.ContainsFunc(c.Origins, func(o columns.Origin) bool { return slices.ContainsFunc(o.Scope, named(name)) })
	}
	return field == "body" || slices.ContainsFunc(c.Attributes, func(a segfile.AttributeEntry) bool { return a.Name == field })
}
