// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// maxCatalogue is the most series that are listed: a label set takes some 300 bytes.
const maxCatalogue = 2_000_000

// Series lists the series that have samples in a span and that any of the matcher sets chooses; none: all. They are sorted by labels.
func (s *Session) Series(ctx context.Context, sets [][]*labels.Matcher, span promplan.Span) ([]prom.Entry, error) {
	var all []prom.Entry
	err := s.catalogue(ctx, workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_SERIES, sets, span, s.spread(span), func() fan.Decoder {
		return &decoder[prom.Entry]{decode: prom.DecodeEntries, most: maxCatalogue}
	}, func(d fan.Decoder) error {
		all = append(all, d.(*decoder[prom.Entry]).all...)
		return tooMany(len(all))
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b prom.Entry) int { return labels.Compare(a.Labels, b.Labels) })
	out := all[:0]
	for _, e := range all {
		last := len(out) - 1
		if last < 0 || !labels.Equal(out[last].Labels, e.Labels) {
			out = append(out, e)
			continue
		}
		same := &out[last]
		same.Samples, same.Bytes = same.Samples+e.Samples, same.Bytes+e.Bytes
		same.First, same.Last = min(same.First, e.First), max(same.Last, e.Last)
	}
	return out, nil
}

func tooMany(n int) error {
	if n > maxCatalogue {
		return fault.New(fault.Exhausted, "the question is about more than %d series; narrow the selector or the time range", maxCatalogue)
	}
	return nil
}

// Names returns the names of the series that Series would list, by the hashes of their labels.
func (s *Session) Names(ctx context.Context, sets [][]*labels.Matcher, span promplan.Span) (map[uint64]string, error) {
	all := map[uint64]string{}
	err := s.catalogue(ctx, workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_SERIES, sets, span, s.spread(span), func() fan.Decoder {
		return &decoder[named]{decode: decodeNames, most: maxCatalogue}
	}, func(d fan.Decoder) error {
		for _, n := range d.(*decoder[named]).all {
			all[n.hash] = n.name
		}
		return tooMany(len(all))
	})
	return all, err
}

type named struct {
	hash uint64
	name string
}

// decodeNames keeps nothing of the labels. Series of one name stand together.
func decodeNames(to []named, batch arrow.RecordBatch) ([]named, error) {
	entries, err := prom.DecodeEntries(nil, batch)
	for i := range entries {
		name := entries[i].Labels.Get(model.MetricNameLabel)
		if last := len(to) - 1; last >= 0 && to[last].name == name {
			name = to[last].name
		} else {
			name = strings.Clone(name)
		}
		to = append(to, named{hash: entries[i].Labels.Hash(), name: name})
	}
	return to, err
}

// Metrics lists names of metrics with their families, by name. One worker is asked for all, since a series of two segments counts once.
func (s *Session) Metrics(ctx context.Context, sets [][]*labels.Matcher, span promplan.Span) ([]prom.Metric, error) {
	found := map[prom.Metric]prom.Metric{} // by name, type, unit and help
	err := s.catalogue(ctx, workerv1.MetricCatalogueKind_METRIC_CATALOGUE_KIND_METRICS, sets, span, s.levels(span), func() fan.Decoder {
		return &decoder[prom.Metric]{decode: prom.DecodeMetrics, most: maxCatalogue}
	}, func(d fan.Decoder) error {
		for _, m := range d.(*decoder[prom.Metric]).all {
			key := prom.Metric{Name: m.Name, Type: m.Type, Unit: m.Unit, Help: m.Help}
			same := found[key]
			m.Series, m.Samples, m.Bytes = max(m.Series, same.Series), m.Samples+same.Samples, m.Bytes+same.Bytes
			found[key] = m
		}
		return nil
	})
	return slices.SortedFunc(maps.Values(found), func(a, b prom.Metric) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(b.Series, a.Series), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Help, b.Help))
	}), err
}

