// SPDX-License-Identifier: AGPL-3.0-only

package decode

import (
	"math"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"google.golang.org/protobuf/encoding/protowire"
)

// familyName is the name of the family that a series' metric belongs to.
func familyName(metric string, typ model.MetricType) string {
	var suffixes []string
	switch typ {
	case model.MetricTypeHistogram, model.MetricTypeGaugeHistogram:
		suffixes = []string{"_bucket", "_count", "_sum", "_gcount", "_gsum"}
	case model.MetricTypeSummary:
		suffixes = []string{"_count", "_sum"}
	}
	for _, suffix := range suffixes {
		if name, ok := strings.CutSuffix(metric, suffix); ok {
			return name
		}
	}
	return metric
}

// writeHistogram is a Histogram of remote write, of either version.
type writeHistogram struct {
	h           histogram.FloatHistogram
	time, start int64
	// deltas are counts as differences of the one before: integer histograms have them in place of counts.
	positive, negative []int64
	gauge              bool
}

// read reads a Histogram: count_int 1, count_float 2, sum 3, schema 4, zero_threshold 5, zero_count_int 6, zero_count_float 7, negative_spans 8,
// negative_deltas 9, negative_counts 10, positive_spans 11, positive_deltas 12, positive_counts 13, reset_hint 14, timestamp 15, custom_values 16,
// start_timestamp 17.
func (x *writeHistogram) read(b []byte) error {
	for w := (wire{b: b}); ; {
		ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch w.kind {
		case protowire.VarintType:
			x.integer(&w)
		case protowire.Fixed64Type:
			x.double(&w)
		}
		if err := x.repeated(&w); err != nil {
			return err
		}
	}
}

func (x *writeHistogram) integer(w *wire) {
	switch w.field {
	case 1:
		x.h.Count = float64(w.number)
	case 4:
		x.h.Schema = int32(protowire.DecodeZigZag(w.number & math.MaxUint32))
	case 6:
		x.h.ZeroCount = float64(w.number)
	case 14:
		x.gauge = w.number == 3
	case 15:
		x.time = milliseconds(int64(w.number))
	case 17:
		x.start = milliseconds(int64(w.number))
	}
}

func (x *writeHistogram) double(w *wire) {
	f := math.Float64frombits(w.number)
	switch w.field {
	case 2:
		x.h.Count = f
	case 3:
		x.h.Sum = f
	case 5:
		x.h.ZeroThreshold = f
	case 7:
		x.h.ZeroCount = f
	}
}

func (x *writeHistogram) repeated(w *wire) (err error) {
	h := &x.h
	switch w.field {
	case 8:
		h.NegativeSpans, err = appendBucketSpan(h.NegativeSpans, w)
	case 9:
		x.negative, err = appendDeltas(x.negative, w)
	case 10:
		h.NegativeBuckets, err = appendDoubles(h.NegativeBuckets, w)
	case 11:
		h.PositiveSpans, err = appendBucketSpan(h.PositiveSpans, w)
	case 12:
		x.positive, err = appendDeltas(x.positive, w)
	case 13:
		h.PositiveBuckets, err = appendDoubles(h.PositiveBuckets, w)
	case 16:
		h.CustomValues, err = appendDoubles(h.CustomValues, w)
	}
	return err
}

// appendBucketSpan reads a BucketSpan: offset 1, length 2.
func appendBucketSpan(spans []histogram.Span, w *wire) ([]histogram.Span, error) {
	if w.kind != protowire.BytesType {
		return spans, nil
	}
	if len(spans) == MaxBuckets {
		return spans, errBuckets
	}
	var s histogram.Span
	for f := (wire{b: w.value}); ; {
		ok, err := f.next()
		if err != nil {
			return spans, err
		}
		if !ok {
			return append(spans, s), nil
		}
		switch {
		case f.kind != protowire.VarintType:
		case f.field == 1:
			s.Offset = int32(protowire.DecodeZigZag(f.number & math.MaxUint32))
		case f.field == 2:
			s.Length = uint32(min(f.number, math.MaxUint32))
		}
	}
}

// appendDeltas appends repeated sint64, packed or not.
func appendDeltas(deltas []int64, w *wire) ([]int64, error) {
	if w.kind == protowire.VarintType {
		return append(deltas, protowire.DecodeZigZag(w.number)), tooMany(len(deltas))
	}
	if w.kind != protowire.BytesType {
		return deltas, nil
	}
	for b := w.value; len(b) > 0; {
		v, n := uvarint(b)
		if n <= 0 {
			return deltas, errCut
		}
		if err := tooMany(len(deltas)); err != nil {
			return deltas, err
		}
		deltas, b = append(deltas, protowire.DecodeZigZag(v)), b[n:]
	}
	return deltas, nil
}

func tooMany(n int) error {
	if n >= MaxBuckets {
		return errBuckets
	}
	return nil
}

// native is the histogram with counts. Whether it begins anew after a reset is seen from the one before.
func (x *writeHistogram) native() *histogram.FloatHistogram {
	h := x.h
	if len(x.positive) > 0 {
		h.PositiveBuckets = summed(x.positive)
	}
	if len(x.negative) > 0 {
		h.NegativeBuckets = summed(x.negative)
	}
	if x.gauge {
		h.CounterResetHint = histogram.GaugeType
	}
	return &h
}

func summed(deltas []int64) []float64 {
	counts := make([]float64, len(deltas))
	sum := int64(0)
	for i, d := range deltas {
		sum += d
		counts[i] = float64(sum)
	}
	return counts
}
