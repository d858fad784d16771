// SPDX-License-Identifier: AGPL-3.0-only

package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const metricSettings = `
limits: {max_query_samples: 7, max_object_series: 8}
metrics: {promote_resource_attributes: [team], target_info: false}
rollups: [{resolution: 5m, after: 1h}]
organizations:
  - id: acme
    retention:
      - {signal: metrics, resolution: raw, keep: 14d}
      - {signal: metrics, resolution: 1h, keep: 2y}
      - {signal: metrics, keep: 90d}
      - {signal: logs, selector: '{service_name="audit"}', keep: 1y}
      - {signal: logs, keep: 30d}
    rollups:
      - {resolution: 1h, after: 2h}
      - {resolution: 10s, sketches: ["http_.*_seconds", rpc]}
      - {signal: logs, resolution: 1m}
    limits: {max_query_samples: 9}
    metrics:
      utf8_names: true
      mappings:
        - {key: "meters/*.csv", time: at, time_unit: ms, values: [volts, amps], labels: [], static: {site: north}, type: gauge}
        - {key: "*", time: t, name: metric, value: v}
  - {id: globex, rollups: []}
  - {id: initech, retention: [{signal: metrics, keep: 2d}]}
  - {id: umbrella}
`

func TestMetricSettings(t *testing.T) {
	t.Parallel()
	live := open(t, config.Options{Files: []string{writeLifecycle(t, metricSettings)}})
	s := live.Current()
	of := func(id lake.Organization) *config.Organization {
		organization, _ := s.Organization(id)
		return organization
	}
	acme := of("acme")

	t.Run("tiers come finest first, those of the top level where an organization has none", func(t *testing.T) {
		t.Parallel()
		want := []config.RollupPolicy{
			{Signal: lake.SignalMetrics, Resolution: 10 * time.Second, Sketches: []string{"http_.*_seconds", "rpc"}},
			{Signal: lake.SignalMetrics, Resolution: time.Hour, After: 2 * time.Hour},
		}
		if diff := cmp.Diff(want, acme.RollupsOf(lake.SignalMetrics)); diff != "" {
			t.Error(diff)
		}
		logs, none, outer := acme.RollupsOf(lake.SignalLogs), of("globex").Rollups, of("umbrella").Rollups
		if len(logs) != 1 || len(none) != 0 || len(outer) != 1 || outer[0].Resolution != 5*time.Minute {
			t.Errorf("got %v, %v and %v", logs, none, outer)
		}
	})
	t.Run("sketches are for whole names", func(t *testing.T) {
		t.Parallel()
		tiers := acme.RollupsOf(lake.SignalMetrics)
		has := tiers[0].Sketched()
		if !has("http_request_seconds") || !has("rpc") || has("rpc_total") || has("x_http_request_seconds") || tiers[1].Sketched() != nil {
			t.Error("sketches of the wrong metrics")
		}
	})
	t.Run("each resolution is kept as its first policy says", func(t *testing.T) {
		t.Parallel()
		for resolution, want := range map[time.Duration]time.Duration{
			0: 14 * day, 10 * time.Second: 90 * day, 5 * time.Minute: 90 * day, time.Hour: 730 * day,
		} {
			if got := acme.TierRetention(lake.SignalMetrics, resolution); got != want {
				t.Errorf("%s: got %s, want %s", resolution, got, want)
			}
		}
		got := []time.Duration{
			acme.RawRetention(lake.SignalMetrics), acme.RawRetention(lake.SignalLogs), acme.TierRetention(lake.SignalLogs, time.Minute),
			of("umbrella").RawRetention(lake.SignalMetrics), of("umbrella").TierRetention(lake.SignalMetrics, time.Hour),
		}
		if diff := cmp.Diff([]time.Duration{14 * day, 365 * day, 30 * day, 0, 0}, got); diff != "" {
			t.Error(diff)
		}
		if raw := acme.RetentionOf(lake.SignalMetrics); len(raw) != 2 || raw[0].Resolution != config.Raw || raw[1].Keep != 90*day {
			t.Errorf("policies of raw rows: got %v", raw)
		}
	})
	t.Run("settings are laid over those of the top level one by one", func(t *testing.T) {
		t.Parallel()
		want := config.DefaultMetrics()
		want.PromoteResourceAttributes, want.TargetInfo = []string{"team"}, false
		if diff := cmp.Diff(want, of("globex").Metrics); diff != "" {
			t.Error(diff)
		}
		want.UTF8Names = true
		want.Mappings = []config.MetricMapping{
			{
				Key: "meters/*.csv", Time: "at", TimeUnit: "ms", Values: []string{"volts", "amps"}, Labels: []string{},
				Static: map[string]string{"site": "north"}, Type: "gauge",
			},
			{Key: "*", Time: "t", Name: "metric", Value: "v"},
		}
		if diff := cmp.Diff(want, acme.Metrics); diff != "" {
			t.Error(diff)
		}
		if l := acme.Limits; l.MaxQuerySamples != 9 || l.MaxSeries != 8 || of("globex").Limits.MaxQuerySamples != 7 {
			t.Errorf("got %+v", l)
		}
	})
	t.Run("the first mapping whose pattern fits the key is an object's", func(t *testing.T) {
		t.Parallel()
		for key, want := range map[string]string{"meters/2026/x.csv": "at", "meters/x.csv.gz": "t", "meters.csv": "t"} {
			if got := acme.Metrics.Mapping(key); got == nil || got.Time != want {
				t.Errorf("%s: got %+v", key, got)
			}
		}
		if got := s.MetricsOf("umbrella"); got.Mapping("x.csv") != nil {
			t.Error("want none")
		}
	})
	t.Run("what is shown can be read again", func(t *testing.T) {
		t.Parallel()
		document, err := live.Document()
		if err != nil {
			t.Fatal(err)
		}
		again := open(t, config.Options{Files: []string{writeLifecycle(t, document)}}).Current()
		if diff := cmp.Diff(s.Organizations(), again.Organizations()); diff != "" {
			t.Errorf("%s\n%s", document, diff)
		}
	})
}

