// SPDX-License-Identifier: AGPL-3.0-only

// Package lakeproto translates the nouns of package lake to those of lakerunner.lake.v1, and back. It is for the packages that translate contracts;
// nobody else touches proto types.
package lakeproto

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
)

// Time translates a time; the zero one is unset.
func Time(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// SignalProto translates a signal.
func SignalProto(s lake.Signal) lakev1.Signal {
	switch s {
	case lake.SignalLogs:
		return lakev1.Signal_SIGNAL_LOGS
	case lake.SignalMetrics:
		return lakev1.Signal_SIGNAL_METRICS
	case lake.SignalSpans:
		return lakev1.Signal_SIGNAL_SPANS
	}
	return lakev1.Signal_SIGNAL_UNSPECIFIED
}

// Signal is SignalProto's inverse; unspecified is unknown.
func Signal(s lakev1.Signal) (lake.Signal, error) {
	for _, signal := range []lake.Signal{lake.SignalUnknown, lake.SignalLogs, lake.SignalMetrics, lake.SignalSpans} {
		if SignalProto(signal) == s {
			return signal, nil
		}
	}
	return lake.SignalUnknown, fault.New(fault.Invalid, "unknown signal %d", int32(s))
}

// StateProto translates a receipt's state.
func StateProto(s lake.ReceiptState) lakev1.ReceiptState {
	switch s {
	case lake.ReceiptPending:
		return lakev1.ReceiptState_RECEIPT_STATE_PENDING
	case lake.ReceiptDone:
		return lakev1.ReceiptState_RECEIPT_STATE_DONE
	case lake.ReceiptSkipped:
		return lakev1.ReceiptState_RECEIPT_STATE_SKIPPED
	case lake.ReceiptFailed:
		return lakev1.ReceiptState_RECEIPT_STATE_FAILED
	case lake.ReceiptSuperseded:
		return lakev1.ReceiptState_RECEIPT_STATE_SUPERSEDED
	}
	return lakev1.ReceiptState_RECEIPT_STATE_UNSPECIFIED
}

// State is StateProto's inverse; unspecified is empty.
func State(s lakev1.ReceiptState) (lake.ReceiptState, error) {
	for _, state := range []lake.ReceiptState{
		"", lake.ReceiptPending, lake.ReceiptDone, lake.ReceiptSkipped, lake.ReceiptFailed, lake.ReceiptSuperseded,
	} {
		if StateProto(state) == s {
			return state, nil
		}
	}
	return "", fault.New(fault.Invalid, "unknown receipt state %d", int32(s))
}

// ObjectProto translates an object.
func ObjectProto(o lake.Object) *lakev1.Object {
	return &lakev1.Object{Bucket: o.Bucket, Key: o.Key, Tag: o.Tag, Size: o.Size, LastModified: Time(o.LastModified)}
}

// ReceiptProto translates a receipt.
func ReceiptProto(r lake.Receipt) *lakev1.Receipt {
	return &lakev1.Receipt{
		ReceiptId:    strconv.FormatInt(int64(r.ID), 10),
		Organization: string(r.Organization),
		Collector:    r.Collector,
		Signal:       SignalProto(r.Signal),
		Object:       ObjectProto(r.Object),
		Revision:     r.Revision,
		State:        StateProto(r.State),
		Reason:       r.Reason,
		Format:       r.Format,
		RowsIn:       r.RowsIn,
		RowsOut:      r.RowsOut,
		Rejected:     r.Rejected,
		CreatedAt:    Time(r.CreatedAt),
		UpdatedAt:    Time(r.UpdatedAt),
		Attempts:     r.Attempts,
	}
}
