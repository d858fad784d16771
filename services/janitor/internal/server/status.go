// SPDX-License-Identifier: AGPL-3.0-only

package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/lakeproto"
	"github.com/lakerunner/lakerunner/pkg/objects"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
)

// GetStatus gives all figures at a glance.
func (s *Server) GetStatus(ctx context.Context, r *janitorv1.GetStatusRequest) (*janitorv1.GetStatusResponse, error) {
	identity, ok := config.IdentityFrom(ctx)
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "no API key")
	}
	if r.GetOrganization() == "" && identity.Organization == "" {
		all, err := s.Status(ctx)
		return &janitorv1.GetStatusResponse{Organizations: all}, err
	}
	org, err := s.organization(ctx, r.GetOrganization())
	if err != nil {
		return nil, err
	}
	one, err := s.status(ctx, org)
	return &janitorv1.GetStatusResponse{Organizations: one}, err
}

// Status gives the figures of all organizations.
func (s *Server) Status(ctx context.Context) ([]*janitorv1.OrganizationStatus, error) {
	return s.status(ctx, "")
}

// status reads what the index knows of one organization, or of all (empty).
func (s *Server) status(ctx context.Context, org lake.Organization) ([]*janitorv1.OrganizationStatus, error) {
	now, err := s.deps.Index.Now(ctx)
	if err != nil {
		return nil, err
	}
	known, err := s.deps.Index.Status(ctx, org)
	if err != nil {
		return nil, err
	}
	debts, err := s.deps.Index.CompactionDebt(ctx, org)
	if err != nil {
		return nil, err
	}
	// Costs are by day, so two of them cover the last 24 hours; what they say is brought to 24 hours.
	since := now.UTC().Truncate(day).Add(-day)
	costs, err := s.deps.Index.Costs(ctx, org, since)
	if err != nil {
		return nil, err
	}
	out := make([]*janitorv1.OrganizationStatus, 0, len(known))
	for _, k := range known {
		g := glimpse{known: k, now: now}
		g.add(debts, costs, now.Sub(since))
		out = append(out, g.proto(s.pricesOf(k.Organization)))
	}
	return out, nil
}

const day = 24 * time.Hour

// pricesOf are those of the first storage profile that an organization's objects can come from.
func (s *Server) pricesOf(org lake.Organization) config.Prices {
	profiles := s.deps.Config.Current().Profiles()
	for _, p := range profiles {
		if p.Organization == org {
			return p.Prices
		}
	}
	for _, p := range profiles {
		if p.Organization == "" {
			return p.Prices
		}
	}
	return config.DefaultPrices("")
}

// glimpse is one organization's status in the making.
type glimpse struct {
	known    index.OrganizationStatus
	now      time.Time
	segments index.Count
	rollups  index.Count
	debt     index.Count
	cost     lake.Cost // of 24 hours
}

func (g *glimpse) add(debts []index.Debt, costs []index.OrganizationCost, span time.Duration) {
	for _, d := range debts {
		if d.Organization == g.known.Organization {
			g.segments = index.Count{Segments: g.segments.Segments + d.Segments, Rows: g.segments.Rows + d.Rows, Bytes: g.segments.Bytes + d.Bytes}
			g.rollups.Segments, g.rollups.Rows, g.rollups.Bytes = g.rollups.Segments+d.Rollups.Segments, g.rollups.Rows+d.Rollups.Rows, g.rollups.Bytes+d.Rollups.Bytes
			g.debt.Segments, g.debt.Bytes = g.debt.Segments+d.DebtSegments, g.debt.Bytes+d.DebtBytes
		}
	}
	of24h := func(n int64) int64 { return int64(float64(n) * day.Hours() / span.Hours()) }
	for _, c := range costs {
		if c.Organization == g.known.Organization {
			g.cost = lake.Cost{
				Puts: of24h(c.Cost.Puts), Gets: of24h(c.Cost.Gets), Lists: of24h(c.Cost.Lists), Deletes: of24h(c.Cost.Deletes),
				BytesRead: of24h(c.Cost.BytesRead), BytesWritten: of24h(c.Cost.BytesWritten),
			}
		}
	}
}

// month is what prices are of.
const month = 30

func (g *glimpse) dollars(p config.Prices) float64 {
	stored := float64(g.segments.Bytes+g.rollups.Bytes+g.known.Removed.Bytes+g.known.RawBytes) / 1e9 * p.Storage
	requests := p.Requests.Of(objects.RequestPut, g.cost.Puts) + p.Requests.Of(objects.RequestGet, g.cost.Gets) +
		p.Requests.Of(objects.RequestList, g.cost.Lists) + p.Requests.Of(objects.RequestDelete, g.cost.Deletes)
	transfer := float64(g.cost.BytesRead) / 1e9 * p.Transfer
	return stored + month*(requests+transfer)
}

func (g *glimpse) proto(p config.Prices) *janitorv1.OrganizationStatus {
	k := g.known
	out := &janitorv1.OrganizationStatus{
		Organization: string(k.Organization), Segments: countProto(g.segments), Rollups: countProto(g.rollups), Debt: countProto(g.debt),
		Receipts: map[string]int64{"pending": k.PendingReceipts, "failed": k.FailedReceipts}, Buried: k.Buried,
		ComparedObjects: k.ComparedObjects, KnownObjects: k.KnownObjects, AbandonedLeases: k.AbandonedLeases, Removed: countProto(k.Removed),
		Missing: k.Missing, RecordsToShip: k.RecordsToShip, LastSnapshot: lakeproto.Time(k.LastSnapshot), DeletesUnderWay: k.DeletesUnderWay,
		RawBytes: k.RawBytes, DollarsPerMonth: g.dollars(p),
		Requests: &janitorv1.Requests{
			Puts: g.cost.Puts, Gets: g.cost.Gets, Lists: g.cost.Lists, Deletes: g.cost.Deletes, BytesRead: g.cost.BytesRead, BytesWritten: g.cost.BytesWritten,
		},
	}
	if !k.OldestPending.IsZero() {
		out.IngestLag = durationpb.New(max(0, g.now.Sub(k.OldestPending)))
	}
	if k.LastRetention != nil {
		out.LastRetention = runProto(*k.LastRetention)
	}
	return out
}
