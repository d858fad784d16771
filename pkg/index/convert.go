// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// receiptOf turns a row into the noun.
func receiptOf(r db.Receipt) (lake.Receipt, error) {
	var rejected map[string]int64
	if err := json.Unmarshal(r.Rejected, &rejected); err != nil {
		return lake.Receipt{}, fmt.Errorf("rejected rows of receipt %d: %w", r.ID, err)
	}
	if len(rejected) == 0 {
		rejected = nil
	}
	return lake.Receipt{
		ID:           lake.ReceiptID(r.ID),
		Organization: lake.Organization(r.Organization),
		Collector:    r.Collector,
		Signal:       lake.Signal(r.Signal),
		Object:       lake.Object{Bucket: r.Bucket, Key: r.Key, Tag: r.Tag, Size: r.Size, LastModified: timeOf(r.LastModified)},
		Revision:     r.Revision,
		State:        lake.ReceiptState(r.State),
		Reason:       r.Reason,
		Format:       r.Format,
		RowsIn:       r.RowsIn,
		RowsOut:      r.RowsOut,
		Rejected:     rejected,
		CreatedAt:    r.CreatedAt.UTC(),
		UpdatedAt:    r.UpdatedAt.UTC(),
		Attempts:     r.Attempts,
		Raw:          lake.RawState(r.Raw),
	}, nil
}

func segmentOf(s db.Segment) lake.Segment {
	return lake.Segment{
		ID:            lake.SegmentID(s.ID),
		Organization:  lake.Organization(s.Organization),
		Signal:        signalAt(s.Signal),
		Resolution:    time.Duration(s.Resolution),
		Shard:         lake.Shard{Index: uint32(s.ShardIndex), Count: uint32(s.ShardCount)},
		Window:        windowOf(s.WindowStart, s.WindowLength),
		Level:         int(s.Level),
		Bucket:        s.Bucket,
		Key:           s.Key,
		Bytes:         s.Bytes,
		SidecarBytes:  s.SidecarBytes,
		Rows:          s.RowCount,
		FirstTime:     time.Unix(0, s.FirstTime).UTC(),
		LastTime:      time.Unix(0, s.LastTime).UTC(),
		FormatVersion: int(s.FormatVersion),
		RowHash:       uint64(s.RowHash),
		MaskedSources: numbered[lake.ReceiptID](s.MaskedSources),
		AppliedDelete: lake.DeleteID(s.AppliedDelete),
		Rules:         noneIsNil(s.Rules),
		Identified:    s.Identified,
		Lease:         lake.LeaseID(s.Lease),
		CreatedAt:     s.CreatedAt.UTC(),
	}
}

func deleteOf(d db.Delete) lake.Delete {
	return lake.Delete{
		ID:           lake.DeleteID(d.ID),
		Organization: lake.Organization(d.Organization),
		Signal:       lake.Signal(d.Signal),
		Selector:     d.Selector,
		Start:        time.Unix(0, d.StartTime).UTC(),
		End:          time.Unix(0, d.EndTime).UTC(),
		Sources:      lake.SourcePolicy(d.Sources),
		State:        lake.DeleteState(d.State),
		Actor:        d.Actor,
		Reason:       d.Reason,
		CreatedAt:    d.CreatedAt.UTC(),
		UpdatedAt:    d.UpdatedAt.UTC(),
	}
}

func noneIsNil(texts []string) []string {
	if len(texts) == 0 {
		return nil
	}
	return texts
}

func taskOf(t db.ClaimTasksRow) lake.Task {
	return lake.Task{
		ID:           lake.TaskID(t.ID),
		Kind:         lake.TaskKind(t.Kind),
		Organization: lake.Organization(t.Organization),
		Signal:       lake.Signal(t.Signal),
		Window:       windowOf(t.WindowStart, t.WindowLength),
		Tier:         int(t.Tier),
		Receipt:      lake.ReceiptID(t.Receipt),
		Bytes:        t.Bytes,
		Attempts:     t.Attempts,
		Cause:        t.Cause,
		CreatedAt:    t.CreatedAt.UTC(),
	}
}

// windowOf reads a window; length zero is the zero window.
func windowOf(start time.Time, length int64) lake.Window {
	if length == 0 {
		return lake.Window{}
	}
	return lake.Window{Start: start.UTC(), Length: time.Duration(length)}
}

// startOf is the inverse of windowOf for the start.
func startOf(w lake.Window) time.Time {
	if w.Length == 0 {
		return epoch()
	}
	return w.Start.UTC()
}

// epoch stands for "no time" where a column or an array has no NULL.
func epoch() time.Time { return time.Unix(0, 0).UTC() }

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func zeroIfEpoch(t time.Time) time.Time {
	if t.Equal(epoch()) {
		return time.Time{}
	}
	return t.UTC()
}

// nanoseconds since 1970, cut to what an int64 holds (1678 to 2262).
func nanoseconds(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

func interval(d time.Duration) pgtype.Interval {
	return pgtype.Interval{Microseconds: d.Microseconds(), Valid: true}
}

// numbers strips the type of ids.
func numbers[T ~int64](ids []T) []int64 {
	out := make([]int64, len(ids))
	for i, id := range ids {
		out[i] = int64(id)
	}
	return out
}

// numbered gives ids their type; none are nil.
func numbered[T ~int64](ids []int64) []T {
	if len(ids) == 0 {
		return nil
	}
	out := make([]T, len(ids))
	for i, id := range ids {
		out[i] = T(id)
	}
	return out
}
