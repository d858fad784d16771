// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/fan"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

const (
	// smallRows is how many rows one worker is asked for alone where segments are not sharded: more workers would all have to read the same.
	smallRows = 1_000_000
	// leastWindows is how many windows a slice has at least: samples of the first one are read twice.
	leastWindows = 4
	maxSlices    = 1000
	// finer is into how many parts each shard is parted that a worker could not hold at once, and maxShards how many there are at most.
	finer     = 8
	maxShards = 512
)

// errUnmerged says that values of shards do not merge to the value of all.
var errUnmerged = errors.New("values of shards do not merge")

// evaluateLeaf evaluates a leaf at the times at which it is asked. Series are sorted by labels, with a sample at each time that has a value.
func (s *Session) evaluateLeaf(ctx context.Context, leaf *promplan.Leaf) ([]prom.Series, error) {
	inexact := map[time.Duration]bool{}
	for {
		choices, err := s.choose(leaf, inexact)
		if err != nil {
			return nil, err
		}
		series, refusing, err := s.chosen(ctx, leaf, choices)
		if refusing == nil {
			return series, err
		}
		inexact[refusing.Resolution] = true
	}
}

// chosen evaluates a leaf's parts. Refusing is a level whose buckets turned out not to have the answer.
func (s *Session) chosen(ctx context.Context, leaf *promplan.Leaf, choices []choice) (series []prom.Series, refusing *Level, err error) {
	shards := s.shards(leaf, choices)
	series, asked, err := s.ask(ctx, leaf, choices, shards)
	var crowded *crowdedError
	for leaf.Merge != promplan.MergeNone && !leaf.Sole && errors.As(err, &crowded) && finer*shards <= maxShards {
		shards *= finer
		series, asked, err = s.ask(ctx, leaf, choices, shards)
	}
	if errors.Is(err, errUnmerged) && shards > 1 {
		series, asked, err = s.ask(ctx, leaf, choices, 1)
	}
	var inexact *inexactError
	if errors.As(err, &inexact) {
		return nil, inexact.level, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, c := range choices {
		// Where there is nothing at all, no rollup was needed to see that.
		if span := leaf.SpanOf(c.grid); len(within(c.level.Segments, promplan.Span{Start: span.Start, End: span.End + c.level.Resolution.Milliseconds()})) > 0 {
			s.used(c.level.Resolution, c.bound)
		}
	}
	asked.end()
	return series, nil, nil
}

// ask asks workers for a leaf in so many shards, and merges what they answer.
func (s *Session) ask(ctx context.Context, leaf *promplan.Leaf, choices []choice, shards int) ([]prom.Series, *question, error) {
	asked := newQuestion(s, leaf, choices, shards)
	if err := s.run(ctx, asked.parts); err != nil {
		return nil, asked, err
	}
	series, err := asked.merged()
	return series, asked, err
}

// crowdedError is a worker's refusal to hold as much at once as it would take.
type crowdedError struct{ error }

// Unwrap returns what the worker said.
func (e *crowdedError) Unwrap() error { return e.error }

// inexactError is a worker's refusal to answer from rollups.
type inexactError struct {
	level *Level
	error
}

// Unwrap returns what the worker said.
func (e *inexactError) Unwrap() error { return e.error }

// run asks workers.
func (s *Session) run(ctx context.Context, parts []fan.Part) error {
	return s.Fan.Run(ctx, fan.Scan{Organization: s.Organization, QueryID: s.QueryID, Deletes: s.deletes(), Parts: parts, Tally: s.Tally})
}

// deletes are those of all levels, by rising number.
func (s *Session) deletes() []lake.Delete {
	all := slices.Clone(s.Samples.Deletes)
	for i := range s.Rollups {
		all = append(all, s.Rollups[i].Deletes...)
	}
	slices.SortFunc(all, func(a, b lake.Delete) int { return int(a.ID - b.ID) })
	return slices.CompactFunc(all, func(a, b lake.Delete) bool { return a.ID == b.ID })
}

// shards is into how many shards a leaf is parted.
func (s *Session) shards(leaf *promplan.Leaf, choices []choice) int {
	if leaf.Sole {
		return 1
	}
	var segments []lake.Segment
	for _, c := range choices {
		segments = append(segments, within(c.level.Segments, leaf.SpanOf(c.grid))...)
	}
	return s.shardsOver(segments)
}

func (s *Session) shardsOver(segments []lake.Segment) int {
	workers := s.Limits.Shards
	if workers <= 0 {
		workers = s.Fan.Workers()
	}
	var rows int64
	sharded := false
	for i := range segments {
		rows += segments[i].Rows
		sharded = sharded || !segments[i].Shard.Whole()
	}
	if workers <= 1 || !sharded && rows < smallRows && s.Limits.Shards == 0 {
		return 1
	}
	return 1 << bits.Len(uint(workers-1))
}

// within returns the segments that may hold samples of a span.
func within(segments []lake.Segment, span promplan.Span) []lake.Segment {
	from, to := span.Times()
	var out []lake.Segment
	for i := range segments {
		if s := &segments[i]; !s.LastTime.Before(from) && s.FirstTime.Before(to) {
			out = append(out, *s)
		}
	}
	return out
}

// meeting returns the segments that may hold series of a shard.
func meeting(segments []lake.Segment, shard lake.Shard) []lake.Segment {
	var out []lake.Segment
	for i := range segments {
		if segments[i].Shard.Meets(shard) {
			out = append(out, segments[i])
		}
	}
	return out
}

// shardKey places a shard: with the same number of workers, the same worker has it again.
func (s *Session) shardKey(shard lake.Shard) string {
	return fmt.Sprintf("%s/metrics/%d/%d", s.Organization, shard.Index, shard.Count)
}

// question is a leaf on its way.
type question struct {
	session *Session
	leaf    *promplan.Leaf
	shards  int
	texts   []string // what each shard is asked
	parts   []fan.Part
	// answers are by slice of time, text and shard.
	answers [][][]*seriesDecoder
	held    int
}

func newQuestion(s *Session, leaf *promplan.Leaf, choices []choice, shards int) *question {
	q := &question{session: s, leaf: leaf, shards: shards, texts: leaf.Parts}
	if shards == 1 {
		q.texts = []string{leaf.Whole}
	}
	for _, c := range choices {
		for _, grid := range s.slices(leaf, c, shards) {
			q.slice(c.level, grid)
		}
	}
	return q
}

// slices cuts a part of a leaf's times so that no shard of it holds too many rows.
func (s *Session) slices(leaf *promplan.Leaf, c choice, shards int) []promplan.Grid {
	n := c.grid.Len()
	if leaf.Sole || n <= 1 {
		return []promplan.Grid{c.grid}
	}
	most := s.Limits.PartRows
	if most <= 0 {
		most = defaultPartRows
	}
	var rows int64
	for _, segment := range within(c.level.Segments, leaf.SpanOf(c.grid)) {
		rows += segment.Rows
	}
	first := leaf.SpanOf(c.grid.Part(0, 1))
	leastSteps := int(max(1, leastWindows*(first.End-first.Start+1)/max(1, c.grid.Step)))
	count := int(min(maxSlices, (rows/int64(shards)+most-1)/most, int64((n+leastSteps-1)/leastSteps)))
	if count <= 1 {
		return []promplan.Grid{c.grid}
	}
	var out []promplan.Grid
	for i := range count {
		out = append(out, c.grid.Part(i*n/count, (i+1)*n/count))
	}
	return out
}

// slice asks for a stretch of time.
func (q *question) slice(level *Level, grid promplan.Grid) {
	segments := within(level.Segments, q.leaf.SpanOf(grid))
	steps := newSteps(grid)
	answers := make([][]*seriesDecoder, len(q.texts))
	for t, text := range q.texts {
		answers[t] = make([]*seriesDecoder, q.shards)
		for i := range q.shards {
			shard := lake.Shard{Index: uint32(i), Count: uint32(q.shards)}
			q.parts = append(q.parts, fan.Part{
				Key:        q.session.shardKey(shard),
				Segments:   meeting(segments, shard),
				Fragment:   q.fragment(level, grid, text, shard),
				NewDecoder: func() fan.Decoder { return q.session.decoder(steps) },
				Done:       func(d fan.Decoder) error { return q.done(&answers[t][i], d.(*seriesDecoder)) },
				Failed:     func(err error) error { return refusal(level, err) },
			})
		}
	}
	q.answers = append(q.answers, answers)
}

// refusal tells a worker's refusals to answer from rollups, and to hold as much as it would take, from other errors.
func refusal(level *Level, err error) error {
	switch {
	case level.Resolution > 0 && errors.Is(err, fault.Unsupported):
		return &inexactError{level: level, error: err}
	case errors.Is(err, fault.Exhausted):
		return &crowdedError{err}
	}
	return err
}

func (s *Session) decoder(at *steps) *seriesDecoder {
	return &seriesDecoder{most: s.samples(), many: s.errSamples, steps: at}
}

func (q *question) fragment(level *Level, grid promplan.Grid, text string, shard lake.Shard) func(*workerv1.ScanRequest) {
	step := grid.Step
	if grid.Len() == 1 {
		step = 0
	}
	return func(req *workerv1.ScanRequest) {
		req.Fragment = &workerv1.ScanRequest_MetricVector{MetricVector: &workerv1.MetricVector{
			Expression: text, StartMs: grid.Start, EndMs: grid.Last(), StepMs: step, LookbackMs: q.session.Lookback.Milliseconds(),
			Shard: fan.ShardProto(shard), ResolutionMs: level.Resolution.Milliseconds(), MaxSamples: int64(q.session.samples()),
			StartTimestamps: q.session.StartTimestamps,
		}}
	}
}

// done takes an answer.
func (q *question) done(to **seriesDecoder, d *seriesDecoder) error {
	*to = d
	if q.held += d.held; q.held > q.session.samples() {
		return q.session.errSamples()
	}
	if q.shards > 1 && q.leaf.Merge != promplan.MergeNone && slices.ContainsFunc(d.remarks, unmergeable) {
		return errUnmerged
	}
	return nil
}

// unmergeable reports a remark that a group of an aggregation was left out because of what was in it: other shards' parts of it must not be answered either.
func unmergeable(r prom.Annotation) bool {
	return !r.Info && strings.Contains(r.Text, "a mix of histograms")
}

// end takes in what workers said beside their answers.
func (q *question) end() {
	for _, slice := range q.answers {
		for t, shards := range slice {
			for _, d := range shards {
				if d != nil {
					q.session.ended(d.ending, func(start, end int) (int, int) { return q.leaf.Remarked(q.texts[t], start, end) })
				}
			}
		}
	}
}
