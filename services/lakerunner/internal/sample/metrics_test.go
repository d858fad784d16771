// SPDX-License-Identifier: AGPL-3.0-only

package sample_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/sample"
)

func metricOptions(seed uint64) sample.MetricOptions {
	return sample.MetricOptions{Seed: seed, End: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Length: 12 * time.Minute, Objects: 4}
}

func makeMetrics(t *testing.T, o sample.MetricOptions) ([]sample.MetricObject, []sample.Series) {
	t.Helper()
	objects, series, err := sample.MetricObjects(o)
	if err != nil {
		t.Fatal(err)
	}
	return objects, series
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	t.Run("the same seed makes the same bytes", func(t *testing.T) {
		t.Parallel()
		first, _ := makeMetrics(t, metricOptions(1))
		again, _ := makeMetrics(t, metricOptions(1))
		if diff := cmp.Diff(first, again); diff != "" {
			t.Error(diff)
		}
		other, _ := makeMetrics(t, metricOptions(2))
		if bytes.Equal(first[0].Body, other[0].Body) {
			t.Error("two seeds made the same object")
		}
	})
	t.Run("every point is in its object, inside the asked time", func(t *testing.T) {
		t.Parallel()
		o := metricOptions(3)
		objects, series := makeMetrics(t, o)
		for _, object := range objects {
			if got := unpacked(t, object.Body).DataPointCount(); got == 0 || got > object.Points {
				t.Errorf("%s holds %d points of %d", object.Key, got, object.Points)
			}
		}
		for _, s := range series {
			for i, one := range s.Samples {
				if one.Time < o.End.Add(-o.Length).UnixMilli() || one.Time >= o.End.UnixMilli() || i > 0 && one.Time < s.Samples[i-1].Time {
					t.Errorf("%s has a sample at %d", s.Labels, one.Time)
				}
			}
		}
	})
	t.Run("there is something of everything", func(t *testing.T) {
		t.Parallel()
		_, series := makeMetrics(t, metricOptions(4))
		found := map[string]bool{}
		for _, s := range series {
			found["delta"] = found["delta"] || s.Delta
			found["exemplar"] = found["exemplar"] || len(s.Exemplars) > 0
			found["quantile"] = found["quantile"] || s.Labels.Get("quantile") != ""
			found["no instance"] = found["no instance"] || s.Labels.Get("instance") == ""
			for i, one := range s.Samples {
				found["histogram"] = found["histogram"] || one.Histogram != nil
				found["stale"] = found["stale"] || value.IsStaleNaN(one.Value)
				if i > 0 {
					before := s.Samples[i-1]
					found["reset"] = found["reset"] || s.Labels.Get("__name__") == "http_server_requests_total" && one.Value < before.Value && one.Start > before.Start
					found["gap"] = found["gap"] || one.Time-before.Time > 60_000
				}
			}
		}
		for _, what := range []string{"delta", "exemplar", "quantile", "no instance", "histogram", "stale", "reset", "gap"} {
			if !found[what] {
				t.Errorf("no %s", what)
			}
		}
	})
}

// TestMetricsArePrometheus holds the series that are said to be in the objects to what Prometheus makes of the objects.
func TestMetricsArePrometheus(t *testing.T) {
	t.Parallel()
	o := metricOptions(5)
	o.Length = 5 * time.Minute
	objects, series := makeMetrics(t, o)
	want := map[string][]string{}
	promote := promconfig.OTLPConfig{PromoteResourceAttributes: config.DefaultMetrics().PromoteResourceAttributes}
	for _, o := range objects {
		a := &prometheus{samples: want}
		_, err := prometheusremotewrite.NewPrometheusConverter(a).FromMetrics(context.Background(), unpacked(t, o.Body), prometheusremotewrite.Settings{
			AddMetricSuffixes: true, AllowDeltaTemporality: true, PromoteScopeMetadata: true,
			PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(promote),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string][]string{}
	for _, s := range series {
		for _, one := range s.Samples {
			got[s.Labels.String()] = append(got[s.Labels.String()], described(one.Start, one.Time, one.Value, one.Histogram))
		}
		for _, e := range s.Exemplars {
			got[s.Labels.String()] = append(got[s.Labels.String()], fmt.Sprint("exemplar ", e.Labels, e.Value, e.Time))
		}
	}
	for _, samples := range []map[string][]string{want, got} {
		for name := range samples {
			slices.Sort(samples[name])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(- Prometheus, + said)\n%s", diff[:min(len(diff), 5000)])
	}
}

// prometheus keeps what Prometheus would store.
type prometheus struct{ samples map[string][]string }

func (p *prometheus) Append(_ storage.SeriesRef, l labels.Labels, st, at int64, v float64, h *histogram.Histogram, _ *histogram.FloatHistogram, o storage.AOptions) (storage.SeriesRef, error) {
	var f *histogram.FloatHistogram
	if h != nil {
		f = h.ToFloat(nil)
	}
	p.samples[l.String()] = append(p.samples[l.String()], described(st, at, v, f))
	for _, e := range o.Exemplars {
		if l.Get(model.BucketLabel) != "" {
			p.samples[l.String()] = append(p.samples[l.String()], fmt.Sprint("exemplar ", e.Labels, e.Value, e.Ts))
		}
	}
	return 1, nil
}

func (*prometheus) Commit() error   { return nil }
func (*prometheus) Rollback() error { return nil }

func described(start, at int64, v float64, h *histogram.FloatHistogram) string {
	switch {
	case h != nil && value.IsStaleNaN(h.Sum), h == nil && value.IsStaleNaN(v):
		return fmt.Sprint(start, at, " stale")
	case h != nil && h.Schema == histogram.ExponentialSchemaMax:
		// Made coarser, where Prometheus puts what is behind an empty bucket into the wrong one.
		return fmt.Sprint(start, at, " ", h.ZeroThreshold, h.ZeroCount, h.Count, h.Sum)
	case h != nil:
		return fmt.Sprint(start, at, " ", h.Schema, h.ZeroThreshold, h.Copy().Compact(0))
	}
	return fmt.Sprintf("%d %d %x", start, at, math.Float64bits(v))
}

func unpacked(t *testing.T, body []byte) pmetric.Metrics {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	m, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
