// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/pkg/selector"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/metrics"
)

// metricWork translates a fragment over metric segments.
func (s *Server) metricWork(request *workerv1.ScanRequest, bytes int64) (work, error) {
	segments, err := metricSegments(request)
	if err != nil {
		return work{}, err
	}
	deletes, err := metricDeletes(request)
	if err != nil {
		return work{}, err
	}
	do, name, err := metricFragment(request)
	if err != nil {
		return work{}, err
	}
	return work{name: name, begin: func(ctx context.Context) running {
		scanning := s.points.Begin(ctx, segments, bytes, deletes...)
		return running{
			do: func(ctx context.Context, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
				return do(ctx, scanning, emit)
			},
			spent: func() *workerv1.ScanStatistics { return metricStatistics(scanning.Statistics) },
			end:   scanning.End,
		}
	}}, nil
}

func metricSegments(request *workerv1.ScanRequest) ([]metrics.Segment, error) {
	var segments []metrics.Segment
	for _, s := range request.GetSegments() {
		shard, err := shardOf(s.GetShard())
		if err != nil {
			return nil, fmt.Errorf("segment %s: %w", s.GetKey(), err)
		}
		segment := metrics.Segment{
			File: fileOf(s), Sidecar: sidecarOf(s), First: nanoseconds(s.GetFirstTime()), Last: nanoseconds(s.GetLastTime()),
			Applied: s.GetAppliedDelete(), Resolution: s.GetResolution().AsDuration(), Shard: shard,
		}
		for _, source := range s.GetMaskedSources() {
			segment.Masked = append(segment.Masked, lake.ReceiptID(source))
		}
		segments = append(segments, segment)
	}
	return segments, nil
}

func shardOf(s *workerv1.Shard) (lake.Shard, error) {
	shard := lake.Shard{Index: s.GetIndex(), Count: s.GetCount()}
	if shard.Count&(shard.Count-1) != 0 || shard.Index >= max(1, shard.Count) {
		return lake.Shard{}, fault.New(fault.Invalid, "shard %d of %d: want a power of two, and less than that", shard.Index, shard.Count)
	}
	return shard, nil
}

// metricDeletes translates the deletes of a request. What the index holds was parsed before: that one cannot be is not the caller's fault.
func metricDeletes(request *workerv1.ScanRequest) ([]metrics.Delete, error) {
	var deletes []metrics.Delete
	for _, d := range request.GetDeletes() {
		if err := between(d.GetStart(), d.GetEnd()); err != nil {
			return nil, fmt.Errorf("delete %d: %w", d.GetDeleteId(), err)
		}
		parsed, err := selector.ParseSeries(d.GetSelector())
		if err != nil {
			return nil, fault.New(fault.Internal, "delete %d: %v", d.GetDeleteId(), err)
		}
		deletes = append(deletes, metrics.Delete{Number: d.GetDeleteId(), Selector: parsed, Start: nanoseconds(d.GetStart()), End: nanoseconds(d.GetEnd())})
	}
	return deletes, nil
}

type metricScan func(ctx context.Context, s *metrics.Scan, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error)

// metricFragment translates what is to be done, and names it.
func metricFragment(request *workerv1.ScanRequest) (metricScan, string, error) {
	switch f := request.GetFragment().(type) {
	case *workerv1.ScanRequest_MetricSamples:
		w, err := metricSamplesOf(f.MetricSamples)
		return w, "metric_samples", err
	case *workerv1.ScanRequest_MetricVector:
		w, err := vectorOf(f.MetricVector)
		return w, "metric_vector", err
	case *workerv1.ScanRequest_MetricCatalogue:
		w, err := metricCatalogueOf(f.MetricCatalogue)
		return w, "metric_catalogue", err
	case *workerv1.ScanRequest_MetricExemplars:
		w, err := exemplarsOf(f.MetricExemplars)
		return w, "metric_exemplars", err
	}
	return nil, "", fault.New(fault.Invalid, "a scan of metrics without a fragment of theirs")
}

func metricSamplesOf(f *workerv1.MetricSamples) (metricScan, error) {
	matchers, err := matchersOf(f.GetSelector())
	if err != nil {
		return nil, err
	}
	shard, err := shardOf(f.GetShard())
	if err != nil {
		return nil, err
	}
	q := metrics.Samples{Matchers: matchers, Start: f.GetStartMs(), End: f.GetEndMs(), Shard: shard, MaxSamples: f.GetMaxSamples(), Starts: f.GetStartTimes()}
	return func(ctx context.Context, s *metrics.Scan, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
		return nil, s.Samples(ctx, q, emit)
	}, nil
}

// maxSteps is the most steps of one evaluation.
const maxSteps = 1_000_000

