// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/segfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// logMerger merges segments of logs.
type logMerger struct {
	rules[*selector.Selector]
	signal lake.Signal
	fields map[string]config.FieldRule // by name of the rule
}

func newLogMerger(organization *config.Organization, signal lake.Signal, policy plan.Policy) *logMerger {
	policy.Format = segfile.FormatVersion
	m := &logMerger{rules: newRules(policy, selector.Parse), signal: signal, fields: map[string]config.FieldRule{}}
	for _, rule := range organization.FieldsOf(signal) {
		m.fields[rule.ID()] = rule
		m.planned.Rules = append(m.planned.Rules, plan.Rule{Name: rule.ID(), After: rule.After})
	}
	if signal == lake.SignalLogs {
		m.retain(organization.RetentionOf(signal))
	}
	return m
}

func (m *logMerger) readsSidecars() bool { return false }

func (m *logMerger) merge(ctx context.Context, inputs []input, o mergeOptions) (merged, error) {
	result, err := segfile.Merge(ctx, m.inputs(inputs, o.state), segfile.MergeOptions{
		Meta: segfile.Meta{
			Organization: o.organization, Signal: m.signal, Window: o.merge.Window, Level: o.merge.Level, Lease: o.lease,
			AppliedDelete: o.state.Latest, Rules: o.merge.Rules, Inputs: keysOf(inputs),
		},
		TargetBytes: o.merge.Target, Memory: o.memory, Create: o.create,
	})
	if err != nil {
		return merged{}, err
	}
	out := merged{
		account: Account{
			In: result.RowsIn, Out: result.RowsOut, Deduplicated: result.Deduplicated, Masked: result.Masked, Deleted: result.Deleted, Expired: result.Expired,
		},
		hashIn: result.HashIn, changed: result.Changed > 0,
	}
	for i := range result.Outputs {
		s := &result.Outputs[i]
		out.outputs = append(out.outputs, made{
			number: i, bytes: s.Bytes, sidecarBytes: s.SidecarBytes, rows: s.Rows, first: s.First, last: s.Last, formatVersion: s.FormatVersion,
			rowHash: s.RowHash, identified: s.Identified, sources: s.Sources,
		})
	}
	for _, d := range result.DeletedBy {
		out.deleted = append(out.deleted, lake.DeletedRows{Delete: d.Delete, Source: d.Source, Segment: inputs[d.Input].segment.ID, Rows: d.Rows})
	}
	return out, nil
}

// inputs says of each segment which of its rows leave, and what becomes of their fields.
func (m *logMerger) inputs(inputs []input, state plan.State) []segfile.MergeInput {
	all := make([]segfile.MergeInput, len(inputs))
	for i, in := range inputs {
		s := in.segment
		all[i] = segfile.MergeInput{
			Name: s.Key, Parquet: in.file, Size: in.file.size, MaskedSources: s.MaskedSources,
			Drop: m.drop(&s, state), Fields: m.fieldsOf(&s, state),
		}
	}
	return all
}

// expired returns what says whether a stream's rows in a segment are past their retention; nil: there are none.
func (m *logMerger) expired(s *lake.Segment, state plan.State) func(labels []columns.Label) bool {
	due := m.expiring(s, state)
	if len(due) == 0 {
		return nil
	}
	return func(labels []columns.Label) bool {
		p := m.decides(func(s *selector.Selector) bool { return s.Stream(labels) })
		return p != nil && due[p.rule]
	}
}

// drop says which rows of a segment leave.
func (m *logMerger) drop(s *lake.Segment, state plan.State) []segfile.RowRule {
	var all []segfile.RowRule
	for _, d := range plan.Deletes(s, state.Deletes) {
		all = append(all, m.deleted(d))
	}
	if expired := m.expired(s, state); expired != nil {
		all = append(all, segfile.RowRule{Reason: segfile.ReasonExpired, Start: math.MinInt64, End: math.MaxInt64, Stream: expired})
	}
	return all
}

func (m *logMerger) deleted(d lake.Delete) segfile.RowRule {
	rule := segfile.RowRule{Reason: segfile.ReasonDeleted, Delete: d.ID, Start: d.Start.UnixNano(), End: d.End.UnixNano()}
	chosen := m.selector(d)
	rule.Stream = chosen.Stream
	if !chosen.Simple() {
		rule.Row = chosen.NewMatcher().Row
	}
	return rule
}

// fieldsOf are the field rules to be applied to a segment.
func (m *logMerger) fieldsOf(s *lake.Segment, state plan.State) []segfile.FieldRule {
	var all []segfile.FieldRule
	for _, due := range m.planned.Due(s, state) {
		if rule, ok := m.fields[due.Name]; ok {
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

func (m *logMerger) finds(sidecar []byte, s *lake.Segment, state plan.State) (bool, error) {
	opened, err := segfile.OpenSidecar(bytes.Clone(sidecar))
	if err != nil {
		return false, fault.Wrap(fault.Internal, fmt.Errorf("sidecar of %s: %w", s.Key, err))
	}
	c := opened.Catalogue()
	if slices.ContainsFunc(plan.Deletes(s, state.Deletes), func(d lake.Delete) bool { return m.findsDeleted(c, d) }) {
		return true, nil
	}
	expired := m.expired(s, state)
	if expired != nil && slices.ContainsFunc(c.Streams, func(e segfile.StreamEntry) bool { return expired(e.Labels) }) {
		return true, nil
	}
	return slices.ContainsFunc(m.fieldsOf(s, state), func(f segfile.FieldRule) bool { return findsField(c, f.Name) }), nil
}

func (m *logMerger) findsDeleted(c *segfile.Catalogue, d lake.Delete) bool {
	chosen, start, end := m.selector(d), d.Start.UnixNano(), d.End.UnixNano()
	return slices.ContainsFunc(c.Streams, func(e segfile.StreamEntry) bool {
		return e.First < end && e.Last >= start && chosen.Stream(e.Labels)
	})
}

func findsField(c *segfile.Catalogue, field string) bool {
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
