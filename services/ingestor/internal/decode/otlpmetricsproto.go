// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"encoding/binary"
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lakerunner/lakerunner/pkg/columns"
)

// metricProto walks the metrics of OTLP protobuf. Attributes of a point are not read before somebody asks for them: their bytes tell the series.
//
// Field numbers are those of opentelemetry/proto/metrics/v1/metrics.proto.
type metricProto struct {
	protoDecoder
	to     MetricSink
	metric Metric
	point  Point
	// points are those of the metric at hand. A metric's temporality stands after its points.
	points []span
	// attributes are those of the point at hand: one span of bytes if they lie together, as they mostly do.
	attributes []span
	field      protowire.Number // of the attributes
	message    []byte           // the point
	key        []byte
	pointText  int
}

func decodeProtoMetrics(r *Reader, o Options, to MetricSink) error {
	d := &metricProto{to: to}
	d.objectTime, d.buffer, d.described = o.ObjectTime.UnixNano(), o.Scratch.take(), true
	d.announce, d.give = to.Origin, d.metrics
	return d.resources(r, o)
}

// wire walks the fields of one message.
type wire struct {
	b []byte
	// field is the number of the field at hand, kind its wire type.
	field protowire.Number
	kind  protowire.Type
	// number is a field of a fixed or variable width, value one with a length.
	number uint64
	value  []byte
}

// next reads the next field. False: there is none, or an error.
func (w *wire) next() (bool, error) {
	if len(w.b) == 0 {
		return false, nil
	}
	tag, n := uint64(w.b[0]), 1
	if tag >= 0x80 {
		if tag, n = binary.Uvarint(w.b); n <= 0 || tag>>3 > uint64(protowire.MaxValidNumber) {
			return false, errParse(-1)
		}
	}
	w.field, w.kind = protowire.Number(tag>>3), protowire.Type(tag&7)
	if w.field < protowire.MinValidNumber {
		return false, errParse(-1)
	}
	b := w.b[n:]
	switch w.kind {
	case protowire.Fixed64Type:
		if len(b) < 8 {
			return false, errCut
		}
		w.number, w.b = binary.LittleEndian.Uint64(b), b[8:]
		return true, nil
	case protowire.VarintType:
		w.number, n = uvarint(b)
		if n <= 0 {
			return false, errCut
		}
		w.b = b[n:]
		return true, nil
	case protowire.BytesType:
		size, n := uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return false, errCut
		}
		w.value, w.b = b[n:n+int(size)], b[n+int(size):]
		return true, nil
	}
	return w.rare(b)
}

func (w *wire) rare(b []byte) (bool, error) {
	n := protowire.ConsumeFieldValue(w.field, w.kind, b)
	if n < 0 {
		return false, errParse(n)
	}
	if w.kind == protowire.Fixed32Type {
		w.number = uint64(binary.LittleEndian.Uint32(b))
	}
	w.b = b[n:]
	return true, nil
}

// uvarint is binary.Uvarint, quick for one byte.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// metrics gives the points of a scope's metrics, which lie in b.
func (d *metricProto) metrics(b []byte) error {
	scopeText := len(d.text)
	for _, s := range d.records {
		d.text = d.text[:scopeText]
		if err := d.oneMetric(b[s.from:s.to]); err != nil {
			return err
		}
	}
	return nil
}

// oneMetric reads a Metric: name = 1, description = 2, unit = 3, data = 5, 7, 9, 10, 11.
func (d *metricProto) oneMetric(b []byte) error {
	d.metric = Metric{}
	var data []byte
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if w.kind != protowire.BytesType {
			continue
		}
		switch w.field {
		case 1:
			d.metric.Name = text(w.value)
		case 2:
			d.metric.Description = text(w.value)
		case 3:
			d.metric.Unit = text(w.value)
		default:
			if kind := metricKind(w.field); kind != MetricNone {
				d.metric.Kind, data = kind, w.value
			}
		}
	}
	if d.metric.Kind == MetricNone {
		return nil
	}
	return d.data(data)
}

func metricKind(field protowire.Number) MetricKind {
	switch field {
	case 5:
		return MetricGauge
	case 7:
		return MetricSum
	case 9:
		return MetricHistogram
	case 10:
		return MetricExponential
	case 11:
		return MetricSummary
	}
	return MetricNone
}

