// SPDX-License-Identifier: AGPL-3.0-only

package query

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/grafana/loki/v3/pkg/logproto"
	"github.com/grafana/loki/v3/pkg/logql/syntax"
	"github.com/grafana/loki/v3/pkg/pattern/drain"
	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/logs"
)

// Patterns are found in at most patternLines lines, the newest ones of each of patternParts equal parts of the range.
const (
	patternParts = 10
	patternLines = 20_000
)

// Patterns finds the message templates of a selector's lines by Loki's drain, with their lines a step. It looks at a sample of
// the lines when there are many, and says in its statistics that the answer is partial.
func (f *Frontend) Patterns(ctx context.Context, selector string, start, end time.Time, step time.Duration) ([]*logproto.PatternSeries, Statistics, error) {
	organization, err := f.Caller(ctx)
	if err != nil {
		return nil, Statistics{}, err
	}
	expr, err := syntax.ParseLogSelector(selector, true)
	if err != nil {
		return nil, Statistics{}, logs.Classify(err)
	}
	if !start.Before(end) || step <= 0 {
		return nil, Statistics{}, fault.New(fault.Invalid, "end timestamp must not be before or equal to start time")
	}
	run, err := f.open(ctx, organization, start, end, true)
	if err != nil {
		return nil, Statistics{}, err
	}
	run.kind = "patterns"
	found := newPatternFinder(step)
	partial, err := run.sample(found, selector, expr.HasFilter(), start, end)
	run.returned.Store(int64(len(found.counts)))
	statistics := run.end(err)
	statistics.Partial = partial
	return found.series(), statistics, err
}

// sample shows the newest lines of each part of the range to found.
func (r *run) sample(found *patternFinder, selector string, filters bool, start, end time.Time) (partial string, err error) {
	part := max(1, end.Sub(start)/patternParts)
	for from := start; from.Before(end); from = from.Add(part) {
		lines := r.session.Select(r.ctx, logs.Selection{
			Selector: selector, Filters: filters, Start: from, End: earlier(from.Add(part), end),
			Limit: patternLines / patternParts, Direction: logproto.BACKWARD,
		})
		n := 0
		for line := lines.Next(); line != nil; line = lines.Next() {
			found.line(line)
			n++
		}
		if err := lines.Err(); err != nil {
			return "", logs.Classify(err)
		}
		if n == patternLines/patternParts {
			partial = "patterns are those of a sample of the lines"
		}
	}
	return cmp.Or(r.session.Partial(), partial), nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// patternFinder has one drain for each level and format, as Loki does.
type patternFinder struct {
	step   time.Duration
	drains map[patternGroup]*drain.Drain
	counts map[patternKey]map[model.Time]int64
}

type patternGroup struct{ level, format string }

type patternKey struct {
	group   patternGroup
	cluster *drain.LogCluster
}

func newPatternFinder(step time.Duration) *patternFinder {
	return &patternFinder{step: step, drains: map[patternGroup]*drain.Drain{}, counts: map[patternKey]map[model.Time]int64{}}
}

func (p *patternFinder) line(line *logs.Line) {
	group := patternGroup{level: levelOf(line), format: drain.DetectLogFormat(line.Line)}
	d, ok := p.drains[group]
	if !ok {
		d = drain.New("", drain.DefaultConfig(), tokenizedFields{}, group.format, nil)
		p.drains[group] = d
	}
	cluster := d.Train(line.Line, line.Time)
	if cluster == nil {
		return
	}
	key := patternKey{group, cluster}
	if p.counts[key] == nil {
		p.counts[key] = map[model.Time]int64{}
	}
	p.counts[key][model.TimeFromUnixNano(line.Time-line.Time%int64(p.step))]++
}

func levelOf(line *logs.Line) string {
	for _, l := range line.Metadata {
		if l.Name == "detected_level" {
			return l.Value
		}
	}
	return "unknown"
}

// series returns the patterns, the most frequent first. Clusters may have grown alike; those become one.
func (p *patternFinder) series() []*logproto.PatternSeries {
	type key struct{ pattern, level string }
	merged := map[key]map[model.Time]int64{}
	for found, counts := range p.counts {
		k := key{found.cluster.String(), found.group.level}
		if k.pattern == "" {
			continue
		}
		if merged[k] == nil {
			merged[k] = map[model.Time]int64{}
		}
		for at, n := range counts {
			merged[k][at] += n
		}
	}
	out := make([]*logproto.PatternSeries, 0, len(merged))
	for k, counts := range merged {
		series := &logproto.PatternSeries{Pattern: k.pattern, Level: k.level}
		for _, at := range slices.Sorted(maps.Keys(counts)) {
			series.Samples = append(series.Samples, &logproto.PatternSample{Timestamp: at, Value: counts[at]})
		}
		out = append(out, series)
	}
	slices.SortFunc(out, func(a, b *logproto.PatternSeries) int {
		return cmp.Or(cmp.Compare(totalOf(b), totalOf(a)), cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Level, b.Level))
	})
	return out
}

func totalOf(s *logproto.PatternSeries) (total int64) {
	for _, sample := range s.Samples {
		total += sample.Value
	}
	return total
}

// tokenizedFields names the JSON fields whose text has patterns, as Loki's defaults do.
type tokenizedFields struct{}

// PatternIngesterTokenizableJSONFields returns the names.
func (tokenizedFields) PatternIngesterTokenizableJSONFields(string) []string {
	return []string{"log", "message", "msg", "msg_", "_msg", "content"}
}
