// SPDX-License-Identifier: AGPL-3.0-only

package backfill

import (
	"context"
	"errors"
	"time"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/pkg/objects"
)

const (
	chunk = 1000
	// segmentBytes and segmentPuts say what ingest puts: about one segment and its sidecar for so many bytes of objects.
	segmentBytes = 64 << 20
	segmentPuts  = 2
	// rateSample is how many receipts the ingest rate is read from.
	rateSample = 1000
	// rateSpan is the shortest stretch of time that says something about a rate.
	rateSpan = 10 * time.Second
)

// Estimate lists what a backfill would hand over, the newest first, and says what that takes. Nothing is enqueued.
func (b *Backfills) Estimate(ctx context.Context, s Scope, objectsPerSecond int) (index.BackfillEstimate, error) {
	bucket, err := b.options.Objects.Bucket(ctx, s.Bucket)
	if err != nil {
		return index.BackfillEstimate{}, err
	}
	listing, cancel := context.WithTimeoutCause(ctx, b.options.Config.EstimateTime, errEnough)
	defer cancel()
	listing, tally := objects.WithTally(listing)
	e := &estimate{backfills: b, scope: s, bucket: bucket, plan: &plan{Days: map[int64]int64{}}}
	err = e.list(listing)
	if cut := errors.Is(err, errEnough) || err != nil && context.Cause(listing) == errEnough && ctx.Err() == nil; cut { //nolint:errorlint // it is never wrapped
		e.result.Truncated, err = true, nil
	}
	if err != nil {
		return index.BackfillEstimate{}, err
	}
	if err := e.flush(ctx); err != nil {
		return index.BackfillEstimate{}, err
	}
	return e.finish(ctx, tally.Count(objects.RequestList), b.rate(objectsPerSecond))
}

// errEnough ends an estimate's listing at its bounds.
var errEnough = errors.New("the estimate's bound is reached")

type estimate struct {
	backfills *Backfills
	scope     Scope
	bucket    objects.Bucket
	plan      *plan
	result    index.BackfillEstimate
	unknown   int64 // bytes of objects without a receipt
	pending   []lake.Object
	lists     int64 // of objects without time in their keys
}

func (e *estimate) list(ctx context.Context) error {
	for s, err := range e.plan.walk(ctx, e.bucket, e.scope.Prefix, "") {
		if err != nil {
			return err
		}
		if s.First != nil {
			continue
		}
		if err := e.add(ctx, s.Object); err != nil {
			return err
		}
		e.lists++
	}
	e.plan.finishSurvey(e.scope, time.Now())
	e.plan.Band = len(e.plan.Bands) // the survey met these objects already
	for at, ok := e.plan.at(); ok; at, ok = e.plan.at() {
		for a, err := range at.list(ctx, e.bucket, "") {
			if err != nil {
				return err
			}
			if err := e.add(ctx, a); err != nil {
				return err
			}
		}
		e.plan.next(at)
	}
	return nil
}

func (e *estimate) add(ctx context.Context, a objects.Attributes) error {
	if !e.scope.holds(a) {
		return nil
	}
	if e.result.Objects == e.backfills.options.Config.EstimateObjects {
		return errEnough
	}
	e.result.Objects++
	e.result.Bytes += a.Size
	e.pending = append(e.pending, objectOf(e.scope.Bucket, a))
	if len(e.pending) < chunk {
		return nil
	}
	return e.flush(ctx)
}

// flush asks which objects have receipts.
func (e *estimate) flush(ctx context.Context) error {
	known, err := e.backfills.options.Index.Known(ctx, e.scope.Bucket, e.pending)
	if err != nil {
		return err
	}
	for i, o := range e.pending {
		if known[i] {
			e.result.KnownObjects++
		} else {
			e.unknown += o.Size
		}
	}
	e.pending = e.pending[:0]
	return nil
}

// finish counts requests: the listing once for the survey and, for what is without time in its keys, once a band; a GET for each
// object without a receipt; the PUTs of the segments.
func (e *estimate) finish(ctx context.Context, listed int64, rate int) (index.BackfillEstimate, error) {
	lists := listed + int64(len(e.plan.Bands))*(1+e.lists/chunk)
	gets := e.result.Objects - e.result.KnownObjects
	puts := segmentPuts * ((e.unknown + segmentBytes - 1) / segmentBytes)
	prices := e.prices()
	e.result.Requests = lists + gets + puts
	e.result.PriceUSD = prices.Of(objects.RequestList, lists) + prices.Of(objects.RequestGet, gets) + prices.Of(objects.RequestPut, puts)
	throughput, err := e.backfills.throughput(ctx, e.scope)
	if err != nil {
		return index.BackfillEstimate{}, err
	}
	handing := float64(e.result.Objects) / float64(rate)
	ingest := float64(e.unknown) / float64(throughput)
	e.result.Duration = time.Duration(max(handing, ingest) * float64(time.Second))
	return e.result, nil
}

func (e *estimate) prices() objects.Prices {
	if p, ok := e.backfills.options.Source.Current().Profile(e.scope.Bucket); ok && p.Prices.Requests != nil {
		return p.Prices.Requests
	}
	return objects.PricesOf(e.bucket)
}

// throughput is the ingest rate of the organization's last objects, in bytes a second, or the expected one where that is more:
// ingestors that had little to do say little of what they can.
func (b *Backfills) throughput(ctx context.Context, s Scope) (int64, error) {
	expected := b.options.Config.IngestBytesPerSecond
	owner := b.options.Source.Current().Resolve(s.Bucket, s.Prefix+"x")
	if owner.Organization == "" || owner.Profile == nil {
		return expected, nil
	}
	last, _, err := b.options.Index.Receipts(ctx, index.ReceiptQuery{Organization: owner.Organization, State: lake.ReceiptDone, Bucket: s.Bucket, PageSize: rateSample})
	if errors.Is(err, fault.NotFound) {
		return expected, nil
	}
	return max(expected, rateOf(last)), err
}

// rateOf reads bytes a second from finished receipts; zero: they say nothing.
func rateOf(receipts []lake.Receipt) int64 {
	var bytes int64
	var first, last time.Time
	for _, r := range receipts {
		bytes += r.Object.Size
		if first.IsZero() || r.UpdatedAt.Before(first) {
			first = r.UpdatedAt
		}
		if r.UpdatedAt.After(last) {
			last = r.UpdatedAt
		}
	}
	span := last.Sub(first)
	if span < rateSpan {
		return 0
	}
	return int64(float64(bytes) / span.Seconds())
}
