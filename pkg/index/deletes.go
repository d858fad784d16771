// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

const (
	// MaxDeletes is how many deletes one answer may hold.
	MaxDeletes = 10_000
	// maxSelector is how long the selector of a delete may be, in bytes.
	maxSelector = 16 << 10
)

// DeleteQuery asks for deletes of data, oldest first.
type DeleteQuery struct {
	Organization lake.Organization
	Signal       lake.Signal        // unknown: all
	After        lake.DeleteID      // only those with a higher number, or with a lower one when Descending; zero: all
	States       []lake.DeleteState // none: all
	Descending   bool               // newest first
	Limit        int                // zero, or more than MaxDeletes: MaxDeletes
}

// DeleteProgress says what is left of a delete of data.
type DeleteProgress struct {
	SegmentsLeft int64 // live ones that may still hold its rows, masked
	BytesLeft    int64 // of those
	RowsDeleted  int64 // so far
	FilesLeft    int64 // segments that held its rows, were replaced, and whose files are not seen to be gone
	ObjectsLeft  int64 // source objects that its policy has not been done to; those left by policy do not count
}

// DeletedSegment is a segment that held rows of a delete, and was replaced.
type DeletedSegment struct {
	Segment     lake.SegmentID
	Bucket, Key string
	Rows        int64 // of the delete
	RemovedAt   time.Time
	GoneAt      time.Time // when its files were seen to be gone; zero: not yet
}

// DeletedSource is a source object that brought rows of a delete.
type DeletedSource struct {
	Receipt lake.Receipt
	Rows    int64     // of the delete
	Action  string    // what was done to the object; empty: nothing yet
	DoneAt  time.Time // zero: nothing yet
}

// CreateDelete makes a delete of data: from its commit on, every Lookup names it, and work that began before masks its rows. It
// assigns number, time and state. It enqueues nothing.
func (x *Index) CreateDelete(ctx context.Context, d lake.Delete) (created lake.Delete, err error) {
	defer x.observe("create_delete", &err)()
	if err := checkDelete(&d); err != nil {
		return lake.Delete{}, fault.Wrap(fault.Invalid, err)
	}
	err = x.inTx(ctx, func(q *db.Queries) error {
		created, err = createDelete(ctx, q, d)
		return err
	})
	return created, failed("make a delete", err)
}

func createDelete(ctx context.Context, q *db.Queries, d lake.Delete) (lake.Delete, error) {
	if err := q.SerializeDeletes(ctx); err != nil {
		return lake.Delete{}, err
	}
	row, err := q.InsertDelete(ctx, db.InsertDeleteParams{
		Organization: string(d.Organization),
		Signal:       int16(d.Signal),
		Selector:     d.Selector,
		StartTime:    nanoseconds(d.Start),
		EndTime:      nanoseconds(d.End),
		Sources:      string(d.Sources),
		Actor:        clean(d.Actor),
		Reason:       clean(d.Reason),
	})
	if err != nil {
		return lake.Delete{}, err
	}
	created := deleteOf(row)
	err = q.BumpVersionsBetween(ctx, db.BumpVersionsBetweenParams{
		Organization: string(d.Organization),
		Signal:       int16(d.Signal),
		FirstHour:    lake.WindowOf(created.Start, time.Hour).Start,
		EndHour:      roundedUp(created.End),
	})
	if err != nil {
		return lake.Delete{}, err
	}
	return created, recordDelete(ctx, q, created)
}

// roundedUp is the first time that the database can hold which is not before t.
func roundedUp(t time.Time) time.Time {
	if rounded := t.Truncate(time.Microsecond); !rounded.Equal(t) {
		return rounded.Add(time.Microsecond)
	}
	return t
}

// checkDelete refuses what cannot be, and fills in what is left to us.
func checkDelete(d *lake.Delete) error {
	if d.Sources == "" {
		d.Sources = lake.SourceLeave
	}
	switch {
	case d.Signal == lake.SignalUnknown || d.Signal > lake.SignalSpans:
		return fmt.Errorf("a delete of signal %s", d.Signal)
	case d.Selector == "" || len(d.Selector) > maxSelector || !storable(d.Selector):
		return fmt.Errorf("a delete wants a selector of up to %d bytes", maxSelector)
	case nanoseconds(d.Start) >= nanoseconds(d.End):
		return fmt.Errorf("a delete of nothing: from %s until %s", d.Start, d.End)
	case d.Sources != lake.SourceLeave && d.Sources != lake.SourceErase && d.Sources != lake.SourceRedact:
		return fmt.Errorf("policy %q for source objects: want leave, erase or redact", d.Sources)
	}
	return d.Organization.Valid()
}

