// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	notifierv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/notifier/v1"
	"github.com/lakerunner/lakerunner/services/notifier/internal/backfill"
	"github.com/lakerunner/lakerunner/services/notifier/internal/intake"
)

func notice(o *lakev1.Object) (intake.Notice, error) {
	n := intake.Notice{
		Object:   lake.Object{Bucket: o.GetBucket(), Key: o.GetKey(), Tag: o.GetTag(), Size: o.GetSize()},
		Complete: o.GetTag() != "",
		Asked:    true,
	}
	at, err := timeOf("last_modified", o.GetLastModified())
	n.Object.LastModified = at
	return n, err
}

// timeOf reads a timestamp; unset is the zero time.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, fault.New(fault.Invalid, "%s: %w", field, err)
	}
	return t.AsTime(), nil
}

// scoped are the requests that say what a backfill covers.
type scoped interface {
	GetBucket() string
	GetPrefix() string
	GetModifiedAfter() *timestamppb.Timestamp
	GetModifiedBefore() *timestamppb.Timestamp
}

func scopeOf(r scoped) (backfill.Scope, error) {
	s := backfill.Scope{Bucket: r.GetBucket(), Prefix: r.GetPrefix()}
	if s.Bucket == "" {
		return s, fault.New(fault.Invalid, "bucket is empty")
	}
	var err error
	if s.After, err = timeOf("modified_after", r.GetModifiedAfter()); err != nil {
		return s, err
	}
	if s.Before, err = timeOf("modified_before", r.GetModifiedBefore()); err != nil {
		return s, err
	}
	if !s.After.IsZero() && !s.Before.IsZero() && !s.After.Before(s.Before) {
		return s, fault.New(fault.Invalid, "modified_after is not before modified_before")
	}
	return s, nil
}

func backfillID(text string) (index.BackfillID, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 {
		return 0, fault.New(fault.Invalid, "backfill_id %q: want a number", text)
	}
	return index.BackfillID(id), nil
}

func estimateToProto(e index.BackfillEstimate) *notifierv1.BackfillEstimate {
	return &notifierv1.BackfillEstimate{
		Objects:      e.Objects,
		Bytes:        e.Bytes,
		KnownObjects: e.KnownObjects,
		Requests:     e.Requests,
		PriceUsd:     e.PriceUSD,
		Duration:     durationpb.New(e.Duration),
		Truncated:    e.Truncated,
	}
}

func backfillToProto(b index.Backfill) *notifierv1.Backfill {
	return &notifierv1.Backfill{
		BackfillId:       strconv.FormatInt(int64(b.ID), 10),
		Bucket:           b.Bucket,
		Prefix:           b.Prefix,
		ModifiedAfter:    lakeproto.Time(b.ModifiedAfter),
		ModifiedBefore:   lakeproto.Time(b.ModifiedBefore),
		ObjectsPerSecond: int32(b.ObjectsPerSecond), //nolint:gosec // it came as one
		State:            stateToProto(b.State),
		Reason:           b.Reason,
		Estimate:         estimateToProto(b.Estimate),
		ObjectsDone:      b.ObjectsDone,
		BytesDone:        b.BytesDone,
		CreatedAt:        lakeproto.Time(b.CreatedAt),
		UpdatedAt:        lakeproto.Time(b.UpdatedAt),
	}
}

func stateToProto(s index.BackfillState) notifierv1.BackfillState {
	switch s {
	case index.BackfillRunning:
		return notifierv1.BackfillState_BACKFILL_STATE_RUNNING
	case index.BackfillPaused:
		return notifierv1.BackfillState_BACKFILL_STATE_PAUSED
	case index.BackfillDone:
		return notifierv1.BackfillState_BACKFILL_STATE_DONE
	case index.BackfillFailed:
		return notifierv1.BackfillState_BACKFILL_STATE_FAILED
	}
	return notifierv1.BackfillState_BACKFILL_STATE_UNSPECIFIED
}
