// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// metricJSON walks the metrics of OTLP's JSON. A metric that the content ends in is left out whole, since what its points are stands after them.
type metricJSON struct {
	*jsonDecoder
	to     MetricSink
	metric Metric
	point  Point
	// crowded says that the point at hand has more buckets than MaxBuckets.
	crowded bool
}

func decodeJSONMetrics(r *Reader, o Options, to MetricSink) error {
	d := &metricJSON{jsonDecoder: newJSONDecoder(r, o), to: to}
	d.described = true
	d.signal, d.announce, d.reject, d.give = lake.SignalMetrics, to.Origin, to.Reject, d.metrics
	return d.documents(o)
}

// metrics gives the points of an array of metrics.
func (d *metricJSON) metrics() error {
	c := &d.cursor
	if !c.open('[') {
		return nil
	}
	unescaped, text := len(c.unescaped), len(d.text)
	for c.next() {
		c.unescaped, d.text = c.unescaped[:unescaped], d.text[:text]
		data := d.header()
		if c.cut {
			return nil
		}
		if d.metric.Kind == MetricNone {
			continue
		}
		end := c.i
		c.i = data
		if err := d.data(); err != nil {
			return err
		}
		c.i = end
	}
	return nil
}

// header reads what describes a metric, and returns where its data stand.
func (d *metricJSON) header() (data int) {
	c := &d.cursor
	d.metric = Metric{}
	if !c.open('{') {
		return 0
	}
	for c.next() {
		switch key := c.str(); key {
		case "name":
			d.metric.Name = c.str()
		case "description":
			d.metric.Description = c.str()
		case "unit":
			d.metric.Unit = c.str()
		default:
			if kind := metricKindOf(key); kind != MetricNone && c.kind() == '{' {
				d.metric.Kind, data = kind, c.i
			}
			c.skip()
		}
	}
	return data
}

func metricKindOf(key string) MetricKind {
	switch key {
	case "gauge":
		return MetricGauge
	case "sum":
		return MetricSum
	case "histogram":
		return MetricHistogram
	case "exponentialHistogram", "exponential_histogram":
		return MetricExponential
	case "summary":
		return MetricSummary
	}
	return MetricNone
}

// data gives the points of a metric.
func (d *metricJSON) data() error {
	c := &d.cursor
	var points []int
	c.open('{')
	for c.next() {
		switch c.str() {
		case "dataPoints", "data_points":
			c.kind()
			points = append(points, c.i)
			c.skip()
		case "aggregationTemporality", "aggregation_temporality":
			d.metric.Temporality = temporalityOf(c.str())
		case "isMonotonic", "is_monotonic":
			d.metric.Monotonic = c.str() == "true"
		default:
			c.skip()
		}
	}
	if len(points) == 0 {
		return nil
	}
	d.to.Metric(&d.metric)
	for _, at := range points {
		c.i = at
		if err := d.points(); err != nil {
			return err
		}
	}
	return nil
}

func temporalityOf(s string) Temporality {
	switch s {
	case "1", "AGGREGATION_TEMPORALITY_DELTA":
		return TemporalityDelta
	case "2", "AGGREGATION_TEMPORALITY_CUMULATIVE":
		return TemporalityCumulative
	}
	return TemporalityNone
}

