// SPDX-License-Identifier: AGPL-3.0-only

package rebuild

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// A restored database may be so old that segments which it has alive were not only removed since, but swept: then neither the newest
// snapshot nor the records since have a word of them. What was added before the snapshot began and is not in it is such a segment.

// listed notes the segments that a part of a snapshot has.
func listed(into map[lake.SegmentID]bool, p archive.Part, rows []byte) error {
	if p.Table != "segments" {
		return nil
	}
	for line := range bytes.Lines(rows) {
		var row struct {
			ID lake.SegmentID `json:"id"`
		}
		if err := json.Unmarshal(line, &row); err != nil {
			return fmt.Errorf("read a row of a snapshot: %w", err)
		}
		into[row.ID] = true
	}
	return nil
}

// removeSwept removes live segments that are older than the snapshot and not in it.
func (r *rebuild) removeSwept(ctx context.Context, org lake.Organization, m *archive.Manifest, inSnapshot map[lake.SegmentID]bool) (int64, error) {
	var swept []lake.Segment
	look := func(s lake.Segment) {
		// One that was committed while the snapshot was read is in a record.
		if !inSnapshot[s.ID] && s.CreatedAt.Before(m.Since()) {
			swept = append(swept, s)
			inSnapshot[s.ID] = true
		}
	}
	for _, signal := range []lake.Signal{lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans} {
		q := index.Query{Organization: org, Signal: signal, Start: time.Unix(0, 0).UTC(), End: endOfTime()}
		if err := r.eachSegment(ctx, q, look); err != nil {
			return 0, err
		}
		if err := r.eachRollup(ctx, org, signal, look); err != nil {
			return 0, err
		}
	}
	for rest := swept; len(rest) > 0; rest = rest[min(len(rest), adoptBatch):] {
		record, err := index.RemovalRecord(org, rest[:min(len(rest), adoptBatch)], m.StartedAt)
		if err != nil {
			return 0, err
		}
		if _, err := r.Index.Adopt(ctx, org, []index.Record{record}); err != nil {
			return 0, err
		}
	}
	return int64(len(swept)), nil
}

// eachSegment gives the live segments of a range, some of them twice where they are too many for one answer.
func (r *rebuild) eachSegment(ctx context.Context, q index.Query, each func(lake.Segment)) error {
	answer, err := r.Index.Lookup(ctx, q)
	if errors.Is(err, fault.Exhausted) && q.End.Sub(q.Start) > time.Hour {
		first, second := q, q
		first.End = q.Start.Add(q.End.Sub(q.Start) / 2)
		second.Start = first.End
		return errors.Join(r.eachSegment(ctx, first, each), r.eachSegment(ctx, second, each))
	}
	if err != nil {
		return err
	}
	for _, s := range answer.Segments {
		each(s)
	}
	return nil
}

// eachRollup gives the live segments of rollups, current or not.
func (r *rebuild) eachRollup(ctx context.Context, org lake.Organization, signal lake.Signal, each func(lake.Segment)) error {
	for _, resolution := range index.Resolutions() {
		q := index.DueQuery{Organization: org, Signal: signal, Resolution: resolution, Before: endOfTime(), Limit: adoptBatch}
		for {
			segments, err := r.Index.DueSegments(ctx, q)
			if err != nil {
				return err
			}
			for _, s := range segments {
				each(s)
			}
			if len(segments) < adoptBatch {
				break
			}
			q.After = &segments[len(segments)-1]
		}
	}
	return nil
}

// endOfTime is after all windows.
func endOfTime() time.Time { return time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC) }