// data reads a Gauge, Sum, Histogram, ExponentialHistogram or Summary: data_points = 1, aggregation_temporality = 2, is_monotonic = 3.
func (d *metricProto) data(b []byte) error {
	d.points = d.points[:0]
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch {
		case w.field == 1 && w.kind == protowire.BytesType:
			end := len(b) - len(w.b)
			d.points = append(d.points, span{from: end - len(w.value), to: end})
		case w.field == 2 && w.kind == protowire.VarintType && w.number <= uint64(TemporalityCumulative):
			d.metric.Temporality = Temporality(w.number)
		case w.field == 3 && w.kind == protowire.VarintType:
			d.metric.Monotonic = w.number != 0
		}
	}
	if len(d.points) == 0 {
		return nil
	}
	d.pointText = len(d.text)
	d.to.Metric(&d.metric)
	for _, s := range d.points {
		if err := d.onePoint(b[s.from:s.to]); err != nil {
			return err
		}
	}
	return nil
}

func (d *metricProto) onePoint(b []byte) (err error) {
	p := &d.point
	p.reset()
	p.lazy = d
	d.text, d.message, d.attributes = d.text[:d.pointText], b, d.attributes[:0]
	good := true
	switch d.metric.Kind {
	case MetricGauge, MetricSum:
		err = d.numberPoint(b)
	case MetricHistogram:
		if err = d.histogramPoint(b); err == nil {
			good = p.tidyHistogram()
		}
	case MetricExponential:
		err = d.exponentialPoint(b)
	case MetricSummary:
		if err = d.summaryPoint(b); err == nil {
			good = p.tidySummary()
		}
	}
	switch {
	case errors.Is(err, errBuckets):
		return d.to.Reject(ReasonTooManyBuckets, b[:min(len(b), maxRejected)])
	case err != nil:
		return err
	case !good:
		return d.to.Reject(ReasonMalformed, b[:min(len(b), maxRejected)])
	}
	if p.Time == 0 {
		p.Time = d.objectTime
	}
	p.Key = d.keyOf(b)
	return d.to.Point(p)
}

// maxRejected is how much is kept of a point that cannot be decoded.
const maxRejected = 4096

// attribute notes a KeyValue whose field began at from and ended before to.
func (d *metricProto) attribute(from, to int) {
	if n := len(d.attributes); n > 0 && d.attributes[n-1].to == from {
		d.attributes[n-1].to = to
		return
	}
	d.attributes = append(d.attributes, span{from: from, to: to})
}

// keyOf is what the point's attributes and bounds are made of. An empty key is not nil.
func (d *metricProto) keyOf(b []byte) []byte {
	if len(d.attributes) == 1 && d.metric.Kind < MetricHistogram {
		return b[d.attributes[0].from:d.attributes[0].to]
	}
	d.key = d.key[:0]
	for _, s := range d.attributes {
		d.key = append(d.key, b[s.from:s.to]...)
	}
	if d.metric.Kind == MetricHistogram || d.metric.Kind == MetricSummary {
		d.key = appendBounds(d.key, d.point.Bounds)
	}
	if d.key == nil {
		d.key = []byte{}
	}
	return d.key
}

// appendBounds writes bounds, and how many there are at the end, so that no attribute can look like one.
func appendBounds(key []byte, bounds []float64) []byte {
	for _, f := range bounds {
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(f))
	}
	return binary.LittleEndian.AppendUint32(key, uint32(len(bounds)))
}

// loadAttributes implements attributeLoader.
func (d *metricProto) loadAttributes(p *Point) (err error) {
	for _, s := range d.attributes {
		if p.Attributes, err = d.protoDecoder.attributes(p.Attributes, d.message[s.from:s.to], d.field); err != nil {
			return err
		}
	}
	return nil
}

// numberPoint reads a NumberDataPoint: start 2, time 3, as_double 4, exemplars 5, as_int 6, attributes 7, flags 8.
func (d *metricProto) numberPoint(b []byte) error {
	p := &d.point
	d.field = 7
	for w := (wire{b: b}); ; {
		from := len(b) - len(w.b)
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch {
		case w.kind == protowire.BytesType && w.field == 7:
			d.attribute(from, len(b)-len(w.b))
		case w.kind == protowire.Fixed64Type:
			switch w.field {
			case 2:
				p.Start = signed(w.number)
			case 3:
				p.Time = signed(w.number)
			case 4:
				p.Value = math.Float64frombits(w.number)
			case 6:
				p.Value = float64(int64(w.number))
			}
		case w.kind == protowire.VarintType && w.field == 8:
			p.Stale = w.number&1 != 0
		case w.kind == protowire.BytesType && w.field == 5:
			if err := d.exemplar(w.value); err != nil {
				return err
			}
		}
	}
}

