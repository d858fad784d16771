// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
)

// Streams are the streams of a range, from the catalogues.
type Streams struct {
	All        []logs.Stream // ordered by labels
	Segments   int64         // that hold them
	Statistics Statistics
}

// Streams lists the streams in [start, end) that match any of the selectors; none: all streams.
func (f *Frontend) Streams(ctx context.Context, selectors []string, start, end time.Time) (Streams, error) {
	organization, err := f.Caller(ctx)
	if err != nil {
		return Streams{}, err
	}
	if end.Before(start) {
		return Streams{}, fault.New(fault.Invalid, "end timestamp must not be before or equal to start time")
	}
	asked, err := checkSelectors(selectors)
	if err != nil {
		return Streams{}, err
	}
	run, err := f.open(ctx, organization, start, end, true)
	if err != nil {
		return Streams{}, err
	}
	out, err := run.streams(asked, start, end)
	run.returned.Store(int64(len(out.All)))
	out.Segments = int64(len(run.found.Segments))
	out.Statistics = run.end(err)
	return out, err
}

func (r *run) streams(selectors []string, start, end time.Time) (Streams, error) {
	byLabels := map[string]logs.Stream{}
	for _, selector := range selectors {
		found, err := r.session.Streams(r.ctx, selector, start, end)
		if err != nil {
			return Streams{}, err
		}
		for _, stream := range found {
			byLabels[stream.Labels.String()] = stream
		}
	}
	return Streams{All: slices.SortedFunc(maps.Values(byLabels), func(a, b logs.Stream) int { return labels.Compare(a.Labels, b.Labels) })}, nil
}

// checkSelectors returns the selectors to ask for; "" asks for all streams.
func checkSelectors(selectors []string) ([]string, error) {
	var asked []string
	for _, selector := range selectors {
		selector = strings.TrimSpace(selector)
		if selector == "" || strings.ReplaceAll(selector, " ", "") == "{}" {
			return []string{""}, nil
		}
		if _, err := syntax.ParseMatchers(selector, true); err != nil {
			return nil, logs.Classify(err)
		}
		asked = append(asked, selector)
	}
	if len(asked) == 0 {
		return []string{""}, nil
	}
	slices.SortFunc(asked, cmp.Compare[string])
	return slices.Compact(asked), nil
}

// Names returns the label names of the streams, sorted.
func (s *Streams) Names() []string {
	names := map[string]bool{}
	for _, stream := range s.All {
		stream.Labels.Range(func(l labels.Label) { names[l.Name] = true })
	}
	return slices.Sorted(maps.Keys(names))
}

// Values returns the values of one label, sorted.
func (s *Streams) Values(name string) []string {
	values := map[string]bool{}
	for _, stream := range s.All {
		if value := stream.Labels.Get(name); value != "" {
			values[value] = true
		}
	}
	return slices.Sorted(maps.Keys(values))
}

// selector returns one that all the streams match, by a label that all have.
func (s *Streams) selector() (string, bool) {
	for _, name := range s.Names() {
		if !slices.ContainsFunc(s.All, func(stream logs.Stream) bool { return !stream.Labels.Has(name) }) {
			return fmt.Sprintf(`{%s=~".+"}`, name), true
		}
	}
	return "", false
}