// Deletes lists deletes of data, and says the highest number of the organization's, over all signals and states. Both are of one
// moment or the number of an earlier one, so a segment of rows that these deletes were applied to may claim it.
func (x *Index) Deletes(ctx context.Context, query DeleteQuery) (deletes []lake.Delete, latest lake.DeleteID, err error) {
	defer x.observe("deletes", &err)()
	number, err := x.queries.LatestDelete(ctx, string(query.Organization))
	if err != nil {
		return nil, 0, failed("read the latest delete", err)
	}
	rows, err := x.deletePage(ctx, query)
	if err != nil {
		return nil, 0, failed("list deletes", err)
	}
	for _, row := range rows {
		deletes = append(deletes, deleteOf(row))
	}
	return deletes, lake.DeleteID(number), nil
}

func (x *Index) deletePage(ctx context.Context, query DeleteQuery) ([]db.Delete, error) {
	limit := query.Limit
	if limit <= 0 || limit > MaxDeletes {
		limit = MaxDeletes
	}
	states := make([]string, 0, len(query.States))
	for _, s := range query.States {
		states = append(states, string(s))
	}
	var deletes []db.Delete
	if query.Descending {
		before := int64(query.After)
		if before == 0 {
			before = math.MaxInt64
		}
		rows, err := x.queries.DeletePageDescending(ctx, db.DeletePageDescendingParams{
			Organization: string(query.Organization), Before: before, Signal: int16(query.Signal), States: states, PageSize: int32(limit),
		})
		for _, row := range rows {
			deletes = append(deletes, row.Delete)
		}
		return deletes, err
	}
	rows, err := x.queries.DeletePage(ctx, db.DeletePageParams{
		Organization: string(query.Organization), After: int64(query.After), Signal: int16(query.Signal), States: states, PageSize: int32(limit),
	})
	for _, row := range rows {
		deletes = append(deletes, row.Delete)
	}
	return deletes, err
}

// Delete returns one delete; fault.NotFound when there is none of that number.
func (x *Index) Delete(ctx context.Context, id lake.DeleteID) (d lake.Delete, err error) {
	defer x.observe("delete", &err)()
	d, err = deleteByID(ctx, x.queries, id)
	return d, failed("read a delete", err)
}

func deleteByID(ctx context.Context, q *db.Queries, id lake.DeleteID) (lake.Delete, error) {
	rows, err := q.DeleteByID(ctx, int64(id))
	if err != nil {
		return lake.Delete{}, err
	}
	if len(rows) == 0 {
		return lake.Delete{}, fault.New(fault.NotFound, "there is no delete %d", id)
	}
	return deleteOf(rows[0].Delete), nil
}

// DeleteProgress counts what is left of a delete.
func (x *Index) DeleteProgress(ctx context.Context, id lake.DeleteID) (p DeleteProgress, err error) {
	defer x.observe("delete_progress", &err)()
	d, err := deleteByID(ctx, x.queries, id)
	if err != nil {
		return p, failed("read a delete", err)
	}
	under := reach(d)
	left, err := x.queries.CountSegmentsUnderDelete(ctx, db.CountSegmentsUnderDeleteParams{
		Organization: string(d.Organization),
		Places:       placesOf(d.Signal),
		FirstWindow:  under.firstWindow(),
		EndWindow:    under.endWindow(),
		StartTime:    nanoseconds(d.Start),
		EndTime:      nanoseconds(d.End),
		ID:           int64(id),
	})
	if err != nil {
		return p, failed("count segments under a delete", err)
	}
	counts, err := x.queries.DeletedCounts(ctx, int64(id))
	if err != nil {
		return p, failed("count deleted rows", err)
	}
	p = DeleteProgress{
		SegmentsLeft: left.Segments,
		BytesLeft:    left.Bytes,
		RowsDeleted:  counts.Rows,
		FilesLeft:    counts.FilesLeft,
		ObjectsLeft:  counts.ObjectsLeft,
	}
	if d.Sources == lake.SourceLeave {
		p.ObjectsLeft = 0
	}
	return p, nil
}

// reach is the query whose segments a delete may touch.
func reach(d lake.Delete) Query {
	return Query{Organization: d.Organization, Signal: d.Signal, Start: d.Start, End: d.End}
}