func TestDefaultTiersAreMadeInTime(t *testing.T) {
	t.Parallel()
	s := snapshot(t, `organizations: [{id: a, retention: [{signal: metrics, resolution: raw, keep: 1d}]}]`)
	a, _ := s.Organization("a")
	if got := a.RollupsOf(lake.SignalMetrics); len(got) != 1 || got[0].Resolution != time.Minute {
		t.Errorf("raw rows of a day last for hours' windows only, got %v", got)
	}
}

func TestMetricSettingsThatAreWrong(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		`limits: {max_query_samples: -1}`:                                                                    "limits.max_query_samples is negative",
		`limits: {max_object_series: -1}`:                                                                    "limits.max_object_series is negative",
		`rollups: [{resolution: 30s}]`:                                                                       "lifecycle.yaml:1: rollups[0]: resolution is 30s; want 10s, 1m, 5m, 20m or 1h",
		`rollups: [{resolution: 1m}, {resolution: 60s}]`:                                                     "keep one",
		`rollups: [{signal: spans, resolution: 1m}]`:                                                         "of metrics and logs only",
		`rollups: [{resolution: 1m, sketches: ["("]}]`:                                                       "no regular expression",
		`rollups: [{signal: logs, resolution: 1m, sketches: [x]}]`:                                           "for metrics only",
		`rollups: [{resolution: 1m, after: -1s}]`:                                                            "after is negative",
		"retention: [{signal: metrics, keep: 1d}]\nrollups: [{resolution: 1h}, {resolution: 1m, after: 2d}]": "lifecycle.yaml:2: the rollup of metrics to 1m is made 48h0m0s after windows of 1h0m0s, and rows are kept for 24h0m0s only",
		`organizations: [{id: a, rollups: [{resolution: 1h}], retention: [{signal: metrics, keep: 1h}]}]`:    "leave it out",
		`metrics: {promote_resource_attributes: [""]}`:                                                       "has no name",
		`metrics: {mappings: [{time: t, values: [a]}]}`:                                                      "has no key",
		`metrics: {mappings: [{key: a, values: [a]}]}`:                                                       "has no time",
		`metrics: {mappings: [{key: a, time: t}]}`:                                                           "give either name and value, or values",
		`metrics: {mappings: [{key: a, time: t, name: n}]}`:                                                  "belong together",
		`metrics: {mappings: [{key: a, time: t, time_unit: h, values: [a]}]}`:                                "want s, ms, us or ns",
		`metrics: {mappings: [{key: a, time: t, type: histogram, values: [a]}]}`:                             "want gauge, counter or unknown",
		`organizations: [{id: a, metrics: {utf8_name: true}}]`:                                               `did you mean "utf8_names"?`,
	} {
		_, err := config.Open(t.Context(), config.Options{Files: []string{writeLifecycle(t, document)}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v", document, want, err)
		}
	}
}
