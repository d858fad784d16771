// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/pkg/selector"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// metricMerger merges segments of metrics. There are no field rules for them: what identifies a series is not to be changed.
type metricMerger struct {
	rules[*selector.SeriesSelector]
}

func newMetricMerger(organization *config.Organization, policy plan.Policy) *metricMerger {
	policy.Format, policy.Sharded = metricfile.FormatVersion, true
	m := &metricMerger{newRules(policy, selector.ParseSeries)}
	m.retain(organization.RetentionOf(lake.SignalMetrics))
	return m
}

func (m *metricMerger) readsSidecars() bool { return true }

func (m *metricMerger) merge(ctx context.Context, inputs []input, o mergeOptions) (merged, error) {
	all, err := m.inputs(ctx, inputs, o.state)
	if err != nil {
		return merged{}, err
	}
	result, err := metricfile.Merge(ctx, all, metricfile.MergeOptions{
		Meta: metricfile.Meta{
			Organization: o.organization, Signal: lake.SignalMetrics, Window: o.merge.Window, Level: o.merge.Level, Lease: o.lease,
			AppliedDelete: o.state.Latest, Rules: o.merge.Rules, Inputs: keysOf(inputs),
		},
		Shards: o.merge.Shards, Memory: o.memory, Create: o.create,
	})
	if err != nil {
		return merged{}, err
	}
	out := merged{
		account: Account{
			In: result.RowsIn, Out: result.RowsOut, Deduplicated: result.Deduplicated, Masked: result.Masked, Deleted: result.Deleted, Expired: result.Expired,
		},
		hashIn: result.HashIn,
	}
	for i := range result.Outputs {
		s := &result.Outputs[i]
		out.outputs = append(out.outputs, made{
			number: int(s.Shard.Index), bytes: s.Bytes, sidecarBytes: s.SidecarBytes, rows: s.Rows, first: s.First, last: s.Last,
			formatVersion: s.FormatVersion, rowHash: s.RowHash, shard: s.Shard, sources: s.Sources,
		})
	}
	for _, d := range result.DeletedBy {
		out.deleted = append(out.deleted, lake.DeletedRows{Delete: d.Delete, Source: d.Source, Segment: inputs[d.Input].segment.ID, Rows: d.Rows})
	}
	return out, nil
}

func (m *metricMerger) inputs(ctx context.Context, inputs []input, state plan.State) ([]metricfile.MergeInput, error) {
	all := make([]metricfile.MergeInput, len(inputs))
	for i, in := range inputs {
		s := in.segment
		if in.sidecar == nil {
			var err error
			if _, in.sidecar, err = metricfile.RebuildCatalogue(ctx, in.file, in.file.size); err != nil {
				return nil, fmt.Errorf("make the sidecar of %s: %w", s.Key, err)
			}
		}
		all[i] = metricfile.MergeInput{
			Name: s.Key, Parquet: in.file, Size: in.file.size, Sidecar: in.sidecar, MaskedSources: s.MaskedSources, Drop: m.drop(&s, state),
		}
	}
	return all, nil
}

// drop says which points of a segment leave.
func (m *metricMerger) drop(s *lake.Segment, state plan.State) []metricfile.DropRule {
	var all []metricfile.DropRule
	for _, d := range plan.Deletes(s, state.Deletes) {
		all = append(all, metricfile.DropRule{
			Reason: metricfile.ReasonDeleted, Delete: d.ID, Start: d.Start.UnixNano(), End: d.End.UnixNano(), Series: m.selector(d).Matches,
		})
	}
	if expired := m.expired(s, state); expired != nil {
		all = append(all, metricfile.DropRule{Reason: metricfile.ReasonExpired, Start: math.MinInt64, End: math.MaxInt64, Series: expired})
	}
	return all
}

// expired returns what says whether a row's points in a segment are past their retention; nil: there are none.
func (m *metricMerger) expired(s *lake.Segment, state plan.State) func(row *metricfile.Series) bool {
	due := m.expiring(s, state)
	if len(due) == 0 {
		return nil
	}
	return func(row *metricfile.Series) bool {
		p := m.decides(func(s *selector.SeriesSelector) bool { return s.Matches(row) })
		return p != nil && due[p.rule]
	}
}

func (m *metricMerger) finds(sidecar []byte, s *lake.Segment, state plan.State) (bool, error) {
	c, err := metricfile.ReadCatalogue(sidecar)
	if err != nil {
		return false, fault.Wrap(fault.Internal, fmt.Errorf("sidecar of %s: %w", s.Key, err))
	}
	if slices.ContainsFunc(plan.Deletes(s, state.Deletes), func(d lake.Delete) bool { return m.findsDeleted(c, d) }) {
		return true, nil
	}
	if expired := m.expired(s, state); expired != nil {
		for i := range c.Len() {
			if expired(c.Series(i)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// findsDeleted looks for points, and for exemplars, whose times may be others.
func (m *metricMerger) findsDeleted(c *metricfile.Catalogue, d lake.Delete) bool {
	start, end := d.Start.UnixNano(), d.End.UnixNano()
	return slices.ContainsFunc(c.Select(m.selector(d).Matchers(), lake.Shard{}), func(ordinal int) bool {
		e := c.Entry(ordinal)
		return e.Exemplars > 0 || e.First < end && e.Last >= start
	})
}
