// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"slices"
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

// Lookup returns the segments that may hold rows of a query's range, the deletes that may mask some of their rows, and what may
// be missing there: one statement, one snapshot. A range with too many segments is fault.Exhausted, never cut.
func (x *Index) Lookup(ctx context.Context, query Query) (answer Answer, err error) {
	defer x.observe("lookup", &err)()
	if err := query.check(); err != nil {
		return Answer{}, err
	}
	if query.Resolution > 0 {
		return x.lookupRollups(ctx, query)
	}
	rows, err := x.queries.Lookup(ctx, db.LookupParams{
		Organization:    string(query.Organization),
		Signal:          int16(query.Signal),
		FirstWindow:     query.firstWindow(),
		EndWindow:       query.endWindow(),
		StartTime:       nanoseconds(query.Start),
		EndTime:         nanoseconds(query.End),
		MaxSegments:     MaxLookupSegments + 1,
		WrittenAfter:    bounded(query.Start).Add(-clockSkew),
		CompletenessCap: CompletenessCap,
	})
	if err != nil {
		return Answer{}, failed("look up segments", err)
	}
	return answerOf(query, rows)
}

func (q Query) check() error {
	if q.Signal == lake.SignalUnknown || q.Signal > lake.SignalSpans {
		return fault.New(fault.Invalid, "look up segments of signal %s", q.Signal)
	}
	if q.Resolution < 0 {
		return fault.New(fault.Invalid, "look up segments of resolution %s", q.Resolution)
	}
	return nil
}

// firstWindow is the earliest start of a window that reaches the range.
func (q Query) firstWindow() time.Time { return bounded(q.Start).Add(-maxWindow) }

// endWindow lies after the starts of all windows that reach the range: the column is rounded to microseconds.
func (q Query) endWindow() time.Time { return bounded(q.End).Add(time.Microsecond) }

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

// The kinds of rows of the statement Lookup.
const (
	rowOfAnswer = iota
	rowOfDelete
	rowOfSegment
	rowOfDay    // of LookupRollups alone
	rowOfRollup // as well
)

func answerOf(query Query, rows []db.LookupRow) (Answer, error) {
	var answer Answer
	for _, r := range rows {
		switch r.RowKind {
		case rowOfAnswer: // the first
			answer.At = r.At.UTC()
			answer.Completeness = Completeness{Pending: r.Pending, Failed: r.Failed, OldestPending: zeroIfEpoch(r.OldestPending)}
			answer.Segments = make([]lake.Segment, 0, len(rows))
		case rowOfDelete:
			answer.Deletes = append(answer.Deletes, deleteOfAnswer(query, r))
		case rowOfSegment:
			answer.Segments = append(answer.Segments, segmentOfAnswer(query, r))
		}
	}
	if len(answer.Segments) > MaxLookupSegments {
		return Answer{}, fault.New(fault.Exhausted, "the range has more than %d segments: narrow it", MaxLookupSegments)
	}
	answer.Deletes = masking(answer.Deletes, answer.Segments)
	return answer, nil
}

func segmentOfAnswer(query Query, r db.LookupRow) lake.Segment {
	return segmentOf(db.Segment{
		ID: r.ID, Organization: string(query.Organization), Signal: placeOf(query.Signal, query.Resolution), Resolution: int64(query.Resolution),
		ShardIndex: r.ShardIndex, ShardCount: r.ShardCount,
		WindowStart: r.WindowStart, WindowLength: r.WindowLength, Level: r.Level, Bucket: r.Bucket, Key: r.Key,
		Bytes: r.Bytes, SidecarBytes: r.SidecarBytes, RowCount: r.RowCount, FirstTime: r.FirstTime, LastTime: r.LastTime,
		FormatVersion: r.FormatVersion, RowHash: r.RowHash, MaskedSources: r.MaskedSources, CreatedAt: r.CreatedAt,
		AppliedDelete: r.AppliedDelete, Rules: r.Rules, Identified: r.Identified, Lease: r.Lease,
	})
}

// deleteOfAnswer reads a delete out of the columns of a segment, as the statement puts it there.
func deleteOfAnswer(query Query, r db.LookupRow) lake.Delete {
	return deleteOf(db.Delete{
		ID: r.ID, Organization: string(query.Organization), Signal: int16(query.Signal), Selector: r.Key, StartTime: r.FirstTime,
		EndTime: r.LastTime, Sources: r.Bucket, State: r.Rules[0], Actor: r.Rules[1], Reason: r.Rules[2], CreatedAt: r.WindowStart,
		UpdatedAt: r.CreatedAt,
	})
}

// masking leaves those deletes that may mask a row of one of the segments.
func masking(deletes []lake.Delete, segments []lake.Segment) []lake.Delete {
	return slices.DeleteFunc(deletes, func(d lake.Delete) bool {
		return !slices.ContainsFunc(segments, func(s lake.Segment) bool {
			return s.AppliedDelete < d.ID && s.FirstTime.Before(d.End) && !s.LastTime.Before(d.Start)
		})
	})
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
	sum, err := x.queries.SumVersions(ctx, db.SumVersionsParams{
		Organization: string(org),
		Signal:       int16(signal),
		FirstHour:    window.Start.UTC(),
		EndHour:      window.End().UTC(),
	})
	v.Version = sum.Version
	return v, failed("read the version of a window", err)
}