// Exemplars lists exemplars, by series and time.
func (s *Session) Exemplars(ctx context.Context, sets [][]*labels.Matcher, span promplan.Span) ([]prom.Exemplar, error) {
	var all []prom.Exemplar
	parts := parts(s, s.spread(span), func(req *workerv1.ScanRequest) {
		req.Fragment = &workerv1.ScanRequest_MetricExemplars{MetricExemplars: &workerv1.MetricExemplars{
			Selectors: selectors(sets), StartMs: span.Start, EndMs: span.End,
		}}
	}, func() fan.Decoder { return &decoder[prom.Exemplar]{decode: prom.DecodeExemplars, most: s.samples()} }, func(d fan.Decoder) error {
		all = append(all, d.(*decoder[prom.Exemplar]).all...)
		return nil
	})
	if err := s.run(ctx, parts); err != nil {
		return nil, s.endOf(ctx, err)
	}
	slices.SortFunc(all, func(a, b prom.Exemplar) int {
		return cmp.Or(labels.Compare(a.Series, b.Series), cmp.Compare(a.Time, b.Time), labels.Compare(a.Labels, b.Labels), cmp.Compare(a.Value, b.Value))
	})
	return slices.CompactFunc(all, func(a, b prom.Exemplar) bool {
		return a.Time == b.Time && a.Value == b.Value && labels.Equal(a.Series, b.Series) && labels.Equal(a.Labels, b.Labels)
	}), nil
}

func (s *Session) catalogue(
	ctx context.Context, kind workerv1.MetricCatalogueKind, sets [][]*labels.Matcher, span promplan.Span, groups [][]lake.Segment,
	decoder func() fan.Decoder, done func(fan.Decoder) error,
) error {
	parts := parts(s, groups, func(req *workerv1.ScanRequest) {
		req.Fragment = &workerv1.ScanRequest_MetricCatalogue{MetricCatalogue: &workerv1.MetricCatalogue{
			Kind: kind, Selectors: selectors(sets), StartMs: span.Start, EndMs: span.End, MaxSeries: maxCatalogue,
		}}
	}, decoder, done)
	return s.endOf(ctx, s.run(ctx, parts))
}

func parts(s *Session, groups [][]lake.Segment, fragment func(*workerv1.ScanRequest), decoder func() fan.Decoder, done func(fan.Decoder) error) []fan.Part {
	out := make([]fan.Part, len(groups))
	for i, segments := range groups {
		shard := lake.Shard{Index: uint32(i), Count: uint32(len(groups))}
		out[i] = fan.Part{Key: s.shardKey(shard), Segments: segments, Fragment: fragment, NewDecoder: decoder, Done: done}
	}
	return out
}

func selectors(sets [][]*labels.Matcher) []*workerv1.Selector {
	out := make([]*workerv1.Selector, len(sets))
	for i, set := range sets {
		out[i] = selectorProto(set)
	}
	return out
}

// spread parts the segments of a span so that each is read once, and those of a shard by the worker that evaluates it. Where samples are not kept any more, the
// coarsest rollups know the series; they are asked apart.
func (s *Session) spread(span promplan.Span) [][]lake.Segment {
	levels := s.levels(span)
	segments := levels[0]
	out := make([][]lake.Segment, s.shardsOver(segments))
	for i := range segments {
		at := uint64(segments[i].Shard.Index)
		if segments[i].Shard.Whole() {
			at = xxhash.Sum64String(segments[i].Key)
		}
		at &= uint64(len(out) - 1)
		out[at] = append(out[at], segments[i])
	}
	return append(out, levels[1:]...)
}

// levels are the segments of samples of a span, and those of the coarsest rollups of the times of which samples are not kept.
func (s *Session) levels(span promplan.Span) [][]lake.Segment {
	out := [][]lake.Segment{within(s.Samples.Segments, span)}
	if s.Gone.IsZero() || span.Start >= s.Gone.UnixMilli() {
		return out
	}
	for i := range s.Rollups {
		gone := span
		gone.End = min(gone.End, s.Gone.UnixMilli())
		if segments := within(s.Rollups[i].Segments, gone); len(segments) > 0 {
			return append(out, segments)
		}
	}
	return out
}
