// SPDX-License-Identifier: AGPL-3.0-only

package pipeline

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/decode"
	"github.com/lakerunner/lakerunner/services/ingestor/internal/metricmapping"
)

// metricSettings are what an organization says of its metrics.
type metricSettings struct {
	mapping   metricmapping.Options
	maxSeries int
	// retention is how long points themselves are kept; zero: for ever.
	retention time.Duration
	// finest are the finest tiers of rollups, by signal: of logs too.
	finest map[lake.Signal]config.RollupPolicy
}

func metricSettingsOf(s *config.Snapshot, id lake.Organization, l config.Limits) metricSettings {
	m := s.MetricsOf(id)
	settings := metricSettings{maxSeries: l.MaxSeries, mapping: metricmapping.OptionsOf(m, l)}
	if organization, ok := s.Organization(id); ok {
		settings.retention, settings.finest = organization.RawRetention(lake.SignalMetrics), finestOf(organization)
	}
	return settings
}

func finestOf(o *config.Organization) map[lake.Signal]config.RollupPolicy {
	finest := map[lake.Signal]config.RollupPolicy{}
	for _, signal := range []lake.Signal{lake.SignalLogs, lake.SignalMetrics} {
		if tiers := o.RollupsOf(signal); len(tiers) > 0 {
			finest[signal] = tiers[0]
		}
	}
	return finest
}

// PreviewOptionsOf are how an organization's object of this key is looked at.
func PreviewOptionsOf(s *config.Snapshot, r config.Resolution, key string) PreviewOptions {
	limits := limitsOf(s, r.Organization)
	m := metricSettingsOf(s, r.Organization, limits)
	return PreviewOptions{
		Limits: limits, Labels: s.StreamLabels(r), Metrics: m.mapping, MaxSeries: m.maxSeries, Retention: m.retention,
		Decode: decode.Options{Hint: r.Signal, Table: tableOf(s.MetricsOf(r.Organization), key)},
	}
}

// tableOf is how an object of this key is a table of metrics; nil: nobody said it.
func tableOf(m config.Metrics, key string) *decode.Table {
	mapping := m.Mapping(key)
	if mapping == nil {
		return nil
	}
	return &decode.Table{
		Time: mapping.Time, TimeUnit: mapping.TimeUnit, Name: mapping.Name, Value: mapping.Value, Values: mapping.Values, Labels: mapping.Labels,
		Static: mapping.Static, Prefix: mapping.Prefix, Type: mapping.Type,
	}
}
