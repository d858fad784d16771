// SPDX-License-Identifier: AGPL-3.0-only

package metrics

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/prom"
	"github.com/lakerunner/lakerunner/services/query-frontend/internal/promplan"
)

// Rolled evaluates a leaf at those of its times that rollups answer. Rest are the others, which are the caller's: of logs, the segments of samples are rows.
func (s *Session) Rolled(ctx context.Context, leaf *promplan.Leaf) (series []prom.Series, rest []promplan.Grid, err error) {
	choices, err := s.choose(leaf, nil)
	if err != nil {
		return nil, nil, s.endOf(ctx, err)
	}
	var rolled []choice
	for _, c := range choices {
		if c.level.Resolution == 0 {
			rest = append(rest, c.grid)
			continue
		}
		rolled = append(rolled, c)
	}
	if len(rolled) == 0 {
		return nil, rest, nil
	}
	series, refusing, err := s.chosen(ctx, leaf, rolled)
	if refusing != nil {
		return nil, []promplan.Grid{leaf.Asked}, nil
	}
	return series, rest, s.endOf(ctx, err)
}

// Resolution is the coarsest one that has answered a part; zero: none has.
func (s *Session) Resolution() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resolution
}