// histogramPoint reads a HistogramDataPoint: start 2, time 3, count 4, sum 5, bucket_counts 6, explicit_bounds 7, exemplars 8, attributes 9,
// flags 10. min 11 and max 12 have no place in Prometheus.
func (d *metricProto) histogramPoint(b []byte) error {
	p := &d.point
	d.field = 9
	for w := (wire{b: b}); ; {
		from := len(b) - len(w.b)
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch w.field {
		case 2, 3, 4, 5:
			d.total(&w)
		case 6:
			p.Counts, err = appendFixed(p.Counts, &w)
		case 7:
			p.Bounds, err = appendDoubles(p.Bounds, &w)
		case 8:
			if w.kind == protowire.BytesType {
				err = d.exemplar(w.value)
			}
		case 9:
			if w.kind == protowire.BytesType {
				d.attribute(from, len(b)-len(w.b))
			}
		case 10:
			p.Stale = w.kind == protowire.VarintType && w.number&1 != 0
		}
		if err != nil {
			return err
		}
	}
}

// total reads what the points of all histograms and summaries begin with.
func (d *metricProto) total(w *wire) {
	if w.kind != protowire.Fixed64Type {
		return
	}
	p := &d.point
	switch w.field {
	case 2:
		p.Start = signed(w.number)
	case 3:
		p.Time = signed(w.number)
	case 4:
		p.Count = w.number
	case 5:
		p.Sum, p.HasSum = math.Float64frombits(w.number), true
	}
}

// errBuckets is a point of more buckets than MaxBuckets.
var errBuckets = errors.New("a point has too many buckets")

// appendFixed appends repeated fixed64, packed or not.
func appendFixed(counts []uint64, w *wire) ([]uint64, error) {
	if w.kind == protowire.Fixed64Type {
		if len(counts) == MaxBuckets+1 {
			return counts, errBuckets
		}
		return append(counts, w.number), nil
	}
	if w.kind != protowire.BytesType {
		return counts, nil
	}
	if len(counts)+len(w.value)/8 > MaxBuckets+1 {
		return counts, errBuckets
	}
	for b := w.value; len(b) >= 8; b = b[8:] {
		counts = append(counts, binary.LittleEndian.Uint64(b))
	}
	return counts, nil
}

