// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Prefix is a folder that objects were received under.
type Prefix struct {
	Bucket  string
	Prefix  string
	Objects int64
}

// RecentPrefixes lists the folders of the objects that an organization received since a time, of its newest 20,000. A limit of zero: 1,000.
func (x *Index) RecentPrefixes(ctx context.Context, org lake.Organization, since time.Time, limit int) (prefixes []Prefix, err error) {
	defer x.observe("recent_prefixes", &err)()
	rows, err := x.queries.RecentKeys(ctx, db.RecentKeysParams{Organization: string(org), Since: bounded(since), PageSize: pageSize(limit)})
	if err != nil {
		return nil, failed("list recent prefixes", err)
	}
	for _, r := range rows {
		prefixes = append(prefixes, Prefix(r))
	}
	return prefixes, nil
}

// PrefixCompleteness is what a comparison of a prefix with the receipts found about the objects written in one hour.
type PrefixCompleteness struct {
	Organization lake.Organization
	Bucket       string
	Prefix       string
	Hour         time.Time
	Objects      int64
	Known        int64 // those that had a receipt
	Bytes        int64
	ComparedAt   time.Time // filled by reads
}

// RecordCompleteness notes comparisons; a newer one of the same prefix and hour takes the older one's place.
func (x *Index) RecordCompleteness(ctx context.Context, hours []PrefixCompleteness) (err error) {
	defer x.observe("record_completeness", &err)()
	var p db.RecordCompletenessParams
	for _, h := range hours {
		p.Organizations = append(p.Organizations, string(h.Organization))
		p.Buckets = append(p.Buckets, h.Bucket)
		p.Prefixes = append(p.Prefixes, clean(h.Prefix))
		p.Hours = append(p.Hours, h.Hour.UTC())
		p.Objects = append(p.Objects, h.Objects)
		p.Known = append(p.Known, h.Known)
		p.Bytes = append(p.Bytes, h.Bytes)
	}
	return failed("note comparisons", x.queries.RecordCompleteness(ctx, p))
}

// CompletenessQuery asks for comparisons, newest hour first.
type CompletenessQuery struct {
	Organization lake.Organization
	Prefix       string    // only prefixes that begin so
	Start, End   time.Time // of hours, [Start, End)
	Limit        int       // zero: 1,000
}

// Completeness lists comparisons.
func (x *Index) Completeness(ctx context.Context, query CompletenessQuery) (hours []PrefixCompleteness, err error) {
	defer x.observe("completeness", &err)()
	rows, err := x.queries.Completeness(ctx, db.CompletenessParams{
		Organization: string(query.Organization), Prefix: query.Prefix, StartHour: bounded(query.Start), EndHour: bounded(query.End), PageSize: pageSize(query.Limit),
	})
	if err != nil {
		return nil, failed("list comparisons", err)
	}
	for _, r := range rows {
		c := r.Completeness
		hours = append(hours, PrefixCompleteness{
			Organization: lake.Organization(c.Organization), Bucket: c.Bucket, Prefix: c.Prefix, Hour: c.Hour.UTC(),
			Objects: c.Objects, Known: c.Known, Bytes: c.Bytes, ComparedAt: c.ComparedAt.UTC(),
		})
	}
	return hours, nil
}
