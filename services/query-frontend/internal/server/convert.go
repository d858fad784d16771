// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/index"
	queryv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/query/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/query"
)

// isMetric reports a metric query. What cannot be parsed is none; who evaluates it says why.
func isMetric(text string) bool {
	expr, err := syntax.ParseExpr(text)
	if err != nil {
		return false
	}
	_, ok := expr.(syntax.SampleExpr)
	return ok
}

func lineOf(l *logs.Line) *queryv1.LogLine {
	return &queryv1.LogLine{
		Time:     timestamppb.New(time.Unix(0, l.Time)),
		Line:     l.Line,
		Labels:   l.StreamLabels().Map(),
		Metadata: pairsOf(l.Metadata),
		Parsed:   pairsOf(l.Parsed),
	}
}

func pairsOf(pairs []logproto.LabelAdapter) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	out := make(map[string]string, len(pairs))
	for _, p := range pairs {
		out[p.Name] = p.Value
	}
	return out
}

func seriesOf(data parser.Value) []*queryv1.Series {
	var out []*queryv1.Series
	switch v := data.(type) {
	case promql.Scalar:
		out = append(out, &queryv1.Series{Samples: []*queryv1.Sample{sampleOf(v.T, v.V)}})
	case promql.Vector:
		for _, s := range v {
			out = append(out, &queryv1.Series{Labels: s.Metric.Map(), Samples: []*queryv1.Sample{sampleOf(s.T, s.F)}})
		}
	case promql.Matrix:
		for _, series := range v {
			one := &queryv1.Series{Labels: series.Metric.Map()}
			for _, p := range series.Floats {
				one.Samples = append(one.Samples, sampleOf(p.T, p.F))
			}
			out = append(out, one)
		}
	}
	return out
}

func sampleOf(ms int64, value float64) *queryv1.Sample {
	return &queryv1.Sample{Time: timestamppb.New(time.UnixMilli(ms)), Value: value}
}

func statisticsOf(s query.Statistics) *queryv1.Statistics {
	out := &queryv1.Statistics{
		SegmentsConsidered: s.Considered,
		SegmentsPruned:     s.Pruned(),
		SegmentsRead:       s.SegmentsRead,
		BytesConsidered:    s.BytesConsidered,
		BytesRead:          s.BytesRead,
		BytesFetched:       s.BytesFetched,
		ObjectRequests:     s.ObjectRequests,
		CacheHits:          s.CacheHits,
		RowsScanned:        s.RowsScanned,
		RowsReturned:       s.Returned,
		Duration:           durationpb.New(s.Duration),
		Completeness:       completenessOf(s.Completeness),
		Partial:            s.Partial != "",
		PartialReason:      s.Partial,
		Retries:            s.Retries,
	}
	if s.Resolution > 0 {
		out.Resolution = durationpb.New(s.Resolution)
	}
	return out
}

func completenessOf(c index.Completeness) *queryv1.Completeness {
	out := &queryv1.Completeness{PendingObjects: c.Pending, FailedObjects: c.Failed}
	if !c.OldestPending.IsZero() {
		out.OldestPending = timestamppb.New(c.OldestPending)
	}
	return out
}
