// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// Explain says what a query would be answered from, leaf by leaf, and which segments would be read.
func (s *Session) Explain(q *promplan.Query) (string, []lake.Segment, error) {
	var out strings.Builder
	read := map[string]lake.Segment{}
	take := func(segments []lake.Segment) {
		for _, segment := range segments {
			read[segment.Key] = segment
		}
	}
	for _, leaf := range q.Leaves {
		choices, err := s.choose(leaf, nil)
		if err != nil {
			return "", nil, err
		}
		shards := s.shards(leaf, choices)
		fmt.Fprintf(&out, "%s\n", leaf.Expr)
		for _, c := range choices {
			segments := within(c.level.Segments, leaf.SpanOf(c.grid))
			take(segments)
			fmt.Fprintf(&out, "  %s: times %d, segments %d, shards %d, slices %d\n", levelName(c.level), c.grid.Len(), len(segments), shards, len(s.slices(leaf, c, shards)))
		}
		if len(s.Rollups) > 0 {
			s.explainRefusals(&out, leaf)
		}
	}
	for _, selector := range q.Samples {
		segments := within(s.Samples.Segments, q.Span)
		take(segments)
		fmt.Fprintf(&out, "%s\n  samples: segments %d\n", selector, len(segments))
	}
	return out.String(), slices.Collect(maps.Values(read)), nil
}

func levelName(l *Level) string {
	if l.Resolution == 0 {
		return "samples"
	}
	return "rollups of " + model.Duration(l.Resolution).String()
}

func (s *Session) explainRefusals(out *strings.Builder, leaf *promplan.Leaf) {
	for i := range s.Rollups {
		if ok, _, reason := leaf.Answers(s.Rollups[i].Resolution); !ok {
			fmt.Fprintf(out, "  not from %s: %s\n", levelName(&s.Rollups[i]), reason)
		}
	}
}
