// SPDX-License-Identifier: AGPL-3.0-only

package promhttp

import (
	"fmt"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/jsonutil"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// writeResult writes a query's data: the type of its value, the value and, if asked for, statistics.
func writeResult(s *jsoniter.Stream, got *query.MetricAnswer, withStatistics bool) {
	s.WriteObjectStart()
	s.WriteObjectField("resultType")
	s.WriteString(string(got.Value.Type()))
	s.WriteMore()
	s.WriteObjectField("result")
	switch v := got.Value.(type) {
	case promql.Matrix:
		writeList(s, len(v), func(i int) { writeSeries(s, &v[i]) })
	case promql.Vector:
		writeList(s, len(v), func(i int) { writeSample(s, &v[i]) })
	case promql.Scalar:
		writePoint(s, v.T, v.V)
	case promql.String:
		s.WriteArrayStart()
		jsonutil.MarshalTimestamp(v.T, s)
		s.WriteMore()
		s.WriteString(v.V)
		s.WriteArrayEnd()
	default:
		s.Error = fmt.Errorf("a value of type %T", v)
	}
	if withStatistics {
		s.WriteMore()
		s.WriteObjectField("stats")
		s.WriteVal(statisticsOf(got))
	}
	s.WriteObjectEnd()
}

func writeList(s *jsoniter.Stream, n int, write func(i int)) {
	s.WriteArrayStart()
	for i := range n {
		if i > 0 {
			s.WriteMore()
		}
		write(i)
		if s.Buffered() > flushFrom {
			_ = s.Flush()
		}
	}
	s.WriteArrayEnd()
}

// flushFrom is how much of an answer is held back at most: the whole of it may be large.
const flushFrom = 64 << 10

func writeSeries(s *jsoniter.Stream, series *promql.Series) {
	writeMetric(s, series.Metric)
	if len(series.Floats) > 0 {
		s.WriteMore()
		s.WriteObjectField("values")
		writeList(s, len(series.Floats), func(i int) { writePoint(s, series.Floats[i].T, series.Floats[i].F) })
	}
	if len(series.Histograms) > 0 {
		s.WriteMore()
		s.WriteObjectField("histograms")
		writeList(s, len(series.Histograms), func(i int) { writeHistogram(s, series.Histograms[i]) })
	}
	s.WriteObjectEnd()
}

func writeSample(s *jsoniter.Stream, sample *promql.Sample) {
	writeMetric(s, sample.Metric)
	s.WriteMore()
	if sample.H != nil {
		s.WriteObjectField("histogram")
		writeHistogram(s, promql.HPoint{T: sample.T, H: sample.H})
	} else {
		s.WriteObjectField("value")
		writePoint(s, sample.T, sample.F)
	}
	s.WriteObjectEnd()
}

// writeMetric begins an object with the labels of a series.
func writeMetric(s *jsoniter.Stream, metric labels.Labels) {
	s.WriteObjectStart()
	s.WriteObjectField("metric")
	writeLabels(s, metric)
}

func writeLabels(s *jsoniter.Stream, ls labels.Labels) {
	s.WriteObjectStart()
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			s.WriteMore()
		}
		first = false
		s.WriteObjectField(l.Name)
		s.WriteString(l.Value)
	})
	s.WriteObjectEnd()
}

func writePoint(s *jsoniter.Stream, t int64, v float64) {
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(t, s)
	s.WriteMore()
	jsonutil.MarshalFloat(v, s)
	s.WriteArrayEnd()
}

func writeHistogram(s *jsoniter.Stream, p promql.HPoint) {
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(p.T, s)
	s.WriteMore()
	jsonutil.MarshalHistogram(p.H, s)
	s.WriteArrayEnd()
}
