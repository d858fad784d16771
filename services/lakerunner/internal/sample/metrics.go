// SPDX-License-Identifier: AGPL-3.0-only

package sample

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
)

// MetricOptions say which metrics to make: those of the same shop, with the same pods, as Objects makes of the same seed. The zero value of an optional
// field takes its default.
type MetricOptions struct {
	Seed         uint64
	Organization string        // part of the keys; default "default"
	Collector    string        // part of the keys; default "shop"
	End          time.Time     // time after the last point
	Length       time.Duration // time covered; default 1 hour
	Step         time.Duration // between points of a series; default 15 seconds
	Objects      int           // objects they are spread over, in time order; default 12
	Endless      bool          // keep nothing: Series has no samples
}

// MetricObject is one source object.
type MetricObject struct {
	Key    string
	Body   []byte // gzipped OTLP protobuf
	Points int    // rows that segments hold of it: points of OTLP, and those of target_info
}

// Series is a series as Prometheus would have it of the same metrics, with the configuration's defaults.
type Series struct {
	Labels    labels.Labels
	Delta     bool
	Samples   []Sample
	Exemplars []Exemplar
}

// Sample is one sample.
type Sample struct {
	Time, Start int64 // ms since 1970; a start of 0 is not known
	Value       float64
	Histogram   *histogram.FloatHistogram // nil: Value
}

// Exemplar is one exemplar of a series.
type Exemplar struct {
	Labels labels.Labels
	Value  float64
	Time   int64 // ms since 1970
}

// Metrics makes metrics, object by object. In the first Length of time one pod restarts, one is not heard of for a while, and one ends; in a Length of
// less than a step nothing happens, and all begins at End.
type Metrics struct {
	options MetricOptions
	world   *metricWorld
	next    time.Time
	series  map[uint64]*Series
}

func (o MetricOptions) withDefaults() MetricOptions {
	o.Organization, o.Collector = cmp.Or(o.Organization, "default"), cmp.Or(o.Collector, "shop")
	o.Length, o.Step, o.Objects = cmp.Or(o.Length, time.Hour), cmp.Or(o.Step, 15*time.Second), cmp.Or(o.Objects, 12)
	return o
}

// NewMetrics begins metrics at Length before End.
func NewMetrics(o MetricOptions) *Metrics {
	o = o.withDefaults()
	start := o.End.Add(-o.Length)
	return &Metrics{options: o, world: newMetricWorld(o, start), next: start, series: map[uint64]*Series{}}
}

// MetricObjects makes the objects, and the series that they amount to.
func MetricObjects(o MetricOptions) ([]MetricObject, []Series, error) {
	o = o.withDefaults()
	m := NewMetrics(o)
	objects := make([]MetricObject, 0, o.Objects)
	for i := range o.Objects {
		object, err := m.Object(o.End.Add(-o.Length + o.Length*time.Duration(i+1)/time.Duration(o.Objects)))
		if err != nil {
			return nil, nil, err
		}
		objects = append(objects, object)
	}
	return objects, m.Series(), nil
}

// Object makes the next object: the whole steps from the end of the last one until a time. All its points are before that.
func (m *Metrics) Object(until time.Time) (MetricObject, error) {
	start := m.next
	w := newMetricWriter(m)
	for ; !m.next.Add(m.options.Step).After(until); m.next = m.next.Add(m.options.Step) {
		for _, p := range m.world.pods {
			m.world.observe(p, m.next, m.options.Step)
			w.write(p, m.next)
		}
	}
	w.targets()
	body, err := compressMetrics(w.data())
	if err != nil {
		return MetricObject{}, err
	}
	key := fmt.Sprintf("otel-raw/%s/%s/%s/metrics_%d.binpb.gz", m.options.Organization, m.options.Collector,
		start.UTC().Format("year=2006/month=01/day=02/hour=15/minute=04"), start.UnixNano())
	return MetricObject{Key: key, Body: body, Points: w.points}, nil
}

// Series are all series so far, sorted by their labels, samples by time.
func (m *Metrics) Series() []Series {
	all := make([]Series, 0, len(m.series))
	for _, s := range m.series {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return all
}

// at returns the series of these labels.
func (m *Metrics) at(l labels.Labels, delta bool) *Series {
	hash := labels.StableHash(l)
	s, ok := m.series[hash]
	if !ok {
		s = &Series{Labels: l, Delta: delta}
		m.series[hash] = s
	}
	return s
}

// Points counts the rows that segments hold of objects.
func Points(objects []MetricObject) int {
	n := 0
	for _, o := range objects {
		n += o.Points
	}
	return n
}

func compressMetrics(data *metricspb.MetricsData) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encode sample metrics: %w", err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("compress sample metrics: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress sample metrics: %w", err)
	}
	return out.Bytes(), nil
}
