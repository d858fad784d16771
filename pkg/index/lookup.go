// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// MaxLookupSegments is how many segments one answer may hold.
	MaxLookupSegments = 200_000
	// clockSkew is how far a producer's clock may run ahead of the store's: an object written before a range began, by more than
	// this, holds no rows of it.
	clockSkew = time.Hour
)

// Lookup returns the segments that may hold rows of a query's range, and what may be missing there: one statement, one
// snapshot. A range with too many segments is fault.Exhausted, never cut.
func (x *Index) Lookup(ctx context.Context, query Query) (answer Answer, err error) {
	defer x.observe("lookup", &err)()
	if query.Signal == lake.SignalUnknown || query.Signal > lake.SignalSpans {
		return Answer{}, fault.New(fault.Invalid, "look up segments of signal %s", query.Signal)
	}
	rows, err := x.queries.Lookup(ctx, db.LookupParams{
		Organization:    string(query.Organization),
		Signal:          int16(query.Signal),
		FirstWindow:     bounded(query.Start).Add(-maxWindow),
		EndWindow:       bounded(query.End).Add(time.Microsecond), // the column is rounded to microseconds
		StartTime:       nanoseconds(query.Start),
		EndTime:         nanoseconds(query.End),
		MaxSegments:     MaxLookupSegments + 1,
		WrittenAfter:    bounded(query.Start).Add(-clockSkew),
		CompletenessCap: CompletenessCap,
	})
	if err != nil {
		return Answer{}, failed("look up segments", err)
	}
	if len(rows) > MaxLookupSegments {
		return Answer{}, fault.New(fault.Exhausted, "the range has more than %d segments: narrow it", MaxLookupSegments)
	}
	return answerOf(query, rows), nil
}

// bounded keeps a time within what the database can hold.
func bounded(t time.Time) time.Time {
	switch {
	case t.Year() < 1:
		return time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)
	case t.Year() > 9999:
		return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t.UTC()
}

func answerOf(query Query, rows []db.LookupRow) Answer {
	first := rows[0] // there is one even without a segment
	answer := Answer{
		At: first.At.UTC(),
		Completeness: Completeness{
			Pending:       first.Pending,
			Failed:        first.Failed,
			OldestPending: zeroIfEpoch(first.OldestPending),
		},
	}
	if first.ID == nil {
		return answer
	}
	answer.Segments = make([]lake.Segment, len(rows))
	for i, r := range rows {
		answer.Segments[i] = segmentOf(db.Segment{
			ID: *r.ID, Organization: string(query.Organization), Signal: int16(query.Signal),
			WindowStart: *r.WindowStart, WindowLength: *r.WindowLength, Level: *r.Level, Bucket: *r.Bucket, Key: *r.Key,
			Bytes: *r.Bytes, SidecarBytes: *r.SidecarBytes, RowCount: *r.RowCount, FirstTime: *r.FirstTime, LastTime: *r.LastTime,
			FormatVersion: *r.FormatVersion, RowHash: *r.RowHash, MaskedSources: r.MaskedSources, CreatedAt: *r.CreatedAt,
		})
	}
	return answer
}

// SegmentsOf returns the live segments that hold rows of a receipt, as Lookup does.
func (x *Index) SegmentsOf(ctx context.Context, receipt lake.ReceiptID) (segments []lake.Segment, err error) {
	defer x.observe("segments_of", &err)()
	rows, err := x.queries.SegmentsOfReceipt(ctx, int64(receipt))
	if err != nil {
		return nil, failed(fmt.Sprintf("look up the segments of receipt %d", receipt), err)
	}
	for _, r := range rows {
		segments = append(segments, segmentOf(r.Segment))
	}
	return segments, nil
}

// WindowVersion reads the content version of a window of whole hours, for Edit.Expect. Read it before the segments.
func (x *Index) WindowVersion(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (v lake.WindowVersion, err error) {
	defer x.observe("window_version", &err)()
	v = lake.WindowVersion{Signal: signal, Window: window}
	if err := checkExpected([]lake.WindowVersion{v}); err != nil {
		return v, fault.Wrap(fault.Invalid, err)
	}
	v.Version, err = x.queries.SumVersions(ctx, db.SumVersionsParams{
		Organization: string(org),
		Signal:       int16(signal),
		FirstHour:    window.Start.UTC(),
		EndHour:      window.End().UTC(),
	})
	return v, failed("read the version of a window", err)
}
