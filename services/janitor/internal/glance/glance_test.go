// SPDX-License-Identifier: AGPL-3.0-only

package glance_test

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/janitor/internal/glance"
)

func TestFiguresAreTold(t *testing.T) {
	t.Parallel()
	got := collect(t, func(context.Context) ([]*janitorv1.OrganizationStatus, error) {
		return []*janitorv1.OrganizationStatus{
			{Organization: "acme", Debt: &janitorv1.Count{Segments: 7}, Buried: map[string]int64{"ingest": 2, "compact": 1}, DollarsPerMonth: 1.5},
			{Organization: "beta", LastRetention: &janitorv1.RetentionRun{Verified: &janitorv1.Count{Segments: 4}}},
		}, nil
	})
	for key, want := range map[string]float64{
		"lakerunner.janitor.debt_segments acme ":              7,
		"lakerunner.janitor.debt_segments beta ":              0,
		"lakerunner.janitor.buried_tasks acme ":               3,
		"lakerunner.janitor.price acme ":                      1.5,
		"lakerunner.janitor.retention_segments beta verified": 4,
		"lakerunner.janitor.retention_segments beta due":      0,
	} {
		if value, told := got[key]; !told || value != want {
			t.Errorf("%s = %v (told: %v), want %v", key, value, told, want)
		}
	}
}

func TestNothingIsToldWhileTheStatusCannotBeRead(t *testing.T) {
	t.Parallel()
	got := collect(t, func(context.Context) ([]*janitorv1.OrganizationStatus, error) { return nil, errors.New("away") })
	if len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// collect returns the values by name, organization and step.
func collect(t *testing.T, read glance.Read) map[string]float64 {
	t.Helper()
	reader := metric.NewManualReader()
	if err := glance.Register(metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"), read); err != nil {
		t.Fatal(err)
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			gauge, ok := m.Data.(metricdata.Gauge[float64])
			if !ok {
				t.Fatalf("%s is a %T", m.Name, m.Data)
			}
			for _, p := range gauge.DataPoints {
				organization, _ := p.Attributes.Value(attribute.Key("organization"))
				step, _ := p.Attributes.Value("step")
				values[m.Name+" "+organization.AsString()+" "+step.AsString()] = p.Value
			}
		}
	}
	return values
}