func vectorOf(f *workerv1.MetricVector) (metricScan, error) {
	shard, err := shardOf(f.GetShard())
	if err != nil {
		return nil, err
	}
	q := metrics.Vector{
		Text: f.GetExpression(), Start: f.GetStartMs(), End: f.GetEndMs(), Step: f.GetStepMs(), Lookback: f.GetLookbackMs(), Shard: shard,
		Resolution: f.GetResolutionMs(), MaxSamples: f.GetMaxSamples(), StartTimestamps: f.GetStartTimestamps(),
	}
	if q.Lookback == 0 {
		q.Lookback = 5 * 60_000
	}
	switch {
	case q.Step < 0 || q.Lookback < 0 || q.Resolution < 0 || q.Step > 0 && q.Start > q.End:
		return nil, fault.New(fault.Invalid, "steps of %d ms from %d to %d, lookback %d ms, resolution %d ms", q.Step, q.Start, q.End, q.Lookback, q.Resolution)
	case q.Step > 0 && float64(q.End)-float64(q.Start) > float64(q.Step)*maxSteps:
		return nil, fault.New(fault.Exhausted, "more than %d steps: choose a longer step", maxSteps)
	}
	if q.Expr, err = prom.Parse(q.Text); err != nil {
		return nil, err
	}
	return func(ctx context.Context, s *metrics.Scan, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
		return s.Vector(ctx, q, emit)
	}, nil
}

func metricCatalogueOf(f *workerv1.MetricCatalogue) (metricScan, error) {
	selectors, err := selectorsOf(f.GetSelectors())
	if err != nil {
		return nil, err
	}
	q := metrics.Catalogue{Selectors: selectors, Start: f.GetStartMs(), End: f.GetEndMs(), MaxSeries: f.GetMaxSeries()}
	switch f.GetKind() {
	case workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_SERIES:
		return func(ctx context.Context, s *metrics.Scan, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
			return nil, s.Series(ctx, q, emit)
		}, nil
	case workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_METRICS:
		return func(ctx context.Context, s *metrics.Scan, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
			return nil, s.Metrics(ctx, q, emit)
		}, nil
	}
	return nil, fault.New(fault.Invalid, "catalogue question %s", f.GetKind())
}

func exemplarsOf(f *workerv1.MetricExemplars) (metricScan, error) {
	selectors, err := selectorsOf(f.GetSelectors())
	if err != nil {
		return nil, err
	}
	q := metrics.Catalogue{Selectors: selectors, Start: f.GetStartMs(), End: f.GetEndMs()}
	return func(ctx context.Context, s *metrics.Scan, emit func(arrow.RecordBatch) error) ([]prom.Annotation, error) {
		return nil, s.Exemplars(ctx, q, emit)
	}, nil
}

func selectorsOf(all []*workerv1.Selector) ([][]*labels.Matcher, error) {
	var selectors [][]*labels.Matcher
	for _, s := range all {
		matchers, err := matchersOf(s)
		if err != nil {
			return nil, err
		}
		selectors = append(selectors, matchers)
	}
	return selectors, nil
}

// matchersOf translates a selector, of which there must be one.
func matchersOf(s *workerv1.Selector) ([]*labels.Matcher, error) {
	if len(s.GetMatchers()) == 0 {
		return nil, fault.New(fault.Invalid, "a selector without matchers")
	}
	var matchers []*labels.Matcher
	for _, m := range s.GetMatchers() {
		var kind labels.MatchType
		switch m.GetType() {
		case workerv1.MatchType_MATCH_TYPE_EQUAL:
			kind = labels.MatchEqual
		case workerv1.MatchType_MATCH_TYPE_NOT_EQUAL:
			kind = labels.MatchNotEqual
		case workerv1.MatchType_MATCH_TYPE_REGEXP:
			kind = labels.MatchRegexp
		case workerv1.MatchType_MATCH_TYPE_NOT_REGEXP:
			kind = labels.MatchNotRegexp
		default:
			return nil, fault.New(fault.Invalid, "matcher of %s: %s", m.GetName(), m.GetType())
		}
		matcher, err := labels.NewMatcher(kind, m.GetName(), m.GetValue())
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		matchers = append(matchers, matcher)
	}
	return matchers, nil
}

func metricStatistics(s *metrics.Statistics) *workerv1.ScanStatistics {
	return &workerv1.ScanStatistics{
		Segments:         s.Segments,
		SegmentsPruned:   s.Pruned.Load(),
		SegmentsRead:     s.Read.Load(),
		BytesFetched:     s.Cache.Bytes(),
		BytesRead:        s.BytesRead.Load(),
		RowsScanned:      s.Rows.Load(),
		ObjectRequests:   s.Cache.Requests(),
		CacheHits:        s.Cache.Hits(),
		CacheMisses:      s.Cache.Misses(),
		SamplesRead:      s.Samples.Load(),
		SamplesQueryable: s.Queryable.Load(),
		SamplesPeak:      s.Peak.Load(),
	}
}