// AdvanceDelete moves a delete on; fault.Conflict when it is not in the state from.
func (x *Index) AdvanceDelete(ctx context.Context, id lake.DeleteID, from, to lake.DeleteState) (err error) {
	defer x.observe("advance_delete", &err)()
	err = x.inTx(ctx, func(q *db.Queries) error {
		d, err := deleteByID(ctx, q, id)
		if err != nil {
			return err
		}
		n, err := q.AdvanceDelete(ctx, db.AdvanceDeleteParams{ID: int64(id), Current: string(from), Next: string(to)})
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.Conflict, "delete %d is not %s", id, from)
		}
		return recordDelete(ctx, q, d)
	})
	return failed("advance a delete", err)
}

// SegmentsUnderDelete lists live segments that may hold rows of a delete, by number, from the one after the given. A limit of
// zero: 1,000.
func (x *Index) SegmentsUnderDelete(ctx context.Context, id lake.DeleteID, after lake.SegmentID, limit int) (segments []lake.Segment, err error) {
	defer x.observe("segments_under_delete", &err)()
	d, err := deleteByID(ctx, x.queries, id)
	if err != nil {
		return nil, failed("read a delete", err)
	}
	under := reach(d)
	rows, err := x.queries.SegmentsUnderDelete(ctx, db.SegmentsUnderDeleteParams{
		Organization: string(d.Organization),
		Places:       placesOf(d.Signal),
		FirstWindow:  under.firstWindow(),
		EndWindow:    under.endWindow(),
		StartTime:    nanoseconds(d.Start),
		EndTime:      nanoseconds(d.End),
		ID:           int64(id),
		After:        int64(after),
		PageSize:     pageSize(limit),
	})
	if err != nil {
		return nil, failed("list segments under a delete", err)
	}
	for _, r := range rows {
		segments = append(segments, segmentOf(r.Segment))
	}
	return segments, nil
}

// pageSize bounds a page whose caller may leave its size open.
func pageSize(limit int) int32 {
	if limit <= 0 {
		return maxPage
	}
	return int32(min(limit, MaxEditSegments))
}

// DeleteSegments lists the segments that held rows of a delete and were replaced, also after they were swept.
func (x *Index) DeleteSegments(ctx context.Context, id lake.DeleteID) (segments []DeletedSegment, err error) {
	defer x.observe("delete_segments", &err)()
	rows, err := x.queries.DeletedSegments(ctx, db.DeletedSegmentsParams{DeleteID: int64(id), PageSize: 1_000_000})
	if err != nil {
		return nil, failed("list the segments of a delete", err)
	}
	for _, r := range rows {
		segments = append(segments, DeletedSegment{
			Segment:   lake.SegmentID(r.Segment),
			Bucket:    r.Bucket,
			Key:       r.Key,
			Rows:      r.RowCount,
			RemovedAt: r.RemovedAt.UTC(),
			GoneAt:    timeOf(r.GoneAt),
		})
	}
	return segments, nil
}

// DeleteSources lists the source objects that brought rows of a delete, by receipt, from the one after the given. A limit of
// zero: 1,000.
func (x *Index) DeleteSources(ctx context.Context, id lake.DeleteID, after lake.ReceiptID, limit int) (sources []DeletedSource, err error) {
	defer x.observe("delete_sources", &err)()
	rows, err := x.queries.DeletedSources(ctx, db.DeletedSourcesParams{DeleteID: int64(id), After: int64(after), PageSize: pageSize(limit)})
	if err != nil {
		return nil, failed("list the source objects of a delete", err)
	}
	for _, r := range rows {
		receipt, err := receiptOf(r.Receipt)
		if err != nil {
			return nil, err
		}
		sources = append(sources, DeletedSource{Receipt: receipt, Rows: r.RowCount, Action: r.Action, DoneAt: zeroIfEpoch(r.DoneAt)})
	}
	return sources, nil
}

// MarkDeleteSource notes what was done to a source object for a delete, and what has become of the object. Saying so again is no error.
func (x *Index) MarkDeleteSource(ctx context.Context, id lake.DeleteID, receipt lake.ReceiptID, action string, raw lake.RawState) (err error) {
	defer x.observe("mark_delete_source", &err)()
	err = x.inTx(ctx, func(q *db.Queries) error {
		d, err := deleteByID(ctx, q, id)
		if err != nil {
			return err
		}
		err = q.MarkDeleteSource(ctx, db.MarkDeleteSourceParams{DeleteID: int64(id), Receipt: int64(receipt), Action: clean(action)})
		if err != nil {
			return err
		}
		n, err := q.SetReceiptRaw(ctx, db.SetReceiptRawParams{ID: int64(receipt), Organization: string(d.Organization), Raw: string(raw)})
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.New(fault.NotFound, "there is no receipt %d of organization %s", receipt, d.Organization)
		}
		return recordRaw(ctx, q, d.Organization, receipt)
	})
	return failed("note a source object of a delete", err)
}
