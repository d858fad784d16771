// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
)

// Arrivals answers as Lookup does, with the segments of level 0 that were added after since, whether or not compaction has
// removed them again: what a tail of the lake has not seen yet. A segment bears the time at which its commit wrote it, and is seen when
// that commit is through: ask again from a while before the last answer's time, and leave out what it had.
func (x *Index) Arrivals(ctx context.Context, query Query, since time.Time) (answer Answer, err error) {
	defer x.observe("arrivals", &err)()
	if err := query.check(); err != nil {
		return Answer{}, err
	}
	rows, err := x.queries.Arrivals(ctx, db.ArrivalsParams{
		Organization:    string(query.Organization),
		Signal:          int16(query.Signal),
		FirstWindow:     query.firstWindow(),
		EndWindow:       query.endWindow(),
		StartTime:       nanoseconds(query.Start),
		EndTime:         nanoseconds(query.End),
		Since:           bounded(since),
		MaxSegments:     MaxLookupSegments + 1,
		WrittenAfter:    bounded(query.Start).Add(-clockSkew),
		CompletenessCap: CompletenessCap,
	})
	if err != nil {
		return Answer{}, failed("look up new segments", err)
	}
	converted := make([]db.LookupRow, len(rows))
	for i, r := range rows {
		converted[i] = db.LookupRow(r)
	}
	return answerOf(query, converted)
}
