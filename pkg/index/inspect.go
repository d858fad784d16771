// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// KnownFile is a segment's file that the index knows of.
type KnownFile struct {
	ID      lake.SegmentID
	Bucket  string
	Key     string
	Lease   lake.LeaseID
	Removed bool // its files are still there, or being swept
	Missing bool // it was seen not to be there
}

// SegmentsOfDay lists segments, live and removed, whose windows begin on a day (UTC), by number. A limit of zero: 1,000.
func (x *Index) SegmentsOfDay(ctx context.Context, org lake.Organization, signal lake.Signal, day time.Time, after lake.SegmentID, limit int) (files []KnownFile, err error) {
	defer x.observe("segments_of_day", &err)()
	begin := lake.WindowOf(day, 24*time.Hour).Start
	rows, err := x.queries.SegmentsOfDay(ctx, db.SegmentsOfDayParams{
		Organization: string(org), Places: placesOf(signal), Day: begin, DayEnd: begin.Add(24 * time.Hour), After: int64(after), PageSize: pageSize(limit),
	})
	if err != nil {
		return nil, failed("list the segments of a day", err)
	}
	for _, r := range rows {
		files = append(files, KnownFile{
			ID: lake.SegmentID(r.ID), Bucket: r.Bucket, Key: r.Key, Lease: lake.LeaseID(r.Lease), Removed: r.Removed, Missing: r.Missing,
		})
	}
	return files, nil
}

// SegmentDays lists the days (UTC) from one on that have live segments.
func (x *Index) SegmentDays(ctx context.Context, org lake.Organization, signal lake.Signal, from time.Time, limit int) (days []time.Time, err error) {
	defer x.observe("segment_days", &err)()
	rows, err := x.queries.SegmentDays(ctx, db.SegmentDaysParams{
		Organization: string(org), Signal: int16(signal), FromDay: lake.WindowOf(bounded(from), 24*time.Hour).Start, PageSize: pageSize(limit),
	})
	if err != nil {
		return nil, failed("list the days of segments", err)
	}
	for _, r := range rows {
		days = append(days, r.UTC())
	}
	return days, nil
}

// LeaseStates returns the states of leases: live, committed, released or expired. One that is not there is not known (any more).
func (x *Index) LeaseStates(ctx context.Context, ids []lake.LeaseID) (states map[lake.LeaseID]string, err error) {
	defer x.observe("lease_states", &err)()
	rows, err := x.queries.LeaseStates(ctx, texts(ids))
	if err != nil {
		return nil, failed("read the states of leases", err)
	}
	states = make(map[lake.LeaseID]string, len(rows))
	for _, r := range rows {
		states[lake.LeaseID(r.ID)] = r.State
	}
	return states, nil
}

// MarkMissing notes of live segments that their file is not there, or that it is there again.
func (x *Index) MarkMissing(ctx context.Context, ids []lake.SegmentID, missing bool) (err error) {
	defer x.observe("mark_missing", &err)()
	return failed("mark missing segments", x.queries.MarkMissing(ctx, db.MarkMissingParams{Missing: missing, Ids: numbers(ids)}))
}

// MissingSegment is a live segment whose file is not there. Its Sources are filled, up to 1,000: what to replay to have the rows again.
type MissingSegment struct {
	lake.Segment
	MissingSince time.Time
}

// Missing lists an organization's missing segments. A limit of zero: 1,000.
func (x *Index) Missing(ctx context.Context, org lake.Organization, limit int) (missing []MissingSegment, err error) {
	defer x.observe("missing", &err)()
	rows, err := x.queries.MissingSegments(ctx, db.MissingSegmentsParams{Organization: string(org), PageSize: pageSize(limit)})
	if err != nil {
		return nil, failed("list missing segments", err)
	}
	for _, r := range rows {
		m := MissingSegment{Segment: segmentOf(r.Segment), MissingSince: timeOf(r.Segment.MissingSince)}
		m.Sources = numbered[lake.ReceiptID](r.Sources)
		missing = append(missing, m)
	}
	return missing, nil
}
