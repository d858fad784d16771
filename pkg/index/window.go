// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// WindowState is a window of rows as they came, as compaction needs it, of one snapshot.
type WindowState struct {
	Version lake.WindowVersion
	// Segments are the live ones whose windows lie within this one, ordered by window and id, with Sources and MaskedSources.
	Segments []lake.Segment
	// Deletes that may mask rows of these segments, rising.
	Deletes []lake.Delete
	// Latest is the highest number of a delete of the organization, over all signals and states.
	Latest lake.DeleteID
	At     time.Time
}

// Window reads a window of whole hours, a day at most, in one snapshot.
func (x *Index) Window(ctx context.Context, org lake.Organization, signal lake.Signal, window lake.Window) (state WindowState, err error) {
	defer x.observe("window", &err)()
	version := lake.WindowVersion{Signal: signal, Window: window}
	if err := checkExpected([]lake.WindowVersion{version}); err != nil {
		return state, fault.Wrap(fault.Invalid, err)
	}
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, x.transactions, snapshot, func(tx pgx.Tx) error {
		w := windowRead{q: x.queries.WithTx(tx), organization: string(org), state: WindowState{Version: version}}
		if err := w.run(ctx); err != nil {
			return err
		}
		state = w.state
		return nil
	})
	return state, failed("read a window", err)
}

// windowRead is one snapshot of Window.
type windowRead struct {
	q            *db.Queries
	organization string
	state        WindowState
	// reaching takes segments whose windows overlap the window, instead of those whose lie within it.
	reaching bool
}

func (w *windowRead) run(ctx context.Context) error {
	now, err := w.q.Now(ctx)
	if err != nil {
		return err
	}
	w.state.At = now.UTC()
	window, signal := w.state.Version.Window, int16(w.state.Version.Signal)
	sum, err := w.q.SumVersions(ctx, db.SumVersionsParams{
		Organization: w.organization, Signal: signal, FirstHour: window.Start.UTC(), EndHour: window.End().UTC(),
	})
	if err != nil {
		return err
	}
	w.state.Version.Version = sum.Version
	latest, err := w.q.LatestDelete(ctx, w.organization)
	if err != nil {
		return err
	}
	w.state.Latest = lake.DeleteID(latest)
	if err := w.segments(ctx, window, signal); err != nil {
		return err
	}
	return w.deletes(ctx, window, signal)
}

func (w *windowRead) segments(ctx context.Context, window lake.Window, signal int16) error {
	rows, err := w.rows(ctx, window, signal)
	if err != nil || len(rows) == 0 {
		return err
	}
	if len(rows) > MaxLookupSegments {
		return fault.New(fault.Exhausted, "the window has more than %d segments", MaxLookupSegments)
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.Segment.ID
	}
	sources, err := sourcesByID(ctx, w.q, ids)
	if err != nil {
		return err
	}
	for _, r := range rows {
		s := segmentOf(r.Segment)
		s.Sources = sources[s.ID]
		w.state.Segments = append(w.state.Segments, s)
	}
	return nil
}

func (w *windowRead) rows(ctx context.Context, window lake.Window, signal int16) ([]db.WindowSegmentsRow, error) {
	if !w.reaching {
		return w.q.WindowSegments(ctx, db.WindowSegmentsParams{
			Organization: w.organization,
			Signal:       signal,
			FirstWindow:  window.Start.UTC(),
			EndWindow:    window.End().UTC(),
			MaxSegments:  MaxLookupSegments + 1,
		})
	}
	reaching, err := w.q.SegmentsReaching(ctx, db.SegmentsReachingParams{
		Organization: w.organization,
		Signal:       signal,
		FirstWindow:  window.Start.Add(-maxWindow).UTC(),
		StartWindow:  window.Start.UTC(),
		EndWindow:    window.End().UTC(),
		MaxSegments:  MaxLookupSegments + 1,
	})
	rows := make([]db.WindowSegmentsRow, len(reaching))
	for i, r := range reaching {
		rows[i] = db.WindowSegmentsRow(r)
	}
	return rows, err
}

// sourcesByID reads the sources of segments.
func sourcesByID(ctx context.Context, q *db.Queries, ids []int64) (map[lake.SegmentID][]lake.ReceiptID, error) {
	rows, err := q.SourcesOfSegments(ctx, ids)
	if err != nil {
		return nil, err
	}
	sources := make(map[lake.SegmentID][]lake.ReceiptID, len(rows))
	for _, r := range rows {
		sources[lake.SegmentID(r.Segment)] = numbered[lake.ReceiptID](r.Receipts)
	}
	return sources, nil
}

func (w *windowRead) deletes(ctx context.Context, window lake.Window, signal int16) error {
	if len(w.state.Segments) == 0 {
		return nil
	}
	lowest := w.state.Segments[0].AppliedDelete
	for _, s := range w.state.Segments {
		lowest = min(lowest, s.AppliedDelete)
	}
	above, err := w.deletesAbove(ctx, window, signal, lowest)
	w.state.Deletes = masking(above, w.state.Segments)
	return err
}

// deletesAbove are the deletes with a higher number that overlap a window.
func (w *windowRead) deletesAbove(ctx context.Context, window lake.Window, signal int16, lowest lake.DeleteID) ([]lake.Delete, error) {
	rows, err := w.q.MaskingDeletes(ctx, db.MaskingDeletesParams{
		Organization: w.organization,
		Signal:       signal,
		After:        int64(lowest),
		StartTime:    nanoseconds(window.Start),
		EndTime:      nanoseconds(window.End()),
		MaxDeletes:   MaxDeletes + 1,
	})
	if err != nil {
		return nil, err
	}
	if len(rows) > MaxDeletes {
		return nil, fault.New(fault.Exhausted, "the window has more than %d deletes that were not applied", MaxDeletes)
	}
	deletes := make([]lake.Delete, len(rows))
	for i, r := range rows {
		deletes[i] = deleteOf(r.Delete)
	}
	return deletes, nil
}
