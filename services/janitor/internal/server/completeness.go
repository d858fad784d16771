// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

// maxHours is how many hours of prefixes one answer has.
const maxHours = 10_000

// ListCompleteness says what the comparisons of source objects with receipts found.
func (s *Server) ListCompleteness(ctx context.Context, r *janitorv1.ListCompletenessRequest) (*janitorv1.ListCompletenessResponse, error) {
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	query := index.CompletenessQuery{Organization: org, Prefix: r.GetPrefix(), Limit: maxHours}
	if query.Start, query.End, err = s.span(ctx, r); err != nil {
		return nil, err
	}
	hours, err := s.deps.Index.Completeness(ctx, query)
	if err != nil {
		return nil, err
	}
	out := &janitorv1.ListCompletenessResponse{}
	for _, h := range hours {
		out.Hours = append(out.Hours, &janitorv1.Completeness{
			Bucket: h.Bucket, Prefix: h.Prefix, Hour: lakeproto.Time(h.Hour), Objects: h.Objects, Known: h.Known, Bytes: h.Bytes,
			ComparedAt: lakeproto.Time(h.ComparedAt),
		})
	}
	return out, nil
}

// span is the time that a request asks for: the last 24 hours where it does not say.
func (s *Server) span(ctx context.Context, r *janitorv1.ListCompletenessRequest) (start, end time.Time, err error) {
	if start, err = timeOf("start", r.GetStart()); err != nil {
		return start, end, err
	}
	if end, err = timeOf("end", r.GetEnd()); err != nil {
		return start, end, err
	}
	now, err := s.deps.Index.Now(ctx)
	end = cmp.Or(end, now)
	if start.IsZero() {
		start = end.Add(-24 * time.Hour).Truncate(time.Hour)
	}
	return start, end, err
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
