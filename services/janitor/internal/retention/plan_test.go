// SPDX-License-Identifier: AGPL-3.0-only

package retention

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/config"
)

func TestPlanOf(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	policy := func(selector string, days int) config.RetentionPolicy {
		return config.RetentionPolicy{Selector: selector, Keep: time.Duration(days) * day}
	}
	for name, test := range map[string]struct {
		policies []config.RetentionPolicy
		want     Plan
	}{
		"no policy keeps all for ever":  {nil, Plan{}},
		"one for all rows is the whole": {[]config.RetentionPolicy{policy("", 30)}, Plan{Whole: 30 * day, Keep: 30 * day}},
		"T1: a longer selector keeps segments, whose other rows leave by compaction": {
			[]config.RetentionPolicy{policy("{a}", 90), policy("", 30)},
			Plan{Whole: 90 * day, Keep: 30 * day, Partial: []Rule{{Name: "1", Keep: 30 * day}}},
		},
		"a shorter selector leaves by compaction, the rest with its segments": {
			[]config.RetentionPolicy{policy("{a}", 3), policy("", 30)},
			Plan{Whole: 30 * day, Keep: 30 * day, Partial: []Rule{{Name: "0", Keep: 3 * day}}},
		},
		"T1: selectors alone let no segment go": {
			[]config.RetentionPolicy{policy("{a}", 3)}, Plan{Partial: []Rule{{Name: "0", Keep: 3 * day}}},
		},
		"what stands behind a policy for all rows decides nothing": {
			[]config.RetentionPolicy{policy("", 30), policy("{a}", 300)}, Plan{Whole: 30 * day, Keep: 30 * day},
		},
		"policies of rollups are not for rows": {
			[]config.RetentionPolicy{{Resolution: time.Minute, Keep: day}, policy("", 30)}, Plan{Whole: 30 * day, Keep: 30 * day},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names := config.RetentionRules(test.policies)
			for i, rule := range test.want.Partial {
				place, err := strconv.Atoi(rule.Name)
				if err != nil {
					t.Fatal(err)
				}
				test.want.Partial[i].Name = names[place]
			}
			if diff := cmp.Diff(test.want, PlanOf(test.policies), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
