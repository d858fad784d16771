// SPDX-License-Identifier: AGPL-3.0-only

package prom_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/prom/promtest"
)

func TestAnnotationsKeepWordsAndPlaceOnTheirWay(t *testing.T) {
	t.Parallel()
	m := &promtest.Memory{}
	m.Add(prom.Series{Labels: labels.FromStrings("__name__", "x"), Times: []int64{1, 2}, Values: []float64{1, 2}})
	const whole, part = `1 + sum(rate(x[5m])) + quantile(7, x)`, 4
	direct := evaluate(t, m, whole, 1000).Annotations
	wantWarnings, wantInfos := direct.AsStrings(whole, 0, 0)

	sent := prom.Annotations(evaluate(t, m, whole[part:], 1000).Annotations)
	var got annotations.Annotations
	prom.Annotate(&got, sent, part)
	prom.Annotate(&got, sent, part)
	warnings, infos := got.AsStrings(whole, 0, 0)
	if len(wantWarnings) != 1 || len(wantInfos) != 1 || !slices.Equal(warnings, wantWarnings) || !slices.Equal(infos, wantInfos) {
		t.Fatal(cmp.Diff(wantWarnings, warnings), cmp.Diff(wantInfos, infos))
	}
}