func (d *metricJSON) points() error {
	c := &d.cursor
	if !c.open('[') {
		return nil
	}
	unescaped, text := len(c.unescaped), len(d.text)
	for c.next() {
		c.unescaped, d.text = c.unescaped[:unescaped], d.text[:text]
		from := c.i
		good := d.onePoint()
		raw := c.b[from:c.i]
		var err error
		switch {
		case d.crowded:
			err = d.to.Reject(ReasonTooManyBuckets, raw[:min(len(raw), maxRejected)])
		case !good:
			err = d.to.Reject(ReasonMalformed, raw[:min(len(raw), maxRejected)])
		default:
			err = d.to.Point(&d.point)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onePoint reads a point; false if it cannot be one.
func (d *metricJSON) onePoint() bool {
	c, p := &d.cursor, &d.point
	p.reset()
	p.HasSum = d.metric.Kind == MetricSummary
	d.crowded = false
	if !c.open('{') {
		return false
	}
	for c.next() {
		switch key := c.str(); key {
		case "attributes":
			p.Attributes = d.attributes(p.Attributes)
		case "startTimeUnixNano", "start_time_unix_nano":
			p.Start = signed(unsignedOf(c.str()))
		case "timeUnixNano", "time_unix_nano":
			p.Time = signed(unsignedOf(c.str()))
		case "flags":
			p.Stale = flagsOf(c.str())&1 != 0
		case "exemplars":
			d.exemplars()
		default:
			d.pointValue(key)
		}
	}
	if p.Time == 0 {
		p.Time = d.objectTime
	}
	switch d.metric.Kind {
	case MetricHistogram:
		return p.tidyHistogram()
	case MetricSummary:
		return p.tidySummary()
	}
	return true
}

func flagsOf(s string) uint64 {
	if s == "DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK" {
		return 1
	}
	return unsignedOf(s)
}

// pointValue reads a field of a point that says what was measured.
func (d *metricJSON) pointValue(key string) {
	c, p := &d.cursor, &d.point
	switch key {
	case "asDouble", "as_double":
		p.Value = floatOf(c.str())
	case "asInt", "as_int":
		p.Value = float64(signedOf(c.str()))
	case "count":
		p.Count = unsignedOf(c.str())
	case "sum":
		s := c.str()
		p.Sum, p.HasSum = floatOf(s), p.HasSum || s != "null"
	case "bucketCounts", "bucket_counts":
		p.Counts = d.counts(p.Counts, MaxBuckets+1)
	case "explicitBounds", "explicit_bounds":
		p.Bounds = d.doubles(p.Bounds)
	case "quantileValues", "quantile_values":
		d.quantiles()
	default:
		d.exponentialValue(key)
	}
}

func (d *metricJSON) exponentialValue(key string) {
	c, e := &d.cursor, &d.point.Exponential
	switch key {
	case "scale":
		e.Scale = int32(clampInt32(signedOf(c.str())))
	case "zeroCount", "zero_count":
		e.ZeroCount = unsignedOf(c.str())
	case "zeroThreshold", "zero_threshold":
		e.ZeroThreshold = floatOf(c.str())
	case "positive":
		d.buckets(&e.Positive)
	case "negative":
		d.buckets(&e.Negative)
	default:
		c.skip()
	}
}

func clampInt32(n int64) int64 { return max(min(n, 1<<31-1), -1<<31) }

func (d *metricJSON) counts(into []uint64, most int) []uint64 {
	c := &d.cursor
	if !c.open('[') {
		return into
	}
	for c.next() {
		n := unsignedOf(c.str())
		if len(into) == most {
			d.crowded = true
			continue
		}
		into = append(into, n)
	}
	return into
}

func (d *metricJSON) doubles(into []float64) []float64 {
	c := &d.cursor
	if !c.open('[') {
		return into
	}
	for c.next() {
		f := floatOf(c.str())
		if len(into) == MaxBuckets {
			d.crowded = true
			continue
		}
		into = append(into, f)
	}
	return into
}

func (d *metricJSON) buckets(into *Buckets) {
	c := &d.cursor
	if !c.open('{') {
		return
	}
	for c.next() {
		switch c.str() {
		case "offset":
			into.Offset = int32(clampInt32(signedOf(c.str())))
		case "bucketCounts", "bucket_counts":
			into.Counts = d.counts(into.Counts, MaxBuckets)
		default:
			c.skip()
		}
	}
}

func (d *metricJSON) quantiles() {
	c, p := &d.cursor, &d.point
	if !c.open('[') {
		return
	}
	for c.next() {
		quantile, value := d.quantile()
		if len(p.Bounds) == MaxBuckets {
			d.crowded = true
			continue
		}
		p.Bounds, p.Quantiles = append(p.Bounds, quantile), append(p.Quantiles, value)
	}
}

func (d *metricJSON) quantile() (quantile, value float64) {
	c := &d.cursor
	if !c.open('{') {
		return 0, 0
	}
	for c.next() {
		switch c.str() {
		case "quantile":
			quantile = floatOf(c.str())
		case "value":
			value = floatOf(c.str())
		default:
			c.skip()
		}
	}
	return quantile, value
}

func (d *metricJSON) exemplars() {
	c, p := &d.cursor, &d.point
	if !c.open('[') {
		return
	}
	for c.next() {
		if len(p.Exemplars) == maxExemplars {
			c.skip()
			continue
		}
		d.exemplar(p.nextExemplar())
	}
}

func (d *metricJSON) exemplar(e *Exemplar) {
	c := &d.cursor
	if !c.open('{') {
		return
	}
	for c.next() {
		switch c.str() {
		case "timeUnixNano", "time_unix_nano":
			e.Time = signed(unsignedOf(c.str()))
		case "asDouble", "as_double":
			e.Value = floatOf(c.str())
		case "asInt", "as_int":
			e.Value = float64(signedOf(c.str()))
		case "traceId", "trace_id":
			setID(e.TraceID[:], c.str())
		case "spanId", "span_id":
			setID(e.SpanID[:], c.str())
		case "filteredAttributes", "filtered_attributes":
			e.Attributes = d.attributes(e.Attributes)
		default:
			c.skip()
		}
	}
}
