// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// metricSettings are what an organization says of its metrics.
type metricSettings struct {
	mapping   metricmapping.Options
	maxSeries int
	// retention is how long points themselves are kept; zero: for ever.
	retention time.Duration
	// rollups are the tiers, finest first.
	rollups []config.RollupPolicy
}

func metricSettingsOf(s *config.Snapshot, id lake.Organization, l config.Limits) metricSettings {
	m := s.MetricsOf(id)
	settings := metricSettings{maxSeries: l.MaxSeries, mapping: metricmapping.Options{
		Promote: m.PromoteResourceAttributes, Identifying: m.IdentifyingAttributes, UTF8: m.UTF8Names, Suffixes: m.Suffixes,
		ScopeLabels: m.ScopeLabels, TargetInfo: m.TargetInfo, MaxAttributes: l.MaxAttributes, MaxLabelBytes: l.MaxLineBytes,
	}}
	if organization, ok := s.Organization(id); ok {
		settings.retention, settings.rollups = organization.RawRetention(lake.SignalMetrics), organization.RollupsOf(lake.SignalMetrics)
	}
	return settings
}

// PreviewOptionsOf are how an organization's objects are looked at, but for what one object decides.
func PreviewOptionsOf(s *config.Snapshot, id lake.Organization) PreviewOptions {
	limits := limitsOf(s, id)
	m := metricSettingsOf(s, id, limits)
	return PreviewOptions{Limits: limits, Metrics: m.mapping, MaxSeries: m.maxSeries, Retention: m.retention}
}
