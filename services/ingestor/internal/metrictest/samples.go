// SPDX-License-Identifier: AGPL-3.0-only

// Package metrictest says what metric segments hold as Prometheus would see it: samples of series. It is for tests; it reads with package metricfile
// and knows nothing else of how segments are stored.
package metrictest

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/columns"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/metricfile"
)

// Sample is one sample of one Prometheus series.
type Sample struct {
	Series string // its labels, as Prometheus writes them
	Time   int64  // ns since 1970
	Start  int64  // ns since 1970; 0: not known
	Value  string // as Float or Histogram has it
	Delta  bool
}

// Float is the text of a number: equal for equal bits, and for any other NaN than a stale marker.
func Float(f float64) string {
	if value.IsStaleNaN(f) {
		return "stale"
	}
	if f == 0 && math.Signbit(f) {
		return "-0"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// Histogram is the text of a native histogram, empty buckets left out.
func Histogram(h *histogram.FloatHistogram) string {
	if value.IsStaleNaN(h.Sum) {
		return "stale"
	}
	h = h.Copy().Compact(0)
	s := "schema " + strconv.Itoa(int(h.Schema)) + ", zero threshold " + Float(h.ZeroThreshold) + ", "
	if h.CounterResetHint == histogram.GaugeType {
		s += "gauge, "
	}
	return s + h.String()
}

// Sort sorts samples by series, time and value.
func Sort(samples []Sample) []Sample {
	slices.SortFunc(samples, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(a.Series, b.Series), cmp.Compare(a.Time, b.Time), cmp.Compare(a.Value, b.Value))
	})
	return samples
}

// Store returns the samples of all points of a store, by way of segments.
func Store(t testing.TB, st *metricfile.Store) []Sample {
	t.Helper()
	var samples []Sample
	StoreRows(t, st, func(s *metricfile.Series, p *metricfile.Points) { samples = append(samples, samplesOf(s, p)...) })
	return Sort(samples)
}

// StoreRows writes a store as segments and reads them row by row.
func StoreRows(t testing.TB, st *metricfile.Store, each func(s *metricfile.Series, p *metricfile.Points)) {
	t.Helper()
	hours := map[int64][]uint32{}
	for row := range st.Len() {
		hour := columns.HourOf(st.Time(row))
		hours[hour] = append(hours[hour], uint32(row))
	}
	for hour, rows := range hours {
		var parquet, sidecar bytes.Buffer
		m := metricfile.Meta{
			Organization: "acme", Signal: lake.SignalMetrics, Lease: "lease", Sources: []lake.ReceiptID{1},
			Window: lake.Window{Start: time.Unix(hour*3600, 0).UTC(), Length: time.Hour},
		}
		if _, err := metricfile.Write(context.Background(), &parquet, &sidecar, st, rows, m); err != nil {
			t.Fatal(err)
		}
		Rows(t, parquet.Bytes(), sidecar.Bytes(), each)
	}
}

// Segment returns the samples of a segment.
func Segment(t testing.TB, parquet, sidecar []byte) []Sample {
	t.Helper()
	var samples []Sample
	Rows(t, parquet, sidecar, func(s *metricfile.Series, p *metricfile.Points) { samples = append(samples, samplesOf(s, p)...) })
	return Sort(samples)
}

// Rows reads a segment row by row.
func Rows(t testing.TB, parquet, sidecar []byte, each func(s *metricfile.Series, p *metricfile.Points)) {
	t.Helper()
	c, err := metricfile.ReadCatalogue(sidecar)
	if err != nil {
		t.Fatal(err)
	}
	r, err := metricfile.Open(bytes.NewReader(parquet), int64(len(parquet)), c)
	if err != nil {
		t.Fatal(err)
	}
	for ordinal := range c.Len() {
		var p metricfile.Points
		if err := r.Points(ordinal, metricfile.WantAll, &p); err != nil {
			t.Fatal(err)
		}
		each(c.Series(ordinal), &p)
	}
}

func samplesOf(s *metricfile.Series, p *metricfile.Points) (samples []Sample) {
	for track, l := range s.Tracks() {
		values := p.Track(s, track, nil)
		for i := range p.Len() {
			sample := Sample{Series: l.String(), Time: p.Times[i], Delta: s.Delta}
			if len(p.Starts) > 0 {
				sample.Start = p.Starts[i]
			}
			if s.Kind == metricfile.KindHistogram {
				sample.Value = Histogram(p.Histograms[i])
			} else {
				sample.Value = Float(values[i])
			}
			samples = append(samples, sample)
		}
	}
	return samples
}