// appendDoubles appends repeated double, packed or not.
func appendDoubles(numbers []float64, w *wire) ([]float64, error) {
	if w.kind == protowire.Fixed64Type {
		if len(numbers) == MaxBuckets {
			return numbers, errBuckets
		}
		return append(numbers, math.Float64frombits(w.number)), nil
	}
	if w.kind != protowire.BytesType {
		return numbers, nil
	}
	if len(numbers)+len(w.value)/8 > MaxBuckets {
		return numbers, errBuckets
	}
	for b := w.value; len(b) >= 8; b = b[8:] {
		numbers = append(numbers, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return numbers, nil
}

// exponentialPoint reads an ExponentialHistogramDataPoint: attributes 1, start 2, time 3, count 4, sum 5, scale 6, zero_count 7, positive 8,
// negative 9, flags 10, exemplars 11, zero_threshold 14. min 12 and max 13 have no place in Prometheus.
func (d *metricProto) exponentialPoint(b []byte) error {
	p, e := &d.point, &d.point.Exponential
	d.field = 1
	for w := (wire{b: b}); ; {
		from := len(b) - len(w.b)
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch {
		case w.field >= 2 && w.field <= 5:
			d.total(&w)
		case w.kind == protowire.BytesType:
			switch w.field {
			case 1:
				d.attribute(from, len(b)-len(w.b))
			case 8:
				err = e.Positive.read(w.value)
			case 9:
				err = e.Negative.read(w.value)
			case 11:
				err = d.exemplar(w.value)
			}
		case w.field == 6 && w.kind == protowire.VarintType:
			e.Scale = int32(protowire.DecodeZigZag(w.number & math.MaxUint32))
		case w.field == 7 && w.kind == protowire.Fixed64Type:
			e.ZeroCount = w.number
		case w.field == 10 && w.kind == protowire.VarintType:
			p.Stale = w.number&1 != 0
		case w.field == 14 && w.kind == protowire.Fixed64Type:
			e.ZeroThreshold = math.Float64frombits(w.number)
		}
		if err != nil {
			return err
		}
	}
}

// read reads Buckets: offset 1, bucket_counts 2.
func (x *Buckets) read(b []byte) error {
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch {
		case w.field == 1 && w.kind == protowire.VarintType:
			x.Offset = int32(protowire.DecodeZigZag(w.number & math.MaxUint32))
		case w.field == 2 && w.kind == protowire.VarintType:
			if len(x.Counts) == MaxBuckets {
				return errBuckets
			}
			x.Counts = append(x.Counts, w.number)
		case w.field == 2 && w.kind == protowire.BytesType:
			if err := x.unpack(w.value); err != nil {
				return err
			}
		}
	}
}

func (x *Buckets) unpack(b []byte) error {
	if len(b) > MaxBuckets*binary.MaxVarintLen64 {
		return errBuckets
	}
	for len(b) > 0 {
		v, n := uvarint(b)
		if n <= 0 {
			return errCut
		}
		if len(x.Counts) == MaxBuckets {
			return errBuckets
		}
		x.Counts = append(x.Counts, v)
		b = b[n:]
	}
	return nil
}

// summaryPoint reads a SummaryDataPoint: start 2, time 3, count 4, sum 5, quantile_values 6, attributes 7, flags 8.
func (d *metricProto) summaryPoint(b []byte) error {
	p := &d.point
	p.HasSum = true
	d.field = 7
	for w := (wire{b: b}); ; {
		from := len(b) - len(w.b)
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch {
		case w.field >= 2 && w.field <= 5:
			d.total(&w)
		case w.field == 6 && w.kind == protowire.BytesType:
			if len(p.Bounds) == MaxBuckets {
				return errBuckets
			}
			err = p.quantile(w.value)
		case w.field == 7 && w.kind == protowire.BytesType:
			d.attribute(from, len(b)-len(w.b))
		case w.field == 8 && w.kind == protowire.VarintType:
			p.Stale = w.number&1 != 0
		}
		if err != nil {
			return err
		}
	}
}

// quantile reads a ValueAtQuantile: quantile 1, value 2.
func (p *Point) quantile(b []byte) error {
	var numbers [3]float64
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			p.Bounds, p.Quantiles = append(p.Bounds, numbers[1]), append(p.Quantiles, numbers[2])
			return nil
		}
		if w.kind == protowire.Fixed64Type && w.field <= 2 {
			numbers[w.field] = math.Float64frombits(w.number)
		}
	}
}

// maxExemplars bounds those of one point.
const maxExemplars = 256

// exemplar reads an Exemplar: time 2, as_double 3, span_id 4, trace_id 5, as_int 6, filtered_attributes 7.
func (d *metricProto) exemplar(b []byte) (err error) {
	p := &d.point
	if len(p.Exemplars) == maxExemplars {
		return nil
	}
	e := p.nextExemplar()
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch {
		case w.kind == protowire.Fixed64Type && w.field == 2:
			e.Time = signed(w.number)
		case w.kind == protowire.Fixed64Type && w.field == 3:
			e.Value = math.Float64frombits(w.number)
		case w.kind == protowire.Fixed64Type && w.field == 6:
			e.Value = float64(int64(w.number))
		case w.kind != protowire.BytesType:
		case w.field == 4 && len(w.value) == len(e.SpanID):
			copy(e.SpanID[:], w.value)
		case w.field == 5 && len(w.value) == len(e.TraceID):
			copy(e.TraceID[:], w.value)
		case w.field == 7:
			e.Attributes = append(e.Attributes, columns.Attribute{})
			if err := d.keyValue(&e.Attributes[len(e.Attributes)-1], w.value); err != nil {
				return err
			}
		}
	}
}

// nextExemplar appends an empty exemplar, with memory of one before.
func (p *Point) nextExemplar() *Exemplar {
	n := len(p.Exemplars)
	if n < cap(p.Exemplars) {
		p.Exemplars = p.Exemplars[:n+1]
	} else {
		p.Exemplars = append(p.Exemplars, Exemplar{})
	}
	e := &p.Exemplars[n]
	*e = Exemplar{Attributes: e.Attributes[:0]}
	return e
}
