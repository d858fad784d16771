// SPDX-License-Identifier: AGPL-3.0-only

package work

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

const day = 24 * time.Hour

// retained are policies of which the first that fits decides.
func retained() *config.Organization {
	policy := func(selector string, resolution, keep time.Duration) config.RetentionPolicy {
		return config.RetentionPolicy{Signal: lake.SignalMetrics, Selector: selector, Resolution: resolution, Keep: keep}
	}
	return &config.Organization{
		Retention: []config.RetentionPolicy{
			policy("", time.Minute, day), policy(`keep_bucket`, 0, 400*day), policy(`{pod="short"}`, config.Raw, 2*day), policy("", 0, 30*day),
		},
		Fields: []config.FieldRule{{Name: "pod", Signal: lake.SignalMetrics, Action: config.FieldDrop}},
	}
}

func TestMetricsAreKeptByTheFirstPolicyThatFits(t *testing.T) {
	t.Parallel()
	m := newMetricMerger(retained(), plan.Policy{Shard: 7})
	p := m.policy()
	if !p.Sharded || p.Shard != 7 || p.Format != metricfile.FormatVersion || len(p.Rules) != 3 {
		t.Errorf("%+v", p)
	}
	w := lake.WindowOf(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), time.Hour)
	s := &lake.Segment{Signal: lake.SignalMetrics, Window: w, FirstTime: w.Start, LastTime: w.End().Add(-1)}
	rows := map[string]*metricfile.Series{
		"short":                {Labels: labels.FromStrings("__name__", "x", "pod", "short")},
		"long":                 {Labels: labels.FromStrings("__name__", "x", "pod", "long")},
		"short, but kept":      {Labels: labels.FromStrings("__name__", "keep", "pod", "short"), Kind: metricfile.KindClassic},
		"short, of other kind": {Labels: labels.FromStrings("__name__", "keep", "pod", "short"), Kind: metricfile.KindSummary},
	}
	for after, gone := range map[time.Duration][]string{
		day:       nil,
		3 * day:   {"short", "short, of other kind"},
		31 * day:  {"short", "long", "short, of other kind"},
		500 * day: {"short", "long", "short, but kept", "short, of other kind"},
	} {
		state := plan.State{Window: w, Now: w.End().Add(after)}
		rules := m.drop(s, state)
		if (len(rules) > 0) != (gone != nil) {
			t.Errorf("after %s there are %d rules", after, len(rules))
			continue
		}
		expected := map[string]bool{}
		for _, name := range gone {
			expected[name] = true
		}
		for name, row := range rows {
			if len(rules) > 0 && (rules[0].Series(row) != expected[name] || rules[0].Reason != metricfile.ReasonExpired) {
				t.Errorf("after %s the series that is %s leaves: %t, want %t", after, name, !expected[name], expected[name])
			}
		}
	}
}
