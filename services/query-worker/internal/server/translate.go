// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"bytes"
	"context"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/prom"
	workerv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/worker/v1"
	"github.com/lakerunner/lakerunner/services/query-worker/internal/cache"
)

// permitted checks who asks, and of whom.
func permitted(ctx context.Context, request *workerv1.ScanRequest) error {
	organization := lake.Organization(request.GetOrganization())
	if err := organization.Valid(); err != nil {
		return fault.Wrap(fault.Invalid, err)
	}
	if err := authorize(ctx, organization); err != nil {
		return err
	}
	for _, s := range request.GetSegments() {
		if err := sound(organization, s); err != nil {
			return err
		}
	}
	return nil
}

// sound checks a segment.
func sound(organization lake.Organization, s *workerv1.Segment) error {
	owned := lake.Prefix + string(organization) + "/"
	switch {
	case !strings.HasPrefix(s.GetKey(), owned) || strings.Contains(s.GetKey(), ".."):
		return fault.New(fault.Denied, "segment %s is not organization %s's", s.GetKey(), organization)
	case s.GetBytes() <= 0 || s.GetSidecarBytes() <= 0 || s.GetRows() <= 0:
		return fault.New(fault.Invalid, "segment %s: want its bytes, sidecar bytes and rows", s.GetKey())
	case s.GetFirstTime() == nil || s.GetLastTime() == nil:
		return fault.New(fault.Invalid, "segment %s: want its first and last time", s.GetKey())
	}
	return nil
}

// fileOf and sidecarOf name a segment's objects.
func fileOf(s *workerv1.Segment) cache.Object {
	return cache.Object{Bucket: s.GetBucket(), Key: s.GetKey(), Bytes: s.GetBytes()}
}

func sidecarOf(s *workerv1.Segment) cache.Object {
	return cache.Object{Bucket: s.GetBucket(), Key: lake.SidecarKey(s.GetKey()), Bytes: s.GetSidecarBytes()}
}

// nanoseconds since 1970, as near as an int64 comes.
func nanoseconds(t *timestamppb.Timestamp) int64 {
	const most = math.MaxInt64 / 1_000_000_000
	switch seconds := t.GetSeconds(); {
	case seconds >= most:
		return math.MaxInt64
	case seconds <= -most:
		return math.MinInt64
	}
	return t.AsTime().UnixNano()
}

// between checks that a range has both ends.
func between(start, end *timestamppb.Timestamp) error {
	if start == nil || end == nil {
		return fault.New(fault.Invalid, "want start and end")
	}
	return nil
}

// encode writes a batch as an IPC stream of its own.
func encode(batch arrow.RecordBatch) ([]byte, error) {
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(batch.Schema()))
	if err := w.Write(batch); err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	if err := w.Close(); err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	return b.Bytes(), nil
}

func annotationsOf(remarks []prom.Annotation) []*workerv1.Annotation {
	var all []*workerv1.Annotation
	for _, r := range remarks {
		all = append(all, &workerv1.Annotation{Info: r.Info, Text: r.Text, Start: int32(r.Start), End: int32(r.End)})
	}
	return all
}
