// SPDX-License-Identifier: AGPL-3.0-only

package index

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/lakerunner/lakerunner/pkg/index/internal/db"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// OrganizationCost is what work for an organization asked of object stores.
type OrganizationCost struct {
	Organization lake.Organization
	Cost         lake.Cost
}

// Costs sums what committed work asked of object stores since a day (UTC, inclusive), of an organization or of each (empty).
func (x *Index) Costs(ctx context.Context, org lake.Organization, since time.Time) (costs []OrganizationCost, err error) {
	defer x.observe("costs", &err)()
	rows, err := x.queries.Costs(ctx, db.CostsParams{Organization: string(org), Since: pgtype.Date{Time: bounded(since), Valid: true}})
	if err != nil {
		return nil, failed("sum costs", err)
	}
	for _, r := range rows {
		costs = append(costs, OrganizationCost{
			Organization: lake.Organization(r.Organization),
			Cost: lake.Cost{
				Puts: r.Puts, Gets: r.Gets, Lists: r.Lists, Deletes: r.Deletes, BytesRead: r.BytesRead, BytesWritten: r.BytesWritten,
			},
		})
	}
	return costs, nil
}
